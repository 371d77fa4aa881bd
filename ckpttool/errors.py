"""Every exception that leaves the library (beside OSError), each with one meaning.

`wire` raises with an offset, `formats` adds the path and the variable: see `located`.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

_MOST, _MOST_OF_PATH = 500, 4096  # No system opens a longer path.


class CheckpointError(Exception):
    """A file could not be read or written as asked; the root of the errors below.

    Attributes:
        what: what is wrong, with what was expected and found.
        path: the file.
        offset: where in the file, in bytes from its start.
        variable: the variable concerned.
        hint: what the user can do; given as a function, it is looked for when somebody wants to know.
    """

    def __init__(
        self,
        what: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        variable: str | None = None,
        hint: str | Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.path, self.offset, self.variable, self._hint = what, path, offset, variable, hint

    @property
    def hint(self) -> str | None:
        """What the user can do; None: nobody knows."""
        if callable(self._hint):
            self._hint = self._hint()
        return self._hint

    @hint.setter
    def hint(self, hint: str | None) -> None:
        self._hint = hint

    def __reduce__(self) -> str | tuple[Any, ...]:
        self.hint = self.hint  # No other process has the function.
        return super().__reduce__()

    def __str__(self) -> str:
        where = [
            f"variable {shortened(self.variable)!r}" if self.variable is not None else None,
            shortened(str(self.path), _MOST_OF_PATH) if self.path is not None else None,
            f"byte {self.offset:,}" if self.offset is not None else None,
        ]
        return " · ".join(filter(None, [shortened(self.what), *where, shortened(self.hint or "")]))


def shortened(text: str, most: int = _MOST) -> str:
    """The text, cut if it is longer than a message can hold: a file may have names of megabytes."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


class FormatError(CheckpointError):
    """The file is not of the kind that was asked for."""


class CorruptionError(CheckpointError):
    """The file is of the right kind, and damaged."""


class NotSupportedError(CheckpointError):
    """The file is sound, and ckpttool can't do this with it."""


class NotFoundError(CheckpointError, KeyError):
    """No such file, variable, op or collection. (A KeyError, so that mappings behave as mappings.)"""


class ConversionError(CheckpointError):
    """The target format can't hold this."""


EXISTS = "the output exists"
IS_INPUT = "the output is the input"


def in_the_way(path: str | os.PathLike[str], what: str = EXISTS) -> FileExistsError:
    """The error of an output that may not be written because of what is there; `force` overrules EXISTS alone."""
    return FileExistsError(errno.EEXIST, what, os.fspath(path))


Report = Callable[[CheckpointError], None]
"""Takes an error after which a reader can go on. It may raise it, as `refuse` does."""


def refuse(error: CheckpointError) -> None:
    """Raises the error: the whole is to be sound."""
    raise error


def reporter(path: str, faults: list[CheckpointError] | None) -> Report:
    """A Report that adds errors to a list, with the path; without a list, one that raises them."""
    if faults is None:
        return refuse

    def report(error: CheckpointError) -> None:
        error.path = path if error.path is None else error.path
        faults.append(error.with_traceback(None))  # Which would hold on to what was being read.

    return report


class located:  # noqa: N801 - used as a function; a generator would take three times as long, of each variable
    """Adds the path and the variable to a CheckpointError that passes without them.

    With `in_record`, an offset is taken away: it counts from the start of a record, and would mislead.
    """

    __slots__ = ("_in_record", "_path", "_variable")

    def __init__(self, path: str | None = None, variable: str | None = None, *, in_record: bool = False) -> None:
        self._path, self._variable, self._in_record = path, variable, in_record

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CheckpointError):
            if self._in_record and error.path is None:
                error.offset = None
            error.path = self._path if error.path is None else error.path
            error.variable = self._variable if error.variable is None else error.variable
