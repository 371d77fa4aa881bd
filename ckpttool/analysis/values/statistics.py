"""Statistics of a variable's values: their range, mean, spread, quantiles; NaN, infinities, zeros.

One pass over the values, in blocks that stay in the processor's cache. Each number is counted in the bin of its sign,
its exponent and the upper 7 bits of its fraction (a bfloat16 has just these), so that quantiles are right to 1/128 of
their size, and exact where all values are bfloat16s or small integers. Means and sums of squares are float64, merged
block by block.
"""

from collections.abc import Callable
from math import inf, isinf, nan, sqrt
from sys import float_info
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.analysis.values.tallies import Tallies, Tally, merged
from ckpttool.errors import CheckpointError
from ckpttool.model.variable import Variable, require_variable

if TYPE_CHECKING:
    import numpy as np

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
"""For each quantile, the share of the finite values that are not above it."""

HISTOGRAM_BINS = 16
"""The number of bins of the histogram, which are equally wide from the smallest value to the largest."""

_ELEMENTS = 1 << 18
"""In a block: enough to hide the cost of a block, few enough for the processor's caches."""


# Sums of squares below this have lost digits.
_TINY_SQUARES = 2.0**-900


class Statistics(NamedTuple):
    """Statistics of a variable's values: of complex numbers' magnitudes; of strings, only `elements`.

    Attributes:
        elements: how many there are.
        nans: how many are not a number.
        infinities: how many are infinite.
        zeros: how many are zero.
        minimum: the smallest of the finite ones; NaN if there is none, as all that follows.
        maximum: the largest of them.
        mean: their mean, in float64.
        deviation: their standard deviation (that of the population).
        quantiles: the 1st, 25th, 50th, 75th and 99th percentile: each the smallest value that so many percent do not
            exceed, exact to 1/128 of its size or of the smallest normal number.
        histogram: how many finite values are in each of 16 bins of one width, from the minimum to the maximum; empty if
            all are the same.
    """

    elements: int
    nans: int = 0
    infinities: int = 0
    zeros: int = 0
    minimum: float = nan
    maximum: float = nan
    mean: float = nan
    deviation: float = nan
    quantiles: tuple[float, ...] = (nan,) * len(QUANTILES)
    histogram: tuple[int, ...] = ()


def statistics_of(variable: Variable, *, progress: Callable[[int], None] = lambda nbytes: None) -> Statistics:
    """The statistics of a variable's values, read in blocks: once, or twice where float64 can't hold their squares.

    Args:
        variable: whose values.
        progress: is called with the bytes of each block.

    Raises:
        CorruptionError: values are missing or damaged.
        NotSupportedError: values of this dtype can't be decoded.
    """
    require_variable(variable)
    if variable.dtype.itemsize is None:
        elements = len(variable.strings())
        progress(variable.nbytes)
        return Statistics(elements)
    tallies, whole = None, Tally()
    for _, block in variable.narrow().blocks(_ELEMENTS * variable.dtype.itemsize):
        real = _real(block).reshape(-1)
        tallies = tallies or Tallies(real)  # The first block is the largest.
        whole = merged(whole, tallies.take(real))
        progress(block.nbytes)
    counts = (variable.size, whole.nans, whole.infinities, whole.zeros)
    if not tallies or not whole.finite:
        return Statistics(*counts)
    spread = (whole.minimum, whole.maximum, whole.mean, _deviation(variable, whole))
    values, numbers = tallies.bins()
    return Statistics(*counts, *spread, _quantiles(whole, values, numbers), _histogram(whole, values, numbers))


def _deviation(variable: Variable, whole: Tally) -> float:
    if _TINY_SQUARES < whole.squares < inf or whole.minimum == whole.maximum:
        return sqrt(whole.squares / whole.finite)
    # Float64 can't hold the squares, but it can hold those of the numbers times a power of 2.
    scale = 2.0**-600 if isinf(whole.squares) else 2.0**600
    tallies, scaled = None, Tally()
    for _, block in variable.narrow().blocks():
        numbers = _real(block).reshape(-1) * scale  # Only float64 gets here.
        tallies = tallies or Tallies(numbers)
        scaled = merged(scaled, tallies.take(numbers))
    return min(sqrt(scaled.squares / scaled.finite) / scale, float_info.max)


def _real(block: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The block in a type that NumPy computes in: narrow floats as float32, narrow integers as int8, complex numbers as
    their magnitudes.
    """
    import numpy as np

    if block.dtype.kind == "c":
        with np.errstate(over="ignore"):
            magnitudes: np.ndarray[Any, Any] = np.abs(block.astype(np.complex128, copy=False))
        if np.isinf(magnitudes).any():  # That of a finite number must be finite.
            magnitudes[np.isinf(magnitudes) & np.isfinite(block)] = np.finfo(np.float64).max
        return magnitudes
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    # `isbuiltin` is 2 for the types of ml_dtypes, which are slow, as float16 is; for types with a byte order it is 0.
    if block.dtype.isbuiltin != 2 and block.dtype != np.float16:
        return block
    return block.astype(np.int8 if "int" in block.dtype.name else np.float32)


def _quantiles(whole: Tally, values: "np.ndarray[Any, Any]", numbers: "np.ndarray[Any, Any]") -> tuple[float, ...]:
    """For each share, the value of the bin with which that share of the values has been counted."""
    places = numbers.cumsum().searchsorted([share * whole.finite for share in QUANTILES])
    return tuple(values[places].clip(float(whole.minimum), float(whole.maximum)).tolist())


def _histogram(whole: Tally, values: "np.ndarray[Any, Any]", numbers: "np.ndarray[Any, Any]") -> tuple[int, ...]:
    import numpy as np

    width = whole.maximum / HISTOGRAM_BINS - whole.minimum / HISTOGRAM_BINS  # The range itself may be infinite.
    if not width > 0:
        return ()
    places = (values / width - whole.minimum / width).clip(0, HISTOGRAM_BINS - 1).astype(np.intp)
    counts = np.zeros(HISTOGRAM_BINS, np.int64)
    np.add.at(counts, places, numbers)
    return tuple(counts.tolist())


def count_not_finite(variable: Variable, progress: Callable[[int], None]) -> tuple[int, int]:
    """How many values are NaN and how many infinite; (0, 0) if they can't be decoded."""
    import numpy as np

    nans = infinities = 0
    try:
        for _, block in variable.narrow().blocks():
            if not np.isfinite(block).all():
                nans += int(np.count_nonzero(np.isnan(block)))
                infinities += int(np.count_nonzero(np.isinf(block)))
            progress(block.nbytes)
    except CheckpointError:  # Other checks report that.
        return 0, 0
    return nans, infinities
