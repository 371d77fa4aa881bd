"""The layers of a graph: where what is fed meets the weights.

    x ─▶ MatMul ─▶ Add ─▶ Softmax
          ▲         ▲
          W         b

x is a source: it reaches all that is to its right, and meets the weights at MatMul and Add.
"""

import re
from collections.abc import Iterable

from ckpttool.analysis.graphs.chance import RANDOM
from ckpttool.analysis.graphs.endpoints.flow import APPLY, Flow, scope_of
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.averages import AVERAGE
from ckpttool.model.nodes import PLACEHOLDERS, TREE_OPS, VARIABLE_OPS

# Types of ops that a weight passes on its way to where it is used. Arithmetic is not among them: a weight's norm in the
# loss is no layer.
_READS = {
    *("Identity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast", "Reshape", "Transpose"),
    *("ExpandDims", "Squeeze", "Concat", "ConcatV2", "Split", "SplitV", "Slice", "StridedSlice", "Unpack"),
}
_APPLY = re.compile(APPLY)


class Layers:
    """What is fed, and the layers that it goes through, as sets of ops.

    Attributes:
        placeholders: the ops that may be fed.
        sources: the placeholders, and what else brings values in: pipelines, ops with an input that the graph lacks,
            and noise.
        reached: what comes after sources and random numbers, and these, without plumbing; if nothing is fed, what
            comes after variables and constants.
        trained: the trainable variables, or all if none is marked as trainable; and trees.
        updated: the variables that each optimizer updates, by the scope of its ops.
        separate: the same sets, in the order of the scopes, if there are several optimizers and no two share a
            variable, as those of a generator and a critic; else none.
        noise: with separate optimizers, what is drawn at random and meets weights before it meets anything fed.
        read: variables, and ops that only read them.
        joints: the ops where what is fed meets trained variables or their moving averages.
        body: the joints, and all that comes before them.
        inner: the same without the joints that have no other one behind them.
        weighted: the joints, and all that comes after them.
    """

    def __init__(self, flow: Flow, *, is_fed: bool = True) -> None:
        """With `is_fed`, all begins at what is fed, if anything is; else it begins at the variables."""
        self._flow = flow
        placeholders = flow.of_types(PLACEHOLDERS.__contains__) - flow.outside
        self.placeholders = dict.fromkeys(name for name in flow.nodes if name in placeholders)
        self.sources = dict.fromkeys([*self.placeholders, *(key for key in flow.users if flow.is_pipeline(key))])
        self.sources |= {name: None for name in flow.incomplete if name not in flow.outside}
        held = flow.of_types({*VARIABLE_OPS, "Const"}.__contains__) - flow.outside
        is_fed = is_fed and bool(self.sources)
        # A generator may begin with random numbers, while what its output is compared with is fed.
        drawn = flow.of_types(RANDOM.fullmatch) - flow.outside
        self.reached = walk(drawn.union(self.sources) if is_fed else held, flow.users, flow.outside)
        self._no_reads = flow.of_types(lambda type_: type_ not in _READS) | flow.outside
        held = flow.of_types(VARIABLE_OPS.__contains__)
        self.read = held | (walk(held, flow.users, self._no_reads) - self.reached if is_fed else set())
        variables = flow.graph.variables
        self.trained = {v.name for v in variables if v.trainable} or {v.name for v in variables}
        self.trained |= flow.of_types(lambda type_: type_.endswith(TREE_OPS)) - flow.outside
        self.updated = _updated(flow)
        groups = [group for _, group in sorted(self.updated.items())]
        is_separate = len(groups) > 1 and len(set().union(*groups)) == sum(map(len, groups))
        self.separate = groups if is_separate else []
        self.noise = self._noise(drawn) if is_separate and is_fed else set[str]()
        self.sources |= {name: None for name in flow.nodes if name in self.noise}
        averages = {f"{name}{AVERAGE}" for name in self.trained} & flow.nodes.keys()
        self.joints = self.meetings(self.trained | averages)
        self.body = walk(self.joints, flow.inputs, flow.outside)
        self.inner = walk((near for key in self.joints for near in flow.inputs[key]), flow.inputs, flow.outside)
        self.weighted = walk(self.joints, flow.users, flow.outside)

    def _noise(self, drawn: set[str]) -> set[str]:
        flow = self._flow
        fed = walk(self.sources, flow.users, flow.outside)
        alone = walk(drawn - fed, flow.users, flow.outside | fed)
        met = drawn & walk(self._met(self.trained, alone), flow.inputs, flow.outside)
        # The scaled numbers have the name of the scope: for "noise/RandomUniform", "noise" is meant.
        return {scope if (scope := scope_of(name)) in alone else name for name in met}

    def meetings(self, variables: set[str]) -> list[str]:
        """The ops where what is fed meets one of the variables."""
        return list(self._met(variables, self.reached))

    def _met(self, variables: set[str], reached: set[str]) -> set[str]:
        users = self._flow.users
        weights = walk(variables, users, self._no_reads) - reached
        return {user for key in weights for user in users.get(key, ()) if user in reached}

    def taken_by(self, ops: Iterable[str]) -> set[str]:
        """What ops take, and what that is read from, so that the variables that the ops meet are included."""
        inputs = self._flow.inputs
        taken = {near for key in ops for near in inputs.get(key, ())}
        no_reads = self._no_reads | self.reached
        return taken | {near for key in walk(taken - no_reads, inputs, no_reads) for near in inputs[key]}


def _updated(flow: Flow) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name in flow.of_types(_APPLY.fullmatch):
        if flow.inputs[name]:
            found.setdefault(name.rpartition("/update_")[0], set()).add(flow.inputs[name][0])
    return found
