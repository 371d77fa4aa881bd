"""The parts of a graph: what placeholders reach, where that meets the weights, and what belongs to a loss."""

import re
from collections.abc import Iterable
from functools import lru_cache

from ckpttool.analysis.graphs.flow import GRADIENTS, OUTPUT_NAME, Flow, is_named, scope_of
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.collections import FILLED_COLLECTIONS
from ckpttool.model.graph import PLACEHOLDERS, VARIABLE_OPS, op_of

# What a weight passes on its way to where it is used. No arithmetic: a weight's norm in the loss is no layer.
_READS = {
    *("Identity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast", "Reshape", "Transpose"),
    *("ExpandDims", "Squeeze", "Concat", "ConcatV2", "Split", "SplitV", "Slice", "StridedSlice", "Unpack"),
}
_LOSS_TYPE = re.compile(r"\w*CrossEntropy\w*|\w*Loss(?:V\d)?")
_DECODER = re.compile(r"CTC\w*Decoder(?:V\d)?")
_SAMPLER = re.compile(r"\w*CandidateSampler(?:V\d)?")
_LABEL_NAME = re.compile(r"(?:\w*_)?(?:labels?|targets?|ground_?truth|y_?true)(?:_?\d+)?", re.IGNORECASE)
_LOSS_NAME = re.compile(r"(?:\w*_)?(?:loss|cost)(?:_\w*)?")
_LOSS_MATH = {
    *("Neg", "Mean", "Sum", "Prod", "Log", "Log1p", "Exp", "Square", "Sqrt", "Rsqrt", "Pow", "Abs", "Cast"),
    *("Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "DivNoNan", "Select", "SelectV2", "Maximum", "Minimum"),
    *("SquaredDifference", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("Slice", "StridedSlice", "ExpandDims"),
}


class Parts:
    """The parts of a graph, each a set of ops.

    Attributes:
        placeholders: what may be fed.
        sources: these, and what else has no values of its own: pipelines, and what takes what the graph does not have.
        reached: what sources reach, but for plumbing.
        body: all that comes before the last layer, and that.
        inner: the same without what has no layer behind it.
        weighted: what has a layer before it.
        collected: the members of the user's collections.
        losses, for_loss: the losses, and what they are made of.
        learned: the same, as far as gradients go.
        shown: what leads to nothing but summaries.
        lossy: what of `reached` only belongs to losses: labels, and their arithmetic.
        forward: what does not.
    """

    def __init__(self, flow: Flow) -> None:
        model = [name for name in flow.nodes if name not in flow.outside]
        self.placeholders = dict.fromkeys(name for name in model if flow.type(name) in PLACEHOLDERS)
        self.sources = dict.fromkeys([*self.placeholders, *(key for key in flow.users if flow.is_pipeline(key))])
        self.sources |= {name: None for name in flow.incomplete if name not in flow.outside}
        held = [name for name in model if flow.type(name) in VARIABLE_OPS or flow.type(name) == "Const"]
        self.reached = walk(self.sources or held, flow.users, flow.outside)
        self._no_reads = {name for name in flow.nodes if name in flow.outside or flow.type(name) not in _READS}
        variables = flow.graph.variables
        meets = self.meetings(flow, {v.name for v in variables if v.trainable} or {v.name for v in variables})
        self.body = walk(meets, flow.inputs, flow.outside)
        self.inner = walk((near for key in meets for near in flow.inputs[key]), flow.inputs, flow.outside)
        self.weighted = walk(meets, flow.users, flow.outside)
        self.collected = {
            flow.key(member)
            for collection in flow.graph.collections.values()
            if collection.name not in FILLED_COLLECTIONS
            for member in collection.members
            if isinstance(member, str)
        }
        self.losses = _losses(flow, self.reached)
        self.for_loss = walk(self.losses, flow.inputs, flow.outside)
        stops = {name for name in self.reached if flow.type(name) == "StopGradient"}
        self.learned = walk(self.losses - stops, flow.inputs, flow.outside | stops)
        self.shown = _only_before((name for name, role in flow.roles.items() if role == "summary"), flow, self.reached)
        self.lossy = self._lossy(flow)
        self.forward = self.reached - self.lossy

    def meetings(self, flow: Flow, variables: set[str]) -> list[str]:
        """Where what is fed meets one of the variables."""
        weights = walk(variables, flow.users, self._no_reads) - self.reached
        return [name for name in self.reached if any(key in weights for key in flow.inputs.get(name, ()))]

    def _lossy(self, flow: Flow) -> set[str]:
        """What comes after a label, what shares a scope with where they join, and the arithmetic before a loss."""
        labels = {key for key in self.sources if self.body and key not in self.body and key in self.for_loss}
        labels |= self._weighted_labels(flow)
        # The lengths of what is decoded are no labels, whatever else wants them.
        decoders = [name for name in self.reached if _DECODER.fullmatch(flow.type(name))]
        labels -= walk(decoders, flow.inputs, flow.outside)
        after = walk(labels, flow.users, flow.outside)
        joins = [key for key in after if any(near not in after for near in flow.inputs.get(key, ()))]
        joins += [name for name in self.losses if _is_loss(flow.type(name))]
        scopes = {scope_of(name) for name in joins} - {scope_of(name) for name in self.body} - {""}
        lossy = after | self.losses | {n for n in self.reached if scope_of(n) in scopes and n not in self.sources}
        # What the model uses besides is no arithmetic of the loss'.
        others: dict[str, int] = {}
        stack = list(lossy)
        while stack:
            for near in dict.fromkeys(flow.inputs.get(stack.pop(), ())):
                if near not in others:
                    others[near] = sum(user not in flow.outside for user in flow.users[near])
                others[near] -= 1
                if near not in lossy and others[near] <= 0 and self._is_arithmetic(flow, near):
                    lossy.add(near)
                    stack.append(near)
        return lossy

    def _weighted_labels(self, flow: Flow) -> set[str]:
        """Labels that meet weights, too, as those of a sampled loss and of a CRF do; not if nothing else was fed."""
        sampled = [name for name in self.reached if _SAMPLER.fullmatch(flow.type(name))]
        likely = walk((near for name in sampled for near in flow.inputs[name]), flow.inputs, flow.outside)
        likely |= {key for key in self.sources if is_named(_LABEL_NAME, op_of(key))}
        ends = {key for key in self.reached if not flow.users.get(key)}
        used = walk(ends - self.for_loss - self.shown, flow.inputs, flow.outside)
        return self.sources.keys() & likely - used if self.sources.keys() & self.body - likely else set()

    def _is_arithmetic(self, flow: Flow, key: str) -> bool:
        is_meant = key in self.collected or is_named(OUTPUT_NAME, key)
        return key not in self.body and flow.type(key) in _LOSS_MATH and not is_meant


def _only_before(ends: Iterable[str], flow: Flow, within: set[str]) -> set[str]:
    """What of the ops `within` leads to nothing but `ends`."""
    found, left = set[str](), dict[str, int]()
    stack = list(ends)
    while stack:
        for near in dict.fromkeys(flow.inputs.get(stack.pop(), ())):
            left[near] = left.get(near, len(flow.users[near])) - 1
            if not left[near] and near in within:
                found.add(near)
                stack.append(near)
    return found


def _losses(flow: Flow, reached: set[str]) -> set[str]:
    """What is a loss by the collection `losses`, because gradients start there, by its type, its name, or its scope."""
    collection = flow.graph.collections.get("losses")
    found = {flow.key(member) for member in (collection.members if collection else []) if isinstance(member, str)}
    derived = {name for name in map(_derived_op, flow.nodes) if name in flow.nodes and name not in flow.outside}
    before = walk((key for name in derived for key in flow.inputs[name]), flow.inputs, flow.outside)
    # A loop's last state has a gradient whether or not anything uses it.
    found |= {name for name in derived - before if flow.type(name) != "Exit"}
    for name in reached:
        type_ = flow.type(name)
        is_end = type_ in _LOSS_MATH and not flow.users.get(name) and flow.tensor(name).shape == ()
        is_last = is_end and (type_ == "Mean" or _is_loss_scope(scope_of(name)))
        if is_last or (type_ in _LOSS_MATH and is_named(_LOSS_NAME, name)) or _is_loss(type_):
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
def _is_loss(type_: str) -> bool:
    return _LOSS_TYPE.fullmatch(type_) is not None


@lru_cache(4096)
def _is_loss_scope(scope: str) -> bool:
    return any(is_named(_LOSS_NAME, part) for part in scope.split("/"))
