"""Every writer: whatever dies or fails on the way, the old output is whole, and the next run tidies up.

`test_bundle_replacing` does this for bundles in more detail; these are the others, through the same harness.
"""

import dis
import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from threading import Event, Thread
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest
from bundles import bundle
from conftest import FIXTURES, ROOT
from privileges import unprivileged
from test_bundle_replacing import NEW, OLD, dies_at, fails_at, values

from ckpttool.errors import CorruptionError
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.checkpoint_state import STATE_FILE, add_to_checkpoint_state, read_checkpoint_state
from ckpttool.formats.hdf5 import write_hdf5
from ckpttool.formats.meta_graph import read_meta_graph, write_meta_graph
from ckpttool.formats.npy import write_npy, write_npy_file
from ckpttool.formats.npz import write_npz
from ckpttool.formats.opening import open_checkpoint
from ckpttool.formats.safetensors import write_safetensors
from ckpttool.formats.saved_model.writing import write_saved_model
from ckpttool.formats.tensor_slices.writing import write_tensor_slices
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.storage import temporaries
from ckpttool.transforms.serving import servable


class Writer(NamedTuple):
    """What writes one of two contents, "old" or "new", over whatever is there; and what says which is there.

    Attributes:
        write: writes a content into a directory.
        read: the content that is there; None if there is no output.
        kept: the name under which the old one may be while the new one takes its place; "" if it never is.
    """

    write: Callable[[Path, str], object]
    read: Callable[[Path], object]
    name: str
    kept: str = ""


_inputs: dict[str, Checkpoint] = {}


