"""SavedModels of both generations give what tf.saved_model.load gives, signature by signature, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CORPUS, corpus_files, needs_corpus
from google.protobuf import any_pb2

import ckpttool
from ckpttool import proto

pytestmark = pytest.mark.tensorflow

# Those that can't be run, with the reason; TensorFlow's loader fails with them too.
CANNOT = {
    "google_bleurt/bleurt/test_checkpoint": r"no value: data file is missing",
    "alibaba_easyrec_lfs_pointers/data/test/inference/lookup_export": "a Git LFS pointer",
    "alibaba_easyrec_lfs_pointers/data/test/inference/tb_multitower_export": "a Git LFS pointer",
}
FOLDERS = sorted({path.parent for path in corpus_files("saved_model.pb*")})


def _key(folder: Path) -> str:
    return str(folder.relative_to(CORPUS))


# What tf.saved_model.load can't load (references as outputs; shapes that contradict); TensorFlow 1's loader can.
_ONLY_V1 = ("saved_model_counter", "saved_model_half_plus_three")


def _value(tf, tensor, key, size, some):
    shape = [size if n is None else n for n in tensor.shape.as_list()] if tensor.shape.rank is not None else some
    if tensor.dtype.base_dtype == tf.string:
        features = {key: tf.train.Feature(float_list=tf.train.FloatList(value=[2.5])) for key in ("x", "x2")}
        example = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
        return np.full(shape, example, object)
    return (np.random.default_rng(len(key)).random(shape) * 8).astype(tensor.dtype.as_numpy_dtype)


def _by_function(tf, folder):
    """What tf.saved_model.load gives: for each signature, a function of its inputs."""
    loaded = tf.saved_model.load(str(folder))

    def run(name, feeds):
        found = loaded.signatures[name](**{key: tf.constant(value) for key, value in feeds.items()})
        return {key: value.numpy() for key, value in found.items()}

    return run


def _by_session(tf, folder):
    """The same by TensorFlow 1's loader: a session for each run, for they may change its state."""
    v1 = tf.compat.v1

    def run(name, feeds):
        with tf.Graph().as_default(), v1.Session() as session:
            signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def[name]
            fed = {signature.inputs[key].name: value for key, value in feeds.items()}
            return session.run({key: info.name for key, info in signature.outputs.items()}, fed)

    return run


def _compare(tf, folder):
    """Runs every signature both ways; how many there were."""
    judge = (_by_session if any(part in str(folder) for part in _ONLY_V1) else _by_function)(tf, folder)
    names = [name for name in ckpttool.open_graph(folder).signatures if not name.startswith("__saved_model")]
    for name in names:
        with ckpttool.ImportedGraph(folder) as model:
            inputs = {key: tensor for key, (tensor, _) in model.signatures[name].inputs.items()}
            # One of them multiplies what is fed with a batch of one.
            size = 1 if "mkl" in str(folder) else 2
            some = [] if "counter" in str(folder) else [size]
            feeds = {key: _value(tf, model.tensor(tensor), key, size, some) for key, tensor in inputs.items()}
            found = model.run(signature=name, feeds=feeds)
        expected = judge(name, feeds)
        assert found.keys() == expected.keys()
        assert {key: _bits(value) for key, value in found.items()} == {k: _bits(v) for k, v in expected.items()}
    return len(names)


def _bits(value):
    array = np.asarray(value)
    return array.dtype, array.shape, array.tolist() if array.dtype == object else array.tobytes()


@needs_corpus
@pytest.mark.parametrize("folder", FOLDERS, ids=_key)
def test_the_corpus_signatures_are_those_of_the_loader(folder, tf):
    """Every signature of every SavedModel of the corpus, or the reason why it can't be run."""
    if _key(folder) not in CANNOT:
        assert _compare(tf, folder)
        return
    with pytest.raises(ckpttool.CheckpointError, match=CANNOT[_key(folder)]), ckpttool.ImportedGraph(folder) as model:
        model.run(None, {endpoint.tensor: np.zeros([1, 512], np.int64) for endpoint in model.inputs})


@pytest.fixture(scope="module")
def of_tensorflow_2(tf, tmp_path_factory):
    """Variables, a table filled from an asset, and two signatures."""
    folder = tmp_path_factory.mktemp("tf2")
    (folder / "words.txt").write_text("zero\none\ntwo\n")

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable([[1.5], [2.5]])
            words = tf.lookup.TextFileInitializer(
                str(folder / "words.txt"),
                *("string", tf.lookup.TextFileIndex.WHOLE_LINE, "int64", tf.lookup.TextFileIndex.LINE_NUMBER),
            )
            self.table = tf.lookup.StaticHashTable(words, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, 2], "float32", name="x")])
        def scale(self, x):
            return {"y": tf.matmul(x, self.w), "sum": tf.reduce_sum(x)}

        @tf.function(input_signature=[tf.TensorSpec([None], "string", name="word")])
        def number(self, word):
            return {"number": self.table.lookup(word)}

    model = Model()
    tf.saved_model.save(model, folder / "model", {"serving_default": model.scale, "number": model.number})
    (folder / "words.txt").unlink()  # What counts is in the SavedModel's assets.
    return folder / "model"


