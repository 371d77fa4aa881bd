"""HDF5 as a source: whatever h5py writes is read as h5py reads it, or named with the reason.

What means harm ends in an error of ours, reads no other file, and takes no more memory than the file warrants.
"""

import os
import struct
import tracemalloc
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, examples, strings, time_limit
from conftest import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.errors import CheckpointError, CorruptionError, NotSupportedError
from ckpttool.formats.hdf5 import read_hdf5, write_hdf5
from ckpttool.formats.hdf5.structure.global_heap import GlobalHeap


@pytest.fixture
def made(tmp_path):
    """Makes a file: gives h5py's, and its path when it is closed."""

    def made(**options) -> h5py.File:
        return h5py.File(tmp_path / "made.h5", "w", **options)

    return made


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made.h5"


# Whatever h5py writes

ARRAYS = {
    "f2": np.arange(3, dtype="<f2"),
    "f4": np.arange(6, dtype="<f4").reshape(2, 3),
    "f8_big": np.arange(3, dtype=">f8"),
    "i2_big": np.array([-1, 256], ">i2"),
    "u4_big": np.array([1, 2**31], ">u4"),
    "i8": np.array([-(2**63), 2**63 - 1]),
    "c8": np.array([1 + 2j, -3j], "<c8"),
    "c16_big": np.array([[1 + 2j], [-3j]], ">c16"),
    "bool": np.array([True, False, True]),
    "scalar": np.float32(7),
    "scalar_big": np.array(7, ">i4"),
    "empty": np.zeros((0, 3), "<f4"),
    "empty_big": np.zeros((2, 0), ">i4"),
}
LAYOUTS = {
    "plain": {},
    "chunked": {"chunks": True},
    "growing": {"chunks": True, "maxshape": True},
    "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf"},
}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays(made, path, layout, libver):
    """Every dtype that TensorFlow has, in either byte order and in each layout, is read as h5py reads it."""
    with made(libver=libver) as file:
        for name, array in ARRAYS.items():
            options = dict(LAYOUTS[layout]) if array.ndim and array.size else {}
            if options.get("maxshape"):
                options["maxshape"] = (None,) * array.ndim
            file.create_dataset(f"a/{name}", data=array, **options)
    found = read_hdf5(path)
    assert found.warnings == ()
    assert set(found) == {f"a/{name}" for name in ARRAYS}
    with h5py.File(path) as file:
        for name, array in ARRAYS.items():
            variable = found[f"a/{name}"]
            assert variable.dtype.name == array.dtype.newbyteorder("=").name
            values = np.asarray(file[f"a/{name}"][()])
            np.testing.assert_array_equal(variable.numpy(), values.astype(array.dtype.newbyteorder("=")), strict=True)


@pytest.mark.parametrize("number", ["<f4", ">f8"])
def test_complex_numbers_of_matlab(made, path, number):
    """MATLAB calls the parts of a complex number by whole words, where h5py has letters."""
    values = np.array([[1 + 2j, -3j]])
    with made() as file:
        parts = file.create_dataset("x", values.shape, np.dtype([("real", number), ("imag", number)]))
        parts["real"], parts["imag"] = values.real, values.imag
    found = read_hdf5(path)["x"].numpy()
    np.testing.assert_array_equal(found, values.astype(f"c{2 * int(number[2])}"), strict=True)


def test_a_filter_that_is_not_read_is_passed_over(made, path):
    """A dataset that went through szip is passed over, by its name."""
    with made() as file:
        file.create_dataset("x", data=np.arange(64), compression="szip", compression_opts=("nn", 2))
    found = read_hdf5(path)
    assert not found
    assert "szip" in found.warnings[0]


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_blocks_of_chunks(made, path, compression):
    """In blocks that are no chunks, values come in order and are complete."""
    values = np.random.default_rng(0).integers(0, 9, (37, 29)).astype(">i4")
    with made() as file:
        file.create_dataset("x", data=values, chunks=(8, 5), compression=compression)
    blocks = [block.ravel().copy() for _, block in read_hdf5(path)["x"].blocks(500)]
    assert len(blocks) > 8
    np.testing.assert_array_equal(np.concatenate(blocks), values.ravel())


