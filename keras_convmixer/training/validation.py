"""The held-out split at the end of every epoch, measured as `evaluate` measures it."""

import contextlib
import time

import keras
import numpy as np

from keras_convmixer.training.distribute import average_batch_norm
from keras_convmixer.training.interruption import StoppedError


class Validation(keras.callbacks.Callback):
    """Adds `val_loss` and `val_accuracy` to an epoch's figures, and how many images could not be read, if any.

    Also what the epoch took before the measuring: `seconds`, and `images_per_second`.

    To stand before every callback that wants them. A signal ends the measuring: the epoch is written as it is, and
    the training that goes on begins with measuring it.

    Args:
        meter: of the held-out split.
        classes: the class names of the model that trains.
        strategy: whose replicas' BatchNorm statistics are averaged before anything is measured or saved.
        checkpoints: the `Checkpoints` callback, whose moving average is measured in the place of the model.
    """

    def __init__(self, meter, classes, strategy, checkpoints):
        super().__init__()
        self.meter = meter
        self.classes = classes
        self.strategy = strategy
        self.checkpoints = checkpoints

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds, source = time.monotonic() - self._began, self.checkpoints.source
        average_batch_norm(self.model, self.strategy)
        try:
            figures = self._measured(self.checkpoints.interruption.stoppable(self.model))
        except StoppedError:
            self.checkpoints.write_within(source.steps, logs, seconds)
            self.checkpoints.interruption.obey()
            figures = self._measured(self.model)  # the signal was one that does nothing
        logs |= {"seconds": seconds}
        if source.images_per_epoch:
            logs |= {"images_per_second": source.images_per_epoch / seconds}
        logs |= figures | source.unreadable(epoch, self.meter.unread)

    def _measured(self, model):
        average = self.checkpoints.average
        # Logits that are not finite are wrong answers, and the loss says so.
        with average.lent() if average else contextlib.nullcontext(), np.errstate(invalid="ignore"):
            evaluation = self.meter.measure(model, self.classes)
            return {"val_accuracy": evaluation.top(1), "val_loss": evaluation.loss}
