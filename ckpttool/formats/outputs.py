"""Whether an output may be written, asked before anything is: a dry run is to fail as the real one would."""

import os
from collections.abc import Sequence
from pathlib import Path

from ckpttool import storage
from ckpttool.errors import NotFoundError, in_the_way


def require_writable(path: str, inputs: Sequence[str], force: bool) -> None:
    """Raises FileExistsError if the file is there and may not be replaced, NotFoundError if its directory is not."""
    storage.require_writable(Path(path), force, inputs)


def require_writable_directory(path: str, members: str, force: bool, *, may_exist: bool = False) -> None:
    """As `require_writable`, of a directory; one that `may_exist` is in the way if it has such members (a glob)."""
    directory = Path(os.path.abspath(path))
    if not directory.parent.is_dir():
        raise NotFoundError("no such directory", path=str(directory.parent))
    there = next(directory.glob(members), None) if may_exist else directory
    if not force and there is not None and os.path.lexists(there):
        raise in_the_way(there)
