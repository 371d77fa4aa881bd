"""What is fetched and fed by which name, what keeps it from running, and what is made of results; no TensorFlow."""

import json

import ml_dtypes
import numpy as np
import pytest
from bundles import time_limit
from conftest import FIXTURES

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs import fetches
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.pipelines import is_pipeline
from ckpttool.analysis.graphs.running import read_variables, require_fed, waiting, written_variables
from ckpttool.analysis.values.runs import Result, differences
from ckpttool.errors import ConversionError, NotFoundError
from ckpttool.formats.results import write_results
from ckpttool.model.graph import MetaGraph
from ckpttool.reports.runs import latency, values


def graph_of(*nodes, signatures=(), collections=()):
    """A graph of (name, type, inputs); signatures of (key, inputs, outputs); collections of (name, members)."""
    message = proto.message_class("MetaGraphDef")()
    for name, type_, inputs in nodes:
        message.graph_def.node.add(name=name, op=type_, input=inputs)
    for key, inputs, outputs in signatures:
        for side, tensors in (("inputs", inputs), ("outputs", outputs)):
            for argument, tensor in tensors.items():
                getattr(message.signature_def[key], side)[argument].name = tensor
    for name, members in collections:
        message.collection_def[name].node_list.value.extend(members)
    return MetaGraph(message.SerializeToString())


PLAIN = (("x", "Placeholder", []), ("y", "Relu", ["x"]), ("z", "Softmax", ["y"]))


def test_by_default_the_signature_is_fetched():
    """serving_default, else the only one; of several others, none is guessed."""
    one = ("other", {"in": "x:0"}, {"out": "y:0"})
    default = ("serving_default", {}, {"out": "z:0"})
    assert fetches.default_choice(graph_of(*PLAIN, signatures=[one])).fetches == [("out", "y:0")]
    assert fetches.default_choice(graph_of(*PLAIN, signatures=[one, default])).signature == "serving_default"
    with pytest.raises(NotFoundError, match="several signatures · choose one of again, other"):
        fetches.default_choice(graph_of(*PLAIN, signatures=[one, ("again", {}, {"out": "z:0"})]))


def test_many_keys_of_a_signature():
    """A key is looked up among those of the signature, which are not gathered anew for each."""
    many = {f"key_{number}": "y:0" for number in range(20_000)}
    graph = graph_of(*PLAIN, signatures=[("serving_default", {"in": "x:0"}, many)])
    with time_limit(5):
        for signature in ("serving_default", ""):
            assert len(fetches.named(graph, list(many), signature)) == len(many)


def test_many_fed_tensors():
    """What is fed is looked up, whatever it is listed in."""
    many = [f"x_{number}" for number in range(20_000)]
    graph = graph_of(*((name, "Placeholder", []) for name in many), ("y", "AddN", many))
    with time_limit(5):
        assert needed_ops(graph.by_name, ["y"], {name: f"{name}:0" for name in many}.values()) == {"y"}


def test_else_the_one_collection_of_the_user_and_else_what_is_inferred():
    """A user's collection of outputs comes before inference; one of inputs or of TensorFlow's own does not count. Of
    two, neither is chosen by its name.
    """
    graph = graph_of(*PLAIN, collections=[("a_inputs", ["x:0"]), ("answers", ["y:0"]), ("losses", ["z:0"])])
    choice = fetches.default_choice(graph)
    assert (choice.fetches, choice.why) == ([("y:0", "y:0")], "the members of the collection answers")
    two = graph_of(*PLAIN, ("w", "Relu", ["z"]), collections=[("a", ["y:0"]), ("b", ["z:0"])])
    assert fetches.default_choice(two).why.startswith("the likeliest output (in the collection ")
    choice = fetches.default_choice(graph_of(*PLAIN, collections=[("losses", ["y:0"])]))
    assert choice.fetches[0].tensor == "z:0"
    assert choice.why.startswith("the likeliest output (")
    with pytest.raises(NotFoundError, match="found no outputs"):
        fetches.default_choice(graph_of(("c", "NoOp", [])))


