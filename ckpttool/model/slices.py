"""The pieces that a variable is stored in, and where their bytes lie."""

from typing import NamedTuple

from ckpttool.model.boxes import Extents, Selection, selection


class ByteRange(NamedTuple):
    """A run of bytes in a file, with the CRC-32C that it should have (None: not known)."""

    path: str
    offset: int
    nbytes: int
    crc32c: int | None


class Slice(NamedTuple):
    """A piece of a variable, all of it if it is not partitioned.

    Attributes:
        start, shape: where it starts in each dimension, and how far it goes.
        shard: the number of the file it is stored in.
        data: where its bytes lie.
        position: its place among what is stored in that shard: a writer keeps the order.
        extents: the box as it is stored; None if it is stored as a variable of its own, not as a slice.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    shard: int
    data: ByteRange
    position: int = 0
    extents: Extents | None = None

    @property
    def box(self) -> Selection:
        """Where it lies, as an index of the whole array: a slice for each dimension."""
        return selection(self.start, self.shape)


def whole_slice(shape: tuple[int, ...], data: ByteRange, shard: int = 0, position: int = 0) -> Slice:
    """The one piece of a variable of this shape that is not partitioned."""
    return Slice((0,) * len(shape), shape, shard, data, position)
