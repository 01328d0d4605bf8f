"""A model's convolution kernels as arrays of small images."""

import keras
import numpy as np

from keras_convmixer.parts import parts
from keras_convmixer.visualize.arguments import known_block


def depthwise_kernels(model: keras.Model, block: int | None = None) -> np.ndarray:
    """The kernels of a block's depthwise convolution (arXiv 2201.09792).

    Args:
        model: a `ConvMixer`, with its top or without. block: its number, from 0; default the last.

    Returns:
        float `(dim, kernel_size, kernel_size)`: channel, row, column.

    Raises:
        ValueError: the model is not a ConvMixer of this package, or has no such block.
    """
    layer = parts(model).blocks[known_block(model, block)].depthwise.convolution
    return keras.ops.convert_to_numpy(layer.kernel)[..., 0].transpose(2, 0, 1)


def patch_embeddings(model: keras.Model) -> np.ndarray:
    """The filters of the patch embedding, which work on normalised images.

    Args:
        model: a `ConvMixer`, with its top or without.

    Returns:
        float `(dim, patch_size, patch_size, channels)`: filter, row, column, colour.

    Raises:
        ValueError: the model is not a ConvMixer of this package.
    """
    layer = parts(model).patch_embedding.convolution
    return keras.ops.convert_to_numpy(layer.kernel).transpose(3, 0, 1, 2)
