"""Ranges by which activations are rounded to 8 bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer.deployment import ranges

bound = st.floats(0.01, 1e4)


@given(bound, bound)
def test_a_range_on_the_grid_has_zero_on_it_and_moves_by_half_a_step_at_most(below, above):
    low, high = ranges.on_grid(-below, above)
    scale, zero = ranges.scale_and_zero(low, high)
    assert scale == pytest.approx((above + below) / 255)
    assert -low / scale == pytest.approx(zero, abs=1e-6)
    assert 0 <= zero <= 255
    assert abs(low + below) <= scale * 0.501


@given(st.integers(0, 2**16), st.floats(0.1, 10))
def test_the_best_range_loses_no_more_than_the_whole_one(seed, spread):
    values = np.random.default_rng(seed).standard_t(2, (500, 4)) * spread
    values = values.astype("float16").astype("float32")
    seen = ranges.Seen()
    seen.add(values)

    def lost(low, high):
        scale, zero = ranges.scale_and_zero(low, high)
        steps = np.clip(np.round(values / scale), -zero, 255 - zero)
        return np.mean((steps * scale - values) ** 2)

    low, high = ranges.best_range(seen)
    assert values.min() <= low <= 0 <= high <= values.max()
    assert lost(low, high) <= lost(min(values.min(), 0), max(values.max(), 0)) * (1 + 1e-6)


def test_what_was_seen_is_of_all_images():
    seen = ranges.Seen()
    for image in ([[0.0, 1.0]], [[-1.0, 3.0]]):
        seen.add(np.array(image, "float32"))
    assert seen.low.tolist() == [-1, 1]
    assert seen.high.tolist() == [0, 3]
    assert seen.counts.sum() == 4


def test_a_channel_that_weighs_nothing_has_no_say_in_the_range():
    values = np.random.default_rng(0).normal(size=(500, 2)).astype("float16").astype("float32") * [1, 50]
    plain, weighted, alone = ranges.Seen(), ranges.Seen(weights=np.array([1.0, 0.0])), ranges.Seen()
    for seen, its in ((plain, values), (weighted, values), (alone, values[:, :1])):
        seen.add(its)
    assert weighted.counts.sum() == alone.counts.sum() == 500
    assert (weighted.counts == alone.counts).all()
    assert ranges.best_range(weighted)[1] < 0.2 * ranges.best_range(plain)[1]


def test_nothing_is_kept_of_what_gelu_cuts():
    seen = ranges.Seen()
    seen.add(np.array([[-50.0], [3.0]], "float32"))
    assert ranges.best_range(seen, before_gelu=True) == (ranges.GELU_TAIL, 3.0)


def test_of_zeros_alone_there_is_a_range():
    seen = ranges.Seen(counted=False)
    seen.add(np.zeros((3, 2), "float32"))
    assert ranges.best_range(seen) == (0, 1)
