"""Frozen graphs give what the restored session gives, bit for bit; and what can't be frozen is named."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import time_limit
from conftest import FIXTURES, corpus_files, corpus_id, needs_corpus

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs.chance import drawn
from ckpttool.analysis.graphs.endpoints import endpoints
from ckpttool.errors import ConversionError, CorruptionError, NotFoundError, NotSupportedError
from ckpttool.formats.locate import locate
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import MetaGraph
from ckpttool.reports.graphs import functions
from ckpttool.transforms import freezing
from ckpttool.transforms.freezing import Frozen, freeze
from ckpttool.transforms.freezing.body import Body
from ckpttool.transforms.freezing.handles import Library, Trace
from ckpttool.transforms.freezing.initial import initial_value

tf = pytest.importorskip("tensorflow", reason="needs the extra `tensorflow`")
from freezing_cases import CASES, Case, control_flow, source, variable  # noqa: E402

v1 = tf.compat.v1
pytestmark = pytest.mark.tensorflow
Feeds = dict[str, Any]
LINEAR = FIXTURES / "linear" / "model"


def session(graph: Any = None) -> Any:
    """A session that runs ops as they are, and one by one: optimizers fold constants, and round otherwise."""
    config = v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return v1.Session(graph=graph, config=config)


def run(
    restore: Callable[[Any], object],
    fetches: Sequence[str],
    feeds: Feeds,
    first: Sequence[str] = (),
    assets: Feeds | None = None,
) -> list[Any]:
    """What a graph gives, in a session that is given up after 20 s; `first` are run before, with the assets."""
    with tf.Graph().as_default(), session() as opened:
        restore(opened)
        options = v1.RunOptions(timeout_in_ms=20_000)
        if first:
            opened.run(list(first), assets, options=options)
        return opened.run(list(fetches), feeds, options=options)


def graph_def(frozen: Frozen) -> Any:
    return v1.GraphDef.FromString(frozen.graph.data)


def run_frozen(frozen: Frozen, fetches: Sequence[str], feeds: Feeds, assets: Feeds | None = None) -> list[Any]:
    """What the frozen graph gives; what it does not need is not fed."""
    parsed = graph_def(frozen)
    names = {node.name for node in parsed.node}
    renamed = {tensor: f"{name}:0" for tensor, name in frozen.placeholders.items()}
    fed = {renamed.get(name, name): value for name, value in feeds.items()}
    fed = {name: value for name, value in fed.items() if name.split(":")[0] in names}
    return run(lambda _: tf.import_graph_def(parsed, name=""), fetches, fed, frozen.fillers, assets)


def bits(values: Iterable[Any]) -> list[Any]:
    arrays = map(np.asarray, values)
    return [(a.dtype, a.shape, a.tolist() if a.dtype == object else a.tobytes()) for a in arrays]


def restoring(prefix: str | Path) -> Callable[[Any], object]:
    return lambda opened: v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True).restore(opened, str(prefix))


def tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


class Saved:
    """A case, built and saved."""

    def __init__(self, name: str, folder: Path) -> None:
        self.prefix = folder / "model"
        with tf.Graph().as_default(), control_flow(2 if name.startswith("v2") else 1), session() as opened:
            self.case: Case = CASES[name]()
            opened.run([v1.global_variables_initializer(), *self.case.fillers])
            saver = self.case.saver or v1.train.Saver()
            saver.save(opened, str(self.prefix))
        self.outputs = [output.name for output in self.case.outputs]
        self.feeds = {fed.name: value for fed, value in self.case.feeds.items()}

    def freeze(self, **options: Any) -> Frozen:
        graph, checkpoint = ckpttool.open_graph(self.prefix), ckpttool.open_checkpoint(self.prefix)
        return freeze(graph, checkpoint, self.outputs, **{"inputs": self.case.inputs, **options})


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_those_of_the_restored_session(name: str, tmp_path: Path) -> None:
    """Each graph that is hard to freeze gives the same bits as TensorFlow does after restoring it, with no variable."""
    saved = Saved(name, tmp_path)
    frozen = saved.freeze()

    def restore(opened: Any) -> None:
        restoring(saved.prefix)(opened)
        opened.run(list(saved.case.fillers))

    expected = run(restore, saved.outputs, saved.feeds)
    assert bits(run_frozen(frozen, saved.outputs, saved.feeds)) == bits(expected)
    types = {node.op for node in every_node(graph_def(frozen))}
    assert not types & {"VarHandleOp", "VariableV2", "Variable", "ReadVariableOp", "ResourceGather", "RefEnter"}
    assert not any("Apply" in type_ or type_.startswith(("Assign", "Restore", "Save")) for type_ in types)
    assert [name.rpartition("/")[2] for name in frozen.dropped] == list(saved.case.dropped)
    assert tuple(frozen.fillers) == saved.case.fillers


def every_node(parsed: Any) -> Iterable[Any]:
    yield from parsed.node
    for function in parsed.library.function:
        yield from function.node_def


# TensorFlow's own converter leaves an update without its variable, a table without what fills it, a queue as it is,
# and of functions and gathering what it has no rule for.
BEYOND_TENSORFLOW = {
    *("updates_that_are_waited_for", "tables", "input_queues", "references_in_branches", "constants_in_loops"),
    *("handles_that_go_round", "asked_about", "gathering", "loop_with_resources", "functions_by_name"),
    "functions_that_return_a_handle",
}


@pytest.mark.parametrize(
    "name", [name for name in CASES if not name.startswith("v2") and name not in BEYOND_TENSORFLOW]
)
def test_tensorflows_own_converter_gives_the_same(name: str, tmp_path: Path) -> None:
    """Where `convert_variables_to_constants` works, its graph gives the same bits as ours."""
    saved = Saved(name, tmp_path)
    with tf.Graph().as_default() as graph, session() as opened:
        restoring(saved.prefix)(opened)
        ops = [output.split(":")[0] for output in saved.outputs]
        theirs = v1.graph_util.convert_variables_to_constants(opened, graph.as_graph_def(), ops)
    expected = run(lambda _: tf.import_graph_def(theirs, name=""), saved.outputs, saved.feeds)
    assert bits(run_frozen(saved.freeze(), saved.outputs, saved.feeds)) == bits(expected)


METAS = [*sorted(FIXTURES.rglob("*.meta")), *corpus_files("*.meta")]


SLOW = ("google_ffn", "varunravi_deepspeech", "azaganidis_pointnet2", "hms_unetcoreograph", "FW")
# Sizes of batches that a graph has fixed inside.
BATCHES = {"hms_unetcoreograph": 32}


def paired_metas() -> list[Any]:
    paths = [path for path in METAS if locate(path).has_variables]
    slow = [[pytest.mark.slow] if any(name in path.parts for name in SLOW) else [] for path in paths]
    return [pytest.param(p, marks=m, id="/".join(p.parts[-4:])) for p, m in zip(paths, slow, strict=True)]


def likely_outputs(graph: MetaGraph) -> list[str]:
    """The likeliest outputs, of which the second is no other each time; the variables, if there are none."""
    found = [endpoint.tensor for endpoint in endpoints(graph) if endpoint.direction == "output"][:2]
    found = found[:1] + [tensor for tensor in found[1:] if not drawn(graph, [tensor])]
    return found or [f"{v.name}:0" for v in graph.variables if v.type in ("Variable", "VariableV2")]


def restorable(meta: Path, outputs: Sequence[str]) -> Any:
    """The part of a graph that gives the outputs and restores the variables: of a whole one, stock TensorFlow can't
    import what it has no op for, or infers other shapes for gradients.
    """
    message = v1.MetaGraphDef.FromString(meta.read_bytes())
    ops = [name.split(":")[0] for name in outputs]
    part = v1.graph_util.extract_sub_graph(message.graph_def, [*ops, message.saver_def.restore_op_name])
    for node in part.node:
        node.ClearField("device")
        node.attr.pop("_class", None)
        if node.op != "Placeholder":
            node.attr.pop("_output_shapes", None)
    return part, message.saver_def


def random_feeds(part: Any, names: Iterable[str], batch: int = 2) -> Feeds:
    """Values for tensors, of the shapes that TensorFlow knows."""
    rng = np.random.default_rng(0)
    feeds: Feeds = {}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(part, name="")
        for name in names:
            fed = graph.get_tensor_by_name(tensor(name))
            some = [] if fed.dtype == tf.bool else [batch]
            shape = some if fed.shape.rank is None else [size or batch for size in fed.shape.as_list()]
            feeds[fed.name] = random_value(rng, fed.dtype.as_numpy_dtype, shape)
    return feeds


def random_value(rng: np.random.Generator, dtype: Any, shape: Sequence[int]) -> Any:
    if dtype is object:
        example = tf.train.Example()
        for key in ("x", "x2"):
            example.features.feature[key].float_list.value.append(rng.standard_normal())
        return np.full(shape, example.SerializeToString(), object)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def with_values(checkpoint: Checkpoint, folder: Path) -> str:
    """The prefix of a checkpoint; of one whose data are not there, that of one like it with random values."""
    if all(os.path.exists(piece.data.path) for each in checkpoint.values() for piece in each.slices):
        return checkpoint.path
    rng = np.random.default_rng(1)
    values = {key: (rng.standard_normal(v.shape) / 8).astype(v.dtype.numpy) for key, v in checkpoint.items()}
    prefix = str(folder / "random")
    with tf.Graph().as_default(), session() as opened:
        lists = {"tensor_names": list(values), "shape_and_slices": [""] * len(values)}
        opened.run(tf.raw_ops.SaveV2(prefix=prefix, tensors=list(values.values()), **lists))
    return prefix


@pytest.mark.parametrize("meta", paired_metas())
def test_graphs_of_others(meta: Path, tmp_path: Path) -> None:
    """Every graph of the fixtures and the corpus with a checkpoint gives, frozen, what the restored session gives."""
    graph = ckpttool.open_graph(meta)
    outputs = likely_outputs(graph)
    values = with_values(ckpttool.open_checkpoint(locate(meta).prefix), tmp_path)
    frozen = freeze_feeding(graph, ckpttool.open_checkpoint(values), outputs)
    part, saver = restorable(meta, outputs)
    try:
        feeds = placeholder_feeds(frozen, BATCHES.get(meta.parts[-3], 2))
    except (ValueError, tf.errors.NotFoundError) as error:
        if "not registered" not in str(error):
            raise
        pytest.skip(f"TensorFlow has no such op: {str(error)[:60]}")
    shards = locate(meta).v1_files
    stored = re.sub(r"-\d{5}-of-", "-?????-of-", shards[0]) if shards else values

    def restore(opened: Any) -> None:
        tf.import_graph_def(part, name="")
        opened.run(saver.restore_op_name, {saver.filename_tensor_name: stored})

    assert bits(run_frozen(frozen, outputs, feeds)) == bits(run(restore, outputs, feeds))


SAVED_MODELS = [path.parent for path in corpus_files("saved_model.pb") if not path.read_bytes().startswith(b"version ")]
# Their graphs are placed on devices, or have ops, that stock TensorFlow has not; or no values of their own.
NOT_LOADED = ("half_plus_two_gpu", "google_bleurt")


def saved_models() -> list[Path]:
    return [path for path in SAVED_MODELS if not any(name in str(path) for name in NOT_LOADED)]


def loading(directory: Path, tags: Sequence[str]) -> Callable[[Any], object]:
    return lambda opened: v1.saved_model.loader.load(opened, list(tags), str(directory))


def signature_names(graph: MetaGraph, key: str) -> tuple[list[str], dict[str, Any]]:
    """The tensors that a signature gives, and those that it takes, with what is known of these."""
    signature = graph.message.signature_def[key]
    return [info.name for info in signature.outputs.values()], {info.name: info for info in signature.inputs.values()}


def placeholder_feeds(frozen: Frozen, batch: int) -> Feeds:
    """Random values for the frozen graph's placeholders, under the names of what these stand for."""
    own = {f"{name}:0": fed for fed, name in frozen.placeholders.items()}
    names = [f"{node.name}:0" for node in graph_def(frozen).node if node.op.startswith("Placeholder")]
    return {own.get(name, name): value for name, value in random_feeds(graph_def(frozen), names, batch).items()}


