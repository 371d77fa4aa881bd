"""The structures of HDF5, each of them written by h5py in as many ways as it has, and read as h5py reads it."""

import struct
import tracemalloc
import zlib
from base64 import b85decode
from collections import deque
from contextlib import suppress
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from bundles import examples
from hdf5_files import add, call, chunked, datasets, made_with, require_as_h5py
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CheckpointError, CorruptionError, NotSupportedError
from ckpttool.formats.hdf5 import read_hdf5
from ckpttool.formats.hdf5.datasets import sizes_of, text_of
from ckpttool.formats.hdf5.filters import fletcher32, unpacked
from ckpttool.formats.hdf5.structure import Object, opened
from ckpttool.formats.hdf5.structure.checksum import lookup3
from ckpttool.formats.hdf5.structure.dataspace import Dataspace, decode_dataspace
from ckpttool.formats.hdf5.structure.datatype import FLOAT, INTEGER, STRING, Datatype, decode_datatype
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.fill import decode_fill, decode_old_fill
from ckpttool.formats.hdf5.structure.fractal_heap import FractalHeap
from ckpttool.formats.hdf5.structure.layout import CHUNKED, COMPACT, CONTIGUOUS, FIXED_ARRAY, Layout, decode_layout
from ckpttool.formats.hdf5.structure.links import Link, decode_link
from ckpttool.formats.hdf5.structure.pipeline import Filter, decode_pipeline
from ckpttool.formats.hdf5.structure.sharing import SharedMessages

VERSIONS = ["earliest", "v108", "v110", "latest"]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made.h5"


def something(file) -> None:
    """One of everything that most files have."""
    file["a/w"] = np.arange(6, dtype="<f4").reshape(2, 3)
    file["a/big"] = np.arange(3, dtype=">i4")
    file.create_dataset("z", data=np.arange(40.0), chunks=(16,), compression="gzip")
    file.create_dataset("s", data=[b"hello", b"x"], dtype=h5py.string_dtype())
    file["scalar"] = np.float64(3)


# Superblocks


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("userblock", [0, 512, 4096])
def test_superblocks(path, version, userblock):
    """Superblocks of versions 0, 2 and 3 are found at the start and behind a user's block."""
    with h5py.File(path, "w", libver=version, userblock_size=userblock) as file:
        something(file)
    data = path.read_bytes()
    assert data[userblock + 8] == {"earliest": 0, "v108": 2}.get(version, 3)
    require_as_h5py(path)


def test_superblock_of_version_1(path):
    """A file whose trees of chunks have nodes of another size has a superblock of version 1."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    call("H5Pset_istore_k", creation.id, 64)
    with made_with(path, creation) as file:
        something(file)
    assert path.read_bytes()[8] == 1
    require_as_h5py(path)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("addresses", "lengths"), [(2, 2), (4, 4), (4, 8), (8, 4)])
def test_widths(path, addresses, lengths, version):
    """Addresses and lengths have 2, 4 or 8 bytes."""
    if addresses == 2 and version != "earliest":
        pytest.skip("HDF5 itself crashes when it writes these")
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_sizes(addresses, lengths)
    with made_with(path, creation, (version, "latest")) as file:
        something(file)
        for number in range(30):
            file[f"many/{number}"] = np.full(2, number)
        if lengths == 8 or version in ("earliest", "v108"):  # Else HDF5 can't read again what it has written.
            file.create_dataset("e", data=np.arange(50), chunks=(3,), maxshape=(None,))
        file.create_dataset("f", data=np.arange(50), chunks=(3,), compression="gzip")
    require_as_h5py(path)


@pytest.mark.parametrize("strategy", ["fsm", "page", "aggregate", "none"])
def test_extensions(path, strategy):
    """What an extension of the superblock says of free space concerns no reader."""
    with h5py.File(path, "w", libver="latest", fs_strategy=strategy, fs_persist=strategy in ("fsm", "page")) as file:
        something(file)
        del file["a/w"]
    require_as_h5py(path)


def test_a_block_put_in_front(path):
    """A block that was put before a file afterwards changes no address in it."""
    with h5py.File(path, "w") as file:
        something(file)
    path.write_bytes(bytes(1024) + path.read_bytes())
    require_as_h5py(path)


def test_truncated(path):
    """A file that is shorter than its superblock says is truncated, by how much."""
    with h5py.File(path, "w") as file:
        something(file)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptionError, match=f"truncated: it has {len(data) - 1:,} bytes of {len(data):,}"):
        read_hdf5(path)


def test_being_written(path):
    """A file that somebody writes, or did not write to its end, is not taken for one that is whole."""
    with h5py.File(path, "w", libver="latest") as file:
        something(file)
    data = bytearray(path.read_bytes())
    data[11] |= 1
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="did not come to the end"):
        read_hdf5(path)


# Groups


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [0, 1, 8, 9, 40, 1500])
@pytest.mark.parametrize("ordered", [False, True])
def test_groups(path, version, count, ordered):
    """Groups of any number of links, in symbol tables, headers or heaps, have them all; also where many are gone."""
    with h5py.File(path, "w", libver=version, track_order=ordered) as file:
        for name in ("all", "fewer"):
            group = file.create_group(name, track_order=ordered)
            for number in range(count):
                group[f"variable_{number}" + "x" * (number % 50)] = h5py.SoftLink("/w") if number % 9 == 1 else file
                if number % 9 == 0 and number < 200:
                    del group[f"variable_{number}" + "x" * (number % 50)]
                    group[f"dataset_{number}"] = np.full(1, number)
        for number in range(0, count, 2):
            file["fewer"].pop(f"variable_{number}" + "x" * (number % 50), None)
        names = {f"/{name}/{link}" for name in ("all", "fewer") for link in file[name]}
    found = read_hdf5(path)
    said = {text.partition(" is passed over")[0] for text in found.warnings}
    assert said | {f"/{name}" for name in found} == names
    assert {name: variable.numpy().tolist() for name, variable in found.items()} == {
        name: value.tolist() for name, value in datasets(path).items()
    }


def test_long_names_in_dense_groups(path):
    """Links too large for the blocks of a heap are huge objects, found by a tree of their own."""
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(20):
            file[f"{number}" + "n" * 5000 * (number % 3)] = np.full(1, number)
    require_as_h5py(path)


def test_small_symbol_nodes(path):
    """The sizes of nodes that a file sets for itself are those of its groups."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    call("H5Pset_sym_k", creation.id, 1, 1)
    with made_with(path, creation) as file:
        for number in range(100):
            file[f"v{number}"] = np.full(1, number)
    require_as_h5py(path)


