"""V1 checkpoints as we write them: TensorFlow's own bytes, which its ops restore."""

from math import prod
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle
from conftest import FIXTURES, corpus_files, corpus_id, needs_corpus

from ckpttool.errors import ConversionError, CorruptionError
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.listing import is_table
from ckpttool.formats.npz import read_npz
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.formats.tensor_slices.reading import read_tensor_slices
from ckpttool.formats.tensor_slices.writing import plan_tensor_slices, write_tensor_slices
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Source, Variable
from ckpttool.wire.sstable import NO_COMPRESSION, Table

NUMBERS = ["float32", "float64", "int32", "uint8", "int16", "int8", "int64", "uint16", "float16", "bool"]
COMPLEX = ["complex64", "complex128"]
QUANTIZED = {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}
# TensorFlow says "not yet supported" or "not implemented" of these.
UNWRITTEN = ["bfloat16", "uint32", "uint64", "qint16", "quint16", "int4", "uint4", "float8_e5m2", "float8_e4m3fn"]


def opened(path) -> Checkpoint:
    return read_tensor_slices([str(path)], path=str(path))


def rewritten(path: Path) -> bytes:
    write_tensor_slices(opened(path), path.with_suffix(".out"), strict=True)
    return path.with_suffix(".out").read_bytes()


def save(tf, path: Path, pieces) -> Path:
    """Lets TensorFlow save (name, tensor, slice_spec) pieces in the order of their names, as its Saver does."""
    names, tensors, specs = zip(*sorted(pieces, key=lambda piece: piece[0]), strict=True)
    tf.raw_ops.SaveSlices(filename=str(path), tensor_names=names, shapes_and_slices=specs, data=tensors)
    return path


