"""What there is to say of a variable's values: their range, mean, spread, quantiles; NaN, infinities, zeros.

One pass over the values, in blocks that stay in the processor's cache, through buffers that all blocks of a variable
share. Each number is counted in the bin of its sign, its exponent and the upper 7 bits of its fraction (a bfloat16 has
just these), so that quantiles are right to 1/128 of their size, and exact where all values are bfloat16s or small
integers. Means and sums of squares are float64, merged block by block.

(Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979)
"""

from collections.abc import Callable
from math import inf, isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.model.checkpoint import Variable

if TYPE_CHECKING:
    import numpy as np

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
"""The shares of the finite values that are not above the quantiles."""

HISTOGRAM_BINS = 16
"""Bins of the histogram, all of the same width, from the smallest value to the largest."""

_ELEMENTS = 1 << 18
"""Of a block: enough that its own cost vanishes, few enough for the processor's caches."""

_FRACTION_BITS = 7


class Statistics(NamedTuple):
    """Of a variable's values. Complex numbers are taken by their magnitudes; of strings only `elements` is known.

    Attributes:
        elements: how many there are.
        nans: how many are not a number.
        infinities: how many are infinite.
        zeros: how many are zero.
        minimum: the smallest of the finite ones; NaN if there is none, as all that follows.
        maximum: the largest of them.
        mean: their mean, in float64.
        deviation: their standard deviation (that of the population); infinite where float64 can't hold its square.
        quantiles: for each of QUANTILES the smallest value that so many are not above; to 1/128 of its size, or of
            the smallest normal number.
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
    sums = None
    for _, block in variable.blocks(_ELEMENTS * variable.dtype.itemsize):
        real = _real(block).reshape(-1)
        sums = sums or _Sums(real)  # The first block is the largest.
        sums.add(real)
        progress(block.nbytes)
    return sums.statistics() if sums else Statistics(0)


def _real(block: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The block in a type that NumPy reckons with: narrow floats as float32, narrow integers as int8, of complex
    numbers the magnitudes.
    """
    import numpy as np

    if block.dtype.kind == "c":
        magnitudes: np.ndarray[Any, Any] = np.abs(block)
        return magnitudes
    if block.dtype.kind == "b":
        return block.view(np.uint8)
    if block.dtype.isbuiltin == 1 and block.dtype != np.float16:
        return block
    # float16 and those of ml_dtypes, in which nothing is quick.
    return block.astype(np.int8 if "int" in block.dtype.name else np.float32)


class _Sums:
    """The sums over the blocks so far, and the buffers that blocks go through.

    Args:
        largest: a block than which none is larger.
    """

    def __init__(self, largest: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._bins = _Bins(largest)
        self._wide, self._is_zero = np.empty(largest.size, np.float64), np.empty(largest.size, np.bool_)
        self._elements = self._nans = self._infinities = self._zeros = self._finite = 0
        self._mean = self._squares = 0.0
        self._minimum, self._maximum = inf, -inf

    def add(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._elements += block.size
        low, high = block.min().item(), block.max().item()
        if not (isfinite(low) and isfinite(high)):
            finite = block[np.isfinite(block)]
            nans = int(np.count_nonzero(np.isnan(block)))
            self._nans += nans
            self._infinities += block.size - finite.size - nans
            if not finite.size:
                return
            block, low, high = finite, finite.min().item(), finite.max().item()
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
        self._zeros += int(np.count_nonzero(np.equal(block, 0, out=self._is_zero[: block.size])))
        self._bins.add(block)
        self._add_moments(block)

    def _add_moments(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        wide = self._wide[: block.size]
        np.copyto(wide, block)
        with np.errstate(over="ignore"):
            mean = float(wide.mean())
            if not isfinite(mean):
                mean = float(np.divide(wide, wide.size).sum())
            wide -= mean
            self._merge(block.size, mean, float(np.square(wide, out=wide).sum()))

    def _merge(self, size: int, mean: float, squares: float) -> None:
        total = self._finite + size
        apart = mean - self._mean
        self._mean += apart * (size / total)
        self._squares += squares + apart * (self._finite / total) * apart * size
        self._finite = total

    def statistics(self) -> Statistics:
        counts = (self._elements, self._nans, self._infinities, self._zeros)
        if not self._finite:
            return Statistics(*counts)
        deviation = sqrt(self._squares / self._finite)
        spread = (self._minimum, self._maximum, self._mean, deviation)
        values, numbers = self._bins.filled()
        return Statistics(*counts, *spread, self._quantiles(values, numbers), self._histogram(values, numbers))

    def _quantiles(self, values: "np.ndarray[Any, Any]", numbers: "np.ndarray[Any, Any]") -> tuple[float, ...]:
        """For each share the value of the bin up to which so many lie."""
        places = numbers.cumsum().searchsorted([share * self._finite for share in QUANTILES])
        return tuple(values[places].clip(float(self._minimum), float(self._maximum)).tolist())

    def _histogram(self, values: "np.ndarray[Any, Any]", numbers: "np.ndarray[Any, Any]") -> tuple[int, ...]:
        import numpy as np

        width = self._maximum / HISTOGRAM_BINS - self._minimum / HISTOGRAM_BINS  # Their difference may be infinite.
        if not width > 0:
            return ()
        places = (values / width - self._minimum / width).clip(0, HISTOGRAM_BINS - 1).astype(np.intp)
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        np.add.at(counts, places, numbers)
        return tuple(counts.tolist())


class _Bins:
    """How many numbers have the same sign, exponent and upper bits of the fraction.

    Args:
        largest: a block than which none is larger. Integers are counted as float32.
    """

    def __init__(self, largest: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._float: Any = np.float64 if largest.dtype == np.float64 else np.float32
        self._bits: Any = np.uint64 if largest.dtype == np.float64 else np.uint32
        self._shift = np.finfo(self._float).nmant - _FRACTION_BITS
        self._counts = np.zeros(1 << np.finfo(self._float).bits - self._shift, np.int64)
        self._places = np.empty(largest.size, np.intp)

    def add(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        places = self._places[: block.size]
        bits = block.astype(self._float, copy=False).view(self._bits)
        np.right_shift(bits, self._shift, out=places, casting="unsafe")
        np.add.at(self._counts, places, 1)

    def filled(self) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        """The bins that count something, from the smallest value to the largest: their values, and their counts.

        A bin's value is its end that is nearer to zero, which has zeros for the bits that were left out.
        """
        import numpy as np

        bins = np.flatnonzero(self._counts != 0)  # Of booleans it is ten times as fast.
        values = (bins.astype(self._bits) << self._shift).view(self._float).astype(np.float64)
        order = np.argsort(values, kind="stable")
        return values[order], self._counts[bins[order]]