# Attributes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("count", [1, 7, 30, 700])
@pytest.mark.parametrize("ordered", [False, True])
def test_attributes(path, version, count, ordered):
    """Attributes are found by their names, in the header or a heap, short ones and long ones."""
    sizes = {f"a{number}": list(range(number % 40)) for number in range(count)}
    texts = {f"t{number}": b"x" * (number % 90 + 1) for number in range(count)}
    with h5py.File(path, "w", libver=version, track_order=ordered) as file:
        for name, size in sizes.items():
            file.attrs[name] = np.array(size, ["<i8", ">i4", "u1"][len(size) % 3])
        for name, text in texts.items():
            file.attrs[name] = np.bytes_(text)
        file.attrs["one"] = 7
        file.attrs["void"] = np.void(b"\0\1")
        file.attrs["unicode"] = "ü"
    with opened(str(path)) as file:
        root = Object(file, SharedMessages(file), file.root)
        assert {name: list(sizes_of(root, name) or ()) for name in sizes} == sizes
        assert {name: text_of(root, name) for name in texts} == texts
        assert text_of(root, "void") == b"\0\1"
        assert [text_of(root, name) for name in ("a0", "one", "unicode", "none")] == [None] * 4
        assert [sizes_of(root, name) for name in ("one", "t0", "none")] == [None] * 3
        assert b"one" in root.attributes
        assert b"on" not in root.attributes


def test_huge_attributes(path):
    """Attributes of more than 64 KB are huge objects of a heap."""
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["long"] = np.bytes_(b"x" * 200_000)
        file.attrs["weight_names"] = np.zeros(30_000, "S8")
        file["w"] = np.ones(1)
        for number in range(20):
            file["w"].attrs[f"long{number}"] = np.bytes_(b"%d" % number * 40_000)
    with opened(str(path)) as file:
        root = Object(file, SharedMessages(file), file.root)
        assert text_of(root, "long") == b"x" * 200_000
        (link,) = root.links()
        dataset = Object(file, SharedMessages(file), link.address)
        assert text_of(dataset, "long7") == b"7" * 40_000
        assert text_of(dataset, "long19") == b"19" * 40_000


# Datasets in chunks

