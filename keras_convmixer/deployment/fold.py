"""The same function in fewer operations.

In a ConvMixer BatchNorm follows the activation, so that no converter can fold it into the convolution before it.
At inference it is a scale and a shift for each channel, and the next layers can carry most of that. In a block

    z = s act(depthwise(x)) + t + x          x' = s' act(pointwise(z)) + t'

- t goes through the pointwise convolution, whose bias takes it over.
- The last block's s' and t' go through the average pool into the head.
- The other t' stay, as additions: the next depthwise convolution pads x with zeros, so that a shift cannot pass
  it at the border.
- For ReLU, where act(c v) = c act(v) if c > 0, the sizes of s and s' go back into the convolutions before it. Of
  their signs nothing remains but, where s and s' differ in them, a change of sign of x before z is summed: x and z
  are computed with some channels negative, which the next kernels make good.
- For GELU s and s' stay, as multiplications.

The normalisation of the image goes into the patch embedding, which pads nothing. Dropout is gone.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keras_convmixer.parts import parts

HOMOGENEOUS = ("relu", "leaky_relu", "linear")


class Convolution(NamedTuple):
    """A kernel in Keras's order, and its bias."""

    kernel: np.ndarray
    bias: np.ndarray


class Affine(NamedTuple):
    """x * scale + shift for each channel. None: there is nothing to multiply by."""

    scale: np.ndarray | None
    shift: np.ndarray


class Block(NamedTuple):
    """z = branch act(depthwise(x)) + skip x; a = act(pointwise(z)); x = after(a). None: nothing to multiply by.

    The last block has no `after`: what follows takes a as it is.
    """

    depthwise: Convolution
    branch: np.ndarray | None
    skip: np.ndarray | None
    pointwise: Convolution
    after: Affine | None


class Folded(NamedTuple):
    """The inference of a ConvMixer in numbers, in float32 (float64 if the model is), and its activation.

    x = first(act(patches(image))), then the blocks. From the last one's bare activation a, `features(a)` is the
    model's last map, and `head(average(a))` its logits, if it has a head.
    """

    activation: Callable
    patches: Convolution
    first: Affine
    blocks: tuple[Block, ...]
    features: Affine
    head: Convolution | None


def fold(model: keras.Model) -> keras.Model:
    """The same inference in fewer operations, for deployment.

    Args:
        model: a `ConvMixer`, with its top or without, as built, trained or loaded, under any backend and precision
            policy. It is left as it is.

    Returns:
        A new `keras.Model` with the same input and output, of stock layers, in float32 (float64 if the model is).
        It has neither BatchNorm nor dropout and cannot be trained further. It equals the model to rounding.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or something was added to it.
    """
    return model_of(folded(model), model)


def model_of(numbers: Folded, model: keras.Model) -> keras.Model:
    """The inference in numbers as a `keras.Model`, with the input, top and data format of the one it came from."""
    own = parts(model)
    activation, data_format = numbers.activation, own.patch_embedding.convolution.data_format
    dtype = _dtype(own)

    def conv(kind, name, numbers, *size, **arguments):
        common = {"activation": activation, "data_format": data_format, "dtype": dtype, "name": name}
        return _with(numbers, kind(*size, **arguments, **common))

    def times(x, factor):
        return x if factor is None else x * _per_channel(factor, x, data_format)

    def affine(x, numbers):
        return times(x, numbers.scale) + _per_channel(numbers.shift, x, data_format)

    image = keras.Input(model.inputs[0].shape[1:], name="image")
    patch_size, _, _, dim = numbers.patches.kernel.shape
    x = conv(layers.Conv2D, "patch_embedding", numbers.patches, dim, patch_size, strides=patch_size)(image)
    x = affine(x, numbers.first)
    for i, block in enumerate(numbers.blocks):
        kernel_size = block.depthwise.kernel.shape[:2]
        mix = conv(layers.DepthwiseConv2D, f"block_{i}_depthwise", block.depthwise, kernel_size, padding="same")
        z = times(mix(x), block.branch) + times(x, block.skip)
        x = conv(layers.Conv2D, f"block_{i}_pointwise", block.pointwise, dim, 1)(z)
        x = affine(x, block.after) if block.after else x

    pool, head = own.pool, own.head
    pooled = (lambda x: type(pool).from_config(pool.get_config() | {"dtype": dtype})(x)) if pool else lambda x: x
    if head:
        head = layers.Dense(head.units, activation=head.activation, dtype=dtype, name="head")
        x = _with(numbers.head, head)(pooled(x))
    elif isinstance(pool, layers.GlobalAveragePooling2D):
        x = affine(pooled(x), numbers.features)
    else:
        x = pooled(affine(x, numbers.features))
    return keras.Model(image, x, name=model.name)


