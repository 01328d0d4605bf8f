"""A signal while the held-out split is measured: that is left undone, and done by the training that goes on."""

import csv
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = """
import json, pathlib, signal, sys
import keras, numpy as np, tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)  # without which no two runs on a CPU are alike
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.training import interruption

class Seen(keras.callbacks.Callback):
    def __init__(self):
        self.steps, self.epochs, self.trainings = 0, [], 0
    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(epoch)

measured, stop_at = [], [None]
after_batch = interruption._Stoppable.on_predict_batch_end
def with_signal(self, batch, logs=None):
    measured.append(batch)
    if len(measured) == stop_at[0]:
        signal.raise_signal(signal.SIGINT)
    after_batch(self, batch, logs)
interruption._Stoppable.on_predict_batch_end = with_signal

settings = ["model.dim=8", "model.depth=1", "training.epochs=3", "training.batch_size=100", "training.ema=0.9"]
settings += ["model.stochastic_depth=0.3", "model.dropout=0.1", "augmentation.mixup=0.5"]
recipe, folder = Recipe.load("digits", settings), pathlib.Path(sys.argv[1])
whole = keras_convmixer.train(recipe, folder / "whole", verbose=0)
left = []
for stop in (6, 1, 7, None):  # in epoch 2; there once more; in epoch 3, the last
    seen, stop_at[0] = Seen(), stop
    measured.clear()
    try:
        parts = keras_convmixer.train(recipe, folder / "parts", callbacks=[seen], verbose=2)
    except KeyboardInterrupt:
        newest = max(path.name for path in (folder / "parts" / "checkpoints").glob("*.safetensors"))
        left.append([newest, len(measured), seen.steps, seen.epochs])
left.append([None, len(measured), seen.steps, seen.epochs])
alike = [np.array_equal(a, b) for a, b in zip(whole.model.get_weights(), parts.model.get_weights())]
print(json.dumps([left, alike]))
"""
TIMES = ("seconds", "images_per_second")


def history(run):
    with (run / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def test_it_ends_after_the_batch_and_the_training_that_goes_on_measures_the_epoch(tmp_path):
    """Of an epoch of 14 steps, measured in 4 batches, none is trained again, and each has its one row."""
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True)
    left, alike = json.loads(done.stdout.splitlines()[-1])
    assert left == [
        ["0001-epochs-000014-steps.safetensors", 6, 2 * 14, [0]],
        ["0001-epochs-000014-steps.safetensors", 1, 0, []],
        ["0002-epochs-000014-steps.safetensors", 4 + 3, 14, [1]],
        [None, 4, 0, [2]],
    ]
    assert len(alike) > 5
    assert all(alike)
    assert history(tmp_path / "parts") == history(tmp_path / "whole")
    assert [row["epoch"] for row in history(tmp_path / "parts")] == [1, 2, 3]
    assert "going on after step 14 of epoch 2 of 3" in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3"]
    assert "Traceback" not in done.stderr
