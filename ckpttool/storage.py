"""Files as byte ranges: read them, copy them checked, write beside and rename.

Files are opened for one use and closed after it: a checkpoint with a thousand shards needs no thousand
descriptors, and nothing is left open.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from threading import Event, Lock
from typing import Any

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


def require_range(span: ByteRange) -> None:
    """Raises CorruptionError unless the file is there and long enough: before anything is allocated."""
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


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file_size(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
        yield from _checked(span, repeat(_BUFFER), partial(os.preadv, descriptor))


def read_pieces(span: ByteRange, sizes: Iterable[int]) -> Iterator[memoryview]:
    """As `read_chunks`, in chunks of the given sizes.

    The file is opened anew for each of them: a variable in a thousand slices is read from a thousand at once.
    """

    def preadv(buffers: list[memoryview], offset: int) -> int:
        with _opened(span.path) as descriptor:
            return os.preadv(descriptor, buffers, offset)

    return _checked(span, sizes, preadv)


def _checked(
    span: ByteRange, sizes: Iterable[int], preadv: Callable[[list[memoryview], int], int]
) -> Iterator[memoryview]:
    crc = done = 0
    buffer = bytearray(0)
    wanted = iter(sizes)
    while done < span.nbytes:
        size = min(next(wanted), span.nbytes - done)
        if len(buffer) < size:
            buffer = bytearray(size)
        chunk = memoryview(buffer)[:size]
        _fill(chunk, span.offset + done, span, preadv)
        crc = crc32c(chunk, crc)
        yield chunk
        done += size
    if span.crc32c not in (None, crc):
        raise CorruptionError(
            f"Checksum does not match: stored {span.crc32c:08x} vs. calculated {crc:08x} over {span.nbytes:,} bytes",
            path=span.path,
            offset=span.offset,
        )


def _fill(chunk: memoryview, offset: int, span: ByteRange, preadv: Callable[[list[memoryview], int], int]) -> None:
    while chunk:
        count = preadv([chunk], offset)
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
    beside = _beside(path, force, inputs)
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


@contextmanager
def write_together(
    paths: Sequence[str],
    *,
    force: bool = False,
    inputs: Sequence[str] = (),
    replaced: Mapping[str, str],
    kept: Sequence[str] = (),
) -> Iterator[list[Path]]:
    """As `write_beside`, for files of one directory that belong together; the last is the one that makes them count.

    They get their names in order. What they replace is kept under other names until all of them are there, and then
    removed: after a crash, either the old files or the new ones are whole, or the old ones are under the other names.
    After an error the old files have their own names again. What dead runs have left beside is removed.

    Args:
        paths: the files to be.
        force: replace files that are there.
        inputs: files that must not be among them.
        replaced: the files that the new ones replace, each with the name to keep it under; the last is the one that
            makes them count, and is `paths[-1]`. Without that one, they count for nothing and are not kept.
        kept: files that are there under such names already, because an earlier run has died; the last of them is the
            one that makes them count. They are all that is left where `paths[-1]` is not there.

    Raises:
        FileExistsError: as `write_beside`; or the input lies where the old files are to be kept.
    """
    if paths[-1] in replaced and any(_is_input(name, inputs) for name in [*kept, *replaced.values()]):
        raise FileExistsError(f"the input is where the old output would be kept · {kept[-1]} · give another output")
    kept = [name for name in kept if not _is_input(name, inputs)]
    _clear_dead(Path(paths[-1]))
    token = os.urandom(6).hex()
    besides = [_beside(Path(paths[-1]), force, inputs, token)]
    try:
        with _locked(besides[-1]):
            for path in paths[:-1]:
                besides.insert(-1, _beside(Path(path), force, inputs, token))
            yield besides
            if replaced or kept:
                _replace_all(besides, paths, replaced, kept)
            else:
                _publish_all(besides, paths)
    except BaseException:
        _unlink_all(besides)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process: by it a later run knows that what lies beside is still being written."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # A file system without locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _clear_dead(path: Path) -> None:
    """Removes what runs that have died left beside `path`, the last file of theirs: all with the same token."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    own = re.compile(re.escape(f".{_shortened(path.name)}.") + r"([0-9a-f]{12}\.tmp)")
    for match in filter(None, map(own.fullmatch, names)):
        if not _is_locked(path.with_name(match[0])):
            members = [name for name in names if name.startswith(".") and name.endswith(f".{match[1]}")]
            # The one that is looked for goes last, should this die too.
            _unlink_all(str(path.with_name(name)) for name in sorted(members, key=match[0].__eq__))


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock, as far as that can be told."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _replace_all(
    besides: Sequence[Path], paths: Sequence[str], replaced: Mapping[str, str], kept: Sequence[str]
) -> None:
    """Renames new files over old ones; up to the last renaming, an error takes all of it back."""
    directory = Path(paths[-1]).parent
    counts = paths[-1] in replaced
    for beside, path in zip(besides, paths, strict=True):
        model = next((old for old in (path, paths[-1], *replaced) if os.path.exists(old)), None)
        if model:
            os.chmod(beside, stat.S_IMODE(os.stat(model).st_mode))
        _sync(beside)
    stale = [*kept, *replaced.values()] if counts else []
    _unlink_all(reversed(stale))
    try:
        if counts:
            _keep(replaced, besides[-1].name.split(".")[-2])
        for beside, path in zip(besides, paths, strict=True):
            os.replace(beside, path)
    except BaseException:
        _restore(replaced if counts else {}, besides, paths)
        raise
    _sync(directory, os.O_RDONLY)
    _unlink_all(old for old in replaced if old not in paths)
    _unlink_all(reversed(stale or kept))
    _sync(directory, os.O_RDONLY)


