"""Stand-ins for ops that can't be imported or run, with their names and outputs.

    SSTableReaderV2 ─▶ ReaderReadV2 ─▶ conv       Placeholder ─▶ ReaderReadV2 ─▶ conv

This keeps the rest of the graph whole, a fetch that needs the op can be told from one that does not, and the op's
outputs may still be fed. An op with several outputs becomes an IdentityN of placeholders, one with none a NoOp.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from ckpttool.model.arguments import Dtypes, Tensor, arguments_of
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import Node, op_of, set_shape, split_tensor
from ckpttool.transforms.new_ops import new_op
from ckpttool.transforms.preparing.lacking import Registry, input_dtypes

_FLOAT = DTYPES["float32"].number
_MOST_OUTPUTS = 256


def put_stand_ins(graph: MetaGraph, graph_def: Any, registry: Registry, lacking: Mapping[str, str]) -> None:
    """Turns the lacking ops into stand-ins, in a copy of the graph.

    Args:
        graph: the graph, as it was.
        graph_def: the copy.
        registry: what the TensorFlow at hand has.
        lacking: the names of the lacking ops.
    """
    uses = _uses(graph, registry, lacking)
    by_name = {node.name: node for node in graph.nodes if node.name in lacking}
    added = []
    for message in graph_def.node:
        node = by_name.get(message.name)
        if node is not None:
            outputs = _outputs(graph, node, registry, uses.get(node.name, {}))
            message.Clear()
            message.name = node.name
            added += _stand_in(message, outputs)
    graph_def.node.extend(added)


def _uses(graph: MetaGraph, registry: Registry, lacking: Mapping[str, str]) -> dict[str, dict[int, DType | None]]:
    """Lacking op → those of its outputs that other ops take, by number, with the dtype that the taker wants."""
    found: dict[str, dict[int, DType | None]] = {}
    for node in graph.nodes:
        inputs = node.operands
        if node.name in lacking or not any(op_of(text) in lacking for text in inputs):
            continue
        op_def = registry.op_def(node.type)
        dtypes: Dtypes | list[DType | None] = input_dtypes(node, op_def) if op_def is not None else []
        for place, text in enumerate(inputs):
            op, number = split_tensor(text)
            if op in lacking:
                found.setdefault(op, {})[int(number)] = dtypes[place] if place < len(dtypes) else None
    return found


def _outputs(graph: MetaGraph, node: Node, registry: Registry, used: Mapping[int, DType | None]) -> list[Tensor]:
    """An op's outputs: as the file describes them, else as the registry does, else as other ops take them."""
    outputs = graph.outputs(node)[:_MOST_OUTPUTS]
    op_def = registry.op_def(node.type)
    if op_def is not None and not (outputs and all(output.dtype for output in outputs)):
        dtypes = islice(Dtypes(arguments_of(op_def.output_arg, op_def.attr), node.message.attr), _MOST_OUTPUTS)
        outputs = [Tensor(dtype, None) for dtype in dtypes]
    count = min(max(len(outputs), max(used, default=-1) + 1), _MOST_OUTPUTS)
    said = dict(enumerate(outputs))
    unknown = Tensor(None, None)
    return [Tensor(said.get(i, unknown).dtype or used.get(i), said.get(i, unknown).shape) for i in range(count)]


def _stand_in(message: Any, outputs: list[Tensor]) -> list[Any]:
    """Makes the node a stand-in with these outputs; returns the other nodes that it needs."""
    if len(outputs) < 2:
        message.op = "Placeholder" if outputs else "NoOp"
        for output in outputs:
            _set_placeholder(message, output)
        return []
    message.op = "IdentityN"
    added = []
    for number, output in enumerate(outputs):
        node = new_op(f"{message.name}/stand_in_{number}", "Placeholder")
        _set_placeholder(node, output)
        message.input.append(node.name)
        message.attr["T"].list.type.append(node.attr["dtype"].type)
        added.append(node)
    return added


def _set_placeholder(node: Any, output: Tensor) -> None:
    node.attr["dtype"].type = output.dtype.base.number if output.dtype is not None else _FLOAT
    set_shape(node.attr["shape"].shape, output.shape)
