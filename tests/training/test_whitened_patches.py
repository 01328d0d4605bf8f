"""A whitened patch embedding: what comes out of it is uncorrelated and of unit size, from the first image on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_convmixer import ConvMixer
from keras_convmixer.parts import parts
from keras_convmixer.recipes import Recipe
from keras_convmixer.training.sources import OwnData, RecipeData
from keras_convmixer.training.train import train
from keras_convmixer.training.whitened_patches import whiten


def smooth_images(count=64, size=16):
    """Neighbours are much alike, as in photographs, and colours too."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(count, size + 4, size + 4, 3)).cumsum(1).cumsum(2) / 4
    return np.clip(128 + 60 * (rough + rough.mean(-1, keepdims=True)), 0, 255)[:, 4:, 4:].astype("float32")


def embedded(model, images):
    patches = keras.Model(model.input, parts(model).patch_embedding.convolution.output)
    return keras.ops.convert_to_numpy(patches(images)).reshape(-1, model.get_layer("patch_embedding").filters)


@pytest.mark.parametrize("arguments", [{}, {"include_preprocessing": False}])
def test_its_filters_are_the_uncorrelated_directions_then_their_negatives_then_sums(arguments):
    keras.utils.set_random_seed(0)
    images = smooth_images()
    images = images if not arguments else images / 255
    model = ConvMixer(40, 2, 3, 2, input_shape=(16, 16, 3), num_classes=4, **arguments)
    plain = np.corrcoef(embedded(model, images).T)
    assert np.abs(plain[np.triu_indices(40, 1)]).max() > 0.95
    whiten(model, images)
    found = embedded(model, images)
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-3)
    covariance = np.cov(found.T, bias=True)
    # A direction of less variance than noise has comes out smaller.
    assert (np.diag(covariance)[:12] < 1.001).all()
    assert (np.diag(covariance)[:6] > 0.97).all()
    assert np.abs(covariance[:12, :12] - np.diag(np.diag(covariance)[:12])).max() < 1e-3
    np.testing.assert_allclose(found[:, 12:24], -found[:, :12], atol=1e-4)
    kernels = keras.ops.convert_to_numpy(model.get_layer("patch_embedding").kernel).reshape(12, 40)
    weights = np.linalg.lstsq(kernels[:, :12], kernels[:, 24:], rcond=None)[0]
    np.testing.assert_allclose(np.linalg.norm(weights, axis=0), 1, atol=1e-3)


def test_a_narrow_model_gets_the_strongest_directions():
    model = ConvMixer(5, 1, 3, 2, input_shape=(16, 16, 3), num_classes=4)
    whiten(model, smooth_images())
    covariance = np.cov(embedded(model, smooth_images()).T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(5), atol=0.03)


def test_of_a_users_own_batches_the_first_images_are_looked_at():
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(10) % 2)).batch(4)
    own = OwnData(Recipe.load("digits"), (batches, batches), ["a", "b"])
    found = own.sample(None)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images)


def test_a_recipe_asks_for_it_and_training_starts_from_it(tmp_path):
    settings = {
        "model": {"whitened_patches": True, "dim": 40, "depth": 1, "kernel_size": 3},
        "training": {"epochs": 1},
        "optimizer": {"learning_rate": 0.0, "weight_decay": 0.0},
    }
    recipe = Recipe.load("digits", settings)
    trained = train(recipe, tmp_path / "run", verbose=0)
    images = RecipeData(recipe).sample(trained.preprocessing)
    size = trained.model.get_layer("patch_embedding").kernel_size[0]
    directions = min(20, 3 * size**2 // 2)
    strongest = embedded(trained.model, images)[:, : directions // 3]
    np.testing.assert_allclose(np.cov(strongest.T, bias=True), np.eye(directions // 3), atol=0.1)
