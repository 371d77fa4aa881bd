"""Two checkpoints side by side: what is only in one, what has another name, what differs, and by how much."""

import hashlib
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any, NamedTuple

from ckpttool.analysis.parallel import parallel_map
from ckpttool.analysis.values.difference import Difference, Progress, difference
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.variable import Variable, require_variable


class Comparison(NamedTuple):
    """Two checkpoints side by side.

    Attributes:
        only_a: names that only the first has, without those that were renamed.
        only_b: names that only the second has.
        renamed: name in the first → name in the second, of variables with the same values.
        unlike: names of variables that both have, with different dtypes or shapes.
        differences: how the values differ, of variables that have the same shape in both.
        partly: what is missing of variables that one checkpoint has only in part (see `Variable.lacking`); they are not
            in `differences`.
    """

    only_a: list[str]
    only_b: list[str]
    renamed: dict[str, str]
    unlike: list[str]
    differences: dict[str, Difference]
    partly: dict[str, str]

    @property
    def is_different(self) -> bool:
        """Whether anything differs but values within the tolerance."""
        values = any(each.beyond for each in self.differences.values())
        return bool(values or self.only_a or self.only_b or self.renamed or self.unlike)


def compare(
    a: Mapping[str, Variable],
    b: Mapping[str, Variable],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    values: bool = True,
    progress: Progress = lambda nbytes: None,
) -> Comparison:
    """Compares the variables of two checkpoints by name; those that only one has are matched by their values.

    Args:
        a: the one.
        b: the other.
        rtol: relative tolerance: a difference up to `atol + rtol * abs(b)` counts as none.
        atol: absolute tolerance.
        values: whether values are read and compared; False: only names, dtypes and shapes.
        progress: is called with bytes that have been read.

    Raises:
        TypeError: a mapping of something else than variables, or none.
        ValueError: a tolerance is negative, or not a number.
        CorruptionError: values are missing or damaged.
    """
    for given in (a, b):
        if not isinstance(given, Mapping):
            require_checkpoint(given)
        if not isinstance(given, Checkpoint):
            for variable in given.values():
                require_variable(variable)
    if not (rtol >= 0 and atol >= 0):
        raise ValueError(f"tolerances are {rtol} and {atol}, and must not be less than 0")
    both = [name for name in a if name in b]
    unlike = [name for name in both if (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)]
    only_a, only_b = [name for name in a if name not in b], [name for name in b if name not in a]
    if not values:
        return Comparison(only_a, only_b, {}, unlike, {}, {})
    partly = {name: lacking for name in both if (lacking := a[name].lacking or b[name].lacking)}
    alike = [name for name in both if a[name].shape == b[name].shape and _kind(a[name]) == _kind(b[name])]
    comparable = [name for name in alike if name not in partly]
    found = parallel_map(
        lambda name: difference(a[name], b[name], rtol=rtol, atol=atol, progress=progress),
        comparable,
        nbytes=lambda name: a[name].nbytes,
    )
    differences = dict(zip(comparable, found, strict=True))
    renamed = _renamed([a[name] for name in only_a], [b[name] for name in only_b])
    gone, come = renamed.keys(), set(renamed.values())
    return Comparison(
        [name for name in only_a if name not in gone],
        [name for name in only_b if name not in come],
        *(renamed, unlike, differences, partly),
    )


def _kind(variable: Variable) -> str:
    return "numbers" if variable.dtype.itemsize is not None else variable.dtype.name


def _renamed(only_a: Iterable[Variable], only_b: Iterable[Variable]) -> dict[str, str]:
    """Name in the one → name in the other, of variables with the same values, if no other variable has these."""
    of_a, of_b = _by_kind(only_a), _by_kind(only_b)
    renamed = {}
    for kind in [kind for kind in of_a if kind in of_b]:
        by_value, others = _by_value(of_a[kind]), _by_value(of_b[kind])
        for value, variables in by_value.items():
            if len(variables) == len(others.get(value, ())) == 1:
                renamed[variables[0].name] = others[value][0].name
    return renamed


def _by_kind(variables: Iterable[Variable]) -> dict[tuple[Any, ...], list[Variable]]:
    found: dict[tuple[Any, ...], list[Variable]] = {}
    for variable in variables:
        if not variable.lacking:
            found.setdefault((variable.dtype, variable.shape), []).append(variable)
    return found


def _by_value(variables: list[Variable]) -> dict[bytes, list[Variable]]:
    """The variables by a hash of their values, without those of equal values (zeros, a scalar), which prove nothing."""
    found: dict[bytes, list[Variable]] = {}
    for variable, value in zip(variables, parallel_map(_digest, variables, nbytes=attrgetter("nbytes")), strict=True):
        if value is not None:
            found.setdefault(value, []).append(variable)
    return found


def _digest(variable: Variable) -> bytes | None:
    """A hash of the values; None if all of them are equal."""
    import numpy as np

    digest = hashlib.sha256()
    if variable.dtype.itemsize is None:
        values = variable.strings()
        for value in values:
            digest.update(b"%d:" % len(value) + value)
        return digest.digest() if len(set(values)) > 1 else None
    first = None
    alike = True
    for _, block in variable.narrow().blocks():
        elements = np.ascontiguousarray(block).reshape(-1).view(np.uint8).reshape(-1, block.dtype.itemsize)
        digest.update(elements.data)
        first = elements[0].copy() if first is None else first
        alike = alike and bool((elements == first).all())
    return None if alike else digest.digest()
