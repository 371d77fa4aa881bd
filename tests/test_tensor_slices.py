"""V1 checkpoints: TensorFlow's own, the corpus', and ones made by hand that no writer would make."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import box, field, header, shape_message, slice_message, snappy_table, strings, table_of, time_limit
from conftest import CORPUS, corpus_id, needs_corpus
from google.protobuf.message import DecodeError

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotFoundError, NotSupportedError
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.formats.tensor_slices.reading import FORMAT, read_tensor_slices
from ckpttool.model.boxes import Extents
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.proto import message_class

Array = np.ndarray[Any, Any]
Records = dict[bytes, bytes]

# The field of each dtype, as core/util/saved_tensor_slice_util.h has it.
FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "float16": "half_val",
    "bool": "bool_val",
    "string": "string_val",
    "int64": "int64_val",
    **dict.fromkeys(["int32", "int16", "int8", "uint16", "uint8"], "int_val"),
    **dict.fromkeys(["qint32", "qint16", "qint8", "quint16", "quint8"], "int_val"),
}


# Files made by hand


def values_message(array: Array, dtype: str) -> Any:
    """A TensorProto as a V1 checkpoint has it: nothing but the values."""
    flat = np.ravel(array)
    if dtype == "float16":
        flat = flat.view(np.uint16)
    elif dtype.startswith("complex"):
        flat = flat.view(np.float32 if dtype == "complex64" else np.float64)
    return message_class("TensorProto")(**{FIELDS[dtype]: flat.tolist()})


def record(name: str, extents: Extents, data: Any) -> bytes:
    """The record of a slice; `data` a TensorProto, or its bytes."""
    data = data if isinstance(data, bytes) else data.SerializeToString()
    slice_ = slice_message(extents).SerializeToString()
    return field(2, field(1, name.encode()) + field(2, slice_) + field(3, data))


def tensor_meta(name: str, dtype: int, shape: Sequence[int], slices: Sequence[Extents]) -> Any:
    """A SavedSliceMeta."""
    message = message_class("SavedSliceMeta")(name=name, type=dtype, shape=shape_message(shape))
    message.slice.extend(map(slice_message, slices))
    return message


def first_record(metas: Sequence[Any], **versions: int) -> bytes:
    """The record under the empty key, of SavedSliceMetas, with versions or without."""
    meta = b"".join(field(1, message.SerializeToString()) for message in metas)
    if versions:
        meta += field(2, message_class("VersionDef")(**versions).SerializeToString())
    return field(1, meta)


def full(rank: int) -> Extents:
    return ((0, -1),) * rank


def records_of(
    arrays: Mapping[str, Array],
    *,
    dtypes: Mapping[str, str] | None = None,
    slices: Mapping[str, Sequence[Extents]] | None = None,
    **versions: int,
) -> Records:
    """The records of a sound file: of whole arrays, or of the slices given for them."""
    metas, records = [], {}
    for name, array in arrays.items():
        dtype = (dtypes or {}).get(name, "string" if array.dtype == object else array.dtype.name)
        pieces = (slices or {}).get(name, [full(array.ndim)])
        metas.append(tensor_meta(name, DTYPES[dtype].number, array.shape, pieces))
        for extents in pieces:
            data = values_message(array[box(extents)], dtype)
            records[encode_slice_key(name.encode(), extents)] = record(name, extents, data)
    return {b"": first_record(metas, **versions)} | records


def one_record(shape: Sequence[int], data: Any, dtype: str | int = "int32") -> Records:
    """The records of a file with one tensor, "a", whose values are in a TensorProto, or in its bytes."""
    number = DTYPES[dtype].number if isinstance(dtype, str) else dtype
    meta = first_record([tensor_meta("a", number, shape, [full(len(shape))])])
    return {b"": meta, key_of(len(shape)): record("a", full(len(shape)), data)}


def key_of(rank: int) -> bytes:
    return encode_slice_key(b"a", full(rank))


def opened(
    directory: Path, *files: Records, make: Callable[[list[tuple[bytes, bytes]]], bytes] = table_of
) -> Checkpoint:
    """The files, written and opened as one checkpoint."""
    paths = [str(directory / f"model-{number:05d}-of-{len(files):05d}") for number in range(len(files))]
    for path, records in zip(paths, files, strict=True):
        Path(path).write_bytes(make(sorted(records.items())))
    return read_tensor_slices(paths, path=str(directory / "model"))


def assert_same(found: Array, expected: Array) -> None:
    """The same dtype, shape and bits."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if found.dtype == object:
        assert found.ravel().tolist() == expected.ravel().tolist()
    else:
        assert found.tobytes() == expected.tobytes()


# What is sound


def test_vector(tmp_path: Path) -> None:
    """The record that TensorFlow writes for [1, -2, 300] is read, under the key that TensorFlow gives it."""
    value = bytes.fromhex("12180a016112020a001a0f3a0d01feffffffffffffffff01ac02")
    key = bytes.fromhex("006100010101807f")
    meta = first_record([tensor_meta("a", 3, [3], [full(1)])], producer=1)
    checkpoint = opened(tmp_path, {b"": meta, key: value})
    assert_same(checkpoint["a"].numpy(), np.array([1, -2, 300], np.int32))
    assert value == record("a", full(1), values_message(np.array([1, -2, 300]), "int32"))


