"""The link message: a name in a group, and what it stands for.

    01 | 00 | 01 | 77 | 20 03 00 00 00 00 00 00      version, flags, 1 byte of name: "w", the header at 0x320
    01 | 18 | 01 | 01 | 04 | 73 6f 66 74 | 05 00 …   flags 0x18: there are a type, 1 (soft), and a character set, 1
                                                     (UTF-8); 4 bytes of name; 5 of the path that it leads to

Flags: bits 0 and 1 tell how many bytes the name's length has; bit 2, that there is a number, by the order in which
links were made.

(IV.A.2.g. The Link Message)
"""

from typing import NamedTuple

from ckpttool.errors import NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

_HARD = 0


class Link(NamedTuple):
    """A name, and the address of the header that it stands for; None if it leads somewhere else."""

    name: bytes
    address: int | None


def decode_link(cursor: Cursor) -> Link:
    """Reads the message.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a version that is not known.
    """
    version, flags = cursor.number(1), cursor.number(1)
    if version != 1:
        raise NotSupportedError(f"a link of version {version}", offset=cursor.offset)
    kind = cursor.number(1) if flags & 8 else _HARD
    cursor.skip((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
    name = cursor.take(cursor.number(1 << (flags & 3)))
    return Link(name, cursor.address() if kind == _HARD else None)
