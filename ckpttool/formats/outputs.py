"""Whether a file may be written, asked before anything is: a dry run is to fail as the real one would."""

from collections.abc import Sequence

from ckpttool import storage


def require_writable(path: str, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises FileExistsError if the file is there and may not be replaced, NotFoundError if its directory is not."""
    storage.require_writable(path, force=force, inputs=inputs)