@pytest.fixture(autouse=True, scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The checkpoints that are written."""
    for name, arrays in (("old", OLD), ("new", NEW)):
        _inputs[name] = bundle(arrays).open(tmp_path_factory.mktemp(name))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def _content(checkpoint: Checkpoint) -> dict[str, object]:
    return {
        name: bytes(np.asarray(v.numpy()).data) if v.dtype.itemsize else v.strings() for name, v in checkpoint.items()
    }


def _of_checkpoint(write: Callable[..., object], name: str, **options: Any) -> Writer:
    def read(directory: Path) -> object:
        path = directory / name
        return _content(open_checkpoint(path)) if os.path.lexists(path) and _has_output(path) else None

    return Writer(lambda directory, which: write(_inputs[which], directory / name, force=True, **options), read, name)


def _has_output(path: Path) -> bool:
    """Whether something is there by that name: of a directory in shards, the index."""
    return not (path.name == "shards" and not (path / "model.safetensors.index.json").exists())


def _graph(which: str) -> Any:
    return read_meta_graph(str(FIXTURES / {"old": "devices", "new": "linear"}[which] / "model.meta"))


def _write_graph(directory: Path, which: str) -> None:
    write_meta_graph(_graph(which), directory / "out.meta", force=True)


def _read_graph(directory: Path) -> object:
    return (directory / "out.meta").read_bytes() if (directory / "out.meta").exists() else None


def _write_saved_model(directory: Path, which: str) -> None:
    prefix = str(FIXTURES / "linear" / "model")
    graph = read_meta_graph(f"{prefix}.meta")
    key = {"old": "a", "new": "b"}[which]
    served = servable(graph, read_bundle(prefix), {"x": "x:0"}, {key: "activation_opt:0"})
    write_saved_model(served.graph, served.variables, directory / "served", force=True)


def _read_saved_model(directory: Path) -> object:
    path = directory / "served"
    if not path.exists():
        return None
    [signature] = [s for key, s in read_meta_graph(str(path / "saved_model.pb")).signatures.items() if key[0] != "_"]
    return list(signature.outputs), _content(open_checkpoint(path))


def _write_state(directory: Path, which: str) -> None:
    for step in (1, 2):
        (directory / f"m-{step}.index").touch()
    add_to_checkpoint_state(str(directory / "m-1"), force=True)
    if which == "new":
        add_to_checkpoint_state(str(directory / "m-2"), force=True)
    else:
        (directory / "m-2.index").unlink()


def _read_state(directory: Path) -> object:
    path = directory / STATE_FILE
    return read_checkpoint_state(str(path)).latest if path.exists() else None


def _write_array(directory: Path, which: str) -> None:
    write_npy_file(_inputs[which]["a"], directory / "a.npy", force=True)


def _read_array(directory: Path) -> object:
    path = directory / "a.npy"
    return np.load(path).tolist() if path.exists() else None


WRITERS = {
    "h5": _of_checkpoint(write_hdf5, "out.h5"),
    "h5, gzip": _of_checkpoint(write_hdf5, "out.h5", compression="gzip"),
    "npz": _of_checkpoint(write_npz, "out.npz"),
    "npy": _of_checkpoint(write_npy, "arrays")._replace(kept="arrays.replaced"),
    "safetensors": _of_checkpoint(write_safetensors, "out.safetensors")._replace(kept="out.safetensors.replaced"),
    "safetensors, shards": _of_checkpoint(write_safetensors, "shards", max_shard_size=600)._replace(kept="*"),
    "tf-v1": _of_checkpoint(write_tensor_slices, "v1"),
    "meta": Writer(_write_graph, _read_graph, "out.meta"),
    "saved-model": Writer(_write_saved_model, _read_saved_model, "served", "served.replaced"),
    "state": Writer(_write_state, _read_state, STATE_FILE),
    "cat --npy": Writer(_write_array, _read_array, "a.npy"),
}
every_writer = pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())


def everything(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def fresh(writer: Writer, directory: Path, which: str) -> tuple[object, list[str]]:
    """A content as an undisturbed run writes it over the old one: what is read, and all the files."""
    directory.mkdir()
    writer.write(directory, "old")
    writer.write(directory, which)
    return writer.read(directory), everything(directory)


def assert_old_or_new(writer: Writer, directory: Path, old: object, new: object) -> None:
    """What bears the name is whole; if nothing does, the old one is whole beside."""
    found = writer.read(directory)
    if found is not None:
        assert found in (old, new)
        return
    assert writer.kept, "the old output is gone"
    again = directory.with_name(f"{directory.name}-again")
    shutil.copytree(directory, again)
    if writer.kept == "*":  # Several files; each has its name and a suffix.
        for path in again.rglob("*.replaced"):
            path.rename(path.with_name(path.name.removesuffix(".replaced")))
    else:
        (again / writer.kept).rename(again / writer.name)
    assert writer.read(again) == old


@every_writer
def test_death_at_every_call(tmp_path: Path, writer: Writer) -> None:
    """Wherever the process dies, the old output or the new one is whole; the next run leaves the new one, and nothing
    beside it.
    """
    old, _ = fresh(writer, tmp_path / "old", "old")
    new, names = fresh(writer, tmp_path / "new", "new")
    assert None not in (old, new)
    assert old != new
    died = 0
    for number in count():
        directory = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", directory)
        if not dies_at(number, lambda: writer.write(directory, "new")):  # noqa: B023 - called at once
            break
        died += 1
        assert_old_or_new(writer, directory, old, new)
        writer.write(directory, "new")
        assert writer.read(directory) == new
        assert everything(directory) == names
    assert died > 3, "hardly a call was seen"


@every_writer
def test_death_while_a_new_one_is_written(tmp_path: Path, writer: Writer) -> None:
    """Where nothing was, a run that dies leaves nothing by that name, or the whole."""
    new, names = fresh(writer, tmp_path / "new", "new")
    if writer.name == STATE_FILE:
        pytest.skip("its first content is the other one")
    died = 0
    for number in count():
        directory = tmp_path / str(number)
        directory.mkdir()
        if not dies_at(number, lambda: writer.write(directory, "new")):  # noqa: B023 - called at once
            break
        died += 1
        assert writer.read(directory) in (None, new)
        writer.write(directory, "new")
        assert everything(directory) == names
    assert died > 1, "hardly a call was seen"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=["full", "interrupt"])
@every_writer
def test_failure_of_every_call(tmp_path: Path, writer: Writer, error: BaseException) -> None:
    """Whichever call fails, the old output is as it was and nothing is beside it, or the new one is whole."""
    old, before = fresh(writer, tmp_path / "old", "old")
    new, _ = fresh(writer, tmp_path / "new", "new")
    failed = 0
    for number in count():
        directory = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", directory)
        if not fails_at(number, error, lambda: writer.write(directory, "new")):  # noqa: B023 - called at once
            if writer.read(directory) != new:  # A failure that was passed over.
                assert number
                continue
            if failed:
                break
        failed += 1
        found = writer.read(directory)
        assert found in (old, new)
        left = [name for name in everything(directory) if "/." in f"/{name}"]
        assert not left
        if found == old and writer.name != STATE_FILE:
            assert everything(directory) == before
        if number > 500:
            raise AssertionError("does not end")
    assert failed > 3


INSTRUCTIONS = ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME")
"""Those after which Python calls what handles a signal."""


@cache
def _interruptible(code: CodeType) -> set[int]:
    """The instructions of a function before which a signal may be handled."""
    found = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
    return {after.offset for before, after in pairwise(found) if before.opname in INSTRUCTIONS}


def interrupted_at(number: int, act: Callable[[], object]) -> bool:
    """Whether an interrupt comes before this is done, at the instruction of that number of the storage's."""
    numbers, here = count(), False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal here
        if not frame.f_code.co_filename.startswith(os.path.dirname(temporaries.__file__)):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _interruptible(frame.f_code) and next(numbers) == number:
            here = True
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return here


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="CPython 3.12.1 loses the events of opcodes, and crashes")
@pytest.mark.parametrize("target", [*WRITERS, "tf"])
def test_interrupt_at_every_instruction(tmp_path: Path, target: str) -> None:
    """Between whichever two instructions of the storage an interrupt comes, the old output is there or the new one, and
    nothing beside; where there was none, nothing, or all of it.
    """
    writer = WRITERS[target] if target != "tf" else Writer(_write_bundle, lambda path: values(path / "model"), "model")
    for there in (True, False) if target != "state" else (True,):
        before, after, directory = tmp_path / f"before-{there}", tmp_path / f"after-{there}", tmp_path / "x"
        before.mkdir()
        if there:
            writer.write(before, "old")
        shutil.copytree(before, after)
        writer.write(after, "new")
        old, new, names = writer.read(before), writer.read(after), everything(before)
        for number in count():
            shutil.copytree(before, directory)
            came = interrupted_at(number, lambda: writer.write(directory, "new"))  # noqa: B023 - called at once
            found, left = writer.read(directory), everything(directory)
            assert found in (old, new), number
            assert not [name for name in left if "/." in f"/{name}"], number
            if found == old and writer.name != STATE_FILE:
                assert left == names, number
            shutil.rmtree(directory)
            if not came:
                break
        assert number > 20


