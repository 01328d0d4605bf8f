"""The depthwise kernels of a model as one picture."""

import numpy as np
from PIL import Image

from keras_convmixer.pages.html import picture, section, tag
from keras_convmixer.parts import parts
from keras_convmixer.visualize.kernels import depthwise_kernels
from keras_convmixer.visualize.tiles import signed, some

_ROWS, _COLUMNS = 16, 32


def kernels(model):
    """The part of a page about them: blocks from the first to the last, of each some channels.

    Args:
        model: a `ConvMixer`.
    """
    depth = len(parts(model).blocks)
    of_blocks = [depthwise_kernels(model, block) for block in some(np.arange(depth), _ROWS)]
    channels, size, _ = of_blocks[0].shape
    shown, step = min(channels, _COLUMNS), size + 1
    # grey and alpha: gaps are clear
    sheet = np.zeros((len(of_blocks) * step - 1, shown * step - 1, 2), np.uint8)
    for row, found in enumerate(of_blocks):
        for column, one in enumerate(127.5 * (1 + signed(some(found, _COLUMNS)))):
            top, left = row * step, column * step
            sheet[top : top + size, left : left + size] = np.stack([one.round(), np.full_like(one, 255)], axis=-1)
    counted = "The kernels" if shown == channels else f"{shown} of the {channels:,} kernels"
    words = f"{counted} of {size}×{size} of each block, the first at the top"
    words += "" if len(of_blocks) == depth else f"; {len(of_blocks)} of {depth} blocks"
    words += ". Middle grey is 0, white and black the largest weight of each, positive and negative."
    drawn = picture(Image.fromarray(sheet, "LA"), f"Depthwise kernels of {len(of_blocks)} blocks", class_="kernels")
    return section("Depthwise kernels", tag("figure", drawn, tag("figcaption", words)))
