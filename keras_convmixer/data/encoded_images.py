"""The images of one split, still encoded, at random access from a tf.data graph."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedImages:
    """One split of a data set.

    Attributes:
        classes: class names, in the order of the labels.
        labels: int64 array `(n,)`: for each image the position of its class in `classes`.
        names: what to call each image in a message: a path inside the data set, or "digits/17".
        encoded: a graph function from an int64 scalar, the position of an image, to a scalar tf.string, its
            file's bytes. Where the file has gone meanwhile it raises tf.errors.NotFoundError.
        skipped: `(name, reason)` of each image that was left out because it cannot be read.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    names: tuple[str, ...]
    encoded: Callable
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self):
        return len(self.labels)

    def subset(self, indices):
        """The images at these positions, in this order. What was skipped is not carried along."""
        indices = np.asarray(indices, np.int64)
        positions = on_cpu(indices)
        return EncodedImages(
            self.classes,
            self.labels[indices],
            tuple(self.names[i] for i in indices),
            lambda index: self.encoded(tf.gather(positions, index)),
        )

    def spread(self, count):
        """At most so many of the images, evenly over all of them: they are often sorted by class."""
        if len(self) <= count:
            return self
        return self.subset(np.linspace(0, len(self) - 1, count).round().astype(int))


def in_memory(classes, labels, names, encoded):
    """`EncodedImages` from a list of bytes, or a string tensor, `encoded`."""
    held = on_cpu(encoded)
    return EncodedImages(
        tuple(classes), np.asarray(labels, np.int64), tuple(names), lambda index: tf.gather(held, index)
    )


def from_files(classes, labels, names, root, skipped=()):
    """`EncodedImages` from files; `names` are their paths under the folder `root`, with "/" between the parts."""
    paths = on_cpu([os.fsencode(name) for name in names])
    folder = os.fsencode(f"{root}/")

    def encoded(index):
        return tf.io.read_file(folder + tf.gather(paths, index))

    names = tuple(map(printable, names))
    return EncodedImages(tuple(classes), np.asarray(labels, np.int64), names, encoded, tuple(skipped))


def printable(name):
    """A file's name as text: bytes of it that are not UTF-8 are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def on_cpu(values):
    # Made outside any graph, such a tensor is captured by reference; made inside, it would be copied into it.
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.convert_to_tensor(values)
