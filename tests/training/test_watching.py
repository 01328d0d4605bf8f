"""What a training says of itself: before its first step, while it goes on, and afterwards in its folder."""

import csv
import io
import json
import re
import sys

import pytest
import tensorflow as tf

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.cli import main
from keras_convmixer.machine import processor
from keras_convmixer.parts import parameter_count
from keras_convmixer.training.schedule import OneCycle

SMALL = ["model.dim=8", "model.depth=1", "training.epochs=2", "training.batch_size=128"]


def digits(*overrides):
    return Recipe.load("digits", [*SMALL, *overrides])


def test_the_command_says_what_trains_before_the_first_step(tmp_path, capsys):
    run = tmp_path / "run"
    words = [word for key in SMALL for word in ("--set", key)]
    assert main(["train", "--recipe", "digits", "--workdir", str(run), *words]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{run}: top-1")
    header, _, rest = err.partition("epoch 1 of 2:")
    parameters = parameter_count(keras_convmixer.load(run).model)
    assert json.loads((run / "metrics.json").read_text())["parameters"] == parameters
    for expected in (
        f"{run}\n",
        "CPU:0\n",
        f"{processor()}, ",
        "float32\n",
        f"dim 8, depth 1, kernel 5, patch 1, images of 8×8; {parameters} parameters\n",
        "1,438 to learn from, 359 held out (validation); 10 classes\n",
        "11 an epoch, 2 epochs\n",
    ):
        assert expected in header
    # 1 GB of TensorFlow's own and ten maps or so of 64 positions, 8 channels and 128 images
    assert "a step takes about 1.0 of " in header
    assert header.count('pip install "tensorflow[and-cuda]"') == 1
    assert "tensorflow[and-cuda]" not in rest
    assert "going on" not in err


def test_with_a_gpu_none_is_missed(tmp_path, capsys, monkeypatch):
    listed = tf.config.list_physical_devices
    fake = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: [fake] if kind == "GPU" else listed(kind)
    )
    keras_convmixer.train(digits("training.epochs=1"), tmp_path, devices=("CPU:0",), verbose=2)
    err = capsys.readouterr().err
    assert "devices    CPU:0\n" in err
    assert "no GPU" not in err


def test_of_a_head_alone_no_memory_is_claimed(tmp_path, capsys):
    keras_convmixer.train(digits("training.epochs=1", "training.freeze_backbone=true"), tmp_path, verbose=2)
    err = capsys.readouterr().err
    assert "parameters, of which the head alone is trained\n" in err
    assert "a step takes" not in err


def test_a_line_an_epoch_has_the_figures_of_history(tmp_path, capsys):
    keras_convmixer.train(digits(), tmp_path, verbose=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert len(lines) == len(rows) == 2
    schedule = OneCycle(0.02, 2, 11)
    for number, (line, row) in enumerate(zip(lines, rows)):
        loss, top1, val_loss, val_top1, rate, speed = (
            float(row[key])
            for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")
        )
        assert f"epoch {number + 1} of 2: loss {loss:.4g}, top-1 {top1:.2%}; " in line
        assert f"held out: loss {val_loss:.4g}, top-1 {val_top1:.2%}; " in line
        last_step = float(schedule(11 * (number + 1) - 1))  # history has that of the step to come
        assert f"learning rate {last_step:.3g}; {speed:,.0f} images/s; " in line
        assert rate == pytest.approx(float(schedule(11 * (number + 1))), abs=1e-9)
        assert speed == pytest.approx(11 * 128 / float(row["seconds"]))
        assert (" left" in line) == (number == 0)


def test_a_bar_shows_the_step_as_it_is(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    # As if each look at the clock came a minute after the last: every step is shown.
    now = iter(range(0, 10**9, 60))
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)  # its thread would look at the clock too
    monkeypatch.setattr(sys, "stderr", Terminal())
    keras_convmixer.train(digits("training.epochs=1"), tmp_path, verbose=1)
    shown = [line for line in re.split(r"[\r\n]", sys.stderr.getvalue()) if line.startswith("epoch 1 of 1: ")]
    schedule = OneCycle(0.02, 1, 11)
    for step in range(11):
        line = next(line for line in shown if f" {128 * (step + 1)}/1408 [" in line)
        assert f"learning rate {float(schedule(step)):.3g}" in line
        assert re.search(r"<[\d:?]+, +[\d.?]+ images/s, loss [\d.]+, top-1 [\d.]+%", line)


def test_a_resumed_run_says_where_it_goes_on(tmp_path, capsys):
    keras_convmixer.train(digits("training.epochs=1"), tmp_path, verbose=0)
    assert capsys.readouterr().err == ""
    keras_convmixer.train(None, tmp_path, changes=["training.epochs=2"], verbose=2)
    err = capsys.readouterr().err
    assert f"{tmp_path}: going on after epoch 1 of 2\nepoch 2 of 2: " in err
    # One that is done has nothing to say.
    keras_convmixer.train(None, tmp_path, verbose=2)
    assert capsys.readouterr().err == ""


def test_the_folder_says_what_it_was_made_with(tmp_path):
    keras_convmixer.train(digits("training.epochs=1"), tmp_path, verbose=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["devices"], metrics["processor"]) == (["CPU:0"], processor())
    assert metrics["versions"]["tensorflow"] == tf.__version__
    assert {"keras", "python"} <= metrics["versions"].keys()
