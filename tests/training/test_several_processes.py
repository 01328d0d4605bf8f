"""Trainings on several processes, against the same training on one."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from several_processes import environment, in_processes

pytest.importorskip("jax")
pytestmark = pytest.mark.slow

TRAIN = """
import hashlib, os
import keras, keras_convmixer
from keras_convmixer import Recipe

SMALL = ["model.dim=8", "model.depth=2", "augmentation.crop_scale=null", "augmentation.mixup=0.5",
         "augmentation.mix_group=8", "training.batch_size=64", "training.epochs=1"]

class Losses(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.steps = []
    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(float(logs["loss"]))
    def on_epoch_end(self, epoch, logs=None):
        self.figures = {name: float(value) for name, value in logs.items() if name != "seconds"}

def trained(folder, *overrides):
    losses = Losses()
    recipe = Recipe.load("digits", [*SMALL, *overrides])
    bundle = keras_convmixer.train(recipe, folder, callbacks=[losses], verbose=0)
    weights = b"".join(weight.tobytes() for weight in bundle.model.get_weights())
    losses.figures.pop("images_per_second")
    return {"losses": losses.steps, "weights": hashlib.sha1(weights).hexdigest(), "figures": losses.figures}
"""


def test_they_train_as_one_does(tmp_path):
    script = f"""{TRAIN}
def run(joined, folder):
    return trained(folder, "training.ema=0.9", "model.stochastic_depth=0.2", "model.dropout=0.1")
"""
    (one,) = in_processes(script, 1, tmp_path / "one")
    for count in (2, 4):
        first, *others = in_processes(script, count, tmp_path / str(count))
        assert all(other == first for other in others)  # to the last bit
        assert len(first["losses"]) == 22
        np.testing.assert_allclose(first["losses"], one["losses"], atol=1e-5)
        np.testing.assert_allclose(first["figures"]["val_loss"], one["figures"]["val_loss"], rtol=1e-4)
        assert first["figures"]["val_accuracy"] == pytest.approx(one["figures"]["val_accuracy"], abs=0.003)
        assert (tmp_path / str(count) / "metrics.json").exists()
    assert one["losses"][0] != one["losses"][-1]


COMMAND = [sys.executable, "-c", "import sys; from keras_convmixer.cli import main; sys.exit(main())"]
OPTIONS = ["--backend", "jax", "--recipe", "digits", "--set", "model.dim=8", "--set", "model.depth=1"]
OPTIONS += ["--set", "augmentation.crop_scale=null", "--set", "training.batch_size=64"]
OPTIONS += ["--set", "training.epochs=10", "--set", "training.checkpoint_minutes=0.01"]
# At the recipe's rate a model this small takes a step now and then in which rounding decides where it goes.
OPTIONS += ["--set", "optimizer.learning_rate=0.001"]


def started(folder, *words, command=COMMAND):
    words = [*command, "train", *OPTIONS, "--workdir", str(folder), *words]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def wait_for(folder, epochs, process):
    deadline = time.monotonic() + 300
    while not list(folder.glob(f"checkpoints/{epochs:04d}-*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def worker(number, parent):
    found = subprocess.run(
        ["pgrep", "-P", str(parent.pid), "-f", f"process-id={number}"], capture_output=True, check=True
    )
    return int(found.stdout)


def history(folder):
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_killed_and_stopped_it_goes_on_with_any_number(tmp_path):
    run = tmp_path / "run"
    process = started(run, "--processes", "2")
    wait_for(run, 2, process)
    os.kill(worker(1, process), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    assert out == ""
    assert err.splitlines()[-1].startswith(
        "convmixer: process 1 was ended by SIGKILL, and so the others were ended"
    )
    assert "Traceback" not in err

    process = started(run, "--processes", "4")
    wait_for(run, 4, process)
    os.kill(worker(3, process), signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "going on after" in err
    assert "SIGTERM in another process: ending with it" in err

    process = started(run)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "top-1" in out
    assert [row["epoch"] for row in history(run)] == [str(i + 1) for i in range(10)]

    whole = tmp_path / "whole"
    process = started(whole)
    process.communicate(timeout=300)
    for one, other in zip(history(run), history(whole), strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), rel=1e-3)
    assert float(one["val_accuracy"]) == pytest.approx(float(other["val_accuracy"]), abs=0.02)
    assert not [*run.rglob(".writing-*"), *run.rglob("*.damaged")]


LOST = "another process of this training has failed, ended or cannot be reached"
# A process of which every image of the training is gone; and one that waits 3 s for the others to come.
WITHOUT_IMAGES = """
import dataclasses, sys
from keras_convmixer.cli import launch, main
from keras_convmixer.data import datasets

opened = datasets.open_dataset
def open_dataset(*args, **settings):
    import tensorflow as tf
    found = opened(*args, **settings)
    gone = dataclasses.replace(found.training(), encoded=lambda index: tf.io.read_file("/nowhere"))
    return dataclasses.replace(found, splits=dict(found.splits) | {"train": gone})
datasets.open_dataset = open_dataset
sys.exit(main())
"""
IMPATIENT = """
import sys
from keras_convmixer.training import hosts
from keras_convmixer.cli import main
hosts.JOIN_SECONDS = 3
sys.exit(main())
"""


def test_one_whose_images_are_lost_ends_the_other_too(tmp_path):
    words = ["--coordinator", "127.0.0.1:45871", "--num-processes", "2", "--process-id"]
    first = started(tmp_path / "run", *words, "0")
    second = started(tmp_path / "run", *words, "1", command=[sys.executable, "-c", WITHOUT_IMAGES])
    _, err = second.communicate(timeout=200)
    assert second.returncode == 1, err
    assert "images in a row cannot be read: is the data still there?" in err
    assert "Traceback" not in err
    _, err = first.communicate(timeout=60)
    assert first.returncode == 75, err
    assert LOST in err.splitlines()[-1]
    assert err.count("convmixer: ") == 1


def test_others_that_do_not_come_are_not_waited_for_for_ever(tmp_path):
    words = ["--coordinator", "127.0.0.1:45872", "--num-processes", "2", "--process-id", "0"]
    process = started(tmp_path / "run", *words, command=[sys.executable, "-c", IMPATIENT])
    out, err = process.communicate(timeout=200)
    assert (process.returncode, out) == (75, "")
    assert err.startswith(f"convmixer: {LOST}")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_image_that_cannot_be_read_is_counted_by_all(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i:02}.jpg")
    damaged = [tmp_path / "photos" / name for name in ("train/a/05.jpg", "train/b/06.jpg", "test/b/03.jpg")]
    for path in damaged:
        path.write_bytes(path.read_bytes()[:200])

    options = ["--data", str(tmp_path / "photos"), "--set", "training.batch_size=16", "--set", "training.epochs=2"]
    process = started(tmp_path / "run", "--processes", "2", *options, "--set", "data.allow_corrupt=true")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["unreadable"]), float(row["val_unreadable"])) for row in rows] == [(2, 1)] * 2
