"""TensorFlow is the judge: what it lists and reads, we list and read, on fixtures and on the corpus.

Checkpoints are compared whole: names, shapes, dtypes, every bit of every value, and the same once more through an
HDF5 file read by h5py. Graphs are compared by what is left after their devices are gone.
"""

import shutil
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus

import ckpttool
from ckpttool import proto
from ckpttool.errors import CheckpointError
from ckpttool.formats.hdf5 import dataset_path
from ckpttool.formats.listing import is_table
from ckpttool.transforms.devices import device_mentions

pytestmark = pytest.mark.tensorflow


def _prefixes() -> list[Path]:
    indexes = [*sorted(FIXTURES.rglob("*.index")), *corpus_files("*.index")]
    return [path.with_suffix("") for path in indexes if not path.read_bytes().startswith(b"version https://git-lfs")]


def _complete(prefix: Path) -> bool:
    return not ckpttool.open_checkpoint(prefix).warnings


def _id(path: Path) -> str:
    return "/".join(path.parts[-4:])


PREFIXES = _prefixes()
COMPLETE = [prefix for prefix in PREFIXES if _complete(prefix)]
V1_FILES = [
    path
    for folder in ("ajaytalati_fastweights", "ardiya_siamese", "georgesung_acrobot", "tensorflow_serving")
    for path in sorted((CORPUS / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".index", ".meta") and is_table(str(path))
]
METAS = [*sorted(FIXTURES.rglob("*.meta")), *corpus_files("*.meta")]


@pytest.mark.parametrize("prefix", PREFIXES, ids=_id)
def test_variables_are_those_that_tensorflow_lists(prefix, tf):
    """Names, shapes and dtypes are TensorFlow's, also where the data file is missing."""
    reader = tf.train.load_checkpoint(str(prefix))
    try:
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    except UnicodeDecodeError:
        pytest.skip("TensorFlow's Python can't list names that are not UTF-8")
    checkpoint = ckpttool.open_checkpoint(prefix)
    listed = {name: (list(v.shape), v.dtype.name) for name, v in checkpoint.items()}
    assert listed == {name: (shape, dtypes[name].name) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", COMPLETE, ids=_id)
def test_values_are_tensorflows_bit_for_bit(prefix, tf, tmp_path):
    """Every value TensorFlow can read is the same in memory, and in the HDF5 file as h5py reads it."""
    reader = tf.train.load_checkpoint(str(prefix))
    checkpoint = ckpttool.open_checkpoint(prefix)
    ckpttool.write_hdf5(checkpoint, tmp_path / "out.h5", strict=True)
    with h5py.File(tmp_path / "out.h5") as file:
        for name, variable in checkpoint.items():
            expected = _tensorflow_value(tf, reader, name)
            if expected is not None:
                assert _bits(variable.numpy()) == _bits(expected), name
            assert _bits(_stored(file[dataset_path(name)])) == _bits(variable.numpy()), name


@needs_corpus
@pytest.mark.parametrize("path", V1_FILES, ids=_id)
def test_v1_checkpoints_are_exported_bit_for_bit(path, tf, tmp_path):
    """Every V1 checkpoint of the corpus is listed as TensorFlow lists it, and exported as TensorFlow reads it."""
    shutil.copy(path, tmp_path / "model")  # Away from a V2 checkpoint of the same prefix.
    reader = tf.train.load_checkpoint(str(tmp_path / "model"))
    checkpoint = ckpttool.open_checkpoint(tmp_path / "model")
    assert {name: list(v.shape) for name, v in checkpoint.items()} == reader.get_variable_to_shape_map()
    ckpttool.write_hdf5(checkpoint, tmp_path / "out.h5", strict=True)
    with h5py.File(tmp_path / "out.h5") as file:
        for name in checkpoint:
            assert _bits(file[dataset_path(name)][()]) == _bits(_tensorflow_value(tf, reader, name)), name


def _tensorflow_value(tf, reader, name):
    """The value, or None where TensorFlow itself can't read it."""
    try:
        value = reader.get_tensor(name)
        return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)
    except (tf.errors.OpError, UnicodeError, ValueError):
        return None


def _bits(array) -> tuple[tuple[int, ...], object]:
    if array.dtype == object:
        return array.shape, list(array.ravel())
    return array.shape, array.tobytes()


def _stored(dataset) -> np.ndarray:
    """A dataset's bytes as they are stored, strings as bytes."""
    if dataset.dtype == object:
        values = np.empty(dataset.shape, object)
        for index in np.ndindex(dataset.shape):
            value = dataset[index]
            values[index] = value if isinstance(value, bytes) else bytes(value)
        return values
    raw = np.empty(dataset.shape, f"V{dataset.id.get_type().get_size()}")
    if dataset.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, dataset.id.get_type())
    return raw


