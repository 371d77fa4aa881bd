"""Reading files as ranges of bytes, checked."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat

from ckpttool.errors import CorruptionError, FormatError, NotFoundError
from ckpttool.model.slices import ByteRange
from ckpttool.wire.crc32c import crc32c

# Large enough for few calls, small enough to be still in the cache when it is checked and written: of 128 KiB, 512 KiB
# and 1 MiB it is the fastest in whole exports.
BUFFER = 512 << 10

_Preadv = Callable[[list[memoryview], int], int]


def file_size(path: str) -> int:
    """The size of a regular file in bytes.

    Raises:
        NotFoundError: there is none.
        FormatError: it is a directory, a device or a pipe.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError("no such file", path=path) from error
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("not a regular file", path=path)
    return status.st_size


def read_file(path: str) -> bytes:
    """A whole file; raises as `file_size` does."""
    file_size(path)
    with open(path, "rb") as file:
        try:
            return file.read()
        except OSError as error:
            _name(error, path)
            raise


def _name(error: OSError, path: str) -> None:
    """Puts the file's name into the error of a read, which has none and would be taken for an error of writing."""
    error.filename = path if error.filename is None else error.filename


def read_range(path: str, offset: int, nbytes: int) -> bytes:
    """`nbytes` of a file, fewer at its end."""
    with ranges(path) as read:
        return read(offset, nbytes)


class Lengths:
    """Remembers files' lengths: to look for a million ranges in a few files takes a few stats.

    A file that has become shorter since is noticed when it is read.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def require(self, span: ByteRange) -> None:
        """As `require_range`."""
        if span.offset + span.nbytes > self._known.get(span.path, -1):
            self._known[span.path] = require_range(span)


def require_range(span: ByteRange) -> int:
    """The file's size, before anything is allocated; raises CorruptionError unless it is there and long enough."""
    try:
        size = file_size(span.path)
    except NotFoundError as error:
        hint = "it belongs to the checkpoint: fetch it too"
        raise CorruptionError("data file is missing", path=span.path, hint=hint) from error
    if span.offset + span.nbytes > size:
        raise CorruptionError(
            f"data file is truncated: it has {size:,} bytes, the variable needs"
            f" {span.offset:,} to {span.offset + span.nbytes:,}",
            path=span.path,
        )
    return size


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file_size(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_chunks(span: ByteRange) -> Iterator[memoryview]:
    """The bytes of a range, in chunks of 512 KiB, checked.

    Each chunk is gone with the next one: it is a view of one buffer.

    Raises:
        CorruptionError: the file ends inside the range, or the whole of it does not have its checksum; that is
            known only after the last chunk.
    """
    with _opened(span.path) as descriptor:
        yield from _checked(span, repeat(BUFFER), partial(os.preadv, descriptor))


@contextmanager
def checksums(path: str) -> Iterator[Callable[[ByteRange], int]]:
    """Opens a file, and gives a function that reads a range of it in chunks and returns the CRC-32C.

    The function raises CorruptionError if the file ends inside the range.
    """
    with _opened(path) as descriptor:

        def checksum(span: ByteRange) -> int:
            crc = 0
            for chunk in _unchecked(span, repeat(BUFFER), partial(os.preadv, descriptor)):
                crc = crc32c(chunk, crc)
            return crc

        yield checksum


@contextmanager
def ranges(path: str) -> Iterator[Callable[[int, int], bytes]]:
    """Opens a file, and gives a function (offset, nbytes) → bytes, which are fewer at the file's end.

    Raises:
        NotFoundError: there is none.
        FormatError: it is a directory, a device or a pipe.
    """
    with _opened(path) as descriptor:

        def read(offset: int, nbytes: int) -> bytes:
            try:
                data = os.pread(descriptor, nbytes, offset)
                while len(data) < nbytes:
                    # One call gives no more than 2 GiB.
                    more = os.pread(descriptor, nbytes - len(data), offset + len(data))
                    if not more:
                        break
                    data += more
            except OSError as error:
                _name(error, path)
                raise
            return data

        yield read


def read_pieces(span: ByteRange, sizes: Iterable[int]) -> Iterator[memoryview]:
    """As `read_chunks`, in chunks of the given sizes.

    The file is opened anew for each of them: a variable in a thousand slices is read from a thousand ranges at once.
    """

    def preadv(buffers: list[memoryview], offset: int) -> int:
        with _opened(span.path) as descriptor:
            return os.preadv(descriptor, buffers, offset)

    return _checked(span, sizes, preadv)


def _checked(span: ByteRange, sizes: Iterable[int], preadv: _Preadv) -> Iterator[memoryview]:
    crc = 0
    for chunk in _unchecked(span, sizes, preadv):
        crc = crc32c(chunk, crc)
        yield chunk
    if span.crc32c not in (None, crc):
        raise CorruptionError(
            f"Checksum does not match: stored {span.crc32c:08x} vs. calculated {crc:08x} over {span.nbytes:,} bytes",
            path=span.path,
            offset=span.offset,
        )


def _unchecked(span: ByteRange, sizes: Iterable[int], preadv: _Preadv) -> Iterator[memoryview]:
    done, buffer, wanted = 0, bytearray(0), iter(sizes)
    while done < span.nbytes:
        size = min(next(wanted), span.nbytes - done)
        if len(buffer) < size:
            buffer = bytearray(size)
        chunk = memoryview(buffer)[:size]
        _fill(chunk, span.offset + done, span, preadv)
        yield chunk
        done += size


def _fill(chunk: memoryview, offset: int, span: ByteRange, preadv: _Preadv) -> None:
    while chunk:
        try:
            count = preadv([chunk], offset)
        except OSError as error:
            _name(error, span.path)
            raise
        if not count:
            raise CorruptionError(
                f"the file ends at byte {offset:,}: {span.nbytes:,} bytes are expected from {span.offset:,}",
                path=span.path,
                offset=offset,
            )
        chunk, offset = chunk[count:], offset + count
