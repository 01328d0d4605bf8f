"""A training and a validation side for a data set that has none."""

import hashlib
import math

import numpy as np

from keras_convmixer.errors import UserError


def stratified_split(labels, names, fraction, seed):
    """Divides images so that each class gives the same fraction of its own to validation.

    An image's rank within its class is a hash of the seed and its name. So the split does not depend on the order
    of the files, and adding or removing images hardly moves the others.

    Args:
        labels: `(n,)` class numbers. names: n different names.
        fraction: of each class for validation, at least 0 and below 1, rounded; if it is above 0, a class with
            two images or more has at least one on either side. A class's only image is for training.
        seed: any integer.

    Returns:
        `(training, validation)`: two int64 arrays of positions, ascending, disjoint, together all of them.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"validation_fraction must be at least 0 and below 1, got {fraction!r}")
    labels = np.asarray(labels)
    rank = np.array([_hash(seed, name) for name in names], dtype="S32")
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = math.floor(fraction * len(members) + 0.5)
        if fraction:
            count = min(max(count, 1), len(members) - 1)
        held_out[members[np.argsort(rank[members], kind="stable")[:count]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _hash(seed, name):
    # hexadecimal, since numpy drops the zero bytes at a string's end
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
