"""Damaged and malicious bundles: each ends in the error that is meant for it, at once, naming what is damaged.

Sound bundles that are out of the ordinary stand beside them, and are read.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bundles import (
    Bundle,
    block,
    block_of,
    bundle,
    encode_strings,
    field,
    header,
    shape_message,
    slice_message,
    snappied,
    strings,
    table,
    time_limit,
    with_trailer,
)

import ckpttool
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotFoundError, NotSupportedError
from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.wire.coding import encode_fixed64, encode_varint
from ckpttool.wire.sstable import MAGIC, BlockHandle, Footer

WHOLE = {
    "a": np.arange(6, dtype=np.int32).reshape(2, 3),
    "s": strings(b"hello", b""),
    "w": np.arange(4, dtype=np.float32),
}


def sound() -> Bundle:
    return bundle(WHOLE)


def sliced(**changes: Any) -> Bundle:
    """A bundle with a partitioned variable "p" of two slices, beside "w"."""
    arrays = {"p": np.arange(12, dtype=np.float32).reshape(4, 3), "w": WHOLE["w"]}
    pieces = [((0, 2), (0, 3)), ((2, 2), (0, 3))]
    return bundle(arrays, slices={"p": changes.get("pieces", pieces)})


def check_all(prefix: str, expected: dict[str, np.ndarray[Any, Any]]) -> None:
    checkpoint = read_bundle(prefix)
    assert list(checkpoint) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(checkpoint[name].numpy(), array, strict=True)


# Indexes that are no sound tables


def index_table(**changes: Any) -> bytes:
    """The index of `sound`, with something about its table changed."""
    pairs = sorted(sound().records.items())
    contents = changes.pop("contents", block_of(pairs))
    store = changes.pop("data", with_trailer)
    return table([(b"x", store(contents))], **changes)


def with_index_handle(handle: BlockHandle) -> bytes:
    return index_table(footer=lambda footer: Footer(footer.metaindex_handle, handle).encode())


def with_data_handle(handle: BlockHandle) -> bytes:
    return index_table(index=lambda pairs: block_of([(b"x", handle.encode())], 1))


HEADER = header(num_shards=1)

TABLES: dict[str, tuple[bytes, type[CheckpointError], str]] = {
    "empty file": (b"", FormatError, "too short|empty"),
    "47 bytes": (bytes(47), FormatError, "too short"),
    "zeros": (bytes(1000), FormatError, "magic"),
    "bad magic": (index_table()[:-1] + b"\x00", FormatError, "magic"),
    "footer's varint has no end": (bytes(50) + b"\xff" * 40 + encode_fixed64(MAGIC), CorruptionError, "varint"),
    "index past the end": (with_index_handle(BlockHandle(2**20, 8)), CorruptionError, "bad block handle"),
    "index of 2**40 bytes": (with_index_handle(BlockHandle(0, 2**40)), CorruptionError, "bad block handle"),
    "index of 2**63 bytes": (with_index_handle(BlockHandle(0, 2**63)), CorruptionError, "bad block handle"),
    "index of 2**64 - 5 bytes": (with_index_handle(BlockHandle(0, 2**64 - 5)), CorruptionError, "bad block handle"),
    "index at 2**64 - 1": (with_index_handle(BlockHandle(2**64 - 1, 8)), CorruptionError, "bad block handle"),
    "index is the footer": (with_index_handle(BlockHandle(len(index_table()) - 48, 43)), CorruptionError, "handle"),
    "data past the end": (with_data_handle(BlockHandle(2**20, 8)), CorruptionError, "bad block handle"),
    "data of 2**40 bytes": (with_data_handle(BlockHandle(0, 2**40)), CorruptionError, "larger than the file"),
    "data of 2**64 - 1 bytes": (with_data_handle(BlockHandle(0, 2**64 - 1)), CorruptionError, "larger than the file"),
    "data amid a block": (with_data_handle(BlockHandle(1, 20)), CorruptionError, "checksum"),
    "checksum": (index_table(data=lambda c: with_trailer(c)[:-1] + b"?"), CorruptionError, "block checksum mismatch"),
    "compression 2": (index_table(data=lambda c: with_trailer(c, 2)), NotSupportedError, "bad block type"),
    "compression 255": (index_table(data=lambda c: with_trailer(c, 255)), NotSupportedError, "bad block type"),
    "no snappy stream": (index_table(data=lambda c: with_trailer(c, 1)), CorruptionError, "compressed"),
    "snappy bomb of 4 GiB": (
        index_table(data=lambda c: with_trailer(encode_varint(2**32 - 1) + b"\x00abcdef", 1)),
        CorruptionError,
        "hold",
    ),
    "snappy bomb of 100 MB": (
        index_table(data=lambda c: with_trailer(encode_varint(10**8) + b"\x00a" + b"\xfe\x01\x00" * 999, 1)),
        CorruptionError,
        "hold",
    ),
    "snappy of a cut stream": (index_table(data=lambda c: with_trailer(snappied(c)[:-9], 1)), CorruptionError, "compr"),
    "too many restarts": (index_table(contents=block([(0, b"", HEADER)], count=9)), CorruptionError, "restarts"),
    "2**32 - 1 restarts": (index_table(contents=block([(0, b"", HEADER)], count=2**32 - 1)), CorruptionError, "rest"),
    "restart past the end": (index_table(contents=block([(0, b"", HEADER)], (0, 900))), CorruptionError, "restart"),
    "restarts descending": (index_table(contents=block([(0, b"", HEADER)], (0, 3, 2))), CorruptionError, "restart"),
    "no restarts": (index_table(contents=block([(0, b"", HEADER)], count=0)), CorruptionError, "header"),
    "no blocks": (table([]), CorruptionError, "header"),
    "shares more than there is": (
        index_table(contents=block([(0, b"", HEADER), (0, b"a", b""), (2, b"b", b"")])),
        CorruptionError,
        "bad entry",
    ),
    "value past the end": (index_table(contents=b"\x00\x00\x7f" + block([])), CorruptionError, "bad entry"),
    "length of 33 bits": (
        index_table(contents=b"\x00\x00\xff\xff\xff\xff\x1f" + block([])),
        CorruptionError,
        "varint",
    ),
    "unsorted": (
        index_table(contents=block([(0, b"", HEADER), (0, b"b", b""), (0, b"a", b"")])),
        CorruptionError,
        "bad entry",
    ),
    "duplicate": (
        index_table(contents=block([(0, b"", HEADER), (0, b"a", b""), (0, b"a", b"")])),
        CorruptionError,
        "bad entry",
    ),
    "a thousand times one block": (
        index_table(index=lambda pairs: block_of([(b"%04d" % i, pairs[0][1]) for i in range(1000)], 1)),
        CorruptionError,
        "larger than the file",
    ),
}


@pytest.mark.parametrize(("index", "kind", "text"), TABLES.values(), ids=TABLES.keys())
def test_damaged_table(index: bytes, kind: type[CheckpointError], text: str, tmp_path: Path) -> None:
    """An index that is no sound table is refused, with its path, and at once."""
    prefix = sound().write(tmp_path, index=index)
    with time_limit(2), pytest.raises(CheckpointError, match=text) as caught:
        read_bundle(prefix)
    assert type(caught.value) is kind
    assert caught.value.path == index_path(prefix)


def test_no_index(tmp_path: Path) -> None:
    """A prefix without an index is not found."""
    with pytest.raises(NotFoundError):
        read_bundle(str(tmp_path / "none"))


def test_index_is_a_directory(tmp_path: Path) -> None:
    """A directory in the place of the index is refused."""
    (tmp_path / "model.index").mkdir()
    with pytest.raises(FormatError):
        read_bundle(str(tmp_path / "model"))


# Headers and entries


def records(**changed: bytes | None) -> Callable[[], Bundle]:
    """`sound` with records put in or taken out; `header` stands for the empty key."""

    def make() -> Bundle:
        made = sound()
        for name, value in changed.items():
            key = b"" if name == "header" else name.encode()
            if value is None:
                del made.records[key]
            else:
                made.records[key] = value
        return made

    return make


def changed(name: str, **fields: Any) -> Callable[[], Bundle]:
    return lambda: sound().change(name, **fields)


def empty(**fields: Any) -> Callable[[], Bundle]:
    """A bundle without variables and data files."""
    return lambda: Bundle({b"": header(**fields)}, [])


V1 = field(1, field(1, field(1, b"w")))

REFUSED: dict[str, tuple[Callable[[], Bundle], type[CheckpointError], str | None, str]] = {
    "no header": (records(header=None), CorruptionError, None, "no header"),
    "header is no message": (records(header=b"\x08"), CorruptionError, None, ""),
    "header is text": (records(header=b"hello, world"), CorruptionError, None, ""),
    "header of V1": (records(header=V1), FormatError, None, "V1"),
    "0 shards": (records(header=header()), CorruptionError, None, "0 shards"),
    "-1 shards": (records(header=header(num_shards=-1)), CorruptionError, None, "-1 shards"),
    "2**31 - 1 shards": (records(header=header(num_shards=2**31 - 1)), CorruptionError, None, "shards"),
    "2**62 shards": (records(header=field(1, 2**62)), CorruptionError, None, "shards"),
    "-1 shards of nothing": (empty(num_shards=-1), CorruptionError, None, "shards"),
    "2**31 - 1 shards of nothing": (empty(num_shards=2**31 - 1), CorruptionError, None, "shards"),
    "byte order 2": (records(header=field(1, 1) + field(2, 2)), CorruptionError, None, "byte order"),
    "min_consumer 2": (
        records(header=header(num_shards=1, version={"min_consumer": 2})),
        NotSupportedError,
        None,
        "Checkpoint min consumer version 2 above current version 1",
    ),
    "bad consumer": (
        records(header=header(num_shards=1, version={"bad_consumers": [1]})),
        NotSupportedError,
        None,
        "Checkpoint disallows consumer version 1",
    ),
    "producer -1": (
        records(header=header(num_shards=1, version={"producer": -1})),
        NotSupportedError,
        None,
        "Checkpoint producer version -1 below min producer 0",
    ),
    "entry is no message": (records(w=b"\x08"), CorruptionError, "w", ""),
    "entry is text": (records(w=b"hello"), CorruptionError, "w", ""),
    "entry of 12 bytes of ff": (records(w=b"\xff" * 12), CorruptionError, "w", ""),
    "shape is no message": (records(w=field(1, 1) + field(2, b"\x12\x09")), CorruptionError, "w", ""),
    "negative dimension": (changed("w", shape=[-4]), CorruptionError, "w", "shape"),
    "two negative dimensions": (changed("w", shape=[-2, -2]), CorruptionError, "w", "shape"),
    "2**64 elements": (changed("w", shape=[2**32, 2**32]), CorruptionError, "w", "shape"),
    "2**126 elements": (changed("w", shape=[2**63 - 1, 2**63 - 1]), CorruptionError, "w", "shape"),
    "rank 255": (changed("w", shape=[1] * 255), CorruptionError, "w", "shape"),
    "unknown rank": (records(w=field(1, 1) + field(2, field(3, 1))), CorruptionError, "w", "unknown rank"),
    "shard 1 of 1": (changed("w", shard_id=1), CorruptionError, "w", "shard 1"),
    "shard -1": (changed("w", shard_id=-1), CorruptionError, "w", "shard -1"),
    "shard 2**31 - 1": (changed("w", shard_id=2**31 - 1), CorruptionError, "w", "shard"),
    "negative offset": (changed("w", offset=-1), CorruptionError, "w", "offset -1"),
    "negative size": (changed("w", size=-16), CorruptionError, "w", ""),
    "negative size of strings": (changed("s", size=-16), CorruptionError, "s", ""),
    "size too small": (changed("w", size=15), CorruptionError, "w", "Invalid size"),
    "size too large": (changed("w", size=17), CorruptionError, "w", "Invalid size"),
    "size 0": (changed("w", size=0), CorruptionError, "w", "Invalid size"),
    "another dtype": (changed("w", dtype=2), CorruptionError, "w", "Invalid size"),
    "another shape": (changed("w", shape=[5]), CorruptionError, "w", "Invalid size"),
    "no shape": (records(w=field(1, 1) + field(5, 16)), CorruptionError, "w", "Invalid size"),
}


@pytest.mark.parametrize(("make", "kind", "variable", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(
    make: Callable[[], Bundle], kind: type[CheckpointError], variable: str | None, text: str, tmp_path: Path
) -> None:
    """A header or an entry that can't be is refused when the bundle is opened, naming index and variable."""
    prefix = make().write(tmp_path)
    with time_limit(2), pytest.raises(CheckpointError, match=text or None) as caught:
        read_bundle(prefix)
    assert type(caught.value) is kind
    assert (caught.value.path, caught.value.variable) == (index_path(prefix), variable)