def test_a_collection_of_layers_is_not_fetched():
    """The layers that slim, or gpt-2 for its gradients, collects are none of what somebody wants by default."""
    nodes = (*PLAIN, ("w", "VariableV2", []), ("a", "MatMul", ["x", "w"]), ("b", "MatMul", ["a", "w"]))
    graph = graph_of(
        *nodes, ("c", "MatMul", ["b", "w"]), ("d", "Softmax", ["c"]), collections=[("points", ["a:0", "b:0"])]
    )
    assert fetches.default_choice(graph).fetches[0].tensor == "d:0"


def test_inputs_are_named_by_ops_tensors_and_keys():
    """A key of the signature in use comes before an op of that name; without one in use, an op does."""
    graph = graph_of(*PLAIN, signatures=[("serving_default", {"y": "x:0", "image": "x:0"}, {"out": "z:0"})])
    assert fetches.feed_names(graph, ["y"], "serving_default") == {"y": "x:0"}
    assert fetches.feed_names(graph, ["y"]) == {"y": "y:0"}
    assert fetches.feed_names(graph, ["image"]) == {"image": "x:0"}
    assert fetches.feed_names(graph, ["x:0", "z"]) == {"x:0": "x:0", "z": "z:0"}
    with pytest.raises(NotFoundError, match="no input is named imag · near names: image"):
        fetches.feed_names(graph, ["imag"], "serving_default")
    two = graph_of(*PLAIN, signatures=[("one", {"image": "x:0"}, {}), ("two", {"words": "x:0"}, {})])
    with pytest.raises(NotFoundError, match="no input is named words · the signature two has it: --signature two"):
        fetches.feed_names(two, ["words"], "one")
    with pytest.raises(ValueError, match="x:0 is fed twice"):
        fetches.feed_names(graph, ["x", "x:0"])


def test_outputs_are_named_by_ops_tensors_and_keys():
    """As inputs are: a key of the signature in use before an op, of the default one after it; else a hint is given."""
    signatures = [("serving_default", {}, {"y": "z:0", "out": "z:0"}), ("other", {}, {"sum": "y:0"})]
    graph = graph_of(*PLAIN, signatures=signatures)
    assert fetches.named(graph, ["y"], "serving_default") == [("y", "z:0")]
    assert fetches.named(graph, ["y", "out", "z:0"]) == [("y", "y:0"), ("out", "z:0"), ("z:0", "z:0")]
    with pytest.raises(NotFoundError, match="the signature serving_default has it"):
        fetches.named(graph, ["out"], "other")
    for signature in ("", "serving_default"):
        with pytest.raises(NotFoundError, match="named sum · the signature other has it: --signature other"):
            fetches.named(graph, ["sum"], signature)
    with pytest.raises(NotFoundError, match="no op named ou"):
        fetches.named(graph, ["ou"])


def test_an_output_that_is_not_there_is_neither_fed_nor_fetched():
    """Of an op without such an output, the last one that it has is told: the op is not said to lack a value."""
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model")
    for named in (fetches.feed_names, fetches.named):
        with pytest.raises(NotFoundError, match="no tensor x:1: its last output is x:0"):
            named(graph, ["x:1"])


def test_parts_of_sparse_arguments_have_names():
    """A sparse argument is three tensors, a composite one as many as it has."""
    graph = graph_of(*PLAIN)
    message = proto.parse("MetaGraphDef", graph.data)
    sparse = message.signature_def["s"].inputs["a"].coo_sparse
    sparse.indices_tensor_name, sparse.values_tensor_name, sparse.dense_shape_tensor_name = "i:0", "v:0", "d:0"
    message.signature_def["s"].inputs["b"].composite_tensor.components.add(name="p:0")
    found = fetches.arguments(MetaGraph(message.SerializeToString()), "s", "inputs")
    assert found == {"a.indices": "i:0", "a.values": "v:0", "a.dense_shape": "d:0", "b.0": "p:0"}


def test_what_is_not_fed_is_named_with_its_key():
    """Placeholders that are needed are named, with the signature's key; those in a branch are not asked for."""
    nodes = graph_of(*PLAIN, ("gate", "NoOp", []), ("p", "Placeholder", ["^gate"]), ("q", "AddV2", ["p", "y"])).by_name
    with pytest.raises(ValueError, match=r"image \(x:0\) must be fed: .* · ckpttool io shows its dtype and shape$"):
        require_fed(nodes, needed_ops(nodes, ["q"]), keys={"image": "x:0"})
    require_fed(nodes, needed_ops(nodes, ["q"], {"y:0"}))


