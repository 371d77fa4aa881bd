"""NumPy archives: numpy.load reads what we write, we read what NumPy writes, and a pickle never."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import arrays
import ml_dtypes
import numpy as np
import pytest
from arrays import BIG, BITS, OTHERS, STRINGS, header, npy
from bundles import bundle, strings, time_limit
from conftest import FIXTURES, needs_corpus
from foreign import BUNDLES, assert_corpus_survives, assert_same_bundle_after, bundle_id, put, survives, values_of

import ckpttool
from ckpttool.errors import CheckpointError, ConversionError, CorruptionError
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.npz import plan_npz, read_npz, write_npz

COMPRESSED = pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])


def exported(prefix, path, **options):
    checkpoint = ckpttool.open_checkpoint(prefix)
    return checkpoint, write_npz(checkpoint, path, **options)


def zipped(*members, **options) -> bytes:
    """An archive of (name, data) members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, data)
    return buffer.getvalue()


# Writing


@COMPRESSED
@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_numpy_reads_names_types_and_bits(prefix, compressed, tmp_path):
    """numpy.load, without pickles, lists every variable by its name in the plan, and gives its dtype, or the stated
    one of the same bits, its shape and its bits; strings as themselves, or as the bundle has them.
    """
    checkpoint, remarkable = exported(prefix, tmp_path / "out.npz", compressed=compressed)
    remarks = {planned.variable.name: planned.fallback for planned in remarkable}
    plan = plan_npz(checkpoint)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as arrays:
        assert sorted(arrays.files) == sorted(planned.target for planned in plan)
        for planned in plan:
            variable, array = planned.variable, arrays[planned.target]
            dtype = variable.dtype.name
            if dtype == "string" and variable.name not in remarks:
                assert (array.shape, array.dtype.kind) == (variable.shape, "S")
                assert list(array.ravel()) == variable.strings()
            elif dtype in ("string", "variant"):
                assert (array.ndim, array.dtype) == (1, np.uint8)
                assert remarks[variable.name] == "uint8, as a TensorFlow checkpoint stores it"
            else:
                assert (array.dtype.name, array.shape) == (BITS.get(dtype, dtype), variable.shape)
                assert array.tobytes() == variable.numpy().tobytes()
                assert (variable.name in remarks) == (dtype in BITS)


