"""The part of a graph that the outputs need: back from them, by inputs and control inputs, to what is fed.

Updates of variables that are only waited for are training, and are removed. An error names what can't be frozen: an
update whose result is used, a read after an update, an input pipeline, a table that nothing fills.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from ckpttool.analysis.graphs.needs import is_inside
from ckpttool.analysis.graphs.pipelines import is_pipeline
from ckpttool.analysis.graphs.tables import TABLE
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.names import near_hint
from ckpttool.model.nodes import TREE_OPS, op_of
from ckpttool.transforms.freezing.body import Body, Output
from ckpttool.transforms.freezing.handles import Trace

_ITERATOR = re.compile(r"Iterator\w*|\w*Iterator(?:V2)?")
OUTPUTS_HINT = "choose other outputs, or feed a tensor before it: --inputs"


class Needed(NamedTuple):
    """The part of a graph that is needed.

    Attributes:
        ops: the ops to keep.
        fed: the outputs that are both needed and fed.
        dropped: updates of variables that an op to keep only waits for.
        fillers: ops to keep, and to run first: they fill the tables that others use.
    """

    ops: set[str]
    fed: list[Output]
    dropped: list[str]
    fillers: list[str]


def needed(
    trace: Trace, outputs: Sequence[Output], fed: Collection[Output], fillers: Mapping[str, list[str]]
) -> Needed:
    """The part of a graph that the outputs need.

    Args:
        trace: the graph, and the variables in it.
        outputs: the outputs that are asked for.
        fed: the outputs that are fed.
        fillers: table → the ops that fill it.

    Raises:
        NotFoundError: an op takes an input that does not exist.
        NotSupportedError: it can't be frozen.
    """
    walk = _Walk(trace, fed)
    for output in outputs:
        walk.reach(output, None)
    walk.run()
    filling = list(dict.fromkeys(_fillers_of(trace, walk.ops, fillers)))
    for op in filling:
        walk.reach(Output(op, 0), None)
    walk.run()
    _require_no_resources(trace, walk.ops)
    # A variable that is fed has the value that is fed: it does not matter that its updates are dropped.
    fed_ops = {output.op for output in walk.fed}
    dropped = [op for op in walk.dropped if not trace.changed(op) <= fed_ops]
    _require_unread(trace, walk.ops, dropped)
    return Needed(walk.ops, list(walk.fed), dropped, filling)


class _Walk:
    """The way back from the outputs."""

    def __init__(self, trace: Trace, fed: Collection[Output]) -> None:
        self.ops: set[str] = set()
        self.fed: dict[Output, None] = {}
        self.dropped: dict[str, None] = {}
        self._trace, self._body, self._fed = trace, trace.body, set(fed)
        # Op → the first of its outputs that are fed.
        self._first_fed = {output.op: output for output in sorted(fed, reverse=True)}
        self._pipelines: dict[Output, Output] = {}
        self._types, self._outside = {name: node.op for name, node in trace.body.nodes.items()}, set[str]()
        self._stack: list[str] = []

    def reach(self, output: Output, user: str | None) -> None:
        """Marks an output as needed, by an op or (None) for itself."""
        if output in self._fed:
            self.fed[output] = None
            return
        if output.op not in self._body.nodes:
            what = f"the op {user} takes {output.op}, which the graph does not have"
            raise NotFoundError(what, hint=f"feed what {user} gives: --inputs {user}:0")
        if output.op in self._trace.updates:
            raise _update_error(self._trace, output.op, user)
        type_ = self._body.nodes[output.op].op
        if is_pipeline(type_) or _ITERATOR.fullmatch(type_):
            # The placeholder whose default this is can be fed instead.
            is_default = user is not None and self._body.nodes[user].op == "PlaceholderWithDefault"
            self._pipelines[Output(user, 0) if user and is_default else output] = output
        elif output.op not in self.ops:
            self.ops.add(output.op)
            self._stack.append(output.op)

    def run(self) -> None:
        while self._stack:
            name = self._stack.pop()
            for output in self._body.operands[name]:
                self.reach(output, name)
            for op in self._body.controls[name]:
                self._wait_for(op, name)
        if self._pipelines:
            first = min(self._pipelines.values()).op
            what = f"the outputs need {first} ({self._body.nodes[first].op}), an input pipeline"
            tensors = ",".join(f"{output.op}:{output.number}" for output in sorted(self._pipelines))
            raise NotSupportedError(what, hint=f"feed what it gives: --inputs {tensors}")

    def _wait_for(self, op: str, user: str) -> None:
        if op in self._trace.updates:
            if self._is_bound_by(op, user):
                what = f"{user} waits for {op}, an update in a branch or loop, and by nothing else would be in that"
                raise NotSupportedError(what, hint=OUTPUTS_HINT)
            self.dropped[op] = None
        elif op in self._first_fed:
            # Waiting for a fed op means waiting for the feeding.
            self.fed[self._first_fed[op]] = None
        else:
            self.reach(Output(op, 0), user)

    def _is_bound_by(self, update: str, user: str) -> bool:
        """Whether an op, such as a constant, is part of a branch or loop only because it waits for an update there."""
        if self._body.operands[user] or any(op not in self._trace.updates for op in self._body.controls[user]):
            return False
        return is_inside(update, self._types, self._before, self._outside)

    def _before(self, op: str) -> list[str]:
        return [*(output.op for output in self._body.operands[op]), *self._body.controls[op]]


def _update_error(trace: Trace, name: str, user: str | None, where: str = "") -> NotSupportedError:
    node = trace.body.nodes[name]
    variables = ", ".join(sorted({held.source for held in trace.inputs(name).values()}))
    needs = f"{user} takes what {name} gives" if user else f"the output {name} is asked for"
    what = f"{where}{needs} ({node.op}): it takes the variable {variables} itself and may change it"
    return NotSupportedError(what, hint=OUTPUTS_HINT)


def require_droppable(trace: Trace, where: str) -> None:
    """Raises NotSupportedError if an op of a function takes what an update gives."""
    for name in trace.updates:
        for user in trace.body.users(name):
            if user not in trace.updates and trace.body.takes(user, name):
                raise _update_error(trace, name, user, where)
    _require_unread(trace, trace.body.nodes, (), where)


def _require_unread(trace: Trace, kept: Collection[str], dropped: Iterable[str], where: str = "") -> None:
    """Raises NotSupportedError if an op to keep reads a variable after an update, which would be removed."""
    body = trace.body
    updates = dict.fromkeys([*dropped, *(name for name in trace.updates if name in kept)])
    updates |= dict.fromkeys(name for name in trace.callers if name in kept)
    readers: dict[str, list[str]] = {}
    for name in trace.touched:
        for variable in trace.reads(name) if name in kept else ():
            readers.setdefault(variable, []).append(name)
    places = dict[str, int]()
    for update in updates:
        changed = trace.changed(update) & readers.keys()
        if not changed:  # There is nothing to look for.
            continue
        # Many updates may each have the rest of the graph after them: no op is looked at that comes after all readers.
        places = places or _places(body, kept)
        last = max(places[reader] for variable in changed for reader in readers[variable])
        after = _after(body, update, places, last)
        if body.nodes[update].op in ("While", "StatelessWhile"):
            after = chain([update], after)
        for name in after:
            found = sorted(trace.reads(name) & changed) if name in kept else []
            if found:
                what = f"{where}{name} reads the variable {found[0]} after {update} has changed it"
                raise NotSupportedError(what, hint=OUTPUTS_HINT)


def _places(body: Body, kept: Collection[str]) -> dict[str, int]:
    """The ops to keep, each with a number that is higher than those of the ops before it; all that are in loops, or
    after one, have the highest.
    """
    before = {name: {*(output.op for output in body.operands[name]), *body.controls[name]} for name in kept}
    left = {name: sum(op in kept for op in ops) for name, ops in before.items()}
    order = [name for name, count in left.items() if not count]
    for name in order:
        for user in body.users(name):
            if user in left:
                left[user] -= 1
                if not left[user]:
                    order.append(user)
    return dict.fromkeys(left, len(left)) | {name: place for place, name in enumerate(order)}


def _after(body: Body, start: str, places: Mapping[str, int], last: int) -> Iterator[str]:
    """The ops that run after another one, as far as they have a place, up to the last one."""
    seen: set[str] = set()
    stack = [start]
    while stack:
        for user in body.users(stack.pop()):
            if user not in seen and user in places and places[user] <= last:
                seen.add(user)
                stack.append(user)
                yield user


def _fillers_of(trace: Trace, kept: Collection[str], fillers: Mapping[str, list[str]]) -> Iterator[str]:
    """The ops that fill the tables among the ops to keep."""
    for name in [name for name in trace.body.nodes if name in kept]:
        if TABLE.fullmatch(trace.body.nodes[name].op):
            if name not in fillers:
                what = f"the outputs need the table {name}, which is not filled by the graph but by the checkpoint"
                lookups = (op for op in trace.body.users(name) if trace.body.nodes[op].op.startswith("LookupTableFind"))
                found = next((f" {op}:0" for op in lookups if op in kept), "")
                raise NotSupportedError(what, hint=f"feed what is looked up in it: --inputs{found}")
            yield from fillers[name]


def _require_no_resources(trace: Trace, kept: Collection[str]) -> None:
    """Raises NotSupportedError if what is needed has contents that only a saver's own ops can restore."""
    for name, node in trace.body.nodes.items():
        if name in kept and node.op.endswith(TREE_OPS):
            what = f"the outputs need {name} ({node.op}), whose contents no constant can hold"
            user = next((f" {op}:0" for op in trace.body.users(name) if op in kept), "")
            raise NotSupportedError(what, hint=f"saved-model keeps it; or feed what is made of it: --inputs{user}")


def output_of(body: Body, name: str) -> Output:
    """The output that the name of an op or of a tensor stands for.

    Raises:
        NotFoundError: there is no such op.
    """
    output = Output(name, 0) if name in body.nodes else body.output(name)
    if output.op in body.nodes:
        return output
    hint = near_hint(op_of(name), body.nodes) or "ls --ops lists them"
    raise NotFoundError(f"the graph has no op named {output.op}", hint=hint)
