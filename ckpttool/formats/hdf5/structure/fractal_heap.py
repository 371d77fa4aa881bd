"""Fractal heaps: links, attributes and shared messages, if there are many, each known by an ID.

The heap's space is cut into blocks, with as many in each row. The first two rows have the smallest blocks; in each row
after them, blocks are twice as large as in the row before. So an object's place in the heap tells its block. Blocks too
large to be read at once are indirect: they are cut into rows of blocks themselves.

    46 52 48 50 | 00 | 07 00 | 00 00 | 02      "FRHP", version, bytes of an ID, of filters; flags: checksums in blocks
    00 10 00 00 | …                            largest object of the heap's own space, 4,096; …
    04 00 | 00 02 … | 00 00 01 … | 20 00       blocks in a row, bytes of the smallest and largest direct block, bits
    01 00 | 4d 03 … | 00 00 | …                rows at first, the root block, its rows (0: it is direct); checksum

    46 48 44 42 | 00 | …                       "FHDB", a direct block: heap, place in the heap, checksum; objects
    46 48 49 42 | 00 | …                       "FHIB", an indirect one: heap, place; blocks' addresses; checksum

    00 | 15 00 00 00 | 1a 00                   an ID: at 21 in the heap's space, 26 bytes
    10 | 01 00 00 00 00 00 00                  a huge object, outside the heap: a tree has its place, under number 1
    22 | 61 62 63                              a tiny one, in the ID itself: 3 bytes

(III.G. Disk Format: Level 1G - Fractal Heap)
"""

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.trees2 import HUGE, records

_MANAGED, _HUGE, _TINY = range(3)
_CHECKSUMS = 2
_MAX_ROWS = 64


