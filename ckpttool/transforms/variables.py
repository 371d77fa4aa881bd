"""Checkpoint → checkpoint: which variables, under which names, of which dtypes."""

from collections.abc import Sequence

from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import selector


def select(checkpoint: Checkpoint, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Checkpoint:
    """The variables whose names match one of `include` (all if there is none) and none of `exclude`.

    The patterns are those of `ckpttool.model.names`.
    """
    if not include and not exclude:
        return checkpoint
    chosen = selector(include, exclude)
    variables = {name: variable for name, variable in checkpoint.items() if chosen(name)}
    return checkpoint.with_variables(variables)
