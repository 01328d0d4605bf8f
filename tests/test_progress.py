import io
import sys
import time

import pytest

from keras_convmixer.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


KINDS = pytest.mark.parametrize("kind", [io.StringIO, Terminal], ids=["file", "terminal"])


def said(kind, monkeypatch, steps, seconds, **arguments):
    """What a job of so many steps says on such a stderr."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", kind())
        with Progress("counting", steps, **arguments) as progress:
            for _ in range(steps):
                time.sleep(seconds)
                progress.update()
        return sys.stderr.getvalue()


@KINDS
def test_what_is_quick_says_nothing(kind, monkeypatch):
    assert said(kind, monkeypatch, 20, 0.001) == ""


@KINDS
def test_what_is_slow_says_how_far_it_is(kind, monkeypatch):
    words = said(kind, monkeypatch, 50, 0.03, delay=0.1, every=0.1)
    assert words.startswith("\rcounting: " if kind is Terminal else "counting: ")
    assert "/50" in words
    assert words.endswith("\n")
    # one line that is written again and again, or several that stay
    assert words.count("\n") == 1 if kind is Terminal else (words.count("\n") > 3 and "\r" not in words)
