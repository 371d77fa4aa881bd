"""The ops of a graph or of a function's body, and which output each of their inputs is.

In a graph an input is named `op:1`; in a function `op:output_name:0`, or by the name of an argument. Here, each is an
Output with a number from 0; an argument has only number 0.  (tensorflow/core/framework/{node_def,function}.proto)
"""

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any, NamedTuple

from ckpttool.model.arguments import Dtypes, arguments_of
from ckpttool.model.nodes import split_tensor


class Output(NamedTuple):
    """An output of an op, or an argument of a function."""

    op: str
    number: int


class Body:
    """The ops of a graph or of a function.

    Args:
        nodes: the NodeDefs.
        op_def: gives the OpDef of a type of ops, None if it is unknown.
        function: the FunctionDef; None for a graph.

    Attributes:
        nodes: the NodeDefs, by name.
        function: the FunctionDef; None for a graph.
        arguments: the names of the function's arguments.
        places: the place of each argument among these.
        operands: op → the outputs that it takes.
        controls: op → the ops that it waits for.
    """

    def __init__(self, nodes: Iterable[Any], op_def: Callable[[str], Any], function: Any = None) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.function, self._op_def = function, op_def
        self.arguments = [argument.name for argument in function.signature.input_arg] if function is not None else []
        self.places = {name: place for place, name in enumerate(self.arguments)}
        self.operands: dict[str, list[Output]] = {}
        self.controls: dict[str, list[str]] = {}
        self._users: dict[str, dict[str, None]] = {}
        for name, node in self.nodes.items():
            self.operands[name] = [self.output(text) for text in node.input if not text.startswith("^")]
            self.controls[name] = [text[1:] for text in node.input if text.startswith("^")]
            for op in (*(output.op for output in self.operands[name]), *self.controls[name]):
                self._users.setdefault(op, {})[name] = None

    def users(self, op: str) -> Iterable[str]:
        """The ops that take an op's outputs, or wait for it."""
        return self._users.get(op, ())

    def takes(self, user: str, op: str) -> bool:
        """Whether one op takes an output of the other, instead of only waiting for it."""
        return any(output.op == op for output in self.operands[user])

    def output(self, text: str) -> Output:
        """The output that the name of an input stands for."""
        if self.function is None:
            op, number = split_tensor(text)
            return Output(op, int(number))
        op, *rest = text.split(":")
        if not rest:
            return Output(op, 0)
        number = rest[1] if len(rest) > 1 and rest[1].isdecimal() else "0"
        return Output(op, self._first(op, rest[0]) + int(number[:7]))

    def _first(self, op: str, output_name: str) -> int:
        """The number of an op's first output with a name; if there is no such name, the number of its outputs."""
        if op not in self.nodes or (op_def := self._op_def(self.nodes[op].op)) is None:
            return 0
        before = list(takewhile(lambda argument: argument.name != output_name, op_def.output_arg))
        return len(Dtypes(arguments_of(before, op_def.attr), self.nodes[op].attr)) if before else 0