def updates(graph: MetaGraph, outputs: Sequence[str]) -> bool:
    return any(graph.node(name.split(":")[0]).type.startswith("Assign") for name in outputs)


@needs_corpus
@pytest.mark.parametrize("directory", saved_models(), ids=corpus_id)
def test_saved_models_of_others(directory: Path) -> None:
    """Every signature of the corpus' SavedModels gives, frozen, what the loaded one gives, or is an update."""
    located = locate(directory)
    graph = ckpttool.open_graph(located)
    checkpoint = ckpttool.open_checkpoint(located) if located.has_variables else None
    judged = 0
    for key in (key for key in graph.signatures if not key.startswith("__saved_model")):
        outputs, infos = signature_names(graph, key)
        if updates(graph, outputs):
            with pytest.raises(NotSupportedError, match="may change it"):
                freeze(graph, checkpoint, outputs, inputs=list(infos))
            continue
        frozen = freeze(graph, checkpoint, outputs, inputs=list(infos))
        feeds = placeholder_feeds(frozen, batch=1)
        restore = loading(directory, graph.tag_sets[graph.number])
        assert bits(run_frozen(frozen, outputs, feeds)) == bits(run(restore, outputs, feeds)), key
        judged += 1
    assert judged


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import freezing_modules

    return freezing_modules.save(tmp_path_factory.mktemp("module"))


