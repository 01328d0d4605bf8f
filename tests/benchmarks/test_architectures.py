"""The comparison of architectures: its table, what it refuses, that it goes on and outlives a failure."""

import csv
import io
import json
import re

import architectures
import pytest
from architecture_table import Row, Table

from keras_convmixer import Recipe
from keras_convmixer.experiments.runs import FAILED, Run

DIGITS = ["--recipe", "digits", "--epochs", "1"]


def written_run(folder, seed=0, right=None, failed=None, speeds=(90, 100, 140), recipe=None):
    """The folder of a training with 200 held-out images."""
    folder.mkdir(parents=True)
    recipe = recipe or Recipe.load("digits", [f"seed={seed}"])
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    if failed:
        (folder / FAILED).write_text(failed + "\n")
    if right is not None:
        (folder / "metrics.json").write_text(json.dumps({"top1": right / 200, "loss": 0.5, "images": 200}))
        rows = "".join(f"{epoch},{speed}\n" for epoch, speed in enumerate(speeds))
        (folder / "history.csv").write_text("epoch,images_per_second\n" + rows)
    return Run.read(folder)


@pytest.fixture
def table(tmp_path):
    two = tuple(written_run(tmp_path / "a" / str(seed), seed, right) for seed, right in ((0, 150), (3, 160)))
    broken = written_run(tmp_path / "b", failed="out of | memory")
    rates = {"keras": 1234.5, "stock_tflite": "not built in: X"}
    rows = (
        Row("convmixer", "Keras fit", 1_000, two, rates),
        Row("vit", "Keras fit", 1_010, (broken,)),
        Row("resmlp", "Keras fit", 990, ()),
    )
    return Table(rows, {"processor": "a fast one"})


def test_a_row_has_mean_spread_interval_and_the_median_epochs_speed(table):
    _, own, *_ = table.cells()
    assert own[:6] == ["convmixer", "Keras fit", "1,000", "0.02", "0, 3", "77.50 ± 3.54 %"]
    low, high = map(float, own[6].split("–"))
    assert 70 < low < 73 < 82 < high < 85  # 1.96 √(0.775 · 0.225 / 200) is 0.058
    assert own[7:] == ["100.0", "1,234.5", "not built in: X", ""]


def test_what_failed_and_what_has_not_begun_say_so(table):
    *_, failed, absent = table.cells()
    assert failed[5] == "failed: out of | memory"
    assert absent[5] == "not trained yet"
    assert "failed: out of \\| memory" in table.as_markdown()


def test_the_table_as_files(table, tmp_path):
    table.save(tmp_path)
    convmixer, vit, _ = csv.DictReader(io.StringIO((tmp_path / "architectures.csv").read_text()))
    assert (convmixer["accuracy"], convmixer["seeds"], convmixer["keras"]) == ("0.775", "0 3", "1234.5")
    assert (vit["accuracy"], vit["failed"]) == ("", "out of | memory")
    saved = json.loads((tmp_path / "architectures.json").read_text())
    assert saved["rows"][0]["accuracies"] == [0.75, 0.8]
    assert "a fast one" in (tmp_path / "architectures.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "none"], "no such recipe"),
        (["--set", "training.ema=0.9"], "training.ema 0.9 .* --set training.ema=null"),
        (["--set", "optimizer.name=muon"], "--set optimizer.name=adamw"),
        (["--set", "model.dimm=3"], "did you mean 'model.dim'"),
        (["--rate", "vti=0.1"], "--rate vti=0.1: expected MODEL=RATE"),
        (["--rate", "vit=fast"], "--rate vit=fast: expected MODEL=RATE"),
        (["--rate", "vit=-1"], "learning_rate"),
        (["--seed", "1", "--seed", "1"], "same seed"),
        (["--seed", "-1"], "seed"),
        (["--rounds", "0"], "at least 1"),
        (["--data", "/nowhere/photos"], "/nowhere/photos"),
        (["--set", "model.patch_size=8"], "patches of 16 pixels"),
        (["--dim", "2", "--only", "vit"], "no vit of depth 4"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_anything_is_trained(tmp_path, capsys, words, message):
    assert architectures.main(["--out", str(tmp_path / "out"), *DIGITS, *words]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("architectures: ")
    assert re.search(message, said)
    assert not (tmp_path / "out").exists()


def test_trainings_of_another_recipe_are_not_taken_for_these(tmp_path, capsys):
    written_run(tmp_path / "convmixer" / "seed0", right=150, recipe=Recipe.load("digits"))
    assert architectures.main(["--out", str(tmp_path), *DIGITS]) == 1
    assert "seed0 is of another recipe (training.epochs: 1 here, 24 there)" in capsys.readouterr().err


def test_a_training_by_keras_fit_comes_to_its_end(tmp_path):
    folder = tmp_path / "convmixer" / "seed0"
    folder.mkdir(parents=True)
    small = ["training.epochs=1", "model.dim=8", "model.depth=1", "augmentation.crop_scale=null"]
    architectures._fit(Recipe.load("digits", small), folder)
    assert json.loads((folder / "metrics.json").read_text())["images"] == 359
    (row,) = csv.DictReader((folder / "history.csv").open())
    assert {"seconds", "images_per_second", "val_accuracy", "val_loss"} <= row.keys()


@pytest.mark.slow
def test_it_trains_goes_on_and_outlives_a_failure(tmp_path, capsys):
    """A rate of 1e30 leaves nothing finite."""
    words = ["--out", str(tmp_path), *DIGITS, "--rounds", "1", "--only", "convmixer", "--only", "convmixer_fast"]
    words += ["--only", "mlp_mixer"]
    assert architectures.main([*words, "--rate", "mlp_mixer=1e30"]) == 1
    printed = capsys.readouterr()
    assert "failed: the loss is not finite any more; try --rate mlp_mixer=RATE, with less than 1e+30" in printed.out
    weights = {name: (tmp_path / name / "seed0" / "model.keras") for name in ("convmixer", "convmixer_fast")}
    before = {name: path.stat().st_mtime_ns for name, path in weights.items()}
    assert architectures.main([*words, "--json"]) == 0
    again = capsys.readouterr()
    assert {name: path.stat().st_mtime_ns for name, path in weights.items()} == before
    assert "[3/3] mlp_mixer" in again.err
    assert "[1/3]" not in again.err
    own, fast, mixer = json.loads(again.out)["rows"]
    assert (own["trained_by"], fast["trained_by"]) == ("Keras fit", "keras_convmixer.train")
    assert set(own["inference"]) == set(fast["inference"]) == {"keras", "stock_tflite", "tflite"}
    assert set(mixer["inference"]) == {"keras", "stock_tflite"}
    assert mixer["failed"] is None
    for row in (own, fast, mixer):
        assert all(rate > 0 for rate in row["inference"].values())
        assert 0 < row["accuracy"] <= 1
        assert row["training_images_per_second"] > 0
        assert abs(row["parameters"] / own["parameters"] - 1) < 0.05
