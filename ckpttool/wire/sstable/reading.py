"""Reading a table: its index, then blocks as they are asked for."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

from ckpttool.errors import CheckpointError, CorruptionError, Report, refuse
from ckpttool.wire.coding import decode_fixed32, encode_fixed32
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.sstable.blocks import Block
from ckpttool.wire.sstable.layout import FOOTER_SIZE, TRAILER_SIZE, BlockHandle, Footer, Read, decompress

_CACHED_BLOCK = 1 << 22


class Table:
    """A table read through `read`; iterating gives all its pairs in key order.

    Args:
        read: gives bytes of the file.
        size: the file's size in bytes.
        report: takes the error of a footer or an index that is damaged; the blocks are then found without it.

    Attributes:
        handles: where the data blocks lie, in the order of their keys.

    Raises:
        FormatError: this is no table.
        CorruptionError: footer or index are not sound; iterating and `lookup` raise it for a data block.
    """

    def __init__(self, read: Read, size: int, report: Report = refuse) -> None:
        self._read, self._end = read, size - FOOTER_SIZE
        self._is_cut = False
        # The block used last: keys that are looked up one after another are mostly neighbors.
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
        from ckpttool.wire.sstable.scanning import scan

        found, self._end = scan(self._read, size), size
        self._last_keys, self.handles = [block.last_key for block in found], [block.handle for block in found]
        self._is_cut = bool(found) and not found[-1].is_whole
        return bool(found)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self.pairs(refuse)

    def pairs(self, report: Report) -> Iterator[tuple[bytes, bytes]]:
        """All pairs that can be read; in a block whose checksum is wrong, whatever looks like pairs."""
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

    def found(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The pairs of some keys, which are in order, as far as they are there: each block is read once."""
        for number, own in groupby(keys, partial(bisect_left, self._last_keys)):
            if number < len(self._last_keys):
                yield from self._data_block(number).found(list(own))

    def _data_block(self, number: int, report: Report = refuse) -> Block:
        if number == self._cached[0]:
            return self._cached[1]
        if self._is_cut and number == len(self.handles) - 1:
            return self._cut_block(self.handles[number], report)
        block = self._block(self.handles[number], report)
        # A block that was let pass damaged must not be taken for sound later.
        if report is refuse and self.handles[number].size <= _CACHED_BLOCK:
            self._cached = number, block
        return block

    def _cut_block(self, handle: BlockHandle, report: Report) -> Block:
        """The last block of a file that was cut off, with the entries that are there."""
        offset, size = handle
        what = "the file ends inside a block, so that nothing in it has a checksum"
        report(CorruptionError(what, offset=offset))
        return Block(self._read(offset, size) + encode_fixed32(0) + encode_fixed32(1), offset)

    def _block(self, handle: BlockHandle, report: Report = refuse) -> Block:
        return Block(self.contents(handle, report), handle.offset)

    def contents(self, handle: BlockHandle, report: Report = refuse) -> bytes:
        """A block's contents, decompressed, with the checksum tested."""
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
        return decompress(stored[:size], stored[size], offset)
