"""Reports about runs of graphs: values, their differences, and how long they took."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from ckpttool.analysis.values.runs import OutputDifference, Result, dtype_name
from ckpttool.reports.report import Column, Report

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PERCENTILES = (50, 90, 99)


def outputs(results: Sequence[Result], most: int | None = None) -> Report:
    """Every value, or the first `most` of each array."""
    columns = [Column("model", default=results[0].model), Column("fetch"), Column("tensor"), Column("dtype")]
    columns += [Column("shape", "shape"), Column("value", "any")]
    rows = [
        (result.model, fetch.label, fetch.tensor, dtype_name(array), array.shape, _shown(array, most))
        for result in results
        for fetch, array in result.arrays.items()
    ]
    return Report("outputs", "Outputs", columns, rows)


def _shown(array: "Array", most: int | None) -> Any:
    if most is None or array.size <= most:
        return values(array)
    return [*values(array.ravel()[:most]), f"… {array.size - most:,} more (--all)"]


def values(array: "Array") -> Any:
    """An array as nested lists.

    Floats have their shortest text, and complex numbers are text. Strings of UTF-8 are text, others bytes.
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


def comparison(found: Sequence[OutputDifference], tolerance: float) -> Report:
    """The differences, and whether each is beyond the tolerance."""
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

    A percentile is the least time that so many percent of the runs did not exceed.
    """
    ordered = sorted(second * 1000 for second in seconds)
    ranks = {f"p{p}": ordered[max(0, -(-p * len(ordered) // 100) - 1)] for p in _PERCENTILES}
    facts = {"min": ordered[0], **ranks, "max": ordered[-1], "mean": sum(ordered) / len(ordered)}
    return {name: round(value, 4) for name, value in facts.items()}
