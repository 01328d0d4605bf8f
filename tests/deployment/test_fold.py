"""A folded model computes what the model does, with fewer operations. Runs under whatever KERAS_BACKEND is set."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_convmixer import ConvMixer, fold


def randomised(seed=0, gamma=0.5, **arguments):
    """A ConvMixer whose BatchNorms have seen something: scales of both signs, shifts, statistics."""
    sizes = {"dim": 24, "depth": 3, "kernel_size": 5, "patch_size": 2, "input_shape": (23, 20, 3), "num_classes": 7}
    keras.utils.set_random_seed(seed)
    model = ConvMixer(**sizes | arguments)
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            statistics = rng.normal(0, 0.5, n), rng.uniform(0.2, 2, n)
            layer.set_weights([rng.normal(gamma, 0.5, n), rng.normal(0, 0.5, n), *statistics])
    return model


def images(model, seed=1, most=255.0):
    shape = (3, *model.input_shape[1:])
    return np.random.default_rng(seed).uniform(0, most, shape).astype("float32")


def assert_same(model, batch, tolerance=1e-5):
    expected = keras.ops.convert_to_numpy(model(batch, training=False))
    found = keras.ops.convert_to_numpy(fold(model)(batch))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("activation", ["relu", "gelu", "leaky_relu", "silu"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"classifier_activation": None},
        {"include_top": False},
        {"include_top": False, "pooling": "avg"},
        {"include_top": False, "pooling": "max"},
        {"include_preprocessing": False},
        {"dropout": 0.3, "stochastic_depth": 0.3},
        {"depth": 1},
        {"kernel_size": 4},
        {"kernel_size": 9, "patch_size": 1},
        {"input_shape": (20, 20, 1)},
    ],
    ids=str,
)
def test_computes_the_same(activation, arguments):
    model = randomised(activation=activation, **arguments)
    assert_same(model, images(model, most=1.0 if "include_preprocessing" in arguments else 255.0))


@settings(max_examples=15)
@given(
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from(["relu", "gelu"]),
    st.floats(-1, 1),
)
def test_computes_the_same_whatever_the_sizes(dim, depth, kernel_size, patch_size, activation, gamma):
    model = randomised(
        gamma=gamma,
        dim=dim,
        depth=depth,
        kernel_size=kernel_size,
        patch_size=patch_size,
        activation=activation,
        classifier_activation=None,
    )
    assert_same(model, images(model))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_channels_that_training_switched_off(activation):
    model = randomised(activation=activation)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, *others = layer.get_weights()
            gamma[::3], gamma[1::3] = 0, 1e-12
            layer.set_weights([gamma, *others])
    assert_same(model, images(model))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="JAX has no float64 unless it is set up for it; under PyTorch Keras normalises and pools it in float32",
)
def test_in_float64_to_its_own_rounding():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        # Keras's Rescaling rounds its lists to float32 first.
        model = randomised(include_preprocessing=False)
        assert_same(model, images(model, most=1.0).astype("float64"), 1e-13)
    finally:
        keras.config.set_dtype_policy(policy)


def test_a_mixed_precision_model_is_folded_into_float32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = randomised(classifier_activation=None)
    finally:
        keras.config.set_dtype_policy(policy)
    folded = fold(model)
    assert {layer.compute_dtype for layer in folded.layers} == {"float32"}
    found, expected = (keras.ops.convert_to_numpy(m(images(model))) for m in (folded, model))
    assert np.abs(found - expected).max() < 0.2


@pytest.mark.parametrize(
    "activation, positive, per_block", [("relu", True, 2), ("relu", False, 3), ("gelu", False, 4)]
)
def test_what_remains_for_each_channel(activation, positive, per_block):
    model = randomised(activation=activation, classifier_activation=None, depth=2)
    if positive:
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                gamma, *others = layer.get_weights()
                layer.set_weights([np.abs(gamma), *others])
    kinds = [type(layer).__name__ for layer in fold(model).operations]
    assert not {"BatchNormalization", "Rescaling", "Activation", "Dropout"} & set(kinds)
    assert kinds.count("Conv2D") + kinds.count("DepthwiseConv2D") == 5
    # The patch embedding's own and the first block's, of which the last block's pass into the head.
    assert kinds.count("Add") + kinds.count("Multiply") == per_block * 2


def test_the_original_is_untouched_and_a_folded_model_loads_in_safe_mode(tmp_path):
    model = randomised()
    before = [np.array(weight) for weight in model.get_weights()]
    folded = fold(model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert folded.layers[-1].name == "head"
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras", safe_mode=True)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(again(images(model))), keras.ops.convert_to_numpy(folded(images(model)))
    )


def test_other_models_are_refused():
    image = keras.Input((8, 8, 3))
    other = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)), name="other")
    with pytest.raises(ValueError, match="other is not a ConvMixer of this package, or was added to: it has "):
        fold(other)
    model = randomised()
    longer = keras.Model(model.input, keras.layers.Dense(3, name="second_head")(model.output), name="longer")
    with pytest.raises(ValueError, match=r"longer is not a ConvMixer.*second_head"):
        fold(longer)
    with pytest.raises(ValueError, match="is not a ConvMixer"):
        fold(fold(model))
