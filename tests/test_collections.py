"""Collections edited: TensorFlow imports what was added, and every other byte of the file is as it was."""

import shutil
from pathlib import Path

import pytest
from bundles import time_limit
from conftest import CORPUS, FIXTURES, needs_corpus
from google.protobuf import text_format

import ckpttool
from ckpttool import proto
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.graph import MetaGraph
from ckpttool.transforms.collections import edit_collections

LINEAR = FIXTURES / "linear" / "model.meta"
CONV = FIXTURES / "conv" / "model.meta"
SERVED = CORPUS / "tensorflow_serving/tensorflow_serving/servables/tensorflow/testdata"


def imported(tf, meta: Path) -> dict[str, list[str]]:
    """TensorFlow's collections after it has imported the file: each member as its type and name."""
    with tf.Graph().as_default() as graph:
        tf.compat.v1.train.import_meta_graph(str(meta))
        return {
            name: [f"{type(member).__name__} {member.name}" for member in graph.get_collection(name)]
            for name in graph.get_all_collection_keys()
            if all(hasattr(member, "name") for member in graph.get_collection(name))
        }


def is_subsequence(part: bytes, whole: bytes, inserted: int) -> bool:
    """Whether `part` is `whole` but for one run of `inserted` bytes and the lengths around it."""
    front = next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), len(part))
    return part[front:] == whole[front + inserted :]


@pytest.mark.tensorflow
def test_an_output_is_marked_after_the_fact(run, tf, tmp_path):
    """What `--add` puts in is what get_collection gives: for x:0 the tensor, for x the op."""
    out = tmp_path / "out.meta"
    added = ["--add", "outputs=activation_opt:0", "--add", "outputs=activation_opt", "--add", "activation=x:0"]
    result = run("collections", LINEAR, *added, "-o", out)
    assert result.exit_code == 0, result.stderr
    assert "note: activation_opt is the op; activation_opt:0 would be its output" in result.stderr
    before, after = imported(tf, LINEAR), imported(tf, out)
    assert after.pop("outputs") == ["SymbolicTensor activation_opt:0", "Operation activation_opt"]
    assert after.pop("activation") == [*before.pop("activation"), "SymbolicTensor x:0"]
    assert after == before


@pytest.mark.parametrize("name", ["a first one", "m in the middle", "vars", "zzz a last one", "q=r"])
def test_a_new_collection_stands_where_tensorflow_would_write_it(name):
    """Its entry is put in by the order of keys; cut out again, the file is byte for byte the old one."""
    graph = ckpttool.open_graph(CONV)
    edited = edit_collections(graph, [(name, "images:0")])
    keys = list(edited.message.collection_def)
    stored = [key for key in keys if key in graph.message.collection_def]
    assert set(keys) == {*stored, name}
    assert edited.data == edited.message.SerializeToString(deterministic=True)
    inserted = len(edited.data) - len(graph.data)
    assert is_subsequence(graph.data, edited.data, inserted)
    assert edit_collections(edited, remove=[(name, None)]).data == graph.data
    assert edit_collections(edited, remove=[(name, "images:0")]).data == graph.data


def test_many_are_added_and_removed_at_once():
    """The file is gone through once, not for each collection, and gets what it would get one by one."""
    graph = ckpttool.open_graph(CONV)
    names = ["vars", "m", "a", "zzz", "m2", "predictions"]
    one_by_one = graph
    for name in names:
        one_by_one = edit_collections(one_by_one, [(name, "images:0"), (name, "images:0"), (name, "predictions")])
    pairs = [(name, member) for name in names for member in ("images:0", "images:0", "predictions")]
    assert edit_collections(graph, pairs).data == one_by_one.data
    many = [(f"{number}", "images:0") for number in range(4000)] + [("m", "images")]
    with time_limit(5):
        edited = edit_collections(graph, many)
        assert edit_collections(edited, remove=[(name, None) for name, _ in many[:4001]]).data == graph.data


