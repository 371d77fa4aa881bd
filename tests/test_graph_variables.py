"""Graphs made to agree with renamed and dropped variables: TensorFlow restores the pair, and computes what it did.

`export --tf … --meta` writes the pair. TensorFlow imports both graphs, restores each from its own checkpoint, is fed
the same numbers, and must give the same ones bit for bit; it saves again, and the names must be the same.
"""

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from bundles import time_limit
from conftest import CORPUS, FIXTURES, corpus_files, needs_corpus

import ckpttool
from ckpttool import proto
from ckpttool.analysis.graphs.endpoints import endpoints
from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import split_tensor
from ckpttool.model.slots import slot_owners
from ckpttool.transforms.graph_variables import rename_and_drop

pytestmark = pytest.mark.tensorflow


class Restored(NamedTuple):
    """What TensorFlow makes of a pair: its variables' names, those in a checkpoint, their values, and outputs."""

    ops: set[str]
    names: set[str]
    values: dict[str, np.ndarray]
    outputs: dict[str, Any]


def restored(meta: Path, prefix: Path, feeds: Mapping[str, Any], fetches: list[str], again: Path | None = None):
    """Imports, restores, reads every variable, runs what is fetched and still there, and saves `again`."""
    import tensorflow as tf

    v1 = tf.compat.v1
    options = v1.RunOptions(timeout_in_ms=20_000)
    config = v1.ConfigProto(device_count={"CPU": 3}, inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
    with tf.Graph().as_default() as graph:
        saver = v1.train.import_meta_graph(str(meta), clear_devices=True)
        variables = v1.global_variables()
        whole = {v.op.name: v._save_slice_info.full_name if v._save_slice_info else v.op.name for v in variables}
        with v1.Session(graph=graph, config=config) as session:
            saver.restore(session, str(prefix))
            read = {v.op.name: v if v.dtype._is_ref_dtype else v.read_value() for v in variables}
            values = session.run(read, options=options)
            there = {op.name for op in graph.get_operations()}
            fetched = {name: name for name in fetches if split_tensor(name)[0] in there}
            outputs = session.run(fetched, dict(feeds), options=options) if fetched else {}
            if again:
                saver.save(session, f"{again}-own", write_meta_graph=False)
                v1.train.Saver(variables).save(session, f"{again}-new", write_meta_graph=False)
                v1.train.export_meta_graph(f"{again}.meta")
    return Restored(set(whole), set(whole.values()), values, outputs)


def keys(tf, prefix) -> set[str]:
    return set(tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map())


class Source(NamedTuple):
    """A pair to export: what to feed and to fetch, found by the tool or given, and what the original gives."""

    prefix: Path
    feeds: dict[str, Any]
    fetches: list[str]
    was: Restored


@cache
def source(prefix: Path, batch: int = 2) -> Source:
    """The pair, fed random numbers; unknown sizes are `batch`."""
    random, feeds, found = np.random.default_rng(0), {}, endpoints(ckpttool.open_graph(f"{prefix}.meta"))
    for each in found:
        if each.direction == "input" and each.needed:
            shape = [batch if size is None else size for size in each.shape or ()]
            feeds[each.tensor] = (2 * random.random(shape)).astype(each.dtype.name.removesuffix("_ref"))
    needs = [each.tensor for each in found if each.direction == "output"]
    was = restored(Path(f"{prefix}.meta"), prefix, feeds, needs[:1])
    return Source(prefix, feeds, needs[:1], was)


def bits(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: (np.asarray(v).dtype, np.shape(v), np.asarray(v).tobytes()) for name, v in values.items()}


def check_pair(tf, run, given: Source, folder: Path, *options: str, same_outputs: bool = True) -> Restored:
    """Exports with the options and has TensorFlow judge the pair; gives what it restores."""
    prefix = folder / "model"
    result = run("export", given.prefix, "--tf", prefix, "--meta", *options)
    assert result.exit_code == 0, result.stderr
    now = restored(Path(f"{prefix}.meta"), prefix, given.feeds, given.fetches, folder / "again")
    stored = keys(tf, prefix)
    assert now.names == stored
    assert keys(tf, folder / "again-own") == keys(tf, folder / "again-new") == stored
    reader = tf.train.load_checkpoint(str(prefix))
    whole = {name: value for name, value in now.values.items() if name in stored}
    assert bits(whole) == bits({name: reader.get_tensor(name) for name in whole})
    if same_outputs:
        assert bits(now.outputs) == bits(given.was.outputs)
    return now


CASES = {
    "nothing": [],
    "a prefix for all": ["--rename", "^=>p/q/"],
    "some": ["--rename", r"^([a-d])=>other/\1"],
    "a prefix less": ["--strip-prefix", "rnn/", "--strip-prefix", "dense/"],
    "no slots": ["--drop-slots"],
    "no slots, a prefix": ["--drop-slots", "--rename", "^=>p/"],
}
FAST = ("a prefix for all", "no slots")
GRAPHS = ("linear", "conv", "partitioned", "recurrent", "sharded")


MOST = [pytest.param(o, id=case, marks=() if case in FAST else pytest.mark.slow) for case, o in CASES.items()]


@pytest.mark.parametrize("options", MOST)
@pytest.mark.parametrize("name", GRAPHS)
def test_fixtures_are_restored_and_compute_the_same(name, options, tf, run, tmp_path):
    """Ref and resource variables, slots, partitions, shards, queues, control flow: renamed or dropped, they agree."""
    check_pair(tf, run, source(FIXTURES / name / "model"), tmp_path, *options)


COMPLETE = {
    "georgesung_acrobot/models/model.ckpt": 2,
    "ardiya_siamese/model/model.ckpt": 2,
    "ajaytalati_fastweights/save/FW/save-60000": 128,
    "ajaytalati_fastweights/save/LSTM/save-60000": 128,
    "onnx_tensorflow_onnx/tests/models/regression/checkpoint/model": 2,
    "tensorflow_serving/tensorflow_serving/servables/tensorflow/testdata/bad_half_plus_two/00000123/export": 2,
}


@needs_corpus
@pytest.mark.slow
@pytest.mark.parametrize("options", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("name", COMPLETE)
def test_the_corpus_is_restored_and_computes_the_same(name, options, tf, run, tmp_path):
    """Graphs by TensorFlow 0.9 to 1.12, those with V1 savers too, agree with the bundles that are written."""
    check_pair(tf, run, source(CORPUS / name, COMPLETE[name]), tmp_path, *options)


def _metas() -> list[Path]:
    return [meta for meta in corpus_files("*.meta") if _prefix(meta) is not None]


def _prefix(meta: Path) -> Path | None:
    prefix = meta.with_suffix("")
    return prefix if prefix.is_file() or prefix.with_name(f"{prefix.name}.index").is_file() else None


def problems(graph: MetaGraph) -> list[str]:
    """What names an op that is not there, anywhere in a graph: inputs, colocation, collections."""
    there = {node.name for node in graph.nodes}
    named = [(node.name, text) for node in graph.nodes for text in node.inputs]
    named += [
        (node.name, text.decode().removeprefix("loc:@"))
        for node in graph.nodes
        for text in node.message.attr["_class"].list.s
    ]
    for collection in graph.collections.values():
        named += [(collection.name, text) for member in collection.members for text in _named(member)]
    return [f"{where}: {text}" for where, text in named if split_tensor(text.removeprefix("^"))[0] not in there]


def _named(member: Any) -> list[str]:
    if isinstance(member, str):
        return [member]
    if not isinstance(member, dict) or "Def" not in member.get("@type", ""):
        return []
    texts = [value for key, value in member.items() if key.endswith("_name") and key != "context_name"]
    keys = ("enqueue_op_name", "loop_exit_names", "loop_enter_names")
    lists = [value for key in keys for value in member.get(key, [])]
    values = member.get("values_def", {})
    nested = [text for context in member.get("nested_contexts", []) for c in context.values() for text in _named(c)]
    external = [text for pair in values.get("external_values", {}).items() for text in pair]
    return [t for t in texts if isinstance(t, str)] + lists + values.get("values", []) + external + nested


@needs_corpus
@pytest.mark.slow
@pytest.mark.parametrize("meta", _metas() if CORPUS.is_dir() else [], ids=lambda path: "/".join(path.parts[-3:]))
def test_graphs_that_nobody_can_run_stay_whole(meta):
    """Of every graph of the corpus, without its values or with ops unknown, nothing names an op that is gone."""
    graph, names = ckpttool.open_graph(meta), list(ckpttool.open_checkpoint(_prefix(meta)))
    before, slots = problems(graph), set(slot_owners(names))
    agreeing = rename_and_drop(graph, {name: f"p/{name}" for name in names if name not in slots}, slots)
    assert problems(agreeing.graph) == before
    assert agreeing.ops == len(list(graph.nodes)) - len(list(agreeing.graph.nodes))
    there = {variable.name for variable in agreeing.graph.variables}
    assert {f"p/{name}" for name in names if name not in slots} <= there
    assert not slots & there


def test_moving_averages_take_their_variables_places(tf, run, tmp_path):
    """With --ema the graph keeps the variable, restores the average into it, and computes what it would with that."""
    given = source(FIXTURES / "conv" / "model")
    now = check_pair(tf, run, given, tmp_path, "--ema", same_outputs=False)
    average = given.was.values["conv/kernel/ExponentialMovingAverage"]
    assert now.ops == given.was.ops - {"conv/kernel/ExponentialMovingAverage"}
    assert bits({"": now.values["conv/kernel"]}) == bits({"": average})
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{given.prefix}.meta").restore(session, str(given.prefix))
        session.run(graph.get_operation_by_name("conv/kernel/Assign").outputs[0], {_assigned(graph): average})
        expected = session.run(given.fetches, given.feeds)
    assert bits(now.outputs) == bits(dict(zip(given.fetches, expected, strict=True)))


def _assigned(graph):
    return graph.get_operation_by_name("conv/kernel/Assign").inputs[1]


def test_the_graph_without_changes_is_the_old_one(run, tmp_path):
    """Where no variable is renamed or dropped, the .meta is the source's, byte for byte."""
    for name in GRAPHS:
        prefix = FIXTURES / name / "model"
        result = run("export", prefix, "--tf", tmp_path / name, "--meta", "--quiet")
        assert (result.exit_code, result.stderr) == (0, "")
        assert Path(f"{tmp_path / name}.meta").read_bytes() == Path(f"{prefix}.meta").read_bytes()


@pytest.mark.parametrize("name", GRAPHS)
def test_there_and_back(name):
    """Renamed and renamed back, every byte of the file is as it was."""
    graph = ckpttool.open_graph(FIXTURES / name / "model.meta")
    names = {name: f"p/{name}" for name in ckpttool.open_checkpoint(FIXTURES / name / "model")}
    there = rename_and_drop(graph, names).graph
    assert there.data != graph.data
    assert rename_and_drop(there, {new: old for old, new in names.items()}).graph.data == graph.data


UNCHANGED: dict[str, tuple[dict[str, str], set[str]]] = {
    "nothing": ({}, set()),
    "the same names": ({"W": "W", "b": "b"}, set()),
    "names of others": ({"other": "W2", "x": "y"}, {"activation_opt"}),
}


@pytest.mark.parametrize(("names", "dropped"), UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_is_not_about_variables_leaves_the_graph(names, dropped):
    """Names that no variable of the graph has, even if other ops have them, change no byte."""
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model.meta")
    assert rename_and_drop(graph, names, dropped).graph.data == graph.data


def built(tf, folder: Path, build: Callable[[Any], Any], **saver: Any) -> Path:
    """A pair, of a graph that `build` makes and saved with its variables set; `build` may give what to save."""
    v1 = tf.compat.v1
    scope = v1.variable_scope("", use_resource=saver.pop("use_resource", False))
    with tf.Graph().as_default(), v1.Session() as session, scope:
        var_list = build(v1)
        for each in v1.global_variables():  # Some start from others.
            session.run(each.initializer)
        session.run(v1.tables_initializer())
        v1.train.Saver(var_list, **saver).save(session, str(folder / "source"))
    return folder / "source"


def variable(v1, name, shape, start=0.0, **options):
    value = start + np.arange(np.prod(shape, dtype=int)).reshape(shape) / 8
    return v1.get_variable(name, initializer=value.astype(np.float32), **options)


def _output(v1, tensor):
    import tensorflow as tf

    v1.add_to_collection("outputs", tf.identity(tensor, name="output"))


def partitioned_with_slots(v1):
    random, partitioner = v1.random_uniform_initializer(seed=1), v1.fixed_size_partitioner(2)
    parts = v1.get_variable("scope/rows", [5, 2], initializer=random, partitioner=partitioner)
    _output(v1, v1.convert_to_tensor(parts) * 2.0)
    optimizer = v1.train.MomentumOptimizer(0.5, 0.5)
    optimizer.apply_gradients([(np.ones(part.shape, np.float32), part) for part in parts])


def loops(v1):
    """A variable in a loop within a branch within a loop, and one outside of it all."""
    import tensorflow as tf

    inner, outer, limit = (variable(v1, name, [2], start) for name, start in [("in", 1), ("out", 2), ("limit", 3)])

    def step(i, x):
        nested = lambda: v1.while_loop(lambda j, _: j < 2, lambda j, y: (j + 1, y * inner), (0, x))[1]  # noqa: E731
        return i + 1, v1.cond(tf.reduce_sum(x) < 1e6, nested, lambda: x + 1.0)

    tf.identity(v1.while_loop(lambda i, _: i < 3, step, (0, outer * limit))[1], name="looped")
    _output(v1, outer + 1.0)


def a_table(v1):
    import tensorflow as tf

    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0, name="table")
    weight = variable(v1, "w", [2])
    saved = tf.raw_ops.LookupTableInsertV2(
        table_handle=table.resource_handle, keys=tf.constant([1], tf.int64), values=[2.5]
    )
    v1.add_to_collection("table_initializer", saved)
    _output(v1, weight + table.lookup(tf.constant([1, 7], tf.int64)))


BUILT = {"partitioned slots": partitioned_with_slots, "loops": loops}
V1 = 1  # SaverDef.V1


SAVERS = [
    pytest.param({}, id="V2"),
    pytest.param({"sharded": True}, id="sharded", marks=pytest.mark.slow),
    pytest.param({"write_version": V1}, id="V1", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("options", SAVERS)
@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
@pytest.mark.parametrize("build", BUILT.values(), ids=BUILT.keys())
def test_built_graphs(build, use_resource, options, tf, run, tmp_path):
    """Partitioned slots and nested control flow, of both kinds of variables, with each of the savers."""
    prefix = built(tf, tmp_path, build, use_resource=use_resource, **options)
    was = restored(Path(f"{prefix}.meta"), prefix, {}, ["output:0"])
    given = Source(prefix, {}, ["output:0"], was)
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    now = check_pair(tf, run, given, folders[0], "--rename", "^=>new/")
    assert now.ops == {f"new/{op}" for op in was.ops}
    check_pair(tf, run, given, folders[1], "--drop-slots", "--rename", "scope/=>")
    check_pair(tf, run, given, folders[2], "-x", "in", "-x", "**/Momentum")


def test_a_name_that_two_savers_have_for_two_variables(tf, run, tmp_path):
    """What a further saver restores into a variable that is left stays restored: it is refused."""

    def build(v1):
        a, b = (v1.get_variable(name, [2], use_resource=False) for name in "ab")
        for variable in (a, b):
            v1.add_to_collection("savers", v1.train.Saver({"v": variable}))

    prefix = built(tf, tmp_path, build)
    result = run("export", prefix, "--tf", tmp_path / "out", "--meta", "--exclude", "a")
    assert result.exit_code == 5
    assert "needs a, which needs a variable that is dropped" in result.stderr


def test_a_further_saver_that_has_the_whole(tf, run, tmp_path):
    """The main saver has parts under the names of their ops: what is dropped of these goes from the graph."""

    def build(v1):
        partitioned_with_slots(v1)
        variable(v1, "kept", [2])
        v1.add_to_collection("savers", v1.train.Saver(name="whole"))
        return {each.op.name: each for each in v1.global_variables()}

    prefix = built(tf, tmp_path, build)
    result = run("export", prefix, "--tf", tmp_path / "out", "--meta", "--drop-slots")
    assert result.exit_code == 0, result.stderr
    stored = keys(tf, tmp_path / "out")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.train.import_meta_graph(f"{tmp_path / 'out'}.meta").restore(session, str(tmp_path / "out"))
        assert {each.op.name for each in tf.compat.v1.global_variables()} == stored
        assert session.run(tf.compat.v1.report_uninitialized_variables()).tolist() == []


def test_a_saver_that_calls_parts_by_their_ops(tf, run, tmp_path):
    """A further saver may have slots of parts under the names of their ops: it loses them all the same."""

    def build(v1):
        partitioned_with_slots(v1)
        slots = [each for each in v1.global_variables() if "Momentum" in each.op.name]
        parts = v1.get_collection("trainable_variables")
        by_op = v1.train.Saver({each.op.name: each for each in [*parts, *slots]}, name="by_op")
        v1.add_to_collection("savers", by_op)

    prefix = built(tf, tmp_path, build)
    given = Source(prefix, {}, ["output:0"], restored(Path(f"{prefix}.meta"), prefix, {}, ["output:0"]))
    (tmp_path / "out").mkdir()
    check_pair(tf, run, given, tmp_path / "out", "--drop-slots")
    graph = ckpttool.open_graph(tmp_path / "out" / "model.meta")
    names = graph.node("by_op/SaveV2/tensor_names").message.attr["value"].tensor.string_val
    assert [*names] == [b"scope/rows/part_0", b"scope/rows/part_1"]


def test_a_variable_in_a_loop_takes_its_loop_along(tf, run, tmp_path):
    """What is left of contexts when a loop's variable is dropped is what TensorFlow imports."""
    prefix = built(tf, tmp_path, loops)
    given = Source(prefix, {}, ["output:0"], restored(Path(f"{prefix}.meta"), prefix, {}, ["output:0"]))
    (tmp_path / "out").mkdir()
    check_pair(tf, run, given, tmp_path / "out", "-x", "in")
    graph = ckpttool.open_graph(tmp_path / "out" / "model.meta")
    assert problems(graph) == []
    assert "looped" not in {node.name for node in graph.nodes}


def test_what_only_an_update_holds_in_a_branch_or_loop_goes_with_it(tf, run, tmp_path):
    """A constant that waits for an update of a dropped variable would be in no branch or loop without it, and the graph
    not run; outside of any, it stays.
    """
    from freezing_cases import control_flow

    def build(v1):
        gone = v1.get_variable("gone", initializer=1.0, use_resource=False)

        def updated(value):
            with v1.control_dependencies([v1.assign_add(gone, 1.0)]):
                return value()

        flag = v1.placeholder_with_default(True, [])
        with control_flow(1):
            chosen = v1.cond(flag, lambda: updated(lambda: v1.constant(1.0)), lambda: v1.constant(2.0))
            looped = v1.while_loop(lambda i: i < 3, lambda i: updated(lambda: i + 1), [0])
        v1.identity(chosen, name="chosen")
        v1.identity(looped, name="looped")
        waiting = updated(lambda: v1.constant(3.0, name="waiting"))
        v1.add(waiting, v1.get_variable("left", initializer=1.0), name="output")

    prefix = built(tf, tmp_path, build)
    given = Source(prefix, {}, ["output:0"], restored(Path(f"{prefix}.meta"), prefix, {}, ["output:0"]))
    (tmp_path / "out").mkdir()
    check_pair(tf, run, given, tmp_path / "out", "-x", "gone")
    graph = ckpttool.open_graph(tmp_path / "out" / "model.meta")
    assert problems(graph) == []
    assert {"chosen", "looped", "waiting"} & graph.by_name.keys() == {"waiting"}


def test_names_that_only_the_saver_has(tf, run, tmp_path):
    """A saver that calls a variable otherwise: its list changes, and the op keeps its name; dropped, the op goes."""

    def build(v1):
        first, second = variable(v1, "a", [2]), variable(v1, "b", [2], 5)
        v1.get_variable("c/d", initializer=[1.0])
        _output(v1, second + 1.0)
        return {"b": first, "c": second}

    prefix = built(tf, tmp_path, build)
    for number, (options, ops, names) in enumerate(
        [
            (["--rename", "^=>p/"], {"a", "b", "c/d"}, {"p/b", "p/c"}),
            (["-x", "b"], {"b", "c/d"}, {"c"}),
        ]
    ):
        out = tmp_path / str(number)
        assert run("export", prefix, "--tf", out, "--meta", *options).exit_code == 0
        now = restored_partly(tf, out)
        assert (now, keys(tf, out)) == (ops, names)


def restored_partly(tf, prefix) -> set[str]:
    """Imports and restores a graph that has variables beside; gives all of their ops."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, str(prefix))
        return {each.op.name for each in v1.global_variables()}


def test_a_second_saver_that_restores_averages(tf, run, tmp_path):
    """With --ema a saver that restored averages into variables restores the variables, and so do all others."""

    def build(v1):
        import tensorflow as tf

        weight = variable(v1, "w", [2])
        average = tf.train.ExponentialMovingAverage(0.5)
        v1.add_to_collection("train_op", average.apply([weight]))
        _output(v1, weight + 1.0)
        v1.add_to_collection("savers", v1.train.Saver(average.variables_to_restore(), name="averages"))

    prefix = built(tf, tmp_path, build)
    out = tmp_path / "out"
    assert run("export", prefix, "--tf", out, "--meta", "--ema", "--rename", "w=>v").exit_code == 0
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{out}.meta")
        (second,) = v1.get_collection("savers")
        v1.train.Saver(saver_def=second.saver_def).restore(session, str(out))
        assert session.run("output:0").tolist() == [1.0, 1.125]


@pytest.mark.parametrize("use_resource", [False, True])
def test_a_saver_of_averages_alone(tf, run, tmp_path, use_resource):
    """With --ema a saver that restores averages into variables has these under their own names: nothing is dropped."""

    def build(v1):
        weight = v1.get_variable("w", initializer=[3.0, 4.0], use_resource=use_resource)
        average = tf.train.ExponentialMovingAverage(0.5)
        average.apply([weight])
        _output(v1, weight + 1.0)
        return average.variables_to_restore()

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        saver = v1.train.Saver(build(v1))
        for each in v1.global_variables():  # The average's initializer reads the variable.
            session.run(each.initializer)
        saver.save(session, str(tmp_path / "model"))
    out = tmp_path / "out"
    result = run("export", tmp_path / "model", "--tf", out, "--meta", "--ema")
    assert result.exit_code == 0, result.output
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{out}.meta").restore(session, str(out))
        assert session.run("output:0").tolist() == [4.0, 5.0]


def test_warm_starts_keep_the_names_of_their_own_checkpoint(tf, run, tmp_path):
    """tf.train.init_from_checkpoint reads another checkpoint, whose names are not changed."""
    other = built(tf, tmp_path, lambda v1: variable(v1, "w", [2]) and None)

    def build(v1):
        _output(v1, variable(v1, "w", [2], 7))
        v1.train.init_from_checkpoint(str(other), {"w": "w"})

    (tmp_path / "second").mkdir()
    prefix, out = built(tf, tmp_path / "second", build), tmp_path / "out"
    assert run("export", prefix, "--tf", out, "--meta", "--rename", "w=>v").exit_code == 0
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{out}.meta")
        session.run(v1.global_variables_initializer())
        assert session.run("output:0").tolist() == [0.0, 0.125]


def test_saved_tables_are_restored_under_new_names(tf, run, tmp_path):
    """What is saved and is no variable, a lookup table's keys and values, is renamed in the saver's lists alone."""
    prefix, out = built(tf, tmp_path, a_table), tmp_path / "out"
    assert run("export", prefix, "--tf", out, "--meta", "--rename", "^=>p/").exit_code == 0
    assert keys(tf, out) == {"p/w", "p/table-keys", "p/table-values"}
    now = restored(Path(f"{out}.meta"), out, {}, ["output:0"])
    assert now.outputs["output:0"].tolist() == [2.5, -0.875]


def test_an_emptied_shard_is_saved_no_more(tf, run, tmp_path):
    """A sharded saver whose shard has lost all of its variables saves into the other ones."""
    now = check_pair(tf, run, source(FIXTURES / "sharded" / "model"), tmp_path, "-x", "layer_1/**")
    assert now.ops == {f"layer_{number}/{name}" for number in (0, 2) for name in ("kernel", "bias")}


def with_signature(message):
    info = message.signature_def["serving"].outputs["y"]
    info.name = "activation_opt:0"


def from_another(v1):
    import tensorflow as tf

    first = variable(v1, "a", [2])
    v1.Variable(tf.reduce_sum(first.initialized_value()), name="b")


REFUSED: dict[str, tuple[dict[str, str], set[str], str]] = {
    "an output that somebody marked": ({}, {"W"}, "the collection activation needs activation_opt:0.*--remove"),
    "the name of another op": ({"W": "x"}, set(), "the op W would be named x, as another one is"),
    "one name for two": ({"W": "v", "b": "v/read"}, set(), "would be named v/read, as another one is"),
    "a name that no op may have": ({"W": "model:W"}, set(), "'model:W', as no op may be"),
    "nothing left": ({}, {"W", "b"}, "would have nothing left to save"),
}


@pytest.mark.parametrize(("names", "dropped", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_can_not_agree_is_refused(names, dropped, why):
    """What is in the way is said, with the file."""
    with pytest.raises(ConversionError, match=why) as raised:
        rename_and_drop(ckpttool.open_graph(FIXTURES / "linear" / "model.meta"), names, dropped)
    assert raised.value.path.endswith("model.meta")


def test_a_signature_is_not_broken():
    """A signature's output that needs a dropped variable is refused."""
    graph = ckpttool.open_graph(FIXTURES / "linear" / "model.meta")
    message = proto.parse("MetaGraphDef", graph.data)
    with_signature(message)
    del message.collection_def["activation"]
    with pytest.raises(ConversionError, match="the signature serving needs activation_opt:0"):
        rename_and_drop(MetaGraph(message.SerializeToString()), {}, {"W"})


def test_results_that_are_lost_are_told(run, tmp_path):
    """A result that needs a dropped variable and that nobody has marked as one goes, and is named."""
    message = proto.parse("MetaGraphDef", (FIXTURES / "linear" / "model.meta").read_bytes())
    del message.collection_def["activation"]
    agreeing = rename_and_drop(MetaGraph(message.SerializeToString()), {}, {"W"})
    assert agreeing.ends == ["activation_opt"]
    assert not rename_and_drop(MetaGraph(message.SerializeToString()), {"W": "V"}).ends
    for file in (FIXTURES / "linear").glob("model.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "model.meta").write_bytes(message.SerializeToString())
    said = run("export", tmp_path / "model", "--tf", tmp_path / "new", "--meta", "-x", "W").stderr
    assert "note: activation_opt was removed from the graph: it needs what was dropped\n" in said


def test_what_belongs_to_dropped_slots_is_no_result(run, tmp_path):
    """Of a training graph without its slots, the optimizer's ops go, and none of them is told for a result."""
    result = run("export", FIXTURES / "conv" / "model", "--tf", tmp_path / "new", "--meta", "--drop-slots")
    assert result.exit_code == 0
    assert "was removed from the graph" not in result.stderr


def test_a_variable_that_could_not_be_initialized_is_refused(tf, tmp_path):
    """TensorFlow imports no variable whose initializer is gone: it says which, and that both may be dropped."""
    graph = ckpttool.open_graph(f"{built(tf, tmp_path, from_another)}.meta")
    with pytest.raises(ConversionError, match=r"b is left, and .* needs a variable that is dropped · .*drop b too"):
        rename_and_drop(graph, {}, {"a"})
    with pytest.raises(ConversionError, match="nothing left to save"):
        rename_and_drop(graph, {}, {"a", "b"})


def test_savers_in_functions_are_refused():
    """The lists inside of library functions are not changed, so that a graph with such a function is refused."""
    message = proto.message_class("MetaGraphDef")()
    message.graph_def.library.function.add().node_def.add(name="save", op="SaveV2")
    with pytest.raises(NotSupportedError, match="saves or restores: save"):
        rename_and_drop(MetaGraph(message.SerializeToString()), {"a": "b"})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


HALF = {
    "the graph can't agree": ["-x", "W"],
    "the same, and only planned": ["-x", "W", "--dry-run"],
}


@pytest.mark.parametrize("options", HALF.values(), ids=HALF.keys())
def test_nothing_is_written_of_a_pair_that_does_not_agree(options, run, tmp_path):
    """If the graph is refused, no checkpoint is written either."""
    result = run("export", FIXTURES / "linear" / "model", "--tf", tmp_path / "model", "--meta", *options)
    assert result.exit_code == 5
    assert "activation" in result.stderr
    assert files(tmp_path) == {}


def test_a_graph_that_is_there_is_not_left_with_another_checkpoint(run, tmp_path):
    """Without --force an old .meta stops the whole export; so does one that can't be replaced, or the source's own."""
    source, out = FIXTURES / "linear" / "model", tmp_path / "model"
    meta = Path(f"{out}.meta")
    meta.write_bytes(b"old")
    assert run("export", source, "--tf", out, "--meta").exit_code == 2
    assert files(tmp_path) == {"model.meta": b"old"}
    meta.unlink()
    meta.symlink_to(f"{source}.meta")
    assert run("export", source, "--tf", out, "--meta", "--force").exit_code == 2
    assert sorted(files(tmp_path)) == ["model.meta"]
    meta.unlink()
    meta.mkdir()
    assert run("export", source, "--tf", out, "--meta", "--force").exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model.meta"]


def test_a_checkpoint_that_fails_leaves_the_old_pair(run, tmp_path, monkeypatch):
    """If the bundle can't be written, the old .meta is there as it was, and no new one."""
    from ckpttool.formats.bundle import writing as bundle_writer

    source, out = FIXTURES / "linear" / "model", tmp_path / "model"
    assert run("export", source, "--tf", out, "--meta").exit_code == 0
    before = files(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(out))

    monkeypatch.setattr(bundle_writer, "_write_shard", fail)
    result = run("export", source, "--tf", out, "--meta", "--force", "--rename", "W=>V")
    assert result.exit_code == 3
    assert files(tmp_path) == before


def test_names_of_ops_may_be_long(run, tmp_path):
    """A name of 200,000 segments takes no more than its length: nothing is copied for each of its scopes."""
    message = proto.message_class("MetaGraphDef")()
    message.ParseFromString((FIXTURES / "linear" / "model.meta").read_bytes())
    message.graph_def.node.add(name="a/" * 200_000 + "x", op="NoOp")
    graph = MetaGraph(message.SerializeToString())
    with time_limit(5):
        renamed = rename_and_drop(graph, {"W": "V", "b": "b"}, [], {})
    assert "V" in renamed.graph.by_name
