"""Values out of ranges of files, as a bundle and other formats store them."""

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
    """Raises NotSupportedError if values of this dtype can't be decoded."""
    if dtype.name not in DECODERS if as_strings else dtype.itemsize is None:
        raise NotSupportedError(f"values of dtype {dtype.name} can't be decoded")


@cache
def _keep_freed_memory() -> None:
    """Makes malloc keep up to 62 MiB of freed memory, for the next block.

    Otherwise the memory of each block goes back to the system, which clears its pages for the next one: that took a
    third of the time of a cast. glibc keeps twice the largest array that was freed, if that has at most 32 MiB; with
    other C libraries this does nothing. (mallopt(3), M_MMAP_THRESHOLD)
    """
    import numpy as np

    with suppress(MemoryError):
        np.empty(31 << 20, np.uint8)


def arrays_of(
    span: ByteRange, dtype: DType, shapes: Iterable[tuple[int, ...]], *, is_big: bool = False
) -> "Iterator[np.ndarray[Any, Any]]":
    """The numbers in a range, as arrays of these shapes one after another; each is valid until the next is taken.

    Args:
        span: the range, whose size is that of the shapes.
        dtype: one of numbers.
        shapes: of the arrays.
        is_big: the bytes are in big-endian order.

    Raises:
        CorruptionError: the range is missing, or its checksum is wrong, which is known after the last array.
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
    for _ in chunks:  # Goes on to the checksum, also if there is no chunk.
        pass


def strings_of(span: ByteRange, dtype: DType, count: int, *, is_big: bool = False) -> list[bytes]:
    """The strings, or variants, in a range.

    Raises:
        NotSupportedError: the dtype is neither.
        CorruptionError: they are damaged, or the range is not there.
    """
    require_decodable(dtype, as_strings=True)
    storage.require_range(span)
    data = storage.read_range(span.path, span.offset, span.nbytes)
    with located(span.path):
        return DECODERS[dtype.name](data, count, span.crc32c, is_big)