def folded(model):
    """The `Folded` numbers of a ConvMixer. Raises ValueError for any other model."""
    own = parts(model)
    activation = own.patch_embedding.activation.activation
    homogeneous = is_homogeneous(activation)

    def scale_and_shift(norm):
        """A BatchNorm's scale in three factors, what goes before its activation, after it and into x; its shift."""
        scale, shift = _batch_norm(norm)
        ones = np.ones_like(scale)
        if homogeneous:
            return np.abs(scale), ones, np.where(scale < 0, -1.0, 1.0), shift
        return ones, scale, ones, shift

    kernel, bias = _weights(own.patch_embedding.convolution)
    if own.normalization:
        kernel, bias = _after_normalization(own.normalization, kernel, bias)
    before, after, sign, shift = scale_and_shift(own.patch_embedding.norm)
    patches = Convolution(kernel * before, bias * before)
    first = _affine(after, shift * sign)

    blocks = []
    for depthwise, pointwise, _ in own.blocks:
        kernel, bias = _weights(depthwise.convolution)
        before, branch, sign_z, shift_z = scale_and_shift(depthwise.norm)
        mixing = Convolution(kernel * (sign * before)[:, None], bias * before)
        skip = sign * sign_z

        kernel, bias = _weights(pointwise.convolution)
        bias = bias + shift_z @ kernel[0, 0]
        kernel = kernel * sign_z[:, None]
        if len(blocks) < len(own.blocks) - 1:
            before, after, sign, shift = scale_and_shift(pointwise.norm)
            kernel, bias = kernel * before, bias * before
            out = _affine(after, shift * sign)
        else:
            out = None
        blocks.append(Block(mixing, _factor(branch), _factor(skip), Convolution(kernel, bias), out))

    scale, shift = _batch_norm(own.blocks[-1].pointwise.norm)
    head = None
    if own.head:
        kernel, *bias = _weights(own.head)
        head = Convolution(kernel * scale[:, None], sum(bias, shift @ kernel))
    return _cast(Folded(activation, patches, first, tuple(blocks), Affine(scale, shift), head), _dtype(own))


def is_homogeneous(activation):
    """Whether act(c v) = c act(v) for c > 0."""
    return keras.activations.serialize(activation) in HOMOGENEOUS


def _dtype(own):
    return "float64" if own.patch_embedding.convolution.variable_dtype == "float64" else "float32"


def _weights(layer):
    return [np.asarray(weight, "float64") for weight in layer.get_weights()]


def _batch_norm(layer):
    gamma, beta, mean, variance = _weights(layer)
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale, beta - mean * scale


def _after_normalization(layer, kernel, bias):
    channels = kernel.shape[2]
    scale, offset = (np.broadcast_to(np.ravel(value), channels) for value in (layer.scale, layer.offset))
    return kernel * scale[:, None], bias + np.einsum("hwio,i->o", kernel, offset)


def _affine(scale, shift):
    return Affine(_factor(scale), shift)


def _factor(values):
    return None if np.all(values == 1) else values


def _cast(numbers, dtype):
    if isinstance(numbers, np.ndarray):
        return numbers.astype(dtype)
    if isinstance(numbers, tuple):
        parts = [_cast(part, dtype) for part in numbers]
        return type(numbers)(*parts) if hasattr(numbers, "_fields") else tuple(parts)
    return numbers


def _per_channel(values, x, data_format):
    return values[:, None, None] if len(x.shape) == 4 and data_format == "channels_first" else values


def _with(numbers, layer):
    """The layer as a function that sets its weights once it is built."""

    def call(x):
        y = layer(x)
        layer.set_weights(numbers)
        return y

    return call
