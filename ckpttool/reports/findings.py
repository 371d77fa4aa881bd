"""What a verification has found."""

from collections.abc import Callable, Sequence

from ckpttool.errors import CheckpointError
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.model.findings import Finding
from ckpttool.model.parallel import in_order
from ckpttool.model.statistics import Statistics, statistics_of
from ckpttool.reports.report import Column, Report


def findings(found: Sequence[Finding]) -> Report:
    """A row for each finding."""
    rows = [
        (each.kind, each.variable, each.what, each.path, "" if each.offset is None else each.offset) for each in found
    ]
    columns = [
        *(Column("kind"), Column("variable", default=""), Column("what")),
        *(Column("file", default=""), Column("byte", "number", "")),
    ]
    return Report("findings", "Findings", columns, rows)


def not_finite(
    checkpoint: Checkpoint, names: Sequence[str], progress: Callable[[int], None] = lambda nbytes: None
) -> list[Finding]:
    """A finding for each of the named variables that has values that are NaN or infinite: it is whole, and ill."""

    def statistics(variable: Variable) -> Statistics | None:
        try:
            return statistics_of(variable, progress)
        except CheckpointError:  # It has been found damaged, or can't be decoded, which is said elsewhere.
            return None

    variables = [checkpoint[name] for name in names if checkpoint[name].dtype.itemsize is not None]
    found = []
    for variable, each in zip(variables, in_order(statistics, variables), strict=True):
        if each is not None and each.nans + each.infinities:
            what = f"{each.nans:,} NaN and {each.infinities:,} infinite of {each.elements:,} values"
            found.append(Finding("values", what, "", variable.name))
    return found
