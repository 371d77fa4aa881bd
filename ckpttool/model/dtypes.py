"""The dtypes of variables: one table, from TensorFlow's DataType numbers to each format's own word.

Sub-byte types (int4 and its like) take one byte an element in a checkpoint, the value in the low bits.
Numbers and names: tensorflow/core/framework/types.proto, tf.dtypes.
"""

import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np

REF_OFFSET = 100
"""DT_FLOAT_REF = DT_FLOAT + 100: the dtype of a TensorFlow 1 variable op's output."""


HANDLES = ("resource", "variant")
"""Names of the dtypes of tensors that stand for something else, such as a variable, and have no value of their own."""


class DType:
    """One dtype. It equals its name and NumPy's type of its values, and NumPy accepts it as a dtype.

    Attributes:
        number: its DataType number.
        name: its name in TensorFlow, such as "float32".
        itemsize: bytes an element takes in a checkpoint; None where that varies (string, variant) or where no
            value can be stored (resource, unknown numbers).
        stored: NumPy's name for an element's bytes, which may be plain integers (quantized types) or a type of
            the package ml_dtypes.
        is_ref: it is a reference to a variable of this dtype. Only in graphs.
    """

    __slots__ = ("is_ref", "itemsize", "name", "number", "stored")

    def __init__(
        self, number: int, name: str, itemsize: int | None = None, stored: str = "", *, is_ref: bool = False
    ) -> None:
        self.number, self.name, self.itemsize, self.stored, self.is_ref = number, name, itemsize, stored, is_ref

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):  # The table is shared by all.
            raise AttributeError("dtypes can not be changed")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"DType({self.name!r})"

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, DType):
            return (self.name, self.itemsize) == (other.name, other.itemsize)
        if isinstance(other, type) and self.name == self.stored and (numpy := sys.modules.get("numpy")):
            # As NumPy has it: np.dtype("float32") == np.float32.
            return bool(issubclass(other, numpy.generic) and self.numpy == other)
        return self.name == other if isinstance(other, str) else NotImplemented

    def __format__(self, spec: str) -> str:
        return format(self.name, spec)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def numpy(self) -> "np.dtype[Any]":
        """The NumPy dtype of the elements, in this machine's byte order; `object` (of bytes) for strings."""
        import numpy as np

        if self.name == "string":
            return np.dtype(object)
        if not self.stored:
            raise TypeError(f"NumPy has no {self.name}")
        if self.stored in _ML_DTYPES:
            import ml_dtypes

            scalar: Any = getattr(ml_dtypes, self.stored)
            return cast("np.dtype[Any]", np.dtype(scalar))
        return np.dtype(self.stored)

    @property
    def base(self) -> "DType":
        """The dtype of the values: of a reference, that of the variable that it leads to."""
        return dtype_of(self.number - REF_OFFSET) if self.is_ref else self

    @property
    def dtype(self) -> "np.dtype[Any]":
        """As `numpy`: what NumPy itself asks for."""
        return self.numpy


_ML_DTYPES = {
    "bfloat16",
    *("float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz"),
    *("int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
}

_TABLE = [
    DType(0, "invalid"),
    DType(1, "float32", 4, "float32"),
    DType(2, "float64", 8, "float64"),
    DType(3, "int32", 4, "int32"),
    DType(4, "uint8", 1, "uint8"),
    DType(5, "int16", 2, "int16"),
    DType(6, "int8", 1, "int8"),
    DType(7, "string"),
    DType(8, "complex64", 8, "complex64"),
    DType(9, "int64", 8, "int64"),
    DType(10, "bool", 1, "bool"),
    DType(11, "qint8", 1, "int8"),
    DType(12, "quint8", 1, "uint8"),
    DType(13, "qint32", 4, "int32"),
    DType(14, "bfloat16", 2, "bfloat16"),
    DType(15, "qint16", 2, "int16"),
    DType(16, "quint16", 2, "uint16"),
    DType(17, "uint16", 2, "uint16"),
    DType(18, "complex128", 16, "complex128"),
    DType(19, "float16", 2, "float16"),
    DType(20, "resource"),
    DType(21, "variant"),
    DType(22, "uint32", 4, "uint32"),
    DType(23, "uint64", 8, "uint64"),
    DType(24, "float8_e5m2", 1, "float8_e5m2"),
    DType(25, "float8_e4m3fn", 1, "float8_e4m3fn"),
    DType(26, "float8_e4m3fnuz", 1, "float8_e4m3fnuz"),
    DType(27, "float8_e4m3b11fnuz", 1, "float8_e4m3b11fnuz"),
    DType(28, "float8_e5m2fnuz", 1, "float8_e5m2fnuz"),
    DType(29, "int4", 1, "int4"),
    DType(30, "uint4", 1, "uint4"),
    DType(31, "int2", 1, "int2"),
    DType(32, "uint2", 1, "uint2"),
    DType(33, "float4_e2m1fn", 1, "float4_e2m1fn"),
]
_BY_NUMBER = {dtype.number: dtype for dtype in _TABLE}
_BY_NUMBER |= {
    number: DType(number, f"{dtype.name}_ref", dtype.itemsize, dtype.stored, is_ref=True)
    for dtype in _TABLE[1:]
    for number in [dtype.number + REF_OFFSET]
}


def dtype_of(number: int) -> DType:
    """The DType of a DataType number; one named "unknown(…)" for a number that TensorFlow has not given out."""
    return _BY_NUMBER.get(number) or DType(number, f"unknown({number})")


def stored_dtype_of(number: int) -> DType:
    """The DType of a DataType number in a checkpoint, where a reference can't be: its values can't be told."""
    dtype = dtype_of(number)
    return DType(number, dtype.name, is_ref=True) if dtype.is_ref else dtype


DTYPES = {dtype.name: dtype for dtype in _TABLE}
"""Every dtype, by name."""
