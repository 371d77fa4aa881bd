"""Messages that several objects have in common.

A header then only says where the message is: in the header of a named type, or in the file's heap of shared messages
(for the versions before, see `_place`):

    03 | 02 | 20 03 00 00 00 00 00 00      version 3, in a header, that at 0x320
    03 | 01 | 00 1d 00 00 00 00 2a 00      version 3, in the heap, by its heap ID

For each type of message, the table of shared messages says which heap that is. The superblock leads to the table:

    53 4d 54 42                            "SMTB", and for each of the indexes:
    00 | 00 | 08 00 | 32 00 00 00 | …      version, kind, types (bit 3: datatypes), shortest message, …
    ff ff … | 6b 02 …                      the index, which no reader needs; the heap

(IV.A.2. Disk Format: Level 2A2 - Data Object Header Messages; IV.A.2.p. The Shared Message Table Message;
III.I. Disk Format: Level 1I - Shared Object Header Message Table)
"""

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.fractal_heap import FractalHeap
from ckpttool.formats.hdf5.structure.headers import SHARED_TABLE, Message, one, read_messages

SHARED = 2
_IN_HEAP = 1
_HEAP_ID = 8


class SharedMessages:
    """The messages that headers only point to; each is looked up once.

    Attributes:
        decoded: what some messages say, by type and bytes: many objects have the same message, shared or not.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._known: dict[tuple[int, bytes], Message] = {}
        self.decoded: dict[tuple[int, bytes], object] = {}
        self._heaps: list[tuple[int, FractalHeap]] | None = None

    def resolved(self, message: Message) -> Message:
        """The message, or the one that it points to, if it only says where that is.

        Raises:
            CorruptionError: it points to none.
        """
        if not message.flags & SHARED:
            return message
        return self.at(message.kind, Cursor(message.data, message.offset, self._file.sizes))

    def at(self, kind: int, cursor: Cursor) -> Message:
        """The message of a type, at the place that the next bytes give; raises as `resolved` does."""
        offset = cursor.here
        in_heap, place = _place(cursor)
        key = kind, place
        if key not in self._known:
            self._known[key] = self._in_heap(kind, place, offset) if in_heap else self._in_header(kind, place, offset)
        return self._known[key]

    def _in_header(self, kind: int, place: bytes, offset: int) -> Message:
        address = Cursor(place, offset, self._file.sizes).address()
        found = None if address is None else one(read_messages(self._file, address), kind)
        # A message that points on could lead in a circle.
        if found is None or found.flags & SHARED:
            raise CorruptionError("a shared message that is not where it is said to be", offset=offset)
        return found

    def _in_heap(self, kind: int, place: bytes, offset: int) -> Message:
        if self._heaps is None:
            self._heaps = _heaps(self._file)
        for kinds, heap in self._heaps:
            if kinds >> kind & 1:
                return Message(kind, 0, heap.object(place), offset)
        raise CorruptionError("a shared message, and no heap for its type", offset=offset)


def _place(cursor: Cursor) -> tuple[bool, bytes]:
    """Whether a message is in the heap, and the bytes of its ID there, or else of its header's address."""
    version, kind = cursor.number(1), cursor.number(1)
    if version not in (1, 2, 3):
        raise NotSupportedError(f"shared messages of version {version}", offset=cursor.offset)
    if version == 1:
        cursor.skip(6 + cursor.sizes.length)
    in_heap = version == 3 and kind == _IN_HEAP
    return in_heap, cursor.take(_HEAP_ID if in_heap else cursor.sizes.address)


def _heaps(file: File) -> list[tuple[int, FractalHeap]]:
    """The heaps of shared messages, each with the types of the messages in it, as bits."""
    table = None if file.extension is None else one(read_messages(file, file.extension), SHARED_TABLE)
    if table is None:
        return []
    cursor = Cursor(table.data, table.offset, file.sizes)
    cursor.skip(1)
    address, count = cursor.address(), cursor.number(1)
    each = 14 + 2 * file.sizes.address
    cursor = file.cursor(address or 0, 4 + count * each + 4)
    if cursor.take(4) != b"SMTB":
        raise CorruptionError("no SMTB, where shared messages are said to be", offset=cursor.offset)
    require_checksum(cursor.data, cursor.offset)
    return [_heap(file, cursor) for _ in range(count)]


def _heap(file: File, cursor: Cursor) -> tuple[int, FractalHeap]:
    cursor.skip(2)
    kinds = cursor.number(2)
    cursor.skip(10)
    cursor.address()
    return kinds, FractalHeap(file, cursor.address())
