"""The exponential moving average of a model: weights and BatchNorm statistics alike, as timm keeps it."""

import keras


class MovingAverage(keras.callbacks.Callback):
    """Averages every float variable of the model after each step, and lends the averages to validation.

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
            keras.Variable(keras.ops.copy(v.value), dtype=v.dtype, trainable=False, name="average")
            for v in self.sources
        ]
        self._kept = None

    def on_train_batch_end(self, batch, logs=None):
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        momentum = min(self.momentum, (1 + step) / (10 + step))
        for average, source in zip(self.variables, self.sources):
            average.assign(average.value + (source.value - average.value) * (1 - momentum))

    def on_test_begin(self, logs=None):
        self._kept = [keras.ops.convert_to_numpy(v) for v in self.sources]
        self.apply()

    def on_test_end(self, logs=None):
        for source, value in zip(self.sources, self._kept):
            source.assign(value)
        self._kept = None

    def apply(self):
        """Sets the model's variables to their averages."""
        for source, average in zip(self.sources, self.variables):
            source.assign(average.value)
