"""ConvMixer, after "Patches Are All You Need?" (arXiv 2201.09792).

`ConvMixer()` reads next to the paper's listing: a patch embedding, then `depth` blocks of a residual
depthwise convolution (spatial mixing) and a pointwise convolution (channel mixing), each followed by its
activation and then BatchNorm, then a global average pool and a linear head. Only stock Keras layers are used,
so a saved file loads wherever Keras does, in safe mode and without this package.
"""

import math
import numbers
import os
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers

from keras_convmixer.errors import UserError
from keras_convmixer.preprocessing import IMAGENET_MEAN, IMAGENET_STD

# PyTorch's BatchNorm2d: eps 1e-5, momentum 0.1, which Keras counts from the other side.
BATCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}


def ConvMixer(
    dim: int,
    depth: int,
    kernel_size: int = 9,
    patch_size: int = 7,
    *,
    include_top: bool = True,
    include_preprocessing: bool = True,
    weights: str | os.PathLike | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    input_tensor: keras.KerasTensor | None = None,
    pooling: str | None = None,
    num_classes: int = 1000,
    classifier_activation: str | None = "softmax",
    activation: str | Callable = "gelu",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    mean: float | Sequence[float] | np.ndarray | None = None,
    std: float | Sequence[float] | np.ndarray | None = None,
    name: str = "convmixer",
) -> keras.Model:
    """Builds a ConvMixer. `ConvMixer(1536, 20, kernel_size=9, patch_size=7)` is the paper's ConvMixer-1536/20.

    Input: images of shape `(batch, height, width, channels)` (or channels first, as Keras is configured), RGB,
    in the range 0 to 255; the model normalises them itself. Output: class probabilities `(batch, num_classes)`.

    Args:
        dim: width: the number of channels of every block (the paper's h).
        depth: number of blocks.
        kernel_size: side of the depthwise kernels, in patches (the paper's k).
        patch_size: side and stride of the patch embedding, in pixels (the paper's p). What remains of an image
            that it does not divide is ignored, as in the reference implementation.
        include_top: whether to end in pooling and the classification head.
        include_preprocessing: whether the model begins with `(x / 255 - mean) / std`. If False, it takes images
            that are already normalised.
        weights: None for random weights, or the path or https:// address of a ConvMixer's `.safetensors`, `.pth`,
            `.pth.tar`, `.keras` or `.weights.h5` file, or a model folder. They must fit; but a head for another
            number of classes is started anew, with a warning, and the patch embedding is adapted to other than its
            number of channels. A warning says where a `.keras` file has another activation, mean or std.
        input_shape: image shape without the batch. Default `(224, 224, 3)`, or the shape of `input_tensor`. Height
            and width may be None.
        input_tensor: a Keras tensor to take as the images, such as a `keras.Input` or what layers of your own make
            of one; the model then begins at their input.
        pooling: what a model without its top ends in: None for the last block's map, "avg" or "max".
        num_classes: number of classes of the head.
        classifier_activation: "softmax", or None for logits.
        activation: of every convolution: "gelu" (exact), "relu", any Keras name or callable.
        dropout: rate before the head.
        stochastic_depth: rate at which the last block's depthwise branch is dropped for a whole image during
            training; earlier blocks' rates rise to it linearly from 0 (arXiv 1603.09382).
        mean, std: a finite number or one for each channel, as a sequence or an array, for images scaled to 0–1; std
            above 0. Default: ImageNet's, or for other than three channels the averages of ImageNet's.
        name: name of the model.

    Returns:
        A `keras.Model`, with PyTorch's BatchNorm constants and initial distributions.

    Raises:
        ValueError: an argument is out of range, or the weights do not fit. TypeError: an argument is unknown or of
        the wrong type. OSError: the weights are not there or cannot be downloaded.
    """
    input_shape = _checked_input_shape(input_shape, input_tensor, patch_size)
    _check_arguments(dim, depth, kernel_size, num_classes, pooling, include_top, dropout, stochastic_depth)
    _check_activation(activation)

    def act_bn(x, conv):
        x = layers.Activation(activation, name=f"{conv.name}_activation")(conv(x))
        return layers.BatchNormalization(axis=_channel_axis(), name=f"{conv.name}_norm", **BATCH_NORM)(x)

    def residual(x, branch, drop_rate, name):
        if drop_rate:
            # One draw per image drops the whole branch.
            branch = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(branch)
        return layers.Add(name=f"{name}_add")([x, branch])

    image = keras.Input(input_shape, name="image") if input_tensor is None else input_tensor
    x = normalization(input_shape, mean, std)(image) if include_preprocessing else image
    x = act_bn(x, patch_embedding(dim, patch_size, channels_of(input_shape)))
    for i in range(depth):
        drop_rate = stochastic_depth * i / max(depth - 1, 1)
        x = residual(x, act_bn(x, depthwise(dim, kernel_size, f"block_{i}_depthwise")), drop_rate, f"block_{i}")
        x = act_bn(x, pointwise(dim, f"block_{i}_pointwise"))

    if include_top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        if dropout:
            x = layers.Dropout(dropout, name="dropout")(x)
        x = head(dim, num_classes, classifier_activation)(x)
    elif pooling == "avg":
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    elif pooling == "max":
        x = layers.GlobalMaxPooling2D(name="pool")(x)

    model = keras.Model(image, x, name=name)
    if weights is not None:
        from keras_convmixer.weights.load import load_weights

        load_weights(model, weights)
    if input_tensor is not None:
        sources = keras.utils.get_source_inputs(input_tensor)
        model = keras.Model(sources if len(sources) > 1 else sources[0], x, name=name)
    return model


