"""Files of arrays and directories of them: numpy.load reads ours, we read NumPy's, and no name leads out."""

import json
import os
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
from arrays import BIG, BITS, DAMAGED, OTHERS, STRINGS, npy
from arrays import ODD as ODD_ARRAYS
from bundles import bundle, examples, strings
from conftest import FIXTURES, needs_corpus
from foreign import BUNDLES, assert_corpus_survives, assert_same_bundle_after, bundle_id, put, survives, values_of
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.errors import CheckpointError, ConversionError, CorruptionError, FormatError, NotSupportedError
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.npy import directory, plan_npy, read_npy, read_npy_directory, write_npy


def exported(prefix, directory, **options):
    checkpoint = ckpttool.open_checkpoint(prefix)
    return checkpoint, write_npy(checkpoint, directory, **options)


def named(directory, *names):
    """A checkpoint of variables of these names, in this order, each with its own value."""
    arrays = {str(number): np.float32(number) for number in range(len(names))}
    variables = bundle(arrays).open(directory)
    return variables.with_variables({name: variables[str(n)].renamed(name) for n, name in enumerate(names)})


def index_of(directory):
    return json.loads((directory / "index.json").read_text())


# Writing


@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_numpy_reads_types_and_bits(prefix, tmp_path):
    """Every file is one that numpy.load reads, without pickles, to the variable's dtype, or the stated one of the same
    bits, its shape and its bits; the index lists them all, and nothing else is there.
    """
    checkpoint, remarkable = exported(prefix, tmp_path / "out")
    remarks = {planned.variable.name: planned.fallback for planned in remarkable}
    listed = {entry["name"]: entry for entry in index_of(tmp_path / "out")["variables"]}
    plan = {planned.variable.name: planned.target for planned in plan_npy(checkpoint)}
    assert {name: entry["file"] for name, entry in listed.items()} == plan
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*plan.values(), "index.json"}
    for name, variable in checkpoint.items():
        array, dtype = np.load(tmp_path / "out" / plan[name], allow_pickle=False), variable.dtype.name
        assert (listed[name]["dtype"], tuple(listed[name]["shape"])) == (dtype, variable.shape)
        if dtype == "string" and name not in remarks:
            assert (array.shape, list(array.ravel())) == (variable.shape, variable.strings())
        elif dtype in ("string", "variant"):
            assert (array.ndim, array.dtype) == (1, np.uint8)
        else:
            assert (array.dtype.name, array.shape) == (BITS.get(dtype, dtype), variable.shape)
            assert array.tobytes() == variable.numpy().tobytes()
            assert (name in remarks) == (dtype in BITS)


def test_files_are_those_of_numpy(tmp_path):
    """A file is byte for byte what numpy.save writes of the array, also where the header is long."""
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3), "s": np.float64(2), "n": np.zeros((0, 3), bool)}
    arrays["deep"] = np.ones((1,) * 64, np.uint8)
    write_npy(bundle(arrays).open(tmp_path), tmp_path / "out")
    for name, array in arrays.items():
        assert (tmp_path / "out" / f"{name}.npy").read_bytes() == npy(array)


