"""TensorFlow 2's object graphs: paths, names, slots, and graphs that are no trees."""

import json

import numpy as np
import pytest
from bundles import bundle, time_limit
from conftest import CORPUS, FIXTURES, corpus_files, corpus_id, needs_corpus

import ckpttool
from ckpttool import proto
from ckpttool.errors import CorruptionError
from ckpttool.model.object_graph import ObjectGraph, object_graph_from_keys
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, place_by_key
from ckpttool.model.roles import roles


def made(*nodes):
    """An object graph of (children, attributes, slots)."""
    graph = proto.message_class("TrackableObjectGraph")()
    for children, attributes, slots in nodes:
        node = graph.nodes.add()
        for name, number in children:
            node.children.add(local_name=name, node_id=number)
        for name, full_name, key in attributes:
            node.attributes.add(name=name, full_name=full_name, checkpoint_key=key)
        for variable, slot, number in slots:
            node.slot_variables.add(original_variable_node_id=variable, slot_name=slot, slot_variable_node_id=number)
    return graph.SerializeToString()


OBJECTS = FIXTURES / "objects" / "model-1"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# A root with a layer, shared under two names and leading back, an optimizer with a slot, a table and an iterator.
GRAPH = made(
    ([("layer", 1), ("again", 1), ("optimizer", 3), ("save_counter", 5), ("table", 6), ("it", 7)], [], []),
    ([("kernel", 2), ("parent", 0)], [], []),
    ([], [("VARIABLE_VALUE", "dense/kernel", "layer/kernel" + VALUE)], []),
    ([], [], [(2, "m", 4)]),
    ([], [("VARIABLE_VALUE", "dense/kernel/m", "layer/kernel/.OPTIMIZER_SLOT/optimizer/m" + VALUE)], []),
    ([], [("VARIABLE_VALUE", "save_counter", "save_counter" + VALUE)], []),
    ([], [("table", "", "table/.ATTRIBUTES/table")], []),
    ([], [("ITERATOR", "", "it/.ATTRIBUTES/ITERATOR")], []),
)


def test_paths_are_the_shortest():
    """A path is that of the shortest way from the root, and a slot's names its variable and its optimizer."""
    paths = ObjectGraph(GRAPH).paths
    assert paths[2] == "layer/kernel"
    assert paths[4] == "layer/kernel · m of optimizer"


def test_an_object_is_found_by_any_of_its_paths(run, tmp_path):
    """Shared objects, cycles and names with slashes: each path leads there, and one that does not leads nowhere."""
    graph = ObjectGraph(GRAPH)
    assert [graph.node_at(path) for path in ("", "layer/kernel", "again/kernel", "layer/parent/again/kernel")] == [
        0,
        2,
        2,
        2,
    ]
    assert [graph.node_at(path) for path in ("kernel", "layer/kernel/x", "/")] == [None] * 3
    odd = ObjectGraph(made(([("a", 1), ("a/b", 2)], [], []), ([("c", 0)], [], []), ([("d", 3)], [], []), ([], [], [])))
    assert (odd.node_at("a/b/d"), odd.node_at("a/c/a/b"), odd.node_at("a/b/c")) == (3, 2, None)
    key = f"layer/kernel{VALUE}"
    prefix = bundle({OBJECT_GRAPH_KEY: np.array(GRAPH, object), key: np.float32(7), "u": np.float32(1)}).write(tmp_path)
    assert run("cat", prefix, "again/kernel").stdout.strip() == "7.0"
    checkpoint = ckpttool.open_checkpoint(prefix)
    assert list(ckpttool.select(checkpoint, "again/kernel")) == [key]
    assert key not in ckpttool.select(checkpoint, exclude=["layer/parent/layer/kernel"])


