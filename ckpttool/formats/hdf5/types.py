"""dtypes as HDF5 has them, in either direction."""

from functools import cache, lru_cache

from ckpttool.formats.hdf5.structure.datatype import (
    ARRAY,
    BITFIELD,
    COMPLEX,
    COMPOUND,
    ENUM,
    FLOAT,
    INTEGER,
    OPAQUE,
    REFERENCE,
    TIME,
    VLEN,
    Datatype,
    Member,
)
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.names import counted

# HDF5's own types, by name.
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
# Floats: sign bit, exponent (first bit, bits), mantissa (first bit, bits), bytes, bias. HDF5's own, and those made of
# them.
_OWN_FLOATS = {
    "IEEE_F16LE": ((15, 10, 5, 0, 10), 2, 15),
    "IEEE_F32LE": ((31, 23, 8, 0, 23), 4, 127),
    "IEEE_F64LE": ((63, 52, 11, 0, 52), 8, 1023),
}
FLOATS = {"bfloat16": ((15, 7, 8, 0, 7), 2, 127), "float8_e5m2": ((7, 2, 5, 0, 2), 1, 15)}
# Integers of a byte, of which the low bits count.
NARROW = {"int4": ("STD_I8LE", 4), "uint4": ("STD_U8LE", 4), "int2": ("STD_I8LE", 2), "uint2": ("STD_U8LE", 2)}
NUMPY_TYPES = {"bool", "complex64", "complex128"}
# What a reader takes for the right thing without being told.
SELF_EXPLAINING = {*(name for name in TYPES if not name.startswith(("q", "float8", "float4"))), *NUMPY_TYPES}
SELF_EXPLAINING |= {"bfloat16", "string"}


def _float(fields: tuple[int, ...], size: int, bias: int) -> Datatype:
    """A float whose mantissa has a leading one that is not stored (bit 5), and whose bits are all used."""
    return Datatype(FLOAT, size, details=(fields[0] << 8 | 0x20, 0, 8 * size, *fields[1:], bias))


def _integer(name: str, precision: int | None = None) -> Datatype:
    """An integer by the name that HDF5 has for it, such as STD_I8LE."""
    bits = int(name[5:-2])
    return Datatype(INTEGER, bits // 8, details=(4 if name[4] == "I" else 0, 0, precision or bits))


def _complex(part: Datatype) -> Datatype:
    members = Member(b"r", 0, part), Member(b"i", part.size, part)
    return Datatype(COMPOUND, 2 * part.size, members=members)


def _numpy_type(name: str) -> Datatype:
    """What h5py stores for a type that HDF5 lacks."""
    if name == "bool":
        return Datatype(ENUM, 1, details=((b"FALSE", b"\0"), (b"TRUE", b"\1")), base=_integer("STD_I8LE"))
    return _complex(_float(*_OWN_FLOATS["IEEE_F32LE" if name == "complex64" else "IEEE_F64LE"]))


@cache
def datatype_of(name: str) -> Datatype:
    """The type that the dtype of this name is stored as."""
    if name in TYPES:
        own = TYPES[name]
        return _float(*_OWN_FLOATS[own]) if own in _OWN_FLOATS else _integer(own)
    if name in NUMPY_TYPES:
        return _numpy_type(name)
    return _integer(*NARROW[name]) if name in NARROW else _float(*FLOATS[name])


@cache
def _names() -> dict[Datatype, list[str]]:
    """The dtypes that are stored as each type; the plain ones first: only an attribute tells others apart."""
    names: dict[Datatype, list[str]] = {}
    plain_first = sorted(TYPES, key=lambda name: name not in SELF_EXPLAINING)
    for name in [*plain_first, *FLOATS, *NARROW, *sorted(NUMPY_TYPES)]:
        names.setdefault(datatype_of(name), []).append(name)
    return names


@lru_cache(maxsize=64)  # A file has few types, and each of them thousands of times.
def dtype_of(stored: Datatype, said: str = "") -> DType | None:
    """The dtype of values of a type, by what the attribute `tensorflow_dtype` says where that can be true.

    None: TensorFlow has none for it. Byte order makes no difference: see `is_swapped`.
    """
    names = _names().get(_little(stored), [])
    return DTYPES[said if said in names else names[0]] if names else None


def _little(stored: Datatype) -> Datatype:
    """The same type with its bytes in little-endian order; a complex number as the compound that h5py has for it."""
    if stored.kind == COMPLEX and stored.base:
        return _complex(_little(stored.base))
    if [member.name for member in stored.members] == _MATLAB_PARTS:
        named = zip(stored.members, (b"r", b"i"), strict=True)
        stored = stored._replace(members=tuple(member._replace(name=name) for member, name in named))
    if len({member.type.is_big for member in stored.members}) > 1:
        return stored
    return stored._replace(
        is_big=False,
        base=stored.base and _little(stored.base),
        members=tuple(member._replace(type=_little(member.type)) for member in stored.members),
    )


_MATLAB_PARTS = [b"real", b"imag"]  # Of complex numbers.


def is_swapped(stored: Datatype) -> bool:
    """Whether numbers of a type, or those that it is made of, have their bytes in big-endian order."""
    parts = [member.type for member in stored.members] or [stored]
    return any(part.is_big and part.size > 1 for part in parts)


_WORDS = {
    INTEGER: "integer",
    FLOAT: "float",
    TIME: "time",
    BITFIELD: "bitfield",
    OPAQUE: "opaque",
    COMPOUND: "compound",
    REFERENCE: "reference",
    ENUM: "enum",
    VLEN: "variable-length sequence",
    ARRAY: "array",
    COMPLEX: "complex",
}


# What is odd of one that has the size of TensorFlow's.
_ODD = {INTEGER: "of which not all bits count", FLOAT: "with exponent and fraction in other bits, or another bias"}


def said_of(stored: Datatype) -> str:
    """What a type is, in HDF5's words, for somebody who wonders why it is not read."""
    word = _WORDS.get(stored.kind, f"class {stored.kind}")
    said = f"HDF5's type {word} of {counted(stored.size, 'byte')}"
    return f"{said}, {_ODD[stored.kind]}" if stored.kind in _ODD and stored.size in (1, 2, 4, 8) else said
