"""Device placements, taken out of a graph.

The bytes are edited in place (wire.message): all that is not a placement stays as and where it was. Rules follow
the messages' fields by number, as `proto/*.proto` has them:

    MetaGraphDef  2 graph_def  4 collection_def  5 signature_def  7 object_graph_def
    GraphDef      1 node  2 library {1 function {3 node_def}}
    NodeDef       1 name  4 device  5 attr

TensorFlow's `clear_devices=True` clears NodeDef.device in the graph, but not in functions. A file may name devices and
hosts elsewhere too: `device_mentions` lists these, and `all=True` clears them.
"""

from collections.abc import Mapping
from itertools import chain
from operator import attrgetter

from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.nodes import all_nodes
from ckpttool.transforms.devices.clearing import Clearing, Mention, without_colocation
from ckpttool.wire.dropping import drop
from ckpttool.wire.message import DROP, Rule, edit

__all__ = ["Mention", "device_mentions", "placed_ops", "strip_devices"]


def strip_devices(graph: MetaGraph, *, colocation: bool = False, all: bool = False) -> MetaGraph:
    """The graph without device placements, also inside library functions; every other byte stays as it was.

    Args:
        graph: a graph, read from any file.
        colocation: also drop `_class` entries `loc:@OP`, which tie an op to another one's device.
        all: also clear what `device_mentions` lists; implies `colocation`.

    Raises:
        CorruptionError: the bytes are no protobuf message.
    """
    require_graph(graph)
    data = drop(graph.data, _rooted(graph, _node_rules({4: DROP})))
    if all:
        data = edit(data, _rooted(graph, Clearing(data).meta_graph))
    elif colocation:
        data = edit(data, _rooted(graph, _node_rules({5: without_colocation})))
    return graph if data is graph.data else graph.replace(data=data)


def placed_ops(graph: MetaGraph) -> int:
    """How many ops have a device, in all graphs of the file and in their functions."""
    return sum(map(bool, map(attrgetter("device"), chain.from_iterable(map(all_nodes, graph.graph_defs)))))


def device_mentions(graph: MetaGraph) -> list[Mention]:
    """Where the graph names devices or hosts outside NodeDef.device, colocation included."""
    require_graph(graph)
    clearing = Clearing(graph.data)
    edit(graph.data, _rooted(graph, clearing.meta_graph))
    return [Mention(where, text, times) for (where, text), times in clearing.mentions.items()]


def _node_rules(node: Mapping[int, Rule]) -> dict[int, Rule]:
    """Rules for a MetaGraphDef that apply `node` to every NodeDef."""
    return {2: {1: node, 2: {1: {3: node}}}}


def _rooted(graph: MetaGraph, rules: Mapping[int, Rule]) -> Mapping[int, Rule]:
    """Rules for a MetaGraphDef, turned into rules for the message in the graph's file."""
    if graph.root == "GraphDef":
        graph_rules = rules[2]
        assert isinstance(graph_rules, Mapping)
        return graph_rules
    return {2: rules} if graph.root == "SavedModel" else rules