@pytest.mark.parametrize("key", ["loop", "looked_up", "looked_up_in_a_file", "read_and_updated"])
def test_saved_models_of_tensorflow_2(key: str, saved_model: Path) -> None:
    """Loops within functions, tables, assets, and variables of one name are frozen as they are loaded."""
    import freezing_modules

    graph, checkpoint = ckpttool.open_graph(saved_model), ckpttool.open_checkpoint(saved_model)
    outputs, infos = signature_names(graph, key)
    frozen = freeze(graph, checkpoint, outputs, inputs=list(infos))
    feeds = dict.fromkeys(infos, freezing_modules.FEEDS[key])
    assets = {name: str(saved_model / "assets" / file) for name, file in frozen.assets.items()}
    assert list(frozen.assets.values()) == ["vocabulary.txt"] * (key == "looked_up_in_a_file")
    given = run_frozen(frozen, outputs, feeds, assets)
    assert bits(given) == bits(run(loading(saved_model, ["serve"]), outputs, feeds))


def test_assets_of_tensorflow_1(tmp_path: Path) -> None:
    """A SavedModel that names its assets in a collection, as TensorFlow 1 writes them, is frozen with them."""
    (tmp_path / "words.txt").write_text("zero\none\n")
    directory = tmp_path / "model"
    with tf.Graph().as_default(), v1.Session() as session:
        word = v1.placeholder("string", [None], name="word")
        file = v1.constant(str(tmp_path / "words.txt"), name="file")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, file)
        index = tf.lookup.TextFileIndex
        words = tf.lookup.TextFileInitializer(file, "string", index.WHOLE_LINE, "int64", index.LINE_NUMBER)
        tf.identity(tf.lookup.StaticHashTable(words, -1).lookup(word), name="number")
        builder = v1.saved_model.Builder(str(directory))
        main_op = v1.tables_initializer()
        assets = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        builder.add_meta_graph_and_variables(session, ["serve"], assets_collection=assets, main_op=main_op)
        builder.save()
    (tmp_path / "words.txt").unlink()
    graph = ckpttool.open_graph(directory)
    assert not graph.message.asset_file_def
    frozen = freeze(graph, None, ["number"])
    assert frozen.assets == {"file:0": "words.txt"}
    given = run_frozen(frozen, ["number:0"], {"word:0": [b"one", b"?"]}, {"file:0": f"{directory}/assets/words.txt"})
    assert given[0].tolist() == [1, -1]


def test_a_recurrent_model_of_keras(tmp_path: Path) -> None:
    """An exported Keras model, whose every layer is a function, is frozen as it is loaded."""
    import freezing_modules

    directory = freezing_modules.save_keras(tmp_path)
    graph, checkpoint = ckpttool.open_graph(directory), ckpttool.open_checkpoint(directory)
    outputs, _ = signature_names(graph, "serving_default")
    frozen = freeze(graph, checkpoint, outputs)
    feeds = placeholder_feeds(frozen, batch=2)
    assert bits(run_frozen(frozen, outputs, feeds)) == bits(run(loading(directory, ["serve"]), outputs, feeds))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("remembered", "which is not filled by the graph"),
        ("updated_and_read", "after AssignAddVariableOp has changed"),
    ],
)
def test_what_a_saved_model_can_not_do_frozen(key: str, reason: str, saved_model: Path) -> None:
    """A table filled by the checkpoint, and a read after an update, are named."""
    graph, checkpoint = ckpttool.open_graph(saved_model), ckpttool.open_checkpoint(saved_model)
    with pytest.raises(NotSupportedError, match=reason):
        freeze(graph, checkpoint, signature_names(graph, key)[0])


