"""Several devices, as logical CPUs. These are made before TensorFlow starts, hence processes of their own."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_convmixer.training import distribute
from keras_convmixer.training.dropout import ReplicaDropout

PRELUDE = """
import csv, json, sys
from pathlib import Path
import numpy as np, keras, tensorflow as tf
import keras_convmixer
from keras_convmixer.training import checkpoint, distribute
from keras_convmixer.training.optimizer import AdamW
from keras_convmixer.training.training_model import training_model

TWO, FOLDER = ("CPU:0", "CPU:1"), Path(sys.argv[1])

def train(name, devices, *overrides):
    small = ["model.dim=8", "model.depth=1", "training.epochs=2", "training.batch_size=358"]
    recipe = keras_convmixer.Recipe.load("digits", [*small, *overrides])
    return keras_convmixer.train(recipe, FOLDER / name, devices=devices, verbose=0)

def history(name):
    return list(csv.DictReader((FOLDER / name / "history.csv").open()))

def difference(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a.model.get_weights(), b.model.get_weights()))
"""


@pytest.fixture
def result(tmp_path):
    """Runs a script after the prelude and returns what it printed last, read as JSON."""

    def run(script):
        words = [sys.executable, "-c", PRELUDE + script, str(tmp_path)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_two_devices_train_as_one_does(result):
    """With BatchNorm frozen and clipping active: the gradient is reduced first, then clipped.

    The last of the 359 held-out images is a batch of its own, which two devices cannot share. With BatchNorm free,
    what they validate is what they save.
    """
    found = result("""
head = ["training.epochs=1", "training.freeze_backbone=true", "optimizer.clip_norm=0.05"]
double, single = train("double", TWO, *head), train("single", None, *head)
unclipped = train("unclipped", None, *head, "optimizer.clip_norm=null")
train("free", TWO, "training.epochs=1", "training.batch_size=32")
evaluation = keras_convmixer.evaluate(FOLDER / "free", verbose=0)
last, other, free = (history(name)[-1] for name in ("double", "single", "free"))
print(json.dumps({
    "difference": difference(double, single),
    "clipping": difference(double, unclipped),
    "losses": [[float(row["loss"]), float(row["val_loss"])] for row in (last, other)],
    "validation": [float(free["val_loss"]), float(free["val_accuracy"])],
    "evaluation": [evaluation.loss, evaluation.top(1)],
    "images": len(evaluation.labels),
}))
""")
    assert found["clipping"] > 1e-3
    assert found["difference"] < 1e-5
    assert found["losses"][0] == pytest.approx(found["losses"][1], rel=1e-5)
    assert found["validation"] == pytest.approx(found["evaluation"], rel=1e-5)
    assert found["images"] == 359


@pytest.mark.slow
def test_two_devices_with_synchronized_batch_norm_train_as_one_does(result):
    """And a batch in two parts trains as two devices do that each normalise by their own images."""
    found = result("""
few = ["training.epochs=1", "training.batch_size=718", "optimizer.clip_norm=0.05"]
shared, double = train("shared", TWO, *few, "training.batch_norm=synchronized"), train("double", TWO, *few)
single, parts = train("single", None, *few), train("parts", None, *few, "training.gradient_accumulation=2")

def trained(a, b):
    pairs = zip(a.model.trainable_variables, b.model.trainable_variables)
    return max(float(np.abs(x.numpy() - y.numpy()).max()) for x, y in pairs)

print(json.dumps([difference(shared, single), trained(double, parts), trained(double, single)]))
""")
    synchronized, in_parts, apart = found
    assert synchronized < 2e-4  # of statistics of up to 3, the running variance in single's being the unbiased one
    assert in_parts < 1e-5
    assert apart > 10 * in_parts


@pytest.mark.slow
def test_an_infinity_on_one_replica_skips_the_step_on_all(result):
    found = result("""
optimizers, apply = [], AdamW.apply

def poisoned(self, grads, variables):
    optimizers.append(self)
    second = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 1)
    now = second & (self.iterations == 2) & (self.loss_scale == 2.0**15)
    apply(self, [tf.where(now, np.inf, g) for g in grads], variables)

