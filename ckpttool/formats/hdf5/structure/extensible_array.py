"""Extensible arrays: an index of chunks for datasets that can grow without end in one dimension.

The first elements are in the index block itself, the others in data blocks, which become ever larger. The index block
has the addresses of the first data blocks, and of secondary blocks, which have those of all other data blocks. HDF5
makes arrays with 4 elements in the index block, 16 in the smallest data block, and 4 addresses in the smallest
secondary block:

    elements 0-3 …19 …51 …83 …115 …179 …        in the index block; in data blocks of 16, 32, 32, 32, 64, …
    Data blocks come in groups: group u has 2 to the u // 2 blocks, each of 2 to the (u + 1) // 2 times 16 elements.
    From u = 4 on (2 log2 4), a group has a secondary block.

    45 41 48 44 | 00 | 00 | 08 | 20             "EAHD", version, kind, bytes of an element, bits of its number
    04 | 10 | 04 | 0a | …                       the 4, the 16 and the 4 of above; 2 to the 10 elements in a page
    … | 15 00 … | … | 53 04 … | …               numbers of blocks; elements so far; …; the index block; checksum

    45 41 49 42 | 00 | 00 | 0b 04 … | …         "EAIB": version, kind, header; elements, addresses; checksum
    45 41 53 42 | 00 | 00 | 0b 04 … | f0 00 …   "EASB": …, its first element; bits of pages, addresses; checksum
    45 41 44 42 | 00 | 00 | 0b 04 … | 30 00 …   "EADB": …, its first element; elements; checksum
                                                (first elements are counted without those in the index block)

A data block with more elements than fit a page has pages behind its checksum, like the block of a fixed array; the bits
that say which pages were written are in the secondary block. An element is the same as in a fixed array.

(Appendix C: Types of Indexes for Dataset Chunks, The Extensible Array Index)
"""

from collections.abc import Iterator
from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.fixed_array import Elements, checked, page


class _Header(NamedTuple):
    """How the array is built: bytes of an element, bits of its number, the 4, 16, 4 and 10 above; its index block."""

    size: int
    bits: int
    in_index: int
    smallest: int
    addresses: int
    page_bits: int
    index_block: int | None


class _Group(NamedTuple):
    """Data blocks of one size: how many, how many elements each has, and the number of the first element."""

    blocks: int
    elements: int
    first: int


def extensible_array(file: File, address: int) -> Iterator[Elements]:
    """The elements that were written.

    Raises:
        CorruptionError: it is damaged.
    """
    header = _header(file, address)
    if header.index_block is None:
        return
    groups = _groups(header)
    # The first groups, so many, have no secondary block.
    plain = min(len(groups), 2 * (header.addresses.bit_length() - 1))
    blocks, secondary = sum(group.blocks for group in groups[:plain]), len(groups) - plain
    width, own = file.sizes.address, header.in_index * header.size
    cursor = checked(file, header.index_block, 6 + width + own + (blocks + secondary) * width, b"EAIB")
    cursor.skip(1 + width)
    yield Elements(0, header.size, cursor.take(own))
    for group in groups[:plain]:
        yield from _blocks(file, header, group, cursor, b"")
    for group in groups[plain:]:
        place = cursor.address()
        if place is not None:
            yield from _secondary(file, header, group, place)


def _header(file: File, address: int) -> _Header:
    cursor = file.signed(address, 16 + 6 * file.sizes.length + file.sizes.address, b"EAHD")
    cursor.skip(1)
    numbers = [cursor.number(1) for _ in range(6)]
    cursor.skip(6 * file.sizes.length)
    index_block = cursor.address()
    require_checksum(cursor.data, cursor.offset)
    size, bits, in_index, smallest, addresses, page_bits = numbers
    powers = all(number and not number & number - 1 for number in (smallest, addresses))
    if not size or not powers or bits > 64 or page_bits > 32:
        raise CorruptionError("an array that can't be", offset=cursor.offset)
    return _Header(size, bits, in_index, smallest, addresses, page_bits, index_block)


def _groups(header: _Header) -> list[_Group]:
    groups, first = [], header.in_index
    for number in range(max(0, 1 + header.bits - (header.smallest.bit_length() - 1))):
        group = _Group(1 << number // 2, header.smallest << (number + 1) // 2, first)
        groups.append(group)
        first += group.blocks * group.elements
    return groups


def _secondary(file: File, header: _Header, group: _Group, place: int) -> Iterator[Elements]:
    """The blocks of a group that has a secondary block."""
    pages = group.elements >> header.page_bits
    bits = group.blocks * -(-pages // 8) if pages > 1 else 0
    before = 6 + file.sizes.address + -(-header.bits // 8)
    cursor = checked(file, place, before + bits + group.blocks * file.sizes.address, b"EASB")
    cursor.position = before
    yield from _blocks(file, header, group, cursor, cursor.take(bits))


def _blocks(file: File, header: _Header, group: _Group, cursor: Cursor, bits: bytes) -> Iterator[Elements]:
    """The elements of a group, whose data blocks' addresses come next at the cursor."""
    for number in range(group.blocks):
        place, first = cursor.address(), group.first + number * group.elements
        if place is None:
            continue
        if bits:
            yield from _pages(file, header, group, place, first, bits, number)
        else:
            before = 6 + file.sizes.address + -(-header.bits // 8)
            data = checked(file, place, before + group.elements * header.size, b"EADB").data
            yield Elements(first, header.size, data[before:-4])


def _pages(
    file: File, header: _Header, group: _Group, place: int, first: int, bits: bytes, block: int
) -> Iterator[Elements]:
    """The pages of a data block that were written; the bits of a group's blocks follow one another."""
    before = 6 + file.sizes.address + -(-header.bits // 8)
    checked(file, place, before, b"EADB")
    in_page, pages = 1 << header.page_bits, group.elements >> header.page_bits
    for number in range(pages):
        bit = block * pages + number
        if bits[bit // 8] & 0x80 >> bit % 8:
            data = page(file, place + before + 4 + number * (in_page * header.size + 4), in_page * header.size)
            yield Elements(first + number * in_page, header.size, data)