def test_names_are_the_arrays_names(tmp_path):
    """A variable's name is the array's, and only what a member can't be called is percent-encoded."""
    names = {"a/b": "a/b", "é": "é", "../x": "../x", "a:b": "a:b", "/abs": "%/abs", "a\0b": "a%00b", "\udcff": "%FF"}
    one = bundle({"w": np.ones(1, np.float32)}).open(tmp_path)["w"]
    checkpoint = (
        bundle({"w": np.ones(1, np.float32)}).open(tmp_path).with_variables({name: one.renamed(name) for name in names})
    )
    write_npz(checkpoint, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays.files == list(names.values())
    assert list(ckpttool.open_checkpoint(tmp_path / "out.npz")) == list(names)


def test_a_name_that_ends_as_the_suffix(tmp_path):
    """The variables "a" and "a.npy" are two arrays for numpy.load, which takes the name "a.npy" for "a"."""
    checkpoint = bundle({"a": np.float32(1), "a.npy": np.float32(2), ".npy": np.float32(3)}).open(tmp_path)
    write_npz(checkpoint, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        assert sorted(float(arrays[name]) for name in arrays.files) == [1, 2, 3]
    back = ckpttool.open_checkpoint(tmp_path / "out.npz")
    assert {name: float(v.numpy()) for name, v in back.items()} == {"a": 1, "a.npy": 2, ".npy": 3}


@pytest.mark.parametrize("values", [[], [b""], [b"", b""], [b"\0a"], [b"a", b"abc"]], ids=repr)
def test_strings_without_loss_are_strings(values, tmp_path):
    """Strings that fixed width does not change are such, also empty ones and none at all, and strict takes them."""
    checkpoint = bundle({"s": strings(*values)}).open(tmp_path)
    assert write_npz(checkpoint, tmp_path / "out.npz", strict=True) == []
    with np.load(tmp_path / "out.npz") as arrays:
        assert list(arrays["s"]) == values
    assert ckpttool.open_checkpoint(tmp_path / "out.npz")["s"].strings() == values


@pytest.mark.parametrize(
    "values", [[b"a\0"], [b"\0"], [b"x" * (1 << 20), *[b""] * 63]], ids=["a NUL", "NUL", "padding"]
)
def test_strings_with_loss_are_bytes(values, tmp_path):
    """Strings that end in NUL, or that would be padding for the most part, are bytes, which is said, and come back."""
    checkpoint = bundle({"s": strings(*values)}).open(tmp_path)
    (said,) = write_npz(checkpoint, tmp_path / "out.npz")
    assert said.remark == "stored as uint8, as a TensorFlow checkpoint stores it"
    assert (tmp_path / "out.npz").stat().st_size < 2 << 20
    assert ckpttool.open_checkpoint(tmp_path / "out.npz")["s"].strings() == values
    with pytest.raises(ConversionError) as caught:
        write_npz(checkpoint, tmp_path / "strict.npz", strict=True)
    assert caught.value.variable == "s"


def test_what_is_left_out_is_returned(tmp_path):
    """A resource, and a name too long for an archive, are left out with the reason; strict refuses them by name."""
    made = bundle({"w": np.ones(2, np.float32), "it": strings(b"?"), "n" * 65_536: np.ones(1, np.int8)})
    checkpoint = made.change("it", dtype=20).open(tmp_path)
    left_out = write_npz(checkpoint, tmp_path / "out.npz")
    assert [(planned.variable.name[:2], planned.problem) for planned in left_out] == [
        ("it", "NumPy can't hold values of dtype resource"),
        ("nn", "no archive can hold a name of 65,540 bytes"),
    ]
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays.files == ["w"]
    with pytest.raises(ConversionError) as caught:
        write_npz(checkpoint, tmp_path / "strict.npz", strict=True)
    assert caught.value.variable == "it"
    assert not (tmp_path / "strict.npz").exists()


def test_two_variables_of_one_name(tmp_path):
    """Names that become one when they are encoded are refused, not one of them dropped."""
    one = bundle({"w": np.ones(1, np.float32)}).open(tmp_path)["w"]
    checkpoint = (
        bundle({"w": np.ones(1, np.float32)})
        .open(tmp_path)
        .with_variables({"\udcff": one.renamed("\udcff"), "%FF": one.renamed("%FF")})
    )
    with pytest.raises(ConversionError, match="would have the same name") as caught:
        write_npz(checkpoint, tmp_path / "out.npz")
    assert caught.value.variable == "%FF"


@COMPRESSED
def test_same_input_same_bytes(compressed, tmp_path):
    """Two exports of one checkpoint are equal byte for byte; deflated, smaller than stored."""
    for name in ("one.npz", "two.npz"):
        exported(FIXTURES / "conv" / "model", tmp_path / name, compressed=compressed)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    exported(FIXTURES / "conv" / "model", tmp_path / "stored.npz")
    smaller = (tmp_path / "one.npz").stat().st_size < (tmp_path / "stored.npz").stat().st_size
    assert smaller == compressed


def test_existing_file(tmp_path):
    """A file is replaced only if that is asked for, and never by what is read from it."""
    out = tmp_path / "out.npz"
    exported(FIXTURES / "linear" / "model", out)
    before = out.read_bytes()
    with pytest.raises(FileExistsError, match="the output exists"):
        exported(FIXTURES / "conv" / "model", out)
    with pytest.raises(FileExistsError, match="the output is the input"):
        exported(out, out, force=True)
    assert out.read_bytes() == before
    exported(FIXTURES / "conv" / "model", out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    assert set(ckpttool.open_checkpoint(out)) == set(ckpttool.open_checkpoint(FIXTURES / "conv" / "model"))


def test_damaged_values_leave_no_file(tmp_path):
    """A flipped byte of the source is found on the way: no file and no temporary is left."""
    bundle({"a": np.ones(9, np.float32), "w": np.ones(9, np.float32)}).write(tmp_path)
    data = next(tmp_path.glob("model.data-*"))
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CorruptionError, match="Checksum does not match"):
        exported(tmp_path / "model", tmp_path / "out.npz")
    assert sorted(tmp_path.iterdir()) == before


# There and back


def stored(checkpoint, directory):
    write_npz(checkpoint, directory / "out.npz")
    return directory / "out.npz"


def deflated(checkpoint, directory):
    write_npz(checkpoint, directory / "out.npz", compressed=True)
    return directory / "out.npz"


@pytest.mark.parametrize("write", [stored, deflated])
@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_there_and_back(prefix, write, tmp_path):
    """A bundle that was an archive is again the bundle that TensorFlow wrote, byte for byte."""
    assert_same_bundle_after(prefix, write, tmp_path)


@needs_corpus
@pytest.mark.slow
def test_there_and_back_with_the_corpus(tmp_path):
    """Every small bundle of the corpus comes back as it would be written directly, byte for byte."""
    assert_corpus_survives(stored, tmp_path)


def test_many_partitioned_variables(tmp_path):
    """Two threads write a bundle, each of them slices of other arrays: every value is in its place."""
    arrays = {f"w{number:02d}": np.full((40, 50), number, np.float32) for number in range(60)}
    slices = {name: [((0, 20), (0, -1)), ((20, 20), (0, -1))] for name in arrays}
    checkpoint = bundle(arrays, slices=slices).open(tmp_path)
    write_npz(checkpoint, tmp_path / "out.npz", compressed=True)
    write_bundle(ckpttool.open_checkpoint(tmp_path / "out.npz"), tmp_path / "back")
    assert values_of(ckpttool.open_checkpoint(tmp_path / "back")) == values_of(checkpoint)


@pytest.mark.parametrize("fixture", ["dtypes", "strings", "partitioned", "names", "sharded"])
def test_without_notes_the_arrays_are_what_they_are(fixture, tmp_path):
    """Saved anew by NumPy, which keeps no comments, every array is there under its own name, dtype and bits."""
    exported(FIXTURES / fixture / "model", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        loaded = dict(arrays)
    np.savez(tmp_path / "plain.npz", **loaded)
    found = ckpttool.open_checkpoint(tmp_path / "plain.npz")
    assert set(found) == set(loaded)
    for name, array in loaded.items():
        if array.dtype.kind == "S":
            assert (found[name].shape, found[name].strings()) == (array.shape, list(array.ravel()))
        else:
            assert values_of(found)[name] == (array.dtype.name, array.shape, array.tobytes())


FORGED = [
    "[]",
    "not JSON",
    "[" * 30_000,
    *(
        json.dumps(note)
        for note in (
            {"name": "b"},
            {"name": "\ud800"},
            {"dtype": "string", "shape": [BIG]},
            {"dtype": "string", "shape": [7]},
            {"dtype": "qint32"},
            {"dtype": "float64", "shape": [3]},
            {"dtype": "resource"},
            {"shape": [3, 2]},
            {"shape": [BIG] * 1000},
            {"shard": -1},
            {"position": 0.5},
            {"slices": [[[[0, 3]], 0, 0]]},
            {"slices": [[[[0, 3]], 0, 0], [[[0, 3]], 0, 0]]},
            {"slices": [[[[0, BIG]], 0, 0]]},
            {"slices": [[[[0, 0]], 0, 0], [[[0, 0]], 0, 0], [[[0, 6]], 0, 0]]},
            {"slices": 7},
        )
    ),
]


@pytest.mark.parametrize("comment", FORGED, ids=range(len(FORGED)))
def test_forged_notes_change_nothing(comment, tmp_path):
    """Comments that can't be true, or are no notes, are passed over: the array is read as it is, and written so."""
    member = zipfile.ZipInfo("a.npy")
    member.comment = comment.encode()
    values = np.arange(6, dtype=np.uint8)
    (tmp_path / "forged.npz").write_bytes(zipped((member, npy(values))))
    assert survives(tmp_path / "forged.npz") == {"a": ("uint8", (6,), values.tobytes())}
    write_bundle(ckpttool.open_checkpoint(tmp_path / "forged.npz"), tmp_path / "model")
    assert values_of(ckpttool.open_checkpoint(tmp_path / "model")) == {"a": ("uint8", (6,), values.tobytes())}


# Files by others


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_numpy_are_read(save, tmp_path):
    """What savez writes is read with its names, dtypes and values, whatever their order in memory."""
    save(tmp_path / "a.npz", **OTHERS)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.npz")
    assert list(checkpoint) == list(OTHERS)
    assert not checkpoint.warnings
    for name, array in OTHERS.items():
        assert checkpoint[name].dtype.name == array.dtype.name
        np.testing.assert_array_equal(checkpoint[name].numpy(), array)
        assert checkpoint[name].numpy().dtype.isnative


def test_texts_are_read_as_utf8(tmp_path):
    """Arrays of text and of bytes are variables of strings: text in UTF-8, in row-major order."""
    np.savez(tmp_path / "a.npz", **STRINGS)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.npz")
    for name, array in STRINGS.items():
        values = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
        assert (checkpoint[name].dtype.name, checkpoint[name].shape) == ("string", array.shape)
        assert checkpoint[name].strings() == values


def test_others_become_the_bundle_that_tensorflow_would_write(tf, tmp_path):
    """TensorFlow reads from the bundle what NumPy has in the archive."""
    arrays = {name: array for name, array in OTHERS.items() if name}
    np.savez(tmp_path / "a.npz", **arrays)
    write_bundle(ckpttool.open_checkpoint(tmp_path / "a.npz"), tmp_path / "model")
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    assert set(reader.get_variable_to_shape_map()) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(reader.get_tensor(name), array)


class Trap:
    """What runs code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_pickles_are_never_loaded(tmp_path, monkeypatch):
    """Arrays of objects are named and passed over, their pickles not touched; the others are read."""
    monkeypatch.chdir(tmp_path)
    trap = npy(np.array([Trap()], object), allow_pickle=True)
    inside = npy(np.array([(1, Trap())], [("a", "i4"), ("b", "O")]), allow_pickle=True)
    members = [
        ("trap.npy", trap),
        ("inside.npy", inside),
        ("raw.npy", pickle.dumps(Trap())),
        ("w.npy", npy(np.ones(2))),
    ]
    (tmp_path / "a.npz").write_bytes(zipped(*members[:2], members[3]))
    checkpoint = ckpttool.open_checkpoint("a.npz")
    assert list(checkpoint) == ["w"]
    assert [warning.split(" ")[0] for warning in checkpoint.warnings] == ["trap.npy", "inside.npy"]
    assert all("pickled objects" in warning for warning in checkpoint.warnings)
    (tmp_path / "b.npz").write_bytes(zipped(("raw.npy", pickle.dumps(Trap()))))
    assert isinstance(survives(tmp_path / "b.npz"), CheckpointError)
    assert not (tmp_path / "sprung").exists()


def test_what_tensorflow_has_no_dtype_for_is_passed_over(tmp_path):
    """Records, dates, long doubles, members that are no arrays, other compressions and encrypted ones are named in
    warnings; the others are read.
    """
    encrypted = bytearray(zipped(("a.npy", npy(np.ones(2)))))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("record.npy", npy(np.zeros(2, "f4,i4")))
        archive.writestr("date.npy", npy(np.array(["2020"], "M8[Y]")))
        archive.writestr("long.npy", npy(np.ones(1, np.longdouble)))
        archive.writestr("README", b"text")
        archive.writestr("dir/", b"")
        archive.writestr("bz2.npy", npy(np.ones(1)), zipfile.ZIP_BZIP2)
        archive.writestr("lzma.npy", npy(np.ones(1)), zipfile.ZIP_LZMA)
        archive.writestr("w.npy", npy(np.ones(1)))
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.npz")
    assert list(checkpoint) == ["w"]
    named = [warning.split(" ")[0] for warning in checkpoint.warnings]
    assert named == ["record.npy", "date.npy", "long.npy", "README", "dir/", "bz2.npy", "lzma.npy"]
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "b.npz").write_bytes(encrypted)
    checkpoint = ckpttool.open_checkpoint(tmp_path / "b.npz")
    assert (list(checkpoint), checkpoint.warnings) == ([], ("a.npy is passed over: encrypted",))


def test_zip64(tmp_path):
    """Archives with sizes and offsets in 64 bits are read, also where the values would fit into 32."""
    np.savez(tmp_path / "a.npz", a=np.arange(3))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    central, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    sizes = struct.unpack_from("<II", data, central + 20)
    extra = struct.pack("<HHQQQ", 1, 24, sizes[1], sizes[0], 0)
    entry = bytearray(data[central:end])
    entry[20:28], entry[42:46] = b"\xff" * 8, b"\xff" * 4
    struct.pack_into("<H", entry, 30, len(extra))
    entry += extra
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(entry), central)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, central + len(entry), 1)
    last = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (tmp_path / "b.npz").write_bytes(data[:central] + entry + record + locator + last)
    np.testing.assert_array_equal(np.load(tmp_path / "b.npz")["a"], np.arange(3))
    np.testing.assert_array_equal(ckpttool.open_checkpoint(tmp_path / "b.npz")["a"].numpy(), np.arange(3))


def test_a_name_that_is_there_twice(tmp_path):
    """Two arrays of one name are refused by that name: NumPy would show one of them."""
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped(("a.npy", npy(np.ones(1))), ("a.npy", npy(np.zeros(1))))
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(CorruptionError, match="twice") as caught:
        read_npz(tmp_path / "a.npz")
    assert caught.value.variable == "a"


def test_the_archives_directory_is_read_once(tmp_path, monkeypatch):
    """Values are read without the archive's directory, however many arrays there are: else it would take the square."""
    np.savez(tmp_path / "a.npz", **{str(number): np.full(3, number) for number in range(200)})
    checkpoint = read_npz(tmp_path / "a.npz")
    monkeypatch.setattr(zipfile.ZipFile, "__init__", None)
    assert [int(variable.numpy()[0]) for variable in checkpoint.values()] == list(range(200))


def test_large_arrays_go_by_in_blocks(tmp_path):
    """A deflated array of 64 MiB is read and written in blocks: no more than three of them are in memory."""
    np.savez_compressed(tmp_path / "a.npz", w=np.zeros((4096, 4096), np.float32))
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.npz")
    write_bundle(bundle({"v": np.ones(1)}).open(tmp_path), tmp_path / "warm")  # Imports what is not to be measured.
    tracemalloc.start()
    write_bundle(checkpoint, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * (8 << 20) + (2 << 20)
    assert (tmp_path / "out.data-00000-of-00001").stat().st_size == 64 << 20


# Hostile files

W = npy(np.ones(2, np.float32))


def lying(field: int, size: int, value: int, *, local: int | None = None) -> bytes:
    """An archive of W whose directory says something else, at an offset in the entry; and its local header too."""
    data = bytearray(zipped(("w.npy", W)))
    central = data.index(b"PK\1\2")
    data[central + field : central + field + size] = value.to_bytes(size, "little")
    if local is not None:
        data[local : local + size] = value.to_bytes(size, "little")
    return bytes(data)


def overlapping() -> bytes:
    """Ten members of one name's length that are all the same bytes."""
    data = zipped(("0.npy", W * 40))
    central, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = b"".join(data[central:end].replace(b"0.npy", b"%d.npy" % n) for n in range(10))
    return data[:central] + entries + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 10, 10, len(entries), central, 0)


def bomb(size: int) -> bytes:
    """An array of zeros that says it is there, of which a few bytes are."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".encode()
    return zipped(("w.npy", header(text, bytes(1000))), compression=zipfile.ZIP_DEFLATED)


HOSTILE = {
    "only the magic": b"PK\3\4",
    "length over the file": lying(20, 4, 1 << 30),
    "size over the file": lying(24, 4, 1 << 30),
    "size short": lying(24, 4, 130),
    "size over what deflate makes": lying(24, 4, (1 << 32) - 2),
    "another checksum": lying(16, 4, 1),
    "stored said to be deflated": lying(10, 2, 8),
    "both said to be deflated": lying(10, 2, 8, local=8),
    "offset over the file": lying(42, 4, 1 << 30),
    "offset of no header": lying(42, 4, 5),
    "overlapping": overlapping(),
    "bomb": bomb(1 << 62),
    "small bomb": bomb(1001),
    **{name: zipped(("w.npy", data)) for name, data in arrays.DAMAGED.items()},
}
ODD = {name: zipped(("w.npy", data)) for name, data in arrays.ODD.items()}
ODD["another compression"] = lying(10, 2, 14, local=8)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(data, tmp_path, monkeypatch):
    """What can't be is refused by an error of ours, soon and in little memory, and nothing of it is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(data)
    assert isinstance(survives(tmp_path / "a.npz"), CheckpointError)
    with pytest.raises(CheckpointError), time_limit(2):
        values_of(read_npz(tmp_path / "a.npz"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_bomb_that_the_archive_confirms(tmp_path):
    """An array of more bytes than deflate makes of so few is refused when it is listed, though its header agrees."""
    data, size = bytearray(bomb(1 << 31)), (1 << 31) + 128
    for place in (22, data.index(b"PK\1\2") + 24):
        data[place : place + 4] = size.to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(CorruptionError, match=f"can't hold {size:,}"):
        read_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("data", ODD.values(), ids=ODD)
def test_odd_arrays_are_passed_over(data, tmp_path):
    """Arrays that can be, and that no variable can be, are named in a warning, soon and in little memory."""
    (tmp_path / "a.npz").write_bytes(data)
    assert survives(tmp_path / "a.npz") == {}
    (warning,) = read_npz(tmp_path / "a.npz").warnings
    assert warning.startswith("w.npy is passed over: ")


def test_listing_a_bomb_costs_nothing(tmp_path):
    """Ten arrays of 4 MiB in 4 KB each are listed without being inflated."""
    one = npy(np.zeros(4 << 20, np.uint8))
    data = zipped(("0.npy", one), compression=zipfile.ZIP_DEFLATED)
    local, central = data[: data.index(b"PK\1\2")], data[data.index(b"PK\1\2") : data.index(b"PK\5\6")]
    members, entries = b"", b""
    for number in range(10):
        offset, name = len(members).to_bytes(4, "little"), b"%d.npy" % number
        members += local.replace(b"0.npy", name)
        entries += central[:42] + offset + name
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 10, 10, len(entries), len(members), 0)
    (tmp_path / "a.npz").write_bytes(members + entries + end)
    tracemalloc.start()
    with time_limit(2):
        checkpoint = read_npz(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(variable.nbytes for variable in checkpoint.values()) == 10 * (4 << 20)
    assert peak < 1 << 20


def small_file(directory, *, compressed) -> bytes:
    """A file of ours with notes of every kind."""
    arrays = {"w": np.arange(4, dtype=np.int16), "x": np.ones(3, ml_dtypes.bfloat16)}
    checkpoint = bundle(arrays, slices={"w": [((0, 2),), ((2, 2),)]}, shards=2).open(directory)
    write_npz(checkpoint, directory / "small.npz", compressed=compressed)
    return (directory / "small.npz").read_bytes()


def test_every_truncation_is_noticed(tmp_path):
    """An archive cut anywhere is refused: its directory is at the end."""
    data, path = small_file(tmp_path, compressed=False), tmp_path / "cut.npz"
    for length in range(len(data)):
        put(path, data[:length])
        with pytest.raises(CheckpointError):
            read_npz(path)


SLOWLY = [
    pytest.param(flip, compressed, marks=pytest.mark.slow) for flip in (0x01, 0x80) for compressed in (False, True)
]


@pytest.mark.parametrize(("flip", "compressed"), [(0x20, False), *SLOWLY])
def test_every_byte_flipped(flip, compressed, tmp_path):
    """An archive with any byte changed is refused by our errors, or gives the numbers that it gave; an array that is
    missing is named in a warning.
    """
    data, path = small_file(tmp_path, compressed=compressed), tmp_path / "flipped.npz"
    bits = {"w": np.arange(4, dtype=np.int16).tobytes(), "x": np.ones(3, ml_dtypes.bfloat16).tobytes()}
    refused = 0
    for position in range(len(data)):
        put(path, data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
        found = survives(path, measured=flip != 0x20)
        if not isinstance(found, dict):
            refused += 1
            continue
        if len(found) < 2:
            assert read_npz(path).warnings, position
        for name, (_, _, values) in found.items():
            assert values == bits[name], position
    assert refused > len(data) / 3


def test_not_an_archive(tmp_path):
    """A directory, a missing file and an archive of something else say what they are."""
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_npz(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        read_npz(tmp_path / "a.npz")


def test_a_member_that_ends_too_early_is_said_to(tmp_path):
    """The archive was cut after it was opened: zipfile has no words for that."""
    path = tmp_path / "a.npz"
    ckpttool.write_npz(ckpttool.from_arrays({"a": np.zeros(9999)}), path)
    variable = ckpttool.open_checkpoint(path)["a"]
    os.truncate(path, 5000)
    with pytest.raises(CorruptionError, match="not a sound zip archive: it ends within a member"):
        variable.numpy()
