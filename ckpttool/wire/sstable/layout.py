"""What a table is made of besides its blocks' contents: handles, the footer, trailers, compression."""

from collections.abc import Callable
from typing import NamedTuple

from ckpttool.errors import CorruptionError, FormatError, NotSupportedError
from ckpttool.wire.coding import decode_fixed64, decode_varint, encode_fixed64, encode_varint

MAGIC = 0xDB4775248B80FB57
FOOTER_SIZE = 48
TRAILER_SIZE = 5
NO_COMPRESSION, SNAPPY = 0, 1
MAX_COMPRESSION = 64
"""Snappy's shortest element copies 64 bytes from 3: a stream that promises more than that is a bomb."""

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
        # Four varints of ten bytes at most: they end before the magic number.
        metaindex, position = BlockHandle.decode(data)
        index, _ = BlockHandle.decode(data, position)
        return cls(metaindex, index)

    def encode(self) -> bytes:
        handles = self.metaindex_handle.encode() + self.index_handle.encode()
        return handles.ljust(FOOTER_SIZE - 8, b"\x00") + encode_fixed64(MAGIC)


def decompress(contents: bytes, compression: int, offset: int) -> bytes:
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
        return bytes(cramjam.snappy.decompress_raw(contents))
    except cramjam.DecompressionError as error:
        raise CorruptionError(f"corrupted compressed block contents: {error}", offset=offset) from error
