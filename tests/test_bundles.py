import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import keras_convmixer
from keras_convmixer import Bundle, ConvMixer, Preprocessing, bundles, load, predict
from keras_convmixer.cli import main
from keras_convmixer.errors import UserError
from keras_convmixer.preprocessing import IMAGENET_STD
from keras_convmixer.weights.state_dict import save_torch

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


def test_the_model_file_of_a_folder_stands_for_it(saved):
    ours, path = saved
    loaded = keras_convmixer.load(path / "model.keras")
    assert (loaded.preprocessing, loaded.classes, loaded.path) == (ours.preprocessing, CLASSES, path)
    assert keras_convmixer.load(path / "model.keras", ["x", "y", "z"]).classes == ("x", "y", "z")
    (path / "preprocessing.json").unlink()  # and so it is a file alone
    assert keras_convmixer.load(path / "model.keras", CLASSES).path is None


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


def model(**arguments):
    keras.utils.set_random_seed(0)
    sizes = {"depth": 1, "kernel_size": 3, "patch_size": 2, "input_shape": (8, 8, 3), "num_classes": 3}
    return ConvMixer(8, **sizes | arguments)


def own_head(top):
    """A classifier of one's own upon a ConvMixer without its top."""
    base = model(include_top=False, pooling="avg")
    scores = keras.layers.Dense(3, name="scores")(base.output)
    return keras.Model(base.input, top(scores))


HEADS = {
    "softmax": lambda: model(),
    "logits": lambda: model(classifier_activation=None),
    "softmax after logits": lambda: own_head(keras.layers.Softmax()),
    "activation after logits": lambda: own_head(keras.layers.Activation("softmax", dtype="float32")),
    "own logits": lambda: own_head(lambda scores: scores),
}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype="uint8")).save(path)
    return path


def probabilities(ours, photo):
    answer = keras.ops.convert_to_numpy(ours(np.asarray(Image.open(photo), "float32")[None]))[0]
    return answer if np.isclose(answer.sum(), 1) else np.exp(answer) / np.exp(answer).sum()


@pytest.mark.parametrize("name", ["scores", "head"])
def test_a_head_without_bias_gets_one_of_zeros(name, photo, tmp_path):
    base = model(include_top=False, pooling="avg")
    ours = keras.Model(base.input, keras.layers.Dense(3, use_bias=False, name=name)(base.output))
    found = load(ours, CLASSES).model
    np.testing.assert_array_equal(found.get_layer("head").get_weights()[1], np.zeros(3))
    np.testing.assert_array_equal(logits(found), logits(ours))
    for given in (found, ours) if name == "head" else (found,):
        np.testing.assert_allclose(logits(keras_convmixer.fold(given)), logits(ours), atol=1e-5)
        save_torch(given, tmp_path / "a.safetensors")
        again = model(classifier_activation=None, weights=tmp_path / "a.safetensors")
        np.testing.assert_array_equal(logits(again), logits(ours))


@pytest.mark.parametrize("head", HEADS)
def test_whatever_its_head_a_model_gives_its_own_probabilities(head, photo):
    ours = HEADS[head]()
    kernel, bias = next(layer for layer in ours.layers if isinstance(layer, keras.layers.Dense)).get_weights()
    next(layer for layer in ours.layers if isinstance(layer, keras.layers.Dense)).set_weights([kernel * 9, bias])
    expected = dict(zip(CLASSES, probabilities(ours, photo)))
    assert max(expected.values()) > 0.6
    for given in (Bundle(ours, Preprocessing((8, 8), 1.0, std=IMAGENET_STD), CLASSES), ours):
        (found,) = predict(given, photo, classes=CLASSES)
        assert dict(found.classes) == pytest.approx(expected, abs=1e-5)
    assert keras_convmixer.fold(load(ours, CLASSES).model).output_shape == (None, 3)


def test_takes_whatever_stands_for_a_model(saved, tmp_path):
    ours, path = saved
    ours.model.save(tmp_path / "mine.keras")
    (tmp_path / "names").write_text("ant\nbee\ncow\n")
    others = ("x", "y", "z")
    for given in (path, str(path), ours, ours.model, tmp_path / "mine.keras", str(tmp_path / "mine.keras")):
        assert load(given, tmp_path / "names").classes == CLASSES
        assert load(given, list(others)).classes == others
        np.testing.assert_allclose(logits(load(given, CLASSES).model), logits(ours.model), rtol=1e-6)
        with pytest.raises(ValueError, match="3 outputs, and there are 2 class names"):
            load(given, ["ant", "bee"])
    assert load(ours).classes == load(path).classes == CLASSES


def test_a_keras_model_brings_its_own_preprocessing():
    ours = load(model(input_shape=(12, 8, 3), mean=[0.1, 0.2, 0.3], std=0.5), CLASSES)
    assert ours.preprocessing == Preprocessing((12, 8), mean=(0.1, 0.2, 0.3), std=(0.5,) * 3)
    tiny = load(keras_convmixer.create_model("convmixer_tiny", num_classes=3), CLASSES).preprocessing
    assert (tiny.input_size, tiny.crop, tiny.interpolation) == ((32, 32), 1.0, "bilinear")
    assert load(model(input_shape=(None, None, 3)), CLASSES).preprocessing.input_size == (224, 224)


def test_a_thousand_outputs_are_imagenets():
    assert load(model(num_classes=1000)).classes[0] == "n01440764"


