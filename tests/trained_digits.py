"""A small model, trained a little on the digits, as a run folder."""

import keras
import numpy as np
import pytest

from keras_convmixer import bundles
from keras_convmixer.data import datasets
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.model import ConvMixer
from keras_convmixer.preprocessing import Preprocessing
from keras_convmixer.recipes import Recipe


@pytest.fixture(scope="session")
def digits():
    return datasets.open_dataset("digits")


@pytest.fixture(scope="session")
def bundle(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    preprocessing = Preprocessing((8, 8), 1.0)
    keras.utils.set_random_seed(0)
    model = ConvMixer(32, 2, 3, 2, input_shape=(8, 8, 3), num_classes=10, classifier_activation=None)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    images = digits.training()
    batches = evaluation_batches(images, preprocessing, 512).as_numpy_iterator()
    model.fit(np.concatenate([pixels for pixels, _ in batches]), images.labels, batch_size=64, epochs=6, verbose=0)
    bundles.save(bundles.Bundle(model, preprocessing, digits.classes), folder, recipe=Recipe().to_yaml())
    return bundles.load(folder)


@pytest.fixture(scope="session")
def held_out(digits, bundle):
    """64 held-out digits as the model takes them: float32 (64, 8, 8, 3)."""
    return next(evaluation_batches(digits.held_out(), bundle.preprocessing, 64).as_numpy_iterator())[0]


@pytest.fixture(scope="session")
def expected(bundle, held_out):
    """The Keras model's probabilities of them."""
    return keras.ops.convert_to_numpy(keras.ops.softmax(bundle.model(held_out)))
