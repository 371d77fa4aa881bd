"""The values of variables that are not stored: their initial values, if these are constants.

initial_value (Const) ─▶ Assign(local, …)
"""

from math import prod
from typing import Any

from ckpttool.errors import CheckpointError
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.in_memory import from_arrays
from ckpttool.model.tensors import numbers_of, texts_of
from ckpttool.model.variable import Variable

_MOST = 1 << 20


def initial_value(name: str, constant: Any) -> Variable | None:
    """The values of a constant, as those of a variable; None if there are too many, or they can't be decoded."""
    import numpy as np

    tensor = constant.attr["value"].tensor
    dtype, shape = dtype_of(tensor.dtype), tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(size < 0 for size in shape) or prod(shape) > _MOST:
        return None
    try:
        if dtype.name == "string":
            values = np.array(texts_of(tensor, shape), object).reshape(shape)
        else:
            values = numbers_of(tensor, dtype, shape)
    except CheckpointError:
        return None
    return from_arrays({name: values})[name]
