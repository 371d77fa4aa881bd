"""Constants in place of variables: NodeDefs in pieces, so that their values are not copied until all pieces are joined.

    NodeDef    1 name  2 op "Const"  3 input  4 device  5 attr {dtype}  5 attr {value: tensor}
    AttrValue  6 type  8 tensor         TensorProto  1 dtype  2 tensor_shape  4 tensor_content  8 string_val

(tensorflow/core/framework/{node_def,attr_value,tensor}.proto; python/framework/tensor_util.py)
"""

from collections.abc import Sequence
from typing import Any

from ckpttool import proto
from ckpttool.errors import NotSupportedError
from ckpttool.model.dtypes import DTYPES
from ckpttool.transforms.freezing.stored import Stored
from ckpttool.transforms.new_ops import new_op, scalar_constant
from ckpttool.wire.message import length_prefix, message_field, varint_field


def constant(name: str, waits_for: Sequence[str], device: str, stored: Stored) -> list[bytes]:
    """The NodeDef of a constant, in pieces.

    Args:
        name: the op's name.
        waits_for: its control inputs, as `^op`.
        device: where it is placed; "": nowhere.
        stored: the values, which are read.

    Raises:
        NotSupportedError: no constant can have values of this dtype.
        CorruptionError: the values are damaged.
    """
    dtype = stored.variable.dtype
    node = new_op(name, "Const", waits_for)
    node.device = device
    node.attr["dtype"].type = dtype.number
    if dtype.name == "string":
        content = [message_field(8, value) for value in stored.strings()]
        header, size = b"", sum(map(len, content))
    elif dtype.stored:
        content = stored.content()
        size = sum(map(len, content))
        header = length_prefix(4, size) if size else b""
    else:
        raise NotSupportedError(f"no constant can hold values of {dtype.name}", variable=stored.variable.name)
    shape = b"".join(message_field(2, varint_field(1, size)) for size in stored.shape)
    front = varint_field(1, dtype.number) + message_field(2, shape) + header
    # From the inside out: a tensor, in an AttrValue, in an entry of the map of attributes, in the node.
    for number, before in ((8, b""), (2, message_field(1, b"value")), (5, proto.serialize(node))):
        front = before + length_prefix(number, len(front) + size) + front
    return [front, *content]


def integer(name: str, value: int) -> Any:
    """The NodeDef of a constant that is one int32."""
    node = scalar_constant(name, INT32)
    node.attr["value"].tensor.int_val.append(value)
    return node


def become_true(node: Any) -> None:
    """Makes an op a constant that is true."""
    node.op, node.input[:] = "Const", []
    node.attr.clear()
    node.MergeFrom(scalar_constant(node.name, _BOOL))
    node.attr["value"].tensor.bool_val.append(True)


_BOOL = DTYPES["bool"].number
INT32 = DTYPES["int32"].number