def built(folder: Path, build: Callable[[], object], **saver: Any) -> tuple[MetaGraph, Checkpoint]:
    """A graph and its checkpoint."""
    with tf.Graph().as_default(), control_flow(1), session() as opened:
        build()
        opened.run(v1.global_variables_initializer())
        v1.train.Saver(**saver).save(opened, str(folder / "model"))
    return ckpttool.open_graph(folder / "model"), ckpttool.open_checkpoint(folder / "model")


def updating() -> None:
    w = variable("w", 3, resource=False)
    added = v1.assign_add(w, tf.ones([3]), name="added")
    tf.identity(added, name="used")
    with tf.control_dependencies([added]):
        tf.add(tf.raw_ops.Identity(input=w._ref(), name="late"), 0, name="after")
    with tf.control_dependencies([added]):
        tf.constant(1.0, name="waiting")

    def updated(value: Callable[[], Any]) -> Any:
        with tf.control_dependencies([v1.assign_add(w, tf.ones([3]), name="updated")]):
            return value()

    flag = v1.placeholder_with_default(True, [], name="flag")
    chosen = tf.cond(flag, lambda: updated(lambda: tf.constant(1.0)), lambda: tf.constant(3.0), name="cond")
    tf.identity(chosen, name="chosen")
    looped = tf.while_loop(lambda i: i < 3, lambda i: updated(lambda: i + 1), [0], name="loop")
    tf.identity(looped, name="looped")
    local = v1.get_local_variable("local", initializer=v1.random_normal([2]), use_resource=True)
    tf.identity(local * 1, name="from_local")
    queue = v1.FIFOQueue(3, [tf.float32, tf.int32], name="queue")
    tf.identity(queue.dequeue(name="taken")[1], name="from_queue")


