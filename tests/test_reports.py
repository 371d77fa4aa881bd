"""What the reports say, before it is made text."""

import shutil

import numpy as np
import pytest
from bundles import bundle
from conftest import FIXTURES
from privileges import unprivileged

import ckpttool
from ckpttool import proto
from ckpttool.model.object_graph import object_graph_from_keys
from ckpttool.reports import checkpoints as reports
from ckpttool.reports import graphs as graph_reports

OBJECTS = FIXTURES / "objects" / "model-1"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def column(report, name):
    """The cells of a column."""
    [index] = [i for i, found in enumerate(report.columns) if found.name == name]
    return [row[index] for row in report.rows]


def pairs(report, key, value):
    return dict(zip(column(report, key), column(report, value), strict=True))


@pytest.fixture
def without_data(tmp_path):
    """The objects fixture without its data file, and so without its object graph."""
    shutil.copy(f"{OBJECTS}.index", tmp_path)
    return ckpttool.open_checkpoint(tmp_path / "model-1")


def test_data_that_may_not_be_read(tmp_path):
    """Variables are listed as those whose data file is missing are: by what the index and the keys tell."""
    for file in OBJECTS.parent.glob(f"{OBJECTS.name}.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "model-1.data-00000-of-00001").chmod(0)

    def look() -> None:
        checkpoint = ckpttool.open_checkpoint(tmp_path / "model-1")
        assert checkpoint.places == {}
        assert {total["of"] for total in reports.variables(checkpoint).totals} > {"weights", "slots (Adam)"}

    unprivileged(look)


def test_weights_are_only_weights():
    """Optimizers' variables, the save counter, the table and the object graph have totals of their own."""
    report = reports.variables(ckpttool.open_checkpoint(OBJECTS))
    assert {total["of"]: total["variables"] for total in report.totals} == {
        "weights": 5,
        "slots (Adam)": 8,
        "bookkeeping": 4,
        "total": 17,
    }


def test_bookkeeping_is_totaled_last():
    """Weights come first, then slots, then bookkeeping, then all."""
    report = reports.variables(ckpttool.open_checkpoint(OBJECTS))
    assert [total["of"] for total in report.totals] == ["weights", "slots (Adam)", "bookkeeping", "total"]


def test_roles():
    """A variable's role says whose it is or what it is for; a weight has none."""
    roles = pairs(reports.variables(ckpttool.open_checkpoint(OBJECTS)), "name", "role")
    assert roles["opt/_variables/2" + VALUE] == "Adam slot"
    assert roles["table/.ATTRIBUTES/table-keys"] == "table"
    assert roles["save_counter" + VALUE] == "save counter"
    assert roles["_CHECKPOINTABLE_OBJECT_GRAPH"] == "object graph"
    assert roles["opt/_trainable_variables/0" + VALUE] == ""


def test_moving_averages_are_no_slots():
    """A moving average is called so, and has the total it had."""
    report = reports.variables(ckpttool.open_checkpoint(FIXTURES / "slots" / "model"))
    assert "moving average" in column(report, "role")
    assert "moving averages" in [total["of"] for total in report.totals]


def test_objects_are_named_by_their_readable_path():
    """The object of a key through Keras' lists is the layer's variable."""
    report = reports.variables(ckpttool.open_checkpoint(OBJECTS))
    assert pairs(report, "name", "object")["opt/_trainable_variables/0" + VALUE] == "model/layers/1/kernel"


def test_a_choice_keeps_what_the_whole_knows():
    """Roles and objects of chosen variables are those they have among all."""
    whole = ckpttool.open_checkpoint(OBJECTS)
    chosen = ckpttool.select(whole, include=["opt/**"])
    all_roles = pairs(reports.variables(whole), "name", "role")
    assert pairs(reports.variables(chosen, whole=whole), "name", "role") == {name: all_roles[name] for name in chosen}
    assert [t["of"] for t in reports.variable_tree(chosen, whole=whole).totals] == ["weights", "slots (Adam)", "total"]


def test_object_tree_of_the_fixture():
    """Optimizers, slots, tables and counters are labeled, and every key shown is one of the checkpoint's."""
    checkpoint = ckpttool.open_checkpoint(OBJECTS)
    report = reports.object_tree(checkpoint, checkpoint.object_graph)
    kinds = {cell[1]: kind for cell, kind in zip(column(report, "object"), column(report, "kind"), strict=True)}
    expected = {
        "opt": "Adam optimizer",
        "train": "Adam optimizer",
        "train/m of model/tied/kernel": "Adam slot",
        "model/layers/0/kernel": "variable",
        "model/tied": "see model/layers/0",
        "model/layers/0/after/before": "see model/layers/0",
        "table": "table",
        "save_counter": "save counter",
        "model": "",
    }
    assert expected.items() <= kinds.items()
    shown = {key for cell in column(report, "key") for key in cell.split(", ") if key}
    assert shown == set(checkpoint) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}


