"""What the functions of this room take: blocks by number, from 0 as in the layers' names, and images."""

import keras
import numpy as np

from keras_convmixer.errors import UserError
from keras_convmixer.parts import parts

BLOCKS = 4


def chosen_blocks(model, blocks=None):
    """The numbers of the blocks asked for; of None the first, the last and two between them, evenly spaced.

    Raises:
        ValueError: there is no such block, or the model is not a ConvMixer of this package.
    """
    depth = len(parts(model).blocks)
    if blocks is None:
        return [int(i) for i in np.linspace(0, depth - 1, min(BLOCKS, depth)).round()]
    if not len(blocks):
        raise UserError("blocks are to be shown, and none is given: name one, or leave them to the default")
    for block in blocks:
        if block not in range(depth):
            raise UserError(
                f"no block {block}: this model has {f'0 to {depth - 1}' if depth > 1 else 'block 0 alone'}"
            )
    return list(dict.fromkeys(map(int, blocks)))


def known_block(model, block=None):
    """The number of the block asked for; of None the last. Raises as `chosen_blocks`."""
    return len(parts(model).blocks) - 1 if block is None else chosen_blocks(model, [block])[0]


def channels_last(array):
    """A map without its batch as `(rows, columns, channels)`, however Keras is configured."""
    return np.moveaxis(array, 0, -1) if keras.config.image_data_format() == "channels_first" else array


def image_for(model, image):
    """One image as an array, float32, without the batch.

    Raises:
        ValueError: it has not the shape that the model takes.
    """
    image = np.asarray(image, np.float32)
    takes = model.input_shape[1:]
    if image.ndim != 3 or any(side not in (None, own) for side, own in zip(takes, image.shape)):
        raise UserError(f"an image has the shape {image.shape}, and the model takes {takes}, one without the batch")
    return image
