"""The page of a run, made of an evaluation at hand: few classes and many, hostile names, pictures that are gone."""

import dataclasses
import io
import json

import numpy as np
import pytest
from page_of import Page
from PIL import Image
from sklearn import metrics

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.data.encoded_images import in_memory
from keras_convmixer.errors import UserError
from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.pages.record import Record
from keras_convmixer.pages.run_page import run_page

HOSTILE = (
    "<script>alert(1)</script>",
    '" onload="alert(2)',
    "</style>&amp;",
    "'\\'",
    "犬",
    "url(http://a.example)",
)


@pytest.fixture(scope="module")
def bundle():
    """A model that has learned nothing: these pages are of evaluations made by hand."""
    model = keras_convmixer.ConvMixer(4, 1, 3, 2, input_shape=(8, 8, 3), num_classes=2, classifier_activation=None)
    return keras_convmixer.Bundle(model, keras_convmixer.Preprocessing((8, 8), 1.0), ("a", "b"))


@pytest.fixture
def record(tmp_path):
    """A run's folder with history, without metrics, as a `Record`."""
    return written(tmp_path / "run")


def written(folder, **figures):
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(Recipe.load("digits", ["model.dim=8"]).to_yaml())
    (folder / "history.csv").write_text(
        "epoch,accuracy,loss,val_accuracy,val_loss,learning_rate,seconds,images_per_second\n"
        "1,0.25,2.0,0.5,1.5,0.02,30,100\n2,0.5,1.0,0.75,1.25,0.0,60,300\n"
    )
    if figures:
        (folder / "metrics.json").write_text(json.dumps(figures))
    return Record.read(folder)


def evaluation(classes, images=6, bad=()):
    """So many images of each class, of which most thirds are taken for the next; the `bad` ones cannot be read."""
    count = len(classes)
    labels = np.repeat(np.arange(count), images)
    taken = np.where(np.arange(len(labels)) % 3, labels, (labels + 1) % count)
    logits = np.random.default_rng(0).normal(size=(len(labels), count)) + 5 * np.eye(count)[taken]
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    held = [b"" if i in bad else file.getvalue() for i in range(len(labels))]
    names = [f"{classes[label]}/{i}.png" for i, label in enumerate(labels)]
    found = in_memory(classes, labels, names, held)
    return Evaluation("test", tuple(classes), logits.astype("float32"), labels, names=found.names, images=found)


def confusion_of(page):
    return [[int(cell) for cell in row[1:]] for row in page.table("Images of each class")[1:]]


def test_names_are_text_whatever_they_hold(tmp_path, bundle):
    record = written(tmp_path / HOSTILE[0].replace("/", "|"))
    found = evaluation(HOSTILE)
    page = Page(run_page(record, bundle, found, [HOSTILE[1]]))
    page.check_is_one_file()
    page.check_is_accessible()
    assert [row[0] for row in page.table("Images of each class")] == ["", *HOSTILE]
    assert {row[0] for row in page.table("Scores by class")[1:]} == set(HOSTILE)
    assert all(name in page.text for name in HOSTILE)
    assert record.path.name in page.text
    mistaken = {(HOSTILE[i], HOSTILE[j]) for i, j in zip(found.labels, found.predicted) if i != j}
    assert {one["alt"] for one in page.named("img")} >= {f"{true}, taken for {taken}" for true, taken in mistaken}


def test_control_characters_and_broken_text_are_shown_escaped(record, bundle):
    found = dataclasses.replace(evaluation("ab"), names=tuple(f"\x1b[2J\udcff{i}" for i in range(12)))
    text = run_page(record, bundle, found)
    assert r"\x1b[2J\udcff" in Page(text).text
    text.encode()


def test_confusion_is_scikit_learns_and_scores_are_the_evaluations(record, bundle):
    found = evaluation("abcdefghijklmnopqrst")
    page = Page(run_page(record, bundle, found))
    expected = metrics.confusion_matrix(found.labels, found.predicted)
    np.testing.assert_array_equal(confusion_of(page), expected)
    names = [row[0] for row in page.table("Images of each class")[1:]]
    precision, recall, f1, images = metrics.precision_recall_fscore_support(found.labels, found.predicted)
    rows = {name: cells for name, *cells in page.table("Scores by class")[1:]}
    for i, name in enumerate(names):
        assert rows[name] == [f"{precision[i]:.2%}", f"{recall[i]:.2%}", f"{f1[i]:.2%}", f"{images[i]}"]
    recalls = [float(cells[1].rstrip("%")) for cells in rows.values()]
    assert recalls == sorted(recalls)


