"""A graph made to agree with a checkpoint whose variables were renamed or dropped: TensorFlow restores the pair.

A variable is an op, further ops below its name (`w/Assign`, `w/read`, `w/Initializer/…`), entries in the collections,
and an element of the lists by which savers save and restore. All of these are renamed, or removed, and with a dropped
variable also what needs it (the optimizer's updates of it, …). Every other byte stays as it was.

In the checkpoint, a variable has the name that the savers give it (transforms.saver_lists), mostly that of the op. If
it is another one, the op keeps its name. A partitioned variable `w` is the ops `w/part_0`, `w/part_1`, …
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.endpoints.flow import role_of
from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.collections import is_filled
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import VARIABLE_OPS, op_of
from ckpttool.model.texts import to_text
from ckpttool.transforms.graph_edits import (
    collection_rule,
    edit_meta_graph,
    key_of,
    reference,
    saver_rules,
    signature_rule,
    text_rule,
    without_ties,
)
from ckpttool.transforms.graph_removal import message_without, needing
from ckpttool.transforms.saver_lists import FORMS, SaverLists
from ckpttool.wire.message import Rule, edit, last_field

# What TensorFlow takes as the name of an op. (tensorflow/core/framework/node_def_util.cc, IsValidOpName)
_OP_NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*")
_PART = re.compile(r"/part_\d+(?=/|$)")


class Agreeing(NamedTuple):
    """The graph that agrees, and what it has lost.

    Attributes:
        graph: the graph.
        ops: how many ops were removed.
        members: members of collections that were removed, as (collection, member).
        ends: ops that were removed because they need what was dropped, and that may be results of the model.
    """

    graph: MetaGraph
    ops: int
    members: Sequence[tuple[str, str]] = ()
    ends: Sequence[str] = ()


def rename_and_drop(
    graph: MetaGraph, names: Mapping[str, str], dropped: Collection[str] = (), averages: Mapping[str, str] | None = None
) -> Agreeing:
    """The graph for a checkpoint in which variables were renamed or dropped.

    Args:
        graph: a `.meta` file's.
        names: old name → new name of variables in the checkpoint; unchanged names may be there too.
        dropped: the old names of variables that the checkpoint no longer has.
        averages: moving averages among these that took the places of variables, with the old names of those variables.

    Raises:
        NotSupportedError: it is no MetaGraphDef, or has savers inside of functions.
        ConversionError: an op would get the name of another one, or one that no op may have; or what is dropped is
            needed by a signature, by a member of a user's collection, or to initialize what is left.
    """
    if graph.root != "MetaGraphDef":
        raise NotSupportedError(f"only a .meta file is made to agree, not a {graph.root}", path=graph.path)
    renames = {old: new for old, new in names.items() if old != new and old not in dropped}
    if not renames and not dropped:
        return Agreeing(graph, 0)
    try:
        edits = _Edits(graph, renames, set(dropped), averages or {})
        if not edits.ops and not edits.removed and not edits.savers.changes:
            return Agreeing(graph, 0)
        return Agreeing(edit_meta_graph(graph, edits.apply), len(edits.removed), edits.lost, edits.lost_ends)
    except ConversionError as error:
        error.path = error.path or graph.path
        raise


class _Edits:
    """The changes to a graph's ops and to what names them."""

    def __init__(
        self, graph: MetaGraph, renames: Mapping[str, str], dropped: set[str], averages: Mapping[str, str]
    ) -> None:
        _require_no_savers_in_functions(graph)
        self.lost: list[tuple[str, str]] = []
        self._graph, self._types = graph, {node.name: node.op for node in graph.graph_def.node}
        nodes = list(graph.graph_def.node)
        self.savers = SaverLists(nodes, op_of(graph.message.saver_def.filename_tensor_name))
        self._full_names = _full_names(graph)
        becomes = _becoming(self._full_names, self.savers, renames, dropped)
        self._new_full_names = {full: renames[full] for full in self._full_names.values() if full in renames}
        owners = _owners(nodes, becomes)
        self.ops = {op: new + op[len(of) :] for op, of in owners.items() if (new := becomes[of]) not in (None, of)}
        gone = {op for op, of in owners.items() if becomes[of] is None}
        gone |= self.savers.change(renames, dropped, averages)
        spared = (self.savers.ops - gone) | self.savers.shortened
        self.removed = needing(nodes, gone, spared, by_control=False)
        self.lost_ends = _ends(nodes, self.removed - gone)
        # A group may lose the initializers of what is gone, but not updates.
        self._halted = needing(nodes, self.removed - gone, self.savers.ops, by_control=True)
        self._name = reference(self.ops)
        self._require_names()
        self._require_what_is_left()

    def _require_names(self) -> None:
        kept = {name for name in self._types if name not in self.ops and name not in self.removed}
        for old, new in sorted(self.ops.items()):  # A variable comes before what is below it.
            if old in self.removed:
                continue
            if new in kept:
                raise ConversionError(f"the op {old} would be named {new}, as another one is")
            if not _OP_NAME.fullmatch(new):
                raise ConversionError(f"the op {old} would be named {new!r}, as no op may be")
            kept.add(new)

    def _require_what_is_left(self) -> None:
        for op, tensor in self.savers.lost_inputs(self.removed):
            raise ConversionError(f"the saver {op} needs {tensor}, which needs a variable that is dropped")
        for key, signature in self._graph.signatures.items():
            for tensor, _ in signature.outputs.values():
                if op_of(tensor) in self.removed:
                    raise ConversionError(f"the signature {key} needs {tensor}, which needs a variable that is dropped")
        for name, collection in self._graph.collections.items():
            for member in collection.members:
                if isinstance(member, dict) and member["@type"] == "VariableDef":
                    self._require_initializer(member)
                elif isinstance(member, str) and collection.kind == "node_list":
                    self._require_member(name, member)

    def _require_initializer(self, variable: Mapping[str, Any]) -> None:
        """Raises if a variable that is left would lose its initializer: TensorFlow imports none without."""
        name = op_of(variable.get("variable_name", ""))
        needed = [variable.get(field, "") for field in ("initializer_name", "snapshot_name", "initial_value_name")]
        lost = [text for text in needed if op_of(text) in self.removed]
        if lost and name not in self.removed:
            raise ConversionError(
                f"{name} is left, and {lost[0]} needs a variable that is dropped", hint=f"drop {name} too, or neither"
            )

    def _require_member(self, collection: str, member: str) -> None:
        op = op_of(member)
        if op in self.removed and not is_filled(collection) and self._types[op] != "NoOp":
            raise ConversionError(
                f"the collection {collection} needs {member}, which needs a variable that is dropped",
                hint=f"`ckpttool collections --remove {collection}={member}` makes a graph that does not",
            )

    def apply(self, data: bytes) -> bytes:
        saver: Rule = saver_rules(text_rule(self._name))
        nodes = iter(self._graph.graph_def.node)
        rules: dict[int, Rule] = {2: {1: lambda node: self._node(node, next(nodes))}, 3: saver, 4: self._collection}
        return edit(data, rules | {5: signature_rule(self._name)})

    def _node(self, data: bytes, node: Any) -> bytes | None:
        if node.name in self.removed:
            return None
        data = self.savers.edit_node(data, node, self.removed)
        if self.removed:
            data = edit(data, {5: lambda entry: without_ties(entry, self._is_removed)})
        name, is_variable = text_rule(self._name), node.op in VARIABLE_OPS

        def operand(value: bytes) -> bytes | None:
            return None if self._is_removed(value.removeprefix(b"^")) else name(value)

        def attr(entry: bytes) -> bytes:
            key = last_field(entry, 1)
            if key == b"_class":
                return edit(entry, {2: {1: {2: name}}})
            return edit(entry, {2: {2: name}}) if key == b"shared_name" and is_variable else entry

        return edit(data, {1: name, 3: operand, 5: attr})

    def _is_removed(self, value: bytes) -> bool:
        return op_of(to_text(value)) in self.removed

    def _collection(self, entry: bytes) -> bytes | None:
        """An entry of collection_def without what names an op that is gone; None if nothing is left."""
        collection = self._graph.collections.get(key_of(entry))
        if collection is None:  # Not a collection to any reader.
            return entry

        def kept(value: bytes) -> bytes | None:
            text = to_text(value)
            op = op_of(text)
            is_run = text == op or is_filled(collection.name)
            if op in self.removed or (op in self._halted and is_run):
                self.lost.append((collection.name, text))
                return None
            return value

        kinds = iter([member.get("@type", "") if isinstance(member, dict) else "" for member in collection.members])

        def left_of(value: bytes) -> bytes | None:
            kind = next(kinds, "")  # If two collections have one name, the last one counts.
            left = message_without(value, kind, self._is_removed)
            if left is None and kind in ("QueueRunnerDef", "SaverDef"):
                self.lost.append((collection.name, to_text(last_field(value, 1))))
            return left

        left = edit(entry, {2: {1: {1: kept}, 2: {1: left_of}}})
        if left != entry and not any(last_field(last_field(left, 2), kind) for kind in (1, 2)):
            return None
        return collection_rule(self._name, lambda name: self._new_full_names.get(name, name))(left)


