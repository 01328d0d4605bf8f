"""Arrays that stay in their file until they are used, so that converting holds one copy of the weights, not two."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_convmixer.errors import UserError


class CheckpointError(UserError):
    """A file of weights that cannot be used. The message says in one line what is wrong with it."""

    def __init__(self, message):
        # What a message quotes from the file must not break the line or steer the terminal.
        super().__init__("".join(char if char.isprintable() else "?" for char in message))


@dataclasses.dataclass(frozen=True, eq=False)
class StoredArray:
    """An array in a file. numpy's functions take it like any array; each use reads it anew."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    def transposed(self, axes):
        shape = tuple(self.shape[axis] for axis in axes)
        return StoredArray(shape, self.dtype, lambda: np.transpose(self.read(), axes))

    def __array__(self, dtype=None, copy=None):
        array = self.read()
        return array if dtype is None else array.astype(dtype)
