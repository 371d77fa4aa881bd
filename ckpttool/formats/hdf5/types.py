"""dtypes as HDF5 has them, in either direction."""

from functools import cache
from typing import Any

from ckpttool.model.dtypes import DTYPES, DType

# HDF5's own types, by name in h5py.h5t.
TYPES = {
    "float16": "IEEE_F16LE",
    "float32": "IEEE_F32LE",
    "float64": "IEEE_F64LE",
    "int8": "STD_I8LE",
    "int16": "STD_I16LE",
    "int32": "STD_I32LE",
    "int64": "STD_I64LE",
    "uint8": "STD_U8LE",
    "uint16": "STD_U16LE",
    "uint32": "STD_U32LE",
    "uint64": "STD_U64LE",
    "qint8": "STD_I8LE",
    "qint16": "STD_I16LE",
    "qint32": "STD_I32LE",
    "quint8": "STD_U8LE",
    "quint16": "STD_U16LE",
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"), "STD_U8LE"),
    **dict.fromkeys(("float8_e5m2fnuz", "float4_e2m1fn"), "STD_U8LE"),
}
# Floats made of a standard one: sign bit, exponent (first bit, bits), mantissa (first bit, bits), bytes, bias.
FLOATS = {"bfloat16": ((15, 7, 8, 0, 7), 2, 127), "float8_e5m2": ((7, 2, 5, 0, 2), 1, 15)}
# Integers of a byte, of which the low bits count.
NARROW = {"int4": ("STD_I8LE", 4), "uint4": ("STD_U8LE", 4), "int2": ("STD_I8LE", 2), "uint2": ("STD_U8LE", 2)}
NUMPY_TYPES = {"bool", "complex64", "complex128"}
# What a reader takes for the right thing without being told.
SELF_EXPLAINING = {*(name for name in TYPES if not name.startswith(("q", "float8", "float4"))), *NUMPY_TYPES}
SELF_EXPLAINING |= {"bfloat16", "string"}


@cache
def stored_type(name: str) -> Any:
    """The HDF5 type for a dtype."""
    import numpy as np
    from h5py import h5t

    if name in TYPES:
        return getattr(h5t, TYPES[name])
    if name in NUMPY_TYPES:
        return h5t.py_create(np.dtype(name), logical=True)
    if name in NARROW:
        base, precision = NARROW[name]
        narrow = getattr(h5t, base).copy()
        narrow.set_precision(precision)
        return narrow
    bits, size, bias = FLOATS[name]
    made = h5t.IEEE_F32LE.copy()
    made.set_fields(*bits)
    made.set_precision(8 * size)
    made.set_offset(0)
    made.set_size(size)
    made.set_ebias(bias)
    return made


# The plain ones first: several dtypes may be stored as one type, and only an attribute tells them apart.
_ORDER = [*sorted(TYPES, key=lambda name: name not in SELF_EXPLAINING), *FLOATS, *NARROW, *sorted(NUMPY_TYPES)]


def dtype_of(stored: Any, said: str = "") -> DType | None:
    """The dtype of values of a type, by what the attribute `tensorflow_dtype` says where that can be true.

    None: TensorFlow has none for it. Byte order makes no difference: HDF5 itself swaps.
    """
    for name in [said, *_ORDER]:
        if name in _ORDER and _is_same(stored, stored_type(name)):
            return DTYPES[name]
    return None


def _is_same(a: Any, b: Any) -> bool:
    """Whether two types are the same but for the byte order."""
    from h5py import h5t

    if a.get_class() != b.get_class() or a.get_size() != b.get_size():
        return False
    if a.get_class() == h5t.COMPOUND:  # Complex numbers.
        return _members(a) == _members(b) and all(
            _is_same(a.get_member_type(i), b.get_member_type(i)) for i in range(a.get_nmembers())
        )
    if a.get_class() in (h5t.INTEGER, h5t.FLOAT) and a.get_order() != b.get_order():
        a = a.copy()
        a.set_order(b.get_order())
    return bool(a.equal(b))


def _members(compound: Any) -> list[tuple[bytes, int]]:
    return [(compound.get_member_name(i), compound.get_member_offset(i)) for i in range(compound.get_nmembers())]


def said_of(stored: Any) -> str:
    """What a type is, in HDF5's words, for somebody who wonders why it is not read."""
    from h5py import h5t

    words = {
        h5t.INTEGER: "integer",
        h5t.FLOAT: "float",
        h5t.TIME: "time",
        h5t.BITFIELD: "bitfield",
        h5t.OPAQUE: "opaque",
        h5t.COMPOUND: "compound",
        h5t.REFERENCE: "reference",
        h5t.ENUM: "enum",
        h5t.VLEN: "variable-length sequence",
        h5t.ARRAY: "array",
    }
    word = words.get(stored.get_class(), f"class {stored.get_class()}")
    return f"HDF5's type {word} of {stored.get_size():,} bytes"