def extremes(dtype: str) -> np.ndarray:
    """Numbers whose varints are of every length."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        powers = [1 << bits for bits in range(0, 8 * kind.itemsize, 7)]
        numbers = sorted({n + d for n in powers for d in (-1, 0)} | {np.iinfo(kind).max, np.iinfo(kind).min})
        return np.array([n for n in numbers if np.iinfo(kind).min <= n <= np.iinfo(kind).max], kind)
    return np.array([0, 1, -0.0, 1.5, -2, np.inf, np.nan, 1e-7]).astype(kind)


def every_dtype(tf):
    for dtype in [*NUMBERS, *COMPLEX]:
        values = extremes(dtype)
        yield f"{dtype}/vector", tf.constant(values), ""
        yield f"{dtype}/scalar", tf.constant(values[-1]), ""
        yield f"{dtype}/matrix", tf.constant(np.resize(values, (3, 5))), ""
        yield f"{dtype}/none", tf.zeros([2, 0], dtype), ""
    for dtype, stored in QUANTIZED.items():
        yield dtype, tf.bitcast(tf.constant(extremes(stored)), dtype), ""


def texts(tf):
    yield "scalar", tf.constant(b""), ""
    yield "vector", tf.constant([b"", b"a", b"\xff\x00", b"x" * 127, b"x" * 128, b"y" * 100_000, b""]), ""
    yield "matrix", tf.constant([[b"1", b"22"], [b"333", "\u65e5".encode()]]), ""
    yield "none", tf.zeros([0], tf.string), ""
    yield "one", tf.constant([b"\x08\x01"]), ""


def slices(tf):
    for rank in range(1, 9):
        sizes = " ".join(["2"] * (rank - 1) + ["300"])
        for start, length in ((0, 100), (100, 150), (250, 50)):
            tensor = tf.fill([2] * (rank - 1) + [length], np.float32(start))
            yield f"dash/{rank}", tensor, f"{sizes} {'-:' * (rank - 1)}{start},{length}"
            yield f"number/{rank}", tensor, f"{sizes} {'0,2:' * (rank - 1)}{start},{length}"
    yield "blocks", tf.constant([[1, 2]], tf.int64), "2 4 1,1:2,2"
    for spec in ("0,1:-", "1,1:0,2"):
        yield "blocks", tf.ones([1, 4 if spec[-1] == "-" else 2], tf.int64), f"2 4 {spec}"


def few_slices(tf):
    """As many pieces as TensorFlow sorts by their names without changing the order of slices of one name."""
    yield from [piece for piece in slices(tf) if piece[0] in ("blocks", "dash/1", "number/3", "dash/8")]


def hostile_names(tf):
    for n, name in enumerate(["", "../../x", "a\0b", "\0", "\u65e5\u672c", "n" * 100_000, "n" * 100_001, "/", "\n"]):
        yield name, tf.constant(np.int32(n)), ""


def one_partition(tf):
    """A variable that a partitioner cut into one part says so by numbers, and one that nobody cut says "all"."""
    yield "cut", tf.constant([[1.0, 2], [3, 4]]), "2 2 0,2:0,2"
    yield "half", tf.constant([[1.0, 2], [3, 4]]), "2 2 -:0,2"
    yield "whole", tf.constant([[1.0, 2], [3, 4]]), ""


def thousands(tf):
    scalars = [tf.constant(np.float16(n)) for n in range(3000)]
    for n in range(3000):
        yield f"{'model/' * 9}layer_{n % 97}/{n}", scalars[n], ""


def large_ones(tf):
    """Records around twice the size of a block, from where on they have one of their own; floats and varints."""
    for extra in range(-8, 9, 4):
        nbytes = 2 * 262_144 - 31 + extra
        yield f"bytes/{nbytes:07}", tf.constant(np.resize(extremes("int8"), nbytes // 4)), ""
        yield f"text/{nbytes:07}", tf.constant([b"t" * (nbytes + 4 * i) for i in range(-6, 6)]), ""
        yield f"words/{nbytes:07}", tf.zeros([nbytes // 4 + extra], tf.float32), ""
    yield "words", tf.random.stateless_normal([300, 3000], [1, 2]), ""
    yield "small", tf.constant(1), ""


CONTENTS = [every_dtype, texts, slices, one_partition, hostile_names, thousands, large_ones]


@pytest.mark.tensorflow
@pytest.mark.parametrize("contents", CONTENTS, ids=lambda contents: contents.__name__)
def test_rewritten_byte_for_byte(contents, tf, tmp_path):
    """What TensorFlow has saved, read and written again, is the same file, byte for byte."""
    path = save(tf, tmp_path / "v1", contents(tf))
    assert rewritten(path) == path.read_bytes()


@pytest.mark.tensorflow
@pytest.mark.parametrize("contents", [every_dtype, texts, few_slices], ids=lambda contents: contents.__name__)
def test_from_a_bundle_byte_for_byte(contents, tf, tmp_path):
    """A bundle becomes the V1 checkpoint that TensorFlow saves of the same tensors, and is again that bundle."""
    pieces = list(contents(tf))
    names, tensors, specs = zip(*sorted(pieces, key=lambda piece: piece[0]), strict=True)
    prefix = str(tmp_path / "v2")
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=specs, tensors=tensors)
    write_tensor_slices(read_bundle(prefix), tmp_path / "ours", strict=True)
    assert (tmp_path / "ours").read_bytes() == save(tf, tmp_path / "theirs", pieces).read_bytes()
    write_bundle(opened(tmp_path / "ours"), tmp_path / "back")
    for suffix in (".index", ".data-00000-of-00001"):
        assert Path(f"{tmp_path}/back{suffix}").read_bytes() == Path(prefix + suffix).read_bytes()


@pytest.mark.tensorflow
def test_one_partition_in_a_bundle(tf, tmp_path):
    """A bundle has nothing of a cut that leaves one part, and TensorFlow's is the same byte for byte."""
    pieces = list(one_partition(tf))
    names, tensors, specs = zip(*sorted(pieces, key=lambda piece: piece[0]), strict=True)
    tf.raw_ops.SaveV2(prefix=str(tmp_path / "v2"), tensor_names=names, shape_and_slices=specs, tensors=tensors)
    write_bundle(opened(save(tf, tmp_path / "v1", pieces)), tmp_path / "ours")
    for suffix in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"v2{suffix}").read_bytes()


@pytest.mark.tensorflow
def test_from_an_archive_in_the_order_of_names(tf, tmp_path):
    """From arrays in any order comes the file that TensorFlow saves, which sorts them by name."""
    arrays = {"b": np.arange(6.0), "a/z": np.int32(7), "\u00e9": np.zeros((0, 2), np.float16), "B": np.array([True])}
    np.savez(tmp_path / "arrays.npz", **arrays)
    write_tensor_slices(read_npz(tmp_path / "arrays.npz"), tmp_path / "ours", strict=True)
    theirs = save(tf, tmp_path / "theirs", [(name, tf.constant(array), "") for name, array in arrays.items()])
    assert (tmp_path / "ours").read_bytes() == theirs.read_bytes()


