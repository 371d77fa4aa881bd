"""Blocks: pairs of keys and values, one after another, with restarts among them."""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise, takewhile

from ckpttool.errors import CorruptionError, Report
from ckpttool.wire.coding import decode_fixed32, decode_varint, encode_fixed32, encode_varint

# The most that keys of a block, which share 128 bytes or more each with the one before, can share in sum: so many
# bytes, or so many times the block. With a restart at every 16th key, it is less than 16 times.
_MAX_SHARED, _MOST_SHARED = 1 << 18, 24


class Block:
    """The pairs of one block, in order.

    Args:
        contents: the block, decompressed, without its trailer.
        offset: where it lies in the file, for messages.

    Raises:
        CorruptionError: the restart array is not sound. Iterating raises it for an entry that is not.
    """

    def __init__(self, contents: bytes, offset: int = 0) -> None:
        self._contents, self._offset = contents, offset
        count = decode_fixed32(contents, len(contents) - 4) if len(contents) >= 4 else 1
        self._end = len(contents) - 4 * (count + 1)
        if self._end < 0:
            raise CorruptionError("bad block contents: more restarts than bytes", offset=offset)
        self._restarts = struct.unpack_from(f"<{count}I", contents, self._end)
        if not count:  # Legal, and empty whatever stands before.
            self._end = 0
        elif self._restarts[0] or any(a >= b for a, b in pairwise([*self._restarts, max(self._end, 1)])):
            raise CorruptionError("bad block contents: restart offsets are not in order", offset=offset)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._pairs(0)

    def pairs(self, report: Report) -> Iterator[tuple[bytes, bytes]]:
        """All pairs that can be read: after a bad entry it goes on from the next restart."""
        number = 0
        while number < len(self._restarts):
            try:
                yield from self._pairs(number)
                return
            except CorruptionError as error:
                report(error)
                number = bisect_right(self._restarts, (error.offset or 0) - self._offset, lo=number + 1)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        return next((value for _, value in self.found([key])), None)

    def found(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of some keys, which are in order, as far as they are there.

        The first key is found by bisecting the restarts, the others by reading on: restarts may be far apart.
        """
        if not self._end:
            return iter(())
        number = bisect_right(self._restarts, keys[0], key=self._restart_key) - 1
        pairs, wanted = self._pairs(max(number, 0)), set(keys)
        return (pair for pair in takewhile(lambda pair: pair[0] <= keys[-1], pairs) if pair[0] in wanted)

    def _restart_key(self, position: int) -> bytes:
        _, unshared, _, start = self._entry_header(position)  # If something is wrong with it, reading on will tell.
        return self._contents[start : start + unshared]

    def _pairs(self, first: int) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from the restart of that number on."""
        contents, end = self._contents, self._end
        restarts = chain(islice(self._restarts, first, None), [end])
        restart = position = next(restarts)
        key = None
        left = max(_MAX_SHARED, _MOST_SHARED * end)
        while position < end:
            start = position
            shared, unshared, length = contents[start], contents[start + 1], contents[start + 2]
            if shared | unshared | length < 0x80:
                position += 3
            else:
                shared, unshared, length, position = self._entry_header(start)
                # Each key may go on where the one before ended: a small block would have keys of gigabytes.
                left -= shared
                if left < 0:
                    raise self._bad_entry(start, "its keys have more in common than any writer shares")
            value = position + unshared
            if start >= restart:
                if start > restart or shared:
                    raise self._bad_entry(start, "a restart is not at an entry of its own")
                restart = next(restarts)
            if value + length > end or shared > len(key or b""):
                raise self._bad_entry(start, f"{shared} + {unshared} + {length} bytes are not there")
            next_key = key[:shared] + contents[position:value] if key else contents[position:value]
            if key is not None and next_key <= key:
                raise self._bad_entry(start, f"key {next_key!r} after {key!r}")
            key = next_key
            position = value + length
            yield key, contents[value:position]
        if restart != end:
            raise self._bad_entry(restart, "a restart is not at an entry of its own")

    def _entry_header(self, start: int) -> tuple[int, int, int, int]:
        """shared, non_shared, value_len, and where the key's rest starts."""
        try:
            shared, position = decode_varint(self._contents, start, 32)
            unshared, position = decode_varint(self._contents, position, 32)
            length, position = decode_varint(self._contents, position, 32)
        except CorruptionError as error:
            raise self._bad_entry(start, error.what) from None
        return shared, unshared, length, position

    def _bad_entry(self, position: int, why: str) -> CorruptionError:
        return CorruptionError(f"bad entry in block: {why}", offset=self._offset + position)


class BlockBuilder:
    """Makes a block of pairs added in key order, with a restart at every `restart_interval`-th of them."""

    def __init__(self, restart_interval: int) -> None:
        self._restart_interval = restart_interval
        self.reset()

    def reset(self) -> None:
        self._buffer = bytearray()
        self._restarts = [0]
        self._since_restart = 0
        self.last_key = b""

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._since_restart < self._restart_interval:
            shared = shared_prefix(self.last_key, key)
        else:
            self._restarts.append(len(self._buffer))
            self._since_restart = 0
        self._buffer += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        self._buffer += key[shared:]
        self._buffer += value
        self._since_restart += 1
        self.last_key = key

    @property
    def size(self) -> int:
        """Bytes of the block as it would be finished now."""
        return len(self._buffer) + 4 * len(self._restarts) + 4

    def finish(self) -> bytes:
        return b"".join([self._buffer, *map(encode_fixed32, self._restarts), encode_fixed32(len(self._restarts))])


def shared_prefix(a: bytes, b: bytes) -> int:
    """How many bytes two keys begin with in common."""
    limit = min(len(a), len(b))
    # Taken as big-endian numbers, their highest differing bit tells: a loop over bytes takes three times as long.
    differing = int.from_bytes(a[:limit], "big") ^ int.from_bytes(b[:limit], "big")
    return limit - (differing.bit_length() + 7) // 8