REFUSED = {
    "used": (NotSupportedError, "used takes what added gives .AssignAdd.: it takes the variable w itself"),
    "added": (NotSupportedError, "added is asked for .AssignAdd."),
    "after": (NotSupportedError, "late reads the variable w after added has changed it"),
    "chosen": (NotSupportedError, "cond/Const waits for cond/updated, an update in a branch or loop"),
    "looped": (NotSupportedError, "loop/add/y waits for loop/updated, an update in a branch or loop"),
    "from_local": (NotFoundError, "no values of variables that the outputs need: local"),
    "from_queue": (NotSupportedError, "taken .QueueDequeueV2., an input pipeline .*--inputs taken:1"),
    "nowhere": (NotFoundError, "no op named nowhere"),
    "usde": (NotFoundError, "near names: used"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_frozen_is_named(name: str, tmp_path: Path) -> None:
    """The error says which op it is about, and what to do."""
    graph, checkpoint = built(tmp_path, updating)
    kind, reason = REFUSED[name]
    with pytest.raises(kind, match=reason) as caught:
        freeze(graph, checkpoint, [name])
    assert caught.value.hint
    assert freeze(graph, checkpoint, ["waiting"]).dropped == ["added"]


def test_trees_can_not_be_frozen(tmp_path: Path) -> None:
    """A forest is no variable: without what restores it, a frozen graph would have none."""
    with tf.Graph().as_default():
        forest = tf.raw_ops.BoostedTreesEnsembleResourceHandleOp(container="", shared_name="forest", name="forest")
        tf.raw_ops.BoostedTreesPredict(
            tree_ensemble_handle=forest, bucketized_features=[[0, 1]], logits_dimension=1, name="leaves"
        )
        v1.train.export_meta_graph(str(tmp_path / "model.meta"))
    graph = ckpttool.open_graph(tmp_path / "model.meta")
    reason = r"need forest \(BoostedTreesEnsembleResourceHandleOp\), whose contents no constant can hold"
    with pytest.raises(NotSupportedError, match=reason) as caught:
        freeze(graph, None, ["leaves"])
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("--inputs leaves:0")
    assert freeze(graph, None, ["leaves"], inputs=["leaves"]).placeholders == {"leaves:0": "leaves"}


def test_what_a_saver_makes_of_stored_values_can_not_be_frozen(tmp_path: Path) -> None:
    """Of a sum over devices each copy is restored as a part; what has the name of one is not its value.

    (tensorflow/python/distribute/values.py, _SyncOnReadSaveable)
    """
    graph, checkpoint = built(tmp_path, CASES["references"])
    message = graph.message
    assigned = next(node for node in message.graph_def.node if node.name.startswith("save/Assign"))
    assert assigned.input[0] == "b"
    message.graph_def.node.add(name="part", op="RealDiv", input=[assigned.input[1], "two"])
    message.graph_def.node.add(name="two", op="Const")
    assigned.input[1] = "part"
    halved = MetaGraph(message.SerializeToString(), path=graph.path)
    with pytest.raises(NotSupportedError, match="the saver does not restore b as it is stored") as caught:
        freeze(halved, checkpoint, ["y"])
    assert caught.value.hint is not None


def test_functions_of_before_tensorflow_1(tmp_path: Path) -> None:
    """Their ops are counted, in texts too; as TensorFlow reads them no more, what needs them is refused."""
    path = tmp_path / "graph.pbtxt"
    path.write_text(
        """node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }
        node { name: "y" op: "twice" input: "x" }
        library { function {
          signature {
            name: "twice"
            input_arg { name: "a" type: DT_FLOAT } output_arg { name: "b" type: DT_FLOAT }
          }
          node { ret: "b" op: "Add" arg: "a" arg: "a" attr { key: "T" value { type: DT_FLOAT } } }
        } }"""
    )
    graph = ckpttool.open_graph(path)
    assert functions(graph).rows == [("twice", 1, ["a"], ["b"])]
    with pytest.raises(NotSupportedError, match="the function twice is written as TensorFlow before 1"):
        freeze(graph, None, ["y"])
    with (
        ckpttool.ImportedGraph(path) as model,
        pytest.raises(NotSupportedError, match="twice is written as TensorFlow"),
    ):
        model.run("y", {"x": 1})


def test_names_that_are_none() -> None:
    """No outputs would be a graph of no ops, and a text a list of its letters: both are refused."""
    graph, checkpoint = ckpttool.open_graph(LINEAR), ckpttool.open_checkpoint(LINEAR)
    with pytest.raises(ValueError, match="no outputs"):
        freeze(graph, checkpoint, [])
    with pytest.raises(TypeError, match=r"outputs is a list of names: \['activation_opt'\]"):
        freeze(graph, checkpoint, "activation_opt")
    with pytest.raises(TypeError, match="inputs is a list"):
        freeze(graph, checkpoint, ["activation_opt"], inputs="x:0")


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    """A variable of another dtype or shape than the stored one is refused, with both."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    graph, _ = built(tmp_path / "a", lambda: variable("w", 3, resource=True))
    _, longer = built(tmp_path / "b", lambda: variable("w", 4, resource=True))
    _, double = built(tmp_path / "c", lambda: variable("w", resource=True, value=np.zeros(3)))
    with pytest.raises(ConversionError, match=r"shape \[3\], the checkpoint's of \[4\]"):
        freeze(graph, longer, ["w/Read/ReadVariableOp"])
    with pytest.raises(ConversionError, match="of float32, the checkpoint's of float64"):
        freeze(graph, double, ["w/Read/ReadVariableOp"])
    with pytest.raises(NotFoundError, match="no checkpoint is beside: w"):
        freeze(graph, None, ["w/Read/ReadVariableOp"])


def test_more_than_a_message_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values beyond the limit are refused before any of them is read."""
    graph, checkpoint = built(tmp_path, lambda: variable("w", 300, resource=True))
    monkeypatch.setattr(freezing, "MAX_SIZE", 1000)
    monkeypatch.setattr(type(checkpoint["w"]), "blocks", None)
    with pytest.raises(NotSupportedError, match="would take 1,200 bytes"):
        freeze(graph, checkpoint, ["w/Read/ReadVariableOp"])


def test_damaged_values_are_noticed(tmp_path: Path) -> None:
    """A changed byte in the data is found by its checksum."""
    graph, checkpoint = built(tmp_path, lambda: variable("w", 3, resource=True))
    data = next(tmp_path.glob("*.data*"))
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    with pytest.raises(CorruptionError, match="w"):
        freeze(graph, checkpoint, ["w/Read/ReadVariableOp"])


def test_what_stays_is_as_it_was(tmp_path: Path) -> None:
    """Ops that are no variables keep their bytes and their order, and versions theirs."""
    graph, checkpoint = built(tmp_path, CASES["references"])
    frozen = freeze(graph, checkpoint, ["y"], keep_devices=True)
    old = {node.name: node for node in graph.graph_def.node}
    kept = list(frozen.graph.graph_def.node)
    assert [node.name for node in kept] == [name for name in old if name in {node.name for node in kept}]
    assert {node.name for node in kept if node != old[node.name]} == {"w", "b"}
    assert frozen.graph.graph_def.versions == graph.graph_def.versions
    assert (frozen.ops, frozen.variables, frozen.nbytes) == (len(kept), 2, 60)
    assert freeze(graph, checkpoint, ["y"], keep_devices=True).graph.data == frozen.graph.data


def test_devices_go_unless_they_are_kept(tmp_path: Path) -> None:
    """Placements of ops, variables and functions' ops are dropped, or kept."""

    def build() -> None:
        with tf.device("/cpu:0"):
            x, w = source(3), variable("w", 3, resource=True)
            tf.identity(tf.function(lambda x: x * w, autograph=False)(x), name="y")

    graph, checkpoint = built(tmp_path, build)
    assert set(freeze(graph, checkpoint, ["y"]).graph.devices) == {""}
    kept = freeze(graph, checkpoint, ["y"], keep_devices=True).graph
    assert {node.name for node in kept.nodes if not node.device} == set()


def test_colocation_with_what_is_gone(tmp_path: Path) -> None:
    """`_class` loses the ops that are gone, and keeps those that stay."""
    saved = Saved("unrelated_colocation", tmp_path)
    classes = [list(node.attr["_class"].list.s) for node in graph_def(saved.freeze()).node if "_class" in node.attr]
    assert [b"loc:@w"] in classes
    assert not any(b"loc:@gone" in names for names in classes)


def test_a_graph_without_variables_needs_no_checkpoint(tmp_path: Path) -> None:
    """A frozen graph is cut down to other outputs, and gives the same file when frozen once more."""
    graph, checkpoint = built(tmp_path, CASES["references"])
    frozen = freeze(graph, checkpoint, ["y"]).graph
    assert freeze(frozen, None, ["y"]).graph.data == frozen.data
    assert [node.name for node in freeze(frozen, None, ["w/read"]).graph.nodes] == ["w", "w/read"]


def piped() -> None:
    """A model whose input may be fed in place of what an iterator gives, which a handle tells."""
    handle = v1.placeholder("string", [], "handle")
    images, labels = v1.data.Iterator.from_string_handle(handle, ("float32", "int32"), ([None, 3], [None])).get_next(
        "n"
    )
    x = v1.placeholder_with_default(images, [None, 3], "x")
    rate = v1.placeholder_with_default(2.0, [], "rate")
    y = tf.multiply(tf.matmul(x, variable("w", 3, 2, resource=False)), rate, name="y")
    tf.add(y, tf.cast(tf.shape(labels)[0], "float32"), name="z")


def test_what_is_fed_in_place_of_a_pipeline(tmp_path: Path) -> None:
    """Fed, it stands by itself, and the pipeline goes; a default that is no pipeline's stays."""
    graph, checkpoint = built(tmp_path, piped)
    with pytest.raises(NotSupportedError, match=r"an input pipeline .*--inputs n:1,x:0$"):
        freeze(graph, checkpoint, ["z"])
    frozen = freeze(graph, checkpoint, ["y"], inputs=["x", "rate"])
    assert {node.name: node.type for node in frozen.graph.nodes if "Placeholder" in node.type} == {
        "x": "Placeholder",
        "rate": "PlaceholderWithDefault",
    }
    feeds = {"x:0": np.ones([4, 3], np.float32)}
    expected = run(restoring(tmp_path / "model"), ["y:0"], feeds)
    assert np.array_equal(run_frozen(frozen, ["y:0"], feeds)[0], expected[0])


def test_functions_of_one_name_stay_apart(tmp_path: Path) -> None:
    """A function is kept for each kind of arguments, and what is not called goes."""
    saved = Saved("v2_functions_called_with_several_variables", tmp_path)
    before = len(ckpttool.open_graph(saved.prefix).graph_def.library.function)
    names = [function.signature.name for function in graph_def(saved.freeze()).library.function]
    assert len(names) == len(set(names)) <= before
    assert sum(name.endswith("_frozen") for name in names) == 2


def test_local_variables_begin_as_they_do_in_a_session(run_command: Any, tmp_path: Path) -> None:
    """Nothing is stored of them: what their initializers give is frozen, if it is a constant, and said."""

    def build() -> None:
        x = v1.placeholder("float32", [None], "x")
        w = v1.get_variable("w", initializer=2.0)
        scale = v1.get_local_variable("scale", initializer=3.0)
        shift = v1.get_local_variable("shift", initializer=np.float32([1, 2]), use_resource=True)
        v1.identity(x * w * scale + shift, name="y")
        v1.identity(w + v1.get_local_variable("drawn", initializer=v1.random_normal([])), name="by_chance")

    graph, checkpoint = built(tmp_path, build)
    frozen = freeze(graph, checkpoint, ["y"])
    assert sorted(frozen.initial) == ["scale", "shift"]
    assert run_frozen(frozen, ["y:0"], {"x:0": [1.0, 10.0]})[0].tolist() == [7, 62]
    with pytest.raises(NotFoundError, match="variables that the outputs need: drawn"):
        freeze(graph, checkpoint, ["by_chance"])
    said = run_command("freeze", tmp_path / "model.meta", "--outputs", "y", "-o", tmp_path / "y.pb").stderr
    assert "note: with their initial values, because none were stored: s" in said


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "float16", "bfloat16", "int8", "uint16", "int64", "uint64", "bool"]
)
@pytest.mark.parametrize("values", [[1], [1, 0, 3, 1], [[7]]])
def test_constants_are_what_tensorflow_makes_of_them(dtype: str, values: Any) -> None:
    """As bytes, value by value, and one for all, by tf.make_ndarray."""
    array = np.array(values).astype(tf.as_dtype(dtype).as_numpy_dtype)
    whole = tf.make_tensor_proto(array)
    listed = tf.make_tensor_proto(array.ravel()[:1].reshape(()), shape=[2, 3])
    for tensor in (whole, listed, tf.make_tensor_proto(np.array([b"a", b""], object))):
        node = proto.message_class("NodeDef").FromString(
            v1.NodeDef(attr={"value": v1.AttrValue(tensor=tensor)}).SerializeToString()
        )
        found, expected = initial_value("c", node), tf.make_ndarray(tensor)
        assert found is not None
        assert (found.shape, found.numpy().tolist()) == (expected.shape, expected.tolist())


