"""The sorted string table: a file of key-value pairs in key order (LevelDB's table format, without filters).

    data block · … · metaindex block (empty) · index block · footer (48 bytes)

Each block is followed by a five-byte trailer: the compression (0 none, 1 snappy) and the masked CRC-32C of the
block and that byte. A block holds entries, then restart offsets, then their number:

    entry    varint shared · varint non_shared · varint value_len · key[shared:] · value
    restarts fixed32 × n · fixed32 n

`shared` bytes of the key are those of the previous key; at a restart it is 0. The index block has an entry for
each data block: a key ≥ all keys in it and < all in the next, and the block's handle (varint offset, varint
size, the size without the trailer). The footer holds the handles of metaindex and index, zeros up to byte 40,
and the magic number. The one-entry block {"a": "x"} with its trailer is

    00 01 01 61 78 | 00 00 00 00 | 01 00 00 00 | 00 | crc crc crc crc

(leveldb: doc/table_format.md; xla/tsl/lib/io/table_builder.cc, block_builder.cc, format.cc)

TensorFlow's reader checks neither order nor restarts, and ends a listing without a word at a bad entry; this
one raises CorruptionError.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise, takewhile
from typing import NamedTuple

from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError, Report, refuse
from ckpttool.wire.coding import (
    decode_fixed32,
    decode_fixed64,
    decode_varint,
    encode_fixed32,
    encode_fixed64,
    encode_varint,
)
from ckpttool.wire.crc32c import crc32c, mask

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
TRAILER_SIZE = 5
NO_COMPRESSION, SNAPPY = 0, 1
MAX_COMPRESSION = 64
"""Snappy's shortest element copies 64 bytes from 3: a stream that promises more than that is a bomb."""
_CACHED_BLOCK = 1 << 20

Read = Callable[[int, int], bytes]
"""(offset, size) → exactly those bytes of the file."""


class BlockHandle(NamedTuple):
    """Where a block lies: its offset in the file, and its size without the trailer, in bytes."""

    offset: int
    size: int

    @classmethod
    def decode(cls, data: bytes, position: int = 0) -> tuple["BlockHandle", int]:
        offset, position = decode_varint(data, position)
        size, position = decode_varint(data, position)
        return cls(offset, size), position

    def encode(self) -> bytes:
        return encode_varint(self.offset) + encode_varint(self.size)


class Footer(NamedTuple):
    """The last 48 bytes of a table."""

    metaindex_handle: BlockHandle
    index_handle: BlockHandle

    @classmethod
    def decode(cls, data: bytes) -> "Footer":
        if len(data) < FOOTER_SIZE:
            raise FormatError(f"file is too short to be an sstable: {len(data)} bytes, a footer alone has 48")
        if decode_fixed64(data, FOOTER_SIZE - 8) != MAGIC:
            raise FormatError("not an sstable (bad magic number)")
        metaindex, position = BlockHandle.decode(data)
        index, position = BlockHandle.decode(data, position)
        if position > FOOTER_SIZE - 8:
            raise CorruptionError("the footer's block handles run into its magic number")
        return cls(metaindex, index)

    def encode(self) -> bytes:
        handles = self.metaindex_handle.encode() + self.index_handle.encode()
        return handles.ljust(FOOTER_SIZE - 8, b"\x00") + encode_fixed64(MAGIC)


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
        """All pairs that can be read: after a bad entry, those from the next restart on."""
        number = 0
        while number < len(self._restarts) and self._end:
            try:
                yield from self._pairs(number)
                return
            except CorruptionError as error:
                report(error)
                number = bisect_right(self._restarts, (error.offset or 0) - self._offset, lo=number + 1)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None: found by bisecting the restarts."""
        number = bisect_right(self._restarts, key, key=self._restart_key) - 1 if self._end else -1
        pairs = self._pairs(number) if number >= 0 else iter(())
        return next((value for found, value in takewhile(lambda pair: pair[0] <= key, pairs) if found == key), None)

    def _restart_key(self, position: int) -> bytes:
        shared, unshared, _, start = self._entry_header(position)
        if shared or start + unshared > self._end:
            raise self._bad_entry(position, "a restart is not at an entry of its own")
        return self._contents[start : start + unshared]

    def _pairs(self, first: int) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from the restart of that number on."""
        contents, end = self._contents, self._end
        restarts = iter([*self._restarts[first:], end])
        restart = position = next(restarts)
        key = None
        while position < end:
            start = position
            shared, unshared, length = contents[start], contents[start + 1], contents[start + 2]
            if shared | unshared | length < 0x80:
                position += 3
            else:
                shared, unshared, length, position = self._entry_header(start)
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
            shared = _shared_prefix(self.last_key, key)
        else:
            self._restarts.append(len(self._buffer))
            self._since_restart = 0
        self._buffer += encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value))
        self._buffer += key[shared:] + value
        self._since_restart += 1
        self.last_key = key

    @property
    def size(self) -> int:
        """Bytes of the block as it would be finished now."""
        return len(self._buffer) + 4 * len(self._restarts) + 4

    def finish(self) -> bytes:
        restarts = b"".join(map(encode_fixed32, [*self._restarts, len(self._restarts)]))
        return bytes(self._buffer) + restarts


