"""A line on stderr for what takes more than a few seconds."""

import sys
import time


class Progress:
    """Says how far a long job is: nothing at first, then one line, rewritten in place on a terminal.

    Args:
        doing: what is being done, as "checking images".
        total: how many items there are, or None where that is not known.
        quiet: seconds before the first word.
    """

    def __init__(self, doing, total=None, quiet=3.0):
        self._doing, self._total, self._done = doing, total, 0
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + quiet
        self._spoken = False

    def advance(self, count=1):
        self._done += count
        if time.monotonic() >= self._next:
            self._say("\r" if self._terminal else "\n")
            self._next = time.monotonic() + (0.5 if self._terminal else 30.0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._spoken and self._terminal:
            self._say("\n")

    def _say(self, end):
        of = f" of {self._total:,}" if self._total is not None else ""
        print(f"{self._doing}: {self._done:,}{of}", end=end, file=sys.stderr, flush=True)
        self._spoken = True