def test_a_lookup_that_must_be_fed_is_named() -> None:
    """Of a table that the checkpoint fills, what is looked up can be fed: by the name that the message has."""
    message = proto.message_class("GraphDef")()
    message.node.add(name="table", op="MutableHashTableV2")
    message.node.add(name="keys", op="Placeholder").attr["dtype"].type = 7
    found = message.node.add(name="found", op="LookupTableFindV2", input=["table", "keys", "keys"])
    found.attr["Tout"].type = 1
    message.node.add(name="y", op="Identity", input=["found"])
    graph = MetaGraph(message.SerializeToString(), root="GraphDef")
    with pytest.raises(NotSupportedError, match=r"the table table, .*--inputs found:0$"):
        freeze(graph, None, ["y"])
    assert freeze(graph, None, ["y"], inputs=["found:0"]).ops == 2


def calling(name: str, called: str, times: int = 1) -> Any:
    """A function that calls another one with its argument, a variable, so many times."""
    function = proto.message_class("FunctionDef")()
    function.signature.name = name
    function.signature.input_arg.add(name="v", type=20)
    for number in range(times):
        function.node_def.add(name=f"call{number or ''}", op=called).input.append("v")
    return function


@pytest.mark.parametrize("restores", [False, True])
def test_functions_that_call_others_over_and_over(restores: bool) -> None:
    """What is found out of a function is found out once, not at each of its 20 ** 40 calls."""
    message = proto.message_class("MetaGraphDef")()
    nodes, functions = message.graph_def.node, message.graph_def.library.function
    nodes.add(name="w", op="VarHandleOp").attr["dtype"].type = 1
    nodes.add(name="called", op="f0").input.append("w")
    nodes.add(name="y", op="ReadVariableOp", input=["w", *([] if restores else ["^called"])]).attr["dtype"].type = 1
    names = [f"f{number}" for number in range(41)]
    functions.extend(calling(*pair, 20) for pair in pairwise(names))
    functions.add().signature.name = names[-1]
    functions[-1].signature.input_arg.add(name="v", type=20)
    if restores:
        message.saver_def.restore_op_name = "called"
        for function in functions:
            function.node_def.add(name="restore", op="RestoreV2")
    graph = MetaGraph(message.SerializeToString(), root="MetaGraphDef")
    with time_limit(30):
        assert freeze(graph, ckpttool.from_arrays({"w": np.float32(3)}), ["y"]).variables


