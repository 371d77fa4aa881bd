"""Two variables of one shape side by side: how many values differ, and by how much.

They are compared block by block. As long as the bytes are the same, nothing more is asked of them. Once a byte differs,
all is read again, for the differences and for what the norms need: in float64, through buffers that all blocks share.
"""

from collections.abc import Callable, Iterator
from itertools import tee
from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.model.boxes import subdivide
from ckpttool.model.checkpoint import Variable

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int], None]

_ELEMENTS = 1 << 18
"""Of a block: enough that its own cost vanishes, few enough for the processor's caches."""

_ROW = 1 << 13


class Difference(NamedTuple):
    """How the values of two variables of one shape differ.

    Attributes:
        elements: how many there are.
        changed: how many are not the same; a NaN is the same as a NaN, and 0 as -0.
        beyond: how many of these differ by more than the tolerance.
        max_abs: the largest difference: infinite where one is infinite, or a NaN beside a number; NaN of strings.
        l2: the square root of the sum of the squares of the differences; NaN of strings.
        cosine: the cosine of the angle between the two as vectors; NaN where one of them is zero or not finite, and
            where nothing has changed.
    """

    elements: int
    changed: int = 0
    beyond: int = 0
    max_abs: float = 0.0
    l2: float = 0.0
    cosine: float = nan


def difference(
    a: Variable,
    b: Variable,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    progress: Progress = lambda nbytes: None,
) -> Difference:
    """How the values of two variables of one shape differ; each is read in blocks, once if nothing does.

    Args:
        a: the one.
        b: the other, of the same shape. Its dtype may be another: both are then compared as float64.
        rtol: a difference of so much times b's absolute value, and
        atol: so much, is within the tolerance, as `numpy.isclose` has it.
        progress: is told the bytes of each pair of blocks.

    Raises:
        CorruptionError: values are missing or damaged.
        NotSupportedError: values of this dtype can't be decoded.
    """
    if a.dtype.itemsize is None or b.dtype.itemsize is None:
        found = _of_strings(a, b)
        progress(a.nbytes + b.nbytes)
        return found
    same = 0
    for one, other in _pairs(a, b):
        if a.dtype != b.dtype or not _same_bytes(one, other):
            break
        same += 1
        progress(one.nbytes + other.nbytes)
    else:
        return Difference(a.size)
    sums = None
    for number, (one, other) in enumerate(_pairs(a, b)):
        x, y = _comparable(one, other)
        sums = sums or _Sums(x.size, rtol, atol)  # The first block is the largest.
        sums.add(x, y)
        if number >= same:
            progress(one.nbytes + other.nbytes)
    return sums.difference() if sums else Difference(a.size)


def _pairs(a: Variable, b: Variable) -> "Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]":
    """The same boxes of both."""
    boxes = tee(subdivide((0,) * len(a.shape), a.shape, _ELEMENTS))
    yield from zip(a.read(boxes[0]), b.read(boxes[1]), strict=True)