def _write_bundle(directory: Path, which: str) -> None:
    shards = {"old": 2, "new": 3}[which]
    write_bundle(_inputs[which], directory / "model", force=True, num_shards=shards)


def test_interrupt_while_a_member_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt inside zipfile is one, and not its complaint that a member is not ended."""

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile, "_get_compressor", interrupt)
    with pytest.raises(KeyboardInterrupt):
        WRITERS["npz"].write(tmp_path, "new")
    assert everything(tmp_path) == []


@every_writer
def test_what_another_process_is_writing_stays(tmp_path: Path, writer: Writer) -> None:
    """Two at a time: neither takes the other's temporaries for those of a dead one, and both end well."""
    tmp_path.joinpath("x").mkdir()
    directory = tmp_path / "x"
    writer.write(directory, "old")
    started, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            real = os.replace, os.link, os.rename

            def waiting(number: int) -> Callable[..., object]:
                def call(*arguments: Any, **options: Any) -> object:
                    os.write(started[1], b"x")
                    os.read(go_on[0], 1)
                    os.replace, os.link, os.rename = real
                    return real[number](*arguments, **options)

                return call

            os.replace, os.link, os.rename = waiting(0), waiting(1), waiting(2)
            writer.write(directory, "new")
            os._exit(0)
        finally:
            os._exit(1)
    os.read(started[0], 1)
    hidden = {name for name in everything(directory) if "/." in f"/{name}"}
    assert hidden
    writer.write(directory, "old")
    assert hidden <= set(everything(directory))
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    "target", [name for name, w in WRITERS.items() if name not in ("meta", "saved-model", "state")]
)
def test_source_that_changes_while_it_is_read(tmp_path: Path, target: str) -> None:
    """A source whose bytes change, or that is cut off, on the way ends in an error, with the old output in place."""
    writer = WRITERS[target]
    for change in ("changed", "cut"):
        directory, source = tmp_path / change, tmp_path / f"{change}-source"
        directory.mkdir()
        source.mkdir()
        writer.write(directory, "old")
        before = writer.read(directory)
        made = bundle(NEW)
        opened = made.open(source)
        data = made.shards[0] or b""
        path = source / "model.data-00000-of-00001"
        path.write_bytes(data[:100] + b"!" + data[101:] if change == "changed" else data[:100])
        kept, _inputs["new"] = _inputs["new"], opened
        try:
            with pytest.raises(CorruptionError):
                writer.write(directory, "new")
        finally:
            _inputs["new"] = kept
        assert writer.read(directory) == before
        assert not [name for name in everything(directory) if "/." in f"/{name}"]


