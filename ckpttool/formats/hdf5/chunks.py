"""Reads the values of a dataset in boxes, wherever they are: in one run, in the header, in chunks, or nowhere.

A box is put together from the chunks that it meets. Boxes come in row-major order, and a decoded chunk is kept, if
there is room, until they have passed it, so that it is not decoded again for each of its rows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.filters import unfiltered
from ckpttool.formats.hdf5.structure import Dataset, File, opened
from ckpttool.formats.hdf5.structure.chunk_index import grid_of, read_index
from ckpttool.formats.hdf5.structure.layout import CHUNKED, COMPACT
from ckpttool.model.boxes import Selection, intersection, selection, shape_of, within

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_CACHE = 16 << 20
# Bytes that an array takes beside its values.
_OVERHEAD = 256
# NumPy moves numbers faster than elements of arbitrary size.
_WORDS = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}


@contextmanager
def values_of(path: str, dataset: Dataset) -> "Iterator[Callable[[Selection], Array]]":
    """Gives a function that reads a box of a dataset: its elements as they are stored.

    The function raises CorruptionError if they are damaged, or not in the file.
    """
    with opened(path) as file:
        if dataset.layout.kind == CHUNKED:
            yield _Chunks(file, dataset).box
        else:
            yield _Run(file, dataset).box


def stored_bytes(file: File, dataset: Dataset) -> int:
    """How many bytes a dataset takes in the file."""
    layout = dataset.layout
    if layout.kind == CHUNKED:
        return int(read_index(file, dataset).sizes.sum())
    if layout.kind == COMPACT:
        return len(layout.data)
    return 0 if layout.address is None else prod(dataset.shape) * dataset.datatype.size


def padded_size(dataset: Dataset) -> int:
    """How many elements the chunks of a dataset have together or, without chunks, the dataset."""
    if dataset.layout.kind != CHUNKED:
        return prod(dataset.shape)
    chunk = dataset.layout.chunk
    return max(1, prod(grid_of(dataset.shape, chunk))) * prod(chunk)


def require_run(dataset: Dataset) -> None:
    """Raises CorruptionError unless the run is said to have as many bytes as the shape."""
    layout, nbytes = dataset.layout, prod(dataset.shape) * dataset.datatype.size
    stored = len(layout.data) if layout.kind == COMPACT else layout.nbytes
    # There may be nothing stored yet.
    if stored not in (None, nbytes) and (stored or layout.address is not None):
        raise CorruptionError(f"{stored:,} bytes are stored for {nbytes:,}")


class _Boxes:
    """Makes boxes of elements."""

    def __init__(self, dataset: Dataset) -> None:
        import numpy as np

        size = dataset.datatype.size
        self.shape, self.itemsize = dataset.shape, size
        self.dtype = np.dtype(_WORDS.get(size, f"V{size}"))
        self._fill = np.frombuffer(dataset.fill, self.dtype) if any(dataset.fill) else None

    def filled(self, shape: tuple[int, ...]) -> "Array":
        """A box to which nothing was written."""
        import numpy as np

        return np.zeros(shape, self.dtype) if self._fill is None else np.full(shape, self._fill[0], self.dtype)


class _Run:
    """Reads elements that are stored in one run, or not stored."""

    def __init__(self, file: File, dataset: Dataset) -> None:
        require_run(dataset)
        self._file, self._layout, self._boxes = file, dataset.layout, _Boxes(dataset)

    def box(self, box: Selection) -> "Array":
        import numpy as np

        boxes = self._boxes
        if self._layout.address is None and not self._layout.data:
            return boxes.filled(shape_of(box))
        runs = [self._read(first, count) for first, count in _runs(box, boxes.shape)]
        data = runs[0] if len(runs) == 1 else b"".join(runs)
        return np.frombuffer(bytearray(data), boxes.dtype).reshape(shape_of(box))

    def _read(self, first: int, count: int) -> bytes:
        start, nbytes = first * self._boxes.itemsize, count * self._boxes.itemsize
        if self._layout.kind == COMPACT:
            return self._layout.data[start : start + nbytes]
        return self._file.read((self._layout.address or 0) + start, nbytes)


def _runs(box: Selection, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The runs of a box in an array: the first element of each, and the number of its elements."""
    whole = next((d for d in reversed(range(len(shape))) if box[d] != slice(0, shape[d])), 0)
    strides = [prod(shape[d + 1 :]) for d in range(len(shape))]
    starts = [*(range(s.start, s.stop) for s in box[:whole]), *((s.start,) for s in box[whole:])]
    count = prod(shape_of(box)[whole:])
    for corner in product(*starts):
        yield sum(place * stride for place, stride in zip(corner, strides, strict=True)), count


class _Chunks:
    """Reads elements that are stored in chunks."""

    def __init__(self, file: File, dataset: Dataset) -> None:
        self._file, self._dataset, self._boxes = file, dataset, _Boxes(dataset)
        self._chunk = dataset.layout.chunk
        self._grid = grid_of(dataset.shape, self._chunk)
        self._nbytes = prod(self._chunk) * dataset.datatype.size
        self._index = read_index(file, dataset)
        # By places in the index, which are in the order in which boxes come.
        self._decoded: dict[int, Array] = {}

    def box(self, box: Selection) -> "Array":
        found = self._boxes.filled(shape_of(box))
        for place in self._met(box) if found.size else ():
            where = self._where(int(self._index.numbers[place]))
            part = intersection(box, where)
            if part is not None:
                found[within(part, box)] = self._values(place, where)[within(part, where)]
        return found

    def _met(self, box: Selection) -> range:
        """The places in the index from the box's first chunk to its last; for a run, just the chunks that it meets."""
        import numpy as np

        first = [s.start // step for s, step in zip(box, self._chunk, strict=True)]
        last = [(s.stop - 1) // step for s, step in zip(box, self._chunk, strict=True)]
        bounds = np.searchsorted(self._index.numbers, [self._number(first), self._number(last) + 1])
        self._forget(int(bounds[0]))
        return range(int(bounds[0]), int(bounds[1]))

    def _number(self, place: list[int]) -> int:
        number = 0
        for step, size in zip(place, self._grid, strict=True):
            number = number * size + step
        return number

    def _where(self, number: int) -> Selection:
        """The box of a chunk, including what lies beyond the dataset."""
        places = []
        for size in reversed(self._grid):
            number, place = divmod(number, size)
            places.append(place)
        start = [place * step for place, step in zip(reversed(places), self._chunk, strict=True)]
        return selection(start, self._chunk)

    def _forget(self, first: int) -> None:
        """Drops the chunks that boxes have passed."""
        for place in [place for place in self._decoded if place < first]:
            del self._decoded[place]

    def _values(self, place: int, where: Selection) -> "Array":
        import numpy as np

        if place in self._decoded:
            return self._decoded[place]
        values = np.frombuffer(self._read(place, where), self._boxes.dtype).reshape(self._chunk)
        if (len(self._decoded) + 1) * (self._nbytes + _OVERHEAD) <= _CACHE or not self._decoded:
            self._decoded[place] = values
        return values

    def _read(self, place: int, where: Selection) -> bytes:
        address, size, mask = (int(array[place]) for array in self._index[1:])
        data, filters = self._file.read(address, size), self._dataset.filters
        goes_beyond = any(s.stop > n for s, n in zip(where, self._dataset.shape, strict=True))
        if self._dataset.layout.has_plain_edges and goes_beyond:
            filters = ()
        return unfiltered(data, filters, mask, self._nbytes, self._file.base + address)