SHAPES = [
    ((40,), (7,), None),
    ((40,), (40,), None),
    ((40,), (64,), (None,)),
    ((40,), (7,), (100,)),
    ((40,), (7,), (None,)),
    ((9, 14), (4, 5), None),
    ((9, 14), (4, 5), (20, 30)),
    ((9, 14), (4, 5), (None, 30)),
    ((9, 14), (4, 5), (20, None)),
    ((9, 14), (4, 5), (None, None)),
    ((5, 6, 7), (2, 3, 2), (9, None, 8)),
    ((5, 6, 7), (2, 3, 2), (9, 6, None)),
    ((5, 6, 7), (2, 3, 2), (None, 6, None)),
    ((0, 7), (2, 3), (None, 7)),
]
FILTERS = [
    {"deflate": 4},
    {"lzf": True},
    {"fletcher32": True},
    {"shuffle": True, "deflate": 1},
    {"shuffle": True, "lzf": True, "fletcher32": True},
    {"shuffle": True, "deflate": 9, "fletcher32": True},
]


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("filters", [{}, *FILTERS], ids=" ".join)
def test_chunks(path, version, filters):
    """Chunks with each index, of shapes that grow in no, one or two dimensions, through each combination of filters."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w", libver=version) as file:
        for number, ((shape, chunk, limits), dtype) in enumerate(product(SHAPES, ["<i2", ">f8"])):
            for fill in (None, 5):
                layout = chunked(chunk, **filters)
                if fill:
                    layout.set_fill_value(np.array(fill, dtype))
                whole = add(file, f"whole{number}{fill}", dtype, shape, layout, limits)
                whole[...] = generator.integers(0, 99, shape)
                part = add(file, f"part{number}{fill}", dtype, shape, layout, limits)
                part[tuple(slice(n // 2, n // 2 + 1) for n in shape)] = 1
                add(file, f"none{number}{fill}", dtype, shape, layout, limits)
                if limits and None in limits:
                    grown = tuple(n if limit is not None else n + 6 for n, limit in zip(shape, limits, strict=True))
                    whole.resize(grown)
                    part.resize(tuple(max(1, n // 2) for n in shape))
    require_as_h5py(path, blocks=60)


@pytest.mark.parametrize("alloc", ["early", "incremental", "late"])
@pytest.mark.parametrize("never", [False, True])
@pytest.mark.parametrize("limits", [None, (30, 30), (None, 30)])
def test_when_space_is_given(path, alloc, never, limits):
    """Chunks that had their place before their values, one after another, are found without an index."""
    with h5py.File(path, "w", libver="latest") as file:
        layout = chunked((3, 4))
        layout.set_alloc_time(
            getattr(h5py.h5d, {"incremental": "ALLOC_TIME_INCR"}.get(alloc, f"ALLOC_TIME_{alloc.upper()}"))
        )
        if never:
            layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        add(file, "x", "<i4", (10, 11), layout, limits)[2:5, 3:9] = 7
        add(file, "y", "<i4", (10, 11), layout, limits)[...] = np.arange(110).reshape(10, 11)
    require_as_h5py(path, blocks=100)


def test_edges_without_filters(path):
    """Chunks that go beyond their dataset may have been left out of the filters."""
    with h5py.File(path, "w", libver="latest") as file:
        for number, (shape, limits) in enumerate([((10, 11), None), ((10, 11), (None, None)), ((2, 2), (None, 4))]):
            layout = chunked((3, 4), deflate=4)
            call("H5Pset_chunk_opts", layout.id, 2)
            add(file, f"x{number}", "<i4", shape, layout, limits)[...] = np.arange(np.prod(shape)).reshape(shape)
    require_as_h5py(path, blocks=100)


@pytest.mark.parametrize("filters", [{}, {"deflate": 1}], ids=["plain", "deflate"])
def test_many_chunks(path, filters):
    """Indexes of thousands of chunks: pages of arrays, secondary blocks, trees of several levels."""
    with h5py.File(path, "w", libver="latest") as file:
        for name, shape, chunk, limits in [
            ("fixed", (3000,), (1,), None),
            ("fixed2", (40, 80), (1, 2), (90, 80)),
            ("extensible", (3000,), (1,), (None,)),
            ("extensible2", (30, 60), (1, 1), (30, None)),
            ("tree", (50, 70), (1, 1), (None, None)),
        ]:
            layout = chunked(chunk, **filters)
            add(file, name, "<i4", shape, layout, limits)[...] = np.arange(np.prod(shape)).reshape(shape)
            sparse = add(file, f"{name}_sparse", "<i4", shape, layout, limits)
            for index in (0, 3, 21, 40, 2100, 3999):
                sparse[np.unravel_index(min(index, np.prod(shape) - 1), shape)] = index + 1
    require_as_h5py(path, blocks=4000)


@pytest.mark.slow
def test_very_many_chunks(path):
    """Extensible arrays of so many chunks that their data blocks have pages, of which few were written."""
    with h5py.File(path, "w", libver="latest") as file:
        layout = chunked((1,))
        add(file, "x", "u1", (140_000,), layout, (None,))[...] = np.arange(140_000) % 251
        sparse = add(file, "sparse", "u1", (600_000,), layout, (None,))
        for index in [*range(0, 600_000, 7_001), 599_999]:
            sparse[index] = index % 250 + 1
        add(file, "tree", "u1", (150, 150), chunked((1, 1)), (None, None))[...] = 3
        add(file, "fixed", "u1", (30_000,), layout)[10_000:13_000] = 9
    require_as_h5py(path, blocks=100_000)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_old_trees_of_several_levels(path, version):
    """The first kind of tree, with more chunks than a node of it has."""
    with h5py.File(path, "w", libver=(version, "v108") if version == "earliest" else "latest") as file:
        file.create_dataset("x", data=np.arange(3000), chunks=(1,))
        file.create_dataset("y", data=np.arange(3000).reshape(50, 60), chunks=(1, 1), maxshape=(None, 60))
    require_as_h5py(path, blocks=1000)


def test_filters_that_were_left_out(path):
    """A chunk says which filters it did not go through: an optional one that would have made it longer, or any."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", (8, 16), "u1", chunks=(1, 16), compression="gzip", shuffle=True)
        dataset[...] = generator.integers(0, 255, (8, 16))
        for row in (2, 5):
            dataset.id.write_direct_chunk((row, 0), bytes(range(16)), 0b11)
        file.create_dataset("lzf", data=generator.integers(0, 255, 5000, np.uint8), chunks=(100,), compression="lzf")
    require_as_h5py(path)


