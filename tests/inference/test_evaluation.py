"""The figures of an evaluation, against scikit-learn's."""

import csv
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from sklearn import metrics

from keras_convmixer.inference.evaluation import Evaluation


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
    assert five.endswith("weakest classes:\n  class 2    0.00%")
    six = evaluation(np.eye(6), np.arange(6)).as_table()
    assert "top-5  100.00%" in six
    assert "weakest" not in six


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
