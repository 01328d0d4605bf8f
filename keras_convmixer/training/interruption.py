"""Being told to stop: the step is finished and written first."""

import signal
import sys
import threading

import keras

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption:
    """A context in which SIGINT (Ctrl-C), SIGTERM and SIGHUP wait for `obey`; a second one does not wait.

    What they do then is what they did before: Python's Ctrl-C raises KeyboardInterrupt. Signals that were ignored
    stay so, and in any thread but the main one, which alone may ask for signals, nothing changes.

    Attributes:
        asked: whether there was one.
    """

    def __init__(self):
        self._number, self._before = None, {}

    @property
    def asked(self):
        return self._number is not None

    def agree(self):
        """Called every few steps: where several processes train, they agree on it here (see `hosts`)."""

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        while self._before:
            signal.signal(*self._before.popitem())

    def stoppable(self, model):
        """A model that is measured in the place of another: it raises `StoppedError` once there was a signal."""
        return _Stoppable(model, self)

    def obey(self):
        """Does what the signal does, if there was one."""
        if self.asked:
            self._end()

    def _end(self):
        self.__exit__()
        signal.raise_signal(self._number)

    def _note(self, number, frame):
        again, self._number = self._number is not None, number
        if again:
            self._end()
        print(
            f"{signal.Signals(number).name}: finishing the step and writing a checkpoint; once more ends at once",
            file=sys.stderr,
            flush=True,
        )


class StoppedError(Exception):
    """What was begun did not come to its end: there was a signal."""


class _Stoppable(keras.callbacks.Callback):
    """What is called of a model to measure it. No batch begins after a signal."""

    def __init__(self, measured, interruption):
        super().__init__()
        self._measured, self._interruption = measured, interruption

    def predict(self, batches, verbose=0):
        self._check()
        found = self._measured.predict(batches, verbose=verbose, callbacks=[self])
        self._check()
        return found

    def on_predict_batch_end(self, batch, logs=None):
        # An exception here would leave a model on JAX without its variables.
        self.model.stop_predicting = self._interruption.asked

    def __call__(self, images, training=False):
        self._check()
        return self._measured(images, training=training)

    def _check(self):
        if self._interruption.asked:
            raise StoppedError