def test_chunks_decoded_once(path, monkeypatch):
    """Blocks that are not chunks decode none of them twice, as long as a row of chunks fits what is kept."""
    from ckpttool.formats.hdf5 import chunks

    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(10_000).reshape(100, 100), chunks=(50, 20), compression="gzip")
    decoded = []
    undo = chunks.unfiltered
    monkeypatch.setattr(chunks, "unfiltered", lambda *arguments: decoded.append(1) or undo(*arguments))
    assert len(list(read_hdf5(path)["x"].blocks(800))) == 100
    assert len(decoded) == 10
    monkeypatch.setattr(chunks, "_CACHE", 0)
    np.testing.assert_array_equal(
        np.concatenate([b.ravel() for _, b in read_hdf5(path)["x"].blocks(800)]), range(10_000)
    )


def test_chunks_of_a_byte(path):
    """Of very small chunks fewer are kept: each takes more memory than its values."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("x", data=np.zeros(100_000, "u1"), chunks=(1,))
    tracemalloc.start()
    try:
        assert not read_hdf5(path)["x"].numpy().any()
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()


# What HDF5 2.0 (h5py 3.16, libver="latest") wrote of 0, 1, … 7 as int16 in chunks of 3, with gzip; packed by zlib.
HDF5_2 = (
    "c-rgqaB<`1lHy|K;9!7(|4^U>6*7Q|&wLoY%HP8!h>4+sNeEdX3~(_qFfuT(@h|`>#){1_^E?=+1~Pxj)PS7;w182Bfq{vUkrC!_7|qP"
    "Xz$gIZFoAgj46Hy`F>`YRMS-e8E@NN;sTO1a$uKc8Gcj}RXN2lq$uM+){yy0&ZjK%<42&XN%uuo0P>-xvmp||3=;Fk{2=^K^c=(V^;KL"
    "#&gGFq^yE1-;Q7{Td!6+C7!wFQxB_|}LBqV`Ld=?-tEg>->705GU;05xM6VekBfIK$_J^-(=IYR"
)


def test_filtered_chunks_of_hdf5_2(path):
    """In a layout of version 5, indexes give the sizes of chunks that went through filters 8 bytes each."""
    path.write_bytes(zlib.decompress(b85decode(HDF5_2)))
    found = read_hdf5(path)
    assert not found.warnings
    np.testing.assert_array_equal(found["x"].numpy(), np.arange(8, dtype=np.int16), strict=True)


# Datasets in one run, or none


@pytest.mark.skipif(h5py.version.version_tuple < (3, 12), reason="this h5py does not let one choose when to fill")
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_fill_values(path, version):
    """What was never written is the fill value, in each layout; zero where nothing is to be filled."""
    with h5py.File(path, "w", libver=version) as file:
        for number, (time, dtype, shape) in enumerate(
            product(["alloc", "never", "ifset"], ["<f4", ">i2", "S4", "?", "<c8"], [(), (5,), (3, 0)])
        ):
            file.create_dataset(f"contiguous{number}", shape, dtype, fillvalue=np.ones((), dtype), fill_time=time)
            file.create_dataset(f"plain{number}", shape, dtype, fill_time=time)
            if shape == (5,):
                options = {"fillvalue": np.ones((), dtype), "fill_time": time, "chunks": (2,)}
                file.create_dataset(f"chunks{number}", shape, dtype, **options)
                file.create_dataset(f"part{number}", shape, dtype, **options)[3] = np.zeros((), dtype)
        file.create_dataset("text", (3,), h5py.string_dtype(), fillvalue="filled")
    require_as_h5py(path)


def test_fill_values_of_chunks_of_strings(path):
    """Strings of variable length that were not written are the fill value in chunks, too."""
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (5,), h5py.string_dtype(), fillvalue="filled", chunks=(2,))[4] = "written"
    with h5py.File(path, "r+") as file:  # HDF5 does not read them from a file that it can't write.
        expected = list(file["x"][()])
    assert read_hdf5(path)["x"].strings() == expected == [b"filled"] * 4 + [b"written"]


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_compact(path, version):
    """Values in the header itself, of any dtype, also strings of variable length."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    with h5py.File(path, "w", libver=version) as file:
        for number, dtype in enumerate(["<f4", ">f8", "S3", "?", ">c8"]):
            add(file, f"x{number}", dtype, (4, 5), layout)[...] = np.arange(20).reshape(4, 5).astype(dtype)
            add(file, f"scalar{number}", dtype, (), layout)[...] = np.ones((), dtype)
        add(file, "text", h5py.string_dtype(), (2,), layout)[...] = ["one", "two"]
        add(file, "unwritten", "<i4", (3,), layout)
    require_as_h5py(path, blocks=16)


