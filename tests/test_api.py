"""The library as its users import it."""

import copy
import inspect
import json
import os
import pickle
import re
import sys
from collections import ChainMap
from collections.abc import Mapping
from types import FunctionType

import ml_dtypes
import numpy as np
import pytest
from conftest import FIXTURES, ROOT

import ckpttool
from ckpttool import proto
from ckpttool.model.arguments import get_shape
from ckpttool.model.dtypes import DTYPES

LINEAR = FIXTURES / "linear" / "model"
READER = "ckpttool.formats.bundle.reading"
LIBRARIES = {"tensorflow", "numpy", "h5py", "ml_dtypes", "rich", "typer", "google.protobuf", "cramjam"}
GRAPHS = "ckpttool.model.graph"
CONV = str(FIXTURES / "conv" / "model")
HEAVY = LIBRARIES | {"dataclasses", READER, GRAPHS}
MODULES = "import sys, json; print(json.dumps([m for m in sys.modules if m in {heavy}]))"


def loaded(fresh_python, script: str) -> set[str]:
    """Which of the modules that cost a start a script has imported."""
    result = fresh_python("-c", f"{script}\n{MODULES.format(heavy=HEAVY)}")
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


LIGHT = {
    "import ckpttool": set(),
    f"import ckpttool; ckpttool.open_checkpoint({CONV!r})": {READER},
    f"import ckpttool; ckpttool.open_checkpoint({str(FIXTURES / 'conv')!r})": {READER},
    f"import ckpttool; ckpttool.open_graph({CONV!r}).message": {
        "google.protobuf",
        GRAPHS,
    },
    "import ckpttool.cli": {"typer"},
}


@pytest.mark.parametrize(("script", "allowed"), LIGHT.items())
def test_nothing_heavy_is_imported_before_it_is_needed(fresh_python, script, allowed):
    """Importing, opening and listing import none of the heavy libraries but those named here."""
    assert loaded(fresh_python, script) <= allowed


@pytest.mark.parametrize("command", [["vars"], ["ls"], ["vars", "--json"], ["ls", "--json"]], ids=" ".join)
def test_listing_imports_neither_numpy_nor_rich(fresh_python, command):
    """A piped listing is text, made without NumPy and without rich; of variables without graphs, and the other way."""
    arguments = [*command, str(FIXTURES / "conv" / "model")]
    script = (
        f"import sys; sys.argv[1:] = {arguments!r}\nfrom ckpttool.cli import app\ntry: app()\nexcept SystemExit: pass"
    )
    allowed = {"vars": {"typer", READER}, "ls": {"typer", "google.protobuf", GRAPHS}}
    assert loaded(fresh_python, script) <= allowed[command[0]]


def test_help_imports_no_command(fresh_python):
    """The list of commands is printed without any of them, and a command without the others."""
    script = (
        "import sys; sys.argv[1:] = {}\nfrom ckpttool.cli import app\ntry: app()\nexcept SystemExit: pass\n"
        "print(*sorted(name for name in sys.modules if name.startswith('ckpttool.cli.')), file=sys.stderr)"
    )
    assert fresh_python("-c", script.format(["--help"])).stderr.split() == []
    loaded = fresh_python("-c", script.format(["vars", str(FIXTURES / "conv" / "model")])).stderr.split()
    assert loaded == ["ckpttool.cli.inspecting", "ckpttool.cli.options"]


def test_a_mistyped_command_is_told_of_a_near_one(run):
    """Commands that are not imported are suggested."""
    assert "vars" in run("vasr").stderr


def test_every_public_name_exists():
    """What __all__ promises is there, and has a docstring; so have a class's own methods and properties."""
    for name in ckpttool.__all__:
        public = getattr(ckpttool, name)
        assert public.__doc__
        for function in _functions(public):
            assert inspect.getdoc(function) or hasattr(Mapping, function.__name__), function.__qualname__


def test_types_of_public_signatures_are_public():
    """Every class of ours in the annotations of a public function is a public name."""
    for name in ckpttool.__all__:
        for function in _functions(getattr(ckpttool, name)):
            named = {word for text in function.__annotations__.values() for word in re.findall(r"\w+", _written(text))}
            ours = {word for word in named if word in _CLASSES}
            assert ours <= {*ckpttool.__all__, *_OF_OBJECT_GRAPHS}, function.__qualname__


# Rows of an object graph, which have words for names, stay with it.
_OF_OBJECT_GRAPHS = {"Attribute", "Place", "Step"}


def _functions(public: object) -> list[FunctionType]:
    """A function itself; of a class, its public methods and properties."""
    if isinstance(public, FunctionType):
        return [public]
    members = {name: member for name, member in vars(public).items() if isinstance(public, type) and name[0] != "_"}
    found = [getattr(member, "fget", None) or getattr(member, "func", None) or member for member in members.values()]
    return [member for member in found if isinstance(member, FunctionType)]