ACCEPTED: dict[str, tuple[Callable[[], Bundle], dict[str, np.ndarray[Any, Any]]]] = {
    "sound": (sound, WHOLE),
    "no version": (records(header=header(num_shards=1)), WHOLE),
    "nothing in no shards": (empty(), {}),
    "nothing in one shard": (empty(num_shards=1), {}),
}


@pytest.mark.parametrize(("make", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(make: Callable[[], Bundle], expected: dict[str, np.ndarray[Any, Any]], tmp_path: Path) -> None:
    """What is unusual and sound is read."""
    check_all(make().write(tmp_path), expected)


def test_missing_shape(tmp_path: Path) -> None:
    """An entry without a shape is a scalar."""
    made = bundle({"x": np.array(1.5, np.float32)})
    without = made.records[b"x"].replace(b"\x12\x00", b"", 1)
    assert without != made.records[b"x"]
    made.records[b"x"] = without
    check_all(made.write(tmp_path), {"x": np.array(1.5, np.float32)})


def test_rank_254(tmp_path: Path) -> None:
    """A variable of the highest rank is listed; NumPy has no array for it, and the error says so."""
    variable = sound().change("w", shape=[1] * 252 + [2, 2]).open(tmp_path)["w"]
    assert len(variable.shape) == 254
    with pytest.raises(NotSupportedError, match="rank 254"):
        variable.numpy()


# Entries that are listed and can't be read


@pytest.mark.parametrize("dtype", [0, 20, 21, 34, 99, 101, 107, 5_000_000_000, 2**63 - 1, -1])
def test_dtypes_without_values(dtype: int, tmp_path: Path) -> None:
    """A variable of a dtype that has no values on disk is listed and can't be read; the others can."""
    made = sound().change("w", dtype=dtype)
    checkpoint = made.open(tmp_path)
    assert list(checkpoint) == ["a", "s", "w"]
    assert checkpoint["w"].dtype.number == dtype
    with pytest.raises(NotSupportedError) as caught:
        checkpoint["w"].numpy()
    assert caught.value.variable == "w"
    np.testing.assert_array_equal(checkpoint["a"].numpy(), WHOLE["a"])


def cut(data: bytes) -> bytes:
    return data[:-1]


def string_data(data: bytes, count: int) -> Callable[[], Bundle]:
    """A variable "w" of `count` strings that are these bytes."""

    def make() -> Bundle:
        made = bundle({"w": strings(b"?")}).change("w", shape=[count], size=len(data))
        made.shards = [data]
        return made

    return make


def with_data(make: Callable[[], Bundle], change: Callable[[bytes], bytes | None]) -> Callable[[], Bundle]:
    def made() -> Bundle:
        whole = make()
        whole.shards = [change(data or b"") for data in whole.shards]
        return whole

    return made


UNREADABLE: dict[str, tuple[Callable[[], Bundle], str]] = {
    "missing file": (with_data(sound, lambda data: None), "missing"),
    "empty file": (with_data(sound, lambda data: b""), "truncated"),
    "truncated file": (with_data(sound, cut), "truncated"),
    "checksum": (changed("w", crc32c=1), "Checksum does not match"),
    "changed value": (with_data(sound, lambda data: data[:-1] + b"?"), "Checksum does not match"),
    "offset past the end": (changed("w", offset=1000), "truncated"),
    "offset one too far": (changed("w", offset=36), "truncated"),
    "offset 2**63 - 1": (changed("w", offset=2**63 - 1), "truncated"),
    "2**38 floats of 16 bytes": (changed("w", shape=[2**38], size=2**40), "truncated"),
    "2**62 floats": (changed("w", shape=[2**60], size=2**62), "truncated"),
    "2**30 strings of 64 bytes": (string_data(bytes(64), 2**30), "strings are not in"),
    "2**62 strings of 64 bytes": (string_data(bytes(64), 2**62), "strings are not in"),
    "strings of 2**62 bytes": (lambda: string_data(bytes(64), 1)().change("w", size=2**62), "truncated"),
    "string of 2**40 bytes": (string_data(encode_varint(2**40) + bytes(60), 1), "are not in"),
    "string of 2**64 - 1 bytes": (string_data(encode_varint(2**64 - 1) + bytes(60), 1), "are not in"),
    "string's varint of 11 bytes": (string_data(b"\x80" * 11 + bytes(50), 1), "varint"),
    "string's varint of 65 bits": (string_data(b"\xff" * 9 + b"\x02" + bytes(50), 1), "varint"),
    "string's varint past the end": (string_data(b"\x80" * 5, 1), "varint"),
    "strings without bytes": (string_data(b"", 3), "strings are not in"),
    "more strings than that": (string_data(encode_strings([b"a", b"b"])[0], 3), "not"),
    "fewer strings than that": (string_data(encode_strings([b"a", b"b"])[0], 1), "are not in"),
    "strings' checksum": (string_data(encode_strings([b"a", b"b"])[0], 2), "Checksum does not match"),
}


@pytest.mark.parametrize(("make", "text"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_unreadable(make: Callable[[], Bundle], text: str, tmp_path: Path) -> None:
    """What is damaged in a data file is found when it is read, naming file and variable, with nothing allocated."""
    prefix = make().write(tmp_path)
    variable = read_bundle(prefix)["w"]
    for read in (variable.numpy, lambda: list(variable.blocks(8))):
        with time_limit(2), pytest.raises(CorruptionError, match=text) as caught:
            read()
        assert caught.value.variable == "w"
        assert caught.value.path == shard_path(prefix, 0, 1)


@pytest.mark.parametrize("kind", ["missing", "truncated", "offset"])
def test_no_ranges_outside_a_file(kind: str, tmp_path: Path) -> None:
    """Runs of bytes are given out only where the file has them."""
    made = sound()
    if kind == "offset":
        made.change("w", offset=2**63 - 1)
    else:
        made.shards = [None if kind == "missing" else cut(made.shards[0] or b"")]
    variable = made.open(tmp_path)["w"]
    with pytest.raises(CorruptionError) as caught:
        _ = variable.ranges
    assert caught.value.variable == "w"


def test_missing_shard(tmp_path: Path) -> None:
    """A missing data file is a warning when the bundle is opened, and the variables in the others are read."""
    made = bundle({name: np.full(3, i) for i, name in enumerate("abcd")}, shards=2)
    made.shards[0] = None
    checkpoint = made.open(tmp_path)
    assert len(checkpoint.warnings) == 1
    assert "-00000-of-00002" in checkpoint.warnings[0]
    np.testing.assert_array_equal(checkpoint["b"].numpy(), np.full(3, 1))
    with pytest.raises(CorruptionError, match="missing"):
        checkpoint["a"].numpy()


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_data_file_is_no_file(kind: str, tmp_path: Path) -> None:
    """A directory or a pipe in the place of a data file is refused, and nobody waits for it."""
    made = sound()
    made.shards = [None]
    prefix = made.write(tmp_path)
    path = shard_path(prefix, 0, 1)
    os.mkdir(path) if kind == "directory" else os.mkfifo(path)
    variable = read_bundle(prefix)["w"]
    with time_limit(2), pytest.raises(FormatError, match="not a regular file") as caught:
        variable.numpy()
    assert (caught.value.path, caught.value.variable) == (path, "w")


NAMES = [
    b"../../x",
    b"/abs",
    b"a\x00b",
    b"..",
    b" ",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b"a" * 5000,
    b"\x1b[2J",
]


@pytest.mark.parametrize("name", NAMES, ids=[repr(name[:9]) for name in NAMES])
def test_names_are_bytes(name: bytes, tmp_path: Path) -> None:
    """A name may be any bytes: it is listed, found, and gives the same bytes back."""
    made = bundle({"w": WHOLE["w"]})
    made.records[name] = made.records.pop(b"w")
    checkpoint = made.open(tmp_path)
    (listed,) = checkpoint
    assert listed.encode(errors="surrogateescape") == name
    np.testing.assert_array_equal(checkpoint[listed].numpy(), WHOLE["w"])


def test_header_that_counts_an_empty_shard(tmp_path: Path) -> None:
    """Files numbered otherwise than the header says are used if there is one set of them, with a warning."""
    made = bundle(WHOLE, num_shards=3)
    checkpoint = made.open(tmp_path)
    assert "3 shards" in checkpoint.warnings[0]
    np.testing.assert_array_equal(checkpoint["w"].numpy(), WHOLE["w"])


def test_overlapping_variables(tmp_path: Path) -> None:
    """Variables that share their bytes are read: TensorFlow accepts them too."""
    made = bundle({"a": WHOLE["w"]})
    made.records[b"b"] = made.records[b"a"]
    check_all(made.write(tmp_path), {"a": WHOLE["w"], "b": WHOLE["w"]})


# Slices


def with_pieces(*pieces: tuple[tuple[int, int], ...]) -> Callable[[], Bundle]:
    """`sliced` whose whole entry lists other slices than there are."""

    def make() -> Bundle:
        made = sliced()
        whole = field(1, 1) + field(2, shape_message([4, 3]).SerializeToString())
        made.records[b"p"] = whole + b"".join(field(7, slice_message(p).SerializeToString()) for p in pieces)
        return made

    return make


def with_slice_entry(change: Callable[[Bundle, bytes], object]) -> Callable[[], Bundle]:
    def make() -> Bundle:
        made = sliced()
        change(made, made.slice_key("p", 1))
        return made

    return make


TOP, BOTTOM = ((0, 2), (0, 3)), ((2, 2), (0, 3))

BAD_SLICES: dict[str, tuple[Callable[[], Bundle], str]] = {
    "overlap": (with_pieces(TOP, ((1, 3), (0, 3))), "overlapping slices"),
    "duplicate": (with_pieces(TOP, BOTTOM, BOTTOM), "overlapping slices"),
    "gap and overlap": (with_pieces(TOP, TOP), "overlapping slices"),
    "two ways to say all": (with_pieces(((0, 4), (0, 3)), ((0, -1), (0, -1))), "overlapping slices"),
    "out of bounds": (with_pieces(TOP, ((2, 3), (0, 3))), "outside the shape"),
    "negative start": (with_pieces(TOP, ((-2, 2), (0, 3))), "outside the shape"),
    "start and length overflow": (with_pieces(TOP, ((2**63 - 1, 2**63 - 1), (0, 3))), "outside the shape"),
    "all from a start": (with_pieces(TOP, ((2, -1), (0, -1))), "outside the shape"),
    "rank too low": (with_pieces(TOP, ((2, 2),)), "rank 1"),
    "rank too high": (with_pieces(TOP, (*BOTTOM, (0, 1))), "rank 3"),
    "rank 0": (with_pieces(()), "rank 0"),
    "missing entry": (with_pieces(TOP, ((2, 2), (0, -1))), "is missing"),
    "another dtype": (with_slice_entry(lambda made, key: made.change(key, dtype=3)), "is stored as int32"),
    "another shape": (with_slice_entry(lambda made, key: made.change(key, shape=[3, 2])), r"stored as float32\[3, 2\]"),
    "too small a shape": (with_slice_entry(lambda made, key: made.change(key, shape=[1, 3], size=12)), "is stored as"),
    "slices of a slice": (
        with_slice_entry(
            lambda made, key: made.records.__setitem__(
                key, made.records[key] + field(7, slice_message(TOP).SerializeToString())
            )
        ),
        "",
    ),
    "entry of a slice is no message": (
        with_slice_entry(lambda made, key: made.records.__setitem__(key, b"\x08")),
        "",
    ),
    "entry of a slice has another size": (with_slice_entry(lambda made, key: made.change(key, size=3)), "Invalid size"),
    "entry of a slice is in no shard": (
        with_slice_entry(lambda made, key: made.change(key, shard_id=7)),
        "shard 7 of 1",
    ),
    "extent is no message": (records(p=field(1, 1) + field(7, field(1, b"\x08"))), ""),
}


@pytest.mark.parametrize(("make", "text"), BAD_SLICES.values(), ids=BAD_SLICES.keys())
def test_bad_slices(make: Callable[[], Bundle], text: str, tmp_path: Path) -> None:
    """Slices that are not all there, or not what they should be, are refused when the bundle is opened."""
    prefix = make().write(tmp_path)
    with time_limit(2), pytest.raises(CorruptionError, match=text or None) as caught:
        read_bundle(prefix)
    assert caught.value.path == index_path(prefix)
    assert caught.value.variable is not None


def test_slices_are_read(tmp_path: Path) -> None:
    """A partitioned variable is one variable, and its slices are none."""
    made = sliced()
    checkpoint = made.open(tmp_path)
    assert list(checkpoint) == ["p", "w"]
    assert [(piece.start, piece.shape) for piece in checkpoint["p"].slices] == [((0, 0), (2, 3)), ((2, 0), (2, 3))]
    np.testing.assert_array_equal(checkpoint["p"].numpy(), np.arange(12, dtype=np.float32).reshape(4, 3))


def test_damage_in_a_slice(tmp_path: Path) -> None:
    """A slice with a wrong checksum makes the whole variable unreadable."""
    made = sliced()
    variable = made.change(made.slice_key("p", 1), crc32c=1).open(tmp_path)["p"]
    with pytest.raises(CorruptionError, match="Checksum does not match") as caught:
        variable.numpy()
    assert caught.value.variable == "p"


@pytest.mark.parametrize(
    ("array", "pieces"),
    [
        (np.arange(512, dtype=np.int16).reshape((2,) * 9), [((i, 1), *[(0, -1)] * 8) for i in range(2)]),
        (np.arange(6, dtype=np.float16), [((0, 2),), ((2, 4),)]),
        (np.arange(6).reshape(2, 3), [((0, -1), (0, -1))]),
        (np.array(7.0), [()]),
        (np.arange(6), [((0, 0),), ((0, 6),)]),
        (np.arange(6), [((3, 3),), ((0, 3),)]),
        (strings(b"a", b"", b"ccc"), [((0, 1),), ((1, 2),)]),
        (np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3), [((0, 2), (0, 1)), ((0, 2), (1, 2))]),
        (np.zeros((0, 3)), [((0, 0), (0, 3))]),
    ],
    ids=["rank 9", "half", "one full slice", "scalar", "an empty slice", "unsorted", "strings", "bfloat16", "no rows"],
)
def test_slices_that_tensorflow_can_not_read(array: np.ndarray[Any, Any], pieces: list[Any], tmp_path: Path) -> None:
    """Slices of any rank and any dtype are put together, in whatever order and form they are stored."""
    made = bundle({"p": array}, slices={"p": pieces}, shards=2)
    check_all(made.write(tmp_path), {"p": array})


def test_variable_named_like_a_slice(tmp_path: Path) -> None:
    """A variable whose name looks like the key of a slice that nobody lists is a variable."""
    name = encode_slice_key(b"w", ((0, 2),)).decode(errors="surrogateescape")
    made = sound()
    made.records[encode_slice_key(b"w", ((0, 2),))] = made.records[b"w"]
    assert list(made.open(tmp_path)) == [name, "a", "s", "w"]


# Byte by byte


def readings(prefix: str) -> dict[str, bytes]:
    """Everything that a bundle says, values included."""
    checkpoint = read_bundle(prefix)
    return {v.name: repr((v.dtype, v.shape, v.numpy().tolist())).encode() for v in checkpoint.values()}


@pytest.mark.parametrize("snappy", [False, True], ids=["plain", "snappy"])
def test_every_truncation_of_the_index(snappy: bool, tmp_path: Path) -> None:
    """An index cut off at any byte is refused."""
    made = sliced()
    made.snappy = snappy
    index = made.index
    for size in range(len(index)):
        with pytest.raises(CheckpointError):
            made.open(tmp_path, index=index[:size])


@pytest.mark.parametrize("snappy", [False, True], ids=["plain", "snappy"])
def test_every_byte_of_the_index(snappy: bool, tmp_path: Path) -> None:
    """An index of which one byte is another raises, or says the same as before."""
    made = sliced()
    made.snappy = snappy
    prefix = made.write(tmp_path)
    before, index, harmless = readings(prefix), made.index, 0
    for position in range(len(index)):
        for flip in (0x01, 0x80, 0xFF):
            other = bytearray(index)
            other[position] ^= flip
            Path(index_path(prefix)).write_bytes(other)
            try:
                assert readings(prefix) == before
            except CheckpointError:
                continue
            harmless += 1
    assert harmless <= 3 * (len(snappied(block_of([]))) + 40)  # The metaindex, its handle, and the footer's padding.


def test_every_byte_of_the_data(tmp_path: Path) -> None:
    """A data file of which one byte is another makes that byte's variable unreadable, and no other."""
    made = sound()
    prefix = made.write(tmp_path)
    before, data = readings(prefix), made.shards[0] or b""
    path = Path(shard_path(prefix, 0, 1))
    checkpoint = read_bundle(prefix)
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            other = bytearray(data)
            other[position] ^= flip
            path.write_bytes(other)
            damaged = []
            for variable in checkpoint.values():
                try:
                    array = variable.numpy()
                except CorruptionError:
                    damaged.append(variable.name)
                else:
                    assert repr((variable.dtype, variable.shape, array.tolist())).encode() == before[variable.name]
            assert len(damaged) == 1


def test_every_truncation_of_the_data(tmp_path: Path) -> None:
    """A data file cut off at any byte makes the variables beyond unreadable, and leaves those before it."""
    made = sound()
    prefix = made.write(tmp_path)
    checkpoint, data = read_bundle(prefix), made.shards[0] or b""
    for size in range(len(data)):
        Path(shard_path(prefix, 0, 1)).write_bytes(data[:size])
        for variable in checkpoint.values():
            span = variable.slices[0].data
            if span.offset + span.nbytes <= size:
                variable.numpy()
            else:
                with pytest.raises(CorruptionError):
                    variable.numpy()


# Bundles of big-endian machines and old writers


ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    **{
        dtype: np.array([[1, 2, 3], [100, 0, 77]], dtype)
        for dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    **{dtype: np.array([1.5, -0.0, np.inf, 1e-3], dtype) for dtype in ("float16", "float32", "float64")},
    **{dtype: np.array([1 + 2j, -3.5j, 1e3], dtype) for dtype in ("complex64", "complex128")},
    "bool": np.array([True, False]),
    "bfloat16": np.array([1, -2.5, 3e38], ml_dtypes.bfloat16),
    "float8_e5m2": np.array([1, -2.5], ml_dtypes.float8_e5m2),
    "int4": np.array([1, -2, 7], ml_dtypes.int4),
    "scalar": np.array(258, np.int32),
    "empty": np.zeros((0, 3), np.int32),
    "string": strings(b"hello", b"", "\u00fc".encode(), b"x" * 200).reshape(2, 2),
    "no strings": strings(),
    "partitioned": np.arange(12, dtype=np.int64).reshape(4, 3),
}
PIECES = {"partitioned": [((0, 1), (0, 3)), ((1, 3), (0, 2)), ((1, 3), (2, 1))]}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("snappy", [False, True], ids=["plain", "snappy"])
@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_writers(big_endian: bool, snappy: bool, shards: int, tmp_path: Path) -> None:
    """Every dtype is read from writers of either byte order, with compressed indexes too, and in several shards."""
    made = bundle(ARRAYS, big_endian=big_endian, snappy=snappy, shards=shards, slices=PIECES)
    check_all(made.write(tmp_path), ARRAYS)


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_writers_in_small_blocks(big_endian: bool, tmp_path: Path) -> None:
    """Blocks of a few values are the same values, whatever the byte order."""
    checkpoint = bundle(ARRAYS, big_endian=big_endian, slices=PIECES).open(tmp_path)
    for name, array in ARRAYS.items():
        filled = np.empty_like(array)
        for selection, part in checkpoint[name].blocks(5):
            filled[selection] = part
        np.testing.assert_array_equal(filled, array)


def test_big_endian_bytes(tmp_path: Path) -> None:
    """Big-endian values are swapped, component by component."""
    made = bundle({"c": np.array([1 + 2j], np.complex64), "i": np.array([258], np.int16)}, big_endian=True)
    assert made.shards == [bytes.fromhex("3f800000" + "40000000" + "0102")]
    checkpoint = made.open(tmp_path)
    assert checkpoint["c"].numpy().tolist() == [1 + 2j]
    assert checkpoint["i"].numpy().tolist() == [258]


@pytest.mark.tensorflow
def test_tensorflow_reads_them(tmp_path: Path) -> None:
    """The bundles that these tests make are sound: TensorFlow reads the same values from them."""
    tf = pytest.importorskip("tensorflow")
    skipped = {"int4", "float8_e5m2"}  # TensorFlow's reader gives no such arrays.
    arrays = {name: array for name, array in ARRAYS.items() if name not in skipped}
    for snappy in (False, True):
        made = bundle(arrays, snappy=snappy, shards=2, slices=PIECES)
        reader = tf.train.load_checkpoint(made.write(tmp_path))
        assert sorted(reader.get_variable_to_shape_map()) == sorted(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(reader.get_tensor(name), array)


def test_what_looks_like_a_slice_and_a_header_that_miscounts(tmp_path: Path) -> None:
    """A variable that is named as a slice is dropped where entries may be lost, not where shards are miscounted."""
    made = bundle({"w": np.arange(8.0), "x": np.zeros(2)}, slices={"w": [((0, 4),), ((4, 4),)]}, num_shards=9)
    del made.records[b"w"]
    prefix = made.write(tmp_path)
    faults: list[CheckpointError] = []
    assert list(read_bundle(prefix, faults=faults)) == list(read_bundle(prefix))
    assert [fault.what.partition(";")[0] for fault in faults] == ["the header counts 9 shards, the files are 1"]


def test_a_header_that_miscounts_no_data(tmp_path: Path) -> None:
    """Where there is no variable, it does not matter how many files there should be: it is opened past damage too."""
    prefix = bundle({}, num_shards=7).write(tmp_path)
    faults: list[CheckpointError] = []
    assert (dict(ckpttool.open_checkpoint(prefix, faults=faults)), faults) == ({}, [])
    assert not ckpttool.open_checkpoint(prefix).warnings