def _integers(dtype: type) -> Array:
    limits = np.iinfo(dtype)
    edges = {0, 1, 127, 128, 129, 16383, 16384, 2**31 - 1, 2**31, 2**32, 2**62, -1, -2, -128, -129, -(2**62)}
    return np.array([limits.min, limits.max, *(n for n in sorted(edges) if limits.min <= n <= limits.max)], dtype)


# Every bit pattern counts: of NaNs, of negative zero.
_BITS = np.random.default_rng(0).integers(0, 256, 16 * 24, np.uint8)
EXAMPLES: dict[str, Array] = {
    **{name: _BITS.view(name) for name in ("float32", "float64", "complex64", "complex128")},
    "float16": np.arange(0x10000, dtype=np.uint16).view(np.float16),
    "bool": np.array([True, False, True]),
    "string": strings(b"", b"a", b"\x00\xff\x80", b"x" * 300),
    **{name: _integers(getattr(np, name)) for name in ("int64", "int32", "int16", "int8", "uint16", "uint8")},
    **{"q" + name: _integers(getattr(np, name)) for name in ("int32", "int16", "int8", "uint16", "uint8")},
}


@pytest.mark.parametrize("dtype", FIELDS)
def test_dtype(dtype: str, tmp_path: Path) -> None:
    """Values of every dtype come back bit for bit, as a vector, as a scalar and as an empty array."""
    vector = EXAMPLES[dtype]
    arrays = {"vector": vector, "scalar": vector[1:2].reshape(()), "empty": vector[:0].reshape(0, 3)}
    checkpoint = opened(tmp_path, records_of(arrays, dtypes=dict.fromkeys(arrays, dtype)))
    for name, array in arrays.items():
        assert checkpoint[name].dtype is DTYPES[dtype]
        assert_same(checkpoint[name].numpy(), array)


def test_varints_of_all_lengths(tmp_path: Path) -> None:
    """Integers of all lengths, more of them than are decoded at a time, come back as they were."""
    random = np.random.default_rng(0)
    array = random.integers(-(2**63), 2**63 - 1, 300_000) >> random.integers(0, 64, 300_000)
    assert_same(opened(tmp_path, records_of({"a": array}))["a"].numpy(), array)


@pytest.mark.parametrize(
    ("dtype", "tag", "values"),
    [
        ("float32", 5 << 3 | 5, [b"\x00\x00\x80\x3f", b"\x00\x00\x00\xc0", b"\x01\x00\x00\x00"]),
        ("float64", 6 << 3 | 1, [bytes(7) + b"\x40", bytes(8), b"\x01" + bytes(7)]),
        ("int32", 7 << 3, [b"\x01", b"\xfe" + b"\xff" * 8 + b"\x01", b"\xac\x02"]),
        ("int64", 10 << 3, [b"\x01", b"\xfe" + b"\xff" * 8 + b"\x01", b"\xac\x02"]),
        ("bool", 11 << 3, [b"\x01", b"\x00", b"\x01"]),
        ("float16", 13 << 3, [b"\x01", b"\x80\x78", b"\xff\xff\x03"]),
    ],
)
def test_unpacked(dtype: str, tag: int, values: list[bytes], tmp_path: Path) -> None:
    """Values with a tag before each, values in a row, and some of both are the same to protobuf and to us."""
    tagged = [bytes([tag]) + value for value in values]
    packed = field(tag >> 3, b"".join(values))
    mixed = tagged[0] + field(tag >> 3, b"") + field(tag >> 3, b"".join(values[1:]))
    for data in (b"".join(tagged), packed, mixed):
        expected = getattr(message_class("TensorProto").FromString(data), FIELDS[dtype])
        found = opened(tmp_path, one_record([3], data, dtype))["a"].numpy()
        assert (found.view(np.uint16) if dtype == "float16" else found).tolist() == list(expected)


def test_snappy(tmp_path: Path) -> None:
    """A file whose blocks are compressed is read."""
    arrays = {"a": np.arange(1000, dtype=np.int32), "b": np.zeros((50, 3), np.float32), "c": strings(b"x" * 500)}
    checkpoint = opened(tmp_path, records_of(arrays), make=snappy_table)
    assert Path(checkpoint["a"].slices[0].data.path).stat().st_size < 3000
    for name, array in arrays.items():
        assert_same(checkpoint[name].numpy(), array)


@pytest.mark.parametrize("versions", [{}, {"producer": 0}, {"producer": 1}, {"producer": 7, "min_consumer": 1}])
def test_versions(versions: dict[str, int], tmp_path: Path) -> None:
    """A file without versions is read, and one with versions that leave us in."""
    checkpoint = opened(tmp_path, records_of({"a": np.arange(3)}, **versions))
    assert checkpoint["a"].numpy().tolist() == [0, 1, 2]