def _written(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else re.sub(r"\bckpttool(\.\w+)*\.", "", repr(annotation))


_CLASSES = {
    name
    for path in (ROOT / "ckpttool").rglob("*.py")
    for name in re.findall(r"^class ([A-Z]\w+)", path.read_text(), re.MULTILINE)
}


def test_a_graph_says_what_it_is():
    """The repr of a graph has the message's name and the file."""
    assert repr(ckpttool.open_graph(FIXTURES / "linear" / "model")).startswith("<MetaGraph MetaGraphDef '")


def test_unknown_names_are_attribute_errors():
    """The lazy module behaves as a module."""
    with pytest.raises(AttributeError, match="nothing"):
        _ = ckpttool.nothing


def test_a_checkpoint_is_a_mapping():
    """Names in the checkpoint's order, membership, length; a missing name offers the near ones."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "linear" / "model")
    assert list(checkpoint) == sorted(checkpoint)
    assert "W" in checkpoint
    assert "nothing" not in checkpoint
    assert checkpoint.get("nothing") is None
    with pytest.raises(ckpttool.NotFoundError, match=r"Key WW not found in checkpoint .* near names: W"):
        checkpoint["WW"]


def test_select_chooses_by_glob():
    """`select` gives a checkpoint of the chosen variables."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    slots = ckpttool.select(checkpoint, include=["*Adam*"])
    assert slots
    assert all("Adam" in name for name in slots)
    assert not set(ckpttool.select(checkpoint, exclude=["*Adam*"])) & set(slots)


def conv():
    return ckpttool.open_checkpoint(FIXTURES / "conv" / "model")


MISTAKES = {
    "compression": (ValueError, lambda out: ckpttool.write_hdf5(conv(), out, compression="zip")),
    "no shard size": (ValueError, lambda out: ckpttool.write_safetensors(conv(), out, max_shard_size=0)),
    "no shards": (ValueError, lambda out: ckpttool.write_bundle(conv(), out, num_shards=0)),
    "only, a text": (TypeError, lambda out: ckpttool.open_checkpoint(FIXTURES / "conv" / "model", only="conv/kernel")),
    "a step that is none": (ValueError, lambda out: ckpttool.locate(FIXTURES / "conv", step="abc")),
    "a step of a file": (ValueError, lambda out: ckpttool.locate(FIXTURES / "conv" / "model.index", step=5)),
    "members that are no pairs": (
        TypeError,
        lambda out: ckpttool.edit_collections(ckpttool.open_graph(FIXTURES / "linear" / "model"), add=["a=b"]),
    ),
    "tags, a text": (TypeError, lambda out: served(ckpttool.Marks(tags="serve"))),
    "a method that is none": (ValueError, lambda out: served(ckpttool.Marks(method="nope"))),
    "arrays of no dtype": (TypeError, lambda out: ckpttool.from_arrays({"a": np.zeros(2, "datetime64[s]")})),
    "arrays of objects": (TypeError, lambda out: ckpttool.from_arrays({"a": [None]})),
    "arrays of no text": (ValueError, lambda out: ckpttool.from_arrays({"a": ["\ud800"]})),
    "arrays of no name": (ValueError, lambda out: ckpttool.from_arrays({"\ud800": [1.0]})),
    "inputs without keys": (
        TypeError,
        lambda out: ckpttool.servable(ckpttool.open_graph(FIXTURES / "linear" / "model"), None, ["x:0"], {}),
    ),
    "arrays without names": (TypeError, lambda out: ckpttool.from_arrays({1: [1.0]})),
}


def served(marks):
    prefix = FIXTURES / "linear" / "model"
    graph, checkpoint = ckpttool.open_graph(prefix), ckpttool.open_checkpoint(prefix)
    return ckpttool.servable(graph, checkpoint, {"x": "x:0"}, {"y": "activation_opt:0"}, marks)


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_arguments_are_refused(name, tmp_path):
    """What an argument can't be is a ValueError or TypeError that says what it can, and nothing is written."""
    kind, call = MISTAKES[name]
    with pytest.raises(kind) as caught:
        call(tmp_path / "out")
    assert type(caught.value) is kind
    assert not list(tmp_path.iterdir())


def test_a_variable_is_an_array_to_numpy():
    """NumPy takes a variable for its values; it is indexed as an array, and not gone through value by value."""
    kernel = conv()["conv/kernel"]
    np.testing.assert_array_equal(kernel, kernel.numpy())
    assert np.asarray(kernel, np.float64).dtype == np.float64
    assert np.asarray(kernel).dtype == np.float32
    assert np.sum(kernel) == kernel.numpy().sum()
    np.testing.assert_array_equal(kernel[0, ..., 1], kernel.numpy()[0, ..., 1])
    assert kernel.ndim == 4
    mine = np.zeros(2)
    np.array(ckpttool.from_arrays({"a": mine})["a"])[0] = 1
    assert not mine.any()
    assert str(kernel.dtype) == "float32"
    with pytest.raises(TypeError, match="not iterable"):
        iter(kernel)


def test_arrays_become_a_checkpoint(tmp_path):
    """Arrays of numbers, in any byte order and layout, of text and bytes are written as TensorFlow reads them."""
    arrays = {
        "f": np.arange(6, dtype=">f4").reshape(2, 3).T,
        "half": np.ones(2, ml_dtypes.bfloat16),
        "n": 7,
        "s": ["ä", "b"],
        "b": np.array([b"\0x", b""], object),
        "none": np.zeros((0, 3)),
    }
    if hasattr(np.dtypes, "StringDType"):
        arrays["s"] = np.array(arrays["s"], np.dtypes.StringDType())
    ckpttool.write_bundle(ckpttool.from_arrays(arrays), tmp_path / "m", strict=True)
    found = ckpttool.open_checkpoint(tmp_path / "m")
    kinds = {name: (variable.dtype.name, variable.shape) for name, variable in found.items()}
    assert kinds == {
        "b": ("string", (2,)),
        "f": ("float32", (3, 2)),
        "half": ("bfloat16", (2,)),
        "n": ("int64", ()),
        "none": ("float64", (0, 3)),
        "s": ("string", (2,)),
    }
    np.testing.assert_array_equal(found["f"].numpy(), arrays["f"])
    assert found["s"].strings() == ["ä".encode(), b"b"]
    assert found["b"].strings() == [b"\0x", b""]
    assert found["n"].numpy() == 7
    with pytest.raises(ValueError, match=r"variable 'ragged': .*inhomogeneous"):
        ckpttool.from_arrays({"ragged": [[1, 2], [3]]})


@pytest.mark.parametrize("suffix", [".ckpt.index", ".npz", ".h5", ".safetensors"])
def test_only_some_variables(tmp_path, suffix):
    """What is wanted is all that there is, in every format, and with an eye for what is damaged too."""
    conv = ckpttool.open_checkpoint(FIXTURES / "conv" / "model")
    path = tmp_path / f"m{suffix}"
    write = {".npz": ckpttool.write_npz, ".h5": ckpttool.write_hdf5, ".safetensors": ckpttool.write_safetensors}
    write.get(suffix, ckpttool.write_bundle)(conv, str(path).removesuffix(".index"))
    for faults in (None, []):
        found = ckpttool.open_checkpoint(path, only=["dense/bias", "nothing"], faults=faults)
        assert list(found) == ["dense/bias"]


def test_arrays_in_memory_stay_as_they_were_given():
    """What a variable gives of them can't be written to."""
    given = np.arange(4.0)
    for array in (given, given[:1].reshape(())):
        found = ckpttool.from_arrays({"a": array})["a"].numpy()
        with pytest.raises(ValueError, match="read-only"):
            found[...] = 7
        assert np.array_equal(np.asarray(ckpttool.from_arrays({"a": array})["a"], copy=True), array)
    assert given.tolist() == [0, 1, 2, 3]


def test_names_are_listed_and_shown_short():
    """The public names are listed; an op is shown without its values, which may be megabytes."""
    assert {name for name in dir(ckpttool) if not name.startswith("__")} == set(ckpttool.__all__)
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model")
    assert repr(graph.node("x")) == "Node('x', 'Placeholder', inputs=[], device='')"
    assert repr(graph.outputs(graph.node("x"))) == "Outputs([Tensor(dtype=DType('float32'), shape=None)])"
    assert repr(ckpttool.Outputs([None] * 9, [], None)).endswith(", … 9 in all])")
    assert repr(ckpttool.from_arrays({"a": [1]})) == "Checkpoint('arrays', arrays in memory, 1 variable)"
    objects = ckpttool.open_checkpoint(FIXTURES / "releases" / "2.13" / "model-1").object_graph
    assert repr(objects) == f"<ObjectGraph {len(objects)} objects>"
    assert conv().get(None) is None


def test_an_op_of_many_outputs_is_asked_for_each(monkeypatch):
    """The shape of an output is made when it is asked for, and not those of all others with it."""
    message, many = proto.message_class("GraphDef")(), 500
    node = message.node.add(name="x", op="Unpack")
    node.attr["num"].i, node.attr["T"].type = many, 1
    for size in range(many):
        node.attr["_output_shapes"].list.shape.add().dim.add(size=size)
    graph, made = ckpttool.MetaGraph(message.SerializeToString(), root="GraphDef"), []
    monkeypatch.setattr("ckpttool.model.arguments.get_shape", lambda shape: made.append(shape) or get_shape(shape))
    assert [graph.tensor(f"x:{number}").shape for number in range(many)] == [(size,) for size in range(many)]
    assert len(made) == many
    assert [shape for _, shape in graph.outputs(graph.node("x"))[2:4]] == [(2,), (3,)]


def test_dtypes_are_their_names_and_numpys():
    """A dtype is equal to its name and to NumPy's, and stands for both: in a dict, and where NumPy takes a dtype."""
    for variable in ckpttool.from_arrays({"a": np.float16([1]), "b": np.array([1], ml_dtypes.bfloat16)}).values():
        assert variable.dtype == variable.dtype.name
        assert variable.dtype == variable.numpy().dtype
        assert np.dtype(variable.dtype) == variable.numpy().dtype
        assert {variable.dtype: 1}[variable.dtype.name] == 1
        assert np.zeros(2, variable.dtype).dtype == variable.numpy().dtype
    assert variable.dtype != "float16"
    assert variable.dtype != 14


def test_ops_are_a_list():
    """A graph's ops have a number, and each its place."""
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model")
    assert len(graph.nodes) == len(graph.by_name)
    assert graph.nodes[0] == graph.by_name["x"]


def test_an_ops_name_is_one_text():
    """What an op takes is the very text that the other op is named: a large graph holds each name once."""
    nodes = ckpttool.open_graph(FIXTURES / "linear" / "model").by_name
    names = {name: node.name for name, node in nodes.items()}
    taken = [text for node in nodes.values() for text in node.inputs if text in names]
    assert taken
    assert all(text is names[text] for text in taken)


WRITERS = ["hdf5", "npz", "npy", "safetensors", "bundle", "tensor_slices"]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_dict_of_arrays_is_no_checkpoint(tmp_path, writer):
    """Who gives a writer arrays is told what makes a checkpoint of them, and nothing is written."""
    message = "a Checkpoint is needed, not dict: open_checkpoint opens one, from_arrays makes one of a dict of arrays"
    with pytest.raises(TypeError, match=message):
        getattr(ckpttool, f"write_{writer}")({"w": np.ones(2)}, tmp_path / "out")
    assert not list(tmp_path.iterdir())


CONV = FIXTURES / "conv" / "model"
OF_CHECKPOINTS = {
    "select": lambda given: ckpttool.select(given, ["dense/*"]),
    "rename": lambda given: ckpttool.rename(given, ["dense=>head"]),
    "drop_slots": ckpttool.drop_slots,
    "use_moving_averages": ckpttool.use_moving_averages,
    "cast": lambda given: ckpttool.cast(given, "bfloat16"),
    "average": lambda given: ckpttool.average([given]),
    "compare": lambda given: ckpttool.compare(conv(), given),
    "compare, a": lambda given: ckpttool.compare(given, conv()),
    "freeze": lambda given: ckpttool.freeze(ckpttool.open_graph(CONV), given, ["predictions"]),
    "servable": lambda given: ckpttool.servable(ckpttool.open_graph(CONV), given, {}, {"y": "predictions"}),
    "write_saved_model": lambda given: ckpttool.write_saved_model(ckpttool.open_graph(CONV), given, "served"),
}
OF_GRAPHS = {
    "endpoints": ckpttool.endpoints,
    "device_mentions": ckpttool.device_mentions,
    "asset_files": ckpttool.asset_files,
    "strip_devices": ckpttool.strip_devices,
    "edit_collections": ckpttool.edit_collections,
    "freeze": lambda given: ckpttool.freeze(given, conv(), ["predictions"]),
    "servable": lambda given: ckpttool.servable(given, conv(), {}, {"y": "predictions"}),
    "write_meta_graph": lambda given: ckpttool.write_meta_graph(given, "x.meta"),
    "write_saved_model": lambda given: ckpttool.write_saved_model(given, conv(), "served"),
}


@pytest.mark.parametrize("given", [str(CONV), CONV], ids=["text", "path"])
@pytest.mark.parametrize("name", OF_CHECKPOINTS)
def test_a_path_is_no_checkpoint(tmp_path, monkeypatch, name, given):
    """Who gives a path where a checkpoint is wanted is told what opens it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=f"a Checkpoint is needed, not {type(given).__name__}: open_checkpoint opens"):
        OF_CHECKPOINTS[name](given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [str(CONV), conv()], ids=["text", "checkpoint"])
@pytest.mark.parametrize("name", OF_GRAPHS)
def test_a_path_is_no_graph(tmp_path, monkeypatch, name, given):
    """Who gives a path, or a checkpoint, where a graph is wanted is told what opens one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=f"a MetaGraph is needed, not {type(given).__name__}: open_graph opens one"):
        OF_GRAPHS[name](given)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_no_list_of_them():
    """A mean is one of several: a checkpoint, which can be iterated too, is not taken for its names."""
    with pytest.raises(TypeError, match="checkpoints is a list of them, and this is a single one"):
        ckpttool.average(conv(), conv())


