"""One training at a time in the folder of a run."""

import contextlib
import os
import shutil
import tempfile

from keras_convmixer import files
from keras_convmixer.errors import UserError

FOLDER = "checkpoints"
_LOCK, _PID = ".lock", ".pid"


@contextlib.contextmanager
def held(workdir):
    """A context in which no other process trains in a folder. What killed ones left half-written is removed.

    Raises:
        UserError: another process does. OSError: the folder may not be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(workdir / FOLDER / _LOCK, wait=False))
        except TimeoutError:
            raise UserError(_used(workdir)) from None
        (workdir / FOLDER / _PID).write_text(str(os.getpid()))
        for folder in (workdir, workdir / FOLDER, workdir / "best"):
            for left in folder.glob(".writing-*"):
                shutil.rmtree(left, ignore_errors=True)
        (workdir / "logs" / "train").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir / "logs" / "train"):
            pass  # it may be written to; where not, TensorFlow would say so in many words
        yield


def in_use(workdir):
    """What tells that a process trains in a folder, and which; None where none does."""
    lock = workdir / FOLDER / _LOCK
    try:
        with files.locked(lock, wait=False) if lock.exists() else contextlib.nullcontext():
            return None
    except TimeoutError:
        return _used(workdir)


def _used(workdir):
    pid = workdir / FOLDER / _PID
    other = pid.read_text() if pid.exists() else "unknown"
    return f"{workdir} is in use: process {other} trains in it; wait for it or end it"
