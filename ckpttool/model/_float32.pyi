"""Passes over arrays of float32, aligned and contiguous; a ValueError says of one that it is not."""

from typing_extensions import Buffer

def tally(values: Buffer, counts: Buffer, /) -> tuple[int, int, int, int, float, float, float, float]:
    """The fields of a `tallies.Tally`; adds to the 65,536 int64 `counts`, one for each value of the upper 16 bits."""

def compare(
    one: Buffer, other: Buffer, rtol: float, atol: float, /
) -> tuple[int, int, float, float, float, float, float]:
    """The fields of a `difference.Gap`."""
