"""What running graphs gave, as reports: values, their differences, and how long it took."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.analysis.graphs.fetches import Fetch
from ckpttool.reports.report import Column, Report

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PERCENTILES = (50, 90, 99)


class Result(NamedTuple):
    """What a model gave: the model's path, and for each fetch its array."""

    model: str
    arrays: "Mapping[Fetch, Array]"


def outputs(results: Sequence[Result], most: int | None = None) -> Report:
    """Every value; of an array with more than `most` values, the first ones."""
    columns = [Column("model", default=results[0].model), Column("fetch"), Column("tensor"), Column("dtype")]
    columns += [Column("shape", "shape"), Column("value", "any")]
    rows = [
        (result.model, fetch.label, fetch.tensor, _dtype_name(array), array.shape, _shown(array, most))
        for result in results
        for fetch, array in result.arrays.items()
    ]
    return Report("outputs", "Outputs", columns, rows)


def _dtype_name(array: "Array") -> str:
    return "string" if array.dtype.kind in "OS" else array.dtype.name


def _shown(array: "Array", most: int | None) -> Any:
    if most is None or array.size <= most:
        return values(array)
    return [*values(array.ravel()[:most]), f"… {array.size - most:,} more (--all)"]


def values(array: "Array") -> Any:
    """An array as nested lists: numbers by their shortest text, strings of UTF-8 as such, other bytes as bytes,
    complex numbers as text.
    """
    import numpy as np

    if array.dtype.kind in "OS":
        texts = np.empty(array.size, object)
        texts[:] = [_text(value) for value in array.ravel()]
        return texts.reshape(array.shape).tolist()
    if array.dtype.kind == "c":
        return array.astype("U64").tolist()
    if array.dtype.kind in "biu":
        return array.tolist()
    if array.dtype.name in ("float64", "float32", "float16"):
        # A float32 of 0.1 is 0.1, and not 0.10000000149011612.
        return array.astype("U32").astype(np.float64).tolist()
    # The small types of ml_dtypes: each is exact as one of these.
    return array.astype(np.int32 if "int" in array.dtype.name else np.float32).tolist()


def _text(value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


class Difference(NamedTuple):
    """How far an output of one model is from the first model's; `most` is None where they can't be subtracted."""

    model: str
    fetch: str
    most: float | None
    where: tuple[int, ...] | str
    reason: str

    def exceeds(self, tolerance: float) -> bool:
        return self.most is None or not self.most <= tolerance


def differences(results: Sequence[Result]) -> list[Difference]:
    """Each output of each further model, compared with the first model's of that name; with one output each, whatever
    the names.
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
                found.append(Difference(other.model, label, *_difference(ours[label], theirs[label])))
            else:
                found.append(Difference(other.model, label, None, "", "only one of them has it"))
    return found


def _difference(a: "Array", b: "Array") -> tuple[float | None, tuple[int, ...] | str, str]:
    import numpy as np

    if a.shape != b.shape:
        return None, "", f"shapes {list(a.shape)} and {list(b.shape)}"
    if _dtype_name(a) != _dtype_name(b):
        return None, "", f"dtypes {_dtype_name(a)} and {_dtype_name(b)}"
    if not a.size:
        return 0.0, "", "none"
    if a.dtype.kind in "OSb":
        unequal = np.asarray(a != b)
        where = tuple(int(i) for i in np.argwhere(unequal)[0]) if unequal.any() else ""
        return (None if unequal.any() else 0.0), where, _count(unequal)
    if a.dtype.kind in "iu":  # What wraps around is right as a number without a sign.
        unequal, apart = np.asarray(a != b), np.where(a > b, a - b, b - a).view(f"u{a.itemsize}")
    else:
        wide, other = (each.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for each in (a, b))
        with np.errstate(all="ignore"):
            apart = np.abs(wide - other)
        unequal = np.asarray(wide != other) & ~(np.isnan(wide) & np.isnan(other))
        # A NaN or an infinity on one side only is as far as can be.
        apart = np.where(unequal, np.where(np.isnan(apart), np.inf, apart), 0)
    place = int(np.argmax(apart))
    where = tuple(int(i) for i in np.unravel_index(place, a.shape)) if unequal.any() else ""
    return float(apart.ravel()[place]), where, _count(unequal)


def _count(unequal: "Array") -> str:
    import numpy as np

    count = int(np.count_nonzero(unequal))
    return f"{count:,} of {unequal.size:,}" if count else "none"


def comparison(found: Sequence[Difference], tolerance: float) -> Report:
    """The differences, and which are more than is tolerated."""
    columns = [Column("model"), Column("fetch"), Column("max difference", default=""), Column("at", "shape", "")]
    columns += [Column("different values"), Column("within tolerance", "any")]
    rows = [
        (each.model, each.fetch, _number(each.most), each.where, each.reason, not each.exceeds(tolerance))
        for each in found
    ]
    return Report("comparison", "Differences from the first model", columns, rows)


def _number(most: float | None) -> float | str:
    """JSON has no infinity."""
    return "" if most is None else most if isfinite(most) else str(most)


def latency(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds of a run: the least, percentiles, the most, the mean.

    A percentile is the least time that so many of a hundred runs did not exceed.
    """
    ordered = sorted(second * 1000 for second in seconds)
    ranks = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in _PERCENTILES}
    facts = {"min": ordered[0], **ranks, "max": ordered[-1], "mean": sum(ordered) / len(ordered)}
    return {name: round(value, 4) for name, value in facts.items()}
