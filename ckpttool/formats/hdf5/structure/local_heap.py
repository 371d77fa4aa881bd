"""Local heaps: the names in a group, one after another, each with a NUL behind it.

    48 45 41 50 | 00 | 00 00 00      "HEAP", version
    58 00 … | 20 00 … | a8 03 …      bytes of its data, the first free one among them, where the data are

(III.D. Disk Format: Level 1D - Local Heaps)
"""

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.file import File


class LocalHeap:
    """The heap at an address.

    Raises:
        CorruptionError: there is none, or its data are not in the file.
    """

    def __init__(self, file: File, address: int | None) -> None:
        cursor = file.signed(address, 8 + 2 * file.sizes.length + file.sizes.address, b"HEAP")
        cursor.skip(3)
        size, _, place = cursor.length(), cursor.length(), cursor.address()
        self._offset = cursor.offset
        self._data = file.structure(place, size) if place is not None else b""

    def name(self, position: int) -> bytes:
        """The name that begins at a position; raises CorruptionError if there is none."""
        end = self._data.find(b"\0", position)
        if end < 0 or position >= len(self._data):
            raise CorruptionError("a name that is not in its heap", offset=self._offset)
        return self._data[position:end]
