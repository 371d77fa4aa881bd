"""B-trees of version 1, from the leaves up; for their bytes see `structure.trees`."""

import struct
from collections.abc import Sequence

from ckpttool.formats.hdf5.encoding.output import NO_ADDRESS, Output

_HEAD = struct.Struct("<4sBBHQQ")


def write_tree(output: Output, kind: int, most: int, keys: Sequence[bytes], children: Sequence[int]) -> int:
    """Writes a tree, and returns the address of its root.

    Args:
        output: where to.
        kind: what its leaves are.
        most: the children that a node has at most.
        keys: one before each child, and one behind the last.
        children: the addresses of what the tree leads to; there may be none.
    """
    level = 0
    while True:
        starts = range(0, max(1, len(children)), most)
        size = _HEAD.size + most * 8 + (most + 1) * len(keys[0])
        first, nodes = output.end, []
        for number, start in enumerate(starts):
            below = children[start : start + most]
            left = first + (number - 1) * size if number else NO_ADDRESS
            right = first + (number + 1) * size if number + 1 < len(starts) else NO_ADDRESS
            parts = [_HEAD.pack(b"TREE", kind, level, len(below), left, right)]
            for key, child in zip(keys[start:], below, strict=False):
                parts += key, child.to_bytes(8, "little")
            if below:
                parts.append(keys[start + len(below)])
            nodes.append(output.append(b"".join(parts).ljust(size, b"\0")))
        if len(nodes) == 1:
            return nodes[0]
        keys, children, level = [*(keys[start] for start in starts), keys[-1]], nodes, level + 1
