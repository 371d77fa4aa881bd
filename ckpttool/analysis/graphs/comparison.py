"""Two graphs side by side: ops, functions, collections and signatures that are only in one, or not the same.

The order of ops and of attributes, and information for debuggers, have no meaning and do not count.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.model.collections import Collection
from ckpttool.model.graph import MetaGraph

_LONGEST = 80
_PARSED = 1 << 16
"""The most bytes of a value that is shown; of a larger one, only the size is."""

_Messages = Mapping[str, Any]


class GraphChange(NamedTuple):
    """A difference between two graphs.

    Attributes:
        kind: what it is: "op", "function", "collection", "signature".
        function: the function that the op is in; "" if it is in none.
        name: its name.
        change: "only in A", "only in B", or "changed".
        what: the part that has changed: "type", "inputs", "device", "attribute T", or a field of its message; of an
            op that is only in one, its type; of a collection, "member" or "order".
        a: as it is in the first: text, or a member of a collection.
        b: as it is in the second.
    """

    kind: str
    function: str
    name: str
    change: str
    what: str = ""
    a: Any = ""
    b: Any = ""


def compare_graphs(a: MetaGraph, b: MetaGraph) -> list[GraphChange]:
    """The differences between two graphs; those of each kind in the order of the first graph, then of the second."""
    one, other = a.message, b.message
    return [
        *_ops("", _by_name(one.graph_def.node), _by_name(other.graph_def.node)),
        *_functions(a.functions, b.functions),
        *_collections(a.collections, b.collections),
        *_fields_of_each("signature", one.signature_def, other.signature_def),
    ]


def _by_name(nodes: Any) -> dict[str, Any]:
    return {node.name: node for node in nodes}


def _ops(function: str, ops_a: _Messages, ops_b: _Messages) -> Iterator[GraphChange]:
    for name, node in ops_a.items():
        if name not in ops_b:
            yield GraphChange("op", function, name, "only in A", node.op)
        elif _bytes(node) != _bytes(ops_b[name]):
            for what, one, other in _of_op(node, ops_b[name]):
                yield GraphChange("op", function, name, "changed", what, one, other)
    for name, node in ops_b.items():
        if name not in ops_a:
            yield GraphChange("op", function, name, "only in B", node.op)


def _of_op(a: Any, b: Any) -> Iterator[tuple[str, str, str]]:
    """The parts of an op that have changed, with what they are in both."""
    texts = (
        ("type", a.op, b.op),
        ("inputs", _inputs(a), _inputs(b)),
        ("device", a.device, b.device),
    )
    yield from ((what, one, other) for what, one, other in texts if one != other)
    for name in sorted({*a.attr, *b.attr}):
        old, new = (node.attr.get(name) for node in (a, b))
        if _bytes(old) != _bytes(new):
            yield f"attribute {name}", _text(old), _text(new)


def _inputs(node: Any) -> str:
    """The inputs. Control inputs have no order, so they are sorted by name; x:0 is written x."""
    data = [text if text.count(":") > 1 else text.removesuffix(":0") for text in node.input if text[:1] != "^"]
    return ", ".join(data + sorted(text for text in node.input if text.startswith("^")))


def _functions(a: _Messages, b: _Messages) -> Iterator[GraphChange]:
    yield from _fields_of_each("function", a, b, but="node_def")
    for name, function in a.items():
        if name in b and _bytes(function) != _bytes(b[name]):
            yield from _ops(name, _by_name(function.node_def), _by_name(b[name].node_def))


def _fields_of_each(kind: str, a: _Messages, b: _Messages, but: str = "") -> Iterator[GraphChange]:
    """Messages that are only in one graph, and differing fields of the others, except for one field."""
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield GraphChange(kind, "", name, "only in A" if name in a else "only in B")
        elif _bytes(a[name]) != _bytes(b[name]):
            for field in (field.name for field in a[name].DESCRIPTOR.fields if field.name != but):
                old, new = _only(a[name], field), _only(b[name], field)
                if _bytes(old) != _bytes(new):
                    yield GraphChange(kind, "", name, "changed", field.replace("_", " "), _text(old), _text(new))


def _only(message: Any, field: str) -> Any:
    """The message with this field alone."""
    copy = type(message)()
    copy.CopyFrom(message)
    for other in message.DESCRIPTOR.fields:
        if other.name != field:
            copy.ClearField(other.name)
    return copy


def _collections(a: Mapping[str, Collection], b: Mapping[str, Collection]) -> Iterator[GraphChange]:
    """Collections that are only in one, and members of the others that only one has."""
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield GraphChange("collection", "", name, "only in A" if name in a else "only in B")
            continue
        only_a, only_b = _more(a[name].members, b[name].members), _more(b[name].members, a[name].members)
        yield from (GraphChange("collection", "", name, "only in A", "member", member) for member in only_a)
        yield from (GraphChange("collection", "", name, "only in B", "member", "", member) for member in only_b)
        if not only_a and not only_b and repr(a[name].members) != repr(b[name].members):
            yield GraphChange("collection", "", name, "changed", "order")


def _more(members: list[Any], others: list[Any]) -> list[Any]:
    """The members that the others lack, or have fewer times; compared as texts, for some can't be hashed."""
    left, found = Counter(map(repr, others)), []
    for member in members:
        left[repr(member)] -= 1
        if left[repr(member)] < 0:
            found.append(member)
    return found


def _bytes(message: Any) -> bytes | None:
    """A form that is the same for equal messages: maps are in the order of their keys."""
    return None if message is None else proto.serialize(message)


def _text(message: Any) -> str:
    """A short text for a value."""
    if message is None:
        return "(none)"
    if message.ByteSize() > _PARSED:
        return f"({message.ByteSize():,} bytes)"
    text = str(message).strip().replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
