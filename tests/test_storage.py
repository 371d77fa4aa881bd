"""Files: read in ranges, copied with their checksums tested, and written beside and renamed."""

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from bundles import examples, time_limit
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool import storage
from ckpttool.errors import CorruptionError, FormatError, NotFoundError
from ckpttool.model.slices import ByteRange
from ckpttool.storage import Content, reading
from ckpttool.wire.crc32c import crc32c

DATA = bytes(range(256)) * 40


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return str(path)


def span_of(path: str, offset: int = 0, nbytes: int = len(DATA)) -> ByteRange:
    return ByteRange(path, offset, nbytes, crc32c(DATA[offset : offset + nbytes]))


READERS: dict[str, Callable[[str], object]] = {
    "file_size": storage.file_size,
    "read_file": storage.read_file,
    "read_range": lambda path: storage.read_range(path, 0, 10),
    "read_chunks": lambda path: list(storage.read_chunks(ByteRange(path, 0, 10, None))),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_no_regular_file(read: Callable[[str], object], tmp_path: Path) -> None:
    """What is not there, a directory, and a pipe that nobody writes to are errors with their path, at once."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    for path, kind in [
        (str(tmp_path / "none"), NotFoundError),
        (str(tmp_path / "none" / "none"), NotFoundError),
        (str(tmp_path), FormatError),
        (fifo, FormatError),
    ]:
        with time_limit(2), pytest.raises(kind) as caught:
            read(path)
        assert caught.value.path == path


def test_file_in_the_way(source: str) -> None:
    """A path that goes through a file leads to no file."""
    with pytest.raises(NotFoundError):
        storage.file_size(f"{source}/x")


def test_read(source: str) -> None:
    """A file is read whole, and in part, up to its end."""
    assert storage.file_size(source) == len(DATA)
    assert storage.read_file(source) == DATA
    assert storage.read_range(source, 300, 20) == DATA[300:320]
    assert storage.read_range(source, len(DATA) - 3, 20) == DATA[-3:]
    assert storage.read_range(source, len(DATA) + 3, 20) == b""


def test_read_goes_on_after_a_short_one(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes are read also where the system gives fewer at a time, as Linux does beyond 2 GiB."""
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, nbytes, offset: pread(descriptor, min(nbytes, 7), offset))
    assert storage.read_range(source, 100, 50) == DATA[100:150]


# read_chunks