def test_a_name_of_tensorflow_1_stands_for_one_variable(tmp_path):
    """A saver of TensorFlow 1 finds a variable by the name that it had, where it alone had it, and none has its key."""
    names = {"a": "w", "b": "v", "c": "v", "w": "u", "d": "x"}
    graph = made(
        ([(key, 1 + number) for number, key in enumerate(names)], [], []),
        *(([], [("VARIABLE_VALUE", name, key)], []) for key, name in names.items()),
    )
    arrays = {OBJECT_GRAPH_KEY: np.array(graph, object)} | {key: np.float32(1) for key in names}
    checkpoint = bundle(arrays).open(tmp_path)
    asked = ["x", "v", "w", "u", "nothing"]
    assert [checkpoint.stored_as(name) for name in asked] == ["d", "v", "w", "w", "nothing"]


def test_places_know_the_tensorflow_1_name():
    """Each key leads to its object and to the name that TensorFlow 1 would have given."""
    key = "layer/kernel" + VALUE
    assert ObjectGraph(GRAPH).places([key]) == {key: ("layer/kernel", "dense/kernel")}


def test_what_begins_with_several_keys_belongs_to_the_longest():
    """A stored name is of one attribute, however many keys it begins with; and of none that is stored itself."""
    keys = [f"t/.ATTRIBUTES/{'a' * n}" for n in range(1, 4)]
    graph = ObjectGraph(made(*(([], [("x", "", key)], []) for key in keys)))
    stored = graph.stored([keys[2] + "b", keys[1] + "-", keys[0], "u"])
    assert {node: list(some) for node, some in stored.items()} == {0: [keys[0]], 1: [keys[1] + "-"], 2: [keys[2] + "b"]}
    assert [list(some) for some in graph.stored([keys[0], keys[0] + "-"]).values()] == [[keys[0]], [], []]


def test_many_objects_with_much_in_common(tmp_path):
    """Keys that all names begin with, and optimizers that all list the same variables, are gone through once."""
    keys = [f"t/.ATTRIBUTES/{'a' * n}" for n in range(1, 3_000)]
    graph = ObjectGraph(made(*(([], [("x", "", key)], []) for key in keys)))
    lists = [([(str(n), 1) for n in range(30_000)], [], []), ([], [("VARIABLE_VALUE", "", "v" + VALUE)], [])]
    optimizers = [([("_iterations", 1), ("_learning_rate", 1), ("_variables", 0)], [], [])] * 30_000
    with time_limit(30):
        stored = graph.stored([f"{keys[-1]}{n}" for n in range(30_000)])
        found = roles(["v" + VALUE], ObjectGraph(made(*lists, *optimizers)))
    assert [len(some) for some in stored.values()] == [0] * 2_998 + [30_000]
    assert set(found) == {"v" + VALUE}


def test_walk_shows_shared_objects_and_cycles_once():
    """What was shown is named again and not entered."""
    steps = [(step.depth, step.name, step.again) for step in ObjectGraph(GRAPH).walk()]
    assert (2, "parent", "(root)") in steps
    assert (1, "again", "layer") in steps
    assert len(steps) == 10


def test_stored_keys_may_begin_with_the_attributes():
    """An attribute that is not stored under its key is stored under those that begin with it; else, nowhere."""
    keys = ["table/.ATTRIBUTES/table-keys", "table/.ATTRIBUTES/table-values", "it/.ATTRIBUTES/ITERATOR_STATE"]
    names = [*keys, "layer/kernel" + VALUE, "it2/.ATTRIBUTES/ITERATOR_STATE", "table"]
    stored = {node: list(found) for node, found in ObjectGraph(GRAPH).stored(names).items() if found}
    assert stored == {2: ["layer/kernel" + VALUE], 6: keys[:2], 7: keys[2:]}


def test_an_exact_key_is_not_another_ones_beginning():
    """A key that is an attribute's own is given to no other attribute."""
    graph = ObjectGraph(made(([], [("a", "", "x/.ATTRIBUTES/a"), ("ab", "", "x/.ATTRIBUTES/ab")], [])))
    assert [a.name for a in graph.stored(["x/.ATTRIBUTES/ab"])[0].values()] == ["ab"]


