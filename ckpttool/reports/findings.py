"""What a verification has found."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ckpttool.analysis.parallel import in_order
from ckpttool.errors import CheckpointError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding
from ckpttool.model.variable import Variable
from ckpttool.reports.report import Column, Report

if TYPE_CHECKING:
    import numpy as np

_KINDS = ("float", "bfloat", "complex")


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
) -> Report:
    """A row for each of the named variables that has values that are NaN or infinite: it is whole, and ill.

    Args:
        checkpoint: whose variables.
        names: of those that can be read.
        progress: is told the bytes of values that have been looked at.
    """
    variables = [checkpoint[name] for name in names if checkpoint[name].dtype.name.startswith(_KINDS)]
    rows = []
    for variable, (nans, infinities) in zip(
        variables, in_order(partial(_count, progress=progress), variables), strict=True
    ):
        if nans or infinities:
            rows.append((variable.name, variable.dtype.name, variable.size, nans, infinities))
    columns = [
        *(Column("variable"), Column("dtype"), Column("values", "number")),
        *(Column("nan", "number"), Column("inf", "number")),
    ]
    return Report("not_finite", "Not finite", columns, rows)


def _count(variable: Variable, progress: Callable[[int], None]) -> tuple[int, int]:
    """How many values are NaN, and how many infinite; none, if they can't be decoded."""
    nans = infinities = 0
    try:
        for _, block in variable.blocks():
            found = _count_in(block)
            nans, infinities = nans + found[0], infinities + found[1]
            progress(block.nbytes)
    except CheckpointError:  # That is said elsewhere.
        return 0, 0
    return nans, infinities


def _count_in(block: "np.ndarray[Any, Any]") -> tuple[int, int]:
    import numpy as np

    if np.isfinite(block).all():
        return 0, 0
    return int(np.count_nonzero(np.isnan(block))), int(np.count_nonzero(np.isinf(block)))
