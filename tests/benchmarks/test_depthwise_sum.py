"""A depthwise convolution as a sum of smaller ones."""

import keras
import numpy as np
import pytest
from depthwise_sum import LARGEST, depthwise_sum, tiles


@pytest.mark.parametrize("side", range(1, 32))
def test_small_kernels_reach_every_tap_and_none_outside(side):
    size, starts = tiles(side)
    assert size <= LARGEST
    assert size % 2 or side <= LARGEST
    assert {tap for start in starts for tap in range(start, start + size)} == set(range(side))


@pytest.mark.parametrize("side", [3, 8, 9, 10, 15])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_the_sum_is_exact(side, layout):
    """Of small whole numbers, whose sums float32 holds without rounding, so that one tap too many would show."""
    rng = np.random.default_rng(side)
    shape = (2, 7, 11, 3) if layout == "channels_last" else (2, 3, 7, 11)
    x = rng.integers(-4, 5, shape).astype("float32")
    kernel = rng.integers(-4, 5, (side, side, 3, 1)).astype("float32")
    expected = keras.ops.depthwise_conv(x, kernel, padding="same", data_format=layout)
    np.testing.assert_array_equal(depthwise_sum(x, kernel, layout), expected)
