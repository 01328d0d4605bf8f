"""Which images a model has learned from, told by their content: wherever they lie now, whatever they are called."""

import hashlib

import numpy as np
import tensorflow as tf

from keras_convmixer import files
from keras_convmixer.errors import UserError

FILE = "training_images.npy"


def fingerprints(images):
    """uint64 `(n,)` of `EncodedImages`: a hash of each file's bytes, 0 for one that cannot be read."""

    def content(index):
        return index, images.encoded(index)

    found = np.zeros(len(images), np.uint64)
    contents = tf.data.Dataset.range(len(images)).map(content, tf.data.AUTOTUNE, deterministic=False)
    for indices, batch in contents.ignore_errors().batch(64).as_numpy_iterator():
        found[indices] = [int.from_bytes(hashlib.blake2b(one, digest_size=8).digest()) for one in batch]
    return found


def write(folder, known):
    """Writes fingerprints into a model folder."""
    with files.replacing(folder / FILE) as temporary, temporary.open("wb") as file:
        np.save(file, np.unique(known[known != 0]))


def read(folder):
    """The fingerprints in a model folder, or None where it has none."""
    path = folder / FILE if folder else None
    if path is None or not path.exists():
        return None
    try:
        # Mapped, so that a header cannot ask for more memory than the file has bytes.
        return np.asarray(np.load(path, mmap_mode="r"), np.uint64)
    except (ValueError, EOFError, TypeError) as error:
        raise UserError(f"{path} is not a list of fingerprints: {error}") from None
