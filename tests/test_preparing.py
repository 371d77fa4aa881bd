"""A graph made ready for another TensorFlow, and how it is restored; without TensorFlow, with a registry made up."""

from types import SimpleNamespace

import pytest
from bundles import time_limit
from conftest import FIXTURES

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs.functions import recursive_functions
from ckpttool.analysis.graphs.initializers import main_ops
from ckpttool.analysis.graphs.restore_plan import plan_restore
from ckpttool.analysis.graphs.savers import restored, restored_iterators, strings_of
from ckpttool.model.graph import MetaGraph
from ckpttool.transforms.preparing import drop_output_shapes, prepare
from ckpttool.transforms.preparing.lacking import lacking_ops


class MadeUpRegistry:
    """Knows the ops that the graph itself describes, but some."""

    version = 100

    def __init__(self, graph, unknown=(), no_kernels=()):
        ops = graph.message.meta_info_def.stripped_op_list.op
        self._ops = {op.name: op for op in ops if op.name not in unknown}
        self._no_kernels = no_kernels

    def op_def(self, type_):
        return self._ops.get(type_)

    def no_kernel(self, node):
        return "runs elsewhere" if node.op in self._no_kernels else None


def linear():
    return ckpttool.open_graph(FIXTURES / "linear" / "model.meta")


def nodes_of(graph_def):
    return {node.name: node for node in graph_def.node}


def test_a_graph_that_lacks_nothing_stays_as_it_is_but_for_devices():
    """A copy is made in which devices and colocation are gone, and nothing else; the graph itself keeps them."""
    graph = ckpttool.open_graph(FIXTURES / "devices" / "model.meta")
    before = graph.graph_def.SerializeToString(deterministic=True)
    registry = SimpleNamespace(
        version=10**6, op_def=lambda type_: SimpleNamespace(attr=[]), no_kernel=lambda node: None
    )
    registry.op_def = lambda type_: None if type_ == "" else _with_any_attribute(graph, type_)
    prepared = prepare(graph, registry)
    assert (prepared.lacking, prepared.notes) == ({}, [])
    everything = [*prepared.graph_def.node, *(n for f in prepared.graph_def.library.function for n in f.node_def)]
    assert not any(node.device for node in everything)
    assert not any(b"loc:@" in member for node in everything for member in node.attr["_class"].list.s)
    assert graph.graph_def.SerializeToString(deterministic=True) == before
    kept = prepare(graph, registry, clear_devices=False)
    assert kept.graph_def.SerializeToString(deterministic=True) == before


def _with_any_attribute(graph, type_):
    keys = {key for node in graph.graph_def.node if node.op == type_ for key in node.attr}
    keys |= {
        key for f in graph.graph_def.library.function for node in f.node_def if node.op == type_ for key in node.attr
    }
    return SimpleNamespace(attr=[SimpleNamespace(name=key) for key in keys], input_arg=[], output_arg=[])


def test_stand_ins_have_the_outputs_of_what_they_stand_for():
    """One output: a placeholder of its dtype and shape; none: a NoOp; several: an IdentityN of placeholders."""
    graph = linear()
    prepared = prepare(graph, MadeUpRegistry(graph, unknown=("Mul", "SaveV2", "RestoreV2")))
    nodes = nodes_of(prepared.graph_def)
    assert sorted(prepared.lacking) == ["Mul", "save/RestoreV2", "save/SaveV2"]
    assert prepared.lacking["Mul"] == "this TensorFlow has no op of type Mul"
    assert (nodes["Mul"].op, nodes["Mul"].attr["dtype"].type, list(nodes["Mul"].input)) == ("Placeholder", 1, [])
    assert nodes["Mul"].attr["shape"].shape.unknown_rank
    assert nodes["save/SaveV2"].op == "NoOp"
    assert nodes["save/RestoreV2"].op == "IdentityN"
    assert list(nodes["save/RestoreV2"].attr["T"].list.type) == [1, 1]
    assert list(nodes["save/RestoreV2"].input) == ["save/RestoreV2/stand_in_0", "save/RestoreV2/stand_in_1"]
    assert nodes["save/RestoreV2/stand_in_1"].op == "Placeholder"


