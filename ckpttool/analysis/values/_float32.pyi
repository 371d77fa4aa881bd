"""Passes over arrays of float32: what is in a buffer is taken for that, and a ValueError says that it can't be.

It is to be contiguous and aligned.
"""

from typing_extensions import Buffer

def tally(values: Buffer, counts: Buffer, /) -> tuple[int, int, int, int, float, float, float, float]:
    """The fields of a `tallies.Tally`; adds to the 65,536 int64 `counts`, one for each value of the upper 16 bits."""

def compare(
    one: Buffer, other: Buffer, rtol: float, atol: float, /
) -> tuple[int, int, float, float, float, float, float]:
    """The fields of a `difference.Gap`."""
