"""What is removed from a graph together with ops: the ops that need them, and what names them in collections.

An op that has lost an input can't stay. A control input is an order, not a value, so that an op can do without one, as
groups (NoOp) do, which have nothing else; only a constant in a branch or loop is there by its control input alone. In
collections, a message is removed if it makes no sense without the op that a field names; a list only loses a member.

(tensorflow/core/protobuf/control_flow.proto, queue_runner.proto, saver.proto; core/framework/variable.proto)
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.needs import is_inside
from ckpttool.errors import CheckpointError
from ckpttool.model.nodes import op_of
from ckpttool.wire.message import Rule, edit, last_field, values_of

Gone = Callable[[bytes], bool]
"""Whether a reference, as it is stored, is to an op that is removed."""


def needing(nodes: Sequence[Any], gone: Collection[str], spared: Collection[str], *, by_control: bool) -> set[str]:
    """The ops that are gone and those that need them, except for some that can do without.

    Args:
        nodes: the graph's ops.
        gone: names of ops.
        spared: the names of those that can do without.
        by_control: whether ops with a control input from one that is gone go too.
    """
    # Op → the ops that use it, each with whether it takes a value; and, for ops that take none, how many they wait for.
    consumers: dict[str, dict[str, bool]] = {}
    left: dict[str, int] = {}
    before: dict[str, list[str]] = {}
    types, outside = {node.name: node.op for node in nodes}, set[str]()

    def is_lost(name: str) -> bool:
        """Whether an op that takes no value makes no sense when it has lost all that it waited for."""
        return types[name] == "NoOp" or is_inside(name, types, before.__getitem__, outside)

    for node in nodes:
        waits_for = {text[1:]: False for text in node.input if text.startswith("^")}
        waits_for |= {op_of(text): True for text in node.input if not text.startswith("^")}
        for op, is_value in waits_for.items():
            consumers.setdefault(op, {})[node.name] = is_value
        before[node.name] = list(waits_for)
        if not any(waits_for.values()):
            left[node.name] = len(waits_for)
    found = set(gone)
    stack = list(found)
    while stack:
        for name, is_value in consumers.get(stack.pop(), {}).items():
            if name in left:
                left[name] -= 1
            if name in found or name in spared:
                continue
            if by_control or is_value or (left.get(name) == 0 and is_lost(name)):
                found.add(name)
                stack.append(name)
    return found


class _Message(NamedTuple):
    """How a message of a collection names ops: the fields that it needs, which of them are lists, and other fields."""

    needed: tuple[int, ...]
    lists: tuple[int, ...] = ()
    values: int | None = None
    nested: int | None = None


_COND = _Message((2, 3), (), 5, 6)
_WHILE = _Message((5, 6, 7), (8, 10), 9, 12)
_MESSAGES = {
    "VariableDef": _Message((1,)),
    "SaverDef": _Message((1, 2, 3)),
    "QueueRunnerDef": _Message((1, 2, 3, 4), (2,)),
    "CondContextDef": _COND,
    "WhileContextDef": _WHILE,
}


def message_without(data: bytes, name: str, gone: Gone) -> bytes | None:
    """A message of a collection without what is gone; None if it makes no sense any more."""
    message = _MESSAGES.get(name)
    try:
        return data if message is None else _without(data, message, gone)
    except CheckpointError:
        return data  # It is not such a message, which TensorFlow will say.


def _without(data: bytes, message: _Message, gone: Gone) -> bytes | None:
    for number in message.needed:
        named = list(values_of(data, number))
        if named and (all if number in message.lists else any)(map(gone, named)):
            return None
    rules: dict[int, Rule] = {number: lambda text: None if gone(text) else text for number in message.lists}
    if message.values is not None and message.nested is not None:
        rules[message.values] = {
            1: lambda text: None if gone(text) else text,
            2: lambda entry: None if any(gone(last_field(entry, n)) for n in (1, 2)) else entry,
        }
        rules[message.nested] = lambda context: _nested_without(context, gone)
    return edit(data, rules)


def _nested_without(data: bytes, gone: Gone) -> bytes | None:
    """A ControlFlowContextDef (1 cond_ctxt, 2 while_ctxt), which has one context or none."""
    rules: Mapping[int, Rule] = {1: lambda c: _without(c, _COND, gone), 2: lambda c: _without(c, _WHILE, gone)}
    return edit(data, rules) or None
