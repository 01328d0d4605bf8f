"""Muon on pointwise kernels: Keras's own on the same matrix; AdamW's on all else."""

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.training.compiled import compiled
from keras_convmixer.training.muon import Muon
from keras_convmixer.training.optimizer import AdamW


def convmixer():
    keras.utils.set_random_seed(0)
    return keras_convmixer.ConvMixer(12, 2, 3, 2, input_shape=(8, 8, 3), num_classes=5, classifier_activation=None)


def gradients(model, step):
    rng = np.random.default_rng(step)
    return [keras.ops.convert_to_tensor(rng.normal(size=v.shape), v.dtype) for v in model.trainable_variables]


def after(optimizer, steps=3):
    """Layer and name → value, after steps of made-up gradients."""
    model = convmixer()
    for step in range(steps):
        optimizer.apply(gradients(model, step), model.trainable_variables)
    return {variable.path: keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables}


MATRICES = ["block_0_pointwise", "block_1_pointwise"]


def is_matrix(path):
    return any(f"{name}/kernel" in path for name in MATRICES)


@pytest.mark.parametrize(("n", "m"), [(12, 12), (5, 16), (16, 5)])
def test_a_pointwise_kernel_moves_as_keras_moves_the_matrix(n, m):
    start = np.random.default_rng(0).normal(size=(n, m)).astype("float32")
    layer = keras.layers.Conv2D(m, 1, use_bias=False, name="mixing")
    layer.build((None, 4, 4, n))
    layer.kernel.assign(start[None, None])
    matrix = keras.Variable(start, name="kernel")
    ours = Muon(0.03, matrices=["mixing"], weight_decay=0.1)
    theirs = keras.optimizers.Muon(0.03, weight_decay=0.1)
    for step in range(4):
        gradient = np.random.default_rng(step + 1).normal(size=(n, m)).astype("float32")
        ours.apply([keras.ops.convert_to_tensor(gradient[None, None])], [layer.kernel])
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [matrix])
    found, expected = (keras.ops.convert_to_numpy(v) for v in (layer.kernel, matrix))
    # Keras lets the decay act before the step, PyTorch and we beside it: they differ by rate² × decay × update.
    np.testing.assert_allclose(found[0, 0], expected, atol=4 * 0.03**2 * 0.1 * 0.2 * 16)
    assert np.abs(expected - start).max() > 0.02


def test_without_decay_to_the_last_digits():
    start = np.random.default_rng(0).normal(size=(6, 9)).astype("float32")
    layer = keras.layers.Conv2D(9, 1, use_bias=False, name="mixing")
    layer.build((None, 4, 4, 6))
    layer.kernel.assign(start[None, None])
    matrix = keras.Variable(start, name="kernel")
    ours, theirs = Muon(0.03, matrices=["mixing"], weight_decay=0), keras.optimizers.Muon(0.03, weight_decay=None)
    for step in range(4):
        gradient = np.random.default_rng(step + 1).normal(size=(6, 9)).astype("float32")
        ours.apply([keras.ops.convert_to_tensor(gradient[None, None])], [layer.kernel])
        theirs.apply([keras.ops.convert_to_tensor(gradient)], [matrix])
    found, expected = (keras.ops.convert_to_numpy(v) for v in (layer.kernel, matrix))
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5, atol=1e-6)


def test_all_else_moves_by_adamw():
    settings = {"weight_decay": 0.1, "epsilon": 1e-3, "multipliers": {"patch_embedding": 0.5}}
    ours, theirs = after(Muon(0.01, matrices=MATRICES, **settings)), after(AdamW(0.01, **settings))
    assert ours.keys() == theirs.keys()
    for path in ours:
        same = np.allclose(ours[path], theirs[path], rtol=1e-6, atol=1e-7)
        assert same != is_matrix(path), path


def test_multipliers_scale_a_matrixs_step():
    start = {variable.path: keras.ops.convert_to_numpy(variable) for variable in convmixer().trainable_variables}
    whole = after(Muon(0.01, matrices=MATRICES, weight_decay=0), steps=1)
    half = after(Muon(0.01, matrices=MATRICES, weight_decay=0, matrix_multiplier=0.5), steps=1)
    tenth = after(Muon(0.01, matrices=MATRICES, weight_decay=0, multipliers={MATRICES[1]: 0.1}), steps=1)
    for path in filter(is_matrix, start):
        step = whole[path] - start[path]
        np.testing.assert_allclose(half[path] - start[path], 0.5 * step, rtol=1e-3, atol=1e-6)
        factor = 0.1 if MATRICES[1] in path else 1.0
        np.testing.assert_allclose(tenth[path] - start[path], factor * step, rtol=1e-2, atol=1e-6)


def test_a_recipe_names_it(small_recipe):
    recipe = Recipe.load("digits", {"optimizer": {"name": "muon", "arguments": {"momentum": 0.8}}})
    model = convmixer()
    optimizer = compiled(recipe, model, steps=3).optimizer
    assert isinstance(optimizer, Muon)
    assert (optimizer.matrices, optimizer.momentum) == (MATRICES, 0.8)
    with pytest.raises(ValueError, match="momentum and matrix_multiplier, not nesterov"):
        compiled(Recipe.load("digits", {"optimizer": {"name": "muon", "arguments": {"nesterov": 1}}}), model, 3)


def test_it_learns_and_resumes(small_recipe, tmp_path):
    recipe = small_recipe("optimizer.name=muon", "training.epochs=4", "model.dim=16", "training.batch_size=64")
    keras_convmixer.train(recipe, tmp_path, verbose=0)
    assert keras_convmixer.evaluate(tmp_path, verbose=0).top(1) > 0.6


def test_its_configuration_makes_its_like():
    optimizer = Muon(0.1, matrices=MATRICES, momentum=0.5, matrix_multiplier=3.0, weight_decay=0.2)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert (again.matrices, again.momentum, again.matrix_multiplier, again.decoupled_decay) == (
        MATRICES,
        0.5,
        3.0,
        0.2,
    )
