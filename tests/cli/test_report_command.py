"""`convmixer report`, and the page that a training leaves beside its model."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
from page_of import Page
from PIL import Image
from sklearn import metrics

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.inference.meter import Meter
from keras_convmixer.training import train


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the run, to be changed."""
    return shutil.copytree(run, tmp_path / "copied")


def changed(run, **figures):
    """Changes what metrics.json says of a run."""
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | figures))
    return run


def moved(run, source):
    """Changes where a run's recipe says that its data lies."""
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("source: digits", f"source: {source}"))
    return run


def failed(words, capsys):
    """The one line that a command fails with."""
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_a_training_leaves_a_page_with_the_figures_of_its_metrics(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    assert len(text) < 5e6
    page, found = Page(text), json.loads((run / "metrics.json").read_text())
    page.check_is_one_file()
    page.check_is_accessible()
    low, high = found["top1_interval"]
    for figure in (found["top1"], found["top5"], found["calibration_error"]):
        assert f"{figure:.2%}" in page.text
    assert f"{found['loss']:.4f}" in page.text
    assert f"95 % interval {low:.2%} to {high:.2%}" in page.text
    assert f"{found['parameters']:,}" in page.text
    assert all(f"{name} {version}" in page.text for name, version in found["versions"].items())
    assert "1,438 train, 359 validation" in page.text
    rows = {name: cells for name, *cells in page.table("Scores by class")[1:]}
    assert rows == {
        name: [*(f"{one[key]:.2%}" for key in ("precision", "recall", "f1")), str(one["images"])]
        for name, one in found["by_class"].items()
    }


def test_its_confusion_is_scikit_learns_and_its_mistakes_are_shown(run):
    page = Page((run / "report.html").read_text(encoding="utf-8"))
    found = keras_convmixer.evaluate(run, verbose=0)
    counts = [[int(cell) for cell in row[1:]] for row in page.table("Images of each class")[1:]]
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(found.labels, found.predicted))
    wrong = np.flatnonzero(found.predicted != found.labels)
    surest = wrong[np.argsort(-found.probabilities[wrong], kind="stable")[:24]]
    shown = [one for one in page.named("img") if "taken for" in one["alt"]]
    assert [one["alt"] for one in shown] == [f"{found.labels[i]}, taken for {found.predicted[i]}" for i in surest]
    first = Image.open(io.BytesIO(base64.b64decode(shown[0]["src"].partition(",")[2])))
    encoded = found.images.encoded(int(surest[0])).numpy()
    np.testing.assert_array_equal(first, Image.open(io.BytesIO(encoded)).convert("RGB"))