def test_object_tree_without_data(without_data):
    """Without the data file the keys make the tree, and the same keys are in it."""
    report = reports.object_tree(without_data, object_graph_from_keys(without_data))
    kinds = {cell[1]: kind for cell, kind in zip(column(report, "object"), column(report, "kind"), strict=True)}
    assert kinds["opt"] == "optimizer"
    assert kinds["train"] == "Adam optimizer"
    assert kinds["table"] == "table"
    assert {key for cell in column(report, "key") for key in cell.split(", ") if key} == set(without_data) - {
        "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def test_totals_without_data(without_data):
    """Without the data file weights are still only weights."""
    totals = {total["of"]: total["variables"] for total in reports.variables(without_data).totals}
    assert (totals["weights"], totals["bookkeeping"], totals["total"]) == (5, 4, 17)


def test_shards_are_sorted_as_numbers():
    """Shard 10 comes after shard 2, and a variable in several is shown with all."""
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.dtypes import DTYPES
    from ckpttool.model.slices import ByteRange, Slice
    from ckpttool.model.variable import Source, Variable

    class Shards(Source):
        def slices(self, variable):
            return [Slice((0,), (1,), int(n), ByteRange("", 0, 4, None)) for n in variable.name.split("+")]

    made = {name: Variable(name, DTYPES["float32"], (1,), Shards()) for name in ["10", "2", "0+11", "0", "11"]}
    report = reports.variables(Checkpoint(made, path="", format=""), sort="shard")
    assert column(report, "shard") == ["0", "0,11", "2", "10", "11"]


def test_top_says_of_how_many():
    """A listing cut by `top` says so in its title, and the totals are over all; an uncut one says nothing."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    report = reports.variables(checkpoint, top=3)
    assert report.title == f"Variables, the first 3 of {len(checkpoint)}"
    assert report.totals[-1]["variables"] == len(checkpoint)
    assert reports.variables(checkpoint, top=len(checkpoint)).title == "Variables"


def test_a_variable_with_slots_is_a_row_within_its_scope(tmp_path):
    """The scope's row has the sum and no shape; the variable's own row, with its shape, comes first below it."""
    w = np.zeros((2, 3), np.float32)
    bundle({"b": w[0], "w": w, "w/Adam": w}).write(tmp_path)
    report = reports.variable_tree(ckpttool.open_checkpoint(tmp_path / "model"))
    assert report.rows == [
        ((0, "b", "b"), (3,), 1, 3, 12),
        ((0, "w/", "w/"), "", 2, 12, 48),
        ((1, "w", "w"), (2, 3), 1, 6, 24),
        ((1, "w/Adam", "Adam"), (2, 3), 1, 6, 24),
    ]
    shallow = reports.variable_tree(ckpttool.open_checkpoint(tmp_path / "model"), depth=1)
    assert shallow.rows == report.rows[:2]


def test_constants_come_by_their_size():
    """The largest constant comes first, those of functions too; what has no value is none."""
    message = proto.message_class("GraphDef")()
    function = message.library.function.add()
    function.signature.name = "f"
    for nodes, name, size in ((message.node, "small", 4), (message.node, "large", 4000), (function.node_def, "in", 40)):
        tensor = nodes.add(name=name, op="Const").attr["value"].tensor
        tensor.dtype, tensor.tensor_content = 1, bytes(size)
        tensor.tensor_shape.dim.add(size=size // 4)
    message.node.add(name="none", op="Const")
    graph = ckpttool.MetaGraph(message.SerializeToString(), root="GraphDef")
    found = graph_reports.constants(graph)
    assert [row[:4] for row in found.rows] == [
        ("large", "", "float32", (1000,)),
        ("in", "f", "float32", (10,)),
        ("small", "", "float32", (1,)),
    ]
    assert all(stored > values for stored, values in zip(column(found, "bytes"), (4000, 40, 4), strict=True))
    assert graph.graph_def == message
