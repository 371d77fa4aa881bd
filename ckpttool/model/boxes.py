"""Boxes within an array: a start and an extent for each dimension; what partitioned variables are made of.

A box is contiguous if its elements stand one after another in the array's row-major order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, product
from math import prod
from operator import mul

from ckpttool.errors import NotSupportedError

Selection = tuple[slice, ...]
"""A box as NumPy is asked for it: a slice with start and stop for each dimension."""

Extents = tuple[tuple[int, int], ...]
"""A box as it is stored: for each dimension (start, length), length -1 for the whole of it."""

MAX_RANK = 254
"""Dimensions that TensorFlow's shapes have at most. (TensorShape::MaxDimensions in core/framework/tensor_shape.h)"""

# As many corners take a second to count.
_MAX_CORNERS = 1 << 18


def selection(start: Sequence[int], shape: Sequence[int]) -> Selection:
    return tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))


def shape_of(box: Selection) -> tuple[int, ...]:
    return tuple(s.stop - s.start for s in box)


def intersection(box: Selection, other: Selection) -> Selection | None:
    """What two boxes share; None if that is nothing."""
    shared = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, other, strict=True))
    return shared if all(s.start < s.stop for s in shared) else None


def within(box: Selection, outer: Selection) -> Selection:
    """A box inside another one, counted from the other's start."""
    return tuple(slice(b.start - o.start, b.stop - o.start) for b, o in zip(box, outer, strict=True))


def lacking(shape: tuple[int, ...], extents: Iterable[tuple[int, ...]]) -> str:
    """What is said where boxes of these extents have fewer elements than an array of `shape`; else ""."""
    there, wanted = sum(map(prod, extents)), prod(shape)
    return f"does not have sufficient slices: {there:,} of {wanted:,} elements" if there < wanted else ""


def tiling_fault(
    shape: tuple[int, ...], boxes: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], *, partly: bool = False
) -> str | None:
    """What keeps boxes (start, shape) from covering an array of `shape` once and only once; None if nothing.

    With `partly`, boxes of fewer elements than the array has are no fault: part of it is there.

    Every box adds +1 or -1 at each of its corners, by the number of far sides that meet there. Two sets of boxes
    cover the same elements the same number of times exactly if these sums agree at every point: one pass,
    however many boxes there are. Dimensions in which every box spans the array cancel out, and are left alone.

    Raises:
        NotSupportedError: so many dimensions are cut that the corners can't be counted.
    """
    for start, extent in boxes:
        if len(start) != len(shape) or any(
            s < 0 or n < 0 or s + n > d for s, n, d in zip(start, extent, shape, strict=True)
        ):
            return f"slice {list(start)} + {list(extent)} is outside the shape {list(shape)}"
    if too_few := lacking(shape, (extent for _, extent in boxes)):
        return None if partly else too_few
    there, wanted = sum(prod(extent) for _, extent in boxes), prod(shape)
    if there > wanted:
        return f"overlapping slices: {there:,} elements for {wanted:,}"
    if not wanted:
        return None
    cut = [d for d in range(len(shape)) if any(extent[d] != shape[d] for _, extent in boxes)]
    if len(boxes) << len(cut) > _MAX_CORNERS:
        raise NotSupportedError(f"{len(boxes)} slices along {len(cut)} dimensions")
    corners: Counter[tuple[int, ...]] = Counter()
    for sign, start, extent in [(-1, (0,) * len(shape), shape), *((1, *box) for box in boxes)]:
        for far in product((0, 1), repeat=len(cut)):
            corners[tuple(start[d] + f * extent[d] for d, f in zip(cut, far, strict=True))] += sign * (-1) ** sum(far)
    return "overlapping slices, and as many elements missing" if any(corners.values()) else None


def subdivide(start: tuple[int, ...], shape: tuple[int, ...], limit: int) -> Iterator[Selection]:
    """Cuts the box into boxes of at most `limit` elements, in row-major order, each a contiguous run of it."""
    if not prod(shape):
        return
    axis = next((d for d in range(len(shape)) if prod(shape[d + 1 :]) <= limit), len(shape))
    if axis == len(shape):  # A scalar.
        yield tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        return
    rows = max(1, limit // prod(shape[axis + 1 :]))
    inner = [slice(s, s + n) for s, n in zip(start[axis + 1 :], shape[axis + 1 :], strict=True)]
    for outer in product(*(range(s, s + n) for s, n in zip(start[:axis], shape[:axis], strict=True))):
        first, end = start[axis], start[axis] + shape[axis]
        for row in range(first, end, rows):
            yield (*(slice(i, i + 1) for i in outer), slice(row, min(row + rows, end)), *inner)


def is_too_large(shape: Iterable[int]) -> bool:
    """Whether TensorFlow can't count the elements of a shape: not those before a 0 either.

    (tensorflow/core/framework/tensor_shape.cc: TensorShapeBase::AddDimWithStatus)
    """
    return any(elements >> 63 for elements in accumulate(shape, mul))


def is_size(text: str) -> bool:
    """Whether a text is a number that a dimension's size can be: of no more than 19 digits."""
    return len(text) < 20 and text.isascii() and text.isdecimal()
