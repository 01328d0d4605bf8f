"""Trained kernels for another patch size, kernel size or number of input channels.

All take a convolution's weight in PyTorch's order, `(out, in, height, width)`.
"""

import math

import numpy as np


def patch_embedding(weight, patch_size):
    """Resamples patch kernels so that a resized patch embeds like the original (FlexiViT, arXiv 2212.08013, eq. 5).

    The new kernels are those whose inner product with a bilinearly resized patch equals, or where that cannot be
    comes nearest to, the old kernels' with the patch itself: the pseudo-inverse of the resizing, transposed.
    """
    height, width = (np.linalg.pinv(_bilinear(side, patch_size)).T for side in weight.shape[2:])
    return np.einsum("yh,xw,oihw->oiyx", height, width, weight.astype(np.float64)).astype(np.float32)


def _bilinear(old, new):
    """The `(new, old)` matrix of linear interpolation between pixel centres, clamped at the ends."""
    position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(old)))


def depthwise(weight, kernel_size):
    """Pads kernels with zeros, or crops them, about the pixel that "same" padding centres them on.

    A padded kernel computes the same function. Of an even kernel the centre is the pixel before the middle.
    """
    resized = np.zeros((*weight.shape[:2], kernel_size, kernel_size), weight.dtype)
    height, width = (_overlap(side, kernel_size) for side in weight.shape[2:])
    resized[:, :, height[1], width[1]] = weight[:, :, height[0], width[0]]
    return resized


def _overlap(old, new):
    shift = (new - 1) // 2 - (old - 1) // 2
    start, stop = max(0, -shift), min(old, new - shift)
    return slice(start, stop), slice(start + shift, stop + shift)


def channels(weight, count):
    """Sums kernels over the input channels for one channel; repeats and rescales them for more, as timm does."""
    old = weight.shape[1]
    if count == 1:
        return weight.astype(np.float32).sum(axis=1, keepdims=True)
    repeated = np.tile(weight.astype(np.float32), (1, math.ceil(count / old), 1, 1))[:, :count]
    return repeated * np.float32(old / count)