def _ends(nodes: Iterable[Any], among: Collection[str]) -> list[str]:
    """The ops, of some, that may be results of the model: those whose values no op takes, and that do nothing else."""
    ends = [node.name for node in nodes if node.name in among and not role_of(node.name, node.op)]
    taken = {op_of(text) for node in nodes for text in node.input} if ends else ()
    return [name for name in ends if name not in taken]


def _require_no_savers_in_functions(graph: MetaGraph) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op in FORMS:
                raise NotSupportedError(
                    f"the function {function.signature.name} saves or restores: {node.name}", path=graph.path
                )


def _full_names(graph: MetaGraph) -> dict[str, str]:
    """Op of a variable → the name that a saver gives the variable by itself; for a part, that of the whole."""
    found = {variable.name: variable.name for variable in graph.variables}
    for op, declared in graph.variable_defs.items():
        for _, each in declared:
            found[op] = each.get("save_slice_info_def", {}).get("full_name") or found.get(op, "")
    return {op: full for op, full in found.items() if op and full}


def _becoming(
    full_names: Mapping[str, str], savers: SaverLists, renames: Mapping[str, str], dropped: set[str]
) -> dict[str, str | None]:
    """Op of a variable, or name of a partitioned one → its new name; None if it is removed."""
    taken = {key for of in savers.keys.values() for key in of}
    becomes: dict[str, str | None] = {}
    for op, full in full_names.items():
        # The names in the checkpoint are the main saver's. Others may save as a whole what it saves in parts.
        of = savers.own.get(op) or savers.keys.get(op) or []
        key = full if full in of or (not of and full not in taken) else next(iter(of), "")
        if key in dropped:
            becomes[op] = None
        else:
            becomes[op] = _moved(op, full, renames[full]) if key == full and full in renames else op
        if op != full and full not in full_names and op.startswith(f"{full}/"):
            becomes[full] = None if key in dropped else renames.get(full, full) if key == full else full
    return becomes


def _moved(op: str, full: str, new: str) -> str:
    """The new name of a variable's op; a part (`w/part_0`, or its slot `w/part_0/Adam`) is renamed as the whole is."""
    part = next((m for m in _PART.finditer(op) if op[: m.start()] + op[m.end() :] == full), None)
    if part is None:
        return new
    behind = op[part.end() :]
    if behind and new.endswith(behind):
        return new.removesuffix(behind) + part[0] + behind
    return new + part[0]


def _owners(nodes: Iterable[Any], variables: Collection[str]) -> dict[str, str]:
    """Op → the variable that it belongs to: the op of that name, and those below it that are not below another
    variable.
    """
    owners = {}
    lengths = set(map(len, variables))
    for node in nodes:
        name, end = node.name, len(node.name)
        while end > 0 and not (end in lengths and name[:end] in variables):
            end = name.rfind("/", 0, end)
        if end > 0:
            owners[name] = name[:end]
    return owners
