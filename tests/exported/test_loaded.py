"""Exported files in `load`, `predict` and `evaluate`."""

import io
import itertools
import json
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_convmixer
from keras_convmixer import class_names
from keras_convmixer.cli import main
from keras_convmixer.deployment import onnx_file
from keras_convmixer.errors import UserError
from keras_convmixer.exported import companions
from keras_convmixer.exported.loaded import Runner

FORMS = {
    "saved_model": {},
    "tflite": {"format": "tflite"},
    "int8": {"format": "tflite", "quantize": "int8"},
    "onnx": {"format": "onnx"},
    "openvino": {"format": "openvino"},
}


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    """Form → what was exported of the digits' model."""
    made = {}

    def export(form):
        for module in onnx_file.NEEDS.get(form, ()):
            pytest.importorskip(module)
        if form not in made:
            out = tmp_path_factory.mktemp(form)
            made[form] = keras_convmixer.export(bundle, out, images=20, threads=1, **FORMS[form]).path
        return made[form]

    return export


@pytest.fixture(scope="module")
def photos(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        content = digits.held_out().encoded(tf.constant(i, tf.int64)).numpy()
        (folder / f"{i:02}.png").write_bytes(content)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_predicts_what_the_model_does(form, exported, bundle, photos):
    found = keras_convmixer.predict(exported(form), photos, top=10)
    expected = keras_convmixer.predict(bundle, photos, top=10)
    assert [prediction.path for prediction in found] == [prediction.path for prediction in expected]
    most = 0.2 if form == "int8" else 1e-5
    for one, other in zip(found, expected):
        scores = dict(other.classes)
        assert max(abs(score - scores[name]) for name, score in one.classes) < most
        assert sum(score for _, score in one.classes) == pytest.approx(1, abs=1e-5)


def test_evaluates_as_the_model_does(exported, bundle):
    found = keras_convmixer.evaluate(exported("tflite"), "digits", split="validation")
    expected = keras_convmixer.evaluate(bundle, "digits", split="validation")
    assert len(found.labels) == len(expected.labels) == 359
    assert found.top(1) == expected.top(1)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.classes == expected.classes


def test_from_the_command_line(exported, photos, tmp_path, capfd):
    file = tmp_path / "alone.tflite"  # with nothing beside it
    shutil.copy(exported("tflite"), file)
    assert main(["predict", str(file), str(photos), "--top", "1", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == 12
    assert main(["evaluate", str(file), "--data", "digits", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["images"] == 1797
    assert err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["alone.tflite"]
    assert main(["evaluate", str(file)]) == 1
    assert "give --data" in capfd.readouterr().err
    assert main(["export", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "is neither a model folder nor a .keras file" in capfd.readouterr().err


def test_class_names_given_go_before_the_files_own(exported, photos):
    names = list("abcdefghij")
    loaded = keras_convmixer.load(exported("tflite"), names)
    assert loaded.classes == tuple(names)
    (prediction,) = keras_convmixer.predict(loaded, photos / "00.png", top=1)
    assert prediction.classes[0][0] in names


def test_all_of_imagenets_words_stand_for_its_classes(tmp_path):
    wordnet = class_names.imagenet()
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "labels.txt").write_text("".join(f"{name}\n" for name in wordnet.values()))
    assert companions.labels(tmp_path / "model.onnx") == tuple(wordnet)
    (tmp_path / "labels.txt").write_text("tench\ncrane\ncrane\n")
    assert companions.labels(tmp_path / "model.onnx") == ("tench", "crane", "crane")


def test_some_of_imagenets_classes_are_evaluated_on_the_folders_they_were_learned_from(exported, tmp_path):
    classes = dict(itertools.islice(class_names.imagenet().items(), 10))
    for name in list(classes)[2:5]:
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    # as their export has them in labels.txt
    loaded = keras_convmixer.load(exported("tflite"), list(classes.values()))
    assert keras_convmixer.evaluate(loaded, tmp_path, split="all").labels.tolist() == [2, 3, 4]


NINE = r"cannot be run: it takes images of \(8, 8, 3\), not of \(9, 9, 3\)"


def beside(path, name, text):
    """Leaves a TFLite file without its own text of this name, and the text beside it."""
    with zipfile.ZipFile(path) as archive:
        kept = {other: archive.read(other) for other in archive.namelist() if other != name}
        start = min(info.header_offset for info in archive.infolist())
    path.write_bytes(path.read_bytes()[:start])
    with zipfile.ZipFile(path, "a") as archive:
        for other, content in kept.items():
            archive.writestr(other, content)
    if text is not None:
        (path.parent / name).write_text(text)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("labels.txt", "a\nb\n", "has 10 outputs, and there are 2 labels: give one for each"),
        ("labels.txt", "", "must name one class a line"),
        ("labels.txt", "a\x1b[2J\n" * 10, "cannot name a class: expected one line of visible characters"),
        ("input.json", "{}", "is not what export writes: 'height'"),
        ("input.json", "[" * 100_000, "is not what export writes"),
        (
            "input.json",
            '{"height": 9, "width": 9, "crop": 1, "interpolation": "bicubic"}',
            NINE,
        ),
        ("labels.txt", None, r"has no labels.txt, in it or beside it: keep the files that export wrote together"),
    ],
)
def test_what_does_not_fit_the_file_is_told_in_a_line(name, text, message, exported, tmp_path):
    path = tmp_path / "model.tflite"
    shutil.copy(exported("tflite"), path)
    beside(path, name, text)
    with pytest.raises((ValueError, OSError), match=message) as caught:
        keras_convmixer.load(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_text_in_a_file_is_not_replaced_by_one_beside_it(exported, tmp_path):
    path = tmp_path / "model.tflite"
    content = exported("tflite").read_bytes()
    (tmp_path / "labels.txt").write_text("".join(f"another's {i}\n" for i in range(10)))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = archive.getinfo("labels.txt").header_offset + 30 + len("labels.txt")
    path.write_bytes(content[:start] + b"X" + content[start + 1 :])
    with pytest.raises(UserError, match=r"is damaged: labels\.txt in it cannot be read: Bad CRC-32"):
        keras_convmixer.load(path)


def test_a_damaged_file_is_told_in_a_line(exported, tmp_path, capfd):
    path = tmp_path / "model.tflite"
    content = bytearray(exported("tflite").read_bytes())
    content[:64] = bytes(64)
    path.write_bytes(content)
    assert main(["predict", str(path), "examples/digits"]) == 1
    err = capfd.readouterr().err
    assert f"{path} cannot be run: " in err
    assert err.count("\n") == 1


def test_a_file_that_gives_something_else_is_refused(tmp_path):
    tf.saved_model.save(
        tf.Module(),
        tmp_path / "other",
        signatures=tf.function(
            lambda images: {"boxes": images}, input_signature=[tf.TensorSpec((None, 8, 8, 3), name="images")]
        ).get_concrete_function(),
    )
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "input.json").write_text('{"height": 8, "width": 8, "crop": 1, "interpolation": "bicubic"}')
    with pytest.raises(ValueError, match="gives boxes: expected a file that `export` wrote, with probabilities"):
        keras_convmixer.load(tmp_path / "other")


def test_a_probability_that_is_rounded_to_nothing_has_a_logarithm():
    logits = Runner(lambda images: {"probabilities": np.float32([[1, 0]])}).predict_on_batch(np.zeros((1, 8, 8, 3)))
    assert np.isfinite(logits).all()
    assert logits[0, 0] == 0