@pytest.mark.parametrize(("target", "member"), [("npy", "index.json"), ("saved-model", "saved_model.pb")])
def test_directories_keep_their_modes(tmp_path: Path, target: str, member: str) -> None:
    """A directory that is replaced, and what has the same names in it, is open to nobody to whom it was not."""
    writer = WRITERS[target]
    writer.write(tmp_path, "old")
    directory = tmp_path / writer.name
    inner = [path for path in directory.iterdir() if path.is_dir()]
    for path, mode in [(directory, 0o700), (directory / member, 0o640), *((each, 0o2710) for each in inner)]:
        path.chmod(mode)
    writer.write(tmp_path, "new")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / member, *inner)]
    assert modes == [0o700, 0o640, *(0o2710 for _ in inner)]


def test_disk_that_is_full(tmp_path: Path) -> None:
    """Where files can't grow, each export ends with an error, code 3, one line, and no file."""
    arrays = {"w": np.random.default_rng(0).random(60_000)}
    source = bundle(arrays).write(tmp_path)
    for target, name in (
        *(
            ("h5", "o.h5"),
            ("npz", "o.npz"),
            ("npy", "o"),
            ("safetensors", "o.safetensors"),
            ("tf", "o"),
            ("tf-v1", "o"),
        ),
    ):
        out = tmp_path / target
        out.mkdir()
        done = _limited("export", source, f"--{target}", out / name)
        assert done.returncode == 3, done.stderr
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert everything(out) == []


