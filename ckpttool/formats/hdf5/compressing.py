"""Writes values in chunks that go through filters, which `filters` undoes.

A chunk is a run of consecutive values: all of the last dimensions, a part of the dimension before these, and one step
of each earlier one. So values are cut as they come, with a few chunks in memory, and several threads compress.

    (1000, 300, 300) of float32   chunks of (1, 150, 300): 180,000 bytes
    (5_000_000,) of float32       chunks of (64_936,): 259,744 bytes
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import product
from math import prod
from threading import Lock
from typing import NamedTuple

from ckpttool.analysis.parallel import parallel_map
from ckpttool.formats.contents import content_of
from ckpttool.formats.hdf5.encoding.output import Output
from ckpttool.formats.hdf5.encoding.trees import write_tree
from ckpttool.formats.hdf5.filters import DEFLATE, SHUFFLE
from ckpttool.formats.hdf5.structure.pipeline import Filter
from ckpttool.formats.hdf5.structure.trees import CHUNKS
from ckpttool.model.variable import Variable

# Large enough to compress well, and small enough for a few to fit into the megabyte that the HDF5 library caches.
_MOST_BYTES = 1 << 18
# A node of the tree of chunks has 64 children, as in the HDF5 library.
_NODE = 64
# Chunks that are made ahead.
_AHEAD = 5
_LEVEL = 4  # h5py's


class Chunks(NamedTuple):
    """What was written: the shape of the chunks, their filters, and the address of their tree."""

    shape: tuple[int, ...]
    filters: tuple[Filter, ...]
    tree: int


def write_chunks(output: Output, variable: Variable, compression: str, progress: Callable[[int], None]) -> Chunks:
    """Compresses and writes the values of a variable that has some, in one dimension or more.

    Args:
        output: the file.
        variable: the variable.
        compression: "gzip" or "lzf".
        progress: is called with the bytes of each chunk, as they were before.

    Raises:
        CorruptionError: values are missing or damaged.
    """
    shape, itemsize = variable.shape, variable.dtype.itemsize
    assert itemsize
    axis, steps = _cut(shape, itemsize)
    chunk = (*(1,) * axis, steps, *shape[axis + 1 :])
    nbytes = prod(chunk) * itemsize
    compress, described = _deflating() if compression == "gzip" else _lzf(nbytes)

    def filtered(data: bytes) -> tuple[int, int, bytes]:
        shuffled = _shuffled(data.ljust(nbytes, b"\0"), itemsize)
        smaller = compress(shuffled)
        return (len(data), 0, smaller) if len(smaller) < nbytes else (len(data), 0b10, shuffled)

    step = nbytes // steps
    places = list(_places(shape, axis, steps))
    pieces = _pieces(content_of(variable).chunks(), (min(steps, shape[axis] - place[axis]) * step for place in places))
    # A single chunk is not worth a thread.
    made = parallel_map(filtered, pieces, ahead=_AHEAD) if len(places) > 1 else map(filtered, pieces)
    key = struct.Struct(f"<II{len(shape) + 1}Q")
    keys, children = [], []
    for place, (size, mask, data) in zip(places, made, strict=True):
        keys.append(key.pack(len(data), mask, *place, 0))
        children.append(output.append(data))
        progress(size)
    # After the last chunk, and before any that could follow.
    keys.append(key.pack(0, 0, *places[-1], itemsize))
    filters = Filter(SHUFFLE, b"shuffle", (itemsize,)), described
    return Chunks(chunk, filters, write_tree(output, CHUNKS, _NODE, keys, children))


def _cut(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """The dimension that is cut (the first whose steps are small enough), and the number of its steps in a chunk."""
    axis, step = len(shape) - 1, itemsize
    while axis and step * shape[axis] <= _MOST_BYTES:
        step *= shape[axis]
        axis -= 1
    pieces = -(-shape[axis] // max(1, _MOST_BYTES // step))
    return axis, -(-shape[axis] // pieces)  # All chunks are about equally large.


def _places(shape: tuple[int, ...], axis: int, steps: int) -> Iterator[tuple[int, ...]]:
    """Where chunks begin, in the order of the values."""
    behind = (0,) * (len(shape) - axis - 1)
    for before in product(*map(range, shape[:axis])):
        for start in range(0, shape[axis], steps):
            yield (*before, start, *behind)


def _pieces(chunks: Iterable[memoryview], sizes: Iterable[int]) -> Iterator[bytes]:
    """The bytes of some pieces, cut into others; reads to the end, where they are checked."""
    left, rest = iter(chunks), memoryview(b"")
    for size in sizes:
        piece = bytearray()
        while len(piece) < size:
            rest = rest or next(left)
            wanted = size - len(piece)
            piece += rest[:wanted]
            rest = rest[wanted:]
        yield bytes(piece)
    for _ in left:
        pass


def _shuffled(data: bytes, itemsize: int) -> bytes:
    """The first bytes of all elements, then the second ones, …"""
    import numpy as np

    if itemsize == 1:
        return data
    rows = np.frombuffer(data, np.uint8).reshape(-1, itemsize)
    columns = np.empty((itemsize, len(rows)), np.uint8)
    for number, column in enumerate(columns):  # Many times faster than NumPy transposes.
        column[:] = rows[:, number]
    return columns.tobytes()


_Compress = Callable[[bytes], bytes]


def _deflating() -> tuple[_Compress, Filter]:
    return partial(zlib.compress, level=_LEVEL), Filter(DEFLATE, b"deflate", (_LEVEL,))


def _lzf(nbytes: int) -> tuple[_Compress, Filter]:
    """LZF for chunks of so many bytes: h5py's, through chunks of a file in memory."""
    import h5py

    file = h5py.File("chunks", "w", driver="core", backing_store=False)
    chunk = file.create_dataset("chunk", (nbytes,), "u1", chunks=(nbytes,), compression="lzf")
    code, _, values, name = chunk.id.get_create_plist().get_filter(0)
    lock = Lock()

    def compress(data: bytes) -> bytes:
        import numpy as np

        with lock:
            chunk[:] = np.frombuffer(data, np.uint8)
            return bytes(chunk.id.read_direct_chunk((0,))[1])

    return compress, Filter(code, name, values)
