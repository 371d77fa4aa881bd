"""Graphs in every kind of file: bytes and text, MetaGraphDef, GraphDef, SavedModel; known by content."""

import json
import shutil

import pytest
from conftest import CORPUS, FIXTURES, FROZEN, corpus_files, corpus_id, needs_corpus
from google.protobuf import text_format

import ckpttool
from ckpttool import proto
from ckpttool.errors import CorruptionError, FormatError, NotFoundError, NotSupportedError
from ckpttool.formats import meta_graph
from ckpttool.reports import graphs as reports
from ckpttool.wire.coding import encode_varint

META = FIXTURES / "recurrent" / "model.meta"
SAVED_MODELS = [path for path in corpus_files("saved_model.pb") if not path.read_bytes().startswith(b"version ")]


def message(root: str, graphs: int = 1):
    """The recurrent fixture's graph, as the message that another kind of file holds."""
    meta_graph = proto.parse("MetaGraphDef", META.read_bytes())
    if root == "GraphDef":
        return meta_graph.graph_def
    if root == "MetaGraphDef":
        return meta_graph
    saved_model = proto.message_class("SavedModel")(saved_model_schema_version=1)
    for number in range(graphs):
        added = saved_model.meta_graphs.add()
        added.CopyFrom(meta_graph)
        added.meta_info_def.tags.append(f"tag{number}")
    return saved_model


def listing(path):
    """All that is said of a graph, but for what names its file or its kind."""
    graph = ckpttool.open_graph(path)
    shown = [report for report in reports.overview(graph) if report.key != "summary"]
    return [*((report.key, report.rows) for report in shown), reports.ops(graph).rows]


@pytest.mark.parametrize("root", ["MetaGraphDef", "GraphDef", "SavedModel"])
def test_text_and_bytes_give_the_same_listing(tmp_path, root):
    """A graph's text form is listed as its bytes are, whatever the files are called."""
    made = message(root)
    (tmp_path / "binary").write_bytes(made.SerializeToString())
    (tmp_path / "text").write_text("# a comment\n\n" + text_format.MessageToString(made))
    assert ckpttool.open_graph(tmp_path / "text").root == root
    assert listing(tmp_path / "text") == listing(tmp_path / "binary")


@pytest.mark.parametrize("root", ["GraphDef", "SavedModel"])
@pytest.mark.parametrize("as_text", [False, True], ids=["bytes", "text"])
def test_strip_devices_keeps_the_kind_of_file(tmp_path, root, as_text):
    """A frozen graph or SavedModel comes back as one, text as text, with no device and nothing else changed."""
    made = message(root)
    nodes = made.node if root == "GraphDef" else made.meta_graphs[0].graph_def.node
    before = made.__class__.FromString(made.SerializeToString())
    nodes[0].device = "/device:GPU:0"
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_bytes(text_format.MessageToString(made).encode() if as_text else made.SerializeToString())
    ckpttool.write_meta_graph(ckpttool.strip_devices(ckpttool.open_graph(source)), out)
    written = made.__class__()
    if as_text:
        text_format.Parse(out.read_text(), written)
    else:
        written.ParseFromString(out.read_bytes())
    for node in before.node if root == "GraphDef" else before.meta_graphs[0].graph_def.node:
        node.device = ""
    assert written == before


def test_nested_fields_need_no_stack(tmp_path):
    """A message within a message within a message, 3,000 deep, is refused."""
    data = b""
    for _ in range(3000):
        data = b"\x12" + encode_varint(len(data)) + data
    (tmp_path / "deep.pb").write_bytes(data)
    with pytest.raises((FormatError, CorruptionError)):
        ckpttool.open_graph(tmp_path / "deep.pb")


def test_empty_variable_defs(tmp_path):
    """A VariableDef without a name is no variable."""
    made = message("MetaGraphDef")
    made.collection_def["variables"].bytes_list.value.append(b"")
    (tmp_path / "a.meta").write_bytes(made.SerializeToString())
    assert all(variable.name for variable in ckpttool.open_graph(tmp_path / "a.meta").variables)


def test_numbers_of_arguments_are_capped(tmp_path):
    """Of an op that claims 2,000 arguments, the first 256 count: no op has so many."""
    made = proto.message_class("MetaGraphDef")()
    op = made.meta_info_def.stripped_op_list.op.add(name="Many")
    for _ in range(2000):
        op.output_arg.add(type=1, number_attr="N")
    made.graph_def.node.add(name="x", op="Many").attr["N"].i = 2
    (tmp_path / "a.meta").write_bytes(made.SerializeToString())
    graph = ckpttool.open_graph(tmp_path / "a.meta")
    assert len(graph.outputs(graph.node("x"))) == 512


