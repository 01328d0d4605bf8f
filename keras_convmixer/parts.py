"""What a ConvMixer consists of: its layers by what they do, and the sizes that can be read off them."""

import dataclasses
import re

import keras
import numpy as np

from keras_convmixer.errors import UserError

_KNOWN = re.compile(
    r"image|normalization|(patch_embedding|block_\d+_(depthwise|pointwise))(_activation|_norm)?"
    r"|block_\d+_(drop|add)|pool|dropout|head"
)


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with its activation and its BatchNorm, in the order in which they act."""

    layer: keras.layers.Layer
    activation: keras.layers.Layer
    norm: keras.layers.Layer

    @property
    def name(self):
        return self.layer.name


@dataclasses.dataclass(frozen=True)
class Block:
    """x + drop(depthwise(x)), then pointwise. Without stochastic depth, `drop` is None."""

    depthwise: Convolution
    pointwise: Convolution
    drop: keras.layers.Layer | None


@dataclasses.dataclass(frozen=True)
class Parts:
    """A ConvMixer's layers; None for what it is built without."""

    normalization: keras.layers.Layer | None
    patch_embedding: Convolution
    blocks: tuple[Block, ...]
    pool: keras.layers.Layer | None
    dropout: keras.layers.Layer | None
    head: keras.layers.Layer | None

    @property
    def depth(self):
        return len(self.blocks)

    @property
    def convolutions(self):
        """All of them, from the image on."""
        mixing = (part for block in self.blocks for part in (block.depthwise, block.pointwise))
        return (self.patch_embedding, *mixing)


def parts(model: keras.Model) -> Parts:
    """The `Parts` of a model that `ConvMixer` built, or of a copy whose layers have the same names.

    Raises:
        UserError (a ValueError): it is no such model, or something was added to it.
    """
    by_name = {layer.name: layer for layer in model.layers}
    depth = sum(re.fullmatch(r"block_\d+_pointwise", name) is not None for name in by_name)
    names = ["patch_embedding", *(f"block_{i}_{kind}" for i in range(depth) for kind in ("depthwise", "pointwise"))]
    needed = [f"{name}{part}" for name in names for part in ("", "_activation", "_norm")]
    foreign = [name for name in by_name if not _KNOWN.fullmatch(name)]
    missing = [name for name in needed if name not in by_name]
    if foreign or missing or not depth:
        problem = (
            f"it has {', '.join(foreign[:5])}" if foreign else f"it lacks {', '.join(missing[:5]) or 'blocks'}"
        )
        raise UserError(f"{model.name} is not a ConvMixer of this package, or was added to: {problem}")

    def convolution(name):
        return Convolution(by_name[name], by_name[f"{name}_activation"], by_name[f"{name}_norm"])

    blocks = tuple(
        Block(
            convolution(f"block_{i}_depthwise"), convolution(f"block_{i}_pointwise"), by_name.get(f"block_{i}_drop")
        )
        for i in range(depth)
    )
    rest = {name: by_name.get(name) for name in ("normalization", "pool", "dropout", "head")}
    return Parts(patch_embedding=convolution("patch_embedding"), blocks=blocks, **rest)


def architecture(model):
    """The arguments with which `ConvMixer` builds a model's like, read off its layers.

    Raises:
        UserError (a ValueError): the model is not one that `ConvMixer` built.
    """
    found = parts(model)
    arguments = {
        "dim": found.patch_embedding.layer.filters,
        "depth": found.depth,
        "kernel_size": found.blocks[0].depthwise.layer.kernel_size[0],
        "patch_size": found.patch_embedding.layer.kernel_size[0],
        "activation": keras.activations.serialize(found.patch_embedding.activation.activation),
        "include_preprocessing": found.normalization is not None,
        "include_top": found.head is not None,
    }
    if found.normalization is not None:
        scale, offset = np.ravel(found.normalization.scale), np.ravel(found.normalization.offset)
        arguments |= {"mean": list(-offset / scale / 255), "std": list(1 / scale / 255)}
    return arguments


def features(model: keras.Model) -> keras.Model:
    """A model with the layers and weights of `model` that gives every block's output, for dense tasks.

    Args:
        model: a `ConvMixer`, with its top or without.

    Returns:
        A `keras.Model` of the same input. Its outputs are a list of `depth` maps, the first block's first, each of
        shape `(batch, height // patch_size, width // patch_size, dim)`, or channels first as Keras is configured.

    Raises:
        UserError (a ValueError): the model is not a ConvMixer of this package.
    """
    blocks = [block.pointwise.norm.output for block in parts(model).blocks]
    return keras.Model(model.input, blocks, name=f"{model.name}_features")
