"""The model that a recipe asks for."""

import keras
import numpy as np
import pytest

from keras_convmixer import Preprocessing, Recipe, bundles
from keras_convmixer.errors import UserError
from keras_convmixer.parts import architecture
from keras_convmixer.recipes.sections import Model
from keras_convmixer.training.build import build, preprocessing
from keras_convmixer.variants import get_variant

SIZES = {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 2}


def made(classes=("a", "b", "c"), **settings):
    return build(Model(**SIZES | {"input_size": (8, 8)} | settings), classes)


def test_sizes_and_rates_are_the_recipes():
    bundle = made(activation="relu", dropout=0.25, stochastic_depth=0.5, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert bundle.classes == ("a", "b", "c")
    assert bundle.model.output_shape == (None, 3)
    assert bundle.model.input_shape == (None, 8, 8, 3)
    assert SIZES.items() <= architecture(bundle.model).items()
    assert bundle.model.get_layer("patch_embedding_activation").activation is keras.activations.relu
    rates = {layer.rate for layer in bundle.model.layers if isinstance(layer, keras.layers.Dropout)}
    assert 0.25 in rates
    assert 0.5 in rates
    expected = (100 / 255 - np.array([0.1, 0.2, 0.3])) / [0.4, 0.5, 0.6]
    found = bundle.model.get_layer("normalization")(np.full((1, 8, 8, 3), 100.0, "float32"))[0, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    images = bundle.preprocessing
    assert (images.input_size, images.mean, images.std) == ((8, 8), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_output_is_logits():
    model = made().model
    assert model.get_layer("head").activation is keras.activations.linear
    assert "softmax" not in {layer.name for layer in model.layers}


def test_a_variant_gives_what_the_recipe_leaves_open():
    recipe = Model(variant="convmixer_tiny", dim=8, crop=0.5)
    bundle, variant = build(recipe, ["a", "b"]), get_variant("convmixer_tiny")
    sizes = architecture(bundle.model)
    assert sizes["dim"] == 8
    assert sizes["kernel_size"] == variant.kernel_size
    assert bundle.preprocessing.crop == 0.5
    assert bundle.preprocessing.mean == variant.preprocessing.mean
    assert bundle.preprocessing == preprocessing(recipe)


def test_without_a_variant_images_are_prepared_as_by_default():
    assert preprocessing(Model(**SIZES)) == Preprocessing()
    assert preprocessing(Model(**SIZES, interpolation="bilinear")) == Preprocessing(interpolation="bilinear")


@pytest.mark.parametrize("missing", SIZES)
def test_a_size_that_nothing_gives_is_named(missing):
    with pytest.raises(UserError, match=rf"give model.variant, or also model\.{missing}$"):
        made(**{missing: None})


@pytest.fixture
def start(tmp_path):
    bundle = made(mean=(0.1, 0.2, 0.3), activation="relu")
    bundles.save(bundle, tmp_path / "start", recipe=Recipe().to_yaml())
    return tmp_path / "start", bundle


def test_a_folder_gives_architecture_preprocessing_and_weights(start):
    folder, bundle = start
    found = build(Model(weights=str(folder), dropout=0.5), bundle.classes)
    assert architecture(found.model) == architecture(bundle.model)
    assert found.preprocessing == bundle.preprocessing == preprocessing(Model(weights=str(folder)))
    for ours, theirs in zip(found.model.get_weights(), bundle.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.model.get_layer("patch_embedding_activation").activation is keras.activations.relu
    assert any(isinstance(layer, keras.layers.Dropout) for layer in found.model.layers)


def test_a_folders_head_is_for_its_own_classes(start):
    folder, bundle = start
    with pytest.warns(UserWarning, match="new head"):
        found = build(Model(weights=str(folder)), ("a", "c", "b"))
    for name, same in (("block_1_pointwise", True), ("head", False)):
        ours, theirs = (model.get_layer(name).get_weights()[0] for model in (found.model, bundle.model))
        assert np.array_equal(ours, theirs) is same


def test_a_folder_is_resampled_only_where_the_recipe_says_so(start):
    folder, bundle = start
    found = build(Model(weights=str(folder), kernel_size=5), bundle.classes)
    ours, theirs = (m.get_layer("block_0_depthwise").get_weights()[0] for m in (found.model, bundle.model))
    np.testing.assert_array_equal(ours[1:-1, 1:-1], theirs)
    with pytest.raises(UserError, match="does not fit the model"):
        build(Model(weights=str(folder), dim=9), bundle.classes)


def test_a_file_of_weights_is_loaded(start):
    folder, bundle = start
    for given in (SIZES, {"variant": "convmixer_tiny", **SIZES}):
        recipe = Model(**given, input_size=(8, 8), activation="relu", weights=str(folder / "model.keras"))
        found = build(recipe, bundle.classes).model
        for ours, theirs in zip(found.get_weights(), bundle.model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
