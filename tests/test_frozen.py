"""Constants of frozen graphs as variables: TensorFlow's own freezing and decoding are the judges."""

import numpy as np
import pytest
from conftest import FIXTURES, FROZEN, corpus_id, needs_corpus
from google.protobuf import text_format

import ckpttool
from ckpttool import proto
from ckpttool.errors import CorruptionError, NotFoundError, NotSupportedError

LINEAR, CONV = FIXTURES / "linear" / "model", FIXTURES / "conv" / "model"
DTYPES = [
    *("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"),
    *("uint64", "bool", "complex64", "complex128", "float8_e5m2", "float8_e4m3fn", "float4_e2m1fn", "int4", "uint4"),
]


def graph_of(*tensors):
    """A GraphDef of constants c0, c1, …"""
    graph_def = proto.message_class("GraphDef")()
    for number, tensor in enumerate(tensors):
        node = graph_def.node.add(name=f"c{number}", op="Const")
        node.attr["value"].tensor.MergeFromString(tensor.SerializeToString())
    return graph_def


def written(tmp_path, graph_def):
    (tmp_path / "frozen.pb").write_bytes(graph_def.SerializeToString())
    return tmp_path / "frozen.pb"


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


@pytest.mark.tensorflow
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_as_tensorflow_decodes_them(dtype, tf, tmp_path):
    """Bytes, values one by one, the last of them for the rest, and one for all: as tf.make_ndarray has them."""
    kind = tf.as_dtype(dtype).as_numpy_dtype
    array = np.array([[1, 0, 3], [2, 1, 1]]).astype(kind)
    whole = tf.make_tensor_proto(array)
    few = tf.make_tensor_proto(array.ravel()[:4])
    listed = [tf.make_tensor_proto(value) for value in array.ravel()[:2]]
    content = proto.message_class("TensorProto")(dtype=whole.dtype, tensor_content=array.tobytes())
    content.tensor_shape.dim.add(size=6)
    splat = tf.make_tensor_proto(array.ravel()[0], shape=[2, 2])
    tensors = [whole, few, *listed, content, splat]
    found = ckpttool.open_checkpoint(written(tmp_path, graph_of(*tensors)))
    assert list(found) == [f"c{number}" for number in range(len(tensors))]
    for number, tensor in enumerate(tensors):
        expected = array.ravel() if tensor is content else tf.make_ndarray(tensor)
        assert same(found[f"c{number}"].numpy(), expected), number


@pytest.mark.tensorflow
def test_strings(tf, tmp_path):
    """Texts, one text for all, and texts as bytes, which C++ writes: as TensorFlow runs the constants."""
    tensors = [
        tf.make_tensor_proto([b"a\0", b"", b"\xff"]),
        tf.make_tensor_proto(b"x", shape=[2, 2]),
        tensor(7, [3], tensor_content=b"\2\0\3abxyz"),
    ]
    graph_def = graph_of(*tensors)
    for node in graph_def.node:
        node.attr["dtype"].type = 7
    found = ckpttool.open_checkpoint(written(tmp_path, graph_def))
    assert [found["c0"].numpy().tolist(), found["c1"].numpy().tolist()] == [[b"a\0", b"", b"\xff"], [[b"x"] * 2] * 2]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(graph_def.SerializeToString()), name="")
        for name, variable in found.items():
            assert variable.numpy().tolist() == session.run(f"{name}:0").tolist()


