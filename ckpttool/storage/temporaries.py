"""Temporary files beside those that they are to become: `.NAME.<12 hex digits>.tmp`, a token for each run.

The last file of a run is locked as long as its process lives. What bears the token of one that is not locked was left
by a run that has died, and the next one that writes NAME removes it.
"""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from ckpttool.errors import IS_INPUT, NotFoundError, in_the_way

# A name may have 255 bytes; so many leave room for what makes it a temporary's.
_NAME_BYTES = 200
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{12}\.tmp", re.DOTALL)
# A link or a pipe of such a name is none of ours, and nobody waits for it.
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK


def new_token() -> str:
    """The token of a run: it is in the names of all of its temporaries, and of no others."""
    return os.urandom(6).hex()


def temporary(path: Path, token: str) -> Path:
    """The path beside `path` under which it is written."""
    return path.with_name(f".{_shortened(path.name)}.{token}.tmp")


def _shortened(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def make(path: Path) -> None:
    """Makes an empty file. The caller, who chose its name, can remove it whenever an interrupt comes."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def require_writable(path: str | Path, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises what `write_beside` raises beforehand: the output exists, is the input, or its directory is missing or may
    not be written.
    """
    require_all_writable([path], force=force, inputs=inputs)


def require_all_writable(paths: Iterable[str | Path], *, force: bool, inputs: Sequence[str]) -> None:
    """The same of several outputs."""
    read = Inputs(inputs)
    for path in paths:
        _require_writable(path, force, read)


def _require_writable(path: str | Path, force: bool, inputs: "Inputs") -> None:
    is_directory = os.fspath(path).endswith(os.sep)  # Which a Path does not tell.
    path = Path(path)
    if is_directory or path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the output is a directory", str(path))
    if not path.parent.is_dir():
        raise NotFoundError("no such directory", path=str(path.parent), hint="make it first")
    if path in inputs:
        raise in_the_way(path, IS_INPUT)
    if path.exists() and not path.is_file():
        # Whoever gives /dev/null, or a link such as /dev/stdout, means what is written to it, and would lose it.
        raise in_the_way(path, "the output is a device, a pipe or a socket")
    if os.path.lexists(path) and not force:
        raise in_the_way(path)
    require_writable_parent(path)


def require_writable_parent(path: Path) -> None:
    """Raises OSError if nothing may be written into the directory of an output: hours of reading would be for nothing,
    and a dry run would not tell.
    """
    if not os.access(path.parent, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(path.parent).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(path))


class Inputs:
    """Files that are read, and must not be written: a path is in them if it leads to one of them, by whatever name.

    Each is looked at once, and only when there is an output that exists.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths

    def __contains__(self, path: str | Path) -> bool:
        file = _identity(path)
        return file is not None and file in self._identities

    @cached_property
    def _identities(self) -> set[tuple[int, int] | None]:
        return set(map(_identity, self._paths))


def _identity(path: str | Path) -> tuple[int, int] | None:
    """What tells a file from every other one; None: there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL, which no name has.
        return None
    return status.st_dev, status.st_ino


@contextmanager
def locked(path: Path, make: Callable[[Path], object] = make) -> Iterator[None]:
    """Holds a lock on a temporary, which ends with the process: a later run sees by it that the file is in use.

    If another run took it for a dead one's and removed it before it was locked, it is made anew.
    """
    while True:
        with suppress(FileNotFoundError):
            descriptor = _open(path)
            with suppress(OSError):  # A file system without locks. (Who looks for dead ones has one for a moment.)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                break
            os.close(descriptor)
        make(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one at the path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | _OPEN)
    except IsADirectoryError:
        return os.open(path, os.O_RDONLY | _OPEN)


def clear_dead(path: Path) -> None:
    """Removes what dead runs have left beside `path`, their last file: everything with that file's token."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    own = re.compile(re.escape(f".{_shortened(path.name)}.") + r"([0-9a-f]{12}\.tmp)")
    for match in filter(None, map(own.fullmatch, names)):
        with _lock_of_dead(path.with_name(match[0])) as is_dead:
            members = [name for name in names if name.startswith(".") and name.endswith(f".{match[1]}")]
            # The one that is looked for goes last, should this die too.
            with suppress(OSError):  # Somebody else's, or not to be removed here.
                for name in sorted(members, key=match[0].__eq__) if is_dead else ():
                    _remove(path.with_name(name))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _lock_of_dead(path: Path) -> Iterator[bool]:
    """Tries to lock a temporary, and gives whether it could: then the process that made it is dead."""
    try:
        descriptor = _open(path)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            is_held = False
        else:
            is_held = True
        yield is_held
    finally:
        os.close(descriptor)


def unlink_all(paths: Iterable[str | Path]) -> None:
    """Removes these files, as far as they are there."""
    for path in paths:
        Path(path).unlink(missing_ok=True)


def name_file(error: BaseException, path: str | Path) -> None:
    """Puts the output's name into an error of writing: a full disk's has no name, others have a temporary's."""
    if isinstance(error, OSError) and (_is_temporary(error.filename) if error.filename else error.errno in _OF_WRITING):
        error.filename = os.fspath(path)
        del error.filename2  # None would be one more name in what it says.


def _is_temporary(path: Any) -> bool:
    """Whether a path leads to a temporary, or into one."""
    return not isinstance(path, int) and any(_TEMPORARY.fullmatch(part) for part in os.fsdecode(path).split(os.sep))


def publish(beside: Path, path: Path, force: bool) -> None:
    """Renames, and does not replace what has come to be there meanwhile unless `force`."""
    if force:
        os.replace(beside, path)
        return
    try:
        os.link(beside, path)
    except FileExistsError:
        raise in_the_way(path) from None
    except OSError:  # A file system without hard links.
        os.rename(beside, path)
    else:
        beside.unlink()


def sync(path: Path, mode: int = os.O_RDWR) -> None:
    """Waits until a file is on the disk; of a directory (O_RDONLY), the names in it, where its file system can."""
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)
