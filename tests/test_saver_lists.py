"""A saver's lists, changed: constants, inputs, types and outputs stay of one length; what is not about them stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpttool import proto
from ckpttool.analysis.graphs.savers import strings_of
from ckpttool.errors import ConversionError
from ckpttool.transforms.graph_removal import needing
from ckpttool.transforms.saver_lists import SaverLists

STRING, FLOAT, INT64 = 7, 1, 9


def constant(graph, name, texts, size=None):
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = STRING
    tensor = node.attr["value"].tensor
    tensor.dtype = STRING
    tensor.tensor_shape.dim.add(size=len(texts) if size is None else size)
    tensor.string_val.extend(text.encode() for text in texts)
    node.attr["_output_shapes"].list.shape.add().dim.add(size=len(texts) if size is None else size)
    return node


def saver(graph, names=("a", "b", "c"), scope="save", file="Placeholder", types=(FLOAT, INT64, FLOAT), prefix=""):
    """A saver of variables of these names, as TensorFlow makes it."""
    graph.node.add(name=f"{scope}/Const", op=file)
    for op in ("SaveV2", "RestoreV2"):
        constant(graph, f"{scope}/{op}/tensor_names", [f"{prefix}{name}" for name in names])
        constant(graph, f"{scope}/{op}/shape_and_slices", [f"slice {name}" for name in names])
        node = graph.node.add(name=f"{scope}/{op}", op=op)
        node.input.extend([f"{scope}/Const", f"{scope}/{op}/tensor_names", f"{scope}/{op}/shape_and_slices"])
        node.attr["dtypes"].list.type.extend(types)
    saved = next(node for node in graph.node if node.name == f"{scope}/SaveV2")
    saved.input.extend([*names, "^after"])
    restored = next(node for node in graph.node if node.name == f"{scope}/RestoreV2")
    restored.attr["_output_shapes"].list.shape.add().dim.add(size=1)
    restored.attr["_output_shapes"].list.shape.add().dim.add(size=2)
    restored.attr["_output_shapes"].list.shape.add().dim.add(size=3)
    for number, name in enumerate(names):
        assign = graph.node.add(name=f"{scope}/Assign_{number}", op="Assign")
        assign.input.extend([name, f"{scope}/RestoreV2:{number}" if number else f"{scope}/RestoreV2"])


@given(st.data())
def test_what_needs_what_is_gone(data):
    """An op goes with a value that it needs, a group with the last op that it waits for; with `by_control` with any."""
    names = [f"n{number}" for number in range(8)]
    edges = st.lists(st.builds("{}{}".format, st.sampled_from(["", "^"]), st.sampled_from([*names, "gone:1"])))
    graph = proto.message_class("GraphDef")()
    for name in names:
        inputs, op = data.draw(edges), data.draw(st.sampled_from(["NoOp", "Add"]))
        graph.node.add(name=name, op=op, input=[text for text in inputs if op == "Add" or text[0] == "^"])
    gone, spared = data.draw(st.sets(st.sampled_from(names))), data.draw(st.sets(st.sampled_from(names)))
    by_control = data.draw(st.booleans())

    def goes(node, found):
        lost = [text for text in node.input if text.removeprefix("^").partition(":")[0] in found]
        if by_control or node.op != "NoOp":
            return any(by_control or text[0] != "^" for text in lost)
        return bool(lost) and len(lost) == len(node.input)

    found = set(gone)
    for _ in names:
        found |= {node.name for node in graph.node if node.name not in spared and goes(node, found)}
    assert needing(graph.node, gone, spared, by_control=by_control) == found


def graph_of(*savers, variables=("a", "b", "c")):
    graph = proto.message_class("GraphDef")()
    for name in variables:
        graph.node.add(name=name, op="VariableV2")
    for options in savers or ({},):
        saver(graph, **options)
    return graph


def changed(graph, renames=(), dropped=(), averages=(), file="save/Const"):
    """The nodes after the change, by name; and the ops that go."""
    lists = SaverLists(list(graph.node), file)
    gone = lists.change(dict(renames), set(dropped), dict(averages))
    made = {n.name: lists.edit_node(n.SerializeToString(), n, gone) for n in graph.node if n.name not in gone}
    return {name: proto.parse("NodeDef", data) for name, data in made.items()}, gone


def texts(node):
    assert node.attr["value"].tensor.tensor_shape.dim[0].size == len(node.attr["value"].tensor.string_val)
    assert node.attr["_output_shapes"].list.shape[0].dim[0].size == len(node.attr["value"].tensor.string_val)
    return strings_of(node)


UNCHANGED = {
    "nothing": ({}, set()),
    "names that are not in the lists": ({"d": "e"}, {"f"}),
    "parts of names": ({"": "x"}, {"a/b"}),
}


@pytest.mark.parametrize(("renames", "dropped"), UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_is_not_listed_changes_nothing(renames, dropped):
    """Every node comes back byte for byte, and none goes."""
    graph = graph_of()
    lists = SaverLists(list(graph.node), "save/Const")
    assert (lists.change(renames, dropped, {}), lists.changes) == (set(), False)
    for node in graph.node:
        data = node.SerializeToString()
        assert lists.edit_node(data, node, ()) is data


def test_names_are_replaced_in_place():
    """Renamed, the lists are as long as before and in the same order; slices, inputs and types are as they were."""
    graph = graph_of()
    nodes, gone = changed(graph, {"b": "x/b"})
    assert gone == set()
    for op in ("SaveV2", "RestoreV2"):
        assert texts(nodes[f"save/{op}/tensor_names"]) == ["a", "x/b", "c"]
        assert texts(nodes[f"save/{op}/shape_and_slices"]) == ["slice a", "slice b", "slice c"]
    assert {name for name, node in nodes.items() if node not in graph.node} == {
        *("save/SaveV2/tensor_names", "save/RestoreV2/tensor_names")
    }


def test_a_dropped_variable_is_saved_and_restored_no_more():
    """Its name, slice, input, type and output go; later outputs get lower numbers; what took its output goes."""
    nodes, gone = changed(graph_of(), {}, {"b"})
    assert gone == {"save/Assign_1"}
    for op in ("SaveV2", "RestoreV2"):
        assert texts(nodes[f"save/{op}/tensor_names"]) == ["a", "c"]
        assert texts(nodes[f"save/{op}/shape_and_slices"]) == ["slice a", "slice c"]
        assert list(nodes[f"save/{op}"].attr["dtypes"].list.type) == [FLOAT, FLOAT]
    assert nodes["save/SaveV2"].input[3:] == ["a", "c", "^after"]
    assert [shape.dim[0].size for shape in nodes["save/RestoreV2"].attr["_output_shapes"].list.shape] == [1, 3]
    assert nodes["save/Assign_0"].input == ["a", "save/RestoreV2"]
    assert nodes["save/Assign_2"].input == ["c", "save/RestoreV2:1"]


def test_the_first_output_loses_its_number():
    """What was the second output and is the first now is written without a number, as TensorFlow writes it."""
    nodes, _ = changed(graph_of(), {}, {"a"})
    assert nodes["save/Assign_1"].input == ["b", "save/RestoreV2"]


def test_a_list_that_repeats_its_last_text():
    """A constant may hold fewer texts than elements: the last one stands for the rest, and all are written out."""
    graph = graph_of()
    for op in ("SaveV2", "RestoreV2"):
        node = next(n for n in graph.node if n.name == f"save/{op}/shape_and_slices")
        del node.attr["value"].tensor.string_val[1:]
    nodes, _ = changed(graph, {}, {"a"})
    assert texts(nodes["save/SaveV2/shape_and_slices"]) == ["slice a", "slice a"]


def test_nothing_left_of_the_main_saver_is_refused():
    """A main saver without a variable could not be; another one goes with all of its ops."""
    with pytest.raises(ConversionError, match="the saver save/SaveV2 would have nothing left to save"):
        changed(graph_of(), {}, {"a", "b", "c"})
    second = {"scope": "second", "names": ("d",), "types": (FLOAT,)}
    _, gone = changed(graph_of({}, second, variables="abcd"), {}, {"d"})
    assert gone >= {"second/Const", "second/SaveV2", "second/RestoreV2"}


def test_an_average_is_restored_under_its_variables_name():
    """A saver that has the average alone has the variable's name for it; one that has both loses the average."""
    averages = {f"{name}/avg": name for name in "abc"}
    both = {"names": ("a", "a/avg"), "types": (FLOAT, FLOAT)}
    alone = {"scope": "second", "prefix": "", "names": ("a/avg",), "types": (FLOAT,)}
    graph = graph_of(both, alone, variables=("a", "a/avg"))
    nodes, _ = changed(graph, {"a": "x"}, set(averages), averages)
    assert texts(nodes["save/SaveV2/tensor_names"]) == ["x"]
    assert texts(nodes["second/RestoreV2/tensor_names"]) == ["x"]


