"""An op's outputs: how many there are and of what dtypes, by the OpDef that the file carries, or by its attributes."""

import json

import pytest
from conftest import FIXTURES

from ckpttool import proto
from ckpttool.analysis.graphs.needs import require_output
from ckpttool.errors import NotFoundError
from ckpttool.formats.meta_graph import read_meta_graph
from ckpttool.model.arguments import Tensor
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import split_tensor

FLOAT, INT64, STRING = 1, 9, 7


def unstacked(count: int, ops: int = 1, *, described: bool = True) -> MetaGraph:
    """A graph of ops that have so many outputs."""
    message = proto.message_class("MetaGraphDef")()
    if described:
        op = message.meta_info_def.stripped_op_list.op.add(name="Unpack")
        op.output_arg.add(name="output", type_attr="T", number_attr="num")
    for number in range(ops):
        node = message.graph_def.node.add(name=f"u{number}", op="Unpack")
        node.attr["T"].type, node.attr["num"].i = FLOAT, count
    return MetaGraph(message.SerializeToString())


def test_as_many_outputs_as_the_op_has():
    """Of 300, the last is there, and the one after it is not."""
    graph = unstacked(300)
    outputs = graph.outputs(graph.node("u0"))
    assert len(outputs) == len(list(outputs)) == 300
    assert outputs[299] == outputs[-1] == Tensor(DTYPES["float32"], None)
    assert outputs[298:] == [outputs[298], outputs[299]]
    with pytest.raises(IndexError):
        outputs[300]
    require_output(graph, "u0:299")
    with pytest.raises(NotFoundError, match="its last output is u0:299"):
        require_output(graph, "u0:300")


def test_a_number_in_a_file_is_no_list(run, tmp_path):
    """Outputs that nobody could have are counted, and not made; of many ops' outputs, a part is listed."""
    graph = unstacked((1 << 63) - 1, 1000)
    assert len(graph.outputs(graph.node("u0"))) == 1 << 31
    (tmp_path / "g.meta").write_bytes(graph.data)
    for names, listed in (("u1", 1 << 18), ("**", 262)):
        result = run("ls", tmp_path / "g.meta", "--ops", "--name", names, "--json")
        for op in json.loads(result.stdout)["ops"]:
            assert op["outputs"][:-1] == ["float32"] * listed
            assert op["outputs"][-1] == f"… and {(1 << 31) - listed:,} more"


def test_negative_numbers_are_no_outputs():
    """An op that says it has less than no outputs has none."""
    graph = unstacked(-1)
    assert list(graph.outputs(graph.node("u0"))) == []


def test_lists_of_types_come_one_after_another():
    """A list of types, then one argument; an OpDef that names no attribute that is there."""
    message = proto.message_class("MetaGraphDef")()
    op = message.meta_info_def.stripped_op_list.op.add(name="Own")
    op.output_arg.add(name="a", type_list_attr="Ts")
    op.output_arg.add(name="b", type=STRING)
    op.output_arg.add(name="c", type_attr="gone", is_ref=True)
    op.output_arg.add(name="d", type=FLOAT, is_ref=True)
    node = message.graph_def.node.add(name="own", op="Own")
    node.attr["Ts"].list.type.extend([FLOAT, INT64])
    graph = MetaGraph(message.SerializeToString())
    dtypes = [tensor.dtype.name if tensor.dtype else None for tensor in graph.outputs(graph.node("own"))]
    assert dtypes == ["float32", "int64", "string", None, "float32_ref"]


@pytest.mark.parametrize(
    ("type_", "attr"),
    [("StatefulPartitionedCall", "Tout"), ("While", "T"), ("Case", "Tout"), ("IteratorGetNext", "output_types")],
)
def test_a_frozen_graphs_ops_are_tensorflows(type_, attr):
    """A frozen graph carries no OpDefs; most of its ops are those that TensorFlow has."""
    graph_def = proto.message_class("GraphDef")()
    node = graph_def.node.add(name="call", op=type_)
    node.attr[attr].list.type.extend([FLOAT, STRING])
    graph_def.node.add(name="own", op="FarthestPointSample")
    graph_def.node.add(name="gather", op="GatherV2").attr["Tparams"].type = INT64
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    found = {n.name: [t.dtype.name if t.dtype else None for t in graph.outputs(n)] for n in graph.nodes}
    assert found == {"call": ["float32", "string"], "own": [], "gather": ["int64"]}
    with pytest.raises(NotFoundError, match="its last output is gather:0"):
        require_output(graph, "gather:1")
    require_output(graph, "own:1")  # Nobody knows.


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("x", ("x", "0")),
        ("x:12", ("x", "12")),
        ("x:" + "9" * 5000, ("x:" + "9" * 5000, "0")),
        ("x:٣", ("x:٣", "0")),
        ("a:b:1", ("a:b", "1")),
    ],
)
def test_numbers_of_outputs(name, parts):
    """No op has as many outputs that it takes ten digits to say, and Python reads no number of 5,000."""
    assert split_tensor(name) == parts


def test_a_member_with_a_number_of_5000_digits(run, tmp_path):
    """In a collection, and as an argument: it is no tensor's name, and nothing else than an error says so."""
    message = proto.message_class("MetaGraphDef")()
    message.ParseFromString((FIXTURES / "linear" / "model.meta").read_bytes())
    name = "activation_opt:" + "9" * 5000
    message.collection_def["activation"].node_list.value[:] = [name]
    path = tmp_path / "model.meta"
    path.write_bytes(message.SerializeToString())
    for command in (["ls", path], ["io", path], ["freeze", path, "--outputs", name, "-o", tmp_path / "o.pb"]):
        result = run(*command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 3
    assert read_meta_graph(str(path)).collections["activation"].members == [name]
