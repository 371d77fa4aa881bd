"""Ranges of files as values: what a bundle stores, and others store as a bundle does."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from itertools import tee
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import NotSupportedError, located
from ckpttool.formats.records.strings import DECODERS
from ckpttool.model.dtypes import DType
from ckpttool.model.slices import ByteRange

if TYPE_CHECKING:
    import numpy as np


def require_decodable(dtype: DType, *, as_strings: bool = False) -> None:
    """Raises NotSupportedError if nobody knows what values of this dtype are."""
    if dtype.name not in DECODERS if as_strings else dtype.itemsize is None:
        raise NotSupportedError(f"values of dtype {dtype.name} can't be decoded")


@cache
def _keep_freed_memory() -> None:
    """Has malloc keep what is freed, up to 62 MiB, for the next block.

    Else it gives the system a block's memory back, which clears each page of it again for the next one: that took a
    third of the time of a cast. glibc keeps twice as much as the largest array that was freed, if that has no more than
    32 MiB; other libraries do as they do. (mallopt(3), M_MMAP_THRESHOLD)
    """
    import numpy as np

    with suppress(MemoryError):
        np.empty(31 << 20, np.uint8)


def arrays_of(
    span: ByteRange, dtype: DType, shapes: Iterable[tuple[int, ...]], *, is_big: bool = False
) -> "Iterator[np.ndarray[Any, Any]]":
    """The numbers in a range, as arrays of these shapes one after another; each may be gone with the next one.

    Args:
        span: the range, which the shapes fill.
        dtype: of numbers.
        shapes: of the arrays.
        is_big: the bytes are in big-endian order.

    Raises:
        CorruptionError: the range does not have its checksum, which is known after the last array; or is not there.
    """
    import numpy as np

    assert dtype.itemsize is not None
    _keep_freed_memory()
    shapes, again = tee(shapes)
    chunks = storage.read_pieces(span, (prod(shape) * dtype.itemsize for shape in again))
    for shape, chunk in zip(shapes, chunks, strict=False):
        array = np.frombuffer(chunk, np.uint8)
        if is_big != (sys.byteorder == "big"):
            component = dtype.itemsize // (2 if dtype.name.startswith("complex") else 1)
            array.view(f"u{component}").byteswap(inplace=True)
        yield array.view(dtype.numpy).reshape(shape)
    for _ in chunks:  # Runs to the checksum, also where there is no chunk.
        pass


def strings_of(span: ByteRange, dtype: DType, count: int, *, is_big: bool = False) -> list[bytes]:
    """The strings, or variants, in a range.

    Raises:
        NotSupportedError: the dtype is of neither.
        CorruptionError: they are damaged, or the range is not there.
    """
    require_decodable(dtype, as_strings=True)
    storage.require_range(span)
    data = storage.read_range(span.path, span.offset, span.nbytes)
    with located(span.path):
        return DECODERS[dtype.name](data, count, span.crc32c, is_big)
