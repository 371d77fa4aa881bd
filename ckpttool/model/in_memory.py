"""Arrays in memory as a checkpoint, to be written as any other."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpttool.model.boxes import Selection
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.slices import ByteRange, Slice, whole_slice
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np


_HALF = re.compile("[\ud800-\udfff]")
# In names, a byte that is not UTF-8 is one of these.
_HALF_IN_NAME = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def from_arrays(arrays: "Mapping[str, Any]") -> Checkpoint:
    """A checkpoint of arrays; they are not copied.

        >>> ckpttool.write_bundle(ckpttool.from_arrays({"dense/bias": np.zeros(10, np.float32)}), "model.ckpt")

    Args:
        arrays: variable's name → array, or what NumPy makes an array of. Numbers may be of any dtype that TensorFlow
            has, those of ml_dtypes too; text and bytes become strings, text as UTF-8. A Variable is read now, and keeps
            its dtype.

    Raises:
        TypeError: `arrays` is not a mapping, or holds another one; a name is not a str; a value makes no array; or
            TensorFlow has no such dtype.
        ValueError: a name or a value can't be encoded; lists do not make an array; or values are masked.
    """
    if not isinstance(arrays, Mapping):
        raise TypeError(f"a mapping of names to arrays is needed, not {type(arrays).__name__}")
    for name in arrays:
        if not isinstance(name, str):
            raise TypeError(f"the name of a variable is a text, not {name!r}")
        if _HALF_IN_NAME.search(name):
            raise ValueError(f"{name!r} can't be a name: half of a surrogate pair stands alone")
    held, dtypes = {}, {}
    for name, values in arrays.items():
        held[name] = array = _array_of(name, values)
        # NumPy has none for quantized numbers.
        dtypes[name] = values.dtype if isinstance(values, Variable) else _dtype_of(name, array)
    source = _InMemory(held)
    variables = {name: Variable(name, dtypes[name], array.shape, source, name) for name, array in held.items()}
    return Checkpoint(variables, path="arrays", format="arrays in memory")


def _array_of(name: str, values: Any) -> "np.ndarray[Any, Any]":
    """An array of values, in this machine's byte order, which is nothing that a variable has."""
    import numpy as np

    if isinstance(values, Mapping):
        each = "each of its arrays takes a name of its own"
        raise TypeError(f"variable {name!r}: a {type(values).__name__} is no array: {each}")
    if hasattr(values, "mask") and np.ma.is_masked(values):  # What is under a mask is anything.
        raise ValueError(f"variable {name!r}: some of its values are masked: filled() gives them a value")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"variable {name!r}: {error}") from error
    except (TypeError, RuntimeError) as error:  # PyTorch's, of a tensor on another device, or one with a gradient.
        raise TypeError(f"variable {name!r}: {error}") from error
    if array.dtype.kind == "T":  # NumPy's strings of any length have no byte order.
        return array.astype(object)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class _InMemory(Source):
    """The source of variables that are arrays."""

    def __init__(self, arrays: "Mapping[str, np.ndarray[Any, Any]]") -> None:
        self._arrays = arrays

    def slices(self, variable: Variable) -> Sequence[Slice]:
        data = ByteRange("", 0, variable.size * (variable.dtype.itemsize or 0), None)
        return [whole_slice(variable.shape, data)]

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        for box in boxes:
            whole: Any = (*box, ...)  # With the ellipsis, a scalar stays an array.
            array = self._arrays[variable.key][whole]
            array.flags.writeable = False  # It is the caller's own, and is to stay as it was given.
            yield array

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        return [value.encode() if isinstance(value, str) else bytes(value) for value in self._arrays[variable.key].flat]


def _dtype_of(name: str, array: "np.ndarray[Any, Any]") -> DType:
    if array.dtype.kind == "O":
        others = (type(value).__name__ for value in array.flat if not isinstance(value, str | bytes))
        if other := next(others, None):
            raise TypeError(f"variable {name!r}: values of the type {other} are neither NumPy's numbers nor text")
    if array.dtype.kind in "USO":
        if any(isinstance(value, str) and _HALF.search(value) for value in array.flat):
            raise ValueError(f"variable {name!r}: half of a surrogate pair stands alone in a text")
        return DTYPES["string"]
    dtype = DTYPES.get(array.dtype.name)
    if dtype is None or dtype.itemsize is None:
        raise TypeError(f"variable {name!r}: TensorFlow has no dtype {array.dtype.name}")
    return dtype
