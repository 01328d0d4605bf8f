"""The held-out split at the end of every epoch, measured as `evaluate` measures it."""

import contextlib
import time

import keras
import numpy as np

from keras_convmixer.training.distribute import average_batch_norm


class Validation(keras.callbacks.Callback):
    """Adds `val_loss` and `val_accuracy` to an epoch's figures, and how many images could not be read, if any.

    Also what the epoch took before the measuring: `seconds`, and `images_per_second`.

    To stand before every callback that wants them.

    Args:
        meter: of the held-out split.
        classes: the class names of the model that trains.
        strategy: whose replicas' BatchNorm statistics are averaged before anything is measured or saved.
        average: the `MovingAverage` that is measured in the place of the model, or None.
        source: what the batches come from, see `training.sources`.
    """

    def __init__(self, meter, classes, strategy, average, source):
        super().__init__()
        self.meter = meter
        self.classes = classes
        self.strategy = strategy
        self.average = average
        self.source = source

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        logs |= {"seconds": time.monotonic() - self._began}
        if self.source.images_per_epoch:
            logs |= {"images_per_second": self.source.images_per_epoch / logs["seconds"]}
        average_batch_norm(self.model, self.strategy)
        # Logits that are not finite come of a loss that is not, which Checkpoints reports.
        with self.average.lent() if self.average else contextlib.nullcontext(), np.errstate(invalid="ignore"):
            evaluation = self.meter.measure(self.model, self.classes)
            logs |= {"val_accuracy": evaluation.top(1), "val_loss": evaluation.loss}
        logs |= self.source.unreadable(epoch, self.meter.unread)
