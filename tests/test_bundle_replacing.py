"""Bundles that replace others: whatever dies or fails on the way, one of the two is whole."""

import builtins
import errno
import fcntl
import io
import os
import shutil
import stat
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle
from privileges import unprivileged

from ckpttool.errors import CheckpointError, CorruptionError
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.tensor_slices.reading import read_tensor_slices
from ckpttool.formats.tensor_slices.writing import write_tensor_slices

OLD = {"a": np.full(300, 1.0), "b": np.array([b"old", b"one"], object), "c": np.full(5, 3, np.int8)}
NEW = {"a": np.full(200, 2.0), "b": np.array([b"new"], object), "d": np.full((3, 3), 4, np.int64)}
# Shards before and after.
SHARDS = [(2, 1), *(pytest.param(shards, marks=pytest.mark.slow) for shards in [(1, 1), (1, 3), (2, 2)])]

# What changes files, and so what a process can die before, or in.
CALLS = ["open", "replace", "rename", "link", "unlink", "fsync", "chmod"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Tests ask when files are synced, and do not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def hook(monkeypatch: pytest.MonkeyPatch, before: Callable[[Callable[[], object]], None]) -> None:
    """Calls `before` at every call that changes files, with what writes half of what that one would write."""

    def hooked(real):
        def call(*arguments, **options):
            if real is not opens or arguments[1] & os.O_CREAT:
                before(lambda: None)
            return real(*arguments, **options)

        return call

    def pwrite(target, data, offset, real=os.pwrite):
        before(lambda: real(target, memoryview(data)[: len(data) // 2], offset))
        return real(target, data, offset)

    def open_file(path, mode="r", *arguments, real=open, **options):
        file = real(path, mode, *arguments, **options)
        if "w" in mode:
            write = file.write

            def write_or_die(data):
                before(lambda: (write(data[: len(data) // 2]), file.flush()))
                return write(data)

            file.write = write_or_die
        return file

    opens = os.open
    for name in CALLS:
        monkeypatch.setattr(os, name, hooked(getattr(os, name)))
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(builtins, "open", open_file)
    monkeypatch.setattr(io, "open", open_file)  # What pathlib opens with.


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments, **options):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", link)


def dies_at(number: int, act: Callable[[], object], *, links: bool = True) -> bool:
    """Whether a process that does this dies, if it does so at the call of that number (from 0)."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 77), code
        return code == 77
    try:
        patch, calls = pytest.MonkeyPatch(), count()

        def before(half: Callable[[], object]) -> None:
            if next(calls) == number:
                half()
                os._exit(77)

        if not links:
            without_links(patch)
        hook(patch, before)
        act()
        os._exit(0)
    finally:
        os._exit(1)


def fails_at(number: int, error: BaseException, act: Callable[[], object], *, for_ever: bool = False) -> bool:
    """Whether this raises the error, if the call of that number does so; and, `for_ever`, all calls from there on."""
    calls = count()

    def before(half: Callable[[], object]) -> None:
        found = next(calls)
        if found == number:
            half()
        if found == number or (for_ever and found > number):
            raise error

    with pytest.MonkeyPatch.context() as patch:
        hook(patch, before)
        try:
            act()
        except type(error):
            return True
    return False


class Death(BaseException):
    """What, raised by every call from some point on, leaves the files as a death there would: cheaper than a fork."""


def values(prefix: Path) -> dict[str, bytes] | None:
    """All values of a bundle; None if there is no index. A bundle with an index must be whole."""
    if not os.path.exists(f"{prefix}.index"):
        return None
    checkpoint = read_bundle(str(prefix))
    assert not checkpoint.warnings
    return {
        name: bytes(np.asarray(v.numpy()).data) if v.dtype.itemsize else v.strings() for name, v in checkpoint.items()
    }


def values_of(arrays) -> dict[str, object]:
    return {name: list(array) if array.dtype == object else array.tobytes() for name, array in arrays.items()}


def names(directory: Path, *, hidden: bool = False) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if hidden or not path.name.startswith("."))


def replacing(tmp_path: Path, shards: tuple[int, int]):
    """A directory with the old bundle, and what replaces it by the new one there, or in a copy of it."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    bundle(OLD, shards=shards[0]).write(tmp_path / "old")
    new = bundle(NEW).open(tmp_path / "new")
    return tmp_path / "old", lambda directory: write_bundle(new, directory / "model", force=True, num_shards=shards[1])


def assert_one_is_whole(directory: Path) -> bool | None:
    """Whether the new one is there; None if the old one is, under the other name."""
    found, kept = values(directory / "model"), values(directory / "model.replaced")
    assert kept in (None, values_of(OLD))
    if found is None:
        assert kept
        return None
    assert found in (values_of(OLD), values_of(NEW))
    return found == values_of(NEW)


def bundle_names(shards: int) -> list[str]:
    return [*(f"model.data-{n:05}-of-{shards:05}" for n in range(shards)), "model.index"]


@pytest.mark.parametrize("links", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["links", "no links"])
@pytest.mark.parametrize("shards", SHARDS, ids=str)
def test_death_at_every_call(tmp_path, shards, links):
    """Wherever the process dies, the old bundle or the new one is whole; the next run replaces it and tidies up."""
    old, replace = replacing(tmp_path, shards)
    seen = []
    for number in count():
        directory = tmp_path / str(number)
        shutil.copytree(old, directory)
        died = dies_at(number, lambda: replace(directory), links=links)  # noqa: B023 - called at once
        seen.append(assert_one_is_whole(directory))
        replace(directory)
        assert values(directory / "model") == values_of(NEW)
        assert names(directory, hidden=True) == bundle_names(shards[1])
        if not died:
            break
    # First the old one, then for some calls the old one under the other name, then the new one.
    order = [seen[0], *(b for a, b in pairwise(seen) if a != b)]
    assert order == [False, None, True]
    assert len(seen) > 20


@pytest.mark.parametrize("shards", [(2, 1), (1, 3)], ids=str)
def test_death_after_death(tmp_path, shards):
    """A run that replaces what a dead one has left may die as well, anywhere, and the old one is still there."""
    old, replace = replacing(tmp_path, shards)
    lost = 0
    for first in count():
        directory = tmp_path / f"{first}"
        shutil.copytree(old, directory)
        if not fails_at(first, Death(), lambda: replace(directory), for_ever=True):  # noqa: B023 - called at once
            break
        if assert_one_is_whole(directory) is not None:
            continue
        lost += 1
        for second in count():
            again = tmp_path / f"{first}-{second}"
            shutil.copytree(directory, again)
            died = fails_at(second, Death(), lambda: replace(again), for_ever=True)  # noqa: B023 - called at once
            assert_one_is_whole(again)
            replace(again)
            assert values(again / "model") == values_of(NEW)
            assert names(again, hidden=True) == bundle_names(shards[1])
            if not died:
                break
    assert lost == 2 + shards[1]


def test_death_while_a_new_one_is_written(tmp_path):
    """Where nothing was, a run that dies leaves no index, or a whole bundle."""
    (tmp_path / "new").mkdir()
    new = bundle(NEW, shards=2).open(tmp_path / "new")
    for number in count():
        directory = tmp_path / str(number)
        directory.mkdir()
        died = dies_at(number, lambda: write_bundle(new, directory / "model"))  # noqa: B023 - called at once
        assert values(directory / "model") in (None, values_of(NEW))
        write_bundle(new, directory / "model", force=True)
        assert names(directory, hidden=True) == bundle_names(2)
        if not died:
            break
    assert number > 10


def test_what_another_process_is_writing_stays(tmp_path):
    """Files of a run that is alive are not taken for those of a dead one, and neither are files of others."""
    old, replace = replacing(tmp_path, (1, 2))
    others = [
        ".model.index.0123456789ab.tmp",
        ".other.index.ba9876543210.tmp",
        ".model.index.tmp",
        ".x.aaaaaaaaaaaa.tmp",
    ]
    for name in (*others, ".model.index.aaaaaaaaaaaa.tmp"):
        (old / name).touch()
    with open(old / others[0], "rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        replace(old)
    assert names(old, hidden=True) == sorted([*others[:-1], *bundle_names(2)])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupt"])
@pytest.mark.parametrize("shards", SHARDS, ids=str)
def test_failure_of_every_call(tmp_path, shards, error):
    """Whichever call fails, the old bundle has its names again and nothing else is left, or the new one is whole."""
    old, replace = replacing(tmp_path, shards)
    before = [(path.name, path.read_bytes()) for path in sorted(old.iterdir())]
    for number in count():
        directory = tmp_path / str(number)
        shutil.copytree(old, directory)
        failed = fails_at(number, error, lambda: replace(directory))  # noqa: B023 - called at once
        if values(directory / "model") == values_of(OLD):
            assert [(path.name, path.read_bytes()) for path in sorted(directory.iterdir())] == before
        else:
            assert values(directory / "model") == values_of(NEW)
            assert not [name for name in names(directory, hidden=True) if name.startswith(".")]
        if not failed:
            break
    assert number > 20


def test_what_is_on_the_disk_before_what(tmp_path, monkeypatch):
    """Also a machine that stops finds one of the two: each step is on the disk before one that relies on it."""
    old, replace = replacing(tmp_path, (1, 1))
    steps: list[tuple[str, str]] = []

    def spy(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*arguments, **options):
            steps.append((name, describe(*arguments)))
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    spy("fsync", lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split(".")[-1])
    for name in ("link", "replace"):
        spy(name, lambda _, target: Path(target).name)
    spy("unlink", lambda path, **_: Path(path).name)
    replace(old)
    data, index = bundle_names(1)
    kept_data, kept_index = (name.replace("model.", "model.replaced.") for name in (data, index))
    assert steps == [
        *(("fsync", "tmp"), ("fsync", "tmp")),
        *(("unlink", kept_index), ("unlink", kept_data)),  # In vain: no run has died here.
        *(("link", kept_data), ("link", kept_index), ("fsync", "old")),
        *(("unlink", index), ("fsync", "old")),
        *(("replace", data), ("replace", index), ("fsync", "old")),
        *(("unlink", kept_index), ("unlink", kept_data), ("fsync", "old")),
    ]


def test_too_little_space(tmp_path, monkeypatch):
    """A disk that has too little space is refused before anything is written."""
    old, replace = replacing(tmp_path, (1, 1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(OSError, match="no space left: 1,") as caught:
        replace(old)
    assert caught.value.errno == errno.ENOSPC
    assert names(old, hidden=True) == bundle_names(1)


def test_directory_that_may_not_be_written(tmp_path):
    """A directory that may not be written is an error, and the old one stays."""
    old, replace = replacing(tmp_path, (1, 1))

    def write():
        old.chmod(0o500)
        with pytest.raises(PermissionError):
            replace(old)
        old.chmod(0o700)

    unprivileged(write)
    assert values(old / "model") == values_of(OLD)
    assert names(old, hidden=True) == bundle_names(1)


@pytest.mark.parametrize("links", [True, False])
def test_files_that_may_not_be_removed(tmp_path, monkeypatch, links):
    """Somebody else's bundle in a sticky directory, where one may write but not remove: it stays, and it alone."""
    old, replace = replacing(tmp_path, (2, 1))
    before, others = names(old, hidden=True), {str(path) for path in old.iterdir()}

    def guarded(real, which):
        def call(*arguments, **options):
            if os.fspath(arguments[which]) in others:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(arguments[which]))
            return real(*arguments, **options)

        return call

    if not links:
        without_links(monkeypatch)
    monkeypatch.setattr(os, "unlink", guarded(os.unlink, 0))
    monkeypatch.setattr(os, "replace", guarded(os.replace, 1))
    with pytest.raises(PermissionError) as caught:
        replace(old)
    assert caught.value.filename == str(old / "model.index")
    assert names(old, hidden=True) == before
    assert values(old / "model") == values_of(OLD)


def test_damaged_source(tmp_path):
    """A source that turns out to be damaged leaves the old bundle as it was, and nothing beside it."""
    old, _ = replacing(tmp_path, (2, 1))
    made = bundle(NEW)
    made.shards = [made.shards[0][:-1] + b"\xff"]
    damaged = made.open(tmp_path / "new", index=None)
    before = names(old, hidden=True)
    with pytest.raises(CorruptionError, match="Checksum"):
        write_bundle(damaged, old / "model", force=True)
    assert names(old, hidden=True) == before
    assert values(old / "model") == values_of(OLD)


def test_not_without_force(tmp_path):
    """Without `force` no file of a bundle that is there is touched, also if it is an orphaned data file."""
    old, _ = replacing(tmp_path, (1, 1))
    new = bundle(NEW).open(tmp_path / "new")
    for gone in ("nothing", "model.index"):
        (old / gone).unlink(missing_ok=True)
        before = names(old, hidden=True)
        with pytest.raises(FileExistsError, match="the output exists"):
            write_bundle(new, old / "model")
        assert names(old, hidden=True) == before


def test_spellings_of_a_prefix(tmp_path, monkeypatch):
    """A prefix with two slashes, a dot, or nothing before it is replaced as any other."""
    old, _ = replacing(tmp_path, (1, 1))
    new = bundle(NEW).open(tmp_path / "new")
    monkeypatch.chdir(old)
    for prefix in (f"{old.parent}//old//model", f"{old}/./model", "./model", "model", "../old/model"):
        write_bundle(new, prefix, force=True)
        assert values(old / "model") == values_of(NEW)
        assert names(old, hidden=True) == bundle_names(1)


def test_what_looks_alike_stays(tmp_path):
    """Only the files of this very prefix are replaced; a name with the letters of a pattern is no pattern."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    new = bundle(NEW).open(tmp_path / "in")
    others = ["model-1.data-00000-of-00001", "m*.index", "xmodel.index", "model.data-0-of-1", "model.index.bak"]
    for name in (*others, "m*.data-00000-of-00002"):
        (tmp_path / "out" / name).write_text("mine")
    write_bundle(new, tmp_path / "out" / "model", force=True)
    assert names(tmp_path / "out") == sorted([*others, "m*.data-00000-of-00002", *bundle_names(1)])
    write_bundle(new, tmp_path / "out" / "m*", force=True)
    kept = [name for name in others if name != "m*.index"]
    assert names(tmp_path / "out") == sorted([*kept, *bundle_names(1), "m*.index", "m*.data-00000-of-00001"])


def test_permissions_are_kept(tmp_path):
    """A bundle that only its owner could read is replaced by one that only its owner can read, in every shard."""
    old, replace = replacing(tmp_path, (1, 3))
    for path in old.iterdir():
        path.chmod(0o600)
    replace(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in old.iterdir()} == {0o600}


def test_recovery_from_the_kept_one(tmp_path):
    """What a dead run has left under the other name can be written back, and is not removed: it is the input."""
    old, _ = replacing(tmp_path, (2, 1))
    for path in old.iterdir():
        path.rename(path.with_name(path.name.replace("model.", "model.replaced.")))
    kept = names(old)
    write_bundle(read_bundle(str(old / "model.replaced")), old / "model", force=True, num_shards=1)
    assert values(old / "model") == values_of(OLD)
    assert names(old) == sorted([*kept, *bundle_names(1)])
    with pytest.raises(FileExistsError, match="the input"):
        write_bundle(read_bundle(str(old / "model.replaced")), old / "model", force=True)
    assert names(old, hidden=True) == sorted([*kept, *bundle_names(1)])


def test_bundle_is_not_written_onto_itself(tmp_path):
    """The bundle that is read is never the one that is replaced, however it is spelled and cut."""
    old, _ = replacing(tmp_path, (2, 1))
    before = [(path.name, path.read_bytes()) for path in sorted(old.iterdir())]
    for prefix in (f"{old}/model", f"{old}/../old/model"):
        for shards in (None, 1, 2):
            with pytest.raises(FileExistsError, match="input"):
                write_bundle(read_bundle(str(old / "model")), prefix, force=True, num_shards=shards)
    assert [(path.name, path.read_bytes()) for path in sorted(old.iterdir())] == before


# V1: one file


def v1_values(path: Path) -> dict[str, object]:
    return {name: v.numpy().tolist() for name, v in read_tensor_slices([str(path)], path=str(path)).items()}


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_death_at_every_call_of_v1(tmp_path, there):
    """Wherever a process dies that writes a V1 checkpoint, its name bears the old one, the new one, or nothing."""
    made = {name: bundle(arrays).open(folder(tmp_path / name)) for name, arrays in (("old", OLD), ("new", NEW))}
    expected = [{name: array.tolist() for name, array in arrays.items()} for arrays in (OLD, NEW)]
    for number in count():
        path = folder(tmp_path / str(number)) / "model"
        if there:
            write_tensor_slices(made["old"], path)
        died = dies_at(number, lambda: write_tensor_slices(made["new"], path, force=True))  # noqa: B023
        if there or path.exists():
            assert v1_values(path) in expected
        write_tensor_slices(made["new"], path, force=True)
        assert v1_values(path) == expected[1]
        if not died:
            break
    assert number > 5


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_v1_of_a_damaged_source(tmp_path):
    """A damaged source leaves the old V1 checkpoint as it was, and nothing beside it."""
    write_tensor_slices(bundle(OLD).open(folder(tmp_path / "old")), tmp_path / "old" / "v1")
    made = bundle(NEW)
    made.shards = [made.shards[0][:-1] + b"\xff"]
    damaged = made.open(folder(tmp_path / "new"))
    before = names(tmp_path / "old", hidden=True)
    with pytest.raises(CheckpointError, match="Checksum"):
        write_tensor_slices(damaged, tmp_path / "old" / "v1", force=True)
    assert names(tmp_path / "old", hidden=True) == before
    assert v1_values(tmp_path / "old" / "v1") == {name: array.tolist() for name, array in OLD.items()}


def test_files_are_looked_at_once_each(tmp_path, monkeypatch):
    """Where twice as many shards replace as many others, twice as many files are looked at, and not four times."""
    looks = count()
    look = os.stat

    def counting(*args, **kwargs):
        next(looks)
        return look(*args, **kwargs)

    def looked(shards: int) -> int:
        arrays = {f"v{number:02}": np.float32(number) for number in range(shards)}
        prefixes = [bundle(arrays, shards=shards).write(tmp_path, f"{name}-{shards}") for name in ("new", "old")]
        before = next(looks)
        with monkeypatch.context() as patch:
            patch.setattr(os, "stat", counting)
            write_bundle(read_bundle(prefixes[0]), prefixes[1], force=True)
        return next(looks) - before

    once = looked(30)
    assert once > 60  # Each file of both.
    assert looked(60) < 2.2 * once