def test_what_waits_surely_is_told_from_what_may_wait():
    """A dequeue is in the way; one with control inputs, or behind a switch, may be."""
    nodes = graph_of(
        ("q", "FIFOQueueV2", []),
        ("sure", "QueueDequeueV2", ["q"]),
        ("maybe", "QueueDequeueV2", ["q", "^gate"]),
        ("switch", "Switch", ["q", "gate"]),
        ("branch", "QueueDequeueV2", ["switch:1"]),
        ("gate", "NoOp", []),
    ).by_name
    assert waiting(nodes, nodes) == (["sure"], ["branch", "maybe"])
    with pytest.raises(ValueError, match=r"sure \(QueueDequeueV2\) takes from an input pipeline"):
        require_fed(nodes, {"sure", "q"})


PIPELINES = [
    *("BarrierTakeMany", "InfeedDequeue", "InfeedDequeueTuple", "IteratorGetNext", "IteratorGetNextAsOptional"),
    *("IteratorGetNextSync", "MapPeek", "MapUnstage", "MapUnstageNoKey", "MultiDeviceIteratorGetNextFromShard"),
    *("OrderedMapPeek", "OrderedMapUnstage", "OrderedMapUnstageNoKey", "OutfeedDequeue", "OutfeedDequeueTuple"),
    *("OutfeedDequeueTupleV2", "OutfeedDequeueV2", "QueueDequeue", "QueueDequeueMany", "QueueDequeueManyV2"),
    *("QueueDequeueUpTo", "QueueDequeueUpToV2", "QueueDequeueV2", "ReaderRead", "ReaderReadUpTo", "ReaderReadUpToV2"),
    *("ReaderReadV2", "StagePeek", "Unstage"),
]


def test_the_ops_of_input_pipelines():
    """Of all of TensorFlow's ops, these wait for a pipeline; one of somebody's own that reads something does not."""
    assert sorted(filter(is_pipeline, proto.known_ops())) == PIPELINES
    assert not is_pipeline("MyReader")


def test_a_variable_that_is_only_written_needs_no_value():
    """Assigning, and asking whether there is a value, are no reads; adding is."""
    nodes = graph_of(
        *(("v", "VariableV2", []), ("w", "VarHandleOp", []), ("c", "Const", [])),
        *(("set", "Assign", ["v", "c"]), ("put", "AssignVariableOp", ["w", "c"])),
        *(("add", "AssignAdd", ["v", "c"]), ("ask", "VarIsInitializedOp", ["w"]), ("get", "ReadVariableOp", ["w"])),
    ).by_name
    assert read_variables(nodes, ["set", "put", "ask"]) == set()
    assert read_variables(nodes, ["add", "get"]) == {"v", "w"}
    assert read_variables(nodes, ["get"], {"w:0"}) == set()
    assert written_variables(nodes, nodes) == {"v", "w"}


def test_values_are_plain_and_short():
    """Numbers have their shortest text, strings of UTF-8 are text, other bytes bytes, complex numbers text."""
    assert values(np.float32([0.1, np.inf])) == [0.1, float("inf")]
    assert values(np.array(0.1)) == 0.1
    assert values(np.array([b"a", "é".encode(), b"\xff"], object)) == ["a", "é", b"\xff"]
    assert values(np.array([1.5], ml_dtypes.bfloat16)) == [1.5]
    assert values(np.array([3], ml_dtypes.int4)) == [3]
    assert values(np.array([True])) == [True]
    assert values(np.complex64([1 + 2j])) == ["(1+2j)"]
    assert values(np.zeros((0, 2), np.float32)) == []


def compared(a, b):
    one, two = (Result(name, {fetches.Fetch("y", "y:0"): np.asarray(array)}) for name, array in (("a", a), ("b", b)))
    (found,) = differences([one, two])
    return found.most, found.where, found.reason