def test_the_fixtures_objects_are_those_that_tensorflow_recorded():
    """Children, attributes and slots of every object are those of TensorFlow's TrackableObjectGraph."""
    recorded = json.loads((FIXTURES / "objects" / "expected.json").read_text())["objects"]["model-1"]
    graph = ckpttool.open_checkpoint(OBJECTS).object_graph
    found = [
        {
            "children": dict(graph.children(node)),
            "attributes": [list(attribute) for attribute in graph.attributes(node)],
            "slots": [list(slot) for slot in graph.slots(node)],
        }
        for node in range(len(graph))
    ]
    assert found == recorded


def test_readable_paths_avoid_optimizers_and_lists():
    """A variable that Keras' optimizer lists, and whose key goes through it, is known by its layer."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    key = "opt/_trainable_variables/0" + VALUE
    assert checkpoint.object_graph.places(checkpoint)[key].path == "model/layers/1/kernel"
    assert "opt/_trainable_variables/0" in checkpoint.object_graph.paths.values()


def test_every_key_has_its_place_and_its_object():
    """Nothing stored is left over but the object graph itself."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    assert set(checkpoint.object_graph.places(checkpoint)) == set(checkpoint) - {OBJECT_GRAPH_KEY}


def test_the_graph_made_of_keys_is_the_graphs_tree():
    """The keys tell the same shortest paths as the message, and where in the tree each key belongs."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    graph = object_graph_from_keys(checkpoint)
    by_message = {key: node for node, keys in checkpoint.object_graph.stored(checkpoint).items() for key in keys}
    by_keys = {key: node for node, keys in graph.stored(checkpoint).items() for key in keys}
    assert {key: graph.paths[node] for key, node in by_keys.items()} == {
        key: checkpoint.object_graph.paths[node] for key, node in by_message.items()
    }
    slots = [slot for node in range(len(graph)) for _, slot, _ in graph.slots(node)]
    assert slots == ["m", "v"]


@pytest.mark.parametrize(
    "key", [VALUE, "a//b" + VALUE, "/" + VALUE, "\udcff/x" + VALUE, "w/.OPTIMIZER_SLOT/m" + VALUE, "a/.ATTRIBUTES/"]
)
def test_any_key_makes_a_graph(key):
    """Keys of whatever form, bytes that are not UTF-8 among them, are put somewhere and found again."""
    graph = object_graph_from_keys([key, "plain"])
    assert [list(keys) for keys in graph.stored([key]).values()] == [[key]]
    assert list(graph.walk())


def test_a_checkpoint_saved_by_name_makes_a_root_alone():
    """Names of TensorFlow 1 make no objects."""
    assert len(object_graph_from_keys(["dense/kernel", "w"])) == 1


@pytest.mark.tensorflow
def test_an_iterator_is_labeled(tf, tmp_path, run):
    """The state of a tf.data iterator, stored under a longer key than its attribute's, is found and labeled."""
    tf.train.Checkpoint(it=iter(tf.data.Dataset.range(3))).save(str(tmp_path / "model"))
    rows = json.loads(run("objects", tmp_path / "model-1", "--json").stdout)["objects"]
    assert [(row["kind"], row["key"]) for row in rows if row["object"] == "it"] == [
        ("iterator", "it/.ATTRIBUTES/ITERATOR_STATE")
    ]


@pytest.mark.parametrize(
    "data", [made(([("x", 5)], [], [])), made(([("x", -1)], [], [])), made(([], [], [(9, "m", 0)])), b"\xff"]
)
def test_object_graphs_that_can_not_be(data):
    """Numbers of objects that are not there, and bytes that are no message, are refused."""
    with pytest.raises(CorruptionError):
        ObjectGraph(data)


def test_deep_graphs_need_no_stack():
    """A chain of 20,000 objects is walked."""
    data = made(*([([("next", number + 1)], [], []) for number in range(20_000)]), ([], [], []))
    assert sum(1 for _ in ObjectGraph(data).walk()) == 20_001


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b" + VALUE, "a/b"),
        ("a.Sb/c..d" + VALUE, "a/b/c.d"),
        ("a...Sb" + VALUE, "a./b"),
        ("w/.OPTIMIZER_SLOT/opt/m" + VALUE, "w · m of opt"),
        (VALUE, ""),
    ],
)
def test_place_by_key(key, path):
    """Without the object graph, the key's own form tells the path; escapes are undone."""
    assert place_by_key(key).path == path


