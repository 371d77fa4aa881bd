"""Adds ops and entries of maps to a graph, where TensorFlow itself would put them.

An op goes after the last one, an entry of a map into the order of the keys.

(tensorflow/core/framework/graph.proto: 1 node; core/protobuf/meta_graph.proto: 4 collection_def, 5 signature_def)
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ckpttool import proto
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.texts import to_bytes
from ckpttool.transforms.graph_edits import key_of
from ckpttool.wire.message import LENGTH, fields, message_field

_STRING = DTYPES["string"].number


def free_name(wanted: str, taken: Collection[str]) -> str:
    """The name, followed by a number if it is taken, as TensorFlow makes names unique: x, x_1, x_2."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def new_op(name: str, type: str, inputs: Iterable[str] = ()) -> Any:
    """A NodeDef without attributes."""
    node = proto.message_class("NodeDef")(name=name, op=type)
    node.input.extend(inputs)
    return node


def scalar_constant(name: str, dtype: int) -> Any:
    """The NodeDef of a scalar constant, still without its value."""
    node = new_op(name, "Const")
    node.attr["dtype"].type = dtype
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.SetInParent()
    return node


def string_constant(name: str, texts: Sequence[str]) -> Any:
    """The NodeDef of a constant: a vector of strings."""
    node = new_op(name, "Const")
    node.attr["dtype"].type = _STRING
    tensor = node.attr["value"].tensor
    tensor.dtype = _STRING
    tensor.tensor_shape.dim.add(size=len(texts))
    tensor.string_val.extend(to_bytes(text) for text in texts)
    return node


def with_nodes(graph_def: bytes, nodes: Iterable[Any]) -> bytes:
    """The GraphDef with more ops."""
    data = b"".join(message_field(1, proto.serialize(node)) for node in nodes)
    return _inserted(graph_def, 1, data)


def with_entry(message: bytes, number: int, key: str, value: bytes | None) -> bytes:
    """The message with this entry in its map `number` instead of any of the same key; if the value is None, without."""
    return with_entries(message, number, {key: value})


def with_entries(message: bytes, number: int, values: Mapping[str, bytes | None]) -> bytes:
    """The same with many entries, each put before the first one of a greater key."""
    left = [(key, value) for key, value in sorted(values.items(), reverse=True) if value is not None]
    pieces, copied = [], 0
    for n, wire_type, start, value_start, end in fields(message):
        if (n, wire_type) == (number, LENGTH):
            there = key_of(message[value_start:end])
            if there in values:
                pieces.append(message[copied:start])
                copied = end
                continue
            while left and left[-1][0] < there:
                pieces += [message[copied:start], _entry(number, *left.pop())]
                copied = start
    data = b"".join([*pieces, message[copied:]])
    return _inserted(data, number, b"".join(_entry(number, *each) for each in reversed(left))) if left else data


def _entry(number: int, key: str, value: bytes) -> bytes:
    return message_field(number, message_field(1, to_bytes(key)) + message_field(2, value))


def with_field(message: bytes, number: int, value: bytes) -> bytes:
    """The message with one more field of bytes, after those of the same number."""
    return _inserted(message, number, message_field(number, value))


def _inserted(message: bytes, number: int, data: bytes) -> bytes:
    """The message with fields added after the last one of the number, or where that would be."""
    place = 0
    for n, _, _, _, end in fields(message):
        if n <= number:
            place = end
    return message[:place] + data + message[place:]