STRINGS = [b"hello", b"", "é".encode(), b"x" * 5000]


STRING_LAYOUTS = [{}, {"chunks": (3,)}, {"chunks": (3,), "compression": "gzip", "shuffle": True}]


@pytest.mark.parametrize("options", [*STRING_LAYOUTS, {"chunks": (3,), "compression": "lzf"}])
def test_strings(made, path, options):
    """Strings of variable length are read by hand, in one piece, in chunks or compressed, as h5py reads them."""
    many = [b"%d" % n * (n % 7) for n in range(50)]
    with made() as file:
        file.create_dataset("utf8", data=STRINGS, dtype=h5py.string_dtype(), **options)
        file.create_dataset("ascii", data=many, dtype=h5py.string_dtype("ascii"), **options)
        file.create_dataset("table", data=np.array(many, object).reshape(5, 10), dtype=h5py.string_dtype())
        file.create_dataset("scalar", data="one", dtype=h5py.string_dtype())
        file.create_dataset("unwritten", (4,), h5py.string_dtype(), **options)
        file.create_dataset("part", (7,), h5py.string_dtype(), **options)[4:5] = b"four"
        file.create_dataset("none", (0,), h5py.string_dtype())
    found = read_hdf5(path)
    assert found.warnings == ()
    with h5py.File(path) as file:
        for name, variable in found.items():
            assert variable.dtype.name == "string"
            values = variable.numpy()
            assert values.shape == file[name].shape
            assert list(values.ravel()) == [file[name][index] for index in np.ndindex(values.shape)], name
    assert found["utf8"].strings() == STRINGS


def test_strings_of_fixed_width(made, path):
    """Padding is no part of a string, whichever it is."""
    padded = h5py.h5t.C_S1.copy()
    padded.set_size(6)
    padded.set_strpad(h5py.h5t.STR_SPACEPAD)
    with made() as file:
        file["null"] = np.array([[b"abc", b""], [b"d", b"abcd"]], "S4")
        file.create_dataset("utf8", data="é".encode(), dtype=h5py.string_dtype("utf-8", 5))
        space = h5py.h5d.create(file.id, b"space", padded, h5py.h5s.create_simple((2,)))
        space.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array([b"ab    ", b"abcdef"], "S6"))
        file.create_dataset("gzip", data=np.array([b"x" * 10] * 3000), compression="gzip")
    found = read_hdf5(path)
    assert found["null"].numpy().tolist() == [[b"abc", b""], [b"d", b"abcd"]]
    assert found["utf8"].strings() == ["é".encode()]
    assert found["space"].strings() == [b"ab", b"abcdef"]
    assert found["gzip"].strings() == [b"x" * 10] * 3000


def test_sequences_of_bytes_are_strings(made, path):
    """Sequences of uint8 may have NULs in them: they are strings of TensorFlow's."""
    with made() as file:
        dataset = file.create_dataset("v", (2,), h5py.vlen_dtype(np.uint8))
        dataset[0], dataset[1] = np.frombuffer(b"a\0b\0", np.uint8), np.frombuffer(b"", np.uint8)
    assert read_hdf5(path)["v"].strings() == [b"a\0b\0", b""]


@pytest.mark.parametrize("size", [512, 2048])
def test_a_block_before_the_file(made, path, size):
    """Where a user's block of bytes stands before, the file is known, and values and strings are found behind it."""
    with made(userblock_size=size) as file:
        file["w"] = np.arange(4, dtype="<f4")
        file.create_dataset("s", data=STRINGS, dtype=h5py.string_dtype())
        file.create_dataset("c", data=STRINGS, dtype=h5py.string_dtype(), chunks=(2,))
    found = ckpttool.open_checkpoint(path)
    assert found["w"].numpy().tolist() == [0, 1, 2, 3]
    assert found["s"].strings() == found["c"].strings() == STRINGS