def test_strict_refuses_by_name(tmp_path):
    """Strict names the first variable that NumPy has no type for, and writes nothing; what is left out is returned."""
    made = bundle({"it": strings(b"?"), "w": np.ones(2, np.float32)}).change("it", dtype=20)
    made.write(tmp_path)
    _, left_out = exported(tmp_path / "model", tmp_path / "out")
    assert [(p.variable.name, p.remark) for p in left_out] == [
        ("it", "left out: NumPy can't hold values of dtype resource")
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.json", "w.npy"]
    for prefix in (tmp_path / "model", FIXTURES / "dtypes" / "model"):
        with pytest.raises(ConversionError) as caught:
            exported(prefix, tmp_path / "strict", strict=True)
        assert caught.value.variable in ckpttool.open_checkpoint(prefix)
    assert not (tmp_path / "strict").exists()


ODD = [
    *(
        "../../x",
        "/etc/passwd",
        "..",
        ".",
        "",
        "~",
        "a/b",
        "a\\b",
        "a\0b",
        "C:x",
        "-rf",
        "a b",
        "é",
        "e\u0301",
        "\udcff",
    ),
    *(
        "CON",
        "con",
        "Con.x",
        "nul",
        "COM1",
        "lpt9.txt",
        "aux.npy",
        "index.json",
        "index",
        "a.npy",
        "a",
        "A",
        "a.",
        "a ",
    ),
    *(
        "W",
        "w",
        "%2E",
        ".hidden",
        "\x1b[31m",
        "\u202e",
        "x" * 150,
        "x" * 151,
        "x" * 300,
        "X" * 300,
        "ß",
        "SS",
        "K",
        "\u212a",
    ),
]


def test_odd_names_are_files_in_the_directory(tmp_path):
    """Names that are paths, twins in all but case, devices of Windows, or too long are files of their own in the
    directory, of names that any system takes; and they come back.
    """
    checkpoint = named(tmp_path, *ODD)
    (tmp_path / "in").mkdir()
    write_npy(checkpoint, tmp_path / "in" / "out")
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]
    files = [path.name for path in (tmp_path / "in" / "out").iterdir() if path.name != "index.json"]
    assert len({file.casefold() for file in files}) == len(files) == len(ODD)
    for file in files:
        assert len(file) < 200
        assert set(file) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-%")
        assert not file.startswith(".")
        assert file.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert values_of(ckpttool.open_checkpoint(tmp_path / "in" / "out")) == values_of(checkpoint)


def twin(name, case):
    """The name that the file of `name` has where its own is taken, in another case."""
    return case(f"{name}-{sha256(name.encode()).hexdigest()[:16]}")


@given(st.permutations(["w", "W", twin("w", str.upper), twin("w", str), twin("W", str.lower), twin("W", str.title)]))
@examples
def test_no_two_names_are_one_file(names):
    """Names made to meet what becomes of another one, in any order, are files of their own."""
    taken: set[str] = set()
    for name in names:
        file = directory._file_name(name, taken)
        assert file.casefold() not in taken
        taken.add(file.casefold())