def test_what_takes_a_reference_to_a_stand_in_is_one_too():
    """An Assign of a variable that can't be can't be either; what reads the variable's value can."""
    graph = linear()
    lacking = lacking_ops(graph, MadeUpRegistry(graph, unknown=("VariableV2",)))
    assert {"W", "b", "W/Assign", "b/Assign", "save/Assign", "save/Assign_1"} == set(lacking)
    assert lacking["W/Assign"] == "W is in the way: this TensorFlow has no op of type VariableV2"


def test_an_op_without_a_kernel_is_left_out_with_the_reason():
    """What the registry says of kernels is the reason."""
    graph = linear()
    assert lacking_ops(graph, MadeUpRegistry(graph, no_kernels=("AddV2",))) == {"activation_opt": "runs elsewhere"}


def test_a_stand_in_that_nobody_described_is_what_its_takers_take():
    """In a frozen graph without descriptions, an unknown op's outputs are of the dtypes that known ops take them as."""
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="u", op="Unknown")
    graph_def.node.add(name="lonely", op="Unknown")
    graph_def.node.add(name="taker", op="Taker", input=["u:1"])
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    taker = proto.message_class("OpDef")(name="Taker")
    taker.input_arg.add(name="x", type=9)
    registry = SimpleNamespace(version=1, op_def={"Taker": taker}.get, no_kernel=lambda node: None)
    nodes = nodes_of(prepare(graph, registry).graph_def)
    assert list(nodes["u"].attr["T"].list.type) == [1, 9]
    assert nodes["lonely"].op == "NoOp"


def test_versions_that_refuse_this_one_are_mended_and_said():
    """A graph for newer readers, or not for this one, is made one for this one."""
    graph = linear()
    message = proto.parse("MetaGraphDef", graph.data)
    message.graph_def.versions.min_consumer = 101
    message.graph_def.versions.bad_consumers.append(100)
    prepared = prepare(graph.replace(data=message.SerializeToString()), MadeUpRegistry(graph))
    assert [note.partition(";")[2] for note in prepared.notes] == [" imported all the same"] * 2
    assert prepared.graph_def.versions.min_consumer == 0
    assert not prepared.graph_def.versions.bad_consumers


def test_unknown_attributes_are_dropped_and_said_unless_they_are_defaults():
    """An attribute that an op has not here goes; if it has its default, it meant nothing, and nothing is said."""
    graph = linear()
    registry = MadeUpRegistry(graph)
    message = proto.parse("MetaGraphDef", graph.data)
    for op in message.meta_info_def.stripped_op_list.op:
        if op.name == "Mul":
            op.attr.add(name="usual", type="bool").default_value.b = True
    for node in message.graph_def.node:
        if node.name == "Mul":
            node.attr["usual"].b = True
            node.attr["strange"].i = 1
            node.attr["_private"].i = 1
    prepared = prepare(graph.replace(data=message.SerializeToString()), registry)
    assert prepared.notes == ["dropped the attribute strange of 1 Mul op: this TensorFlow does not know it"]
    assert {"_private", "T"} <= set(nodes_of(prepared.graph_def)["Mul"].attr) <= {"_private", "T", "_output_shapes"}


def test_output_shapes_are_dropped_and_counted():
    """All _output_shapes attributes go, and their number is said."""
    graph_def = proto.parse("MetaGraphDef", linear().data).graph_def
    count = sum("_output_shapes" in node.attr for node in graph_def.node)
    assert count
    assert drop_output_shapes(graph_def) == count
    assert not any("_output_shapes" in node.attr for node in graph_def.node)


def planned(prefix, **options):
    graph = ckpttool.open_graph(prefix)
    return plan_restore(graph, ckpttool.open_checkpoint(prefix), **options)


