"""HDF5 out: names, types, and files that h5py and the HDF5 library read as meant."""

import re
import shutil
import zlib

import h5py
import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, strings
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.errors import CheckpointError, ConversionError, CorruptionError
from ckpttool.formats.hdf5 import dataset_path, plan_hdf5

NAMES = [
    ("w", "w:0"),
    ("w/Adam", "w/Adam:0"),
    ("a/./b", "a/%2E/b:0"),
    (".", ".:0"),
    ("a//b", "a/%/b:0"),
    ("/abs", "%/abs:0"),
    ("a/", "a/:0"),
    ("100%", "100%25:0"),
    ("w:0/x", "w%3A0/x:0"),
    ("a\0b", "a%00b:0"),
    ("é", "é:0"),
    ("\udcff", "%FF:0"),
    ("../../x", "../../x:0"),
]


@pytest.mark.parametrize(("name", "path"), NAMES, ids=repr)
def test_dataset_path(name, path):
    """A variable's dataset is its name with :0, and what HDF5 can't hold is percent-encoded."""
    assert dataset_path(name) == path


def name_of(path: str) -> str:
    """The way back from a dataset's path, written from the rules in the module's docstring."""
    segments = path.removesuffix(":0").split("/")
    segments[:-1] = ["" if s == "%" else s for s in segments[:-1]]
    data = [re.sub(rb"%([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), s.encode()) for s in segments]
    return b"/".join(data).decode(errors="surrogateescape")


@given(st.binary(min_size=1).map(lambda data: data.decode(errors="surrogateescape")))
def test_names_are_encoded_reversibly(name):
    """From any dataset's path the name can be had back."""
    assert name_of(dataset_path(name)) == name


@given(st.sets(st.text("ab/.:0%", min_size=1, max_size=6), max_size=8))
def test_no_dataset_is_another_ones_group(names):
    """No path is another's, nor the beginning of another's."""
    paths = [dataset_path(name) for name in names]
    assert len(set(paths)) == len(names)
    groups = {"/".join(path.split("/")[:i]) for path in paths for i in range(1, path.count("/") + 1)}
    assert not groups & set(paths)


def exported(tmp_path, checkpoint, **options):
    ckpttool.write_hdf5(checkpoint, tmp_path / "out.h5", **options)
    return h5py.File(tmp_path / "out.h5")


def test_odd_names_exist_side_by_side(tmp_path):
    """Every name of the fixture is a dataset of its own, and keeps its true name if the path is not it."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "names" / "model")
    with exported(tmp_path, checkpoint, strict=True) as file:
        for name, variable in checkpoint.items():
            dataset = file[dataset_path(name)]
            assert dataset[()].tobytes() == variable.numpy().tobytes()
            if dataset_path(name) != f"{name}:0":
                kept = dataset.attrs["name"]
                kept = kept.tobytes() if isinstance(kept, np.void) else kept
                assert kept.decode(errors="surrogateescape") == name


def test_types_mean_the_same_values(tmp_path):
    """h5py reads the same numbers: bfloat16 and float8_e5m2 as floats, int4 with its sign, bool and complex as such."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "dtypes" / "model")
    with exported(tmp_path, checkpoint) as file:
        for variable in checkpoint.values():
            dataset = file[dataset_path(variable.name)]
            name, values = variable.dtype.name, variable.numpy()
            if "tensorflow_dtype" in dataset.attrs:
                assert dataset.attrs["tensorflow_dtype"] == name.encode()
            if name == "string":
                assert [bytes(dataset[index]) for index in np.ndindex(values.shape)] == list(values.ravel())
            elif name.startswith(("float8_e4", "float8_e5m2fnuz", "float4")):
                assert dataset[()].tobytes() == values.tobytes()
            else:
                with np.errstate(invalid="ignore"):
                    np.testing.assert_array_equal(dataset[()], values.astype(dataset.dtype))


def test_bfloat16_is_a_16_bit_float(tmp_path):
    """The file type has 16 bits, 8 of them exponent with bias 127: no bit is changed, and none is guessed at."""
    bundle({"b": np.array([1.5, -2], ml_dtypes.bfloat16)}).write(tmp_path)
    with exported(tmp_path, ckpttool.open_checkpoint(tmp_path / "model")) as file:
        stored = file["b:0"].id.get_type()
        assert (stored.get_size(), stored.get_ebias(), stored.get_fields()) == (2, 127, (15, 7, 8, 0, 7))
        assert list(file["b:0"][()]) == [1.5, -2]


def test_strings_with_nul_are_sequences_of_bytes(tmp_path):
    """HDF5 would end a string at its NUL: such variables are stored so that no byte is lost."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "strings" / "model")
    with exported(tmp_path, checkpoint) as file:
        for variable in checkpoint.values():
            values = variable.numpy()
            dataset = file[dataset_path(variable.name)]
            for index in np.ndindex(values.shape):
                assert bytes(dataset[index]) == values[index]


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_compression_changes_no_value(tmp_path, compression):
    """A compressed file holds the same values; scalars and empty variables, which can't be compressed, too."""
    for fixture in ("dtypes", "empty", "partitioned", "conv"):
        checkpoint = ckpttool.open_checkpoint(FIXTURES / fixture / "model")
        with exported(tmp_path, checkpoint, compression=compression, force=True) as file:
            for name, variable in checkpoint.items():
                dataset = file[dataset_path(name)]
                if variable.dtype.name != "string" and variable.shape and variable.size:
                    assert dataset.compression == compression
                    raw = np.empty(dataset.shape, f"V{variable.dtype.itemsize}")
                    dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, dataset.id.get_type())
                    assert raw.tobytes() == variable.numpy().tobytes()


def test_more_dimensions_than_hdf5_has(tmp_path):
    """A variable of 40 dimensions becomes one-dimensional, and an attribute keeps its shape."""
    shape = (1,) * 39 + (3,)
    bundle({"deep": np.arange(3, dtype=np.int32).reshape(shape)}).write(tmp_path)
    with exported(tmp_path, ckpttool.open_checkpoint(tmp_path / "model")) as file:
        assert list(file["deep:0"][()]) == [0, 1, 2]
        assert tuple(file["deep:0"].attrs["shape"]) == shape


def test_deep_values_that_must_be_decoded(tmp_path):
    """Of more than 32 dimensions, big-endian values can't be held: the plan says so, and the others are written."""
    deep = np.arange(2, dtype=np.float32).reshape((1,) * 32 + (2,))
    bundle({"a": np.ones(2, np.float32), "deep": deep}, big_endian=True).write(tmp_path)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "model")
    assert [bool(planned.problem) for planned in plan_hdf5(checkpoint)] == [False, True]
    assert [planned.variable.name for planned in ckpttool.write_hdf5(checkpoint, tmp_path / "out.h5")] == ["deep"]


