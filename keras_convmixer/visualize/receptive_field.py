"""How far a block sees: as its layers allow, and as its gradient shows."""

from collections.abc import Iterable

import keras
import numpy as np

from keras_convmixer.errors import UserError
from keras_convmixer.parts import architecture, parts
from keras_convmixer.visualize.arguments import channels_last, image_for, known_block
from keras_convmixer.visualize.gradients import gradient


def receptive_field(model: keras.Model, block: int | None = None) -> int:
    """The side, in pixels, of what one place of a block's output can depend on: its theoretical receptive field.

    Args:
        model: a `ConvMixer`, with its top or without. block: its number, from 0; default the last.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or has no such block.
    """
    sizes, convolutions = architecture(model), known_block(model, block) + 1
    return (1 + convolutions * (sizes["kernel_size"] - 1)) * sizes["patch_size"]


def effective_receptive_field(
    model: keras.Model, images: Iterable[np.ndarray], block: int | None = None
) -> np.ndarray:
    """How much each pixel moves the middle place of a block's output (Luo et al. 2016, arXiv 1701.04128).

    The gradient of that place's sum over all channels by the pixels, its absolute value summed over the colours,
    on average over the images.

    Args:
        model: a `ConvMixer`, with its top or without.
        images: one or more, each as `feature_maps` takes it, of one size. They are taken one at a time.
        block: its number, from 0; default the last.

    Returns:
        float32 `(height, width)`: each pixel's share, at least 0, which add up to 1.

    Raises:
        ValueError: there is no image; the model is not a ConvMixer of this package, or has no such block.
    """
    output = parts(model).blocks[known_block(model, block)].pointwise.norm.output
    part = keras.Model(model.input, output)
    first = keras.config.image_data_format() == "channels_first"

    def middle(x):
        found = part(x, training=False)
        rows, columns = found.shape[2:] if first else found.shape[1:3]
        place = (rows // 2, columns // 2)
        return found[(0, slice(None), *place) if first else (0, *place)]

    total = 0
    for image in images:
        total = total + np.abs(channels_last(gradient(middle, image_for(model, image)[None])[0])).sum(axis=-1)
    if np.ndim(total) == 0:
        raise UserError("the effective receptive field is an average over images: give at least one")
    return (total / max(total.sum(dtype=np.float64), np.finfo("float32").tiny)).astype(np.float32)


def side_holding(field: np.ndarray, share: float, patch_size: int) -> int:
    """Side, in pixels, of the smallest square of whole patches around the middle one that holds a share.

    Args:
        field: what `effective_receptive_field` gives. share: of its sum, from 0 to 1. patch_size: the model's.
    """
    place = [side // patch_size // 2 for side in field.shape]
    for reach in range(max(field.shape) // patch_size + 1):
        rows, columns = (slice(max(i - reach, 0) * patch_size, (i + reach + 1) * patch_size) for i in place)
        # Shares are float32, and what lies behind the last whole patch has none.
        if field[rows, columns].sum(dtype=np.float64) >= share - 1e-6:
            break
    return (2 * reach + 1) * patch_size