def test_an_array_is_no_variable():
    """Statistics are those of a variable: whose values alone are given is told where variables are."""
    with pytest.raises(TypeError, match="a Variable is needed, not ndarray: a Checkpoint has them"):
        ckpttool.statistics_of(np.ones(2))


@pytest.mark.parametrize("writer", WRITERS)
def test_no_big_endian_machine_writes(monkeypatch, tmp_path, writer):
    """Its bytes would be in the wrong order: it is refused before anything is written."""
    checkpoint = ckpttool.from_arrays({"w": np.ones(2, np.float32)})
    monkeypatch.setattr(sys, "byteorder", "big")
    with pytest.raises(ckpttool.NotSupportedError, match="on a big-endian machine"):
        getattr(ckpttool, f"write_{writer}")(checkpoint, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_variables_under_other_names(tmp_path):
    """A checkpoint made of others' variables has them under its own names, whatever writes it."""
    arrays = {"a": np.float32([1, 2]), "b": np.float32([3, 4])}
    checkpoint = ckpttool.from_arrays(arrays)
    swapped = checkpoint.with_variables({"a": checkpoint["b"], "b": checkpoint["a"], "c/d": checkpoint["a"]})
    ckpttool.write_bundle(swapped, tmp_path / "out")
    ckpttool.write_npz(swapped, tmp_path / "out.npz")
    for path in (tmp_path / "out", tmp_path / "out.npz"):
        found = {name: variable.numpy().tolist() for name, variable in ckpttool.open_checkpoint(path).items()}
        assert found == {"a": [3, 4], "b": [1, 2], "c/d": [1, 2]}


def test_checkpoints_are_merged(tmp_path):
    """Of one name, the last one's variable is taken; and what is made of both replaces neither, even by force."""
    one, other = tmp_path / "one", tmp_path / "other.npz"
    ckpttool.write_bundle(ckpttool.from_arrays({"a": np.float32([1]), "b": np.float32([2])}), one)
    ckpttool.write_npz(ckpttool.from_arrays({"b": np.float32([3]), "c": np.float32([4])}), other)
    merged = ckpttool.open_checkpoint(one) | ckpttool.open_checkpoint(other)
    assert {name: variable.numpy().tolist() for name, variable in merged.items()} == {"a": [1], "b": [3], "c": [4]}
    before = other.read_bytes()
    with pytest.raises(FileExistsError):
        ckpttool.write_npz(merged, other, force=True)
    with pytest.raises(FileExistsError):
        ckpttool.write_bundle(merged, one, force=True)
    assert other.read_bytes() == before
    with pytest.raises(TypeError):
        merged | {"d": np.float32([5])}


def test_only_takes_any_names():
    """From a generator, too; what are no texts are refused."""
    assert list(ckpttool.open_checkpoint(LINEAR, only=(name for name in ("b", "none")))) == ["b"]
    with pytest.raises(TypeError, match="only has 1"):
        ckpttool.open_checkpoint(LINEAR, only=["b", 1])


def test_dtypes_are_numpys_types():
    """As np.dtype("float32") == np.float32; a quantized type is none of NumPy's."""
    dtypes = ckpttool.from_arrays({"f": np.zeros(1, np.float32), "b": np.zeros(1, ml_dtypes.bfloat16)})
    assert dtypes["f"].dtype == np.float32
    assert dtypes["b"].dtype == ml_dtypes.bfloat16
    assert dtypes["f"].dtype not in (np.float64, int, str)
    assert DTYPES["qint8"] != np.int8
    assert f"{dtypes['f'].dtype:>9}" == "  float32"


def test_graphs_and_checkpoints_are_pickled(tmp_path):
    """For another process: what has been parsed is left behind."""
    graph = ckpttool.open_graph(f"{LINEAR}.meta")
    assert len(graph.nodes) == len(pickle.loads(pickle.dumps(graph)).nodes)
    assert pickle.loads(pickle.dumps(graph.nodes)) == copy.deepcopy(graph.nodes) == graph.nodes
    frozen = ckpttool.freeze(graph, ckpttool.open_checkpoint(LINEAR), ["activation_opt"]).graph
    ckpttool.write_meta_graph(frozen, tmp_path / "frozen.pb")
    arrays = ckpttool.from_arrays({"w": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "s": [b"x"]})
    ckpttool.write_npy(arrays, tmp_path / "arrays")
    for path in (tmp_path / "frozen.pb", tmp_path / "arrays", LINEAR):
        checkpoint = ckpttool.open_checkpoint(path)
        copied = pickle.loads(pickle.dumps(checkpoint))
        assert {name: v.numpy().tolist() for name, v in copied.items()} == {
            name: v.numpy().tolist() for name, v in checkpoint.items()
        }


def test_a_part_does_not_keep_the_whole():
    """An index gives a copy, unless it takes everything."""
    variable = ckpttool.from_arrays({"x": np.arange(1000.0)})["x"]
    assert variable[:3].base is None
    assert variable[:3].tolist() == [0, 1, 2]
    assert variable[5] == 5
    assert ckpttool.from_arrays({"s": np.array([b"a", b"bc"], object)})["s"][1] == b"bc"


def test_arguments_that_are_none():
    """They are refused with what they should be."""
    checkpoint = ckpttool.open_checkpoint(LINEAR)
    with pytest.raises(ValueError, match="nbytes is 0"):
        next(checkpoint["W"].blocks(0))
    with pytest.raises(ValueError, match="tolerances are -1"):
        ckpttool.compare(checkpoint, checkpoint, rtol=-1)
    with pytest.raises(TypeError, match="not 3"):
        ckpttool.cast(checkpoint, 3)
    assert ckpttool.cast(checkpoint, DTYPES["float16"])["W"].dtype == "float16"
    with pytest.raises(ckpttool.NotFoundError, match="x:0 is a tensor, of the op x"):
        ckpttool.open_graph(f"{LINEAR}.meta").node("x:0")


def test_checkpoints_of_a_directory(tmp_path):
    """They are listed, and the state file is read and written."""
    for step in (9, 10):
        ckpttool.write_bundle(ckpttool.from_arrays({"x": [1.0]}), tmp_path / f"model-{step}")
        assert ckpttool.add_to_checkpoint_state(tmp_path / f"model-{step}", force=True)
    assert ckpttool.checkpoints_in(tmp_path) == [str(tmp_path / f"model-{step}") for step in (9, 10)]
    state = ckpttool.read_checkpoint_state(tmp_path / "checkpoint")
    assert (state.latest, state.all) == ("model-10", ("model-9", "model-10"))


@pytest.mark.parametrize("given", [os.fsencode, lambda path: _Path(os.fsencode(path)), lambda path: _Path(str(path))])
def test_a_path_is_whatever_the_system_takes_for_one(tmp_path, given):
    """Bytes too, and objects that stand for them: whatever reads, writes or looks for a file takes them."""
    checkpoint, graph = conv(), ckpttool.open_graph(given(LINEAR))
    for writer in WRITERS:
        getattr(ckpttool, f"write_{writer}")(checkpoint, given(tmp_path / writer))
        assert set(ckpttool.open_checkpoint(given(tmp_path / writer))) == set(checkpoint)
        assert not ckpttool.verify(given(tmp_path / writer)).findings
    ckpttool.write_safetensors(checkpoint, given(tmp_path / "shards"), max_shard_size=100)
    for in_place in (False, True):
        ckpttool.write_meta_graph(graph, given(tmp_path / "x.meta"), in_place=in_place)
    served = ckpttool.servable(graph, ckpttool.open_checkpoint(LINEAR), {"x": "x:0"}, {"y": "activation_opt:0"})
    ckpttool.write_saved_model(served.graph, served.variables, given(tmp_path / "served"))
    assert ckpttool.add_to_checkpoint_state(given(tmp_path / "bundle"))
    assert ckpttool.read_checkpoint_state(given(tmp_path / "checkpoint")).latest == "bundle"
    assert str(tmp_path / "bundle") in ckpttool.checkpoints_in(given(tmp_path))
    assert ckpttool.locate(given(tmp_path / "x.meta")).graph == str(tmp_path / "x.meta")


class _Path:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


class _OnAnotherDevice:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


NO_ARRAYS = {
    "a path": (str(LINEAR), TypeError, "a mapping of names to arrays is needed, not str"),
    "a list": ([np.ones(2)], TypeError, "a mapping of names to arrays is needed, not list"),
    "nothing": (None, TypeError, "a mapping of names to arrays is needed, not NoneType"),
    "scopes": ({"a": {"b": np.ones(2)}}, TypeError, "variable 'a': a dict is no array: each of its arrays takes a"),
    "no value": ({"a": None}, TypeError, "variable 'a': values of the type NoneType are neither NumPy's numbers nor"),
    "a gap": ({"a": ["x", None]}, TypeError, "variable 'a': values of the type NoneType are neither"),
    "a large number": ({"a": 1 << 70}, TypeError, "variable 'a': values of the type int are neither"),
    "no array to be had": ({"a": _OnAnotherDevice()}, TypeError, "variable 'a': Can't call numpy()"),
    "a mask": ({"a": np.ma.array([1.0, 2.0], mask=[False, True])}, ValueError, "variable 'a': some of its values are"),
}


@pytest.mark.parametrize("name", NO_ARRAYS)
def test_what_makes_no_array_is_named(name):
    """By the variable, and by what was given, not by what NumPy had made of it; no value under a mask is written."""
    given, kind, message = NO_ARRAYS[name]
    with pytest.raises(kind, match=re.escape(message)):
        ckpttool.from_arrays(given)
    unmasked = np.ma.array([1.0, 2.0], mask=[False, False])
    assert ckpttool.from_arrays({"a": unmasked})["a"].numpy().tolist() == [1, 2]


def test_what_comes_but_once_is_taken_whole():
    """Pairs of zip, globs and checkpoints of a generator: as a list of them."""
    graph = ckpttool.open_graph(f"{LINEAR}.meta")
    edited = ckpttool.edit_collections(graph, add=zip(["outputs"], ["activation_opt"], strict=True))
    assert edited.collections["outputs"].members == ["activation_opt"]
    edited = ckpttool.edit_collections(edited, remove=iter([("outputs", None)]))
    assert "outputs" not in edited.collections
    objects = ckpttool.open_checkpoint(FIXTURES / "releases" / "2.13" / "model-1")
    globs = ["layer/parts/first/0/kernel"]
    assert len(ckpttool.select(objects, iter(globs))) == len(ckpttool.select(objects, globs)) == 1
    assert len(ckpttool.select(objects, exclude=iter(globs))) == len(objects) - 1
    assert "bias" in ckpttool.average(ckpttool.from_arrays({"bias": [step]}) for step in (1.0, 3.0))


def graph():
    return ckpttool.open_graph(f"{LINEAR}.meta")


SOMETHING_ELSE = {
    "a node as an output": (
        lambda out: ckpttool.freeze(graph(), None, [graph().node("x")]),
        "the name of an op or tensor is needed, not Node",
    ),
    "a node as an input": (
        lambda out: ckpttool.servable(graph(), None, {"x": graph().node("x")}, {}),
        "the name of an op or tensor is needed, not Node",
    ),
    "a number as a member": (
        lambda out: ckpttool.edit_collections(graph(), add=[("a", 1)]),
        "the name of an op or tensor is needed, not int",
    ),
    "a number of an op": (lambda out: graph().node(0), "the name of an op or tensor is needed, not int"),
    "a node as a tensor": (lambda out: graph().tensor(graph().node("x")), "the name of an op or tensor is needed"),
    "outputs of a name": (lambda out: graph().outputs("x"), "a Node is needed, not str: node() gives that of a name"),
    "tags in a list": (lambda out: ckpttool.open_graph(LINEAR, tags=["serve"]), "tags is a text, in which commas"),
    "no marks": (lambda out: served("serve"), "marks are Marks(…), not 'serve'"),
    "a size in words": (
        lambda out: ckpttool.write_safetensors(conv(), out, max_shard_size="5GB"),
        "max_shard_size is a number, not '5GB'",
    ),
    "a number in words": (
        lambda out: ckpttool.write_bundle(conv(), out, num_shards="2"),
        "num_shards is a number, not '2'",
    ),
    "pairs of names": (
        lambda out: ckpttool.rename(conv(), [("dense", "head")]),
        "a rule is a text, REGEX=>REPL, not ('dense', 'head'); a mapping has",
    ),
    "bytes as a glob": (lambda out: ckpttool.select(conv(), [b"dense/*"]), "a glob is a text, not b'dense/*'"),
    "a number for a name": (lambda out: ckpttool.rename(conv(), {"dense/bias": 1}), "a mapping of them has 1"),
    "arrays to be compared": (
        lambda out: ckpttool.compare(conv(), {"dense/bias": np.ones(3)}),
        "a Variable is needed, not ndarray",
    ),
    "arrays as variables": (
        lambda out: conv().with_variables({"a": np.ones(2)}),
        "a Variable is needed, not ndarray: from_arrays makes a checkpoint of arrays",
    ),
}


@pytest.mark.parametrize("name", SOMETHING_ELSE)
def test_what_is_needed_is_said(name, tmp_path):
    """What a user may well give instead is answered with what is needed, not with an attribute that it lacks."""
    call, message = SOMETHING_ELSE[name]
    with pytest.raises(TypeError, match=re.escape(message)):
        call(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../words.txt", "a/words.txt", "..", ""])
def test_assets_stay_in_their_directory(tmp_path, name):
    """Nothing is written where the name of an asset would lead."""
    (tmp_path / "words.txt").write_text("old")
    made = served(None)
    with pytest.raises(ValueError, match="can't be the name of a file in assets/"):
        ckpttool.write_saved_model(
            made.graph, made.variables, tmp_path / "served", assets={name: str(FIXTURES / "linear" / "checkpoint")}
        )
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]


OUT_OF_PLACE = {
    "the middle": ([np.s_[4:6, 0:3]], "the box [4:6, 0:3] does not follow: 0 elements of [18, 3] were before"),
    "a gap": ([np.s_[0:2, 0:3], np.s_[4:6, 0:3]], "the box [4:6, 0:3] does not follow: 6 elements of [18, 3] were"),
    "the beginning": ([np.s_[0:2, 0:3]], "the boxes end after 6 elements of [18, 3]"),
    "a column": ([np.s_[0:18, 0:1]], "the box [0:18, 0:1] does not follow"),
    "too much": ([np.s_[0:19, 0:3]], "the box [0:19, 0:3] does not follow"),
    "rows": ([np.s_[0:18,]], "the box [0:18] does not follow"),
    "nothing": ([], "the boxes end after 0 elements of [18, 3]"),
}


@pytest.mark.parametrize("name", OUT_OF_PLACE)
def test_boxes_that_do_not_follow_are_refused(tmp_path, name):
    """They gave the values of other places, or sound files were damaged; and those that follow give them all."""
    boxes, message = OUT_OF_PLACE[name]
    kernel = conv()["dense/kernel"].numpy()
    checkpoint = ckpttool.from_arrays({"a": kernel, "by columns": np.asfortranarray(kernel)})
    ckpttool.write_npz(checkpoint, tmp_path / "small.npz", compressed=True)
    opened = [checkpoint, ckpttool.open_checkpoint(tmp_path / "small.npz"), conv()]
    for writer in WRITERS:
        getattr(ckpttool, f"write_{writer}")(checkpoint, tmp_path / writer)
        opened.append(ckpttool.open_checkpoint(tmp_path / writer))
    opened.append(ckpttool.cast(opened[-1], "float64"))
    opened.append(ckpttool.average([opened[-2], opened[-3]]))
    for variable in [each for found in opened for each in found.values() if each.shape == (18, 3)]:
        with pytest.raises(ValueError, match=re.escape(message)):
            list(variable.read(boxes))
        with pytest.raises(ValueError, match=re.escape(message)):
            list(variable.read_of(variable.slices[0], boxes))
        whole = [np.s_[0:1, 0:2], np.s_[0:1, 2:3], np.s_[1:18, 0:3]]
        values = [array.copy() for array in variable.read(whole)]
        assert [array.shape for array in values] == [(1, 2), (1, 1), (17, 3)]
        assert np.concatenate([array.ravel() for array in values]).tolist() == variable.numpy().ravel().tolist()


def test_values_of_variables_keep_their_dtype():
    """Where they are given as arrays, too: NumPy has no dtype for quantized numbers."""
    for variable in ckpttool.open_checkpoint(FIXTURES / "dtypes" / "model").values():
        held = ckpttool.from_arrays({"a": variable})["a"]
        assert (held.dtype, held.shape) == (variable.dtype, variable.shape)
        assert held.numpy().tobytes() == variable.numpy().tobytes() or variable.dtype == "string"


@pytest.mark.parametrize("variable", [conv()["dense/bias"], ckpttool.from_arrays({"a": [1.0]})["a"]])
def test_numbers_are_no_strings(variable):
    """Those in memory gave their bytes, and those of a file could not be decoded."""
    with pytest.raises(ckpttool.NotSupportedError, match="is no string"):
        variable.strings()
    with pytest.raises(ckpttool.NotSupportedError, match="is no string"):
        variable.strings_of(variable.slices[0])


@pytest.mark.parametrize("variable", [conv()["dense/bias"], ckpttool.from_arrays({"a": [1.0]})["a"]])
def test_a_copy_that_is_forbidden_is_not_made(variable):
    """As NumPy's own arrays: another dtype takes a copy."""
    assert np.array(variable, copy=False).tolist() == variable.numpy().tolist()
    assert np.asarray(variable, np.float16).dtype == np.float16
    with pytest.raises(ValueError, match="copy"):
        np.array(variable, np.float16, copy=False)


@pytest.mark.parametrize("dtype", [np.float16, np.dtype(">f2"), ml_dtypes.bfloat16, np.dtype(ml_dtypes.bfloat16)])
def test_a_cast_takes_numpys_dtypes(dtype):
    """As NumPy takes ours; what is none is refused, None too, which is float64 to NumPy."""
    name = np.dtype(dtype).name
    assert ckpttool.cast(conv(), dtype)["dense/bias"].dtype == name
    assert ckpttool.cast(conv(), {"float32": dtype})["dense/bias"].dtype == name
    assert ckpttool.cast(conv(), {np.float32: dtype})["dense/bias"].dtype == name
    for none in (None, 3, {"float32": None}):
        with pytest.raises(TypeError, match="dtypes are a name, a DType, one of NumPy's, or a mapping of these, not"):
            ckpttool.cast(conv(), none)
    with pytest.raises(ValueError, match="'object' is no dtype to cast to"):
        ckpttool.cast(conv(), dict)


def test_near_names_are_looked_for_when_they_are_wanted(monkeypatch):
    """Who catches a KeyError, as collections.ChainMap does, does not wait for them; an error that is shown has them."""
    looked = []
    monkeypatch.setattr(
        "ckpttool.model.checkpoint.choices_hint", lambda name, names: looked.append(name) or "near names: …"
    )
    checkpoint = ckpttool.from_arrays({"b": [1.0]})
    assert ChainMap(ckpttool.from_arrays({"a": [1.0]}), checkpoint)["b"].name == "b"
    with pytest.raises(KeyError) as caught:
        checkpoint["none"]
    assert not looked
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert str(error) == "Key none not found in checkpoint · arrays · near names: …"
        assert error.hint == "near names: …"
    assert looked == ["none"]