def test_errors_of_reading_name_the_file(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad disk is said of the file that is on it, and not of the one that is written."""

    def bad(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", bad)
    monkeypatch.setattr(os, "preadv", bad)
    reads = (lambda: storage.read_range(source, 0, 1), lambda: list(storage.read_chunks(ByteRange(source, 0, 1, None))))
    for read in reads:
        with pytest.raises(OSError, match="Input/output error") as caught, storage.write_beside(tmp_path / "out"):
            read()
        assert caught.value.filename == source


def test_errors_of_temporaries_name_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be done with a temporary, or with a file in one, is said of the output, which is what one knows."""

    def refuse(old: str | Path, new: str | Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(old), None, os.fspath(new))

    monkeypatch.setattr(os, "rename", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError) as caught, storage.write_beside(tmp_path / "out", force=True):
        pass
    assert str(caught.value) == f"[Errno 1] Operation not permitted: {str(tmp_path / 'out')!r}"
    writing = storage.write_directory(tmp_path / "new", force=False, inputs=(), is_ours=bool)
    with pytest.raises(PermissionError) as caught, writing as beside:
        refuse(beside / "x", "y")
    assert caught.value.filename == str(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_chunks_of_a_range(source: str) -> None:
    """A range is read in chunks of 512 KiB, or of the sizes that are asked for."""
    assert [bytes(chunk) for chunk in storage.read_chunks(span_of(source, 5, 100))] == [DATA[5:105]]
    chunks = [bytes(chunk) for chunk in storage.read_pieces(span_of(source, 5, 100), iter([1, 60, 2, 500]))]
    assert [len(chunk) for chunk in chunks] == [1, 60, 2, 37]
    assert b"".join(chunks) == DATA[5:105]


def test_chunks_of_a_large_file(tmp_path: Path) -> None:
    """A range larger than a chunk comes in several, and their checksums add up."""
    data = os.urandom((2 << 20) + 5)
    path = tmp_path / "large"
    path.write_bytes(data)
    sizes = [len(chunk) for chunk in storage.read_chunks(ByteRange(str(path), 0, len(data), crc32c(data)))]
    assert sizes == [512 << 10] * 4 + [5]


def test_nothing_to_read(source: str) -> None:
    """An empty range has no chunks, and a checksum of zero."""
    assert list(storage.read_chunks(ByteRange(source, 7, 0, 0))) == []
    with pytest.raises(CorruptionError):
        list(storage.read_chunks(ByteRange(source, 7, 0, 1)))


def test_chunks_without_a_checksum(source: str) -> None:
    """A range whose checksum nobody knows is read untested."""
    assert len(list(storage.read_chunks(ByteRange(source, 0, 10, None)))) == 1


def test_bad_checksum_comes_last(source: str) -> None:
    """A wrong checksum raises after the last chunk, with path, offset and both sums."""
    span = span_of(source, 3, 100)
    chunks = storage.read_pieces(span._replace(crc32c=1), iter([50, 50]))
    assert len(next(chunks)) == len(next(chunks)) == 50
    with pytest.raises(CorruptionError, match=f"stored 00000001 vs. calculated {span.crc32c:08x}") as caught:
        next(chunks)
    assert (caught.value.path, caught.value.offset) == (source, 3)


@pytest.mark.parametrize("offset", [0, 1, len(DATA) - 1, len(DATA), len(DATA) + 1, 2**62])
def test_chunks_beyond_the_end(source: str, offset: int) -> None:
    """A range that the file does not hold raises, whatever its checksum."""
    with pytest.raises(CorruptionError, match="the file ends") as caught:
        list(storage.read_chunks(ByteRange(source, offset, len(DATA) + 1, None)))
    assert caught.value.path == source


@examples
@given(st.integers(0, 300), st.integers(0, 300), st.lists(st.integers(1, 90), max_size=20))
def test_chunks_are_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, offset: int, nbytes: int, sizes: list[int]
) -> None:
    """Chunks of any sizes, put together, are the range."""
    path = tmp_path_factory.getbasetemp() / "chunks"
    path.write_bytes(DATA[:600])
    chunks = storage.read_pieces(span_of(str(path), offset, nbytes), iter([*sizes, 300]))
    assert b"".join(bytes(chunk) for chunk in chunks) == DATA[offset : offset + nbytes]


# write_contents


def copy(jobs: list[tuple[ByteRange, int]], target: Path, *progress: Callable[[int], None]) -> None:
    """Copies each range to its offset."""
    storage.write_contents(target, [(offset, Content.of_ranges([span])) for span, offset in jobs], *progress)


def test_copy(source: str, tmp_path: Path) -> None:
    """Ranges go to their places in the target, whose other bytes stay, and progress counts every byte."""
    target = tmp_path / "target"
    target.write_bytes(b"." * 50)
    done: list[int] = []
    jobs = [(span_of(source, 0, 10), 5), (span_of(source, 100, 20), 30), (span_of(source, 3, 0), 0)]
    copy(jobs, target, done.append)
    assert target.read_bytes() == b"." * 5 + DATA[:10] + b"." * 15 + DATA[100:120]
    assert sum(done) == 30


def test_copy_beyond_the_end_of_the_target(source: str, tmp_path: Path) -> None:
    """A target grows as far as needed, with zeros between."""
    target = tmp_path / "target"
    target.touch()
    copy([(span_of(source, 1, 3), 10)], target)
    assert target.read_bytes() == bytes(10) + DATA[1:4]


def test_copy_nothing(tmp_path: Path) -> None:
    """Nothing to copy leaves the target as it was."""
    target = tmp_path / "target"
    target.write_bytes(b"abc")
    copy([], target)
    assert target.read_bytes() == b"abc"


def test_several_ranges_in_a_row(source: str, tmp_path: Path) -> None:
    """A content of several ranges is these one after another, and its checksum that of all of them."""
    content = Content.of_ranges([span_of(source, 0, 10), span_of(source, 50, 7)])
    assert (content.nbytes, content.crc32c) == (17, None)
    target = tmp_path / "target"
    target.touch()
    storage.write_contents(target, [(2, content)])
    assert target.read_bytes() == bytes(2) + DATA[:10] + DATA[50:57]
    assert content.crc32c == crc32c(DATA[:10] + DATA[50:57])


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_copy_with_a_bad_checksum(source: str, tmp_path: Path, bad: int) -> None:
    """A wrong checksum of any of the ranges raises."""
    spans = [span_of(source, 100 * i, 100) for i in range(3)]
    spans[bad] = spans[bad]._replace(crc32c=0)
    target = tmp_path / "target"
    target.touch()
    with pytest.raises(CorruptionError, match="Checksum does not match") as caught:
        copy([(span, span.offset) for span in spans], target)
    assert caught.value.offset == 100 * bad


@examples
@given(
    st.lists(st.tuples(st.integers(0, 700), st.booleans(), st.booleans(), st.sampled_from([0, 0, 0, 3])), max_size=40)
)
def test_many_small_ranges(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bool, bool, int]]) -> None:
    """Ranges that lie one after another, in the source or in the target or in neither, all come to their places."""
    directory = tmp_path_factory.mktemp("many")
    source, target = directory / "source", directory / "target"
    source.write_bytes(DATA)
    target.touch()
    expected, contents, place = bytearray(), [], 0
    for nbytes, goes_on, has_checksum, gap in pieces:
        start = place if goes_on and place + nbytes <= len(DATA) else nbytes
        span = span_of(str(source), start, nbytes)
        expected += bytes(gap) + DATA[start : start + nbytes]
        content = Content.of_ranges([span if has_checksum else span._replace(crc32c=None)])
        contents.append((len(expected) - nbytes, content))
        place = start + nbytes
    done: list[int] = []
    storage.write_contents(target, contents, done.append)
    assert target.read_bytes() == bytes(expected).ljust(target.stat().st_size, b"\0")
    assert sum(done) == sum(content.nbytes for _, content in contents)
    assert all(content.crc32c == crc32c(expected[at : at + content.nbytes]) for at, content in contents)


