"""Writing ranges of bytes into files, checked on the way."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from threading import Event, Lock
from typing import Any

from ckpttool.model.checkpoint import ByteRange
from ckpttool.storage.reading import read_chunks
from ckpttool.wire.crc32c import crc32c

_THREADS = 2


def require_space(path: str | Path, nbytes: int) -> None:
    """Raises OSError if the file system that `path` is to be on has not so many bytes left."""
    free = shutil.disk_usage(Path(path).parent).free
    if free < nbytes:
        raise OSError(errno.ENOSPC, f"no space left: {nbytes:,} bytes are needed, {free:,} are free", str(path))


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