@pytest.mark.parametrize("fixture", ["conv", "linear", "partitioned", "recurrent", "sharded"])
def test_a_saver_that_fits_its_checkpoint_restores(fixture):
    """Where the saver finds all that it asks for, it is used; what it leaves out is known."""
    plan = planned(FIXTURES / fixture / "model")
    assert plan.by_saver
    assert (dict(plan.missing), plan.notes) == ({}, ())


def test_partitioned_variables_are_read_in_slices_when_it_goes_one_by_one():
    """Without the saver's help its lists still say which slice of what each variable is."""
    plan = planned(FIXTURES / "partitioned" / "model", usable=False)
    assert plan.notes == ["restored variable by variable: the graph's saver needs ops that can't run here"]
    assert not plan.by_saver
    assert any(read.slice_spec for read in plan.reads)
    assert {read.variable for read in plan.reads} == {
        variable.name for variable in ckpttool.open_graph(FIXTURES / "partitioned" / "model").variables
    }


def test_without_a_checkpoint_every_variable_is_missing():
    """A graph alone has no values, and each variable says so."""
    graph = linear()
    plan = plan_restore(graph, None)
    assert dict(plan.missing) == {
        "W": "variable W has no value: there is no checkpoint beside the graph, and none was given (--checkpoint)",
        "b": "variable b has no value: there is no checkpoint beside the graph, and none was given (--checkpoint)",
    }


def test_many_iterators_are_restored_from_one_list(monkeypatch):
    """The list from which a saver restores is read once, not for each iterator."""
    message, many = proto.message_class("MetaGraphDef")(), 100
    node = message.graph_def.node.add
    names = [f"iterator_{number}" for number in range(many)]
    for name, texts in (("names", names), ("slices", [""] * many)):
        tensor = node(name=name, op="Const").attr["value"].tensor
        tensor.dtype = 7
        tensor.string_val.extend(map(str.encode, texts))
    node(name="read", op="RestoreV2", input=["", "names", "slices"]).attr["dtypes"].list.type.extend([21] * many)
    for number, name in enumerate(names):
        node(name=name, op="IteratorV2")
        node(name=f"restore_{number}", op="DeserializeIterator", input=[name, f"read:{number}"])
    node(name="restore", op="NoOp", input=[f"^restore_{number}" for number in range(many)])
    message.saver_def.restore_op_name = "restore"
    read, place = [], "ckpttool.analysis.graphs.savers.strings_of"
    monkeypatch.setattr(place, lambda constant: read.append(constant) or strings_of(constant))
    found = restored_iterators(MetaGraph(message.SerializeToString()))
    assert {name: each.key for name, each in found.items()} == dict(zip(names, names, strict=True))
    assert len(read) == 2


def test_a_saver_reads_what_its_lists_say():
    """Key, slice, dtype and variable of each thing that the saver reads."""
    graph = linear()
    reads = restored(graph)
    assert [(read.key, read.slice_spec, read.dtype.name, read.variable) for read in reads] == [
        ("W", "", "float32", "W"),
        ("b", "", "float32", "b"),
    ]


def mirrored():
    """The linear model with two copies of W: the saver restores one from what it restores W from, and one from half."""
    graph = linear()
    message = proto.parse("MetaGraphDef", graph.data)
    for name, value in (("copy", "save/RestoreV2"), ("part", "half")):
        node = message.graph_def.node.add(name=name, op="VariableV2")
        node.attr["dtype"].type = 1
        message.graph_def.node.add(name=f"save/{name}", op="Assign", input=[name, value])
        nodes_of(message.graph_def)["save/restore_all"].input.append(f"^save/{name}")
    message.graph_def.node.add(name="half", op="RealDiv", input=["save/RestoreV2", "two"])
    message.graph_def.node.add(name="two", op="Const")
    return graph.replace(data=message.SerializeToString())


