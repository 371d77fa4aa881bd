"""The datatype message: what the bytes of an element mean.

It begins with class and version, 24 bits whose meaning depends on the class, and the size:

    10 | 08 00 00 | 04 00 00 00 | 00 00 | 20 00      integer of version 1, signed (bit 3), 4 bytes; from bit 0, 32 bits
    11 | 20 1f 00 | 04 00 00 00 | 00 00 | 20 00      float: bit 31 the sign, …, 4 bytes; from bit 0, 32 bits; exponent
         17 | 08 | 00 | 17 | 7f 00 00 00             from bit 23, 8 bits, mantissa from bit 0, 23 bits, bias 127
    13 | 01 00 00 | 05 00 00 00                      string of 5 bytes, padded with NULs
    19 | 01 01 00 | 10 00 00 00 | 13 00 …            variable length, a string, of the type that follows; 16 bytes

Behind that, compounds, enumerations and arrays have the names, places and types of their members.

(IV.A.2.d. The Datatype Message)
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ckpttool.errors import CheckpointError, CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

INTEGER, FLOAT, TIME, STRING, BITFIELD, OPAQUE, COMPOUND, REFERENCE, ENUM, VLEN, ARRAY, COMPLEX = range(12)
NULL_TERMINATED, NULL_PADDED, SPACE_PADDED = range(3)
_MAX_DEPTH = 32
_MAX_VERSION = 5


class Member(NamedTuple):
    """A member of a compound: its name, where it begins, its type."""

    name: bytes
    offset: int
    type: "Datatype"


class Datatype(NamedTuple):
    """A type.

    Attributes:
        kind: its class.
        size: bytes of an element.
        is_big: whether the bytes are in big-endian order.
        details: what else distinguishes types of a class: bits and their meaning; a string's padding; an enumeration's
            names and values; an array's shape.
        base: the type that it is made of.
        members: the members of a compound.
    """

    kind: int
    size: int
    is_big: bool = False
    details: tuple[Any, ...] = ()
    base: "Datatype | None" = None
    members: tuple[Member, ...] = ()

    @property
    def is_of_heap(self) -> bool:
        """Whether elements are references to the global heap, where their values are."""
        return self.kind == VLEN

    @property
    def is_text(self) -> bool:
        """Whether elements are strings, of fixed or variable length."""
        return self.kind == STRING or (self.kind == VLEN and self.details[0] == 1)


def decode_datatype(cursor: Cursor) -> Datatype:
    """Reads the message.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a class or version that is not known, or nested too deep.
    """
    try:
        return _decoded(cursor.rest())
    except CheckpointError as error:
        error.offset = cursor.here + (error.offset or 0)
        raise


@lru_cache(maxsize=64)  # A file has few types, each of them thousands of times.
def _decoded(data: bytes) -> Datatype:
    return _datatype(Cursor(data), 0)


def _datatype(cursor: Cursor, depth: int) -> Datatype:
    start = cursor.position
    first, bits, size = cursor.number(1), cursor.number(3), cursor.number(4)
    kind, version = first & 15, first >> 4
    if kind not in _CLASSES or not 1 <= version <= _MAX_VERSION:
        raise NotSupportedError(f"a type of class {kind}, version {version}", offset=start)
    if not size:
        raise CorruptionError("a type of no bytes", offset=start)
    if depth == _MAX_DEPTH:
        raise NotSupportedError(f"types within types, more than {_MAX_DEPTH}", offset=start)
    return _CLASSES[kind](cursor, Datatype(kind, size), bits, version, depth + 1)


def _integer(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    """An integer or a bitfield; details: padding and sign, first bit, number of bits."""
    return made._replace(is_big=bool(bits & 1), details=(bits >> 1 & 7, cursor.number(2), cursor.number(2)))


def _float(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    """A float; details: padding, normalization and sign; first bit and number of bits, of exponent, of mantissa; bias.

    VAX order (bit 6) is neither little- nor big-endian, so it stays among the details.
    """
    where = [cursor.number(2), cursor.number(2), *(cursor.number(1) for _ in range(4)), cursor.number(4)]
    return made._replace(is_big=bits & 0x41 == 1, details=(bits & 0xFF7E, *where))


def _time(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    return made._replace(is_big=bool(bits & 1), details=(cursor.number(2),))


def _string(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    return made._replace(details=(bits & 15,))


def _opaque(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    return made._replace(details=(cursor.take(bits & 0xFF).rstrip(b"\0"),))


def _compound(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    width = (made.size.bit_length() + 7) // 8 if version >= 3 else 4
    members = tuple(_member(cursor, width, version, depth) for _ in range(bits & 0xFFFF))
    if any(member.offset + member.type.size > made.size for member in members):
        raise CorruptionError("a compound's member ends outside it", offset=cursor.position)
    return made._replace(members=members)


def _member(cursor: Cursor, width: int, version: int, depth: int) -> Member:
    name, offset = _name(cursor, version), cursor.number(width)
    shape: tuple[int, ...] = ()
    if version == 1:
        rank = cursor.number(1)
        cursor.skip(11)
        shape = tuple([cursor.number(4) for _ in range(4)][:rank])
    found = _datatype(cursor, depth)
    for size in shape:
        found = Datatype(ARRAY, found.size * size, details=(size,), base=found)
    return Member(name, offset, found)


def _name(cursor: Cursor, version: int) -> bytes:
    """A name, which the first versions pad to 8 bytes."""
    start = cursor.position
    name = cursor.text()
    if version < 3:
        cursor.position = start + -(-(cursor.position - start) // 8) * 8
    return name


def _reference(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    return made._replace(details=(bits & 15,))


def _enum(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    base = _datatype(cursor, depth)
    names = [_name(cursor, version) for _ in range(bits & 0xFFFF)]
    values = [cursor.take(base.size) for _ in names]
    return made._replace(base=base, is_big=base.is_big, details=tuple(sorted(zip(names, values, strict=True))))


def _vlen(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    return made._replace(details=(bits & 15,), base=_datatype(cursor, depth))


def _array(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    rank = cursor.number(1)
    cursor.skip(3 if version < 3 else 0)
    shape = tuple(cursor.number(4) for _ in range(rank))
    cursor.skip(4 * rank if version < 3 else 0)
    return made._replace(details=shape, base=_datatype(cursor, depth))


def _complex(cursor: Cursor, made: Datatype, bits: int, version: int, depth: int) -> Datatype:
    base = _datatype(cursor, depth)
    return made._replace(base=base, is_big=base.is_big)


_Class = Callable[[Cursor, Datatype, int, int, int], Datatype]
_CLASSES: dict[int, _Class] = {
    INTEGER: _integer,
    FLOAT: _float,
    TIME: _time,
    STRING: _string,
    BITFIELD: _integer,
    OPAQUE: _opaque,
    COMPOUND: _compound,
    REFERENCE: _reference,
    ENUM: _enum,
    VLEN: _vlen,
    ARRAY: _array,
    COMPLEX: _complex,
}