@pytest.mark.parametrize("ends", [0, 150, 299])
def test_many_small_ranges_of_a_short_source(tmp_path: Path, ends: int) -> None:
    """Where the source ends inside the last of several ranges, that one is said to be cut off."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(DATA[:ends])
    target.touch()
    spans = [span_of(str(source), 100 * i, 100) for i in range(3)]
    with pytest.raises(CorruptionError, match="the file ends at") as caught:
        copy([(span, span.offset) for span in spans], target)
    assert caught.value.offset == ends


@pytest.mark.parametrize("offset", [1, len(DATA), 2**40])
def test_copy_of_a_short_source(source: str, tmp_path: Path, offset: int) -> None:
    """A source that ends inside its range raises, and does not go on for ever."""
    target = tmp_path / "target"
    target.touch()
    with time_limit(5), pytest.raises(CorruptionError, match="the file ends"):
        copy([(ByteRange(source, offset, len(DATA), None), 0)], target)


def test_copy_of_a_missing_source(tmp_path: Path) -> None:
    """A source that is not there raises."""
    target = tmp_path / "target"
    target.touch()
    with pytest.raises(NotFoundError):
        copy([(ByteRange(str(tmp_path / "none"), 0, 1, None), 0)], target)


# write_beside


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_write_a_new_file(tmp_path: Path) -> None:
    """A new file is written under another name beside its own, and only then has its own."""
    path = tmp_path / "out"
    with storage.write_beside(path) as beside:
        assert beside.parent == tmp_path
        assert beside.exists()
        beside.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["out"]


def test_write_takes_text_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path may be a text, and relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    with storage.write_beside("out") as beside:
        beside.write_bytes(b"new")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_permissions_of_a_new_file(tmp_path: Path) -> None:
    """A new file may be read by whomever the umask lets, as any other new file."""
    (tmp_path / "plain").touch()
    with storage.write_beside(tmp_path / "out"):
        pass
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_no_clobber(tmp_path: Path) -> None:
    """A file that is there is not replaced unless forced, and the block is not even begun."""
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="the output exists"), storage.write_beside(path):
        pytest.fail("begun")
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["out"]
    with storage.write_beside(path, force=True) as beside:
        beside.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["out"]


def test_no_clobber_of_a_dead_link(tmp_path: Path) -> None:
    """A symbolic link that leads nowhere is something that is there."""
    path = tmp_path / "out"
    path.symlink_to(tmp_path / "none")
    with pytest.raises(FileExistsError), storage.write_beside(path):
        pytest.fail("begun")


def test_no_clobber_of_what_has_come_meanwhile(tmp_path: Path) -> None:
    """A file that somebody else has written meanwhile is not replaced unless forced."""
    path = tmp_path / "out"
    with pytest.raises(FileExistsError), storage.write_beside(path):
        path.write_bytes(b"somebody's")
    assert path.read_bytes() == b"somebody's"
    assert names_in(tmp_path) == ["out"]


def test_none_of_several_where_one_has_come_meanwhile(tmp_path: Path) -> None:
    """Files that belong together get their names all or none, where somebody else has written one of them."""
    paths = [str(tmp_path / name) for name in "ab"]
    together = storage.write_together(paths, force=False, inputs=(), replaced={}, kept=())
    with pytest.raises(FileExistsError), together:
        Path(paths[1]).write_bytes(b"somebody's")
    assert names_in(tmp_path) == ["b"]
    assert Path(paths[1]).read_bytes() == b"somebody's"


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_failure_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """If the block fails, the old file is what it was, and no other file is left."""
    path = tmp_path / "out"
    for old in (None, b"old"):
        if old:
            path.write_bytes(old)
        with pytest.raises(error), storage.write_beside(path, force=True) as beside:  # noqa: PT012
            beside.write_bytes(b"half")
            raise error
        assert names_in(tmp_path) == (["out"] if old else [])
    assert path.read_bytes() == b"old"


def test_failure_to_rename_leaves_nothing(tmp_path: Path) -> None:
    """If the new file can't take its name, it is not left under the other one."""
    path = tmp_path / "out"
    path.mkdir()
    (path / "inside").touch()
    with pytest.raises(OSError, match="directory"), storage.write_beside(path, force=True) as beside:
        beside.write_bytes(b"new")
    assert names_in(tmp_path) == ["out"]


