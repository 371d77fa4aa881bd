"""A graph made to agree with a checkpoint whose variables were renamed or dropped: TensorFlow restores the pair.

A variable is an op, further ops below its name (`w/Assign`, `w/read`, `w/Initializer/…`), entries in the collections,
and an element of the lists by which savers save and restore. All of these are renamed, or go; with a dropped variable
goes also what needs it (the optimizer's updates of it, …). Every other byte stays as it was.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.graph import VARIABLE_OPS, MetaGraph, split_tensor
from ckpttool.transforms.graph_edits import (
    collection_rule,
    edit_meta_graph,
    key_of,
    last_field,
    reference,
    saver_rules,
    signature_rule,
    text_rule,
)
from ckpttool.transforms.saver_lists import SaverLists
from ckpttool.wire.message import Rule, edit

# Collections that may lose members with the variables that these are about; any other one is somebody's output.
_BOOKKEEPING = {"train_op", "summaries", "summary_op", "update_ops", "losses", "regularization_losses", "init_op"}
_BOOKKEEPING |= {"local_init_op", "ready_op", "ready_for_local_init_op", "table_initializer", "legacy_init_op"}


class Agreeing(NamedTuple):
    """The graph that agrees, and what it has lost: ops, and members of collections, (collection, member)."""

    graph: MetaGraph
    ops: int
    members: Sequence[tuple[str, str]]


def rename_and_drop(graph: MetaGraph, names: Mapping[str, str], dropped: Collection[str] = ()) -> Agreeing:
    """The graph for a checkpoint in which variables have other names, or are no more.

    Args:
        graph: a `.meta` file's.
        names: old name → new name of variables, as the checkpoint has them; those of the same name may be there.
        dropped: the old names of variables that the checkpoint has no more.

    Raises:
        NotSupportedError: it is no MetaGraphDef.
        ConversionError: an op would get the name of another one; or what is dropped is needed by a signature, or by
            a member of somebody's own collection.
    """
    if graph.root != "MetaGraphDef":
        raise NotSupportedError(f"only a .meta file is made to agree, not a {graph.root}", path=graph.path)
    edits = _Edits(graph, names, set(dropped))
    if not edits.ops and not edits.removed and not edits.savers.changes:
        return Agreeing(graph, 0, ())
    return Agreeing(edit_meta_graph(graph, edits.apply), len(edits.removed), edits.lost)


class _Edits:
    """What is to be done to a graph's ops and to what names them."""

    def __init__(self, graph: MetaGraph, names: Mapping[str, str], dropped: set[str]) -> None:
        self.lost: list[tuple[str, str]] = []
        self._graph = graph
        self._renames = {old: new for old, new in names.items() if old != new and old not in dropped}
        nodes = list(graph.graph_def.node)
        owners = _owners(nodes, {*names, *dropped, *(v.name for v in graph.variables)})
        self.ops = {op: self._renames[of] + op[len(of) :] for op, of in owners.items() if of in self._renames}
        self.savers = SaverLists(nodes, self._renames, dropped)
        gone = {op for op, of in owners.items() if of in dropped} | self.savers.emptied
        self.removed = _needing(nodes, gone, {*self.savers.ops}, by_control=False)
        # A group loses the initializers of what is gone, and is no worse for it; not so one that loses updates.
        self._halted = _needing(nodes, self.removed - gone, {*self.savers.ops}, by_control=True)
        self._require_distinct(nodes)
        self._require_outputs()
        self._name = reference(self.ops)

    def _require_distinct(self, nodes: Iterable[Any]) -> None:
        kept = {node.name for node in nodes if node.name not in self.ops and node.name not in self.removed}
        for old, new in self.ops.items():
            if new in kept:
                raise ConversionError(f"the op {old} would be named {new}, as another one is", path=self._graph.path)

    def _require_outputs(self) -> None:
        for signature in self._graph.signatures.values():
            for tensor, _ in signature.outputs.values():
                if split_tensor(tensor)[0] in self.removed:
                    raise ConversionError(f"the signature {signature.key} needs {tensor}", path=self._graph.path)
        for name, collection in self._graph.collections.items():
            for member in collection.members if collection.kind == "node_list" else ():
                if split_tensor(member)[0] in self.removed and name not in _BOOKKEEPING:
                    raise ConversionError(
                        f"the collection {name} needs {member}, which needs a variable that is dropped",
                        path=self._graph.path,
                    )

    def apply(self, data: bytes) -> bytes:
        saver: Rule = saver_rules(text_rule(self._name))
        nodes = iter(self._graph.graph_def.node)
        return edit(
            data,
            {2: {1: lambda node: self._node(node, next(nodes))}, 3: saver, 4: self._collection, 5: self._signature()},
        )

    def _node(self, data: bytes, node: Any) -> bytes | None:
        if node.name in self.removed:
            return None
        data = self.savers.edit_node(data, node)
        name, is_variable = text_rule(self._name), node.op in VARIABLE_OPS

        def operand(value: bytes) -> bytes | None:
            text = value.decode(errors="surrogateescape")
            op = split_tensor(text.removeprefix("^"))[0]
            return None if op in self.removed else name(value)

        def attr(entry: bytes) -> bytes:
            key = last_field(entry, 1)
            if key == b"_class":
                return edit(entry, {2: {1: {2: name}}})
            return edit(entry, {2: {2: name}}) if key == b"shared_name" and is_variable else entry

        return edit(data, {1: name, 3: operand, 5: attr})

    def _collection(self, entry: bytes) -> bytes | None:
        """An entry of collection_def, less what names an op that is gone; nothing of it if nothing is left."""
        collection = key_of(entry)

        def kept(value: bytes) -> bytes | None:
            text = value.decode(errors="surrogateescape")
            op = split_tensor(text)[0]
            if op in self.removed or (op in self._halted and collection in _BOOKKEEPING):
                self.lost.append((collection, text))
                return None
            return value

        def declared(value: bytes) -> bytes | None:
            try:
                variable = last_field(value, 1).decode(errors="surrogateescape")
            except ValueError:
                return value
            return None if split_tensor(variable)[0] in self.removed else value

        is_variables = self._graph.collections[collection].kind == "bytes_list" and any(
            isinstance(member, dict) and member.get("@type") == "VariableDef"
            for member in self._graph.collections[collection].members
        )
        members: dict[int, Rule] = {1: {1: kept}}
        if is_variables:
            members[2] = {1: declared}
        left = edit(entry, {2: members})
        if left != entry and not any(last_field(last_field(left, 2), kind) for kind in (1, 2)):
            return None
        return collection_rule(self._name, lambda name: self._renames.get(name, name))(left)

    def _signature(self) -> Rule:
        return signature_rule(self._name)


