"""Writing ranges of bytes into files, checked on the way."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar

from ckpttool.errors import located
from ckpttool.model.slices import ByteRange
from ckpttool.storage.reading import BUFFER, read_chunks, read_range
from ckpttool.wire.crc32c import crc32c

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 2
# Below this, asking for the blocks takes as long as it saves. FALLOC_FL_KEEP_SIZE: the file is no larger for it.
_WORTH_RESERVING, _KEEP_SIZE = 16 << 20, 1


def require_space(path: str | Path, nbytes: int) -> None:
    """Raises OSError if the file system that `path` is to be on has not so many bytes left."""
    total, _, free = shutil.disk_usage(Path(path).parent)
    if total and free < nbytes:  # A file system that does not know its size says that it has none.
        raise OSError(errno.ENOSPC, f"no space left: {nbytes:,} bytes are needed, {free:,} are free", str(path))


def reserve(path: str | Path, nbytes: int) -> None:
    """Asks the file system for the blocks of a file that will have so many bytes, which makes writing them faster.

    If it can't give them now, writing asks for them, and raises what is wrong.
    """
    if nbytes < _WORTH_RESERVING:
        return
    import ctypes  # Python's own posix_fallocate writes to every block where the file system does not know how.

    with suppress(AttributeError, OSError), open(path, "r+b") as file:
        ctypes.CDLL(None).fallocate(file.fileno(), _KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(nbytes))


class Content:
    """Bytes that are to be written at some place of a file.

    Attributes:
        nbytes: how many they are.
        crc32c: their CRC-32C; None until it is known, at the latest when they have been written.
        span: the range of a file that they are, if they are one.
        variable: whose they are, for messages; None if nobody's.
    """

    __slots__ = ("_chunks", "crc32c", "nbytes", "span", "variable")

    def __init__(
        self,
        chunks: Callable[[], Iterable[Any]],
        nbytes: int,
        crc32c: int | None = None,
        span: ByteRange | None = None,
        variable: str | None = None,
    ) -> None:
        self._chunks, self.nbytes, self.crc32c, self.span, self.variable = chunks, nbytes, crc32c, span, variable

    @classmethod
    def of_ranges(cls, ranges: Sequence[ByteRange], variable: str | None = None) -> "Content":
        """Ranges of files, one after another."""
        if len(ranges) == 1:
            [span] = ranges
            return cls(partial(read_chunks, span), span.nbytes, span.crc32c, span, variable)
        nbytes = sum(span.nbytes for span in ranges)
        return cls(lambda: chain.from_iterable(map(read_chunks, ranges)), nbytes, variable=variable)

    @classmethod
    def of_bytes(cls, data: bytes, crc: int | None = None) -> "Content":
        return cls(lambda: [data], len(data), crc32c(data) if crc is None else crc)

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, in buffers each of which is gone with the next one."""
        crc = done = 0
        with located(variable=self.variable):
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
        progress: is called with the bytes of each content that has been written.

    Raises:
        CorruptionError: what is read is not whole. The target then holds what should not be kept.
    """
    runs, lock, failed = _runs(contents), Lock(), Event()

    def taken() -> list[_Placed] | None:
        with lock:
            return None if failed.is_set() else next(runs, None)

    def work() -> None:
        try:
            while run := taken():
                _write_run(target, run, failed)
                progress(sum(content.nbytes for _, content in run))
        except BaseException:
            failed.set()
            raise

    target = os.open(path, os.O_RDWR)
    try:
        first = list(islice(runs, 2))
        runs = chain(first, runs)
        if len(first) < 2:  # Not worth a thread.
            work()
            return
        from concurrent.futures import ThreadPoolExecutor  # Takes as long to import as many small files to write.

        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for done in list(_started(pool, work)):
                    done.result()
                work()  # What is left, if there may be no threads.
            except BaseException:  # An interrupt comes to this thread alone, and is not to wait for the others.
                failed.set()
                raise
    finally:
        os.close(target)


def _started(pool: "ThreadPoolExecutor", work: Callable[[], None]) -> "Iterator[Future[None]]":
    """Starts the work in as many threads of a pool as the system gives."""
    for _ in range(_THREADS):
        with suppress(RuntimeError):
            yield pool.submit(work)


T = TypeVar("T")
_Placed = tuple[int, Content]


def read_in_order(contents: Iterable[tuple[T, Content]]) -> Iterator[tuple[T, Content, Iterable[memoryview]]]:
    """Contents with their chunks, each of which is gone with the next one, for writers that put one behind another.

    Small ones that lie one after another in a file are read at once.

    Args:
        contents: each with whatever the caller knows it by.

    Raises:
        CorruptionError: what is read is not whole; of chunks, that is known after the last one.
    """
    for run in _runs(contents):
        data = _read_together(run)
        done = 0
        for known, content in run:
            yield known, content, content.chunks() if data is None else [data[done : done + content.nbytes]]
            done += content.nbytes


def _runs(contents: Iterable[tuple[T, Content]]) -> Iterator[list[tuple[T, Content]]]:
    """The contents in runs: those that lie one after another in a file, as far as they fit into one buffer."""
    run: list[tuple[T, Content]] = []
    nbytes, end = 0, None
    for known, content in contents:
        span = content.span
        if run and not (span and (span.path, span.offset) == end and nbytes + span.nbytes <= BUFFER):
            yield run
            run, nbytes = [], 0
        run.append((known, content))
        end = (span.path, span.offset + span.nbytes) if span else None
        nbytes += span.nbytes if span else 0
    if run:
        yield run


def _read_together(run: Sequence[tuple[Any, Content]]) -> memoryview | None:
    """Reads a run at once, and checks it. None: it is a single content, or damaged: read one by one, they say where."""
    span = run[0][1].span
    if len(run) == 1 or span is None:
        return None
    data = memoryview(read_range(span.path, span.offset, sum(content.nbytes for _, content in run)))
    done = 0
    for _, content in run:
        end = done + content.nbytes
        crc = crc32c(data[done:end])
        if end > len(data) or content.crc32c not in (None, crc):
            return None
        content.crc32c, done = crc, end
    return data


def _write_run(target: int, run: Sequence[_Placed], failed: Event) -> None:
    data = _read_together(run)
    if data is None:
        for offset, content in run:
            _write(target, offset, content, failed)
        return
    done = written = 0
    for (offset, content), (following, _) in pairwise([*run, (-1, run[0][1])]):
        done += content.nbytes
        if following != offset + content.nbytes:  # What goes on in the target is written with it.
            _write_at(target, offset + content.nbytes - (done - written), data[written:done])
            written = done


def _write(target: int, offset: int, content: Content, failed: Event) -> None:
    for chunk in content.chunks():
        if failed.is_set():  # Nothing of it will be kept.
            return
        _write_at(target, offset, chunk)
        offset += len(chunk)


def _write_at(target: int, offset: int, data: memoryview) -> None:
    while data:
        count = os.pwrite(target, data, offset)
        data, offset = data[count:], offset + count
