"""Fixed arrays: an index of chunks for datasets that can't grow without end, with an address for each chunk.

    46 41 48 44 | 00 | 00 | 08 | 0a          "FAHD", version, kind (1: of chunks that went through filters); bytes of an
                                             element; in a page there are 2 to the 10 elements
    06 00 … | 2b 02 … | …                    elements, the block with them; checksum

    46 41 44 42 | 00 | 00 | 0b 02 …          "FADB", version, kind, the header
    00 08 … | 40 08 … | …                    the elements; checksum

If there are more elements than fit a page, they are in pages behind the block's checksum, each with a checksum of its
own. Before the block's checksum then stands a bit for each page, the highest first, that says whether the page was ever
written. An element is the address of a chunk and, if chunks are filtered, the chunk's size in bytes and the filters
that it did not go through.

(Appendix C: Types of Indexes for Dataset Chunks, The Fixed Array Index)
"""

from collections.abc import Iterator
from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File

_MAX_PAGE_BITS = 32


class Elements(NamedTuple):
    """Elements one after another: the number of the first, how many bytes each has, and the bytes of all."""

    first: int
    size: int
    data: bytes


def fixed_array(file: File, address: int, count: int) -> Iterator[Elements]:
    """The elements that were written; the array should have `count` in all.

    Raises:
        CorruptionError: the array is damaged, or has another number of elements.
    """
    cursor = file.signed(address, 12 + file.sizes.length + file.sizes.address, b"FAHD")
    cursor.skip(1)
    size, page_bits, found, block = cursor.number(1), cursor.number(1), cursor.length(), cursor.address()
    require_checksum(cursor.data, cursor.offset)
    if found != count or page_bits > _MAX_PAGE_BITS or not size:
        raise CorruptionError(f"an array of {found:,} elements for {count:,} chunks", offset=cursor.offset)
    if block is None:
        return
    before = 6 + file.sizes.address
    if count <= 1 << page_bits:
        yield Elements(0, size, checked(file, block, before + count * size, b"FADB").data[before:-4])
    else:
        yield from _paged(file, block, before, count, size, 1 << page_bits)


def _paged(file: File, block: int, before: int, count: int, size: int, in_page: int) -> Iterator[Elements]:
    pages = -(-count // in_page)
    before += -(-pages // 8)
    bits = checked(file, block, before, b"FADB").data[6 + file.sizes.address : -4]
    for number in range(pages):
        if bits[number // 8] & 0x80 >> number % 8:
            place = block + before + 4 + number * (in_page * size + 4)
            here = min(in_page, count - number * in_page)
            yield Elements(number * in_page, size, page(file, place, here * size))


def checked(file: File, address: int | None, nbytes: int, signature: bytes) -> Cursor:
    """A block of so many bytes and a checksum; the cursor is behind its signature and version.

    Raises:
        CorruptionError: there is no such block, or it is damaged.
    """
    cursor = file.signed(address, nbytes + 4, signature)
    require_checksum(cursor.data, cursor.offset)
    return cursor


def page(file: File, address: int, nbytes: int) -> bytes:
    """So many bytes of a page's elements, which a checksum follows; raises CorruptionError if that does not match."""
    data = file.structure(address, nbytes + 4)
    require_checksum(data, file.base + address)
    return data[:-4]
