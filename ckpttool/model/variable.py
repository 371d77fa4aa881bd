"""A variable: a stored array, whichever format it comes from.

    Checkpoint ── Variable ── source ── slices, byte ranges, blocks of values

A variable knows its name, dtype and shape; its source (made by a module of `formats`) knows where the values
lie. There are three ways to them, from the fastest to the most general: `ranges`, the runs of bytes to be moved
as they are; `blocks`, arrays of bounded size; `numpy`, the whole array.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from math import prod
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

from ckpttool.errors import NotSupportedError, located
from ckpttool.model.boxes import Selection, following, intersection, lacking, selection, shape_of, subdivide, within
from ckpttool.model.dtypes import DType
from ckpttool.model.layer import Layer
from ckpttool.model.names import such
from ckpttool.model.slices import ByteRange, Slice

if TYPE_CHECKING:
    import numpy as np

BLOCK_SIZE = 1 << 20
"""Bytes of a block of values: large enough that a block's own cost vanishes, small beside any memory."""

NUMPY_RANK = 64
"""Dimensions that NumPy's arrays have at most, since NumPy 2."""

_START, _STOP = attrgetter("start"), attrgetter("stop")


class Source(Protocol):
    """Where the values of variables come from: a module of `formats` that reads them, or a transform."""

    def slices(self, variable: "Variable") -> Sequence[Slice]:
        """The pieces that the variable is stored in; one for a variable that is not partitioned."""

    def shards(self, variable: "Variable") -> Sequence[int]:
        """The number of the file that each piece is in, for listings, which need nothing else of them."""
        return [piece.shard for piece in self.slices(variable)]

    def span(self, variable: "Variable", piece: Slice) -> ByteRange | None:
        """The bytes in a file that are the piece's values, row-major and little-endian, once the file is known to have
        them; None if there are none: the values must be decoded.
        """
        return None

    def arrays(
        self, variable: "Variable", piece: Slice, boxes: Iterable[Selection]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        """The values in each of the boxes, which are contiguous in the piece, in order, and together all of it.

        An array may be gone with the next one. After the last one, the piece's checksum is tested.
        """

    def strings(self, variable: "Variable", piece: Slice) -> list[bytes]:
        """The piece's values, if they are strings (or variants, serialized), in row-major order."""


class Variable:
    """A stored array.

    Attributes:
        name: its name. Bytes that are not UTF-8 stand as lone surrogates (`surrogateescape`).
        dtype: its DType.
        shape: its full shape, also when it is stored in slices.
        key: what its source knows it by.
        layer: the layer of Keras that it is a weight of, or OF_OPTIMIZER; None if the source does not tell.
        is_partly_stored: only some slices of it are there; see `PartlyStored`.
    """

    __slots__ = ("_placed", "_source", "dtype", "key", "layer", "name", "shape")
    is_partly_stored = False

    def __init__(
        self,
        name: str,
        dtype: DType,
        shape: tuple[int, ...],
        source: Source,
        key: Any = b"",
        *,
        placed: bool = True,
        layer: Layer | None = None,
    ) -> None:
        self.name, self.dtype, self.shape, self._source, self.key = name, dtype, shape, source, key
        self._placed, self.layer = placed, layer

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype.name}, {list(self.shape)})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> "np.ndarray[Any, Any]":
        """The values, where NumPy wants an array; those of arrays in memory are copied only if that is asked for.

        Raises:
            ValueError: they must be copied, to be of another dtype, and that is forbidden.
            CorruptionError, NotSupportedError: as `numpy`.
        """
        import numpy as np

        return np.array(self.numpy(), dtype, copy=copy)

    def __getitem__(self, index: Any) -> Any:
        """A part of the values, by an index as NumPy takes it; all of them are read, for only all have a checksum."""
        values = self.numpy()
        part = values[index]
        # A view would keep all of them.
        return part.copy() if getattr(part, "base", None) is not None and part.size < values.size else part

    __iter__ = None  # To iterate over values would read all of them for each.

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def stored(self) -> int:
        """Number of elements that are stored."""
        return self.size

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the checkpoint."""
        if self.dtype.itemsize is not None:
            return self.stored * self.dtype.itemsize
        return sum(piece.data.nbytes for piece in self.slices)

    @property
    def slices(self) -> Sequence[Slice]:
        """The pieces it is stored in, in the checkpoint's order; one if it is not partitioned."""
        slices = self._source.slices(self)
        return slices if self._placed else [piece._replace(position=0) for piece in slices]

    @property
    def lacking(self) -> str:
        """What is missing, in words, if only a part is stored, as by a saver of some slices; "" if nothing is.

        A variable that lacks something has slices, and no values as a whole.
        """
        return ""

    def _whole_slices(self) -> Sequence[Slice]:
        """The pieces; raises NotSupportedError if they are not the whole."""
        if self.lacking:
            hint = "only the slices that are there can be written, into a bundle; --exclude leaves it out"
            raise NotSupportedError(self.lacking, variable=self.name, hint=hint)
        return self.slices

    @property
    def shards(self) -> Sequence[int]:
        """The number of the file that each of the slices is in."""
        return self._source.shards(self)

    def renamed(self, name: str, *, placed: bool = True) -> "Variable":
        """The same variable under another name; without `placed`, its place among the others is forgotten."""
        placed = placed and self._placed
        return type(self)(name, self.dtype, self.shape, self._source, self.key, placed=placed, layer=self.layer)

    @property
    def ranges(self) -> Sequence[ByteRange] | None:
        """The runs of bytes that, put together, are the values in row-major order, little-endian.

        None where there are none: the values must be decoded, swapped or interleaved, and `blocks` does that.
        """
        if self.dtype.itemsize is None:
            return None
        pieces = self._whole_slices()
        if len(pieces) > 1:
            pieces = sorted(pieces, key=lambda piece: piece.start)
            cut = {d for piece in pieces for d in range(len(piece.shape)) if piece.shape[d] != self.shape[d]}
            # The pieces stand one after another only if cut along one dimension, with sizes of 1 before it.
            if cut and (len(cut) > 1 or prod(self.shape[: min(cut)]) > 1):
                return None
        spans = []
        for piece in pieces:
            span = self.span(piece)
            if span is None:
                return None
            spans.append(span)
        return spans

    def span(self, piece: Slice) -> ByteRange | None:
        """The run of bytes that is one of the pieces, as `ranges` has them."""
        with located(variable=self.name):
            return self._source.span(self, piece)

    def blocks(self, nbytes: int = BLOCK_SIZE) -> "Iterator[tuple[Selection, np.ndarray[Any, Any]]]":
        """The values as (selection, array) pairs of about `nbytes` at most.

        They come in row-major order: each is a contiguous run of the array, which begins where the one before ended.
        Strings come in one block. An array is gone with the next one: copy what is to be kept. Checksums are tested
        when a piece has been read to its end, so a CorruptionError may come after blocks of damaged values: keep
        none of them unless the iteration ends.

        Raises:
            ValueError: `nbytes` is not positive.
            CorruptionError: bytes are missing or do not have their checksum.
            NotSupportedError: values of this dtype can't be decoded, or only a part of them is stored (see `lacking`).
        """
        if nbytes < 1:
            raise ValueError(f"nbytes is {nbytes}, and must be at least 1")
        self._require_numpy()
        if self.dtype.itemsize is None:
            yield selection((0,) * len(self.shape), self.shape), self.numpy()
            return
        limit = max(1, nbytes // self.dtype.itemsize)
        boxes, again = tee(subdivide((0,) * len(self.shape), self.shape, limit))
        yield from zip(boxes, self._read(again), strict=True)

    def read(self, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        """The values in boxes that, as those of `blocks`, follow one another and together cover the array.

        Raises:
            ValueError: they do not; for a part, index the variable.
            CorruptionError, NotSupportedError: as `blocks`.
        """
        yield from self._read(following((0,) * len(self.shape), self.shape, boxes))

    def _read(self, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        self._require_numpy()
        pieces = self._whole_slices()
        with located(variable=self.name):
            if len(pieces) == 1:
                yield from self._source.arrays(self, pieces[0], boxes)
            else:
                yield from self._interleaved(pieces, boxes)

    def _interleaved(self, pieces: Sequence[Slice], boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        """Each piece is read from its start to its end, as far as a box needs it."""
        import numpy as np

        for piece in pieces:  # Nothing is allocated by the shape before the files are known to hold it.
            self._source.span(self, piece)
        ends = [piece.box for piece in pieces]
        starts, stops = (np.array([[edge(s) for s in box] for box in ends]) for edge in (_START, _STOP))
        touching: list[tuple[Selection, list[tuple[int, Selection]]]] = []
        parts: list[list[Selection]] = [[] for _ in pieces]
        for box in boxes:  # Each box is held against all pieces at once: a loop over both would take long.
            is_near = (starts < list(map(_STOP, box))) & (stops > list(map(_START, box)))
            numbers = np.flatnonzero(is_near.all(1)).tolist()
            near = [(i, part) for i in numbers if (part := intersection(box, ends[i]))]
            touching.append((box, near))
            for i, part in near:
                parts[i].append(part)
        readers = [self._source.arrays(self, piece, part) for piece, part in zip(pieces, parts, strict=True)]
        for box, near in touching:
            array = np.empty(shape_of(box), self.dtype.numpy)
            for i, part in near:
                array[within(part, box)] = next(readers[i])
                if all(p.stop == end.stop for p, end in zip(part, ends[i], strict=True)):
                    next(readers[i], None)  # Runs to the checksum, and lets go of the buffer.
            yield array

    def narrow(self) -> "Variable":
        """The variable; where NumPy has no arrays of so many dimensions, the same values without those of size 1, of
        which no more than 63 are left.
        """
        if len(self.shape) <= NUMPY_RANK or len(self.slices) > 1:
            return self
        shape = tuple(n for n in self.shape if n != 1) if self.size else (0,)
        return type(self)(self.name, self.dtype, shape, self._source, self.key, placed=self._placed, layer=self.layer)

    def _require_numpy(self) -> None:
        if len(self.shape) > NUMPY_RANK:
            raise NotSupportedError(f"NumPy has no arrays of rank {len(self.shape)}", variable=self.name)
        if not self.size and prod(filter(None, self.shape)) * (self.dtype.itemsize or 8) >> 63:
            raise NotSupportedError(f"NumPy has no arrays of shape {list(self.shape)}", variable=self.name)

    def strings(self) -> list[bytes]:
        """The values of a string variable, in row-major order; of a variant one, the serialized messages.

        Raises:
            CorruptionError: bytes are missing or do not have their checksum.
            NotSupportedError: these are numbers, or only a part of them is stored (see `lacking`).
        """
        self._require_strings()
        pieces = self._whole_slices()
        if len(pieces) == 1:
            with located(variable=self.name):
                return self._source.strings(self, pieces[0])
        return list(self.numpy().ravel())

    def nbytes_of(self, piece: Slice) -> int:
        """Bytes that the values of one of the pieces take; strings, where they come from."""
        return piece.data.nbytes if self.dtype.itemsize is None else prod(piece.shape) * self.dtype.itemsize

    def strings_of(self, piece: Slice) -> list[bytes]:
        """The values of one of the pieces.

        Raises:
            CorruptionError, NotSupportedError: as `strings`.
        """
        self._require_strings()
        with located(variable=self.name):
            return self._source.strings(self, piece)

    def _require_strings(self) -> None:
        if self.dtype.itemsize is not None:
            raise NotSupportedError(f"{self.dtype.name} is no string", variable=self.name, hint="numpy() gives values")

    def arrays_of(self, piece: Slice, nbytes: int = BLOCK_SIZE) -> "Iterator[np.ndarray[Any, Any]]":
        """The values of one of the pieces, in row-major order, in arrays of about `nbytes` at most."""
        self._require_numpy()
        limit = max(1, nbytes // (self.dtype.itemsize or 1))
        with located(variable=self.name):
            yield from self._source.arrays(self, piece, subdivide(piece.start, piece.shape, limit))

    def read_of(self, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        """The values of one of the pieces in boxes that follow one another and together cover it.

        Raises:
            ValueError: they do not.
            CorruptionError, NotSupportedError: as `blocks`.
        """
        with located(variable=self.name):
            yield from self._source.arrays(self, piece, following(piece.start, piece.shape, boxes))

    def numpy(self) -> "np.ndarray[Any, Any]":
        """The values, shape `shape`, dtype `dtype.numpy`: strings as `object` arrays of bytes, types that NumPy
        lacks as those of ml_dtypes, quantized types as their integers. It may be read-only: copy what is to be changed.

        Raises:
            CorruptionError: bytes are missing or do not have their checksum.
            NotSupportedError: values of this dtype can't be decoded, or only a part of them is stored (see `lacking`).
        """
        import numpy as np

        self._require_numpy()
        with located(variable=self.name):
            pieces = self._whole_slices()
            # All are read before the whole is allocated: a shape alone does not prove that there are values.
            parts = [self._whole(piece) for piece in pieces]
        if len(parts) == 1:
            return parts[0]
        array = np.zeros(self.shape, self.dtype.numpy)
        for piece, part in zip(pieces, parts, strict=True):
            array[piece.box] = part
        return array

    def _whole(self, piece: Slice) -> "np.ndarray[Any, Any]":
        """The values of a piece."""
        import numpy as np

        if self.dtype.name == "string":
            values = self._source.strings(self, piece)
            strings = np.empty(len(values), object)
            strings[:] = values
            return strings.reshape(piece.shape)
        arrays = list(self._source.arrays(self, piece, [piece.box] if prod(piece.shape) else []))
        return arrays[0] if arrays else np.zeros(piece.shape, self.dtype.numpy)


class PartlyStored(Variable):
    """A variable of which only some slices are stored: it has no values as a whole (see `lacking`)."""

    __slots__ = ()
    is_partly_stored = True

    @property
    def stored(self) -> int:
        return sum(prod(piece.shape) for piece in self.slices)

    @property
    def lacking(self) -> str:
        return lacking(self.shape, (piece.shape for piece in self.slices))


def as_stored(variable: Variable, stored: Iterable[tuple[int, ...]]) -> Variable:
    """The variable, given the shapes of its slices: as a PartlyStored, unless they are the whole."""
    if sum(map(prod, stored)) == variable.size:
        return variable
    return PartlyStored(variable.name, variable.dtype, variable.shape, variable._source, variable.key)


def lacking_slices(partitioned: Iterable[Variable]) -> list[str]:
    """A warning, if there are variables of which only a part is stored."""
    found = [variable for variable in partitioned if variable.is_partly_stored]
    return [f"variable {variable.name} {variable.lacking}{such(len(found))}" for variable in found[:1]]


def require_variable(variable: object) -> None:
    """Raises TypeError if something else was given, such as an array."""
    if not isinstance(variable, Variable):
        raise TypeError(f"a Variable is needed, not {type(variable).__name__}: a Checkpoint has them by their names")
