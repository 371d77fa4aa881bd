"""The values of a TensorProto, which is what a constant of a graph has.

They are bytes (tensor_content), or a list of values in the field of their dtype; where the list is shorter than the
tensor, its last value is repeated; where it is empty, all are zero.

(tensorflow/core/framework/tensor.proto, tensor.cc: FromProtoField)
"""

from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.model.dtypes import DType

if TYPE_CHECKING:
    import numpy as np

# The fields with lists; for dtypes that are not named here, integers and what is stored as such, `int_val`.
_LISTS = {
    "float16": "half_val",
    "bfloat16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
}
_PARTS = {"complex64": "float32", "complex128": "float64"}
MOST_BYTES = 1 << 31
"""No graph is larger."""
_MOST_GOING_ON = 1 << 28  # The repeated values are made in memory.


def numbers_of(tensor: Any, dtype: DType, shape: tuple[int, ...]) -> "np.ndarray[Any, Any]":
    """The values of a TensorProto of numbers, which may be a view of few.

    Raises:
        CorruptionError: their number does not fit the shape.
        NotSupportedError: they are of a dtype that no constant has, or too many.
    """
    import numpy as np

    if dtype.itemsize is None:
        raise NotSupportedError(f"values of dtype {dtype.name} can't be decoded")
    count = prod(shape)
    if not count:
        return np.empty(shape, dtype.numpy)
    if tensor.tensor_content:
        if len(tensor.tensor_content) != count * dtype.itemsize:
            raise CorruptionError(f"{len(tensor.tensor_content):,} bytes for {dtype.name}{list(shape)}")
        return np.frombuffer(tensor.tensor_content, dtype.numpy).reshape(shape)
    if count * dtype.itemsize > MOST_BYTES:
        raise NotSupportedError(f"{count:,} values are more than a graph can have")
    given = _listed(tensor, dtype)
    if len(given) >= count:
        return given[:count].reshape(shape)
    if len(given) < 2:
        return np.broadcast_to(given[0] if len(given) else np.zeros((), dtype.numpy), shape)
    if count * dtype.itemsize > _MOST_GOING_ON:
        raise NotSupportedError(f"{count:,} values, of which {len(given):,} are given")
    return np.concatenate([given, np.repeat(given[-1:], count - len(given))]).reshape(shape)


def _listed(tensor: Any, dtype: DType) -> "np.ndarray[Any, Any]":
    import numpy as np

    if dtype.name.startswith(("float8", "float4")):
        return np.frombuffer(tensor.float8_val, dtype.numpy)
    listed = list(getattr(tensor, _LISTS.get(dtype.name, "int_val")))
    if dtype.name in _PARTS:
        return np.array(listed[: len(listed) // 2 * 2], _PARTS[dtype.name]).view(dtype.numpy)
    if _LISTS.get(dtype.name) == "half_val":
        return np.array(listed, np.int32).astype(np.uint16).view(dtype.numpy)
    return np.array(listed, dtype.numpy if dtype.name in _LISTS else np.int32).astype(dtype.numpy, copy=False)


def texts_of(tensor: Any, shape: tuple[int, ...]) -> list[bytes]:
    """The values of a TensorProto of strings, in row-major order.

    Raises:
        CorruptionError: their number does not fit the shape.
        NotSupportedError: they are too many.
    """
    count = prod(shape)
    if tensor.tensor_content:
        return _packed(tensor.tensor_content, count)
    given = list(tensor.string_val)
    if len(given) < count and count > _MOST_GOING_ON >> 6:
        raise NotSupportedError(f"{count:,} values, of which {len(given):,} are given")
    return (given + (given[-1:] or [b""]) * (count - len(given)))[:count]


def _packed(data: bytes, count: int) -> list[bytes]:
    """Strings in one run of bytes: the lengths of all, as varints, and then the strings.

    (tensorflow/core/platform/tensor_coding.cc: DecodeStringList)
    """
    lengths, length, shift, start = list[int](), 0, 0, 0
    for byte in data if count else ():
        start, length, shift = start + 1, length | (byte & 127) << shift, shift + 7
        if byte < 128 or shift > 28:  # No length needs more bytes: a file has at most 2 GiB.
            lengths.append(length)
            length = shift = 0
        if len(lengths) == count:
            break
    if len(lengths) != count or sum(lengths) != len(data) - start:
        raise CorruptionError(f"{len(data):,} bytes for {count:,} strings of {sum(lengths):,} bytes")
    starts = accumulate(lengths, initial=start)
    return [data[start : start + length] for start, length in zip(starts, lengths, strict=False)]
