"""A graph made ready for a TensorFlow that did not write it: a copy without what can't be imported.

`lacking` tells which ops that TensorFlow can't import or run, `stand_ins` puts others in their places, and the versions
that the graph asks for and the attributes of the ops that stay are mended here. A Registry says what the TensorFlow at
hand has: nothing here imports it.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import counted
from ckpttool.model.nodes import all_nodes
from ckpttool.transforms.preparing.lacking import Registry, lacking_ops
from ckpttool.transforms.preparing.stand_ins import put_stand_ins


class Prepared(NamedTuple):
    """A graph to import.

    Attributes:
        graph_def: the GraphDef.
        lacking: the ops that have stand-ins, with the reason for each.
        notes: what was changed, in words, beside devices and stand-ins.
    """

    graph_def: Any
    lacking: dict[str, str]
    notes: list[str]


def prepare(graph: MetaGraph, registry: Registry, *, clear_devices: bool = True) -> Prepared:
    """A copy of the graph that TensorFlow can import.

    Args:
        graph: the graph; it stays as it is.
        registry: what the TensorFlow at hand has.
        clear_devices: take devices and colocation out, also in functions.
    """
    graph_def = proto.message_class("GraphDef")()
    graph_def.CopyFrom(graph.graph_def)
    if clear_devices:
        _clear_devices(graph_def)
    lacking = lacking_ops(graph, registry)
    notes = [*_mended_versions(graph_def, registry), *_mended_attributes(graph, graph_def, registry, lacking)]
    if lacking:
        put_stand_ins(graph, graph_def, registry, lacking)
    return Prepared(graph_def, lacking, notes)


def _clear_devices(graph_def: Any) -> None:
    for node in all_nodes(graph_def):
        node.device = ""
        if "_class" in node.attr:
            members = node.attr["_class"].list.s
            kept = [member for member in members if not member.startswith(b"loc:@")]
            if kept:
                members[:] = kept
            else:
                del node.attr["_class"]


def _mended_versions(graph_def: Any, registry: Registry) -> list[str]:
    versions = graph_def.versions
    notes = []
    if versions.min_consumer > registry.version:
        notes.append(
            f"the graph asks for a newer TensorFlow, of GraphDef version {versions.min_consumer} (this one's is"
            f" {registry.version}); imported all the same"
        )
        versions.min_consumer = 0
    if registry.version in versions.bad_consumers:
        notes.append(f"the graph refuses a TensorFlow of GraphDef version {registry.version}; imported all the same")
        del versions.bad_consumers[:]
    return notes


def _mended_attributes(graph: MetaGraph, graph_def: Any, registry: Registry, lacking: Mapping[str, str]) -> list[str]:
    """Takes out attributes that the ops do not have in this TensorFlow; says so unless they have default values."""
    defaults = {
        (op.name, attr.name): attr.default_value
        for op in graph.message.meta_info_def.stripped_op_list.op
        for attr in op.attr
        if attr.HasField("default_value")
    }
    dropped: Counter[tuple[str, str]] = Counter()
    for node in all_nodes(graph_def):
        op_def = None if node.name in lacking else registry.op_def(node.op)
        if op_def is None:
            continue
        known = {attr.name for attr in op_def.attr}
        for key in [key for key in node.attr if not key.startswith("_") and key not in known]:
            dropped[key, node.op] += node.attr[key] != defaults.get((node.op, key))
            del node.attr[key]
    return [
        f"dropped the attribute {key} of {counted(times, f'{op} op')}: this TensorFlow does not know it"
        for (key, op), times in dropped.items()
        if times
    ]


def drop_output_shapes(graph_def: Any) -> int:
    """Takes the `_output_shapes` attributes out; returns how many there were."""
    found = [node for node in graph_def.node if "_output_shapes" in node.attr]
    for node in found:
        del node.attr["_output_shapes"]
    return len(found)