class Table:
    """A table read through `read`; iterating gives all its pairs in key order.

    Args:
        read: gives bytes of the file.
        size: the file's size in bytes.
        report: is told that footer or index are not sound; the blocks are then found without them.

    Attributes:
        handles: where the data blocks lie, in the order of their keys.

    Raises:
        FormatError: this is no table.
        CorruptionError: footer or index are not sound; iterating and `lookup` raise it for a data block.
    """

    def __init__(self, read: Read, size: int, report: Report = refuse) -> None:
        self._read, self._end = read, size - FOOTER_SIZE
        self._is_cut = False
        # The block that was used last: neighbors are mostly looked up one after another.
        self._cached: tuple[int, Block] = (-1, Block(b"\x00\x00\x00\x00"))
        try:
            self._read_index(size)
        except CheckpointError as error:
            if report is refuse or not self._scan(size):
                raise
            report(error)

    @classmethod
    def from_bytes(cls, data: bytes, report: Report = refuse) -> "Table":
        return cls(lambda offset, size: data[offset : offset + size], len(data), report)

    def _read_index(self, size: int) -> None:
        footer = Footer.decode(self._read(max(0, size - FOOTER_SIZE), min(size, FOOTER_SIZE)))
        index = list(self._block(footer.index_handle))
        self._last_keys = [key for key, _ in index]
        try:
            self.handles = [BlockHandle.decode(value)[0] for _, value in index]
        except CorruptionError as error:
            raise CorruptionError(f"bad block handle: {error.what}", offset=footer.index_handle.offset) from None
        # Overlapping blocks could make a small file list for ever.
        if sum(handle.size + TRAILER_SIZE for handle in self.handles) > size:
            raise CorruptionError("the table's blocks are together larger than the file")

    def _scan(self, size: int) -> bool:
        """Finds the blocks without an index; False if there are none."""
        from ckpttool.wire.scanning import scan

        found, self._end = scan(self._read, size), size
        self._last_keys, self.handles = [block.last_key for block in found], [block.handle for block in found]
        self._is_cut = bool(found) and not found[-1].is_whole
        return bool(found)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self.pairs(refuse)

    def pairs(self, report: Report) -> Iterator[tuple[bytes, bytes]]:
        """All pairs that can be read. Of a block without its checksum these are those that look like pairs."""
        previous = None
        for number, last_key in enumerate(self._last_keys):
            try:
                block = self._data_block(number, report)
                for key, value in block if report is refuse else block.pairs(report):
                    if previous is not None and key <= previous:
                        raise CorruptionError(
                            f"the table is not in order: key {key!r} after {previous!r}",
                            offset=self.handles[number].offset,
                        )
                    yield key, value
                    previous = key
                if previous is not None and previous > last_key:
                    raise CorruptionError(
                        f"the index ends a block at {last_key!r}, and it goes on to {previous!r}",
                        offset=self.handles[number].offset,
                    )
            except CheckpointError as error:
                report(error)
            previous = last_key

    def lookup(self, key: bytes, report: Report = refuse) -> bytes | None:
        """The value of `key`, or None, from the one block that can hold it."""
        number = bisect_left(self._last_keys, key)
        if number == len(self._last_keys):
            return None
        return self._data_block(number, report).lookup(key)

    def _data_block(self, number: int, report: Report = refuse) -> Block:
        if number == self._cached[0]:
            return self._cached[1]
        if self._is_cut and number == len(self.handles) - 1:
            return self._cut_block(self.handles[number], report)
        block = self._block(self.handles[number], report)
        # What was let pass once is not to be taken for sound.
        if report is refuse and self.handles[number].size <= _CACHED_BLOCK:
            self._cached = number, block
        return block

    def _cut_block(self, handle: BlockHandle, report: Report) -> Block:
        """The entries that are there of the last block of a file that was cut off."""
        offset, size = handle
        what = "the file ends inside a block, so that nothing in it has a checksum"
        report(CorruptionError(what, offset=offset))
        return Block(self._read(offset, size) + encode_fixed32(0) + encode_fixed32(1), offset)

    def _block(self, handle: BlockHandle, report: Report = refuse) -> Block:
        return Block(self.contents(handle, report), handle.offset)

    def contents(self, handle: BlockHandle, report: Report = refuse) -> bytes:
        """What is in a block, decompressed, its checksum tested."""
        offset, size = handle
        if offset + size + TRAILER_SIZE > self._end:
            raise CorruptionError(
                f"bad block handle: {size:,} bytes at {offset:,} are not before byte {self._end:,}", offset=offset
            )
        stored = self._read(offset, size + TRAILER_SIZE)
        if len(stored) != size + TRAILER_SIZE:
            raise CorruptionError("truncated block read: the file has become shorter", offset=offset)
        expected, found = decode_fixed32(stored, size + 1), mask(crc32c(memoryview(stored)[: size + 1]))
        if expected != found:
            mismatch = f"block checksum mismatch: stored {expected:08x}, calculated {found:08x}"
            report(CorruptionError(mismatch, offset=offset))
        return _decompress(stored[:size], stored[size], offset)