def test_checkpoint(tmp_path: Path) -> None:
    """A checkpoint has its format, its path, and its variables in the order of its meta."""
    checkpoint = opened(tmp_path, records_of({"b": np.zeros(3), "a": np.zeros((), np.int8)}))
    assert (checkpoint.format, checkpoint.path, checkpoint.warnings) == (FORMAT, str(tmp_path / "model"), ())
    assert [(name, v.dtype.name, v.shape) for name, v in checkpoint.items()] == [
        ("b", "float64", (3,)),
        ("a", "int8", ()),
    ]


def test_opening_reads_no_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening reads footer, index and meta; a value is read when it is asked for."""
    records = records_of({"a": np.zeros(1_000_000, np.float32), "b": np.ones(2)})
    opened(tmp_path, records)
    path = str(tmp_path / "model-00000-of-00001")
    read, read_range = [], storage.read_range
    monkeypatch.setattr(
        storage, "read_range", lambda path, offset, nbytes: read.append(nbytes) or read_range(path, offset, nbytes)
    )
    checkpoint = read_tensor_slices([path], path=path)
    assert sum(read) < 1000
    assert checkpoint["a"].numpy().size == 1_000_000
    assert sum(read) > 4_000_000


GRID = np.arange(35, dtype=np.int32).reshape(5, 7)
TILINGS: dict[str, list[Extents]] = {
    "rows": [((0, 2), (0, -1)), ((2, 3), (0, -1))],
    "columns": [((0, 5), (0, 3)), ((0, 5), (3, 4))],
    "rows, whole dimensions spelled out": [((0, 2), (0, 7)), ((2, 3), (0, 7))],
    "boxes": [((0, 2), (0, 3)), ((0, 2), (3, 4)), ((2, 3), (0, 1)), ((2, 3), (1, 6))],
    "one, spelled out": [((0, 5), (0, 7))],
}


@pytest.mark.parametrize("tiling", TILINGS.values(), ids=TILINGS)
def test_slices(tiling: list[Extents], tmp_path: Path) -> None:
    """A variable is put together from its slices, also when they lie in different files."""
    together = records_of({"a": GRID}, slices={"a": tiling})
    apart = [
        {b"": first_record([tensor_meta("a", 3, GRID.shape, [extents])]), key: together[key]}
        for extents in tiling
        for key in [encode_slice_key(b"a", extents)]
    ]
    for files in ([together], apart):
        assert_same(opened(tmp_path, *files)["a"].numpy(), GRID)
    shards = [(piece.shard, piece.data.path) for piece in opened(tmp_path, *apart)["a"].slices]
    assert shards == [
        (number, str(tmp_path / f"model-{number:05d}-of-{len(tiling):05d}")) for number in range(len(tiling))
    ]


def test_slices_say_where_they_are(tmp_path: Path) -> None:
    """A slice has its box, its file and the bytes of its values, and no range to be copied."""
    variable = opened(tmp_path, records_of({"a": GRID}, slices={"a": TILINGS["columns"]}))["a"]
    path = str(tmp_path / "model-00000-of-00001")
    assert list(variable.slices) == [
        Slice((0, 0), (5, 3), 0, ByteRange(path, 0, 60, None), 0, TILINGS["columns"][0]),
        Slice((0, 3), (5, 4), 0, ByteRange(path, 0, 80, None), 0, TILINGS["columns"][1]),
    ]
    assert variable.ranges is None
    assert variable.nbytes == 140


def test_strings_take_the_bytes_of_their_record(tmp_path: Path) -> None:
    """A string variable's size is that of its record."""
    records = records_of({"a": strings(b"one", b"three")})
    variable = opened(tmp_path, records)["a"]
    assert variable.nbytes == variable.slices[0].data.nbytes == len(records[key_of(1)])


def test_strings_among_other_fields(tmp_path: Path) -> None:
    """What else a record of strings has, as their dtype and shape, is none of them."""
    others = field(1, 7) + field(2, field(2, field(1, 2))) + field(8, 5)
    checkpoint = opened(tmp_path, one_record([2], others + field(8, b"x") + others + field(8, b"y"), "string"))
    assert checkpoint["a"].strings() == [b"x", b"y"]


def test_strings_without_numpy(tmp_path: Path) -> None:
    """A string variable gives its values as a list, too, in row-major order, and refuses as it does elsewhere."""
    values = [b"", b"\x00\xff", b"three", b"four"]
    checkpoint = opened(tmp_path, records_of({"a": strings(*values).reshape(2, 2), "b": strings(b"b").reshape(())}))
    assert checkpoint["a"].strings() == values
    assert checkpoint["b"].strings() == [b"b"]
    with pytest.raises(CorruptionError, match="1 values for 2") as caught:
        opened(tmp_path, one_record([2], field(8, b"x"), "string"))["a"].strings()
    assert (caught.value.path, caught.value.variable) == (str(tmp_path / "model-00000-of-00001"), "a")


@pytest.mark.parametrize("stored", [None, ()], ids=["no slice", "a slice without extents"])
def test_no_extents_mean_all(stored: Extents | None, tmp_path: Path) -> None:
    """A tensor of which no slice, or one without extents, is listed lies under the key of the whole."""
    records = records_of({"a": GRID})
    records[b""] = first_record([tensor_meta("a", 3, GRID.shape, [] if stored is None else [stored])])
    records[key_of(2)] = record("a", () if stored is None else full(2), values_message(GRID, "int32"))
    assert_same(opened(tmp_path, records)["a"].numpy(), GRID)


