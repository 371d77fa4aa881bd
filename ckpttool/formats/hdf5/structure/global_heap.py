"""The global heap of an HDF5 file, where the strings of variable length are.

In a damaged file, a million references may lead to one string, and a copy for each would fill the memory. Here each
string is kept once, and all that references lead to may be no more than the file.

A dataset has references, of 16 bytes where addresses have 8:

    05 00 00 00 | 90 08 00 00 00 00 00 00 | 02 00 00 00     length 5, in the collection at 0x890, its object 2

A collection has a signature, a version, its size, and objects, each padded to 8 bytes; object 0 is the space left:

    47 43 4f 4c | 01 00 00 00 | 00 10 00 00 00 00 00 00     "GCOL", version 1, 4,096 bytes with these
    02 00 | 00 00 | 00 00 00 00 | 05 00 00 00 00 00 00 00   object 2, used 0 times (nobody counts), 5 bytes
    68 65 6c 6c 6f 00 00 00                                 "hello"

(HDF5 File Format Specification, III.E. Disk Format: Level 1E - Global Heap; IV.B. Variable-length data)
"""

import struct
from collections.abc import Iterator

from ckpttool import storage
from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.file import CODES

_SIGNATURE = b"GCOL\x01"


class GlobalHeap:
    """The objects that references point to.

    Args:
        path: the file.
        address_size, length_size: bytes of an address and of a length, as the file's superblock gives them.
        base: where in the file address 0 is.
    """

    def __init__(self, path: str, address_size: int, length_size: int, base: int) -> None:
        self._path, self._base = path, base
        self._reference = struct.Struct(f"<I{CODES[address_size]}I")
        # In both heads, a length of fewer than 8 bytes is padded to 8.
        self._head = struct.Struct(f"<8x{CODES[length_size]}{8 - length_size}x")
        self._object = struct.Struct(f"<HHI{CODES[length_size]}{8 - length_size}x")
        self._collections: dict[int, dict[int, bytes]] = {}
        self._left = storage.file_size(path)

    @property
    def reference_size(self) -> int:
        return self._reference.size

    def values(self, references: bytes) -> list[bytes]:
        """What each of the references points to; they stand one after another.

        Raises:
            CorruptionError: there is no such object, or all values together are more than the file.
        """
        values, left = [], storage.file_size(self._path)
        for value in self._values(references):
            left -= len(value)
            # Checked for each value: a part of a string is a copy, and a million references may lead to one string.
            if left < 0:
                raise CorruptionError("its strings take more than there is in the file")
            values.append(value)
        return values

    def _values(self, references: bytes) -> Iterator[bytes]:
        for length, address, index in self._reference.iter_unpack(references):
            if not length:
                yield b""
                continue
            value = self._collection(address).get(index, b"")
            if length > len(value):
                raise CorruptionError(f"a string of {length:,} bytes, of which there are {len(value):,}")
            yield value if length == len(value) else value[:length]

    def _collection(self, address: int) -> dict[int, bytes]:
        if address not in self._collections:
            self._collections[address] = dict(self._objects(address))
        return self._collections[address]

    def _objects(self, address: int) -> Iterator[tuple[int, bytes]]:
        offset = self._base + address
        head = storage.read_range(self._path, offset, self._head.size) if offset < 1 << 63 else b""
        if len(head) < self._head.size or not head.startswith(_SIGNATURE):
            raise CorruptionError("no global heap, where a string is said to be", offset=offset)
        (size,) = self._head.unpack(head)
        # Sound collections do not overlap.
        self._left -= size
        if self._left < 0:
            raise CorruptionError(f"a global heap of {size:,} bytes, more than the file has left", offset=offset)
        data = storage.read_range(self._path, offset, size)
        position = self._head.size
        while position + self._object.size <= len(data):
            index, _, _, length = self._object.unpack_from(data, position)
            if not index:
                return
            position += self._object.size
            if position + length > len(data):
                raise CorruptionError(f"an object of {length:,} bytes ends outside its heap", offset=offset + position)
            yield index, data[position : position + length]
            position += -(-length // 8) * 8
