import keras
import numpy as np
import pytest

from keras_convmixer.deployment.prepare import prepared, with_affine_convolutions


def test_affine_convolutions_compute_the_same(bundle, held_out):
    model = with_affine_convolutions(bundle.model)
    np.testing.assert_allclose(model(held_out), bundle.model(held_out), rtol=1e-4, atol=1e-4)
    kinds = {type(layer) for layer in model.layers}
    assert not kinds & {keras.layers.BatchNormalization, keras.layers.Rescaling}


def test_features_are_what_is_pooled(bundle, held_out):
    outputs = prepared(bundle.model, features=True)(held_out)
    head = bundle.model.get_layer("head")
    np.testing.assert_allclose(head(keras.ops.mean(outputs["features"], (1, 2))), outputs["logits"], atol=1e-4)


def test_features_of_a_model_that_pools_nothing():
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(image)))
    with pytest.raises(ValueError, match="no layer named pool"):
        prepared(model, features=True)
