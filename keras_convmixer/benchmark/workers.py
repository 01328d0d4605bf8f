"""Processes that run the forms of a model, each within its time."""

import contextlib
import multiprocessing
import time

import numpy as np

from keras_convmixer.benchmark.forms import READY, not_available, serve
from keras_convmixer.benchmark.report import BATCHES
from keras_convmixer.progress import Progress

WARM_UP = 2
# seconds that may pass without an answer; loading is answered too
PATIENCE = 600


class Workers:
    """A process for each form of a model. One that fails says why in `errors` and is not asked again.

    Args:
        name: of the model. forms: names of `forms.FORMS`. folder: what they are loaded from. threads: for each.
        seconds: that each may compute, loading and its first batch apart, for those may take a compiler's time.
    """

    def __init__(self, name, forms, folder, threads, seconds):
        context = multiprocessing.get_context("spawn")
        self.errors, self.memory, self._ends, self._processes = {}, {}, {}, []
        self._name, self._seconds, self._spent = name, seconds, {}
        for form in forms:
            self._ends[form], other = context.Pipe()
            self._processes.append(context.Process(target=serve, args=(other, form, folder, threads)))
            self._processes[-1].start()
            other.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in self._ends.values():
            with contextlib.suppress(OSError):  # It has ended already.
                end.send(None)
        for process, form in zip(self._processes, self._ends):
            process.join(0 if form in self.errors else 30)
            process.kill()

    def _run(self, form, images):
        """Seconds and logits of a batch, or None if the form has failed."""
        if form in self.errors:
            return None
        # While it loads it takes nothing, and waiting until it takes images has no limit.
        answer = READY if form in self._spent else self._answer(form)
        if answer == READY:
            with contextlib.suppress(OSError):  # A process that failed has closed its end, but left word.
                self._ends[form].send(images)
            answer = self._answer(form)
        if isinstance(answer, str):
            self.errors[form] = answer
            return None
        seconds, logits, self.memory[form] = answer
        self._spent[form] = self._spent[form] + seconds if form in self._spent else 0.0
        return seconds, logits

    def _answer(self, form):
        """What a form's process says next, or why nothing comes."""
        try:
            if self._ends[form].poll(PATIENCE):
                return self._ends[form].recv()
        except (EOFError, OSError):
            return not_available(EOFError("its process ended"))
        return not_available(TimeoutError(f"no answer in {PATIENCE} seconds"))

    def logits(self, images):
        """Form → logits of the images, or of the first of them where it is slow; None if it has failed."""
        found = {}
        with Progress(f"{self._name}: comparing", len(self._ends)) as progress:
            for form in self._ends:
                progress.doing(f"{self._name}: comparing {form}")
                found[form] = self._logits(form, images)
                progress.update()
        return found

    def _logits(self, form, images):
        parts = []
        for i in range(0, len(images), max(BATCHES)):
            result = self._run(form, images[i : i + max(BATCHES)])
            if result is None:
                return None
            parts.append(result[1])
            if self._spent[form] > self._seconds / 2:  # the other half is for timing it
                break
        return np.concatenate(parts)

    def times(self, images, rounds):
        """Form → batch size → seconds of each round, of which a slow form has fewer."""
        times = {form: {batch: [] for batch in BATCHES} for form in self._ends}
        with Progress(f"{self._name}: timing", (rounds + WARM_UP) * len(times)) as progress:
            for i in range(rounds + WARM_UP):
                for form in times:
                    progress.doing(f"{self._name}: timing {form}")
                    if form not in self.errors and not self._has_had_enough(form, i):
                        for batch in BATCHES:
                            result = self._run(form, np.resize(images, (batch, *images.shape[1:])))
                            if result and i >= WARM_UP:
                                times[form][batch].append(result[0])
                        # Some runtimes' threads stay awake for a while.
                        time.sleep(0.02)
                    progress.update()
        return times

    def _has_had_enough(self, form, turn):
        """A slow form is warm from the comparison, and timed at least once."""
        spent = self._spent[form]
        return spent > self._seconds / 2 if turn < WARM_UP else turn > WARM_UP and spent > self._seconds