def test_what_a_saver_restores_into_several_variables():
    """Each copy that MirroredStrategy has of a variable is restored, also if it goes one by one."""
    graph, checkpoint = mirrored(), ckpttool.open_checkpoint(FIXTURES / "linear" / "model")
    assert [(read.key, read.variable) for read in restored(graph)] == [("W", "W"), ("W", "copy"), ("b", "b")]
    plan = plan_restore(graph, checkpoint)
    assert plan.by_saver
    assert plan.unstored == set()
    one_by_one = plan_restore(graph, checkpoint, usable=False)
    assert [(read.variable, read.key) for read in one_by_one.reads] == [("W", "W"), ("b", "b"), ("copy", "W")]
    assert one_by_one.unstored == {"part"}


def test_functions_that_call_themselves_are_left_out():
    """TensorFlow would call them without end while it imports the graph; one beside them is not concerned."""
    message = proto.message_class("MetaGraphDef")()
    for name, calls in (("A", "B"), ("B", "A"), ("C", "A"), ("D", "E"), ("E", "Identity")):
        function = message.graph_def.library.function.add()
        function.signature.name = name
        function.node_def.add(name="call", op=calls)
    for name in "ABCDE":
        message.graph_def.node.add(name=name.lower(), op=name)
    assert recursive_functions(message.graph_def.library.function) == {"A", "B", "C"}
    lacking = lacking_ops(MetaGraph(message.SerializeToString()), Everything())
    assert sorted(lacking) == ["a", "b", "c"]
    assert "its function A calls itself" in lacking["a"]


class Everything:
    """A registry of every op."""

    version = 0

    def op_def(self, type_):
        return proto.message_class("OpDef")(name=type_)

    def no_kernel(self, node):
        return None


def test_variables_of_one_shared_name_are_one():
    """What is restored of the one is there for the other: TensorFlow keeps one value for both."""
    message = proto.message_class("MetaGraphDef")()
    message.ParseFromString((FIXTURES / "linear" / "model.meta").read_bytes())
    for name, shared, container in (("again", b"W", b""), ("other", b"", b""), ("elsewhere", b"W", b"c")):
        node = message.graph_def.node.add(name=name, op="VariableV2")
        node.attr["shared_name"].s, node.attr["container"].s = shared, container
    graph = MetaGraph(message.SerializeToString(), path=str(FIXTURES / "linear" / "model.meta"))
    plan = plan_restore(graph, ckpttool.open_checkpoint(FIXTURES / "linear" / "model"))
    assert plan.unstored == {"other", "elsewhere"}


def test_many_variables_are_planned_in_no_time():
    """What a collection says of each variable is looked up, and nobody searches it once more for each of them."""
    count = 8_000
    message = proto.message_class("MetaGraphDef")()
    for number in range(count):
        message.graph_def.node.add(name=f"v{number}", op="VarHandleOp")
        variable = proto.message_class("VariableDef")(variable_name=f"v{number}:0")
        for name in ("variables", "local_variables" if number % 2 else "trainable_variables"):
            message.collection_def[name].bytes_list.value.append(variable.SerializeToString())
    graph = MetaGraph(message.SerializeToString())
    with time_limit(5):
        plan = plan_restore(graph, ckpttool.open_checkpoint(FIXTURES / "linear" / "model"))
    assert (len(plan.missing), len(plan.unstored)) == (count // 2, count // 2)


def test_the_signature_says_what_initializes():
    """Of an op by its signature and others in collections, the signature's is the one, as in TensorFlow's loader."""
    message = proto.message_class("MetaGraphDef")()
    message.collection_def["saved_model_main_op"].node_list.value.append("by_collection")
    assert main_ops(MetaGraph(message.SerializeToString())) == ["by_collection"]
    message.collection_def["saved_model_main_op"].node_list.value[:] = []
    message.collection_def["legacy_init_op"].node_list.value.append("legacy")
    assert main_ops(MetaGraph(message.SerializeToString())) == ["legacy"]
    message.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"].name = "init:0"
    assert main_ops(MetaGraph(message.SerializeToString())) == ["init"]