def _same_bytes(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> bool:
    import numpy as np

    words = np.uint64 if one.nbytes % 8 == 0 else np.uint8
    x, y = (np.ascontiguousarray(array).reshape(-1).view(words) for array in (one, other))
    return bool(np.array_equal(x, y))


def _of_strings(a: Variable, b: Variable) -> Difference:
    pairs = zip(a.strings(), b.strings(), strict=True)
    changed = sum(one != other for one, other in pairs)
    return Difference(a.size, changed, changed, nan, nan) if changed else Difference(a.size)


def _comparable(
    one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]"
) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Both blocks flat, and in one dtype that NumPy reckons with."""
    import numpy as np

    wide: Any = one.dtype
    if one.dtype != other.dtype:
        wide = np.complex128 if "c" in one.dtype.kind + other.dtype.kind else np.float64
    elif one.dtype.isbuiltin != 1:  # Of ml_dtypes, in which nothing is quick.
        wide = np.float32
    return np.ascontiguousarray(one, wide).reshape(-1), np.ascontiguousarray(other, wide).reshape(-1)


class _Sums:
    """The sums over the blocks so far, and the buffers that blocks go through.

    Args:
        largest: elements of the largest block.
        rtol: see `difference`.
        atol: the same.
    """

    def __init__(self, largest: int, rtol: float, atol: float) -> None:
        import numpy as np

        self._rtol, self._atol = rtol, atol
        self._elements = self._changed = self._beyond = 0
        self._max_abs = self._squares = self._dot = self._of_one = self._of_other = 0.0
        self._buffers = np.empty((2, 2 * largest), np.float64)  # Complex numbers take two.
        self._is_same = np.empty(largest, np.bool_)

    def add(self, one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._elements += one.size
        # A complex number is taken as the two that it is made of.
        x, y = self._buffers[:, : one.view(one.real.dtype).size]
        np.copyto(x, one.view(one.real.dtype))
        np.copyto(y, other.view(one.real.dtype))
        with np.errstate(all="ignore"):
            self._dot += _dot(x, y)
            self._of_one += _dot(x, x)
            self._of_other += _dot(y, y)
            same = np.equal(one, other, out=self._is_same[: one.size])
            if not same.all():
                apart = _distances(one, other, np.subtract(x, y, out=x))
                if not isfinite(apart.max()):
                    same |= np.isnan(one) & np.isnan(other)
                    apart[np.isnan(apart)] = inf
                    apart[same] = 0
                self._add_unequal(apart, same, y, one.dtype)

    def _add_unequal(
        self,
        apart: "np.ndarray[Any, Any]",
        same: "np.ndarray[Any, Any]",
        y: "np.ndarray[Any, Any]",
        dtype: "np.dtype[Any]",
    ) -> None:
        """Adds distances, given which of them are nothing, and the parts of b's numbers, of that dtype."""
        import numpy as np

        self._changed += same.size - int(np.count_nonzero(same))
        self._max_abs = max(self._max_abs, float(apart.max()))
        self._squares += _dot(apart, apart)
        if self._rtol or self._atol:
            same |= np.isfinite(apart) & (apart <= self._atol + self._rtol * _magnitudes(y, dtype))
        self._beyond += same.size - int(np.count_nonzero(same))

    def difference(self) -> Difference:
        if not self._changed:
            return Difference(self._elements)
        norms = sqrt(self._of_one) * sqrt(self._of_other)
        cosine = max(-1.0, min(1.0, self._dot / norms)) if 0 < norms < inf and isfinite(self._dot) else nan
        return Difference(self._elements, self._changed, self._beyond, self._max_abs, sqrt(self._squares), cosine)


def _dot(x: "np.ndarray[Any, Any]", y: "np.ndarray[Any, Any]") -> float:
    """The dot product, row by row: BLAS starts threads of its own for longer ones, and would sum them less exactly."""
    import numpy as np

    whole = x.size - x.size % _ROW
    rows = np.matmul(x[:whole].reshape(-1, 1, _ROW), y[:whole].reshape(-1, _ROW, 1))
    return float(rows.sum() + np.dot(x[whole:], y[whole:]))


def _distances(
    one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]", differences: "np.ndarray[Any, Any]"
) -> "np.ndarray[Any, Any]":
    """How far the numbers are from each other, in float64, given the differences of the parts that they consist of."""
    import numpy as np

    if one.dtype.kind in "iu" and one.dtype.itemsize == 8:  # The float64s may be the same where these are not.
        x, y = one.view(np.uint64), other.view(np.uint64)
        np.copyto(differences, np.where(one > other, x - y, y - x))
        return differences
    return _magnitudes(differences, one.dtype)


def _magnitudes(parts: "np.ndarray[Any, Any]", dtype: "np.dtype[Any]") -> "np.ndarray[Any, Any]":
    """The absolute values of numbers of a dtype, given their parts, which are lost."""
    import numpy as np

    if dtype.kind == "c":
        magnitudes: np.ndarray[Any, Any] = np.hypot(parts[::2], parts[1::2])
        return magnitudes
    np.abs(parts, out=parts)
    return parts
