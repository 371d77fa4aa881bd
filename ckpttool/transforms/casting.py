"""Checkpoint → checkpoint of other dtypes; what is lost by it is counted while the values go by.

Numbers become the nearest ones that there are, ties to the even one, as TensorFlow's and NumPy's casts do. A float that
is too large becomes infinite. An integer that does not fit is an error: there is no near one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.boxes import Selection
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Variable
from ckpttool.model.dtypes import DTYPES, DType

if TYPE_CHECKING:
    import numpy as np

FLOATS = {"float16", "bfloat16", "float32", "float64"}
FLOATS |= {name for name in DTYPES if name.startswith("float8")}
INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
COMPLEX = {"complex64", "complex128"}


class Loss(NamedTuple):
    """What a cast has lost of a variable, in numbers of elements.

    Attributes:
        elements: how many there are.
        rounded: not the same number any more, but near.
        overflowed: finite, and now infinite (or, in a type without infinities, not a number).
        underflowed: not zero, and now zero.
    """

    elements: int = 0
    rounded: int = 0
    overflowed: int = 0
    underflowed: int = 0


class Casts:
    """The losses of a cast checkpoint's variables, by name; known when their values have been read."""

    def __init__(self) -> None:
        self.losses: dict[str, Loss] = {}


def cast(checkpoint: Checkpoint, dtypes: Mapping[str, str] | str, casts: Casts | None = None) -> Checkpoint:
    """The checkpoint in other dtypes; nothing is computed before values are asked for.

        >>> ckpttool.cast(checkpoint, "bfloat16")
        >>> ckpttool.cast(checkpoint, {"float64": "float32", "int64": "int32"})

    Args:
        checkpoint: whose variables.
        dtypes: for names of dtypes those to cast to; or one name, for all floating-point variables.
        casts: is told what was lost.

    Raises:
        ValueError: there is no such dtype, or no such cast.
    """
    if isinstance(dtypes, str):
        check_cast("float32", dtypes)
        dtypes = dict.fromkeys(FLOATS, dtypes)
    for old, new in dtypes.items():
        check_cast(old, new)
    casts = casts or Casts()
    variables = {name: _cast(v, dtypes.get(v.dtype.name, v.dtype.name), casts) for name, v in checkpoint.items()}
    return checkpoint.with_variables(variables)


def check_cast(old: str, new: str) -> None:
    """Raises ValueError unless numbers of one dtype can be cast to the other."""
    for name in (old, new):
        if name not in DTYPES:
            raise ValueError(f"{name!r} is no dtype; there are {', '.join(sorted(FLOATS | INTEGERS | COMPLEX))}")
    both = {old, new}
    if not (both <= FLOATS or both <= INTEGERS or both <= COMPLEX or (old in INTEGERS and new in FLOATS)):
        raise ValueError(f"no cast from {old} to {new}: it would not keep what the numbers mean")


def _cast(variable: Variable, dtype: str, casts: Casts) -> Variable:
    if dtype == variable.dtype.name:
        return variable
    source = _Cast(variable, DTYPES[dtype], casts)
    return Variable(variable.name, DTYPES[dtype], variable.shape, source, variable.key)


class _Cast:
    """The source of a variable that is cast: in one piece, wherever the first one was."""

    def __init__(self, variable: Variable, dtype: DType, casts: Casts) -> None:
        self._variable, self._dtype, self._casts = variable, dtype, casts

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return [whole_piece(variable, self._variable)]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        return None

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        raise NotSupportedError(f"{variable.dtype.name} is no string", variable=variable.name)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        loss = Loss()
        for array in self._variable.read(boxes):
            made = self._made(array)
            found = _loss(array, made)
            loss = Loss(*(a + b for a, b in zip(loss, found, strict=True)))
            yield made
        self._casts.losses[variable.name] = loss

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
        with np.errstate(all="ignore"):  # What overflows is counted.
            return array.astype(dtype)


def _loss(old: "np.ndarray[Any, Any]", new: "np.ndarray[Any, Any]") -> Loss:
    import numpy as np

    if old.dtype.kind in "iu" and new.dtype.kind in "iu":
        return Loss(old.size)
    with np.errstate(all="ignore"):
        back = new.astype(old.dtype)
        changed = back != old
    if not changed.any():
        return Loss(old.size)
    before, after = old[changed], back[changed]
    finite = np.isfinite(before)
    overflowed = np.count_nonzero(finite & ~np.isfinite(after))
    underflowed = np.count_nonzero(finite & (after == 0))
    rounded = np.count_nonzero(finite) - overflowed - underflowed
    # What was infinite and is not a number any more, in a type without infinities; a NaN differs from itself.
    overflowed += np.count_nonzero(np.isinf(before))
    return Loss(old.size, int(rounded), int(overflowed), int(underflowed))


def whole_piece(variable: Variable, origin: Variable) -> Slice:
    """The one piece of a variable whose values are made of another's: it goes where that one's first piece was."""
    first = origin.slices[0]
    data = ByteRange("", 0, variable.size * (variable.dtype.itemsize or 1), None)
    return Slice((0,) * len(variable.shape), variable.shape, first.shard, data, first.position)
