"""SavedModels that `saved-model` writes: TensorFlow loads them, and they give what the restored session gives."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import time_limit
from c_loader import Served
from conftest import FIXTURES, corpus_files, corpus_id, needs_corpus
from running import edit_meta, save_model
from serving import SIGNATURE, bits, of_all, of_load, require_same, signature_of

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.formats.saved_model.writing import write_saved_model
from ckpttool.model.graph import MetaGraph
from ckpttool.transforms.serving import servable
from ckpttool.transforms.serving.assets import AssetFile, file_names
from ckpttool.transforms.serving.initializing import initializers
from ckpttool.transforms.serving.signatures import keyed, likely_inputs

LINEAR = FIXTURES / "linear" / "model"
ENDS = ["--inputs", "a=x:0", "--outputs", "b=activation_opt:0"]

MODELS = {
    "linear": ENDS,
    "conv": [],
    "recurrent": [],
    "partitioned": ["--outputs", "rows=rows/part_1/read", "--outputs", "columns/part_2/read:0"],
    "sharded": [f"--outputs=k{i}=layer_{i}/kernel/read" for i in range(3)],
}
# Whose .meta and checkpoint are whole, and whose ops TensorFlow 2.21 still has.
CORPUS_PAIRS = ("ardiya_siamese", "georgesung_acrobot", "onnx_tensorflow_onnx", "bad_half_plus_two", "fastweights")
PAIRS = [meta for meta in corpus_files("*.meta") if any(name in str(meta) for name in CORPUS_PAIRS)]
PAIRS = [
    pytest.param(meta, marks=pytest.mark.slow if "FW" in meta.parts else (), id=corpus_id(meta))
    for meta in PAIRS
    if "56000" not in meta.name
]

tensorflow = pytest.mark.tensorflow


@pytest.fixture
def make(run):
    """Runs the command, which must succeed, and gives what it said."""

    def make(model, output, *arguments):
        result = run("saved-model", model, *arguments, "-o", output)
        assert result.exit_code == 0, result.output
        return result.stderr

    return make


def refusal(run, *arguments) -> tuple[int, str]:
    result = run("saved-model", *arguments)
    return result.exit_code, result.stderr


# What TensorFlow gives


@tensorflow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_restored_session(make, tf, tmp_path, name):
    """On random feeds, all of TensorFlow's loaders give what the restored session gives, bit for bit."""
    prefix = FIXTURES / name / "model"
    make(prefix, tmp_path / "served", *MODELS[name])
    assert require_same(tf, f"{prefix}.meta", prefix, tmp_path / "served")


@tensorflow
@needs_corpus
@pytest.mark.parametrize("meta", PAIRS)
def test_real_models_are_served(make, tf, tmp_path, meta):
    """The same of real models, back to those that a TensorFlow before 0.12 saved in the format V1."""
    make(meta, tmp_path / "served")
    assert require_same(tf, meta, str(meta).removesuffix(".meta"), tmp_path / "served")


@tensorflow
@needs_corpus
def test_an_export_of_2017_is_served(make, tf, tmp_path):
    """A sharded export of 0.12, whose version TensorFlow's Python can't parse, gives y = x / 2 + 2 in a server."""
    (meta,) = [path for path in corpus_files("export.meta") if "session_bundle" in path.parts]
    make(meta, tmp_path / "served", "--inputs", "x=ParseExample/ParseExample", "--outputs", "y")
    signature = signature_of(tf, tmp_path / "served")
    outputs = Served(tf, tmp_path / "served").run(signature, {"x": np.array([[1], [2]], np.float32)})
    assert outputs["y"].tolist() == [[2.5], [3.0]]


def test_ops_stand_for_their_first_outputs(tmp_path):
    """In Python too: a signature names tensors, and a loader would find no tensor of an op's name."""
    graph, checkpoint = ckpttool.open_graph(LINEAR), ckpttool.open_checkpoint(LINEAR)
    by_ops = ckpttool.servable(graph, checkpoint, {"x": "x"}, {"y": "activation_opt"})
    by_tensors = ckpttool.servable(graph, checkpoint, {"x": "x:0"}, {"y": "activation_opt:0"})
    assert by_ops.graph.data == by_tensors.graph.data


@tensorflow
def test_the_signature_is_tensorflows(make, tf, tmp_path):
    """The SignatureDef is the one that TensorFlow's own function builds of the same tensors."""
    make(LINEAR, tmp_path / "served", *ENDS)
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(f"{LINEAR}.meta", clear_devices=True)
        build = tf.compat.v1.saved_model.signature_def_utils.predict_signature_def
        expected = build({"a": graph.get_tensor_by_name("x:0")}, {"b": graph.get_tensor_by_name("activation_opt:0")})
    assert signature_of(tf, tmp_path / "served") == expected


@tensorflow
def test_saved_model_cli_shows_it(make, tf, tmp_path, capsys):
    """saved_model_cli finds tags, signature, tensors and method."""
    from tensorflow.python.tools import saved_model_cli

    make(LINEAR, tmp_path / "served", *ENDS)
    capsys.readouterr()
    saved_model_cli._show_all(str(tmp_path / "served"))  # `show --all`, without its own flags.
    shown = capsys.readouterr().out
    for part in ("tag-set: 'serve'", "signature_def['serving_default']", "inputs['a']", "name: x:0", "predict"):
        assert part in shown


def test_our_own_commands_read_it(make, run, tmp_path):
    """ls, io and vars show the signature, the endpoints and the variables."""
    make(LINEAR, tmp_path / "served", *ENDS)
    assert "activation_opt:0" in run("ls", tmp_path / "served", "--signatures").stdout
    assert "input\tserving_default\ta\tx:0" in run("io", tmp_path / "served").stdout
    assert run("vars", tmp_path / "served", "--json").stdout.count('"name"') == 2


def test_names_may_be_separated_by_commas(make, tmp_path):
    """`--outputs a=x,b=y` is `--outputs a=x --outputs b=y`, as for freeze."""
    make(LINEAR, tmp_path / "one", "--inputs", "a=x:0", "--outputs", "b=activation_opt:0, w=W/read")
    make(LINEAR, tmp_path / "two", *ENDS, "--outputs", "w=W/read:0")
    assert files(tmp_path / "one") == files(tmp_path / "two")


