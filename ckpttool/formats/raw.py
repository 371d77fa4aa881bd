"""Variables that lie whole in a file, each in one run of little-endian bytes: a dataset of HDF5, a tensor of
safetensors, a `.npy` file.

A bundle has the same bytes, so that they are copied in either direction. What the format can't say is in a note beside
the variable (formats.notes), also where it was cut into slices, which are then boxes in the run.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import CorruptionError
from ckpttool.formats.decoding import arrays_of, require_decodable, strings_of
from ckpttool.formats.notes import Note, noted_slices
from ckpttool.model.boxes import Selection, shape_of
from ckpttool.model.dtypes import DType
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np


class Run(NamedTuple):
    """Where a variable's bytes lie, and the note about it."""

    data: ByteRange
    note: Note = Note()


class RawSource(Source):
    """The source of variables that lie whole in files."""

    def __init__(self) -> None:
        self._runs: dict[bytes, Run] = {}
        self._lengths = storage.Lengths()

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], run: Run) -> Variable:
        """The variable that these bytes are.

        Raises:
            CorruptionError: there are more or fewer of them than the shape needs.
        """
        if dtype.itemsize is not None and prod(shape) * dtype.itemsize != run.data.nbytes:
            raise CorruptionError(
                f"{run.data.nbytes:,} bytes for {dtype.name}{list(shape)}", path=run.data.path, variable=name
            )
        key = b"%d" % len(self._runs)
        self._runs[key] = run
        return Variable(name, dtype, shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        run = self._runs[variable.key]
        return noted_slices(variable, run.note, run.data)

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        data = self._runs[variable.key].data
        self._lengths.require(data)
        if variable.dtype.itemsize is None or sys.byteorder == "big":
            return None
        if piece.shape == variable.shape:
            return data
        cut = next((d for d, n in enumerate(piece.shape) if n != 1), 0)
        if piece.shape[cut + 1 :] != variable.shape[cut + 1 :]:
            return None
        strides = [prod(variable.shape[d + 1 :]) for d in range(len(variable.shape))]
        first = sum(s * stride for s, stride in zip(piece.start, strides, strict=True))
        offset = data.offset + first * variable.dtype.itemsize
        return ByteRange(data.path, offset, prod(piece.shape) * variable.dtype.itemsize, None)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        require_decodable(variable.dtype)
        span = self.span(variable, piece)
        if span is None:
            return self._gathered(variable, boxes)
        return arrays_of(span, variable.dtype, map(shape_of, boxes))

    def _gathered(self, variable: Variable, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        """Boxes whose rows lie apart, through a map of the file, a new one for each to give memory back."""
        import numpy as np

        data = self._runs[variable.key].data
        for box in boxes:
            mapped = np.memmap(data.path, np.uint8, "r", data.offset, (data.nbytes,))
            yield mapped.view(variable.dtype.numpy).reshape(variable.shape)[box].copy()

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        """Strings that are stored as a bundle stores them."""
        values = strings_of(self._runs[variable.key].data, variable.dtype, prod(variable.shape))
        return slice_of_strings(values, variable, piece)


def slice_of_strings(values: list[bytes], variable: Variable, piece: Slice) -> list[bytes]:
    """The strings of one slice, out of all of a variable's."""
    if piece.shape == variable.shape:
        return values
    import numpy as np

    array = np.empty(len(values), object)
    array[:] = values
    return list(array.reshape(variable.shape)[piece.box].ravel())
