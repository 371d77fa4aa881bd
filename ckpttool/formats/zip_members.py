"""The members of zip archives, with CorruptionError for all that is wrong with them. (PKWARE APPNOTE.TXT)"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ckpttool.errors import CorruptionError
from ckpttool.model.boxes import NotFollowingError

if TYPE_CHECKING:
    import zipfile  # Imported only when there is an archive.

SIGNATURE = b"PK\x03\x04"
"""The first bytes of an archive, and of each member."""

# A local header has 30 bytes, and then the name and the extra field.
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 1

NPZ, KERAS = "NumPy archive (.npz)", "HDF5 in a Keras archive (.keras)"
"""The formats of checkpoints that are zip archives, so that each member has a checksum."""


@contextmanager
def checked() -> Iterator[None]:
    """Makes a CorruptionError of whatever goes wrong while an archive is read."""
    import zipfile
    import zlib

    try:
        yield
    except NotFollowingError:  # Which is no fault of the archive.
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, struct.error) as error:
        # Where a member ends too early, zipfile says nothing.
        raise CorruptionError(f"not a sound zip archive: {str(error) or 'it ends within a member'}") from error


def is_encrypted(member: "zipfile.ZipInfo") -> bool:
    return bool(member.flag_bits & _ENCRYPTED)


def require_inside(member: "zipfile.ZipInfo", size: int) -> None:
    """Raises CorruptionError unless a member begins within the bytes of its archive. Without that, the system would
    complain about an impossible offset in words of its own.
    """
    if not 0 <= member.header_offset < size:
        raise CorruptionError(f"{member.filename} is at byte {member.header_offset:,} of {size:,}")


def start_of(member: "zipfile.ZipInfo", read: Callable[[int, int], bytes]) -> int:
    """The offset at which the contents of a member begin; `read(offset, size)` gives bytes of the archive.

    Raises:
        CorruptionError: there is no member.
        struct.error: the archive ends before that; `checked` turns it into a CorruptionError.
    """
    signature, name, extra = _LOCAL.unpack(read(member.header_offset, _LOCAL.size))
    if signature != SIGNATURE:
        raise CorruptionError("no member of the archive is where its directory says", offset=member.header_offset)
    return int(member.header_offset + _LOCAL.size + name + extra)