def twice(scores):
    return keras.layers.Softmax()(keras.layers.Softmax()(scores))


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: model(), r"does not say what its 3 outputs are: give classes=\[\.\.\.\], or --classes"),
        (
            lambda: model(include_preprocessing=False),
            "convmixer does not normalise its images: build its like with",
        ),
        (lambda: model(input_shape=(8, 8, 1)), "takes 1 channels and has a head"),
        (lambda: model(include_top=False), "takes 3 channels and has no head"),
        (lambda: model(classifier_activation="sigmoid"), "ends in logits or softmax of classes, not in sigmoid"),
        (lambda: own_head(twice), "ends in logits or softmax of classes, not in softmax and softmax"),
        (lambda: keras_convmixer.features(model(depth=2)), "convmixer_features has 1 inputs and 2 outputs"),
        (lambda: keras.Sequential(name="empty"), "empty has 0 inputs and 0 outputs"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]), "is not a ConvMixer"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(make, said):
    with pytest.raises(ValueError, match=said) as refusal:
        load(make())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("classes", [[], ["ant", "ant", "bee"]])
def test_classes_are_named_once_each(classes):
    with pytest.raises(ValueError, match="classes must name each class once"):
        load(model(), classes)


def test_weights_that_are_not_finite_are_refused(saved):
    _, path = saved
    broken = model(classifier_activation=None)
    broken.get_layer("head").set_weights([np.full((8, 3), np.nan), np.zeros(3)])
    broken.save(path / "model.keras")
    for given in (path, path / "model.keras"):
        with pytest.raises(ValueError, match=r"model.keras: kernel of the layer head is not finite") as refusal:
            load(given, CLASSES)
        assert "\n" not in str(refusal.value)


def test_another_file_is_no_model(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"neither a model folder nor a \.keras file"):
        load(tmp_path / "a.pth")


@pytest.fixture
def fitted(tmp_path):
    """A ConvMixer as `model.fit` leaves it, in a .keras file, and a file of its classes' names."""
    digits = load_digits()
    images = np.repeat(digits.images[..., None] * 255 / 16, 3, axis=-1)
    keras.utils.set_random_seed(0)
    ours = ConvMixer(16, 1, 3, 1, input_shape=(8, 8, 3), num_classes=10)
    # Down to 0: otherwise BatchNorm's averages lag behind the last steps, and accuracy is anything from 20 to 80 %.
    rate = keras.optimizers.schedules.CosineDecay(0.01, 6 * 57)
    ours.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    ours.fit(images, digits.target, epochs=6, verbose=0)
    ours.save(tmp_path / "fitted.keras")
    (tmp_path / "names.txt").write_text("".join(f"{i}\n" for i in range(10)))
    return str(tmp_path / "fitted.keras"), str(tmp_path / "names.txt")


def test_a_fitted_model_goes_through_evaluate_and_predict(fitted, photo, tmp_path, capsys):
    path, names = fitted
    words = ["--data", "digits", "--classes", names, "--json", "--out", str(tmp_path / "figures")]
    assert main(["evaluate", path, *words]) == 0
    assert json.loads(capsys.readouterr().out)["top1"] > 0.8
    assert main(["predict", path, str(photo), "--classes", names]) == 0
    assert main(["predict", path, str(photo)]) == 1
    said = capsys.readouterr().err
    assert "does not say what its 10 outputs are" in said
    assert said.count("\n") == 1


def test_a_fitted_model_is_converted(fitted, tmp_path):
    path, names = fitted
    assert main(["convert", path, "--out", str(tmp_path / "folder"), "--classes", names]) == 0
    assert main(["convert", path, "--out", str(tmp_path / "a.safetensors")]) == 0
    again = ConvMixer(16, 1, 3, 1, input_shape=(8, 8, 3), num_classes=10, weights=tmp_path / "a.safetensors")
    expected = keras.saving.load_model(path)
    np.testing.assert_array_equal(logits(again), logits(expected))
    found = keras.ops.softmax(logits(load(tmp_path / "folder").model))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), logits(expected), atol=1e-6)


@pytest.mark.slow
def test_a_fitted_model_goes_through_export_and_benchmark(fitted, tmp_path):
    path, names = fitted
    words = ["--data", "digits", "--classes", names]
    assert main(["export", path, "--format", "tflite", "--out", str(tmp_path / "out"), *words]) == 0
    assert (tmp_path / "out" / "labels.txt").read_text() == Path(names).read_text()
    assert main(["benchmark", path, "--images", "2", "--rounds", "1", "--json", *words]) == 0


@pytest.mark.slow
def test_the_example_of_model_fit_runs(tmp_path):
    script = Path(__file__).parent.parent / "examples" / "model_fit.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "top-1 agreement" in done.stdout
    assert (tmp_path / "exported" / "labels.txt").read_text().splitlines()[3] == "digit 3"
    assert (tmp_path / "exported" / "model_int8.tflite").stat().st_size < 20_000


@pytest.mark.parametrize("size", [20_000, 16])
def test_a_preprocessing_of_another_size_is_refused_before_an_image_is_read(saved, size):
    _, path = saved
    values = json.loads((path / "preprocessing.json").read_text()) | {"input_size": [size, size]}
    (path / "preprocessing.json").write_text(json.dumps(values))
    message = "from 1 to 16,384" if size > 16_384 else "takes images of 8×8, and its preprocessing makes them 16×16"
    with pytest.raises(UserError, match=message):
        keras_convmixer.load(path)
