"""The figures of an evaluation, against scikit-learn's."""

import csv
import dataclasses
import io
import json
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib import colormaps
from PIL import Image
from sklearn import metrics

import keras_convmixer
from keras_convmixer import Preprocessing, bundles
from keras_convmixer.data import datasets
from keras_convmixer.data.encoded_images import in_memory
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation import open_data
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.inference.meter import Meter


def evaluation(logits, labels, classes=None, skipped=()):
    logits = np.asarray(logits, np.float32)
    classes = classes or tuple(f"class {i}" for i in range(logits.shape[1]))
    return Evaluation("test", classes, logits, np.asarray(labels), skipped)


@st.composite
def evaluations(draw, whole=False):
    """Logits of 1 to 30 images and 2 to 12 classes, and labels. Whole ones are small, so that many are equal."""
    shape = draw(st.integers(1, 30)), draw(st.integers(2, 12))
    values = st.integers(-2, 2) if whole else st.floats(-50, 50, width=32)
    logits = draw(arrays.arrays(np.float32, shape, elements=values))
    return evaluation(logits, draw(arrays.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1))))


def probabilities(found):
    logits = found.logits.astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@given(evaluations())
def test_loss_is_scikit_learns(found):
    of_labels = probabilities(found)[np.arange(len(found.labels)), found.labels]
    if of_labels.min() > 1e-12:  # what is nearer to 0 scikit-learn clips
        expected = metrics.log_loss(found.labels, probabilities(found), labels=range(len(found.classes)))
        assert found.loss == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.loss >= 0


def test_loss_of_what_is_all_but_impossible_is_finite():
    assert evaluation([[2000.0, 0.0]], [1]).loss == pytest.approx(2000)
    assert evaluation([[0.0, 0.0, 0.0, 0.0]], [2]).loss == pytest.approx(np.log(4))


@pytest.mark.filterwarnings("ignore:'k'")
@pytest.mark.parametrize("spoilt", [[np.nan, np.nan], [0.0, np.nan], [np.nan, 0.0]])
def test_logits_that_are_no_numbers_are_wrong_answers(spoilt):
    logits = np.array([spoilt, [1.0, 0.0], spoilt], np.float32)
    assert Evaluation("held out", ("a", "b"), logits, np.array([0, 0, 1])).top(1) == pytest.approx(1 / 3)


@given(st.one_of(evaluations(), evaluations(whole=True)), st.integers(1, 12))
def test_top_k_is_scikit_learns_and_of_equals_the_first_wins(found, k):
    # The same order, the first of equal ones before the others, as numbers that all differ.
    scores = -np.argsort(np.argsort(-found.logits, axis=1, kind="stable"), axis=1).astype(float)
    classes = np.arange(len(found.classes))
    if len(classes) > 2:
        expected = metrics.top_k_accuracy_score(found.labels, scores, k=k, labels=classes)
    else:  # there scikit-learn takes the score of one class alone
        expected = np.mean(found.labels == scores.argmax(axis=1)) if k == 1 else 1.0
    assert found.top(k) == pytest.approx(expected)


@given(st.one_of(evaluations(), evaluations(whole=True)))
def test_confusion_is_scikit_learns(found):
    classes = np.arange(len(found.classes))
    expected = metrics.confusion_matrix(found.labels, found.logits.argmax(axis=1), labels=classes)
    np.testing.assert_array_equal(found.confusion, expected)
    recalls = {name: row[i] / row.sum() for i, (name, row) in enumerate(zip(found.classes, expected)) if row.sum()}
    assert found.per_class() == pytest.approx(recalls)


def test_a_hundred_images_in_figures():
    """Twelve classes, so that top-5 is neither top-1 nor top-7 nor everything, and mistakes that go one way."""
    rng, labels = np.random.default_rng(0), np.random.default_rng(1).integers(0, 12, 100)
    logits = rng.normal(size=(100, 12)) + np.eye(12)[labels] + np.eye(12)[(labels + 1) % 12]
    found = evaluation(logits, labels, skipped=(("a.png", "empty"),))
    summary, classes = json.loads(found.as_json()), range(12)
    assert summary["loss"] == pytest.approx(metrics.log_loss(labels, probabilities(found), labels=classes))
    tops = {k: metrics.top_k_accuracy_score(labels, found.logits, k=k, labels=classes) for k in (1, 5, 7)}
    assert tops[1] < tops[5] < tops[7] < 1
    assert (summary["top1"], summary["top5"]) == pytest.approx((tops[1], tops[5]))
    assert (summary["split"], summary["images"], summary["skipped"]) == ("test", 100, 1)