# What is changed, and what is not


def test_all_else_is_as_it_was(make, tmp_path):
    """With the devices kept, the graph is the old one and its signature and tags; else it is stripped besides."""
    make(LINEAR, tmp_path / "kept", *ENDS, "--keep-devices")
    make(LINEAR, tmp_path / "served", *ENDS)
    old = ckpttool.open_graph(LINEAR)
    kept = proto.parse("SavedModel", (tmp_path / "kept" / "saved_model.pb").read_bytes())
    assert kept.saved_model_schema_version == 1
    (graph,) = kept.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    del graph.meta_info_def.tags[:]
    graph.signature_def.clear()
    assert graph == old.message
    served = ckpttool.open_graph(tmp_path / "served")
    assert ckpttool.strip_devices(ckpttool.open_graph(tmp_path / "kept")).data == served.data
    assert {v: served.devices[v] for v in served.devices} == {"": 24}


@tensorflow
def test_shapes_that_tensorflow_1_inferred_for_batch_norm_are_in_nobodys_way(make, tf, tmp_path):
    """They are not said of gradients, whose shapes are inferred otherwise since: no loader would take the graph."""

    def build(v1):
        x = v1.placeholder("float32", [None, 2, 2, 3], name="x")
        scale = v1.get_variable("scale", initializer=[1.0, 2.0, 3.0])
        y, *_ = v1.nn.fused_batch_norm(x, scale, scale)
        v1.gradients(y, scale)
        tf.identity(y, name="y")

    def as_tensorflow_1(message):
        node = next(node for node in message.graph_def.node if node.op == "FusedBatchNormGradV3")
        for shape in node.attr["_output_shapes"].list.shape[3:]:
            shape.dim[0].size = 3

    prefix = save_model(tf, tmp_path, build)
    shutil.copy(f"{prefix}.meta", tmp_path / "loadable.meta")
    edit_meta(tf, prefix, as_tensorflow_1)
    make(prefix, tmp_path / "served", "--inputs", "x=x", "--outputs", "y=y")
    assert require_same(tf, tmp_path / "loadable.meta", prefix, tmp_path / "served")


def test_the_variables_are_the_checkpoints_own_bytes(make, tmp_path):
    """The bundle is the checkpoint's, byte for byte, in as many shards."""
    make(FIXTURES / "sharded" / "model", tmp_path / "served", *MODELS["sharded"])
    found = {path.name.partition(".")[2]: path.read_bytes() for path in (tmp_path / "served" / "variables").iterdir()}
    for suffix in ("data-00000-of-00003", "data-00001-of-00003", "data-00002-of-00003", "index"):
        assert found.pop(suffix) == (FIXTURES / "sharded" / f"model.{suffix}").read_bytes()
    assert not found


def test_same_input_same_bytes(make, tmp_path):
    """Made twice, every file is the same."""
    for name in ("one", "two"):
        make(FIXTURES / "conv" / "model", tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def files(directory) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_names_of_keys():
    """Without a name, an endpoint is called as its op; a further output has its number behind."""
    assert keyed(["x:0", "a/b", "split:1", "n=a/b:2"]) == {"x": "x:0", "b": "a/b:0", "split_1": "split:1", "n": "a/b:2"}
    with pytest.raises(ValueError, match="a/x:0 and b/x have both the name x"):
        keyed(["a/x", "b/x"])
    with pytest.raises(ValueError, match="is not NAME=TENSOR"):
        keyed(["x="])


def test_other_names_for_signature_and_tags(make, tmp_path):
    """--signature and --tags name them; a signature that is there already stays."""
    make(LINEAR, tmp_path / "one", *ENDS)
    make(tmp_path / "one", tmp_path / "two", *ENDS, "--signature", "also", "--tags", "serve,gpu")
    graph = ckpttool.open_graph(tmp_path / "two")
    assert list(graph.signatures) == ["also", SIGNATURE]
    assert graph.tag_sets == [["serve", "gpu"]]


@tensorflow
def test_no_handle_is_served(make, run, tf, tmp_path):
    """Only the session that made an iterator knows its handle: what that gives is fed, or what stands in for it."""

    def build(v1):
        handle = v1.placeholder("string", [], "handle")
        iterator = v1.data.Iterator.from_string_handle(handle, ("float32", "float32"), ([2], [2]))
        images, labels = iterator.get_next("next")
        x = v1.placeholder_with_default(images, [2], "x")
        y = tf.multiply(x, v1.get_variable("w", initializer=2.0), name="y")
        tf.subtract(y, labels, name="difference")

    prefix = save_model(tf, tmp_path, build)
    assert "note: taking --inputs x=x:0\n" in make(prefix, tmp_path / "one", "--outputs", "y")
    said = make(prefix, tmp_path / "two", "--outputs", "difference")
    assert "note: taking --inputs x=x:0 --inputs next_1=next:1\n" in said
    code, said = refusal(run, prefix, "--inputs", "x", "--outputs", "difference", "-o", tmp_path / "three")
    assert (code, "feed what it gives: --inputs next:1" in said) == (5, True)
    made = Served(tf, tmp_path / "two").run(
        signature_of(tf, tmp_path / "two"), {"x": np.float32([1, 2]), "next_1": np.float32([1, 1])}
    )
    assert made["difference"].tolist() == [1, 3]


def test_what_is_taken_is_said(make, tmp_path):
    """Without --inputs and --outputs, what is inferred is said; for given outputs, what they need is fed."""
    said = make(FIXTURES / "conv" / "model", tmp_path / "one")
    assert "note: taking --inputs images=images:0\nnote: taking --outputs predictions=predictions:0\n" in said
    said = make(FIXTURES / "conv" / "model", tmp_path / "two", "--outputs", "loss")
    assert "note: taking --inputs images=images:0 --inputs labels=labels:0\n" in said
    said = make(FIXTURES / "recurrent" / "model", tmp_path / "three", "--outputs", "output")
    assert "note: taking --inputs shuffle_batch=shuffle_batch:0\n" in said
    assert make(LINEAR, tmp_path / "four", "--quiet") == ""


# Models made here


class Model:
    """A model built and saved by TensorFlow: `prefix` and its .meta."""

    def __init__(self, tf, folder, build, *, saver=True, write_version=2):
        v1 = tf.compat.v1
        folder.mkdir()
        self.prefix = folder / "model"
        with tf.Graph().as_default(), v1.Session() as session:
            saver_def = build(v1)
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
            made = v1.train.Saver(write_version=write_version)
            made.save(session, str(self.prefix), write_meta_graph=saver, write_state=False)
            if not saver:
                v1.train.export_meta_graph(f"{self.prefix}.meta", saver_def=saver_def)
        if not saver and saver_def is None:  # The test's own saver must not be what restores it.
            drop_ops(tf, f"{self.prefix}.meta", "save/")


def drop_ops(tf, path, scope):
    meta = tf.compat.v1.MetaGraphDef.FromString(Path(path).read_bytes())
    kept = [node for node in meta.graph_def.node if not node.name.startswith(scope)]
    del meta.graph_def.node[:]
    meta.graph_def.node.extend(kept)
    Path(path).write_bytes(meta.SerializeToString())


def ramp(v1, name, shape, **options):
    values = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape) / 3
    return v1.get_variable(name, initializer=values, **options)


