"""safetensors: the library that defines the format reads what we write, we read what it writes, and nothing worse."""

import json
import struct
from math import prod

import ml_dtypes
import numpy as np
import pytest
from bundles import bundle, examples, strings
from conftest import FIXTURES, needs_corpus
from foreign import BUNDLES, assert_corpus_survives, assert_same_bundle_after, bundle_id, put, survives, values_of
from hypothesis import given
from hypothesis import strategies as st

import ckpttool
from ckpttool.errors import CheckpointError, ConversionError, CorruptionError, FormatError, NotSupportedError
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.formats.safetensors import (
    plan_safetensors,
    read_safetensors,
    read_safetensors_index,
    write_safetensors,
)

safetensors = pytest.importorskip("safetensors", reason="the judge, of the extra `test`")
from safetensors.numpy import save_file  # noqa: E402

# dtype → the library's word, and its name for what `TensorSpec` takes.
WORDS = {
    "bool": ("BOOL", "bool"),
    "uint8": ("U8", "uint8"),
    "int8": ("I8", "int8"),
    "uint16": ("U16", "uint16"),
    "int16": ("I16", "int16"),
    "uint32": ("U32", "uint32"),
    "int32": ("I32", "int32"),
    "uint64": ("U64", "uint64"),
    "int64": ("I64", "int64"),
    "float16": ("F16", "float16"),
    "bfloat16": ("BF16", "bfloat16"),
    "float32": ("F32", "float32"),
    "float64": ("F64", "float64"),
    "complex64": ("C64", "complex64"),
    "float8_e5m2": ("F8_E5M2", "float8_e5m2"),
    "float8_e4m3fn": ("F8_E4M3", "float8_e4m3fn"),
    "float8_e4m3fnuz": ("F8_E4M3FNUZ", "float8_e4m3fnuz"),
    "float8_e5m2fnuz": ("F8_E5M2FNUZ", "float8_e5m2fnuz"),
}
# What has none: the word it is stored by.
FALLBACKS = {
    "complex128": "F64",
    "qint8": "I8",
    "quint8": "U8",
    "qint16": "I16",
    "quint16": "U16",
    "qint32": "I32",
    **dict.fromkeys(
        ("string", "variant", "int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float8_e4m3b11fnuz"), "U8"
    ),
}


def header_of(path):
    """The header of a file, and its data."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def made(header, data=b"") -> bytes:
    """A file of a header, which may be any bytes or JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(word="U8", shape=(1,), offsets=(0, 1)):
    return {"dtype": word, "shape": list(shape), "data_offsets": list(offsets)}


def exported(prefix, path, **options):
    checkpoint = ckpttool.open_checkpoint(prefix)
    return checkpoint, write_safetensors(checkpoint, path, **options)


# Writing


@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_the_library_reads_names_types_and_bits(prefix, tmp_path):
    """The library finds every variable, by the word of its dtype or the stated fallback's, with shape and bits."""
    checkpoint, remarkable = exported(prefix, tmp_path / "out.safetensors")
    tensors = dict(safetensors.deserialize((tmp_path / "out.safetensors").read_bytes()))
    targets = {planned.variable.name: planned.target for planned in plan_safetensors(checkpoint)}
    assert set(tensors) == set(targets.values())
    stored_otherwise = {planned.variable.name for planned in remarkable}
    for name, variable in checkpoint.items():
        tensor, dtype = tensors[targets[name]], variable.dtype.name
        assert tensor["dtype"] == (FALLBACKS[dtype] if name in stored_otherwise else WORDS[dtype][0])
        if dtype in ("string", "variant"):
            assert len(tensor["shape"]) == 1
            continue
        assert tuple(tensor["shape"]) == (variable.shape if dtype != "complex128" else (*variable.shape, 2))
        assert bytes(tensor["data"]) == variable.numpy().tobytes()


@pytest.mark.parametrize("fixture", ["dtypes", "partitioned", "empty", "names"])
def test_numpy_gets_the_values(fixture, tmp_path):
    """safe_open gives NumPy arrays of the same values, of all types that it knows."""
    prefix = FIXTURES / fixture / "model"
    checkpoint, _ = exported(prefix, tmp_path / "out.safetensors")
    targets = {planned.target: planned.variable for planned in plan_safetensors(checkpoint)}
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            variable = targets[name]
            if hasattr(np, variable.dtype.name):
                assert file.get_tensor(name).tobytes() == variable.numpy().tobytes()


