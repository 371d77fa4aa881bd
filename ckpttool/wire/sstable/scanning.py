"""The blocks of a table that has lost its end, where the index of its blocks was: found one after another.

A file that was cut off has no index, and one with a bit flipped there has none to be trusted. But a block says by
itself where it ends: no entry can look like its restarts, for the first restart is 0, and an entry of three zeros would
have an empty key. (Only the first key of a table may be empty.)

    entry · … · entry │ 00 00 00 00 · … · number of restarts │ compression · checksum │ entry · …

Compressed blocks can't be found so.
"""

from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.wire.coding import decode_fixed32, decode_varint
from ckpttool.wire.sstable.layout import TRAILER_SIZE, BlockHandle, Read

# Three varints of five bytes at most.
_ENTRY_HEAD = 15


class Scanned(NamedTuple):
    """A block that was found.

    Attributes:
        last_key: its last key.
        handle: where it lies; without its restarts, if the file ends before it does.
        is_whole: whether it has restarts, so that it has a checksum too.
    """

    last_key: bytes
    handle: BlockHandle
    is_whole: bool


def scan(read: Read, size: int) -> list[Scanned]:
    """The blocks from the start of a file of `size` bytes, as far as they look like blocks; none if it is no table."""
    found: list[Scanned] = []
    previous: bytes | None = None
    position = 0
    while True:
        start, key = position, b""
        while (entry := _entry(read, size, position, key)) and (previous is None or entry.key > previous):
            # A file of zeros begins like a table, too.
            if previous is None and (entry.key or entry.value == entry.end):
                return []
            key = previous = entry.key
            position = entry.end
        if position == start or previous is None:
            return found
        end = _end(read, position, position - start)
        is_whole = end > 0 and end + TRAILER_SIZE <= size
        found.append(Scanned(previous, BlockHandle(start, (end if is_whole else position) - start), is_whole))
        if not is_whole:
            return found
        position = end + TRAILER_SIZE


class _Entry(NamedTuple):
    """An entry: its key, and where its value starts and ends."""

    key: bytes
    value: int
    end: int


def _entry(read: Read, size: int, position: int, previous: bytes) -> _Entry | None:
    """The entry there; None if there is none, or it is not complete."""
    head, start = read(position, _ENTRY_HEAD), 0
    numbers = []
    try:
        for _ in range(3):
            number, start = decode_varint(head, start, 32)
            numbers.append(number)
    except CorruptionError:
        return None
    shared, unshared, length = numbers
    value = position + start + unshared
    if shared > len(previous) or value + length > size:
        return None
    return _Entry(previous[:shared] + read(position + start, unshared), value, value + length)


def _end(read: Read, position: int, entries: int) -> int:
    """Where the restarts end that begin at `position`, behind so many bytes of entries; 0 if these are none."""
    count, last = 0, -1
    while len(word := read(position + 4 * count, 4)) == 4:
        number = decode_fixed32(word, 0)
        # An entry takes three bytes, so that the restart of this number is farther from the start.
        if count and number == count:
            return position + 4 * (count + 1)
        if not last < number < entries or (number and not count):
            return 0
        count, last = count + 1, number
    return 0
