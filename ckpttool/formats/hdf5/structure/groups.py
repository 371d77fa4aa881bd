"""The links of a group, which are kept in one of three ways.

Groups of the first version have a symbol table: a B-tree whose leaves are lists of symbols, and a heap with the names.

    53 4e 4f 44 | 01 | 00 | 02 00                     "SNOD", version, 2 symbols
    08 00 … | 20 03 … | 00 00 00 00 | 00 00 00 00     a name's place in the heap, the header; kind 0 (2: a soft link)
    00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00   data that depend on the kind

Other groups have links as messages in their header or, if there are many, in a fractal heap, with a B-tree of the
hashes of their names:

    00 | 00 | 1b 01 … | 9c 02 …                       a link info message: version, flags; the heap, the tree
    6b 1c 83 0a | 00 15 00 00 00 1a 00                a record of the tree: the name's hash, the link's ID in the heap

(III.B. Disk Format: Level 1B - Group Symbol Table Nodes; III.C. Symbol Table Entry; IV.A.2.c. The Link Info Message;
IV.A.2.r. The Symbol Table Message)
"""

import struct
from collections.abc import Iterator, Sequence

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.file import CODES, Cursor, File
from ckpttool.formats.hdf5.structure.fractal_heap import FractalHeap
from ckpttool.formats.hdf5.structure.headers import LINK, LINK_INFO, SYMBOL_TABLE, Message, one
from ckpttool.formats.hdf5.structure.links import Link, decode_link
from ckpttool.formats.hdf5.structure.local_heap import LocalHeap
from ckpttool.formats.hdf5.structure.trees import GROUP, children, leaves
from ckpttool.formats.hdf5.structure.trees2 import LINK_NAMES, records

_SOFT = 2
# Most lists have no more bytes.
_USUAL = 512


def links_of(file: File, messages: Sequence[Message]) -> Iterator[Link]:
    """The links of a group, in any order, given the group's messages.

    Raises:
        CorruptionError: they are damaged.
        NotSupportedError: they are kept in a way that is not known.
    """
    info, table = one(messages, LINK_INFO), one(messages, SYMBOL_TABLE)
    if info is None and table is not None:
        yield from _symbols(file, Cursor(table.data, table.offset, file.sizes))
        return
    for message in messages:
        if message.kind == LINK:
            yield decode_link(Cursor(message.data, message.offset, file.sizes))
    if info is not None:
        yield from _dense(file, Cursor(info.data, info.offset, file.sizes))


def _dense(file: File, cursor: Cursor) -> Iterator[Link]:
    cursor.skip(1)
    cursor.skip(8 if cursor.number(1) & 1 else 0)
    heap_address, tree = cursor.address(), cursor.address()
    if heap_address is None:
        return
    heap = FractalHeap(file, heap_address)
    for record in records(file, tree, (LINK_NAMES,), 11):
        yield decode_link(Cursor(heap.object(record[4:]), file.base + heap_address, file.sizes))


def _symbols(file: File, cursor: Cursor) -> Iterator[Link]:
    tree, heap = cursor.address(), LocalHeap(file, cursor.address())
    if tree is None:
        return
    seen: set[int] = set()
    for entries, _ in leaves(file, tree, GROUP, file.sizes.length):
        for place in children(file, entries, file.sizes.length):
            if place in seen:
                raise CorruptionError("a list of symbols that is there twice", offset=file.base + place)
            seen.add(place)
            yield from _list(file, place, heap)


def _list(file: File, address: int, heap: LocalHeap) -> Iterator[Link]:
    head = file.peek(address, _USUAL)
    if head[:5] != b"SNOD\1" or len(head) < 8:
        raise CorruptionError("no list of symbols", offset=file.base + address)
    # The place of a name is as wide as a length, whatever the specification says.
    entry = struct.Struct(f"<{CODES[file.sizes.length]}{CODES[file.sizes.address]}I20x")
    data = file.structure(address, 8 + int.from_bytes(head[6:8], "little") * entry.size, head)
    for name, header, kind in entry.iter_unpack(data[8:]):
        yield Link(heap.name(name), None if kind == _SOFT else header)