def test_existing_directory(tmp_path):
    """A directory is replaced only if that is asked for, only one that we wrote, and never by what is read from it."""
    out = tmp_path / "out"
    exported(FIXTURES / "linear" / "model", out)
    before = values_of(ckpttool.open_checkpoint(out))
    with pytest.raises(FileExistsError, match="the output exists"):
        exported(FIXTURES / "conv" / "model", out)
    with pytest.raises(FileExistsError, match="the output is the input"):
        exported(out, out, force=True)
    (out / "mine.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="something else"):
        exported(FIXTURES / "conv" / "model", out, force=True)
    assert values_of(ckpttool.open_checkpoint(out)) == before
    (out / "mine.txt").unlink()
    exported(FIXTURES / "conv" / "model", out, force=True)
    assert set(ckpttool.open_checkpoint(out)) == set(ckpttool.open_checkpoint(FIXTURES / "conv" / "model"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_working_directory_is_replaced(tmp_path, monkeypatch):
    """A directory of ours is replaced also where it is called by a dot."""
    exported(FIXTURES / "linear" / "model", tmp_path / "out")
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "out")
        write_npy(checkpoint, ".", force=True)
    assert values_of(ckpttool.open_checkpoint(tmp_path / "out")) == values_of(checkpoint)


def test_what_a_dead_run_has_kept(tmp_path):
    """Where the old directory is there under its other name alone, the new one takes its place if that is asked for;
    what is somebody's stays.
    """
    kept = tmp_path / "out.replaced"
    exported(FIXTURES / "linear" / "model", kept)
    exported(FIXTURES / "conv" / "model", tmp_path / "out")
    assert kept.is_dir()
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    (kept / "mine.txt").write_text("kept")
    exported(FIXTURES / "conv" / "model", tmp_path / "out", force=True)
    assert (kept / "mine.txt").exists()
    with pytest.raises(FileExistsError, match="something else") as caught:
        exported(FIXTURES / "conv" / "model", tmp_path / "out", force=True)
    assert caught.value.filename == str(kept)
    (kept / "mine.txt").unlink()
    (tmp_path / "out").rename(tmp_path / "again")
    exported(FIXTURES / "conv" / "model", tmp_path / "out", force=True)
    assert not kept.exists()


def test_an_empty_directory_is_replaced_if_that_is_asked_for(tmp_path):
    """Nothing is lost with it; without `force` it is in the way, as whatever has the name is."""
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="the output exists"):
        exported(FIXTURES / "linear" / "model", tmp_path / "out")
    exported(FIXTURES / "linear" / "model", tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("force", [False, True])
def test_a_link_is_not_written_through(force, tmp_path):
    """Where a symbolic link stands, nothing is written behind it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        exported(FIXTURES / "linear" / "model", tmp_path / "out", force=force)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_links_in_a_replaced_directory(tmp_path):
    """A directory whose files were replaced by links is removed without what they lead to."""
    (tmp_path / "kept").mkdir()
    exported(FIXTURES / "linear" / "model", tmp_path / "out")
    file = next(path for path in (tmp_path / "out").iterdir() if path.suffix == ".npy")
    file.rename(tmp_path / "kept" / "w.npy")
    file.symlink_to(tmp_path / "kept" / "w.npy")
    before = (tmp_path / "kept" / "w.npy").read_bytes()
    exported(FIXTURES / "conv" / "model", tmp_path / "out", force=True)
    assert (tmp_path / "kept" / "w.npy").read_bytes() == before


def test_damaged_values_leave_no_directory(tmp_path):
    """A flipped byte of the source is found on the way: no directory and no temporary is left."""
    bundle({"a": np.ones(9, np.float32), "w": np.ones(9, np.float32)}).write(tmp_path)
    data = next(tmp_path.glob("model.data-*"))
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CorruptionError, match="Checksum does not match"):
        exported(tmp_path / "model", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


# There and back


def to_directory(checkpoint, directory):
    write_npy(checkpoint, directory / "out")
    return directory / "out"


@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_there_and_back(prefix, tmp_path):
    """A bundle that was a directory of arrays is again the bundle that TensorFlow wrote, byte for byte."""
    assert_same_bundle_after(prefix, to_directory, tmp_path)


@needs_corpus
@pytest.mark.slow
def test_there_and_back_with_the_corpus(tmp_path):
    """Every small bundle of the corpus comes back as it would be written directly, byte for byte."""
    assert_corpus_survives(to_directory, tmp_path)


def with_index(directory, change):
    index = index_of(directory)
    change(index)
    (directory / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("fixture", ["dtypes", "strings", "partitioned", "names"])
@pytest.mark.parametrize("way", ["no notes", "no index"])
def test_without_notes_the_arrays_are_what_they_are(fixture, way, tmp_path):
    """Without our notes, or the index, every array is there with its own dtype and bits, by its name or its file's."""
    exported(FIXTURES / fixture / "model", tmp_path / "out")
    names = {entry["file"]: entry["name"] for entry in index_of(tmp_path / "out")["variables"]}
    if way == "no index":
        (tmp_path / "out" / "index.json").unlink()
        names = {file: file.removesuffix(".npy") for file in names}
    else:
        with_index(tmp_path / "out", lambda index: [entry.pop("note", None) for entry in index["variables"]])
    found = ckpttool.open_checkpoint(tmp_path / "out")
    assert set(found) == set(names.values())
    for file, name in names.items():
        array = np.load(tmp_path / "out" / file)
        if array.dtype.kind == "S":
            assert (found[name].shape, found[name].strings()) == (array.shape, list(array.ravel()))
        else:
            assert values_of(found)[name] == (array.dtype.name, array.shape, array.tobytes())


def test_damage_without_an_index(tmp_path):
    """Of files that no index names, one that is damaged is refused; or told of, and the others are what there is."""
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.arange(3))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-1])
    with pytest.raises(CorruptionError) as caught:
        read_npy_directory(tmp_path)
    faults: list[CheckpointError] = []
    found = read_npy_directory(tmp_path, faults=faults)
    assert [error.path for error in (caught.value, *faults)] == [str(tmp_path / "b.npy")] * 2
    assert list(found) == ["a", "c"]
    assert list(found.files) == [str(tmp_path / "a.npy"), str(tmp_path / "c.npy")]


DEEP: list = []
for _ in range(400):
    DEEP = [DEEP]
