"""FlatBuffers written from plain values, and tables put in front of a buffer that is there already."""

import flatbuffers
import numpy as np
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

_FLAGS = {
    np.int8: number_types.Int8Flags,
    np.uint8: number_types.Uint8Flags,
    np.uint32: number_types.Uint32Flags,
}


class There(int):
    """The position of a table, vector or string in the buffer that is there already."""


def buffer(root, identifier, before=b""):
    """A buffer with a root table, upon one that is there already.

    What is there keeps its bytes and their alignment. New tables stand in front of it, since what points in a
    FlatBuffer points onwards.

    Args:
        root: the root table, as a tuple of its fields in the order of its schema: None for one that is left out, a
            numpy scalar, a string, `bytes` or an array for a vector of numbers, a list for a vector of tables or
            strings, a tuple for a table, or `There`. (Of a union, the type is a field of its own.)
        identifier: of the kind of file, four bytes.
        before: the content of the buffer that `There` is in.

    Returns:
        bytes.
    """
    builder = flatbuffers.Builder(0)
    builder.Bytes = bytearray(before) + bytes(-len(before) % 16)
    builder.minalign = 16
    length = len(builder.Bytes)
    builder.Finish(_written(builder, root, length), identifier)
    return bytes(builder.Output())


def fields(table):
    """The fields of a `flatbuffers` table as `There`, or None where it has none: of numbers their positions."""
    inner = table._tab
    count = encode.Get(packer.voffset, inner.Bytes, inner.Pos - inner.Get(number_types.SOffsetTFlags, inner.Pos))
    offsets = [inner.Offset(4 + 2 * slot) for slot in range(count // 2 - 2)]
    return [There(inner.Pos + offset) if offset else None for offset in offsets]


def followed(content, position):
    """Where the table, vector or string lies that a field at a position points to."""
    return There(Table(content, 0).Indirect(position))


def members(content, position):
    """The tables of a vector that a field at a position points to."""
    vector = followed(content, position)
    count = encode.Get(packer.uoffset, content, vector)
    return [followed(content, vector + 4 * (i + 1)) for i in range(count)]


def _written(builder, value, length):
    """Writes a vector, string or table, and returns its offset from the end, as FlatBuffers counts."""
    if isinstance(value, There):
        return length - value
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, bytes):
        return builder.CreateByteVector(value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    parts = [
        part if part is None or isinstance(part, np.generic) else _written(builder, part, length) for part in value
    ]
    if isinstance(value, list):
        builder.StartVector(4, len(parts), 4)
        for part in reversed(parts):
            builder.PrependUOffsetTRelative(part)
        return builder.EndVector()
    builder.StartObject(len(parts))
    for slot, part in enumerate(parts):
        if isinstance(part, np.generic):
            builder.PrependSlot(_FLAGS[type(part)], slot, int(part), 0)
        elif part is not None:
            builder.PrependUOffsetTRelativeSlot(slot, part, 0)
    return builder.EndObject()
