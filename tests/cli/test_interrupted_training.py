"""`convmixer train`: stopped, and gone on with."""

import json
import subprocess
import sys
import time

import pytest

from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.training.sources import RecipeData

SMALL = ["model.dim=8", "model.depth=1", "training.epochs=500", "training.checkpoint_minutes=0"]


def test_sigterm_ends_it_after_a_checkpoint_and_the_folder_alone_goes_on(tmp_path, capsys):
    run = tmp_path / "run"
    words = [word for key in SMALL for word in ("--set", key)]
    words = [sys.executable, "-m", "keras_convmixer", "train", "--recipe", "digits", "--workdir", str(run), *words]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(run.glob("checkpoints/0001-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert main(["train", "--workdir", str(run)]) == 1
    assert f"{run} is in use: process {process.pid} trains in it" in capsys.readouterr().err
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "SIGTERM: finishing the step and writing a checkpoint" in err
    assert "Traceback" not in err

    newest = max(path.name for path in run.glob("checkpoints/*.safetensors"))
    done = int(newest.split("-")[0])
    assert done < 400
    assert main(["train", "--workdir", str(run), "--set", f"training.epochs={done + 1}"]) == 0
    rows = (run / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + done + 1
    (change,) = json.loads((run / "changes.json").read_text())
    assert change["changes"] == {"training.epochs": [500, done + 1]}


@pytest.mark.slow
def test_sigterm_while_it_measures_does_not_wait_for_the_end_of_that(tmp_path, capsys):
    """Of the digits few are learned from here, and measured are more than 1,600, two at a time."""
    run = tmp_path / "run"
    settings = [*SMALL[:2], "training.epochs=2", "training.checkpoint_minutes=0", "training.batch_size=2"]
    settings += ["data.validation_fraction=0.9"]
    steps = RecipeData(Recipe.load("digits", settings)).steps
    words = [word for key in settings for word in ("--set", key)]
    words = ["train", "--recipe", "digits", "--workdir", str(run), *words]
    process = subprocess.Popen([sys.executable, "-m", "keras_convmixer", *words], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    last = run / "checkpoints" / f"0000-epochs-{steps - 1:06d}-steps.safetensors"
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    newest = max(path.name for path in run.glob("checkpoints/*.safetensors"))
    assert newest == f"0000-epochs-{steps:06d}-steps.safetensors"
    assert not (run / "history.csv").exists()

    assert main(["train", "--workdir", str(run)]) == 0
    assert f"going on after step {steps} of epoch 1 of 2" in capsys.readouterr().err
    rows = (run / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2"]


def test_a_folder_that_may_not_be_gone_on_with_in_another_way(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--recipe", "digits", "--workdir", str(run), *_only_one_epoch()]) == 0
    capsys.readouterr()
    assert main(["train", "--workdir", str(run), "--set", "model.dim=9"]) == 1
    assert "model.dim may not change in the middle of a training; take another --workdir" in capsys.readouterr().err


def _only_one_epoch():
    return [word for key in (*SMALL[:2], "training.epochs=1") for word in ("--set", key)]