def test_in_place_follows_a_link_and_keeps_the_mode(tmp_path, run):
    """--in-place changes the file behind a link, and not who may read it."""
    made = message("GraphDef")
    made.node[0].device = "/cpu:0"
    (tmp_path / "real.pb").write_bytes(made.SerializeToString())
    (tmp_path / "real.pb").chmod(0o600)
    (tmp_path / "link.pb").symlink_to(tmp_path / "real.pb")
    assert run("strip-devices", tmp_path / "link.pb", "--in-place").exit_code == 0
    assert (tmp_path / "link.pb").is_symlink()
    assert b"/cpu:0" not in (tmp_path / "real.pb").read_bytes()
    assert (tmp_path / "real.pb").stat().st_mode & 0o777 == 0o600


def test_text_with_a_text_of_braces(tmp_path):
    """What is in a constant's text, such as JSON, is not taken for messages that are nearly all empty."""
    made = proto.message_class("GraphDef")()
    made.node.add(name="c", op="Const").attr["value"].tensor.string_val.append(b"[{\"a\":'{'}]," * 60_000)
    (tmp_path / "c.pbtxt").write_text(text_format.MessageToString(made))
    assert ckpttool.open_graph(tmp_path / "c.pbtxt").graph_def == made


def test_text_without_devices_comes_back_as_it_was(tmp_path):
    """Comments, spelling of numbers and all: text in which nothing changes is written as it was read."""
    text = b'# mine\nnode { name: "x"  op: "Const" attr { key: "f" value { f: 0.10000000149 } } }\n'
    (tmp_path / "in.pbtxt").write_bytes(text)
    graph = ckpttool.strip_devices(ckpttool.open_graph(tmp_path / "in.pbtxt"), all=True)
    ckpttool.write_meta_graph(graph, tmp_path / "out.pbtxt")
    assert (tmp_path / "out.pbtxt").read_bytes() == text


@pytest.mark.parametrize(
    "command", [["strip-devices"], ["collections", "--add", "outputs=activation_opt"]], ids=["strip", ""]
)
def test_the_suffix_says_whether_it_is_text(run, tmp_path, command):
    """A graph is written as text under .pbtxt and as bytes under .pb; where the suffix says nothing, as it was."""
    command, *arguments = command
    meta, text = FIXTURES / "linear" / "model.meta", tmp_path / "a.pbtxt"
    for source, target, is_text in (
        (meta, text, True),
        (text, "b.pb", False),
        (text, "c.pbtxt", True),
        (text, "d", True),
    ):
        assert run(command, source, *arguments, "-o", tmp_path / target).exit_code == 0
        assert [node.name for node in ckpttool.open_graph(tmp_path / target).nodes][:2] == ["x", "W/initial_value"]
        assert (tmp_path / target).read_bytes().startswith(b"meta_info_def {\n") == is_text
    shutil.copy(text, tmp_path / "text.pb")
    assert run(command, tmp_path / "text.pb", *arguments, "-o", tmp_path / "e.pb").exit_code == 0
    assert (tmp_path / "e.pb").read_bytes() == text.read_bytes()


def test_frozen_graphs_say_dtypes(tmp_path):
    """Without OpDefs, the dtypes of placeholders and constants are those of their attributes."""
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    graph_def.node.add(name="y", op="Unknown").attr["T"].type = 1
    (tmp_path / "a.pb").write_bytes(graph_def.SerializeToString())
    graph = ckpttool.open_graph(tmp_path / "a.pb")
    assert [t.dtype.name for t in graph.outputs(graph.node("x"))] == ["float32"]
    assert list(graph.outputs(graph.node("y"))) == []
    with pytest.raises(NotFoundError, match="no op named z"):
        graph.node("z")


