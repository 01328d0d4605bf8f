"""Holding back the log lines of native code."""

import contextlib
import logging
import os
import shutil
import sys
import tempfile


@contextlib.contextmanager
def quiet_stderr():
    """Holds back what is written to file descriptor 2, and shows it after all if the block raises.

    TensorFlow's converter and LiteRT write there past Python's `sys.stderr` and whatever their log levels say.
    TensorFlow's own Python messages below warnings are held back for good.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            with open(terminal, "wb", closefd=False) as shown:
                shutil.copyfileobj(held, shown)
            raise
        finally:
            logger.setLevel(level)
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