@pytest.mark.tensorflow
def test_tensorflow_restores(tf, tmp_path):
    """TensorFlow's RestoreSlice gives the values back, bit for bit, of every dtype that a V1 checkpoint has."""
    checkpoint = read_bundle(str(FIXTURES / "dtypes" / "model"))
    left_out = {planned.variable.dtype.name for planned in write_tensor_slices(checkpoint, tmp_path / "v1")}
    assert left_out == {v.dtype.name for v in checkpoint.values()} - {*NUMBERS, *COMPLEX, *QUANTIZED, "string"}
    for name, variable in checkpoint.items():
        if variable.dtype.name in left_out:
            continue
        found = tf.raw_ops.RestoreSlice(
            file_pattern=str(tmp_path / "v1"), tensor_name=name, shape_and_slice="", dt=variable.dtype.name
        ).numpy()
        if variable.dtype.name == "string":
            assert np.array(found, object).tolist() == variable.numpy().tolist(), name
        else:
            assert np.asarray(found).tobytes() == variable.numpy().tobytes(), name


@pytest.mark.tensorflow
def test_tensorflow_restores_slices(tf, tmp_path):
    """A partitioned variable is restored whole, and in part."""
    array = np.arange(60.0).reshape(6, 10)
    cut = {"w": [((0, 4), (0, -1)), ((4, 2), (0, 5)), ((4, 2), (5, 5))]}
    write_tensor_slices(bundle({"w": array}, slices=cut).open(tmp_path), tmp_path / "v1")
    for spec, expected in (("", array), ("6 10 1,4:2,6", array[1:5, 2:8])):
        found = tf.raw_ops.RestoreSlice(
            file_pattern=str(tmp_path / "v1"), tensor_name="w", shape_and_slice=spec, dt=tf.float64
        )
        assert np.array_equal(found.numpy(), expected)


V1_FILES = [
    path
    for path in corpus_files("*")
    if path.is_file() and path.suffix not in (".index", ".meta", ".pb") and is_table(str(path))
]


def is_compressed(path: Path) -> bool:
    data = path.read_bytes()
    return any(data[offset + size] != NO_COMPRESSION for offset, size in Table.from_bytes(data).handles)


@needs_corpus
@pytest.mark.parametrize("path", V1_FILES, ids=corpus_id)
def test_real_files_byte_for_byte(path, tmp_path):
    """A real V1 checkpoint, or a shard of one, read and written, has its bytes again; compressed ones its records."""
    try:
        checkpoint = opened(path)
    except CorruptionError as error:
        pytest.skip(f"one shard of several: {error}")
    write_tensor_slices(checkpoint, tmp_path / "out", strict=True)
    theirs, ours = path.read_bytes(), (tmp_path / "out").read_bytes()
    if is_compressed(path):
        assert list(Table.from_bytes(ours)) == list(Table.from_bytes(theirs))
    else:
        assert ours == theirs


# What the format can't hold


class Nothing:
    """A source of variables whose values are asked of nobody."""

    def slices(self, variable):
        whole = ByteRange("", 0, prod(variable.shape) * (variable.dtype.itemsize or 20), None)
        return [Slice((0,) * len(variable.shape), variable.shape, 0, whole)]


def checkpoint_of(**variables) -> Checkpoint:
    made = {name: Variable(name, DTYPES[dtype], shape, Nothing()) for name, (dtype, shape) in variables.items()}
    return Checkpoint(made, path="x", format="y")


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", UNWRITTEN)
def test_dtypes_that_have_no_place(dtype, tf, tmp_path):
    """A dtype that TensorFlow does not save as V1 is left out by name, or refused."""
    plan = plan_tensor_slices(checkpoint_of(fine=("float32", (2,)), odd=(dtype, (2,))))
    assert [(p.variable.name, bool(p.problem)) for p in plan] == [("fine", False), ("odd", True)]
    assert dtype in plan[1].problem
    prefix, name = str(FIXTURES / "dtypes" / "model"), f"{dtype}/matrix"
    tensors = tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=[name], shape_and_slices=[""], dtypes=[dtype])
    with pytest.raises(tf.errors.OpError, match=r"not yet supported|not implemented"):
        save(tf, tmp_path / "v1", [("odd", tensors[0], "")])


