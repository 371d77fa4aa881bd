"""Bundles as we write them: TensorFlow's own bytes, in as many shards as are asked for."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus

import ckpttool
from ckpttool.errors import ConversionError, CorruptionError
from ckpttool.formats.bundle import shard_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.bundle.writing import plan_bundle, write_bundle
from ckpttool.formats.npz import read_npz
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, stored_dtype_of
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Variable
from ckpttool.wire.sstable import NO_COMPRESSION, Table


def files_of(prefix) -> dict[str, bytes]:
    """The files of a prefix, by what they add to it."""
    prefix = Path(prefix)
    found = prefix.parent.glob(f"{prefix.name}.*")
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in found if path.suffix != ".meta"}


def rewritten(prefix, directory: Path, **options) -> dict[str, bytes]:
    """The files of the bundle after it was read and written."""
    write_bundle(read_bundle(str(prefix)), directory / "rewritten", strict=True, **options)
    return files_of(directory / "rewritten")


# Byte for byte as TensorFlow


def save(tf, prefix: Path, *shards) -> Path:
    """Lets TensorFlow save lists of (name, tensor, slice_spec), each as a shard."""
    parts = [f"{prefix}_temp/part-{number}" for number in range(len(shards))]
    for part, pieces in zip(parts, shards, strict=True):
        names, tensors, specs = zip(*pieces, strict=True)
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=specs, tensors=tensors)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    return prefix


def whole(**tensors):
    return [(name, tensor, "") for name, tensor in tensors.items()]


def every_dtype(tf):
    """All of the fixture's values: each dtype that can be saved."""
    prefix = str(FIXTURES / "dtypes" / "model")
    checkpoint = read_bundle(prefix)
    names = sorted(checkpoint, key=lambda name: name[::-1])
    dtypes = [checkpoint[name].dtype.name for name in names]
    values = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), dtypes=dtypes)
    yield [(name, value, "") for name, value in zip(names, values, strict=True)]


def scalars_and_empty(tf):
    """Of one byte: what is empty begins where that ends."""
    shapes = [(), (0,), (3, 0), (), (0, 0, 4), (2,), (0,), (1, 1, 1)]
    yield [(f"{'zyxwvuts'[i]}", tf.ones(shape, tf.int8), "") for i, shape in enumerate(shapes)]


def texts(tf):
    values = [b"", b"x" * 127, b"x" * 128, b"\xff\xfe\x00", "\u65e5\u672c".encode(), b"long" * 50_000, b""]
    yield whole(
        vector=tf.constant(values),
        scalar=tf.constant(b""),
        matrix=tf.constant([values[:3], values[2:5]]),
        none=tf.zeros([0, 2], tf.string),
        many=tf.constant([b"%d" % i for i in range(3000)]),
    )


def slices_of_every_rank(tf):
    """Ranks 1 to 8, cut in two along the last dimension, the halves in two shards; with and without `-`."""
    first, second = [], []
    for rank in range(1, 9):
        full, half = [2] * (rank - 1) + [200], [2] * (rank - 1) + [100]
        sizes = " ".join(map(str, full))
        for name, rest in (("dash", "-:"), ("number", "0,2:")):
            first.append((f"{name}/{rank}", tf.fill(half, 1.5), f"{sizes} {rest * (rank - 1)}0,100"))
            second.append((f"{name}/{rank}", tf.fill(half, -0.5), f"{sizes} {rest * (rank - 1)}100,100"))
    yield [*first, ("full", tf.ones([2, 3]), "2 3 -:0,3")]
    yield [*reversed(second), ("plain", tf.ones([2, 3]), "")]


def variants(tf):
    lists = [
        tf.raw_ops.TensorListFromTensor(tensor=tf.constant(values), element_shape=tf.constant([], tf.int32))
        for values in ([1, 2, 3], [], [7] * 300)
        for values in [np.array(values, np.int64)]
    ]
    yield whole(a=lists[0], b=tf.stack(lists), c=tf.constant(1))


