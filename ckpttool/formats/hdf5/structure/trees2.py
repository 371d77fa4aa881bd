"""B-trees of version 2: of links and attributes by the hashes of their names, of huge objects, of chunks.

    42 54 48 44 | 00 | 05 | 00 02 00 00 | 0b 00 | 01 00     "BTHD", version, type 5; nodes of 512 bytes, records of 11,
                                                            depth 1 (0: the root is a leaf)
    64 | 28 | 1b 05 … | 01 00 | 39 00 … | …                 when nodes are split and merged; the root, its records; all
                                                            records; checksum

    42 54 4c 46 | 00 | 05 | …                               "BTLF", a leaf: version, type, records; checksum
    42 54 49 4e | 00 | 05 | … | c8 0a … | 1c | …            "BTIN": records; then for each child its address, how
                                                            many records it has and, from depth 2 on, how many it
                                                            has with all nodes below it; checksum

How wide the counts are depends on how many records there can be. Records in internal nodes are not repeated in leaves.

(III.A.2. Disk Format: Level 1A2 - Version 2 B-trees)
"""

from collections.abc import Iterator
from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File

HUGE, HUGE_FILTERED, LINK_NAMES, ATTRIBUTE_NAMES, CHUNKS, FILTERED_CHUNKS = 1, 2, 5, 8, 10, 11
# A tree as deep would have two to the 64 records.
_MAX_DEPTH = 64
_OVERHEAD = 10  # Signature, version, type, checksum.


class Tree(NamedTuple):
    """The header of a tree.

    Attributes:
        kind: its type.
        node_size, record_size: bytes of a node and of a record.
        depth: 0: the root is a leaf.
        root, in_root: the root, and how many records it has.
        widths: for a node at each depth, how many bytes the two counts beside a child's address take.
    """

    kind: int
    node_size: int
    record_size: int
    depth: int
    root: int | None
    in_root: int
    widths: list[tuple[int, int]]


def read_tree(file: File, address: int | None, kinds: tuple[int, ...]) -> Tree:
    """The header of a tree of one of these types.

    Raises:
        CorruptionError: there is none, or it is damaged.
    """
    cursor = file.signed(address, 22 + file.sizes.address + file.sizes.length, b"BTHD")
    kind, node_size, record_size, depth = (cursor.number(n) for n in (1, 4, 2, 2))
    cursor.skip(2)
    root, count = cursor.address(), cursor.number(2)
    require_checksum(cursor.data, cursor.offset)
    if kind not in kinds or not record_size or depth > _MAX_DEPTH or node_size > file.size:
        raise CorruptionError(f"a tree of type {kind}, depth {depth}, {record_size} bytes", offset=cursor.offset)
    return Tree(kind, node_size, record_size, depth, root, count, _widths(file, node_size, record_size, depth))


def _widths(file: File, node_size: int, record_size: int, depth: int) -> list[tuple[int, int]]:
    """For a node at each depth: bytes of the number of a child's records, and of that with all nodes below."""
    most = max(0, node_size - _OVERHEAD) // record_size
    in_node, below, widths = _bytes_for(most), most, [(0, 0)]
    for level in range(1, depth + 1):
        widths.append((in_node, _bytes_for(below) if level > 1 else 0))
        pointer = file.sizes.address + sum(widths[-1])
        most = max(0, node_size - _OVERHEAD - pointer) // (record_size + pointer)
        below = (most + 1) * below + most
    return widths


def _bytes_for(number: int) -> int:
    return max(1, (number.bit_length() + 7) // 8)


def nodes(file: File, tree: Tree) -> Iterator[bytes]:
    """The records of each node, one after another; nodes do not come in the order of records.

    Raises:
        CorruptionError: a node is damaged.
    """
    stack = [(tree.root, tree.in_root, tree.depth)] if tree.root is not None and tree.in_root else []
    while stack:
        address, count, depth = stack.pop()
        cursor = _node(file, tree, address, count, depth)
        yield cursor.take(count * tree.record_size)
        for _ in range(count + 1 if depth else 0):
            child, records = cursor.address(), cursor.number(tree.widths[depth][0])
            cursor.skip(tree.widths[depth][1])
            if child is None:
                raise CorruptionError("a tree's node without a child", offset=cursor.offset)
            stack.append((child, records, depth - 1))


def _node(file: File, tree: Tree, address: int | None, count: int, depth: int) -> Cursor:
    pointer = file.sizes.address + sum(tree.widths[depth])
    size = _OVERHEAD + count * tree.record_size + ((count + 1) * pointer if depth else 0)
    cursor = file.signed(address, size, b"BTIN" if depth else b"BTLF")
    if cursor.number(1) != tree.kind:
        raise CorruptionError("a node of another type of tree", offset=cursor.offset)
    require_checksum(cursor.data, cursor.offset)
    return cursor


def records(file: File, address: int | None, kinds: tuple[int, ...], size: int) -> Iterator[bytes]:
    """The records of a tree, each of the size given; raises as `read_tree` and `nodes` do."""
    tree = read_tree(file, address, kinds)
    if tree.record_size != size:
        raise CorruptionError(f"a tree with records of {tree.record_size} bytes, not {size}", offset=address)
    for data in nodes(file, tree):
        for start in range(0, len(data), size):
            yield data[start : start + size]