@pytest.mark.parametrize("nbytes", [1, 4, 20, 28, 80, 10_000])
@pytest.mark.parametrize("tiling", [[full(2)], TILINGS["columns"], TILINGS["boxes"]])
def test_blocks(nbytes: int, tiling: list[Extents], tmp_path: Path) -> None:
    """Blocks are as large as was asked for, and cover the variable once."""
    variable = opened(tmp_path, records_of({"a": GRID}, slices={"a": tiling}))["a"]
    covered, found = np.zeros_like(GRID), np.zeros_like(GRID)
    for selection, block in variable.blocks(nbytes):
        assert block.nbytes <= max(4, nbytes)
        covered[selection] += 1
        found[selection] = block
    assert (covered == 1).all()
    assert_same(found, GRID)


def test_values_can_be_changed(tmp_path: Path) -> None:
    """An array that was read can be written to, whatever its dtype."""
    for dtype, array in EXAMPLES.items():
        found = opened(tmp_path, records_of({"a": array}, dtypes={"a": dtype}))["a"].numpy()
        found[0] = found[1]
        assert found.flags.writeable


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    """A name of any bytes is listed, and its values are found."""
    name = b"\xff\x00w"
    meta = field(1, field(1, name) + field(3, 3))
    data = field(2, field(1, name) + field(3, field(7, b"\x05")))
    checkpoint = opened(tmp_path, {b"": field(1, meta), encode_slice_key(name, ()): data})
    assert list(checkpoint) == [name.decode(errors="surrogateescape")]
    assert checkpoint["\udcff\x00w"].numpy() == 5


def test_repeated_meta(tmp_path: Path) -> None:
    """Of two metas protobuf makes one, with the tensors of both."""
    first, second = records_of({"a": np.arange(3)}), records_of({"b": np.ones(2)})
    checkpoint = opened(tmp_path, first | second | {b"": first[b""] + second[b""]})
    assert {name: variable.numpy().tolist() for name, variable in checkpoint.items()} == {"a": [0, 1, 2], "b": [1, 1]}


# What is not sound


def metas(*tensors: Any, **versions: int) -> Records:
    return {b"": first_record([tensor_meta(*tensor) for tensor in tensors], **versions)}


BIG = 2**63 - 1
# What is refused on opening: the error, a part of its message, and the files.
UNSOUND: dict[str, tuple[type[CheckpointError], str, list[Records]]] = {
    "min_consumer": (NotSupportedError, "consumer", [metas(min_consumer=2)]),
    "producer": (NotSupportedError, "producer", [metas(producer=-1)]),
    "V2 header": (FormatError, "V2", [{b"": header(num_shards=1, version={"producer": 1})}]),
    "V2 header without shards": (FormatError, "V2", [{b"": header(version={"producer": 1})}]),
    "empty header": (FormatError, "lists no tensors", [{b"": b""}]),
    "no header": (FormatError, "empty key", [{b"a": b"1"}]),
    "no message": (CorruptionError, "does not fit", [{b"": b"\x0a\x7f"}]),
    "negative dim": (CorruptionError, "shape", [metas(("a", 1, [2, -1], [full(2)]))]),
    "too many elements": (CorruptionError, "shape", [metas(("a", 1, [2**32, 2**32], [full(2)]))]),
    "overflowing extent": (CorruptionError, "outside the shape", [metas(("a", 1, [4], [((BIG, BIG),)]))]),
    "extent out of bounds": (CorruptionError, "outside the shape", [metas(("a", 1, [4], [((2, 3),)]))]),
    "negative start": (CorruptionError, "outside the shape", [metas(("a", 1, [4], [((-1, 4),)]))]),
    "whole dimension from 1": (CorruptionError, "outside the shape", [metas(("a", 1, [4], [((1, -1),)]))]),
    "extents of another rank": (CorruptionError, "rank", [metas(("a", 1, [4], [full(2)]))]),
    "extents of another rank, of no elements": (CorruptionError, "rank", [metas(("a", 1, [0, 3], [full(3)]))]),
    "twice": (CorruptionError, "twice", [metas(("a", 1, [4], [((0, 2),)]), ("a", 1, [4], [((2, 2),)]))]),
    "a slice twice": (CorruptionError, "a slice twice", [metas(("a", 1, [4], [((0, 2),), ((0, 2),)]))]),
    "a slice of 300 dimensions": (CorruptionError, "more than 254", [metas(("a", 1, [4], [full(300)]))]),
    "overlap": (CorruptionError, "overlapping", [metas(("a", 1, [4], [((0, 3),), ((2, 2),)]))]),
    "whole in both files": (CorruptionError, "overlapping", [metas(("a", 1, [4], [full(1)]))] * 2),
    "other dtype": (
        CorruptionError,
        "another file",
        [metas(("a", 1, [4], [((0, 2),)])), metas(("a", 2, [4], [((2, 2),)]))],
    ),
    "other shape": (
        CorruptionError,
        "another file",
        [metas(("a", 1, [4], [((0, 2),)])), metas(("a", 1, [5], [((2, 3),)]))],
    ),
}


