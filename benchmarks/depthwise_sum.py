"""A depthwise convolution as the sum of ones with smaller square kernels: the same function, to rounding.

cuDNN has fast depthwise kernels for channels last in half precision, for square kernels of odd side up to 7. A 9×9
kernel takes slow paths, but is the sum of four 5×5 ones at its corners. Where these overlap, one of them has the
tap and the others have 0.
"""

import itertools

import numpy as np
from keras import ops

LARGEST = 7


def tiles(side):
    """The side of the small kernels along one axis, at most `LARGEST`, and the taps at which they begin."""
    count = -(-side // LARGEST)
    if count == 1:
        return side, (0,)
    size = -(-side // count) // 2 * 2 + 1
    return size, tuple(i * (side - size) // (count - 1) for i in range(count))


def depthwise_sum(x, kernel, data_format="channels_last"):
    """What `keras.ops.depthwise_conv(x, kernel, padding="same")` computes.

    Args:
        x: images, four axes. kernel: (side, side, channels, 1). data_format: of x.
    """
    side = kernel.shape[0]
    size, starts = tiles(side)
    first = 1 if data_format == "channels_last" else 2
    height, width = x.shape[first : first + 2]
    around = [[0, 0]] * 4
    around[first : first + 2] = [[(side - 1) // 2, side // 2]] * 2
    padded = ops.pad(x, around)

    # Along an axis, a tap belongs to the first small kernel that reaches it.
    ends = (0, *(start + size for start in starts))
    own = {start: np.arange(start, start + size) >= end for start, end in zip(starts, ends)}
    total = 0
    for row, column in itertools.product(starts, starts):
        taps = ops.cast(np.outer(own[row], own[column])[..., None, None], kernel.dtype)
        part = kernel[row : row + size, column : column + size] * taps
        reach = (slice(row, row + height + size - 1), slice(column, column + width + size - 1))
        reach = padded[(slice(None),) * first + reach]
        total += ops.depthwise_conv(reach, part, padding="valid", data_format=data_format)
    return total
