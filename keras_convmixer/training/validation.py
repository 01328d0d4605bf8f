"""The held-out split at the end of every epoch, measured as `evaluate` measures it."""

import contextlib
import dataclasses

import keras
import numpy as np

from keras_convmixer.data.unreadable import Unreadable
from keras_convmixer.training.distribute import average_batch_norm


class Validation(keras.callbacks.Callback):
    """Adds `val_loss` and `val_accuracy` to an epoch's figures, and how many images could not be read, if any.

    To stand before every callback that wants them.

    Args:
        meter: the `Meter` of the held-out split.
        bundle: the `Bundle` whose training model is measured in the place of its own.
        strategy: whose replicas' BatchNorm statistics are averaged before anything is measured or saved.
        average: the `MovingAverage` that is measured in the place of the model, or None.
        unreadable: the `Unreadable` of the training split.
    """

    def __init__(self, meter, bundle, strategy, average, unreadable):
        super().__init__()
        self.meter = meter
        self.bundle = bundle
        self.strategy = strategy
        self.average = average
        self.unreadable = unreadable
        self.held_out_unreadable = Unreadable(meter.images)

    def on_epoch_end(self, epoch, logs=None):
        average_batch_norm(self.model, self.strategy)
        # Logits that are not finite come of a loss that is not, which Checkpoints reports.
        with self.average.lent() if self.average else contextlib.nullcontext(), np.errstate(invalid="ignore"):
            evaluation = self.meter.measure(dataclasses.replace(self.bundle, model=self.model))
            logs |= {"val_accuracy": evaluation.top(1), "val_loss": evaluation.loss}
        for index in self.meter.unread:
            self.held_out_unreadable.note(epoch, index)
        counts = {"unreadable": self.unreadable, "val_unreadable": self.held_out_unreadable}
        logs |= {name: images.count(epoch) for name, images in counts.items() if images.count(epoch)}
