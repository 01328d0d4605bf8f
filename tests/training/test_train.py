import csv
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from PIL import Image
from sklearn.datasets import load_digits

import keras_convmixer
from keras_convmixer import Recipe, bundles, cli
from keras_convmixer.training import checkpoint, dtype_policy, hosts, run_folder, run_lock
from keras_convmixer.training.build import build


def history(run):
    return list(csv.DictReader((run / "history.csv").open()))


def test_leaves_a_run_that_every_command_takes(small_recipe, tmp_path):
    recipe = small_recipe("training.epochs=4", "training.batch_size=32", "model.dim=16")
    bundle = keras_convmixer.train(recipe, tmp_path, verbose=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["images"] == 359
    assert metrics["top1"] > 0.5
    assert metrics["precision"] == "float32"
    assert [row["epoch"] for row in history(tmp_path)] == ["1", "2", "3", "4"]
    assert float(history(tmp_path)[-1]["val_accuracy"]) == pytest.approx(metrics["top1"])
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["training"]["epochs"] == 4
    assert list((tmp_path / "logs").rglob("events.out.tfevents.*"))

    evaluation = keras_convmixer.evaluate(tmp_path)
    assert evaluation.split == "validation"
    assert (evaluation.top(1), evaluation.top(5)) == (metrics["top1"], metrics["top5"])
    loaded = keras_convmixer.load(tmp_path)
    assert {w.dtype for w in loaded.model.weights} == {"float32"}
    for ours, theirs in zip(loaded.model.get_weights(), bundle.model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)

    # Calling again trains no further.
    again = keras_convmixer.train(recipe, tmp_path, verbose=0)
    np.testing.assert_array_equal(again.model.get_weights()[0], bundle.model.get_weights()[0])
    assert len(history(tmp_path)) == 4


@pytest.mark.slow
def test_goes_on_where_it_was_interrupted(small_recipe, tmp_path, monkeypatch):
    recipe = small_recipe("training.ema=0.9", "model.stochastic_depth=0.1")
    whole = keras_convmixer.train(recipe, tmp_path / "whole", verbose=0)

    written = checkpoint.Checkpoints.on_epoch_end

    def interrupted(self, epoch, logs=None):
        written(self, epoch, logs)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoints, "on_epoch_end", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keras_convmixer.train(recipe, tmp_path / "parts", verbose=0)
    monkeypatch.undo()
    assert len(history(tmp_path / "parts")) == 1
    parts = keras_convmixer.train(recipe, tmp_path / "parts", verbose=0)

    assert len(history(tmp_path / "parts")) == 2
    # The batches are the same to the bit; sums on several threads are not.
    for a, b in zip(parts.model.get_weights(), whole.model.get_weights()):
        np.testing.assert_allclose(a, b, atol=2e-3)
    last = [row["loss"] for row in (history(tmp_path / "parts")[-1], history(tmp_path / "whole")[-1])]
    assert float(last[0]) == pytest.approx(float(last[1]), rel=1e-3)


def test_interrupted_within_an_epoch_it_ends_with_the_same_bits(tmp_path):
    code = """
import json, pathlib, signal, sys
import keras, numpy as np, tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)  # without which no two runs on a CPU are alike
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
import keras_convmixer
from keras_convmixer import Recipe, bundles, cli

class Stop(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        self.at, self.epoch = (epoch, batch), None
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            signal.raise_signal(signal.SIGINT)

settings = ["model.dim=8", "model.depth=1", "training.epochs=2", "training.batch_size=256", "training.ema=0.9"]
settings += ["model.stochastic_depth=0.3", "model.dropout=0.1", "augmentation.mixup=0.5"]
recipe, folder = Recipe.load("digits", settings), pathlib.Path(sys.argv[1])
whole = keras_convmixer.train(recipe, folder / "whole", verbose=0)
files = []
for stops in ([Stop(0, 2)], [Stop(1, 1)], []):  # the second goes on within an epoch, and is stopped in the next
    try:
        parts = keras_convmixer.train(recipe, folder / "parts", callbacks=stops, verbose=0)
    except KeyboardInterrupt:
        files.append(max(path.name for path in (folder / "parts" / "checkpoints").glob("*.safetensors")))
alike = [np.array_equal(a, b) for a, b in zip(whole.model.get_weights(), parts.model.get_weights())]
print(json.dumps([files, alike]))
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    written, alike = json.loads(done.stdout.splitlines()[-1])
    assert written == ["0000-epochs-000003-steps.safetensors", "0001-epochs-000002-steps.safetensors"]
    assert all(alike)
    rows, whole = history(tmp_path / "parts"), history(tmp_path / "whole")
    assert len(rows) == len(whole) == 2
    for row, expected in zip(rows, whole):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-6)


def test_is_a_model_folder_while_it_runs_and_so_is_its_best_epoch(small_recipe, tmp_path):
    def evaluated(epoch, logs):
        measured.append(keras_convmixer.evaluate(tmp_path, verbose=0).top(1))
        expected.append(logs["val_accuracy"])
        best = keras_convmixer.evaluate(tmp_path / "best", verbose=0)
        assert best.top(1) == pytest.approx(max(expected))

    measured, expected = [], []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=evaluated)
    recipe = small_recipe("training.ema=0.5", "optimizer.learning_rate=0.2")
    keras_convmixer.train(recipe, tmp_path, callbacks=[callback], verbose=0)
    assert measured == pytest.approx(expected)


def test_goes_on_with_more_epochs_where_the_images_were_moved_to_and_records_it(small_recipe, tmp_path):
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (8, 8), shade + i).save(tmp_path / "images" / name / f"{i}.png")
    recipe = small_recipe(f"data.source={tmp_path / 'images'}", "training.batch_size=4", "training.epochs=1")
    run, moved = tmp_path / "run", tmp_path / "moved"
    keras_convmixer.train(recipe, run, verbose=0)
    (tmp_path / "images").rename(moved)
    changes = [f"data.source={moved}", "training.epochs=2", "training.checkpoint_minutes=1"]
    keras_convmixer.train(None, run, changes=changes, verbose=0)
    assert len(history(run)) == 2
    (change,) = json.loads((run / "changes.json").read_text())
    assert change == {
        "why": "--set",
        "after": "epoch 1",
        "changes": {"data.source": [str(tmp_path / "images"), str(moved)], "training.epochs": [1, 2]},
    }
    with pytest.raises(ValueError, match=r"seed may not change in the middle of a training"):
        keras_convmixer.train(None, run, changes=["seed=1"], verbose=0)
    with pytest.raises(ValueError, match=r"training\.epochs 1 is less than the 2 epochs that are done"):
        keras_convmixer.train(None, run, changes=["training.epochs=1"], verbose=0)
    for change, back in (
        (lambda: Image.new("L", (8, 8), 9).save(moved / "dark" / "new.png"), (moved / "dark" / "new.png").unlink),
        (lambda: (moved / "dark").rename(moved / "night"), lambda: (moved / "night").rename(moved / "dark")),
    ):
        change()
        with pytest.raises(ValueError, match=rf"moved holds other images or classes than when {run} was begun"):
            keras_convmixer.train(None, run, changes=["training.epochs=3"], verbose=0)
        back()
    shutil.copytree(moved, tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.png"):
        Image.new("L", (8, 8), 0).save(path)
    with pytest.raises(ValueError, match=r"other holds other images or classes than those that .*run learns from"):
        keras_convmixer.train(None, run, changes=[f"data.source={tmp_path / 'other'}"], verbose=0)


def test_refuses_a_folder_that_another_process_trains_in(small_recipe, tmp_path):
    (tmp_path / ".writing-killed").mkdir()
    with run_lock.held(tmp_path):
        assert not (tmp_path / ".writing-killed").exists()
        with pytest.raises(ValueError, match=f"is in use: process {os.getpid()} trains in it"):
            keras_convmixer.train(small_recipe(), tmp_path, verbose=0)
    with run_lock.held(tmp_path):
        pass


@pytest.mark.parametrize("asked", [["--recipe", "digits"], ["--set", "training.epochs=99"], []])
@pytest.mark.parametrize("left", ["metrics.json", "history.csv", "model.keras"])
def test_a_model_without_checkpoints_is_left_as_it_is(tmp_path, capsys, asked, left):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    if left == "model.keras":  # as in a run's `best`, or where `average` wrote it
        (run / "checkpoints").rmdir()
    (run / "recipe.yaml").write_text(Recipe.load("digits").to_yaml())
    (run / left).write_text("what was learned")
    assert cli.main(["train", *asked, "--workdir", str(run)]) == 1
    said = capsys.readouterr().err
    assert f"{run} holds a model and no checkpoint to go on from; to begin anew" in said
    assert f"--set model.weights={run}" in said
    assert {path.name for path in run.rglob("*") if path.is_file()} == {"recipe.yaml", left}


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(small_recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(small_recipe().to_yaml())
    with run_lock.held(tmp_path):
        (tmp_path / "model.keras").write_text("the model is written before its checkpoint")
    for recipe in (None, small_recipe()):
        assert run_folder.resolved(tmp_path, recipe, (), hosts.ALONE) == small_recipe()


def test_logs_that_cannot_be_written_are_an_error_before_training(small_recipe, tmp_path):
    (tmp_path / "logs").write_text("")
    with pytest.raises(OSError, match="logs"):
        keras_convmixer.train(small_recipe(), tmp_path, verbose=0)


def test_rolls_back_with_half_the_learning_rate_where_asked(small_recipe, tmp_path, capsys):
    class Spoil(keras.callbacks.Callback):
        left = 1

        def on_train_batch_end(self, batch, logs=None):
            if batch == 2 and self.left:
                self.left -= 1
                self.model.trainable_variables[0].assign(self.model.trainable_variables[0] * np.nan)

    asked = ["training.on_nan=rollback", "training.checkpoint_minutes=0", "training.epochs=1"]
    recipe, spoil = small_recipe(*asked, "optimizer.schedule=constant"), Spoil()
    keras_convmixer.train(recipe, tmp_path, callbacks=[spoil], verbose=0)
    assert [float(row["learning_rate"]) for row in history(tmp_path)] == pytest.approx([0.01])
    (entry,) = json.loads((tmp_path / "changes.json").read_text())
    assert (entry["why"], entry["after"]) == ("rollback", "0000-epochs-000003-steps.safetensors")
    assert "in epoch 1, at step 4 of 11, " in entry["message"]
    assert "going back to 0000-epochs-000003-steps.safetensors, with half" in capsys.readouterr().err
    assert Recipe.load(tmp_path / "recipe.yaml").optimizer.learning_rate == 0.02
    # At most three times.
    spoil.left = 9
    with pytest.raises(ValueError, match="loss is nan in epoch 2"):
        keras_convmixer.train(None, tmp_path, changes=["training.epochs=2"], callbacks=[spoil], verbose=0)
    assert len(json.loads((tmp_path / "changes.json").read_text())) == 1 + 1 + 2


def test_refuses_the_run_of_another_recipe(small_recipe, tmp_path):
    (tmp_path / "recipe.yaml").write_text(small_recipe().to_yaml())
    with pytest.raises(ValueError, match=r"run of another recipe \(training.epochs: 3 here, 2 there\)"):
        keras_convmixer.train(small_recipe("training.epochs=3"), tmp_path, verbose=0)
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_weights_are_recorded_where_they_lie_and_are_needed_for_the_first_epoch_alone(
    small_recipe, tmp_path, monkeypatch
):
    run, (here, moved) = tmp_path / "run", (tmp_path / name for name in ("start", "moved"))
    learned = build(small_recipe().model, [str(i) for i in range(10)])
    for folder in (here, run, tmp_path / "imagenet"):
        bundles.save(learned, folder)
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe("model.weights=start", "model.dim=null", "model.depth=null")
    checkpoint.write(run / "checkpoints" / "0000-epochs-000001-steps.safetensors", {}, {"history": []})
    resolved = run_folder.resolved(run, recipe, (), hosts.ALONE)
    assert resolved.model.weights == str(here)
    assert small_recipe("model.weights=imagenet").placed().model.weights == "imagenet"
    run_folder.begin(run, resolved, checkpoint.Position([]))
    monkeypatch.chdir(moved.parent.parent)
    assert run_folder.start(run, run_folder.resolved(run, None, (), hosts.ALONE).model) == resolved.model
    here.rename(moved)
    with pytest.raises(ValueError, match=f"{here}, which {run} started from, is not there: put it back, it can go"):
        keras_convmixer.train(None, run, verbose=0)
    checkpoint.write(run / "checkpoints" / "0001-epochs-000000-steps.safetensors", {}, {"history": [{}]})
    again = build(run_folder.start(run, resolved.model), learned.classes)
    for ours, theirs in zip(again.model.get_weights(), learned.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("source", ["photos", "~/photos"])
def test_images_are_recorded_where_they_lie(small_recipe, tmp_path, monkeypatch, source):
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe(f"data.source={source}")
    resolved = run_folder.resolved(tmp_path / "run", recipe, (), hosts.ALONE)
    assert resolved.data.source == str(tmp_path / "photos")
    assert small_recipe("data.source=digits").placed().data.source == "digits"


def test_a_start_that_failed_leaves_nothing_in_the_way(small_recipe, tmp_path):
    with pytest.raises(OSError, match="no such file of weights"):
        keras_convmixer.train(small_recipe("model.weights=nowhere"), tmp_path / "run", verbose=0)
    keras_convmixer.train(small_recipe("training.epochs=1"), tmp_path / "run", verbose=0)
    assert len(history(tmp_path / "run")) == 1


def test_unreadable_images_are_named_and_left_out(small_recipe, tmp_path, capsys):
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (8, 8), shade + i).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "dark" / "broken.png").write_text("no image")
    settings = [f"data.source={tmp_path / 'images'}", "data.allow_corrupt=true", "training.batch_size=4"]
    keras_convmixer.train(small_recipe(*settings, "training.epochs=1"), tmp_path / "run", verbose=0)
    said = capsys.readouterr().err
    assert said.count("cannot be read: dark/broken.png: not a JPEG, PNG") == 1
    assert said.count("broken.png") == 1


def test_early_stopping_keeps_the_best_epoch(small_recipe, tmp_path):
    # With a rate of 0 no epoch is better than the first.
    recipe = small_recipe("training.epochs=9", "training.early_stopping=1", "optimizer.learning_rate=0")
    keras_convmixer.train(recipe, tmp_path, verbose=0)
    rows = history(tmp_path)
    best = max(range(len(rows)), key=lambda i: float(rows[i]["val_accuracy"]))
    assert len(rows) == best + 2 < 9
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(float(rows[best]["val_accuracy"]))
    assert (metrics["epochs"], metrics["best_epoch"]) == (len(rows), best + 1)
    assert f"the weights are those of epoch {best + 1}" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_starts_from_a_model_folder(small_recipe, tmp_path, capsys):
    start = keras_convmixer.train(small_recipe("training.epochs=1"), tmp_path / "start", verbose=0)
    recipe = small_recipe(
        f"model.weights={tmp_path / 'start'}",
        "model.dim=null",
        "model.depth=null",
        "training.epochs=1",
        "training.freeze_backbone=true",
        "training.class_weights=true",
        "optimizer.backbone_multiplier=0.1",
    )
    tuned = keras_convmixer.train(recipe, tmp_path / "tuned", verbose=0)
    for layer in start.model.layers:
        same = [
            np.array_equal(a, b)
            for a, b in zip(layer.get_weights(), tuned.model.get_layer(layer.name).get_weights())
        ]
        assert all(same) == (layer.name != "head")


def test_layer_decay_slows_what_is_far_from_the_head(small_recipe, tmp_path):
    # Of two steps the second has a rate of 0, and with no epsilon the first moves each weight by its rate.
    steps = ["training.epochs=1", "training.batch_size=719", "optimizer.epsilon=1e-30", "model.depth=2"]
    steps += ["optimizer.layer_decay=0.5", "optimizer.backbone_multiplier=0.8", "optimizer.weight_decay=0"]
    start, moved = (
        keras_convmixer.train(
            small_recipe(*steps, f"optimizer.learning_rate={rate}"), tmp_path / f"{rate}", verbose=0
        ).model
        for rate in (0, 0.01)
    )
    found = {
        layer.name: np.abs(layer.get_weights()[0] - moved.get_layer(layer.name).get_weights()[0]).max()
        for layer in start.layers
        if layer.name in ("patch_embedding", "block_0_depthwise", "block_1_pointwise", "head")
    }
    rates = {"patch_embedding": 0.1, "block_0_depthwise": 0.2, "block_1_pointwise": 0.4, "head": 1}
    expected = {name: rate * found["head"] for name, rate in rates.items()}
    assert found["head"] > 0
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_model_folder_is_resampled_where_the_recipe_asks_for_other_sizes(small_recipe, tmp_path):
    start = keras_convmixer.train(small_recipe("training.epochs=1"), tmp_path / "start", verbose=0)
    frozen = ["optimizer.learning_rate=0", "training.epochs=1", "training.freeze_backbone=true"]
    recipe = small_recipe(f"model.weights={tmp_path / 'start'}", "model.kernel_size=7", *frozen)
    larger = keras_convmixer.train(recipe, tmp_path / "larger", verbose=0)
    name = "block_0_depthwise"
    theirs, ours = (model.get_layer(name).get_weights()[0] for model in (start.model, larger.model))
    np.testing.assert_array_equal(ours[1:-1, 1:-1], theirs)
    assert larger.model.get_layer("head").get_weights()[0] == pytest.approx(
        start.model.get_layer("head").get_weights()[0]
    )
    with pytest.raises(ValueError, match=r"start: the checkpoint does not fit the model\..*dim 8 instead of 9"):
        keras_convmixer.train(
            small_recipe(f"model.weights={tmp_path / 'start'}", "model.dim=9"), tmp_path / "other", verbose=0
        )


def test_a_loss_that_is_not_finite_is_an_error_with_advice_that_works(small_recipe, tmp_path):
    recipe = small_recipe("optimizer.learning_rate=1e30", "training.epochs=5", "optimizer.clip_norm=null")
    advice = "train anew, in another --workdir, with a lower optimizer.learning_rate or a lower optimizer.clip_norm"
    with pytest.raises(ValueError, match=rf"loss is (nan|inf) in epoch 1, at step \d+ of 11, .*: {advice}$"):
        keras_convmixer.train(recipe, tmp_path / "run", verbose=0)
    assert not (tmp_path / "run" / "model.keras").exists()
    lower = small_recipe("training.epochs=1", "optimizer.learning_rate=0.01", "optimizer.clip_norm=null")
    keras_convmixer.train(lower, tmp_path / "another", verbose=0)


def test_the_last_good_checkpoint_is_named_where_the_loss_stops_being_finite(small_recipe, tmp_path):
    keras_convmixer.train(small_recipe("training.epochs=1"), tmp_path, verbose=0)
    (last,) = checkpoint.kept(tmp_path)
    arrays, progress = checkpoint.read(last)
    weights = {key: np.full_like(array, np.nan) for key, array in arrays.items() if array.dtype.kind == "f"}
    checkpoint.write(last, arrays | weights, progress)
    two_epochs = small_recipe()
    (tmp_path / "recipe.yaml").write_text(two_epochs.to_yaml())
    with pytest.raises(
        ValueError, match=rf"loss is nan in epoch 2, at step 1 of 11, .*: {last} keeps the last good state"
    ):
        keras_convmixer.train(two_epochs, tmp_path, verbose=0)


def test_a_last_step_that_spoils_the_weights_is_noticed_before_anything_is_saved(small_recipe, tmp_path):
    class Spoils(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, 10):
                self.model.set_weights([np.full_like(weight, np.nan) for weight in self.model.get_weights()])

    with pytest.raises(
        ValueError, match=r"weights are no longer finite in epoch 2, after its last step, .*0001-epochs"
    ):
        keras_convmixer.train(small_recipe("training.early_stopping=1"), tmp_path, callbacks=[Spoils()], verbose=0)
    assert len(history(tmp_path)) == 1
    for folder in (tmp_path, tmp_path / "best"):
        assert all(np.isfinite(weight).all() for weight in keras_convmixer.load(folder).model.get_weights())


@pytest.mark.slow
def test_a_mixed_precision_is_named(small_recipe, tmp_path, capsys):
    keras_convmixer.train(small_recipe("training.epochs=1", "training.precision=mixed"), tmp_path, verbose=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["precision"] == dtype_policy.policy("mixed", dtype_policy.hardware())
    assert f"training.precision: mixed is {metrics['precision']} on this hardware\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override,message",
    [
        ("training.batch_size=5000", "1438 training images are fewer than the batch size 5000"),
        ("model.dim=null", "the recipe names no architecture: give model.variant, or also model.dim"),
        ("model.variant=convmixer_foo", "unknown model"),
    ],
)
def test_refuses_what_cannot_be_trained(small_recipe, tmp_path, override, message):
    with pytest.raises(ValueError, match=message):
        keras_convmixer.train(small_recipe(override), tmp_path, verbose=0)


def test_takes_a_recipes_name_and_keras_callbacks(small_recipe, tmp_path, monkeypatch):
    seen = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, dict(logs))))
    path = tmp_path / "mine.yaml"
    path.write_text(small_recipe("training.epochs=2").to_yaml())
    monkeypatch.setenv("HOME", str(tmp_path))
    keras_convmixer.train(path, "~/run", callbacks=[callback], verbose=0)
    assert [epoch for epoch, _ in seen] == [0, 1]
    rows = history(tmp_path / "run")
    assert [logs["val_accuracy"] for _, logs in seen] == [float(row["val_accuracy"]) for row in rows]
    with pytest.raises(OSError, match="no such recipe"):
        keras_convmixer.train("digit", tmp_path / "other", verbose=0)


def own_batches(digits, first, last):
    """Digits `first` to `last` as anyone would make them: arrays, batched."""
    images = np.repeat((digits.images[first:last, ..., None] * 255 / 16).round(), 3, axis=-1).astype("float32")
    return tf.data.Dataset.from_tensor_slices((images, digits.target[first:last])).shuffle(64, seed=1).batch(32)


def test_trains_on_batches_of_ones_own(small_recipe, tmp_path):
    digits = load_digits()
    data = own_batches(digits, 0, 1400), own_batches(digits, 1400, 1797)
    recipe = small_recipe("training.epochs=4", "training.batch_size=32", "model.dim=16")
    names = [f"digit {i}" for i in range(10)]
    bundle = keras_convmixer.train(recipe, tmp_path, data=data, classes=names, verbose=0)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["split"], metrics["images"], bundle.classes[3]) == ("held out", 397, "digit 3")
    right = sum((bundle.model.predict_on_batch(x).argmax(1) == y.numpy()).sum() for x, y in data[1])
    assert (
        metrics["top1"] == pytest.approx(right / 397) == pytest.approx(float(history(tmp_path)[-1]["val_accuracy"]))
    )
    assert metrics["top1"] > 0.5
    for whose in (keras_convmixer.evaluate, lambda run: keras_convmixer.average([run], tmp_path / "averaged")):
        with pytest.raises(ValueError, match=r"data\.source is null, as of a training on batches of the user's"):
            whose(tmp_path)
    with pytest.raises(ValueError, match=r"digits has other classes than .*: name the images that it learned from"):
        keras_convmixer.average([tmp_path], tmp_path / "averaged", data="digits")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda data: {"data": data[0]}, "a pair of tf.data.Dataset"),
        (lambda data: {"data": data}, r"needs classes=\[...\]"),
        (lambda data: {"data": (data[0].repeat(), data[1]), "classes": range(10)}, "known number of batches"),
        (lambda data: {"data": (data[0].unbatch(), data[1]), "classes": range(10)}, "must give batches"),
    ],
)
def test_refuses_batches_that_it_cannot_train_on(small_recipe, tmp_path, change, message):
    data = own_batches(load_digits(), 0, 64), own_batches(load_digits(), 64, 128)
    with pytest.raises(ValueError, match=message):
        keras_convmixer.train(small_recipe(), tmp_path, **change(data), verbose=0)
    assert not list(tmp_path.iterdir())
