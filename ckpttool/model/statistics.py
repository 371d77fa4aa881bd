"""What there is to say of a variable's values: their range, mean, spread, quantiles; NaN, infinities, zeros.

One pass over the values in blocks. Each float is counted in the bin of its upper 16 bits, which are a bfloat16: so
quantiles are right to 1/128 of their size, and exact where all values are bfloat16s. Means are merged block by block
in float64.

(Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979)
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.model.checkpoint import Variable

if TYPE_CHECKING:
    import numpy as np

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
"""The shares of the finite values that lie below the quantiles."""

HISTOGRAM_BINS = 16
"""Bins of the histogram, all of the same width, from the smallest value to the largest."""

_BINS = 1 << 16


class Statistics(NamedTuple):
    """Of a variable's values. Complex numbers are taken by their magnitudes; of strings only `elements` is known.

    Attributes:
        elements: how many there are.
        nans: how many are not a number.
        infinities: how many are infinite.
        zeros: how many are zero.
        minimum: the smallest of the finite ones; NaN if there is none, as all that follows.
        maximum: the largest of them.
        mean: their mean.
        deviation: their standard deviation (that of the population).
        quantiles: for each of QUANTILES the value; to 1/128 of its size.
        histogram: numbers of finite values in HISTOGRAM_BINS bins; empty where all are the same.
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


def statistics_of(variable: Variable, progress: Callable[[int], None] = lambda nbytes: None) -> Statistics:
    """The statistics of a variable's values, read once, in blocks.

    Args:
        variable: whose values.
        progress: is told the bytes of each block.

    Raises:
        CorruptionError: values are missing or damaged.
        NotSupportedError: values of this dtype can't be decoded.
    """
    if variable.dtype.itemsize is None:
        elements = len(variable.strings())
        progress(variable.nbytes)
        return Statistics(elements)
    sums = _Sums()
    for _, block in variable.blocks():
        sums.add(_real(block).reshape(-1))
        progress(block.nbytes)
    return sums.statistics()


def _real(block: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The block in a type that NumPy reckons with: narrow floats as float32, integers as they are, of complex numbers
    the magnitudes.
    """
    import numpy as np

    if block.dtype.kind == "c":
        magnitudes: np.ndarray[Any, Any] = np.abs(block)
        return magnitudes
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    if block.dtype.isbuiltin != 1 or block.dtype == np.float16:  # Of ml_dtypes, in which nothing is quick.
        return block.astype(np.float32)
    return block


class _Sums:
    """The sums over the blocks so far."""

    def __init__(self) -> None:
        import numpy as np

        self._bins = np.zeros(_BINS, np.int64)
        self._elements = self._nans = self._infinities = self._zeros = self._finite = 0
        self._mean = self._squares = 0.0
        self._minimum, self._maximum = float("inf"), float("-inf")

    def add(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._elements += block.size
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            if not finite.all():
                nans = int(np.count_nonzero(np.isnan(block)))
                self._nans += nans
                block = block[finite]
                self._infinities += finite.size - block.size - nans
        if block.size:
            self._add_finite(block)

    def _add_finite(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._minimum = min(self._minimum, block.min().item())
        self._maximum = max(self._maximum, block.max().item())
        self._zeros += block.size - int(np.count_nonzero(block))
        with np.errstate(over="ignore"):  # What is too large for float32 is in the last bins.
            bits = block.astype(np.float32, copy=False).view(np.uint32)
        self._bins += np.bincount((bits >> 16).view(np.int32), minlength=_BINS)
        wide = block.astype(np.float64)
        mean = float(wide.mean())
        wide -= mean
        np.square(wide, out=wide)
        self._merge(block.size, mean, float(wide.sum()))

    def _merge(self, size: int, mean: float, squares: float) -> None:
        total = self._finite + size
        apart = mean - self._mean
        self._mean += apart * size / total
        self._squares += squares + apart * apart * self._finite / total * size
        self._finite = total

    def statistics(self) -> Statistics:
        counts = (self._elements, self._nans, self._infinities, self._zeros)
        if not self._finite:
            return Statistics(*counts)
        deviation = sqrt(self._squares / self._finite)
        spread = (self._minimum, self._maximum, self._mean, deviation)
        values, numbers = self._filled_bins()
        return Statistics(*counts, *spread, self._quantiles(values, numbers), self._histogram(values, numbers))

    def _filled_bins(self) -> tuple[list[float], list[int]]:
        """The bins that count something, from the smallest value to the largest: their values, and their counts."""
        import numpy as np

        bins = np.flatnonzero(self._bins)
        # The end of the bin that is nearer to zero: a bfloat16, exact for what is one.
        values = (bins.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        order = np.argsort(values, kind="stable")
        return values[order].tolist(), self._bins[bins][order].tolist()

    def _quantiles(self, values: Sequence[float], numbers: Sequence[int]) -> tuple[float, ...]:
        """For each share the value of the bin in which so many lie below."""
        below = list(accumulate(numbers))
        places = (bisect_right(below, min(share * self._finite, self._finite - 1)) for share in QUANTILES)
        return tuple(min(max(values[place], self._minimum), self._maximum) for place in places)

    def _histogram(self, values: Sequence[float], numbers: Sequence[int]) -> tuple[int, ...]:
        width = (self._maximum - self._minimum) / HISTOGRAM_BINS
        if not 0 < width < float("inf"):
            return ()
        counts = [0] * HISTOGRAM_BINS
        for value, number in zip(values, numbers, strict=True):
            place = int((min(max(value, self._minimum), self._maximum) - self._minimum) / width)
            counts[min(place, HISTOGRAM_BINS - 1)] += number
        return tuple(counts)