@pytest.mark.parametrize("meta", METAS, ids=_id)
def test_strip_devices_leaves_no_device_and_changes_nothing_else(meta):
    """Parsed, the stripped graph is the old one with every NodeDef.device cleared, and equal in everything else."""
    graph = ckpttool.open_graph(meta)
    stripped = ckpttool.strip_devices(graph)
    assert not any(device for device in stripped.devices)
    expected = proto.parse("MetaGraphDef", graph.data)
    for node in expected.graph_def.node:
        node.device = ""
    for function in expected.graph_def.library.function:
        for node in function.node_def:
            node.device = ""
    assert proto.parse("MetaGraphDef", stripped.data) == expected
    assert ckpttool.strip_devices(stripped) is stripped


@pytest.mark.parametrize("meta", METAS, ids=_id)
def test_all_leaves_no_mention(meta):
    """After --all nothing is left to be listed, and doing it again changes no byte."""
    stripped = ckpttool.strip_devices(ckpttool.open_graph(meta), all=True)
    assert device_mentions(stripped) == []
    assert ckpttool.strip_devices(stripped, all=True).data == stripped.data


@pytest.mark.parametrize("meta", METAS, ids=_id)
def test_stripped_graph_imports_where_the_old_one_does(meta, tf, tmp_path):
    """TensorFlow imports the stripped file if it imports the old one, with the same ops, and fails alike if not."""
    out = tmp_path / "out.meta"
    ckpttool.write_meta_graph(ckpttool.strip_devices(ckpttool.open_graph(meta)), out)
    before, after = _imported(tf, meta, clear_devices=True), _imported(tf, out)
    assert before == after


def _imported(tf, meta, **options):
    """The imported graph's ops by name, type and device; or the kind of error that importing raised."""
    try:
        with tf.Graph().as_default() as graph:
            tf.compat.v1.train.import_meta_graph(str(meta), **options)
    except Exception as error:  # TensorFlow raises what it likes.
        return type(error).__name__
    return [(op.name, op.type, op.device) for op in graph.get_operations()]


@pytest.mark.parametrize("meta", METAS, ids=_id)
def test_graph_is_listed_as_tensorflow_parses_it(meta, tf):
    """Ops, devices, collections and signatures are those of TensorFlow's own parse, imported or not.

    Signatures of before SavedModels are in a collection, of which TensorFlow 1 made these two.
    """
    theirs = tf.compat.v1.MetaGraphDef.FromString(meta.read_bytes())
    graph = ckpttool.open_graph(meta)
    assert [(n.name, n.type, n.device, list(n.inputs)) for n in graph.nodes] == [
        (n.name, n.op, n.device, list(n.input)) for n in theirs.graph_def.node
    ]
    assert {name: len(c.members) for name, c in graph.collections.items()} == {
        name: len(getattr(c, c.WhichOneof("kind")).value) for name, c in theirs.collection_def.items()
    }
    old = {"serving_default", "serving_default_from_named"} if "serving_signatures" in theirs.collection_def else set()
    assert set(graph.signatures) == (set(theirs.signature_def) or old)


@pytest.mark.parametrize("meta", METAS, ids=_id)
def test_outputs_are_those_of_the_imported_graph(meta, tf):
    """Every output's dtype is TensorFlow's, and no known shape contradicts TensorFlow's."""
    with tf.Graph().as_default() as imported:
        try:
            tf.compat.v1.train.import_meta_graph(str(meta), clear_devices=True)
        except Exception as error:  # TensorFlow raises what it likes.
            pytest.skip(f"TensorFlow does not import it: {type(error).__name__}")
    graph = ckpttool.open_graph(meta)
    known = {node.name: graph.outputs(node) for node in graph.nodes}
    # A graph without a saver is given one.
    for op in (op for op in imported.get_operations() if op.name in known):
        ours = known[op.name]
        assert [t.dtype.name for t in ours if t.dtype] == [t.dtype.name for t in op.outputs][: len(ours)], op.name
        for tensor, output in zip(ours, op.outputs, strict=True):
            assert tensor.shape is None or output.shape.is_compatible_with(tensor.shape), output.name


@needs_corpus
def test_every_file_of_the_corpus_opens_or_says_why():
    """No file of the corpus, opened as a checkpoint or as a graph, raises anything but our own errors."""
    for path in CORPUS.rglob("*"):
        for door in (ckpttool.open_checkpoint, ckpttool.open_graph):
            with suppress(CheckpointError, OSError):
                door(path)