def test_full_disk_is_noticed_before(tmp_path, monkeypatch):
    """Where the space is not enough, nothing is begun."""
    bundle({"w": np.ones(2, np.float32)}).write(tmp_path)
    free = shutil.disk_usage(tmp_path)._replace(free=3)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(OSError, match="no space left"):
        ckpttool.write_hdf5(ckpttool.open_checkpoint(tmp_path / "model"), tmp_path / "out.h5")
    assert not list(tmp_path.glob("*out.h5*"))


def test_what_hdf5_cannot_hold_is_said(tmp_path):
    """A resource is left out and returned with the reason; strict raises, and leaves no file."""
    bundle({"w": np.ones(2, np.float32), "iterator": strings(b"?")}).change("iterator", dtype=20).write(tmp_path)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "model")
    (left_out,) = ckpttool.write_hdf5(checkpoint, tmp_path / "out.h5")
    assert (left_out.variable.name, left_out.problem) == ("iterator", "HDF5 can't hold values of dtype resource")
    with pytest.raises(ConversionError, match="resource"):
        ckpttool.write_hdf5(checkpoint, tmp_path / "strict.h5", strict=True)
    assert not (tmp_path / "strict.h5").exists()


def test_plan_reads_no_values(tmp_path):
    """The plan is made although the data file is gone."""
    bundle({"w": np.ones(2, np.float32)}).write(tmp_path)
    next(tmp_path.glob("model.data-*")).unlink()
    plan = plan_hdf5(ckpttool.open_checkpoint(tmp_path / "model"))
    assert [planned.target for planned in plan] == ["w:0"]


def test_damaged_values_leave_no_file(tmp_path):
    """A flipped byte is found on the way; neither the output nor a temporary is left."""
    bundle({"a": np.ones(9, np.float32), "w": np.ones(100_000, np.float32)}).write(tmp_path)
    data = next(tmp_path.glob("model.data-*"))
    damaged = bytearray(data.read_bytes())
    damaged[-5] ^= 1
    data.write_bytes(damaged)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CorruptionError, match="Checksum does not match"):
        ckpttool.write_hdf5(ckpttool.open_checkpoint(tmp_path / "model"), tmp_path / "out.h5")
    assert sorted(tmp_path.iterdir()) == before


