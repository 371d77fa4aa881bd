"""A checkpoint: names and variables, whichever format they come from.

    Checkpoint ── Variable ── source ── slices, byte ranges, blocks of values

A variable knows its name, dtype and shape; its source (made by a module of `formats`) knows where the values
lie. There are three ways to them, from the fastest to the most general: `ranges`, the runs of bytes to be moved
as they are; `blocks`, arrays of bounded size; `numpy`, the whole array.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ckpttool.errors import NotFoundError, NotSupportedError, located
from ckpttool.model.dtypes import DType
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY, ObjectGraph

if TYPE_CHECKING:
    import numpy as np

BLOCK_SIZE = 8 << 20
"""Bytes of a block of values: large enough that a block's own cost vanishes, small beside any memory."""

_NUMPY_RANK = 64
# As many corners take a second to count.
_MAX_CORNERS = 1 << 18


class ByteRange(NamedTuple):
    """A run of bytes in a file, with the CRC-32C that it should have (None: nobody knows)."""

    path: str
    offset: int
    nbytes: int
    crc32c: int | None


class Slice(NamedTuple):
    """A piece of a variable: where it starts in each dimension, how far it goes, and where its bytes lie."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    shard: int
    data: ByteRange


Selection = tuple[slice, ...]
"""A box within an array: a slice with start and stop for each dimension."""


class Source(Protocol):
    """Where the values of variables come from."""

    def slices(self, variable: "Variable") -> Sequence[Slice]:
        """The pieces that the variable is stored in; one for a variable that is not partitioned."""

    def ranges(self, variable: "Variable") -> Sequence[ByteRange] | None:
        """See Variable.ranges."""

    def blocks(self, variable: "Variable", nbytes: int) -> "Iterator[tuple[Selection, np.ndarray[Any, Any]]]":
        """See Variable.blocks."""

    def strings(self, variable: "Variable") -> list[bytes]:
        """See Variable.strings."""


class Variable:
    """A stored array.

    Attributes:
        name: its name. Bytes that are not UTF-8 stand as lone surrogates (`surrogateescape`).
        dtype: its DType.
        shape: its full shape, also when it is stored in slices.
        key: the name under which its source knows it.
    """

    __slots__ = ("_source", "dtype", "key", "name", "shape")

    def __init__(self, name: str, dtype: DType, shape: tuple[int, ...], source: Source, key: bytes = b"") -> None:
        self.name, self.dtype, self.shape, self._source, self.key = name, dtype, shape, source, key

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.dtype.name}, {list(self.shape)})"

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the checkpoint."""
        if self.dtype.itemsize is not None:
            return self.size * self.dtype.itemsize
        return sum(piece.data.nbytes for piece in self.slices)

    @property
    def slices(self) -> Sequence[Slice]:
        """The pieces it is stored in, in the checkpoint's order; one if it is not partitioned."""
        return self._source.slices(self)

    @property
    def ranges(self) -> Sequence[ByteRange] | None:
        """The runs of bytes that, put together, are the values in row-major order, little-endian.

        None where there are none: the values must be decoded, swapped or interleaved, and `blocks` does that.
        """
        return self._source.ranges(self)

    def blocks(self, nbytes: int = BLOCK_SIZE) -> "Iterator[tuple[Selection, np.ndarray[Any, Any]]]":
        """The values as (selection, array) pairs of about `nbytes` at most, which together cover the shape.

        An array is gone with the next one: copy what is to be kept. Checksums are tested when a piece has been
        read to its end, so a CorruptionError may come after blocks of damaged values: keep none of them unless
        the iteration ends.

        Raises:
            CorruptionError: bytes are missing or do not have their checksum.
            NotSupportedError: values of this dtype can't be decoded.
        """
        if len(self.shape) > _NUMPY_RANK:
            raise NotSupportedError(f"NumPy has no arrays of rank {len(self.shape)}", variable=self.name)
        if not self.size and prod(filter(None, self.shape)) * (self.dtype.itemsize or 8) >> 63:
            raise NotSupportedError(f"NumPy has no arrays of shape {list(self.shape)}", variable=self.name)
        return self._source.blocks(self, nbytes)

    def strings(self) -> list[bytes]:
        """The values of a string variable that is not partitioned, in row-major order, without NumPy.

        Raises:
            CorruptionError: bytes are missing or do not have their checksum.
        """
        return self._source.strings(self)

    def numpy(self) -> "np.ndarray[Any, Any]":
        """The values, shape `shape`, dtype `dtype.numpy`: strings as `object` arrays of bytes, types that NumPy
        lacks as those of ml_dtypes, quantized types as their integers.

        Raises:
            CorruptionError: bytes are missing or do not have their checksum.
            NotSupportedError: values of this dtype can't be decoded.
        """
        import numpy as np

        # One block a piece, all of them read before the whole is allocated: a shape alone proves nothing.
        blocks = list(self.blocks(max(self.size, 1) * (self.dtype.itemsize or 1)))
        if len(blocks) == 1:
            return blocks[0][1]
        array = np.zeros(self.shape, self.dtype.numpy)
        for selection, block in blocks:
            array[selection] = block
        return array