def patch_embedding(dim, patch_size, channels):
    return layers.Conv2D(
        dim,
        patch_size,
        strides=patch_size,
        kernel_initializer=_uniform_fan_in(),
        bias_initializer=_uniform(patch_size * patch_size * channels),
        name="patch_embedding",
    )


def depthwise(dim, kernel_size, name):
    return layers.DepthwiseConv2D(
        kernel_size,
        padding="same",
        # Keras counts a depthwise kernel's fan-in as k*k*dim; PyTorch, whose bound this is, as k*k.
        depthwise_initializer=_uniform_fan_in(scale=dim / 3),
        bias_initializer=_uniform(kernel_size * kernel_size),
        name=name,
    )


def pointwise(dim, name):
    return layers.Conv2D(dim, 1, kernel_initializer=_uniform_fan_in(), bias_initializer=_uniform(dim), name=name)


def head(dim, num_classes, activation):
    # float32 whatever the precision policy: the softmax, or the loss, is computed from it.
    return layers.Dense(
        num_classes,
        activation=activation,
        kernel_initializer=_uniform_fan_in(),
        bias_initializer=_uniform(dim),
        dtype="float32" if keras.config.dtype_policy().name.startswith("mixed") else None,
        name="head",
    )


def normalization(input_shape, mean=None, std=None):
    """The layer that computes `(x / 255 - mean) / std`, in float32 at least whatever the precision policy."""
    channels = channels_of(input_shape)
    if mean is None:
        mean = IMAGENET_MEAN if channels == 3 else sum(IMAGENET_MEAN) / 3
    if std is None:
        std = IMAGENET_STD if channels == 3 else sum(IMAGENET_STD) / 3
    mean, std = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    if min(std) <= 0:
        raise UserError(f"std must be greater than 0, got {std}")
    scale = [1 / (255 * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std)]
    if _channel_axis() == 1:
        scale, offset = [[[v]] for v in scale], [[[v]] for v in offset]
    dtype = "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
    return layers.Rescaling(scale, offset, dtype=dtype, name="normalization")


def _uniform_fan_in(scale=1 / 3):
    """U(±1/√fan_in), PyTorch's initial distribution of convolution and linear weights."""
    return keras.initializers.VarianceScaling(scale, "fan_in", "uniform")


def _uniform(fan_in):
    bound = 1 / math.sqrt(fan_in)
    return keras.initializers.RandomUniform(-bound, bound)


def _channel_axis():
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def channels_of(input_shape):
    return input_shape[0] if _channel_axis() == 1 else input_shape[-1]


def _per_channel(name, value, channels):
    try:
        values = np.atleast_1d(np.asarray(value, "float64"))
    except (TypeError, ValueError, OverflowError):
        values = np.array([np.nan])
    if values.ndim != 1 or not np.isfinite(values).all():
        raise UserError(f"{name} must be a finite number, or one for each channel, got {value!r:.80}")
    if len(values) not in (1, channels):
        raise UserError(f"{name} has {len(values)} values, but input_shape has {channels} channels")
    return np.broadcast_to(values, channels).tolist()


def _checked_input_shape(input_shape, input_tensor, patch_size):
    _check_positive_int("patch_size", patch_size)
    first = _channel_axis() == 1
    if input_tensor is not None:
        if not isinstance(input_tensor, keras.KerasTensor):
            raise TypeError(f"input_tensor must be a Keras tensor, such as a keras.Input, got {input_tensor!r:.80}")
        if input_shape is not None and tuple(input_shape) != input_tensor.shape[1:]:
            raise UserError(f"input_tensor has the shape {input_tensor.shape[1:]}, input_shape is {input_shape}")
        input_shape = input_tensor.shape[1:]
    if input_shape is None:
        return (3, 224, 224) if first else (224, 224, 3)
    input_shape = tuple(input_shape)
    layout = "(channels, height, width)" if first else "(height, width, channels)"
    if len(input_shape) != 3:
        raise UserError(f"input_shape must be {layout}, got {input_shape}")
    _check_positive_int("the number of channels in input_shape", channels_of(input_shape))
    for side in input_shape[1:] if first else input_shape[:2]:
        if side is not None:
            _check_positive_int(f"each side of input_shape {layout}", side)
            if side < patch_size:
                raise UserError(f"patch_size {patch_size} is larger than the input, {input_shape} {layout}")
    return input_shape


def _check_arguments(dim, depth, kernel_size, num_classes, pooling, include_top, dropout, stochastic_depth):
    _check_positive_int("dim", dim)
    _check_positive_int("depth", depth)
    _check_positive_int("kernel_size", kernel_size)
    if include_top:
        _check_positive_int("num_classes", num_classes)
    if pooling not in (None, "avg", "max"):
        raise UserError(f'pooling must be None, "avg" or "max", got {pooling!r}')
    for name, rate in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
        if not 0 <= rate < 1:
            raise UserError(f"{name} must be at least 0 and below 1, got {rate!r}")


def _check_activation(activation):
    try:
        keras.activations.get(activation)
    except ValueError:
        raise UserError(f"activation must be gelu, relu or another of Keras's, got {activation!r}") from None


def _check_positive_int(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")
