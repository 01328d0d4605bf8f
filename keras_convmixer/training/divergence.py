"""A loss that is no longer finite, noticed within steps."""

import math

import keras
import numpy as np

from keras_convmixer.errors import UserError
from keras_convmixer.training import checkpoint

# Looking at a loss waits for the device: so many steps are looked at together.
_TOGETHER = 20


class NotFiniteError(UserError):
    """The loss is no longer finite. `what` says which and where, the message also what to do."""

    def __init__(self, what, advice):
        super().__init__(f"{what}: {advice}")
        self.what = what


class LossWatch(keras.callbacks.Callback):
    """Raises `NotFiniteError` where the loss is not finite, or an epoch's last step has left weights that are not.

    To stand before `Validation` and `Checkpoints`, so that such a model is neither measured nor saved.

    Args:
        checkpoints: the `Checkpoints` callback.
    """

    def __init__(self, checkpoints):
        super().__init__()
        self.checkpoints = checkpoints
        self._means = []  # since it was last looked, as the device has them

    def on_epoch_begin(self, epoch, logs=None):
        self._means.clear()

    def on_train_batch_end(self, batch, logs=None):
        self._means.append((batch + 1, logs["loss"]))
        if len(self._means) == _TOGETHER or batch == 0:
            self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            raise NotFiniteError(*self._words("weights are no longer finite", "after its last step"))

    def _look(self):
        # A mean that is not finite stays so for the rest of the epoch.
        if self._means and not math.isfinite(float(self._means[-1][1])):
            batch, loss = next((b, float(loss)) for b, loss in self._means if not math.isfinite(float(loss)))
            where = f"at step {self.checkpoints.start.step + batch} of {self.checkpoints.source.steps}"
            raise NotFiniteError(*self._words(f"the loss is {loss}", where))
        self._means.clear()

    def _words(self, what, where):
        last = checkpoint.kept(self.checkpoints.folder)[:1]
        epoch = len(self.checkpoints.history) + 1
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        advice = "with a lower optimizer.learning_rate or a lower optimizer.clip_norm"
        if not last:
            advice = f"train anew, in another --workdir, {advice}"
        else:
            advice = f"{last[0]} keeps the last good state: go on from it {advice} (--set), or --on-nan rollback"
        return f"{what} in epoch {epoch}, {where}, where the learning rate is about {rate:.3g}", advice