def _owners(nodes: Iterable[Any], variables: Collection[str]) -> dict[str, str]:
    """The ops that belong to a variable, with its name: those of this name, and those below it that are not below
    another variable.
    """
    owners = {}
    for node in nodes:
        name = node.name
        while name and name not in variables:
            name = name.rpartition("/")[0]
        if name:
            owners[node.name] = name
    return owners


def _needing(nodes: Sequence[Any], gone: Collection[str], spared: Collection[str], *, by_control: bool) -> set[str]:
    """The ops that are gone and those that need them, but for some that can do without; by control inputs too, or only
    groups (NoOp) that have nothing else left.
    """
    consumers: dict[str, list[Any]] = {}
    for node in nodes:
        for text in node.input:
            consumers.setdefault(split_tensor(text.removeprefix("^"))[0], []).append(node)
    found, stack = set(gone), list(gone)
    while stack:
        op = stack.pop()
        for node in consumers.get(op, ()):
            if node.name not in found and node.name not in spared and _needs(node, op, found, by_control):
                found.add(node.name)
                stack.append(node.name)
    return found


def _needs(node: Any, op: str, gone: Collection[str], by_control: bool) -> bool:
    controls = {text[1:] for text in node.input if text.startswith("^")}
    if by_control or op not in controls or any(split_tensor(text)[0] == op for text in node.input):
        return True
    return node.op == "NoOp" and controls <= set(gone)
