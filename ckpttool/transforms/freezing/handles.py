"""Where the variables are: which tensors of a body lead to one, and what the ops do with it.

A variable is not a value. What leads to one is a reference, or a handle of type resource, and passes through loops,
branches and calls of functions until an op reads it. In the frozen graph, all of these tensors are the value.

    W (VarHandleOp) ─▶ Enter ─▶ Switch ─▶ ReadVariableOp        W (Const) ─▶ Enter ─▶ Switch ─▶ Identity

(tensorflow/core/ops/{state,resource_variable,control_flow,functional}_ops.cc)
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.functions import BEFORE_1
from ckpttool.errors import NotSupportedError
from ckpttool.model.nodes import VARIABLE_OPS
from ckpttool.transforms.freezing.body import Body, Output

FROZEN_OPS = VARIABLE_OPS - {"TemporaryVariable"}
"""Types of the ops that become constants. A temporary variable lives for one run, and nothing of it is stored."""

READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"}
READS |= {"IsVariableInitialized"}
"""Types of the ops that read a variable through its handle, or ask about it."""

# Types of the ops that hand on what leads to a variable, with the outputs that lead to it then; and of the types for
# references, the plain type for each.
_PASSES = {"Identity": (0,), "Enter": (0,), "Exit": (0,), "NextIteration": (0,), "Merge": (0,), "Switch": (0, 1)}
PLAIN_PASSES = {f"Ref{type_}": type_ for type_ in _PASSES}
_DEEPEST = 64
# A function may be called in so many ways, which differ in what arguments are variables; frozen, each becomes a
# function of its own.
_MOST_WAYS = 32


class Held(NamedTuple):
    """What leads to a variable.

    Attributes:
        dtype: the variable's dtype, a number.
        source: the op or the argument that it comes from.
        is_reference: it is a reference; an op that wants a value takes the one that it refers to.
    """

    dtype: int
    source: str
    is_reference: bool


class Call(NamedTuple):
    """How an op calls functions.

    Attributes:
        first: which of the op's inputs is their first argument.
        inputs: the attribute that lists the types of inputs; "" if the op's type is the function's name.
        outputs: the attribute that lists the types of outputs; "" likewise.
        functions: the attributes that name the functions; none likewise.
    """

    first: int
    inputs: str = ""
    outputs: str = ""
    functions: tuple[str, ...] = ()


_CALL, _IF = Call(0, "Tin", "Tout", ("f",)), Call(1, "Tin", "Tout", ("then_branch", "else_branch"))
_CASE, _WHILE = Call(1, "Tin", "Tout", ("branches",)), Call(0, "T", "T", ("body", "cond"))
_CALLS = {"PartitionedCall": _CALL, "StatefulPartitionedCall": _CALL, "If": _IF, "StatelessIf": _IF}
_CALLS |= {"Case": _CASE, "StatelessCase": _CASE, "While": _WHILE, "StatelessWhile": _WHILE}

Kinds = tuple[int, ...]
"""For each argument of a function, the dtype (a number) of the variable that it leads to, 0 if it leads to none."""


class Library:
    """A graph's functions, by name, and the variables in each, which depend on how it is called."""

    def __init__(self, functions: Iterable[Any], op_def: Callable[[str], Any]) -> None:
        self.functions = {function.signature.name: function for function in functions}
        self.op_def = op_def
        self._traces: dict[tuple[str, Kinds], Trace | None] = {}
        self._ways: Counter[str] = Counter()
        self._bodies: dict[str, Body] = {}

    def body(self, name: str) -> Body:
        """The ops of a function."""
        if name not in self._bodies:
            function = self.functions[name]
            if function.node:
                raise NotSupportedError(f"the function {name} {BEFORE_1}")
            self._bodies[name] = Body(function.node_def, self.op_def, function)
        return self._bodies[name]

    def trace(self, name: str, kinds: Kinds) -> "Trace":
        """The variables in a function that is called with arguments of these kinds.

        Raises:
            NotSupportedError: it calls itself, or takes lists as arguments.
        """
        body = self.body(name)
        if len(kinds) != len(body.arguments):
            raise NotSupportedError(f"the function {name} is called with {len(kinds)} arguments")
        if (name, kinds) not in self._traces:
            self._traces[name, kinds] = None
            self._ways[name] += 1
            if self._ways[name] > _MOST_WAYS:
                raise NotSupportedError(f"the function {name} is called in more than {_MOST_WAYS} ways")
            if sum(trace is None for trace in self._traces.values()) > _DEEPEST:
                raise NotSupportedError(f"functions call one another more than {_DEEPEST} deep")
            given = {a: Held(kind, a, False) for a, kind in zip(body.arguments, kinds, strict=True) if kind}
            self._traces[name, kinds] = Trace(body, self, given)
        trace = self._traces[name, kinds]
        if trace is None:
            raise NotSupportedError(f"the function {name} calls itself")
        return trace

    def call(self, node: Any) -> Call | None:
        """How an op calls functions; None if it does not."""
        return Call(0) if node.op in self.functions else _CALLS.get(node.op)

    def called(self, node: Any, call: Call) -> list[str]:
        """The functions that an op calls."""
        if not call.functions:
            return [node.op]
        values = [node.attr[name] for name in call.functions if name in node.attr]
        names = [function.name for value in values for function in (value.func, *value.list.func)]
        return [name for name in names if name in self.functions]

    def takes_reference(self, node: Any, number: int) -> bool:
        """Whether an op takes, as this input, the reference itself and not the value that it refers to."""
        op_def = self.op_def(node.op)
        return op_def is not None and any(argument.is_ref for argument in op_def.input_arg[number : number + 1])


