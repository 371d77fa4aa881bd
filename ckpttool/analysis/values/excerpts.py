"""Parts of a variable's values: a slice as in Python, or as much as one may want to look at.

The whole variable is read either way, for only the whole has a checksum; but only the part is kept.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool.model.boxes import Selection
from ckpttool.model.names import counted
from ckpttool.model.slices import ByteRange, Slice, whole_slice
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np

_MOST = 100
"""The most elements of a variable that is shown whole; of a larger one, only the edges are shown."""

_EDGE = 3
_SHOWN = 40
_NUMBER = r"\s*(-?[0-9]{1,19})?\s*"
_INDEX = re.compile(f"{_NUMBER}(?:(:){_NUMBER}(?::{_NUMBER})?)?")


def parse_slice(text: str, shape: Sequence[int]) -> list[range | int]:
    """For each dimension what a slice such as `0:2,:,-1` takes of it: a range, or an index, which drops it.

    Raises:
        ValueError: it is not such a slice, or does not fit the shape.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if parts.count("...") == 1:
        place = parts.index("...")
        parts[place : place + 1] = [":"] * (len(shape) - len(parts) + 1)
    if len(parts) > len(shape):
        has = counted(len(shape), "dimension")
        there = "there is 1 index" if len(parts) == 1 else f"there are {len(parts)} indices"
        raise ValueError(f"{there}, and the shape {list(shape)} has {has}")
    parts += [":"] * (len(shape) - len(parts))
    return [_taken(part, size) for part, size in zip(parts, shape, strict=True)]


def _taken(part: str, size: int) -> range | int:
    match = _INDEX.fullmatch(part)
    if not match or not part:
        raise ValueError(f"{part[:_SHOWN]!r} is no index: N, START:STOP, START:STOP:STEP, : or, once, ...")
    start, colon, stop, step = match.groups()
    if not colon:
        index = int(start)
        if not -size <= index < size:
            raise ValueError(f"the index {index} is not within {size}")
        return index % size
    if step is not None and not int(step):
        raise ValueError(f"the step in {part!r} must not be 0")
    return range(size)[slice(*(None if number is None else int(number) for number in (start, stop, step)))]


def sliced(variable: Variable, taken: Sequence[range | int]) -> Variable:
    """The part of a variable that a slice takes, as a variable: one dimension for each range.

    Args:
        variable: whose values.
        taken: for each dimension a range, or an index.
    """
    shape = tuple(len(part) for part in taken if isinstance(part, range))
    wanted = [range(part, part + 1) if isinstance(part, int) else part for part in taken]
    return Variable(variable.name, variable.dtype, shape, _Part(variable, wanted))


class _Part(Source):
    """The source of a part: reads the whole and keeps the part, reversed where the slice goes backwards."""

    def __init__(self, variable: Variable, wanted: Sequence[range]) -> None:
        self._variable = variable
        self._wanted = [part if part.step > 0 else part[::-1] for part in wanted]
        self._turned: Any = (*(slice(None, None, 1 if part.step > 0 else -1) for part in wanted), ...)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        nbytes = variable.size * (variable.dtype.itemsize or 1)
        return [whole_slice(variable.shape, ByteRange("", 0, nbytes, None))]

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        values: Any = at(self._variable, self._wanted)[self._turned].reshape(variable.shape)
        return (values[(*box, ...)] for box in boxes)  # The ellipsis keeps a scalar an array.

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        return list(at(self._variable, self._wanted)[self._turned].ravel())


def at(variable: Variable, wanted: Sequence[Sequence[int]]) -> "np.ndarray[Any, Any]":
    """The values at these indices of each dimension; the indices are in ascending order.

    Raises:
        CorruptionError: values are missing or damaged, whether they are wanted or not.
        NotSupportedError: values of this dtype can't be decoded.
    """
    import numpy as np

    result: np.ndarray[Any, Any] | None = None
    for box, block in variable.blocks():
        places = [_places(indices, part) for indices, part in zip(wanted, box, strict=True)]
        if result is None:  # Not before a block was read: the file may not have so many values.
            result = np.empty([len(indices) for indices in wanted], variable.dtype.numpy)
        if all(place.start < place.stop for place in places):
            taken = [_inside(indices[place], part) for indices, place, part in zip(wanted, places, box, strict=True)]
            whole: Any = (*places, ...)  # Without the ellipsis, a scalar would get the array itself for its value.
            result[whole] = _picked(block, taken)
    return np.empty([len(indices) for indices in wanted], variable.dtype.numpy) if result is None else result


def _places(indices: Sequence[int], part: slice) -> slice:
    """Which of the indices lie in a part of the dimension."""
    return slice(bisect_left(indices, part.start), bisect_left(indices, part.stop))


def _inside(indices: Sequence[int], part: slice) -> slice | list[int]:
    """Indices of the dimension, as indices of a part of it."""
    if isinstance(indices, range):
        return slice(indices.start - part.start, indices.stop - part.start, indices.step)
    return [index - part.start for index in indices]


def _picked(block: "np.ndarray[Any, Any]", taken: Sequence[slice | list[int]]) -> "np.ndarray[Any, Any]":
    """The elements of a block at these indices of each dimension."""
    for axis, indices in enumerate(taken):
        block = block[(slice(None),) * axis + (indices,)]
    return block


def edges(shape: Sequence[int]) -> list[Sequence[int]]:
    """For each dimension the indices to show of an array: all of a small one, of a large one the first and last few."""
    shown: list[Sequence[int]] = [range(size) for size in shape]
    for edge in range(_EDGE, -1, -1):
        if prod(map(len, shown)) <= _MOST:
            break
        shown = [range(size) if size <= 2 * edge + 1 else _ends(size, edge) for size in shape]
    return shown


def _ends(size: int, edge: int) -> list[int]:
    """The first and last few indices; only the first if `edge` is 0."""
    return [*range(edge or 1), *range(size - edge, size)]
