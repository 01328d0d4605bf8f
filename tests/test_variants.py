import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer.variants import VARIANTS

PARAMETERS = {
    "convmixer_1536_20": 51_625_960,
    "convmixer_1536_20_ks9_p14": 52_303_336,
    "convmixer_768_32": 21_110_248,
    "convmixer_1024_20_ks9_p14": 24_383_464,
    "convmixer_256_8_ks5_p2": 594_186,
    "convmixer_256_8_ks9_p1": 706_570,
    "convmixer_tiny": 4_970,
}


def test_every_variant_is_pinned():
    assert set(keras_convmixer.list_models()) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    model = keras_convmixer.create_model(name)
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert count == PARAMETERS[name] == VARIANTS[name].parameters
    assert model.name == name
    assert model.input_shape[1:3] == VARIANTS[name].preprocessing.input_size


def test_explicit_arguments_win():
    model = keras_convmixer.create_model("convmixer_tiny", num_classes=3, input_shape=(24, 20, 3), name="mine")
    assert (model.name, model.input_shape, model.output_shape) == ("mine", (None, 24, 20, 3), (None, 3))


def test_takes_other_channels():
    model = keras_convmixer.create_model("convmixer_tiny", input_shape=(32, 32, 1))
    assert model.output_shape == (None, 10)


def test_768_32_is_the_relu_one():
    model = keras_convmixer.create_model("convmixer_768_32", input_shape=(28, 28, 3))
    assert model.get_layer("block_0_depthwise_activation").activation is keras.activations.relu


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'convmixer_768_32'"):
        keras_convmixer.create_model("convmixer_768_23")
    with pytest.raises(TypeError, match="did you mean 'dropout'"):
        keras_convmixer.create_model("convmixer_tiny", drop_out=0.1)
