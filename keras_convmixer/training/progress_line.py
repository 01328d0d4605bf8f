"""How far a training is: a bar within an epoch, and a line at its end."""

import contextlib
import sys
import time

import keras

from keras_convmixer.progress import Progress

# tqdm's own, but that a slow training has 0.4 images/s too, rather than 2.5 s each.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


@contextlib.contextmanager
def watched(header, source, work, verbose):
    """A context in which a training says how it goes, beginning with a header. It gives the callbacks for that.

    Args:
        source: what the batches come from, see `training.sources`. work: as `ProgressLine` takes it.
        verbose: as `train` takes it.
    """
    if not verbose:
        yield []
        return
    print(header, file=sys.stderr, flush=True)
    with contextlib.closing(ProgressLine(source, work, bar=verbose != 2)) as line:
        yield [line]


class ProgressLine(keras.callbacks.Callback):
    """Shows on stderr images/s, learning rate, loss, top-1 and the time left.

    The learning rate is that of the step shown, at the end of an epoch that of its last. To stand after whatever
    adds to an epoch's figures. `close` removes a bar that an interruption has left.

    Args:
        source: what the batches come from, see `training.sources`.
        work: how long each epoch of the whole training takes, in any unit.
        bar: whether to show one, or only the line at the end of each epoch.
    """

    def __init__(self, source, work, bar):
        super().__init__()
        self.source, self.work, self.bar = source, work, bar
        self._progress = None

    def close(self):
        if self._progress:
            self._progress.close()
        self._progress = None

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._steps, self._rate = time.monotonic(), self.params["steps"], None
        if self.bar and self._steps:
            images = self.source.images_per_epoch
            self._step, unit = (images // self.source.steps, " images") if images else (1, " steps")
            doing = f"epoch {epoch + 1} of {len(self.work)}"
            self._progress = Progress(doing, self._steps * self._step, unit=unit)
            self._progress.bar_format, self._progress.leave = _BAR, False  # the line at the epoch's end follows

    def on_train_batch_begin(self, batch, logs=None):
        # Looking at a device's figures waits for it: only for those that are shown.
        self._due = bool(self._progress and self._progress.due)
        if self._due or batch + 1 == self._steps:
            self._rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        if self._due:
            loss, top1 = float(logs["loss"]), float(logs["accuracy"])
            words = f"loss {loss:.4g}, top-1 {top1:.2%}, learning rate {self._rate:.3g}"
            self._progress.set_postfix_str(words, refresh=False)
        if self._progress:
            self._progress.update(self._step)

    def on_epoch_end(self, epoch, logs=None):
        self.close()
        # Of an epoch that was interrupted, this began late.
        took = max(time.monotonic() - self._began, logs["seconds"])
        left = took * sum(self.work[epoch + 1 :]) / self.work[epoch]
        words = [
            f"epoch {epoch + 1} of {len(self.work)}: loss {logs['loss']:.4g}, top-1 {logs['accuracy']:.2%}",
            f"held out: loss {logs['val_loss']:.4g}, top-1 {logs['val_accuracy']:.2%}",
        ]
        if self._rate is not None:
            words.append(f"learning rate {self._rate:.3g}")
        if "images_per_second" in logs:
            words.append(f"{logs['images_per_second']:,.0f} images/s")
        words += [f"{name} {logs[name]}" for name in ("unreadable", "val_unreadable") if name in logs]
        words.append(f"{_time(logs['seconds'])}, about {_time(left)} left" if left else _time(logs["seconds"]))
        print("; ".join(words), file=sys.stderr, flush=True)


def _time(seconds):
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
