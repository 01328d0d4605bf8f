import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_convmixer.errors import UserError
from keras_convmixer.training.schedule import OneCycle, Triangular


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in steps])


def test_equals_the_authors_schedule(oracles):
    reference = json.loads((oracles / "augment" / "onecycle_150.json").read_text())
    epochs, values = np.array(reference["fraction_epoch"]), np.array(reference["lr"])
    schedule = OneCycle(reference["peak"], reference["epochs"], steps_per_epoch=2)
    # Step s stands for epoch (s + 1) / 2; the reference is given every half epoch from 0.
    np.testing.assert_allclose(rates(schedule, range(len(epochs) - 1)), values[1:], atol=1e-6 * reference["peak"])


@pytest.mark.parametrize("epochs", [3, 7, 23, 25, 99])
def test_floors_the_knots_to_whole_epochs(epochs):
    schedule = OneCycle(1.0, epochs, steps_per_epoch=4)
    at = np.arange(1, epochs * 4 + 1) / 4
    expected = np.interp(at, [0, epochs * 2 // 5, epochs * 4 // 5, epochs], [0, 1, 0.05, 0])
    np.testing.assert_allclose(rates(schedule, range(epochs * 4)), expected, atol=1e-6)


@pytest.mark.parametrize("epochs, knots", [(1, (0.4, 0.8)), (2, (0.8, 1))])
def test_of_few_epochs_the_knots_are_fractions(epochs, knots):
    at = np.arange(1, epochs * 20 + 1) / 20
    expected = np.interp(at, [0, *knots, epochs], [0, 1, 0.05, 0])
    np.testing.assert_allclose(rates(OneCycle(1.0, epochs, 20), range(epochs * 20)), expected, atol=1e-6)


@given(epochs=st.integers(1, 400), steps=st.integers(1, 5000), where=st.floats(0, 1))
def test_stays_between_zero_and_the_peak(epochs, steps, where):
    rate = float(OneCycle(0.1, epochs, steps)(int(where * (epochs * steps - 1))))
    assert 0 <= rate <= 0.1 * (1 + 1e-6)


def test_triangular_equals_tensorflow_addons(oracles):
    """Step for step against TriangularCyclicalLearningRate with a constant scale."""
    for reference in json.loads((oracles / "tfa" / "tfa_0.23.json").read_text())["triangular"]:
        schedule = Triangular(
            reference["initial_learning_rate"], reference["maximal_learning_rate"], reference["step_size"]
        )
        values = np.array(reference["values"])
        np.testing.assert_allclose(rates(schedule, range(len(values))), values, atol=1e-5 * values.max())


@pytest.mark.parametrize("schedule", [OneCycle(0.05, 25, 97), Triangular(0.1, 0.2, 5)])
def test_serialises(schedule):
    copy = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert copy.get_config() == schedule.get_config()


@pytest.mark.parametrize("arguments", [(-0.1, 1, 1), (0.1, 0, 10), (0.1, 10, 0)])
def test_refuses_an_empty_training(arguments):
    with pytest.raises(UserError, match="expected peak >= 0, epochs >= 1 and steps_per_epoch >= 1"):
        OneCycle(*arguments)
    assert float(OneCycle(0, 1, 1)(0)) == 0


@pytest.mark.parametrize("step_size", [0, -1])
def test_refuses_cycles_of_no_steps(step_size):
    with pytest.raises(UserError, match="step_size must be above 0"):
        Triangular(0.1, 0.2, step_size)
