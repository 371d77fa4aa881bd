"""What is stored where, and which data files are missing or too short."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding
from ckpttool.model.names import counted
from ckpttool.model.slices import ByteRange
from ckpttool.model.variable import Variable


class Stored(NamedTuple):
    """A piece of a variable, and where it lies."""

    variable: Variable
    data: ByteRange

    @property
    def is_placed(self) -> bool:
        """Whether it has a checksum. If not, its offset need not be a place in a file."""
        return self.data.crc32c is not None


class Absent(NamedTuple):
    """What is missing.

    Attributes:
        findings: a finding for each file.
        variables: the names of variables with bytes in what is missing, each with the reason.
    """

    findings: Sequence[Finding]
    variables: Mapping[str, str]


def stored_pieces(checkpoint: Checkpoint) -> list[Stored]:
    return [Stored(variable, piece.data) for variable in checkpoint.values() for piece in variable.slices]


def absent_data(stored: Sequence[Stored]) -> Absent:
    """The data files that are missing or too short, and the variables that have lost values with them."""
    placed = [each for each in stored if each.is_placed]
    ends: Counter[str] = Counter()
    for _, data in placed:
        ends[data.path] = max(ends[data.path], data.offset + data.nbytes)
    sizes = {path: _size(path) for path in ends}
    lost: dict[str, dict[str, str]] = {}
    for variable, data in placed:
        size = sizes[data.path]
        if size is None or data.offset + data.nbytes > size:
            reason = f"its data file {_why_not(data.path)}" if size is None else f"its data file ends at byte {size:,}"
            lost.setdefault(data.path, {})[variable.name] = reason
    findings = [_finding(path, sizes[path], ends[path], len(names)) for path, names in sorted(lost.items())]
    return Absent(findings, {name: reason for names in lost.values() for name, reason in names.items()})


def _size(path: str) -> int | None:
    """A file's size; None if it is not there, or may not be read."""
    return os.path.getsize(path) if os.path.isfile(path) and os.access(path, os.R_OK) else None


def _why_not(path: str) -> str:
    return "may not be read" if os.path.isfile(path) else "is missing"


def _finding(path: str, size: int | None, end: int, variables: int) -> Finding:
    count = f"{counted(variables, 'variable')} can't be read"
    if size is None:
        return Finding("missing", f"data file {_why_not(path)}: {count}", path)
    return Finding("truncated", f"data file is truncated: {size:,} bytes of {end:,}; {count}", path, "", size)