def compact(metadata):
    return json.dumps(metadata, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_bytes_are_those_of_the_library(prefix, tmp_path):
    """Given the same tensors and metadata, the library writes the same file: order, padding, JSON and all. Only the
    order of the metadata is its own, and another one each time.
    """
    exported(prefix, tmp_path / "out.safetensors")
    header, data = header_of(tmp_path / "out.safetensors")
    metadata = header.pop("__metadata__")
    names = dict(WORDS.values())
    arrays, specs = [], {}
    for name, described in sorted(header.items()):
        start, end = described["data_offsets"]
        arrays.append(np.frombuffer(data[start:end] or b"\0", np.uint8))
        specs[name] = safetensors.TensorSpec(
            dtype=names[described["dtype"]],
            shape=described["shape"],
            data_ptr=arrays[-1].ctypes.data,
            data_len=end - start,
        )
    theirs = safetensors.serialize(specs, metadata)
    (tmp_path / "theirs.safetensors").write_bytes(theirs)
    shuffled = header_of(tmp_path / "theirs.safetensors")[0]["__metadata__"]
    assert (tmp_path / "out.safetensors").read_bytes() == theirs.replace(compact(shuffled), compact(metadata))


@pytest.mark.parametrize("options", [{}, {"max_shard_size": 1}], ids=["a file", "shards"])
def test_metadata_of_others_are_kept(tmp_path, options):
    """What another writer said of its file is said of the new one; what we said of ours is said anew."""
    said = {"format": "pt", "lr": "0.1", "source": "mine", "ä": "ö"}
    save_file({"w": np.ones(2, np.float32), "v": np.ones(1, np.float32)}, tmp_path / "in.safetensors", said)
    path = tmp_path / "in.safetensors"
    for number in range(2):
        out = tmp_path / (f"{number}" if options else f"{number}.safetensors")
        write_safetensors(ckpttool.cast(ckpttool.open_checkpoint(path), "float16"), out, **options)
        for file in out.glob("*.safetensors") if options else [out]:
            found = header_of(file)[0]["__metadata__"]
            assert found.items() >= {"lr": "0.1", "ä": "ö"}.items()
            if not number:
                assert found.items() >= said.items()
            assert (found["source"] == "mine") is (not number)
            assert found["created_by"].startswith("ckpttool ")
        path = out


def test_the_file_says_what_it_was_made_from(tmp_path):
    """The metadata names the source, its format, the maker, and the framework that transformers asks for."""
    exported(FIXTURES / "linear" / "model", tmp_path / "out.safetensors")
    with safetensors.safe_open(tmp_path / "out.safetensors", "np") as file:
        metadata = file.metadata()
    metadata.pop("ckpttool.notes", None)
    assert metadata == {
        "format": "tf",
        "source": "model",
        "source_format": "TensorFlow checkpoint V2 (tensor bundle)",
        "created_by": f"ckpttool {ckpttool.__version__}",
    }


def test_an_empty_checkpoint(tmp_path):
    """A checkpoint without variables is a file without tensors, and comes back so."""
    checkpoint = bundle({}).open(tmp_path)
    write_safetensors(checkpoint, tmp_path / "out.safetensors")
    assert safetensors.deserialize((tmp_path / "out.safetensors").read_bytes()) == []
    assert not ckpttool.open_checkpoint(tmp_path / "out.safetensors")


def test_strict_refuses_by_name(tmp_path):
    """Strict names the first variable that has no type here, and writes nothing; else each is returned with what
    became of it.
    """
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "dtypes" / "model")
    plan = plan_safetensors(checkpoint)
    expected = {v.name for v in checkpoint.values() if v.dtype.name in FALLBACKS}
    assert {planned.variable.name for planned in plan if planned.remark} == expected
    with pytest.raises(ConversionError) as caught:
        write_safetensors(checkpoint, tmp_path / "strict.safetensors", strict=True)
    assert caught.value.variable in expected
    assert not list(tmp_path.iterdir())
    assert write_safetensors(checkpoint, tmp_path / "out.safetensors") == [
        planned for planned in plan if planned.remark
    ]


