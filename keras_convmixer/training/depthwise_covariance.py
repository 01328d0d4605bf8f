"""Depthwise filters drawn as trained ones are distributed (Trockman, Willmott and Kolter, arXiv 2210.03651)."""

import keras
import numpy as np

from keras_convmixer.errors import UserError
from keras_convmixer.parts import parts


def covariance(size, sigma):
    """The closed form of that paper's section on a static covariance, as a matrix `(size², size²)`.

    Filters are smooth, each tap correlated with those about it, and stronger near the centre, the more so the
    smaller `sigma` is, the variance in taps² of the Gaussian that both are made of.
    """
    centre = size // 2
    places = np.arange(size) - centre
    gaussian = np.exp(-(places[:, None] ** 2 + places**2) / (2 * sigma))
    shifted = np.array([[np.roll(gaussian, (i, j), (0, 1)) for j in places] for i in places])
    stationary = shifted.reshape(size**2, size**2)
    rows, columns = gaussian.reshape(-1, 1), gaussian.reshape(1, -1)
    return (rows * (stationary - columns) + columns * stationary) / 2


def draw_depthwise(model, constants):
    """Draws a ConvMixer's depthwise kernels anew, each block's with `sigma` by its depth.

    Of block i of n, sigma is `s + v d + a d² / 2` with `d = i / (n - 1)`. The filters have the mean square of those
    that they replace, so that the scale of what follows stays: that much is ours, not the paper's.

    Args:
        model: a `ConvMixer`. constants: (s, v, a).

    Raises:
        ValueError: sigma is not above 0 somewhere.
    """
    start, speed, acceleration = constants
    blocks = parts(model).blocks
    for i, block in enumerate(blocks):
        depth = i / max(len(blocks) - 1, 1)
        sigma = start + speed * depth + acceleration * depth**2 / 2
        if sigma <= 0:
            raise UserError(f"model.depthwise_covariance {list(constants)} gives block {i} a sigma of {sigma:.3g}")
        kernel = block.depthwise.convolution.kernel
        size, _, channels, _ = kernel.shape
        values, vectors = np.linalg.eigh(covariance(size, sigma))
        values = np.maximum(values, 0)  # the closed form is not quite positive
        root = vectors * np.sqrt(values / values.sum() * size**2)
        before = np.asarray(keras.ops.convert_to_numpy(kernel))
        filters = root @ np.asarray(keras.random.normal((size**2, channels)))
        kernel.assign(np.sqrt(np.mean(before**2)) * filters.reshape(kernel.shape))
