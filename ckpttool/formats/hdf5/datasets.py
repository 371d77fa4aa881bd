"""The datasets of an HDF5 file, found without being led anywhere else by it.

A link is looked at before it is followed: soft, external and user-defined ones are not, for they may lead to other
files of the machine; nor are names that are paths. Of what a group says, no more is kept than the file could hold.
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

# Characters of all paths together: a group's name is stored once, and is in the path of everything below it.
_MAX_PATHS = 64 << 20
_MAX_TEXT = 1 << 20
# The attributes that Keras gives the group of a layer: its list of weights, in several parts if it is long.
_WEIGHTS, _LAYERS = "weight_names", "layer_names"
# The group in which Keras 3's `.weights.h5` has what an object itself holds, and its attribute with the object's name.
_OWN, _NAME = "vars", "name"


class Found(NamedTuple):
    """A dataset.

    Attributes:
        path: from the root, without a slash in front.
        dataset: its header.
        layer: the path of the nearest group above that Keras lists the weights of; None if there is none.
        rank: the numbers of that layer and, in its list, of the dataset; None if the lists do not have them.
        saved: in a `.weights.h5`, the outermost object that it is in: its path, and the name that it had; else None.
    """

    path: str
    dataset: Object
    layer: str | None
    rank: tuple[int, int] | None = None
    saved: tuple[str, str] | None = None


class _Listing(NamedTuple):
    """A group that lists things: its path, and the numbers of their paths from there."""

    path: str
    numbers: dict[bytes, int]

    def number(self, path: str) -> int | None:
        inner = path[len(self.path) + 1 if self.path else 0 :]
        return self.numbers.get(to_bytes(inner))


class _Place(NamedTuple):
    """Something that has a name: its path, its header's address, how many groups it is in; the nearest groups above
    that list layers, and weights; the outermost object above, and its name.
    """

    path: str
    address: int
    depth: int
    model: _Listing | None = None
    layer: _Listing | None = None
    saved: tuple[str, str] | None = None

    @property
    def rank(self) -> tuple[int, int] | None:
        """The numbers of its layer and of itself in that; None if it is in no lists."""
        if self.model is None or self.layer is None:
            return None
        found = self.model.number(self.layer.path), self.layer.number(self.path)
        return None if found[0] is None or found[1] is None else (found[0], found[1])


class Tree:
    """The datasets of a file, each once; `warnings` says what else has a name there and is passed over.

    Args:
        path: the file's.
        file: the file.
        report: takes the errors of what is damaged, and can't be entered.
        names: of weights in shards, the objects that those before have named, by their paths; the file's are added.

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
        """In the order of the paths.

        Args:
            has_links: the file is made with several links to one dataset: no warning of these.
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
        """What a group lists in an attribute, or, if it is long, in several: name0, name1, …; None if it has none."""
        parts = [name] if name.encode() in group.attributes else []
        while f"{name}{len(parts)}".encode() in group.attributes:
            parts.append(f"{name}{len(parts)}")
        if not parts:
            return None
        try:
            texts = [text for part in parts for text in self._texts_of(group, part)]
        except CheckpointError:  # A list tells nothing of what is there: it is as good as empty.
            texts = []
        # Those of other groups may share their texts with these, so that they are more than the file has.
        self._budget_of_lists -= sum(map(len, texts))
        texts = texts if self._budget_of_lists >= 0 else []
        return _Listing(path, {text: number for number, text in enumerate(texts)})

    def _texts_of(self, item: Object, name: str) -> list[bytes]:
        """An attribute that is a list of texts; nothing if it is something else."""
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
        """What is in a group."""
        model = self._listing(group, place.path, _LAYERS) or place.model
        layer = self._listing(group, place.path, _WEIGHTS) or place.layer
        if place.depth == MAX_DEPTH:
            self._pass_over(place.path, f"more than {MAX_DEPTH} groups deep")
            return []
        depth = place.depth + 1
        children = list(self._children(group, place.path))
        if self._has_links and model is not None:  # Of several paths to a weight, that in its layer is taken.
            children.sort(key=lambda child: model.number(child[0]) is None)
        saved = place.saved or (self._saved(place.path, children) if place.path else None)
        return [_Place(path, address, depth, model, layer, saved) for path, address in children]

    def _saved(self, path: str, children: Sequence[tuple[str, int]]) -> tuple[str, str] | None:
        """The path of a group and the name of the object that Keras 3 has saved there; None if it has saved none there.

        (keras/src/saving/saving_lib.py: _save_state, H5IOStore.make)
        """
        own = next((address for child, address in children if child == f"{path}/{_OWN}"), None)
        with suppress(CheckpointError):  # It is reported where it is entered.
            name = self._text_of(Object(self._file, self._shared, own), _NAME) if own is not None else None
            if name:
                self._names[path] = to_text(name)
        return (path, self._names[path]) if path in self._names else None

    def _text_of(self, item: Object, name: str) -> bytes | None:
        """As `text_of`, and of variable length too."""
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
            # A name that is a path leads somewhere else.
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
        """The links of a group, whose path has `before` characters, by their names.

        Hostile ones may share their bytes, so that they are more than the file has.
        """
        links: list[Link] = []
        for link in group.links():
            links.append(link)
            self._budget -= before + len(link.name)
            if self._budget < 0:
                raise CorruptionError("its names take more than there is in the file")
        return sorted(links, key=lambda link: link.name)

    def _is_type(self, address: int) -> bool:
        """Whether something that has another name already is a named type: that is no variable, whatever its name."""
        if address not in self._types:
            try:
                self._types[address] = Object(self._file, self._shared, address).kind == TYPE
            except CheckpointError:  # It is reported under its first name.
                self._types[address] = False
        return self._types[address]

    def _pass_over(self, path: str, reason: str) -> None:
        self.warnings.append(f"/{path} is passed over: {reason}")


def text_of(item: Object, name: str) -> bytes | None:
    """An attribute that is one text of fixed length, or bytes; None if there is none, or it is something else.

    One of variable length would be in the global heap, where nobody looks for it.
    """
    attribute = _attribute(item, name)
    if attribute is None or attribute.shape != () or attribute.datatype.kind not in (STRING, OPAQUE):
        return None
    text = attribute.data[: attribute.datatype.size]
    if attribute.datatype.kind == STRING:
        text = unpadded(text, attribute.datatype.details[0])
    return text if len(text) <= _MAX_TEXT else None


def sizes_of(item: Object, name: str) -> tuple[int, ...] | None:
    """An attribute that is a list of sizes; None if there is none, or it is something else."""
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