def test_files_hold_names_with_commas_and_quotes(tmp_path):
    names = ("tench, Tinca tinca", 'a "b"', "犬")
    found = evaluation(np.eye(3)[[0, 1, 1, 2]], [0, 1, 2, 0], names)
    found.save(tmp_path)
    header, *rows = csv.reader(io.StringIO((tmp_path / "confusion_matrix.csv").read_text(encoding="utf-8")))
    assert header == ["true class", *names]
    assert [row[0] for row in rows] == list(names)
    assert [[int(count) for count in row[1:]] for row in rows] == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    summary = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert summary["per_class"] == {names[0]: 0.5, names[1]: 1.0, names[2]: 0.0}
    with Image.open(tmp_path / "confusion_matrix.png") as image:
        assert min(image.size) > 200


def test_the_table_says_nothing_that_goes_without_saying():
    five = evaluation(np.eye(5)[[0, 1, 1]], [0, 1, 2]).as_table()
    assert "top-1   66.67%" in five
    assert "top-5" not in five, "of five classes every one is among the first five"
    assert "top-4  100.00%" in five
    table = five.splitlines()[-4:]
    assert table[0].split() == ["precision", "recall", "F1", "images"]
    assert table[1].split() == ["class", "2", "0.00%", "0.00%", "0.00%", "1"]
    assert table[3].split() == ["class", "1", "50.00%", "100.00%", "66.67%", "1"]
    six = evaluation(np.eye(6), np.arange(6)).as_table()
    assert "top-5  100.00%" in six
    assert "class" not in six


COLOURS = ("red", "green", "blue")


def photos(count=7, bad=(), classes=COLOURS, skipped=()):
    """Image i is of colour i modulo 3; the `bad` are none."""
    held = []
    for i in range(count):
        file, colour = io.BytesIO(), np.zeros((8, 8, 3), np.uint8)
        colour[..., i % 3] = 200
        Image.fromarray(colour).save(file, "PNG")
        held.append(b"" if i in bad else file.getvalue())
    images = in_memory(classes, np.arange(count) % 3, [f"{i}.png" for i in range(count)], held)
    return dataclasses.replace(images, skipped=skipped)


class Reddish(keras.Model):
    """Logits: the mean of each channel, red's twice."""

    def call(self, x):
        return keras.ops.mean(x, (1, 2)) * keras.ops.array([2.0, 1.0, 1.0])


@pytest.mark.parametrize("batch_size, fill", [(2, False), (2, True), (64, False)])
def test_a_meter_measures_what_can_be_read_each_time_anew(batch_size, fill):
    gone = (("gone.png", "an empty file"),)
    meter = Meter(photos(bad=(0, 5), skipped=gone), "test", Preprocessing((8, 8), 1.0), batch_size, fill)
    for _ in range(2):
        found = meter.measure(Reddish(), COLOURS)
        assert found.labels.tolist() == [1, 2, 0, 1, 0]
        np.testing.assert_allclose(found.logits, 200 * np.eye(3)[found.labels] * [2, 1, 1], rtol=1e-5)
        assert found.skipped == (*gone, ("0.png", "an empty file"), ("5.png", "an empty file"))
        assert (found.split, meter.unread) == ("test", [0, 5])
        assert found.names == ("1.png", "2.png", "3.png", "4.png", "6.png")


def test_the_datas_classes_are_found_among_the_models():
    meter = Meter(photos(3, classes=("c", "a", "b")), "test", Preprocessing((8, 8), 1.0))
    found = meter.measure(Reddish(), ("a", "b", "c"))
    assert (found.classes, found.labels.tolist()) == (("a", "b", "c"), [2, 0, 1])
    with pytest.raises(UserError, match="1 of the data's 3 classes"):
        meter.measure(Reddish(), ("a", "b", "d"))


