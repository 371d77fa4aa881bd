"""Arrays that must be read from start to end: deflated, in the other byte order, by columns, or of strings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from io import BufferedIOBase
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import CorruptionError, located
from ckpttool.formats.decoding import require_decodable
from ckpttool.formats.notes import Note, noted_slices
from ckpttool.formats.npy.arrays import meaning
from ckpttool.formats.npy.header import Header
from ckpttool.formats.raw import slice_of_strings
from ckpttool.formats.records.strings import DECODERS
from ckpttool.model.boxes import Selection, shape_of
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np

# An array is in memory while slices are taken out of it: one of more bytes is a single slice.
_SLICED = 64 << 20


class Stored(NamedTuple):
    """An array: the file it is in, its header, what is noted of it, and what opens a stream of its values."""

    path: str
    header: Header
    note: Note
    values: Callable[[], AbstractContextManager[BufferedIOBase]]


class ArraySource(Source):
    """The source of arrays that are streams."""

    def __init__(self) -> None:
        self._stored: dict[bytes, Stored] = {}
        # The array that was read whole last: its slices are asked for one after another.
        self._last: tuple[bytes, Any] = (b"", None)

    def add(self, name: str, stored: Stored) -> Variable:
        dtype, shape = meaning(stored.header, stored.note)
        key = b"%d" % len(self._stored)
        self._stored[key] = stored
        return Variable(name, dtype, shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        stored = self._stored[variable.key]
        note, data = stored.note, ByteRange(stored.path, 0, stored.header.size, None)
        # A large array is left in one piece.
        return noted_slices(variable, note if data.nbytes <= _SLICED else note._replace(slices=()), data)

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        """None: the bytes are not those of the values, or have a checksum that only reading them all tests."""
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        require_decodable(variable.dtype)
        stored = self._stored[variable.key]
        in_order = piece.shape == variable.shape and not stored.header.fortran_order
        return self._in_order(variable, stored, boxes) if in_order else self._boxes(variable, stored, boxes)

    def _in_order(
        self, variable: Variable, stored: Stored, boxes: Iterable[Selection]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        with located(stored.path, variable.name), stored.values() as stream:
            for box in boxes:
                yield _decoded(variable, stored, _read(stream, stored, prod(shape_of(box)))).reshape(shape_of(box))
            _finish(stream)

    def _boxes(
        self, variable: Variable, stored: Stored, boxes: Iterable[Selection]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        """The boxes of an array by columns, or of a slice: the whole array is read first."""
        # Two threads may be here, each with a variable of its own.
        key, array = self._last
        if key != variable.key:
            array = _whole(variable, stored)
            self._last = variable.key, array
        for box in boxes:
            yield array[box].copy(order="C")

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        stored = self._stored[variable.key]
        with located(stored.path, variable.name):
            with stored.values() as stream:
                data = _read(stream, stored, prod(stored.header.shape))
                _finish(stream)
            if stored.header.dtype.kind in "SU":
                return slice_of_strings(_fixed_width(data, stored.header), variable, piece)
            decode = DECODERS[variable.dtype.name]
            return slice_of_strings(decode(data, prod(variable.shape), None, False), variable, piece)


def _read(stream: BufferedIOBase, stored: Stored, count: int) -> bytes:
    """The bytes of the next `count` elements."""
    wanted = count * stored.header.dtype.itemsize
    data = stream.read(wanted) if wanted else b""
    if len(data) != wanted:
        raise CorruptionError(f"the array ends after {len(data):,} of {wanted:,} bytes")
    return data


def _finish(stream: BufferedIOBase) -> None:
    """Reads to the end, where a checksum is tested."""
    if stream.read(1):
        raise CorruptionError("the file goes on after the end of the array")


def _whole(variable: Variable, stored: Stored) -> "np.ndarray[Any, Any]":
    with located(stored.path, variable.name), stored.values() as stream:
        values = _decoded(variable, stored, _read(stream, stored, variable.size))
        _finish(stream)
    order: Any = "F" if stored.header.fortran_order else "C"
    return values.reshape(variable.shape, order=order)


def _decoded(variable: Variable, stored: Stored, data: bytes) -> "np.ndarray[Any, Any]":
    import numpy as np

    array = np.frombuffer(data, stored.header.dtype)
    return array.astype(array.dtype.newbyteorder("="), copy=False).view(variable.dtype.numpy)


def _fixed_width(data: bytes, header: Header) -> list[bytes]:
    """The values of an array of strings, in row-major order; text as UTF-8."""
    import numpy as np

    if not data:
        return []
    order: Any = "F" if header.fortran_order else "C"
    try:
        found = np.frombuffer(data, header.dtype).reshape(header.shape, order=order).ravel().tolist()
    except (ValueError, SystemError) as error:
        raise CorruptionError(f"no text: {error}") from error
    return [value.encode(errors="surrogatepass") for value in found] if header.dtype.kind == "U" else found
