"""The parts of a graph: what placeholders reach, where that meets the weights, and what belongs to a loss."""

import re
from collections.abc import Iterable

from ckpttool.analysis.graphs.flow import OUTPUT_NAME, SCORES, Flow, is_named, scope_of
from ckpttool.analysis.graphs.losses import LOSS_MATH, is_loss, losses
from ckpttool.analysis.graphs.necks import necks
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.collections import FILLED_COLLECTIONS
from ckpttool.model.graph import PLACEHOLDERS, VARIABLE_OPS, op_of

# What a weight passes on its way to where it is used. No arithmetic: a weight's norm in the loss is no layer.
_READS = {
    *("Identity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast", "Reshape", "Transpose"),
    *("ExpandDims", "Squeeze", "Concat", "ConcatV2", "Split", "SplitV", "Slice", "StridedSlice", "Unpack"),
}
_DECODER = re.compile(r"CTC\w*Decoder(?:V\d)?")
_SAMPLER = re.compile(r"\w*CandidateSampler(?:V\d)?")
_LABEL_NAME = re.compile(r"(?:\w*_)?(?:labels?|targets?|tags?|ground_?truth|y_?true)(?:_?\d+)?", re.IGNORECASE)
_SUMS = {"Add", "AddV2", "Sub"}


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
        neck: the last op of the model that all which is learned passes on its way to the loss; "" if there is none.
    """

    def __init__(self, flow: Flow) -> None:
        placeholders = flow.of_types(PLACEHOLDERS.__contains__) - flow.outside
        self.placeholders = dict.fromkeys(name for name in flow.nodes if name in placeholders)
        self.sources = dict.fromkeys([*self.placeholders, *(key for key in flow.users if flow.is_pipeline(key))])
        self.sources |= {name: None for name in flow.incomplete if name not in flow.outside}
        held = flow.of_types({*VARIABLE_OPS, "Const"}.__contains__) - flow.outside
        self.reached = walk(self.sources or held, flow.users, flow.outside)
        self._no_reads = flow.of_types(lambda type_: type_ not in _READS) | flow.outside
        variables = flow.graph.variables
        self._trained = {v.name for v in variables if v.trainable} or {v.name for v in variables}
        meets = self.meetings(flow, self._trained)
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
        self.losses = losses(flow, self.reached)
        self.for_loss = walk(self.losses, flow.inputs, flow.outside)
        self.learned = self._learned(flow, "StopGradient")
        self.shown = _only_before((name for name, role in flow.roles.items() if role == "summary"), flow, self.reached)
        after = walk(self._labels(flow), flow.users, flow.outside)
        self.lossy = self._lossy(flow, after)
        self.neck = self._neck(flow, after)
        if self.neck:
            behind = walk([self.neck], flow.users, flow.outside) & self.for_loss
            self.lossy |= {key for key in behind if flow.type(key) not in SCORES and not self._is_meant(key)}
            self.lossy -= walk([self.neck], flow.inputs)
        self.forward = self.reached - self.lossy

    def meetings(self, flow: Flow, variables: set[str]) -> list[str]:
        """Where what is fed meets one of the variables."""
        weights = walk(variables, flow.users, self._no_reads) - self.reached
        return list({user for key in weights for user in flow.users.get(key, ()) if user in self.reached})

    def _learned(self, flow: Flow, *stops: str) -> set[str]:
        """What the losses are made of, back to ops of some types."""
        without = flow.of_types(stops.__contains__)
        return walk(self.losses - without, flow.inputs, flow.outside | without)

    def _labels(self, flow: Flow) -> set[str]:
        """What only a loss wants to be fed."""
        labels = {key for key in self.sources if self.body and key not in self.body and key in self.for_loss}
        labels |= self._weighted_labels(flow)
        # The lengths of what is decoded are no labels, whatever else wants them.
        decoders = flow.of_types(_DECODER.fullmatch) & self.reached
        return labels - walk(decoders, flow.inputs, flow.outside)

    def _lossy(self, flow: Flow, after: set[str]) -> set[str]:
        """What comes after a label, what shares a scope with where they join, and the arithmetic before a loss."""
        joins = [key for key in after if any(near not in after for near in flow.inputs.get(key, ()))]
        joins += [name for name in self.losses if is_loss(flow.type(name))]
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
        sampled = flow.of_types(_SAMPLER.fullmatch) & self.reached
        likely = walk((near for name in sampled for near in flow.inputs[name]), flow.inputs, flow.outside)
        likely |= {key for key in self.sources if is_named(_LABEL_NAME, op_of(key))}
        ends = {key for key in self.reached if not flow.users.get(key)}
        used = walk(ends - self.for_loss - self.shown, flow.inputs, flow.outside)
        return self.sources.keys() & likely - used if self.sources.keys() & self.body - likely else set()

    def _is_arithmetic(self, flow: Flow, key: str) -> bool:
        return key not in self.body and flow.type(key) in LOSS_MATH and not self._is_meant(key)

    def _is_meant(self, key: str) -> bool:
        return key in self.collected or is_named(OUTPUT_NAME, key)

    def _neck(self, flow: Flow, after: set[str]) -> str:
        """The last op that all passes before labels join; no arithmetic, but for that which joins two models."""
        # Weights that labels meet, such as the transitions of a CRF, are the loss's.
        met = {near for key in self.learned & after for near in flow.inputs.get(key, ())}
        no_reads = self._no_reads | self.reached
        met |= {near for key in walk(met - no_reads, flow.inputs, no_reads) for near in flow.inputs[key]}
        layers = set(self.meetings(flow, self._trained - met))
        ends = walk(after | self.losses, flow.users, flow.outside) & self.learned
        stops = flow.of_types("StopGradient".__eq__)
        way = walk(layers, flow.users, flow.outside | stops) & self._learned(flow, "StopGradient", "NextIteration")
        found = necks(flow, way - ends, layers, ends)
        neck = next((key for key in found if key not in self.lossy or self._joins_models(flow, key, after)), "")
        behind = walk([neck], flow.users, flow.outside) - {neck}
        return "" if behind & layers else neck

    def _joins_models(self, flow: Flow, key: str, after: set[str]) -> bool:
        """Whether a label is compared with a sum of two models' results, as in "wide and deep", or with what a model
        adds to what was fed.
        """
        inputs, users = flow.inputs[key], flow.users.get(key, ())
        is_compared = any(user in after for user in users) and flow.tensor(key).shape != ()
        if flow.type(key) not in _SUMS or not is_compared or len(inputs) != 2 or not self.reached.issuperset(inputs):
            return False
        first, second = (walk([near], flow.inputs, flow.outside) & self._trained for near in inputs)
        return bool(first - second and second - first) or (flow.type(key) != "Sub" and not (first and second))


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