@pytest.mark.parametrize(("error", "match", "files"), UNSOUND.values(), ids=UNSOUND)
def test_opening_refuses(error: type[CheckpointError], match: str, files: list[Records], tmp_path: Path) -> None:
    """What can't be is refused on opening, with the path, and with the variable where it is one's fault."""
    with time_limit(30), pytest.raises(error, match=match) as caught:
        opened(tmp_path, *files)
    assert caught.value.path is not None
    assert caught.value.path.startswith(str(tmp_path / "model"))
    concerned = any(meta.name for meta in listed_tensors(files[0]))
    assert caught.value.variable == ("a" if concerned else None)


def listed_tensors(records: Records) -> Sequence[Any]:
    """The tensors that a meta lists, as protobuf reads it; none, if it is no meta."""
    try:
        return list(message_class("SavedTensorSlices").FromString(records[b""]).meta.tensor)
    except (DecodeError, KeyError):
        return []


def values(*numbers: int) -> Any:
    return message_class("TensorProto")(int_val=numbers)


def packed_floats(data: bytes) -> bytes:
    return field(5, data)


def packed_integers(data: bytes) -> bytes:
    return field(7, data)


# What is refused on reading the variable "a": a part of the message, and the file.
UNREADABLE: dict[str, tuple[str, Records]] = {
    "missing record": ("missing", {b"": first_record([tensor_meta("a", 3, [3], [full(1)])])}),
    "empty record": ("is that of", {**one_record([3], values()), key_of(1): b""}),
    "no data": ("0 values for 3", {**one_record([3], b""), key_of(1): record("a", full(1), b"")}),
    "too few": ("2 values for 3", one_record([3], values(1, 2))),
    "too many": ("4 values for 3", one_record([3], values(1, 2, 3, 4))),
    "one for all": ("1 values for 3", one_record([3], values(1))),
    "values for nothing": ("1 values for 0", one_record([0], values(1))),
    "too few floats": ("8 bytes", one_record([3], packed_floats(bytes(8)), "float32")),
    "too many floats": ("16 bytes", one_record([3], packed_floats(bytes(16)), "float32")),
    "half a complex number": ("12 bytes", one_record([1], field(9, bytes(12)), "complex64")),
    "too few strings": ("1 values", one_record([2], field(8, b"x"), "string")),
    "too many strings": ("3 values", one_record([2], field(8, b"x") * 3, "string")),
    "another dtype's field": ("0 values", one_record([3], packed_integers(b"\x01\x02\x03"), "int64")),
    "another wire type": ("0 bytes", one_record([2], field(5, 1) + field(5, 2), "float32")),
    "tensor_content": ("0 bytes", one_record([2], field(4, bytes(8)), "float32")),
    "tensor_content of integers": ("0 values", one_record([2], field(4, bytes(8)))),
    "cut float": ("inside a value", one_record([1], packed_floats(bytes(2)) * 2, "float32")),
    "cut varint": ("inside a value", one_record([1], packed_integers(b"\xac") + packed_integers(b"\x02"))),
    "varint of 11 bytes": ("64 bits", one_record([1], packed_integers(b"\x80" * 10 + b"\x01"))),
    "varint of 65 bits": ("64 bits", one_record([1], packed_integers(b"\x80" * 9 + b"\x02"))),
    "varint without end in sight": ("64 bits", one_record([1], packed_integers(b"\x80" * 300_000 + b"\x01"))),
    "int8 too large": ("128 is no int8", one_record([2], values(127, 128), "int8")),
    "int8 too small": ("-129 is no int8", one_record([2], values(-128, -129), "int8")),
    "uint8 below zero": ("-1 is no uint8", one_record([2], values(0, -1), "uint8")),
    "qint16 too large": ("32768 is no qint16", one_record([1], values(2**15), "qint16")),
    "int32 too large": ("2147483648 is no int32", one_record([1], packed_integers(b"\x80\x80\x80\x80\x08"))),
    "bool 2": ("2 is no bool", one_record([1], field(11, 2), "bool")),
    "float16 of 17 bits": ("65536 is no float16", one_record([1], field(13, 65536), "float16")),
    "no message": ("does not fit", one_record([1], b"\x3a\x7f")),
    "another name": ("of 'b'", {**one_record([1], b""), key_of(1): record("b", full(1), values(1))}),
    "another slice": (r"\[\(0, 1\)\]", {**one_record([1], b""), key_of(1): record("a", ((0, 1),), values(1))}),
}


@pytest.mark.parametrize(("match", "records"), UNREADABLE.values(), ids=UNREADABLE)
def test_reading_refuses(match: str, records: Records, tmp_path: Path) -> None:
    """Values that are not exactly those the meta promises are refused, with the path and the variable."""
    variable = opened(tmp_path, records)["a"]
    with pytest.raises(CorruptionError, match=match) as caught:
        variable.numpy()
    assert (caught.value.path, caught.value.variable) == (str(tmp_path / "model-00000-of-00001"), "a")


