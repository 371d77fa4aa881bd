"""The data layout message: where the values of a dataset are.

    03 | 00 | 08 00 | …                                 version 3, compact: 8 bytes, which follow
    03 | 01 | 00 08 00 00 … | 18 00 00 00 …             contiguous: at 0x800, 24 bytes
    03 | 02 | 03 | 50 05 … | 02 … | 04 … | 08 00 00 00  chunked: 3 dimensions, the bytes of an element being the last;
                                                        a B-tree at 0x550; chunks of 2 x 4 elements of 8 bytes
    04 | 02 | 00 | 03 | 01 | 02 04 08 | 03 | 0a | …     version 4, chunked: flags, 3 dimensions of 1 byte each: 2 x 4 of
                                                        8 bytes; index 3, a fixed array, its page bits; its address

Versions 1 and 2 have the same in another order. Version 5 is as version 4; only its indexes have 8 bytes for the size
of a filtered chunk. (IV.A.2.i. The Data Layout Message)
"""

from typing import NamedTuple

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
# The kinds of indexes of chunks; 0 is the only one before version 4.
OLD_TREE, SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, TREE = range(6)
_MAX_RANK = 33
# How many bytes the message has for each index besides its address; the index's own header repeats them.
_REPEATED = {IMPLICIT: 0, FIXED_ARRAY: 1, EXTENSIBLE_ARRAY: 5, TREE: 6}
_PLAIN_EDGES, _FILTERED_SINGLE = 1, 2


class Layout(NamedTuple):
    """Where values are.

    Attributes:
        kind: compact, contiguous, chunked or virtual.
        address: of the values, or of the chunks' index; None if there are none yet.
        nbytes: how many bytes contiguous values take; None if that is not said.
        data: the bytes of compact values.
        chunk: the shape of a chunk.
        itemsize: bytes of an element in a chunk.
        indexed_by: the kind of the chunks' index.
        single: if the only chunk is filtered, its size in bytes and which filters it did not go through.
        has_plain_edges: chunks that go beyond the dataset are not filtered.
    """

    kind: int
    address: int | None = None
    nbytes: int | None = None
    data: bytes = b""
    chunk: tuple[int, ...] = ()
    itemsize: int = 0
    indexed_by: int = OLD_TREE
    single: tuple[int, int] | None = None
    has_plain_edges: bool = False


def decode_layout(cursor: Cursor) -> Layout:
    """Reads the message.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a kind that is not known.
    """
    version = cursor.number(1)
    if version in (1, 2):
        return _old(cursor)
    kind = cursor.number(1)
    if version not in (3, 4, 5) or kind > VIRTUAL or (kind == VIRTUAL and version == 3):
        raise NotSupportedError(f"a layout of version {version}, class {kind}", offset=cursor.offset)
    if kind == COMPACT:
        return Layout(kind, data=cursor.take(cursor.number(2)))
    if kind == CONTIGUOUS:
        return Layout(kind, cursor.address(), cursor.length())
    if kind == VIRTUAL:
        return Layout(kind)
    return _chunked(cursor) if version == 3 else _indexed(cursor)


def _old(cursor: Cursor) -> Layout:
    rank, kind = cursor.number(1), cursor.number(1)
    cursor.skip(5)
    address = cursor.address() if kind != COMPACT else None
    sizes = [cursor.number(4) for _ in range(rank)]
    if kind == COMPACT:
        return Layout(kind, data=cursor.take(cursor.number(4)))
    if kind == CONTIGUOUS:
        return Layout(kind, address)
    if kind != CHUNKED:
        raise NotSupportedError(f"a layout of class {kind}", offset=cursor.offset)
    return _of_chunks(cursor, address, sizes)


def _chunked(cursor: Cursor) -> Layout:
    rank, address = cursor.number(1), cursor.address()
    return _of_chunks(cursor, address, [cursor.number(4) for _ in range(rank)])


def _of_chunks(cursor: Cursor, address: int | None, sizes: list[int]) -> Layout:
    if not 2 <= len(sizes) <= _MAX_RANK or not all(sizes):
        raise CorruptionError(f"chunks of {sizes[:-1]} elements of {sizes[-1:]} bytes", offset=cursor.offset)
    return Layout(CHUNKED, address, chunk=tuple(sizes[:-1]), itemsize=sizes[-1])


def _indexed(cursor: Cursor) -> Layout:
    flags, rank, width = cursor.number(1), cursor.number(1), cursor.number(1)
    if not 1 <= width <= 8:
        raise CorruptionError(f"sizes of {width} bytes", offset=cursor.here)
    sizes = [cursor.number(width) for _ in range(rank)]
    index = cursor.number(1)
    single = None
    if index == SINGLE and flags & _FILTERED_SINGLE:
        single = cursor.length(), cursor.number(4)
    elif index != SINGLE:
        if index not in _REPEATED:
            raise NotSupportedError(f"chunks with an index of type {index}", offset=cursor.here)
        cursor.skip(_REPEATED[index])
    layout = _of_chunks(cursor, cursor.address(), sizes)
    return layout._replace(indexed_by=index, single=single, has_plain_edges=bool(flags & _PLAIN_EDGES))
