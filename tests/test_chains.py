"""Every checkpoint through every format: what each format's own library reads is what TensorFlow read before, and the
way back to a bundle ends at its bytes.

The fixtures are always taken through, the corpus where slow tests are run.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus

import ckpttool
from ckpttool.formats.hdf5 import plan_hdf5
from ckpttool.formats.listing import is_table
from ckpttool.formats.npy import plan_npy
from ckpttool.formats.npz import plan_npz
from ckpttool.formats.records.strings import encode_strings
from ckpttool.formats.safetensors import plan_safetensors

WRITERS = {
    "h5": ckpttool.write_hdf5,
    "npz": ckpttool.write_npz,
    "npy": ckpttool.write_npy,
    "safetensors": ckpttool.write_safetensors,
    "tf": ckpttool.write_bundle,
}
PLANS = {"h5": plan_hdf5, "npz": plan_npz, "npy": plan_npy, "safetensors": plan_safetensors}


def _is_complete(index: Path) -> bool:
    if index.read_bytes().startswith(b"version https://git-lfs"):
        return False
    return not ckpttool.open_checkpoint(index).warnings


def _name(path: Path) -> str:
    """The prefix below the fixtures or the corpus, without what all of a source's have in common."""
    root = FIXTURES if path.is_relative_to(FIXTURES) else CORPUS
    parts = path.relative_to(root).parts
    return "/".join(parts if len(parts) < 4 else (parts[0], "…", *parts[-3:]))


def _param(index: Path):
    prefix = index.with_name(index.name.removesuffix(".index"))
    is_quick = index.is_relative_to(FIXTURES) and prefix.parent.name != "many"
    return pytest.param(prefix, id=_name(prefix), marks=[] if is_quick else [pytest.mark.slow])


INDEXES = [*sorted(FIXTURES.rglob("*.index")), *corpus_files("*.index")]
BUNDLES = [_param(index) for index in INDEXES if _is_complete(index)]
V1_FILES = [
    pytest.param(path, id=_name(path), marks=pytest.mark.slow)
    for folder in ("ajaytalati_fastweights", "ardiya_siamese", "georgesung_acrobot", "tensorflow_serving")
    for path in sorted((CORPUS / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".index", ".meta") and is_table(str(path))
]


def converted(source, path: Path, format: str) -> Path:
    """The checkpoint in another format; nothing of it is left out."""
    left_out = [planned for planned in WRITERS[format](ckpttool.open_checkpoint(source), path) if planned.problem]
    assert left_out == []
    return path


def files_of(prefix: Path) -> dict[str, bytes]:
    """Index and data of a bundle, by what they add to the prefix."""
    return {path.name.removeprefix(prefix.name): path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}.*")}


# Read back by each format's own library


def restored(tf, prefix: Path) -> dict[str, object]:
    """What TensorFlow restores: each variable's bits, or its strings.

    But variants, which have no bits; and slices of the dtypes that TensorFlow itself does not put together.
    """
    variables = ckpttool.open_checkpoint(prefix).values()
    names = [v.name for v in variables if v.dtype.name != "variant" and not _is_beyond_tensorflow(v)]
    values = tf.raw_ops.RestoreV2(
        prefix=str(prefix),
        tensor_names=[name.encode(errors="surrogateescape") for name in names],
        shape_and_slices=[""] * len(names),
        dtypes=[v.dtype.name for v in variables if v.name in names],
    )
    return {name: _bits(value.numpy()) for name, value in zip(names, values, strict=True)}


def _is_beyond_tensorflow(variable) -> bool:
    return len(variable.slices) > 1 and variable.dtype.name in ("float16", "bfloat16", "int64")


def _bits(value) -> object:
    value = np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
    return (value.shape, list(value.ravel())) if value.dtype == object else (value.shape, value.tobytes())


def by_h5py(path: Path) -> dict[str, object]:
    found = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = _stored(item)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def _stored(dataset) -> object:
    if dataset.dtype == object:  # Strings, or sequences of bytes.
        return dataset.shape, [bytes(dataset[index]) for index in np.ndindex(dataset.shape)]
    raw = np.empty(dataset.shape, f"V{dataset.id.get_type().get_size()}")
    if raw.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, dataset.id.get_type())
    return dataset.shape, raw.tobytes()


def by_numpy(path: Path) -> dict[str, object]:
    with np.load(path) as archive:
        return {name: _array(archive[name]) for name in archive.files}


def by_numpy_files(path: Path) -> dict[str, object]:
    listed = json.loads((path / "index.json").read_text())["variables"]
    assert {entry["file"] for entry in listed} == {file.name for file in path.glob("*.npy")}
    return {entry["file"]: _array(np.load(path / entry["file"])) for entry in listed}


def _array(array: np.ndarray) -> object:
    return (array.shape, list(map(bytes, array.ravel().tolist()))) if array.dtype.kind == "S" else _bits(array)


