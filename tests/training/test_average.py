"""The moving average, on each backend and on several devices: processes of their own."""

import subprocess
import sys

import pytest

STEPS = """
import numpy as np, keras, tensorflow as tf
import keras_convmixer
from keras_convmixer.training import distribute
from keras_convmixer.training.ema import MovingAverage
from keras_convmixer.training.training_model import training_model

rng = np.random.default_rng(0)
images, labels = rng.uniform(0, 255, (24, 12, 12, 3)), np.eye(5)[rng.integers(0, 5, 24)]
with distribute.on(DEVICES) as strategy, strategy.scope():
    keras.utils.set_random_seed(0)
    model = training_model(keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(12, 12, 3), num_classes=5))
    model.compile("adam", "categorical_crossentropy")
    average = MovingAverage(model, 0.5)

def weights():
    return [keras.ops.convert_to_numpy(v).copy() for v in average.sources]

expected, steps = weights(), []

class Recompute(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        steps.append(weights())
        momentum = min(0.5, (1 + len(steps)) / (10 + len(steps)))
        expected[:] = [e + (w - e) * (1 - momentum) for e, w in zip(expected, weights())]

model.fit(images, labels, batch_size=4, epochs=2, shuffle=False, callbacks=[average, Recompute()], verbose=0)
assert len(steps) == 12 and len(expected) == len([w for w in model.get_weights() if w.dtype == "float32"])
assert max(np.abs(a - b).max() for a, b in zip(steps[0], steps[-1])) > 1e-2

def same(values, others):
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(values, others, strict=True))

own = weights()
assert not same(own, expected)
assert same([keras.ops.convert_to_numpy(v) for v in average.variables], expected)
with average.lent():
    assert same(weights(), expected)
    model.predict(images, batch_size=4, verbose=0)
assert all(np.array_equal(a, b) for a, b in zip(weights(), own))
average.apply()
model.fit(images, labels, batch_size=4, shuffle=False, callbacks=[average], verbose=0)
assert same([keras.ops.convert_to_numpy(v) for v in average.variables], expected) is False
"""

TRAIN = """
import csv, json, sys
from pathlib import Path
import pytest, keras_convmixer

folder = Path(sys.argv[1])
small = ["model.dim=8", "model.depth=1", "training.batch_size=256", "training.ema=0.5"]
for epochs in (1, 3):  # the second goes on where the first stopped
    recipe = keras_convmixer.Recipe.load("digits", [*small, f"training.epochs={epochs}"])
    (folder / "recipe.yaml").unlink(missing_ok=True)
    keras_convmixer.train(recipe, folder, verbose=0)
rows = list(csv.DictReader((folder / "history.csv").open()))
metrics = json.loads((folder / "metrics.json").read_text())
assert len(rows) == 3
assert float(rows[-1]["val_accuracy"]) == pytest.approx(metrics["top1"], abs=0.01)
assert float(rows[-1]["val_loss"]) == pytest.approx(metrics["loss"], rel=1e-4)
"""


def run(script, *words):
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "backend, devices", [("tensorflow", None), ("tensorflow", ("CPU:0", "CPU:1")), ("jax", None)]
)
def test_it_is_what_numpy_makes_of_the_weights(monkeypatch, backend, devices):
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    run(STEPS.replace("DEVICES", repr(devices)))


@pytest.mark.slow
def test_jax_trains_with_it(monkeypatch, tmp_path):
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    run(TRAIN, str(tmp_path))
