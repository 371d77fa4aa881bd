"""Files as byte ranges: read them, copy them checked, write beside and rename.

Files are opened for one use and closed after it: a checkpoint with a thousand shards needs no thousand
descriptors, and nothing is left open.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from ckpttool.errors import CorruptionError, FormatError, NotFoundError
from ckpttool.model.checkpoint import ByteRange
from ckpttool.wire.crc32c import crc32c

# Large enough for few calls, small enough to be in the cache still when it is checked and written: of 128 KiB,
# 512 KiB and 1 MiB, the fastest in whole exports.
_BUFFER = 512 << 10
_THREADS = 2
# Of the 255 that a name may have, those that leave room for what makes it a temporary one.
_NAME_BYTES = 200


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
        return file.read()


def read_range(path: str, offset: int, nbytes: int) -> bytes:
    """`nbytes` of a file, fewer at its end."""
    data = b""
    with _opened(path) as descriptor:
        while len(data) < nbytes:
            # One call gives no more than 2 GiB.
            chunk = os.pread(descriptor, nbytes - len(data), offset + len(data))
            if not chunk:
                break
            data = data + chunk if data else chunk
    return data


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file_size(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_chunks(span: ByteRange, sizes: Iterator[int] | None = None) -> Iterator[memoryview]:
    """The bytes of a range, in chunks of the given sizes (or of 512 KiB), checked.

    Each chunk is gone with the next one: it is a view of one buffer.

    Raises:
        CorruptionError: the file ends inside the range, or the whole of it does not have its checksum; that is
            known only after the last chunk.
    """
    crc = 0
    buffer = bytearray(0)
    done = 0
    with _opened(span.path) as descriptor:
        while done < span.nbytes:
            size = min(next(sizes) if sizes else _BUFFER, span.nbytes - done)
            if len(buffer) < size:
                buffer = bytearray(size)
            chunk = memoryview(buffer)[:size]
            _fill(descriptor, chunk, span.offset + done, span)
            crc = crc32c(chunk, crc)
            yield chunk
            done += size
    if span.crc32c not in (None, crc):
        raise CorruptionError(
            f"Checksum does not match: stored {span.crc32c:08x} vs. calculated {crc:08x} over {span.nbytes:,} bytes",
            path=span.path,
            offset=span.offset,
        )


def _fill(descriptor: int, chunk: memoryview, offset: int, span: ByteRange) -> None:
    while chunk:
        count = os.preadv(descriptor, [chunk], offset)
        if not count:
            raise CorruptionError(
                f"the file ends at byte {offset:,}: {span.nbytes:,} bytes are expected from {span.offset:,}",
                path=span.path,
                offset=offset,
            )
        chunk, offset = chunk[count:], offset + count


@contextmanager
def write_beside(path: str | Path, *, force: bool = False, inputs: Sequence[str] = ()) -> Iterator[Path]:
    """Gives the path of a new file beside `path`, and renames it to `path` when the block ends without an error.

    When `path` is replaced, the new file is synced first: a crash leaves the old one or the new one, whole. A new
    file is left to the system to write back, as `cp` leaves it, for nothing of the user's can be lost.

    Args:
        path: the file to be.
        force: replace a file that is there.
        inputs: files that must not be the output.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given; or it is one of the inputs.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the output is a directory", str(path))
    if not path.parent.is_dir():
        raise NotFoundError("no such directory", path=str(path.parent))
    for source in inputs:
        if os.path.exists(source) and os.path.exists(path) and os.path.samefile(source, path):
            raise FileExistsError(f"the output is the input · {path} · give another output")
    if os.path.lexists(path) and not force:
        raise FileExistsError(f"the output exists · {path} · --force replaces it")
    name = os.fsdecode(os.fsencode(path.name)[:_NAME_BYTES])
    beside = path.with_name(f".{name}.{os.urandom(6).hex()}.tmp")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    try:
        yield beside
        if force and path.exists():
            os.chmod(beside, stat.S_IMODE(path.stat().st_mode))
            _sync(beside)
            os.replace(beside, path)
            _sync(path.parent, os.O_RDONLY)
        else:
            _publish(beside, path, force)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def require_space(path: str | Path, nbytes: int) -> None:
    """Raises OSError if the file system that `path` is to be on has not so many bytes left."""
    free = shutil.disk_usage(Path(path).parent).free
    if free < nbytes:
        raise OSError(errno.ENOSPC, f"no space left: {nbytes:,} bytes are needed, {free:,} are free", str(path))


def _publish(beside: Path, path: Path, force: bool) -> None:
    """Renames, and does not replace what has come to be there meanwhile unless `force`."""
    if force:
        os.replace(beside, path)
        return
    try:
        os.link(beside, path)
    except FileExistsError:
        raise FileExistsError(f"the output exists · {path} · --force replaces it") from None
    except OSError:  # A file system without hard links.
        os.rename(beside, path)
    else:
        beside.unlink()


def _sync(path: Path, mode: int = os.O_RDWR) -> None:
    descriptor = os.open(path, mode | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_checked(
    jobs: Sequence[tuple[ByteRange, int]], path: str | Path, progress: Callable[[int], None] = lambda nbytes: None
) -> None:
    """Copies ranges into a file, each to its offset there, and tests their checksums on the way.

    Two threads take ranges in turn, and read, check and write through one small buffer each. That is as fast as a
    copy inside the kernel with a second pass to check it, takes half the work, and what is checked is what is
    written.

    Args:
        jobs: ranges and where they go.
        path: the file, which is there.
        progress: is told the bytes of each range that has been copied.

    Raises:
        CorruptionError: a range is not whole. The target then holds what should not be kept.
    """
    from concurrent.futures import ThreadPoolExecutor  # Thirty milliseconds that a listing need not pay.

    remaining = iter(jobs)
    failed = Event()

    def work() -> None:
        try:
            for span, offset in remaining:
                if failed.is_set():
                    return
                _copy_range(span, target, offset)
                progress(span.nbytes)
        except BaseException:
            failed.set()
            raise

    target = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(work) for _ in range(_THREADS)]:
                done.result()
    finally:
        os.close(target)


def _copy_range(span: ByteRange, target: int, offset: int) -> None:
    for chunk in read_chunks(span):
        rest = chunk
        while rest:
            count = os.pwrite(target, rest, offset)
            rest, offset = rest[count:], offset + count
