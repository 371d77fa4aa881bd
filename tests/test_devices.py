"""Taking placements out of a graph: what changes, and what must come back unchanged."""

import pytest
from conftest import FIXTURES, corpus_files

from ckpttool import open_graph, proto
from ckpttool.errors import FormatError
from ckpttool.model.graph import MetaGraph
from ckpttool.transforms.devices import device_mentions, strip_devices
from ckpttool.wire import dropping


def graph_of(build) -> MetaGraph:
    """A graph whose MetaGraphDef `build` has filled in."""
    message = proto.message_class("MetaGraphDef")()
    build(message)
    return MetaGraph(message.SerializeToString(deterministic=True))


def node(message, op="NoOp", device="", **attrs):
    """Adds a node; each attr is (field of AttrValue, value)."""
    added = message.graph_def.node.add(name="n", op=op, device=device)
    for key, (kind, value) in attrs.items():
        target = added.attr[key]
        if isinstance(value, list):
            getattr(target.list, kind).extend(value)
        else:
            setattr(target, kind, value)
    return added


def attr_after(key, kind, value, **options):
    """The AttrValue that is left of a node's attribute; None if it is gone."""
    stripped = strip_devices(graph_of(lambda m: node(m, **{key: (kind, value)})), **options)
    left = stripped.message.graph_def.node[0].attr
    return dict(left).get(key)


UNCHANGED = {
    "no devices": lambda m: node(m, T=("type", 1)),
    "an attribute whose value looks like nothing": lambda m: node(m, value=("s", b"/usr/bin")),
    "a collection of names": lambda m: m.collection_def["c"].node_list.value.append("a/device"),
    "an empty message": lambda m: None,
}


@pytest.mark.parametrize("build", UNCHANGED.values(), ids=UNCHANGED.keys())
@pytest.mark.parametrize("options", [{}, {"colocation": True}, {"all": True}], ids=str)
def test_nothing_to_strip_gives_the_same_bytes(build, options):
    """A graph that names no device comes back as it was."""
    graph = graph_of(build)
    assert strip_devices(graph, **options).data == graph.data


def test_colocation_stays_unless_asked():
    """`_class` survives the plain strip, loses only its loc:@ members with colocation, and goes when it is empty."""
    assert attr_after("_class", "s", [b"loc:@w"]).list.s == [b"loc:@w"]
    assert attr_after("_class", "s", [b"loc:@w"], colocation=True) is None
    assert attr_after("_class", "s", [b"loc:@w", b"mine"], colocation=True).list.s == [b"mine"]


ALL = {
    "VarHandleOp's devices": ("allowed_devices", "s", [b"/job:ps/task:0"], "list { }"),
    "a send": ("send_device", "s", b"/job:a/task:1/cpu:0", 's: ""'),
    "a TPU's number": ("device_ordinal", "i", 3, "i: -1"),
    "a shared name keeps its identity": ("shared_name", "s", b"/job:ps/task:0/queue", 's: "/device_0/queue"'),
    "a host": ("address", "s", b"grpc://10.0.0.1:8470", 's: ""'),
    "any other string": ("anything", "s", b"on /job:w/replica:0/task:7/device:GPU:0 here", 's: "on  here"'),
}


@pytest.mark.parametrize(("key", "kind", "value", "left"), ALL.values(), ids=ALL.keys())
def test_all_clears_attributes(key, kind, value, left):
    """Each place among the attributes is listed, kept by the plain strip, and cleared by all=True."""
    graph = graph_of(lambda m: node(m, **{key: (kind, value)}))
    assert [key in mention.where for mention in device_mentions(graph)] == [True]
    assert strip_devices(graph).data == graph.data
    assert str(attr_after(key, kind, value, all=True)).split() == left.split()


@pytest.mark.parametrize(
    "text",
    [
        "/job:a",
        "/replica:0",
        "/task:1",
        "/device:XPU:0",
        "/cpu:0",
        "/GPU:1",
        "/TPU:*",
        "/Job:A/Task:2",
        "grpc+tls://h:1",
    ],
)
def test_each_part_of_a_device_is_seen(text):
    """A device named in part, in capitals or not, is found in an attribute of any name."""
    graph = graph_of(lambda m: node(m, anything=("s", f"on {text} here".encode())))
    assert [mention.text for mention in device_mentions(graph)] == [text]