def _limited(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """The command, in a process that may not make files of more than 100 kB."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "ckpttool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, preexec_fn=limit)


@pytest.mark.parametrize("path", ["out.npz", "arrays"])
def test_a_run_that_begins_before_another_has_locked_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """It may take what the other has just made for a dead one's, and remove it; both end well, the last one stays."""
    arrays = [bundle({"w": np.full(2, number)}).write(tmp_path, str(number)) for number in range(2)]
    old, new = map(open_checkpoint, arrays)
    write = write_npy if path == "arrays" else write_npz
    flock, others = fcntl.flock, [new]

    def late(*arguments: Any) -> None:
        if others:
            write(others.pop(), tmp_path / path)
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    write(old, tmp_path / path, force=True)
    assert open_checkpoint(tmp_path / path)["w"].numpy().tolist() == [0, 0]
    assert not list(tmp_path.glob(".*"))


def test_what_is_taken_for_dead_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who locks a file while another removes it waits for that, and makes it anew."""
    beside = temporaries.temporary(tmp_path / "out", temporaries.new_token())
    temporaries.make(beside)
    entered, left = Event(), Event()

    def write() -> None:
        with temporaries.locked(beside):
            entered.set()
            left.wait(30)

    def slow(path: Path) -> None:
        writer.start()
        assert not entered.wait(0.3)
        path.unlink()

    writer = Thread(target=write)
    monkeypatch.setattr(temporaries, "_remove", slow)
    temporaries.clear_dead(tmp_path / "out")
    try:
        assert entered.wait(30)
        assert beside.exists()
        temporaries.clear_dead(tmp_path / "out")  # It is locked now.
        assert beside.exists()
    finally:
        left.set()
        writer.join()


@every_writer
def test_directory_that_may_not_be_written(tmp_path: Path, writer: Writer) -> None:
    """A directory that may not be written is an error, and the old output stays."""
    directory = tmp_path / "x"
    directory.mkdir()
    writer.write(directory, "old")
    before, names = writer.read(directory), everything(directory)

    directories = [directory, *(path for path in directory.rglob("*") if path.is_dir())]  # Shards are written into one.

    def write() -> None:
        for each in reversed(directories):
            each.chmod(0o500)
        with pytest.raises(PermissionError):
            writer.write(directory, "new")
        for each in directories:
            each.chmod(0o700)

    unprivileged(write)
    assert (writer.read(directory), everything(directory)) == (before, names)


@pytest.mark.parametrize("target", ["npy", "saved-model"])
def test_directory_of_which_nothing_may_be_removed(tmp_path: Path, target: str) -> None:
    """It is not replaced, for it would stay, under a temporary name."""
    writer = WRITERS[target]
    writer.write(tmp_path, "old")
    before, names, directory = writer.read(tmp_path), everything(tmp_path), tmp_path / writer.name

    def write() -> None:
        for path in [directory, *(each for each in directory.iterdir() if each.is_dir())]:
            path.chmod(0o500)
            with pytest.raises(PermissionError, match="may not be removed") as caught:
                writer.write(tmp_path, "new")
            assert caught.value.filename == str(path)
            path.chmod(0o700)

    unprivileged(write)
    assert (writer.read(tmp_path), everything(tmp_path)) == (before, names)


def test_closed_pipe() -> None:
    """A reader that goes away ends the command with 141, and without a word."""
    for arguments in (["vars", "many/model"], ["ls", "conv/model.meta", "--ops"], ["stats", "many/model", "--json"]):
        path = str(FIXTURES / arguments[1])
        command = [sys.executable, "-m", "ckpttool", arguments[0], path, *arguments[2:], "-q"]
        end, closed = os.pipe()
        os.close(end)
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        os.close(closed)
        assert (done.returncode, done.stderr) == (141, ""), arguments


def test_interrupt(tmp_path: Path) -> None:
    """An interrupted export ends with 130, says so, and leaves nothing."""
    source = tmp_path / "in"
    source.mkdir()
    prefix = bundle({"w": np.zeros(1000)}).write(source)
    script = (
        "import os, signal, sys\n"
        "from ckpttool import storage\n"
        "from ckpttool.storage import writing\n"
        "real = os.pwrite\n"
        "def pwrite(*arguments):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(*arguments)\n"
        "os.pwrite = pwrite\n"
        "from ckpttool.cli import main\n"
        "main()\n"
    )
    for target, name in (("h5", "o.h5"), ("npy", "o"), ("safetensors", "o.safetensors"), ("tf", "o")):
        out = tmp_path / target
        out.mkdir()
        command = [sys.executable, "-c", script, "export", prefix, f"--{target}", str(out / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stderr) == (130, "interrupted\n"), (target, done.stderr)
        assert everything(out) == []