def test_a_split_of_which_nothing_can_be_read_is_refused():
    meter = Meter(photos(2, bad=(0, 1)), "test", Preprocessing((8, 8), 1.0))
    with pytest.raises(UserError, match="none of the 2 images of the split 'test' can be read"):
        meter.measure(Reddish(), COLOURS)


def test_a_filled_batch_is_as_large_as_the_others():
    sizes = []

    class Counting(keras.Model):
        def call(self, x):
            tf.numpy_function(lambda n: sizes.append(int(n)), [tf.shape(x)[0]], [])
            return x[:, 0, 0]

    Meter(photos(), "test", Preprocessing((8, 8), 1.0), 3, fill=True).measure(Counting(), COLOURS)
    assert set(sizes) == {3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two colours that was trained, says its recipe, on a folder of 200 images."""
    path = tmp_path_factory.mktemp("evaluation")
    for i in range(200):
        file = path / "data" / COLOURS[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), COLOURS[i % 2]).save(file)
    model = keras_convmixer.ConvMixer(4, 1, 3, 2, input_shape=(8, 8, 3), num_classes=2, classifier_activation=None)
    bundle = keras_convmixer.Bundle(model, Preprocessing((8, 8), 1.0), ("green", "red"))
    settings = {"data": {"source": str(path / "data"), "validation_fraction": 0.1}, "seed": 3}
    bundles.save(bundle, path / "run", recipe=keras_convmixer.Recipe.load("digits", settings).to_yaml())
    bundles.save(bundle, path / "bare")
    return path


def names(dataset, split):
    return set(dataset.split(split).names)


def test_a_model_is_measured_on_what_its_training_held_out(folder):
    found = keras_convmixer.evaluate(folder / "run", verbose=0)
    assert (found.split, len(found.labels), found.classes) == ("validation", 20, ("green", "red"))
    same, other = (datasets.open_dataset(folder / "data", validation_fraction=0.1, seed=seed) for seed in (3, 0))
    opened = open_data(keras_convmixer.load(folder / "run"))
    assert names(opened, "validation") == names(same, "validation") != names(other, "validation")
    again = keras_convmixer.evaluate(folder / "run", str(folder / "data"), batch_size=1, verbose=0)
    assert again.split == "validation"
    np.testing.assert_allclose(again.logits, found.logits, atol=1e-5)
    whole = keras_convmixer.evaluate(folder / "run", split="train", verbose=0)
    assert (whole.split, len(whole.labels)) == ("train", 180)


def test_with_mirror_images_the_logits_are_the_means_of_both(tmp_path):
    model = keras_convmixer.ConvMixer(4, 1, 3, 2, input_shape=(8, 8, 3), num_classes=2, classifier_activation=None)
    bundle = keras_convmixer.Bundle(model, Preprocessing((8, 8), 1.0), ("a", "b"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    for i, image in enumerate(pixels):
        file = tmp_path / "test" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    plain = keras_convmixer.evaluate(bundle, tmp_path, split="test", verbose=0)
    both = keras_convmixer.evaluate(bundle, tmp_path, split="test", test_time_flip=True, verbose=0)
    order = [0, 2, 1, 3]  # class by class
    mirrored = keras.ops.convert_to_numpy(model(pixels[order][:, :, ::-1].astype("float32")))
    np.testing.assert_allclose(both.logits, (plain.logits + mirrored) / 2, atol=1e-5)
    assert np.abs(both.logits - plain.logits).max() > 1e-3
    assert (both.summary().get("test_time_flip"), plain.summary().get("test_time_flip")) == (True, None)
    assert "mirror image" in both.as_table()
    assert "mirror image" not in plain.as_table()


def test_progress_is_shown_where_asked_for(folder, capsys):
    for verbose, shown in ((0, False), (2, True)):
        keras_convmixer.evaluate(folder / "run", verbose=verbose)
        assert ("step" in capsys.readouterr().out) is shown


def test_foreign_data_is_measured_whole(folder):
    shutil.copytree(folder / "data", folder / "copy")
    for model in ("run", "bare"):
        found = keras_convmixer.evaluate(folder / model, str(folder / "copy"), verbose=0)
        assert (found.split, len(found.labels)) == ("all", 200)
    with pytest.raises(UserError, match="no split 'test'"):
        keras_convmixer.evaluate(folder / "run", split="test", verbose=0)


def test_what_cannot_be_measured_is_refused(folder):
    with pytest.raises(UserError, match=r"no recipe.yaml that names its data; give --data"):
        keras_convmixer.evaluate(folder / "bare", verbose=0)
    with pytest.raises(UserError, match="batch_size must be at least 1, got 0"):
        keras_convmixer.evaluate(folder / "run", batch_size=0, verbose=0)
    with pytest.raises(UserError, match="classes are not among the model's 2"):
        keras_convmixer.evaluate(folder / "run", "digits", verbose=0)


def test_too_many_unreadable_images_are_refused_unless_allowed(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    for i in (0, 1, 2):
        (data / COLOURS[i % 2] / f"{i}.png").write_bytes(b"")
    for model in ("run", "bare"):
        with pytest.raises(UserError, match="3 of 200 images cannot be read"):
            keras_convmixer.evaluate(folder / model, data, split="all", verbose=0)
        found = keras_convmixer.evaluate(folder / model, data, split="all", allow_corrupt=True, verbose=0)
        assert (len(found.labels), len(found.skipped)) == (197, 3)
    shutil.copytree(folder / "bare", tmp_path / "run")
    settings = {"data": {"source": str(data), "allow_corrupt": True}}
    (tmp_path / "run" / "recipe.yaml").write_text(keras_convmixer.Recipe.load("digits", settings).to_yaml())
    assert len(keras_convmixer.evaluate(tmp_path / "run", split="all", verbose=0).skipped) == 3


def test_the_weakest_classes_are_named_in_words_and_worst_first():
    labels, predicted = np.repeat(np.arange(21), 4), np.repeat(np.arange(21), 4)
    for label, wrong in enumerate((4, 3, 2, 1, 1, 1, 1, 0)):
        predicted[4 * label : 4 * label + wrong] = (label + 1) % 8
    found = evaluation(np.eye(21)[predicted], labels, ("n02510455", *"bcdefghijklmnopqrstu"))
    lines = found.as_table().splitlines()
    assert lines[0] == "test: 84 images, 0 skipped"
    weak = lines[lines.index("weakest classes:") + 2 :]
    assert [line.split()[-3] for line in weak] == ["0.00%", "25.00%", "50.00%", "75.00%", "75.00%"]
    assert "giant panda" in weak[0]
    assert len({len(line) for line in weak}) == 1


def test_the_confusion_matrix_is_drawn_as_shares_of_each_class(tmp_path):
    evaluation(np.eye(2)[[0] * 9 + [1] * 3], [0] * 10 + [1, 1]).save(tmp_path)
    with Image.open(tmp_path / "confusion_matrix.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    broad = [colour for colour, count in zip(colours, counts) if count > 0.02 * len(pixels)]
    for share in (0.0, 0.1, 0.9, 1.0):
        blue = np.multiply(colormaps["Blues"](share)[:3], 255)
        assert min(np.abs(blue - colour).max() for colour in broad) <= 2, share


def picture(folder, names):
    evaluation(np.eye(2), [0, 1], names).save(folder)
    with Image.open(folder / "confusion_matrix.png") as image:
        return np.asarray(image)


def test_names_are_drawn_in_a_font_that_has_their_letters(tmp_path, own_font):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (picture(tmp_path, names) for names in (("犬", "猫"), ("猫", "犬")))
    assert one.shape == other.shape
    assert (one != other).any(), "boxes would be alike"


def test_names_that_no_font_has_are_numbers_of_rows(tmp_path, no_such_font):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a letter that it draws as a box
        numbers = picture(tmp_path, ("犬", "猫"))
    assert (numbers.shape != picture(tmp_path, ("#1", "#2")).shape) or (
        numbers != picture(tmp_path, ("#1", "#2"))
    ).any(), "it is said what the numbers are"
    picture(tmp_path, ("$^$", "$x"))  # no formula
