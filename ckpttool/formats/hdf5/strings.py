"""Strings as HDF5 has them: of a fixed width, or references into the global heap."""

from collections.abc import Iterator

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.chunks import values_of
from ckpttool.formats.hdf5.structure import Dataset, opened
from ckpttool.formats.hdf5.structure.datatype import NULL_TERMINATED, SPACE_PADDED
from ckpttool.formats.hdf5.structure.global_heap import GlobalHeap
from ckpttool.model.boxes import subdivide
from ckpttool.model.variable import BLOCK_SIZE


def strings_of(path: str, dataset: Dataset) -> list[bytes]:
    """The values of a dataset of strings, or of sequences of uint8, in row-major order.

    Raises:
        CorruptionError: they are damaged.
    """
    return _heap_strings(path, dataset) if dataset.datatype.is_of_heap else list(_fixed_strings(path, dataset))


def _fixed_strings(path: str, dataset: Dataset) -> Iterator[bytes]:
    width, (padding,) = dataset.datatype.size, dataset.datatype.details
    for data in _elements(path, dataset):
        for start in range(0, len(data), width):
            yield unpadded(data[start : start + width], padding)


def unpadded(data: bytes, padding: int) -> bytes:
    """A string of fixed width, without its padding."""
    if padding == NULL_TERMINATED:
        return data.partition(b"\0")[0]
    return (data.rstrip(b" ") if padding == SPACE_PADDED else data).rstrip(b"\0")


def _elements(path: str, dataset: Dataset) -> Iterator[bytes]:
    limit = max(1, BLOCK_SIZE // dataset.datatype.size)
    with values_of(path, dataset) as box:
        for part in subdivide((0,) * len(dataset.shape), dataset.shape, limit):
            yield box(part).tobytes()


def _heap_strings(path: str, dataset: Dataset) -> list[bytes]:
    with opened(path) as file:
        heap = GlobalHeap(path, *file.sizes, file.base)
    if heap.reference_size != dataset.datatype.size:
        raise CorruptionError(f"references of {dataset.datatype.size} bytes, not {heap.reference_size}")
    values = heap.values(b"".join(_elements(path, dataset)))
    if not dataset.datatype.is_text:
        return values
    return [value.partition(b"\0")[0] for value in values]  # As in C.
