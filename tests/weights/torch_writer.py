"""Writes files as `torch.save` does, without PyTorch: any content, sound or not."""

import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "float16": "Half",
    "bfloat16": "BFloat16",
    "float32": "Float",
    "float64": "Double",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}


class Global(NamedTuple):
    module: str
    name: str


class Call(NamedTuple):
    function: Any
    arguments: tuple


class Reference(NamedTuple):
    """A persistent id: a storage elsewhere in the file."""

    to: tuple


def pickled(value):
    return b"\x80\x02" + _operations(value) + b"."


def _operations(value):
    match value:
        case Global(module, name):
            return b"c" + f"{module}\n{name}\n".encode()
        case Call(function, arguments):
            return _operations(function) + _operations(arguments) + b"R"
        case Reference(to):
            return _operations(to) + b"Q"
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(_operations, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_operations, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_operations(part) for item in value.items() for part in item) + b"u"


def tensor(key, dtype, size, shape, strides, offset=0, legacy=False):
    """A window on storage `key`, which has `size` elements. The older format's references have a sixth part."""
    view = (None,) if legacy else ()
    storage = Reference(("storage", Global("torch", f"{STORAGES[dtype]}Storage"), key, "cpu", size, *view))
    function = Global("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(function, (storage, offset, tuple(shape), tuple(strides), False, hooks))


def contents(arrays, legacy=False):
    """Tensors for arrays, each with a storage of its own, and the storages' bytes by key."""
    tensors, storages = {}, {}
    for i, (name, array) in enumerate(arrays.items()):
        array = np.asarray(array)
        strides = [stride // array.itemsize for stride in np.empty(array.shape, array.dtype).strides]
        tensors[name] = tensor(str(i), array.dtype.name, array.size, array.shape, strides, legacy=legacy)
        storages[str(i)] = array.tobytes()
    return tensors, storages


def write_zip(path, content, storages, *, pickle=None, extra=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled(content) if pickle is None else pickle)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for key, data in storages.items():
            file.writestr(f"archive/data/{key}", data)
        for name, data in (extra or {}).items():
            file.writestr(f"archive/{name}", data)
    return path


def write_legacy(path, content, storages, itemsize):
    """The format before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    with open(path, "wb") as file:
        for value in (MAGIC, 1001, system, content, list(storages)):
            file.write(pickled(value))
        for data in storages.values():
            file.write(struct.pack("<q", len(data) // itemsize) + data)
    return path
