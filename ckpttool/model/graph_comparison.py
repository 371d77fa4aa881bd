"""Two graphs side by side: which ops are only in one, and which have another type, input, attribute or device."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ckpttool.model.graph import MetaGraph, Node


class OpChange(NamedTuple):
    """An op that is not the same.

    Attributes:
        op: its name.
        change: "only in A", "only in B", or "changed".
        what: what of it has changed: "type", "inputs", "device", "attribute T"; of one that is only in one, its type.
        a: as it is in the first.
        b: as it is in the second.
    """

    op: str
    change: str
    what: str
    a: str = ""
    b: str = ""


def compare_graphs(a: MetaGraph, b: MetaGraph) -> list[OpChange]:
    """What differs between two graphs, in the order of the first's ops, then of the second's.

    The order of ops, and that of attributes, is nothing that a graph means.
    """
    ops_a, ops_b = a.by_name, b.by_name
    changes: list[OpChange] = []
    for name, node in ops_a.items():
        if name not in ops_b:
            changes.append(OpChange(name, "only in A", node.type))
        else:
            changes += _changes(node, ops_b[name])
    return changes + [OpChange(name, "only in B", node.type) for name, node in ops_b.items() if name not in ops_a]


def _changes(a: Node, b: Node) -> Iterator[OpChange]:
    for what, one, other in (
        ("type", a.type, b.type),
        ("inputs", ", ".join(_inputs(a)), ", ".join(_inputs(b))),
        ("device", a.device, b.device),
    ):
        if one != other:
            yield OpChange(a.name, "changed", what, one, other)
    for name in sorted({*a.message.attr, *b.message.attr}):
        old, new = _attribute(a.message, name), _attribute(b.message, name)
        if old != new:
            yield OpChange(a.name, "changed", f"attribute {name}", _text(old), _text(new))


def _inputs(node: Node) -> list[str]:
    """The inputs; those that are only waited for in the order of their names, for they have none."""
    data = [text for text in node.inputs if not text.startswith("^")]
    return data + sorted(text for text in node.inputs if text.startswith("^"))


def _attribute(message: Any, name: str) -> bytes | None:
    return message.attr[name].SerializeToString(deterministic=True) if name in message.attr else None


def _text(value: bytes | None) -> str:
    """An attribute's value in short."""
    from ckpttool import proto

    if value is None:
        return "(none)"
    text = str(proto.parse("AttrValue", value)).strip().replace("\n", " ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(value):,} bytes)"


_LONGEST = 80
