"""Reads the tensors of a PyTorch checkpoint (.pth, .pth.tar, .pt) without PyTorch and without executing it.

Both of PyTorch's formats are read: the zip archive that `torch.save` has written since 1.6, and the older run of
pickles followed by the raw numbers.
"""

import contextlib
import functools
import io
import os
import zipfile

import numpy as np

from keras_convmixer.errors import first_line
from keras_convmixer.weights.pickled import Tensor, unpickle
from keras_convmixer.weights.stored_array import CheckpointError, StoredArray

ZIP_MAGIC = b"PK\x03\x04"
# The pickle of 0x1950a86a20f9469cfc6c, which opens a file of the older format.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Twenty times the largest real one, and what bounds the memory that a hostile one takes.
MOST_PICKLE_BYTES = 8 * 2**20


@contextlib.contextmanager
def open_torch(path, *, ema=False):
    """The weights in a PyTorch checkpoint, as a context in which they can be read.

    The tensors are looked for under `state_dict` or `model`, as trainers write them, else at the top. Optimizer
    state and options beside them are read over.

    Args:
        path: the file. ema: whether to take the averaged weights, under `state_dict_ema`.

    Yields:
        A dictionary of names to `StoredArray`, as stored: float16, bfloat16 (as ml_dtypes'), float32, float64 or
        integers.

    Raises:
        CheckpointError: the file is not such a checkpoint, is damaged, or asks for anything but tensors and plain
            containers. Damage to the numbers themselves shows when they are read. OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        with _blaming(path):
            container = _Zip(file) if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC else _Legacy(file)
            tensors = _weights(container.content, ema)
            _check_sizes(tensors, container, os.fstat(file.fileno()).st_size)
        # Tensors that share a storage follow one another.
        storage_bytes = functools.lru_cache(1)(container.read)

        def read(tensor):
            with _blaming(path):
                return _array(tensor, storage_bytes(tensor.storage))

        yield {
            name: StoredArray(tensor.shape, tensor.storage.dtype, functools.partial(read, tensor))
            for name, tensor in tensors.items()
        }


@contextlib.contextmanager
def _blaming(path):
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:
        # A damaged file fails wherever its nonsense first matters, in the zip reader or the pickle's operands.
        reason = first_line(error) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {reason}") from error


class _Zip:
    """archive/data.pkl, and the storages as archive/data/KEY, uncompressed."""

    def __init__(self, file):
        self.size = os.fstat(file.fileno()).st_size
        self.zip = zipfile.ZipFile(file)
        pickles = [name for name in self.zip.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("it is a zip file, but not of torch.save: it does not have one data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")
        if self.root + "byteorder" in self.zip.namelist() and self._entry("byteorder", 16) != b"little":
            raise CheckpointError("it was written on a big-endian machine: save it again on a little-endian one")
        self.content = unpickle(io.BytesIO(self._entry("data.pkl", MOST_PICKLE_BYTES)))

    def length(self, storage):
        """How many bytes the file has for a storage."""
        return self.zip.getinfo(f"{self.root}data/{storage.key}").file_size

    def read(self, storage):
        return self._entry(f"data/{storage.key}", self.size)

    def _entry(self, name, limit):
        info = self.zip.getinfo(self.root + name)
        # Uncompressed entries are no larger than the file: what it claims to hold is checked before it is read.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(limit, self.size):
            raise CheckpointError(f"its entry {info.filename} is compressed or too large ({info.file_size} bytes)")
        return self.zip.read(info)


class _Legacy:
    """Five pickles (magic, version, byte order, content, storage keys), then each storage after its length."""

    def __init__(self, file):
        file.seek(0)
        if file.read(len(LEGACY_MAGIC)) != LEGACY_MAGIC:
            raise CheckpointError("it is neither a zip file nor of PyTorch's older format")
        self.file = file
        if self._pickle() != 1001 or self._pickle()["little_endian"] is not True:
            raise CheckpointError("it was written by a version or a machine that is not supported: save it again")
        storages = {}
        self.content = self._pickle(storages)
        self.starts = {}
        for key in self._pickle():
            if type(key) is not str:
                raise CheckpointError("its storages have no plain names")
            if int.from_bytes(file.read(8), "little") != storages[key].size:
                raise CheckpointError(f"storage {key} has another length than its tensors say")
            self.starts[key] = file.tell()
            file.seek(storages[key].nbytes, os.SEEK_CUR)

    def length(self, storage):
        return min(storage.nbytes, os.fstat(self.file.fileno()).st_size - self.starts[storage.key])

    def read(self, storage):
        self.file.seek(self.starts[storage.key])
        return self.file.read(storage.nbytes)

    def _pickle(self, storages=None):
        start = self.file.tell()
        window = io.BytesIO(self.file.read(MOST_PICKLE_BYTES))
        content = unpickle(window, storages)
        self.file.seek(start + window.tell())
        return content


def _weights(content, ema):
    """The dictionary of tensors in a checkpoint's content."""
    if not isinstance(content, dict):
        raise CheckpointError("it holds no dictionary of weights")
    places = ("state_dict_ema",) if ema else ("state_dict", "model")
    found = [content[place] for place in places if isinstance(content.get(place), dict)]
    if ema and not found:
        raise CheckpointError("it holds no averaged weights (state_dict_ema): read it without ema")
    tensors = found[0] if found else content
    if not tensors:
        raise CheckpointError("it holds no weights")
    foreign = [
        str(name)[:80] for name, value in tensors.items() if not isinstance(value, Tensor) or type(name) is not str
    ]
    if foreign:
        raise CheckpointError(f"it holds no plain state_dict: not named tensors are {', '.join(foreign)}")
    return tensors


def _check_sizes(tensors, container, limit):
    """What is claimed must be there: reading a hostile file takes no more memory than a sound one of its size."""
    storages = {tensor.storage for tensor in tensors.values()}
    for storage in storages:
        if container.length(storage) != storage.nbytes:
            raise CheckpointError(f"storage {storage.key} is truncated or has another length than its tensors say")
    if sum(storage.nbytes for storage in storages) > limit:
        raise CheckpointError("its tensors claim more bytes than it has")
    # A stride of 0 repeats a number for nothing; what it grows to when copied is bounded as well.
    if sum(tensor.nbytes for tensor in tensors.values()) > 4 * limit + 2**20:
        raise CheckpointError("its tensors repeat their numbers far beyond its own size")


def _array(tensor, data):
    flat = np.frombuffer(data, tensor.storage.dtype, tensor.storage.size)
    if 0 in tensor.shape:
        return np.empty(tensor.shape, flat.dtype)
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
