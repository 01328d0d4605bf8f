"""What is measured at the end of an epoch is the average, and the model goes on as it was."""

import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_convmixer.inference.evaluation_report import Evaluation
from keras_convmixer.recipes.sections import Training
from keras_convmixer.training import checkpoint
from keras_convmixer.training.checkpoint import Checkpoints, Position
from keras_convmixer.training.ema import MovingAverage
from keras_convmixer.training.interruption import Interruption
from keras_convmixer.training.validation import Validation


class Meter:
    """Measures the logits of one image, which are the model's weights."""

    unread = (4,)

    def measure(self, model, classes):
        assert classes == ("a", "b")
        return Evaluation("held out", classes, model.predict(np.ones((1, 1)), verbose=0), np.array([1]))


class Source:
    images_per_epoch = 20
    steps = 5
    digest = ""

    def unreadable(self, epoch, held_out):
        return {"val_unreadable": 10 * epoch + len(held_out)}


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def measured(model, average):
    checkpoints = Checkpoints("run", average, None, Source(), None, Interruption())
    validation, logs = Validation(Meter(), ("a", "b"), tf.distribute.get_strategy(), checkpoints), {"loss": 1.0}
    validation.set_model(model)
    validation.on_epoch_begin(3)
    time.sleep(0.01)
    validation.on_epoch_end(3, logs)
    return logs


def test_the_figures_of_an_epoch(model):
    model.set_weights([np.array([[0.0, np.log(3)]])])
    found = measured(model, None)
    seconds = found.pop("seconds")
    assert 0.01 <= seconds < 5
    assert found.pop("images_per_second") == pytest.approx(20 / seconds)
    assert found == pytest.approx({"loss": 1, "val_accuracy": 1, "val_loss": np.log(4 / 3), "val_unreadable": 31})


def test_the_average_is_measured_in_the_models_place(model):
    model.set_weights([np.array([[0.0, 1.0]])])
    average = MovingAverage(model, 0.5)
    model.set_weights([np.array([[1.0, 0.0]])])
    assert measured(model, average)["val_accuracy"] == 1
    assert measured(model, None)["val_accuracy"] == 0
    assert model.get_weights()[0].tolist() == [[1, 0]]


def test_logits_that_are_not_finite_are_no_warning_here(model, recwarn):
    model.set_weights([np.array([[np.inf, np.inf]])])
    found = measured(model, None)
    assert np.isnan(found["val_loss"])
    assert found["val_accuracy"] == 0
    assert not [w for w in recwarn if "invalid value" in str(w.message)]


@pytest.fixture
def ctrl_c():
    """Tests in a shell's background would have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_a_signal_ends_it_after_a_batch_with_the_epochs_steps_written(model, tmp_path):
    class Interrupted(Source):
        batches = 0

        def measure(self, model, classes):
            for self.batches in range(1, 9):
                model(np.ones((1, 1)))
                if self.batches == 3:
                    signal.raise_signal(signal.SIGINT)

        def noted(self, epoch):
            return [epoch, 7]

    model.set_weights([np.array([[1.0, 0.0]])])
    average = MovingAverage(model, 0.5)
    model.set_weights([np.array([[0.0, 1.0]])])
    source, history = Interrupted(), [{"loss": 2.0, "val_accuracy": 0.5}]
    with Interruption() as interruption:
        checkpoints = Checkpoints(tmp_path, average, Training(), source, None, interruption)
        checkpoints.set_model(model)
        checkpoints.history, checkpoints.start = history, Position(history, 2, {"loss": 3.0}, 60.0)
        validation = Validation(source, ("a", "b"), tf.distribute.get_strategy(), checkpoints)
        validation.set_model(model)
        validation.on_epoch_begin(1)
        with pytest.raises(KeyboardInterrupt):
            validation.on_epoch_end(1, {"loss": 1.0})
    assert source.batches == 4  # which does not begin
    (written,) = checkpoint.kept(tmp_path)
    assert written.name == "0001-epochs-000005-steps.safetensors"
    arrays, progress = checkpoint.read(written)
    assert progress.pop("seconds") == pytest.approx(60, abs=5)
    means = {"loss": pytest.approx((2 * 3 + 3 * 1) / 5)}
    expected = {"history": history, "step": 5, "means": means, "unreadable": [1, 7], "images": "", "choices": {}}
    assert progress == expected
    # The model's own weights, not the average that was measured in their place.
    assert [array.tolist() for key, array in arrays.items() if key.startswith("model/")] == [[[0, 1]]]


def test_averages_move_as_timms_do(model):
    """By (1 + step) / (10 + step) until the momentum is less, and only once steps are done."""
    model.set_weights([np.zeros((1, 2))])
    average = MovingAverage(model, 0.25)
    average.set_model(model)
    model.set_weights([np.ones((1, 2))])
    expected = 0.0
    for step in range(1, 6):
        model.optimizer.iterations.assign(step)
        average.on_train_batch_end(step)
        expected += (1 - expected) * (1 - min(0.25, (1 + step) / (10 + step)))
        np.testing.assert_allclose(average.variables[0], [[expected] * 2], rtol=1e-5)
        assert model.get_weights()[0].tolist() == [[1, 1]]
    with average.lent():
        np.testing.assert_allclose(model.get_weights()[0], [[expected] * 2], rtol=1e-5)
    assert model.get_weights()[0].tolist() == [[1, 1]]
    with pytest.raises(KeyboardInterrupt), average.lent():
        raise KeyboardInterrupt
    assert model.get_weights()[0].tolist() == [[1, 1]]
    average.apply()
    model.set_weights([np.full((1, 2), 7.0)])
    np.testing.assert_allclose(average.variables[0], [[expected] * 2], rtol=1e-5)


def test_whole_numbers_have_no_average():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)])
    assert {v.dtype for v in model.variables} == {"float32", "int64"}
    average = MovingAverage(model, 0.5)
    assert [v.shape for v in average.variables] == [(1, 2), (2,)]
    assert not any(v.trainable for v in average.variables)
