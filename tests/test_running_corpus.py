"""Every graph with a checkpoint, run by us and by a restore written by hand, bit for bit; or the reason why it can't.

The hand-written side knows nothing of ckpttool: import_meta_graph, restore, run, each in a graph of its own.
"""

from pathlib import Path

import numpy as np
import pytest
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus

import ckpttool
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.running import unfed

pytestmark = pytest.mark.tensorflow

RAN = "ran"
_NO_DATA = r"no value: data file is missing"
# Every .meta of the fixtures and of the corpus, and what becomes of it.
TABLE = {
    "fixtures/conv/model.meta": RAN,
    "fixtures/devices/model.meta": r"has no value: there is no checkpoint",
    "fixtures/linear/model.meta": RAN,
    "fixtures/partitioned/model.meta": RAN,
    "fixtures/recurrent/model.meta": RAN,
    **{f"fixtures/releases/{release}/model.meta": RAN for release in ("0.12", "1.0", "1.4", "1.8", "1.12", "1.15")},
    "fixtures/sharded/model.meta": RAN,
    "ajaytalati_fastweights/save/FW/save-56000.meta": RAN,
    "ajaytalati_fastweights/save/FW/save-60000.meta": RAN,
    "ajaytalati_fastweights/save/LSTM/save-56000.meta": RAN,
    "ajaytalati_fastweights/save/LSTM/save-60000.meta": RAN,
    "ardiya_siamese/model/model.ckpt.meta": RAN,
    "azaganidis_pointnet2/log_se_ndt_segm/model.ckpt.meta": r"has no op of type ThreeInterpolate",
    "azaganidis_pointnet2/saved_models/model.ckpt.meta": _NO_DATA,
    "fracogno_cgan/checkpoints/model.ckpt.meta": _NO_DATA,
    "georgesung_acrobot/models/model.ckpt.meta": RAN,
    "google_ffn/models/fib25/model.ckpt-27465036.meta": RAN,
    "hms_unetcoreograph/model/model.ckpt.meta": _NO_DATA,
    "onnx_tensorflow_onnx/tests/models/regression/checkpoint/model.meta": RAN,
    "tensorflow_serving/tensorflow_serving/servables/tensorflow/testdata/bad_half_plus_two/00000123/export.meta": RAN,
    "tensorflow_serving/tensorflow_serving/session_bundle/testdata/half_plus_two/00000123/export.meta": RAN,
    "varunravi_deepspeech/checkpoint/model.ckpt-0.meta": _NO_DATA,
}
_SLOW = ("FW/save", "LSTM/save-60000", "log_se_ndt_segm", "google_ffn", "varunravi")
_V1_SHARDS = {"session_bundle": "export-?????-of-00001", "bad_half_plus_two": "export"}


def _key(path: Path) -> str:
    root = CORPUS if path.is_relative_to(CORPUS) else FIXTURES.parent
    return str(path.relative_to(root))


METAS = [*sorted(FIXTURES.rglob("*.meta")), *corpus_files("*.meta")]
CASES = [
    pytest.param(path, id=_key(path), marks=[pytest.mark.slow] if any(part in _key(path) for part in _SLOW) else [])
    for path in METAS
]


@needs_corpus
def test_the_table_is_whole():
    """Every .meta file of the fixtures and of the corpus is in the table, and nothing else."""
    assert {_key(path) for path in METAS} == set(TABLE)


@pytest.mark.parametrize("meta", CASES)
def test_outputs_are_those_of_a_restore_by_hand(meta, tf):
    """What the table says ran gives, on random inputs, the hand-written restore's outputs; the rest says why not."""
    with ckpttool.ImportedGraph(meta) as model:
        nodes = {node.name: node for node in model.graph.nodes}
        tensors = [e.tensor for e in model.outputs] or [t.name for t in model.collection("trainable_variables")]
        feeds = _random_feeds(tf, model, nodes, tensors)
        if TABLE[_key(meta)] != RAN:
            with pytest.raises(ckpttool.CheckpointError, match=TABLE[_key(meta)]):
                model.run([*tensors, *model.collection("trainable_variables")], feeds, timeout=100)
            return
        ours = model.run(tensors, feeds, timeout=100)
    theirs = _by_hand(tf, meta, tensors, feeds)
    for name, a, b in zip(tensors, ours, theirs, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype, name
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


FROZEN = [path for path in corpus_files("*.pb") if path.name != "saved_model.pb" and "frozen" in path.name]


@needs_corpus
@pytest.mark.parametrize("path", FROZEN, ids=_key)
def test_frozen_graphs_give_what_an_import_by_hand_gives(path, tf):
    """A frozen graph's inferred outputs are those of import_graph_def and a session, bit for bit."""
    with ckpttool.ImportedGraph(path) as model:
        nodes = {node.name: node for node in model.graph.nodes}
        tensors = [endpoint.tensor for endpoint in model.outputs]
        feeds = _random_feeds(tf, model, nodes, tensors)
        ours = model.run(tensors, feeds)
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(v1.GraphDef.FromString(path.read_bytes()), name="")
        theirs = session.run(tensors, feeds)
    assert [value.tobytes() for value in ours] == [value.tobytes() for value in theirs]


def _random_feeds(tf, model, nodes, tensors):
    """Values for what the tensors need: placeholders, and the outputs of input pipelines."""
    placeholders, waiting = unfed(nodes, needed_ops(nodes, tensors))
    names = [f"{op}:0" for op in placeholders]
    names += [tensor.name for op in waiting for tensor in model.operation(op).outputs]
    rng = np.random.default_rng(7)
    return {name: _random(tf, rng, model.tensor(name)) for name in names}


def _random(tf, rng, tensor):
    if "tf_example" in tensor.name:
        features = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=[2.5]))}
        return np.array([tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()], object)
    # A scalar where nothing is known; but "X" of the one graph that takes it in steps is images.
    unknown = [2, 28, 28] if tensor.name == "X:0" else []
    shape = unknown if tensor.shape.rank is None else [2 if size is None else size for size in tensor.shape.as_list()]
    if "keep_prob" in tensor.name:
        return np.float32(1)
    if tensor.dtype.is_floating:
        return rng.random(shape).astype(tensor.dtype.as_numpy_dtype)
    return np.zeros(shape, tensor.dtype.as_numpy_dtype)


def _by_hand(tf, meta, tensors, feeds):
    v1 = tf.compat.v1
    message = v1.MetaGraphDef.FromString(meta.read_bytes())
    shards = next((name for part, name in _V1_SHARDS.items() if part in str(meta)), None)
    prefix = str(meta.with_name(shards or meta.name.removesuffix(".meta")))
    if message.meta_info_def.tensorflow_version == "0.12.head":  # No version that import_meta_graph can read.
        message.meta_info_def.tensorflow_version = "0.12.0"
    with tf.Graph().as_default(), v1.Session() as session:
        if "google_ffn" in str(meta):  # Of ops that nobody has: only what is wanted is imported.
            saver = message.saver_def
            wanted = [name.partition(":")[0] for name in (*tensors, saver.restore_op_name)]
            for node in message.graph_def.node:
                node.device = ""
            tf.import_graph_def(v1.graph_util.extract_sub_graph(message.graph_def, wanted), name="")
            session.run(saver.restore_op_name, {saver.filename_tensor_name: prefix})
        else:
            v1.train.import_meta_graph(message, clear_devices=True).restore(session, prefix)
        return session.run(tensors, feeds, v1.RunOptions(timeout_in_ms=100_000))
