"""One progress bar for all that takes more than a few seconds."""

import sys

from tqdm import tqdm


class Progress(tqdm):
    """tqdm's bar on stderr, in a `with` block; `update(count)` moves it.

    Nothing is said at first. Where stderr is no terminal there is no bar but a line every now and then.

    Args:
        doing: what is being done, as "checking images".
        total: how many items there are, or None where that is not known.
        delay: seconds before the first word.
        every: seconds between two lines where stderr is no terminal.
        unit: what is counted, beginning with a space.
    """

    def __init__(self, doing, total=None, delay=3.0, every=10.0, *, unit="it"):
        self._lines = not sys.stderr.isatty()
        super().__init__(
            desc=doing,
            total=total,
            delay=delay,
            unit=unit,
            miniters=1,
            mininterval=every if self._lines else 0.5,
            file=sys.stderr,
            dynamic_ncols=True,
        )

    @property
    def due(self):
        """Whether the next `update` is shown."""
        now = self._time()
        return now - self.start_t >= self.delay and now - self.last_print_t >= self.mininterval

    def doing(self, what):
        """Says what is being done now, where that is due."""
        self.set_description_str(what, refresh=False)
        if self.due:
            self.last_print_t = self._time()
            self.refresh()

    def status_printer(self, file):
        if not self._lines:
            return super().status_printer(file)
        return lambda line: print(line, file=file, flush=True)

    def close(self):
        # tqdm's would write its last line again, over the one before.
        self.disable = self.disable or self._lines
        super().close()
