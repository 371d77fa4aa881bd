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
from ckpttool.wire.sstable import TRAILER_SIZE, BlockHandle, Read

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
        while (entry := _entry(read, size, position, key)) and (previous is None or entry[0] > previous):
            key, position = entry
            if previous is None and key:
                return []
            previous = key
        if position == start or previous is None:
            return found
        end = _end(read, position, position - start)
        found.append(Scanned(previous, BlockHandle(start, (end or position) - start), end is not None))
        if end is None:
            return found
        position = end + TRAILER_SIZE


def _entry(read: Read, size: int, position: int, previous: bytes) -> tuple[bytes, int] | None:
    """The key of the entry there, and where the next one starts; None if it is none, or not all there."""
    head, start = read(position, _ENTRY_HEAD), 0
    numbers = []
    try:
        for _ in range(3):
            number, start = decode_varint(head, start, 32)
            numbers.append(number)
    except CorruptionError:
        return None
    shared, unshared, length = numbers
    end = position + start + unshared + length
    if shared > len(previous) or end > size:
        return None
    return previous[:shared] + read(position + start, unshared), end


def _end(read: Read, position: int, entries: int) -> int | None:
    """Where the restarts end that begin at `position`, behind so many bytes of entries; None if these are none."""
    count, last = 0, -1
    while len(word := read(position + 4 * count, 4)) == 4:
        number = decode_fixed32(word, 0)
        # An entry takes three bytes, so that the restart of this number is farther from the start.
        if count and number == count:
            return position + 4 * (count + 1)
        if not last < number < entries or (number and not count):
            return None
        count, last = count + 1, number
    return None