@pytest.mark.parametrize("key", ["_tpu_replicate", "_xla_outside_compilation"])
def test_placement_attributes_are_seen_by_name(key):
    """An attribute that is about placement is found by its name, whatever its value says."""
    graph = graph_of(lambda m: node(m, **{key: ("s", b"cluster")}))
    assert [key in mention.where for mention in device_mentions(graph)] == [True]


def test_lists_that_may_not_be_empty_keep_their_length():
    """MultiDeviceIterator wants at least one device: its names are emptied, not its list."""
    assert attr_after("devices", "s", [b"/cpu:0", b"/cpu:1"], all=True).list.s == [b"", b""]


def test_attributes_of_the_same_name_and_another_kind():
    """Somebody's own `topology` that is a number is left alone."""
    assert attr_after("topology", "i", 3, all=True).i == 3


def test_map_entries_with_the_value_first():
    """An entry of attr may have its value before its key; parsers take it all the same."""
    value = b"\x0a\x09\x12\x07loc:@wx"
    entry = b"\x12" + bytes([len(value)]) + value + b"\x0a\x06_class"
    node_bytes = b"\x0a\x01n\x2a" + bytes([len(entry)]) + entry
    graph_def = b"\x0a" + bytes([len(node_bytes)]) + node_bytes
    graph = MetaGraph(b"\x12" + bytes([len(graph_def)]) + graph_def)
    assert len(device_mentions(graph)) == 1
    assert not strip_devices(graph, colocation=True).message.graph_def.node[0].attr


def test_tpu_attributes_are_dropped():
    """Attributes that begin with an underscore have no declaration that would miss them."""
    assert attr_after("_tpu_replicate", "s", b"cluster", all=True) is None


def test_config_proto_loses_its_cluster_and_keeps_the_rest():
    """Of a serialized ConfigProto only the fields about devices and hosts go: here cluster_def (14), not field 2."""
    config = b"\x10\x04" + b"\x72\x03\x0a\x01x"
    assert attr_after("config_proto", "s", config, all=True).s == b"\x10\x04"


def test_config_proto_with_empty_options_names_no_device():
    """TensorFlow 2 writes GPU options without any: they are left, and are no mention."""
    config = b"\x10\x04" + b"\x32\x02J\x00" + b"\x92\x01\x02J\x00"
    assert attr_after("config_proto", "s", config, all=True).s == config
    assert attr_after("config_proto", "s", b"\x32\x03\x2a\x010", all=True).s == b""


def test_config_proto_that_is_none_is_left_alone():
    """Bytes that are no message stay as they are, and raise nothing."""
    assert attr_after("config_proto", "s", b"\xff\xff\xff", all=True).s == b"\xff\xff\xff"


def test_nested_functions_and_tensors():
    """Attributes within function attributes, string tensors and resource handles are reached."""

    def build(m):
        outer = node(m)
        outer.attr["f"].func.attr["inner"].func.attr["device_name"].s = b"/cpu:0"
        outer.attr["value"].tensor.string_val.append(b"/job:ps/task:0")
        outer.attr["value"].tensor.string_val.append(b"words and /job:ps/task:0")
        outer.attr["value"].tensor.resource_handle_val.add(device="/job:ps/task:0", name="r")

    left = strip_devices(graph_of(build), all=True).message.graph_def.node[0].attr
    assert left["f"].func.attr["inner"].func.attr["device_name"].s == b""
    assert list(left["value"].tensor.string_val) == [b"", b"words and /job:ps/task:0"]
    assert left["value"].tensor.resource_handle_val[0].device == ""
    assert left["value"].tensor.resource_handle_val[0].name == "r"


def test_collections():
    """Text in a collection is edited; of a message in it, whose lengths would break, the mention is only listed."""

    def build(m):
        m.collection_def["c"].bytes_list.value.append(b"/job:secret/task:0")
        m.collection_def["c"].bytes_list.value.append(b"\x0a\x0e/job:ps/task:0")

    stripped = strip_devices(graph_of(build), all=True)
    assert list(stripped.message.collection_def["c"].bytes_list.value) == [b"", b"\x0a\x0e/job:ps/task:0"]
    [left] = device_mentions(stripped)
    assert "not cleared" in left.where
    assert not left.remedy


