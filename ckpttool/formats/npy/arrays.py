"""Which array a variable becomes, and which variable an array was."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import NotSupportedError
from ckpttool.formats.contents import content_of, require_little_endian
from ckpttool.formats.notes import Note, notes_of
from ckpttool.formats.npy.header import Header, encode_header
from ckpttool.formats.plan import Planned, check_plan
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.variable import NUMPY_RANK, Variable
from ckpttool.storage import Content

if TYPE_CHECKING:
    import numpy as np

_PLAIN = {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
_PLAIN |= {"float16", "float32", "float64", "complex64", "complex128"}
_BYTES = "uint8, as a TensorFlow checkpoint stores it"
# Dtypes that NumPy has no type for: the type with the same bits, and how users are told so.
_FALLBACKS = {
    "bfloat16": ("uint16", "uint16, its bits"),
    **{name: ("uint8", "uint8, its bits") for name in DTYPES if name.startswith(("float8", "float4"))},
    **dict.fromkeys(("int4", "uint4", "int2", "uint2"), ("uint8", "uint8, its bits in the low ones")),
    **{name: (stored, stored) for name, stored in (("qint8", "int8"), ("quint8", "uint8"), ("qint32", "int32"))},
    **{name: (stored, stored) for name, stored in (("qint16", "int16"), ("quint16", "uint16"))},
    **dict.fromkeys(("string", "variant"), ("uint8", _BYTES)),
}
# Strings of fixed width may take so many times their own bytes, or so many bytes in all.
_PADDING, _PADDED = 2, 16 << 20


class Array(NamedTuple):
    """What a variable becomes: NumPy's dtype and shape, the values, and a note of what these do not say."""

    planned: Planned
    descr: str
    shape: tuple[int, ...]
    content: Content
    note: Note

    @property
    def header(self) -> bytes:
        return encode_header(self.descr, self.shape)


def planned_array(variable: Variable, target: str) -> Planned:
    """What becomes of a variable. Strings are read to see that."""
    name = variable.dtype.name
    if name not in _PLAIN and name not in _FALLBACKS:
        return Planned(variable, target, f"NumPy can't hold values of dtype {name}")
    if lacking := variable.lacking:
        return Planned(variable, target, lacking)
    if len(variable.shape) > NUMPY_RANK:
        return Planned(variable, target, f"NumPy has no arrays of rank {len(variable.shape)}")
    if name == "string" and not _loses(variable.strings()):
        return Planned(variable, target)
    return Planned(variable, target, None, _FALLBACKS.get(name, ("", None))[1])


def arrays_of(plan: Sequence[Planned], checkpoint: Checkpoint, *, strict: bool) -> tuple[list[Array], list[Planned]]:
    """The arrays to be written, and the members of the plan that have a remark.

    Raises:
        ConversionError: `strict`, and there is one.
        CorruptionError: strings are damaged.
    """
    require_little_endian("NumPy's files")
    remarkable = check_plan(plan, strict=strict)
    notes = notes_of(checkpoint)
    arrays = [_array(planned, notes[planned.variable.name]) for planned in plan if not planned.problem]
    return arrays, remarkable


def _array(planned: Planned, note: Note) -> Array:
    import numpy as np

    variable, name = planned.variable, planned.variable.dtype.name
    if name == "string" and not planned.fallback:
        values = variable.strings()
        width = _width(values)
        data = b"".join(value.ljust(width, b"\0") for value in values)
        return Array(planned, f"|S{width}", variable.shape, Content.of_bytes(data), note)
    content, shape = content_of(variable), variable.shape
    if variable.dtype.itemsize is None:
        shape = (content.nbytes,)
    if name in _FALLBACKS:
        note = note._replace(dtype=name, shape=variable.shape if shape != variable.shape else None)
    return Array(planned, np.dtype(_FALLBACKS.get(name, (name, ""))[0]).str, shape, content, note)


def _width(values: Sequence[bytes]) -> int:
    return max(map(len, values), default=0) or 1  # NumPy has no strings of width 0.


def _loses(values: Sequence[bytes]) -> bool:
    """Whether strings of fixed width would lose something, or be padding for the most part."""
    if _width(values) * len(values) > max(_PADDED, _PADDING * sum(map(len, values))):
        return True
    return any(value.endswith(b"\0") for value in values)


def meaning(header: Header, note: Note) -> tuple[DType, tuple[int, ...]]:
    """The dtype and shape of an array's variable: those in the note if the array can have them, else the array's own.

    Raises:
        NotSupportedError: TensorFlow has no dtype for it.
    """
    noted = _FALLBACKS.get(note.dtype or "")
    if noted and noted[0] == header.dtype.name:
        dtype, shape = DTYPES[note.dtype or ""], note.shape if note.shape is not None else header.shape
        if dtype.itemsize is not None:
            return dtype, header.shape
        # Every string takes a byte at least.
        if len(header.shape) == 1 and prod(shape) <= header.size:
            return dtype, shape
    return _dtype_of(header.dtype), header.shape


def _dtype_of(found: "np.dtype[Any]") -> DType:
    if found.kind in "SU" and found.itemsize:
        return DTYPES["string"]
    if found.name not in _PLAIN | {"bfloat16"} or found.subdtype is not None:
        raise NotSupportedError(f"TensorFlow has no dtype for NumPy's {found}")
    return DTYPES[found.name]
