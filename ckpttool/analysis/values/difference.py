"""Two variables of one shape side by side: how many values differ, and by how much.

They are compared block by block: only their bytes, as long as these are the same. Once a byte differs, all is read
again for the differences and the norms, in float64, through buffers that all blocks share. For float32, a compiled pass
does all of that at once, where there is one.
"""

from collections.abc import Callable, Iterator
from itertools import tee
from math import inf, isfinite, nan, sqrt
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.analysis.values import compiled
from ckpttool.model.boxes import subdivide
from ckpttool.model.variable import Variable

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int], None]

_ELEMENTS = 1 << 18
"""In a block: enough to hide the cost of a block, few enough for the processor's caches."""

_ROW = 1 << 13


class Difference(NamedTuple):
    """How the values of two variables of one shape differ.

    Attributes:
        elements: how many there are.
        changed: how many are not equal; a NaN is equal to a NaN, and 0 to -0.
        beyond: how many of these differ by more than the tolerance.
        max_abs: the largest difference: infinite if one of two unequal values is infinite or a NaN; NaN for strings.
        l2: the square root of the sum of the squares of the differences; NaN for strings.
        cosine: the cosine of the angle between the two as vectors; NaN where one of them is zero or not finite, and
            where nothing has changed. (Squares are float64: what is below 1e-162 counts as zero in both.)
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
    """How the values of two variables of one shape differ; each is read in blocks, and once more if anything differs.

    Args:
        a: the one.
        b: the other, of the same shape. Its dtype may be another: both are then compared as float64.
        rtol: relative tolerance: a difference up to `atol + rtol * abs(b)` counts as none, as in `numpy.isclose`.
        atol: absolute tolerance.
        progress: is called with the bytes of each pair of blocks.

    Raises:
        CorruptionError: values are missing or damaged.
        NotSupportedError: values of this dtype can't be decoded.
    """
    if a.dtype.itemsize is None or b.dtype.itemsize is None:
        found = _of_strings(a, b)
        progress(a.nbytes + b.nbytes)
        return found
    a, b = a.narrow(), b.narrow()
    same = 0
    for one, other in _pairs(a, b):
        if a.dtype != b.dtype or not _same_bytes(one, other):
            break
        same += 1
        progress(one.nbytes + other.nbytes)
    else:
        return Difference(a.size)
    gaps, whole = None, Gap()
    for number, (one, other) in enumerate(_pairs(a, b)):
        x, y = _comparable(one, other)
        gaps = gaps or Gaps(x, rtol, atol)  # The first block is the largest.
        whole = _merged(whole, gaps.between(x, y))
        if number >= same:
            progress(one.nbytes + other.nbytes)
    return _of_gap(a.size, whole)


def _pairs(a: Variable, b: Variable) -> "Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]":
    """The blocks of both variables in pairs, one after another."""
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
    """Both blocks flat, and in one dtype that NumPy computes in."""
    import numpy as np

    wide: Any = one.dtype
    if one.dtype != other.dtype:
        wide = np.complex128 if "c" in one.dtype.kind + other.dtype.kind else np.float64
    elif one.dtype.isbuiltin == 2:  # A type of ml_dtypes: all of them are slow. (Types with a byte order have 0.)
        wide = np.float32
    return np.ascontiguousarray(one, wide).reshape(-1), np.ascontiguousarray(other, wide).reshape(-1)


class Gap(NamedTuple):
    """How some numbers differ from others. Gaps of several blocks can be merged.

    Attributes:
        changed, beyond, max_abs: as in `Difference`.
        squares: the sum of the squares of the differences.
        dot, of_one, of_other: the dot products of both, of the one with itself, and of the other with itself.
    """

    changed: int = 0
    beyond: int = 0
    max_abs: float = 0.0
    squares: float = 0.0
    dot: float = 0.0
    of_one: float = 0.0
    of_other: float = 0.0


def _merged(a: Gap, b: Gap) -> Gap:
    sums = Gap(*map(add, a, b))
    return sums._replace(max_abs=max(a.max_abs, b.max_abs))  # The only field that is not a sum.


def _of_gap(elements: int, gap: Gap) -> Difference:
    if not gap.changed:
        return Difference(elements)
    norms = sqrt(gap.of_one) * sqrt(gap.of_other)
    cosine = max(-1.0, min(1.0, gap.dot / norms)) if 0 < norms < inf and isfinite(gap.dot) else nan
    return Difference(elements, gap.changed, gap.beyond, gap.max_abs, sqrt(gap.squares), cosine)


class Gaps:
    """The gaps between pairs of blocks, and the buffers that blocks go through.

    Args:
        largest: the largest of the blocks.
        rtol: see `difference`.
        atol: the same.
    """

    def __init__(self, largest: "np.ndarray[Any, Any]", rtol: float, atol: float) -> None:
        import numpy as np

        self._rtol, self._atol = rtol, atol
        self._compiled = compiled.float32 if largest.dtype == np.float32 else None
        self._buffers = np.empty((2, 2 * largest.size), np.float64)  # Complex numbers take two.
        self._is_same = np.empty(largest.size, np.bool_)

    def between(self, one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> Gap:
        """The gap between two blocks, which have one dimension and the dtype of the largest."""
        import numpy as np

        if self._compiled:
            aligned = (np.require(block, requirements=["C", "A"]) for block in (one, other))
            return Gap(*self._compiled.compare(*aligned, self._rtol, self._atol))
        # A complex number is taken as the two that it is made of.
        x, y = self._buffers[:, : one.view(one.real.dtype).size]
        np.copyto(x, one.view(one.real.dtype))
        np.copyto(y, other.view(one.real.dtype))
        with np.errstate(all="ignore"):
            norms = (_dot(x, y), _dot(x, x), _dot(y, y))
            same = np.equal(one, other, out=self._is_same[: one.size])
            if same.all():
                return Gap(0, 0, 0.0, 0.0, *norms)
            apart = _distances(one, other, np.subtract(x, y, out=x))
            if not isfinite(apart.max()):
                same |= _both_nan(one, other)
                apart[np.isnan(apart)] = inf
                apart[same] = 0
            changed = same.size - int(np.count_nonzero(same))
            squares = _dot(apart, apart)
            if self._rtol or self._atol:
                same |= np.isfinite(apart) & (apart <= self._atol + self._rtol * _magnitudes(y, one.dtype))
            beyond = same.size - int(np.count_nonzero(same))
            return Gap(changed, beyond, float(apart.max()), squares, *norms)


def _dot(x: "np.ndarray[Any, Any]", y: "np.ndarray[Any, Any]") -> float:
    """The dot product, row by row: BLAS starts threads of its own for longer ones, and would sum them less exactly."""
    import numpy as np

    whole = x.size - x.size % _ROW
    rows = np.matmul(x[:whole].reshape(-1, 1, _ROW), y[:whole].reshape(-1, _ROW, 1))
    return float(rows.sum() + np.dot(x[whole:], y[whole:]))


def _distances(
    one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]", differences: "np.ndarray[Any, Any]"
) -> "np.ndarray[Any, Any]":
    """The distances between the numbers, in float64, given the differences of their (real and imaginary) parts."""
    import numpy as np

    if one.dtype.kind in "iu" and one.dtype.itemsize == 8:  # Different ones may be equal as float64.
        x, y = one.view(np.uint64), other.view(np.uint64)
        np.copyto(differences, np.where(one > other, x - y, y - x))
        return differences
    return _magnitudes(differences, one.dtype)


def _both_nan(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Where both numbers are NaN; of complex ones, where each part is the same in both, or NaN in both."""
    import numpy as np

    both: np.ndarray[Any, Any] = np.isnan(one) & np.isnan(other)
    if one.dtype.kind == "c":
        for a, b in ((one.real, other.real), (one.imag, other.imag)):
            both &= (a == b) | (np.isnan(a) & np.isnan(b))
    return both


def _magnitudes(parts: "np.ndarray[Any, Any]", dtype: "np.dtype[Any]") -> "np.ndarray[Any, Any]":
    """The absolute values of numbers of a dtype, given their parts, which are overwritten."""
    import numpy as np

    if dtype.kind == "c":
        magnitudes: np.ndarray[Any, Any] = np.hypot(parts[::2], parts[1::2])
        return magnitudes
    np.abs(parts, out=parts)
    return parts
