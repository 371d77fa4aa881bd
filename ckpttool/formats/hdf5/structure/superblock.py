"""The superblock, which leads to everything else.

It is at the start of the file; or at byte 512, 1,024, 2,048, …, behind a block of the user's; or somewhere in an
archive of Keras. Addresses are counted from it. Versions 0 and 1 have (here 0, with addresses of 8 bytes):

    89 48 44 46 0d 0a 1a 0a                             signature
    00 00 00 00 00                                      versions: superblock, free space, root group, –, shared messages
    08 08 00                                            bytes of an address, of a length, –
    04 00 10 00 00 00 00 00                             entries of leaves and nodes of groups' B-trees; flags
                                                        (version 1: 2 bytes of entries of chunks' B-trees, 2 of nothing)
    00 00 00 00 00 00 00 00   ff ff ff ff ff ff ff ff   base address; free space
    00 08 00 00 00 00 00 00   ff ff ff ff ff ff ff ff   end of the file; driver
    00 00 00 00 00 00 00 00   60 00 00 00 00 00 00 00   the root group's symbol table entry: name, header; …

Versions 2 and 3 have: signature, version, bytes of an address and of a length, flags (in version 3, bit 0 is set while
somebody writes), base address, extension, end of the file, the root group's header, and a checksum.

(II.A. Disk Format: Level 0A - Format Signature and Superblock)
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckpttool import storage
from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.archive import is_archive, weights_in
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File, Read, Sizes
from ckpttool.formats.hdf5.structure.headers import DRIVER, read_messages

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SHORTEST, _LONGEST = 24, 128
_WIDTHS = (2, 4, 8)
_BEING_WRITTEN = 1


@contextmanager
def opened(path: str) -> Iterator[File]:
    """Opens an HDF5 file, or the one in an archive of Keras.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is no HDF5 file.
        NotSupportedError: it is of a kind that is not known.
    """
    size = storage.file_size(path)
    with storage.ranges(path) as read:
        start, end = weights_in(path, read, size) if is_archive(read) else (0, size)
        yield read_superblock(read, start, end)


def read_superblock(read: Read, start: int, size: int) -> File:
    """The file whose superblock is at `start` or somewhere behind it, and which ends at `size`.

    Raises:
        CorruptionError: there is no superblock, or it is damaged, or the file was not written to its end.
        NotSupportedError: it is of a version that is not known.
    """
    base = _place(read, start, size)
    cursor = Cursor(read(base, _LONGEST), base)
    if len(cursor.data) < _SHORTEST:
        raise CorruptionError("no HDF5 file: it ends within its superblock", offset=size)
    cursor.skip(len(_SIGNATURE))
    version = cursor.number(1)
    if version > 3:
        raise NotSupportedError(f"a superblock of version {version}", offset=base)
    return _old(cursor, version, read, size) if version < 2 else _new(cursor, version, read, size)


def _place(read: Read, start: int, size: int) -> int:
    block = 0
    while start + block < size:
        if read(start + block, len(_SIGNATURE)) == _SIGNATURE:
            return start + block
        block = block * 2 or 512
    raise CorruptionError(f"no HDF5 file: in {size - start:,} bytes there is no signature of one", offset=start)


def _old(cursor: Cursor, version: int, read: Read, size: int) -> File:
    cursor.skip(4)
    cursor.sizes = _sizes(cursor)
    cursor.skip(9 if version == 0 else 13)
    stated, _, end, driver = cursor.address(), cursor.address(), cursor.address(), cursor.address()
    if driver is not None:
        if cursor.offset + driver + 16 > size:
            raise CorruptionError("what is said of the file's driver is behind its end", offset=cursor.offset)
        raise _one_of_several(read(cursor.offset + driver, 16)[8:])
    cursor.skip(cursor.sizes.length)  # The root group has no name.
    return _file(cursor, stated, end, cursor.address(), None, read, size)


def _new(cursor: Cursor, version: int, read: Read, size: int) -> File:
    cursor.sizes = _sizes(cursor)
    flags = cursor.number(1)
    stated, extension, end, root = cursor.address(), cursor.address(), cursor.address(), cursor.address()
    require_checksum(cursor.data[: cursor.position] + cursor.take(4), cursor.offset)
    if version == 3 and flags & _BEING_WRITTEN:
        raise CorruptionError("it is being written, or whoever wrote it did not come to the end", offset=cursor.offset)
    return _file(cursor, stated, end, root, extension, read, size)


def _sizes(cursor: Cursor) -> Sizes:
    sizes = Sizes(cursor.number(1), cursor.number(1))
    if sizes.address not in _WIDTHS or sizes.length not in _WIDTHS:
        raise NotSupportedError(f"addresses of {sizes.address} bytes, lengths of {sizes.length}", offset=cursor.here)
    return sizes


def _file(
    cursor: Cursor, stated: int | None, end: int | None, root: int | None, extension: int | None, read: Read, size: int
) -> File:
    base = cursor.offset
    if root is None or end is None or stated is None:
        raise CorruptionError("a superblock without addresses", offset=base)
    # If a block was put before the file later, or taken away, addresses still count from the superblock.
    end += base - stated
    file = File(read, size, cursor.sizes, base, root, extension)
    if extension is not None:
        with suppress(CorruptionError):  # The extension may be in the part that is cut off.
            drivers = [message.data[1:9] for message in read_messages(file, extension) if message.kind == DRIVER]
            if drivers:
                raise _one_of_several(drivers[0])
    if end > size:
        raise CorruptionError(f"the file is truncated: it has {size:,} bytes of {end:,}", offset=size)
    return file


def _one_of_several(driver: bytes) -> NotSupportedError:
    said = driver.decode("latin-1")
    return NotSupportedError(f"one of several files that only together are an HDF5 file (driver {said!r})")