def build_words(v1, vocabulary, *, use_resource=False):
    """A model that looks up words: a table filled from a file, an embedding, a local variable."""
    words = v1.placeholder("string", [None], "words")
    import tensorflow as tf

    table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(str(vocabulary), "string", 0, "int64", -1), num_oov_buckets=1
    )
    embedding = ramp(v1, "embedding", [4, 2], use_resource=use_resource)
    scale = v1.get_variable("scale", initializer=3.0, collections=["local_variables"], use_resource=use_resource)
    v1.identity(v1.gather(embedding, table.lookup(words)) * scale, name="looked_up")


@pytest.fixture
def words(tf, tmp_path):
    """A model whose vocabulary is beside it."""
    (tmp_path / "vocab.txt").write_text("a\nb\nc\n")
    return Model(tf, tmp_path / "words", lambda v1: build_words(v1, tmp_path / "vocab.txt"))


@tensorflow
def test_tables_and_local_variables_are_initialized(make, tf, tmp_path, words):
    """A table is filled from the copy in assets/, wherever the directory is moved, and local variables are set."""
    said = make(words.prefix, tmp_path / "served")
    elsewhere = f"warning: the file {tmp_path}/vocab.txt goes into the SavedModel, for "
    assert elsewhere in said
    assert elsewhere in make(words.prefix, tmp_path / "quiet", "-q")
    expected = require_same(tf, f"{words.prefix}.meta", words.prefix, tmp_path / "served")
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "served").rename(tmp_path / "moved")
    for found in of_all(tf, tmp_path / "moved"):
        assert {k: bits(v) for k, v in found.items()} == {k: bits(v) for k, v in expected.items()}
    assert files(tmp_path / "moved")["assets/vocab.txt"] == b"a\nb\nc\n"


@tensorflow
def test_a_vocabulary_elsewhere_is_found_or_named(make, run, tf, tmp_path, words):
    """A file that is gone is taken from beside the graph or from --asset; else the op and the file are named."""
    content = (tmp_path / "vocab.txt").read_bytes()
    (tmp_path / "vocab.txt").rename(tmp_path / "new")
    code, said = refusal(run, words.prefix, "-o", tmp_path / "served")
    assert code == 5
    assert f"which an output needs, and needs the file {tmp_path}/vocab.txt" in said
    assert "--asset vocab.txt=PATH says where it is" in said
    assert not (tmp_path / "served").exists()
    make(words.prefix, tmp_path / "one", "--asset", f"vocab.txt={tmp_path / 'new'}")
    assert files(tmp_path / "one")["assets/vocab.txt"] == content
    assert of_load(tf, tmp_path / "one")
    shutil.copy(tmp_path / "new", words.prefix.with_name("vocab.txt"))
    said = make(words.prefix, tmp_path / "two")
    assert f"note: the file {tmp_path}/vocab.txt, which " in said
    assert f" names, is {words.prefix.with_name('vocab.txt')}\n" in said
    assert bits(of_load(tf, tmp_path / "one")["looked_up"]) == bits(of_load(tf, tmp_path / "two")["looked_up"])
    code, said = refusal(run, words.prefix, "-o", tmp_path / "three", "--asset", "wrong.txt=here")
    assert (code, "the graph reads no file wrong.txt" in said) == (3, True)
    code, said = refusal(run, words.prefix, "-o", tmp_path / "three", "--asset", "vocab.txt=nowhere")
    assert (code, "no such file" in said) == (3, True)


@tensorflow
def test_a_table_that_no_collection_names_is_filled(make, run, tf, tmp_path, words):
    """What fills a table that is needed is found by the table: in a frozen graph, for one, there are no collections."""
    make(words.prefix, tmp_path / "listed")
    expected = require_same(tf, f"{words.prefix}.meta", words.prefix, tmp_path / "listed")
    message = tf.compat.v1.MetaGraphDef.FromString(words.prefix.with_suffix(".meta").read_bytes())
    del message.collection_def["table_initializer"]
    words.prefix.with_suffix(".meta").write_bytes(message.SerializeToString())
    make(words.prefix, tmp_path / "served")
    result = run("freeze", words.prefix, "--outputs", "GatherV2", "-o", tmp_path / "frozen.pb")
    assert result.exit_code == 0, result.stderr
    make(tmp_path / "frozen.pb", tmp_path / "of_frozen", "--outputs", "looked_up=GatherV2")
    for found in of_all(tf, tmp_path / "served"):
        assert {k: bits(v) for k, v in found.items()} == {k: bits(v) for k, v in expected.items()}
    for found in of_all(tf, tmp_path / "of_frozen"):
        assert np.array_equal(found["looked_up"] * np.float32(3), expected["looked_up"])