def _unlink_all(paths: Iterable[str | Path]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _restore(replaced: Mapping[str, str], besides: Sequence[Path], paths: Sequence[str]) -> None:
    """Takes back what `_replace_all` has done, if the last renaming has not been."""
    if not os.path.lexists(besides[-1]):
        return
    for beside, path in zip(besides, paths, strict=True):
        if not os.path.lexists(beside) and path not in replaced:
            os.unlink(path)
    for old, kept in replaced.items():
        if os.path.lexists(kept):
            os.replace(kept, old)
            # Two names of one file: such a renaming does nothing.
            Path(kept).unlink(missing_ok=True)


@contextmanager
def write_directory(
    path: str | os.PathLike[str], *, force: bool, inputs: Sequence[str], is_ours: Callable[[Path], bool]
) -> Iterator[Path]:
    """As `write_beside`, for a directory: gives the path of a new one, which is renamed in the end.

    One that is replaced is kept as PATH.replaced until the new one is in its place: two directories can't change
    places at once.

    Args:
        path: the directory to be.
        force: replace one that is there, if it is empty or `is_ours`.
        inputs: files that must not be in it.
        is_ours: whether a directory is of the kind that is written here, and nothing else is lost with it.

    Raises:
        FileExistsError: there is something at `path` that may not be replaced.
    """
    path = Path(os.fspath(path))
    _require_replaceable(path, force, inputs, is_ours)
    beside = path.with_name(f".{_shortened(path.name)}.{os.urandom(6).hex()}.tmp")
    beside.mkdir()
    try:
        yield beside
        if os.path.lexists(path):
            for file in beside.rglob("*"):
                if file.is_file():
                    _sync(file)
            kept = path.with_name(f"{path.name}.replaced")
            os.rename(path, kept)
            os.rename(beside, path)
            shutil.rmtree(kept)
        else:
            os.rename(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _require_replaceable(path: Path, force: bool, inputs: Sequence[str], is_ours: Callable[[Path], bool]) -> None:
    if not path.parent.is_dir():
        raise NotFoundError("no such directory", path=str(path.parent))
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir() or (any(path.iterdir()) and not is_ours(path)):
        raise FileExistsError(f"the output exists, and holds something else · {path} · give another output")
    if not force:
        raise FileExistsError(f"the output exists · {path} · --force replaces it")
    if any(Path(os.path.realpath(source)).is_relative_to(path.resolve()) for source in inputs):
        raise FileExistsError(f"the output is the input · {path} · give another output")


def _publish_all(besides: Sequence[Path], paths: Sequence[str]) -> None:
    """Renames new files, all or none."""
    published: list[str] = []
    try:
        for beside, path in zip(besides, paths, strict=True):
            _publish(beside, Path(path), force=False)
            published.append(path)
    except BaseException:
        for path in published:
            os.unlink(path)
        raise


def _keep(replaced: Mapping[str, str], token: str) -> None:
    """Gives files second names, and takes the first one from the last of them: they are no more what counts."""
    *_, last = replaced
    for old, kept in replaced.items():
        try:
            os.link(old, kept)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links. Renamed, the old files would for a while be whole under no name.
            _copy(old, Path(kept), token)
    _sync(Path(last).parent, os.O_RDONLY)
    os.unlink(last)
    _sync(Path(last).parent, os.O_RDONLY)


def _copy(old: str, kept: Path, token: str) -> None:
    beside = _beside(kept, False, (), token)
    try:
        shutil.copy2(old, beside)
        _sync(beside)
        os.rename(beside, kept)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _is_input(path: str | Path, inputs: Sequence[str]) -> bool:
    return os.path.exists(path) and any(os.path.exists(file) and os.path.samefile(file, path) for file in inputs)


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def _beside(path: Path, force: bool, inputs: Sequence[str], token: str = "") -> Path:
    """Makes an empty file beside `path`, which may be written."""
    require_writable(path, force, inputs)
    beside = path.with_name(f".{_shortened(path.name)}.{token or os.urandom(6).hex()}.tmp")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    return beside


def require_writable(path: Path, force: bool, inputs: Sequence[str]) -> None:
    """Raises what `write_beside` raises beforehand: the output exists, is the input, or its directory is missing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the output is a directory", str(path))
    if not path.parent.is_dir():
        raise NotFoundError("no such directory", path=str(path.parent))
    if _is_input(path, inputs):
        raise FileExistsError(f"the output is the input · {path} · give another output")
    if os.path.lexists(path) and not force:
        raise FileExistsError(f"the output exists · {path} · --force replaces it")


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


class Content:
    """Bytes that are to be written at some place of a file.

    Attributes:
        nbytes: how many they are.
        crc32c: their CRC-32C; None until it is known, at the latest when they have been written.
    """

    def __init__(self, chunks: Callable[[], Iterable[Any]], nbytes: int, crc32c: int | None = None) -> None:
        self._chunks, self.nbytes, self.crc32c = chunks, nbytes, crc32c

    @classmethod
    def of_ranges(cls, ranges: Sequence[ByteRange]) -> "Content":
        """Ranges of files, one after another."""
        known = ranges[0].crc32c if len(ranges) == 1 else None
        nbytes = sum(span.nbytes for span in ranges)
        return cls(lambda: chain.from_iterable(map(read_chunks, ranges)), nbytes, known)

    @classmethod
    def of_bytes(cls, data: bytes, crc: int | None = None) -> "Content":
        return cls(lambda: [data], len(data), crc32c(data) if crc is None else crc)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, in buffers each of which is gone with the next one."""
        crc = done = 0
        for buffer in self._chunks():
            chunk = memoryview(buffer).cast("B")
            if self.crc32c is None:
                crc = crc32c(chunk, crc)
            done += len(chunk)
            yield chunk
        assert done == self.nbytes, f"{done:,} bytes for {self.nbytes:,}"
        if self.crc32c is None:
            self.crc32c = crc
        self._chunks = tuple  # Lets go of what it holds.


def write_contents(
    path: str | Path,
    contents: Iterable[tuple[int, Content]],
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes contents into a file, each at its offset.

    Two threads take them in turn, and read, check and write through one small buffer each. That is as fast as a
    copy inside the kernel with a second pass to check it, takes half the work, and what is checked is what is
    written.

    Args:
        path: the file, which is there.
        contents: (offset, content) pairs.
        progress: is told the bytes of each content that has been written.

    Raises:
        CorruptionError: what is read is not whole. The target then holds what should not be kept.
    """
    from concurrent.futures import ThreadPoolExecutor  # Thirty milliseconds that a listing need not pay.

    remaining, lock, failed = iter(contents), Lock(), Event()

    def taken() -> tuple[int, Content] | None:
        with lock:
            return None if failed.is_set() else next(remaining, None)

    def work() -> None:
        try:
            while job := taken():
                offset, content = job
                _write(target, offset, content)
                progress(content.nbytes)
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


def _write(target: int, offset: int, content: Content) -> None:
    for chunk in content.chunks():
        rest = chunk
        while rest:
            count = os.pwrite(target, rest, offset)
            rest, offset = rest[count:], offset + count
