"""The learning rate of every step."""

import keras
from keras import ops

from keras_convmixer.errors import UserError


@keras.saving.register_keras_serializable(package="keras_convmixer")
class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """The authors' triangle: linear from 0 to `peak` at 2/5 of the epochs, to `peak / 20` at 4/5, to 0 at the end.

    As in their training script, the knots are whole epochs (`epochs * 2 // 5`, `epochs * 4 // 5`) and step number
    s, counted from 0, uses the rate at epoch (s + 1) / steps_per_epoch. Where that would put a knot at 0, which
    is below three epochs, the exact fraction is used instead.

    Args:
        peak: the highest learning rate.
        epochs: length of the whole training.
        steps_per_epoch: optimizer steps per epoch.
    """

    def __init__(self, peak, epochs, steps_per_epoch):
        if peak < 0 or epochs < 1 or steps_per_epoch < 1:
            raise UserError(
                f"expected peak >= 0, epochs >= 1 and steps_per_epoch >= 1; got {peak}, {epochs}, {steps_per_epoch}"
            )
        super().__init__()
        self.peak = peak
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, step):
        dtype = keras.config.floatx()
        epoch = (ops.cast(step, dtype) + 1) / self.steps_per_epoch
        top = self.epochs * 2 // 5 or self.epochs * 2 / 5
        knee = self.epochs * 4 // 5 or self.epochs * 4 / 5
        rise = epoch / top
        fall = 1 + (0.05 - 1) * (epoch - top) / (knee - top)
        tail = 0.05 * (self.epochs - epoch) / (self.epochs - knee)
        rate = ops.where(epoch <= top, rise, ops.where(epoch <= knee, fall, ops.maximum(tail, 0)))
        return ops.cast(self.peak * rate, dtype)

    def get_config(self):
        return {"peak": self.peak, "epochs": self.epochs, "steps_per_epoch": self.steps_per_epoch}


@keras.saving.register_keras_serializable(package="keras_convmixer")
class Triangular(keras.optimizers.schedules.LearningRateSchedule):
    """Cycles of one rise from `low` to `high` and one fall back, `step_size` steps each (arXiv 1506.01186).

    It is tensorflow-addons' `TriangularCyclicalLearningRate` with a constant scale.

    Args:
        low, high: the lowest and the highest learning rate.
        step_size: optimizer steps in half a cycle.
    """

    def __init__(self, low, high, step_size):
        if step_size <= 0:
            raise UserError(f"step_size must be above 0, got {step_size}")
        super().__init__()
        self.low = low
        self.high = high
        self.step_size = step_size

    def __call__(self, step):
        dtype = keras.config.floatx()
        half_cycles = ops.mod(ops.cast(step, dtype) / self.step_size, 2)
        return ops.cast(self.low + (self.high - self.low) * (1 - ops.abs(half_cycles - 1)), dtype)

    def get_config(self):
        return {"low": self.low, "high": self.high, "step_size": self.step_size}