def test_a_table_that_nothing_fills_is_refused(run, tmp_path):
    """TensorFlow would load it, and fail at the first request."""
    graph_def = proto.message_class("GraphDef")()
    table = graph_def.node.add(name="table", op="HashTableV2")
    table.attr["key_dtype"].type, table.attr["value_dtype"].type = 7, 9
    words = graph_def.node.add(name="words", op="Placeholder")
    words.attr["dtype"].type = 7
    graph_def.node.add(name="missing", op="Const").attr["dtype"].type = 9
    graph_def.node.add(name="found", op="LookupTableFindV2", input=["table", "words", "missing"])
    graph_def.node.add(name="out", op="Identity", input=["found"]).attr["T"].type = 9
    (tmp_path / "frozen.pb").write_bytes(graph_def.SerializeToString())
    code, said = refusal(run, tmp_path / "frozen.pb", "--outputs", "out", "-o", tmp_path / "served")
    assert (code, "an output needs the table table, which nothing fills" in said) == (5, True), said
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("command", ["saved-model", "freeze"])
def test_two_ops_of_one_name_are_refused(run, tmp_path, command):
    """TensorFlow loads no graph that has them."""
    graph_def = proto.message_class("GraphDef")()
    for _ in range(2):
        graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    graph_def.node.add(name="y", op="Relu", input=["x"]).attr["T"].type = 1
    (tmp_path / "merged.pb").write_bytes(graph_def.SerializeToString())
    result = run(command, tmp_path / "merged.pb", "--outputs", "y", "-o", tmp_path / "out")
    assert (result.exit_code, "two ops are named x" in result.stderr) == (5, True), result.stderr
    assert not (tmp_path / "out").exists()


@tensorflow
def test_a_table_that_no_output_needs_may_lack_its_file(make, tf, tmp_path, words):
    """Its initializer is then left out of the main op, which is said, and the model loads."""
    (tmp_path / "vocab.txt").unlink()
    said = make(words.prefix, tmp_path / "served", "--outputs", "e=embedding/read:0")
    assert "is not run: it needs the file" in said
    assert {found["e"].shape for found in of_all(tf, tmp_path / "served")} == {(4, 2)}


@tensorflow
def test_files_of_one_name_are_told_apart(make, tf, tmp_path):
    """Two vocabularies of the same name both come along; one that two tables share comes once."""
    for name, text in {"one": "a\nb\n", "two": "b\nc\na\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab").write_text(text)

    def build(v1):
        words = v1.placeholder("string", [None], "words")
        ramp(v1, "unused", [1])
        found = []
        for name in ("one", "two", "one"):
            source = tf.lookup.TextFileInitializer(str(tmp_path / name / "vocab"), "string", 0, "int64", -1)
            found.append(tf.lookup.StaticHashTable(source, -7).lookup(words))
        v1.stack(found, name="found")

    model = Model(tf, tmp_path / "model", build)
    make(model.prefix, tmp_path / "served", "--outputs", "found")
    require_same(tf, f"{model.prefix}.meta", model.prefix, tmp_path / "served")
    served = files(tmp_path / "served")
    assert (served["assets/vocab"], served["assets/vocab_1"]) == (b"a\nb\n", b"b\nc\na\n")


@tensorflow
@pytest.mark.parametrize("use_resource", [False, True])
@pytest.mark.parametrize("saver", [True, False])
def test_variables_of_each_kind_with_and_without_a_saver(make, tf, tmp_path, use_resource, saver):
    """Reference and resource variables, partitioned or not, are restored; a graph without a saver is given one."""

    def build(v1):
        x = v1.placeholder("float32", [None, 5], "x")
        cut = v1.fixed_size_partitioner(2)
        kernel = v1.get_variable(
            "kernel",
            [5, 3],
            initializer=v1.random_normal_initializer(seed=1),
            partitioner=cut,
            use_resource=use_resource,
        )
        v1.nn.softmax(v1.matmul(x, kernel) + ramp(v1, "bias", [3], use_resource=use_resource), name="y")

    model = Model(tf, tmp_path / "model", build, saver=saver)
    make(model.prefix, tmp_path / "served", "--inputs", "x", "--outputs", "y")
    require_same(tf, f"{model.prefix}.meta", model.prefix, tmp_path / "served")
    assert ckpttool.open_graph(tmp_path / "served").message.saver_def.restore_op_name == "save/restore_all"


@tensorflow
def test_the_saver_may_stand_in_the_collection(make, tf, tmp_path):
    """A graph that names its saver only in the collection `savers`, as monitored sessions do, keeps that one."""

    def build(v1):
        v1.multiply(v1.placeholder("float32", [], "x"), ramp(v1, "w", [3]), name="y")
        v1.add_to_collection("savers", v1.train.Saver(name="mine"))

    model = Model(tf, tmp_path / "model", build, saver=False)
    assert not ckpttool.open_graph(model.prefix).message.HasField("saver_def")
    make(model.prefix, tmp_path / "served", "--outputs", "y")
    require_same(tf, f"{model.prefix}.meta", model.prefix, tmp_path / "served")
    assert ckpttool.open_graph(tmp_path / "served").message.saver_def.restore_op_name == "mine/restore_all"


@tensorflow
def test_a_v1_checkpoint_becomes_a_bundle(make, tf, tmp_path):
    """From a checkpoint of the format V1, slices included, a bundle is written that gives the same outputs."""

    def build(v1):
        x = v1.placeholder("float32", [None, 4], "x")
        cut = v1.fixed_size_partitioner(3)
        kernel = v1.get_variable("kernel", [4, 2], initializer=v1.random_normal_initializer(seed=2), partitioner=cut)
        v1.matmul(x, kernel, name="y")

    model = Model(tf, tmp_path / "model", build, write_version=1)
    assert ckpttool.open_checkpoint(model.prefix).format.startswith("TensorFlow checkpoint V1")
    make(model.prefix, tmp_path / "served", "--outputs", "y")
    require_same(tf, f"{model.prefix}.meta", model.prefix, tmp_path / "served")