def test_a_graph_of_one_node(tmp_path):
    """The smallest GraphDef is not taken for a MetaGraphDef, nor that for a SavedModel without a version."""
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="x", op="Placeholder")
    graph_def.versions.producer = 24
    (tmp_path / "a").write_bytes(graph_def.SerializeToString())
    assert ckpttool.open_graph(tmp_path / "a").root == "GraphDef"
    meta_graph = proto.message_class("MetaGraphDef")(graph_def=graph_def)
    (tmp_path / "b").write_bytes(meta_graph.SerializeToString())
    assert ckpttool.open_graph(tmp_path / "b").root == "MetaGraphDef"
    saved_model = proto.message_class("SavedModel")(meta_graphs=[meta_graph])
    (tmp_path / "c").write_bytes(saved_model.SerializeToString())
    assert ckpttool.open_graph(tmp_path / "c").root == "SavedModel"


def test_a_graph_in_two_parts(tmp_path):
    """Messages that follow one another are one, with the fields of both: as cat makes them, and protobuf takes them."""
    more = proto.message_class("MetaGraphDef")()
    more.meta_info_def.tags.append("more")
    (tmp_path / "a.meta").write_bytes(META.read_bytes() + more.SerializeToString())
    graph = ckpttool.open_graph(tmp_path / "a.meta")
    assert (graph.root, graph.message.meta_info_def.tags) == ("MetaGraphDef", ["more"])
    assert len(graph.nodes) == len(ckpttool.open_graph(META).nodes)
    graph_def = message("GraphDef")
    (tmp_path / "a.pb").write_bytes(graph_def.SerializeToString())
    assert ckpttool.open_graph(tmp_path / "a.pb").root == "GraphDef"


TEXTS = {
    "a long comment": "# a license .....\n" * 300 + 'node { name: "x" op: "NoOp" }',
    "a comment within": 'node # the first\n{ name: "x" op: "NoOp" }',
    "a list": 'node [ { name: "x" op: "NoOp" } ]',
    "a list with a colon": 'node: [ { name: "x" op: "NoOp" } ]',
    "angles": 'node < name: "x" op: "NoOp" >',
    "said twice": 'node { name: "y" op: "X" op: "NoOp" name: "x" }',
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_texts_that_tensorflow_takes(text, tf, tmp_path):
    """Whatever protobuf's parser takes for the text of a graph is one."""
    (tmp_path / "a.pbtxt").write_text(text)
    expected = text_format.Merge(text, tf.compat.v1.GraphDef())
    graph = ckpttool.open_graph(tmp_path / "a.pbtxt")
    assert graph.graph_def.SerializeToString() == expected.SerializeToString()
    assert [node.name for node in graph.nodes] == ["x"]


def test_a_saved_models_text_says_each_thing_once(tmp_path):
    """TensorFlow's loader refuses the text of a SavedModel that says one thing twice."""
    (tmp_path / "saved_model.pbtxt").write_text(
        "saved_model_schema_version: 1 saved_model_schema_version: 1 meta_graphs {}"
    )
    with pytest.raises(CorruptionError, match="should not have multiple"):
        ckpttool.open_graph(tmp_path)


def test_a_message_of_which_the_fields_are_not_known(tmp_path):
    """Within an Any, bytes may be of any message, and a text only of one that is known; it is not damaged for that."""
    made = message("MetaGraphDef")
    made.collection_def["conf"].any_list.value.add(type_url="type.googleapis.com/tensorflow.ConfigProto", value=b"8\1")
    (tmp_path / "binary").write_bytes(made.SerializeToString())
    assert ckpttool.open_graph(tmp_path / "binary").collections["conf"].kind == "any_list"
    text = text_format.MessageToString(made).replace('value: "8\\001"', "")
    text = text.replace(
        'type_url: "type.googleapis.com/tensorflow.ConfigProto"', "[type.googleapis.com/tensorflow.ConfigProto] {}"
    )
    (tmp_path / "text").write_text(text)
    with pytest.raises(NotSupportedError, match="a message of a type that is not known here: Type tensorflow"):
        ckpttool.open_graph(tmp_path / "text")


@pytest.fixture
def saved_model(tmp_path):
    """A SavedModel directory with two graphs, an asset and a fingerprint."""
    (tmp_path / "saved_model.pb").write_bytes(message("SavedModel", graphs=2).SerializeToString())
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "vocabulary.txt").write_text("a\n")
    fingerprint = proto.message_class("FingerprintDef")(saved_model_checksum=255, uuid="7")
    (tmp_path / "fingerprint.pb").write_bytes(fingerprint.SerializeToString())
    return tmp_path


