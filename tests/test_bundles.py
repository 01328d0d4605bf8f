import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer import Preprocessing, bundles

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def saved(tmp_path):
    model = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    ours = bundles.Bundle(model, Preprocessing((8, 8), 1.0), CLASSES)
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
    with pytest.raises(ValueError, match=r"3 outputs, classes.txt 2 names"):
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


@pytest.fixture
def plain():
    """As `model.fit` leaves one: with a softmax, and without class names."""
    return keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3)


def probabilities(model):
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits(model)))


@pytest.mark.parametrize("end", ["dense", "softmax layer", "activation layer"])
def test_a_softmax_at_the_end_is_not_taken_twice(plain, end):
    expected = logits(plain)
    if end != "dense":
        bare = bundles.as_logits(plain)
        last = keras.layers.Softmax() if end == "softmax layer" else keras.layers.Activation("softmax")
        plain = keras.Model(bare.input, last(bare.output))
    bundle = keras_convmixer.Bundle(plain, Preprocessing((8, 8), 1.0), CLASSES)
    np.testing.assert_allclose(probabilities(bundle.model), expected, rtol=1e-5)


def test_a_keras_model_and_its_file_load_with_class_names(plain, tmp_path):
    plain.save(tmp_path / "mine.keras")
    (tmp_path / "names").write_text("ant\nbee\ncow\n")
    of_model, of_file = (
        keras_convmixer.load(plain, classes=CLASSES),
        keras_convmixer.load(tmp_path / "mine.keras", classes=tmp_path / "names"),
    )
    for loaded in (of_model, of_file):
        assert (loaded.classes, loaded.preprocessing.input_size) == (CLASSES, (8, 8))
        np.testing.assert_allclose(probabilities(loaded.model), logits(plain), rtol=1e-5)
    assert keras_convmixer.load(of_model) is of_model


@pytest.mark.parametrize(
    "classes, message",
    [
        (None, r"names 3 classes, but not how they are called: give classes=\[...\]"),
        (["a"], "3 outputs, .* 1 class"),
    ],
)
def test_a_model_without_the_right_names_is_refused(plain, classes, message):
    with pytest.raises(ValueError, match=message):
        keras_convmixer.load(plain, classes=classes)


def test_a_folder_has_class_names_of_its_own(saved):
    with pytest.raises(ValueError, match="has class names of its own"):
        keras_convmixer.load(saved[1], classes=CLASSES)


def test_other_models_are_refused():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(ValueError, match="is not a ConvMixer of this package"):
        keras_convmixer.load(model, classes=CLASSES)


def test_weights_that_are_not_finite_are_refused(saved):
    ours, path = saved
    weights = ours.model.get_weights()
    weights[3][0] = np.nan
    ours.model.set_weights(weights)
    ours.model.save(path / "model.keras")
    with pytest.raises(ValueError, match="is not finite, as after a training that diverged"):
        keras_convmixer.load(path)