@tensorflow
def test_a_saver_of_the_format_v1_reads_the_bundle(make, tf, tmp_path):
    """Restore and RestoreSlice ops, which can't read a bundle, are replaced; their savers restored the same values."""

    def build(v1):
        x = v1.placeholder("float32", [None, 4], "x")
        whole = ramp(v1, "whole", [2], use_resource=False)
        sliced = ramp(v1, "sliced", [4, 2], use_resource=False)
        v1.add(v1.matmul(x, sliced), whole, name="y")
        name = v1.placeholder_with_default("model", [], "old/Const")
        read = tf.raw_ops.Restore(file_pattern=name, tensor_name="whole", dt="float32", name="old/restore")
        top = tf.raw_ops.RestoreSlice(
            file_pattern=name, tensor_name="sliced", shape_and_slice="4 2 0,3:-", dt="float32", name="old/top"
        )
        rest = tf.raw_ops.RestoreSlice(
            file_pattern=name, tensor_name="sliced", shape_and_slice="4 2 3,1:-", dt="float32", name="old/rest"
        )
        set_whole = v1.assign(whole, v1.reshape(read, [2]))
        v1.group(set_whole, v1.assign(sliced, v1.concat([top, rest], 0)), name="old/restore_all")
        v1.identity(name, name="old/saved")
        return v1.train.SaverDef(
            filename_tensor_name="old/Const:0",
            save_tensor_name="old/saved:0",
            restore_op_name="old/restore_all",
            version=1,
        )

    model = Model(tf, tmp_path / "model", build, saver=False, write_version=1)
    make(model.prefix, tmp_path / "served", "--outputs", "y")
    require_same(tf, f"{model.prefix}.meta", model.prefix, tmp_path / "served")
    types = {node.name: node.type for node in ckpttool.open_graph(tmp_path / "served").nodes}
    assert {types[f"old/{name}"] for name in ("restore", "top", "rest")} == {"RestoreV2"}


@tensorflow
def test_an_init_op_that_is_there_is_run_too(make, tf, tmp_path):
    """An op in legacy_init_op is run together with the others; alone in saved_model_main_op it stays as it is."""

    def build(v1):
        state = v1.get_variable("state", initializer=1.0, collections=["mine"], use_resource=True)
        other = v1.get_variable("other", initializer=5.0, collections=["local_variables"], use_resource=True)
        v1.add_to_collection("legacy_init_op", v1.assign(state, 7.0).op)
        v1.multiply(v1.placeholder("float32", [], "x") * ramp(v1, "w", []), state * other, name="y")

    model = Model(tf, tmp_path / "model", lambda v1: (build(v1), v1.global_variables_initializer())[0])
    make(model.prefix, tmp_path / "one", "--outputs", "y")
    assert len({bits(found["y"])[2] for found in of_all(tf, tmp_path / "one")}) == 1
    graph = ckpttool.open_graph(tmp_path / "one")
    assert "legacy_init_op" not in graph.collections
    (main,) = graph.collections["saved_model_main_op"].members
    assert set(graph.node(main).inputs) == {"^AssignVariableOp", "^other/Assign"}
    make(tmp_path / "one", tmp_path / "two", "--outputs", "y")
    again = ckpttool.open_graph(tmp_path / "two")
    assert again.collections["saved_model_main_op"].members == [main]
    assert again.data == graph.data


