"""The values of string and variant variables."""

from collections.abc import Sequence
from typing import Any

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.wire.coding import decode_fixed32, decode_varint, encode_fixed32, encode_varint
from ckpttool.wire.crc32c import crc32c, mask


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


DECODERS = {"string": decode_strings, "variant": decode_variants}
ENCODERS = {"string": encode_strings, "variant": encode_variants}
"""By the dtypes' names."""