def test_names_of_tensorflow_1_have_no_place():
    """A key without attributes is no object's."""
    assert place_by_key("dense/kernel") is None


OBJECT_BASED = [
    path
    for path in corpus_files("*.index")
    if "deepmind_sonnet" in path.parts or {"saved_model_v2_mini", "saved_model_half_plus_two_tf2_cpu"} & set(path.parts)
]


@needs_corpus
@pytest.mark.tensorflow
@pytest.mark.parametrize("path", OBJECT_BASED, ids=corpus_id)
def test_places_are_tensorflows(path, tf):
    """Keys, full names and paths are those of TensorFlow's own TrackableObjectGraph; every key listed has its place."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    checkpoint = ckpttool.open_checkpoint(path)
    if checkpoint.warnings:
        assert all(place_by_key(name) for name in checkpoint if name != OBJECT_GRAPH_KEY)
        return
    data = tf.train.load_checkpoint(str(path.with_suffix(""))).get_tensor(OBJECT_GRAPH_KEY)
    theirs = {
        a.checkpoint_key: a.full_name for node in TrackableObjectGraph.FromString(data).nodes for a in node.attributes
    }
    ours = checkpoint.object_graph.places(checkpoint)
    assert {key: place.full_name for key, place in ours.items()} == theirs
    assert set(checkpoint) - {OBJECT_GRAPH_KEY} <= set(ours)
    assert all(place.path == place_by_key(key).path for key, place in ours.items())


@needs_corpus
def test_vars_shows_objects(run):
    """`vars` shows object and full name beside the key."""
    prefix = CORPUS / "deepmind_sonnet/sonnet/src/conformance/checkpoints/ema_2/checkpoint-1"
    rows = json.loads(run("vars", prefix, "--json").stdout)["variables"]
    assert ("module/_hidden", "exponential_moving_average/hidden") in [(r["object"], r["full_name"]) for r in rows]


def test_objects_of_a_checkpoint_without(run):
    """A checkpoint saved by name says that it has no object graph."""
    result = run("objects", FIXTURES / "linear" / "model")
    assert result.exit_code == 3
    assert "saved by name" in result.stderr


def test_objects_of_another_format(run, tmp_path):
    """Weights of another format, and a frozen graph's, are not said to be a checkpoint of TensorFlow 1."""
    ckpttool.write_npz(ckpttool.from_arrays({"w": [1.0]}), tmp_path / "w.npz")
    for path in (tmp_path / "w.npz", FIXTURES / "releases" / "1.8" / "frozen.pb"):
        result = run("objects", path)
        assert result.exit_code == 3
        assert "checkpoints of TensorFlow 2 have one; vars lists the variables" in result.stderr


def test_many_variables_are_looked_up_by_path_and_full_name(tmp_path, monkeypatch):
    """Whoever asks for each of thousands does not wait until all have been held against all."""
    names = [f"v{number}" for number in range(300)]
    root = ([(name, number) for number, name in enumerate(names, 1)], [], [])
    graph = made(root, *(([], [("VARIABLE_VALUE", f"full/{name}", f"stored/{name}{VALUE}")], []) for name in names))
    stored = {f"stored/{name}{VALUE}": np.zeros(1, np.float32) for name in names}
    checkpoint = bundle({**stored, OBJECT_GRAPH_KEY: np.array(graph, object)}).open(tmp_path)
    looked, children = [], ObjectGraph.children
    assert len(checkpoint.places) == len(names)
    monkeypatch.setattr(ObjectGraph, "children", lambda self, node: looked.append(node) or children(self, node))
    for name in names:
        assert checkpoint.keys_of(name) == checkpoint.keys_of(f"full/{name}") == [f"stored/{name}{VALUE}"]
    assert len(looked) <= len(names)
    assert checkpoint.keys_of(5) == checkpoint.keys_of("full") == []