def test_many_updates_in_a_row():
    """As of batch norm, one after each layer: not all that comes after an update is looked at for each of them."""
    many = 2000
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="layer_0", op="Placeholder").attr["dtype"].type = 1
    for number in range(many):
        mean = f"mean_{number}"
        graph_def.node.add(name=mean, op="VarHandleOp").attr["dtype"].type = 1
        graph_def.node.add(name=f"{mean}/read", op="ReadVariableOp", input=[mean]).attr["dtype"].type = 1
        graph_def.node.add(name=f"{mean}/update", op="AssignSubVariableOp", input=[mean, f"layer_{number}"])
        inputs = [f"layer_{number}", f"{mean}/read", f"^{mean}/update"]
        graph_def.node.add(name=f"layer_{number + 1}", op="Mul", input=inputs)
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    checkpoint = ckpttool.from_arrays({f"mean_{number}": np.float32(3) for number in range(many)})
    looked_at, users = Counter[str](), Body.users
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Body, "users", lambda body, op: looked_at.update([op]) or users(body, op))
        assert len(freeze(graph, checkpoint, [f"layer_{many}"]).dropped) == many
    assert looked_at.total() < 30 * many


def test_many_calls():
    """What a function does to its arguments is found out once, and not at each of its calls."""
    many = 2000
    graph_def = proto.message_class("GraphDef")()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    for name, dtype in (("x", 1), ("v", 20)):
        function.signature.input_arg.add(name=name, type=dtype)
    function.signature.output_arg.add(name="y", type=1)
    function.node_def.add(name="r", op="ReadVariableOp", input=["v"]).attr["dtype"].type = 1
    for number in range(many):
        function.node_def.add(name=f"u{number}", op="AssignAddVariableOp", input=["v", "x"]).attr["dtype"].type = 1
    function.ret["y"] = "r:value:0"
    graph_def.node.add(name="y_0", op="Placeholder").attr["dtype"].type = 1
    for number in range(many):
        graph_def.node.add(name=f"v{number}", op="VarHandleOp").attr["dtype"].type = 1
        graph_def.node.add(name=f"y_{number + 1}", op="f", input=[f"y_{number}", f"v{number}"])
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    checkpoint = ckpttool.from_arrays({f"v{number}": np.float32(3) for number in range(many)})
    asked, changed = Counter[str](), Trace.changed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trace, "changed", lambda trace, name: asked.update([name]) or changed(trace, name))
        assert freeze(graph, checkpoint, [f"y_{many}"]).variables == many
    assert asked.total() < 5 * many


def test_many_handles_through_a_call():
    """The users of an op are looked up once, and not for each of its outputs."""
    many = 3000
    graph_def = proto.message_class("GraphDef")()
    function = graph_def.library.function.add()
    function.signature.name = "f"
    for number in range(many):
        function.signature.input_arg.add(name=f"a{number}", type=20)
        function.signature.output_arg.add(name=f"o{number}", type=20)
        function.ret[f"o{number}"] = f"a{number}"
        graph_def.node.add(name=f"v{number}", op="VarHandleOp").attr["dtype"].type = 1
    graph_def.node.add(name="call", op="f", input=[f"v{number}" for number in range(many)])
    for number in range(many):
        graph_def.node.add(name=f"r{number}", op="ReadVariableOp", input=[f"call:{number}"]).attr["dtype"].type = 1
    made = Body(graph_def.node, lambda _: None)
    asked, users = Counter[str](), Body.users
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Body, "users", lambda body, op: asked.update([op]) or users(body, op))
        trace = Trace(made, Library(graph_def.library.function, lambda _: None))
    assert trace.outputs("call").keys() == set(range(many))
    assert asked["call"] < 5


def test_many_users_of_variables():
    """Those still to be looked at are taken from the front, which is not looked for among those that were."""
    many = 250_000
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="v", op="VarHandleOp").attr["dtype"].type = 1
    for number in range(many):
        graph_def.node.add(name=f"r{number}", op="ReadVariableOp", input=["v"])
    body, library = Body(graph_def.node, lambda _: None), Library([], lambda _: None)
    with time_limit(12):
        trace = Trace(body, library)
    assert len(trace.touched) == many


def test_many_inputs():
    """Each input is looked up among all inputs, not looked for."""
    many = 20_000
    graph_def = proto.message_class("GraphDef")()
    graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = 1
    names = [f"x_{number}" for number in range(many)]
    for name in names:
        graph_def.node.add(name=name, op="Relu", input=["x"]).attr["T"].type = 1
    graph_def.node.add(name="y", op="AddN", input=[*names, *(f"^{name}" for name in names)])
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    with time_limit(10):
        assert len(freeze(graph, None, ["y"], inputs=names).placeholders) == many


