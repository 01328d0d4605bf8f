"""Reads the tensors of a PyTorch checkpoint (.pth, .pth.tar, .pt) without PyTorch and without executing it.

Both of PyTorch's formats are read: the zip archive that `torch.save` has written since 1.6, and the older run of
pickles followed by the raw numbers.
"""

import io
import os
import zipfile

import numpy as np

from keras_convmixer.weights.pickled import CheckpointError, Tensor, unpickle

ZIP_MAGIC = b"PK\x03\x04"
# The pickle of 0x1950a86a20f9469cfc6c, which opens a file of the older format.
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Twenty times the largest real one, and what bounds the memory that a hostile one takes.
MOST_PICKLE_BYTES = 8 * 2**20


def read_torch(path, *, ema=False):
    """The weights in a PyTorch checkpoint.

    The tensors are looked for under `state_dict` or `model`, as trainers write them, else at the top. Optimizer
    state and options beside them are read over.

    Args:
        path: the file. ema: whether to take the averaged weights, under `state_dict_ema`.

    Returns:
        A dictionary of names to numpy arrays, as stored: float16, bfloat16 (as ml_dtypes'), float32, float64 or
        integers. Arrays may share memory and are read-only.

    Raises:
        CheckpointError: the file is not such a checkpoint, is damaged, or asks for anything but tensors and plain
            containers. OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            container = _Zip(file) if file.read(4) == ZIP_MAGIC else _Legacy(file)
            tensors = _weights(container.content, ema)
            return _arrays(tensors, container.read, limit=os.fstat(file.fileno()).st_size)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:
            # A damaged file fails wherever its nonsense first matters, in the zip reader or the pickle's operands.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} is damaged or not a PyTorch checkpoint: {reason}") from error


class _Zip:
    """archive/data.pkl, and the storages as archive/data/KEY, uncompressed."""

    def __init__(self, file):
        self.size = os.fstat(file.fileno()).st_size
        self.zip = zipfile.ZipFile(file)
        pickles = [name for name in self.zip.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("it is a zip file, but not of torch.save: it has no data.pkl")
        self.root = pickles[0].removesuffix("data.pkl")
        if self.root + "byteorder" in self.zip.namelist() and self._entry("byteorder", 16) != b"little":
            raise CheckpointError("it was written on a big-endian machine: save it again on a little-endian one")
        self.content = unpickle(io.BytesIO(self._entry("data.pkl", MOST_PICKLE_BYTES)))

    def read(self, storage):
        data = self._entry(f"data/{storage.key}", self.size)
        if len(data) != storage.nbytes:
            raise CheckpointError(f"storage {storage.key} has {len(data)} bytes instead of {storage.nbytes}")
        return data

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
            if int.from_bytes(file.read(8), "little") != storages[key].size:
                raise CheckpointError(f"storage {key} is truncated or has another length than its tensors say")
            self.starts[key] = file.tell()
            file.seek(storages[key].nbytes, os.SEEK_CUR)

    def read(self, storage):
        self.file.seek(self.starts[storage.key])
        data = self.file.read(storage.nbytes)
        if len(data) != storage.nbytes:
            raise CheckpointError("it is truncated")
        return data

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
    foreign = [str(name)[:80] for name, value in tensors.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(f"it holds no plain state_dict: not tensors are {', '.join(foreign)}")
    return tensors


def _arrays(tensors, read, limit):
    """The numpy arrays of tensors. Each storage is read once; together they must fit in `limit` bytes."""
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if sum(storage.nbytes for storage in storages.values()) > limit:
        raise CheckpointError("its tensors claim more bytes than it has")
    # A stride of 0 repeats a number for nothing; what it grows to when copied is bounded as well.
    if sum(tensor.nbytes for tensor in tensors.values()) > 4 * limit + 2**20:
        raise CheckpointError("its tensors repeat their numbers far beyond its own size")
    flat = {key: np.frombuffer(read(storage), storage.dtype) for key, storage in storages.items()}
    return {name: _strided(flat[tensor.storage.key], tensor) for name, tensor in tensors.items()}


def _strided(flat, tensor):
    if 0 in tensor.shape:
        return np.empty(tensor.shape, flat.dtype)
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
