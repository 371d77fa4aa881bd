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

`layout` has handles, footer and compression, `blocks` the pairs in a block, `reading` and `building` the table as a
whole; `scanning` finds the blocks of a table that has lost its end.

TensorFlow's reader checks neither order nor restarts, and ends a listing without a word at a bad entry; this
one raises CorruptionError.
"""

from ckpttool.wire.sstable.blocks import Block, BlockBuilder
from ckpttool.wire.sstable.building import TableBuilder
from ckpttool.wire.sstable.layout import (
    FOOTER_SIZE,
    MAGIC,
    MAX_COMPRESSION,
    NO_COMPRESSION,
    SNAPPY,
    TRAILER_SIZE,
    BlockHandle,
    Footer,
    Read,
)
from ckpttool.wire.sstable.reading import Table

__all__ = [
    "FOOTER_SIZE",
    "MAGIC",
    "MAX_COMPRESSION",
    "NO_COMPRESSION",
    "SNAPPY",
    "TRAILER_SIZE",
    "Block",
    "BlockBuilder",
    "BlockHandle",
    "Footer",
    "Read",
    "Table",
    "TableBuilder",
]