class TableBuilder:
    """Makes a table from pairs added in key order.

    The block size is the only parameter a reader could see; the other choices are fixed as the tables of the
    one writer we match have them: restarts every 16 entries, no compression, an empty metaindex.

    Args:
        block_size: bytes after which a block ends.
        write: takes the table piece by piece; None: `finish` gives it whole.
    """

    def __init__(self, block_size: int = 262144, write: Callable[[bytes], object] | None = None) -> None:
        self._block_size = block_size
        self._file = bytearray()
        self._write = write or self._file.extend
        self._size = 0
        self._data = BlockBuilder(restart_interval=16)
        self._index = BlockBuilder(restart_interval=1)
        self._pending: BlockHandle | None = None
        self._entries = 0

    def add(self, key: bytes, value: bytes) -> None:
        """Adds a pair; its key must be greater than the one before."""
        self._begin(key, len(value))
        self._data.add(key, value)
        if self._data.size >= self._block_size:
            self._flush()

    def add_chunks(self, key: bytes, nbytes: int, chunks: Iterable[bytes]) -> None:
        """Adds a pair whose value, of `nbytes`, comes in chunks: a very large one is never held whole."""
        if len(key) + nbytes < 2 * self._block_size:
            self.add(key, b"".join(map(bytes, chunks)))  # Each may be gone with the next one.
            return
        self._begin(key, nbytes)
        entry = encode_varint(0) + encode_varint(len(key)) + encode_varint(nbytes) + key
        restarts = encode_fixed32(0) + encode_fixed32(1)
        self._pending = self._write_chunks(chain([entry], chunks, [restarts]), len(entry) + nbytes + len(restarts))
        self._data.last_key = key

    def _begin(self, key: bytes, nbytes: int) -> None:
        """What goes before an entry: the end of a full block, and its entry in the index."""
        if self._entries and key <= self._data.last_key:
            raise ValueError(f"keys must be added in order: {key!r} after {self._data.last_key!r}")
        if self._entries and len(key) + nbytes >= 2 * self._block_size:
            self._flush()  # A very large pair gets a block of its own.
        if self._pending is not None:
            self._index.add(_separator(self._data.last_key, key), self._pending.encode())
            self._pending = None
            self._data.reset()
        self._entries += 1

    def finish(self) -> bytes:
        """The end of the table; without `write`, the whole of it."""
        self._flush()
        metaindex = self._write_block(BlockBuilder(restart_interval=16).finish())
        if self._pending is not None:
            self._index.add(_successor(self._data.last_key), self._pending.encode())
        index = self._write_block(self._index.finish())
        self._write(Footer(metaindex, index).encode())
        return bytes(self._file)

    def _flush(self) -> None:
        if self._pending is None and self._entries:
            self._pending = self._write_block(self._data.finish())

    def _write_block(self, contents: bytes) -> BlockHandle:
        return self._write_chunks([contents], len(contents))

    def _write_chunks(self, chunks: Iterable[bytes], nbytes: int) -> BlockHandle:
        """Writes a block, and the trailer after it."""
        handle = BlockHandle(self._size, nbytes)
        crc = 0
        for chunk in chain(chunks, [bytes([NO_COMPRESSION])]):
            crc = crc32c(chunk, crc)
            self._write(chunk)
        self._write(encode_fixed32(mask(crc)))
        self._size += nbytes + TRAILER_SIZE
        return handle


