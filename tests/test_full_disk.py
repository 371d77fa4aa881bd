"""Every writer, where files can't grow beyond some size: the process dies there, inside C code too, or gets an error.

`test_replacing` dies at Python's calls, between writes: here the kernel ends the process, or the write, at any size
that a file reaches.
"""

import os
import resource
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundles import bundle
from test_bundle_replacing import NEW, OLD, names, values, values_of
from test_replacing import WRITERS, Writer, assert_old_or_new, everything, fresh, inputs, no_waiting

from ckpttool.formats.bundle.writing import write_bundle

__all__ = ["inputs", "no_waiting"]  # Fixtures.

_ANSWERED, _DONE = 3, 0


def ends(size: int, act: Callable[[], object], *, dies: bool) -> int:
    """How a process ends that does this where no file can grow beyond a size: it dies there, or gets an error."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if dies else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        act()
        code = _DONE
    except OSError:
        code = _ANSWERED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def sizes(directory: Path, step: int) -> Iterator[int]:
    """Sizes up to the largest file's, so many bytes apart, with those just below and at a whole file's."""
    found = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    yield from sorted({*range(0, max(found), step), *found, *(size - 1 for size in found)})


def _sweep(tmp_path: Path, writer: Writer, step: int, *, dies: bool) -> None:
    old, before = fresh(writer, tmp_path / "old", "old")
    new, after = fresh(writer, tmp_path / "new", "new")
    stopped = 0
    for size in sizes(tmp_path / "new", step):
        directory = tmp_path / str(size)
        shutil.copytree(tmp_path / "old", directory)
        code = ends(size, lambda: writer.write(directory, "new"), dies=dies)  # noqa: B023 - called at once
        assert code in (_DONE, -signal.SIGXFSZ if dies else _ANSWERED), (size, code)
        if code == _DONE:
            assert writer.read(directory) == new, size
        elif dies:
            assert_old_or_new(writer, directory, old, new)
        else:
            assert (writer.read(directory), everything(directory)) == (old, before), size
        stopped += code != _DONE
        writer.write(directory, "new")
        assert (writer.read(directory), everything(directory)) == (new, after), size
        shutil.rmtree(directory)
    assert stopped > 1


FEW = [name for name in WRITERS if name != "state"]  # Its first content is the other one.
few_writers = pytest.mark.parametrize("writer", [WRITERS[name] for name in FEW], ids=FEW)
how = pytest.mark.parametrize("dies", [True, False], ids=["dies", "full"])


@how
@few_writers
def test_at_some_sizes(tmp_path: Path, writer: Writer, dies: bool) -> None:
    """Where the process dies, or the disk is full, the old output is whole, and the next run tidies up."""
    _sweep(tmp_path, writer, 2_000, dies=dies)


@pytest.mark.slow
@how
@few_writers
def test_at_many_sizes(tmp_path: Path, writer: Writer, dies: bool) -> None:
    """The same for sizes 61 bytes apart: a page, a header, a table of HDF5 is written in part."""
    _sweep(tmp_path, writer, 61, dies=dies)


@how
@pytest.mark.parametrize("step", [300, pytest.param(13, marks=pytest.mark.slow)])
def test_bundles(tmp_path: Path, step: int, dies: bool) -> None:
    """A bundle in two shards is replaced whole, or the old one is there, and nothing beside it after an error."""
    (tmp_path / "in").mkdir()
    (tmp_path / "old").mkdir()
    new = bundle(NEW).open(tmp_path / "in")
    bundle(OLD, shards=2).write(tmp_path / "old")
    before = names(tmp_path / "old", hidden=True)
    stopped = 0
    for size in range(0, 2_000, step):
        directory = tmp_path / str(size)
        shutil.copytree(tmp_path / "old", directory)
        code = ends(size, lambda: write_bundle(new, directory / "model", force=True), dies=dies)  # noqa: B023
        assert code in (_DONE, -signal.SIGXFSZ if dies else _ANSWERED), (size, code)
        assert values(directory / "model") == values_of(OLD if code else NEW), size
        if code == _ANSWERED:
            assert names(directory, hidden=True) == before
        write_bundle(new, directory / "model", force=True)
        assert values(directory / "model") == values_of(NEW)
        assert not [name for name in names(directory, hidden=True) if name.startswith(".")]
        stopped += code != _DONE
    assert stopped > 1


@pytest.mark.parametrize("target", list(WRITERS))
def test_what_could_not_be_written_is_named(tmp_path: Path, target: str) -> None:
    """The error of a full disk says which file it was that had no room."""

    def write() -> None:
        try:
            WRITERS[target].write(tmp_path / "new", "new")
        except OSError as error:
            if error.filename:
                raise

    (tmp_path / "new").mkdir()
    assert ends(20, write, dies=False) == _ANSWERED