def test_tags_choose_the_graph(saved_model):
    """--tags takes the graph with these tags; unknown ones are answered with those there are."""
    assert ckpttool.open_graph(saved_model, tags="tag1").number == 1
    assert ckpttool.open_graph(saved_model).number == 0
    with pytest.raises(NotFoundError, match="there are tag0 · tag1"):
        ckpttool.open_graph(saved_model, tags="gpu")


def test_saved_model_facts_are_shown(saved_model, run):
    """Tag sets, assets and the fingerprint are in the summary; which graph was taken is said."""
    result = run("ls", saved_model, "--json")
    summary = json.loads(result.stdout)["summary"]
    assert summary["tag_sets"] == "tag0 · tag1"
    assert summary["assets"] == "vocabulary.txt"
    assert "saved_model_checksum 00000000000000ff" in summary["fingerprint"]
    assert "taking tag0; --tags takes another" in result.stderr


def test_which_graph_was_taken_where_no_option_takes_another(saved_model, run, tmp_path):
    """`saved-model`, whose --tags are those that it gives, and `diff` say which of the graphs it is, too."""
    said = "note: there are graphs of tags tag0 · tag1; taking tag0\n"
    assert said in run("saved-model", saved_model, "-o", tmp_path / "served", "--tags", "tag1").stderr
    assert run("diff", "--graphs", saved_model, saved_model).stderr.count(said) == 2
    assert said in run("diff", saved_model, FIXTURES / "linear" / "model").stderr
    assert "taking" not in run("diff", "-q", "--graphs", saved_model, saved_model).stderr


def test_chunked_saved_models_are_refused(tmp_path):
    """The .cpb form is named, in a directory and as a file."""
    (tmp_path / "saved_model.cpb").write_bytes(b"\x83\xaf\x70\xd1\x0d\x88\x4a\x3f" + bytes(60))
    for path in (tmp_path, tmp_path / "saved_model.cpb"):
        with pytest.raises(NotSupportedError, match="chunk"):
            ckpttool.open_graph(path)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"node { name: 5 }", CorruptionError),
        (b"node { name: 'a' op: 'B'", CorruptionError),
        (b"hello, world\n", FormatError),
        (b"{}", FormatError),
        (b"\x08\x01", FormatError),
        (b"\x0a\x04\x0a\x02\xff\xfe", CorruptionError),
        (b"\x12\x02\x0a\x00", FormatError),
    ],
)
def test_what_is_no_graph(tmp_path, data, error):
    """Text and bytes that are no graph raise, with the path."""
    (tmp_path / "file.pb").write_bytes(data)
    with pytest.raises(error, match=r"file\.pb"):
        ckpttool.open_graph(tmp_path / "file.pb")


# Signatures that TensorFlow 1.4 exported, and what its bundle_shim makes of them: key, method, inputs, outputs.
SERVE = "tensorflow/serving/"
EXPORTS = {
    "classification": (
        "0a2212200a050a03783a30120b0a09636c61737365733a301a0a0a0873636f7265733a30123b0a076f75747075747312301a2e0a140a0673"
        "636f726573120a0a0873636f7265733a300a160a07636c6173736573120b0a09636c61737365733a30121d0a06696e7075747312131a110a"
        "0f0a06696d6167657312050a03783a30",
        [
            ("serving_default", SERVE + "classify", {"inputs": "x:0"}, {"classes": "classes:0", "scores": "scores:0"}),
            (
                "serving_default_from_named",
                SERVE + "predict",
                {"images": "x:0"},
                {"classes": "classes:0", "scores": "scores:0"},
            ),
        ],
    ),
    "scores alone": (
        "0a1512130a050a03783a301a0a0a0873636f7265733a30",
        [("serving_default", SERVE + "classify", {"inputs": "x:0"}, {"scores": "scores:0"})],
    ),
    "regression": (
        "0a150a130a050a03783a30120a0a0873636f7265733a30121c0a03666f6f12150a130a050a03783a30120a0a0873636f7265733a30",
        [("serving_default", SERVE + "regress", {"inputs": "x:0"}, {"outputs": "scores:0"})],
    ),
    "generic": (
        "0a1f1a1d0a0f0a0162120a0a0873636f7265733a300a0a0a016112050a03783a30121d0a06696e7075747312131a110a0f0a06696d616765"
        "7312050a03783a3012230a076f75747075747312181a160a140a0673636f726573120a0a0873636f7265733a30",
        [("serving_default", SERVE + "predict", {"images": "x:0"}, {"scores": "scores:0"})],
    ),
    "none": ("", []),
    "damaged": ("0a22", []),
}