def _decompress(contents: bytes, compression: int, offset: int) -> bytes:
    if compression == NO_COMPRESSION:
        return contents
    if compression != SNAPPY:
        raise NotSupportedError(f"bad block type: compression {compression}, known are 0 and 1", offset=offset)
    import cramjam

    try:
        size, _ = decode_varint(contents, 0, 32)
    except CorruptionError as error:
        raise CorruptionError(f"corrupted compressed block contents: {error.what}", offset=offset) from None
    if size > MAX_COMPRESSION * len(contents):
        raise CorruptionError(
            f"corrupted compressed block contents: {len(contents):,} bytes can't hold {size:,}", offset=offset
        )
    try:
        decompressed = bytes(cramjam.snappy.decompress_raw(contents))
    except cramjam.DecompressionError as error:
        raise CorruptionError(f"corrupted compressed block contents: {error}", offset=offset) from error
    if len(decompressed) != size:
        raise CorruptionError("corrupted compressed block contents: wrong size", offset=offset)
    return decompressed


def _shared_prefix(a: bytes, b: bytes) -> int:
    limit = min(len(a), len(b))
    if a[:limit] == b[:limit]:
        return limit
    return next(i for i in range(limit) if a[i] != b[i])


def _separator(last: bytes, following: bytes) -> bytes:
    """The shortest key k of the form that LevelDB makes, with last ≤ k < following."""
    p = _shared_prefix(last, following)
    if p < min(len(last), len(following)) and last[p] < 0xFF and last[p] + 1 < following[p]:
        return last[:p] + bytes([last[p] + 1])
    return last


def _successor(key: bytes) -> bytes:
    """A short key ≥ `key`."""
    for i, byte in enumerate(key):
        if byte != 0xFF:
            return key[:i] + bytes([byte + 1])
    return key