def test_another_checkpoints_names_are_left():
    """An op that restores from a constant file, and belongs to no saver, keeps its names."""
    graph = graph_of()
    graph.node.add(name="init/prefix", op="Const")
    constant(graph, "init/names", ["a"])
    constant(graph, "init/slices", [""])
    graph.node.add(name="init/RestoreV2", op="RestoreV2").input.extend(["init/prefix", "init/names", "init/slices"])
    nodes, _ = changed(graph, {"a": "x"}, {"b"})
    assert texts(nodes["init/names"]) == ["a"]
    assert texts(nodes["save/RestoreV2/tensor_names"]) == ["x", "c"]


def test_lists_that_savers_share():
    """Two ops with the same constant may change it if they agree, and are refused if they do not."""
    graph = graph_of({}, {"scope": "second"})
    for node in graph.node:
        if node.name in ("second/SaveV2", "second/RestoreV2"):
            node.input[1], node.input[2] = "save/SaveV2/tensor_names", "save/SaveV2/shape_and_slices"
    nodes, _ = changed(graph, {"a": "x"}, {"b"})
    assert texts(nodes["save/SaveV2/tensor_names"]) == ["x", "c"]
    graph = graph_of({}, {"scope": "second", "names": ("b", "a", "c")})
    for node in graph.node:
        if node.name in ("second/SaveV2", "second/RestoreV2"):
            node.input[2] = "save/SaveV2/shape_and_slices"
    with pytest.raises(ConversionError, match="savers share save/SaveV2/shape_and_slices"):
        changed(graph, {}, {"b"})


def test_lists_that_are_no_constants_are_refused():
    """Names that come from elsewhere can't be made to agree."""
    graph = graph_of()
    next(node for node in graph.node if node.name == "save/SaveV2/tensor_names").op = "Placeholder"
    with pytest.raises(ConversionError, match="the names of save/SaveV2 are no constant"):
        changed(graph, {"a": "b"})


def test_keys_of_variables():
    """A variable is known by the names under which it is saved, also behind a read, those of the main saver first."""
    graph = graph_of({"prefix": "x/"}, {"scope": "second"})
    graph.node.add(name="a/read", op="Identity").input.append("a")
    next(node for node in graph.node if node.name == "second/SaveV2").input[3] = "a/read"
    lists = SaverLists(list(graph.node), "second/Const")
    assert lists.keys == {"a": ["a", "x/a"], "b": ["b", "x/b"], "c": ["c", "x/c"]}
    assert lists.ops == {f"{scope}/{op}" for scope in ("save", "second") for op in ("SaveV2", "RestoreV2")}