AdamW.apply = poisoned
model = train("run", TWO, "training.precision=mixed_float16", "training.epochs=3", "optimizer.clip_norm=0.5").model
arrays, _ = checkpoint.read(checkpoint.kept(FOLDER / "run")[0])
state = {key.split("/")[-1]: float(value) for key, value in arrays.items() if value.size == 1}
variables = [*optimizers[0]._trainable_variables, *optimizers[0].variables]
replicas = [[replica.numpy() for replica in variable.value.values] for variable in variables]
values = [*model.get_weights(), *(replica for pair in replicas for replica in pair)]
print(json.dumps({
    "steps": state["iteration"], "scale": state["loss_scale"],
    "finite": all(bool(np.isfinite(value).all()) for value in values),
    "equal": all(len(pair) == 2 and np.array_equal(*pair) for pair in replicas),
    "accuracy": [float(row["accuracy"]) for row in history("run")],
}))
""")
    assert (found["steps"], found["scale"]) == (11, 2**14)  # of the twelve
    assert found["finite"]
    assert found["equal"]
    assert found["accuracy"][-1] > found["accuracy"][0]


def test_replicas_average_their_statistics_and_draw_their_own_masks(result):
    found = result("""
with distribute.on(TWO) as two, two.scope():
    keras.utils.set_random_seed(0)
    plain = keras_convmixer.ConvMixer(8, 2, 3, 2, input_shape=(12, 12, 3), stochastic_depth=0.5, dropout=0.5)
    model = training_model(plain)
images = np.random.default_rng(0).uniform(0, 255, (16, 12, 12, 3)).astype("float32")

def outputs(training, images):
    def one():
        return model(images[tf.distribute.get_replica_context().replica_id_in_sync_group], training=training)

    run = tf.function(lambda: two.run(one))
    return [replica.numpy() for replica in two.experimental_local_results(run())]

same, other = tf.constant(np.stack([images] * 2)), tf.constant(np.stack([images, images / 3]))
norm = model.get_layer("block_0_depthwise_norm")
replicas = lambda: [r.numpy() for r in two.experimental_local_results(norm.moving_mean.value)]
inference, training = outputs(False, same), outputs(True, same)
outputs(True, other)
before = replicas()
distribute.average_batch_norm(model, two)
print(json.dumps({
    "masks": float(np.abs(training[0] - training[1]).max()),
    "inference": float(np.abs(inference[0] - inference[1]).max()),
    "apart": float(np.abs(before[0] - before[1]).max()),
    "averaged": max(float(np.abs(a - (before[0] + before[1]) / 2).max()) for a in replicas()),
}))
""")
    assert found["masks"] > 1e-4
    assert found["inference"] == 0
    assert found["apart"] > 1e-4
    assert found["averaged"] < 1e-6


@pytest.mark.parametrize("noise_shape", [None, (None, 1, 1)])
def test_one_device_draws_kerass_masks(noise_shape):
    ours, theirs = (kind(0.5, noise_shape, seed=7) for kind in (ReplicaDropout, keras.layers.Dropout))
    for _ in range(3):
        x = np.ones((4, 5, 6), "float32")
        np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))
    assert len(ours.variables) == len(theirs.variables)


@pytest.mark.parametrize(
    "device, message",
    [
        ("CPU:4000000000", "CPU:0 to CPU:255 can be made here"),
        ("GPU:7", "no device GPU:7 here; there are CPU:0$"),
        ("CPU:1", "no device CPU:1 here; there are CPU:0. .* before TensorFlow starts"),
    ],
)
def test_a_device_that_is_not_there_is_named(device, message):
    keras.ops.zeros(1)  # TensorFlow has started
    with pytest.raises(ValueError, match=message), distribute.on([device]):
        pass


def test_one_device_has_no_strategy_of_its_own_and_is_used(result):
    found = result("""
with distribute.on(("CPU:1",)) as strategy, strategy.scope():
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    print(json.dumps([tf.distribute.has_strategy(), [v.value.device for v in model.variables]]))
""")
    assert found[0] is False
    assert len(found[1]) == 2
    assert all(device.endswith("CPU:1") for device in found[1])
