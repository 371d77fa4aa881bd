"""Edits the collections of a graph, for example to mark outputs after training.

A collection is an entry of the map collection_def (4): its name (1) and a CollectionDef (2), here one with a node_list
(1) of names (1). TensorFlow writes entries in the order of their keys, so a new one is put into that order.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TypeVar

from ckpttool.analysis.graphs.needs import require_collection, require_output
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.names import choices_hint
from ckpttool.model.nodes import op_of, require_name
from ckpttool.transforms.graph_edits import edit_meta_graph, key_of
from ckpttool.transforms.new_ops import with_entries
from ckpttool.wire.message import LENGTH, edit, fields, last_field, message_field

_COLLECTIONS = 4


def edit_collections(
    graph: MetaGraph, add: Sequence[tuple[str, str]] = (), remove: Sequence[tuple[str, str | None]] = ()
) -> MetaGraph:
    """The graph with members of collections removed and then added; everything else byte for byte as it was.

        >>> ckpttool.edit_collections(graph, add=[("activation", "activation_opt:0")])

    Args:
        graph: a MetaGraphDef, or a SavedModel's graph.
        add: (collection, op or tensor) pairs. A member that is there already is not added again.
        remove: (collection, member) pairs; None for the member: the whole collection.

    Raises:
        TypeError: what is to be added or removed is no list of pairs, or what is to be added no name.
        NotFoundError: there is no such op, tensor, collection or member.
        NotSupportedError: the file has no collections, or this one holds something else than names.
    """
    require_graph(graph)
    add, remove = list(add), list(remove)  # From zip, say, they come but once.
    for pair in (*add, *remove):
        if isinstance(pair, str) or len(pair) != 2:
            raise TypeError(f"a pair of a collection and its member is needed, not {pair!r}")
    if graph.root == "GraphDef":
        raise NotSupportedError("a GraphDef has no collections; a .meta file and a SavedModel have", path=graph.path)
    members = cache(lambda name: frozenset(graph.collections[name].members))
    for name, member in remove:
        _require_member(graph, name, member, members)
    gone = {name for name, member in remove if member is None}
    for name, member in add:
        _require_tensor(graph, member)
        if name in graph.collections and name not in gone:
            _require_names(graph, name)

    def change(data: bytes) -> bytes:
        taken, added = _by_name(remove), _by_name(add)
        if taken:
            data = edit(data, {_COLLECTIONS: lambda entry: _without(entry, taken.get(key_of(entry), ()))})
        return _with(data, added) if added else data

    return edit_meta_graph(graph, change)


def _require_member(graph: MetaGraph, name: str, member: str | None, members: Callable[[str], Collection[str]]) -> None:
    require_collection(graph, name)
    if member is not None:
        _require_names(graph, name)
        if member not in members(name):
            what = f"{member} is not in the collection {name}"
            raise NotFoundError(what, path=graph.path, hint=choices_hint(member, graph.collections[name].members))


def _require_names(graph: MetaGraph, name: str) -> None:
    kind = graph.collections[name].kind
    if kind not in ("node_list", "empty"):
        what = f"the collection {name} is a {kind}, not one of names"
        raise NotSupportedError(what, path=graph.path, hint="it can only be removed as a whole")


def _require_tensor(graph: MetaGraph, member: str) -> None:
    """A member in the form that TensorFlow takes: `op` for the op, or `op:0` for an output that it has.

    (tensorflow/python/framework/ops.py, Graph.as_graph_element)
    """
    require_name(member)
    graph.node(op_of(member))
    require_output(graph, member)


_Member = TypeVar("_Member")


def _by_name(pairs: Iterable[tuple[str, _Member]]) -> dict[str, dict[_Member, None]]:
    """The members of each collection, in order; each collection is read only once."""
    found: dict[str, dict[_Member, None]] = {}
    for name, member in pairs:
        found.setdefault(name, {})[member] = None
    return found


def _without(entry: bytes, members: Collection[str | None]) -> bytes | None:
    """An entry without some members; None if these were all, or None is one of them."""
    if not members or None in members:
        return None if members else entry
    gone = {member.encode() for member in members if member is not None}
    left = edit(entry, {2: {1: {1: lambda value: None if value in gone else value}}})
    return left if last_field(last_field(left, 2), 1) else None


def _with(data: bytes, added: Mapping[str, Iterable[str]]) -> bytes:
    """The MetaGraphDef with more members in collections; all are added in one pass."""
    entries = (data[start:end] for n, kind, _, start, end in fields(data) if (n, kind) == (_COLLECTIONS, LENGTH))
    there = {key for entry in entries if (key := key_of(entry)) in added and last_field(entry, 2)}

    def changed(entry: bytes) -> bytes:
        key = key_of(entry)
        return edit(entry, {2: {1: lambda names: _more(names, added[key])}}) if key in there else entry

    new = {name: message_field(1, _more(b"", members)) for name, members in added.items() if name not in there}
    return with_entries(edit(data, {_COLLECTIONS: changed}) if there else data, _COLLECTIONS, new)


def _more(names: bytes, members: Iterable[str]) -> bytes:
    """A NodeList with more members, unless they are there already."""
    there = {names[start:end] for *_, start, end in fields(names)}
    values = dict.fromkeys(member.encode() for member in members)
    return names + b"".join(message_field(1, value) for value in values if value not in there)
