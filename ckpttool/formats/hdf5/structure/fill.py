"""The fill value messages: what is read where nothing was written.

    04 00 00 00 | 00 00 20 40                         the old one: 4 bytes, 2.5
    02 | 02 | 02 | 01 | 04 00 00 00 | 00 00 20 40     version 2: when space is given, when it is filled (1: never), that
                                                      there is a value; 4 bytes, 2.5
    03 | 2a | 04 00 00 00 | 00 00 20 40               version 3: the same in bits (2-3: when; 5: there is one)

(IV.A.2.e. The Data Storage - Fill Value (Old) Message; IV.A.2.f. Fill Value)
"""

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

_NEVER = 1


def decode_old_fill(cursor: Cursor) -> bytes:
    """Reads the old message: the value's bytes.

    Raises:
        CorruptionError: it is damaged.
    """
    return cursor.take(cursor.number(4))


def decode_fill(cursor: Cursor) -> bytes:
    """Reads the message: the value's bytes; none, if it is zero or nothing is to be filled.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a version that is not known.
    """
    version = cursor.number(1)
    if version in (1, 2):
        cursor.skip(1)
        when, has_value = cursor.number(1), bool(cursor.number(1)) or version == 1
    elif version == 3:
        flags = cursor.number(1)
        when, has_value = flags >> 2 & 3, bool(flags & 0x20)
    else:
        raise NotSupportedError(f"a fill value of version {version}", offset=cursor.offset)
    size = cursor.number(4) if has_value else 0
    if size >> 31:  # Minus one: there is no value.
        return b""
    value = cursor.take(size)
    return b"" if when == _NEVER else value


def checked_fill(value: bytes, itemsize: int) -> bytes:
    """The value, which is empty or an element; raises CorruptionError if it has another size."""
    if value and len(value) != itemsize:
        raise CorruptionError(f"a fill value of {len(value):,} bytes for elements of {itemsize:,}")
    return value
