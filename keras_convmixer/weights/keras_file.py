"""What a .keras or .weights.h5 file says of its sizes, held against what it is before it is believed."""

import contextlib
import io
import math
import re
import zipfile

import h5py
import keras
import ml_dtypes
import numpy as np

from keras_convmixer.errors import first_line
from keras_convmixer.weights.patched import replaced
from keras_convmixer.weights.stored_array import CheckpointError, StoredArray

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


@contextlib.contextmanager
def open_layers(path):
    """The weights of a .weights.h5 file, as a context in which they can be read.

    Yields:
        Layer name → its `StoredArray`s, in the order of Keras's variables. An optimizer's are left out.

    Raises:
        CheckpointError: it is no such file, or is damaged. What its arrays hold shows when they are read.
    """
    count_numbers(path)
    with h5py.File(path, "r") as file:
        with _blaming(path):
            layers = _layers(file, path)
            if not layers:
                raise CheckpointError("it has no layers, as Keras 3 writes them with save_weights")
        yield layers


def _layers(file, path):
    arrays, layers = [], {}

    def add(place, item):
        # Beside weights there are an optimizer's and the states of generators of random numbers.
        if place.startswith("layers/") and "/seed_generator/" not in place and isinstance(item, h5py.Dataset):
            arrays.append((place.rpartition("/"), item))

    # Which follows no links: they could lead to other files.
    file.visititems(add)
    # Keras counts a layer's variables, from 0.
    for (group, _, index), array in sorted(arrays, key=lambda found: (len(found[0][2]), found[0][2])):
        if array.external or array.is_virtual:
            raise CheckpointError(f"{group[:80]} has numbers in another file")
        is_own = re.fullmatch(r"layers/[^/]+/vars", group)
        name = str(array.parent.attrs.get("name", group)) if is_own else f"{group}/{index}"
        layers.setdefault(name[:80], []).append(_stored(array, path))
    return layers


def _stored(array, path):
    # HDF5 knows no bfloat16: Keras writes its bytes, and says beside them what they are.
    is_bfloat16 = array.dtype.itemsize == 2 and array.attrs.get("dtype") == "bfloat16"
    dtype = np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else array.dtype

    def read():
        with _blaming(path):
            return array[()].view(dtype)

    return StoredArray(array.shape or (), dtype, read)


@contextlib.contextmanager
def _blaming(path):
    try:
        yield
    except Exception as error:  # h5py raises whatever its parts raise on a damaged file.
        raise CheckpointError(f"{path} cannot be loaded: {first_line(error)}") from None


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
