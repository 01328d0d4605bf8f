"""The exponential moving average of a model: weights and BatchNorm statistics alike, as timm keeps it."""

import contextlib

import keras
from keras import ops


class MovingAverage(keras.callbacks.Callback):
    """Averages every float variable of the model after each step, and lends the averages to the model.

    Keras's own (`use_ema`, `SwapEMAWeights`) leaves the BatchNorm statistics unaveraged, and swaps by adding and
    subtracting, which is not exact.

    Args:
        model: the model to average, built.
        momentum: of the average, in (0, 1). As in timm and TensorFlow, the first steps use
            `(1 + step) / (10 + step)` where that is less, so that the start is forgotten.
    """

    def __init__(self, model, momentum):
        super().__init__()
        self.momentum = momentum
        self.sources = [v for v in model.variables if "float" in keras.backend.standardize_dtype(v.dtype)]
        self.variables = [
            keras.Variable(ops.copy(v), dtype=v.dtype, trainable=False, name="average") for v in self.sources
        ]

    def on_train_batch_end(self, batch, logs=None):
        # On JAX, naming self.model brings the variables up to date; between steps their arrays are elsewhere.
        step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        momentum = min(self.momentum, (1 + step) / (10 + step))
        for average, source in zip(self.variables, self.sources):
            average.assign(average.value + (source.value - average.value) * (1 - momentum))

    @contextlib.contextmanager
    def lent(self):
        """A context in which the model's variables are their averages."""
        kept = [ops.copy(v) for v in self.sources]
        self.apply()
        try:
            yield
        finally:
            for source, value in zip(self.sources, kept):
                source.assign(value)

    def apply(self):
        """Sets the model's variables to their averages."""
        for source, average in zip(self.sources, self.variables):
            # A copy: JAX's training step gives the model's own arrays away.
            source.assign(ops.copy(average))
