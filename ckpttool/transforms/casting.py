"""Checkpoint → checkpoint of other dtypes; what is lost by it is counted while the values go by.

Numbers are rounded to the nearest, ties to even, bit for bit as TensorFlow's casts do it. Two of those round twice,
from float64 and from integers by way of float32: the cast to bfloat16 does so here too, and the one to float16 rounds
once, both as in NumPy. A float that is too large becomes infinite or, in a type without infinities, NaN. An integer
that does not fit is an error.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.boxes import Selection
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.slices import ByteRange, Slice, whole_slice
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np

    AnyDType = str | DType | np.dtype[Any] | type[Any]

FLOATS = {"float16", "bfloat16", "float32", "float64"}
FLOATS |= {name for name in DTYPES if name.startswith("float8")}
INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
COMPLEX = {"complex64", "complex128"}


class Loss(NamedTuple):
    """How many elements of a variable a cast has changed, and how.

    Attributes:
        elements: how many there are.
        rounded: no longer the same number, but a near one.
        overflowed: finite before, and now infinite (or, in a type without infinities, NaN).
        underflowed: not zero before, and now zero.
    """

    elements: int = 0
    rounded: int = 0
    overflowed: int = 0
    underflowed: int = 0

    def plus(self, other: "Loss") -> "Loss":
        """What was lost of both together."""
        return Loss(*(a + b for a, b in zip(self, other, strict=True)))


class Casts:
    """What was lost in casting a checkpoint.

    Attributes:
        losses: how many values of each variable, by name, overflowed, underflowed or were rounded; known when its
            values have been read.
    """

    def __init__(self) -> None:
        self.losses: dict[str, Loss] = {}

    def __repr__(self) -> str:
        return f"Casts({self.losses})"


def cast(checkpoint: Checkpoint, dtypes: "Mapping[str, AnyDType] | AnyDType", casts: Casts | None = None) -> Checkpoint:
    """The checkpoint in other dtypes; nothing is computed before values are asked for.

        >>> ckpttool.cast(checkpoint, "bfloat16")
        >>> ckpttool.cast(checkpoint, {"float64": "float32", "int64": "int32"})

    Args:
        checkpoint: whose variables.
        dtypes: old dtype → new dtype, by name, as a DType or as NumPy's, such as np.float16; or one dtype, for all
            floating-point variables.
        casts: gets what was lost.

    Raises:
        ValueError: there is no such dtype, or no such cast.
        TypeError: `dtypes` is something else.
    """
    require_checkpoint(checkpoint)
    if not isinstance(dtypes, Mapping):
        name = _name_of(dtypes)
        check_cast("float32", name)
        dtypes = dict.fromkeys(FLOATS, name)
    names = {_name_of(old): _name_of(new) for old, new in dtypes.items()}
    for old, new in names.items():
        check_cast(old, new)
    casts = casts or Casts()
    variables = {name: _cast(v, names.get(v.dtype.name, v.dtype.name), casts) for name, v in checkpoint.items()}
    return checkpoint.with_variables(variables)


def _name_of(dtype: "AnyDType") -> str:
    if isinstance(dtype, str | DType):
        return str(dtype)
    import numpy as np

    if not isinstance(dtype, type | np.dtype):  # For NumPy, None is float64.
        raise TypeError(f"dtypes are a name, a DType, one of NumPy's, or a mapping of these, not {dtype!r}")
    return np.dtype(dtype).name


def check_cast(old: str, new: str) -> None:
    """Raises ValueError unless numbers of one dtype can be cast to the other."""
    for name in (old, new):
        if name not in DTYPES:
            near = FLOATS if old in FLOATS else FLOATS | INTEGERS | COMPLEX
            raise ValueError(f"{name!r} is no dtype to cast to or from; there are {', '.join(sorted(near))}")
    both = {old, new}
    if not (both <= FLOATS or both <= INTEGERS or both <= COMPLEX or (old in INTEGERS and new in FLOATS)):
        raise ValueError(f"no cast from {old} to {new}: it would not keep what the numbers mean")


def _cast(variable: Variable, dtype: str, casts: Casts) -> Variable:
    if dtype == variable.dtype.name:
        return variable
    source = (_PartlyCast if variable.is_partly_stored else _Cast)(variable, DTYPES[dtype], casts)
    return type(variable)(variable.name, DTYPES[dtype], variable.shape, source, variable.key, layer=variable.layer)


class _Cast(Source):
    """The source of a variable that is cast: one piece, in the place of the first one before."""

    def __init__(self, variable: Variable, dtype: DType, casts: Casts) -> None:
        self._variable, self._dtype, self._casts = variable, dtype, casts

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return [whole_piece(variable, self._variable)]

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        raise NotSupportedError(f"{variable.dtype.name} is no string", variable=variable.name)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        self._casts.losses[variable.name] = yield from self._counted(self._variable.read(boxes))

    def _counted(self, arrays: "Iterable[np.ndarray[Any, Any]]") -> "Generator[np.ndarray[Any, Any], None, Loss]":
        """The arrays, cast; returns what was lost."""
        loss = Loss()
        for array in arrays:
            made = self._made(array)
            loss = loss.plus(_loss(array, made))
            yield made
        return loss

    def _made(self, array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        import numpy as np

        dtype = self._dtype.numpy
        if self._dtype.name in INTEGERS and array.size:
            limits = np.iinfo(dtype)
            low, high = int(array.min()), int(array.max())
            if low < limits.min or high > limits.max:
                raise ConversionError(
                    f"{low if low < limits.min else high} does not fit into {self._dtype.name}",
                    variable=self._variable.name,
                )
        if array.dtype == np.float64 and dtype.itemsize == 1:
            return nearest(array, dtype)
        with np.errstate(all="ignore"):  # Overflow is counted.
            return array.astype(dtype)


class _PartlyCast(_Cast):
    """The source of a variable with only some slices stored, which are cast one by one."""

    def __init__(self, variable: Variable, dtype: DType, casts: Casts) -> None:
        super().__init__(variable, dtype, casts)
        self._read: set[tuple[int, ...]] = set()
        self._loss = Loss()

    @cached_property
    def _pieces(self) -> dict[tuple[int, ...], Slice]:
        return {piece.start: piece for piece in self._variable.slices}

    def slices(self, variable: Variable) -> Sequence[Slice]:
        size = variable.dtype.itemsize or 1
        pieces = self._variable.slices
        return [piece._replace(data=ByteRange("", 0, prod(piece.shape) * size, None)) for piece in pieces]

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        loss = yield from self._counted(self._variable.read_of(self._pieces[piece.start], boxes))
        if piece.start not in self._read:
            self._read.add(piece.start)
            self._loss = self._loss.plus(loss)
        self._casts.losses[variable.name] = self._loss


def nearest(values: "np.ndarray[Any, Any]", dtype: "np.dtype[Any]") -> "np.ndarray[Any, Any]":
    """Float64 (or complex128) numbers in another dtype, rounded once.

    The casts of ml_dtypes go by way of float32, and would round twice. So a number between two float32s becomes the odd
    one of these, which is never half-way between two numbers of a narrower type, and lies on the right side.
    (S. Boldo and G. Melquiond, "Emulation of FMA and correctly rounded sums", IEEE Trans. Computers 57, 2008)
    """
    import numpy as np

    with np.errstate(all="ignore"):
        if dtype.itemsize > 2 or dtype == np.float16:
            return values.astype(dtype)
        narrow = np.array(values, np.float32)
        bits = narrow.view(np.uint32)
        bits -= np.abs(narrow) > np.abs(values)  # Rounds towards zero: infinity becomes the largest number.
        bits |= (narrow != values) & ~np.isnan(values)
        return narrow.astype(dtype)


def _loss(old: "np.ndarray[Any, Any]", new: "np.ndarray[Any, Any]") -> Loss:
    import numpy as np

    if new.dtype.kind in "iu":
        return Loss(old.size)  # An integer that does not fit is an error.
    with np.errstate(all="ignore"):
        return _loss_of_integers(old, new) if old.dtype.kind in "iu" else _loss_of_floats(old, new)


def _loss_of_floats(old: "np.ndarray[Any, Any]", new: "np.ndarray[Any, Any]") -> Loss:
    """Compares them in a type that holds all values of both: the wider one, or float64 if they are equally wide."""
    import numpy as np

    wide = old.dtype if old.dtype.itemsize > new.dtype.itemsize else np.result_type(np.float64, new.dtype)
    before, after = old.astype(wide, copy=False), new.astype(wide)
    changed = after != before
    if np.isfinite(after).all():  # Nearly always; takes a quarter of the time.
        underflowed = np.count_nonzero(changed & (after == 0))
        return Loss(old.size, int(np.count_nonzero(changed) - underflowed), 0, int(underflowed))
    before, after = before[changed], after[changed]
    # A NaN differs from itself, and an infinity may have become NaN, in a type without infinities.
    lost = np.isfinite(before) | np.isinf(before) & ~np.isinf(after)
    overflowed = np.count_nonzero(lost & ~np.isfinite(after))
    underflowed = np.count_nonzero(lost & (after == 0))
    return Loss(old.size, int(np.count_nonzero(lost) - overflowed - underflowed), int(overflowed), int(underflowed))


def _loss_of_integers(old: "np.ndarray[Any, Any]", new: "np.ndarray[Any, Any]") -> Loss:
    """Compares them as integers, for float64 does not hold all of 64 bits. A float may be too large for that."""
    import numpy as np

    limits = np.iinfo(old.dtype)
    after = new.astype(np.float64)
    fits = (after >= float(limits.min)) & (after < float(limits.max // 2 + 1) * 2)
    same = fits & (np.where(fits, after, 0).astype(old.dtype) == old)
    overflowed = np.count_nonzero(~np.isfinite(after))
    return Loss(old.size, int(old.size - np.count_nonzero(same) - overflowed), int(overflowed))


def whole_piece(variable: Variable, origin: Variable) -> Slice:
    """The single piece of a variable computed from another one, in the place of that one's first piece."""
    first = origin.slices[0]
    data = ByteRange("", 0, variable.size * (variable.dtype.itemsize or 1), None)
    return whole_slice(variable.shape, data, first.shard, first.position)