class Checkpoint(Mapping[str, Variable]):
    """The variables of a checkpoint, by name, in the checkpoint's order.

    Attributes:
        path: what was opened: for a bundle, its prefix.
        files: the files it is read from, which no output may replace.
        format: the format in words.
        warnings: what is wrong with it and does not keep it from being listed.
    """

    def __init__(
        self,
        variables: Mapping[str, Variable],
        *,
        path: str,
        format: str,
        files: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        self._variables, self.path, self.format = variables, path, format
        self.files, self.warnings = tuple(files), tuple(warnings)

    def with_variables(self, variables: Mapping[str, Variable]) -> "Checkpoint":
        """The same checkpoint with other variables."""
        kept = {"path": self.path, "format": self.format, "files": self.files, "warnings": self.warnings}
        return Checkpoint(variables, **kept)  # type: ignore[arg-type]

    @cached_property
    def object_graph(self) -> ObjectGraph | None:
        """The objects that the variables belonged to; None for a checkpoint of TensorFlow 1, which has none.

        Raises:
            CorruptionError: it is damaged, or its data file is missing.
        """
        variable = self._variables.get(OBJECT_GRAPH_KEY)
        if variable is None or variable.dtype.name != "string" or variable.shape != ():
            return None
        with located(self.path, variable.name):
            return ObjectGraph(variable.strings()[0])

    def __getitem__(self, name: str) -> Variable:
        try:
            return self._variables[name]
        except KeyError:
            near = get_close_matches(name, self._variables, 3) if len(self) < 10_000 else []
            raise NotFoundError(
                f"Key {name} not found in checkpoint",
                path=self.path,
                hint=f"near names: {', '.join(near)}" if near else None,
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"Checkpoint({self.path!r}, {self.format}, {len(self)} variables)"


def tiling_fault(shape: tuple[int, ...], boxes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """What keeps boxes (start, shape) from covering an array of `shape` once and only once; None if nothing.

    Every box adds +1 or -1 at each of its corners, by the number of far sides that meet there. Two sets of boxes
    cover the same elements the same number of times exactly if these sums agree at every point: one pass,
    however many boxes there are. Dimensions in which every box spans the array cancel out, and are left alone.

    Raises:
        NotSupportedError: so many dimensions are cut that the corners can't be counted.
    """
    for start, extent in boxes:
        if len(start) != len(shape) or any(
            s < 0 or n < 0 or s + n > d for s, n, d in zip(start, extent, shape, strict=True)
        ):
            return f"slice {list(start)} + {list(extent)} is outside the shape {list(shape)}"
    covered, wanted = sum(prod(extent) for _, extent in boxes), prod(shape)
    if covered < wanted:
        return f"does not have sufficient slices: {covered:,} of {wanted:,} elements"
    if covered > wanted:
        return f"overlapping slices: {covered:,} elements for {wanted:,}"
    if not wanted:
        return None
    cut = [d for d in range(len(shape)) if any(extent[d] != shape[d] for _, extent in boxes)]
    if len(boxes) << len(cut) > _MAX_CORNERS:
        raise NotSupportedError(f"{len(boxes)} slices along {len(cut)} dimensions")
    corners: Counter[tuple[int, ...]] = Counter()
    for sign, start, extent in [(-1, (0,) * len(shape), shape), *((1, *box) for box in boxes)]:
        for far in product((0, 1), repeat=len(cut)):
            corners[tuple(start[d] + f * extent[d] for d, f in zip(cut, far, strict=True))] += sign * (-1) ** sum(far)
    return "overlapping slices, and as many elements missing" if any(corners.values()) else None


def subdivide(start: tuple[int, ...], shape: tuple[int, ...], limit: int) -> Iterator[Selection]:
    """Cuts the box into boxes of at most `limit` elements, in row-major order, each a contiguous run of it."""
    if not prod(shape):
        return
    axis = next((d for d in range(len(shape)) if prod(shape[d + 1 :]) <= limit), len(shape))
    if axis == len(shape):  # A scalar.
        yield tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        return
    rows = max(1, limit // prod(shape[axis + 1 :]))
    inner = [slice(s, s + n) for s, n in zip(start[axis + 1 :], shape[axis + 1 :], strict=True)]
    for outer in product(*(range(s, s + n) for s, n in zip(start[:axis], shape[:axis], strict=True))):
        first, end = start[axis], start[axis] + shape[axis]
        for row in range(first, end, rows):
            yield (*(slice(i, i + 1) for i in outer), slice(row, min(row + rows, end)), *inner)