FORGED = [
    *(None, 1, [], DEEP, {"slices": DEEP}, {"name": "b"}, {"dtype": "string", "shape": [BIG]}),
    *({"dtype": "string", "shape": [7]}, {"dtype": "qint32"}, {"dtype": "float64", "shape": [3]}, {"dtype": DEEP}),
    *({"shape": [3, 2]}, {"shape": [BIG] * 1000}, {"shard": -1}, {"position": 0.5}, {"slices": [[[[0, 3]], 0, 0]]}),
    *({"slices": [[[[0, BIG]], 0, 0]]}, {"slices": [[[[0, 3]], 0, 0], [[[0, 3]], 0, 0]]}),
    {"slices": [[[[0, 0]], 0, 0], [[[0, 0]], 0, 0], [[[0, 6]], 0, 0]]},
]


@pytest.mark.parametrize("note", FORGED, ids=range(len(FORGED)))
def test_forged_notes_change_nothing(note, tmp_path):
    """Notes that can't be true, or are none, are passed over: the array is read as it is, and written so."""
    values = np.arange(6, dtype=np.uint8)
    write_npy(bundle({"a": values}).open(tmp_path), tmp_path / "out")
    with_index(tmp_path / "out", lambda index: index["variables"][0].update(note=note, dtype="float64", shape=[BIG]))
    assert survives(tmp_path / "out", 64) == {"a": ("uint8", (6,), values.tobytes())}
    write_bundle(ckpttool.open_checkpoint(tmp_path / "out"), tmp_path / "back")
    assert values_of(ckpttool.open_checkpoint(tmp_path / "back")) == {"a": ("uint8", (6,), values.tobytes())}


# Files by others


