"""Files as byte ranges: read them, copy them checked, write beside and rename.

Files are opened for one use and closed after it: a checkpoint with a thousand shards needs no thousand
descriptors, and nothing is left open.

reading ── ranges of bytes, with their checksums            writing ── ranges of bytes into files
replacing, directories ── files and directories that appear whole or not at all, made of `temporaries`
"""

from ckpttool.storage.directories import require_writable_directory, write_directory
from ckpttool.storage.reading import (
    Lengths,
    checksums,
    file_size,
    ranges,
    read_chunks,
    read_file,
    read_pieces,
    read_range,
    require_range,
)
from ckpttool.storage.replacing import write_beside, write_together
from ckpttool.storage.temporaries import Inputs, require_all_writable, require_writable
from ckpttool.storage.writing import Content, read_in_order, require_space, reserve, write_contents

__all__ = [
    "Content",
    "Inputs",
    "Lengths",
    "checksums",
    "file_size",
    "ranges",
    "read_chunks",
    "read_file",
    "read_in_order",
    "read_pieces",
    "read_range",
    "require_all_writable",
    "require_range",
    "require_space",
    "require_writable",
    "require_writable_directory",
    "reserve",
    "write_beside",
    "write_contents",
    "write_directory",
    "write_together",
]