@pytest.fixture(scope="module")
def of_tensorflow_1(tf, tmp_path_factory):
    """A variable, a table filled from an asset by the main op, a sparse input, and a local variable."""
    folder = tmp_path_factory.mktemp("tf1")
    (folder / "words.txt").write_text("zero\none\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", [None], name="x")
        word = v1.placeholder("string", [None], name="word")
        w = v1.get_variable("w", initializer=3.0)
        local = v1.get_local_variable("local", initializer=0.5)
        file = v1.constant(str(folder / "words.txt"), name="file")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, file)
        index = tf.lookup.TextFileIndex
        words = tf.lookup.TextFileInitializer(file, "string", index.WHOLE_LINE, "int64", index.LINE_NUMBER)
        table = tf.lookup.StaticHashTable(words, -1)
        y, number = x * w + local, table.lookup(word)
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        builder = v1.saved_model.Builder(str(folder / "model"))
        info = v1.saved_model.build_tensor_info
        define = v1.saved_model.build_signature_def
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "serving_default": define({"inputs": info(x)}, {"out": info(y)}, "m"),
                "number": define({"word": info(word)}, {"number": info(number)}, "m"),
            },
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.group(v1.tables_initializer(), v1.local_variables_initializer()),
        )
        builder.save()
    (folder / "words.txt").unlink()
    return folder / "model"


def test_tensorflow_2(tf, of_tensorflow_2):
    """A SavedModel of TensorFlow 2 with a variable, and a table from an asset."""
    assert _compare(tf, of_tensorflow_2) == 2
    with ckpttool.ImportedGraph(of_tensorflow_2) as model:
        assert model.run(signature="number", feeds={"word": ["two", "?"]})["number"].tolist() == [2, -1]
        assert model.run(None, {"x": [[1, 1]]})["y"].tolist() == [[4]]


def test_tensorflow_1(tf, of_tensorflow_1):
    """A SavedModel of TensorFlow 1 with a main op that fills a table from an asset and sets a local variable."""
    assert _compare(tf, of_tensorflow_1) == 2
    with ckpttool.ImportedGraph(of_tensorflow_1) as model:
        assert model.run(None, {"inputs": [2]})["out"].tolist() == [6.5]
        assert model.notes == ()


def test_an_export_of_before_saved_models(tf, tmp_path):
    """A table of a session_bundle's export is filled from the copy in its assets, which a collection names."""
    export = tmp_path / "export"
    (export / "assets").mkdir(parents=True)
    (export / "assets" / "words.txt").write_text("zero\none\n")
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder("string", [None], name="word")
        w = v1.get_variable("w", initializer=10)
        file = v1.constant(str(tmp_path / "gone" / "words.txt"), name="file")
        index = tf.lookup.TextFileIndex
        words = tf.lookup.TextFileInitializer(file, "string", index.WHOLE_LINE, "int64", index.LINE_NUMBER)
        number = tf.lookup.StaticHashTable(words, -1).lookup(word)
        tf.multiply(tf.cast(number, tf.int32), w, name="number")
        session.run(w.initializer)
        asset = proto.message_class("serving.AssetFile")(filename="words.txt")
        asset.tensor_binding.tensor_name = "file:0"
        stored = any_pb2.Any(type_url="type.googleapis.com/tensorflow.serving.AssetFile", value=proto.serialize(asset))
        v1.add_to_collection("serving_assets", stored)
        v1.add_to_collection("serving_init_op", v1.tables_initializer())
        v1.train.Saver(sharded=True).save(session, str(export / "export"))
    with ckpttool.ImportedGraph(export) as model:
        assert model.run("number", {"word": ["one", "?"]}).tolist() == [10, -10]


def test_outputs_are_fetched_by_keys_of_signatures(tf, of_tensorflow_2):
    """As inputs are fed: by keys of the signature in use, or of the default one; else it is told whose key it is."""
    with ckpttool.ImportedGraph(of_tensorflow_2) as model:
        whole = model.run(feeds={"x": [[1, 2]]})
        assert model.run("y", {"x": [[1, 2]]}) == whole["y"]
        assert model.run({"a": ["sum", "y"]}, {"x": [[1, 2]]}) == {"a": [whole["sum"], whole["y"]]}
        assert model.run("number", {"word": ["two"]}, signature="number").tolist() == [2]
        with pytest.raises(ckpttool.NotFoundError, match=r"named number · .* · the signature number has it"):
            model.run("number", {"x": [[1, 2]]})


def test_the_command_takes_keys_of_signatures(run, of_tensorflow_2):
    """Inputs and outputs are named by the signature's keys, also in errors; the default signature needs no option."""
    result = run("run", of_tensorflow_2, "--feed", "x=[[1, 2]]", "--fetch", "y", "--signature", "serving_default")
    assert result.stdout.splitlines()[1].split("\t")[-1] == "[[6.5]]"
    assert "note: fetching number: " not in result.stderr
    assert run("run", of_tensorflow_2, "--feed", "x=[[1, 2]]", "--fetch", "y").stdout == result.stdout
    result = run("run", of_tensorflow_2, "--feed", "x=[[1, 2]]")
    assert "note: fetching sum, y: the outputs of the signature serving_default" in result.stderr
    result = run("run", of_tensorflow_2, "--signature", "number")
    assert result.exit_code == 2
    assert "word (number_word:0) must be fed" in result.stderr
