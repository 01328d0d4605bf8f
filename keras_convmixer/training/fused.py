"""Faster equals of ConvMixer's layers for training on TensorFlow: what a layer adds to its kernels, in one pass.

Beside the convolutions, a step's time is spent moving memory. Keras's BatchNormalization takes moments with
operations of their own, where one fused kernel does; adding a bias and applying the exact GELU make twelve passes
over a tensor, where XLA compiles each direction into one. docs/training_speed.md has what each gains.
"""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_convmixer.training.depthwise_gradients import depthwise_convolution


class FusedBatchNormalization(layers.BatchNormalization):
    """BatchNormalization through FusedBatchNormV3 while it trains.

    The running variance averages the unbiased batch variance, as PyTorch's does; Keras's own averages the
    biased one. Everything else equals Keras's.
    """

    def call(self, inputs, training=None, mask=None):
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, tf.cast(self.gamma.value, "float32"), tf.cast(self.beta.value, "float32"), epsilon=self.epsilon
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


class FusedConv2D(layers.Conv2D):
    """A convolution whose bias and activation, GELU or ReLU, are one operation."""

    def call(self, inputs):
        return biased(self.activation, self.convolution_op(inputs, self.kernel), self.bias)


class FusedDepthwiseConv2D(layers.DepthwiseConv2D):
    """A depthwise convolution, stride 1 and "same", whose bias and activation, GELU or ReLU, are one operation."""

    def call(self, inputs):
        outputs = depthwise_convolution(inputs, tf.cast(self.kernel, inputs.dtype))
        return biased(self.activation, outputs, self.bias)


def biased(activation, x, bias):
    """activation(x + bias), of shapes (..., channels) and (channels,), for an activation in `ACTIVATIONS`.

    One pass over the tensor each way, in float32 whatever its type. Of all that it computes it keeps x alone.
    """

    @tf.custom_gradient
    def forward(x, bias):
        def gradient(dy):
            dx = _gradient(activation, x, bias, dy)
            # Faster than a reduction, and in bfloat16 a product is summed in float32.
            rows = tf.reshape(dx, (-1, bias.shape[0]))
            return dx, tf.matmul(tf.ones_like(rows[:, :1]), rows, transpose_a=True)[0]

        return _value(activation, x, bias), gradient

    return forward(x, tf.cast(bias, x.dtype))


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _value(activation, x, bias):
    value, _ = ACTIVATIONS[activation]
    return tf.cast(value(_sum(x, bias)), x.dtype)


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _gradient(activation, x, bias, dy):
    _, derivative = ACTIVATIONS[activation]
    return tf.cast(derivative(_sum(x, bias)) * tf.cast(dy, "float32"), x.dtype)


def _sum(x, bias):
    return tf.cast(x, "float32") + tf.cast(bias, "float32")


# Beyond it, within 1e-6, GELU is 0 or x and its derivative 0 or 1. Infinity itself would make 0 * inf.
_FAR = 5.5


def _gelu(x):  # the exact one, arXiv 1606.08415
    x = tf.maximum(x, -_FAR)
    # Relative precision far below 0 would cost 5 % of a training step and move no value by more than 1e-6.
    return x * (0.5 + 0.5 * tf.math.erf(x * (1 / math.sqrt(2))))


def _polynomial_of_derivative(terms):
    """Coefficients p, lowest first, for which GELU's derivative is 1/2 + x * sum p_i t^i, t = 2 (x / _FAR)² - 1."""
    chebyshev = np.polynomial.chebyshev

    def even(t):
        x = _FAR * np.sqrt((t + 1) / 2)
        return 0.5 * np.vectorize(math.erf)(x / math.sqrt(2)) / x + np.exp(x * x / -2) / math.sqrt(2 * math.pi)

    return chebyshev.cheb2poly(chebyshev.chebinterpolate(even, terms - 1)).tolist()


_DERIVATIVE = _polynomial_of_derivative(terms=16)


def _gelu_derivative(x):
    """Within 5e-7. Half the arithmetic of an error function and an exponential."""
    x = tf.clip_by_value(x, -_FAR, _FAR)
    t = x * x * (2 / _FAR**2) - 1.0
    return 0.5 + x * functools.reduce(lambda sum, coefficient: sum * t + coefficient, _DERIVATIVE[::-1])


# Each activation's value and derivative.
ACTIVATIONS = {
    keras.activations.gelu: (_gelu, _gelu_derivative),
    keras.activations.relu: (tf.nn.relu, lambda x: tf.cast(x > 0, x.dtype)),
}


def fuse(layer, config):
    """The faster equal of a layer, built from its possibly changed config; None where there is none."""
    if keras.backend.backend() != "tensorflow" or layer.compute_dtype == "float64":
        return None
    if isinstance(layer, layers.BatchNormalization) and layer.axis in (-1, 3) and not config["synchronized"]:
        return FusedBatchNormalization.from_config(config)
    if tf.config.list_physical_devices("GPU") or keras.config.image_data_format() != "channels_last":
        return None
    if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
        activation = keras.activations.get(config["activation"])
        fused = FusedDepthwiseConv2D if isinstance(layer, layers.DepthwiseConv2D) else FusedConv2D
        return fused.from_config(config) if activation in ACTIVATIONS else None
    return None