@pytest.mark.parametrize(("data", "expected"), EXPORTS.values(), ids=EXPORTS)
def test_signatures_of_before_saved_models(data, expected, tmp_path):
    """What an export of TensorFlow's session_bundle says of inputs and outputs are its signatures, and no guesses."""
    exported = proto.message_class("MetaGraphDef")()
    exported.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    exported.graph_def.node.add(name="scores", op="Softmax", input=["x"]).attr["T"].type = 1
    stored = exported.collection_def["serving_signatures"].any_list.value.add()
    stored.type_url, stored.value = "type.googleapis.com/tensorflow.serving.Signatures", bytes.fromhex(data)
    (tmp_path / "export.meta").write_bytes(exported.SerializeToString())
    graph = ckpttool.open_graph(tmp_path / "export.meta")
    found = graph.signatures.values()
    names = [[{key: tensor for key, (tensor, _) in ends.items()} for ends in (s.inputs, s.outputs)] for s in found]
    assert [(each.key, each.method, *ends) for each, ends in zip(found, names, strict=True)] == expected
    if expected:
        assert graph.signatures["serving_default"].inputs.popitem()[1][1].dtype == "float32"
        assert not any(end.inferred for end in ckpttool.endpoints(graph))


@needs_corpus
@pytest.mark.tensorflow
@pytest.mark.parametrize("path", SAVED_MODELS, ids=corpus_id)
def test_saved_models_are_read_as_tensorflow_parses_them(path, tf):
    """Ops, signatures and tags of a SavedModel's graph are those of TensorFlow's own parse."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    theirs = SavedModel.FromString(path.read_bytes()).meta_graphs
    graph = ckpttool.open_graph(path.parent)
    assert graph.tag_sets == [list(m.meta_info_def.tags) for m in theirs]
    assert [node.name for node in graph.nodes] == [node.name for node in theirs[graph.number].graph_def.node]
    for key, signature in theirs[graph.number].signature_def.items():
        outputs = {name: info.name for name, info in signature.outputs.items()}
        assert {name: tensor for name, (tensor, _) in graph.signatures[key].outputs.items()} == outputs


@needs_corpus
@pytest.mark.tensorflow
@pytest.mark.parametrize("path", [*SAVED_MODELS, *FROZEN, *corpus_files("*.pbtxt")], ids=corpus_id)
def test_stripped_graphs_parse_as_the_old_ones_without_devices(path):
    """Of every SavedModel and GraphDef of the corpus, stripping changes the devices alone."""
    graph = ckpttool.open_graph(path)
    stripped = ckpttool.strip_devices(graph)
    assert not any(stripped.devices)
    expected = proto.parse(graph.root, graph.data)
    metas = expected.meta_graphs if graph.root == "SavedModel" else [expected]
    for graph_def in (meta.graph_def if graph.root != "GraphDef" else meta for meta in metas):
        for node in (*graph_def.node, *(n for f in graph_def.library.function for n in f.node_def)):
            node.device = ""
    assert proto.parse(graph.root, stripped.data) == expected


@needs_corpus
def test_text_beside_a_meta_lists_the_same_ops():
    """deepspeech's graph.pbtxt and its .meta are the same graph."""
    directory = CORPUS / "varunravi_deepspeech" / "checkpoint"
    text, meta = ckpttool.open_graph(directory / "graph.pbtxt"), ckpttool.open_graph(directory / "model.ckpt-0.meta")
    assert [(n.name, n.type, n.inputs) for n in text.nodes] == [(n.name, n.type, n.inputs) for n in meta.nodes]


def test_damage_behind_what_tells_the_kind(tmp_path, monkeypatch):
    """A graph that is damaged behind the fields that tell what it is, is damaged; and one of more is read whole."""
    monkeypatch.setattr(meta_graph, "_TELLING", 2)
    data = message("GraphDef").SerializeToString()
    (tmp_path / "whole.pb").write_bytes(data)
    assert len(ckpttool.open_graph(tmp_path / "whole.pb").graph_def.node) == len(message("GraphDef").node)
    (tmp_path / "cut.pb").write_bytes(data[:-1])
    with pytest.raises(CorruptionError, match="not a GraphDef: "):
        ckpttool.open_graph(tmp_path / "cut.pb")