def test_slices_of_swapped_values(path):
    """Boxes of a contiguous big-endian dataset are gathered, whatever their shape."""
    values = np.arange(2 * 3 * 5 * 4, dtype=">i4").reshape(2, 3, 5, 4)
    with h5py.File(path, "w") as file:
        file["x"] = values
    for nbytes in (1, 4, 12, 16, 60, 80, 100, 240, 1000):
        for where, block in read_hdf5(path)["x"].blocks(nbytes):
            np.testing.assert_array_equal(block, values[where])


# Types

TYPES = [np.dtype(order + name) for order in "<>" for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")]
TYPES += [np.dtype(order + name) for order in "<>" for name in ("f2", "f4", "f8", "c8", "c16")]


@pytest.mark.parametrize("version", VERSIONS)
def test_types(path, version):
    """Each type of numbers, in either byte order, as a type of its own and as a named one that others share."""
    with h5py.File(path, "w", libver=version) as file:
        for number, dtype in enumerate([*TYPES, np.dtype(bool)]):
            file[f"plain/{number}"] = np.arange(7).astype(dtype)
            file[f"types/{number}"] = dtype
            for each in range(2):
                named = file.create_dataset(f"named/{number}/{each}", (7,), file[f"types/{number}"])
                named[...] = np.arange(7).astype(dtype)
            file[f"again/{number}"] = file[f"types/{number}"]
    require_as_h5py(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_types_that_no_dtype_means(path, version):
    """Types that mean other values than TensorFlow's are passed over, each by its name."""
    odd = h5py.h5t.IEEE_F32LE.copy()
    odd.set_ebias(100)
    narrow = h5py.h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    nested = np.dtype([("a", "<i4"), ("b", [("c", "<f8", (2, 3)), ("d", "S5")]), ("e", "?")])
    with h5py.File(path, "w", libver=version) as file:
        for name, stored in [("odd", odd), ("narrow", narrow)]:
            h5py.h5d.create(file.id, name.encode(), stored, h5py.h5s.create_simple((2,)))
        for name, dtype in [
            ("nested", nested),
            ("enum", h5py.enum_dtype({"RED": 1, "GREEN": 300}, "<i2")),
            ("lists", h5py.vlen_dtype(np.dtype("<i4"))),
            ("reference", h5py.ref_dtype),
            ("region", h5py.regionref_dtype),
            ("opaque", "V7"),
            ("byte", "V1"),
            ("complex", np.dtype([("r", "<f4"), ("j", "<f4")])),
        ]:
            file.create_dataset(name, (2,), dtype)
        array = h5py.h5t.array_create(h5py.h5t.STD_I32LE, (3,))
        h5py.h5d.create(file.id, b"array", array, h5py.h5s.create_simple((2,)))
    reasons = {text.split()[0][1:]: text.partition(": ")[2] for text in read_hdf5(path).warnings}
    with h5py.File(path) as file:
        assert set(reasons) == set(file)
    words = {"odd": "float of 4", "narrow": "integer of 4", "nested": "compound of 58", "enum": "enum of 2"}
    odd_in = {"odd": ", with exponent and fraction in other bits, or another bias"}
    odd_in |= {"narrow": ", of which not all bits count"}
    words |= {"lists": "variable-length sequence of 16", "reference": "reference of 8", "region": "reference of 12"}
    words |= {"array": "array of 12"}
    words |= {"opaque": "opaque of 7", "complex": "compound of 8"}
    said = {name: f"HDF5's type {word} bytes{odd_in.get(name, '')}" for name, word in words.items()}
    said |= {"byte": "HDF5's type opaque of 1 byte"}
    assert reasons == {name: f"TensorFlow has no dtype for {text}" for name, text in said.items()}


def test_a_complex_type(path):
    """The type for complex numbers that HDF5 2.0 has is the compound that stood for it before."""
    part = bytes.fromhex("11201f00 04000000 0000 2000 17 08 00 17 7f000000")
    data = bytes.fromhex("5b000000 08000000") + part
    from ckpttool.formats.hdf5.types import dtype_of

    found = dtype_of(decode_datatype(Cursor(data)))
    assert found is not None
    assert found.name == "complex64"


def test_elements_of_gigabytes(path):
    """Elements larger than any array can have are passed over, also where there are none of them."""
    stored = h5py.h5t.C_S1.copy()
    stored.set_size(3 << 30)
    with h5py.File(path, "w") as file:
        for name, shape in (("none", (0,)), ("unwritten", (2,))):
            h5py.h5d.create(file.id, name.encode(), stored, h5py.h5s.create_simple(shape))
    found = read_hdf5(path)
    assert not found
    assert len(found.warnings) == 2
    assert all("elements of 3,221,225,472 bytes" in text for text in found.warnings)


def test_types_nested_too_deep():
    """Types within types without end are not followed to the end."""
    data = bytes.fromhex("1a000000 04000000 00000000") * 100_000
    with pytest.raises(NotSupportedError, match="types within types"):
        decode_datatype(Cursor(data))
    data = bytes.fromhex("19000000 10000000") * 100_000
    with pytest.raises(NotSupportedError, match="types within types"):
        decode_datatype(Cursor(data))


# Messages, byte by byte

MESSAGES = [
    (
        decode_dataspace,
        "01 02 01 00 00000000 0800000000000000 0300000000000000" + "ff" * 8 + "0300000000000000",
        Dataspace((8, 3), (None, 3)),
    ),
    (decode_dataspace, "02 00 00 02", Dataspace(None)),
    (decode_dataspace, "02 00 00 00", Dataspace(())),
    (decode_datatype, "10 080000 04000000 0000 2000", Datatype(INTEGER, 4, False, (4, 0, 32))),
    (
        decode_datatype,
        "11 201f00 04000000 0000 2000 17 08 00 17 7f000000",
        Datatype(FLOAT, 4, False, (0x1F20, 0, 32, 23, 8, 0, 23, 127)),
    ),
    (decode_datatype, "13 010000 05000000", Datatype(STRING, 5, False, (1,))),
    (decode_layout, "03 00 0300 616263", Layout(COMPACT, data=b"abc")),
    (decode_layout, "03 01 0008000000000000 1800000000000000", Layout(CONTIGUOUS, 0x800, 24)),
    (decode_layout, "01 01 01 00000000 00" + "0008000000000000 03000000", Layout(CONTIGUOUS, 0x800)),
    (decode_layout, "02 02 00 00000000 00" + "02000000 04000000 03000000 616263", Layout(COMPACT, data=b"abc")),
    (
        decode_layout,
        "01 03 02 00000000 00" + "5005000000000000 02000000 04000000 08000000",
        Layout(CHUNKED, 0x550, chunk=(2, 4), itemsize=8),
    ),
    (
        decode_layout,
        "03 02 03 5005000000000000 02000000 04000000 08000000",
        Layout(CHUNKED, 0x550, chunk=(2, 4), itemsize=8),
    ),
    (
        decode_layout,
        "04 02 00 03 01 02 04 08 03 0a 5005000000000000",
        Layout(CHUNKED, 0x550, chunk=(2, 4), itemsize=8, indexed_by=FIXED_ARRAY),
    ),
    (
        decode_pipeline,
        "01 01 000000000000 0200 0800 0100 0100" + b"shuffle\0".hex() + "08000000 00000000",
        (Filter(2, b"shuffle", (8,)),),
    ),
    (decode_pipeline, "02 01 0100 0100 0100 04000000", (Filter(1, b"", (4,)),)),
    (decode_old_fill, "04000000 00002040", b"\0\0\x20\x40"),
    (decode_fill, "01 02 02 01 04000000 00002040", b"\0\0\x20\x40"),
    (decode_fill, "02 02 02 01 04000000 00002040", b"\0\0\x20\x40"),
    (decode_fill, "02 02 01 01 04000000 00002040", b""),
    (decode_fill, "03 2a 04000000 00002040", b"\0\0\x20\x40"),
    (decode_link, "01 00 01 77 2003000000000000", Link(b"w", 0x320)),
    (decode_link, "01 18 01 01 04 736f6674 0500 61626364", Link(b"soft", None)),
]


@pytest.mark.parametrize(("decode", "data", "meaning"), MESSAGES)
def test_messages(decode, data, meaning):
    """Messages mean what the modules about them say, also those of old writers; cut short, they are damage."""
    whole = bytes.fromhex(data)
    assert decode(Cursor(whole)) == meaning
    with pytest.raises(CorruptionError):
        decode(Cursor(whole[:2]))


# Shared messages


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("kinds", [0x3F, 0b1000], ids=["all", "types"])
def test_shared_messages(path, version, kinds):
    """Messages that headers have in common, in a heap of the file's, are found there."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    call("H5Pset_shared_mesg_nindexes", creation.id, 1)
    call("H5Pset_shared_mesg_index", creation.id, 0, kinds, 8)
    with made_with(path, creation, (version, "latest")) as file:
        something(file)
        for number in range(30):
            dataset = file.create_dataset(f"d{number}", data=np.full((3, 4), number), chunks=(2, 2), compression="gzip")
            dataset.attrs["created_by"] = np.bytes_(b"somebody")
            dataset.attrs["shape"] = np.array([1, 2, 3])
    require_as_h5py(path)
    with opened(str(path)) as file:
        shared = SharedMessages(file)
        address = next(link.address for link in Object(file, shared, file.root).links() if link.name == b"d7")
        found = Object(file, shared, address)
        assert (text_of(found, "created_by"), sizes_of(found, "shape")) == (b"somebody", (1, 2, 3))


# Checksums and filters


def test_lookup3():
    """The hash is that of its author, by the values that he gives."""
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551


@examples
@given(st.binary(max_size=300))
def test_fletcher32(data):
    """The checksum is the sum of 16-bit numbers and the sum of these sums, modulo 65,535."""
    first = second = 0
    for start in range(0, len(data), 2):
        first += int.from_bytes(data[start : start + 2].ljust(2, b"\0"), "big")
        first = (first & 0xFFFF) + (first >> 16)
        second += first
        second = (second & 0xFFFF) + (second >> 16)
    assert fletcher32(data) == second << 16 | first


def test_fletcher32_of_much(path):
    """Also of chunks that are summed up in parts, as HDF5 itself does."""
    with h5py.File(path, "w") as file:
        data = np.random.default_rng(0).integers(0, 2**16, 300_001, np.uint16)
        data[:1000] = 0xFFFF
        file.create_dataset("x", data=data, chunks=(300_001,), fletcher32=True)
        file.create_dataset("zeros", data=np.zeros(50_000), chunks=(50_000,), fletcher32=True)
        file.create_dataset("odd", data=data.astype(np.uint8)[:77], chunks=(77,), fletcher32=True)
    require_as_h5py(path)


@examples
@given(st.binary(max_size=600))
def test_any_lzf(data):
    """Any bytes, taken for LZF, end in bytes or in an error of ours."""
    try:
        found = unpacked(data, (), 1000)
    except CheckpointError:
        return
    assert len(found) <= 1000 + 264


# Whatever h5py writes


@st.composite
def described(draw):
    """A dataset in chunks: its shape, chunks, limits, type, filters, and the parts of it that are written."""
    rank = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(rank))
    chunk = tuple(draw(st.integers(1, n)) for n in shape)
    limits = tuple(draw(st.sampled_from([n, n + 5, None])) for n in shape)
    filters = {name: draw(st.booleans()) for name in ("shuffle", "deflate", "lzf", "fletcher32")}
    corners = draw(st.lists(st.tuples(*(st.integers(0, n - 1) for n in shape)), max_size=4))
    dtype = draw(st.sampled_from(["u1", ">i2", "<f4", ">c8", "S3", "<f8"]))
    version = draw(st.sampled_from(VERSIONS))
    return shape, chunk, limits, filters, corners, dtype, version, draw(st.integers(8, 200))


@examples
@given(described())
def test_any_dataset(tmp_path_factory, description):
    """A dataset of any shape, chunks and filters, of which some is written, is read as h5py reads it."""
    shape, chunk, limits, filters, corners, dtype, version, nbytes = description
    path = tmp_path_factory.getbasetemp() / "any.h5"
    with h5py.File(path, "w", libver=version) as file:
        layout = chunked(chunk, **filters)
        layout.set_fill_value(np.array(3, np.int64).astype(dtype))
        dataset = add(file, "x", dtype, shape, layout, limits)
        for number, corner in enumerate(corners):
            where = tuple(slice(start, None) for start in corner)
            dataset[where] = np.arange(dataset[where].size).reshape(dataset[where].shape).astype(dtype) if number else 1
    require_as_h5py(path, blocks=nbytes)


# Damage


def read_all(path: Path) -> None:
    """Reads all that can be read; any error but ours is a failure."""
    faults: list[CheckpointError] = []
    try:
        variables = read_hdf5(path, faults=faults).values()
    except CheckpointError:
        return
    for variable in variables:
        with suppress(CheckpointError):
            if variable.dtype.itemsize is None:
                variable.strings()
            else:  # Small blocks, but not millions of them.
                deque(variable.blocks(max(100, variable.nbytes // 50)), 0)


def varied(path: Path, version: str) -> None:
    """A small file with every structure of a version."""
    with h5py.File(path, "w", libver=version) as file:
        something(file)
        for number in range(12):
            file[f"many/{number}"] = h5py.SoftLink("/a")
            file["a/w"].attrs[f"x{number}"] = number
        file["types/t"] = np.dtype("<i4")
        file.create_dataset("named", (2,), file["types/t"])
        for name, limits in [("fixed", None), ("extensible", (None, 6)), ("tree", (None, None))]:
            add(file, name, "<i2", (8, 6), chunked((2, 3)), limits)[...] = np.arange(48).reshape(8, 6)
            layout = chunked((2, 3), shuffle=True, deflate=4, fletcher32=True)
            add(file, f"{name}_filtered", "<i2", (8, 6), layout, limits)[2:7] = 1
        add(file, "single", "<i2", (3, 3), chunked((3, 3), lzf=True))[...] = 2
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        add(file, "compact", "S3", (2,), compact)[...] = [b"ab", b"c"]


def damaged(path: Path, version: str, step: int) -> None:
    varied(path, version)
    whole = path.read_bytes()
    for number in range(step // 2, len(whole), step):
        changed = bytearray(whole)
        changed[number] ^= (1 << number % 8, 0xFF, changed[number] ^ 0xFF, changed[number] ^ 1)[number % 4]
        for data in (changed, whole[:number]):
            path.write_bytes(data)
            read_all(path)


@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_damage(path, version):
    """With a byte changed, or cut there, a file ends in an error of ours or is read."""
    damaged(path, version, 211)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_more_damage(path, version):
    """The same, of every seventh byte."""
    damaged(path, version, 7)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v108", "latest"])
def test_damage_under_right_checksums(path, version, monkeypatch):
    """The same where checksums are those of the damaged bytes, so that nothing but each check itself keeps it out."""
    from ckpttool.formats.hdf5.structure import checksum

    monkeypatch.setattr(checksum, "require_checksum", lambda data, offset: None)
    for module in ("superblock", "headers", "trees2", "fractal_heap", "fixed_array", "extensible_array", "sharing"):
        monkeypatch.setattr(f"ckpttool.formats.hdf5.structure.{module}.require_checksum", lambda data, offset: None)
    damaged(path, version, 11)


def test_checksums_are_verified(path):
    """A changed byte in what has a checksum is damage, with its place."""
    with h5py.File(path, "w", libver="latest") as file:
        file["w"] = np.arange(3, dtype="<f4")
    data = bytearray(path.read_bytes())
    place = data.index(b"OHDR")
    data[place + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match=f"Checksum does not match.* byte {place:,}"):
        read_hdf5(path)


@examples
@given(st.binary(max_size=400), st.integers(0, 3))
def test_any_bytes(tmp_path_factory, data, version):
    """Any bytes behind a superblock end in an error of ours or in no variables."""
    path = tmp_path_factory.getbasetemp() / "any.h5"
    head = b"\x89HDF\r\n\x1a\n" + bytes([version, 8, 8, 0])
    if version < 2:
        head = b"\x89HDF\r\n\x1a\n" + bytes([version, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0])
    path.write_bytes(head + bytes(8) + b"\xff" * 8 + (100).to_bytes(8, "little") + b"\xff" * 8 + bytes(8) + data)
    read_all(path)


def test_structures_over_each_other():
    """What is read of structures is counted: one that is read again and again ends as damage."""
    file = File(lambda offset, nbytes: bytes(nbytes), 1000, Cursor(b"").sizes)
    with pytest.raises(CorruptionError, match="over each other"):
        [file.structure(0, 1000) for _ in range(10_000)]


def test_objects_of_a_heap_over_each_other():
    """Objects of a heap that are the same bytes again and again are counted too, and end as damage."""
    size, root, nowhere = 1 << 16, 200, b"\xff" * 8
    head = b"FRHP\0" + struct.pack("<HHBIQ8s80xHQQHHQH", 7, 0, 0, 1 << 16, 0, nowhere, 4, size, size, 32, 0, root, 0)
    data = (head + lookup3(head).to_bytes(4, "little")).ljust(root, b"\0") + b"FHDB\0".ljust(size, b"\0")
    file = File(lambda offset, nbytes: data[offset : offset + nbytes], len(data), Cursor(b"").sizes)
    heap = FractalHeap(file, 0)
    name = b"\0" + (100).to_bytes(4, "little") + (60_000).to_bytes(2, "little")
    assert len(heap.object(name)) == 60_000
    with pytest.raises(CorruptionError, match="over each other"):
        [heap.object(name) for _ in range(100)]


@pytest.mark.parametrize("left", range(5, 12))
def test_a_header_at_the_very_end(path, left):
    """A header of which the file has but the first bytes is damaged."""
    with h5py.File(path, "w", libver="earliest"):
        pass
    data = bytearray(path.read_bytes())
    data[64:72] = len(data).to_bytes(8, "little")
    data += b"OHDR\x02".ljust(left, b"\0")
    data[40:48] = len(data).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(CorruptionError):
        read_hdf5(path)


def test_one_damaged_dataset_among_others(path):
    """With a list for faults, a dataset whose header is damaged is told of, and the others are read."""
    with h5py.File(path, "w", libver="latest") as file:
        for name in "abc":
            file[name] = np.arange(3, dtype="<f4")
        place = h5py.h5o.get_info(file["b"].id).addr
    data = bytearray(path.read_bytes())
    data[place + 30] ^= 1
    path.write_bytes(data)
    faults: list[CheckpointError] = []
    assert list(read_hdf5(path, faults=faults)) == ["a", "c"]
    assert [(fault.variable, fault.path) for fault in faults] == [("b", str(path))]


def test_no_library_is_loaded(path, fresh_python, tmp_path):
    """Listing and reading, chunks and strings too, load no library for HDF5."""
    with h5py.File(path, "w", libver="latest") as file:
        something(file)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from ckpttool.formats.hdf5 import read_hdf5\n"
        "found = read_hdf5(sys.argv[1])\n"
        "assert 'numpy' not in sys.modules\n"
        "print(sum(variable.numpy().size for variable in found.values()))\n"
        "assert not {'h5py', 'tables'} & set(sys.modules)\n"
    )
    done = fresh_python(script, path)
    assert (done.stdout, done.stderr) == ("52\n", "")
