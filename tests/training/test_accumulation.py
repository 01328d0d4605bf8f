"""Batches in parts: one update with their mean gradient, in less memory."""

import itertools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_convmixer
from keras_convmixer.training import memory
from keras_convmixer.training.compiled import compiled

SGD = [
    "optimizer.name=sgd",
    "optimizer.schedule=constant",
    "optimizer.learning_rate=0.5",
    "optimizer.weight_decay=0",
]


def made(small_recipe, *overrides):
    keras.utils.set_random_seed(1)
    model = keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None)
    return compiled(small_recipe(*SGD, "optimizer.clip_norm=null", *overrides), model, 4)


def batch(size):
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 255, (size, 8, 8, 3)).astype("float32")
    return x, np.eye(3, dtype="float32")[draw.integers(0, 3, size)], draw.uniform(0.5, 2, size).astype("float32")


@pytest.mark.parametrize("parts, weighted", [(2, False), (3, True), (20, False)])
def test_a_step_is_one_update_with_the_mean_gradient(small_recipe, parts, weighted):
    x, y, weights = batch(13)
    weights = weights if weighted else np.ones_like(weights)
    model = made(small_recipe, f"training.gradient_accumulation={parts}")
    before = [variable.numpy() for variable in model.trainable_variables]
    plain = made(small_recipe)
    losses, gradients, count = [], [], min(parts, 13)
    edges = [i * 13 // count for i in range(count + 1)]
    for start, end in itertools.pairwise(edges):
        with tf.GradientTape() as tape:
            errors = keras.losses.categorical_crossentropy(y[start:end], plain(x[start:end], training=True), True)
            loss = tf.reduce_mean(errors * weights[start:end])
        gradients += [[(end - start) / 13 * g.numpy() for g in tape.gradient(loss, plain.trainable_variables)]]
        losses += [(end - start) / 13 * float(loss)]
    logs = model.train_on_batch(x, y, sample_weight=weights if weighted else None, return_dict=True)
    assert logs["loss"] == pytest.approx(sum(losses), rel=1e-5)
    assert int(model.optimizer.iterations) == 1
    for old, new, *of_parts in zip(before, model.trainable_variables, *gradients):
        np.testing.assert_allclose(new.numpy(), old - 0.5 * sum(of_parts), rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(model.non_trainable_variables, plain.non_trainable_variables):
        if "moving" in ours.name:  # each part in its turn moves BatchNorm's statistics
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_training_in_parts_learns(small_recipe, tmp_path):
    parts = ["training.gradient_accumulation=2", "training.ema=0.9", "model.dim=16", "training.epochs=3"]
    recipe = small_recipe(*parts, "training.batch_size=64", "optimizer.learning_rate=0.05")
    run = keras_convmixer.train(recipe, tmp_path / "run", verbose=0)
    assert json.loads((run.path / "metrics.json").read_text())["top1"] > 0.5


def test_the_estimate_of_memory_knows_of_it(small_recipe):
    model = keras_convmixer.create_model("convmixer_tiny", classifier_activation=None)
    bundle = keras_convmixer.load(model, classes=[str(i) for i in range(10)])

    def estimate(*overrides):
        return memory.run_bytes(small_recipe(*overrides), bundle, "float32")

    assert estimate("training.gradient_accumulation=4") == estimate("training.batch_size=32") < estimate()


@pytest.mark.slow
def test_it_takes_less_memory():
    """Peak resident memory of two steps of a batch of 256 in 1 and in 8 parts, beyond that of a batch of 32."""
    script = """
import resource, sys, keras, numpy as np, keras_convmixer
from keras_convmixer.training.compiled import compiled
parts, size = map(int, sys.argv[1:])
recipe = keras_convmixer.Recipe.load("digits", {"training": {"gradient_accumulation": parts}})
model = compiled(recipe, keras_convmixer.ConvMixer(64, 6, 5, 2, input_shape=(64, 64, 3), num_classes=3), 4)
for _ in range(2):
    model.train_on_batch(np.zeros((size, 64, 64, 3), "float32"), np.zeros((size, 3), "float32"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
"""

    def peak(*words):
        command = [sys.executable, "-c", script, *map(str, words)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])

    base, whole, parts = peak(1, 32), peak(1, 256), peak(8, 256)
    assert parts - base < 0.25 * (whole - base)