def test_replacing_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced only once the new one is on the disk."""
    path = tmp_path / "out"
    path.write_bytes(b"old")
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_bytes()))
    with storage.write_beside(path, force=True) as beside:
        beside.write_bytes(b"new")
    assert synced == [b"old", b"new"]  # The file before the renaming, the directory after it.


@pytest.mark.parametrize("kind", ["same path", "other spelling", "symbolic link", "hard link", "link to a link"])
def test_output_is_the_input(tmp_path: Path, kind: str) -> None:
    """The input is never the output, whatever name it is given and whatever is forced."""
    source = tmp_path / "in"
    source.write_bytes(b"precious")
    path = tmp_path / "out"
    if kind == "same path":
        path = source
    elif kind == "other spelling":
        (tmp_path / "d").mkdir()
        path = tmp_path / "d" / ".." / "in"
    elif kind == "hard link":
        os.link(source, path)
    else:
        target = source
        if kind == "link to a link":
            target = tmp_path / "link"
            target.symlink_to(source)
        path.symlink_to(target)
    before = names_in(tmp_path)
    for one, other in [(path, source), (source, path)]:
        inputs = [str(tmp_path / "none"), str(other)]
        with pytest.raises(FileExistsError, match="the input"), storage.write_beside(one, force=True, inputs=inputs):
            pytest.fail("begun")
    assert source.read_bytes() == b"precious"
    assert names_in(tmp_path) == before


def test_other_inputs(tmp_path: Path) -> None:
    """Inputs that are other files, or are not there, are in nobody's way."""
    (tmp_path / "in").touch()
    with storage.write_beside(tmp_path / "out", inputs=[str(tmp_path / "in"), str(tmp_path / "none")]):
        pass
    assert names_in(tmp_path) == ["in", "out"]


def test_no_such_directory(tmp_path: Path) -> None:
    """A directory that is not there is an error that names it."""
    with (
        pytest.raises(NotFoundError, match="no such directory") as caught,
        storage.write_beside(tmp_path / "d" / "out"),
    ):
        pytest.fail("begun")
    assert caught.value.path == str(tmp_path / "d")


@pytest.mark.parametrize(
    "name", ["a" * 255, "\u65e5" * 85, "a b\n'\"", "-out", ".out"], ids=["long", "long in bytes", "odd", "dash", "dot"]
)
def test_names_of_files(tmp_path: Path, name: str) -> None:
    """A file may have any name that the file system allows, also the longest."""
    with storage.write_beside(tmp_path / name) as beside:
        beside.write_bytes(b"new")
    assert names_in(tmp_path) == [name]


