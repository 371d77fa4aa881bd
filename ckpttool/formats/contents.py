"""A variable's values as bytes to be written: row-major, little-endian, strings as a bundle stores them."""

import sys
from collections.abc import Iterator
from typing import Any

from ckpttool.errors import NotSupportedError
from ckpttool.formats.records.strings import ENCODERS
from ckpttool.model.slices import Slice
from ckpttool.model.variable import Variable
from ckpttool.storage import Content


def require_little_endian(what: str) -> None:
    """Raises NotSupportedError on a big-endian machine, whose bytes would have to be swapped on the way."""
    if sys.byteorder == "big":
        raise NotSupportedError(f"writing {what} on a big-endian machine")


def content_of(variable: Variable) -> Content:
    """All values of a variable: byte ranges to be copied where it has them, else decoded values, in blocks.

    Raises:
        NotSupportedError: values of this dtype can't be decoded.
        CorruptionError: strings are damaged. (Damaged numbers raise it when they are written.)
    """
    if variable.dtype.itemsize is None:
        return _encoded(variable, variable.strings())
    ranges = variable.ranges
    if ranges is not None:
        return Content.of_ranges(ranges, variable.name)
    return Content(lambda: _buffers(block for _, block in variable.blocks()), variable.nbytes)


def content_of_piece(variable: Variable, piece: Slice) -> Content:
    """The values of one of the pieces that a variable is stored in; as `content_of`."""
    if variable.dtype.itemsize is None:
        return _encoded(variable, variable.strings_of(piece))
    span = variable.span(piece)
    if span is not None:
        return Content.of_ranges([span], variable.name)
    return Content(lambda: _buffers(variable.arrays_of(piece)), variable.nbytes_of(piece))


def _encoded(variable: Variable, values: list[bytes]) -> Content:
    if variable.dtype.name not in ENCODERS:
        raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded", variable=variable.name)
    return Content.of_bytes(*ENCODERS[variable.dtype.name](values))


def _buffers(arrays: Any) -> Iterator[Any]:
    """The bytes of arrays, little-endian: on a big-endian machine nothing is written (`require_little_endian`)."""
    import numpy as np

    for array in arrays:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
