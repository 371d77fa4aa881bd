"""Integers as bytes: varints (LEB128, as protobuf and LevelDB write them) and little-endian fixed widths.

A varint holds seven bits a byte, the lowest first; the top bit says that another byte follows:
300 = 0b10_0101100 is `ac 02`. Negative numbers are written as their 64-bit two's complement, in ten bytes.
"""

import struct

from ckpttool.errors import CorruptionError

_FIXED32 = struct.Struct("<I")
_FIXED64 = struct.Struct("<Q")


def decode_varint(data: bytes, position: int, bits: int = 64) -> tuple[int, int]:
    """The unsigned number at `position` and the position after it.

    Raises:
        CorruptionError: the data end inside the number, or it takes more than `bits` bits.
    """
    start = position
    try:
        byte = data[position]
        if byte < 0x80:
            return byte, position + 1
        value, shift = byte & 0x7F, 7
        while byte >= 0x80 and shift < 70:
            position += 1
            byte = data[position]
            value |= (byte & 0x7F) << shift
            shift += 7
    except IndexError:
        byte = 0x80
    if byte >= 0x80:
        raise CorruptionError("a varint has no end", offset=start)
    if value >> bits or shift > bits + 6:
        raise CorruptionError(f"a varint takes more than {bits} bits", offset=start)
    return value, position + 1


_ONE_BYTE = [bytes([value]) for value in range(0x80)]


def encode_varint(value: int) -> bytes:
    """The shortest form; a negative value in its 64-bit two's complement."""
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if 0x80 <= value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def to_signed(value: int) -> int:
    """An unsigned 64-bit number read as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def decode_fixed32(data: bytes, position: int = 0) -> int:
    """The unsigned 32-bit number at `position`. The caller has checked that it is there."""
    return int(_FIXED32.unpack_from(data, position)[0])


def encode_fixed32(value: int) -> bytes:
    return _FIXED32.pack(value)


def decode_fixed64(data: bytes, position: int = 0) -> int:
    """The unsigned 64-bit number at `position`. The caller has checked that it is there."""
    return int(_FIXED64.unpack_from(data, position)[0])


def encode_fixed64(value: int) -> bytes:
    return _FIXED64.pack(value)
