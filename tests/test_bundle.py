import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import Bundle, Preprocessing, bundles

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def saved(tmp_path):
    model = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    ours = Bundle(model, Preprocessing((8, 8), 1.0), CLASSES)
    bundles.save(ours, tmp_path / "m", recipe="seed: 0\n", metrics={"top1": 0.5})
    return ours, tmp_path / "m"


def logits(model):
    return keras.ops.convert_to_numpy(model(np.full((1, 8, 8, 3), 100.0)))


def test_round_trip(saved):
    ours, path = saved
    loaded = keras_convmixer.load(path)
    assert (loaded.preprocessing, loaded.classes, loaded.path) == (ours.preprocessing, CLASSES, path)
    np.testing.assert_array_equal(logits(loaded.model), logits(ours.model))
    assert sorted(p.name for p in path.iterdir()) == [
        "classes.txt",
        "metrics.json",
        "model.keras",
        "preprocessing.json",
        "recipe.yaml",
    ]


def test_a_model_with_softmax_loads_as_logits(saved):
    ours, path = saved
    softmax = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3)
    softmax.set_weights(ours.model.get_weights())
    softmax.save(path / "model.keras")
    np.testing.assert_allclose(logits(keras_convmixer.load(path).model), logits(ours.model), rtol=1e-6)


def test_says_what_is_wrong_with_a_folder(saved, tmp_path):
    _, path = saved
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        keras_convmixer.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"not a model folder: it has no model.keras"):
        keras_convmixer.load(tmp_path)
    (path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match=r"m: the model has 3 outputs, and there are 2 class names"):
        keras_convmixer.load(path)
    (path / "model.keras").write_bytes(b"not a model")
    (path / "classes.txt").write_text("ant\nbee\ncow\n")
    with pytest.raises(ValueError, match="cannot be loaded"):
        keras_convmixer.load(path)


def test_code_in_a_model_file_is_not_run(saved):
    _, path = saved
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x, output_shape=(3,))(outputs)).save(path / "model.keras")
    with pytest.raises(ValueError, match="cannot be loaded"):
        keras_convmixer.load(path)
