"""The records of a bundle's index: its header, and an entry for each variable and slice."""

import re
from functools import lru_cache
from math import prod
from typing import NamedTuple, cast

from ckpttool.errors import CorruptionError, FormatError, NotSupportedError
from ckpttool.formats.records.shapes import decode_extents, decode_shape, encode_extents, encode_shape
from ckpttool.model.boxes import Extents
from ckpttool.model.dtypes import DType, stored_dtype_of
from ckpttool.wire.coding import decode_varint, encode_fixed32, encode_varint, to_signed
from ckpttool.wire.message import FIXED32, LENGTH, VARINT, fields, message_field, values, varint_field

# The version of checkpoints that is read here, as TensorFlow counts it. (core/framework/versions.cc)
_VERSION = 1


class BundleHeader(NamedTuple):
    num_shards: int = 0
    big_endian: bool = False


class BundleEntry(NamedTuple):
    """What an index says of a variable or a slice; with `slices`, of a partitioned variable as a whole."""

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
    producer, min_consumer = numbers[1], numbers[2]
    if producer < 0:
        raise NotSupportedError(f"Checkpoint producer version {producer} below min producer 0")
    if min_consumer > _VERSION:
        raise NotSupportedError(f"Checkpoint min consumer version {min_consumer} above current version {_VERSION}")
    if _VERSION in bad_consumers:
        raise NotSupportedError(f"Checkpoint disallows consumer version {_VERSION}")


class EntryHead(NamedTuple):
    """What an entry begins with, dtype and shape, and the size that follows from them: as a number, and as it is
    encoded (None for strings, whose size can be any).
    """

    dtype: DType
    shape: tuple[int, ...]
    nbytes: int = 0
    size: bytes | None = None


def plain_entry(data: bytes, num_shards: int) -> EntryHead | None:
    """The head of an entry, if it is written as TensorFlow writes them and all of it is as it should be.

    To find that out takes a tenth of the time of decoding. None: it is written otherwise, has slices, or is wrong,
    which `decode_bundle_entry` will tell.
    """
    end = 4 + data[3] if len(data) > 3 else 0
    head, tail = _head(data[:end]), _TAIL.fullmatch(data, end)
    if not head or not tail:
        return None
    shard, _, size, _ = tail.groups(b"")
    return head if head.size in (None, size) and (not shard or _number(shard) < num_shards) else None


def _number(varint: bytes) -> int:
    """The number that a varint is; of no bytes, 0."""
    number = shift = 0
    for byte in varint:
        number |= (byte & 0x7F) << shift
        shift += 7
    return number


# Behind the head: shard 3, offset 4, size 5, crc32c 6. Nine bytes of a varint have no sign.
_NUMBER = rb"([\x80-\xff]{0,8}[\x00-\x7f])"
_TAIL = re.compile(rb"(?:\x18%b)?(?:\x20%b)?(?:\x28%b)?(?:\x35(.{4}))?" % ((_NUMBER,) * 3), re.DOTALL)


# A model has few shapes, and many variables of each.
@lru_cache(4096)
def _head(data: bytes) -> EntryHead | None:
    if data[:1] != b"\x08" or data[2:3] != b"\x12" or data[1] >= 0x80 or data[3] >= 0x80 or len(data) < 4 + data[3]:
        return None
    try:
        dtype, shape = stored_dtype_of(data[1]), decode_shape(data[4:])
    except CorruptionError:
        return None
    if dtype.itemsize is None:
        return EntryHead(dtype, shape)
    nbytes = prod(shape) * dtype.itemsize
    if nbytes >> 63:  # No size is as large, and a varint would hold another number.
        return None
    return EntryHead(dtype, shape, nbytes, encode_varint(nbytes) if nbytes else b"")


def decode_bundle_entry(data: bytes) -> BundleEntry:
    """A BundleEntryProto: dtype 1, shape 2, shard_id 3, offset 4, size 5, crc32c 6, slices 7."""
    end = 4 + data[3] if len(data) > 3 else 0
    head, tail = _head(data[:end]), _TAIL.fullmatch(data, end)
    if head and tail:
        shard, offset, size, crc = tail.groups(b"")
        nbytes = head.nbytes if size == head.size else _number(size)
        crc32c = int.from_bytes(crc, "little")
        return BundleEntry(head.dtype.number, head.shape, _number(shard), _number(offset), nbytes, crc32c)
    return _decode_any_entry(data)


def _decode_any_entry(data: bytes) -> BundleEntry:
    """Decodes an entry with its fields in any order, and anything between them."""
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
    numbers = varint_field(3, entry.shard) + varint_field(4, entry.offset) + varint_field(5, entry.size)
    crc = b"\x35" + encode_fixed32(entry.masked_crc32c) if entry.masked_crc32c else b""
    slices = b"".join(message_field(7, encode_extents(extents)) for extents in entry.slices)
    return _encoded_head(entry.dtype, entry.shape) + numbers + crc + slices


@lru_cache(4096)
def _encoded_head(dtype: int, shape: tuple[int, ...]) -> bytes:
    return varint_field(1, dtype) + message_field(2, encode_shape(shape))
