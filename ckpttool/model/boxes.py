"""Boxes within an array, of which partitioned variables are made: a start and an extent for each dimension.

A box is contiguous if its elements stand one after another in the array's row-major order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, combinations, islice, product
from math import prod
from operator import mul

from ckpttool.errors import NotSupportedError

Selection = tuple[slice, ...]
"""A box as NumPy is asked for it: a slice with start and stop for each dimension."""

Extents = tuple[tuple[int, int], ...]
"""A box as it is stored: for each dimension (start, length), length -1 for the whole of it."""

MAX_RANK = 254
"""Dimensions that TensorFlow's shapes have at most. (TensorShape::MaxDimensions in core/framework/tensor_shape.h)"""

# A start, and a shape.
_Box = tuple[tuple[int, ...], tuple[int, ...]]

# So many corners take a second to count; so many starts of boxes, to sort; so many pairs of boxes, to compare.
_MAX_CORNERS, _MAX_COMPARED, _MAX_PAIRS = 1 << 18, 1 << 21, 1 << 18


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
    """What is missing, in words, if boxes of these extents have fewer elements than an array of `shape`; else ""."""
    there, wanted = sum(map(prod, extents)), prod(shape)
    return f"does not have sufficient slices: {there:,} of {wanted:,} elements" if there < wanted else ""


def tiling_fault(shape: tuple[int, ...], boxes: Sequence[_Box], *, partly: bool = False) -> str | None:
    """Why boxes (start, shape) do not cover an array of `shape` exactly once; None if they do.

    With `partly`, too few elements are no fault unless boxes overlap: only a part of the array is stored.

    Every box adds +1 or -1 at each of its corners, by the number of far sides that meet there. Two sets of boxes
    cover the same elements the same number of times exactly if these sums agree at every point: one pass,
    however many boxes there are. Dimensions in which every box spans the array cancel out, and are left alone.

    Raises:
        NotSupportedError: so many dimensions are cut that the corners can't be counted, or too many boxes can't be
            separated.
    """
    for start, extent in boxes:
        if len(start) != len(shape) or any(
            s < 0 or n < 0 or s + n > d for s, n, d in zip(start, extent, shape, strict=True)
        ):
            return f"slice {list(start)} + {list(extent)} is outside the shape {list(shape)}"
    if too_few := lacking(shape, (extent for _, extent in boxes)):
        if not partly:
            return too_few
        return "overlapping slices, and elements missing" if _overlap(boxes) else None
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


def _overlap(boxes: Sequence[_Box]) -> bool:
    """Whether any boxes share elements. They are separated wherever no box crosses some place of a dimension, and the
    parts again in any dimension: the boxes of an array that was cut up end up alone.

    Raises:
        NotSupportedError: too many of them can't be separated.
    """
    waiting, compared = [[box for box in boxes if prod(box[1])]], 0
    while waiting:
        together = waiting.pop()
        if len(together) < 2:
            continue
        rank = len(together[0][0])
        parts = next((parts for axis in range(rank) if len(parts := _parted(together, axis)) > 1), [])
        if not parts and any(_share(*pair) for pair in islice(combinations(together, 2), _MAX_PAIRS)):
            return True
        compared += rank * len(together)
        if compared > _MAX_COMPARED or (not parts and len(together) ** 2 > 2 * _MAX_PAIRS):
            raise NotSupportedError(f"{len(boxes)} slices along {rank} dimensions")
        waiting += parts
    return False


def _parted(boxes: Iterable[_Box], axis: int) -> list[list[_Box]]:
    """Groups of boxes: those that overlap in a dimension, be it by way of others, are together."""
    parts: list[list[_Box]] = []
    end = -1
    for box in sorted(boxes, key=lambda box: box[0][axis]):
        if box[0][axis] >= end:
            parts.append([])
        parts[-1].append(box)
        end = max(end, box[0][axis] + box[1][axis])
    return parts


def _share(box: _Box, other: _Box) -> bool:
    return intersection(selection(*box), selection(*other)) is not None


class NotFollowingError(ValueError):
    """Boxes do not follow one another: no reading of a file can be asked for them."""


def following(start: Sequence[int], shape: Sequence[int], boxes: Iterable[Selection]) -> Iterator[Selection]:
    """The boxes, as long as each is a contiguous run of the box (start, shape) that begins where the one before ended.

    Raises:
        NotFollowingError: one is not; or they end before it does.
    """
    done = 0
    for box in boxes:
        if len(box) != len(shape) or (run := _run(start, shape, box)) is None or run[0] != done:
            shown = ", ".join(f"{place.start}:{place.stop}" for place in box)
            before = f"{done:,} elements of {list(shape)} were before"
            raise NotFollowingError(f"the box [{shown}] does not follow: {before}")
        done += run[1]
        yield box
    if done != prod(shape):
        raise NotFollowingError(f"the boxes end after {done:,} elements of {list(shape)}")


def _run(start: Sequence[int], shape: Sequence[int], box: Selection) -> tuple[int, int] | None:
    """Where a contiguous run begins, in elements, and how many there are; None: the box is none, or not inside."""
    offset, size, is_cut = 0, 1, False
    for place, first, extent in zip(box, start, shape, strict=True):
        length = place.stop - place.start
        # Behind a dimension of which it takes several, it takes all of each.
        if not first <= place.start <= place.stop <= first + extent or (is_cut and length != extent):
            return None
        offset, size = offset * extent + place.start - first, size * length
        is_cut = is_cut or length != 1
    return offset, size


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
    """Whether TensorFlow can't count the elements of a shape, even of the dimensions before a 0.

    (tensorflow/core/framework/tensor_shape.cc: TensorShapeBase::AddDimWithStatus)
    """
    return any(elements >> 63 for elements in accumulate(shape, mul))


def is_size(text: str) -> bool:
    """Whether a text is a number of at most 19 digits, as the size of a dimension is."""
    return len(text) < 20 and text.isascii() and text.isdecimal()
