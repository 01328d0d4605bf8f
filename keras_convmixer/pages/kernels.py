"""The depthwise kernels of a model as one picture."""

import keras
import numpy as np
from PIL import Image

from keras_convmixer.pages.html import picture, section, tag
from keras_convmixer.parts import parts

_ROWS, _COLUMNS = 16, 32


def kernels(model):
    """The part of a page about them: blocks from the first to the last, of each some channels.

    Args:
        model: a `ConvMixer`.
    """
    convolutions = [block.depthwise.convolution for block in parts(model).blocks]
    weights = [
        keras.ops.convert_to_numpy(convolutions[i].kernel)[..., 0] for i in _spread(len(convolutions), _ROWS)
    ]
    size, _, channels = weights[0].shape
    shown, step = _spread(channels, _COLUMNS), size + 1
    sheet = np.zeros(
        (len(weights) * step - 1, len(shown) * step - 1, 2), np.uint8
    )  # grey and alpha: gaps are clear
    for row, kernel in enumerate(weights):
        for column, channel in enumerate(shown):
            one = kernel[..., channel]
            grey = 127.5 * (1 + one / max(np.abs(one).max(), np.finfo("float32").tiny))
            top, left = row * step, column * step
            sheet[top : top + size, left : left + size] = np.stack([grey.round(), np.full_like(grey, 255)], axis=-1)
    some = "The kernels" if len(shown) == channels else f"{len(shown)} of the {channels:,} kernels"
    words = f"{some} of {size}×{size} of each block, the first at the top"
    words += "" if len(weights) == len(convolutions) else f"; {len(weights)} of {len(convolutions)} blocks"
    words += ". Middle grey is 0, white and black the largest weight of each, positive and negative."
    drawn = picture(Image.fromarray(sheet, "LA"), f"Depthwise kernels of {len(weights)} blocks", class_="kernels")
    return section("Depthwise kernels", tag("figure", drawn, tag("figcaption", words)))


def _spread(count, most):
    """At most so many of the positions up to `count`, evenly over all of them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
