"""The values of variables that nobody stores: those that their initializers give them, where these are constants.

    initial_value (Const) ─▶ Assign(local, …)

(tensorflow/core/framework/tensor.proto; python/framework/tensor_util.py MakeNdarray)
"""

from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.in_memory import from_arrays
from ckpttool.model.variable import Variable

if TYPE_CHECKING:
    import numpy as np

# The field of a TensorProto that has values of a dtype one by one; the integers not named are in `int_val`.
_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "int64": "int64_val",
    "bool": "bool_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "string": "string_val",
}
_INTEGERS = ("int32", "int16", "int8", "uint16", "uint8")
_BITS = ("float16", "bfloat16")
_MOST = 1 << 20


def initial_value(name: str, constant: Any) -> Variable | None:
    """The values of a constant, as a variable's; None if they are too many, or of a dtype that has them otherwise."""
    tensor = constant.attr["value"].tensor
    dtype, shape = dtype_of(tensor.dtype), tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(size < 0 for size in shape) or prod(shape) > _MOST:
        return None
    values = _values(tensor, dtype, prod(shape))
    return None if values is None else from_arrays({name: values.reshape(shape)})[name]


def _values(tensor: Any, dtype: DType, count: int) -> "np.ndarray[Any, Any] | None":
    import numpy as np

    if tensor.tensor_content and dtype.itemsize is not None:
        whole = len(tensor.tensor_content) == count * dtype.itemsize
        return np.frombuffer(tensor.tensor_content, dtype.numpy) if whole else None
    if dtype.name in _BITS:
        given = np.array(list(tensor.half_val), np.uint16).view(dtype.numpy)
    elif dtype.name in _FIELDS or dtype.name in _INTEGERS:
        listed = list(getattr(tensor, _FIELDS.get(dtype.name, "int_val")))
        given = np.array(listed, object if dtype.name == "string" else dtype.numpy)
    else:
        return None
    if not 0 < len(given) <= count:
        return given if len(given) == count else None
    return np.concatenate([given, np.repeat(given[-1:], count - len(given))])  # The last stands for the rest.
