"""Sweeps: what is trained, what happens when one fails, and that they go on where they were."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

import keras_convmixer
from keras_convmixer import Recipe, files
from keras_convmixer.cli import main
from keras_convmixer.experiments.sweep import Grid
from keras_convmixer.training import run_lock

SMALL = {"training.epochs": 1, "training.batch_size": 128, "model.dim": 8, "model.depth": 1}


def write(path, **values):
    path.write_text(yaml.safe_dump({"base": "digits", "set": SMALL} | values))
    return path


def test_a_grid_is_every_combination_with_every_seed(tmp_path):
    grid = {"model.kernel_size": [3, 5], "optimizer.learning_rate": [0.01, 1e-3, 0.1]}
    recipes = Grid.load(write(tmp_path / "grid.yaml", grid=grid, seeds=[0, 4])).recipes()
    found = {(r.model.kernel_size, r.optimizer.learning_rate, r.seed) for r in recipes.values()}
    assert found == {(k, rate, seed) for k in (3, 5) for rate in (0.01, 1e-3, 0.1) for seed in (0, 4)}
    assert len(recipes) == 12
    assert {(r.training.epochs, r.model.dim) for r in recipes.values()} == {(1, 8)}
    assert "kernel_size=3,learning_rate=0.01/seed0" in recipes


def test_the_seed_is_the_bases_own_where_none_is_given(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: digits\nseed: 5\n")
    path = write(tmp_path / "grid.yaml", base="mine.yaml", grid={"model.dim": [8]})
    assert {name: recipe.seed for name, recipe in Grid.load(path).recipes().items()} == {"dim=8/seed5": 5}


def test_what_is_tried_of_an_optimizers_arguments_stands_beside_the_rest(tmp_path):
    grid = {"optimizer.arguments.momentum": [0.8, 0.9], "optimizer.arguments.nesterov": [True]}
    recipes = Grid.load(write(tmp_path / "grid.yaml", set={"optimizer.name": "sgd"}, grid=grid)).recipes()
    found = [recipe.optimizer.arguments for recipe in recipes.values()]
    assert found == [{"momentum": momentum, "nesterov": True} for momentum in (0.8, 0.9)]


def test_named_runs_lists_and_nulls(tmp_path):
    runs = {"as it is": {}, "without: crop/scale": {"augmentation.crop_scale": None, "model.input_size": [8, 8]}}
    recipes = Grid.load(write(tmp_path / "grid.yaml", runs=runs)).recipes()
    assert list(recipes) == ["as_it_is/seed0", "without_crop_scale/seed0"]
    assert recipes["without_crop_scale/seed0"].augmentation.crop_scale is None
    assert recipes["without_crop_scale/seed0"].model.input_size == (8, 8)


def test_a_base_beside_the_grid_and_data_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("base: digits\ntraining: {epochs: 7}\n")
    (tmp_path / "photos").mkdir()
    write(tmp_path / "grid.yaml", base="mine.yaml", set={}, grid={"model.dim": [8]}, data="photos")
    monkeypatch.chdir(tmp_path)
    (recipe,) = Grid.load(tmp_path / "grid.yaml").recipes().values()
    assert (recipe.training.epochs, recipe.data.source) == (7, str(tmp_path / "photos"))
    write(tmp_path / "grid.yaml", set={"model.weights": "photos"}, grid={"model.dim": [8]})
    (recipe,) = Grid.load(tmp_path / "grid.yaml").recipes().values()
    assert recipe.model.weights == str(tmp_path / "photos")  # as `train` records it


def test_the_packages_own_names_go_before_folders_of_that_name(tmp_path, monkeypatch):
    for name in ("cifar10", "digits"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "grid.yaml", base="cifar10", data="digits", set={}, grid={"training.epochs": [3]})
    (recipe,) = Grid.load(path).recipes().values()
    assert recipe == Recipe.load("cifar10", ["data.source=digits", "training.epochs=3"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grid": {"model.kernal_size": [3]}}, "did you mean 'model.kernel_size'"),
        ({"grid": {"model.kernel_size": ["x"]}}, "model.kernel_size"),
        ({"grid": {"model.kernel_size": []}}, "grid.model.kernel_size is an empty list"),
        ({"grid": {"model.kernel_size": [3]}, "seeds": []}, "seeds is an empty list"),
        ({"grid": {"seed": [1, 2]}}, "give seeds, the list"),
        ({"grid": {"model.kernel_size": [3]}, "set": SMALL | {"seed": 3}}, "give seeds, the list"),
        ({}, "either grid, .* or runs"),
        ({"runs": {"no ema": {}, "no_ema": {"training.ema": 0.9}}}, "two runs would lie in the folder no_ema"),
        ({"grid": {"model.dim": [8, 8]}}, "two runs would lie in the folder dim=8"),
        ({"grid": {"model.dim": [8]}, "runs": {"a": {}}}, "either grid, .* or runs"),
        ({"grids": {"model.dim": [8]}}, "did you mean 'grid'"),
        ({"grid": {"model.dim": [8]}, "base": "cifar"}, "no such recipe"),
    ],
)
def test_a_grid_with_a_fault_is_refused_before_anything_is_trained(tmp_path, capsys, values, message):
    path = write(tmp_path / "grid.yaml", **values)
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said)
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{", "", "\x00", "base: digits\nbase: cifar10\ngrid: {model.dim: [8]}\n"]
)
def test_what_is_no_grid(tmp_path, capsys, content):
    (tmp_path / "grid.yaml").write_text(content)
    assert main(["sweep", str(tmp_path / "grid.yaml"), "--workdir", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_one_that_fails_leaves_the_others_alone_and_is_tried_again(tmp_path, capsys):
    """The middle run asks for more images in a batch than there are."""
    path = write(tmp_path / "grid.yaml", grid={"training.batch_size": [128, 5000]})
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "1 failed: 1438 training images are fewer than the batch size 5000" in printed.out
    assert (tmp_path / "out" / "runs.md").exists()
    good = tmp_path / "out" / "batch_size=128" / "seed0"
    assert keras_convmixer.load(good).classes[3] == "3"
    changed = (good / "model.keras").stat().st_mtime_ns
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "out")]) == 1
    again = capsys.readouterr()
    assert "[2/2] batch_size=5000/seed0" in again.err
    assert "[1/2]" not in again.err
    assert again.out == printed.out
    assert (good / "model.keras").stat().st_mtime_ns == changed

    sizes = {"batch_size=128": 128, "batch_size=5000": 64}  # what never began takes the new value
    write(path, runs={name: {"training.batch_size": size} for name, size in sizes.items()})
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "out")]) == 0
    assert "failed" not in capsys.readouterr().out
    write(path, set=SMALL | {"training.epochs": 2}, grid={"training.batch_size": [128]})
    assert main(["sweep", str(path), "--workdir", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{good} was trained by another recipe than the grid has for it now (training.epochs: 2 here, 1" in line


def test_a_folder_that_another_sweep_trains_in_is_refused(tmp_path, capsys):
    path, out = write(tmp_path / "grid.yaml", runs={"one": {}}), tmp_path / "out"
    with files.locked(out / ".lock"):
        assert main(["sweep", str(path), "--workdir", str(out)]) == 1
    assert (
        capsys.readouterr().err
        == f"convmixer: {out} is in use: another sweep trains in it; wait for it or end it\n"
    )
    assert [file.name for file in out.iterdir()] == [".lock"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_run_that_outlived_its_sweep_is_left_alone(tmp_path, capsys, monkeypatch, when):
    path, out = write(tmp_path / "grid.yaml", runs={"one": {}}), tmp_path / "out"
    run = out / "one" / "seed0"
    with contextlib.ExitStack() as stack:

        def begins(*_):  # as a training does, before its first checkpoint
            stack.enter_context(run_lock.held(run))
            (run / "recipe.yaml").write_text("its own")
            return 1

        monkeypatch.setattr("keras_convmixer.experiments.sweep._ended", begins)
        if when == "before":
            begins()
        assert main(["sweep", str(path), "--workdir", str(out)]) == 1
        assert f"{run} is in use: process {os.getpid()} trains in it" in capsys.readouterr().err
        assert (run / "recipe.yaml").read_text() == "its own"
        assert not (run / "failed.txt").exists()


def words(path, workdir):
    return [sys.executable, "-m", "keras_convmixer", "sweep", str(path), "--workdir", str(workdir)]


def after_an_epoch(words, run):
    """A process of a sweep, once that run has an epoch behind it."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    for _ in range(1200):
        if (run / "history.csv").exists():
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{run} has no epoch after two minutes")


def test_a_signal_is_passed_on_and_waited_for(tmp_path):
    path = write(tmp_path / "grid.yaml", set=SMALL | {"training.epochs": 500}, runs={"one": {}, "two": {}})
    run = tmp_path / "out" / "one" / "seed0"
    process = after_an_epoch(words(path, tmp_path / "out"), run)
    process.send_signal(signal.SIGHUP)  # a terminal that is closed
    process.communicate(timeout=120)
    assert process.returncode == 129
    assert (run / "train.log").read_text().endswith("once more ends at once\n")
    assert not (tmp_path / "out" / "two").exists()


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_in_the_epoch_where_it_was(tmp_path):
    path = write(tmp_path / "grid.yaml", set=SMALL | {"training.epochs": 8}, runs={"one": {}})
    run = tmp_path / "out" / "one" / "seed0"
    first = after_an_epoch(words(path, tmp_path / "out"), run)
    first.kill()
    os.kill(int((run / "checkpoints" / ".pid").read_text()), signal.SIGKILL)
    first.communicate()
    assert not (run / "metrics.json").exists()
    done = subprocess.run(words(path, tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in (run / "train.log").read_text()
    assert (run / "history.csv").read_text().count("\n") == 9
