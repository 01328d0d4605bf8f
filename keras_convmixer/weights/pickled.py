"""The pickles inside PyTorch's files, read without executing anything.

A pickle is a small program. This is an interpreter for the part of its language that `torch.save` uses, which
builds plain containers and descriptions of tensors. A name that the program asks for is only looked up in the
table below, never imported, and nothing in the file is ever called.
"""

import math
import pickletools
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_convmixer.weights.stored_array import CheckpointError


class Storage(NamedTuple):
    """A flat run of numbers elsewhere in the file; several tensors may share one."""

    key: str
    dtype: np.dtype
    size: int

    @property
    def nbytes(self):
        return self.size * self.dtype.itemsize


class Tensor(NamedTuple):
    """A strided window on a storage, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple

    @property
    def nbytes(self):
        return math.prod(self.shape) * self.storage.dtype.itemsize


def _tensor(storage, offset, shape, strides, *_gradient_and_hooks):
    if len(shape) != len(strides) or len(shape) > 16 or not all(map(_is_size, (offset, *shape, *strides))):
        raise CheckpointError("a tensor has an impossible shape")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides))
    if math.prod(shape) and last >= storage.size:
        raise CheckpointError("a tensor reaches beyond its storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _is_size(number):
    # 2**48 is far above any real size, and low enough that products of a few cost nothing.
    return type(number) is int and 0 <= number < 2**48


def _ignored(*_):
    return None


ALLOWED = {
    ("collections", "OrderedDict"): dict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_gradient_and_hooks: tensor,
    ("torch", "FloatStorage"): np.dtype("<f4"),
    ("torch", "DoubleStorage"): np.dtype("<f8"),
    ("torch", "HalfStorage"): np.dtype("<f2"),
    ("torch", "BFloat16Storage"): np.dtype(ml_dtypes.bfloat16),
    ("torch", "LongStorage"): np.dtype("<i8"),
    ("torch", "IntStorage"): np.dtype("<i4"),
    ("torch", "ShortStorage"): np.dtype("<i2"),
    ("torch", "CharStorage"): np.dtype("i1"),
    ("torch", "ByteStorage"): np.dtype("u1"),
    ("torch", "BoolStorage"): np.dtype("?"),
    # What trainers put beside the weights: their options, a best score. Read over, never built.
    ("argparse", "Namespace"): _ignored,
    ("numpy", "dtype"): _ignored,
    ("numpy.core.multiarray", "scalar"): _ignored,
    ("numpy._core.multiarray", "scalar"): _ignored,
    ("_codecs", "encode"): _ignored,
}

# What the operations without an argument put on the stack.
NEW = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}


def unpickle(stream, storages=None):
    """What one pickle of `torch.save` describes.

    Args:
        stream: a binary stream, read up to the end of the pickle. Memory is bounded by its size.
        storages: a dictionary to which every `Storage` is added that the pickle refers to, by its key.

    Returns:
        dict, list, tuple, set, str, bytes, int, float, bool or None, and `Tensor` where there was a tensor. Objects
        that only accompany the weights come out as None.

    Raises:
        CheckpointError: a name or an operation is not allowed. A damaged pickle raises whatever its nonsense
            leads to: ValueError, IndexError, TypeError and so on.
    """
    stack, marks, memo = [], [], {}

    for operation, argument, _ in pickletools.genops(stream):
        match operation.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case name if name in NEW:
                stack.append(NEW[name]())
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(argument)
            case "TUPLE":
                stack.append(tuple(_taken(stack, marks.pop())))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                stack.append(tuple(_taken(stack, -int(name[-1]))))
            case "SETITEM" | "SETITEMS" as name:
                items = _taken(stack, marks.pop() if name == "SETITEMS" else -2)
                _set_items(stack[-1], items[::2], items[1::2])
            case "APPEND" | "APPENDS" as name:
                items = _taken(stack, marks.pop() if name == "APPENDS" else -1)
                _extend(stack[-1], items)
            case "GLOBAL":
                stack.append(_allowed(*argument.split(" ", 1)))
            case "BINPERSID":
                stack.append(_storage(*stack.pop()))
                if storages is not None:
                    storages[stack[-1].key] = stack[-1]
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_build(stack.pop(), arguments))
            case "BUILD":
                # The state of an object: a state_dict's _metadata, the options of a Namespace.
                stack.pop()
            case name:
                raise CheckpointError(f"it holds the pickle operation {name}, which files of weights do not use")
    raise CheckpointError("the pickle in it does not end")


def _taken(stack, start):
    """What lies on the stack from a place on, taken off it."""
    items = stack[start:]
    del stack[start:]
    return items


def _allowed(module, name):
    if (module, name) not in ALLOWED:
        raise CheckpointError(
            f"it asks for {module[:80]}.{name[:80]}, which no file of weights needs. It was refused "
            "and nothing in it was run. If you trust it, load it in PyTorch and save its state_dict() alone"
        )
    return ALLOWED[module, name]


def _storage(kind, dtype, key, _location, size, view=None):
    if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str) or view is not None:
        raise CheckpointError("it refers to something that is not a plain tensor storage")
    if not _is_size(size):
        raise CheckpointError("a storage has an impossible size")
    return Storage(key, dtype, size)


def _build(builder, arguments):
    if type(arguments) is not tuple or len(arguments) > (0 if builder is dict else 16):
        raise CheckpointError("it builds an object in a way that torch.save does not")
    return builder(*arguments)


def _set_items(target, keys, values):
    # None stands for an ignored object. Keys are plain because hashing a deep tuple can exhaust the C stack.
    if target is None:
        return
    if type(target) is not dict or not all(type(key) in (str, int, float, bool) for key in keys):
        raise CheckpointError("it has a dictionary whose keys are not plain values")
    target.update(zip(keys, values, strict=True))


def _extend(target, items):
    if type(target) is not list:
        raise CheckpointError("it appends to something that is not a list")
    target.extend(items)
