"""What gives another value each time: what is drawn by chance.

    x ─▶ Add ─▶ y                            y is another each time
          ▲
    RandomStandardNormal

    keep_prob ─▶ Add ─▶ Floor ─▶ Mul ─▶ y    y is as keep_prob says: 1, and it is the same
                  ▲
            RandomUniform

Only what is sure counts.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

from ckpttool.analysis.graphs.needs import all_called, needed_ops, tensor_name, walk
from ckpttool.model.graph import ASSIGN_OPS, PLACEHOLDERS, VARIABLE_OPS, MetaGraph, Node, op_of, shape_of

# Values that nothing but chance gives, unless an op has a seed; those with an input for one are called Stateless….
_RANDOM = re.compile(
    r"(?:Stateful)?(?:Random(?!\w*(?:Queue|Dataset))|Uniform(?!Quantize|Dequantize|Requantize)|StandardNormal"
    r"|TruncatedNormal|Parameterized|Multinomial)\w*"
)
# What another value may come through than that of all their inputs.
_CHOICES = ("Merge", "If", "StatelessIf", "Case", "StatelessCase")
# Which of two values it is, the first one says.
_SELECTS = ("Select", "SelectV2")


def drawn(graph: MetaGraph, tensors: Iterable[str], fed: Collection[str] = ()) -> str:
    """The op by which one of some tensors is another each time, as far as that is sure: it is in no branch, and has no
    seed; "" if there is none.
    """
    nodes, stack = graph.by_name, list(tensors)
    fed_ops = {op_of(tensor) for tensor in fed} & nodes.keys()
    seen, numbers = set[str](), _numbers(graph, needed_ops(nodes, stack, fed), fed_ops)
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
        called = all_called(graph.functions, [node.message])
        inside = [node.message, *(each for function in called for each in function.node_def)]
        if any(map(_draws, inside)) and not any(each.op in _CHOICES for each in inside):
            return name
        stack += values[:1] if node.type in _SELECTS else values
    return ""


def _draws(node: Any) -> bool:
    """Whether an op draws a random number without a seed."""
    seeds = (node.attr[seed].i for seed in ("seed", "seed2") if seed in node.attr)
    return _RANDOM.fullmatch(node.op) is not None and not any(seeds)


def _numbers(graph: MetaGraph, ops: set[str], fed: set[str]) -> set[str]:
    """Of some ops, those that give a number, and no constant: what is fed, or held, and what is made of just that."""
    nodes, users = graph.by_name, dict[str, list[str]]()
    for name in ops - fed:
        for operand in nodes[name].operands:
            users.setdefault(op_of(operand), []).append(name)
    sources = {name for name in ops if not nodes[name].operands and nodes[name].type != "Const"} | fed
    numbers = {name for name in sources if _may_be_number(graph, nodes[name], name in fed)}
    return walk(numbers, users) - walk(sources - numbers, users)


def _may_be_number(graph: MetaGraph, node: Node, is_fed: bool) -> bool:
    if node.type in VARIABLE_OPS:
        return "shape" in node.message.attr and shape_of(node.message.attr["shape"].shape) == ()
    known = graph.outputs(node)
    return (is_fed or node.type in PLACEHOLDERS) and (not known or not known[0].shape)
