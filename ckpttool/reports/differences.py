"""What there is to say of two things side by side."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import isinf, isnan
from typing import Any

from ckpttool.model.checkpoint import Variable
from ckpttool.model.comparison import Comparison, Difference
from ckpttool.model.graph_comparison import OpChange
from ckpttool.reports.report import Column, Report

_SEARCHED = 2_000


def structure(a: Mapping[str, Variable], b: Mapping[str, Variable], found: Comparison) -> Report:
    """Variables that only one has, that were renamed, and those of another dtype or shape."""
    rows: list[tuple[Any, ...]] = [
        *((name, "only in A", *_kind(a[name]), *("", ""), _near(name, found.only_b)) for name in found.only_a),
        *((name, "only in B", *("", ""), *_kind(b[name]), _near(name, found.only_a)) for name in found.only_b),
    ]
    rows += [(old, "renamed", *_kind(a[old]), *_kind(b[new]), new) for old, new in found.renamed.items()]
    for name in found.unlike:
        what = "other shape" if a[name].shape != b[name].shape else "other dtype"
        rows.append((name, what, *_kind(a[name]), *_kind(b[name]), ""))
    columns = [
        *(Column("name"), Column("difference"), Column("dtype A", default=""), Column("shape A", "shape", "")),
        *(Column("dtype B", default=""), Column("shape B", "shape", ""), Column("name B or near", default="")),
    ]
    return Report("structure", "Differences of structure", columns, rows)


def values(found: Comparison) -> Report:
    """Variables whose values differ, those that differ most first."""
    changed = {name: each for name, each in found.differences.items() if each.changed}
    ordered = sorted(changed, key=lambda name: (-changed[name].max_abs, name))
    columns = [
        *(Column("name"), Column("status"), Column("changed", "number"), Column("of", "number")),
        *(Column("max abs", "real", ""), Column("L2", "real", ""), Column("cosine", "real", "")),
    ]
    rows = [(name, _status(changed[name]), *_numbers(changed[name])) for name in ordered]
    return Report("values", "Differences of values", columns, rows)


def ops(changes: Sequence[OpChange]) -> Report:
    """The ops of two graphs that are not the same."""
    columns = [Column("op"), Column("change"), Column("what"), Column("A", default=""), Column("B", default="")]
    return Report("ops", "Differences of ops", columns, [tuple(change) for change in changes])


def _kind(variable: Variable) -> tuple[str, tuple[int, ...]]:
    return variable.dtype.name, variable.shape


def _near(name: str, others: Sequence[str]) -> str:
    near = get_close_matches(name, others, 1, 0.8) if len(others) < _SEARCHED else []
    return f"near: {near[0]}" if near else ""


def _status(found: Difference) -> str:
    return "changed" if found.beyond else "within tolerance"


def _numbers(found: Difference) -> tuple[Any, ...]:
    reals = ("" if isnan(number) else str(number) if isinf(number) else number for number in _reals(found))
    return found.changed, found.elements, *reals


def _reals(found: Difference) -> tuple[float, ...]:
    return found.max_abs, found.l2, found.cosine
