"""What a training leaves after each epoch, and finds again."""

import csv

import keras
import numpy as np
import pytest

import keras_convmixer
from keras_convmixer.errors import UserError
from keras_convmixer.training import checkpoint
from keras_convmixer.training.checkpoint import Checkpoints


@pytest.fixture
def compiled():
    model = keras_convmixer.create_model("convmixer_tiny", classifier_activation=None, stochastic_depth=0.1)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_checkpoint_restores_every_variable(compiled, tmp_path):
    path = tmp_path / "c.safetensors"
    average = [keras.Variable(np.full(3, 0.5))]
    saved = checkpoint.state(compiled, average)
    checkpoint.write(path, saved, {"history": [1]})
    for variable in [*compiled.variables, *compiled.optimizer.variables, *average]:
        variable.assign(keras.ops.zeros_like(variable))
    checkpoint.restore(path, compiled, average)
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
            checkpoint.restore(path, compiled)
    checkpoint.write(path, {"model/0000/x": np.ones(3)}, {"history": []})
    with pytest.raises(ValueError, match="state of another model"):
        checkpoint.restore(path, compiled)


class Average:
    def __init__(self):
        self.variables = [keras.Variable(np.zeros(2))]


@pytest.fixture
def epochs(tmp_path):
    """Runs epochs of these validation accuracies, each with its number as the weight, and gives the callback."""

    def run(*accuracies, average=None, early_stopping=None, **logs):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(0.25), "mse")
        model.optimizer.build(model.trainable_variables)
        model.stop_training = False
        callback = Checkpoints(tmp_path, average, early_stopping)
        callback.set_model(model)
        for epoch in range(callback.resume(model), len(accuracies)):
            model.weights[0].assign([[epoch + 1.0]])
            model.optimizer.iterations.assign(10 * (epoch + 1))
            if average:
                average.variables[0].assign([epoch, epoch])
            callback.on_epoch_end(epoch, {"loss": 1.5, "val_accuracy": accuracies[epoch], **logs})
        return callback

    return run


def kept(path):
    arrays, progress = checkpoint.read(path)
    (weight,) = (value for key, value in arrays.items() if key.startswith("model/"))
    return float(weight.squeeze()), len(progress["history"])


def test_the_best_epoch_and_the_last_are_kept_and_of_equals_the_first(epochs, tmp_path):
    callback = epochs(0.1, 0.4, 0.2, 0.4)
    assert kept(tmp_path / "checkpoints" / "last.safetensors") == (4, 4)
    assert kept(tmp_path / "checkpoints" / "best.safetensors") == (2, 2)
    assert callback.best_epoch == 1
    assert not callback.model.stop_training


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
def test_an_epoch_whose_loss_is_not_finite_leaves_the_one_before(epochs, loss, tmp_path):
    callback = epochs(0.1)
    with pytest.raises(UserError, match=rf"loss is {loss} in epoch 2: .*last.safetensors keeps .* after epoch 1$"):
        callback.on_epoch_end(1, {"loss": loss, "val_accuracy": 0.5})
    assert kept(tmp_path / "checkpoints" / "last.safetensors") == (1, 1)
