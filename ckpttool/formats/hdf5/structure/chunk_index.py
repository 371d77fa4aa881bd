"""Where the chunks of a dataset are, whichever index it has.

Chunks are numbered in row-major order: a dataset of 5 x 7 elements in chunks of 2 x 4 has 3 x 2 of them, and the one at
(4, 4) is number 5. An index without places counts the chunks of the largest shape that the dataset may get: a fixed
array has an element for each of these, and for an extensible array, the dimension without a limit comes first.

    old tree, tree           a record for each chunk, with its place in the dataset
    fixed, extensible array  an element for each chunk, at its number
    implicit                 no index: the chunks are stored one after another
    single                   no index: there is only one chunk

(Appendix C: Types of Indexes for Dataset Chunks; III.A. B-trees and B-tree Nodes)
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.extensible_array import extensible_array
from ckpttool.formats.hdf5.structure.file import File
from ckpttool.formats.hdf5.structure.fixed_array import Elements, fixed_array
from ckpttool.formats.hdf5.structure.layout import (
    EXTENSIBLE_ARRAY,
    FIXED_ARRAY,
    IMPLICIT,
    OLD_TREE,
    SINGLE,
    TREE,
)
from ckpttool.formats.hdf5.structure.objects import Dataset
from ckpttool.formats.hdf5.structure.trees import CHUNKS as OLD_CHUNKS
from ckpttool.formats.hdf5.structure.trees import leaves
from ckpttool.formats.hdf5.structure.trees2 import CHUNKS, FILTERED_CHUNKS, nodes, read_tree

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, Any]

_MAX_CHUNKS = 1 << 62


class Index(NamedTuple):
    """The chunks that are stored, in the order of their numbers.

    Attributes:
        numbers: their numbers.
        addresses: where they are.
        sizes: how many bytes they have there.
        masks: which filters they did not go through, a bit for each.
    """

    numbers: "Numbers"
    addresses: "Numbers"
    sizes: "Numbers"
    masks: "Numbers"


def grid_of(shape: Sequence[int], chunk: Sequence[int]) -> tuple[int, ...]:
    """How many chunks there are in each dimension."""
    return tuple(-(-size // step) for size, step in zip(shape, chunk, strict=True))


def read_index(file: File, dataset: Dataset) -> Index:
    """The chunks of a dataset that are stored.

    Raises:
        CorruptionError: the index is damaged.
        NotSupportedError: there are more chunks than can be counted.
    """
    import numpy as np

    count = prod(grid_of(dataset.shape, dataset.layout.chunk))
    if count > _MAX_CHUNKS:
        raise NotSupportedError(f"a shape of {list(dataset.shape)} in chunks of {list(dataset.layout.chunk)}")
    is_there = count and dataset.layout.address is not None
    parts = list(_READERS[dataset.layout.indexed_by](file, dataset)) if is_there else []
    if not parts:
        return Index(*(np.zeros(0, np.int64) for _ in range(4)))
    numbers, addresses, sizes, masks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    # Sound chunks do not overlap.
    if sizes.astype(np.float64).sum() > file.size:
        raise CorruptionError("its chunks take more than there is in the file")
    order = np.argsort(numbers, kind="stable")
    return Index(numbers[order], addresses[order], sizes[order].astype(np.int64), masks[order])


def _chunk_bytes(dataset: Dataset) -> int:
    """The bytes of a chunk; if no file can have so many, a number that still fits 64 bits."""
    return min(prod(dataset.layout.chunk) * dataset.datatype.size, _MAX_CHUNKS)


# Indexes with records


def _old_tree(file: File, dataset: Dataset) -> Iterator[Index]:
    import numpy as np

    rank, width = len(dataset.shape), file.sizes.address
    record = np.dtype([("size", "<u4"), ("mask", "<u4"), ("place", "<u8", (rank + 1,)), ("address", f"<u{width}")])
    chunk = np.array(dataset.layout.chunk, np.uint64)
    for entries, count in leaves(file, dataset.layout.address or 0, OLD_CHUNKS, record.itemsize - width):
        found = np.frombuffer(entries, record, count)
        places = found["place"][:, :rank]
        if (places % chunk).any() or found["place"][:, rank].any():
            raise CorruptionError("a chunk that begins within another")
        numbers = _numbers(places // chunk, grid_of(dataset.shape, dataset.layout.chunk))
        yield Index(numbers, found["address"].astype(np.uint64), found["size"].astype(np.uint64), found["mask"])


def _tree(file: File, dataset: Dataset) -> Iterator[Index]:
    import numpy as np

    rank, width = len(dataset.shape), file.sizes.address
    tree = read_tree(file, dataset.layout.address, (CHUNKS, FILTERED_CHUNKS))
    head = tree.record_size - 8 * rank
    _require_element(file, dataset, head, is_filtered=tree.kind == FILTERED_CHUNKS)
    for data in nodes(file, tree):
        table = np.frombuffer(data, np.uint8).reshape(-1, tree.record_size)
        places = np.ascontiguousarray(table[:, head:]).view("<u8")
        numbers = _numbers(places, grid_of(dataset.shape, dataset.layout.chunk))
        yield _stored(dataset, numbers, table[:, :head], width)


def _numbers(places: "Numbers", grid: tuple[int, ...]) -> "Numbers":
    """The numbers of chunks, given their places in the grid of chunks.

    Raises:
        CorruptionError: one is outside the dataset.
    """
    import numpy as np

    if (places >= np.array(grid, np.uint64)).any():
        raise CorruptionError("a chunk outside its dataset")
    numbers = np.zeros(len(places), np.int64)
    for dimension, size in enumerate(grid):
        numbers = numbers * size + places[:, dimension].astype(np.int64)
    return numbers


# Indexes with an element for each chunk


def _fixed(file: File, dataset: Dataset) -> Iterator[Index]:
    grid = _largest_grid(dataset)
    return _of_elements(file, dataset, fixed_array(file, dataset.layout.address or 0, prod(grid)), grid)


def _extensible(file: File, dataset: Dataset) -> Iterator[Index]:
    grid = _largest_grid(dataset)
    return _of_elements(file, dataset, extensible_array(file, dataset.layout.address or 0), grid)


def _largest_grid(dataset: Dataset) -> tuple[int, ...]:
    """How many chunks there can be in each dimension; 0: any number.

    Raises:
        CorruptionError: there are more already, or more dimensions without a limit than the index can have.
        NotSupportedError: there can be more than can be counted.
    """
    space, chunk = dataset.space, dataset.layout.chunk
    limits = tuple(0 if limit is None else limit for limit in space.limits)
    fits = all(limit is None or size <= limit for size, limit in zip(dataset.shape, space.limits, strict=True))
    if not fits or space.limits.count(None) > (dataset.layout.indexed_by == EXTENSIBLE_ARRAY):
        raise CorruptionError(f"a shape of {list(dataset.shape)}, at most {list(space.limits)}")
    grid = grid_of(limits, chunk)
    if prod(size or 1 for size in grid) > _MAX_CHUNKS:
        raise NotSupportedError(f"a shape of at most {list(space.limits)} in chunks of {list(chunk)}")
    return grid


def _of_elements(file: File, dataset: Dataset, blocks: Iterable[Elements], grid: tuple[int, ...]) -> Iterator[Index]:
    import numpy as np

    for block in blocks:
        _require_element(file, dataset, block.size, is_filtered=bool(dataset.filters))
        table = np.frombuffer(block.data, np.uint8).reshape(-1, block.size)
        if block.first + len(table) > _MAX_CHUNKS:
            raise CorruptionError(f"an element of number {block.first:,} in an index")
        found = _stored(dataset, block.first + np.arange(len(table)), table, file.sizes.address)
        yield _in_dataset(found, dataset, grid, file.sizes.address)


def _in_dataset(found: Index, dataset: Dataset, grid: tuple[int, ...], width: int) -> Index:
    """The chunks that are stored and inside the dataset's present shape, with their numbers by that shape."""
    import numpy as np

    own, numbers = grid_of(dataset.shape, dataset.layout.chunk), found.numbers
    # Where one dimension has no limit, it is in front of the others.
    order = sorted(range(len(grid)), key=lambda dimension: grid[dimension] != 0)
    places: dict[int, Numbers] = {}
    for dimension in reversed(order[1:]):
        numbers, places[dimension] = np.divmod(numbers, grid[dimension])
    places[order[0]] = numbers
    there = found.addresses != (1 << 8 * width) - 1
    numbers = np.zeros_like(found.numbers)
    for dimension, size in enumerate(own):
        there &= places[dimension] < size
        numbers = numbers * size + places[dimension]
    return Index(*(array[there] for array in (numbers, *found[1:])))