@pytest.mark.parametrize("count", [21, 100, 1000])
def test_of_many_classes_the_most_confused_pairs_and_a_map(record, bundle, count):
    found = evaluation([f"class {i}" for i in range(count)], images=3)
    text = run_page(record, bundle, found)
    assert len(text) < 5e6
    page = Page(text)
    page.check_is_one_file()
    page.check_is_accessible()
    wrong = found.confusion * (1 - np.eye(count, dtype=int))
    pairs = page.table("The most confused pairs")[1:]
    assert len(pairs) == 20
    counts = [int(row[2]) for row in pairs]
    assert counts == sorted(wrong.ravel(), reverse=True)[:20]
    assert counts == [wrong[int(row[0].split()[1]), int(row[1].split()[1])] for row in pairs]
    (size,) = ((int(one["width"]), int(one["height"])) for one in page.named("img") if one.get("class") == "map")
    assert size == (min(count, 250),) * 2
    assert len(page.table(f"The 20 weakest of {count:,}")) == 21
    assert len(page.table("The others")) == count - 19


def test_the_bins_of_the_calibration_are_those_of_its_error(record, bundle):
    found = evaluation("abc", images=200)
    page = Page(run_page(record, bundle, found))
    rows = page.table("The bins that have images")[1:]
    mean, right = (np.array([float(row[i].rstrip("%")) / 100 for row in rows]) for i in (1, 2))
    images = np.array([int(row[3]) for row in rows])
    assert images.sum() == 600
    assert np.average(np.abs(mean - right), weights=images) == pytest.approx(found.calibration_error, abs=1e-3)
    assert f"Expected calibration error: {found.calibration_error:.2%}" in page.text


def test_the_surest_mistakes_come_first_and_no_more_than_24(record, bundle):
    found = evaluation("abc", images=200)
    page = Page(run_page(record, bundle, found))
    wrong = found.predicted != found.labels
    surest = sorted(found.probabilities[wrong], reverse=True)[:24]
    assert [f"{one:.1%} sure" in page.text for one in surest] == [True] * 24
    assert page.text.count(" sure; ") == sum("taken for" in one["alt"] for one in page.named("img")) == 24
    assert f"{wrong.sum()} of 600 images taken for another class" in page.text


def test_a_picture_that_cannot_be_read_any_more_is_said_to_be_so(record, bundle):
    with pytest.warns(UserWarning, match=r"png cannot be read, .*: an empty file"):
        page = Page(run_page(record, bundle, evaluation("ab", bad=range(12))))
    assert "cannot be read: an empty file" in page.text
    assert not [one for one in page.named("img") if "taken for" in one["alt"]]


def test_a_model_without_mistakes_and_an_evaluation_without_images(record, bundle):
    right = Evaluation("test", ("a", "b"), np.eye(2, dtype="float32"), np.arange(2))
    assert "No image was taken for another class" in Page(run_page(record, bundle, right)).text
    wrong = dataclasses.replace(right, labels=np.array([1, 0]))
    page = Page(run_page(record, bundle, wrong))
    assert "Their pictures are not at hand" in page.text
    assert "a → b" in page.text
    assert "image 0" in page.text


def test_of_a_run_that_goes_on_there_is_what_it_has_so_far(record):
    page = Page(run_page(record))
    page.check_is_accessible()
    assert "2 of 24 epochs on digits" in page.text
    assert "75.00%" in page.text
    assert "1.2500" in page.text
    assert "2 min" in page.text  # 30 and 60 seconds
    assert page.table("Differences from digits") == [["key", "here", "digits"], ["model.dim", "8", "64"]]
    assert [one["aria-label"] for one in page.named("svg") if "aria-label" in one] == [
        f"{name} over 2 epochs" for name in ("accuracy", "loss", "learning rate")
    ]


def test_what_was_changed_on_the_way_is_told(tmp_path):
    folder = written(tmp_path / "run").path
    entries = [{"why": "rollback", "after": "epoch 1", "message": "loss is <nan>"}]
    entries += [{"why": "--set", "after": "epoch 2", "changes": {"training.epochs": [2, 24]}}]
    (folder / "changes.json").write_text(json.dumps(entries))
    text = Page(run_page(Record.read(folder))).text
    assert "after epoch 1: rollback: loss is <nan>" in text
    assert 'after epoch 2: --set: {"training.epochs": [2, 24]}' in text


@pytest.mark.parametrize(
    "figures, message",
    [
        ({"top1": "many", "loss": 1}, "metrics.json does not hold a run's figures: top1: input should be a valid"),
        ({"loss": 1}, "top1: field required"),
        ({"top1": 1, "loss": 1, "by_class": {"a": [1]}}, "by_class.a"),
        ({"top1": 1, "loss": 1, "versions": ["x"]}, "versions: input should be a valid dictionary"),
    ],
)
def test_figures_that_are_none_are_named(tmp_path, figures, message):
    with pytest.raises(UserError) as caught:
        written(tmp_path / "run", **figures)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