@pytest.mark.tensorflow
def test_names_that_are_no_text(tf, tmp_path):
    """A name that is not UTF-8 is left out: TensorFlow saves it, and then can't read any of the file."""
    prefix = FIXTURES / "names" / "model"
    remarks = write_tensor_slices(read_bundle(str(prefix)), tmp_path / "v1")
    assert [planned.variable.name for planned in remarks] == ["\udcff\udcfe"]
    assert len(tf.train.load_checkpoint(str(tmp_path / "v1")).get_variable_to_shape_map()) > 10
    save(tf, tmp_path / "theirs", [(b"\xff", tf.constant(1), "")])
    with pytest.raises(tf.errors.OpError, match="Failed to find the saved tensor slices"):
        tf.train.load_checkpoint(str(tmp_path / "theirs"))
    with pytest.raises(ConversionError, match="UTF-8"):
        write_tensor_slices(read_bundle(str(prefix)), tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_more_dimensions_than_can_be_restored():
    """Nine dimensions are left out: TensorFlow would end the process that restores them."""
    plan = plan_tensor_slices(checkpoint_of(eight=("int8", (1,) * 8), nine=("int8", (1,) * 9)))
    assert [planned.problem is None for planned in plan] == [True, False]


# What TensorFlow reckons: 1,024 bytes and what comes before the values, here ten; for each value so many.
RECKONED = {"float32": 4, "float64": 8, "int8": 10, "int64": 10, "float16": 3, "bool": 1, "uint8": 2, "complex128": 16}


@pytest.mark.parametrize(("dtype", "nbytes"), [*RECKONED.items(), ("string", 30)])
def test_more_than_a_record_may_hold(dtype, nbytes):
    """A slice is left out from the size on at which TensorFlow reckons that its record passes 2 GiB."""
    most = ((1 << 31) - 1034) // nbytes
    plan = plan_tensor_slices(checkpoint_of(name=(dtype, (most,)), more=(dtype, (most + 1,))))
    assert [planned.problem is None for planned in plan] == [True, False]


@pytest.mark.tensorflow
def test_tensorflow_refuses_it_too(tf, tmp_path):
    """The first size that we refuse is one that TensorFlow refuses."""
    most = ((1 << 31) - 1034) // RECKONED["int8"]
    with pytest.raises(tf.errors.OpError, match="too large to serialize"):
        save(tf, tmp_path / "v1", [("name", tf.zeros([most + 1], tf.int8), "")])


class _Twice(Source):
    """The source of a variable of which a slice is stored twice."""

    def slices(self, variable):
        piece = Slice((0,), (1,), 0, ByteRange("", 0, 4, None), 0, ((0, 1),))
        return [piece, piece]


def test_two_slices_of_one_key(tmp_path):
    """Two slices whose records would have the same key are an error, and nothing is left."""
    variable = Variable("w", DTYPES["float32"], (2,), _Twice())
    with pytest.raises(ConversionError, match="a slice is there twice"):
        write_tensor_slices(Checkpoint({"w": variable}, path="", format=""), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_no_variables(tmp_path):
    """A checkpoint without variables is a file that says so."""
    write_tensor_slices(checkpoint_of(), tmp_path / "out")
    table = dict(Table.from_bytes((tmp_path / "out").read_bytes()))
    assert table == {b"": bytes.fromhex("0a04 1202 0801")}


def test_key_of_a_whole_variable(tmp_path):
    """A whole variable is a slice with nothing cut, and a scalar one of no dimension."""
    write_tensor_slices(bundle({"w": np.zeros((2, 2)), "s": np.float32(1)}).open(tmp_path), tmp_path / "out")
    keys = [key for key, _ in Table.from_bytes((tmp_path / "out").read_bytes())]
    assert keys == [b"", encode_slice_key(b"s", ()), encode_slice_key(b"w", ((0, -1), (0, -1)))]


def test_damage_names_the_variable(tmp_path):
    """Values that do not have their checksum, copied or recoded, are told of with the variable's name."""
    for dtype in ("f4", "i8"):
        made = bundle({"a": np.zeros(3, dtype), "w": np.ones(3, dtype)})
        checkpoint = made.change("w", crc32c=1).open(tmp_path)
        with pytest.raises(CorruptionError) as caught:
            write_tensor_slices(checkpoint, tmp_path / "out")
        assert caught.value.variable == "w"
