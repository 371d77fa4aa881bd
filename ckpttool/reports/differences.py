"""Reports about the differences between two checkpoints or graphs."""

from collections.abc import Iterator, Mapping, Sequence
from math import inf, isnan
from typing import Any

from ckpttool.analysis.graphs.comparison import GraphChange
from ckpttool.analysis.values.comparison import Comparison
from ckpttool.analysis.values.difference import Difference
from ckpttool.model.names import NearNames
from ckpttool.model.object_keys import VALUE
from ckpttool.model.variable import Variable
from ckpttool.reports.report import Column, Report


def structure(a: Mapping[str, Variable], b: Mapping[str, Variable], found: Comparison) -> Report:
    """Variables that only one checkpoint has, that were renamed, or that differ in dtype or shape.

    A variable that only one checkpoint has is shown with the nearest name of the same dtype and shape that only the
    other has.
    """
    near = NearNames()
    only_a, only_b = _by_kind(a, found.only_a), _by_kind(b, found.only_b)
    rows: list[tuple[Any, ...]] = []
    for name in found.only_a:
        kind = _kind(a[name])
        rows.append((name, "only in A", *kind, "", "", "", *_nearest(near, name, only_b.get(kind, ()))))
    for name in found.only_b:
        kind = _kind(b[name])
        rows.append((name, "only in B", "", "", *kind, "", *_nearest(near, name, only_a.get(kind, ()))))
    rows += [(old, "renamed", *_kind(a[old]), *_kind(b[new]), new, "") for old, new in found.renamed.items()]
    for name in found.unlike:
        what = "other shape" if a[name].shape != b[name].shape else "other dtype"
        rows.append((name, what, *_kind(a[name]), *_kind(b[name]), "", ""))
    columns = [
        *(Column("name", end=VALUE), Column("difference")),
        *(Column("dtype A", default=""), Column("shape A", "shape", "")),
        *(Column("dtype B", default="", told_by="dtype A"), Column("shape B", "shape", "", told_by="shape A")),
        *(Column("name B", default="", end=VALUE), Column("near name", default="", end=VALUE)),
    ]
    return Report("structure", "Differences of structure", columns, rows)


def values(found: Comparison) -> Report:
    """Variables whose values differ, the largest difference first."""
    changed = [(name, each) for name, each in found.differences.items() if each.changed]
    changed.sort(key=lambda pair: (-inf if isnan(pair[1].max_abs) else -pair[1].max_abs, pair[0]))
    columns = [
        *(Column("name", end=VALUE), Column("status", default="changed")),
        *(Column("changed", "number"), Column("of", "number")),
        *(Column("max abs", "real", ""), Column("L2", "real", ""), Column("cosine", "real", "")),
    ]
    rows = [(name, _status(each), each.changed, each.elements, *_reals(each)) for name, each in changed]
    return Report("values", "Differences of values", columns, rows)


def graphs(changes: Sequence[GraphChange]) -> Report:
    """The differences between two graphs."""
    columns = [
        *(Column("kind"), Column("function", default=""), Column("name"), Column("change")),
        *(Column("what", default=""), Column("A", "any", ""), Column("B", "any", "")),
    ]
    return Report("graph", "Differences of graphs", columns, [tuple(change) for change in changes])


def _kind(variable: Variable) -> tuple[str, tuple[int, ...]]:
    return variable.dtype.name, variable.shape


def _by_kind(variables: Mapping[str, Variable], names: Sequence[str]) -> dict[tuple[str, tuple[int, ...]], list[str]]:
    found: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name in names:
        found.setdefault(_kind(variables[name]), []).append(name)
    return found


def _nearest(near: NearNames, name: str, others: Sequence[str]) -> list[str]:
    return near.of(name, others) or [""]


def _status(found: Difference) -> str:
    return "changed" if found.beyond else "within tolerance"


def _reals(found: Difference) -> Iterator[float | str]:
    """The numbers; "" for those that do not apply."""
    return ("" if isnan(number) else number for number in (found.max_abs, found.l2, found.cosine))
