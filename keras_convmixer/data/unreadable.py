"""Images that turn out to be unreadable while they are in use: named once, counted in every epoch."""

import collections
import sys
import threading

import tensorflow as tf

from keras_convmixer.data import decode
from keras_convmixer.errors import visible


class Unreadable:
    """The images of a split that could not be read.

    Each is named on stderr once, with the reason: those left out when the split was opened at once, the others when
    they are first met.

    Args:
        images: the `Images` of the split. Those left out when it was opened count in every epoch.
    """

    def __init__(self, images):
        self._images = images
        self._epochs = collections.defaultdict(set)
        self._named = set()
        self._lock = threading.Lock()
        for name, why in images.skipped:
            _say(name, why)

    def count(self, epoch):
        """How many of the split's images could not be read in an epoch."""
        return len(self._images.skipped) + len(self._epochs[epoch])

    def note(self, epoch, index):
        """Counts the image at a position of the split, and names it unless that was done before."""
        with self._lock:
            new = index not in self._named
            self._named.add(index)
            self._epochs[epoch].add(index)
        if new:
            _say(*reasons(self._images, [index])[0])

    def noted(self, epoch, index):
        """The same as an operation in a graph."""
        return tf.numpy_function(lambda epoch, index: self.note(int(epoch), int(index)), [epoch, index], [])


def reasons(images, indices):
    """`(name, reason)` of the images at some positions, in order."""
    return tuple(
        (images.names[i], reason(lambda i=i: images.encoded(tf.constant(i, tf.int64)))) for i in sorted(indices)
    )


def reason(encoded):
    """Why an image cannot be read, in one line.

    Args:
        encoded: a function without arguments that gives the bytes of its file as a scalar tf.string, or raises.
    """
    try:
        decode.decode(encoded())
    except tf.errors.OpError as error:
        return decode.reason(error)
    return "could be read only at the second try"


def _say(name, why):
    print(visible(f"cannot be read: {name}: {why}"), file=sys.stderr, flush=True)
