"""Groups of the first version: symbol tables; for their bytes see `structure.groups` and `structure.local_heap`."""

import struct
from collections.abc import Iterator, Sequence

from ckpttool.formats.hdf5.encoding.messages import header, symbol_table
from ckpttool.formats.hdf5.encoding.output import Output, padded, superblock
from ckpttool.formats.hdf5.encoding.trees import write_tree
from ckpttool.formats.hdf5.structure.trees import GROUP

# As in the HDF5 library: a leaf has up to eight links, a node up to 32 children.
_LEAF_HALF, _NODE_HALF = 4, 16
_LEAF, _NODE = 2 * _LEAF_HALF, 2 * _NODE_HALF
_LEAF_HEAD, _HEAP = struct.Struct("<4sBxH"), struct.Struct("<4sB3xQQQ")
_NO_FREE_SPACE = 1
# A link: the name's place, the header's address; if it leads to a group, also the addresses of its tree and heap.
_TO_GROUP, _TO_OTHER = struct.Struct("<QQI4xQQ"), struct.Struct("<QQ24x")
_SIZE = _TO_GROUP.size


class Group:
    """A group to be written.

    Attributes:
        attributes: their messages.
        links: name → a dataset's address, or a group.
    """

    __slots__ = ("_written", "attributes", "links")

    def __init__(self) -> None:
        self.attributes: list[bytes] = []
        self.links: dict[bytes, int | Group] = {}
        self._written = (0, 0, 0)

    def at(self, path: Sequence[bytes]) -> "Group":
        """The group at a path below this one; groups of the path that are missing are made.

        Raises:
            ValueError: one of them is a dataset.
        """
        group = self
        for name in path:
            below = group.links.get(name)
            if below is None:
                below = group.links[name] = Group()
            elif isinstance(below, int):
                raise ValueError(f"{name!r} is a dataset and no group")
            group = below
        return group

    def link(self, path: str, address: int) -> None:
        """Gives a dataset a name, below this group."""
        *groups, name = path.encode().split(b"/")
        self.at(groups).links[name] = address

    def entry(self, name: int) -> bytes:
        """The link to this group, which must have been written."""
        address, tree, heap = self._written
        return _TO_GROUP.pack(name, address, 1, tree, heap)

    def write(self, output: Output) -> None:
        """Writes this group; the groups that it links to must have been written."""
        names = sorted(self.links)
        place, places, heap = 8, [], [bytes(8)]
        for name in names:
            places.append(place)
            heap.append(padded(name + b"\0"))
            place += len(heap[-1])
        entries = [_entry(self.links[name], place) for name, place in zip(names, places, strict=True)]
        leaves = [output.append(_leaf(entries[start : start + _LEAF])) for start in range(0, len(entries), _LEAF)]
        # The key behind a leaf is its last name; the key before the first leaf is the empty name.
        lasts = [*places[_LEAF - 1 :: _LEAF], *(places[-1:] if len(places) % _LEAF else [])]
        keys = [last.to_bytes(8, "little") for last in (0, *lasts)]
        tree = write_tree(output, GROUP, _NODE, keys, leaves)
        address = output.end
        output.append(_HEAP.pack(b"HEAP", 0, place, _NO_FREE_SPACE, address + _HEAP.size) + b"".join(heap))
        made = header([symbol_table(tree, address), *self.attributes])
        self._written = output.append(made), tree, address


def _entry(below: int | Group, name: int) -> bytes:
    return _TO_OTHER.pack(name, below) if isinstance(below, int) else below.entry(name)


def _leaf(entries: Sequence[bytes]) -> bytes:
    return (_LEAF_HEAD.pack(b"SNOD", 1, len(entries)) + b"".join(entries)).ljust(_LEAF_HEAD.size + _LEAF * _SIZE, b"\0")


def write_groups(output: Output, root: Group) -> None:
    """Writes a group and all groups below it, and makes it the root of the file."""
    for group in reversed(list(_all(root))):
        group.write(output)
    output.finish(superblock(root.entry(0), output.end, _LEAF_HALF, _NODE_HALF))


def _all(root: Group) -> Iterator[Group]:
    """Every group, before those below it. (Groups may be nested deeper than Python's calls.)"""
    groups = [root]
    for group in groups:
        groups += [below for below in group.links.values() if isinstance(below, Group)]
        yield group
