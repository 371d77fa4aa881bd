"""B-trees of version 1: of the symbols in a group, and of the chunks of a dataset.

    54 52 45 45 | 00 | 00 | 01 00          "TREE", kind 0: a group's; level 0: children are leaves; 1 entry
    ff ff … | ff ff …                      left and right sibling
    00 00 … | 88 04 …| 08 00 …             key, child, key: in a group, keys are places of names in its heap

The key of a chunk has how many bytes are stored, which filters the chunk did not go through, its place, and a zero:

    40 00 00 00 | 00 00 00 00 | 02 00 …  04 00 …  00 00 … | 50 0b …     64 bytes, all filters, at (2, 4); its address

(III.A.1. Disk Format: Level 1A1 - Version 1 B-trees)
"""

from collections.abc import Iterator

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.file import File

GROUP, CHUNKS = 0, 1
# Most nodes have no more bytes.
_USUAL = 1024


def leaves(file: File, address: int, kind: int, key_size: int) -> Iterator[tuple[bytes, int]]:
    """The leaves of a tree: the bytes of each one's entries, key and child by turns, and how many entries there are.

    Raises:
        CorruptionError: it is damaged, or no tree.
    """
    seen = {address}
    stack: list[tuple[int, int | None]] = [(address, None)]
    while stack:
        place, level = stack.pop()
        found, count, entries = _node(file, place, kind, key_size)
        if level is not None and found != level:
            raise CorruptionError(f"a node of level {found}, not {level}", offset=file.base + place)
        if not found:
            yield entries, count
            continue
        below = children(file, entries, key_size)
        if not seen.isdisjoint(below) or len(set(below)) < len(below):
            raise CorruptionError("a node of a tree that is there twice", offset=file.base + place)
        seen.update(below)
        stack += [(child, found - 1) for child in reversed(below)]


def _node(file: File, address: int, kind: int, key_size: int) -> tuple[int, int, bytes]:
    """The level of a node, the number of its entries, and the bytes of these."""
    width = file.sizes.address
    head = file.peek(address, _USUAL)
    if head[:5] != b"TREE%c" % kind or len(head) < 8:
        raise CorruptionError("no node of a tree", offset=file.base + address)
    count = int.from_bytes(head[6:8], "little")
    data = file.structure(address, 8 + 2 * width + count * (key_size + width), head)
    return head[5], count, data[8 + 2 * width :]


def children(file: File, entries: bytes, key_size: int) -> list[int]:
    """The addresses in a node's entries."""
    width = file.sizes.address
    places = range(key_size, len(entries), key_size + width)
    return [int.from_bytes(entries[place : place + width], "little") for place in places]
