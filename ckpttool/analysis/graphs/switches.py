"""Switches between modes of a model, such as is_training and keep_prob: fed numbers, or variables."""

import re
from collections.abc import Container, Mapping

from ckpttool.model.arguments import Tensor, get_shape
from ckpttool.model.dtypes import DTYPES, dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import VARIABLE_OPS, Node, op_of

_NAME = re.compile(r"keep_?prob|drop_?out|drop_?rate|is_?train|training|phase", re.IGNORECASE)

_BOOL = DTYPES["bool"].number


def is_switch(name: str, known: Tensor) -> bool:
    is_bool = known.dtype is not None and known.dtype.name == "bool"
    return not known.shape and (is_bool or _NAME.search(name) is not None)


def held_switches(graph: MetaGraph, ops: Container[str]) -> dict[str, list[str]]:
    """Variable that is a switch → the ops, among these, that read it: the variable has the value that training left."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.type in ("Identity", "ReadVariableOp") and node.name in ops and node.operands:
            variable = graph.by_name.get(op_of(node.operands[0]))
            if variable is not None and _is_held_switch(variable):
                found.setdefault(variable.name, []).append(node.name)
    return found


def default_flag(nodes: Mapping[str, Node], node: Node) -> bool | None:
    """The default of a flag; None unless it is a single boolean in the graph."""
    source = nodes.get(op_of(node.operands[0])) if node.type == "PlaceholderWithDefault" and node.operands else None
    attr = source.message.attr if source is not None and source.type == "Const" else {}
    if "value" not in attr or attr["value"].tensor.dtype != _BOOL:
        return None
    tensor = attr["value"].tensor
    values = [*tensor.bool_val, *tensor.tensor_content]
    return bool(values[0]) if len(values) == 1 else None


def on_by_default(graph: MetaGraph, ops: Container[str]) -> list[str]:
    """The flags among these ops that put a model into training mode unless they are fed."""
    named = (node for node in graph.nodes if node.name in ops and _NAME.search(node.name))
    return [node.name for node in named if default_flag(graph.by_name, node)]


def _is_held_switch(node: Node) -> bool:
    attr = node.message.attr
    if node.type not in VARIABLE_OPS or "shape" not in attr:
        return False
    return is_switch(node.name, Tensor(dtype_of(attr["dtype"].type), get_shape(attr["shape"].shape)))