def test_what_is_left_out_is_returned(tmp_path):
    """A resource has no bytes to store: it is left out, and the plan returned says so."""
    bundle({"w": np.ones(2, np.float32), "it": strings(b"?")}).change("it", dtype=20).write(tmp_path)
    _, left_out = exported(tmp_path / "model", tmp_path / "out.safetensors")
    assert [(p.variable.name, p.remark) for p in left_out] == [
        ("it", "left out: safetensors can't hold values of dtype resource")
    ]
    assert list(header_of(tmp_path / "out.safetensors")[0]) == ["__metadata__", "w"]


def test_two_variables_of_one_name(tmp_path):
    """A name that is not UTF-8 and the one that looks as it does encoded can't both be there: the error names both."""
    one = bundle({"a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}).open(tmp_path)
    clashing = one.with_variables({"\udcff": one["a"].renamed("\udcff"), "%FF": one["b"].renamed("%FF")})
    with pytest.raises(ConversionError, match="would have the same name") as caught:
        write_safetensors(clashing, tmp_path / "out.safetensors")
    assert caught.value.variable == "%FF"


# Several files


ARRAYS = {"a": np.arange(6, dtype=np.float32), "b": np.ones(3, np.int64), "c": np.ones(5, np.uint8), "d": np.float16(2)}


def test_shards_are_as_hugging_face_wants_them(tmp_path):
    """Files of at most the size, numbered from 1, each readable by itself; the index maps every tensor to its file and
    has their size as an integer.
    """
    checkpoint = bundle(ARRAYS).open(tmp_path)
    write_safetensors(checkpoint, tmp_path / "out", max_shard_size=30)
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index == {
        "metadata": {"total_size": 24 + 24 + 5 + 2},
        "weight_map": {"a": names[0], "b": names[1], "c": names[1], "d": names[2]},
    }
    assert type(index["metadata"]["total_size"]) is int
    for name in names:
        with safetensors.safe_open(tmp_path / "out" / name, "np") as file:
            assert sorted(file.keys()) == [tensor for tensor, where in index["weight_map"].items() if where == name]
            for tensor in file.keys():  # noqa: SIM118 - it is no mapping
                np.testing.assert_array_equal(file.get_tensor(tensor), ARRAYS[tensor])


@pytest.mark.parametrize("door", ["", "model.safetensors.index.json"])
def test_shards_are_read_as_one(door, tmp_path):
    """The directory or its index opens as one checkpoint, with all values."""
    checkpoint = bundle(ARRAYS).open(tmp_path)
    write_safetensors(checkpoint, tmp_path / "out", max_shard_size=1)
    found = ckpttool.open_checkpoint(tmp_path / "out" / door)
    assert values_of(found) == values_of(checkpoint)
    assert sorted(found.files) == sorted(map(str, (tmp_path / "out").iterdir()))


def test_one_shard_needs_no_index(tmp_path):
    """What fits into one file is model.safetensors, which the directory opens as."""
    checkpoint = bundle(ARRAYS).open(tmp_path)
    write_safetensors(checkpoint, tmp_path / "out", max_shard_size=1 << 30)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert values_of(ckpttool.open_checkpoint(tmp_path / "out")) == values_of(checkpoint)


@pytest.mark.parametrize(
    ("before", "after"), [(1, 1 << 30), (1 << 30, 1), (1, 30), (30, 1)], ids=["to one", "to many", "fewer", "more"]
)
def test_no_old_file_is_left_among_new_ones(before, after, tmp_path):
    """A model in a directory is replaced whole, whatever files it had: else readers would find the old one's. Files
    that are no model's stay.
    """
    old = bundle(ARRAYS).open(tmp_path)
    new = bundle({**ARRAYS, "a": -ARRAYS["a"]}).write(tmp_path, "new")
    write_safetensors(old, tmp_path / "out", max_shard_size=before)
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="the output exists"):
        exported(new, tmp_path / "out", max_shard_size=after)
    assert values_of(ckpttool.open_checkpoint(tmp_path / "out")) == values_of(old)
    checkpoint, _ = exported(new, tmp_path / "out", max_shard_size=after, force=True)
    exported(new, tmp_path / "fresh", max_shard_size=after)
    there = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert there.pop("config.json") == b"{}"
    assert there == {p.name: p.read_bytes() for p in (tmp_path / "fresh").iterdir()}
    assert values_of(ckpttool.open_checkpoint(tmp_path / "out")) == values_of(checkpoint)


@pytest.mark.parametrize("before", [1, 1 << 30])
@pytest.mark.parametrize("after", [1, 30, 1 << 30])
def test_the_input_is_never_replaced(before, after, tmp_path):
    """A model is not written into the directory that it is read from, by any name, forced or not."""
    write_safetensors(bundle(ARRAYS).open(tmp_path), tmp_path / "out", max_shard_size=before)
    there = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    for force in (False, True):
        with pytest.raises(FileExistsError):
            exported(tmp_path / "out", tmp_path / "out", max_shard_size=after, force=force)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == there


def test_existing_file(tmp_path):
    """A file is replaced only if that is asked for, and never by what is read from it."""
    exported(FIXTURES / "linear" / "model", tmp_path / "out.safetensors")
    before = (tmp_path / "out.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="the output exists"):
        exported(FIXTURES / "conv" / "model", tmp_path / "out.safetensors")
    with pytest.raises(FileExistsError, match="the output is the input"):
        exported(tmp_path / "out.safetensors", tmp_path / "out.safetensors", force=True)
    assert (tmp_path / "out.safetensors").read_bytes() == before
    exported(FIXTURES / "conv" / "model", tmp_path / "out.safetensors", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.safetensors"]


def test_what_an_earlier_run_left_is_no_input_lost(tmp_path):
    """Where a run has died, the old file is there as OUTPUT.replaced: it is not lost while it is read."""
    old, out = tmp_path / "out.safetensors.replaced", tmp_path / "out.safetensors"
    save_file({"w": np.ones(2, np.float32)}, old)
    checkpoint = ckpttool.open_checkpoint(old)
    write_safetensors(checkpoint, out)
    with pytest.raises(FileExistsError):
        write_safetensors(checkpoint, out, force=True)
    assert values_of(ckpttool.open_checkpoint(old)) == values_of(ckpttool.open_checkpoint(out))


@pytest.mark.parametrize("options", [{}, {"max_shard_size": 16}], ids=["file", "shards"])
def test_damaged_values_leave_nothing(options, tmp_path):
    """A flipped byte of the source is found on the way: no file, no directory, no temporary is left."""
    bundle(ARRAYS).write(tmp_path)
    data = next(tmp_path.glob("model.data-*"))
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CorruptionError, match="Checksum does not match"):
        exported(tmp_path / "model", tmp_path / "out", **options)
    assert sorted(tmp_path.rglob("*")) == before


# There and back


def to_file(checkpoint, directory):
    write_safetensors(checkpoint, directory / "out.safetensors")
    return directory / "out.safetensors"


def to_shards(checkpoint, directory):
    write_safetensors(checkpoint, directory / "out", max_shard_size=100)
    return directory / "out"


@pytest.mark.parametrize("write", [to_file, to_shards])
@pytest.mark.parametrize("prefix", BUNDLES, ids=bundle_id)
def test_there_and_back(prefix, write, tmp_path):
    """A bundle that was a safetensors file, or several, is again the bundle that TensorFlow wrote, byte for byte."""
    assert_same_bundle_after(prefix, write, tmp_path)


@needs_corpus
@pytest.mark.slow
@pytest.mark.parametrize("write", [to_file, to_shards])
def test_there_and_back_with_the_corpus(write, tmp_path):
    """Every small bundle of the corpus comes back as it would be written directly, byte for byte."""
    assert_corpus_survives(write, tmp_path)


def with_metadata(path, change):
    """The file with other metadata."""
    header, data = header_of(path)
    change(header["__metadata__"])
    path.write_bytes(made(header, data))


@pytest.mark.parametrize("fixture", ["dtypes", "strings", "partitioned", "names", "sharded"])
def test_without_notes_the_tensors_are_what_they_are(fixture, tmp_path):
    """Without our notes a file is as anybody's: every tensor is there under its own name, dtype and bits."""
    exported(FIXTURES / fixture / "model", tmp_path / "out.safetensors")
    with_metadata(tmp_path / "out.safetensors", lambda metadata: metadata.pop("ckpttool.notes", None))
    tensors = dict(safetensors.deserialize((tmp_path / "out.safetensors").read_bytes()))
    dtypes = {word: dtype for dtype, (word, _) in WORDS.items()}
    assert values_of(ckpttool.open_checkpoint(tmp_path / "out.safetensors")) == {
        name: (dtypes[tensor["dtype"]], tuple(tensor["shape"]), bytes(tensor["data"]))
        for name, tensor in tensors.items()
    }


BIG = 1 << 62
DEEP = "[" * 900 + "]" * 900
FORGED = [
    "[]",
    "null",
    "not JSON",
    DEEP,
    '{"a": ' * 900 + "1" + "}" * 900,
    f'{{"a": {DEEP}}}',
    f'{{"a": {{"slices": {DEEP}}}}}',
    *(
        json.dumps({"a": note})
        for note in (
            None,
            [],
            {"name": "b"},
            {"name": "../../b"},
            {"name": "\ud800"},
            {"dtype": "string"},
            {"dtype": "string", "shape": [25]},
            {"dtype": "string", "shape": [BIG]},
            {"dtype": "qint8", "shape": [24]},
            {"dtype": "complex128", "shape": [3]},
            {"dtype": "complex128", "shape": [1, 3]},
            {"dtype": "float64", "shape": [6]},
            {"dtype": "resource", "shape": []},
            {"dtype": ["string"], "shape": [6]},
            {"shape": [2, 3]},
            {"shape": [-1]},
            {"shape": [BIG] * 100_000},
            {"shard": BIG},
            {"shard": -1},
            {"shard": True},
            {"position": 1e9},
            {"position": BIG},
            {"slices": [[[[0, 3]], 0, 0]]},
            {"slices": [[[[0, 3]], 0, 0], [[[0, 3]], 0, 0]]},
            {"slices": [[[[0, 3]], 0, 0], [[[3, BIG]], 0, 0]]},
            {"slices": [[[[0, BIG]], 0, 0]]},
            {"slices": [[[[0, 0]], 0, 0], [[[0, 0]], 0, 0], [[[0, 6]], 0, 0]]},
            {"slices": [[[[-3, 3]], 0, 0]]},
            {"slices": [[[[0, -1], [0, -1]], 0, 0]]},
            {"slices": [1, 2]},
        )
    ),
]


@pytest.mark.parametrize("notes", FORGED, ids=range(len(FORGED)))
def test_forged_notes_change_nothing(notes, tmp_path):
    """Notes that can't be true, or are none, are passed over: the tensor is read as it is, and written so."""
    path = tmp_path / "forged.safetensors"
    values = np.arange(6, dtype=np.float32)
    path.write_bytes(
        made({"__metadata__": {"ckpttool.notes": notes}, "a": entry("F32", [6], [0, 24])}, values.tobytes())
    )
    assert survives(path) == {"a": ("float32", (6,), values.tobytes())}
    write_bundle(ckpttool.open_checkpoint(path), tmp_path / "model")
    assert values_of(ckpttool.open_checkpoint(tmp_path / "model")) == {"a": ("float32", (6,), values.tobytes())}


@pytest.mark.parametrize("shape", [[BIG], [5], [0], [], [1] * 254, [1] * 255, [3], [0, BIG, BIG]], ids=str)
@pytest.mark.parametrize("dtype", ["string", "variant"])
def test_forged_strings_are_read_safely(dtype, shape, tmp_path):
    """Bytes that a note calls strings, and that are none, are found damaged when they are read, or are bytes."""
    path = tmp_path / "forged.safetensors"
    notes = json.dumps({"a": {"dtype": dtype, "shape": shape}})
    path.write_bytes(made({"__metadata__": {"ckpttool.notes": notes}, "a": entry("U8", [4], [0, 4])}, b"\1\2\3\4"))
    found = survives(path)
    assert isinstance(found, CheckpointError) or found == {"a": ("uint8", (4,), b"\1\2\3\4")}


# Files by others


def test_files_of_the_library_are_read(tmp_path):
    """What safetensors.numpy writes is read with its names, dtypes and values."""
    arrays = {
        "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "é/\n\0😀": np.array([True, False]),
        "__metadata": np.array(3, np.int64),
        "": np.zeros((0, 4), np.float64),
        "big": np.arange(3, dtype=">i4"),
        "c": np.array([1 + 2j], np.complex64),
    }
    save_file(arrays, tmp_path / "a.safetensors", {"any": "thing"})
    checkpoint = ckpttool.open_checkpoint(tmp_path / "a.safetensors")
    assert set(checkpoint) == set(arrays)
    for name, array in arrays.items():
        assert checkpoint[name].dtype.name == array.dtype.name
        np.testing.assert_array_equal(checkpoint[name].numpy(), array)


def test_types_that_numpy_has_not(tmp_path):
    """bfloat16 and 8-bit floats of the library's are read as those of ml_dtypes."""
    bits = np.arange(8, dtype=np.uint8)
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz"):
        dtype = np.dtype(getattr(ml_dtypes, name))
        count = 8 // dtype.itemsize
        spec = safetensors.TensorSpec(dtype=name, shape=[count], data_ptr=bits.ctypes.data, data_len=8)
        (tmp_path / "a.safetensors").write_bytes(safetensors.serialize({"x": spec}))
        assert values_of(ckpttool.open_checkpoint(tmp_path / "a.safetensors")) == {
            "x": (name, (count,), bits.tobytes())
        }


def test_what_tensorflow_has_no_dtype_for_is_passed_over(tmp_path):
    """Tensors of types that the library has and TensorFlow lacks are named in a warning; the others are read."""
    path = tmp_path / "a.safetensors"
    header = {"s": entry("F8_E8M0", [2], [0, 2]), "p": entry("F4", [4], [2, 4]), "w": entry("U8", [1], [4, 5])}
    path.write_bytes(made(header, b"\1\2\3\4\5"))
    assert len(safetensors.deserialize(path.read_bytes())) == 3
    checkpoint = ckpttool.open_checkpoint(path)
    assert values_of(checkpoint) == {"w": ("uint8", (1,), b"\5")}
    assert [warning.partition(" in ")[0] for warning in checkpoint.warnings] == ["s", "p"]
    why = [warning.partition(" is passed over: ")[2] for warning in checkpoint.warnings]
    assert why == ["TensorFlow has no dtype for F8_E8M0", "F4, two values in a byte, is not read"]


def test_an_index_of_others(tmp_path):
    """An index without metadata, and a shard with a tensor that the index has elsewhere or nowhere: what it names is
    read, in its order, and the rest is named in warnings.
    """
    save_file({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, tmp_path / "one.safetensors")
    save_file({"b": np.zeros(2, np.float32), "c": np.zeros(1, np.int8)}, tmp_path / "two.safetensors")
    weights = {"b": "two.safetensors", "a": "one.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    checkpoint = ckpttool.open_checkpoint(tmp_path)
    assert list(checkpoint) == ["b", "a"]
    assert not checkpoint["b"].numpy().any()
    assert [warning.partition(" is in ")[0] for warning in checkpoint.warnings] == ["b", "c"]


# Hostile files

INDEXES = {
    "parent": {"a": "../a.safetensors"},
    "absolute": {"a": "/etc/passwd"},
    "directory": {"a": ".."},
    "backslash": {"a": "..\\a.safetensors"},
    "drive": {"a": "C:a.safetensors"},
    "nul": {"a": "a.safetensors\0"},
    "half a character": {"a": "\ud800.safetensors"},
    "no name": {"a": ""},
    "number": {"a": 1},
    "missing file": {"a": "b.safetensors"},
    "missing tensor": {"a": "a.safetensors", "b": "a.safetensors"},
    "long name": {"a": "a" * 300},
    "empty": {},
    "list": ["a.safetensors"],
    "in two files": {"a": ["a.safetensors", "a.safetensors"]},
    "in a list of nothing": {"a": []},
}


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:c1e4\nsize 828\n"


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "a.safetensors", "b.safetensors"])
def test_pointers_in_place_of_the_files(tmp_path, name):
    """A clone without Git LFS has the small index itself, and pointers for the rest: they are named."""
    for each in "ab":
        save_file({each: np.ones(2)}, tmp_path / f"{each}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {each: f"{each}.safetensors" for each in "ab"}}))
    (tmp_path / name).write_bytes(LFS)
    with pytest.raises(FormatError, match=r"a Git LFS pointer, .*git lfs pull") as raised:
        ckpttool.open_checkpoint(tmp_path)
    assert raised.value.path == str(tmp_path / name)
    if name != index.name:
        assert len(ckpttool.verify(tmp_path).whole) == 1


def test_the_index_of_another_type(tmp_path):
    """An index whose name has the type of the weights before its suffix, as diffusers' do, is one."""
    save_file({"a": np.ones(2)}, tmp_path / "m.fp16-00001-of-00001.safetensors")
    index = tmp_path / "m.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": {"a": "m.fp16-00001-of-00001.safetensors"}}))
    assert list(ckpttool.open_checkpoint(index)) == ["a"]


