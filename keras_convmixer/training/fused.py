"""Faster equals of three Keras layers for training on TensorFlow: BatchNorm everywhere, GELU and depthwise on CPUs.

Most of these layers' time is spent moving memory. Keras's BatchNormalization takes moments with operations of
their own, where one fused kernel does; its exact GELU makes eleven passes over its tensor, where XLA compiles
each direction into one; and TensorFlow's depthwise kernel is half as fast as the shifted sum that XLA compiles.
"""

import functools
import math

import keras
import tensorflow as tf
from keras import layers


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


@tf.custom_gradient
def gelu(x):
    """The exact GELU, x Φ(x) (arXiv 1606.08415). Its gradient keeps x alone."""
    return _gelu(x), lambda dy: _gelu_gradient(x, dy)


@tf.function(jit_compile=True, autograph=False)
def _gelu(x):
    return x * 0.5 * (1 + tf.math.erf(x * (1 / math.sqrt(2))))


@tf.function(jit_compile=True, autograph=False)
def _gelu_gradient(x, dy):
    cumulative = 0.5 + 0.5 * tf.math.erf(x * (1 / math.sqrt(2)))
    density = tf.exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    return dy * (cumulative + x * density)


class ShiftedDepthwiseConv2D(layers.DepthwiseConv2D):
    """A depthwise convolution, stride 1 and "same", as a sum of shifted images while it trains."""

    def call(self, inputs, training=None):
        if not training or None in inputs.shape:
            return super().call(inputs)
        outputs = shifted_depthwise(inputs, tf.cast(self.kernel, inputs.dtype))
        return self.activation(outputs + tf.cast(self.bias, inputs.dtype))


@tf.custom_gradient
def shifted_depthwise(x, kernel):
    """What `tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME")` computes, for a channel multiplier of 1."""
    before, after = (kernel.shape[0] - 1) // 2, kernel.shape[0] // 2

    def gradient(dy):
        dx = _shifted_sum(dy, tf.reverse(kernel, (0, 1)), after, before)
        dk = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=x, filter_sizes=kernel.shape, out_backprop=dy, strides=[1] * 4, padding="SAME"
        )
        return dx, dk

    return _shifted_sum(x, kernel, before, after), gradient


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _shifted_sum(x, kernel, before, after):
    height, width = x.shape[1:3]
    padded = tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
    return sum(
        padded[:, i : i + height, j : j + width] * kernel[i, j, :, 0]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )


def fuse(layer, config):
    """The faster equal of a layer, built from its possibly changed config; None where there is none."""
    if keras.backend.backend() != "tensorflow" or layer.compute_dtype == "float64":
        return None
    if isinstance(layer, layers.BatchNormalization) and layer.axis in (-1, 3) and not layer.synchronized:
        return FusedBatchNormalization.from_config(config)
    if tf.config.list_physical_devices("GPU"):
        return None
    if isinstance(layer, layers.Activation) and layer.activation is keras.activations.gelu:
        return layers.Activation.from_config(config | {"activation": gelu})
    if isinstance(layer, layers.DepthwiseConv2D) and keras.config.image_data_format() == "channels_last":
        return ShiftedDepthwiseConv2D.from_config(config)
    return None
