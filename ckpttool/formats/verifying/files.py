"""The data files: there, and long enough."""

import os
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding


class Absent(NamedTuple):
    """What is not there.

    Attributes:
        findings: a finding for each file.
        variables: the names of variables that have bytes in what is not there.
    """

    findings: Sequence[Finding]
    variables: Collection[str]


def absent_data(checkpoint: Checkpoint) -> Absent:
    """The data files that are missing or too short, and whose values are lost by that."""
    ends: Counter[str] = Counter()
    pieces = [(name, piece.data) for name, variable in checkpoint.items() for piece in variable.slices]
    for _, data in pieces:
        if data.path and data.crc32c is not None:  # Elsewhere what a piece says of its place is no place in a file.
            ends[data.path] = max(ends[data.path], data.offset + data.nbytes)
    sizes = {path: os.path.getsize(path) if os.path.isfile(path) else None for path in ends}
    lost: dict[str, set[str]] = {}
    for name, data in pieces:
        size = sizes.get(data.path, data.offset + data.nbytes)
        if size is None or data.offset + data.nbytes > size:
            lost.setdefault(data.path, set()).add(name)
    findings = [_finding(path, sizes[path], ends[path], len(names)) for path, names in sorted(lost.items())]
    return Absent(findings, set().union(*lost.values()))


def _finding(path: str, size: int | None, end: int, variables: int) -> Finding:
    count = f"{variables:,} variable{'' if variables == 1 else 's'}"
    if size is None:
        return Finding("missing", f"data file is missing: {count} can't be read", path)
    return Finding(
        "truncated", f"data file is truncated: {size:,} bytes of {end:,}; {count} can't be read", path, "", size
    )