@pytest.mark.tensorflow
def test_what_tensorflow_has_frozen(tf, run, tmp_path):
    """The constants that TensorFlow puts in variables' places are exported with the checkpoint's values."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        v1.train.import_meta_graph(f"{CONV}.meta").restore(session, str(CONV))
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["predictions"])
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    assert run("export", tmp_path / "frozen.pb", "--npz", tmp_path / "out.npz").exit_code == 0
    checkpoint = ckpttool.open_checkpoint(CONV)
    with np.load(tmp_path / "out.npz") as archive:
        weights = sorted(set(archive) & set(checkpoint))
        assert weights == ["bn/gamma", "conv/kernel", "dense/bias", "dense/kernel"]
        for name in weights:
            assert same(archive[name], checkpoint[name].numpy())


def test_beside_the_checkpoint(run, tmp_path):
    """diff compares values with the constants that have variables' names, in either order; vars and cat show them."""
    assert run("freeze", f"{LINEAR}.meta", "--outputs", "activation_opt", "-o", tmp_path / "frozen.pb").exit_code == 0
    frozen = tmp_path / "frozen.pb"
    for sides in ((f"{LINEAR}.index", frozen), (frozen, f"{LINEAR}.index")):
        assert run("diff", *sides).exit_code == 0
    other = ckpttool.from_arrays({"W": np.float32(7), "b": ckpttool.open_checkpoint(LINEAR)["b"].numpy()})
    ckpttool.write_npz(other, tmp_path / "other.npz")
    result = run("diff", frozen, tmp_path / "other.npz")
    assert (result.exit_code, "W" in result.stdout, "\nb" in result.stdout) == (1, True, False)
    assert run("diff", frozen, frozen).exit_code == 0
    assert "W\t" in run("vars", frozen).stdout
    assert run("verify", frozen).exit_code == 0
    graph_def = proto.parse("GraphDef", frozen.read_bytes())
    (tmp_path / "frozen.pbtxt").write_text(text_format.MessageToString(graph_def))
    assert run("cat", tmp_path / "frozen.pbtxt", "W").stdout == run("cat", f"{LINEAR}.index", "W").stdout


def test_beside_what_optimizers_have(run, tmp_path):
    """Slots, averages and powers are in no frozen graph, and no difference; what the outputs need not, is one."""
    run("freeze", f"{CONV}.meta", "--outputs", "predictions", "-o", tmp_path / "frozen.pb")
    result = run("diff", tmp_path / "frozen.pb", f"{CONV}.index")
    only = {line.split("\t")[0] for line in result.stdout.splitlines() if "only in B" in line}
    assert (result.exit_code, only) == (1, {"bn/moving_mean", "bn/moving_variance", "global_step"})


@pytest.mark.tensorflow
def test_beside_objects(tf, run, tmp_path):
    """A graph frozen from a SavedModel of TensorFlow 2 has variables' full names, and the checkpoint keys."""
    module = tf.Module()
    module.weight = tf.Variable([1.0, 2.0], name="w")
    module.call = tf.function(lambda x: x * module.weight, [tf.TensorSpec([2], "float32")])
    tf.saved_model.save(module, str(tmp_path / "model"), module.call)
    assert run("freeze", tmp_path / "model", "-o", tmp_path / "frozen.pb").exit_code == 0
    result = run("diff", tmp_path / "model" / "variables" / "variables.index", tmp_path / "frozen.pb")
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr


def test_beside_another_model(run, tmp_path):
    """Where no constant has a variable's name, nothing was compared, and that is said."""
    prefix = written(tmp_path, graph_of(tensor(1, [1], float_val=[1])))
    result = run("diff", prefix, f"{LINEAR}.index")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "no constant of the graph has the name of a variable" in result.stderr


def test_what_is_passed_over_is_refused_if_all_is_wanted(run, tmp_path):
    """--strict is about constants, too."""
    path = written(tmp_path, graph_of(tensor(1, [1], float_val=[2]), tensor(1, [-1])))
    assert run("export", path, "--npz", tmp_path / "out.npz").exit_code == 0
    result = run("export", path, "--npz", tmp_path / "strict.npz", "--strict")
    assert (result.exit_code, (tmp_path / "strict.npz").exists()) == (5, False)


