"""The messages of which checkpoints' tables are full, read by hand.

A hundred thousand of them in a fraction of a second, without importing protobuf; and strictly: what can't be is
refused here, before anything is allocated by it. Protobuf's rules hold (unknown fields are passed over, of
several the last one counts); `proto/checkpoint.proto` has the messages in full.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple, cast

from ckpttool.errors import CorruptionError, FormatError, NotSupportedError, located
from ckpttool.model.boxes import Extents
from ckpttool.wire import ordered_code
from ckpttool.wire.coding import decode_fixed32, decode_varint, encode_fixed32, encode_varint, to_signed
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.message import FIXED32, LENGTH, VARINT, fields, message_field, values, varint_field

# The version of checkpoints that is read here, as TensorFlow counts it. (core/framework/versions.cc)
_VERSION = 1
_MAX_RANK = 254  # tensor_shape.h: TensorShape::MaxDimensions


class BundleHeader(NamedTuple):
    num_shards: int = 0
    big_endian: bool = False


class BundleEntry(NamedTuple):
    """What an index says of a variable or a slice; with `extents`, of a partitioned variable as a whole."""

    dtype: int = 0
    shape: tuple[int, ...] = ()
    shard: int = 0
    offset: int = 0
    size: int = 0
    masked_crc32c: int = 0
    slices: tuple[Extents, ...] = ()


def decode_bundle_header(data: bytes) -> BundleHeader:
    """A BundleHeaderProto: num_shards 1, endianness 2, version 3.

    Raises:
        FormatError: it is the first record of a V1 checkpoint, which stands under the same key.
        NotSupportedError: it wants a newer reader.
    """
    num_shards = endianness = 0
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            raise FormatError("a V1 checkpoint, not the index of a V2 one")
        if (number, wire_type) == (1, VARINT):
            num_shards = to_signed(decode_varint(data, start)[0])
        elif (number, wire_type) == (2, VARINT):
            endianness = decode_varint(data, start)[0]
        elif (number, wire_type) == (3, LENGTH):
            check_version(data[start:end])
    if endianness > 1:
        raise CorruptionError(f"the header gives byte order {endianness}, known are 0 (little) and 1 (big)")
    return BundleHeader(num_shards, endianness == 1)


def encode_bundle_header(num_shards: int) -> bytes:
    """The header as TensorFlow writes it on a little-endian machine: version {producer 1}."""
    return varint_field(1, num_shards) + b"\x1a\x02\x08\x01"


def check_version(data: bytes) -> None:
    """Raises NotSupportedError if a VersionDef (producer 1, min_consumer 2, bad_consumers 3) shuts us out."""
    numbers = {1: 0, 2: 0}
    bad_consumers = set()
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (3, LENGTH):
            position = start
            while position < end:
                consumer, position = decode_varint(data, position)
                bad_consumers.add(consumer)
        elif (number, wire_type) == (3, VARINT):
            bad_consumers.add(decode_varint(data, start)[0])
        elif wire_type == VARINT:
            numbers[number] = to_signed(decode_varint(data, start)[0])
    if numbers[1] < 0 or numbers[2] > _VERSION or _VERSION in bad_consumers:
        raise NotSupportedError(
            f"Checkpoint min consumer version {numbers[2]} above current version {_VERSION}"
            f" (or this one is shut out: producer {numbers[1]}, bad consumers {sorted(filter(None, bad_consumers))})"
        )


def decode_bundle_entry(data: bytes) -> BundleEntry:
    """A BundleEntryProto: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6, slices 7."""
    found: dict[int, int | bytes] = {}
    slices: list[Extents] = []
    for number, wire_type, value in values(data):
        if (number, wire_type) == (7, LENGTH):
            slices.append(decode_extents(cast("bytes", value)))
        elif _ENTRY_FIELDS.get(number) == wire_type:
            found[number] = value
    dtype, shard, offset, size, crc = (to_signed(cast("int", found.get(number, 0))) for number in (1, 3, 4, 5, 6))
    shape = decode_shape(cast("bytes", found.get(2, b"")))
    return BundleEntry(dtype, shape, shard, offset, size, crc, tuple(slices))


_ENTRY_FIELDS = {1: VARINT, 2: LENGTH, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32}


def encode_bundle_entry(entry: BundleEntry) -> bytes:
    """The BundleEntryProto as TensorFlow writes it: fields in order, zeros left out, the shape always there.

    float32[4] at the start of shard 0 is `08 01 12 04 12 02 08 04 28 10 35 b9 6f 57 d8`.
    """
    numbers = b"".join(varint_field(n, value) for n, value in ((3, entry.shard), (4, entry.offset), (5, entry.size)))
    crc = b"\x35" + encode_fixed32(entry.masked_crc32c) if entry.masked_crc32c else b""
    slices = b"".join(message_field(7, encode_extents(extents)) for extents in entry.slices)
    return varint_field(1, entry.dtype) + message_field(2, encode_shape(entry.shape)) + numbers + crc + slices


# A model has few shapes, and many variables of each.
@lru_cache(4096)
def decode_shape(data: bytes) -> tuple[int, ...]:
    """A TensorShapeProto (dim 2: size 1, name 2; unknown_rank 3) that is wholly known."""
    shape = []
    for number, wire_type, value in values(data):
        if (number, wire_type) == (2, LENGTH):
            shape.append(_varint_fields(cast("bytes", value)).get(1, 0))
            if len(shape) > _MAX_RANK:  # Before there are millions of them.
                raise CorruptionError(f"no variable can have a shape of more than {_MAX_RANK} dimensions")
        elif (number, wire_type) == (3, VARINT) and value:
            raise CorruptionError("a stored variable of unknown rank")
    if any(size < 0 for size in shape) or prod(shape) >> 63:
        raise CorruptionError(f"no variable can have the shape {shape}")
    return tuple(shape)


def encode_shape(shape: Sequence[int]) -> bytes:
    return b"".join(message_field(2, varint_field(1, size)) for size in shape)


def decode_extents(data: bytes) -> Extents:
    """A TensorSliceProto: extent 1, each of start 1 and length 2. An absent length means all; 0 means none."""
    extents = [_varint_fields(data[start:end]) for *kind, _, start, end in fields(data) if kind == [1, LENGTH]]
    if any(extent.get(2, 0) < 0 for extent in extents):
        raise CorruptionError("a slice of negative length")
    return tuple((extent.get(1, 0), extent.get(2, -1)) for extent in extents)


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
    """The name of the variable that a key is of a slice of, by its form; None if it has not that form."""
    match = _SLICE_KEY.fullmatch(key)
    return match[1].replace(b"\x00\xff", b"\x00").replace(b"\xff\x00", b"\xff") if match else None


def decode_strings(data: bytes, count: int, crc: int | None, big_endian: bool) -> list[bytes]:
    """The values of a string variable: varint lengths, their masked checksum, all bytes.

    The lengths' checksum is over each as an integer in the writer's byte order, of four bytes where it fits and
    of eight where it doesn't. The whole has the checksum `crc`, which goes on from there over the rest as it
    is stored. [b"hello", b""] is `05 00 | ea b2 04 3e | 68 65 6c 6c 6f`.
    """
    if not data and not count:
        return []
    if count > len(data):
        raise CorruptionError(f"{count:,} strings are not in {len(data):,} bytes")
    lengths, position = [], 0
    for _ in range(count):
        length, position = decode_varint(data, position)
        lengths.append(length)
    if len(data) - position != 4 + sum(lengths):
        raise CorruptionError(f"strings of {sum(lengths):,} bytes are not in {len(data):,} bytes")
    order: Any = "big" if big_endian else "little"
    lengths_crc = crc32c(b"".join(length.to_bytes(8 if length >> 32 else 4, order) for length in lengths))
    if int.from_bytes(data[position : position + 4], order) != mask(lengths_crc):
        raise CorruptionError("The length checksum does not match")
    found = crc32c(memoryview(data)[position:], lengths_crc)
    if crc not in (None, found):
        raise CorruptionError(f"Checksum does not match: stored {crc:08x} vs. calculated {found:08x}")
    values, position = [], position + 4
    for length in lengths:
        values.append(data[position : position + length])
        position += length
    return values


def encode_strings(values: Sequence[bytes]) -> tuple[bytes, int]:
    """What `decode_strings` takes apart: the bytes as a little-endian machine stores them, and their CRC-32C."""
    lengths_crc = crc32c(b"".join(len(value).to_bytes(8 if len(value) >> 32 else 4, "little") for value in values))
    tail = encode_fixed32(mask(lengths_crc)) + b"".join(values)
    return b"".join(encode_varint(len(value)) for value in values) + tail, crc32c(tail, lengths_crc)


def decode_variants(data: bytes, count: int, crc: int | None, big_endian: bool) -> list[bytes]:
    """The values of a variant variable, each a serialized VariantTensorDataProto.

    Each is a varint length, the message, and the masked running checksum: of the length as eight bytes, the message,
    and these four bytes; it is never begun anew, and its last state is that of the whole.
    """
    if big_endian:
        raise NotSupportedError("variants of a big-endian machine")
    if count > len(data):
        raise CorruptionError(f"{count:,} variants are not in {len(data):,} bytes")
    values: list[bytes] = []
    position = running = 0
    for _ in range(count):
        length, start = decode_varint(data, position)
        end = start + length
        if end + 4 > len(data):
            raise CorruptionError(f"a variant of {length:,} bytes is not in {len(data):,} bytes")
        running = crc32c(data[start:end], crc32c(length.to_bytes(8, "little"), running))
        if decode_fixed32(data, end) != mask(running):
            raise CorruptionError(f"Checksum does not match: of variant {len(values)}")
        running, position = crc32c(data[end : end + 4], running), end + 4
        values.append(data[start:end])
    if position != len(data):
        raise CorruptionError(f"{count:,} variants take {position:,} of {len(data):,} bytes")
    if crc not in (None, running):
        raise CorruptionError(f"Checksum does not match: stored {crc:08x} vs. calculated {running:08x}")
    return values


def encode_variants(values: Sequence[bytes]) -> tuple[bytes, int]:
    """What `decode_variants` takes apart, and its CRC-32C."""
    data, running = bytearray(), 0
    for value in values:
        running = crc32c(value, crc32c(len(value).to_bytes(8, "little"), running))
        stored = encode_fixed32(mask(running))
        running = crc32c(stored, running)
        data += encode_varint(len(value)) + value + stored
    return bytes(data), running


class SavedSliceMeta(NamedTuple):
    """What a V1 checkpoint's first record says of a tensor: all of it, and which slices of it are in the file."""

    name: bytes = b""
    shape: tuple[int, ...] = ()
    dtype: int = 0
    slices: tuple[Extents, ...] = ()


