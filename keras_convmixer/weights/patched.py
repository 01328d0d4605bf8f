"""What Keras has no word for: a method of its own replaced for a while, for one thread."""

import contextlib
import threading

_lock = threading.RLock()


@contextlib.contextmanager
def replaced(kind, name, replacement):
    """Within it, this thread's calls of a method go to a replacement; those of other threads go on as ever.

    Args:
        kind: the class. name: of the method.
        replacement: gets the method itself, then what the method would get.
    """
    thread = threading.get_ident()

    def method(*arguments, **options):
        if threading.get_ident() == thread:
            return replacement(original, *arguments, **options)
        return original(*arguments, **options)

    with _lock:
        original = getattr(kind, name)
        setattr(kind, name, method)
        try:
            yield
        finally:
            setattr(kind, name, original)