@pytest.mark.parametrize(("last", "reason"), [("f0", "calls itself"), ("f200", "deep"), ("nothing", "")])
def test_functions_that_never_end(last: str, reason: str) -> None:
    """Functions that call themselves, or one another too deep, are refused, and no recursion runs out."""
    message = proto.message_class("GraphDef")()
    message.node.add(name="w", op="VarHandleOp").attr["dtype"].type = 1
    message.node.add(name="y", op="f0").input.append("w")
    depth = {"f0": 3, "f200": 200, "nothing": 50}[last]
    names = [f"f{number}" for number in range(depth)]
    message.library.function.extend(map(calling, names, [*names[1:], last]))
    graph = MetaGraph(message.SerializeToString(), root="GraphDef")
    with pytest.raises(NotSupportedError if reason else NotFoundError, match=reason or "no checkpoint is beside"):
        freeze(graph, None, ["y"])


def test_the_command(run_command: Any, tmp_path: Path) -> None:
    """What is kept and frozen is said, the file opens as a graph, and is not overwritten unasked."""
    built(tmp_path, CASES["references"])
    out = tmp_path / "frozen.pb"
    arguments = ["freeze", tmp_path / "model.meta", "--outputs", "y, w/read", "-o", out]
    result = run_command(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "variables frozen, 60 B" in result.stderr
    assert result.stdout == ""
    assert run_command(*arguments).exit_code == 2
    assert run_command(*arguments, "--force", "--quiet").stderr == ""
    assert "x:0" in run_command("io", out).stdout
    text = tmp_path / "frozen.pbtxt"
    assert run_command("freeze", tmp_path, "--outputs", "y", "--outputs", "w/read", "-o", text).exit_code == 0
    assert ckpttool.open_graph(text).graph_def == ckpttool.open_graph(out).graph_def


@pytest.fixture
def run_command(run: Any) -> Any:
    return run


CHOICES = {
    "the user's collection": ([], "freezing for y:0: the members of the collection mine"),
    "a collection": (["--collection", "mine"], "fetch y:0"),
    "no such collection": (["--collection", "yours"], "the graph has no collection named yours · "),
    "no such signature": (["--signature", "yours"], "the graph has no signature named yours · "),
    "two ways": (["--collection", "mine", "--outputs", "y"], "give outputs in one way"),
    "no outputs": (["--outputs", ""], "--outputs names nothing"),
    "no such output": (["--outputs", "y:1"], "no tensor y:1: its last output is y:0 · "),
    "no such input": (["--outputs", "y", "--inputs", "x:2"], "no tensor x:2: its last output is x:0 · "),
    "a checkpoint that has them not": (["--checkpoint", FIXTURES / "conv" / "model"], "has no values of variables"),
}


@pytest.mark.parametrize(("arguments", "said"), CHOICES.values(), ids=CHOICES)
def test_how_outputs_are_chosen(arguments: list[Any], said: str, run_command: Any, tmp_path: Path) -> None:
    """Outputs come from options, collections, or are inferred; how is said."""
    built(tmp_path, lambda: v1.add_to_collection("mine", CASES["references"]().outputs[0]))
    result = run_command("freeze", tmp_path / "model", "-o", tmp_path / "out.pb", *arguments)
    assert said in result.stderr.replace("\n", " ")


def test_a_signature_by_the_command(run_command: Any, saved_model: Path, tmp_path: Path) -> None:
    """Of several signatures one must be chosen; how tables are filled, and with which asset, is said."""
    out = tmp_path / "out.pb"
    result = run_command("freeze", saved_model, "-o", out)
    assert result.exit_code == 3
    assert "there are several signatures" in result.stderr
    result = run_command("freeze", saved_model, "--signature", "looked_up_in_a_file", "-o", out)
    assert result.exit_code == 0
    assert "the path of vocabulary.txt" in result.stderr


def freeze_feeding(graph: MetaGraph, checkpoint: Checkpoint, outputs: Sequence[str]) -> Frozen:
    """Freezes, feeding what the error says that it could be fed."""
    try:
        return freeze(graph, checkpoint, outputs)
    except NotSupportedError as error:
        inputs = str(error.hint).rpartition("--inputs ")[2].split(",")
    return freeze(graph, checkpoint, outputs, inputs=inputs)


def test_functions_called_in_many_ways_are_refused():
    """Each way of leaving variables out is another function, frozen: a few of them, made to, would be thousands."""
    depth = 14
    graph_def = proto.message_class("GraphDef")()
    handle = graph_def.node.add(name="handle", op="VarHandleOp")
    handle.attr["dtype"].type = 1
    graph_def.node.add(name="call", op="K0", input=["handle"] * depth)
    for level in range(depth):
        function = graph_def.library.function.add()
        function.signature.name = f"K{level}"
        function.signature.output_arg.add(name="o", type=1)
        for number in range(depth):
            function.signature.input_arg.add(name=f"a{number}", type=20)
        constant = function.node_def.add(name="z", op="Const")
        constant.attr["dtype"].type = 1
        for way in range(2 if level + 1 < depth else 0):
            inputs = [f"a{n}" if not way or n != level else "z:output:0" for n in range(depth)]
            function.node_def.add(name=f"c{way}", op=f"K{level + 1}", input=inputs)
        function.ret["o"] = "c0:o:0" if level + 1 < depth else "z:output:0"
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    with time_limit(5), pytest.raises(NotSupportedError, match="is called in more than 32 ways"):
        freeze(graph, None, ["call"])


def test_the_graph_stays_as_it_was():
    """Also what is parsed of it: a variable without a shared name gets none by being looked at."""
    graph_def = proto.message_class("GraphDef")()
    handle = graph_def.node.add(name="v", op="VarHandleOp")
    handle.attr["dtype"].type = 1
    handle.attr["shape"].shape.dim.add(size=2)
    graph_def.node.add(name="y", op="ReadVariableOp", input=["v"]).attr["dtype"].type = 1
    graph = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    freeze(graph, ckpttool.from_arrays({"v": np.ones(2, np.float32)}), ["y"])
    assert graph.graph_def == graph_def
