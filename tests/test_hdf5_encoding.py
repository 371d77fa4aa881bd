"""The structures of HDF5 as we write them: the HDF5 library reads them, and goes on writing in them."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from bundles import bundle, examples, strings
from conftest import FIXTURES
from h5py import h5o, h5t
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.formats.hdf5 import compressing, dataset_path, plan_hdf5
from ckpttool.formats.hdf5.encoding.messages import (
    SEQUENCES,
    TEXTS,
    ascii_type,
    encode_datatype,
    opaque_type,
    utf8_type,
)
from ckpttool.formats.hdf5.encoding.output import Output
from ckpttool.formats.hdf5.encoding.trees import write_tree
from ckpttool.formats.hdf5.structure.datatype import STRING, Datatype, decode_datatype
from ckpttool.formats.hdf5.structure.file import Cursor
from ckpttool.formats.hdf5.types import FLOATS, NARROW, NUMPY_TYPES, TYPES, datatype_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.h5"


def written(checkpoint, path, **options) -> h5py.File:
    ckpttool.write_hdf5(checkpoint, path, **options)
    return h5py.File(path)


def opened(made, tmp_path):
    made.write(tmp_path)
    return ckpttool.open_checkpoint(tmp_path / "model")


# Types


def libraries_type(name: str):
    """The type as the HDF5 library, or h5py, makes it."""
    if name in TYPES:
        return getattr(h5t, TYPES[name])
    if name in NUMPY_TYPES:
        return h5t.py_create(np.dtype(name), logical=True)
    if name in NARROW:
        base, precision = NARROW[name]
        made = getattr(h5t, base).copy()
        made.set_precision(precision)
        return made
    bits, size, bias = FLOATS[name]
    made = h5t.IEEE_F32LE.copy()
    made.set_fields(*bits)
    made.set_precision(8 * size)
    made.set_offset(0)
    made.set_size(size)
    made.set_ebias(bias)
    return made


def encoded(made) -> bytes:
    """A type's message as the library writes it; before it are two numbers of another format."""
    return made.encode()[2:]


@pytest.mark.parametrize("name", [*TYPES, *FLOATS, *NARROW, *sorted(NUMPY_TYPES)])
def test_types_are_the_librarys_bytes(name):
    """Of every dtype the type's message is what the HDF5 library writes, byte for byte, and is read as that type."""
    data = encode_datatype(datatype_of(name))
    assert data == encoded(libraries_type(name))
    assert decode_datatype(Cursor(data)) == datatype_of(name)


def test_types_of_texts_are_the_librarys_bytes():
    """So are those of strings and bytes. (What has variable length is 16 bytes in a file, 8 in memory.)"""
    for size in (1, 5, 60_000):
        assert ascii_type(size) == encoded(h5t.py_create(np.dtype(f"S{size}"), logical=True))
        assert utf8_type(size) == encoded(h5t.py_create(h5py.string_dtype("utf-8", size), logical=True))
        assert opaque_type(size) == encoded(h5t.py_create(np.dtype(f"V{size}"), logical=True))
    in_memory = encoded(h5t.py_create(h5py.string_dtype(), logical=True))
    assert in_memory[:4] + b"\x10" + in_memory[5:] == TEXTS
    assert encoded(h5t.py_create(h5py.vlen_dtype(np.uint8), logical=True)) == SEQUENCES


def test_types_that_are_not_written():
    """A type of a class that no variable has is an error."""
    with pytest.raises(ValueError, match="class 3 are not written"):
        encode_datatype(Datatype(STRING, 5))


# Groups and trees


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 255, 256, 257, 3000, 9000])
def test_groups_of_any_size(tmp_path, path, count):
    """Groups of one leaf, of one node, of nodes in three levels: each name is found, listed in order, and no other."""
    made = bundle({f"layer/w{i}": np.array([i], np.int32) for i in range(count)})
    with written(opened(made, tmp_path), path) as file:
        group = file["layer"] if count else file
        assert (list(group), len(group)) == (sorted(group), count)
        assert [int(group[f"w{i}:0"][0]) for i in range(count)] == list(range(count))
        assert [name for name in ("a", "w:0", "x") if name in group] == []
    assert len(ckpttool.open_checkpoint(path)) == count


@examples
@given(names=st.sets(st.text("ab/é.:0%\udcff", min_size=1, max_size=6), max_size=12))
def test_any_names(tmp_path_factory, names):
    """Whatever the names, the library finds each dataset at its path."""
    directory = tmp_path_factory.mktemp("names")
    made = bundle({name: np.array([i], np.int16) for i, name in enumerate(names)})
    with written(opened(made, directory), directory / "out.h5") as file:
        for i, name in enumerate(names):
            assert list(file[dataset_path(name)][()]) == [i]


def test_groups_within_groups(tmp_path, path):
    """A name of 3,000 segments is one group in another, deeper than Python calls itself."""
    name = "/".join(f"g{i}" for i in range(3000))
    with written(opened(bundle({name: np.ones(2, np.float32)}), tmp_path), path) as file:
        place = file
        for i in range(2999):
            place = place[f"g{i}"]
        assert list(place["g2999:0"][()]) == [1, 1]