def thousands_of_names(tf):
    """An index of several blocks, in an order that is not the names'."""
    numbers = np.random.default_rng(1).permutation(9000)
    scalars = [tf.constant(np.int16(n)) for n in range(9000)]
    yield [(f"{'model/' * 8}layer_{n % 97}/{n}/kernel", scalars[n], "") for n in numbers]


def long_names(tf):
    """Names that share 100 kB, one with a block of its own, bytes of every value, and keys that end with 0xff."""
    names = [b"p" * 100_000 + bytes([n]) for n in (0, 1, 0x7F, 0xFE, 0xFF)]
    names += [b"q" * 600_000, b"q" * 600_000 + b"\xff", b"\xff" * 300_000, bytes(range(256)), b"\x00", b"\xff\xff"]
    yield [(name, tf.constant(float(n)), "") for n, name in enumerate(names)]


def three_shards(tf):
    """Slices of one variable over three shards, of which one has nothing else, and one in no order."""
    rows = tf.reshape(tf.range(12.0), [6, 2])
    yield [("rows", rows[4:], "6 2 4,2:0,2"), ("b", tf.constant([1, 2]), ""), ("a", tf.constant(b"x"), "")]
    yield [("rows", rows[:1], "6 2 0,1:0,2")]
    yield [("c", tf.zeros([0]), ""), ("rows", rows[1:4], "6 2 1,3:0,2")]


CONTENTS = [
    *(every_dtype, scalars_and_empty, texts, slices_of_every_rank),
    *(variants, thousands_of_names, long_names, three_shards),
]


@pytest.mark.tensorflow
@pytest.mark.parametrize("contents", CONTENTS, ids=lambda contents: contents.__name__)
def test_rewritten_byte_for_byte(contents, tf, tmp_path):
    """What TensorFlow has saved, read and written again, is the same files, byte for byte."""
    prefix = save(tf, tmp_path / "model", *contents(tf))
    assert rewritten(prefix, tmp_path) == files_of(prefix)


@pytest.mark.tensorflow
def test_index_has_several_blocks(tf, tmp_path):
    """The contents of these tests do fill more than one block of an index."""
    prefix = save(tf, tmp_path / "model", *thousands_of_names(tf))
    assert len(Table.from_bytes(files_of(prefix)[".index"]).handles) > 1


@pytest.mark.tensorflow
def test_from_an_archive_as_tensorflow_1_saves(tf, tmp_path):
    """From arrays in any order come the files that TensorFlow 1 makes: the values in the order of the names."""
    arrays = {
        "b": np.arange(6.0).reshape(2, 3),
        "a/z": np.int32(7),
        "\u00e9": np.zeros((0, 2), np.float16),
        "B": [True],
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    write_bundle(read_npz(tmp_path / "arrays.npz"), tmp_path / "ours", strict=True)
    save(tf, tmp_path / "model", [(name, tf.constant(arrays[name]), "") for name in sorted(arrays)])
    assert files_of(tmp_path / "ours") == files_of(tmp_path / "model")


@pytest.mark.tensorflow
def test_shards_joined_are_those_of_one_saver(tf, tmp_path):
    """Three shards that stand by name, written as one, are what TensorFlow saves into one."""
    names = [f"{c}{n}" for c in "ab" for n in range(5)]
    tensors = {name: tf.constant([float(i)] * i) for i, name in enumerate(names)}
    shards = [[(name, tensors[name], "") for name in names if int(name[1]) % 3 == n] for n in range(3)]
    prefix = save(tf, tmp_path / "model", *shards)
    save(tf, tmp_path / "one", [(name, tensors[name], "") for name in names])
    assert rewritten(prefix, tmp_path, num_shards=1) == files_of(tmp_path / "one")


def _is_complete(prefix: Path) -> bool:
    is_pointer = prefix.with_name(f"{prefix.name}.index").read_bytes().startswith(b"version https://git-lfs")
    return not is_pointer and not ckpttool.open_checkpoint(prefix).warnings


def _prefixes(indexes) -> list[Path]:
    prefixes = [path.with_name(path.name.removesuffix(".index")) for path in indexes]
    return [prefix for prefix in prefixes if _is_complete(prefix)]


def _marked(prefix: Path):
    size = sum(path.stat().st_size for path in prefix.parent.glob(f"{prefix.name}.*"))
    return pytest.param(prefix, marks=[pytest.mark.slow] if size > 1 << 20 else [])


REAL = _prefixes([*sorted(FIXTURES.rglob("*.index")), *corpus_files("*.index")])


def is_compressed(index: bytes) -> bool:
    table = Table.from_bytes(index)
    return any(index[offset + size] != NO_COMPRESSION for offset, size in table.handles)


@pytest.mark.parametrize("prefix", [*map(_marked, REAL)], ids=lambda path: "/".join(path.parts[-4:]))
def test_real_bundles_byte_for_byte(prefix, tmp_path):
    """A real bundle, read and written, has its bytes again; an index that was compressed has the same entries."""
    theirs, ours = files_of(prefix), rewritten(prefix, tmp_path)
    if is_compressed(theirs[".index"]):
        indexes = [Table.from_bytes(files.pop(".index")) for files in (theirs, ours)]
        assert list(indexes[0]) == list(indexes[1])
    assert set(ours) == set(theirs)
    assert ours == theirs


@needs_corpus
@pytest.mark.tensorflow
def test_compressed_index_as_tensorflow_rewrites_it(tf, tmp_path):
    """Of bundles whose index is compressed, we write the index that TensorFlow's own merging makes of it."""
    compressed = [prefix for prefix in REAL if is_compressed(files_of(prefix)[".index"])]
    assert len(compressed) > 20
    for number, prefix in enumerate(compressed):
        copy = tmp_path / str(number) / "model"
        copy.parent.mkdir()
        for suffix in files_of(prefix):
            shutil.copy(f"{prefix}{suffix}", f"{copy}{suffix}")
        ours = rewritten(copy, copy.parent)
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[str(copy)], destination_prefix=f"{copy}-merged")
        assert ours == files_of(f"{copy}-merged"), prefix


