"""Strings as HDF5 has them: of a fixed width, or references into the global heap."""

from collections.abc import Iterator
from math import prod
from typing import Any

from ckpttool import storage
from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.chunks import chunks_of, filters_of
from ckpttool.formats.hdf5.heap import GlobalHeap
from ckpttool.model.boxes import shape_of, subdivide
from ckpttool.model.checkpoint import BLOCK_SIZE


def is_of_heap(dataset: Any) -> bool:
    """Whether the values are references to the heap."""
    from h5py import h5t

    stored = dataset.get_type()
    return bool(stored.get_class() == h5t.VLEN or (stored.get_class() == h5t.STRING and stored.is_variable_str()))


def require_references(dataset: Any) -> None:
    """Raises NotSupportedError unless `references` can read them."""
    from h5py import h5d, h5z

    layout = dataset.get_create_plist()
    if layout.get_layout() == h5d.COMPACT or h5z.FILTER_LZF in {code for code, *_ in filters_of(dataset)}:
        raise NotSupportedError("strings of variable length are read only contiguous, or in chunks plain or deflated")


def fixed_strings(dataset: Any) -> Iterator[bytes]:
    """The values of a dataset of strings of a fixed width, without what pads them."""
    import numpy as np
    from h5py import h5s, h5t

    shape, dtype = dataset.shape, dataset.dtype
    for box in subdivide((0,) * len(shape), shape, max(1, BLOCK_SIZE // dtype.itemsize)):
        values = np.empty(shape_of(box), dtype)
        space = dataset.get_space()
        if box:
            space.select_hyperslab(tuple(s.start for s in box), values.shape)
        memory = h5s.create_simple(values.shape) if box else h5s.create(h5s.SCALAR)
        dataset.read(memory, space, values, h5t.py_create(dtype))
        yield from map(bytes, values.ravel().tolist())


def heap_strings(path: str, dataset: Any, heap: GlobalHeap) -> list[bytes]:
    """The values of a dataset of strings of variable length, or of sequences of uint8.

    Raises:
        CorruptionError: a reference leads nowhere.
    """
    from h5py import h5d, h5t

    is_contiguous = dataset.get_create_plist().get_layout() == h5d.CONTIGUOUS
    read = _contiguous_references if is_contiguous else _chunked_references
    values = heap.values(read(path, dataset, heap.reference_size))
    if dataset.get_type().get_class() == h5t.VLEN:
        return values
    return [value.partition(b"\0")[0] for value in values]  # As in C.


def _contiguous_references(path: str, dataset: Any, size: int) -> bytes:
    nbytes = prod(dataset.shape) * size
    offset = dataset.get_offset()
    if offset is None:  # Never written.
        return bytes(nbytes)
    data = storage.read_range(path, offset, nbytes)
    if len(data) != nbytes:
        raise CorruptionError(f"the file ends after {len(data):,} of {nbytes:,} bytes", offset=offset)
    return data


def _chunked_references(path: str, dataset: Any, size: int) -> bytes:
    import numpy as np

    shape, chunk = dataset.shape, dataset.get_create_plist().get_chunk()
    array = np.zeros(shape, f"V{size}")
    for offset, data in chunks_of(path, dataset, size):
        where = tuple(slice(o, min(o + c, n)) for o, c, n in zip(offset, chunk, shape, strict=True))
        array[where] = np.frombuffer(data, array.dtype).reshape(chunk)[tuple(slice(s.stop - s.start) for s in where)]
    return array.tobytes()
