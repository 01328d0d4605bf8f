"""What a .keras or .weights.h5 file says of its sizes, held against what it is before Keras believes it."""

import io
import math
import zipfile

import h5py
import keras

from keras_convmixer.errors import first_line
from keras_convmixer.weights.patched import replaced
from keras_convmixer.weights.stored_array import CheckpointError

WEIGHTS = "model.weights.h5"

# Bytes that a part of a file may unpack to: a description of layers, and weights however small the file.
_LARGEST_CONFIG, _ALWAYS_ALLOWED = 16 * 2**20, 2**28
# Layers may have a few numbers that are not saved.
_UNSAVED = 10_000


def count_numbers(path):
    """How many numbers there are in the weights of a .keras or .weights.h5 file.

    Raises:
        CheckpointError: it is no such file, or would unpack to far more than it is, to fill memory.
    """
    try:
        if path.suffix == ".keras":
            return _count(io.BytesIO(_unpacked(path)), path)
        return _count(path, path)
    except (CheckpointError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # zipfile and h5py raise whatever their parts raise on a damaged file.
        kind = "a .keras file" if path.suffix == ".keras" else "HDF5"
        raise CheckpointError(f"{path} cannot be loaded: not {kind}, or damaged: {first_line(error)}") from None


def _unpacked(path):
    """The weights of a .keras file, as an HDF5 file."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            # Weights hardly compress, but those of a new model are zeros here and there.
            weights = member.filename == WEIGHTS
            most = max(_ALWAYS_ALLOWED, 10 * member.compress_size) if weights else _LARGEST_CONFIG
            # Other methods can unpack to more than they say.
            known = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if member.file_size > most or not known:
                by = "" if known else ", by a method that Keras does not use"
                raise CheckpointError(
                    f"{path}: {member.filename[:80]} would unpack to {member.file_size:,} bytes{by}"
                )
        if WEIGHTS not in archive.namelist():
            raise CheckpointError(f"{path} cannot be loaded: it has no {WEIGHTS}")
        return archive.read(WEIGHTS)


def _count(file, path):
    """The same of an HDF5 file, of which a few bytes can claim an array of any size."""
    most = max(_ALWAYS_ALLOWED, 10 * path.stat().st_size)
    numbers = size = 0

    def add(name, item):
        nonlocal numbers, size
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            numbers += math.prod(item.shape)
            size += math.prod(item.shape) * item.dtype.itemsize
            if size > most:
                raise CheckpointError(f"{path}: its weights, up to {name[:80]}, would take {size:,} bytes")

    with h5py.File(file, "r") as opened:
        opened.visititems(add)
    return numbers


def building_at_most(numbers):
    """A context within which what this thread builds fails once its layers ask for more than so many weights.

    A model is built, and its weights drawn, before they are loaded.
    """
    left = numbers + _UNSAVED

    def add_weight(add, layer, *arguments, shape=None, **options):
        nonlocal left
        left -= math.prod(shape or ())
        if left < 0:
            raise CheckpointError(f"its layers, up to {layer.name[:80]}, need more weights than it has")
        return add(layer, *arguments, shape=shape, **options)

    return replaced(keras.Layer, "add_weight", add_weight)