def test_corpus_has_bundles_of_several_shards():
    """Among the real bundles there are some of more than one shard."""
    assert sum(len(files_of(prefix)) > 2 for prefix in REAL) >= (2 if CORPUS.is_dir() else 1)


# Shards


def varied(count: int = 40) -> dict[str, np.ndarray]:
    """Variables of sizes from nothing to 3,900 bytes, and strings."""
    made = {f"v/{n}": np.full((n * 37 % 40 * 25,), n, np.float32) for n in range(count)}
    return {**made, "s": np.array([b"x" * 400, b""], object), "e": np.zeros((0, 3), np.int8)}


def sizes_of(prefix: Path) -> list[int]:
    count = len(files_of(prefix)) - 1
    return [os.path.getsize(shard_path(str(prefix), number, count)) for number in range(count)]


def restored(tf, prefix: Path) -> dict[str, object]:
    """What TensorFlow restores."""
    reader = tf.train.load_checkpoint(str(prefix))
    names = list(reader.get_variable_to_shape_map())
    dtypes = [reader.get_variable_to_dtype_map()[name] for name in names]
    values = tf.raw_ops.RestoreV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), dtypes=dtypes
    )
    return {name: value.numpy() for name, value in zip(names, values, strict=True)}


def assert_restored(tf, prefix: Path, arrays) -> None:
    found = restored(tf, prefix)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype, name
        assert np.array_equal(found[name], array), name


@pytest.mark.tensorflow
@pytest.mark.parametrize("shards", [1, 2, 3, 7, 42])
def test_number_of_shards(shards, tf, tmp_path):
    """There are as many data files as are asked for, none empty, of about the same size; TensorFlow restores them."""
    arrays = varied()
    write_bundle(bundle(arrays, shards=2).open(tmp_path), tmp_path / "out", num_shards=shards)
    sizes = sizes_of(tmp_path / "out")
    assert len(sizes) == shards
    if shards < 10:
        largest = max(array.nbytes for array in arrays.values())
        assert max(sizes) - min(sizes) <= 2 * largest
    assert_restored(tf, tmp_path / "out", arrays)


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [
        ([1000, 1, 1], 3, [1000, 1, 1]),
        ([1, 1, 1000], 3, [1, 1, 1000]),
        ([1, 1000, 1], 2, [1, 1001]),
        ([5, 5, 5, 5], 2, [10, 10]),
        ([0, 0, 0], 2, [0, 0]),
        ([3, 4], 5, [3, 4]),
        ([], 3, [0]),
    ],
)
def test_balance(sizes, shards, expected, tmp_path):
    """However unlike variables are, no file is without one, and there are no more files than variables."""
    arrays = {f"{n:03}": np.zeros(size, np.int8) for n, size in enumerate(sizes)}
    write_bundle(bundle(arrays).open(tmp_path), tmp_path / "out", num_shards=shards)
    assert sizes_of(tmp_path / "out") == expected