def by_safetensors(path: Path) -> dict[str, object]:
    library = pytest.importorskip("safetensors")
    return {
        name: (tuple(tensor["shape"]), bytes(tensor["data"])) for name, tensor in library.deserialize(path.read_bytes())
    }


LIBRARIES = {"h5": by_h5py, "npz": by_numpy, "npy": by_numpy_files, "safetensors": by_safetensors}


def _as_bytes(value) -> bytes:
    """Bits as they are; strings as a bundle has them."""
    return encode_strings(value[1])[0] if isinstance(value[1], list) else value[1]


@pytest.mark.tensorflow
@pytest.mark.parametrize("format", LIBRARIES)
@pytest.mark.parametrize("prefix", BUNDLES)
def test_the_formats_own_library_reads_what_tensorflow_read(prefix, format, tf, tmp_path):
    """In each format every variable is there under its name, with the bits that TensorFlow restores from the bundle."""
    found = LIBRARIES[format](converted(prefix, tmp_path / f"model.{format}", format))
    plan = PLANS[format](ckpttool.open_checkpoint(prefix))
    targets = {planned.variable.name: planned.target for planned in plan}
    assert set(found) == set(targets.values())
    for name, value in restored(tf, prefix).items():
        # A plain name is its own; HDF5 adds `:0`. Files' names are another matter: some systems know no small letters.
        if name.isidentifier() and format != "npy":
            assert targets[name] == (f"{name}:0" if format == "h5" else name)
        assert _as_bytes(found[targets[name]]) == _as_bytes(value), name


@pytest.mark.tensorflow
@pytest.mark.parametrize("prefix", BUNDLES)
def test_tensorflow_restores_what_it_restored_before(prefix, tf, tmp_path):
    """A bundle written again, and one that was HDF5 in between, restore as the original does."""
    expected = restored(tf, prefix)
    assert restored(tf, converted(prefix, tmp_path / "again", "tf")) == expected
    converted(prefix, tmp_path / "model.h5", "h5")
    assert restored(tf, converted(tmp_path / "model.h5", tmp_path / "back", "tf")) == expected


# The way back


@pytest.mark.parametrize("format", LIBRARIES)
@pytest.mark.parametrize("prefix", BUNDLES)
def test_the_way_back_ends_at_the_same_bytes(prefix, format, tmp_path):
    """From a bundle to any format and back gives the index and the shards that writing it directly gives."""
    converted(prefix, tmp_path / "direct", "tf")
    there = converted(prefix, tmp_path / f"model.{format}", format)
    converted(there, tmp_path / "back", "tf")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "direct")


@pytest.mark.parametrize("prefix", BUNDLES)
def test_one_format_after_another(prefix, tmp_path):
    """From a bundle through all formats, one after another, and back: the same bytes."""
    converted(prefix, tmp_path / "direct", "tf")
    source = prefix
    for number, format in enumerate(("h5", "npz", "safetensors", "npy", "h5")):
        source = converted(source, tmp_path / f"{number}.{format}", format)
    converted(source, tmp_path / "back", "tf")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "direct")


@needs_corpus
@pytest.mark.parametrize("format", LIBRARIES)
@pytest.mark.parametrize("path", V1_FILES)
def test_v1_through_each_format(path, format, tmp_path):
    """A V1 checkpoint, taken through any format, gives the bundle that it gives directly."""
    shutil.copy(path, tmp_path / "v1")  # Away from a V2 checkpoint of the same prefix.
    converted(tmp_path / "v1", tmp_path / "direct", "tf")
    there = converted(tmp_path / "v1", tmp_path / f"model.{format}", format)
    converted(there, tmp_path / "back", "tf")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "direct")


@pytest.fixture(scope="module")
def iterator_state(tf, tmp_path_factory) -> Path:
    """A checkpoint with the state of an iterator that stands at 3: a variant, which no other format has."""
    iterator = iter(tf.data.Dataset.range(9))
    for _ in range(3):
        next(iterator)
    prefix = tmp_path_factory.mktemp("iterator") / "model"
    return Path(tf.train.Checkpoint(iterator=iterator).write(str(prefix)))


@pytest.mark.tensorflow
@pytest.mark.parametrize("format", LIBRARIES)
def test_iterators_go_on_where_they_were(iterator_state, format, tf, tmp_path):
    """Variants go through each format and back to TensorFlow's own bytes, and the iterator restored goes on."""
    dtypes = {variable.dtype.name for variable in ckpttool.open_checkpoint(iterator_state).values()}
    assert "variant" in dtypes
    there = converted(iterator_state, tmp_path / f"model.{format}", format)
    back = converted(there, tmp_path / "back", "tf")
    assert files_of(back) == files_of(iterator_state)
    iterator = iter(tf.data.Dataset.range(9))
    tf.train.Checkpoint(iterator=iterator).read(str(back)).assert_consumed()
    assert int(next(iterator)) == 3


def test_what_is_taken_through():
    """Every fixture's checkpoint is among them, and the corpus' dozens if it is there."""
    assert len(BUNDLES) >= (60 if CORPUS.is_dir() else 14)
