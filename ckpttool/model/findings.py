"""What a check has found."""

from typing import NamedTuple

from ckpttool.errors import CheckpointError


class Finding(NamedTuple):
    """Something that is wrong.

    Attributes:
        kind: "index", "missing", "truncated", "data", "objects", "graph", "state", "strict".
        what: what is wrong, with what was expected and found.
        path: the file.
        variable: the variable; "" if it is about all of them.
        offset: where in the file, in bytes from its start.
    """

    kind: str
    what: str
    path: str = ""
    variable: str = ""
    offset: int | None = None


def finding_of(error: CheckpointError, kind: str) -> Finding:
    """The finding that an error is."""
    return Finding(kind, error.what, error.path or "", error.variable or "", error.offset)
