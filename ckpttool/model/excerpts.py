"""Parts of a variable's values: a slice as Python has them, or as much as one cares to look at.

The whole variable is read either way, for only the whole has a checksum; but no more than the part is kept.
"""

import re
from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.model.checkpoint import Variable

if TYPE_CHECKING:
    import numpy as np

_MOST = 100
"""A variable of more elements is shown by its edges."""

_EDGE = 3
_INDEX = re.compile(r"\s*(-?\d+)?\s*(?:(:)\s*(-?\d+)?\s*(?::\s*(-?\d+)?\s*)?)?")


def parse_slice(text: str, shape: Sequence[int]) -> list[range | int]:
    """For each dimension what a slice such as `0:2,:,-1` takes of it: a range, or an index, which drops it.

    Raises:
        ValueError: it is no such slice, or not one of this shape.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if parts.count("...") == 1:
        place = parts.index("...")
        parts[place : place + 1] = [":"] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        raise ValueError(f"{text!r} has {len(parts)} indices, the shape {list(shape)} has {len(shape)} dimensions")
    parts += [":"] * (len(shape) - len(parts))
    return [_taken(part, size) for part, size in zip(parts, shape, strict=True)]


def _taken(part: str, size: int) -> range | int:
    match = _INDEX.fullmatch(part)
    if not match or not part:
        raise ValueError(f"{part!r} is no index: N, START:STOP, START:STOP:STEP or :")
    start, colon, stop, step = match.groups()
    if not colon:
        index = int(start)
        if not -size <= index < size:
            raise ValueError(f"the index {index} is not within {size}")
        return index % size
    if step is not None and int(step) < 1:
        raise ValueError(f"the step in {part!r} must be 1 or more")
    return range(size)[slice(*(None if number is None else int(number) for number in (start, stop, step)))]


def sliced(
    variable: Variable, taken: Sequence[range | int], progress: Callable[[int], None] = lambda nbytes: None
) -> "np.ndarray[Any, Any]":
    """The values that a slice takes, with one dimension for each range.

    Args:
        variable: whose values.
        taken: for each dimension a range with a positive step, or an index.
        progress: is told the bytes of each block that is read.

    Raises:
        CorruptionError: values are missing or damaged, whether they are taken or not.
        NotSupportedError: values of this dtype can't be decoded.
    """
    values = at(variable, [range(t, t + 1) if isinstance(t, int) else t for t in taken], progress)
    return values.reshape([len(t) for t in taken if isinstance(t, range)])


def at(
    variable: Variable, wanted: Sequence[Sequence[int]], progress: Callable[[int], None] = lambda nbytes: None
) -> "np.ndarray[Any, Any]":
    """The values at some indices of each dimension, which are in order; as `sliced`."""
    import numpy as np

    indices = [np.asarray(numbers, np.intp) for numbers in wanted]
    result: np.ndarray[Any, Any] | None = None
    for box, block in variable.blocks():
        places = [_places(numbers, part) for numbers, part in zip(indices, box, strict=True)]
        if result is None:  # Only now is it known that there is a file with that many values.
            result = np.empty([len(numbers) for numbers in indices], variable.dtype.numpy)
        if all(place.start < place.stop for place in places):
            inner = [n[place] - part.start for n, place, part in zip(indices, places, box, strict=True)]
            result[tuple(places)] = block[np.ix_(*inner)] if inner else block
        progress(block.nbytes)
    return np.empty([len(n) for n in indices], variable.dtype.numpy) if result is None else result


def edges(shape: Sequence[int]) -> list[list[int]]:
    """For each dimension the indices to show of an array: all of a small one, of a large one the first and last few."""
    if prod(shape) <= _MOST:
        return [list(range(size)) for size in shape]
    for edge in range(_EDGE, 0, -1):
        shown = [[*range(edge), *range(size - edge, size)] if size > 2 * edge else list(range(size)) for size in shape]
        if prod(map(len, shown)) <= _MOST:
            return shown
    return [list(range(min(size, 1))) for size in shape]


def _places(numbers: "np.ndarray[Any, Any]", part: slice) -> slice:
    """Which of the indices lie in a part of the dimension."""
    import numpy as np

    start, stop = np.searchsorted(numbers, [part.start, part.stop])
    return slice(int(start), int(stop))
