"""The checksum of structures: Bob Jenkins' lookup3 (hashlittle), which is also the hash of names.

Twelve bytes at a time are added to three numbers of 32 bits, which are then mixed; after the last twelve, or fewer,
they are mixed in another way. A checksum stands behind its structure, little-endian. Two hashes:

    lookup3(b"")                               = 0xdeadbeef
    lookup3(b"Four score and seven years ago") = 0x17770551

(III.A. "checksum"; http://burtleburtle.net/bob/c/lookup3.c, public domain, where these two values are from)
"""

import struct

from ckpttool.errors import CorruptionError

_MASK = 0xFFFFFFFF
_WORDS = struct.Struct("<III")


def lookup3(data: bytes) -> int:
    """The hash, with the initial value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    mixed = (len(data) - 1) // 12 * 12
    for x, y, z in _WORDS.iter_unpack(data[:mixed]):
        # Each line subtracts, XORs with a number rotated left, and adds. Only the number that is rotated next must be
        # cut to 32 bits: in the others, higher bits do no harm, and the next mask removes them.
        a, b, c = a + x, b + y, c + z & _MASK
        a, c = (a - c ^ c << 4 ^ c >> 28) & _MASK, c + b
        b, a = (b - a ^ a << 6 ^ a >> 26) & _MASK, a + c
        c, b = (c - b ^ b << 8 ^ b >> 24) & _MASK, b + a
        a, c = (a - c ^ c << 16 ^ c >> 16) & _MASK, c + b
        b, a = (b - a ^ a << 19 ^ a >> 13) & _MASK, a + c
        c, b = (c - b ^ b << 4 ^ b >> 28) & _MASK, b + a
    x, y, z = _WORDS.unpack(data[mixed:].ljust(12, b"\0"))
    return _final(a + x & _MASK, b + y & _MASK, c + z & _MASK)


def _final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - (b << 14 & _MASK | b >> 18) & _MASK
    a = (a ^ c) - (c << 11 & _MASK | c >> 21) & _MASK
    b = (b ^ a) - (a << 25 & _MASK | a >> 7) & _MASK
    c = (c ^ b) - (b << 16 & _MASK | b >> 16) & _MASK
    a = (a ^ c) - (c << 4 & _MASK | c >> 28) & _MASK
    b = (b ^ a) - (a << 14 & _MASK | a >> 18) & _MASK
    return (c ^ b) - (b << 24 & _MASK | b >> 8) & _MASK


def require_checksum(data: bytes, offset: int) -> None:
    """Raises CorruptionError unless the last four bytes are the checksum of those before; the data are at `offset`."""
    stored, calculated = int.from_bytes(data[-4:], "little"), lookup3(data[:-4])
    if stored != calculated:
        raise CorruptionError(f"Checksum does not match: {stored:08x} vs. calculated {calculated:08x}", offset=offset)
