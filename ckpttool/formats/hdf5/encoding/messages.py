"""Object headers of version 1, and the messages that they are made of; for their bytes see `structure`."""

import struct
from collections.abc import Sequence
from functools import lru_cache

from ckpttool.formats.hdf5.encoding.output import NO_ADDRESS, padded
from ckpttool.formats.hdf5.structure.datatype import (
    COMPOUND,
    ENUM,
    FLOAT,
    INTEGER,
    NULL_PADDED,
    OPAQUE,
    STRING,
    VLEN,
    Datatype,
)
from ckpttool.formats.hdf5.structure.headers import ATTRIBUTE, DATASPACE, DATATYPE, FILL, LAYOUT, PIPELINE, SYMBOL_TABLE
from ckpttool.formats.hdf5.structure.pipeline import Filter
from ckpttool.model.texts import to_bytes

# Flags: a message that never changes; a filter that can be left out.
_CONSTANT, _OPTIONAL = 1, 1

_HEADER, _MESSAGE = struct.Struct("<BxHII4x"), struct.Struct("<HHB3x")
_TYPE = struct.Struct("<BBBBI")


def header(messages: Sequence[bytes], links: int = 1) -> bytes:
    """An object's header; `links` is the number of names that lead to it."""
    data = b"".join(messages)
    return _HEADER.pack(1, len(messages), links, len(data)) + data


def _message(kind: int, data: bytes, flags: int = 0) -> bytes:
    data = padded(data)
    return _MESSAGE.pack(kind, len(data), flags) + data


# Shapes and types


@lru_cache(1024)
def dataspace(shape: tuple[int, ...]) -> bytes:
    return _message(DATASPACE, _space(shape))


def _space(shape: tuple[int, ...]) -> bytes:
    """A shape in version 1, which can't grow."""
    return struct.pack(f"<BB6x{len(shape)}Q", 1, len(shape), *shape)


@lru_cache(64)
def datatype(encoded: bytes) -> bytes:
    """The message of a type that has been encoded."""
    return _message(DATATYPE, encoded, _CONSTANT)


def encode_datatype(stored: Datatype) -> bytes:
    """A type in version 1: that of a number, or the enumeration or compound that h5py makes of one.

    (IV.A.2.d. The Datatype Message)
    """
    details = stored.details
    if stored.kind == INTEGER:
        return _type(INTEGER, details[0] << 1 | stored.is_big, stored.size, struct.pack("<HH", *details[1:]))
    if stored.kind == FLOAT:
        return _type(FLOAT, details[0] | stored.is_big, stored.size, struct.pack("<HHBBBBI", *details[1:]))
    if stored.kind == ENUM and stored.base:
        names = b"".join(padded(name + b"\0") for name, _ in details)
        values = b"".join(value for _, value in details)
        return _type(ENUM, len(details), stored.size, encode_datatype(stored.base) + names + values)
    if stored.kind == COMPOUND:
        members = (
            # The member has no dimensions of its own.
            padded(member.name + b"\0") + struct.pack("<I28x", member.offset) + encode_datatype(member.type)
            for member in stored.members
        )
        return _type(COMPOUND, len(stored.members), stored.size, b"".join(members))
    raise ValueError(f"types of class {stored.kind} are not written")


def _type(kind: int, bits: int, size: int, rest: bytes = b"") -> bytes:
    return _TYPE.pack(1 << 4 | kind, bits & 0xFF, bits >> 8 & 0xFF, bits >> 16, size) + rest


_UTF8 = 1 << 4
INT64 = _type(INTEGER, 8, 8, struct.pack("<HH", 0, 64))
_UINT8 = _type(INTEGER, 0, 1, struct.pack("<HH", 0, 8))
# Of variable length, 16 bytes that refer to the heap: text in UTF-8, which in memory ends with a NUL; and bytes.
TEXTS = _type(VLEN, 1 | 1 << 8, 16, _UINT8)
SEQUENCES = _type(VLEN, 0, 16, _UINT8)


def ascii_type(size: int) -> bytes:
    return _type(STRING, NULL_PADDED, size)


def utf8_type(size: int) -> bytes:
    return _type(STRING, NULL_PADDED | _UTF8, size)


def opaque_type(size: int) -> bytes:
    """Bytes, with no tag."""
    return _type(OPAQUE, 0, size)


# Where values are, and what they went through

# Version 2; when space is taken (1 early, 2 late, 3 chunk by chunk); when it is filled (0 at once, 1 never, 2 if a
# value was set); 1: there is a value. It gets no bytes, and so it is zero.
_FILLS = {"early": bytes([2, 1, 1, 1]), "late": bytes([2, 2, 0, 1]), "by chunks": bytes([2, 3, 2, 1])}


@lru_cache(8)
def fill(allocation: str) -> bytes:
    """The fill value message of a dataset that has all its values."""
    return _message(FILL, _FILLS[allocation] + bytes(4), _CONSTANT)


def contiguous(address: int | None, nbytes: int) -> bytes:
    """The layout of values in one piece; the address is None if there are none."""
    return _CONTIGUOUS.pack(LAYOUT, 24, 0, 3, 1, NO_ADDRESS if address is None else address, nbytes)


_CONTIGUOUS = struct.Struct("<HHB3xBBQQ6x")


def chunked(index: int, shape: Sequence[int], itemsize: int) -> bytes:
    """The layout of values in chunks of a shape; `index` is the address of the B-tree that leads to them."""
    return _message(LAYOUT, struct.pack(f"<BBBQ{len(shape) + 1}I", 3, 2, len(shape) + 1, index, *shape, itemsize))


def pipeline(filters: Sequence[Filter]) -> bytes:
    """The filters, version 1; each may be left out for a chunk that it does not make smaller."""
    data = struct.pack("<BB6x", 1, len(filters))
    for code, name, values in filters:
        called = padded(name + b"\0")
        data += struct.pack("<HHHH", code, len(called), _OPTIONAL, len(values)) + called
        data += padded(struct.pack(f"<{len(values)}I", *values))
    return _message(PIPELINE, data, _CONSTANT)


# Attributes


def attribute(name: bytes, stored: bytes, shape: tuple[int, ...], data: bytes) -> bytes:
    """An attribute of version 1.

    (IV.A.2.m. The Attribute Message)
    """
    name, space = name + b"\0", _space(shape)
    sizes = struct.pack("<BxHHH", 1, len(name), len(stored), len(space))
    return _message(ATTRIBUTE, b"".join([sizes, padded(name), padded(stored), padded(space), data]))


def text(name: bytes, value: str) -> bytes:
    """An attribute with a text of fixed length, which is in the object's header and not in the heap.

    A text that HDF5 would not keep is stored as bytes.
    """
    data = to_bytes(value)
    if b"\0" not in data and value.isprintable():
        return attribute(name, utf8_type(len(data) or 1), (), data or b"\0")
    return attribute(name, opaque_type(len(data)), (), data)


# Groups


def symbol_table(tree: int, heap: int) -> bytes:
    return _message(SYMBOL_TABLE, struct.pack("<QQ", tree, heap))
