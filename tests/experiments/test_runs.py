"""Runs beside each other: what differs, means and spreads, unfinished and failed ones."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.data import fingerprints


def write_run(folder, top1=None, epochs=2, of=2, overrides=(), seconds=30.0, **figures):
    """A run's folder as `train` leaves it, after so many epochs."""
    folder.mkdir(parents=True)
    recipe = Recipe.load("digits", [f"training.epochs={of}", *overrides])
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    rows = ["epoch,loss,seconds,images_per_second,val_accuracy,val_loss"]
    rows += [f"{i},2.0,{seconds},{100 * i},0.{i},1.{i}" for i in range(1, epochs + 1)]
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    if top1 is not None:
        (folder / "metrics.json").write_text(json.dumps({"top1": top1, "loss": 0.5, "parameters": 1234} | figures))
    return folder


def cells(found):
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in found.as_table().splitlines()]


def test_runs_that_differ_in_their_seed_are_one_line_with_mean_and_spread(tmp_path):
    for seed, top1 in enumerate((0.90, 0.92, 0.97)):
        write_run(tmp_path / f"a{seed}", top1, overrides=[f"seed={seed}"])
    write_run(tmp_path / "b", 0.80, overrides=["model.kernel_size=7"])
    found = keras_convmixer.compare([tmp_path])
    assert found.keys == ["model.kernel_size"]
    head, *rows = cells(found)
    assert head[:3] == ["model.kernel_size", "runs", "accuracy"]
    assert rows[0][1:] == ["3", "93.00 ± 3.61 %", "0.5000 ± 0.0000", "2", "1,234", "1.0 min", "150.0 ± 0.0"]
    assert rows[1] == ["7", "1", "80.00 %", "0.5000", "2", "1,234", "1.0 min", "150.0"]


def test_where_the_data_lies_is_no_difference(tmp_path):
    for name, place, seed in (("a", "here", 0), ("b", "there", 1)):
        run = write_run(tmp_path / name, 0.9, overrides=[f"data.source={place}", f"seed={seed}"])
        fingerprints.write(run, np.arange(1, 80, dtype=np.uint64) + 10 * seed)  # each seed learns from others of it
    found = keras_convmixer.compare([tmp_path / "b", tmp_path / "a", tmp_path])
    assert [run.path.name for run in found.runs] == ["b", "a"]
    assert found.keys == []
    assert len(found.groups()) == 1


def test_other_images_are_a_difference(tmp_path):
    for name, top1, images in (("photos", 0.95, 100), ("flowers", 0.4, 90)):
        data = {"source": name, "images": {"train": images, "validation": 20}}
        write_run(tmp_path / name, top1, overrides=[f"data.source={name}"], data=data)
    found = keras_convmixer.compare([tmp_path])
    assert found.keys == ["data.source"]
    assert [row[:3] for row in cells(found)[1:]] == [["flowers", "1", "40.00 %"], ["photos", "1", "95.00 %"]]


@pytest.mark.parametrize("known", [True, False])
def test_as_many_other_images_of_the_same_classes_are_a_difference(tmp_path, known):
    for seed, name in enumerate(("a", "b")):
        data = {"source": name, "images": {"train": 80, "validation": 20}}
        run = write_run(tmp_path / name, 0.9, overrides=[f"data.source={name}", f"seed={seed}"], data=data)
        if known:
            fingerprints.write(run, np.arange(1, 80, dtype=np.uint64) + 1000 * seed)
    found = keras_convmixer.compare([tmp_path])
    assert found.keys == ["data.source"]
    assert len(found.groups()) == 2


def test_means_are_of_finished_runs_where_there_are_any(tmp_path):
    write_run(tmp_path / "a", 0.95)
    write_run(tmp_path / "b", epochs=1, overrides=["seed=1"])
    (tmp_path / "b" / "failed.txt").write_text("the loss is not finite\n")
    (_, row) = cells(keras_convmixer.compare([tmp_path]))
    assert row[1:3] == ["2, 1 failed: the loss is not finite", "95.00 %"]


def test_what_failed_once_and_came_to_its_end_has_not_failed(tmp_path):
    write_run(tmp_path / "a", 0.95)
    (tmp_path / "a" / "failed.txt").write_text("no space left on device\n")
    (run,) = keras_convmixer.compare([tmp_path]).runs
    assert (run.finished, run.failed) == (True, None)


def test_a_run_that_is_not_finished_says_how_far_it_is(tmp_path):
    write_run(tmp_path / "a", epochs=1, of=9)
    (run,) = keras_convmixer.compare([tmp_path]).runs
    assert (run.finished, run.epochs, run.accuracy, run.loss) == (False, 1, 0.1, 1.1)
    assert "1, 1 unfinished" in keras_convmixer.compare([tmp_path]).as_table()
    (tmp_path / "a" / "history.csv").unlink()
    (run,) = keras_convmixer.compare([tmp_path]).runs
    assert (run.epochs, run.accuracy, run.seconds) == (0, None, None)


def test_runs_of_earlier_versions_lack_figures_and_are_shown_all_the_same(tmp_path):
    folder = write_run(tmp_path / "a", 0.5)
    (folder / "history.csv").write_text("epoch,loss,val_accuracy,val_loss\n1,2.0,0.4,1.5\n")
    (folder / "metrics.json").write_text('{"top1": 0.5, "loss": 1.0}')
    (run,) = keras_convmixer.compare([folder]).runs
    assert (run.seconds, run.images_per_second, run.parameters) == (None, None, None)
    assert cells(keras_convmixer.compare([folder]))[1] == ["a", "1", "50.00 %", "1.0000", "1"]


def test_every_form_and_what_is_saved(tmp_path, capsys):
    write_run(tmp_path / "runs" / "a", 0.9)
    write_run(tmp_path / "runs" / "b|c", 0.8, overrides=["augmentation.rand_augment=rand-m9"])
    words = ["runs", str(tmp_path / "runs")]
    assert main([*words, "--csv"]) == 0
    head, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert [dict(zip(head, row))["accuracy"] for row in rows] == ["0.9", "0.8"]
    assert main([*words, "--json"]) == 0
    assert [row["epochs"] for row in json.loads(capsys.readouterr().out)] == [2, 2]
    assert main([*words, "--markdown", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].replace(" ", "").strip("|-") == ""
    assert (tmp_path / "out" / "runs.md").read_text() == printed
    assert (tmp_path / "out" / "runs.csv").read_text().count("\n") == 3
    assert Image.open(tmp_path / "out" / "runs.png").width > 500


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.json", "{", "metrics.json is not JSON"),
        ("metrics.json", "[1]", "metrics.json does not hold"),
        ("history.csv", "epoch,loss\n1,oh\n", "history.csv is not a run's history"),
        ("recipe.yaml", "training: {epochz: 1}", "did you mean 'training.epochs'"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, capsys, file, content, message):
    (write_run(tmp_path / "a", 0.9) / file).write_text(content)
    assert main(["runs", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_no_run_there(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 1
    assert "no run there" in capsys.readouterr().err