def test_ours(tmp_path):
    """What we write is read again as it was: every dtype, odd names, slices, shapes that HDF5 lacks."""
    deep = bundle({"deep": np.arange(3, dtype=np.int32).reshape((1,) * 39 + (3,))}).open(tmp_path)
    sources = [ckpttool.open_checkpoint(FIXTURES / name / "model") for name in ("dtypes", "names", "strings", "empty")]
    for checkpoint in (deep, *sources):
        write_hdf5(checkpoint, tmp_path / "out.h5", strict=checkpoint is not deep, force=True)
        found = read_hdf5(tmp_path / "out.h5")
        assert found.warnings == ()
        assert {name: (v.dtype, v.shape) for name, v in found.items()} == {
            name: (v.dtype, v.shape) for name, v in checkpoint.items()
        }
        for name, variable in checkpoint.items():
            assert _bits(found[name].numpy()) == _bits(variable.numpy()), name


def _bits(array: np.ndarray) -> object:
    return list(array.ravel()) if array.dtype == object else array.tobytes()


def test_ours_packed_again(tmp_path):
    """A file of ours that another program has compressed keeps names, dtypes, and shapes of more than 32 dimensions."""
    deep = np.arange(24, dtype=np.int32).reshape((1,) * 36 + (2, 3, 4))
    arrays = {"a//b": np.arange(5, dtype=np.float32), "b": np.array([1.5, -2], ml_dtypes.bfloat16), "deep": deep}
    write_hdf5(bundle(arrays).open(tmp_path), tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as old, h5py.File(tmp_path / "packed.h5", "w") as new:
        new.attrs.update(old.attrs)

        def pack(name, item):
            if isinstance(item, h5py.Dataset):
                layout = item.id.get_create_plist()
                layout.set_layout(h5py.h5d.CHUNKED)
                layout.set_chunk((2,))
                layout.set_deflate(4)
                new.require_group(name.rpartition("/")[0] or "/")
                raw = np.empty(item.shape, f"V{item.id.get_type().get_size()}")
                item.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, item.id.get_type())
                packed = h5py.h5d.create(new.id, name.encode(), item.id.get_type(), item.id.get_space(), layout)
                packed.write(h5py.h5s.ALL, h5py.h5s.ALL, raw, item.id.get_type())
                h5py.Dataset(packed).attrs.update(item.attrs)

        old.visititems(pack)
    # h5py's `update` gives texts another type: they are written anew as they were.
    found = read_hdf5(tmp_path / "packed.h5")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array, strict=True)
    pieces = [block.ravel().copy() for _, block in found["deep"].blocks(16)]
    np.testing.assert_array_equal(np.concatenate(pieces), np.arange(24))


def test_attributes_of_others_are_not_ours(made, path):
    """In a file that is not ours, attributes that happen to be named as ours change no name and no shape."""
    with made() as file:
        file["x"] = np.zeros(6, "<f4")
        file["x"].attrs.update({"name": "y", "shape": np.array([2, 3]), "ckpttool_note": 7, "tensorflow_dtype": [1]})
        file.attrs["created_by"] = np.array([1, 2])
    found = read_hdf5(path)
    assert {name: v.shape for name, v in found.items()} == {"x": (6,)}


def test_names(made, path):
    """A variable is named by its path, without `:0`; two that would have the same name keep theirs whole."""
    with made() as file:
        for name in ("a/b:0", "a/c", "twice", "twice:0", "é/ü", "0", "a/w/Adam", "a/w:0"):
            file[name] = np.zeros(1, "<f4")
    assert sorted(read_hdf5(path)) == sorted(["a/b", "a/c", "twice", "twice:0", "é/ü", "0", "a/w/Adam", "a/w"])


# What can't be a variable