class Trace:
    """The variables in a body.

    Attributes:
        held: the outputs that lead to a variable.
        touched: the ops that take one of these outputs, or wait for the op that gives it.
        updates: the ops that take a variable itself, and neither read it nor hand it on: they change it.
    """

    def __init__(self, body: Body, library: Library, given: Mapping[str, Held] | None = None) -> None:
        self.body, self.library = body, library
        self._changed: dict[str, set[str]] = {}
        self.held = {Output(name, 0): held for name, held in (given or {}).items()}
        for name, node in body.nodes.items():
            if node.op in FROZEN_OPS:
                self.held[Output(name, 0)] = Held(node.attr["dtype"].type, name, node.op != "VarHandleOp")
        self._follow()
        self.touched = self._users_of_held()
        self.updates = {name: None for name in self.touched if self._is_update(body.nodes[name])}

    def inputs(self, name: str) -> dict[int, Held]:
        """The inputs of an op that lead to a variable, by number."""
        operands = self.body.operands[name]
        return {number: self.held[output] for number, output in enumerate(operands) if output in self.held}

    def outputs(self, name: str) -> Mapping[int, Held]:
        """The outputs of an op that lead to a variable, by number."""
        return self._outputs.get(name, {})

    @cached_property
    def _outputs(self) -> dict[str, dict[int, Held]]:
        found: dict[str, dict[int, Held]] = {}
        for output, held in self.held.items():
            found.setdefault(output.op, {})[output.number] = held
        return found

    def passes(self, node: Any) -> bool:
        """Whether an op hands on what leads to a variable."""
        type_ = PLAIN_PASSES.get(node.op, node.op)
        inputs = self.inputs(node.name)
        if type_ not in _PASSES and type_ != "IdentityN":
            return False
        candidates = inputs.values() if type_ in ("Merge", "IdentityN") else [inputs[0]] if 0 in inputs else []
        return any(held.is_reference == (node.op in PLAIN_PASSES) for held in candidates)

    def kinds(self, node: Any, call: Call) -> Kinds:
        """The kinds of arguments with which an op calls its functions."""
        inputs = self.inputs(node.name)
        arguments = map(inputs.get, range(call.first, len(self.body.operands[node.name])))
        # In place of a reference, a function gets the value.
        return tuple(0 if held is None or held.is_reference else held.dtype for held in arguments)

    def returned(self) -> list[Held | None]:
        """For each output of a function, what leads to a variable; None if nothing does."""
        function = self.body.function
        texts = [function.ret.get(output.name, "") for output in function.signature.output_arg]
        return [self.held.get(self.body.output(text)) for text in texts]

    def changed(self, name: str) -> set[str]:
        """The variables and arguments that an op changes: it is an update, or calls a function that has one."""
        if name not in self._changed:
            self._changed[name] = self._changed_by(name)
        return self._changed[name]

    def _changed_by(self, name: str) -> set[str]:
        inputs = self.inputs(name)
        if name in self.updates:
            return {held.source for held in inputs.values()}
        node = self.body.nodes[name]
        call = self.library.call(node)
        if call is None or not inputs:
            return set()
        kinds = self.kinds(node, call)
        sources: set[str] = set()
        for function in self.library.called(node, call):
            places = self.library.trace(function, kinds).changed_places
            sources |= {inputs[place + call.first].source for place in places if place + call.first in inputs}
        return sources

    @cached_property
    def changed_places(self) -> list[int]:
        """The places of the arguments that a function changes."""
        inner = {source for op in (*self.updates, *self.callers) for source in self.changed(op)}
        return [number for number, argument in enumerate(self.body.arguments) if argument in inner]

    @property
    def callers(self) -> Iterator[str]:
        """The ops that call functions with a variable."""
        return (name for name in self.touched if self.library.call(self.body.nodes[name]))

    def reads(self, name: str) -> set[str]:
        """The variables and arguments that an op reads, or may read."""
        node = self.body.nodes[name]
        if name in self.updates or self.passes(node):
            return set()
        return {held.source for held in self.inputs(name).values()}

    def _users_of_held(self) -> dict[str, None]:
        # An op may have many outputs, and many users.
        return self._users_of(dict.fromkeys(output.op for output in self.held))

    def _users_of(self, ops: Iterable[str]) -> dict[str, None]:
        return dict.fromkeys(user for op in ops for user in self.body.users(op))

    def _follow(self) -> None:
        queue = OrderedDict(self._users_of_held())  # A plain dict looks for its first key among all that were deleted.
        while queue:
            name, _ = queue.popitem(last=False)
            handed_on = ((Output(name, number), held) for number, held in self._handed_on(self.body.nodes[name]))
            new = {output: held for output, held in handed_on if output not in self.held}
            if new:
                self.held |= new
                queue |= self._users_of([name])

    def _handed_on(self, node: Any) -> list[tuple[int, Held]]:
        """The outputs of an op that lead to a variable."""
        inputs = self.inputs(node.name)
        if not inputs:
            return []
        first = next(iter(inputs.values()))
        if node.op == "IdentityN":
            return [(number, held) for number, held in inputs.items() if not held.is_reference]
        if self.passes(node):
            return [(number, first) for number in _PASSES[PLAIN_PASSES.get(node.op, node.op)]]
        call = self.library.call(node)
        return self._returned_by(node, call, inputs) if call else []

    def _returned_by(self, node: Any, call: Call, inputs: Mapping[int, Held]) -> list[tuple[int, Held]]:
        if call is _WHILE:
            return [(number, held) for number, held in inputs.items() if not held.is_reference]
        kinds = self.kinds(node, call)
        functions = self.library.called(node, call)
        if not any(kinds) or not functions:
            return []
        trace = self.library.trace(functions[0], kinds)
        return list(_mapped(trace.returned(), trace.body.places, call, inputs, node.name))

    def _is_update(self, node: Any) -> bool:
        inputs = self.inputs(node.name)
        if not inputs or node.op in READS or self.passes(node) or self.library.call(node):
            return False
        return any(not held.is_reference or self.library.takes_reference(node, n) for n, held in inputs.items())


def _mapped(
    returned: Sequence[Held | None], places: Mapping[str, int], call: Call, inputs: Mapping[int, Held], op: str
) -> Iterator[tuple[int, Held]]:
    """What a function returns, as its caller sees it."""
    for number, held in enumerate(returned):
        if held is not None:
            place = places[held.source] + call.first if held.source in places else -1
            yield number, inputs.get(place, held._replace(source=op))
