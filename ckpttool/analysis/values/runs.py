"""What running graphs gave, side by side: how far each output of a model is from the first model's."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.analysis.graphs.fetches import Fetch

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Result(NamedTuple):
    """What a model gave: the model's path, and for each fetch its array."""

    model: str
    arrays: "Mapping[Fetch, Array]"


def dtype_name(array: "Array") -> str:
    return "string" if array.dtype.kind in "OS" else array.dtype.name


class OutputDifference(NamedTuple):
    """How far an output of one model is from the first model's; `most` is None where they can't be subtracted."""

    model: str
    fetch: str
    most: float | None
    where: tuple[int, ...] | str
    reason: str

    def exceeds(self, tolerance: float) -> bool:
        return self.most is None or not self.most <= tolerance


def differences(results: Sequence[Result]) -> list[OutputDifference]:
    """Compares each further model's outputs with the first model's of the same name.

    If both models have a single output, its name does not matter.
    """
    first, *others = results
    ours = {fetch.label: array for fetch, array in first.arrays.items()}
    found = []
    for other in others:
        theirs = {fetch.label: array for fetch, array in other.arrays.items()}
        if len(ours) == len(theirs) == 1:
            theirs = dict(zip(ours, theirs.values(), strict=True))
        for label in dict.fromkeys([*ours, *theirs]):
            if label in ours and label in theirs:
                found.append(OutputDifference(other.model, label, *_difference(ours[label], theirs[label])))
            else:
                found.append(OutputDifference(other.model, label, None, "", "only one of them has it"))
    return found


def _difference(a: "Array", b: "Array") -> tuple[float | None, tuple[int, ...] | str, str]:
    import numpy as np

    if a.shape != b.shape:
        return None, "", f"shapes {list(a.shape)} and {list(b.shape)}"
    if dtype_name(a) != dtype_name(b):
        return None, "", f"dtypes {dtype_name(a)} and {dtype_name(b)}"
    if not a.size:
        return 0.0, "", "none"
    if a.dtype.kind in "OSb":
        unequal = np.asarray(a != b)
        where = tuple(int(i) for i in np.argwhere(unequal)[0]) if unequal.any() else ""
        return (None if unequal.any() else 0.0), where, _count(unequal)
    if a.dtype.kind in "iu":  # A difference that wraps around is right as an unsigned number.
        unequal, apart = np.asarray(a != b), np.where(a > b, a - b, b - a).view(f"u{a.itemsize}")
    else:
        wide, other = (each.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for each in (a, b))
        with np.errstate(all="ignore"):
            apart = np.abs(wide - other)
        unequal = np.asarray(wide != other) & ~(np.isnan(wide) & np.isnan(other))
        # A NaN or an infinity on just one side counts as infinitely far.
        apart = np.where(unequal, np.where(np.isnan(apart), np.inf, apart), 0)
    place = int(np.argmax(apart))
    where = tuple(int(i) for i in np.unravel_index(place, a.shape)) if unequal.any() else ""
    return float(apart.ravel()[place]), where, _count(unequal)


def _count(unequal: "Array") -> str:
    import numpy as np

    count = int(np.count_nonzero(unequal))
    return f"{count:,} of {unequal.size:,}" if count else "none"
