"""Writing files beside, and renaming them when all of them are whole."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ckpttool.errors import in_the_way
from ckpttool.storage.temporaries import (
    Inputs,
    clear_dead,
    locked,
    make,
    name_file,
    new_token,
    publish,
    require_all_writable,
    require_writable,
    sync,
    temporary,
    unlink_all,
)


@contextmanager
def write_beside(path: str | Path, *, force: bool = False, inputs: Sequence[str] = ()) -> Iterator[Path]:
    """Gives the path of a new file beside `path`, and renames it to `path` when the block ends without an error.

    When `path` is replaced, the new file is synced first: a crash leaves the old one or the new one, whole. A new
    file is left to the system to write back, as `cp` leaves it, for nothing of the user's can be lost. What dead runs
    have left beside is removed.

    Args:
        path: the file to be.
        force: replace a file that is there.
        inputs: files that must not be the output.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given; or it is one of the inputs.
    """
    require_writable(path, force=force, inputs=inputs)
    path = Path(path)
    clear_dead(path)
    beside = temporary(path, new_token())
    try:
        make(beside)
        with locked(beside):
            yield beside
            if force and path.exists():
                os.chmod(beside, stat.S_IMODE(path.stat().st_mode))
                sync(beside)
                os.replace(beside, path)
                sync(path.parent, os.O_RDONLY)
            else:
                publish(beside, path, force)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        name_file(error, path)
        raise


@contextmanager
def write_together(
    paths: Sequence[str],
    *,
    force: bool,
    inputs: Sequence[str],
    replaced: Mapping[str, str],
    kept: Sequence[str],
) -> Iterator[list[Path]]:
    """As `write_beside`, for files of one directory that belong together; the last is the one that makes them count.

    They get their names in order. What they replace is kept under other names until all of them are there, and then
    removed: after a crash, either the old files or the new ones are whole, or the old ones are under the other names.
    After an error the old files have their own names again. What dead runs have left beside is removed.

    Args:
        paths: the files to be.
        force: replace files that are there.
        inputs: files that must not be among them.
        replaced: the files that the new ones replace, each with the name to keep it under; the last is the one that
            makes them count, and is `paths[-1]`. Without that one, they count for nothing and are not kept.
        kept: files that are there under such names already, because an earlier run has died; the last of them is the
            one that makes them count. They are all that is left where `paths[-1]` is not there.

    Raises:
        FileExistsError: as `write_beside`; or the input lies where the old files are to be kept.
    """
    read = Inputs(inputs)
    if paths[-1] in replaced and any(name in read for name in [*kept, *replaced.values()]):
        raise in_the_way(kept[-1], "the input is where the old output would be kept")
    kept = [name for name in kept if name not in read]
    clear_dead(Path(paths[-1]))
    require_all_writable([paths[-1], *paths[:-1]], force=force, inputs=inputs)
    token = new_token()
    besides = [temporary(Path(path), token) for path in paths]
    try:
        make(besides[-1])
        with locked(besides[-1]):
            for beside in besides[:-1]:
                make(beside)
            yield besides
            if replaced or kept:
                _replace_all(besides, paths, replaced, kept)
            else:
                _publish_all(besides, paths)
    except BaseException as error:
        unlink_all(besides)
        name_file(error, paths[-1])
        raise


def _replace_all(
    besides: Sequence[Path], paths: Sequence[str], replaced: Mapping[str, str], kept: Sequence[str]
) -> None:
    """Renames new files over old ones; up to the last renaming, an error takes all of it back."""
    directory = Path(paths[-1]).parent
    counts = paths[-1] in replaced
    for beside, path in zip(besides, paths, strict=True):
        model = next((old for old in (path, paths[-1], *replaced) if os.path.exists(old)), None)
        if model:
            os.chmod(beside, stat.S_IMODE(os.stat(model).st_mode))
        sync(beside)
    stale = [*kept, *replaced.values()] if counts else []
    unlink_all(reversed(stale))
    try:
        if counts:
            _keep(replaced, besides[-1].name.split(".")[-2])
        for beside, path in zip(besides, paths, strict=True):
            os.replace(beside, path)
    except BaseException:
        _restore(replaced if counts else {}, besides, paths)
        raise
    sync(directory, os.O_RDONLY)
    unlink_all(old for old in replaced if old not in paths)
    unlink_all(reversed(stale or kept))
    sync(directory, os.O_RDONLY)


def _restore(replaced: Mapping[str, str], besides: Sequence[Path], paths: Sequence[str]) -> None:
    """Undoes what `_replace_all` has done, unless its last renaming is done."""
    if not os.path.lexists(besides[-1]):
        return
    renamed = {path for beside, path in zip(besides, paths, strict=True) if not os.path.lexists(beside)}
    for path in renamed - replaced.keys():
        os.unlink(path)
    for old, kept in replaced.items():
        if os.path.lexists(kept):
            if old in renamed or not os.path.lexists(old):
                os.replace(kept, old)
            else:  # Nothing has been done to it, and perhaps may be: it is somebody else's in a sticky directory.
                os.unlink(kept)


def _publish_all(besides: Sequence[Path], paths: Sequence[str]) -> None:
    """Renames new files, all or none."""
    made = [os.stat(beside) for beside in besides]
    try:
        for beside, path in zip(besides, paths, strict=True):
            publish(beside, Path(path), force=False)
    except BaseException:  # Whether the last one got its name before the error, only the file tells.
        for path, status in zip(reversed(paths), reversed(made), strict=True):
            if os.path.exists(path) and os.path.samestat(os.stat(path), status):
                os.unlink(path)
        raise


def _keep(replaced: Mapping[str, str], token: str) -> None:
    """Gives files second names, and removes the last one's first name: without it, they count for nothing."""
    *_, last = replaced
    for old, kept in replaced.items():
        try:
            os.link(old, kept)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links. Renamed, the old files would for a while be whole under no name.
            _copy(old, Path(kept), token)
    sync(Path(last).parent, os.O_RDONLY)
    os.unlink(last)
    sync(Path(last).parent, os.O_RDONLY)


def _copy(old: str, kept: Path, token: str) -> None:
    require_writable(kept, force=False, inputs=())
    beside = temporary(kept, token)
    try:
        make(beside)
        shutil.copy2(old, beside)
        sync(beside)
        os.rename(beside, kept)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
