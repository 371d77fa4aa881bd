"""The losses: which ops they are, what they are made of, and the types of ops that compute them."""

import re
from functools import lru_cache

from ckpttool.analysis.graphs.endpoints.flow import GRADIENTS, Flow, is_named, scope_of
from ckpttool.analysis.graphs.needs import walk

_LOSS_TYPE = re.compile(r"\w*CrossEntropy\w*|\w*Loss(?:V\d)?")
_LOSS_NAME = re.compile(r"(?:\w*_)?(?:loss|cost)(?:_\w*)?")
LOSS_MATH = {
    *("Neg", "Mean", "Sum", "Prod", "Log", "Log1p", "Exp", "Square", "Sqrt", "Rsqrt", "Pow", "Abs", "Cast"),
    *("Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "DivNoNan", "Select", "SelectV2", "Maximum", "Minimum"),
    *("SquaredDifference", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("Slice", "StridedSlice", "ExpandDims"),
}
"""Types of ops that compute a loss."""


class Losses:
    """The losses of a graph: sets of ops, and of scopes.

    Attributes:
        ops: the losses.
        made_of: the losses, and what they are made of.
        learned: the same, back to where gradients stop.
        scopes: those of TensorFlow's loss functions, which flatten logits first: "xent/Reshape" comes before "xent".
    """

    def __init__(self, flow: Flow, reached: set[str]) -> None:
        self._flow = flow
        self.ops = _losses(flow, reached)
        self.made_of = walk(self.ops, flow.inputs, flow.outside)
        self.learned = self.back_to("StopGradient")
        functions = {name for name in self.ops if is_loss(flow.type(name))}
        around = map(scope_of, map(scope_of, functions))
        self.scopes = functions | {scope for scope in around if is_named(_LOSS_NAME, scope)}

    def back_to(self, *types: str) -> set[str]:
        """What the losses are made of, back to ops of these types, which are left out."""
        stops = self._flow.of_types(types.__contains__)
        return walk(self.ops - stops, self._flow.inputs, self._flow.outside | stops)


def _losses(flow: Flow, reached: set[str]) -> set[str]:
    """The ops that are losses: by the collection `losses`, as starts of gradients, by type, by name, or by scope."""
    collection = flow.graph.collections.get("losses")
    found = {flow.key(member) for member in (collection.members if collection else []) if isinstance(member, str)}
    derived = {name for name in map(_derived_op, flow.nodes) if name in flow.nodes and name not in flow.outside}
    before = walk((key for name in derived for key in flow.inputs[name]), flow.inputs, flow.outside)
    # A loop's last state has a gradient whether or not anything uses it.
    found |= {name for name in derived - before if flow.type(name) != "Exit"}
    for name in reached:
        type_ = flow.type(name)
        is_end = type_ in LOSS_MATH and not flow.users.get(name) and flow.tensor(name).shape == ()
        is_last = is_end and (type_ == "Mean" or _is_loss_scope(scope_of(name)))
        if is_last or (type_ in LOSS_MATH and is_named(_LOSS_NAME, name)) or is_loss(type_):
            found.add(name)
    return found & reached


def _derived_op(name: str) -> str:
    """The op whose gradient this op is part of: "train/gradients/loss/mul_grad/Sum" → "loss/mul"."""
    if "_grad/" not in name:
        return ""
    parts = name.split("/")
    start = next((i for i, part in enumerate(parts) if GRADIENTS.fullmatch(part)), len(parts))
    end = next((i for i in range(start + 1, len(parts) - 1) if parts[i].endswith("_grad")), start)
    return "/".join(parts[start + 1 : end + 1]).removesuffix("_grad")


@lru_cache(4096)
def is_loss(type_: str) -> bool:
    return _LOSS_TYPE.fullmatch(type_) is not None


@lru_cache(4096)
def _is_loss_scope(scope: str) -> bool:
    return any(is_named(_LOSS_NAME, part) for part in scope.split("/"))