@tensorflow
def test_devices_are_no_obstacle(make, tf, tmp_path):
    """A graph placed on GPUs and TPUs of other machines, exported without a saver, is served from here."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saved = tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "w"),
            tensor_names=["weight"],
            shape_and_slices=[""],
            tensors=[tf.constant([1.0, 2.0])],
        )
        session.run(saved)
    meta = FIXTURES / "devices" / "model.meta"
    arguments = [
        "--checkpoint",
        tmp_path / "w",
        "--inputs",
        "x",
        "--outputs",
        "plain_call",
        "--outputs",
        "w=weight/read",
    ]
    make(meta, tmp_path / "served", *arguments)
    for found in of_all(tf, tmp_path / "served"):
        assert (found["w"].tolist(), found["plain_call"].shape) == ([1.0, 2.0], (2,))


@tensorflow
def test_a_frozen_graph_is_served(make, run, tf, tmp_path):
    """A GraphDef without variables becomes a SavedModel without any; one with variables is refused."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("float32", [None], "x")
        tf.multiply(x, 3.0, name="y")
        (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
        tf.compat.v1.get_variable("w", [2], use_resource=False)
        (tmp_path / "variables.pb").write_bytes(graph.as_graph_def().SerializeToString())
    make(tmp_path / "frozen.pb", tmp_path / "served", "--outputs", "y")
    assert len({bits(found["y"])[2] for found in of_all(tf, tmp_path / "served")}) == 1
    assert list(files(tmp_path / "served")) == ["saved_model.pb"]
    code, said = refusal(run, tmp_path / "variables.pb", "--outputs", "y", "-o", tmp_path / "no")
    assert (code, "the graph has variables, and no saver" in said) == (5, True)


@tensorflow
def test_a_saved_model_of_tensorflow_1_is_served_anew(make, tf, tmp_path, words):
    """TensorFlow's own SavedModel, with its assets and main op, is taken as a source and gives the same."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(f"{words.prefix}.meta").restore(session, str(words.prefix))
        builder = v1.saved_model.Builder(str(tmp_path / "theirs"))
        signature = v1.saved_model.signature_def_utils.predict_signature_def(
            {"words": graph.get_tensor_by_name("words:0")}, {"looked_up": graph.get_tensor_by_name("looked_up:0")}
        )
        main = v1.group(v1.tables_initializer(), v1.local_variables_initializer())
        assets = v1.get_collection("asset_filepaths")
        builder.add_meta_graph_and_variables(
            session, ["serve"], {SIGNATURE: signature}, assets_collection=assets, main_op=main
        )
        builder.save()
    (tmp_path / "vocab.txt").unlink()
    make(tmp_path / "theirs", tmp_path / "ours")
    assert signature_of(tf, tmp_path / "ours") == signature_of(tf, tmp_path / "theirs")
    expected = {key: bits(value) for key, value in of_load(tf, tmp_path / "theirs").items()}
    for found in of_all(tf, tmp_path / "ours"):
        assert {key: bits(value) for key, value in found.items()} == expected


# Refusals


REFUSED = {
    "no output directory": ([LINEAR, *ENDS], 2, "give the output: -o"),
    "no such op": ([LINEAR, "--outputs", "activation"], 3, "near names: activation_opt"),
    "no such output": ([LINEAR, "--outputs", "activation_opt:1"], 3, "its last output is activation_opt:0"),
    "no such output at all": ([LINEAR, "--outputs", f"x:{'9' * 5000}"], 3, "no op named x:999"),
    "no inputs": ([LINEAR, "--inputs", ",", "--outputs", "activation_opt"], 2, "--inputs names nothing"),
    "no such input": ([LINEAR, "--inputs", "y", "--outputs", "activation_opt"], 3, "no op named y"),
    "two of one name": ([LINEAR, "--outputs", "a=x", "--outputs", "a=W/read"], 2, "have both the name a"),
    "one tensor twice": (
        [LINEAR, "--inputs", "a=x,b=x:0", "--outputs", "activation_opt"],
        5,
        "no two inputs that are one tensor: a and b are x:0",
    ),
    "self": ([LINEAR, "--inputs", "self=x", "--outputs", "activation_opt"], 5, "a word of Python's own"),
    "a loader's signature": (
        [LINEAR, "--inputs", "x", "--outputs", "activation_opt", "--signature", "__saved_model_init_op"],
        5,
        "loaders keep signatures __saved_model_… to themselves",
    ),
    "a reference": ([LINEAR, "--outputs", "W"], 5, "take what reads it: W/read:0"),
    "nothing inferred": ([FIXTURES / "sharded" / "model"], 2, "found no output in this graph"),
    "a placeholder": (
        [FIXTURES / "conv" / "model", "--inputs", "images", "--outputs", "loss"],
        5,
        "loss:0 needs the placeholder labels",
    ),
    "a queue": (
        [FIXTURES / "recurrent" / "model", "--inputs", "training", "--outputs", "output"],
        5,
        "feed what it gives: --inputs shuffle_batch:0",
    ),
    "no checkpoint": ([FIXTURES / "devices" / "model.meta", "--outputs", "weight/read"], 3, "there is no checkpoint"),
    "a variable is missing": (
        [LINEAR, *ENDS, "--checkpoint", FIXTURES / "sharded" / "model"],
        3,
        "Key W not found in checkpoint",
    ),
    "a method's keys": ([LINEAR, *ENDS, "--method", "classify"], 5, "has the inputs inputs (string); got a (float32)"),
    "no method": ([LINEAR, *ENDS, "--method", "guess"], 2, "'guess' is not one of predict, classify, regress"),
    "a word of Python's": (
        [LINEAR, "--inputs", "class=x", "--outputs", "activation_opt"],
        5,
        "takes no input of the name",
    ),
    "a name that is no text": ([LINEAR, "--inputs", "\udcff=x", "--outputs", "activation_opt"], 2, "utf-8"),
    "a signature that is no text": ([LINEAR, *ENDS, "--signature", "\udcff"], 2, "are text in UTF-8"),
    "no tags": ([LINEAR, *ENDS, "--tags", ","], 2, "--tags is a list"),
    "no graph": ([FIXTURES / "dtypes" / "model", *ENDS], 3, "no graph here"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(run, tmp_path, monkeypatch, case):
    """What can't be served is refused with the reason and what to do, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    arguments, code, words = REFUSED[case]
    output = [] if case == "no output directory" else ["-o", "served"]
    found, said = refusal(run, *arguments, *output)
    assert (found, words in said) == (code, True), said
    assert list(tmp_path.iterdir()) == []


def test_ops_whose_attributes_were_taken(run, tmp_path):
    """Of the texts of other runtimes, in which ops lack what TensorFlow must know, that is the reason."""
    for op in ("Mul", "Unheard"):
        (tmp_path / "graph.pbtxt").write_text(f'node {{ name: "y" op: "NoOp" }} node {{ name: "x" op: "{op}" }}\n')
        found, said = refusal(run, tmp_path / "graph.pbtxt", "--outputs", "x", "-o", tmp_path / "served")
        reason = "the op x has no attribute T" if op == "Mul" else "the file does not describe the op type Unheard"
        assert (found, reason in said) == (5, True), said


@tensorflow
def test_another_shape_or_dtype_is_refused(run, tf, tmp_path):
    """A checkpoint whose variable has another shape or dtype than the graph's is refused, and the variable named."""
    for name, value in {"shape": tf.constant([1.0]), "dtype": tf.constant(1, "int32")}.items():
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tensors = [tf.constant(value.numpy()), tf.constant(0.0)]
            session.run(
                tf.raw_ops.SaveV2(
                    prefix=str(tmp_path / name), tensor_names=["W", "b"], shape_and_slices=["", ""], tensors=tensors
                )
            )
        code, said = refusal(run, LINEAR, *ENDS, "--checkpoint", tmp_path / name, "-o", tmp_path / "served")
        assert (code, "variable 'W'" in said) == (5, True)
        assert ("the graph restores [], the checkpoint has [1]" in said) == (name == "shape")
        assert ("the graph restores float32, the checkpoint has int32" in said) == (name == "dtype")


@tensorflow
def test_objects_of_tensorflow_2_are_refused(run, tf, tmp_path):
    """A SavedModel of TensorFlow 2 is more than its graph, and can't be made another one."""
    module = tf.Module()
    module.call = tf.function(lambda x: x + 1.0, [tf.TensorSpec([], "float32")])
    tf.saved_model.save(module, str(tmp_path / "theirs"), module.call)
    code, said = refusal(run, tmp_path / "theirs", "-o", tmp_path / "ours")
    assert (code, "a SavedModel of TensorFlow 2" in said) == (5, True)


@tensorflow
def test_the_methods_that_take_examples(make, tf, tmp_path):
    """--method regress and classify give signatures that TensorFlow takes for valid ones."""

    def build(v1):
        read = v1.parse_example(v1.placeholder("string", [None], "e"), {"x": v1.FixedLenFeature([], "float32")})
        v1.multiply(read["x"], ramp(v1, "w", []), name="y")

    model = Model(tf, tmp_path / "model", build)
    for method, output in {"regress": "outputs", "classify": "scores"}.items():
        arguments = ["--inputs", "inputs=e", "--outputs", f"{output}=y", "--method", method]
        make(model.prefix, tmp_path / method, *arguments)
        signature = signature_of(tf, tmp_path / method)
        assert signature.method_name == f"tensorflow/serving/{method}"
        assert tf.compat.v1.saved_model.is_valid_signature(signature)


def test_files_are_named_as_the_graph_has_them():
    """The name in assets/ is the last part of the graph's path, of either system; nothing is called `..`."""
    paths = {"a": "/data/vocab", "b": r"C:\data\vocab", "c": "..", "d": "/other/vocab", "e": "x\udcff"}
    found = file_names(
        {AssetFile(f"{op}:0", path, ()): f"{op}'s" if op != "d" else "a's" for op, path in paths.items()}
    )
    assert list(found.values()) == ["vocab", "vocab_1", "asset", "vocab", "x?"]


def test_many_tables_that_are_filled_one_after_another(monkeypatch):
    """What one needs is not gone through again for each that comes after it."""
    message, many, walks = proto.message_class("MetaGraphDef")(), 100, []
    for number in range(many):
        after = [f"^fill_{number - 1}"] if number else []
        message.graph_def.node.add(name=f"table_{number}", op="HashTableV2")
        message.graph_def.node.add(name=f"fill_{number}", op="InitializeTableV2", input=[f"table_{number}", *after])
    message.collection_def["table_initializer"].node_list.value.extend(f"fill_{number}" for number in range(many))
    place = "ckpttool.transforms.serving.initializing.needed_ops"
    monkeypatch.setattr(place, lambda *given: walks.append(given) or needed_ops(*given))
    found = initializers(MetaGraph(message.SerializeToString()), [], [], {})
    assert found == ([f"fill_{number}" for number in range(many)], {}, [])
    assert len(walks) < 10


def test_many_queues_are_fed():
    """What takes from a queue is looked up, and not looked for, at each input of each op."""
    message, many = proto.message_class("GraphDef")(), 25_000
    for number in range(many):
        message.node.add(name=f"queue_{number}", op="FIFOQueueV2")
        message.node.add(name=f"x_{number}", op="QueueDequeueV2", input=[f"queue_{number}"])
    message.node.add(name="y", op="AddN", input=[f"x_{number}" for number in range(many)])
    graph = MetaGraph(message.SerializeToString(), root="GraphDef")
    with time_limit(5):
        assert len(likely_inputs(graph, {"y": "y:0"}, inferred=False)) == many


def test_many_files_are_named():
    """What names are taken is known, and not gathered anew for each file."""
    with time_limit(5):
        found = file_names({AssetFile(f"{n}:0", f"/data/{n}", ()): f"/data/{n}" for n in range(50_000)})
    assert found["7:0"] == "7"


# The directory


def test_an_output_is_replaced_whole(make, run, tmp_path):
    """Without --force what is there stays; with it all of an old SavedModel goes, but never anything else."""
    served = tmp_path / "served"
    make(FIXTURES / "sharded" / "model", served, *MODELS["sharded"])
    (served / "assets").mkdir()
    (served / "assets" / "old").write_text("old")
    before = files(served)
    assert refusal(run, LINEAR, *ENDS, "-o", served)[0] == 2
    assert files(served) == before
    make(LINEAR, served, *ENDS, "--force")
    make(LINEAR, tmp_path / "fresh", *ENDS)
    assert files(served) == files(tmp_path / "fresh")
    (served / "notes.txt").write_text("mine")
    code, said = refusal(run, LINEAR, *ENDS, "-o", served, "--force")
    assert (code, "holds something else" in said) == (2, True)
    assert (served / "notes.txt").exists()
    code, said = refusal(run, tmp_path / "fresh", "-o", tmp_path / "fresh", "--force")
    assert (code, "the output is the input" in said) == (2, True)


def test_a_damaged_checkpoint_leaves_nothing(run, tmp_path):
    """Values without their checksum end the command, and no directory is left, nor is the old one touched."""
    for path in LINEAR.parent.iterdir():
        shutil.copy(path, tmp_path)
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(bytes(8))
    code, said = refusal(run, tmp_path / "model", *ENDS, "-o", tmp_path / "served")
    assert (code, "Checksum does not match" in said) == (4, True)
    assert not [path for path in tmp_path.iterdir() if "served" in path.name]


KILLED = """
import sys, time
from ckpttool.formats.saved_model import writing as saved_model_writer
def stop(*arguments, **options):
    print("here", flush=True)
    time.sleep(60)
saved_model_writer._copy = stop
saved_model_writer.write_bundle = stop
from ckpttool.cli import app
app(sys.argv[1:])
"""


def test_a_killed_command_leaves_no_half_directory(tmp_path):
    """Killed while it writes, it leaves nothing under the output's name, and the old one whole under --force."""
    served = tmp_path / "served"
    arguments = ["saved-model", str(LINEAR), *ENDS, "-o", str(served)]
    for force in ([], ["--force"]):
        if force:
            subprocess.run([sys.executable, "-m", "ckpttool", *arguments], check=True, capture_output=True)
        before = files(served)
        running = subprocess.Popen([sys.executable, "-c", KILLED, *arguments, *force], stdout=subprocess.PIPE)
        assert running.stdout.readline() == b"here\n"
        running.send_signal(signal.SIGKILL)
        running.wait(30)
        running.stdout.close()
        assert files(served) == before
    assert before


def test_the_library_does_it_too(tmp_path):
    """`servable` and `write_saved_model` make what the command makes."""
    graph, checkpoint = ckpttool.open_graph(LINEAR), ckpttool.open_checkpoint(LINEAR)
    served = servable(graph, checkpoint, {"a": "x:0"}, {"b": "activation_opt:0"})
    write_saved_model(served.graph, served.variables, tmp_path / "served")
    assert list(files(tmp_path / "served")) == [
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    assert graph.data == ckpttool.open_graph(LINEAR).data
    with pytest.raises(ckpttool.ConversionError, match="a MetaGraphDef is no SavedModel"):
        write_saved_model(graph, checkpoint, tmp_path / "no")


@tensorflow
@pytest.mark.parametrize("use_resource", [False, True])
def test_a_local_variable_that_is_stored_is_not_initialized(tf, run, tmp_path, use_resource):
    """What the saver restores, no initializer overwrites: neither that of a main op nor TensorFlow's own."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        weight = v1.get_variable("weight", initializer=1.0, use_resource=use_resource)
        local = v1.get_local_variable("local", initializer=0.0, use_resource=use_resource)
        v1.add(weight, local, name="y")
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        session.run(v1.assign(local, 41.0))
        v1.train.Saver([*v1.global_variables(), *v1.local_variables()]).save(session, str(tmp_path / "model"))
    assert run("saved-model", tmp_path / "model", "--outputs", "y", "-o", tmp_path / "served").exit_code == 0
    assert {float(found["y"]) for found in of_all(tf, tmp_path / "served")} == {42.0}


@tensorflow
def test_a_variable_that_the_saver_leaves_out_is_named(tf, run, tmp_path):
    """An output that needs a variable with no value anywhere is refused, as TensorFlow would fail to run it (3)."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        stored, lost = (v1.get_variable(name, initializer=[1.0, 2.0]) for name in ("stored", "lost"))
        v1.identity(stored * 2.0, name="x")
        v1.add(stored, lost, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver([stored]).save(session, str(tmp_path / "model"))
    code, said = refusal(run, tmp_path / "model", "--outputs", "y", "-o", tmp_path / "served")
    assert (code, "that the graph's saver does not restore: lost" in said) == (3, True), said
    assert not (tmp_path / "served").exists()
    assert run("saved-model", tmp_path / "model", "--outputs", "x", "-o", tmp_path / "served").exit_code == 0


@tensorflow
def test_a_variable_that_the_output_writes_itself_is_served(tf, run, tmp_path):
    """What an output assigns before it reads needs no stored value."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", [2], name="x")
        weight = v1.get_variable("weight", initializer=[1.0, 2.0])
        scratch = v1.get_variable("scratch", [2], collections=[], use_resource=True)
        with v1.control_dependencies([v1.assign(scratch, x)]):
            v1.multiply(scratch.read_value(), weight, name="y")
        session.run(weight.initializer)
        v1.train.Saver([weight]).save(session, str(tmp_path / "model"))
    arguments = ("--inputs", "x=x:0", "--outputs", "y", "-o", tmp_path / "served")
    result = run("saved-model", tmp_path / "model", *arguments)
    assert result.exit_code == 0, result.stderr
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert served(x=tf.constant([3.0, 4.0]))["y"].numpy().tolist() == [3, 8]


@tensorflow
def test_what_is_restored_into_several_variables_is_served(tf, run, make, tmp_path):
    """Each device's copy of a variable, as a MirroredStrategy has them, is restored from the one that is stored."""
    from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

    class Mirrored(SaveableObject):
        """Saves the first of several variables, and restores all of them, as distribute/values.py does."""

        def __init__(self, variables):
            self.variables = variables
            super().__init__(variables[0], [SaveSpec(variables[0], "", "mirrored")], "mirrored")

        def restore(self, tensors, shapes):
            return tf.group(*(tf.compat.v1.assign(variable, tensors[0]) for variable in self.variables))

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        copies = [v1.get_variable(name, initializer=[1.0, 2.0], use_resource=True) for name in ("m", "m/replica_1")]
        v1.concat(copies, 0, name="y")
        session.run(v1.global_variables_initializer())
        session.run([v1.assign(copy, [3.0, 4.0]) for copy in copies])
        v1.train.Saver([Mirrored(copies)]).save(session, str(tmp_path / "model"))
    make(tmp_path / "model", tmp_path / "served", "--outputs", "y")
    assert [found["y"].tolist() for found in of_all(tf, tmp_path / "served")] == [[3, 4, 3, 4]] * 3
    result = run("run", tmp_path / "model", "--fetch", "y", "--format", "json")
    assert "[3.0, 4.0, 3.0, 4.0]" in result.stdout
    assert "initialized" not in result.stderr


@tensorflow
def test_several_ops_that_hold_one_variable_are_served(tf, run, make, tmp_path):
    """By its shared name, another op leads to a variable too: tf.saved_model.load would find none there."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", [2], name="x")
        weight = v1.get_variable("weight", initializer=[1.0, 2.0], use_resource=True)
        again = tf.raw_ops.VarHandleOp(dtype="float32", shape=[2], shared_name="weight")
        v1.add(x * weight, tf.raw_ops.ReadVariableOp(resource=again, dtype="float32"), name="y")
        session.run(weight.initializer)
        v1.train.Saver().save(session, str(tmp_path / "model"))
    make(tmp_path / "model", tmp_path / "served", "--inputs", "x", "--outputs", "y")
    require_same(tf, tmp_path / "model.meta", tmp_path / "model", tmp_path / "served")


def test_what_nobody_has_is_not_looked_for_among_near_names(monkeypatch):
    """Of a thousand members that no op has, each would be compared with all ops."""
    message = proto.message_class("MetaGraphDef")()
    message.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    message.collection_def["mine"].node_list.value.extend(["x", *(f"table_{number}:0" for number in range(5))])
    looked_for = []
    monkeypatch.setattr("ckpttool.model.graph.near_hint", lambda name, others: looked_for.append(name))
    found = servable(MetaGraph(message.SerializeToString()), None, {"x": "x"}, {"y": "x"})
    assert (len(found.unlisted), found.graph.collections["mine"].members, looked_for) == (5, ["x"], [])


@tensorflow
def test_what_a_collection_names_and_nobody_has_is_in_no_loaders_way(tf, run, make, tmp_path):
    """A table that is made in a scope is listed without it, and TensorFlow then loads nothing; the member goes, and is
    said. Others of the collection stay.
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("int64", [None], name="x")
        with v1.name_scope("scope"):
            table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
        found = tf.add(table.lookup(x), v1.get_variable("w", initializer=np.int64(2)), name="y")
        v1.add_to_collection("mine", found)
        session.run([v1.global_variables_initializer(), table.insert([1, 2], [10, 20])])
        v1.train.Saver().save(session, str(tmp_path / "model"))
    with pytest.raises(KeyError, match="MutableHashTable"), tf.Graph().as_default():
        v1.train.import_meta_graph(str(tmp_path / "model.meta"))
    more = ["y:1", "y"]  # No such output; an op.
    edit_meta(tf, tmp_path / "model", lambda message: message.collection_def["mine"].node_list.value.extend(more))
    said = make(tmp_path / "model", tmp_path / "served", "--inputs", "x", "--outputs", "y")
    for member, collection in (("MutableHashTable", "saveable_objects"), ("y:1", "mine")):
        assert f"{member} was removed from the collection {collection}: the graph has no such op or tensor" in said
    collections = ckpttool.open_graph(tmp_path / "served").collections
    assert (collections["mine"].members, "saveable_objects" in collections) == (["y:0", "y"], False)
    served = tf.saved_model.load(str(tmp_path / "served"))
    assert served.signatures["serving_default"](x=tf.constant([2, 3], tf.int64))["y"].numpy().tolist() == [22, 1]
