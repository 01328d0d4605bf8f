"""Depthwise kernels drawn with a covariance: the closed form, that filters have it, and that nothing else moves."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer.recipes import Recipe
from keras_convmixer.training.build import build
from keras_convmixer.training.depthwise_covariance import covariance

CLASSES = ("a", "b")


def literal(size, sigma):
    """The formula entry by entry: block (i, j) belongs to the tap (i, j), its entry (l, m) to the tap (l, m)."""
    c = size // 2
    z = {(i, j): np.exp(-((i - c) ** 2 + (j - c) ** 2) / (2 * sigma)) for i in range(size) for j in range(size)}
    taps = list(z)
    found = np.zeros((size**2, size**2))
    for row, (i, j) in enumerate(taps):
        for column, (l, m) in enumerate(taps):  # noqa: E741
            shifted = z[(l - (i - c)) % size, (m - (j - c)) % size]
            found[row, column] = (z[i, j] * (shifted - z[l, m]) + z[l, m] * shifted) / 2
    return found


@given(st.sampled_from([3, 5, 7, 9]), st.floats(0.05, 20))
def test_it_is_the_closed_form(size, sigma):
    found = covariance(size, sigma)
    np.testing.assert_allclose(found, literal(size, sigma), atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.argmax(np.diag(found)) == size**2 // 2


def recipe(**model):
    sizes = {"dim": 4096, "depth": 3, "kernel_size": 5, "patch_size": 4, "input_size": [8, 8]}
    return Recipe.load("digits", {"model": sizes | model}).model


def kernels(model):
    return [keras.ops.convert_to_numpy(model.get_layer(f"block_{i}_depthwise").kernel)[..., 0] for i in range(3)]


def test_filters_are_distributed_so_by_their_depth():
    keras.utils.set_random_seed(0)
    plain = kernels(build(recipe(), CLASSES).model)
    drawn = kernels(build(recipe(depthwise_covariance=[0.5, 1.0, 2.0]), CLASSES).model)
    for before, found, sigma in zip(plain, drawn, (0.5, 0.5 + 0.5 + 0.25, 0.5 + 1 + 1), strict=True):
        assert np.mean(found**2) == pytest.approx(np.mean(before**2), rel=0.05)
        filters = found.reshape(25, -1)
        expected = covariance(5, sigma)
        values, vectors = np.linalg.eigh(expected)
        expected = (vectors * np.maximum(values, 0)) @ vectors.T
        own = filters @ filters.T
        correlation = np.sum(own * expected) / np.linalg.norm(own) / np.linalg.norm(expected)
        assert correlation > 0.99
    assert np.abs(drawn[0]).mean(-1).argmax() == 12


def test_nothing_but_the_depthwise_kernels_is_another():
    keras.utils.set_random_seed(0)
    plain = build(recipe(dim=16), CLASSES).model
    keras.utils.set_random_seed(0)
    drawn = build(recipe(dim=16, depthwise_covariance=[1, 0, 0]), CLASSES).model
    for before, found in zip(plain.weights, drawn.weights, strict=True):
        same = np.array_equal(keras.ops.convert_to_numpy(before), keras.ops.convert_to_numpy(found))
        assert same != (before.path.endswith("depthwise/kernel")), before.path


def test_sigma_must_be_above_zero():
    with pytest.raises(ValueError, match=r"depthwise_covariance \[1.0, -3.0, 0.0\] gives block 1 a sigma of -0.5"):
        build(recipe(dim=8, depthwise_covariance=[1, -3, 0]), CLASSES)
