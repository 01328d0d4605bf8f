"""A patch embedding that begins by whitening its patches, as airbench (arXiv 2404.00498) begins."""

import keras
import numpy as np

from keras_convmixer.parts import parts

# Below it a direction's variance is taken for noise, which whitening would blow up.
EPSILON = 5e-4


def whiten(model, images):
    """Sets the kernel of a ConvMixer's patch embedding so that it whitens the patches of some images.

    The first filters are the principal directions of a patch, each divided by its standard deviation, then their
    negatives, since an activation shows one side of each. The others are sums of these with random weights of unit
    length. So each filter's output has mean square 1 and, but for the sums, no two are correlated. airbench leaves
    the layer at that; here it is trained like any other.

    Args:
        model: a `ConvMixer`. images: training images as it takes them, RGB in 0–255, `(n, height, width, 3)`.
    """
    own = parts(model)
    kernel = own.patch_embedding.convolution.kernel
    size, _, channels, dim = kernel.shape
    if own.normalization:
        images = keras.ops.convert_to_numpy(own.normalization(images))
    n, height, width, _ = images.shape
    rows, columns = height // size, width // size
    cut = images[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    patches = cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, size * size * channels).astype(np.float64)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False, bias=True))
    whitening = (vectors / np.sqrt(values + EPSILON))[:, ::-1]  # the strongest direction first
    directions = np.concatenate([whitening, -whitening], 1)[:, :dim]
    weights = np.asarray(keras.random.normal((whitening.shape[1], dim - directions.shape[1])), np.float64)
    sums = whitening @ (weights / np.linalg.norm(weights, axis=0))
    filters = np.concatenate([directions, sums], 1)
    kernel.assign(filters.reshape(kernel.shape))
    own.patch_embedding.convolution.bias.assign(-mean @ filters)  # patches lie about their mean, not about 0
