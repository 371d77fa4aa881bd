"""Checks whether a file may be written, so that a dry run fails as the real one would."""

from collections.abc import Sequence

from ckpttool import storage


def require_writable(path: str, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises FileExistsError if the file is there and may not be replaced, NotFoundError if its directory is not."""
    storage.require_writable(path, force=force, inputs=inputs)