def decode_slices_meta(data: bytes) -> list[SavedSliceMeta]:
    """The SavedTensorSlices under key "": meta 1, of tensor 1 (repeated) and versions 2.

    Raises:
        FormatError: it is the header of a V2 checkpoint, which stands under the same key.
        NotSupportedError: it wants a newer reader.
    """
    metas = []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            metas.append(data[start:end])
        elif number in (1, 3):
            raise FormatError("the index of a V2 checkpoint, not a V1 one")
    if not metas:
        raise FormatError("no V1 checkpoint: its first record lists no tensors")
    # Of several, protobuf makes one.
    return [tensor for meta in metas for tensor in _decode_tensors(meta)]


def _decode_tensors(data: bytes) -> list[SavedSliceMeta]:
    tensors = []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            tensors.append(_decode_slice_meta(data[start:end]))
        elif (number, wire_type) == (2, LENGTH):
            check_version(data[start:end])
    return tensors


def _decode_slice_meta(data: bytes) -> SavedSliceMeta:
    """A SavedSliceMeta: name 1, shape 2, type 3, slice 4 (repeated)."""
    name, shape, dtype, slices = b"", b"", 0, []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            name = data[start:end]
        elif (number, wire_type) == (2, LENGTH):
            shape = data[start:end]
        elif (number, wire_type) == (3, VARINT):
            dtype = to_signed(decode_varint(data, start)[0])
        elif (number, wire_type) == (4, LENGTH):
            slices.append(data[start:end])
    with located(variable=name.decode(errors="surrogateescape")):
        return SavedSliceMeta(name, decode_shape(shape), dtype, tuple(map(decode_extents, slices)))


class SavedSlice(NamedTuple):
    """The record of a slice in a V1 checkpoint; `tensor` is a view (memoryview) of its TensorProto."""

    name: bytes
    extents: Extents
    tensor: Any


def decode_saved_slice(data: bytes) -> SavedSlice:
    """The SavedTensorSlices under a slice's key: data 2, of name 1, slice 2 and data 3.

    Through views, for the record may have 2 GiB.
    """
    view: Any = memoryview(data)
    parts: dict[int, Any] = {}
    for number, wire_type, _, start, end in fields(view):
        if (number, wire_type) == (2, LENGTH):
            outer = view[start:end]
            parts |= {inner: outer[s:e] for inner, kind, _, s, e in fields(outer) if kind == LENGTH}
    return SavedSlice(bytes(parts.get(1, b"")), decode_extents(bytes(parts.get(2, b""))), parts.get(3, view[:0]))