def test_lengths_are_remembered(tmp_path):
    """A file is asked for its size once for all that lies in it; one that has grown is asked again, one too short each
    time.
    """
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    lengths, asked = storage.Lengths(), []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading, "file_size", lambda path: asked.append(path) or os.stat(path).st_size)
        for end in (1, 10, 5, 0):
            lengths.require(ByteRange(str(path), 0, end, None))
        assert len(asked) == 1
        with pytest.raises(CorruptionError, match="it has 10 bytes, the variable needs 0 to 11"):
            lengths.require(ByteRange(str(path), 0, 11, None))
        path.write_bytes(bytes(11))
        lengths.require(ByteRange(str(path), 0, 11, None))
        assert len(asked) == 3
    with pytest.raises(CorruptionError, match="data file is missing"):
        lengths.require(ByteRange(str(tmp_path / "none"), 0, 0, None))


RESERVED = 64 << 20


def blocks(path: Path) -> int:
    """Bytes that a file takes of its file system."""
    return path.stat().st_blocks * 512


def can_reserve(directory: Path) -> bool:
    """Whether the file system gives blocks before they are written."""
    path = directory / "tried"
    path.touch()
    storage.reserve(path, RESERVED)
    return blocks(path) >= RESERVED


def test_blocks_are_reserved(tmp_path):
    """A file has its blocks at once, and is no larger for it; for a small one nothing is asked."""
    if not can_reserve(tmp_path):
        pytest.skip("this file system reserves no blocks")
    path = tmp_path / "file"
    path.write_bytes(b"head")
    storage.reserve(path, RESERVED)
    assert (path.read_bytes(), blocks(path) >= RESERVED) == (b"head", True)
    path = tmp_path / "small"
    path.touch()
    storage.reserve(path, 1 << 20)
    assert blocks(path) == 0


def test_what_cannot_be_reserved_is_no_error(tmp_path, monkeypatch):
    """More than any disk has, and a system without that function: whoever writes hears of it then."""
    path = tmp_path / "file"
    path.write_bytes(b"head")
    storage.reserve(path, 1 << 62)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    storage.reserve(path, RESERVED)
    assert path.read_bytes() == b"head"


@pytest.mark.parametrize("name", ["h5", "npz", "npy", "safetensors", "bundle", "v1"])
def test_what_is_reserved_is_written(tmp_path, name):
    """No writer asks for more than it writes: nothing of the disk is taken for a file that does not need it."""
    values = {"floats": np.ones(RESERVED >> 2, np.float32), "ones": np.ones(RESERVED >> 3, np.int64)}
    writers = {
        "h5": ckpttool.write_hdf5,
        "npz": ckpttool.write_npz,
        "npy": ckpttool.write_npy,
        "safetensors": ckpttool.write_safetensors,
        "bundle": ckpttool.write_bundle,
        "v1": ckpttool.write_tensor_slices,
    }
    (tmp_path / "out").mkdir()
    writers[name](ckpttool.from_arrays(values), tmp_path / "out" / name)
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert blocks(path) <= path.stat().st_size * 5 // 4 + (1 << 16), path


def test_without_threads(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no threads, or one, the work is done all the same."""
    start, given = Thread.start, count()

    def refuse(thread: Thread) -> None:
        if next(given) >= most:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", refuse)
    contents = [(offset, span_of(source, offset, 100)) for offset in range(0, 1000, 200)]
    for most in (0, 1):
        given, path = count(), tmp_path / f"{most}"
        path.touch()
        storage.write_contents(path, [(offset, Content.of_ranges([span])) for offset, span in contents])
        assert all(path.read_bytes()[offset : offset + 100] == DATA[offset : offset + 100] for offset, _ in contents)


def test_space_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that says of its size that it is 0 does not know it: whether there is space is found in writing."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 0))
    storage.require_space(tmp_path / "out", 1)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO])
def test_file_systems_that_do_not_sync(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file or a directory can't be synced, it is replaced without; an error of the disk is one."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(OSError, match="Input") if number == errno.EIO else nullcontext():  # noqa: SIM117
        with storage.write_beside(tmp_path / "out", force=True) as beside:
            beside.write_bytes(b"new")
    assert (tmp_path / "out").read_bytes() == (b"old" if number == errno.EIO else b"new")
    assert os.listdir(tmp_path) == ["out"]