@pytest.mark.tensorflow
@pytest.mark.parametrize("limit", [1, 2500, 3900, 4096, 10_000, 1 << 40])
def test_size_of_shards(limit, tf, tmp_path):
    """No data file is larger than asked for, but one that has a single variable; and none could take the next one."""
    arrays = varied()
    write_bundle(bundle(arrays).open(tmp_path), tmp_path / "out", max_shard_size=limit)
    opened = read_bundle(str(tmp_path / "out"))
    filled = {}
    for variable in sorted(opened.values(), key=lambda variable: variable.slices[0].position):
        if variable.nbytes:
            filled.setdefault(variable.slices[0].shard, []).append(variable.nbytes)
    assert all(sum(sizes) <= limit or len(sizes) == 1 for sizes in filled.values())
    numbers = sorted(filled)
    assert all(sum(filled[a]) + filled[b][0] > limit for a, b in pairwise(numbers))
    assert_restored(tf, tmp_path / "out", arrays)


@pytest.mark.parametrize(("limit", "expected"), [(1027, [514] * 6), (1028, [1028] * 3)])
def test_size_of_strings_is_that_which_is_written(limit, expected, tmp_path):
    """Strings from a format that stores them otherwise are counted as the data file will have them."""
    np.savez(tmp_path / "in.npz", **{f"s{n}": np.array([b"x" * 50] * 10) for n in range(6)})
    write_bundle(read_npz(tmp_path / "in.npz"), tmp_path / "out", max_shard_size=limit)
    assert sizes_of(tmp_path / "out") == expected  # Of each 10 lengths, 4 bytes of checksum, 500 of text.


def test_slices_in_several_shards(tmp_path):
    """A partitioned variable larger than a data file may be has its slices in several, and its values."""
    array = np.arange(60.0).reshape(6, 10)
    cut = {"w": [((n, 1), (0, -1)) for n in range(6)]}
    write_bundle(bundle({"w": array}, slices=cut).open(tmp_path), tmp_path / "out", max_shard_size=160)
    assert sizes_of(tmp_path / "out") == [160, 160, 160]
    assert np.array_equal(read_bundle(str(tmp_path / "out"))["w"].numpy(), array)


@pytest.mark.parametrize("options", [{"num_shards": 0}, {"max_shard_size": -1}, {"num_shards": 1, "max_shard_size": 1}])
def test_impossible_numbers(options, tmp_path):
    """A number of shards below one, and two ways to cut at once, are errors before anything is written."""
    with pytest.raises(ValueError, match=r"num_shards|max_shard_size"):
        write_bundle(bundle({"a": np.zeros(1)}).open(tmp_path), tmp_path / "out", **options)
    assert not files_of(tmp_path / "out")


def test_prefix_without_a_name(tmp_path):
    """A prefix that ends with a slash would make hidden files, and is an error."""
    with pytest.raises(IsADirectoryError):
        write_bundle(bundle({"a": np.zeros(1)}).open(tmp_path), f"{tmp_path}/")


# Values and names


@pytest.mark.tensorflow
def test_big_endian_source(tf, tmp_path):
    """What a big-endian machine has written is written for this one."""
    arrays = varied(5) | {"c": np.array([1 + 2j, 3], np.complex64)}
    write_bundle(bundle(arrays, big_endian=True).open(tmp_path), tmp_path / "out")
    assert_restored(tf, tmp_path / "out", arrays)