def test_far_too_few_values_in_slices(tmp_path: Path) -> None:
    """A shape that the file can't have the values of is refused before its blocks are counted."""
    halves = ((0, 1 << 39),), ((1 << 39, 1 << 39),)
    records = {b"": first_record([tensor_meta("a", 3, [1 << 40], halves)])}
    records |= {encode_slice_key(b"a", half): record("a", half, values(1)) for half in halves}
    with time_limit(2), pytest.raises(CorruptionError, match="values are not in the file"):
        next(opened(tmp_path, records)["a"].blocks())


@pytest.mark.parametrize("dtype", [0, 14, 20, 21, 22, 23, 24, 29, 34, 99, 101, 2**31, -1])
def test_unknown_dtype(dtype: int, tmp_path: Path) -> None:
    """A dtype that no V1 checkpoint has keeps its own variable from being read, and no other."""
    bad = field(1, b"bad") + field(3, dtype)
    sound = records_of({"a": np.arange(3)})
    records = sound | {b"": sound[b""] + field(1, field(1, bad)), encode_slice_key(b"bad", ()): b""}
    checkpoint = opened(tmp_path, records)
    assert checkpoint["a"].numpy().tolist() == [0, 1, 2]
    assert checkpoint["bad"].dtype.number == dtype
    with pytest.raises(NotSupportedError, match="can't be decoded") as caught:
        checkpoint["bad"].numpy()
    assert (caught.value.path, caught.value.variable) == (str(tmp_path / "model-00000-of-00001"), "bad")


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in slices"])
def test_promised_values_are_not_allocated(dtype: str, cut: bool, tmp_path: Path) -> None:
    """A tensor of 2**40 elements with a few values is refused at once."""
    size = 2**40
    pieces: list[Extents] = [((0, 2),), ((2, size - 2),)] if cut else [full(1)]
    records = {b"": first_record([tensor_meta("a", DTYPES[dtype].number, [size], pieces)])}
    data = values_message(EXAMPLES[dtype][:2], dtype)
    records |= {encode_slice_key(b"a", extents): record("a", extents, data) for extents in pieces}
    variable = opened(tmp_path, records)["a"]
    with time_limit(30), pytest.raises(CorruptionError, match=f"for {size - 2 if cut else size:,} elements"):
        variable.numpy()


def test_rank_beyond_numpy(tmp_path: Path) -> None:
    """A variable of more dimensions than NumPy has is listed, and not read."""
    variable = opened(tmp_path, one_record([1] * 65, values(1)))["a"]
    assert variable.size == 1
    with pytest.raises(NotSupportedError, match="rank 65"):
        variable.numpy()


