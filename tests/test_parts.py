"""What a ConvMixer is made of, and all that asks for it."""

import keras
import numpy as np
import pytest

from keras_convmixer import ConvMixer, features, fold
from keras_convmixer.parts import architecture, parameter_count, parts
from keras_convmixer.training.optimizer import rate_multipliers
from keras_convmixer.training.training_model import training_model
from keras_convmixer.weights.load import load_weights
from keras_convmixer.weights.state_dict import save_torch

KINDS = [
    {},
    {"include_top": False},
    {"include_top": False, "pooling": "avg"},
    {"include_top": False, "pooling": "max"},
    {"include_preprocessing": False},
    {"dropout": 0.3},
    {"stochastic_depth": 0.3},
    {"dropout": 0.3, "stochastic_depth": 0.3, "include_preprocessing": False, "classifier_activation": None},
]


def small(seed=0, **arguments):
    keras.utils.set_random_seed(seed)
    sizes = {"dim": 8, "depth": 3, "kernel_size": 3, "patch_size": 2, "input_shape": (16, 16, 3), "num_classes": 5}
    return ConvMixer(**sizes | arguments)


def predict(model, images):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(images, training=False))


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")


@pytest.mark.parametrize("arguments", KINDS, ids=str)
def test_names_every_layer_once(arguments):
    model = small(**arguments)
    found = parts(model)
    flat = [found.normalization, *found.patch_embedding, found.pool, found.dropout, found.head]
    for block in found.blocks:
        flat += [*block.depthwise, *block.pointwise, block.drop]
    named = {layer.name for layer in flat if layer is not None}
    assert len(named) == sum(layer is not None for layer in flat)
    rest = {layer.name for layer in model.layers} - named
    assert rest == {"image", "block_0_add", "block_1_add", "block_2_add"}
    assert [block.pointwise.norm.name for block in found.blocks] == [f"block_{i}_pointwise_norm" for i in range(3)]
    assert [block.drop is not None for block in found.blocks] == [False] + ["stochastic_depth" in arguments] * 2


@pytest.mark.parametrize("arguments", KINDS, ids=str)
def test_fold_features_and_conversion_work_on_whatever_has_parts(arguments, images, tmp_path):
    model = small(**arguments)
    expected = predict(model, images)
    np.testing.assert_allclose(predict(fold(model), images), expected, rtol=1e-3, atol=1e-4)
    maps = predict(features(model), images)
    assert [each.shape for each in maps] == [(2, 8, 8, 8)] * 3
    if arguments == {"include_top": False}:
        np.testing.assert_array_equal(maps[-1], expected)
    save_torch(model, tmp_path / "a.safetensors")
    again = small(seed=1, **arguments)
    load_weights(again, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(predict(again, images), expected)
    assert small(**architecture(model)).count_params() == model.count_params()
    assert rate_multipliers(model, layer_decay=0.5)["block_0_depthwise"] == 0.125


@pytest.mark.parametrize("frozen", [False, True])
def test_parameters_are_those_that_training_may_change(frozen):
    model = small(dropout=0.1)
    expected = sum(weight.numpy().size for weight in model.trainable_weights)
    model.trainable = not frozen
    assert parameter_count(model) == expected == model.count_params() - 7 * 2 * 8  # BatchNorm's mean and variance


@pytest.mark.parametrize("rematerialize", [False, True])
def test_a_clone_made_for_training_has_the_same_parts(rematerialize):
    model = small(dropout=0.1, stochastic_depth=0.1)
    clone = training_model(model, rematerialize=rematerialize)
    own, theirs = ([layer.name for layer in parts(m).blocks[2].pointwise] for m in (model, clone))
    assert own == theirs
    assert rate_multipliers(clone, 0.5, 0.5) == rate_multipliers(model, 0.5, 0.5)


def added(model):
    return keras.Model(model.input, model.output * 2, name="added")


def second_head(model):
    return keras.Model(model.input, keras.layers.Dense(3, name="second_head")(model.output), name="added")


def another_kind(model):
    pooled = model.get_layer("block_2_pointwise_norm").output
    pooled = keras.layers.GlobalMaxPooling2D(name="pool")(pooled)
    return keras.Model(model.input, keras.layers.Dense(3, name="head")(pooled), name="added")


def cut(model):
    return keras.Model(model.input, model.get_layer("block_1_depthwise_norm").output, name="added")


@pytest.mark.parametrize(
    "change, said",
    [
        (added, "it has multiply"),
        (second_head, "it has second_head"),
        (another_kind, "its head does not follow an average pool"),
        (cut, "it lacks block_1_add, block_1_pointwise"),
        (features, "it has 1 inputs and 3 outputs"),
        (fold, "it has "),
    ],
)
@pytest.mark.parametrize("ask", [architecture, features, fold, rate_multipliers, save_torch])
def test_what_was_added_or_left_out_is_said(ask, change, said, tmp_path):
    model = change(small())
    with pytest.raises(
        ValueError, match=f"{model.name} is not a ConvMixer of this package, or was added to: {said}"
    ):
        ask(model, *([tmp_path / "a.safetensors"] if ask is save_torch else []))
    assert list(tmp_path.iterdir()) == []
