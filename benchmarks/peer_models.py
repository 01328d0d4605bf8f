"""What the paper compares ConvMixer with, each as short as its idea: ResNet, ViT, MLP-Mixer and ResMLP.

They take what a ConvMixer takes, RGB images in 0–255 that the model normalises itself, and give logits
`(batch, classes)`. Each has a width that `matched` chooses so that it has as many parameters as a given ConvMixer.
What differs from the papers is said with each; none has dropout or stochastic depth, for the recipe is one for all.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import layers

from keras_convmixer.errors import UserError
from keras_convmixer.model import BATCH_NORM, normalization

TOLERANCE = 0.05
_PROBES = (12, 24, 48)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What all architectures share.

    Attributes:
        depth: the ConvMixer's number of blocks.
        patch_size: side of a patch in pixels of the models that have tokens, and twice a ResNet's first stride.
        input_size: (height, width) of an image. classes: how many.
        mean, std: per channel, of images in 0–1.
    """

    depth: int
    patch_size: int
    input_size: tuple[int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def tokens(self):
        return math.prod(side // self.patch_size for side in self.input_size)

    def image(self):
        """The input, and the same normalised."""
        image = keras.Input((*self.input_size, 3), name="image")
        return image, normalization((*self.input_size, 3), list(self.mean), list(self.std))(image)


@keras.saving.register_keras_serializable("keras_convmixer_peers")
class PositionEmbedding(layers.Layer):
    """Adds a learned vector to each token of `(batch, tokens, width)`."""

    def build(self, shape):
        first = keras.initializers.TruncatedNormal(stddev=0.02)
        self.positions = self.add_weight(shape=shape[1:], initializer=first, name="positions")

    def call(self, x):
        return x + self.positions


@keras.saving.register_keras_serializable("keras_convmixer_peers")
class Affine(layers.Layer):
    """ResMLP's stand-in for LayerNorm: a learned scale, and unless told otherwise a shift, of each channel."""

    def __init__(self, first_scale=1.0, shifts=True, **kwargs):
        super().__init__(**kwargs)
        self.first_scale, self.shifts = first_scale, shifts

    def build(self, shape):
        first = keras.initializers.Constant(self.first_scale)
        self.scale = self.add_weight(shape=shape[-1:], initializer=first, name="scale")
        self.shift = self.add_weight(shape=shape[-1:], initializer="zeros", name="shift") if self.shifts else 0.0

    def call(self, x):
        return x * self.scale + self.shift

    def get_config(self):
        return super().get_config() | {"first_scale": self.first_scale, "shifts": self.shifts}


def resnet(width, sizes):
    """A ResNet for small images (arXiv 1512.03385, section 4.2): three stages, each half as large, twice as wide.

    It has as many residual blocks as the ConvMixer has blocks, rounded up to the three stages. Shortcuts to a wider
    stage are 1×1 convolutions.

    Args:
        width: of the last stage.
    """
    image, x = sizes.image()

    def conv_bn(x, filters, kernel_size=3, strides=1):
        x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(**BATCH_NORM)(x)

    def block(x, filters, strides):
        branch = layers.ReLU()(conv_bn(x, filters, strides=strides))
        branch = conv_bn(branch, filters)
        shortcut = x if x.shape[-1] == filters and strides == 1 else conv_bn(x, filters, 1, strides)
        return layers.ReLU()(shortcut + branch)

    stride = max(1, sizes.patch_size // 2)
    x = layers.ReLU()(conv_bn(x, max(1, width // 4), max(3, stride), stride))
    for stage, filters in enumerate((width // 4, width // 2, width)):
        for i in range(-(-sizes.depth // 3)):
            x = block(x, max(1, filters), strides=2 if stage and not i else 1)
    return _classifier(image, layers.GlobalAveragePooling2D()(x), sizes)


def vit(width, sizes):
    """A ViT as DeiT has it (arXiv 2012.12877), with the mean over the tokens in place of a class token.

    Three heads of a third of the width, rounded up; hidden layers of four times the width.
    """
    image, x = _tokens(width, sizes)
    x = PositionEmbedding()(x)
    for _ in range(sizes.depth):
        y = _layer_norm()(x)
        x = x + layers.MultiHeadAttention(3, -(-width // 3))(y, y)
        x = x + _mlp(_layer_norm()(x), 4 * width)
    return _classifier(image, layers.GlobalAveragePooling1D()(_layer_norm()(x)), sizes)


def mlp_mixer(width, sizes):
    """MLP-Mixer (arXiv 2105.01601): hidden layers of half the width over tokens, four times it over channels."""
    image, x = _tokens(width, sizes)
    for _ in range(sizes.depth):
        y = layers.Permute((2, 1))(_layer_norm()(x))
        x = x + layers.Permute((2, 1))(_mlp(y, max(1, width // 2)))
        x = x + _mlp(_layer_norm()(x), 4 * width)
    return _classifier(image, layers.GlobalAveragePooling1D()(_layer_norm()(x)), sizes)


def resmlp(width, sizes):
    """ResMLP (arXiv 2105.03404): one linear layer over the tokens, an MLP over channels, no normalisation.

    The scale of each branch starts at 0.1, the paper's for at most 18 blocks.
    """
    image, x = _tokens(width, sizes)
    for _ in range(sizes.depth):
        y = layers.Permute((2, 1))(Affine()(x))
        x = x + Affine(0.1, shifts=False)(layers.Permute((2, 1))(layers.Dense(sizes.tokens)(y)))
        x = x + Affine(0.1, shifts=False)(_mlp(Affine()(x), 4 * width))
    return _classifier(image, layers.GlobalAveragePooling1D()(Affine()(x)), sizes)


PEERS = {"resnet": resnet, "vit": vit, "mlp_mixer": mlp_mixer, "resmlp": resmlp}


def matched(name, sizes, parameters):
    """The peer with as many trainable parameters as asked for, to within 5 %.

    Args:
        name: one of `PEERS`. sizes: a `Sizes`. parameters: how many.

    Returns:
        A `keras.Model` with random weights.

    Raises:
        UserError: no width gives that many.
    """
    counts = [trainable(PEERS[name](width, sizes)) for width in _PROBES]
    # All grow as a quadratic of the width, up to rounding.
    quadratic = np.poly1d(np.polyfit(_PROBES, counts, 2))
    width = max((quadratic - parameters).roots.real)
    nearest = PEERS[name](max(1, round(width)), sizes)
    if abs(trainable(nearest) - parameters) > TOLERANCE * parameters:
        raise UserError(
            f"no {name} of depth {sizes.depth} has {parameters:,} parameters to within {TOLERANCE:.0%}: the "
            f"nearest has {trainable(nearest):,}; take a ConvMixer with a larger --dim"
        )
    return nearest


def trainable(model):
    """How many trainable parameters a model has."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _tokens(width, sizes):
    """The input, and its patches as tokens `(batch, tokens, width)`."""
    image, x = sizes.image()
    x = layers.Conv2D(width, sizes.patch_size, sizes.patch_size)(x)
    return image, layers.Reshape((sizes.tokens, width))(x)


def _layer_norm():
    return layers.LayerNormalization(epsilon=1e-6)


def _mlp(x, hidden):
    return layers.Dense(x.shape[-1])(layers.Dense(hidden, activation="gelu")(x))


def _classifier(image, features, sizes):
    return keras.Model(image, layers.Dense(sizes.classes, name="head")(features))
