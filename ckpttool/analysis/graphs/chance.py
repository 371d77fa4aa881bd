"""Outputs that differ from run to run, because something is drawn at random.

    x ─▶ Add ─▶ y                            y differs each time
          ▲
    RandomStandardNormal

    keep_prob ─▶ Add ─▶ Floor ─▶ Mul ─▶ y    y depends on keep_prob: with 1, it is the same
                  ▲
            RandomUniform

Only what is sure counts.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

from ckpttool.analysis.graphs.functions import all_called, called_functions, function_callers
from ckpttool.analysis.graphs.needs import needed_ops, walk
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import ASSIGN_OPS, PLACEHOLDERS, VARIABLE_OPS, Node, declared_shape, op_of, tensor_name

RANDOM = re.compile(
    r"(?:Stateful)?(?:Random(?!\w*(?:Queue|Dataset))|Uniform(?!Quantize|Dequantize|Requantize)|StandardNormal"
    r"|TruncatedNormal|Parameterized|Multinomial)\w*"
)
"""Types of ops that draw at random unless they have a seed; types with an input for a seed are called Stateless…."""

# Ops that pass on one of their inputs, or branches, instead of computing with all of them.
_CHOICES = ("Merge", "If", "StatelessIf", "Case", "StatelessCase")
# Ops whose first input chooses one of the others.
_SELECTS = ("Select", "SelectV2")


def drawn(graph: MetaGraph, tensors: Iterable[str], fed: Collection[str] = ()) -> str:
    """An op that surely makes one of the tensors differ from run to run: it draws without a seed, and is in no branch;
    "" if there is none.
    """
    nodes, stack = graph.by_name, list(tensors)
    fed_ops = {op_of(tensor) for tensor in fed} & nodes.keys()
    needed = needed_ops(nodes, stack, fed)
    seen, numbers = set[str](), _numbers(graph, needed, fed_ops)
    drawing, choosing = _functions(graph, needed)
    while stack:
        text = stack.pop()
        name = op_of(text)
        if name not in nodes or name in seen or tensor_name(text) in fed:
            continue
        seen.add(name)
        node = nodes[name]
        values = node.operands[1:] if node.type in ASSIGN_OPS else node.operands
        if node.type in _CHOICES or any(op_of(value) in numbers for value in values):
            continue
        called = called_functions(node.message, graph.functions)
        if (_draws(node.message) or called & drawing) and not called & choosing:
            return name
        stack += values[:1] if node.type in _SELECTS else values
    return ""


def _functions(graph: MetaGraph, ops: Iterable[str]) -> tuple[set[str], set[str]]:
    """The functions that draw a random number, and those that choose, themselves or in what they call."""
    called = list(all_called(graph.functions, (graph.by_name[name].message for name in ops)))
    callers = function_callers(called)
    drawing = {function.signature.name for function in called if any(map(_draws, function.node_def))}
    choosing = {function.signature.name for function in called if any(n.op in _CHOICES for n in function.node_def)}
    return walk(drawing, callers), walk(choosing, callers)


def _draws(node: Any) -> bool:
    """Whether an op draws a random number without a seed."""
    seeds = (node.attr[seed].i for seed in ("seed", "seed2") if seed in node.attr)
    return RANDOM.fullmatch(node.op) is not None and not any(seeds)


def _numbers(graph: MetaGraph, ops: set[str], fed: set[str]) -> set[str]:
    """The ops among these whose value is a number, fed or held in a variable, or is made of such numbers alone."""
    nodes, users = graph.by_name, dict[str, list[str]]()
    for name in ops - fed:
        for operand in nodes[name].operands:
            users.setdefault(op_of(operand), []).append(name)
    sources = {name for name in ops if nodes[name].type in PLACEHOLDERS or not nodes[name].operands}
    sources = {name for name in sources if nodes[name].type != "Const"} | fed
    numbers = {name for name in sources if _may_be_number(graph, nodes[name], name in fed)}
    return walk(numbers, users) - walk(sources - numbers, users)


def _may_be_number(graph: MetaGraph, node: Node, is_fed: bool) -> bool:
    if node.type in VARIABLE_OPS:
        return declared_shape(node.message) == ()
    known = graph.outputs(node)
    return (is_fed or node.type in PLACEHOLDERS) and (not known or not known[0].shape)