@pytest.mark.parametrize("name", OTHERS, ids=repr)
def test_files_of_numpy_are_read(name, tmp_path):
    """What numpy.save writes is read with its dtype and values, whatever their order in memory."""
    np.save(tmp_path / "a.b.npy", OTHERS[name])
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.b.npy")
    assert list(checkpoint) == ["a.b"]
    assert checkpoint["a.b"].dtype.name == OTHERS[name].dtype.name
    np.testing.assert_array_equal(checkpoint["a.b"].numpy(), OTHERS[name])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_a_header(tmp_path, version):
    """NumPy writes the first unless a header is long, or has names of fields; any is read."""
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.arange(6.0).reshape(2, 3), version)
    assert ckpttool.open_checkpoint(tmp_path / "a.npy")["a"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", STRINGS)
def test_texts_are_read_as_utf8(name, tmp_path):
    """An array of text or of bytes is a variable of strings: text in UTF-8, in row-major order."""
    np.save(tmp_path / "a.npy", STRINGS[name])
    values = [value.encode() if isinstance(value, str) else value for value in STRINGS[name].ravel().tolist()]
    assert ckpttool.open_checkpoint(tmp_path / "a.npy")["a"].strings() == values


def test_a_directory_of_numpys_files(tmp_path):
    """A directory of what numpy.save has written opens as a checkpoint: names are the files', records and objects are
    passed over with a warning, and other files are no matter.
    """
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "b.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    np.save(tmp_path / "in" / "a.npy", np.arange(3, dtype=">i4"))
    np.save(tmp_path / "in" / "o.npy", np.array([{}], object))
    np.save(tmp_path / "in" / "r.npy", np.zeros(2, "f4,i4"))
    (tmp_path / "in" / "README").write_text("text")
    checkpoint = ckpttool.open_checkpoint(tmp_path / "in")
    assert {name: v.numpy().tolist() for name, v in checkpoint.items()} == {"a": [0, 1, 2], "b": [[0, 1, 2], [3, 4, 5]]}
    assert ["o.npy" in warning or "r.npy" in warning for warning in checkpoint.warnings] == [True, True]
    write_bundle(checkpoint, tmp_path / "model")
    assert ckpttool.open_checkpoint(tmp_path / "model")["b"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "array",
    [
        np.array([{}], object),
        np.zeros(2, "f4,i4"),
        np.array(["2020"], "M8[Y]"),
        np.ones(1, np.longdouble),
        np.zeros(2, "V2"),
        np.zeros(2, "u1,u1"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_what_tensorflow_has_no_dtype_for(array, tmp_path):
    """A file of objects, records, dates, long doubles or mere bytes is refused by the variable's name; no pickle is
    loaded.
    """
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(NotSupportedError) as caught:
        ckpttool.open_checkpoint(tmp_path / "a.npy")
    assert caught.value.variable == "a"


def test_only_one_array_by_columns_is_in_memory(tmp_path):
    """Of many arrays by columns, those that have been read are let go of."""
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", np.asfortranarray(np.full((512, 1024), number, np.float32)))
    checkpoint = read_npy_directory(tmp_path)
    tracemalloc.start()
    for variable in checkpoint.values():
        for _, block in variable.blocks():
            assert block.all() or variable.name == "0"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * (2 << 20)


# Hostile files

ENTRY = {"name": "a", "file": "a.npy"}
INDEXES = {
    "no JSON": b"{",
    "no text": b"\xff\xff",
    "deep": b"[" * 100_000,
    "list": b"[]",
    "another one": b'{"schema": "other", "variables": []}',
    "no variables": {},
    "variables by name": {"variables": {"a": "a.npy"}},
    "no entries": {"variables": [1]},
    "no file": {"variables": [{"name": "a"}]},
    "number": {"variables": [{"name": 1, "file": "a.npy"}]},
    "half a character": {"variables": [{"name": "\ud800", "file": "a.npy"}]},
    "twice": {"variables": [ENTRY, ENTRY]},
    "twice as bytes": {"variables": [{**ENTRY, "name": "é"}, {**ENTRY, "name": "\udcc3\udca9"}]},
    "missing": {"variables": [{**ENTRY, "file": "b.npy"}]},
    "parent": {"variables": [{**ENTRY, "file": "../a.npy"}]},
    "absolute": {"variables": [{**ENTRY, "file": "/etc/passwd"}]},
    "directory": {"variables": [{**ENTRY, "file": ".."}]},
    "itself": {"variables": [{**ENTRY, "file": "."}]},
    "backslash": {"variables": [{**ENTRY, "file": "..\\a.npy"}]},
    "drive": {"variables": [{**ENTRY, "file": "C:a.npy"}]},
    "NUL": {"variables": [{**ENTRY, "file": "a.npy\0"}]},
    "half a file": {"variables": [{**ENTRY, "file": "\ud800.npy"}]},
    "the index": {"variables": [{**ENTRY, "file": "index.json"}]},
    "long": {"variables": [{**ENTRY, "file": "a" * 300}]},
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_hostile_indexes(index, tmp_path):
    """An index can name only arrays beside it, each variable once; what is none is refused by an error of ours."""
    np.save(tmp_path / "a.npy", np.ones(2))
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.ones(2))
    data = index if isinstance(index, bytes) else json.dumps({"schema": "ckpttool.npy/1", **index}).encode()
    (tmp_path / "in" / "index.json").write_bytes(data)
    with pytest.raises((FormatError, CorruptionError, OSError)):
        read_npy_directory(tmp_path / "in")
    assert isinstance(survives(tmp_path / "in"), (CheckpointError, OSError))
    (tmp_path / "in" / "mine").write_text("")
    with pytest.raises(FileExistsError, match="something else"):
        exported(FIXTURES / "linear" / "model", tmp_path / "in", force=True)
    assert (tmp_path / "in" / "a.npy").exists()


HOSTILE = DAMAGED | ODD_ARRAYS | {"bytes behind": npy(np.ones(2)) + b"\0", "pickle": b"\x80\x04."}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(data, tmp_path, monkeypatch):
    """What can't be is refused by an error of ours, soon and in little memory, and nothing of it is run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(data)
    assert isinstance(survives(tmp_path / "a.npy"), CheckpointError)
    with pytest.raises(CheckpointError):
        values_of(read_npy(tmp_path / "a.npy"))
    assert os.listdir() == ["a.npy"]


def test_every_truncation_and_every_flip(tmp_path):
    """A file cut anywhere is refused; with a byte changed it is refused, or read as NumPy reads it."""
    path = tmp_path / "cut.npy"
    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.array([b"ab", b"c"])):
        data = npy(array)
        for length in range(len(data)):
            put(path, data[:length])
            with pytest.raises(CheckpointError):
                read_npy(path)
            for flip in (0x01, 0x80):
                changed = data[:length] + bytes([data[length] ^ flip]) + data[length + 1 :]
                put(path, changed)
                found = survives(path, measured=False)
                if isinstance(found, dict) and found["cut"][0] != "string":
                    assert sorted(found["cut"][2]) == sorted(np.load(path).tobytes()) == sorted(changed[128:])
