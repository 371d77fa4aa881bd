"""The members of zip archives, of which what is wrong is a CorruptionError. (PKWARE APPNOTE.TXT)"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ckpttool.errors import CorruptionError
from ckpttool.model.boxes import NotFollowingError

if TYPE_CHECKING:
    import zipfile  # Is imported where there is an archive.

SIGNATURE = b"PK\x03\x04"
"""What an archive begins with, and each of its members."""

# A local header is as long as the name and the extra field behind it, and 30 bytes.
_LOCAL = struct.Struct("<4s22xHH")
_ENCRYPTED = 1

NPZ, KERAS = "NumPy archive (.npz)", "HDF5 in a Keras archive (.keras)"
"""The formats that are archives, as checkpoints have them: their members have checksums."""


@contextmanager
def checked() -> Iterator[None]:
    """What goes wrong in reading an archive is a CorruptionError."""
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
    """Raises CorruptionError unless a member begins within its archive, of so many bytes: else no file has an offset
    like that, and the system says so in words of its own.
    """
    if not 0 <= member.header_offset < size:
        raise CorruptionError(f"{member.filename} is at byte {member.header_offset:,} of {size:,}")


def start_of(member: "zipfile.ZipInfo", read: Callable[[int, int], bytes]) -> int:
    """Where in the archive the bytes of a member begin; `read` gives so many bytes at an offset.

    Raises:
        CorruptionError: there is no member.
        struct.error: the archive ends before; `checked` makes the same of it.
    """
    signature, name, extra = _LOCAL.unpack(read(member.header_offset, _LOCAL.size))
    if signature != SIGNATURE:
        raise CorruptionError("no member of the archive is where its directory says", offset=member.header_offset)
    return int(member.header_offset + _LOCAL.size + name + extra)
