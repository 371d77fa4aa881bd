"""Shapes, and the boxes that slices are of them."""

import re
from functools import lru_cache
from math import prod
from typing import cast

from ckpttool.errors import CorruptionError
from ckpttool.model.boxes import MAX_RANK, Extents
from ckpttool.wire import ordered_code
from ckpttool.wire.coding import encode_varint, to_signed
from ckpttool.wire.message import LENGTH, VARINT, fields, message_field, values, varint_field


# A model has few shapes, and many variables of each.
@lru_cache(4096)
def decode_shape(data: bytes) -> tuple[int, ...]:
    """A TensorShapeProto (dim 2: size 1, name 2; unknown_rank 3) that is wholly known."""
    shape = []
    for number, wire_type, value in values(data):
        if (number, wire_type) == (2, LENGTH):
            shape.append(_varint_fields(cast("bytes", value)).get(1, 0))
            if len(shape) > MAX_RANK:  # Before there are millions of them.
                raise CorruptionError(f"no variable can have a shape of more than {MAX_RANK} dimensions")
        elif (number, wire_type) == (3, VARINT) and value:
            raise CorruptionError("a stored variable of unknown rank")
    if any(size < 0 for size in shape) or prod(shape) >> 63:
        raise CorruptionError(f"no variable can have the shape {shape}")
    return tuple(shape)


@lru_cache(4096)
def encode_shape(shape: tuple[int, ...]) -> bytes:
    return b"".join(message_field(2, varint_field(1, size)) for size in shape)


def decode_extents(data: bytes) -> Extents:
    """A TensorSliceProto: extent 1, each of start 1 and length 2. An absent length means all; 0 means none."""
    extents = []
    for *kind, _, start, end in fields(data):
        if kind == [1, LENGTH]:
            extents.append(_varint_fields(data[start:end]))
            if len(extents) > MAX_RANK:  # As of a shape.
                raise CorruptionError(f"no variable can have a slice of more than {MAX_RANK} dimensions")
    if any(extent.get(2, 0) < 0 for extent in extents):
        raise CorruptionError("a slice of negative length")
    return tuple((extent.get(1, 0), extent.get(2, -1)) for extent in extents)


@lru_cache(4096)
def encode_extents(extents: Extents) -> bytes:
    """What `decode_extents` takes apart; a length of 0 is written, for an absent one means all."""
    encoded = []
    for start, length in extents:
        stored = b"" if length < 0 else b"\x10" + encode_varint(length)
        encoded.append(message_field(1, varint_field(1, start) + stored))
    return b"".join(encoded)


def _varint_fields(data: bytes) -> dict[int, int]:
    return {number: to_signed(cast("int", value)) for number, wire_type, value in values(data) if wire_type == VARINT}


def box_of(extents: Extents, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and shape of a slice of a variable of `shape`."""
    if len(extents) != len(shape):
        raise CorruptionError(f"a slice of rank {len(extents)} of a variable of rank {len(shape)}")
    lengths = (size if length < 0 else length for (_, length), size in zip(extents, shape, strict=True))
    return tuple(start for start, _ in extents), tuple(lengths)


def encode_slice_key(name: bytes, extents: Extents) -> bytes:
    """The key under which a slice is stored. (core/util/saved_tensor_slice_util.cc: EncodeTensorNameSlice)"""
    head = [ordered_code.encode_number(0), ordered_code.encode_string(name), ordered_code.encode_number(len(extents))]
    return b"".join([*head, *(ordered_code.encode_signed(n) for extent in extents for n in extent)])


_SLICE_KEY = re.compile(rb"\x00((?:[^\x00\xff]|\x00\xff|\xff\x00)+)\x00\x01.*", re.DOTALL)


def sliced_name(key: bytes) -> bytes | None:
    """The name of the variable, if a key has the form of a slice's; else None."""
    match = _SLICE_KEY.fullmatch(key)
    return match[1].replace(b"\x00\xff", b"\x00").replace(b"\xff\x00", b"\xff") if match else None
