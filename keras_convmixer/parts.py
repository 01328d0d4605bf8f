"""What a ConvMixer is made of, read off a model: its layers by name, its sizes, its blocks' outputs."""

import math
import re
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from keras_convmixer.errors import UserError

# Every layer of a ConvMixer, by its name.
_KINDS = {
    r"normalization": layers.Rescaling,
    r"patch_embedding|block_\d+_pointwise": layers.Conv2D,
    r"block_\d+_depthwise": layers.DepthwiseConv2D,
    r"(patch_embedding|block_\d+_(depthwise|pointwise))_activation": layers.Activation,
    r"(patch_embedding|block_\d+_(depthwise|pointwise))_norm": layers.BatchNormalization,
    r"block_\d+_add": layers.Add,
    r"block_\d+_drop|dropout": layers.Dropout,
    r"pool": layers.GlobalAveragePooling2D | layers.GlobalMaxPooling2D,
    r"head": layers.Dense,
}


class Mixing(NamedTuple):
    """A convolution and what follows it."""

    convolution: layers.Layer
    activation: layers.Layer
    norm: layers.Layer


class Block(NamedTuple):
    """The depthwise part, whose result `drop` (or None) may leave out of the sum, then the pointwise part."""

    depthwise: Mixing
    pointwise: Mixing
    drop: layers.Layer | None


class Parts(NamedTuple):
    """The layers of a ConvMixer in their order, None for what it lacks."""

    normalization: layers.Layer | None
    patch_embedding: Mixing
    blocks: tuple[Block, ...]
    pool: layers.Layer | None
    dropout: layers.Layer | None
    head: layers.Layer | None


def parts(model: keras.Model) -> Parts:
    """The `Parts` of a `ConvMixer`, with its top or without.

    Args:
        model: a `ConvMixer` as built, trained or loaded, or a clone whose layers have the same names and are of the
            same kinds, or wrap such.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or something was added to it.
    """
    # Not its layers alone: of `model.output * 2` the multiplication is none.
    by_name = {operation.name: operation for operation in getattr(model, "operations", model.layers)}
    depth = sum(re.fullmatch(r"block_\d+_depthwise", name) is not None for name in by_name)
    mixing = [f"block_{i}_{kind}" for i in range(depth) for kind in ("depthwise", "pointwise")]
    needed = {f"{name}{part}" for name in ("patch_embedding", *mixing) for part in ("", "_activation", "_norm")}
    needed |= {f"block_{i}_add" for i in range(max(depth, 1))}
    foreign = [name for name, layer in by_name.items() if not _is_known(name, layer)]
    if foreign or not needed <= by_name.keys():
        lacking = sorted(needed - by_name.keys())
        problem = f"it has {', '.join(foreign[:5])}" if foreign else f"it lacks {', '.join(lacking[:5])}"
        raise _refusal(model, problem)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _refusal(model, f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs")
    head, pool = by_name.get("head"), by_name.get("pool")
    if head and not isinstance(pool, layers.GlobalAveragePooling2D):
        raise _refusal(model, "its head does not follow an average pool")

    def mixed(name):
        return Mixing(by_name[name], by_name[f"{name}_activation"], by_name[f"{name}_norm"])

    blocks = tuple(
        Block(mixed(f"block_{i}_depthwise"), mixed(f"block_{i}_pointwise"), by_name.get(f"block_{i}_drop"))
        for i in range(depth)
    )
    return Parts(by_name.get("normalization"), mixed("patch_embedding"), blocks, pool, by_name.get("dropout"), head)


def features(model: keras.Model) -> keras.Model:
    """A model with the layers and weights of `model` that gives every block's output, for dense tasks.

    Args:
        model: a `ConvMixer`, with its top or without.

    Returns:
        A `keras.Model` of the same input. Its outputs are a list of `depth` maps, the first block's first, each of
        shape `(batch, height // patch_size, width // patch_size, dim)`, or channels first as Keras is configured.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or something was added to it.
    """
    maps = [block.pointwise.norm.output for block in parts(model).blocks]
    return keras.Model(model.input, maps, name=f"{model.name}_features")


def architecture(model):
    """The arguments with which `ConvMixer` builds a model's like, read off its layers.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or something was added to it.
    """
    found = parts(model)
    patches, activation, _ = found.patch_embedding
    arguments = {
        "dim": patches.filters,
        "depth": len(found.blocks),
        "kernel_size": found.blocks[0].depthwise.convolution.kernel_size[0],
        "patch_size": patches.kernel_size[0],
        "activation": keras.activations.serialize(activation.activation),
        "include_preprocessing": found.normalization is not None,
        "include_top": found.head is not None,
    }
    if found.normalization:
        scale, offset = np.ravel(found.normalization.scale), np.ravel(found.normalization.offset)
        arguments |= {"mean": list(-offset / scale / 255), "std": list(1 / scale / 255)}
    return arguments


def parameter_count(model):
    """How many parameters a model has, whether frozen or not. BatchNorm's moving statistics are none."""
    statistics = ("moving_mean", "moving_variance")
    return sum(math.prod(weight.shape) for weight in model.weights if weight.name not in statistics)


def _is_known(name, layer):
    if isinstance(layer, layers.InputLayer):
        return True
    kinds = (kind for pattern, kind in _KINDS.items() if re.fullmatch(pattern, name))
    return any(isinstance(layer, kind | layers.Wrapper) for kind in kinds)


def _refusal(model, problem):
    return UserError(f"{model.name} is not a ConvMixer of this package, or was added to: {problem}")
