"""Reports about what a verification has found."""

from collections.abc import Callable, Sequence
from functools import partial

from ckpttool.analysis.parallel import parallel_map
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding
from ckpttool.model.object_keys import VALUE
from ckpttool.reports.report import Column, Report

_KINDS = ("float", "bfloat", "complex")


def findings(found: Sequence[Finding]) -> Report:
    """A row for each finding."""
    rows = [
        (each.kind, each.variable, each.what, each.path, "" if each.offset is None else each.offset) for each in found
    ]
    columns = [
        *(Column("kind"), Column("variable", default="", end=VALUE), Column("what")),
        *(Column("file", "path", "", spare=True), Column("byte", "number", "")),
    ]
    return Report("findings", "Findings", columns, rows)


def not_finite(
    checkpoint: Checkpoint, names: Sequence[str], progress: Callable[[int], None] = lambda nbytes: None
) -> Report:
    """A row for each of the named variables that has values that are NaN or infinite: it is whole, but bad.

    Args:
        checkpoint: whose variables.
        names: the names of variables that can be read.
        progress: is called with the bytes of values that have been looked at.
    """
    from ckpttool.analysis.values.statistics import count_not_finite  # Not imported before it is needed.

    variables = [checkpoint[name] for name in names if checkpoint[name].dtype.name.startswith(_KINDS)]
    rows = []
    counts = parallel_map(partial(count_not_finite, progress=progress), variables)
    for variable, (nans, infinities) in zip(variables, counts, strict=True):
        if nans or infinities:
            rows.append((variable.name, variable.dtype.name, variable.size, nans, infinities))
    columns = [
        *(Column("variable", end=VALUE), Column("dtype"), Column("values", "number")),
        *(Column("nan", "number"), Column("inf", "number")),
    ]
    return Report("not_finite", "Not finite", columns, rows)
