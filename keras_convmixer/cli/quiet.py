"""Keeping what native code says off the terminal. For the command line alone: a user's process is the user's."""

import contextlib
import os
import sys


@contextlib.contextmanager
def quiet_stderr():
    """Holds back what is written to file descriptor 2, and shows it after all if the block raises.

    TensorFlow, its converter, LiteRT and libjpeg write there past Python's `sys.stderr` and whatever their log
    levels say. TensorFlow's own Python messages below warnings are held back for good. The descriptor is the whole
    process's, and is put back at the end. What was held back is lost if the process dies by a signal: with
    CONVMIXER_TRACEBACK in the environment nothing is held back.
    """
    if os.environ.get("CONVMIXER_TRACEBACK"):
        yield
        return
    import logging  # here, since --help should not wait for what it does not need
    import shutil
    import tempfile

    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.WARNING)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        terminal = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
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


@contextlib.contextmanager
def quiet_native_code():
    """The same, but what Python writes to `sys.stderr`, such as a warning or how far something is, is shown."""
    with contextlib.ExitStack() as stack:
        if _is_on(sys.stderr, 2):
            settings = {"encoding": sys.stderr.encoding, "errors": sys.stderr.errors}
            own = stack.enter_context(open(os.dup(2), "w", buffering=1, **settings))
            stack.enter_context(contextlib.redirect_stderr(own))
        stack.enter_context(quiet_stderr())
        yield


@contextlib.contextmanager
def silent_native_code():
    """What native code writes to the file descriptors 1 and 2 is lost. It gives a descriptor of the own stderr.

    For code that writes a stack trace before it ends the process, after which nothing could be shown. Python's
    `sys.stdout` and `sys.stderr` are where they were.
    """
    with contextlib.ExitStack() as stack:
        kept = {number: os.dup(number) for number in (1, 2)}
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = getattr(sys, name)
            if _is_on(stream, number):
                stream.flush()
                settings = {"encoding": stream.encoding, "errors": stream.errors}
                own = stack.enter_context(open(os.dup(number), "w", buffering=1, **settings))
                stack.callback(setattr, sys, name, stream)
                setattr(sys, name, own)
        with open(os.devnull, "wb") as nowhere:
            for number in kept:
                os.dup2(nowhere.fileno(), number)
        try:
            yield kept[2]
        finally:
            for number, descriptor in kept.items():
                os.dup2(descriptor, number)


@contextlib.contextmanager
def quiet_tensorflow():
    """Keeps what TensorFlow says of itself while it starts off stderr, unless the start fails."""
    # What TensorFlow logs as an error and stops for it also raises; the rest is about the machine.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        # The first look for a GPU has its own complaints where there is none.
        tf.config.list_physical_devices("GPU")
        yield


def _is_on(stream, descriptor):
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):  # a stream that is no file
        return False
