"""The datasets of an HDF5 file, found without being led anywhere else by it.

A link is looked at before it is followed. Soft, external and user-defined ones are not followed, for they may lead to
other files, nor are names that are paths. No more of the names in groups is kept than the file could hold.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ckpttool.errors import CheckpointError, CorruptionError, Report, refuse
from ckpttool.formats.hdf5.names import MAX_DEPTH
from ckpttool.formats.hdf5.strings import unpadded
from ckpttool.formats.hdf5.structure import File, Object
from ckpttool.formats.hdf5.structure.attributes import Attribute
from ckpttool.formats.hdf5.structure.datatype import INTEGER, OPAQUE, STRING, VLEN
from ckpttool.formats.hdf5.structure.global_heap import GlobalHeap
from ckpttool.formats.hdf5.structure.links import Link
from ckpttool.formats.hdf5.structure.objects import DATASET, GROUP, TYPE
from ckpttool.formats.hdf5.structure.sharing import SharedMessages
from ckpttool.model.boxes import MAX_RANK
from ckpttool.model.texts import to_bytes, to_text

# The most characters of all paths together: a group's name is stored once, and in the path of everything below it.
_MAX_PATHS = 64 << 20
_MAX_TEXT = 1 << 20
# Attributes that Keras gives a group: the list of weights of a layer, and of layers; in several parts if it is long.
_WEIGHTS, _LAYERS = "weight_names", "layer_names"
# The group of an object's own weights in Keras 3's `.weights.h5`, and its attribute with the object's name.
_OWN, _NAME = "vars", "name"


class Found(NamedTuple):
    """A dataset.

    Attributes:
        path: its path from the root, without a slash in front.
        dataset: its header.
        layer: the path of the nearest group above it with a list of weights from Keras; None if there is none.
        rank: the number of that layer in the list of layers, and of the dataset in that of weights; None without.
        saved: in a `.weights.h5`, path and name of the outermost object around it; else None.
    """

    path: str
    dataset: Object
    layer: str | None
    rank: tuple[int, int] | None = None
    saved: tuple[str, str] | None = None


class _Listing(NamedTuple):
    """A group with a list of paths from there: its own path, and the number of each in the list."""

    path: str
    numbers: dict[bytes, int]

    def number(self, path: str) -> int | None:
        inner = path[len(self.path) + 1 if self.path else 0 :]
        return self.numbers.get(to_bytes(inner))


class _Place(NamedTuple):
    """Something with a name: its path, the address of its header, the number of groups around it; the nearest groups
    above it that list layers, and weights; path and name of the outermost object above it.
    """

    path: str
    address: int
    depth: int
    model: _Listing | None = None
    layer: _Listing | None = None
    saved: tuple[str, str] | None = None

    @property
    def rank(self) -> tuple[int, int] | None:
        """The numbers of its layer and of itself in their lists; None if one is in no list."""
        if self.model is None or self.layer is None:
            return None
        found = self.model.number(self.layer.path), self.layer.number(self.path)
        return None if found[0] is None or found[1] is None else (found[0], found[1])


class Tree:
    """The datasets of a file, each once; `warnings` is about other things with names, which are passed over.

    Args:
        path: the path of the file.
        file: the file.
        report: is called with the errors of what is damaged.
        names: for shards, path → name of the objects in the shards before; those of this file are added.

    Raises:
        CorruptionError: there is no root group.
    """

    def __init__(self, path: str, file: File, report: Report = refuse, *, names: dict[str, str] | None = None) -> None:
        self.warnings: list[str] = []
        self._file, self._report, self._shared = file, report, SharedMessages(file)
        self._budget = self._budget_of_lists = max(_MAX_PATHS, file.size)
        self._seen = {file.root: ""}
        self._types: dict[int, bool] = {}
        self.root = Object(file, self._shared, file.root)
        self._has_links = False
        self._names = {} if names is None else names
        self._heap = GlobalHeap(path, *file.sizes, file.base)

    def datasets(self, *, has_links: bool = False) -> Iterator[Found]:
        """The datasets in the order of their paths.

        Args:
            has_links: the file has several links to a dataset on purpose: no warnings about these.
        """
        self._has_links = has_links
        stack = [_Place("", self._file.root, 0)]
        while stack:
            place = stack.pop()
            try:
                found = Object(self._file, self._shared, place.address) if place.path else self.root
                if found.kind == DATASET:
                    yield Found(place.path, found, place.layer and place.layer.path, place.rank, place.saved)
                elif found.kind == GROUP:
                    stack += reversed(self._entered(found, place))
            except CheckpointError as error:
                self._unread(place.path, error)

    def _listing(self, group: Object, path: str, name: str) -> _Listing | None:
        """The list in an attribute of a group or, if it is long, in several: name0, name1, …; None if there is none."""
        parts = [name] if name.encode() in group.attributes else []
        while f"{name}{len(parts)}".encode() in group.attributes:
            parts.append(f"{name}{len(parts)}")
        if not parts:
            return None
        try:
            texts = [text for part in parts for text in self._texts_of(group, part)]
        except CheckpointError:  # Datasets are found without the list: it counts as empty.
            texts = []
        # Hostile lists may share their texts, so that together they are more than the file has.
        self._budget_of_lists -= sum(map(len, texts))
        texts = texts if self._budget_of_lists >= 0 else []
        return _Listing(path, {text: number for number, text in enumerate(texts)})

    def _texts_of(self, item: Object, name: str) -> list[bytes]:
        """The texts in an attribute that is a list of them; none if it is something else."""
        attribute = _attribute(item, name)
        if attribute is None or len(attribute.shape or ()) != 1:
            return []
        datatype, data = attribute.datatype, attribute.data
        if datatype.kind == STRING:
            starts = range(0, len(data), max(1, datatype.size))
            return [unpadded(data[start : start + datatype.size], datatype.details[0]) for start in starts]
        is_text = datatype.is_text and datatype.size == self._heap.reference_size
        return self._heap.values(data[: len(data) // datatype.size * datatype.size]) if is_text else []

    def _unread(self, path: str, error: CheckpointError) -> None:
        error.variable = path if error.variable is None and path else error.variable
        self._report(error)

    def _entered(self, group: Object, place: _Place) -> list[_Place]:
        """The members of a group."""
        model = self._listing(group, place.path, _LAYERS) or place.model
        layer = self._listing(group, place.path, _WEIGHTS) or place.layer
        if place.depth == MAX_DEPTH:
            self._pass_over(place.path, f"more than {MAX_DEPTH} groups deep")
            return []
        depth = place.depth + 1
        children = list(self._children(group, place.path))
        if self._has_links and model is not None:  # Of several paths, take the one in the layer.
            children.sort(key=lambda child: model.number(child[0]) is None)
        saved = place.saved or (self._saved(place.path, children) if place.path else None)
        return [_Place(path, address, depth, model, layer, saved) for path, address in children]

    def _saved(self, path: str, children: Sequence[tuple[str, int]]) -> tuple[str, str] | None:
        """The path of a group and the name of the object that Keras 3 saved there; None if there is none.

        (keras/src/saving/saving_lib.py: _save_state, H5IOStore.make)
        """
        own = next((address for child, address in children if child == f"{path}/{_OWN}"), None)
        with suppress(CheckpointError):  # Reported when it is entered.
            name = self._text_of(Object(self._file, self._shared, own), _NAME) if own is not None else None
            if name:
                self._names[path] = to_text(name)
        return (path, self._names[path]) if path in self._names else None

    def _text_of(self, item: Object, name: str) -> bytes | None:
        """As `text_of`, but also takes a text of variable length."""
        attribute = _attribute(item, name)
        if attribute is None or attribute.shape != () or attribute.datatype.kind != VLEN:
            return text_of(item, name)
        is_text = attribute.datatype.is_text and attribute.datatype.size == self._heap.reference_size
        return self._heap.values(attribute.data[: self._heap.reference_size])[0] if is_text else None

    def _children(self, group: Object, path: str) -> Iterator[tuple[str, int]]:
        """The paths of the datasets and groups in a group, and the addresses of their headers."""
        before = f"{path}/" if path else ""
        for name, address in self._links(group, len(before)):
            child = before + to_text(name)
            # A name that is a path would lead elsewhere.
            if b"/" in name or name in (b"", b"."):
                self._pass_over(child, "no link can have this name")
            elif address is None:
                self._pass_over(child, "a soft or external link, which is not followed")
            elif address not in self._seen:
                self._seen[address] = child
                yield child, address
            elif not self._has_links and not self._is_type(address):
                self._pass_over(child, f"the same as /{self._seen[address]}")

    def _links(self, group: Object, before: int) -> list[Link]:
        """The links of a group, sorted by name; each path begins with `before` characters.

        Hostile links may share their bytes, so that together they are more than the file has.
        """
        links: list[Link] = []
        for link in group.links():
            links.append(link)
            self._budget -= before + len(link.name)
            if self._budget < 0:
                raise CorruptionError("its names take more than there is in the file")
        return sorted(links, key=lambda link: link.name)

    def _is_type(self, address: int) -> bool:
        """Whether something with a second name is a named type, which is no variable anyway."""
        if address not in self._types:
            try:
                self._types[address] = Object(self._file, self._shared, address).kind == TYPE
            except CheckpointError:  # Reported under its first name.
                self._types[address] = False
        return self._types[address]

    def _pass_over(self, path: str, reason: str) -> None:
        self.warnings.append(f"/{path} is passed over: {reason}")


def text_of(item: Object, name: str) -> bytes | None:
    """The text in an attribute of fixed length, or bytes; None if there is none, or it is something else.

    A text of variable length would be in the global heap, which is not read for it.
    """
    attribute = _attribute(item, name)
    if attribute is None or attribute.shape != () or attribute.datatype.kind not in (STRING, OPAQUE):
        return None
    text = attribute.data[: attribute.datatype.size]
    if attribute.datatype.kind == STRING:
        text = unpadded(text, attribute.datatype.details[0])
    return text if len(text) <= _MAX_TEXT else None


def sizes_of(item: Object, name: str) -> tuple[int, ...] | None:
    """The sizes in an attribute; None if there is none, or it is something else."""
    attribute = _attribute(item, name)
    if attribute is None or attribute.datatype.kind != INTEGER:
        return None
    shape, datatype = attribute.shape or (), attribute.datatype
    if len(shape) != 1 or shape[0] > MAX_RANK or len(attribute.data) < shape[0] * datatype.size:
        return None
    starts = range(0, shape[0] * datatype.size, datatype.size)
    is_signed, order = bool(datatype.details[0] & 4), -1 if datatype.is_big else 1
    sizes = tuple(
        int.from_bytes(attribute.data[start : start + datatype.size][::order], "little", signed=is_signed)
        for start in starts
    )
    return sizes if all(size >= 0 for size in sizes) else None


def _attribute(item: Object, name: str) -> Attribute | None:
    return item.attributes.get(name.encode())