def test_what_is_not_frozen(tmp_path):
    """A graph with variables has its values elsewhere, and one without constants has none."""
    graph_def = proto.parse("MetaGraphDef", LINEAR.with_suffix(".meta").read_bytes()).graph_def
    with pytest.raises(NotFoundError, match="no variables here"):
        ckpttool.open_checkpoint(written(tmp_path, graph_def))
    only = proto.message_class("GraphDef")()
    only.node.add(name="x", op="Placeholder")
    with pytest.raises(NotFoundError, match="no variables here"):
        ckpttool.open_checkpoint(written(tmp_path, only))


def tensor(dtype: int, sizes: list[int], **values):
    made = proto.message_class("TensorProto")(dtype=dtype, **values)
    for size in sizes:
        made.tensor_shape.dim.add(size=size)
    return made


HOSTILE = {
    "more than a graph has": (tensor(1, [1 << 15, 1 << 15], float_val=[1]), NotSupportedError, "more than a graph"),
    "much of little": (tensor(1, [1 << 28], float_val=[1, 2]), NotSupportedError, "of which 2 are given"),
    "texts of nothing": (tensor(7, [1 << 26], string_val=[b"x"]), NotSupportedError, "of which 1 are given"),
    "bytes that are not there": (tensor(1, [3], tensor_content=b"12345678"), CorruptionError, "8 bytes for float32"),
    "texts that are not there": (
        tensor(7, [2], tensor_content=b"\1\2ab"),
        CorruptionError,
        "4 bytes for 2 strings of 3",
    ),
    "a handle": (tensor(20, []), NotSupportedError, "resource"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_constants_that_are_none(case, tmp_path):
    """What can't be a constant's values is refused when they are asked for, at once, and takes no memory."""
    made, error, words = HOSTILE[case]
    variable = ckpttool.open_checkpoint(written(tmp_path, graph_of(made)))["c0"]
    with pytest.raises(error, match=words):
        variable.numpy()


def test_a_constant_without_a_shape(tmp_path):
    """It is passed over, and said."""
    made = tensor(1, [-1]), tensor(1, [1 << 60, 1 << 60])
    found = ckpttool.open_checkpoint(written(tmp_path, graph_of(tensor(1, [1], float_val=[2]), *made)))
    assert list(found) == ["c0"]
    assert found.warnings[0] == "c1 is passed over: a constant without a shape"
    assert "more than a graph can have" in found.warnings[1]


@needs_corpus
@pytest.mark.tensorflow
@pytest.mark.parametrize("path", FROZEN, ids=corpus_id)
def test_real_graphs(path, tf):
    """Every constant of every frozen graph is what tf.make_ndarray makes of it."""
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    nodes = {node.name: node for node in graph_def.node if node.op == "Const"}
    found = ckpttool.open_checkpoint(path)
    assert set(found) == set(nodes)
    for name, variable in found.items():
        expected = tf.make_ndarray(nodes[name].attr["value"].tensor)
        if expected.dtype == object:
            assert variable.numpy().tolist() == expected.tolist()
        else:
            assert same(variable.numpy(), expected)


@pytest.mark.tensorflow
def test_a_checkpoint_for_a_frozen_graph(tf, run, tmp_path):
    """Who asks for other values than those that are in the graph is told that none are taken, with --quiet too."""
    frozen = tmp_path / "frozen.pb"
    assert run("freeze", LINEAR, "--outputs", "activation_opt", "-o", frozen).exit_code == 0
    said = f"warning: the graph has no variables: nothing is taken from {LINEAR}\n"
    ends = ("--checkpoint", LINEAR, "--quiet")
    assert run("run", frozen, "--feed", "x:0=50", "--fetch", "activation_opt", *ends).stderr == said
    assert run("freeze", frozen, "--outputs", "activation_opt", "-o", tmp_path / "b.pb", *ends).stderr == said
    assert run("saved-model", frozen, "--outputs", "activation_opt", "-o", tmp_path / "served", *ends).stderr == said
    assert "no variables" not in run("run", LINEAR, "--feed", "x:0=50", "--fetch", "activation_opt", *ends).stderr
