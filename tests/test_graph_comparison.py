"""`ckpttool diff` of graphs, and of a graph and a checkpoint: TensorFlow makes them, and changes them."""

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bundles import bundle
from conftest import FIXTURES, corpus_files, corpus_id, needs_corpus

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs.comparison import GraphChange, compare_graphs
from ckpttool.model.graph import MetaGraph

CONV = FIXTURES / "conv" / "model.meta"
DEVICES = FIXTURES / "devices" / "model.meta"


def message(path=CONV) -> Any:
    return proto.parse("MetaGraphDef", path.read_bytes())


def graph(meta_graph: Any) -> MetaGraph:
    return MetaGraph(meta_graph.SerializeToString())


def op(meta_graph: Any, name: str) -> Any:
    return next(node for node in meta_graph.graph_def.node if node.name == name)


def renamed(meta_graph: Any) -> None:
    op(meta_graph, "predictions").name = "probabilities"


def retyped(meta_graph: Any) -> None:
    op(meta_graph, "predictions").op = "Sigmoid"


def rewired(meta_graph: Any) -> None:
    op(meta_graph, "predictions").input[0] = "other:1"


def spelled(meta_graph: Any) -> None:
    node = op(meta_graph, "predictions")
    node.input[0] = f"{node.input[0]}:0"


def waiting(meta_graph: Any) -> None:
    op(meta_graph, "predictions").input.append("^labels")


def placed(meta_graph: Any) -> None:
    op(meta_graph, "predictions").device = "/gpu:0"


def attributes(meta_graph: Any) -> None:
    node = op(meta_graph, "predictions")
    node.attr["T"].type = 2
    node.attr["_more"].s = b"\x1b[2J"


def without_attribute(meta_graph: Any) -> None:
    del op(meta_graph, "predictions").attr["T"]


def collection(meta_graph: Any) -> None:
    del meta_graph.collection_def["losses"]
    meta_graph.collection_def["hyperparameters"].float_list.value.append(0.5)
    meta_graph.collection_def["new"].node_list.value.append("predictions")


def order(meta_graph: Any) -> None:
    values = meta_graph.collection_def["variables"].bytes_list.value
    values[:] = list(reversed(values))


def signature(meta_graph: Any) -> None:
    meta_graph.signature_def["predict"].inputs["x"].name = "images:0"


