"""What a training leaves after each epoch, and finds again."""

import csv
import types

import keras
import numpy as np
import pytest
import safetensors.numpy

import keras_convmixer
from keras_convmixer.errors import UserError
from keras_convmixer.recipes.sections import Training
from keras_convmixer.training import checkpoint
from keras_convmixer.training.checkpoint import Checkpoints, Position, Rejoined
from keras_convmixer.training.choices import choices
from keras_convmixer.training.divergence import LossWatch
from keras_convmixer.training.dtype_policy import Hardware
from keras_convmixer.training.interruption import Interruption

CPU = Hardware("CPU", flags=frozenset({"amx_bf16"}))


@pytest.fixture
def compiled():
    model = keras_convmixer.create_model("convmixer_tiny", classifier_activation=None, stochastic_depth=0.1)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def restore(path, model, average=None):
    checkpoint.assign(checkpoint.read(path)[0], path, model, average)


def test_a_checkpoint_restores_every_variable(compiled, tmp_path):
    path = tmp_path / "c.safetensors"
    average = [keras.Variable(np.full(3, 0.5))]
    saved = checkpoint.state(compiled, average)
    checkpoint.write(path, saved, {"history": [1]})
    for variable in [*compiled.variables, *compiled.optimizer.variables, *average]:
        variable.assign(keras.ops.zeros_like(variable))
    restore(path, compiled, average)
    for key, value in checkpoint.state(compiled, average).items():
        np.testing.assert_array_equal(value, saved[key], err_msg=key)
    assert checkpoint.read(path)[1] == {"history": [1]}


def test_a_full_disk_leaves_the_last_checkpoint(compiled, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, {"x": np.ones(3)}, {"history": []})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # every longer file fails as on a full disk
    try:
        with pytest.raises(OSError, match="could not be written"):
            checkpoint.write(path, checkpoint.state(compiled), {"history": []})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    np.testing.assert_array_equal(checkpoint.read(path)[0]["x"], np.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_damaged_and_foreign_checkpoints_are_refused(compiled, tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, checkpoint.state(compiled), {"history": []})
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a checkpoint, or is damaged"):
            restore(path, compiled)
    checkpoint.write(path, {"model/0000/x": np.ones(3)}, {"history": []})
    with pytest.raises(ValueError, match="state of another model"):
        restore(path, compiled)


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, {"x": np.arange(8.0), "y": np.ones((), np.int32)}, {"history": [{"loss": 1.5}]})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(checkpoint.DamagedError, match="not a checkpoint, or is damaged"):
            checkpoint.read(path)


@pytest.mark.parametrize("words", [b"choices", b"precision", b"history"])
def test_what_a_run_has_chosen_is_read_from_the_newest_that_is_whole(tmp_path, words):
    (tmp_path / "checkpoints").mkdir()
    for epoch, precision in enumerate(("float32", "mixed_bfloat16")):
        chosen = {"precision": precision, "frozen": False, "cached": False}
        progress = {"history": [{}] * epoch, "choices": chosen}
        checkpoint.write(tmp_path / f"checkpoints/{epoch}.safetensors", {"x": np.ones(3)}, progress)
    newest = checkpoint.kept(tmp_path)[0]
    assert choices(tmp_path, Training(), CPU, True).precision == "mixed_bfloat16"
    newest.write_bytes(newest.read_bytes().replace(words, words[::-1]))
    assert choices(tmp_path, Training(), CPU, True).precision == "float32"
    assert checkpoint.newest_progress(tmp_path)["history"] == []


def test_metadata_without_a_key_is_one_line(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.numpy.save_file({"x": np.ones(3)}, path, {"progress": "{}"})
    with pytest.raises(checkpoint.DamagedError, match=r"it has no 'hash'$"):
        checkpoint.read(path)


class Average:
    def __init__(self):
        self.variables = [keras.Variable(np.zeros(2))]


@pytest.fixture
def epochs(tmp_path):
    """Runs epochs of these validation accuracies, each with its number as the weight, and gives the callback."""

    def run(*accuracies, average=None, best=None, **logs):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(0.25), "mse")
        model.optimizer.build(model.trainable_variables)
        model.stop_training = False
        settings = Training(early_stopping=logs.pop("early_stopping", None), checkpoint_minutes=0)
        saved = best if best is not None else []
        callback = Checkpoints(tmp_path, average, settings, source(), saved.append, Interruption())
        callback.set_model(model)
        callback.on_train_begin()
        for epoch in range(callback.resume(model).epoch, len(accuracies)):
            model.weights[0].assign([[epoch + 1.0]])
            model.optimizer.iterations.assign(10 * (epoch + 1))
            if average:
                average.variables[0].assign([epoch, epoch])
            callback.on_epoch_begin(epoch)
            callback.on_epoch_end(epoch, {"loss": 1.5, "val_accuracy": accuracies[epoch], **logs})
        return callback

    return run


def source(noted=(), steps=10):
    """As little of a source as a checkpoint needs."""
    counted = types.SimpleNamespace(again=[])
    return types.SimpleNamespace(
        starts_at_steps=True,
        steps=steps,
        images_per_epoch=40,
        noted=lambda epoch: list(noted),
        note_again=lambda epoch, indices: counted.again.append((epoch, indices)),
        counted=counted,
        digest="",
    )


def kept(folder):
    """(weight, epochs done, steps done) of a run's checkpoints, the newest first."""
    found = []
    for path in checkpoint.kept(folder):
        arrays, progress = checkpoint.read(path)
        (weight,) = (value for key, value in arrays.items() if key.startswith("model/"))
        found.append((float(weight.squeeze()), len(progress["history"]), progress["step"]))
    return found