def test_a_page_that_cannot_be_drawn_costs_a_line_and_nothing_is_measured_twice(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no ink\nleft")

    measured, measure = [], Meter.measure
    monkeypatch.setattr(train, "run_page", broken)
    monkeypatch.setattr(Meter, "measure", lambda *given, **named: measured.append(1) or measure(*given, **named))
    small = ["model.dim=8", "model.depth=1", "augmentation.crop_scale=null", "training.epochs=1"]
    recipe = keras_convmixer.Recipe.load("digits", small)
    train.train(recipe, tmp_path, verbose=0)
    assert capsys.readouterr().err == f"{tmp_path}: there is no report.html: no ink left\n"
    assert (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "report.html").exists()
    assert len(measured) == 2  # after the epoch, and at the end


def test_made_again_it_is_measured_on_the_runs_own_data(copied, capsys):
    before = Page((copied / "report.html").read_text(encoding="utf-8"))
    assert main(["report", str(copied)]) == 0
    assert capsys.readouterr() == ("", f"wrote {copied}/report.html\n")
    page = Page((copied / "report.html").read_text(encoding="utf-8"))
    assert "Measured again for this page, on digits: top-1 " in page.text
    assert page.tables == before.tables
    assert "1,438 train, 359 validation" in page.text


def test_made_on_other_data_it_says_so(copied, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        file = tmp_path / "photos" / str(i % 2) / f"<b>{i}</b>.png".replace("/", "-")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (300, 200, 3), np.uint8)).save(file)
    out = tmp_path / "page.html"
    assert main(["report", str(copied), "--data", str(tmp_path / "photos"), "--out", str(out)]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    page.check_is_one_file()
    assert f"on {tmp_path}/photos: top-1" in page.text
    assert "of 6 images (all)" in page.text
    assert sum(int(cell) for row in page.table("Images of each class")[1:] for cell in row[1:]) == 6
    before = json.loads((copied / "metrics.json").read_text())
    found = keras_convmixer.evaluate(copied, tmp_path / "photos", verbose=0)
    assert f"At the end of its training its top-1 was {before['top1']:.2%}, on digits." in page.text
    # The tiles at its head are of the data that the rest is of.
    low, high = found.interval
    assert f"95 % interval {low:.2%} to {high:.2%}" in page.text
    assert f"{before['loss']:.4f}" not in page.text
    assert f"{found.loss:.4f}" in page.text
    assert "6 images (all)" in page.text


def test_without_its_data_it_has_what_was_written_down_and_says_what_is_left_out(copied):
    moved(copied, "./gone")
    assert main(["report", str(copied)]) == 0
    page = Page((copied / "report.html").read_text(encoding="utf-8"))
    assert "Left out: the confusion matrix, the calibration and the mistakes. Its data, ./gone, is not" in page.text
    assert not [caption for caption in page.tables if caption.startswith("Images of each class")]
    assert len(page.table("Scores by class")) == 11
    assert "Depthwise kernels" in page.text
    (copied / "model.keras").unlink()
    assert main(["report", str(copied)]) == 0
    page = Page((copied / "report.html").read_text(encoding="utf-8"))
    assert "and the mistakes, and the kernels." in page.text
    assert "Depthwise kernels" not in page.text


def test_batches_of_ones_own_are_not_taken_for_the_recipes_data(copied):
    changed(copied, data={"source": None, "images": {}})
    (copied / "recipe.yaml").write_text(Recipe.load(copied, ["data.source=null"]).to_yaml())
    assert main(["report", str(copied)]) == 0
    page = Page((copied / "report.html").read_text(encoding="utf-8"))
    assert "It was trained on batches of the user's own: --data names" in page.text
    assert "epochs on batches of the user's own" in page.text


def test_what_is_no_report_is_left_alone(copied, tmp_path, capsys):
    mine = tmp_path / "mine.html"
    mine.write_text("<!doctype html>\n<p>my own page")
    words = ["report", str(copied), "--out"]
    assert "mine.html is there already, and no report of this program" in failed([*words, str(mine)], capsys)
    assert mine.read_text() == "<!doctype html>\n<p>my own page"
    assert "there is no folder" in failed([*words, str(tmp_path / "none" / "a.html")], capsys)
    assert "is no file" in failed([*words, str(tmp_path)], capsys)


@pytest.mark.parametrize(
    "prepare, words, message",
    [
        (lambda run: (run / "history.csv").unlink(), [], "copied has no epoch in its history.csv"),
        (lambda run: (run / "metrics.json").write_text("{"), [], "metrics.json is not JSON"),
        (lambda run: (run / "model.keras").unlink(), ["--data", "digits"], "it has no model.keras"),
        (lambda run: None, ["--data", "./nowhere"], "nowhere: no such file or folder"),
        (lambda run: changed(run, loss=[1]), [], "does not hold a run's figures: loss: input should be a valid"),
    ],
)
def test_what_cannot_be_reported_is_one_line(copied, prepare, words, message, capsys):
    (copied / "report.html").unlink()
    prepare(copied)
    assert message in failed(["report", str(copied), *words], capsys)
    assert not (copied / "report.html").exists()


def test_images_that_cannot_be_read_are_named_or_too_many(copied, tmp_path, capsys):
    for i in range(120):
        file = tmp_path / "photos" / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(file)
    words = ["report", str(copied), "--data", str(tmp_path / "photos")]
    (tmp_path / "photos" / "0" / "0.png").write_bytes(b"")
    assert main(words) == 0
    assert "convmixer: cannot be read: 0/0.png: an empty file\n" in capsys.readouterr().err
    (tmp_path / "photos" / "0" / "2.png").write_bytes(b"")
    assert "2 of 120 images cannot be read, more than 1%" in failed(words, capsys)