def test_what_is_passed_over_is_said(made, path, tmp_path):
    """Each name that is no variable has a warning with the reason, and everything else is read."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.full(3, 7, "<f4")
    with made() as file:
        file["good"] = np.ones(2, "<f4")
        file["hard"] = file["good"]
        file["group/back"] = file["/"]
        file["soft"] = h5py.SoftLink("/good")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["external"] = h5py.ExternalLink("other.h5", "/x")
        file["null"] = h5py.Empty("<f4")
        file["compound"] = np.zeros(2, [("x", "<i4"), ("y", "<f8")])
        file.create_dataset("reference", data=file["good"].ref, dtype=h5py.ref_dtype)
        file["enum"] = np.zeros(2, h5py.enum_dtype({"RED": 0, "BLUE": 1}))
        file["array"] = np.zeros(2, np.dtype([("x", "<f4", (3,))]))
        file["opaque"] = np.zeros(2, "V5")
        file.create_dataset("lists", (2,), h5py.vlen_dtype(np.float32))
        file.create_dataset("long", data=np.zeros(2, np.longdouble))
        bits = h5py.h5t.STD_I32LE.copy()
        bits.set_precision(24)
        h5py.h5d.create(file.id, b"bits", bits, h5py.h5s.create_simple((3,)))
        file.create_dataset("stored", (3,), "<f4", external=[(str(tmp_path / "other.h5"), 0, 12)])
        layout = h5py.VirtualLayout((3,), "<f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
        file.create_virtual_dataset("virtual", layout)
    found = read_hdf5(path)
    assert list(found) == ["good"]
    reasons = {text.split()[0]: text.partition(": ")[2] for text in found.warnings}
    assert set(reasons) == {f"/{name}" for name in _items(path)} - {"/good", "/group"}
    assert reasons["/hard"] == "the same as /good"
    assert reasons["/group/back"] == "the same as /"
    assert (
        reasons["/soft"]
        == reasons["/dangling"]
        == reasons["/external"]
        == "a soft or external link, which is not followed"
    )
    assert reasons["/null"] == "it is empty: it has no shape, and no values"
    assert reasons["/stored"] == "its values are in other files"
    assert reasons["/virtual"] == "it is virtual: its values are those of other datasets"
    assert reasons["/bits"] == "TensorFlow has no dtype for HDF5's type integer of 4 bytes, of which not all bits count"
    assert reasons["/compound"] == "TensorFlow has no dtype for HDF5's type compound of 12 bytes"
    for word in ("reference", "enum", "opaque", "compound", "float"):
        assert any(f"HDF5's type {word} of" in reason for reason in reasons.values()), word
    assert "variable-length sequence" in reasons["/lists"]


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("driver", ["family", "split"])
def test_a_file_in_several(driver, libver, tmp_path):
    """A file of a family, or one with its values in another, is not cut off: it is one of several."""
    options = {"libver": libver} | ({"memb_size": 4096} if driver == "family" else {})
    with h5py.File(tmp_path / ("part%d.h5" if driver == "family" else "part"), "w", driver=driver, **options) as file:
        file["x"] = np.ones(5000, "<f4")
    first = tmp_path / ("part0.h5" if driver == "family" else "part-m.h5")
    with pytest.raises(NotSupportedError, match="one of several files"):
        read_hdf5(first)
    if libver == "earliest":
        data = bytearray(first.read_bytes())
        data[48:56] = b"\xf0" + b"\xff" * 7  # The address of what is said of it.
        first.write_bytes(data)
        with pytest.raises(CorruptionError, match="behind its end"):
            read_hdf5(first)


def _items(path) -> set[str]:
    with h5py.File(path) as file:
        return {*file, "group/back"}


def test_filters_that_nobody_knows(made, path):
    """A dataset that went through a filter of somebody's own is passed over, by the filter's number."""
    with made() as file:
        file["good"] = np.ones(2, "<f4")
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((2,))
        layout.set_filter(32_123, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"filtered", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2,)), layout)
    found = read_hdf5(path)
    assert list(found) == ["good"]
    assert "it is compressed by 'filter 32123', which is not supported" in found.warnings[0]


def test_no_other_file_is_opened(made, path, tmp_path, fresh_python):
    """Neither listing nor reading opens a file that a link, a virtual dataset or external storage names."""
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["x"] = np.full(3, 7, "<f4")
    secret = str(tmp_path / "secret.h5")
    with made(libver="latest") as file:
        file["good"] = np.ones(2, "<f4")
        file["layer_names"] = h5py.ExternalLink(secret, "/")
        file["model_weights"] = h5py.ExternalLink(secret, "/")
        file.attrs["layer_names"] = [b"model_weights"]
        file.create_dataset("stored", (3,), "<f4", external=[(secret, 0, 12)])
        layout = h5py.VirtualLayout((3,), "<f4", maxshape=(None,))
        source = h5py.VirtualSource(secret, "x", (3,), maxshape=(None,))
        layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
        file.create_virtual_dataset("virtual", layout)
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from ckpttool.formats.hdf5 import read_hdf5\n"
        "for variable in read_hdf5(sys.argv[1]).values(): variable.numpy()\n"
        "import h5py\n"
        "read = os.stat(sys.argv[2]).st_atime_ns\n"
        "print(read)\n"
    )
    # The time of the last access, set long ago, is moved by any reading of the file.
    os.utime(secret, (1, 1))
    done = fresh_python(script, path, secret)
    assert done.stderr == ""
    with open(secret, "rb") as file:
        file.read()
    if os.stat(secret).st_atime_ns == 10**9:
        pytest.skip("the file system keeps no times of access")
    assert done.stdout.strip() == str(10**9)


# What means harm


def test_names_that_are_paths(path, made, tmp_path):
    """A link whose name has a slash is not followed: HDF5 would take it for a path, into another file."""
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["x"] = np.full(3, 7, "<f4")
    with made() as file:
        file["ext"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        file["ext_x"] = np.ones(1, "<f4")
    path.write_bytes(path.read_bytes().replace(b"ext_x", b"ext/x"))
    found = read_hdf5(path)
    assert not found
    assert any("no link can have this name" in warning for warning in found.warnings)


def test_shapes_without_values(made, path):
    """A shape of terabytes of which nothing is stored is passed over; one of a few MB is its fill value."""
    with made() as file:
        file.create_dataset("bomb", (1 << 40,), "<f4", chunks=(1024,))
        file.create_dataset("flat", (1 << 40,), "<f4")
        file.create_dataset("strings", (1 << 40,), h5py.string_dtype(), chunks=(1024,))
        file.create_dataset("wide", (1 << 20,), "S1000000", chunks=(1,))
        file.create_dataset("chunk", (1,), "<f4", chunks=(1 << 29,), maxshape=(None,))
        file.create_dataset("fill", (1000,), "<f4", fillvalue=2.5)
        file.create_dataset("unwritten", (1000,), "<f4", chunks=(10,))
    found = read_hdf5(path)
    assert sorted(found) == ["fill", "unwritten"]
    assert all("0 bytes are stored for" in warning for warning in found.warnings)
    assert len(found.warnings) == 5
    assert set(found["fill"].numpy()) == {2.5}
    assert not found["unwritten"].numpy().any()


def test_groups_in_circles(made, path):
    """Groups that contain each other, and a thousand doors to each, are entered once."""
    with made() as file:
        groups = [file.create_group(f"g{number}") for number in range(40)]
        for group in groups:
            for number, other in enumerate(groups):
                group[f"to{number}"] = other
        groups[-1]["w"] = np.ones(1, "<f4")
    with time_limit(20):
        found = read_hdf5(path)
    assert len(found) == 1
    assert len(found.warnings) == 40 * 40


def test_groups_too_deep(made, path):
    """Of groups within groups without end, so many are entered, and the rest is said to be passed over."""
    with made() as file:
        group = file
        for _ in range(4100):
            group = group.create_group("g")
        group["w"] = np.ones(1, "<f4")
        file["shallow"] = np.ones(1, "<f4")
    found = read_hdf5(path)
    assert list(found) == ["shallow"]
    assert "more than 4000 groups deep" in found.warnings[0]


def test_many_attributes(made, path):
    """Thousands of attributes, of megabytes, are not looked at."""
    with made(libver="latest") as file:
        file["w"] = np.ones(1, "<f4")
        for number in range(3000):
            file["w"].attrs[f"a{number}"] = number
        file.attrs["weight_names"] = np.zeros(1 << 20, "S8")
    with time_limit(10):
        assert list(read_hdf5(path)) == ["w"]


def test_paths_that_multiply(made, path):
    """A long name of a group stands in every path below it: such paths are no more than the file warrants."""
    with made() as file:
        group = file.create_group("x" * 60_000)
        for number in range(2000):
            group.create_group(f"{number}")
    with pytest.raises(CorruptionError, match="names take more"):
        read_hdf5(path)


def heap_of(*objects: bytes, size: int | None = None) -> bytes:
    """A collection of the global heap."""
    data = b"".join(
        struct.pack("<HHIQ", number, 1, 0, len(value)) + value.ljust(-(-len(value) // 8) * 8, b"\0")
        for number, value in enumerate(objects, 1)
    )
    return b"GCOL\1\0\0\0" + struct.pack("<Q", size or 16 + len(data) + 16) + data + bytes(16)


def reference(length: int, index: int, address: int = 0) -> bytes:
    return struct.pack("<IQI", length, address, index)


def test_global_heap(tmp_path):
    """References lead to their objects, the shorter ones to their beginnings."""
    path = tmp_path / "heap"
    path.write_bytes(heap_of(b"hello", b"", b"12345678"))
    heap = GlobalHeap(str(path), 8, 8, 0)
    data = reference(5, 1) + reference(0, 9, 1 << 60) + reference(8, 3) + reference(2, 1)
    assert heap.values(data) == [b"hello", b"", b"12345678", b"he"]


@pytest.mark.parametrize(
    ("data", "references", "reason"),
    [
        (heap_of(b"hello"), reference(5, 2), "of which there are 0"),
        (heap_of(b"hello"), reference(6, 1), "of which there are 5"),
        (heap_of(b"hello"), reference(5, 1, 8), "no global heap"),
        (heap_of(b"hello"), reference(5, 1, 1 << 63), "no global heap"),
        (heap_of(b"hello", size=1 << 40), reference(5, 1), "more than the file has left"),
        (heap_of(b"hello").replace(b"\5\0", b"\5\1", 1), reference(5, 1), "ends outside"),
        (heap_of(b"x" * 40), reference(40, 1) * 100, "more than there is in the file"),
        (heap_of(b"a") + heap_of(b"b"), reference(1, 1) + reference(1, 1, 56), ""),
    ],
)
def test_damaged_heap(tmp_path, data, references, reason):
    """A heap in which lengths or references are wrong ends at once."""
    path = tmp_path / "heap"
    path.write_bytes(data)
    heap = GlobalHeap(str(path), 8, 8, 0)
    if not reason:
        assert heap.values(references) == [b"a", b"b"]
        return
    with time_limit(5), pytest.raises(CorruptionError, match=reason):
        heap.values(references)


@examples
@given(st.binary(max_size=64), st.binary(max_size=32))
def test_any_heap(tmp_path_factory, data, references):
    """Any bytes, taken for a heap and references, end in values or in an error of ours."""
    path = tmp_path_factory.getbasetemp() / "any.heap"
    path.write_bytes(b"GCOL\1\0\0\0" + data)
    try:
        values = GlobalHeap(str(path), 8, 8, 0).values(references[: len(references) // 16 * 16])
    except CheckpointError:
        return
    assert sum(map(len, values)) <= len(data) + 8


def test_one_string_a_million_times(made, path):
    """References to one string of megabytes, as many as there are, do not become as many strings."""
    with made() as file:
        file.create_dataset("s", data=[b"x" * (1 << 20)] + [b"y"] * 4095, dtype=h5py.string_dtype())
    with h5py.File(path) as file:
        offset = file["s"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset : offset + 16 * 4096] = bytes(data[offset : offset + 16]) * 4096
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="more than there is in the file"):
        read_hdf5(path)["s"].strings()


def test_parts_of_one_string(tmp_path):
    """References to nearly all of a string are counted before there are as many copies of it."""
    path = tmp_path / "heap"
    path.write_bytes(heap_of(b"x" * (1 << 20)))
    heap = GlobalHeap(str(path), 8, 8, 0)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="more than there is in the file"):
            heap.values(reference((1 << 20) - 1, 1) * 100)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_no_hdf5(tmp_path):
    """A file that is none, or is empty, is said to be none."""
    for data in (b"", b"\x89HDF\r\n\x1a\n", b"no HDF5"):
        (tmp_path / "no.h5").write_bytes(data)
        with pytest.raises(CorruptionError, match="no HDF5 file"):
            read_hdf5(tmp_path / "no.h5")


def test_string_variables_of_ours_survive(tmp_path):
    """Strings with NULs, as sequences of bytes, come back as they were."""
    values = strings(b"a\0", b"\0", b"", b"plain")
    write_hdf5(bundle({"s": values}).open(tmp_path), tmp_path / "out.h5")
    assert read_hdf5(tmp_path / "out.h5")["s"].strings() == list(values)