class FractalHeap:
    """The heap at an address.

    Raises:
        CorruptionError: there is none, or it is damaged.
        NotSupportedError: its blocks went through filters.
    """

    def __init__(self, file: File, address: int | None) -> None:
        width, length = file.sizes
        cursor = file.signed(address, 26 + 3 * width + 12 * length, b"FRHP")
        self._file, self._offset = file, cursor.offset
        self._id_size, filters, self._flags, most = (cursor.number(n) for n in (2, 2, 1, 4))
        if filters:
            raise NotSupportedError("a heap that is compressed", offset=cursor.offset)
        cursor.skip(length)
        self._huge_tree = cursor.address()
        cursor.skip(9 * length + width)
        self._width, self._smallest, self._largest = cursor.number(2), cursor.length(), cursor.length()
        self._bits = cursor.number(2)
        cursor.skip(2)
        self._root, self._rows = cursor.address(), cursor.number(2)
        require_checksum(cursor.data, cursor.offset)
        self._require_sound()
        self._at, self._long = -(-self._bits // 8), self._width_of_lengths(most)
        self._direct: dict[int, bytes] = {}
        self._indirect: dict[int, list[int | None]] = {}
        self._huge: dict[int, tuple[int | None, int]] | None = None

    def _require_sound(self) -> None:
        for number in (self._width, self._smallest, self._largest):
            if not number or number & number - 1:
                raise CorruptionError(f"a heap with {number:,} for a power of two", offset=self._offset)
        if self._largest < self._smallest or self._rows > _MAX_ROWS or not 1 <= self._bits <= 64:
            raise CorruptionError("a heap whose blocks can't be", offset=self._offset)

    def _width_of_lengths(self, most: int) -> int:
        """How many bytes an ID has for an object's length: as the largest block or object needs, whichever is fewer."""
        return min((self._largest.bit_length() + 6) // 8, max(1, (most.bit_length() + 7) // 8))

    def object(self, name: bytes) -> bytes:
        """The object of an ID.

        Raises:
            CorruptionError: there is none, or a block is damaged.
            NotSupportedError: it is of a kind that is not known.
        """
        kind = name[0] >> 4 & 3
        if name[0] >> 6 or kind > _TINY or len(name) < self._id_size:
            raise NotSupportedError(f"an ID {name.hex()} in a heap", offset=self._offset)
        if kind == _MANAGED:
            cursor = Cursor(name, self._offset)
            cursor.skip(1)
            return self._managed(cursor.number(self._at), cursor.number(self._long))
        return self._tiny(name) if kind == _TINY else self._huge_object(name)

    def _tiny(self, name: bytes) -> bytes:
        start, length = 1, name[0] & 15
        if self._id_size - 1 > 16:
            start, length = 2, length << 8 | name[1]
        if start + length + 1 > len(name):
            raise CorruptionError(f"an object of {length + 1} bytes in an ID of {len(name)}", offset=self._offset)
        return name[start : start + length + 1]

    def _huge_object(self, name: bytes) -> bytes:
        width, length = self._file.sizes
        if self._id_size - 1 >= width + length:  # The ID is large enough for the place itself.
            cursor = Cursor(name, self._offset, self._file.sizes)
            cursor.skip(1)
            place = cursor.address(), cursor.length()
        else:
            number = int.from_bytes(name[1 : 1 + min(length, self._id_size - 1)], "little")
            place = self._huge_places().get(number, (None, 0))
        if place[0] is None:
            raise CorruptionError("a huge object that is nowhere", offset=self._offset)
        return self._file.structure(place[0], place[1])

    def _huge_places(self) -> dict[int, tuple[int | None, int]]:
        if self._huge is None:
            self._huge = {}
            width, length = self._file.sizes
            for record in records(self._file, self._huge_tree, (HUGE,), width + 2 * length):
                cursor = Cursor(record, self._offset, self._file.sizes)
                place = cursor.address(), cursor.length()
                self._huge[cursor.length()] = place
        return self._huge

    def _managed(self, position: int, length: int) -> bytes:
        """So many bytes at a position in the heap's space."""
        address, size, rows = self._root, self._smallest, self._rows
        while rows:
            row, column, start, size = self._place(position)
            blocks = self._blocks(address, rows)
            number = row * self._width + column
            if row >= rows or number >= len(blocks):
                raise CorruptionError("an object outside its heap", offset=self._offset)
            address, position = blocks[number], position - start
            rows = 0 if size <= self._largest else self._rows_of(size)
        data = self._block(address, size)
        if position + length > len(data):
            raise CorruptionError("an object that ends outside its block", offset=self._offset)
        self._file.count(length, address or 0)  # In a damaged heap, a million objects may be the same bytes.
        return data[position : position + length]

    def _place(self, position: int) -> tuple[int, int, int, int]:
        """Row and column of the block that has a position, where the block begins, and its size."""
        first = self._smallest * self._width
        row = (position // first).bit_length()
        size = self._smallest << max(0, row - 1)
        before = first << row - 1 if row else 0
        column = (position - before) // size
        return row, column, before + column * size, size

    def _rows_of(self, size: int) -> int:
        """The rows of an indirect block with so much space."""
        return (size // (self._smallest * self._width)).bit_length()

    def _blocks(self, address: int | None, rows: int) -> list[int | None]:
        """The addresses of the blocks in an indirect block."""
        if address not in self._indirect:
            before = 5 + self._file.sizes.address + self._at
            count = rows * self._width
            cursor = self._file.signed(address, before + count * self._file.sizes.address + 4, b"FHIB")
            require_checksum(cursor.data, cursor.offset)
            cursor.position = before
            self._indirect[address or 0] = [cursor.address() for _ in range(count)]
        return self._indirect[address or 0]

    def _block(self, address: int | None, size: int) -> bytes:
        """A direct block, head included: an object's place in a block counts from the start of the head."""
        if address not in self._direct:
            data = self._file.signed(address, size, b"FHDB").data
            if self._flags & _CHECKSUMS:
                end = 5 + self._file.sizes.address + self._at
                # The checksum is of the block with zeros in place of the checksum.
                checked = data[:end] + bytes(4) + data[end + 4 :] + data[end : end + 4]
                require_checksum(checked, self._file.base + (address or 0))
            self._direct[address or 0] = data
        return self._direct[address or 0]