def test_a_graph_in_a_collection():
    """An export of before SavedModels has its graph a second time in a collection, with its functions: it is cleared;
    what only says that it is a graph is left alone.
    """

    def build(m):
        for name in ("serving_graph", "damaged"):
            member = m.collection_def[name].any_list.value.add(type_url="type.googleapis.com/tensorflow.GraphDef")
            inner = proto.message_class("MetaGraphDef")()
            ties = {"shared_name": ("s", b"/job:ps/task:1"), "_class": ("s", [b"loc:@n"])}
            placed = node(inner, device="/job:ps/task:1", **ties)
            inner.graph_def.library.function.add().node_def.add().CopyFrom(placed)
            member.value = inner.graph_def.SerializeToString()
            placed.device = ""
        m.collection_def["damaged"].any_list.value[0].value = b"\x0a\x7f/job:ps/task:1"

    stripped = strip_devices(graph_of(build), all=True)
    members = {key: each.any_list.value[0].value for key, each in stripped.message.collection_def.items()}
    graph = proto.parse("GraphDef", members["serving_graph"])
    for left in (graph.node[0], graph.library.function[0].node_def[0]):
        assert (left.name, left.device, left.attr["shared_name"].s) == ("n", "", b"/device_0")
        assert "_class" not in left.attr
    assert members["damaged"] == b"\x0a\x7f/job:ps/task:1"
    assert {(mention.where, mention.remedy) for mention in device_mentions(graph_of(build))} == {
        ("collection serving_graph: devices of ops", "--all"),
        ("collection serving_graph: attribute _class (colocation)", "--all"),
        ("attribute shared_name of NoOp ops", "--all"),
        ("collection damaged (a message of unknown type: not cleared)", ""),
    }


def test_object_graph():
    """Devices of saved variables, of their components and of resources go with all=True."""

    def build(m):
        variable = m.object_graph_def.nodes.add().variable
        variable.device = "/cpu:0"
        variable.experimental_distributed_variable_components.add(device="/gpu:0", name="part")
        m.object_graph_def.nodes.add().resource.device = "/cpu:0"

    nodes = strip_devices(graph_of(build), all=True).message.object_graph_def.nodes
    assert nodes[0].variable.device == ""
    assert nodes[0].variable.experimental_distributed_variable_components[0].device == ""
    assert nodes[1].resource.device == ""


def test_unknown_fields_survive():
    """What we have no name for is written back as it was, and where it was."""
    unknown = b"\xfa\x7f\x03abc"  # Field 2047, in front of a node with a device.
    node_bytes = b"\x0a\x01n" + b"\x22\x06/cpu:0" + unknown
    graph = MetaGraph(
        unknown + b"\x12" + bytes([len(node_bytes) + 2]) + b"\x0a" + bytes([len(node_bytes)]) + node_bytes
    )
    left = b"\x0a\x01n" + unknown
    expected = unknown + b"\x12" + bytes([len(left) + 2]) + b"\x0a" + bytes([len(left)]) + left
    assert strip_devices(graph).data == expected


def test_fixture_names_devices_everywhere():
    """The fixture with GPU, parameter-server and TPU devices is cleared whole."""
    graph = open_graph(next((FIXTURES / "devices").glob("*.meta")))
    assert any("TPU" in device for device in graph.devices)
    places = {mention.where.partition(" of ")[0] for mention in device_mentions(strip_devices(graph))}
    assert {"attribute allowed_devices", "config_proto: cluster_def", "attribute _class (colocation)"} <= places
    cleared = strip_devices(graph, all=True)
    assert set(cleared.devices) == {""}
    assert device_mentions(cleared) == []


def graph_paths():
    """The graphs of fixtures and corpus."""
    return [*sorted(FIXTURES.rglob("*.meta")), *corpus_files("*.meta"), *corpus_files("saved_model.pb")]


@pytest.mark.parametrize("path", graph_paths(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_small_graph_as_a_large_one(path, monkeypatch):
    """The same bytes come out, whether the fields are walked one by one or side by side."""
    try:
        graph = open_graph(path)
    except FormatError as error:
        pytest.skip(f"no graph: {error}")
    monkeypatch.setattr(dropping, "_LARGE", len(graph.data) + 1)
    expected = strip_devices(graph).data
    monkeypatch.setattr(dropping, "_LARGE", 0)
    monkeypatch.setattr(dropping, "_FEW", 4)
    assert strip_devices(graph).data == expected