DIFFERENCES = {
    "equal": ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], (0.0, "", "none")),
    "largest": ([1.0, 2.0, 3.0], [1.0, 2.5, 1.0], (2.0, (2,), "2 of 3")),
    "nan on one side": ([np.nan, 1.0], [1.0, 1.0], (np.inf, (0,), "1 of 2")),
    "integers": (np.array([2**63 - 1]), np.array([2**63 - 2]), (1.0, (0,), "1 of 1")),
    "unsigned": (np.array([0], np.uint8), np.array([255], np.uint8), (255.0, (0,), "1 of 1")),
    "complex": (np.array([3j]), np.array([4 + 0j]), (5.0, (0,), "1 of 1")),
    "strings": (np.array([b"a", b"b"], object), np.array([b"a", b"c"], object), (None, (1,), "1 of 2")),
    "bools": ([True], [True], (0.0, "", "none")),
    "shapes": ([1.0], [1.0, 2.0], (None, "", "shapes [1] and [2]")),
    "dtypes": (np.float32([1]), np.float64([1]), (None, "", "dtypes float32 and float64")),
    "beyond float64": (np.int64([7, 2**53]), np.int64([7, 2**53 + 1]), (1.0, (1,), "1 of 2")),
    "as far as can be": (np.int64([2**63 - 1]), np.int64([-(2**63)]), (float(2**64), (0,), "1 of 1")),
    "nothing": (np.zeros(0), np.zeros(0), (0.0, "", "none")),
}


@pytest.mark.parametrize(("a", "b", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_outputs_are_compared(a, b, expected):
    """The largest difference, where it is, and how many values differ; what can't be subtracted says why."""
    assert compared(a, b) == expected


def test_an_output_that_only_one_model_has_differs():
    """With several outputs, names decide; one that is missing is a difference."""
    arrays = [{fetches.Fetch(name, "t:0"): np.zeros(1) for name in names} for names in (("p", "q"), ("p", "r"))]
    found = differences([Result("a", arrays[0]), Result("b", arrays[1])])
    assert [(each.fetch, each.exceeds(0)) for each in found] == [("p", False), ("q", True), ("r", True)]


def test_percentiles_are_times_that_were_measured():
    """A percentile is the least time that so many of a hundred runs did not exceed."""
    found = latency([number / 1000 for number in range(1, 101)])
    assert found == {"min": 1, "p50": 50, "p90": 90, "p99": 99, "max": 100, "mean": 50.5}
    assert latency([0.002])["p99"] == 2


def test_results_keep_their_bits(tmp_path):
    """What NumPy has no type for is written as its bits, and said; text that ends in NUL is not cut."""
    arrays = {"a/b:0": np.array([1.5], ml_dtypes.bfloat16), "s": np.array([b"x", b"yz"], object), "n": np.float32(2)}
    remarks = write_results(arrays, str(tmp_path / "r.npz"), document="")
    assert [planned.variable.name for planned in remarks] == ["a/b:0"]
    read = np.load(tmp_path / "r.npz")
    assert read["a/b:0"].view(ml_dtypes.bfloat16).tolist() == [1.5]
    assert read["s"].tolist() == [b"x", b"yz"]
    assert read["n"].shape == ()
    write_results({"s": arrays["s"]}, str(tmp_path / "s.npy"), document="")
    assert np.load(tmp_path / "s.npy").tolist() == [b"x", b"yz"]
    write_results(arrays, str(tmp_path / "r.json"), document=json.dumps({"a": 1}))
    assert json.loads((tmp_path / "r.json").read_text()) == {"a": 1}
    with pytest.raises(ConversionError, match="holds one array, not 3"):
        write_results(arrays, str(tmp_path / "r.npy"), document="")
    with pytest.raises(FileExistsError):
        write_results(arrays, str(tmp_path / "r.npz"), document="")


def test_the_tutorial_models_variables_are_fetched_by_their_values():
    """A collection of variables stands for the tensors of their values."""
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model.meta")
    assert [fetch.tensor for fetch in fetches.of_collection(graph, "variables")] == ["W/read:0", "b/read:0"]


def test_a_result_that_no_file_holds(tmp_path):
    """What has no dtype in TensorFlow, such as a handle, is refused by name."""
    handle = {"h": np.zeros(3, "V8")}
    with pytest.raises(ConversionError, match="variable 'h': TensorFlow has no dtype void64"):
        write_results(handle, str(tmp_path / "r.npz"), document="")