def test_many_members_are_removed():
    """A member is looked up among those of its collection, and not looked for."""
    message = proto.message_class("MetaGraphDef")()
    members = [f"gone_{number}" for number in range(60_000)]
    message.collection_def["mine"].node_list.value.extend(members)
    graph = MetaGraph(message.SerializeToString())
    with time_limit(5):
        left = edit_collections(graph, remove=[("mine", member) for member in members[::-1]])
    assert not left.collections


def test_members_come_and_go_without_a_trace():
    """A member that is added and removed again leaves the file as it was, byte for byte."""
    graph = ckpttool.open_graph(LINEAR)
    there = edit_collections(graph, [("activation", "x:0")])
    assert there.collections["activation"].members == ["activation_opt:0", "x:0"]
    assert edit_collections(there, remove=[("activation", "x:0")]).data == graph.data


UNCHANGED = {
    "a member that is there": {"add": [("activation", "activation_opt:0")]},
    "nothing": {},
    "one that goes and comes": {
        "remove": [("activation", "activation_opt:0")],
        "add": [("activation", "activation_opt:0")],
    },
    "a whole collection that goes and comes": {
        "remove": [("activation", None)],
        "add": [("activation", "activation_opt:0")],
    },
}


@pytest.mark.parametrize("changes", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_nothing_to_do_gives_the_same_bytes(changes):
    """Where the collections are as they are to be, the file comes back as it was."""
    graph = ckpttool.open_graph(LINEAR)
    assert edit_collections(graph, **changes).data == graph.data


def test_a_collection_of_another_kind_may_be_replaced():
    """Removed whole, a collection of bytes may come back as one of names; without that, it is refused."""
    graph = ckpttool.open_graph(LINEAR)
    with pytest.raises(NotSupportedError, match=r"trainable_variables is a bytes_list.*removed as a whole"):
        edit_collections(graph, [("trainable_variables", "x:0")])
    edited = edit_collections(graph, [("trainable_variables", "x:0")], [("trainable_variables", None)])
    assert edited.collections["trainable_variables"].members == ["x:0"]


def test_an_empty_collection_is_filled():
    """A collection without a kind, which nobody's list is in, gets one."""
    message = proto.message_class("MetaGraphDef")()
    message.graph_def.node.add(name="n", op="NoOp")
    message.collection_def["c"].SetInParent()
    graph = edit_collections(MetaGraph(message.SerializeToString()), [("c", "n")])
    assert graph.collections["c"].members == ["n"]


MISSING = {
    "an op": (["--add", "c=activation_op:0"], 3, "no op named activation_op", "near names: activation_opt"),
    "an output": (
        ["--add", "c=activation_opt:1"],
        3,
        "no tensor activation_opt:1",
        "its last output is activation_opt:0",
    ),
    "a collection": (["--remove", "activatio"], 3, "no collection named activatio", "near names: activation"),
    "a collection like no other": (["--remove", "xyz"], 3, "no collection named xyz", "there are activation, train"),
    "a member": (["--remove", "activation=activation_opt"], 3, "is not in the collection activation", "near names:"),
    "a member of another kind": (["--remove", "variables=W:0"], 5, "variables is a bytes_list", "as a whole"),
    "a tensor's name": (["--add", "c="], 2, "is not NAME=TENSOR", ""),
    "a collection's name": (["--add", "=x:0"], 2, "is not NAME=TENSOR", ""),
    "anything to do": ([], 2, "give --add or --remove", "ckpttool ls --collections"),
}


@pytest.mark.parametrize(("arguments", "code", "what", "hint"), MISSING.values(), ids=MISSING.keys())
def test_what_is_missing_is_said(arguments, code, what, hint, run, tmp_path):
    """Each error says what is missing and what there is, and nothing is written."""
    result = run("collections", LINEAR, *arguments, "-o", tmp_path / "out.meta")
    assert (result.exit_code, list(tmp_path.iterdir())) == (code, [])
    said = " ".join(result.stderr.replace("│", " ").split())
    assert what in said
    assert hint in said


def test_an_op_without_outputs_has_no_first_one():
    """NoOp is described as giving nothing, so that NoOp:0 is refused, as TensorFlow would refuse to import it."""
    with pytest.raises(NotFoundError, match="no tensor Adam/update:0: a NoOp has no outputs"):
        edit_collections(ckpttool.open_graph(CONV), [("c", "Adam/update:0")])


def test_a_graph_def_has_no_collections():
    """A frozen graph is refused."""
    message = proto.message_class("GraphDef")()
    message.node.add(name="n", op="NoOp")
    with pytest.raises(NotSupportedError, match="a GraphDef has no collections"):
        edit_collections(MetaGraph(message.SerializeToString(), root="GraphDef"), [("c", "n")])


def test_output_or_in_place(run, tmp_path):
    """In place the file itself is replaced; an output that exists needs --force; both, or neither, is wrong usage."""
    meta = tmp_path / "model.meta"
    meta.write_bytes(LINEAR.read_bytes())
    add = ["--add", "c=x:0"]
    assert run("collections", meta, *add).exit_code == 2
    assert run("collections", meta, *add, "--in-place", "-o", tmp_path / "o").exit_code == 2
    assert run("collections", meta, *add, "-o", meta, "--force").exit_code == 2
    assert meta.read_bytes() == LINEAR.read_bytes()
    result = run("collections", meta, *add, "--in-place", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert ckpttool.open_graph(meta).collections["c"].members == ["x:0"]


def test_text_stays_text(run, tf, tmp_path):
    """Of a text file only the lines of the collection are others, and TensorFlow imports it."""
    text, out = tmp_path / "model.meta", tmp_path / "out.meta"
    message = tf.compat.v1.MetaGraphDef.FromString(LINEAR.read_bytes())
    text.write_text(text_format.MessageToString(message))
    assert run("collections", text, "--add", "c=x:0", "-o", out).exit_code == 0
    block = 'collection_def {\n  key: "c"\n  value {\n    node_list {\n      value: "x:0"\n    }\n  }\n}\n'
    assert out.read_text().count(block) == 1
    assert out.read_text().replace(block, "") == text.read_text()
    assert imported(tf, out)["c"] == ["SymbolicTensor x:0"]


@needs_corpus
@pytest.mark.tensorflow
def test_a_saved_models_graph(run, tf, tmp_path):
    """Of a SavedModel, saved_model.pb is written, and TensorFlow's loader gives the tensor; tags choose the graph."""
    model = tmp_path / "model"
    shutil.copytree(SERVED / "saved_model_half_plus_two_2_versions/00000124", model, copy_function=shutil.copyfile)
    before = (model / "saved_model.pb").read_bytes()
    assert run("collections", model, "--add", "outputs=y:0", "--tags", "train", "--in-place").exit_code == 3
    result = run("collections", model, "--add", "outputs=y:0", "--tags", "serve", "--in-place")
    assert result.exit_code == 0, result.stderr
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(model))
        assert [tensor.name for tensor in graph.get_collection("outputs")] == ["y:0"]
    assert run("collections", model, "--remove", "outputs", "--in-place").exit_code == 0
    assert (model / "saved_model.pb").read_bytes() == before


@needs_corpus
@pytest.mark.parametrize("meta", sorted(CORPUS.rglob("*.meta")), ids=lambda path: "/".join(path.parts[-3:]))
def test_the_corpus_comes_back_as_it_was(meta):
    """A member added to every graph of the corpus and removed again leaves no byte changed, whoever wrote the file."""
    graph = ckpttool.open_graph(meta)
    op = graph.nodes[0].name
    edited = edit_collections(graph, [("outputs of mine", op)])
    assert edited.collections["outputs of mine"].members == [op]
    assert edit_collections(edited, remove=[("outputs of mine", None)]).data == graph.data