def test_same_input_same_bytes(tmp_path):
    """Two exports of one checkpoint are equal byte for byte."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    for name in ("one.h5", "two.h5"):
        ckpttool.write_hdf5(checkpoint, tmp_path / name)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_the_file_says_what_it_was_made_from(tmp_path):
    """File attributes name the source, its format, and the maker."""
    with exported(tmp_path, ckpttool.open_checkpoint(FIXTURES / "linear" / "model")) as file:
        assert file.attrs["source"] == b"model"
        assert file.attrs["source_format"] == b"TensorFlow checkpoint V2 (tensor bundle)"
        assert file.attrs["created_by"] == f"ckpttool {ckpttool.__version__}".encode()


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_short_chunks_give_no_memory_away(tmp_path, compression):
    """A chunk that is decompressed to less than its dataset says is damage: HDF5 gives what was in memory for the
    rest.
    """
    data = {"gzip": zlib.compress(b"short"), "lzf": b"\x01ab"}[compression]
    with h5py.File(tmp_path / "short.h5", "w") as file:
        dataset = file.create_dataset("x", (64,), "<i8", chunks=(64,), compression=compression)
        dataset.id.write_direct_chunk((0,), data)
        texts = file.create_dataset("s", (64,), "S8", chunks=(64,), compression=compression)
        texts.id.write_direct_chunk((0,), data)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "short.h5")
    for read in (checkpoint["x"].numpy, lambda: list(checkpoint["x"].blocks(8)), checkpoint["s"].strings):
        with pytest.raises(CorruptionError, match="bytes, not 512"):
            read()


def test_shuffled_chunks_without_a_width(tmp_path):
    """A shuffle filter without its width is damage, and no error of ours."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.arange(64), chunks=(64,), shuffle=True)
    data = (tmp_path / "x.h5").read_bytes()
    named = data.index(b"shuffle\0") - 2
    assert data[named : named + 2] == b"\x01\0"  # The number of values.
    (tmp_path / "x.h5").write_bytes(data[:named] + b"\0\0" + data[named + 2 :])
    with pytest.raises(CheckpointError):
        ckpttool.open_checkpoint(tmp_path / "x.h5")["x"].numpy()


def test_lzf_is_read(tmp_path):
    """Whatever LZF makes of values, they are read: literal runs, short copies, long ones."""
    random = np.random.default_rng(0)
    arrays = {
        "random": random.integers(0, 255, 5000, np.uint8),
        "zeros": np.zeros(100_000),
        "few": np.tile([1, 2, 3], 999),
    }
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="lzf", chunks=(1000,))
    checkpoint = ckpttool.open_checkpoint(tmp_path / "x.h5")
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint[name].numpy(), array)


@pytest.mark.parametrize("values", [[b"a\0b"], [b"a\0b", b"c\0d"], [b"\0"]], ids=["one", "two of a length", "a zero"])
def test_bytes_with_zeros_of_one_length(tmp_path, values):
    """Values with zeros, all of one length, come back as they were: they are no table."""
    bundle({"s": strings(*values)}).write(tmp_path)
    ckpttool.write_hdf5(ckpttool.open_checkpoint(tmp_path / "model"), tmp_path / "out.h5")
    assert ckpttool.open_checkpoint(tmp_path / "out.h5")["s"].strings() == values


def test_a_layout_that_is_none(tmp_path):
    """A mistyped layout is a ValueError that names those there are, and nothing is written."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "linear" / "model")
    with pytest.raises(ValueError, match="layout is 'kears', and must be one of names, keras"):
        ckpttool.write_hdf5(checkpoint, tmp_path / "x.h5", layout="kears")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["names", "keras"])
def test_names_of_more_segments_than_readers_go_deep(run, tmp_path, layout):
    """What could not be read again is not written, and that is said; the deepest that can be is there.

    For Keras, a name's scopes are layers, each with all that is below: more than a hundred would take long.
    """
    depth = {"names": 3999, "keras": 100}[layout]
    names = ["/".join("a" * (depth + 1 + more - (layout == "keras"))) for more in (0, 1, 2000)]
    prefix = bundle({name: np.ones(1, np.float32) for name in names}).write(tmp_path)
    result = run("export", prefix, "--h5", tmp_path / "out.h5", "--h5-layout", layout)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("readers go no deeper" if layout == "names" else "no layer of Keras") == 2
    read = ckpttool.open_checkpoint(tmp_path / "out.h5")
    assert (list(read), read.warnings) == (names[:1], ())


@pytest.mark.parametrize("size", [512, 4096, 1 << 16])
def test_behind_a_users_block(tmp_path, size):
    """HDF5 is known behind a user's block of any size that it can have."""
    with h5py.File(tmp_path / "u.h5", "w", userblock_size=size) as file:
        file["a"] = np.arange(3.0)
    assert ckpttool.open_checkpoint(tmp_path / "u.h5")["a"].numpy().tolist() == [0, 1, 2]


def test_many_dimensions_are_said(tmp_path):
    """What becomes one-dimensional is said, and `strict` refuses it."""
    checkpoint = bundle({"a": np.ones((1,) * 33, np.float32)}).open(tmp_path)
    [planned] = ckpttool.write_hdf5(checkpoint, tmp_path / "a.h5")
    assert planned.remark.startswith("stored as one dimension")
    with pytest.raises(ConversionError, match="stored as one dimension"):
        ckpttool.write_hdf5(checkpoint, tmp_path / "b.h5", strict=True)