CHANGES: dict[Callable[[Any], None], list[GraphChange]] = {
    renamed: [
        GraphChange("op", "", "predictions", "only in A", "Softmax"),
        GraphChange("op", "", "probabilities", "only in B", "Softmax"),
    ],
    retyped: [GraphChange("op", "", "predictions", "changed", "type", "Softmax", "Sigmoid")],
    rewired: [GraphChange("op", "", "predictions", "changed", "inputs", "dense/add", "other:1")],
    spelled: [],
    waiting: [GraphChange("op", "", "predictions", "changed", "inputs", "dense/add", "dense/add, ^labels")],
    placed: [GraphChange("op", "", "predictions", "changed", "device", "", "/gpu:0")],
    attributes: [
        GraphChange("op", "", "predictions", "changed", "attribute T", "type: DT_FLOAT", "type: DT_DOUBLE"),
        GraphChange("op", "", "predictions", "changed", "attribute _more", "(none)", r's: "\033[2J"'),
    ],
    without_attribute: [GraphChange("op", "", "predictions", "changed", "attribute T", "type: DT_FLOAT", "(none)")],
    collection: [
        GraphChange("collection", "", "hyperparameters", "only in B", "member", "", 0.5),
        GraphChange("collection", "", "losses", "only in A"),
        GraphChange("collection", "", "new", "only in B"),
    ],
    order: [GraphChange("collection", "", "variables", "changed", "order")],
    signature: [GraphChange("signature", "", "predict", "only in B")],
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes(change):
    """What was changed is found, and nothing else; the other way round, it is the other way round."""
    changed = message()
    change(changed)
    found = compare_graphs(graph(message()), graph(changed))
    assert found == CHANGES[change]
    sides = {"only in A": "only in B", "only in B": "only in A", "changed": "changed"}
    swapped = [each._replace(change=sides[each.change], a=each.b, b=each.a) for each in found]
    assert sorted(map(repr, compare_graphs(graph(changed), graph(message())))) == sorted(map(repr, swapped))


def test_functions():
    """Ops inside functions, functions that only one has, and the other fields of a function."""
    changed = message(DEVICES)
    first, second = changed.graph_def.library.function[:2]
    first.node_def[0].device = "/gpu:7"
    first.signature.output_arg[0].type = 2
    gone, second.signature.name = second.signature.name, "another"
    name, inner = first.signature.name, first.node_def[0].name
    device = message(DEVICES).graph_def.library.function[0].node_def[0].device
    found = compare_graphs(graph(message(DEVICES)), graph(changed))
    assert [each[:5] for each in found if each.what == "signature"] == [("function", "", name, "changed", "signature")]
    assert [each for each in found if each.what != "signature"] == [
        GraphChange("function", "", gone, "only in A"),
        GraphChange("function", "", "another", "only in B"),
        GraphChange("op", name, inner, "changed", "device", device, "/gpu:7"),
    ]


def test_signature_fields():
    """Of a signature that both have, the inputs, outputs or method that are not the same."""
    one, other = message(), message()
    for meta_graph, name in ((one, "images:0"), (other, "labels:0")):
        meta_graph.signature_def["predict"].inputs["x"].name = name
        meta_graph.signature_def["predict"].outputs["y"].name = "predictions:0"
    [found] = compare_graphs(graph(one), graph(other))
    assert found[:5] == ("signature", "", "predict", "changed", "inputs")
    assert "images:0" in found.a
    assert "labels:0" in found.b


def test_order_means_nothing():
    """The order of ops, of functions and of what is only waited for, and what debuggers are told, are no difference."""
    one, other = message(), message()
    for meta_graph, waited in ((one, ["^a", "^b"]), (other, ["^b", "^a"])):
        op(meta_graph, "predictions").input.extend(waited)
        for number in range(99) if meta_graph is one else reversed(range(99)):
            op(meta_graph, "predictions").attr[f"_{number}"].i = number
    nodes = list(other.graph_def.node)
    del other.graph_def.node[:]
    other.graph_def.node.extend(reversed(nodes))
    other.graph_def.node[0].experimental_debug_info.original_node_names.append("x")
    assert compare_graphs(graph(one), graph(other)) == []


@pytest.mark.parametrize("path", sorted(FIXTURES.rglob("*.meta")), ids=lambda path: path.parent.name)
@pytest.mark.tensorflow
def test_map_order_means_nothing(path, tf):
    """A graph that TensorFlow parses and writes again, with its maps in any order, is the same."""
    data = path.read_bytes()
    parsed = tf.compat.v1.MetaGraphDef.FromString(data)
    for node in parsed.graph_def.node:
        attributes = {name: node.attr[name].SerializeToString() for name in sorted(node.attr, reverse=True)}
        node.attr.clear()
        for name, value in attributes.items():
            node.attr[name].ParseFromString(value)
    written = parsed.SerializeToString(deterministic=False)
    assert compare_graphs(MetaGraph(data), MetaGraph(written)) == []


@needs_corpus
@pytest.mark.parametrize("path", [p for p in corpus_files("*.meta") if p.stat().st_size < 1 << 20], ids=corpus_id)
@pytest.mark.tensorflow
def test_real_graphs(path, tf):
    """A real graph is the same as itself, written again by TensorFlow's protobuf."""
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        pytest.skip("a pointer")
    written = tf.compat.v1.MetaGraphDef.FromString(data).SerializeToString(deterministic=True)
    assert compare_graphs(MetaGraph(data), MetaGraph(written)) == []


@pytest.mark.tensorflow
def test_tensorflow_clears_devices(tf, run, tmp_path):
    """What TensorFlow changes when it clears devices is what the comparison finds: devices, and nothing else."""
    with tf.Graph().as_default():
        with tf.device("/gpu:1"):
            x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        with tf.device("/cpu:0"):
            tf.identity(x, name="y")
        tf.compat.v1.train.export_meta_graph(str(tmp_path / "a.meta"))
        tf.compat.v1.train.export_meta_graph(str(tmp_path / "b.meta"), clear_devices=True)
    document = json.loads(run("diff", tmp_path / "a.meta", tmp_path / "b.meta", "--json").stdout)
    assert [(row["name"], row["what"], row["b"]) for row in document["graph"]] == [
        ("x", "device", None),
        ("y", "device", None),
    ]


def test_large_values_are_not_printed():
    """Of a constant of megabytes its size is said."""
    one, other = message(), message()
    op(one, "predictions").attr["value"].tensor.tensor_content = b"\1" * 1_000_000
    op(other, "predictions").attr["value"].tensor.tensor_content = b"\2" * 100
    [found] = compare_graphs(graph(one), graph(other))
    assert found.a == "(1,000,008 bytes)"
    assert len(found.b) < 100


def test_command(run, tmp_path):
    """Two graphs: exit code 0 where they are the same, 1 where not; nothing drives the terminal."""
    changed = message()
    attributes(changed)
    (tmp_path / "b.meta").write_bytes(changed.SerializeToString())
    result = run("diff", CONV, CONV)
    assert (result.exit_code, result.stdout) == (0, "")
    result = run("diff", CONV, tmp_path / "b.meta")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert run("diff", CONV.with_suffix(""), tmp_path / "b.meta", "--graphs").exit_code == 1
    for option in (["--rtol", "1"], ["--include", "x"], ["--structure"]):
        assert run("diff", CONV, CONV, *option).exit_code == 2


# A graph and a checkpoint


@pytest.mark.parametrize("name", ["conv", "linear", "recurrent", "partitioned", "sharded"])
def test_a_graph_and_its_checkpoint(name, run):
    """What a graph's saver restores is what the checkpoint beside it has, in either order."""
    prefix = FIXTURES / name / "model"
    assert run("diff", f"{prefix}.meta", prefix).exit_code == 0
    assert run("diff", f"{prefix}.index", f"{prefix}.meta").exit_code == 0


def findings(run, meta, prefix) -> dict[str, str]:
    result = run("diff", meta, prefix, "--json")
    assert result.exit_code == 1
    return {row["variable"]: row["what"] for row in json.loads(result.stdout)["findings"]}


def test_a_graph_and_another_checkpoint(run, tmp_path):
    """What is missing (with near names), what is more, and what has another dtype or shape: all of it, and no more."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "linear" / "model")
    arrays = {name: variable.numpy() for name, variable in checkpoint.items()}
    assert set(arrays) == {"W", "b"}
    shutil.copy(FIXTURES / "linear" / "model.meta", tmp_path / "graph.meta")
    prefix = bundle({"W": arrays["W"].reshape(1), "bb": arrays["b"]}).write(tmp_path)
    found = findings(run, tmp_path / "graph.meta", prefix)
    assert found == {
        "W": "the graph restores [], the checkpoint has [1]",
        "b": "the graph restores it, and the checkpoint has no such variable; near names: bb",
        "bb": "the checkpoint has it, and the graph does not restore it",
    }
    found = findings(run, tmp_path / "graph.meta", bundle(arrays | {"W": arrays["W"].astype("f8")}).write(tmp_path))
    assert found == {"W": "the graph restores float32, the checkpoint has float64"}


def test_a_variable_that_is_restored_twice(run, tmp_path):
    """Of what is restored twice, each time is looked at."""
    changed = message(FIXTURES / "linear" / "model.meta")
    restore = op(changed, "save/RestoreV2")
    op(changed, restore.input[1]).attr["value"].tensor.string_val[:] = [b"W", b"W"]
    restore.attr["dtypes"].list.type[1] = 3
    (tmp_path / "graph.meta").write_bytes(changed.SerializeToString())
    assert findings(run, tmp_path / "graph.meta", FIXTURES / "linear" / "model.index") == {
        "W": "the graph restores int32, the checkpoint has float32",
        "b": "the checkpoint has it, and the graph does not restore it",
    }


def test_a_graph_that_does_not_say_which_saver_is_its_own(run, tmp_path):
    """A GraphDef is compared by what its ops restore; one that restores nothing, as if frozen, with nothing."""
    changed = message(FIXTURES / "linear" / "model.meta")
    (tmp_path / "graph.pb").write_bytes(changed.graph_def.SerializeToString())
    assert run("diff", tmp_path / "graph.pb", FIXTURES / "linear" / "model.index").exit_code == 0
    prefix = bundle({"W": np.float32(1)}).write(tmp_path)
    assert [*findings(run, tmp_path / "graph.pb", prefix)] == ["b"]
    kept = [node for node in changed.graph_def.node if not node.name.startswith("save/")]
    frozen = proto.message_class("GraphDef")(node=kept)
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    result = run("diff", prefix, tmp_path / "frozen.pb")
    assert (result.exit_code, result.stdout) == (5, "")
    assert "the graph restores no variables" in result.stderr


def test_a_graph_and_weights_of_another_format(run, tmp_path):
    """The checkpoint may be an archive of NumPy's."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "linear" / "model")
    ckpttool.write_npz(checkpoint, tmp_path / "w.npz")
    assert run("diff", FIXTURES / "linear" / "model.meta", tmp_path / "w.npz").exit_code == 0


@pytest.mark.tensorflow
def test_tensorflow_restores_what_agrees(tf, run, tmp_path):
    """TensorFlow refuses to restore the checkpoint that was found to disagree, and restores the one that agrees."""
    meta = FIXTURES / "linear" / "model.meta"
    arrays = {n: v.numpy() for n, v in ckpttool.open_checkpoint(FIXTURES / "linear" / "model").items()}
    good = bundle(arrays).write(tmp_path, "good")
    bad = bundle({"W": arrays["W"]}).write(tmp_path, "bad")
    assert run("diff", meta, good).exit_code == 0
    assert run("diff", meta, bad).exit_code == 1
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(str(meta))
        saver.restore(session, good)
        with pytest.raises(Exception, match="b not found"):
            saver.restore(session, bad)
