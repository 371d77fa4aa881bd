"""What transforms of graphs share: editing graphs in place in a file, and the places where they name ops.

An op is named in many places: as an input, with a `^` in front or an output's number behind; in colocation; in
collections, as plain text or inside of serialized messages; in signatures and savers. The rules here change them there.
Names inside library functions are their own.

(tensorflow/core/framework/node_def.proto, variable.proto; core/protobuf/meta_graph.proto, saver.proto,
queue_runner.proto, control_flow.proto)
"""

from collections.abc import Callable, Mapping

from ckpttool.errors import CheckpointError
from ckpttool.model.collections import COLLECTION_MESSAGES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import split_tensor
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.wire.message import Rule, edit, last_field, message_field, values_of

Text = Callable[[str], str]


def edit_meta_graph(graph: MetaGraph, change: Callable[[bytes], bytes]) -> MetaGraph:
    """The graph with its MetaGraphDef changed; in a SavedModel, which may have several, only that of this graph."""
    if graph.root == "SavedModel":
        numbers = iter(range(len(graph.tag_sets)))
        data = edit(graph.data, {2: lambda each: change(each) if next(numbers) == graph.number else each})
    else:
        data = change(graph.data)
    return graph if data == graph.data else graph.replace(data=data)


def meta_graph_data(graph: MetaGraph) -> bytes:
    """The bytes of the graph's MetaGraphDef; for a GraphDef, one is made around it."""
    if graph.root == "SavedModel":
        return list(values_of(graph.data, 2))[graph.number]
    return message_field(2, graph.data) if graph.root == "GraphDef" else graph.data


def key_of(entry: bytes) -> str:
    """The key of a map's entry."""
    return to_text(last_field(entry, 1))


def without_ties(entry: bytes, gone: Callable[[bytes], bool]) -> bytes | None:
    """An entry of NodeDef.attr; if it is `_class` (1 list, 2 s), without members `loc:@OP` that tie the op to one that
    is gone, and None if there were no others.
    """
    if b"loc:@" not in entry or last_field(entry, 1) != b"_class":
        return entry
    left = edit(entry, {2: {1: {2: lambda text: None if text.startswith(b"loc:@") and gone(text[5:]) else text}}})
    return left if left == entry or last_field(last_field(left, 2), 1) else None


def text_rule(change: Text) -> Callable[[bytes], bytes]:
    """A rule that applies `change` to a text."""

    def rule(data: bytes) -> bytes:
        text = to_text(data)
        new = change(text)
        return data if new == text else to_bytes(new)

    return rule


def reference(ops: Mapping[str, str]) -> Text:
    """Renames the op in a reference: `op`, `op:1`, `^op`, `loc:@op`."""

    def change(text: str) -> str:
        mark = next((mark for mark in ("^", "loc:@") if text.startswith(mark)), "")
        op, _ = split_tensor(text.removeprefix(mark))
        return f"{mark}{ops[op]}{text[len(mark) + len(op) :]}" if op in ops else text

    return change


def collection_rule(name: Text, full_name: Text) -> Callable[[bytes], bytes]:
    """The rule for an entry of collection_def; `name` changes references, `full_name` partitioned variables' names."""

    def rule(entry: bytes) -> bytes:
        message = _MESSAGES.get(COLLECTION_MESSAGES.get(key_of(entry), ""))
        members: Rule = _guarded(message(text_rule(name), text_rule(full_name))) if message else lambda member: member
        return edit(entry, {2: {1: {1: text_rule(name)}, 2: {1: members}}})

    return rule


def _guarded(rules: Mapping[int, Rule]) -> Callable[[bytes], bytes]:
    """The rules for a member that is such a message; any other member is left alone."""

    def rule(member: bytes) -> bytes:
        try:
            return edit(member, rules)
        except CheckpointError:
            return member

    return rule


def _variable(name: Rule, full_name: Rule) -> dict[int, Rule]:
    return {1: name, 2: name, 3: name, 4: {1: full_name}, 6: name}


def _context(name: Rule, full_name: Rule, numbers: tuple[int, ...], values: int, nested: int) -> dict[int, Rule]:
    def inner(data: bytes) -> bytes:
        # A ControlFlowContextDef: cond_ctxt 1, while_ctxt 2. It recurs, so it is made late.
        return edit(data, {1: _cond(name, full_name), 2: _while(name, full_name)})

    rules: dict[int, Rule] = dict.fromkeys(numbers, name)
    rules[values], rules[nested] = {1: name, 2: {1: name, 2: name}}, inner
    return rules


def _cond(name: Rule, full_name: Rule) -> dict[int, Rule]:
    return _context(name, full_name, (2, 3), 5, 6)


def _while(name: Rule, full_name: Rule) -> dict[int, Rule]:
    return _context(name, full_name, (5, 6, 7, 8, 10, 11), 9, 12)


def _queue_runner(name: Rule, full_name: Rule) -> dict[int, Rule]:
    return {1: name, 2: name, 3: name, 4: name}


def saver_rules(name: Rule, full_name: Rule | None = None) -> dict[int, Rule]:
    return {1: name, 2: name, 3: name}


_MESSAGES: dict[str, Callable[[Rule, Rule], dict[int, Rule]]] = {
    "VariableDef": _variable,
    "SaverDef": saver_rules,
    "QueueRunnerDef": _queue_runner,
    "CondContextDef": _cond,
    "WhileContextDef": _while,
}


def signature_rule(name: Text) -> Rule:
    """The rule for an entry of signature_def."""

    def tensor(data: bytes) -> bytes:  # A TensorInfo: name 1, coo_sparse 4, composite_tensor 5 {components 2}.
        return edit(data, {1: text_rule(name), 4: dict.fromkeys((1, 2, 3), text_rule(name)), 5: {2: tensor}})

    return {2: {1: {2: tensor}, 2: {2: tensor}}}