def test_a_tree_of_many_levels(tmp_path):
    """Nodes of two children each: every level leads to the next, siblings to each other, keys part the children."""
    keys = [number.to_bytes(8, "little") for number in range(12)]
    with Output(tmp_path / "tree", 96) as output:
        root = write_tree(output, 0, 2, keys, list(range(100, 111)))
    data = (tmp_path / "tree").read_bytes()

    def node(address):
        level, count = data[address + 5], int.from_bytes(data[address + 6 : address + 8], "little")
        words = [int.from_bytes(data[place : place + 8], "little") for place in range(address + 8, address + 64, 8)]
        return level, words[:2], words[2 : 2 + 2 * count + 1]

    def leaves(address, low, high, level):
        found, _, words = node(address)
        assert (found, words[0], words[-1]) == (level, low, high)
        for at in range(0, len(words) - 1, 2):
            if level:
                yield from leaves(words[at + 1], words[at], words[at + 2], level - 1)
            else:
                yield words[at], words[at + 1]

    assert list(leaves(root, 0, 11, 3)) == [(i, 100 + i) for i in range(11)]
    none, first = (1 << 64) - 1, 96
    siblings = [node(first + i * 64)[1] for i in range(6)]
    assert (siblings[0], siblings[5]) == ([none, first + 64], [first + 4 * 64, none])
    assert siblings[2] == [first + 64, first + 3 * 64]


# The library goes on where we ended


def test_the_library_writes_in_it(tmp_path, path):
    """Names, attributes and datasets are added and removed, values changed, and nothing else becomes another."""
    values = {f"g{i % 5}/w{i}": np.full((3, i + 1), i, np.float32) for i in range(100)}
    made = bundle({**values, "text": strings(b"a", b"", b"b" * 70_000)})
    written(opened(made, tmp_path), path).close()
    with h5py.File(path, "r+") as file:
        for i in range(60):
            file[f"g0/a{i}"] = np.arange(i)
            file[f"g0/z{i}"] = h5py.SoftLink("/g1")
            file[f"new/more{i}"] = file["g1/w1:0"]
        file["text"] = [b"more"] * 9
        file["text:0"][1] = b"changed"
        del file["g2"], file["g3/w3:0"]
        file["g4/w4:0"][1] = 7
        file["g4/w4:0"].attrs["note"] = "x" * 5000
        file["g4"].attrs["about"] = np.arange(99)
        file.attrs["source"] = "another"
    with h5py.File(path) as file:
        for name, value in values.items():
            if name.startswith("g2/") or name == "g3/w3":
                assert dataset_path(name) not in file
            elif name != "g4/w4":
                np.testing.assert_array_equal(file[dataset_path(name)][()], value)
        assert list(file["g4/w4:0"][:, 0]) == [4, 7, 4]
        assert list(file["text:0"][()]) == [b"a", b"changed", b"b" * 70_000]
        assert h5o.get_info(file["g1/w1:0"].id).rc == 61
        assert len(file["g0"]) == 140


def test_links_are_counted(tmp_path, path):
    """A weight that layers within layers have is one dataset, which counts its names: none frees it too early."""
    checkpoint = opened(bundle({"a/b/c/kernel": np.ones(3, np.float32), "d/bias": np.zeros(1)}), tmp_path)
    with written(checkpoint, path, layout="keras") as file:
        found = [file[f"{layer}/a/b/c/kernel:0"] for layer in ("a", "a/b", "a/b/c")]
        assert [h5o.get_info(dataset.id).rc for dataset in found] == [3, 3, 3]
        assert len({h5o.get_info(dataset.id).addr for dataset in found}) == 1
        assert h5o.get_info(file["d/d/bias:0"].id).rc == 1
    with h5py.File(path, "r+") as file:
        del file["a/a"], file["a/b/a"]
        assert list(file["a/b/c/a/b/c/kernel:0"][()]) == [1, 1, 1]


def test_the_file_ends_where_it_says(path):
    """The superblock's end of the file is its size."""
    written(ckpttool.open_checkpoint(FIXTURES / "dtypes" / "model"), path).close()
    data = path.read_bytes()
    assert int.from_bytes(data[40:48], "little") == len(data)


# Strings


def test_strings_of_any_length(tmp_path, path):
    """Strings of no length, of more than a heap usually has, so many that there are several heaps, and none at all."""
    many = [b"x" * (i % 50) for i in range(20_000)]
    made = bundle({"many": strings(*many), "long": strings(b"y" * 200_000, b"", b"z"), "none": strings()})
    with written(opened(made, tmp_path), path) as file:
        assert list(file["many:0"][()]) == many
        assert list(file["long:0"][()]) == [b"y" * 200_000, b"", b"z"]
        assert file["none:0"].shape == (0,)
    ours = ckpttool.open_checkpoint(path)
    assert ours["many"].strings() == many


def test_strings_share_a_heap(tmp_path, path):
    """A thousand short strings, each a variable of its own, take no heap each."""
    made = bundle({f"s{i}": strings(b"%d" % i) for i in range(1000)})
    with written(opened(made, tmp_path), path) as file:
        assert [file[f"s{i}:0"][()][0] for i in range(1000)] == [b"%d" % i for i in range(1000)]
    assert path.stat().st_size < 700_000


