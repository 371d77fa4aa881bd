"""Writing a directory beside, and renaming it when it is whole."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckpttool.errors import IS_INPUT, NotFoundError, in_the_way
from ckpttool.storage.temporaries import (
    clear_dead,
    locked,
    name_file,
    new_token,
    require_writable_parent,
    sync,
    temporary,
)


@contextmanager
def write_directory(
    path: str | os.PathLike[str], *, force: bool, inputs: Sequence[str], is_ours: Callable[[Path], bool]
) -> Iterator[Path]:
    """As `write_beside`, for a directory: gives the path of a new one, which is renamed in the end.

    One that is replaced is kept as PATH.replaced until the new one is in its place: two directories can't change
    places at once. After a crash, the old one or the new one is at PATH, or the old one is at PATH.replaced.

    Args:
        path: the directory to be.
        force: replace one that is there, if it is empty or `is_ours`.
        inputs: files that must not be in it.
        is_ours: whether a directory is of the kind that is written here, and nothing else is lost with it.

    Raises:
        FileExistsError: there is something at `path`, or where it would be kept, that may not be replaced.
        PermissionError: what is in it may not be removed.
    """
    path, kept = require_writable_directory(path, force=force, inputs=inputs, is_ours=is_ours)
    clear_dead(path)
    beside = temporary(path, new_token())
    try:
        beside.mkdir()
        with locked(beside, os.mkdir):
            yield beside
            if os.path.lexists(path):
                _replace(beside, path, kept)
            else:
                os.rename(beside, path)
                if force and _is_replaceable(kept, inputs, is_ours):  # All that a dead run had left of the old one.
                    _remove(kept, path)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        name_file(error, path)
        raise


def require_writable_directory(
    path: str | os.PathLike[str], *, force: bool, inputs: Sequence[str], is_ours: Callable[[Path], bool]
) -> tuple[Path, Path]:
    """Raises what `write_directory` raises before it writes.

    Returns:
        The path of the directory, and the one under which a directory that is there would be kept.
    """
    path = _named(Path(os.fsdecode(path)))
    kept = path.with_name(f"{path.name}.replaced")
    _require_replaceable(path, force, inputs, is_ours)
    if os.path.lexists(path):
        _require_replaceable(kept, force, inputs, is_ours)
        _require_removable(path)
    require_writable_parent(path)
    return path, kept


def _named(path: Path) -> Path:
    """The path with the directory's own name at its end, in place of `.` or `..`."""
    path = path if path.name not in ("", os.pardir) else path.resolve()
    if not path.name:
        raise in_the_way(path, "the output exists, and holds something else")
    return path


def _replace(beside: Path, path: Path, kept: Path) -> None:
    """Renames a new directory over an old one; if that fails, the old one has its name again."""
    for new in (*beside.rglob("*"), beside):
        if new.is_dir() or new.is_file():
            _keep_mode(new, path / new.relative_to(beside))
            sync(new, os.O_RDONLY)
    _remove(kept, path)
    try:
        os.rename(path, kept)
        os.rename(beside, path)
    except BaseException:
        if not os.path.lexists(path):
            os.rename(kept, path)
        raise
    sync(path.parent, os.O_RDONLY)
    _remove(kept, path)


def _keep_mode(new: Path, old: Path) -> None:
    """Gives a new file or directory the mode of the one that it replaces, so that no further users can read it."""
    if old.is_dir() if new.is_dir() else old.is_file():
        os.chmod(new, stat.S_IMODE(old.stat().st_mode))


def _remove(kept: Path, path: Path) -> None:
    """Renames a directory to a temporary and removes it: a death on the way leaves no half under its name."""
    if os.path.lexists(kept):
        trash = temporary(path, new_token())
        try:
            os.rename(kept, trash)
            shutil.rmtree(trash, ignore_errors=True)
        except BaseException:  # An interrupt; this is soon done.
            shutil.rmtree(trash, ignore_errors=True)
            raise


def _is_replaceable(path: Path, inputs: Sequence[str], is_ours: Callable[[Path], bool]) -> bool:
    """Whether there is a directory that may be replaced."""
    try:
        _require_replaceable(path, True, inputs, is_ours)
    except FileExistsError:
        return False
    return path.is_dir()


def _require_removable(path: Path) -> None:
    """Raises PermissionError if something in a directory may not be removed: it would stay under a temporary name."""
    for directory in [path, *(each for each in path.rglob("*") if each.is_dir() and not each.is_symlink())]:
        if any(directory.iterdir()) and not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the output may not be removed", str(directory))


def _require_replaceable(path: Path, force: bool, inputs: Sequence[str], is_ours: Callable[[Path], bool]) -> None:
    if not path.parent.is_dir():
        raise NotFoundError("no such directory", path=str(path.parent), hint="make it first")
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir() or (any(path.iterdir()) and not is_ours(path)):
        raise in_the_way(path, "the output exists, and holds something else")
    if not force:
        raise in_the_way(path)
    real = path.resolve()
    if any(Path(os.path.realpath(source)).is_relative_to(real) for source in inputs):
        raise in_the_way(path, IS_INPUT)
