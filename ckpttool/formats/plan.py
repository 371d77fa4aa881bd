"""What a writer makes of each variable.

Every writer has a `plan_x`, which reads no values (but strings, where NumPy may not hold them), and a `write_x`, which
does what the plan says. A variable that the target has no type for is either stored in another one, its fallback, which
loses nothing and can be taken back; or it is left out. Both are said, and `strict` refuses both.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import NamedTuple

from ckpttool.errors import ConversionError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import such
from ckpttool.model.variable import Variable


class Planned(NamedTuple):
    """What a writer makes of a variable.

    Attributes:
        variable: the variable.
        target: its name in the target.
        problem: why it can't be there; None if it can.
        fallback: what it is stored as, if the target has no type for it.
        doubt: what is a guess, and may be wrong.
    """

    variable: Variable
    target: str
    problem: str | None = None
    fallback: str | None = None
    doubt: str | None = None

    @property
    def remark(self) -> str | None:
        """What the user should know of it."""
        if self.problem:
            return f"left out: {self.problem}"
        if self.fallback and self.doubt:
            return f"stored as {self.fallback} · {self.doubt}"
        return f"stored as {self.fallback}" if self.fallback else self.doubt


def require_positive(**numbers: int | None) -> None:
    """Raises ValueError if a number, by its name, is given and is less than 1; TypeError if it is none, as "5GB"."""
    for name, number in numbers.items():
        if not isinstance(number, Real | None):
            raise TypeError(f"{name} is a number, not {number!r}")
        if number is not None and number < 1:
            raise ValueError(f"{name} is {number}, and must be at least 1")


def filled(sizes: Iterable[int], limit: int) -> Iterator[int]:
    """For each of the values of these sizes the number of its file: a new one where it would be larger than `limit`."""
    number = nbytes = 0
    for size in sizes:
        if nbytes and nbytes + size > limit:
            number, nbytes = number + 1, 0
        nbytes += size
        yield number


def check_plan(plan: Sequence[Planned], *, strict: bool) -> list[Planned]:
    """The members that have a remark.

    Raises:
        ConversionError: `strict`, and there is one; or all variables would be left out.
    """
    remarkable = [planned for planned in plan if planned.remark]
    if plan and all(planned.problem for planned in plan):
        first = plan[0]
        raise ConversionError(f"{first.remark}{such(len(plan))}; nothing is left", variable=first.variable.name)
    if remarkable and strict:
        first = remarkable[0]
        raise ConversionError(
            f"{first.remark}{such(len(remarkable))}",
            variable=first.variable.name,
            hint="without --strict, it is done and reported",
        )
    return remarkable


def description(checkpoint: Checkpoint) -> dict[str, str]:
    """What a file that is written was made from; nothing that would differ between two runs."""
    from ckpttool import __version__

    source = os.path.basename(os.path.normpath(checkpoint.path)).encode(errors="replace").decode()
    return {"source": source, "source_format": checkpoint.format, "created_by": f"ckpttool {__version__}"}


def distinct(plan: list[Planned]) -> list[Planned]:
    """The plan, if no two variables would have one name in the target.

    Raises:
        ConversionError: two would.
    """
    taken: dict[str, str] = {}
    for planned in (planned for planned in plan if not planned.problem):
        name = planned.variable.name
        if taken.setdefault(planned.target, name) != name:
            raise ConversionError(f"{taken[planned.target]!r} would have the same name", variable=name)
    return plan
