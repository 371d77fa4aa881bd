"""Making a table of pairs."""

from collections.abc import Callable, Iterable
from itertools import chain

from ckpttool.wire.coding import encode_fixed32, encode_varint
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.sstable.blocks import BlockBuilder, shared_prefix
from ckpttool.wire.sstable.layout import NO_COMPRESSION, TRAILER_SIZE, BlockHandle, Footer


class TableBuilder:
    """Makes a table from pairs added in key order.

    All but the block size is fixed as the writer that we match has it: restarts every 16 entries, no compression, an
    empty metaindex.

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
            self.add(key, b"".join(map(bytes, chunks)))  # A chunk is gone with the next one.
            return
        self._begin(key, nbytes)
        entry = encode_varint(0) + encode_varint(len(key)) + encode_varint(nbytes) + key
        restarts = encode_fixed32(0) + encode_fixed32(1)
        self._pending = self._write_chunks(chain([entry], chunks, [restarts]), len(entry) + nbytes + len(restarts))
        self._data.last_key = key

    def _begin(self, key: bytes, nbytes: int) -> None:
        """Before an entry: ends a full block, and adds it to the index."""
        if self._entries and key <= self._data.last_key:
            raise ValueError(f"keys must be added in order: {key!r} after {self._data.last_key!r}")
        if len(key) + nbytes >= 2 * self._block_size:
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


def _separator(last: bytes, following: bytes) -> bytes:
    """The shortest key k of the form that LevelDB makes, with last ≤ k < following."""
    p = shared_prefix(last, following)
    if p < min(len(last), len(following)) and last[p] + 1 < following[p]:
        return last[:p] + bytes([last[p] + 1])
    return last


def _successor(key: bytes) -> bytes:
    """A short key ≥ `key`."""
    for i, byte in enumerate(key):
        if byte != 0xFF:
            return key[:i] + bytes([byte + 1])
    return key
