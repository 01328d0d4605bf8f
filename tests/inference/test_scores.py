"""Scores by class, calibration, the interval of top-1 and the row an image, computed anew by other means."""

import csv
import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics

import keras_convmixer
from keras_convmixer import Preprocessing
from keras_convmixer.data import datasets
from keras_convmixer.data.evaluation_stream import evaluation_batches
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.inference.scores import accuracy_interval, calibration_error

DIGITS = "saved_models/digits"


def drawn(images=200, classes=7, seed=0):
    """An evaluation of a model that is often wrong. No image is of class 0, and none is taken for class 1."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, classes, images)
    logits = 2 * rng.normal(size=(images, classes)) + 2 * np.eye(classes)[labels]
    logits[:, 1] = -9
    return Evaluation("test", tuple(f"class {i}" for i in range(classes)), logits.astype(np.float32), labels)


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("seed", range(5))
def test_scores_by_class_are_scikit_learns(seed):
    found = drawn(seed=seed)
    precision, recall, f1, images = metrics.precision_recall_fscore_support(
        found.labels, found.logits.argmax(axis=1), labels=range(7), zero_division=0
    )
    scores = found.scores()
    assert list(scores) == list(found.classes[1:]), "those of which there are images"
    np.testing.assert_allclose(list(scores.values()), np.transpose([images, precision, recall, f1])[1:])
    assert scores["class 1"][1:] == (0, 0, 0)
    by_class = found.summary()["by_class"]
    assert by_class["class 2"] == dict(zip(("images", "precision", "recall", "f1"), scores["class 2"]))
    assert found.summary()["per_class"] == {name: score["recall"] for name, score in by_class.items()}


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_the_papers(seed):
    found = drawn(seed=seed)
    probabilities = softmax(found.logits.astype(np.float64), axis=1).max(axis=1)
    right = found.logits.argmax(axis=1) == found.labels
    expected = 0
    for m in range(1, 16):
        within = ((m - 1) / 15 < probabilities) & (probabilities <= m / 15)
        if within.any():
            expected += within.sum() / 200 * abs(right[within].mean() - probabilities[within].mean())
    assert found.summary()["calibration_error"] == pytest.approx(expected)
    assert expected > 0.01
    assert f"ECE   {expected:8.2%}" in found.as_table()


def test_a_bin_has_its_upper_edge_and_the_extremes_have_one():
    assert calibration_error(np.array([6 / 15, 0.45]), np.array([False, True])) == pytest.approx((0.4 + 0.55) / 2)
    assert calibration_error(np.array([6 / 15, 0.35]), np.array([False, True])) == pytest.approx((1 - 0.75) / 2)
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, False])) == 1


def test_the_interval_is_that_of_images_drawn_with_replacement():
    found = drawn()
    right = found.logits.argmax(axis=1) == found.labels
    resampled = right[np.random.default_rng(7).integers(0, 200, (10_000, 200))].mean(axis=1)
    assert found.interval == pytest.approx(np.percentile(resampled, (2.5, 97.5)), abs=0.0051)  # an image is 0.005
    assert found.interval == found.interval == tuple(found.summary()["top1_interval"])
    low, high = found.interval
    assert low < found.top(1) < high
    assert f"top-1 {found.top(1):8.2%}  (95 % interval: {low:.2%} to {high:.2%})" in found.as_table()


def test_of_more_images_the_interval_is_narrower_and_of_equal_ones_it_is_exact():
    widths = [high - low for low, high in (accuracy_interval(8 * n, 10 * n) for n in (1, 10, 100, 1000))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 10_000), rel=0.05)
    for count in (1, 9, 20, 5000):  # as SciPy has it
        exact = binomtest(count, count).proportion_ci(0.95, "exact")
        assert accuracy_interval(count, count) == pytest.approx((exact.low, exact.high))
        exact = binomtest(0, count).proportion_ci(0.95, "exact")
        assert accuracy_interval(0, count) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("classes, k", [(3, 2), (5, 4), (6, 5), (9, 5)])
def test_of_few_classes_the_top_k_is_of_fewer_than_all(classes, k):
    found = drawn(classes=classes)
    expected = metrics.top_k_accuracy_score(found.labels, found.logits, k=k, labels=range(classes))
    assert found.summary()[f"top{k}"] == pytest.approx(expected)
    assert found.summary()["top5"] == found.top(5)
    assert [line.split()[0] for line in found.lines() if line.startswith("top-")] == ["top-1", f"top-{k}"]
    assert f"top-{k} {expected:8.2%}" in found.as_table()


def test_of_two_classes_or_one_there_is_top_1_alone():
    for classes in (1, 2):
        found = Evaluation("test", ("a", "b")[:classes], np.eye(2, classes, dtype=np.float32), np.zeros(2, int))
        assert [key for key in found.summary() if key.startswith("top")] == ["top1", "top1_interval", "top5"]
        assert sum(line.startswith("top-") for line in found.lines()) == 1


def test_the_figures_and_rows_of_a_model_are_those_of_its_logits(tmp_path):
    """The digits that the shipped model has not learned from, by Keras's `predict` and scikit-learn."""
    found = keras_convmixer.evaluate(DIGITS, "digits", split="validation", verbose=0)
    found.save_per_image(tmp_path / "images.csv")
    bundle, images = keras_convmixer.load(DIGITS), datasets.open_dataset("digits").split("validation")
    pixels = np.concatenate([pixels for pixels, _ in evaluation_batches(images, bundle.preprocessing, 99)])
    expected = softmax(bundle.model.predict(pixels, verbose=0).astype(np.float64), axis=1)
    read = rows(tmp_path / "images.csv")
    assert [row["path"] for row in read] == list(images.names)
    labels, predictions = ([row[key] for row in read] for key in ("label", "prediction"))
    assert labels == [images.classes[i] for i in images.labels]
    assert predictions == [bundle.classes[i] for i in expected.argmax(axis=1)]
    np.testing.assert_allclose([float(row["probability"]) for row in read], expected.max(axis=1), rtol=1e-4)
    summary = found.summary()
    assert summary["top1"] == pytest.approx(metrics.accuracy_score(labels, predictions))
    scores = metrics.classification_report(labels, predictions, output_dict=True)
    for name, score in summary["by_class"].items():
        theirs = scores[name]
        assert [*score.values()] == pytest.approx(
            [theirs[key] for key in ("support", "precision", "recall", "f1-score")]
        )


