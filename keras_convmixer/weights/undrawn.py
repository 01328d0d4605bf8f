"""Building a model whose weights are loaded next."""

import contextlib
import threading

import keras

_lock = threading.RLock()


@contextlib.contextmanager
def undrawn():
    """Within it, what this thread builds starts with kernels of zeros; the layers' configs keep their initialisers.

    Drawing tens of millions of numbers, to load weights over them, would take as long as loading them, and more
    memory. Keras has no word for this, so that for the time `VarianceScaling` itself is replaced; other threads
    draw as ever.
    """
    kind, thread = keras.initializers.VarianceScaling, threading.get_ident()

    def zeros(initializer, shape, dtype=None, **options):
        if threading.get_ident() == thread:
            return keras.ops.zeros(shape, dtype)
        return draw(initializer, shape, dtype, **options)

    with _lock:
        draw, kind.__call__ = kind.__call__, zeros
        try:
            yield
        finally:
            kind.__call__ = draw
