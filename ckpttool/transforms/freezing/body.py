"""A graph's ops, or those of a function's body, and which output each input is.

In a graph an input is named `op:1`; in a function `op:output_name:0`, or by the name of an argument. Here both are an
Output, counted from 0: of an argument, its only one.  (tensorflow/core/framework/{node_def,function}.proto)
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ckpttool.model.graph import split_tensor

# Where an op's named output stands, if not at the front: only of ops that can hand a variable on.
_LATER = {
    **dict.fromkeys((("Switch", "output_true"), ("RefSwitch", "output_true")), 1),
    **dict.fromkeys((("Merge", "value_index"), ("RefMerge", "value_index")), 1),
}
_FAR = 1 << 20


class Output(NamedTuple):
    """An output of an op, or an argument of a function."""

    op: str
    number: int


class Body:
    """The ops of a graph or of a function.

    Attributes:
        nodes: the NodeDefs, by name.
        function: the FunctionDef; None for a graph.
        arguments: the names of the function's arguments.
        operands: of each op, the outputs that it takes.
        controls: of each op, the ops that it waits for.
    """

    def __init__(self, nodes: Iterable[Any], functions: Mapping[str, Any], function: Any = None) -> None:
        self.nodes = {node.name: node for node in nodes}
        self.function, self._functions = function, functions
        self.arguments = [argument.name for argument in function.signature.input_arg] if function is not None else []
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
        """Whether one op takes an output of the other, and does not only wait for it."""
        return any(output.op == op for output in self.operands[user])

    def output(self, text: str) -> Output:
        """The output that an input's name means."""
        if self.function is None:
            op, number = split_tensor(text)
            return Output(op, int(number))
        op, *rest = text.split(":")
        if not rest:
            return Output(op, 0)
        number = rest[1] if len(rest) > 1 and rest[1].isdecimal() else "0"
        return Output(op, self._first(op, rest[0]) + int(number[:7]))

    def _first(self, op: str, output_name: str) -> int:
        type_ = self.nodes[op].op if op in self.nodes else ""
        called = self._functions.get(type_)
        if called is not None:
            names = [output.name for output in called.signature.output_arg]
            return names.index(output_name) if output_name in names else _FAR
        return _LATER.get((type_, output_name), 0)
