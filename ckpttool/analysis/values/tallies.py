"""The tally of a block of numbers: how many are NaN, zero, …, their range, mean and spread, and counts in bins.

NumPy takes a pass for each of these, through buffers that all blocks of a variable share. For float32, a compiled pass
does all at once, where there is one, without the buffers.
"""

from math import inf, isfinite, isinf
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.analysis.values import compiled

if TYPE_CHECKING:
    import numpy as np

_FRACTION_BITS = 7


class Tally(NamedTuple):
    """Counts and moments of some numbers, which can be merged with those of others.

    Attributes:
        nans: how many are not a number.
        infinities: how many are infinite.
        zeros: how many are zero.
        finite: how many are finite; all that follows is of these.
        minimum: the smallest; infinity if there is none.
        maximum: the largest; minus infinity if there is none.
        mean: their mean, in float64.
        squares: the sum of the squares of their distances from the mean.
    """

    nans: int = 0
    infinities: int = 0
    zeros: int = 0
    finite: int = 0
    minimum: float = inf
    maximum: float = -inf
    mean: float = 0.0
    squares: float = 0.0


def merged(a: Tally, b: Tally) -> Tally:
    """The tally of both together.

    (Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979)
    """
    finite = a.finite + b.finite
    mean, squares = a.mean, a.squares
    if b.finite:
        apart = b.mean - a.mean
        # Two float64 means may be further apart than any float64.
        if isinf(apart):
            mean = a.mean * (a.finite / finite) + b.mean * (b.finite / finite)
        else:
            mean += apart * (b.finite / finite)
        squares += b.squares + apart * (a.finite / finite) * apart * b.finite
    counts = (a.nans + b.nans, a.infinities + b.infinities, a.zeros + b.zeros, finite)
    return Tally(*counts, min(a.minimum, b.minimum), max(a.maximum, b.maximum), mean, squares)


class Tallies:
    """Tallies the blocks of a variable, and counts their numbers by sign, exponent and upper bits of the fraction.

    Args:
        largest: the largest of the blocks. Integers are counted as float32.
    """

    def __init__(self, largest: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._float: Any = np.float64 if largest.dtype == np.float64 else np.float32
        self._bits: Any = np.uint64 if largest.dtype == np.float64 else np.uint32
        self._shift = np.finfo(self._float).nmant - _FRACTION_BITS
        self._counts = np.zeros(1 << np.finfo(self._float).bits - self._shift, np.int64)
        self._compiled = compiled.float32 if largest.dtype == np.float32 else None
        self._wide, self._is_zero = np.empty(largest.size, np.float64), np.empty(largest.size, np.bool_)
        self._places = np.empty(largest.size, np.intp)

    def take(self, block: "np.ndarray[Any, Any]") -> Tally:
        """The tally of a block, which has one dimension and the largest's dtype; the bins count its numbers too."""
        import numpy as np

        if self._compiled:
            return Tally(*self._compiled.tally(np.require(block, requirements=["C", "A"]), self._counts))
        low, high = block.min().item(), block.max().item()
        nans = infinities = 0
        if not (isfinite(low) and isfinite(high)):
            finite = block[np.isfinite(block)]
            nans = int(np.count_nonzero(np.isnan(block)))
            infinities = block.size - finite.size - nans
            if not finite.size:
                return Tally(nans, infinities)
            block, low, high = finite, finite.min().item(), finite.max().item()
        zeros = int(np.count_nonzero(np.equal(block, 0, out=self._is_zero[: block.size])))
        self._count(block)
        return Tally(nans, infinities, zeros, block.size, low, high, *self._moments(block))

    def _count(self, block: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        places = self._places[: block.size]
        bits = block.astype(self._float, copy=False).view(self._bits)
        np.right_shift(bits, self._shift, out=places, casting="unsafe")
        np.add.at(self._counts, places, 1)

    def _moments(self, block: "np.ndarray[Any, Any]") -> tuple[float, float]:
        """The mean, and the sum of the squared distances from it."""
        import numpy as np

        wide = self._wide[: block.size]
        np.copyto(wide, block)
        with np.errstate(over="ignore"):
            mean = float(wide.mean())
            if not isfinite(mean):
                mean = float(np.divide(wide, wide.size).sum())
            wide -= mean
            return mean, float(np.square(wide, out=wide).sum())

    def bins(self) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
        """The values and the counts of the bins that are not empty, from the smallest value to the largest.

        The value of a bin is its end nearer to zero, where the bits that were left out are zeros.
        """
        import numpy as np

        bins = np.flatnonzero(self._counts != 0)  # On booleans, this is ten times as fast.
        values = (bins.astype(self._bits) << self._shift).view(self._float).astype(np.float64)
        order = np.argsort(values, kind="stable")
        return values[order], self._counts[bins[order]]
