"""Chunks of datasets, and the filters that they went through.

HDF5 does not mind a chunk that is shorter than its dataset says, plain or decompressed: it gives the rest of its
buffer for values, and so whatever was in this process' memory. So each is measured before HDF5 reads it.

(H5D__chunk_lock in H5Dchunk.c; for LZF, lzf/lzf_d.c in h5py)
"""

import zlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from ckpttool import storage
from ckpttool.errors import CorruptionError


def _codes() -> tuple[int, int, int, int]:
    from h5py import h5z

    return h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF


def filters_of(dataset: Any) -> list[Any]:
    """The filters of a dataset, in the order in which values go through them: (code, flags, values, name)."""
    layout = dataset.get_create_plist()
    return [layout.get_filter(number) for number in range(layout.get_nfilters())]


def is_known(code: int) -> bool:
    """Whether what comes out of a filter can be measured."""
    return code in _codes()


def require_whole(path: str, dataset: Any) -> None:
    """Raises CorruptionError unless as much is stored of the dataset as HDF5 is going to read."""
    from h5py import h5d

    layout, itemsize = dataset.get_create_plist(), dataset.get_type().get_size()
    if layout.get_layout() == h5d.CHUNKED:
        for _ in chunks_of(path, dataset, itemsize, stored_whole=prod(layout.get_chunk()) * itemsize):
            pass
    elif dataset.get_storage_size() not in (0, prod(dataset.shape) * itemsize):
        stored, nbytes = dataset.get_storage_size(), prod(dataset.shape) * itemsize
        raise CorruptionError(f"{stored:,} bytes are stored for {nbytes:,}")


def chunks_of(
    path: str, dataset: Any, itemsize: int, *, stored_whole: int | None = None
) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """The chunks of a dataset that are stored, each with its place; LZF is measured, and not undone.

    Args:
        path: the file.
        dataset: the dataset.
        itemsize: bytes of an element.
        stored_whole: pass over those that went through no filter and have so many bytes.

    Raises:
        CorruptionError: one is not as long as the dataset says.
    """
    limit, filters = storage.file_size(path), filters_of(dataset)
    nbytes = prod(dataset.get_create_plist().get_chunk()) * itemsize
    chunks: list[Any] = []
    dataset.chunk_iter(chunks.append)
    for info in chunks:
        if info.size > limit or any(o >= n for o, n in zip(info.chunk_offset, dataset.shape, strict=True)):
            raise CorruptionError(f"a chunk of {info.size:,} bytes at {info.chunk_offset}")
        if info.size == stored_whole and all(info.filter_mask >> number & 1 for number in range(len(filters))):
            continue
        mask, data = dataset.read_direct_chunk(info.chunk_offset)
        yield info.chunk_offset, _unfiltered(data, filters, mask, nbytes)


def _unfiltered(data: bytes, filters: Sequence[Any], mask: int, nbytes: int) -> bytes:
    """A chunk as it was before it went through the filters, but for those that the mask says were left out."""
    import numpy as np

    deflate, shuffle, fletcher32, lzf = _codes()
    for number, (code, _, values, _) in reversed(list(enumerate(filters))):
        if mask >> number & 1:
            continue
        if code == deflate:
            try:
                data = zlib.decompressobj().decompress(data, nbytes + 4)
            except zlib.error as error:
                raise CorruptionError(f"a chunk can't be decompressed: {error}") from error
        elif code == fletcher32:
            data = data[:-4]
        elif code == lzf:
            data = bytes(min(_lzf_size(data, nbytes), nbytes + 1))
        elif code == shuffle and values and values[0] and len(data) % values[0] == 0:
            data = np.frombuffer(data, np.uint8).reshape(values[0], -1).T.tobytes()
    if len(data) != nbytes:
        raise CorruptionError(f"a chunk of {len(data):,} bytes, not {nbytes:,}")
    return data


def _lzf_size(data: bytes, most: int) -> int:
    """The bytes that an LZF stream stands for: a run of n + 1 bytes, or a copy of n + 2 bytes of what came before."""
    position, size, end = 0, 0, len(data)
    while position < end and size <= most:
        control = data[position]
        if control < 32:
            position, size = position + control + 2, size + control + 1
        elif control < 224:
            position, size = position + 2, size + (control >> 5) + 2
        else:
            position, size = position + 3, size + (data[position + 1] if position + 1 < end else 0) + 9
    return size if position == end else 0
