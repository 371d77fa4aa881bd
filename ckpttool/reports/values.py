"""Reports about values."""

from collections.abc import Callable
from functools import partial
from math import isnan
from typing import Any

from ckpttool.analysis.parallel import parallel_map
from ckpttool.analysis.values.statistics import QUANTILES, Statistics, statistics_of
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_keys import VALUE
from ckpttool.model.variable import Variable
from ckpttool.reports.report import Column, Report


def statistics(checkpoint: Checkpoint, progress: Callable[[int], None] = lambda nbytes: None) -> Report:
    """Every variable's statistics; each is read once, two at a time.

    Raises:
        CorruptionError: values are missing or damaged.
    """
    variables = list(checkpoint.values())
    found = parallel_map(partial(statistics_of, progress=progress), variables, nbytes=lambda variable: variable.nbytes)
    rows = [_row(variable, each) for variable, each in zip(variables, found, strict=True)]
    columns = [
        *(Column("name", end=VALUE), Column("dtype", spare=True), Column("shape", "shape")),
        *(Column("min", "real", ""), Column("max", "real", ""), Column("mean", "real", ""), Column("std", "real", "")),
        *(Column("zeros", "number", 0, spare=True), Column("NaN", "number", 0), Column("Inf", "number", 0)),
        *(Column(f"p{share * 100:.0f}", "real", "", detail=True) for share in QUANTILES),
        Column("histogram", "histogram", (), spare=True),
    ]
    return Report("statistics", "Statistics", columns, rows)


def _row(variable: Variable, found: Statistics) -> tuple[Any, ...]:
    spread = (found.minimum, found.maximum, found.mean, found.deviation)
    counts = (found.zeros, found.nans, found.infinities)
    return (
        *(variable.name, variable.dtype.name, variable.shape),
        *map(_known, spread),
        *counts,
        *map(_known, found.quantiles),
        found.histogram,
    )


def _known(number: float) -> float | str:
    """The number; "" if there is none, as for a variable without a finite value."""
    return "" if isnan(number) else number