def test_names_that_no_attribute_holds(tmp_path, path):
    """A name that needs an attribute, and is longer than one can be, is left out with the reason."""
    names = ["w" * 70_000, "%" * 60_000, "%" * 60_001]
    checkpoint = opened(bundle({name: np.ones(1, np.float32) for name in names}), tmp_path)
    problems = {planned.variable.name: planned.problem for planned in plan_hdf5(checkpoint)}
    reason = "its name takes 60,001 bytes, and HDF5's attributes hold no more than 60,000"
    assert problems == {names[0]: None, names[1]: None, names[2]: reason}
    with written(checkpoint, path) as file:
        assert list(file) == ["%25" * 60_000 + ":0", names[0] + ":0"]
        assert file["%25" * 60_000 + ":0"].attrs["name"] == names[1].encode()


def test_names_that_no_list_of_keras_holds(tmp_path, path):
    """For Keras each name is in a list: one that is too long is left out with the reason, and one that fits is read."""
    names = ["a/" + "w" * 59_994, "a/" + "w" * 59_995]
    checkpoint = opened(bundle({name: np.ones(1, np.float32) for name in names}), tmp_path)
    problems = [planned.problem for planned in plan_hdf5(checkpoint, layout="keras")]
    assert problems == [None, "its name takes 60,001 bytes, and HDF5's attributes hold no more than 60,000"]
    with written(checkpoint, path, layout="keras") as file:
        assert list(file["a"].attrs["weight_names"]) == [f"{names[0]}:0".encode()]


# Chunks

SHAPES = [(1,), (5,), (1000,), (7, 300), (300, 7), (3, 5, 7), (2, 1, 900), (1, 1, 1, 1)]


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunks_of_any_shape(tmp_path, path, monkeypatch, compression, shape):
    """Values that are cut in any dimension, into more chunks than a node has children, come back whole."""
    monkeypatch.setattr(compressing, "_MOST_BYTES", 64)
    values = np.random.default_rng(0).integers(-3, 3, shape).astype(np.int32)
    with written(opened(bundle({"w": values}), tmp_path), path, compression=compression) as file:
        np.testing.assert_array_equal(file["w:0"][()], values)
        assert (file["w:0"].compression, file["w:0"].shuffle) == (compression, True)
        assert all(0 < part <= size for part, size in zip(file["w:0"].chunks, shape, strict=True))
        assert np.prod(file["w:0"].chunks) * 4 <= 64
    np.testing.assert_array_equal(ckpttool.open_checkpoint(path)["w"].numpy(), values)


def test_the_library_compresses_in_it(tmp_path, path, monkeypatch):
    """Chunks that have been written are written anew, larger and smaller, and the others stay."""
    monkeypatch.setattr(compressing, "_MOST_BYTES", 1024)
    values = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    written(opened(bundle({"w": values}), tmp_path), path, compression="gzip").close()
    with h5py.File(path, "r+") as file:
        file["w:0"][10:200:7] = values[10:200:7] = 0
        file["w:0"][5] = values[5] = values[6][::-1]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["w:0"][()], values)


def test_chunks_that_become_no_smaller(tmp_path, path):
    """What can't be compressed is stored as it is, which its mask says; what can be is stored compressed."""
    noise = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
    made = bundle({"noise": noise, "zeros": np.zeros(1 << 20, np.uint8)})
    for compression in ("gzip", "lzf"):
        with written(opened(made, tmp_path), path, compression=compression, force=True) as file:
            np.testing.assert_array_equal(file["noise:0"][()], noise)
            assert file["noise:0"].id.get_chunk_info(0).filter_mask == 0b10
            assert file["zeros:0"].id.get_chunk_info(0).filter_mask == 0
            assert not file["zeros:0"][()].any()
        assert path.stat().st_size < 130_000


def test_chunks_are_about_as_large():
    """Chunks are runs of values of at most a quarter of a megabyte, and of none is more than a part left empty."""
    for shape, chunk in [
        ((1000, 300, 300), (1, 150, 300)),
        ((5_000_000,), (64_936,)),
        ((1 << 16,), (1 << 16,)),
        ((65_537,), (32_769,)),
        ((3, 4), (3, 4)),
        ((10, 1 << 20), (1, 1 << 16)),
    ]:
        axis, steps = compressing._cut(shape, 4)
        assert (*(1,) * axis, steps, *shape[axis + 1 :]) == chunk


def test_no_library_is_imported(tmp_path):
    """To write HDF5, compressed or not, neither h5py nor TensorFlow is imported."""
    code = f"""
import sys, ckpttool
checkpoint = ckpttool.open_checkpoint({str(FIXTURES / "conv" / "model")!r})
ckpttool.write_hdf5(checkpoint, {str(tmp_path / "plain.h5")!r})
assert "numpy" not in sys.modules
ckpttool.write_hdf5(checkpoint, {str(tmp_path / "gzip.h5")!r}, compression="gzip")
assert "h5py" not in sys.modules and "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