HOSTILE = ["../../x", "a\0b", "\0", "\udcff\udcfe", "x" * 100_000, "/", " ", "\n", "\x1b[2J", "_CHECKPOINTABLE"]


def test_hostile_names(tmp_path):
    """A name is a key and nothing else: whatever it is, it is kept, and no file is made of it."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    np.savez(tmp_path / "in.npz", *[np.float32(n) for n in range(len(HOSTILE))])
    source = read_npz(tmp_path / "in.npz")
    named = {name: v.renamed(name) for name, v in zip(HOSTILE, source.values(), strict=True)}
    write_bundle(source.with_variables(named), tmp_path / "out" / "model", strict=True)
    found = read_bundle(str(tmp_path / "out" / "model"))
    assert {name: float(v.numpy()) for name, v in found.items()} == {name: n for n, name in enumerate(HOSTILE)}
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "in.npz",
        "model.data-00000-of-00001",
        "model.index",
    ]


class Nothing:
    """A source of variables without values."""

    def slices(self, variable):
        return [Slice((0,) * len(variable.shape), variable.shape, 0, ByteRange("", 0, 0, None))]


def test_what_a_bundle_can_not_hold(tmp_path):
    """An empty name, half of a surrogate pair, and dtypes without values are left out by name, or refused."""
    impossible = {
        "": DTYPES["float32"],
        "\ud800": DTYPES["float32"],
        "r": DTYPES["resource"],
        "f": stored_dtype_of(101),
    }
    variables = {name: Variable(name, dtype, (0,), Nothing()) for name, dtype in impossible.items()}
    possible = ckpttool.from_arrays({"w": np.ones(2, np.float32)})
    checkpoint = Checkpoint({**variables, **possible}, path="x", format="y")
    assert [planned.variable.name for planned in plan_bundle(checkpoint) if planned.problem] == list(impossible)
    assert [planned.variable.name for planned in write_bundle(checkpoint, tmp_path / "out")] == list(impossible)
    assert sizes_of(tmp_path / "out") == [8]
    with pytest.raises(ConversionError, match="left out"):
        write_bundle(checkpoint, tmp_path / "strict", strict=True)
    assert not files_of(tmp_path / "strict")


def test_two_names_of_one_key(tmp_path):
    """Two names that are the same bytes are an error, and nothing is left."""
    np.savez(tmp_path / "in.npz", a=np.zeros(1), b=np.zeros(1))
    source = read_npz(tmp_path / "in.npz")
    names = ["\u00e9", "\udcc3\udca9"]
    named = {name: v.renamed(name) for name, v in zip(names, source.values(), strict=True)}
    with pytest.raises(ConversionError, match="twice"):
        write_bundle(source.with_variables(named), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


@pytest.mark.parametrize("at", [0, 1000, 200_000 * 4 - 1])
def test_damaged_source(at, tmp_path):
    """A source whose bytes do not have their checksum is a CorruptionError, and nothing is left."""
    made = bundle({"a": np.ones(200_000, np.float32), "b": np.ones(3)})
    damaged = bytearray(made.shards[0])
    damaged[at] ^= 1
    made.shards = [bytes(damaged)]
    checkpoint = made.open(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CorruptionError, match="Checksum"):
        write_bundle(checkpoint, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_a_shape_that_tensorflow_aborts_on(tmp_path):
    """A shape whose elements can't be counted before the 0 in it is left out: TensorFlow would end the process."""
    arrays = {"far": np.zeros((1 << 30, 0)).reshape(1 << 30, 0), "x": np.ones(2)}
    checkpoint = ckpttool.from_arrays(arrays)
    odd = Variable("odd", DTYPES["float32"], (1 << 40, 1 << 40, 0), checkpoint["x"]._source, "x")
    checkpoint = checkpoint.with_variables({**checkpoint, "odd": odd})
    for write in (ckpttool.write_bundle, ckpttool.write_tensor_slices):
        [left_out] = write(checkpoint, tmp_path / write.__name__)
        assert "TensorFlow has no shape [1099511627776, 1099511627776, 0]" in left_out.problem
        assert set(ckpttool.open_checkpoint(tmp_path / write.__name__)) == {"far", "x"}