def test_the_last_two_are_kept_and_of_equals_the_first_is_the_best(epochs, tmp_path):
    best = []
    callback = epochs(0.1, 0.4, 0.2, 0.4, best=best)
    assert kept(tmp_path) == [(4, 4, 0), (3, 3, 0)]
    assert best == [True, True, False, False]
    assert callback.best_epoch == 1
    assert not callback.model.stop_training


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(epochs, tmp_path, capsys):
    epochs(0.1, 0.4)
    newest = checkpoint.kept(tmp_path)[0]
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    callback = epochs(0.1)
    assert capsys.readouterr().err.startswith(f"{newest} is not a checkpoint, or is damaged")
    assert (float(callback.model.weights[0][0, 0]), len(callback.history)) == (1, 1)
    # It is in the way of no other, neither by its name nor by its number.
    epochs(0.1, 0.4, 0.5)
    assert kept(tmp_path) == [(3, 3, 0), (2, 2, 0)]


def test_where_all_are_damaged_training_does_not_begin_anew(epochs, tmp_path):
    epochs(0.1)
    checkpoint.kept(tmp_path)[0].write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the checkpoints in .* is whole"):
        epochs(0.1)


def test_a_row_that_a_kill_left_out_is_written_again(epochs, tmp_path):
    epochs(0.1, 0.4)
    whole = (tmp_path / "history.csv").read_text()
    (tmp_path / "history.csv").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    epochs(0.1, 0.4)
    assert (tmp_path / "history.csv").read_text() == whole


def test_a_step_is_kept_with_the_means_and_the_images_so_far(epochs, tmp_path):
    callback = epochs(0.1)
    callback.source = source(noted=[3, 7])
    callback.on_epoch_begin(1)
    for batch in range(4):
        callback.on_train_batch_end(batch, {"loss": 2.0})
    again = epochs(0.1)
    assert (again.start.epoch, again.start.step, again.start.means) == (1, 4, {"loss": 2.0})
    assert again.source.counted.again == [(1, [3, 7])]
    assert str(again.start) == "step 4 of epoch 2"
    # A second interruption of the same epoch: its steps are counted from the epoch's start, and so are its means.
    again.on_epoch_begin(1)
    again.on_train_batch_end(0, {"loss": 7.0})
    third = epochs(0.1).start
    assert (third.step, third.means) == (5, {"loss": 3.0})
    logs = {"loss": 5.0, "val_accuracy": 0.5, "seconds": 2.0, "images_per_second": 20.0}
    Rejoined(Position(third.history, 5, third.means, seconds=6.0), again.source).on_epoch_end(1, logs)
    assert logs == {"loss": 4.0, "val_accuracy": 0.5, "seconds": 8.0, "images_per_second": 5.0}


def test_a_state_that_a_step_has_spoilt_is_not_kept(epochs, tmp_path):
    callback = epochs(0.1)
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0, {"loss": 1.0})
    callback.model.weights[0].assign([[np.nan]])
    callback.on_train_batch_end(1, {"loss": 1.0})
    assert [(done, step) for _, done, step in kept(tmp_path)] == [(1, 1), (1, 0)]


def test_the_history_is_a_table(epochs, tmp_path):
    epochs(0.1, 0.4)
    epochs(0.1, 0.4, 0.3, val_unreadable=2)
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [list(row.values()) for row in rows] == [
        ["1", "1.5", "0.1", "0.25", ""],
        ["2", "1.5", "0.4", "0.25", ""],
        ["3", "1.5", "0.3", "0.25", "2.0"],
    ]
    assert list(rows[0]) == ["epoch", "loss", "val_accuracy", "learning_rate", "val_unreadable"]


@pytest.mark.parametrize(
    "accuracies, stops", [((0.4, 0.1), False), ((0.4, 0.1, 0.4), True), ((0.4, 0.1, 0.5), False)]
)
def test_patience_ends_after_so_many_epochs_that_are_no_better(epochs, accuracies, stops):
    callback = epochs(*accuracies, early_stopping=2)
    assert callback.model.stop_training is stops
    assert callback.stopped_early is stops


def test_before_the_first_epoch_nothing_is_to_resume(epochs):
    callback = epochs(early_stopping=1)
    assert callback.history == []
    assert callback.stopped_early is False


def test_another_callbacks_wish_to_stop_stays(epochs):
    callback = epochs(0.1)
    callback.model.stop_training = True
    callback.on_epoch_end(1, {"loss": 1.0, "val_accuracy": 0.5})
    assert callback.model.stop_training is True


def test_what_resumes_has_the_last_epochs_weights_optimizer_and_average(epochs):
    epochs(0.1, 0.4, 0.2, average=Average())
    average = Average()
    callback = epochs(0.1, 0.4, 0.2, average=average)
    assert float(np.squeeze(callback.model.weights[0])) == 3
    assert int(callback.model.optimizer.iterations) == 30
    np.testing.assert_array_equal(average.variables[0], [2, 2])
    assert [row["val_accuracy"] for row in callback.history] == [0.1, 0.4, 0.2]
    with pytest.raises(UserError, match="state of another model"):
        epochs(0.1, 0.4, 0.2)


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_noticed_within_steps_and_named(epochs, loss, tmp_path):
    callback = epochs(0.1)
    callback.on_epoch_begin(1)
    watch = LossWatch(callback)
    watch.set_model(callback.model)
    for batch in range(7):
        watch.on_train_batch_end(batch, {"loss": 1.0})
    expected = (
        rf"loss is {loss} in epoch 2, at step 8 of 10, where the learning rate is about 0.25: .*"
        "0001-epochs-000000-steps.safetensors keeps the last good state"
    )
    with pytest.raises(UserError, match=expected):
        [watch.on_train_batch_end(batch, {"loss": loss}) for batch in range(7, 27)]