def _require_element(file: File, dataset: Dataset, nbytes: int, *, is_filtered: bool) -> None:
    """Raises CorruptionError unless an index of this dataset can have so many bytes for each chunk."""
    least = file.sizes.address + (5 if is_filtered else 0)
    if not least <= nbytes <= (least + 7 if is_filtered else least) or is_filtered != bool(dataset.filters):
        raise CorruptionError(f"an index with {nbytes} bytes for each chunk")


def _stored(dataset: Dataset, numbers: "Numbers", table: "Numbers", width: int) -> Index:
    """The chunks, given a row of bytes for each: the address and, if chunks are filtered, size and mask."""
    import numpy as np

    addresses = _column(table[:, :width])
    if not dataset.filters:
        sizes = np.full(len(table), _chunk_bytes(dataset), np.uint64)
        return Index(numbers, addresses, sizes, np.zeros(len(table), np.uint32))
    return Index(numbers, addresses, _column(table[:, width:-4]), _column(table[:, -4:]).astype(np.uint32))


def _column(table: "Numbers") -> "Numbers":
    """The number in each row of bytes."""
    import numpy as np

    wide = np.zeros((len(table), 8), np.uint8)
    wide[:, : table.shape[1]] = table
    return wide.view("<u8")[:, 0]


# No index


def _single(file: File, dataset: Dataset) -> Iterator[Index]:
    import numpy as np

    size, mask = dataset.layout.single or (_chunk_bytes(dataset), 0)
    if prod(grid_of(dataset.shape, dataset.layout.chunk)) == 1:
        found = (np.array([number], np.uint64) for number in (dataset.layout.address or 0, size, mask))
        yield Index(np.zeros(1, np.int64), *found)


def _implicit(file: File, dataset: Dataset) -> Iterator[Index]:
    import numpy as np

    grid, nbytes, address = _largest_grid(dataset), _chunk_bytes(dataset), dataset.layout.address or 0
    count = prod(grid)
    if count * nbytes > file.size:
        raise CorruptionError(f"{count:,} chunks of {nbytes:,} bytes, more than the file has")
    numbers = np.arange(count)
    addresses = np.uint64(address) + numbers.astype(np.uint64) * np.uint64(nbytes)
    sizes, masks = np.full(count, nbytes, np.uint64), np.zeros(count, np.uint32)
    yield _in_dataset(Index(numbers, addresses, sizes, masks), dataset, grid, file.sizes.address)


_READERS: dict[int, Callable[[File, Dataset], Iterator[Index]]] = {
    OLD_TREE: _old_tree,
    SINGLE: _single,
    IMPLICIT: _implicit,
    FIXED_ARRAY: _fixed,
    EXTENSIBLE_ARRAY: _extensible,
    TREE: _tree,
}
