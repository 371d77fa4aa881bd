"""An op, and what its NodeDef says; the types of ops that are known by name; the names of tensors."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.model.arguments import Shape, get_shape
from ckpttool.model.texts import to_text

VARIABLE_OPS = {"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable", "AutoReloadVariable"}
"""Types of the ops that hold a variable."""

ASSIGN_OPS = ("Assign", "AssignVariableOp")
"""Types of the ops that give a variable a value without reading the one that it has."""

TREE_OPS = "ResourceHandleOp"
"""What the types of ops end in that hold trees, which are no variables and can't become constants.

(tensorflow/core/framework/resource_mgr.h REGISTER_RESOURCE_HANDLE_OP)
"""

PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
"""Types of the ops that run Python code of the program that made the graph, which no file has."""

BARE_PLACEHOLDERS = ("Placeholder", "PlaceholderV2")
"""Types of the ops that have no value unless they are fed."""

PLACEHOLDERS = (*BARE_PLACEHOLDERS, "PlaceholderWithDefault")
"""Types of the ops that are made to be fed."""


class Node(NamedTuple):
    """An op: a node of a graph. `message` is its NodeDef.

    Attributes:
        name: its name.
        type: what it does, such as "MatMul".
        device: where it is placed; "": nowhere in particular.
        inputs: the tensors that it takes, `op` for `op:0`, and behind them the ops that it waits for, as `^op`.
        message: its NodeDef, a protobuf message; `message.attr["T"].type` is an attribute.
    """

    name: str
    type: str
    device: str
    inputs: tuple[str, ...]
    message: Any

    @property
    def operands(self) -> list[str]:
        """The tensors that it takes: its inputs without control inputs."""
        return [text for text in self.inputs if not text.startswith("^")]

    def __repr__(self) -> str:  # Without the message, which may hold megabytes of values.
        return f"Node({self.name!r}, {self.type!r}, inputs={list(self.inputs)}, device={self.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:  # The classes of messages are in no module, where pickle looks for them.
        return _unpickled, (*self[:4], self.message.SerializeToString())


def _unpickled(name: str, type_: str, device: str, inputs: tuple[str, ...], data: bytes) -> Node:
    return Node(name, type_, device, inputs, proto.message_class("NodeDef").FromString(data))


def require_name(name: object) -> None:
    """Raises TypeError if something else was given for the name of an op or tensor, such as a Node."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an op or tensor is needed, not {type(name).__name__}")


def all_nodes(graph_def: Any) -> Iterator[Any]:
    """The NodeDefs of a GraphDef's ops, and then those of its functions'."""
    return chain(graph_def.node, *(function.node_def for function in graph_def.library.function))


def declared_shape(node: Any) -> Shape:
    """The shape in an op's attribute `shape`, by its NodeDef; None if it is not known, or not there."""
    # Asking for an attribute that is not there would make one.
    return get_shape(node.attr["shape"].shape) if "shape" in node.attr else None


def shared_name(node: Any) -> str:
    """The name, by its NodeDef, under which an op's variable, queue or the like is shared; "" if it has none."""
    return to_text(node.attr["shared_name"].s) if "shared_name" in node.attr else ""


def set_shape(message: Any, shape: Shape) -> None:
    """Puts a shape into a new TensorShapeProto."""
    message.SetInParent()  # A scalar's has no fields.
    message.unknown_rank = shape is None
    for size in shape or ():
        message.dim.add(size=-1 if size is None else size)


def op_of(name: str) -> str:
    """The op that a tensor is of: "x:1" → "x"."""
    return split_tensor(name)[0] if ":" in name else name


def split_tensor(name: str) -> tuple[str, str]:
    """An op's name and the output's number, of nine digits at most: "x:1" → "x", "1"; "x" → "x", "0"."""
    head, colon, index = name.rpartition(":")
    is_number = colon and len(index) < 10 and index.isascii() and index.isdecimal()
    return (head, index) if is_number else (name, "0")


def tensor_name(text: str) -> str:
    """A tensor's full name: "x" → "x:0"."""
    return ":".join(split_tensor(text))