@pytest.mark.parametrize("shape", [(2**62, 0), (0, 2**62), (0, 2**31, 2**31), (0, 2**40, 2**40)])
@pytest.mark.parametrize("dtype", ["int32", "float64", "string"])
def test_no_elements_beyond_numpy(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    """A variable without elements whose other sizes are more than NumPy can count is listed, and not read."""
    variable = opened(tmp_path, one_record(shape, b"", dtype))["a"]
    assert (variable.shape, variable.size) == (shape, 0)
    with time_limit(30), pytest.raises(NotSupportedError, match="NumPy has no arrays"):
        variable.numpy()


@pytest.mark.parametrize("shape", [(10**9, 0), (0, 10**9), (3, 0, 10**9)])
def test_no_elements(shape: tuple[int, ...], tmp_path: Path) -> None:
    """A variable without elements is read at once, whatever its other sizes are."""
    variable = opened(tmp_path, one_record(shape, b""))["a"]
    with time_limit(30):
        assert_same(variable.numpy(), np.zeros(shape, np.int32))
        assert sum(block.size for _, block in variable.blocks()) == 0


def test_missing_string_record(tmp_path: Path) -> None:
    """A string variable without its record is listed, takes no bytes, and says why when it is read."""
    variable = opened(tmp_path, metas(("a", 7, [3], [full(1)])))["a"]
    assert variable.nbytes == 0
    with pytest.raises(CorruptionError, match="missing") as caught:
        variable.strings()
    assert caught.value.variable == "a"


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(NotFoundError) as caught:
        read_tensor_slices([str(tmp_path / "none")], path="none")
    assert caught.value.path == str(tmp_path / "none")


# Damage

SMALL = {"a": np.array([1, -2, 300], np.int32), "b": np.float32(0.5).reshape(()), "s": strings(b"", b"xyz")}


def answer(path: Path) -> list[Any]:
    """All that a checkpoint says."""
    checkpoint = read_tensor_slices([str(path)], path=str(path))
    return [(name, v.dtype, v.shape, v.nbytes, v.numpy().tolist()) for name, v in checkpoint.items()]


def test_every_truncation_raises(tmp_path: Path) -> None:
    """A file that ends too early is refused, wherever it ends."""
    whole = table_of(sorted(records_of(SMALL, producer=1).items()))
    path = tmp_path / "model"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            answer(path)


def test_every_changed_byte_raises_or_changes_nothing(tmp_path: Path) -> None:
    """A changed byte is noticed, or stands where no reader looks."""
    whole = table_of(sorted(records_of(SMALL, producer=1).items()))
    path = tmp_path / "model"
    path.write_bytes(whole)
    expected, noticed = answer(path), 0
    for position, change in product(range(len(whole)), [1, 2, 4, 8, 16, 32, 64, 128, 255]):
        damaged = bytearray(whole)
        damaged[position] ^= change
        path.write_bytes(damaged)
        try:
            assert answer(path) == expected, (position, change)
        except CheckpointError:
            noticed += 1
    assert noticed > 8 * (len(whole) - 48)


def test_every_changed_byte_of_a_record_raises_no_other_error(tmp_path: Path) -> None:
    """A record that is wrong under a right checksum is read as what it says, or refused; nothing else happens."""
    records = records_of(SMALL | {"g": GRID}, slices={"g": TILINGS["columns"]}, producer=1)
    refused = 0
    for key, value in records.items():
        damaged = [value[:position] for position in range(len(value))]
        damaged += [
            value[:position] + bytes([value[position] ^ change]) + value[position + 1 :]
            for position, change in product(range(len(value)), [1, 8, 128, 255])
        ]
        for data in damaged:
            (tmp_path / "model").write_bytes(table_of(sorted({**records, key: data}.items())))
            try:
                with time_limit(30):
                    answer(tmp_path / "model")
            except CheckpointError:
                refused += 1
    assert refused > 100


# TensorFlow's own

Build = Callable[[Any], dict[str, Any]]


def save(tf: Any, build: Build, prefix: Path, **options: Any) -> tuple[list[str], dict[str, Array]]:
    """Has TensorFlow save variables in V1, and restore them; the files, and the values that were restored.

    Args:
        tf: TensorFlow.
        build: makes the variables, and gives tensors of their values by name.
        prefix: where to save.
        options: for the Saver.
    """
    v1 = tf.compat.v1
    config = v1.ConfigProto(device_count={"CPU": 2})
    with tf.Graph().as_default():
        tensors = build(v1)
        saver = v1.train.Saver(write_version=v1.train.SaverDef.V1, **options)
        with v1.Session(config=config) as session:
            session.run(v1.global_variables_initializer())
            path = saver.save(session, str(prefix), write_meta_graph=False)
        with v1.Session(config=config) as session:
            saver.restore(session, path)
            restored = session.run(tensors)
    files = sorted(prefix.parent.glob(prefix.name + ("-?????-of-?????" if options.get("sharded") else "")))
    return [str(file) for file in files], {name: as_array(value) for name, value in restored.items()}


def as_array(value: Any) -> Array:
    """A value as we give it: strings as an array of objects."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def some(shape: Sequence[int], dtype: Any) -> Array:
    """Values with all bits at work."""
    dtype = np.dtype(dtype)
    data = np.random.default_rng(dtype.num).integers(0, 256, int(np.prod(shape)) * dtype.itemsize, np.uint8)
    return (data & 1 if dtype.kind == "b" else data).view(dtype).reshape(shape)


def variables(v1: Any) -> dict[str, Any]:
    """Variables of many kinds, whole ones, on two devices."""
    made = {}
    for number, dtype in enumerate(["float32", "float64", "int32", "int64", "uint8", "int8", "int16", "bool"]):
        with v1.device(f"/cpu:{number % 2}"):
            made[f"layer/{dtype}"] = v1.get_variable(f"layer/{dtype}", initializer=some([4, 3], dtype))
    made["scalar"] = v1.get_variable("scalar", initializer=np.float32(-0.0))
    made["empty"] = v1.get_variable("empty", initializer=np.zeros([0, 5], np.float32))
    made["text"] = v1.get_variable("text", initializer=strings(b"", b"\x00\xff", b"x" * 200))
    made["word"] = v1.get_variable("word", initializer=np.array(b"word", object))
    return made


def partitioned(v1: Any) -> dict[str, Any]:
    """Variables in slices: by rows, by columns, each on two devices, and one whole beside them."""
    made = {"whole": v1.get_variable("whole", initializer=some([3], "float32"))}
    for axis, dtype in product([0, 1], ["float32", "int32", "bool", "complex64"]):
        values, name = some([7, 5], dtype), f"{dtype}_{axis}"
        with v1.device(lambda op: "/cpu:1" if "part_1" in op.name else "/cpu:0"):
            variable = v1.get_variable(
                name,
                shape=values.shape,
                dtype=dtype,
                initializer=partial(part, values),
                partitioner=v1.fixed_size_partitioner(3, axis=axis),
            )
        made[name] = variable.as_tensor()
    return made


def part(values: Array, shape: Sequence[int], dtype: Any, partition_info: Any) -> Array:
    """An initializer: the part of the values that a slice has."""
    return values[tuple(slice(s, s + n) for s, n in zip(partition_info.var_offset, shape, strict=True))]


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("build", [variables, partitioned])
def test_what_tensorflow_saves(tf: Any, build: Build, sharded: bool, tmp_path: Path) -> None:
    """All variables of TensorFlow's own files are what TensorFlow restores from them, bit for bit."""
    files, restored = save(tf, build, tmp_path / "model", sharded=sharded)
    checkpoint = read_tensor_slices(files, path=str(tmp_path / "model"))
    assert set(checkpoint) == set(restored)
    for name, value in restored.items():
        assert_same(checkpoint[name].numpy(), value)
    assert {len(variable.slices) for variable in checkpoint.values()} == ({1} if build is variables else {1, 3})
    assert {piece.shard for variable in checkpoint.values() for piece in variable.slices} == set(range(len(files)))
    # A file for each device, and one for the variables without.
    assert len(files) == (3 if sharded else 1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("sharded", [False, True])
def test_what_tensorflow_lists(tf: Any, sharded: bool, tmp_path: Path) -> None:
    """Names, shapes, dtypes and values are those that TensorFlow's checkpoint reader gives for its own files."""
    files, _ = save(tf, variables, tmp_path / "model", sharded=sharded)
    pattern = str(tmp_path / ("model-?????-of-00003" if sharded else "model"))
    assert_as_tensorflow(tf, read_tensor_slices(files, path=pattern), pattern)


@pytest.mark.tensorflow
def test_slices_in_several_files(tf: Any, tmp_path: Path) -> None:
    """A variable whose slices TensorFlow has saved to different files is what TensorFlow restores."""
    prefix = str(tmp_path / "model")
    for number, (spec, values) in enumerate([("0,2:-", GRID[:2]), ("2,3:-", GRID[2:])]):
        tf.raw_ops.SaveSlices(
            filename=f"{prefix}-{number:05d}-of-00002",
            tensor_names=["a"],
            shapes_and_slices=[f"5 7 {spec}"],
            data=[tf.constant(values)],
        )
    expected = tf.raw_ops.Restore(file_pattern=f"{prefix}-?????-of-00002", tensor_name="a", dt=tf.int32).numpy()
    checkpoint = read_tensor_slices([f"{prefix}-00000-of-00002", f"{prefix}-00001-of-00002"], path=prefix)
    assert_same(checkpoint["a"].numpy(), expected)
    assert_same(expected, GRID)


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", FIELDS)
def test_every_dtype_that_tensorflow_writes(tf: Any, dtype: str, tmp_path: Path) -> None:
    """Of every dtype that V1 has, what TensorFlow has written is what TensorFlow restores."""
    path, type_ = str(tmp_path / "model"), tf.dtypes.as_dtype(dtype)
    values = EXAMPLES[dtype]
    try:
        data = tf.bitcast(values, type_) if type_.is_quantized else tf.constant(values, type_)
        tf.raw_ops.SaveSlices(filename=path, tensor_names=["a"], shapes_and_slices=[""], data=[data])
    except tf.errors.UnimplementedError:
        assert dtype in ("qint16", "quint16")  # It can make none.
        pytest.skip("TensorFlow makes no values of this dtype")
    restored = tf.raw_ops.Restore(file_pattern=path, tensor_name="a", dt=type_)
    restored = tf.bitcast(restored, values.dtype) if type_.is_quantized else restored
    variable = read_tensor_slices([path], path=path)["a"]
    assert (variable.dtype.name, variable.dtype.number) == (type_.name, type_.as_datatype_enum)
    assert_same(variable.numpy(), restored.numpy())
    assert_same(variable.numpy(), values)


@pytest.mark.tensorflow
@pytest.mark.parametrize("make", [table_of, snappy_table])
def test_tensorflow_reads_the_files_made_here(tf: Any, make: Any, tmp_path: Path) -> None:
    """Files made by hand, compressed and without versions, are to TensorFlow what they are to us."""
    checkpoint = opened(tmp_path, records_of(SMALL | {"g": GRID}), make=make)
    assert_as_tensorflow(tf, checkpoint, str(tmp_path / "model-00000-of-00001"))


def assert_as_tensorflow(tf: Any, checkpoint: Checkpoint, path: str) -> None:
    """The same names, shapes, dtypes; and the same values, where the reader gives them."""
    reader = tf.train.load_checkpoint(path)
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    assert {name: (list(v.shape), v.dtype.name) for name, v in checkpoint.items()} == {
        name: (shape, dtypes[name].name) for name, shape in shapes.items()
    }
    for name, variable in checkpoint.items():
        assert_same(variable.numpy(), as_array(reader.get_tensor(name)))


CORPUS_PATTERNS = [
    "ajaytalati_fastweights/save/*/save-*",
    "ardiya_siamese/model/model.ckpt",
    "georgesung_acrobot/models/model.ckpt",
    "tensorflow_serving/**/export",
    "tensorflow_serving/**/export-00000-of-00001",
]
CORPUS_FILES = [path for pattern in CORPUS_PATTERNS for path in sorted(CORPUS.glob(pattern)) if path.suffix != ".meta"]


@needs_corpus
def test_the_corpus_has_v1_files() -> None:
    """The files that the next test is about are there."""
    assert len(CORPUS_FILES) >= 8


@pytest.mark.tensorflow
@needs_corpus
@pytest.mark.parametrize("file", CORPUS_FILES, ids=corpus_id)
def test_corpus(tf: Any, file: Path, tmp_path: Path) -> None:
    """The files of 2016 are to us what they are to TensorFlow."""
    # Apart from a V2 checkpoint of the same name, which TensorFlow would take.
    path = tmp_path / "model"
    path.write_bytes(file.read_bytes())
    assert_as_tensorflow(tf, read_tensor_slices([str(path)], path=str(path)), str(path))
