"""The datasets of an HDF5 file, found without being led anywhere else by it.

The library that reads HDF5 is not made for files that mean harm. So a link is looked at before it is followed: soft,
external and user-defined ones are not, for they may lead to other files of the machine; nor are names that are paths.
Of what a group says, no more is kept than the file could hold.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.strings import is_of_heap

if TYPE_CHECKING:
    import h5py

# Scopes are nested in tens, not in hundreds.
_MAX_DEPTH = 200
# Characters of all paths together: a group's name is stored once, and is in the path of everything below it.
_MAX_PATHS = 64 << 20
_MAX_TEXT = 1 << 20
_MAX_RANK = 254
# The attributes that Keras gives the group of a layer: its list of weights, in several parts if it is long.
_WEIGHT_LISTS = (b"weight_names", b"weight_names0")


class Found(NamedTuple):
    """A dataset.

    Attributes:
        path: from the root, without a slash in front.
        dataset: what h5py has of it.
        layer: the path of the nearest group above that Keras lists the weights of; None if there is none.
    """

    path: str
    dataset: Any
    layer: str | None


class Tree:
    """The datasets of a file, each once; `warnings` says what else has a name there and is passed over.

    Args:
        file: the file.
        nbytes: its size.
        has_links: it is made with several links to one dataset: no warning of these.
    """

    def __init__(self, file: "h5py.File", nbytes: int, *, has_links: bool = False) -> None:
        self.warnings: list[str] = []
        self._file, self._has_links = file, has_links
        self._budget = max(_MAX_PATHS, nbytes)
        self._seen: dict[Any, str] = {}

    def datasets(self) -> Iterator[Found]:
        """In the order of the paths."""
        from h5py import h5d, h5g, h5o

        root = h5g.open(self._file.id, b"/")
        self._seen[_address(h5g.get_objinfo(root))] = ""
        stack: list[tuple[str, str | None, int]] = [("", None, 0)]
        while stack:
            path, layer, depth = stack.pop()
            item = h5o.open(root, path.encode(errors="surrogateescape")) if path else root
            if isinstance(item, h5d.DatasetID):
                yield Found(path, item, layer)
                continue
            if has_weights(item):
                layer = path
            if depth == _MAX_DEPTH:
                self._pass_over(path, f"more than {_MAX_DEPTH} groups deep")
                continue
            stack += [(child, layer, depth + 1) for child in reversed(list(self._children(item, path)))]

    def _children(self, group: Any, path: str) -> Iterator[str]:
        """The paths of the datasets and groups in a group."""
        from h5py import h5g

        before = f"{path}/" if path else ""
        for name in self._names(group, len(before)):
            child = before + name.decode(errors="surrogateescape")
            # HDF5 would take it for a path, and follow it.
            if b"/" in name or name in (b"", b"."):
                self._pass_over(child, "no link can have this name")
                continue
            # (Not h5o.get_info: HDF5 crashes where it adds up the sizes of damaged attributes.)
            info = h5g.get_objinfo(group, name, follow_link=False)
            if info.type not in (h5g.DATASET, h5g.GROUP, h5g.TYPE):
                self._pass_over(child, "a link to somewhere else")
            elif _address(info) in self._seen:
                if not self._has_links:
                    self._pass_over(child, f"the same as /{self._seen[_address(info)]}")
            elif info.type != h5g.TYPE:
                self._seen[_address(info)] = child
                yield child

    def _names(self, group: Any, before: int) -> list[bytes]:
        """The names in a group, whose path has `before` characters.

        Hostile ones may share their bytes, so that they are more than the file has.
        """
        from h5py import h5

        names: list[bytes] = []

        def add(name: bytes) -> bool:
            names.append(name)
            self._budget -= before + len(name)
            return self._budget < 0

        # In native order HDF5 makes no list of its own first.
        group.links.iterate(add, order=h5.ITER_NATIVE)
        if self._budget < 0:
            raise CorruptionError("its names take more than there is in the file")
        return sorted(names)

    def _pass_over(self, path: str, reason: str) -> None:
        self.warnings.append(f"/{path} is passed over: {reason}")


def _address(info: Any) -> Any:
    return info.fileno, info.objno


def has_weights(group: Any) -> bool:
    """Whether a group is that of a layer, as Keras stores it."""
    from h5py import h5a

    return any(h5a.exists(group, name) for name in _WEIGHT_LISTS)


def text_of(item: Any, name: str) -> bytes | None:
    """An attribute that is one text of fixed length, or bytes; None if there is none, or it is something else.

    One of variable length would be in the global heap, which is not read but by hand (heap).
    """
    import numpy as np
    from h5py import h5s, h5t

    attribute = _attribute(item, name, {h5t.STRING, h5t.OPAQUE}, h5s.SCALAR)
    if attribute is None or is_of_heap(attribute):
        return None
    value = np.zeros((), attribute.dtype)
    attribute.read(value, h5t.py_create(attribute.dtype))
    text = value[()] if isinstance(value[()], bytes) else value.tobytes()
    return text if len(text) <= _MAX_TEXT else None


def sizes_of(item: Any, name: str) -> tuple[int, ...] | None:
    """An attribute that is a list of sizes; None if there is none, or it is something else."""
    import numpy as np
    from h5py import h5s, h5t

    attribute = _attribute(item, name, {h5t.INTEGER}, h5s.SIMPLE)
    if attribute is None or len(attribute.shape) != 1 or attribute.shape[0] > _MAX_RANK:
        return None
    sizes = np.zeros(attribute.shape, np.int64)
    attribute.read(sizes)
    return tuple(map(int, sizes)) if (sizes >= 0).all() else None


def _attribute(item: Any, name: str, kinds: set[int], space: int) -> Any:
    """An attribute, if it is of this kind: what is not looked for is not read, for nothing bounds its size."""
    from h5py import h5a

    if not h5a.exists(item, name.encode()):
        return None
    attribute = h5a.open(item, name.encode())
    is_meant = attribute.get_type().get_class() in kinds and attribute.get_space().get_simple_extent_type() == space
    return attribute if is_meant else None