@pytest.mark.parametrize("weights", INDEXES.values(), ids=INDEXES)
def test_hostile_indexes(weights, tmp_path):
    """An index can name only files beside it, which have what it says."""
    (tmp_path / "a.safetensors").write_bytes(made({"a": entry()}, b"1"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.safetensors").write_bytes(made({"a": entry()}, b"1"))
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weights}))
    with pytest.raises((FormatError, CorruptionError, OSError)):
        read_safetensors_index(index)
    assert isinstance(survives(tmp_path / "in"), (FormatError, CorruptionError, OSError))


TENSOR = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
HOSTILE = {
    "empty": b"",
    "short": b"\x02\0\0",
    "length beyond the file": struct.pack("<Q", 99) + b"{}",
    "length over 100 MB": struct.pack("<Q", 100_000_001) + b"{}",
    "length of all ones": b"\xff" * 8 + b"{}",
    "no JSON": made(b"{'a'}"),
    "no object": made(b'["a"]'),
    "no text": made(b'{"\xff":1}'),
    "byte order mark": made(b"\xef\xbb\xbf{}"),
    "trailing NUL": made(b"{}\0"),
    "half a character": made({"\ud800": entry()}, b"1"),
    "twice": made(TENSOR + b"," + TENSOR[1:] + b"}", b"1"),
    "deep": made(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep metadata": made(b'{"__metadata__":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001),
    "metadata of halves of characters": made(b'{"__metadata__":{"a":"\\ud800"}}'),
    "metadata of numbers": made({"__metadata__": {"a": 1}}),
    "metadata is a list": made({"__metadata__": ["a"]}),
    "entry is a list": made({"a": [1]}),
    "entry lacks the shape": made({"a": {"dtype": "U8", "data_offsets": [0, 1]}}, b"1"),
    "overlap": made({"a": entry(offsets=[0, 1]), "b": entry(offsets=[0, 1])}, b"1"),
    "hole": made({"a": entry(offsets=[0, 1]), "b": entry(offsets=[2, 3])}, b"123"),
    "hole in front": made({"a": entry(offsets=[1, 2])}, b"12"),
    "bytes behind": made({"a": entry()}, b"12"),
    "bytes missing": made({"a": entry(shape=[2], offsets=[0, 2])}, b"1"),
    "end before start": made({"a": entry(shape=[0], offsets=[1, 0])}, b"1"),
    "wrong size": made({"a": entry("F32", [1], [0, 3])}, b"123"),
    "unknown dtype": made({"a": entry("F128", [1], [0, 16])}, bytes(16)),
    "dtype is a number": made({"a": entry(9)}, b"1"),
    "negative shape": made({"a": entry(shape=[-1, -1])}, b"1"),
    "huge shape": made({"a": entry(shape=[1 << 70])}, b"1"),
    "product of 2^64": made({"a": entry(shape=[1 << 32, 1 << 32], offsets=[0, 0])}),
    "product of 2^64 and 1": made({"a": entry(shape=[274177, 67280421310721])}, b"1"),
    "huge number": made(b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,1]}}', b"1"),
    "huge product": made({"a": entry(shape=[BIG] * 254)}, b"1"),
    "float offset": made({"a": entry(offsets=[0, 1.0])}, b"1"),
    "NaN offset": made(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,NaN]}}', b"1"),
    "infinite shape": made(b'{"a":{"dtype":"U8","shape":[Infinity],"data_offsets":[0,1]}}', b"1"),
    "true for 1": made({"a": entry(shape=[True], offsets=[False, True])}, b"1"),
    "text for 1": made({"a": entry(shape=["1"])}, b"1"),
    "null shape": made(b'{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}', b"1"),
    "three offsets": made({"a": entry(offsets=[0, 1, 1])}, b"1"),
    "half a byte": made({"a": entry("F4", [1], [0, 1])}, b"1"),
}
# What the library takes, and we refuse: a name that is there twice is an error or an attack.
STRICTER = {"twice"}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(data, tmp_path, request):
    """What the library refuses we refuse, by an error of ours, soon and in little memory."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert isinstance(survives(path), CheckpointError)
    with pytest.raises((FormatError, CorruptionError, NotSupportedError)):
        read_safetensors(path)
    if request.node.callspec.id not in STRICTER:
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(data)


def test_a_shape_of_many_dimensions(tmp_path):
    """A shape that would take many seconds to multiply is refused by its rank."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(made({"a": entry(shape=[BIG] * 40_000)}, b"1"))
    assert isinstance(survives(path, measured=False), NotSupportedError)