def test_an_image_that_cannot_be_read_has_no_row_and_the_others_keep_their_names(tmp_path):
    for i in range(6):
        file = tmp_path / "data" / "test" / "ab"[i % 2] / f"{i}, it's.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(file)
    (tmp_path / "data" / "test" / "a" / "2, it's.png").write_bytes(b"")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    bundle = keras_convmixer.Bundle(model, Preprocessing((8, 8), 1.0), ("a", "b"))
    found = keras_convmixer.evaluate(bundle, tmp_path / "data", split="test", allow_corrupt=True, verbose=0)
    found.save_per_image(tmp_path / "images.csv")
    named = [(row["path"].rpartition("/")[2], row["label"]) for row in rows(tmp_path / "images.csv")]
    assert named == [(f"{i}, it's.png", "ab"[i % 2]) for i in (0, 4, 1, 3, 5)]
    assert [name.rpartition("/")[2] for name, _ in found.skipped] == ["2, it's.png"]


def test_rows_hold_any_name_and_what_has_none_goes_by_its_position(tmp_path):
    odd = ('a "b"', "line\nend", "犬,猫", "back\rslash\\")
    found = Evaluation("test", ("007", "x,y"), np.eye(2, dtype=np.float32)[[0, 1, 1, 0]], np.array([0, 1, 0, 0]))
    named = dataclasses.replace(found, names=odd)
    for evaluation, paths in ((named, odd), (found, ("0", "1", "2", "3"))):
        evaluation.save_per_image(tmp_path / "images.csv")
        read = rows(tmp_path / "images.csv")
        assert tuple(row["path"] for row in read) == paths
        assert [row["label"] for row in read] == ["007", "x,y", "007", "007"]
        assert [row["prediction"] for row in read] == ["007", "x,y", "x,y", "007"]
        assert [float(row["probability"]) for row in read] == pytest.approx([np.e / (1 + np.e)] * 4)
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"], "nothing temporary is left"


def test_rows_take_the_place_of_no_folder_and_make_none(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        drawn().save_per_image(tmp_path / "none" / "images.csv")
    with pytest.raises(UserError, match="is no file"):
        drawn().save_per_image(tmp_path)
    assert not list(tmp_path.iterdir())


def test_of_twenty_classes_all_are_shown_and_of_more_the_weakest():
    # One more each, of which there are no images.
    for classes, title, count in ((21, "classes, the weakest first:", 20), (22, "weakest classes:", 5)):
        lines = drawn(images=2000, classes=classes).lines()
        assert len(lines[lines.index(title) + 2 :]) == count
        recalls = [float(line.split()[-3].rstrip("%")) for line in lines[lines.index(title) + 2 :]]
        assert recalls == sorted(recalls)
