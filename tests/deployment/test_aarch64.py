"""TFLite files on the processors of phones, emulated (tests/aarch64.py): they say there what they say here."""

import os

import numpy as np
import pytest
from aarch64 import PROCESSORS, Emulator

import keras_convmixer
from keras_convmixer import shipped
from keras_convmixer.data import datasets
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.deployment.export import export
from keras_convmixer.exported import runtimes

pytestmark = pytest.mark.slow

IMAGES = 50
# quantization → how far a probability may be from the one here; docs/platforms.md has what was measured
TOLERANCES = {"none": 1e-5, "float16": 1e-5, "dynamic": 0.01, "int8": 0.01}


@pytest.fixture(scope="module")
def emulator():
    folder = os.environ.get("CONVMIXER_AARCH64")
    if not folder:
        pytest.skip("needs an emulated aarch64: python tests/aarch64.py FOLDER, then set CONVMIXER_AARCH64=FOLDER")
    return Emulator(folder)


@pytest.fixture(scope="module", params=shipped.names())
def model(request):
    return request.param


@pytest.fixture(scope="module")
def data(model, request):
    return model if model == "digits" else request.getfixturevalue("cifar10_archive")


@pytest.fixture(scope="module")
def images(model, data):
    """Held-out images as the model takes them: float32 (50, height, width, 3)."""
    held_out = datasets.open_dataset(data).held_out().spread(IMAGES)
    batches = evaluation_batches(held_out, keras_convmixer.load(model).preprocessing, IMAGES)
    return next(batches.as_numpy_iterator())[0]


@pytest.fixture(scope="module", params=TOLERANCES)
def quantize(request):
    return request.param


@pytest.fixture(scope="module")
def file(model, data, quantize, tmp_path_factory):
    out = tmp_path_factory.mktemp(model)
    return export(model, out, format="tflite", quantize=quantize, data=data, compare=False).path


@pytest.mark.parametrize("processor", PROCESSORS)
def test_gives_the_same_classes_and_probabilities(emulator, processor, file, images, quantize):
    here = runtimes.open_tflite(file, 1)(images)["probabilities"]
    there = emulator.probabilities(processor, file, images)
    np.testing.assert_array_equal(there.argmax(axis=1), here.argmax(axis=1))
    np.testing.assert_allclose(there, here, rtol=0, atol=TOLERANCES[quantize])