def small_file(tmp_path) -> bytes:
    """A file of ours with notes of every kind."""
    arrays = {"s": strings(b"ab", b""), "w": np.arange(4, dtype=np.int16), "x": np.ones((2, 2), ml_dtypes.bfloat16)}
    checkpoint = bundle(arrays, slices={"w": [((0, 2),), ((2, 2),)]}, shards=2).open(tmp_path)
    write_safetensors(checkpoint, tmp_path / "small.safetensors")
    return (tmp_path / "small.safetensors").read_bytes()


def test_every_truncation_is_noticed(tmp_path):
    """A file cut anywhere is refused."""
    data, path = small_file(tmp_path), tmp_path / "cut.safetensors"
    for length in range(len(data)):
        put(path, data[:length])
        with pytest.raises((FormatError, CorruptionError)):
            read_safetensors(path)


def library_reads(data):
    """What the library makes of a file: dtype and bits by name; None if it refuses it."""
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return None
    return {name: (prod(tensor["shape"]), bytes(tensor["data"])) for name, tensor in found}


SLOWLY = [pytest.param(flip, True, marks=pytest.mark.slow) for flip in (0x01, 0x20, 0x80)]


@pytest.mark.parametrize(("flip", "measured"), [(0x01, False), *SLOWLY])
def test_every_byte_flipped(flip, measured, tmp_path):
    """A file with any byte changed is refused by our errors, or gives the bytes that the library gives; and what the
    library refuses we refuse.
    """
    data, path = small_file(tmp_path), tmp_path / "flipped.safetensors"
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :]
        put(path, changed)
        found, theirs = survives(path, measured=measured), library_reads(changed)
        if theirs is None:
            assert isinstance(found, CheckpointError), position
        elif isinstance(found, dict):
            assert len(found) == len(theirs), position
            for name, (dtype, _, bits) in found.items():
                assert dtype in ("string", "variant") or theirs[name][1] == bits, position


words = st.sampled_from([*(word for word, _ in WORDS.values()), "F4", "F8_E8M0", "X"])
headers = st.dictionaries(
    st.text(max_size=3),
    st.fixed_dictionaries(
        {
            "dtype": words,
            "shape": st.lists(st.sampled_from([0, 1, 2, 3]), max_size=3),
            "data_offsets": st.sampled_from([[0, 0], [0, 1], [0, 4], [1, 2], [4, 8], [0, 8], [8, 8]]),
        }
    ),
    max_size=2,
)


@examples
@given(headers, st.sampled_from([0, 1, 2, 4, 8]))
def test_files_are_sound_for_us_where_they_are_for_the_library(tmp_path_factory, header, size):
    """Of small headers at random, we take those that the library takes, and no others."""
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    data = made(header, bytes(size))
    put(path, data)
    try:
        checkpoint = read_safetensors(path)
    except CheckpointError:
        assert library_reads(data) is None
    else:
        theirs = library_reads(data)
        assert theirs is not None
        assert len(checkpoint) + len(checkpoint.warnings) == len(theirs)
