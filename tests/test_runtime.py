"""ImportedGraph: a saved graph in a session of its own; TensorFlow itself, used by hand, is the judge."""

import copy
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import FIXTURES, ROOT
from running import edit_meta, save_model, scaled

import ckpttool
from ckpttool.analysis.graphs.chance import drawn
from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.graph import MetaGraph
from ckpttool.runtime.importing import Interruptible
from ckpttool.runtime.registry import InstalledRegistry

pytestmark = pytest.mark.tensorflow
LINEAR = FIXTURES / "linear" / "model"


@pytest.fixture
def linear(tf):
    with ckpttool.ImportedGraph(LINEAR) as model:
        yield model


def by_hand(tf, prefix, fetches, feeds):
    """What a session that is written by hand gives."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta", clear_devices=True).restore(session, str(prefix))
        return session.run(fetches, feeds)


@pytest.mark.parametrize("fetch", ["activation_opt", "activation_opt:0"])
def test_the_tutorial_model_gives_what_a_session_gives(tf, linear, fetch):
    """By an op's name, a tensor's, a collection, and by default, 50 gives the hand-written session's value."""
    expected = by_hand(tf, LINEAR, "activation_opt:0", {"x:0": [50]})
    for found in (
        linear.run(fetch, {"x:0": [50]}),
        linear.run(linear.collection("activation"), {"x": [50]})[0],
        linear.run(linear.tensor(fetch), {linear.tensor("x"): np.float32([50])}),
        linear.run(None, {"x": 50}, broadcast=True)["activation_opt:0"],
        linear.run({"answer": [fetch]}, {"x": 50}, batch_dim=True)["answer"][0],
    ):
        assert found.tobytes() == expected.tobytes()


def test_it_says_what_is_in_it(linear):
    """Operations, tensors, collections, inputs and outputs are there by name; variables are the tensors of values."""
    assert linear.operation("Mul").type == "Mul"
    assert linear.tensor("W").name == "W:0"
    assert [tensor.name for tensor in linear.collection("variables")] == ["W/read:0", "b/read:0"]
    assert [endpoint.tensor for endpoint in linear.inputs] == ["x:0"]
    assert [endpoint.tensor for endpoint in linear.outputs] == ["activation_opt:0"]
    assert (linear.signatures, linear.notes, dict(linear.lacking)) == ({}, (), {})


def test_nothing_of_it_is_in_the_default_graph(tf):
    """Importing and running leave the default graph, the default session and eager execution as they were."""
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    with ckpttool.ImportedGraph(LINEAR) as model:
        model.run("activation_opt", {"x": [1]})
        assert tf.compat.v1.get_default_session() is None
    assert tf.executing_eagerly()
    assert len(graph.get_operations()) == before
    assert float(tf.constant(2.0) * 3) == 6


def test_models_with_the_same_names_keep_apart(tf, tmp_path):
    """Two live models whose ops have the same names give their own results, in many threads at once."""
    prefixes = [save_model(tf, tmp_path / str(factor), scaled(factor)) for factor in (2.0, 3.0)]
    first, second = (ckpttool.ImportedGraph(prefix) for prefix in prefixes)
    with first, second, ThreadPoolExecutor(8) as pool:
        jobs = [(model, factor, n) for n in range(200) for model, factor in ((first, 2), (second, 3))]
        found = list(pool.map(lambda job: job[0].run("y", {"x": [job[2]]})[0], jobs))
    assert found == [factor * n + 1 for _, factor, n in jobs]


def test_a_closed_graph_says_so(tf):
    """Closing twice is fine; running, looking for tensors, and a run in flight end with a clear error."""
    model = ckpttool.ImportedGraph(LINEAR)
    model.close()
    model.close()
    assert "closed" in repr(model)
    for use in (lambda: model.run("x"), lambda: model.tensor("x"), lambda: model.session):
        with pytest.raises(ValueError, match="the graph is closed"):
            use()


def test_closing_under_a_run_is_no_crash(tf):
    """A graph that is closed while threads run it gives them values or the error, nothing else."""
    model, seen = ckpttool.ImportedGraph(LINEAR), []

    def work():
        try:
            while True:
                model.run("activation_opt", {"x": [1]})
        except (ValueError, NotSupportedError) as error:
            seen.append(type(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    model.close()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 4


_HUNDRED = f"""
import gc, os, sys
import ckpttool
from pathlib import Path

def once():
    with ckpttool.ImportedGraph({str(LINEAR)!r}) as model:
        model.run("activation_opt", {{"x": [50]}})

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

for _ in range(20):
    once()
before = resident()
for _ in range(100):
    once()
sessions = [each for each in gc.get_objects() if type(each).__name__ == "Session"]
print(len(sessions), resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_a_hundred_in_a_row_leak_nothing(fresh_python):
    """After a hundred imports and closings there are no more sessions, and not 16 MiB more of memory."""
    result = fresh_python("-c", _HUNDRED)
    assert result.returncode == 0, result.stderr
    sessions, grown = map(int, result.stdout.split())
    assert sessions == 0
    assert grown < 16 << 20


NAMES = {
    "fetch": (lambda model: model.run("activation"), "no op named activation .* near names: activation_opt"),
    "output": (lambda model: model.run("Mul:1", {"x": [1]}), "no tensor Mul:1: the op has 1 output"),
    "feed": (lambda model: model.run("Mul", {"xx": [1]}), "no op named xx"),
    "collection": (lambda model: model.collection("activations"), "near names: activation"),
    "signature": (lambda model: model.run(signature="serve"), "no signature named serve"),
}


@pytest.mark.parametrize(("use", "message"), NAMES.values(), ids=NAMES)
def test_a_name_that_is_not_there_offers_near_ones(linear, use, message):
    """Fetches, feeds, collections and signatures that do not exist are NotFoundErrors."""
    with pytest.raises(NotFoundError, match=message):
        use(linear)


VALUES = {
    "unfed": ({}, "x:0 must be fed"),
    "text": ({"x": ["50"]}, "x:0 takes float32, and what came is "),
    "double": ({"x": np.array([0.1])}, r"x:0 takes float32, and what came is float64\[1\]: it would change"),
    "twice": ({"x": [1], "x:0": [1]}, "x:0 is fed twice"),
}


@pytest.mark.parametrize(("feeds", "message"), VALUES.values(), ids=VALUES)
def test_a_value_that_does_not_fit_says_what_was_expected(linear, feeds, message):
    """What is missing, or of another type or shape, is a ValueError before anything runs."""
    with pytest.raises(ValueError, match=message):
        linear.run("activation_opt", feeds)


def test_a_value_of_another_shape_says_what_was_expected(tf, tmp_path):
    """A scalar is no vector, unless it is asked for."""
    with ckpttool.ImportedGraph(save_model(tf, tmp_path, scaled(2.0))) as model:
        with pytest.raises(ValueError, match=r"x:0 takes float32\[\?\], and what came is float32\[\]"):
            model.run("y", {"x": 50})
        assert model.run("y", {"x": 50}, broadcast=True).tolist() == [101]


def test_devices_are_cleared_unless_they_are_to_be_kept(tf, tmp_path):
    """A graph for GPUs that are not here runs; with its devices kept it says that it can't."""
    prefix = save_model(tf, tmp_path, lambda v1: v1.identity(v1.get_variable("w", initializer=4.0), name="y"))
    edit_meta(tf, prefix, lambda message: [setattr(n, "device", "/job:worker/task:3") for n in message.graph_def.node])
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y") == 4
    with pytest.raises(NotSupportedError, match="TensorFlow: "):
        ckpttool.ImportedGraph(prefix, clear_devices=False)


def _with_pipeline(v1):
    scaled(2.0)(v1)
    queue = v1.FIFOQueue(3, ["float32"], shapes=[[]], name="queue")
    v1.identity(queue.dequeue(name="take") + 1, name="from_queue")
    dataset = v1.data.Dataset.from_tensor_slices([1.0, 2.0])
    v1.identity(v1.data.make_initializable_iterator(dataset).get_next(), name="from_iterator")
    v1.identity(v1.data.make_one_shot_iterator(dataset).get_next(), name="from_own_iterator")
    several = v1.data.Iterator.from_structure("float32", [])
    several.make_initializer(dataset, name="first")
    several.make_initializer(dataset.map(lambda x: 10 * x), name="second")
    v1.identity(several.get_next(), name="from_one_of_two")
    fed = v1.data.make_initializable_iterator(
        v1.data.Dataset.from_tensor_slices(v1.placeholder("float32", [None], name="data"))
    )
    v1.add_to_collection("init", fed.initializer)
    v1.identity(fed.get_next(), name="from_fed")
    v1.identity(several.string_handle(), name="handle")
    by_handle = v1.placeholder("string", [], name="by_handle")
    v1.identity(v1.data.Iterator.from_string_handle(by_handle, "float32", []).get_next(), name="from_handle")
    queue.enqueue([7.0], name="put")
    with v1.control_dependencies([v1.no_op(name="gate")]):
        v1.identity(queue.dequeue(), name="maybe")


@pytest.fixture(scope="module")
def pipeline(tf, tmp_path_factory):
    prefix = save_model(tf, tmp_path_factory.mktemp("pipeline"), _with_pipeline)
    with ckpttool.ImportedGraph(prefix) as model:
        yield model


def test_an_input_pipeline_is_explained_and_may_be_fed(pipeline):
    """A fetch that takes from a queue or iterator does not hang; fed behind it, it runs."""
    with pytest.raises(ValueError, match=r"take \(QueueDequeueV2\) takes from an input pipeline .* feed take:0"):
        pipeline.run("from_queue")
    assert pipeline.run("from_queue", {"take": 4}) == 5
    assert pipeline.run("from_own_iterator") == 1


def test_an_iterator_gets_its_data(pipeline):
    """What needs no feed and leaves no choice is initialized, as a table is; else it is said what to run first."""
    assert [pipeline.run("from_iterator"), pipeline.run("from_iterator")] == [1, 2]
    assert "initialized iterators: Iterator" in " ".join(pipeline.notes)
    with pytest.raises(ValueError, match=r"an iterator that has no data · feed .* or run first or second before"):
        pipeline.run("from_one_of_two")
    pipeline.run("second")
    assert pipeline.run("from_one_of_two") == 10
    [initializer] = pipeline.collection("init")
    with pytest.raises(ValueError, match="takes from an iterator that has no data"):
        pipeline.run("from_fed")
    pipeline.run(initializer, {"data": [3]})
    assert pipeline.run("from_fed") == 3
    pipeline.run("first")
    assert pipeline.run("from_handle", {"by_handle": pipeline.run("handle")}) == 1


def test_a_queue_that_was_filled_gives_what_is_in_it(pipeline):
    """After its enqueue op has run, a dequeue is no reason to refuse."""
    pipeline.run("put")
    assert pipeline.run("from_queue") == 8


def test_a_main_op_fills_iterators(tf, run, tmp_path):
    """A SavedModel whose main op initializes its iterator runs, as its loader runs it."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        iterator = v1.data.make_initializable_iterator(v1.data.Dataset.from_tensor_slices([5.0, 6.0]))
        info = v1.saved_model.build_tensor_info(v1.identity(iterator.get_next(), name="y"))
        signature = v1.saved_model.build_signature_def({}, {"y": info}, "predict")
        builder = v1.saved_model.Builder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=iterator.initializer
        )
        builder.save()
    result = run("run", tmp_path / "model", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["outputs"][0]["value"] == 5


def test_an_op_that_is_fed_and_waited_for_runs(tf, run, tmp_path):
    """TensorFlow runs a fed op that another waits for, unless it is a placeholder: a queue would hang for ever."""

    def build(v1):
        batch = v1.FIFOQueue(3, "float32", [[]]).dequeue(name="batch")
        with v1.control_dependencies([batch]):
            v1.add(batch, v1.constant(2.0), name="y")
        x = v1.placeholder("float32", [], name="x")
        with v1.control_dependencies([x]):
            v1.add(x, v1.constant(2.0), name="z")
        v1.get_variable("w", initializer=1.0)

    prefix = save_model(tf, tmp_path, build)
    with ckpttool.ImportedGraph(prefix) as model:
        with pytest.raises(ValueError, match=r"batch is fed, and runs all the same, .* freeze --inputs batch:0"):
            model.run("y", {"batch": 1})
        assert model.run("z", {"x": 1}) == 3
    frozen = tmp_path / "frozen.pb"
    assert run("freeze", prefix, "--outputs", "y", "--inputs", "batch:0", "-o", frozen).exit_code == 0
    with ckpttool.ImportedGraph(frozen) as model:
        assert model.run("y", {"batch": 1}) == 3


def test_a_run_that_waits_hears_signals(pipeline):
    """A handler of Python's runs while TensorFlow waits, and the next run is served all the same."""

    class HeardError(Exception):
        pass

    def handler(number, frame):
        raise HeardError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1)
        began = time.monotonic()
        with pytest.raises(HeardError):
            pipeline.run("maybe", timeout=120)
        assert time.monotonic() - began < 100  # Else it was heard when TensorFlow gave up.
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pipeline.run("y", {"x": [1]}) == 3


def test_a_call_that_was_interrupted_is_waited_for():
    """While Python ends no call may come back: TensorFlow would abort the process."""
    call, closed, ended = Interruptible(), threading.Event(), []
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            call(lambda: (closed.wait(20), time.sleep(0.3), ended.append(True)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not ended
    closed.set()
    call.settle()
    assert ended == [True]
    assert call(lambda: 3) == 3


def test_signals_end_a_run_that_waits(tf, tmp_path):
    """What TensorFlow waits for is no reason not to hear an interrupt (130) or a termination (143)."""

    def build(v1):
        with v1.control_dependencies([v1.no_op(name="gate")]):
            v1.identity(v1.FIFOQueue(3, "float32", [[]]).dequeue(), name="maybe")
        v1.get_variable("w", initializer=1.0)

    prefix = save_model(tf, tmp_path, build)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        running = subprocess.Popen(
            [sys.executable, "-m", "ckpttool", "run", str(prefix), "--fetch", "maybe", "--time"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stderr.readline().startswith("note: the graph is")
        time.sleep(8)  # TensorFlow is imported, and waits.
        running.send_signal(number)
        _, said = running.communicate(timeout=40)
        assert running.returncode == code, said


def test_the_handle_of_a_variable_is_fetched_as_its_value(tf, run, tmp_path):
    """A resource is no number: a variable's name gives its value; what has none is refused."""

    def build(v1):
        w = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=True)
        v1.add_to_collection("weights_of_mine", w)
        v1.add_to_collection("mine", v1.identity(w * 2.0, name="y"))
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [5]), -1)
        v1.add_to_collection("mine", table.resource_handle)
        v1.identity(table.lookup(v1.placeholder("string", [None], "key")), name="found")

    prefix = save_model(tf, tmp_path, build)
    result = run("run", prefix, "--fetch", "w", "--collection", "weights_of_mine", "--json")
    assert [output["value"] for output in json.loads(result.stdout)["outputs"]] == [[1, 2], [1, 2]]
    with ckpttool.ImportedGraph(prefix) as model:
        for fetch in ("w", "w:0", model.tensor("w"), model.collection("weights_of_mine")[0]):
            assert model.run(fetch).tolist() == [1, 2]
        with pytest.raises(NotSupportedError, match="hash_table:0 is a handle without a value"):
            model.run("hash_table")
        assert {label: value.tolist() for label, value in model.run().items()} == {"y:0": [2, 4]}


def test_fetches_and_feeds_that_can_not_be(tf, linear):
    """What is no fetch is a TypeError; a tensor of another graph is not taken for the one of its name."""
    for fetch in (5, ["activation_opt", None], b"activation_opt"):
        with pytest.raises(TypeError, match="a fetch is a name, a tensor or an op"):
            linear.run(fetch, {"x": [1]})
    with tf.Graph().as_default():
        other = tf.compat.v1.placeholder("float32", name="x")
    with pytest.raises(ValueError, match="x:0 is of another graph"):
        linear.run("activation_opt", {other: [1]})
    with pytest.raises(ValueError, match="x:0 is of another graph"):
        linear.run(other)


def test_collections_are_in_the_tensorflow_graph(linear):
    """Code that asks the tf.Graph for a collection finds the tensors in it."""
    [tensor] = linear.tf_graph.get_collection("activation")
    assert linear.run(tensor, {"x": [50]}).tolist() == [124]


def test_a_scope_s_unbound_inputs_are_named(tf, run, tmp_path):
    """What needs an input that was left outside of an exported scope can't run; all else can; nor can it be served."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", [None], name="x")
        with v1.variable_scope("part"):
            w = v1.get_variable("w", initializer=2.0)
            v1.multiply(x, w, name="y")
            v1.identity(w, name="only_w")
        session.run(v1.global_variables_initializer())
        v1.train.Saver({"w": w}).save(session, str(tmp_path / "model"), write_meta_graph=False)
        v1.train.export_meta_graph(str(tmp_path / "model.meta"), export_scope="part")
    with ckpttool.ImportedGraph(tmp_path / "model") as model:
        assert model.run("only_w") == 2
        with pytest.raises(NotSupportedError, match=r"takes or waits for \$unbound_inputs_x, which"):
            model.run("y")
    result = run("saved-model", tmp_path / "model", "--outputs", "y", "-o", tmp_path / "served")
    assert (result.exit_code, "$unbound_inputs_x" in result.stderr) == (5, True)
    result = run("freeze", tmp_path / "model", "--outputs", "y", "-o", tmp_path / "frozen.pb")
    assert (result.exit_code, "--inputs y:0" in result.stderr) == (3, True)


def test_a_bare_graph_finds_its_slices(tf, tmp_path):
    """A GraphDef has no saver, but its ops: they tell which slice of what is stored a variable is."""
    v1 = tf.compat.v1

    def build(v1):
        with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(2)):
            w = v1.get_variable("w", [4], initializer=v1.random_normal_initializer())
        v1.identity(v1.convert_to_tensor(w), name="y")

    prefix = save_model(tf, tmp_path, build)
    meta_graph = v1.MetaGraphDef.FromString(prefix.with_name("model.meta").read_bytes())
    (tmp_path / "bare.pb").write_bytes(meta_graph.graph_def.SerializeToString())
    with ckpttool.ImportedGraph(tmp_path / "bare.pb", checkpoint=prefix) as model:
        assert model.run("y").tolist() == ckpttool.open_checkpoint(prefix)["w"].numpy().tolist()


def test_a_run_ends_after_its_time(pipeline):
    """Where only TensorFlow knows whether a branch waits for a queue, the run is given up."""
    with pytest.raises(NotSupportedError, match=r"no result after 0.3 seconds .* wait for an input queue"):
        pipeline.run("maybe", timeout=0.3)
    assert pipeline.run("y", {"x": [1]}, timeout=30) == 3


def test_what_was_never_stored_is_initialized_and_said(tf, tmp_path):
    """Local variables and tables get their values from their own initializers when a fetch needs them."""

    def build(v1):
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], [5, 6]), -1)
        v1.identity(table.lookup(v1.placeholder("string", [None], "key")), name="found")
        local = v1.get_local_variable("local", initializer=7.0)
        v1.identity(local + v1.get_variable("w", initializer=1.0), name="sum")

    with ckpttool.ImportedGraph(save_model(tf, tmp_path, build)) as model:
        assert model.notes == ()
        assert model.run("sum") == 8
        assert model.run("found", {"key": ["b", "c"]}).tolist() == [6, -1]
        assert model.run("sum") == 8
        first, second = model.notes
    assert first == "initialized, because they were never stored: local"
    assert second == "initialized tables: hash_table"


def test_random_values_are_no_result(tf, run, tmp_path):
    """Where nothing is stored of a variable that begins at random, a warning says what the result is worth."""

    def build(v1):
        stored = v1.get_variable("stored", initializer=2.0)
        v1.identity(stored * v1.get_variable("head", [2]), name="y")
        v1.identity(stored + v1.get_local_variable("local", initializer=1.0), name="z")

    prefix = tmp_path / "model"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        build(tf.compat.v1)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(tf.compat.v1.global_variables()[:1])
        saver.save(session, str(prefix))
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("z") == 3
        assert model.warnings == ()
        model.run("y")
        assert model.warnings == (
            "variables have random values, other ones at each run, because none were stored: head",
        )
        assert model.notes == ("initialized, because they were never stored: local",)
    assert "warning: variables have random values" in run("run", prefix, "--fetch", "y", "-q").stderr


def test_what_is_drawn_by_chance(tf):
    """An initializer with a seed gives the same each time; so may one that takes what is stored, if there is any."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        chance = v1.get_variable("chance", [2])
        v1.get_variable("seeded", initializer=v1.random_normal([2], seed=3))
        v1.get_variable("stateless", initializer=tf.random.stateless_normal([2], [1, 2]))
        is_there = v1.is_variable_initialized(chance)
        v1.get_variable("copied", initializer=v1.cond(is_there, chance.read_value, lambda: chance.initial_value))
        v1.get_variable("called", initializer=tf.function(lambda: tf.random.normal([2]))())
        meta = v1.train.export_meta_graph()
    found = MetaGraph(meta.SerializeToString())
    by_chance = [v.name for v in found.variables if drawn(found, [f"{v.name}/Assign"])]
    assert by_chance == ["chance", "called"]


def test_missing_variables_are_named_if_they_are_needed(tf, tmp_path):
    """A checkpoint of a part of the graph's variables gives what needs no other; the rest is refused by name."""

    def build(v1):
        for name in ("here", "there"):
            v1.identity(v1.get_variable(name, initializer=2.0), name=f"{name}_out")

    prefix = save_model(tf, tmp_path / "whole", build)
    part = save_model(tf, tmp_path / "part", lambda v1: v1.get_variable("here", initializer=3.0))
    part.with_name("model.meta").write_bytes(prefix.with_name("model.meta").read_bytes())
    with ckpttool.ImportedGraph(part) as model:
        assert model.run("here_out") == 3
        with pytest.raises(NotFoundError, match=r"variable there is not in the checkpoint \(near names: here\)"):
            model.run("there_out")
        assert "restored variable by variable: variable there is not in the checkpoint" in model.notes[0]


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        (np.float64(1), "the graph has float32, the checkpoint float64"),
        ([1.0, 2.0], r"the graph has shape \[\], .*\[2\]"),
    ],
)
def test_a_variable_of_another_dtype_or_shape_is_named(tf, tmp_path, initial, message):
    """Where graph and checkpoint do not agree, the variable is named with what each has."""
    prefix = save_model(tf, tmp_path / "whole", lambda v1: v1.get_variable("w", initializer=1.0))
    other = save_model(tf, tmp_path / "other", lambda v1: v1.get_variable("w", initializer=tf.constant(initial)))
    other.with_name("model.meta").write_bytes(prefix.with_name("model.meta").read_bytes())
    with ckpttool.ImportedGraph(other) as model, pytest.raises(NotFoundError, match=f"variable w: {message}"):
        model.run("w")


def test_a_graph_without_a_saver_is_restored_by_names(tf, tmp_path):
    """Where the file says nothing of savers, variables get the values of their names, partitioned ones too."""

    def build(v1):
        scaled(5.0)(v1)
        whole = v1.get_variable("big", [4, 2], initializer=v1.ones_initializer(), partitioner=_in_two)
        v1.identity(whole, name="joined")

    prefix = save_model(tf, tmp_path, build)
    edit_meta(tf, prefix, lambda message: message.ClearField("saver_def"))
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 11
        assert model.run("joined").tolist() == [[1, 1]] * 4
        assert model.notes == ()


@pytest.mark.parametrize("fixture", ["conv", "partitioned", "recurrent", "sharded"])
def test_restored_one_by_one_every_variable_is_as_the_saver_restores_it(tf, tmp_path, fixture):
    """Reference variables, slices and shards: without a saver each gets the bits that its saver would give it."""
    shutil.copytree(FIXTURES / fixture, tmp_path / "bare")
    edit_meta(tf, tmp_path / "bare" / "model", lambda message: message.ClearField("saver_def"))
    found = []
    for prefix in (FIXTURES / fixture / "model", tmp_path / "bare" / "model"):
        with ckpttool.ImportedGraph(prefix) as model:
            values = model.run({tensor.name: tensor for tensor in model.collection("variables")})
            found.append({name: value.tobytes() for name, value in values.items()})
    assert found[0]
    assert found[0] == found[1]


def _in_two(shape, dtype):
    return [2, 1]


def _unknown(message, *names):
    """Makes ops of a type that nobody has."""
    for node in message.graph_def.node:
        if node.name in names:
            node.op = "NobodyHasThis"


def _with_training(v1):
    raw = v1.placeholder("float32", [None], name="raw")
    v1.identity(raw * 2, name="decoded")
    x = v1.identity(v1.get_default_graph().get_tensor_by_name("decoded:0"), name="x")
    w = v1.get_variable("w", initializer=3.0)
    y = v1.multiply(x, w, name="y")
    values, _ = v1.unique(y, name="several")
    v1.identity(values, name="after")
    v1.assign(w, v1.reduce_sum(y), name="train")


def test_ops_that_nobody_has_are_in_the_way_of_nothing_else(tf, tmp_path):
    """Unknown input and training ops are left out and said; a fetch that needs one is told which, of which type."""
    prefix = save_model(tf, tmp_path, _with_training)
    edit_meta(tf, prefix, lambda message: _unknown(message, "decoded", "train", "several"))
    with pytest.raises(tf.errors.NotFoundError, match="NobodyHasThis"):
        by_hand(tf, prefix, "y:0", {"x:0": [2.0]})
    with ckpttool.ImportedGraph(prefix) as model:
        assert sorted(model.lacking) == ["decoded", "several", "train"]
        assert model.notes == ("left out 3 ops that can't run here: NobodyHasThis",)
        assert model.run("y", {"x": [2]}).tolist() == [6]
        assert model.run("y", {"decoded": [2]}).tolist() == [6]
        assert model.run("after", {"several:0": [2]}).tolist() == [2]
        message = (
            "decoded is needed, an op of type NobodyHasThis, .* --op-library loads ops and kernels; or feed decoded:0"
        )
        with pytest.raises(NotSupportedError, match=message):
            model.run("y", {"raw": [1]})


def test_ops_for_other_processors_and_python_code_are_left_out(tf, tmp_path):
    """An op with kernels for GPUs or TPUs only, and one that calls its program's Python, stop only what needs them."""

    def build(v1):
        scaled(2.0)(v1)
        y = v1.get_default_graph().get_tensor_by_name("y:0")
        v1.raw_ops.TPUReplicatedInput(inputs=[y, y], name="tpu")
        v1.raw_ops.NcclReduce(input=[y, y], reduction="sum", name="gpu")
        v1.py_func(np.sum, [y], "float32", name="python")

    prefix = tmp_path / "model"
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        build(v1)
        v1.train.export_meta_graph(str(tmp_path / "model.meta"), graph=graph, saver_def=v1.train.Saver().saver_def)
    (tmp_path / "plain").mkdir()
    plain = save_model(tf, tmp_path / "plain", scaled(2.0))
    for part in (".index", ".data-00000-of-00001"):
        Path(f"{prefix}{part}").write_bytes(Path(f"{plain}{part}").read_bytes())
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 5
        with pytest.raises(NotSupportedError, match=r"python is needed, .* runs Python code of the program"):
            model.run("python", {"x": [2]})
        with pytest.raises(NotSupportedError, match=r"no kernel of TPUReplicatedInput \(it is for TPUs\)"):
            model.run("tpu", {"x": [2]})
        if not tf.config.list_physical_devices("GPU"):
            with pytest.raises(NotSupportedError, match=r"NcclReduce .*GPU"):
                model.run("gpu", {"x": [2]})


def test_kernels_may_want_more_of_attributes_than_types(tf, tmp_path):
    """What TensorFlow runs is run, though its kernels want texts, numbers or truths of attributes."""

    def build(v1):
        x = v1.placeholder(tf.float32, [1, 2, 2, 4], name="x")
        v1.get_variable("w", initializer=1.0)
        tf.gather_nd(x, [[0, 0, 0]], name="gathered")
        tf.nn.depth_to_space(x, 2, name="deep")
        tf.nn.space_to_depth(x, 2, name="wide")
        tf.raw_ops.ApproxTopK(input=x, k=2, reduction_dimension=-1, name="top")

    names = ["gathered:0", "deep:0", "wide:0", "top:0", "top:1"]
    fed = {"x:0": np.arange(16, dtype=np.float32).reshape(1, 2, 2, 4)}
    x = tf.constant(fed["x:0"])
    deep, wide = tf.nn.depth_to_space(x, 2), tf.nn.space_to_depth(x, 2)
    top = tf.raw_ops.ApproxTopK(input=x, k=2, reduction_dimension=-1)
    with ckpttool.ImportedGraph(save_model(tf, tmp_path, build)) as model:
        found = model.run(names, fed)
        for value, eager in zip(found, [x[:, 0, 0], deep, wide, *top], strict=True):
            assert value.tobytes() == eager.numpy().tobytes()


def test_a_kernel_for_another_text_is_none(tf):
    """An op whose attribute has a text for which there are kernels on other devices alone can't run."""
    node = tf.compat.v1.NodeDef(op="DepthToSpace")
    node.attr["T"].type = tf.int64.as_datatype_enum
    for data_format, why in ((b"NHWC", None), (b"NCHW", "no kernel of DepthToSpace takes these attributes here")):
        node.attr["data_format"].s = data_format
        assert InstalledRegistry(tf).no_kernel(node) == why


def _stale(message):
    node = next(node for node in message.graph_def.node if node.name == "y")
    node.attr["_output_shapes"].list.shape[0].dim.add(size=7)


def _newer(message):
    message.graph_def.versions.min_consumer = 1 << 20
    message.graph_def.versions.bad_consumers.append(1)


def _unknown_attribute(message):
    node = next(node for node in message.graph_def.node if node.name == "y")
    node.attr["of_the_future"].b = True


MENDED = {
    "stale shapes": (_stale, "stale _output_shapes attributes: "),
    "a newer version": (_newer, "the graph asks for a newer TensorFlow, of GraphDef version 1048576"),
}


@pytest.mark.parametrize(("change", "note"), MENDED.values(), ids=MENDED)
def test_what_tensorflow_refuses_is_mended_on_a_copy_and_said(tf, tmp_path, change, note):
    """A graph that import_meta_graph refuses runs, the notes say what was mended, and the file stays as it is."""
    prefix = save_model(tf, tmp_path, scaled(2.0))
    edit_meta(tf, prefix, change)
    before = prefix.with_name("model.meta").read_bytes()
    with pytest.raises((ValueError, tf.errors.OpError)):
        by_hand(tf, prefix, "y:0", {"x:0": [2.0]})
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 5
        assert any(note in each for each in model.notes)
    assert prefix.with_name("model.meta").read_bytes() == before


def test_an_attribute_that_tensorflow_does_not_know_is_said(tf, tmp_path):
    """TensorFlow passes over an attribute of a later version without a word; the notes name it."""
    prefix = save_model(tf, tmp_path, scaled(2.0))
    edit_meta(tf, prefix, _unknown_attribute)
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 5
        known = "dropped the attribute of_the_future of 1 Identity op: this TensorFlow does not know it"
        assert model.notes == (known,)


def test_a_function_with_an_unknown_op_stops_only_its_callers(tf, tmp_path):
    """An unknown op inside of a library function is found before the import, with the function's name."""

    def build(v1):
        scaled(2.0)(v1)
        double = tf.function(lambda x: x * 2, input_signature=[tf.TensorSpec([], "float32")])
        v1.identity(double(v1.constant(3.0)), name="called")

    def change(message):
        for function in message.graph_def.library.function:
            for node in function.node_def:
                node.op = "NobodyHasThis" if node.op == "Mul" else node.op

    prefix = save_model(tf, tmp_path, build)
    edit_meta(tf, prefix, change)
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 5
        with pytest.raises(NotSupportedError, match=r"its function .* needs an op of type NobodyHasThis"):
            model.run("called")


def test_a_branch_with_an_op_without_a_kernel_stops_only_its_callers(tf, tmp_path):
    """TensorFlow places all of a graph, branches that no run takes included, such as those in which trees are grown."""

    def change(message):
        function = message.graph_def.library.function.add()
        function.signature.name = "grown"
        function.signature.output_arg.add(name="size", type=1)
        function.node_def.add(name="trees", op="BoostedTreesEnsembleResourceHandleOp")
        size = function.node_def.add(name="size", op="Const", input=["^trees"])
        size.attr["dtype"].type = 1
        size.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0))
        function.ret["size"] = "size:output:0"
        node = message.graph_def.node.add(name="grow", op="PartitionedCall")
        node.attr["f"].func.name = "grown"
        node.attr["Tin"].list.SetInParent()
        node.attr["Tout"].list.type.append(1)

    prefix = save_model(tf, tmp_path, scaled(2.0))
    edit_meta(tf, prefix, change)
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [2]}) == 5
        with pytest.raises(NotSupportedError, match=r"its function .* can't run: .* has no kernel of BoostedTrees"):
            model.run("grow")


def test_an_op_library_that_is_none_says_so(tf, tmp_path):
    """What can't be loaded as a library of ops is named."""
    (tmp_path / "x.so").write_bytes(b"nothing")
    with pytest.raises(NotSupportedError, match=r"the op library can't be loaded: .*x\.so"):
        ckpttool.ImportedGraph(LINEAR, op_libraries=[str(tmp_path / "x.so")])


KERNEL = """
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
using namespace tensorflow;
REGISTER_OP("NobodyHasThis").Input("x: float").Output("y: float");
class Kernel : public OpKernel {
 public:
  explicit Kernel(OpKernelConstruction* c) : OpKernel(c) {}
  void Compute(OpKernelContext* c) override {
    Tensor* y = nullptr;
    OP_REQUIRES_OK(c, c->allocate_output(0, c->input(0).shape(), &y));
    y->flat<float>() = c->input(0).flat<float>() * 10.0f;
  }
};
REGISTER_KERNEL_BUILDER(Name("NobodyHasThis").Device(DEVICE_CPU), Kernel);
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="no compiler")
def test_an_op_library_brings_the_ops_that_are_lacking(tf, tmp_path, fresh_python):
    """With --op-library, what needs an op that TensorFlow lacks runs by the library's kernel."""
    prefix = save_model(tf, tmp_path, _with_training)

    def change(message):
        _unknown(message, "decoded")
        for node in message.graph_def.node:
            if node.name == "decoded":
                node.ClearField("attr")
                node.input[:] = ["raw"]

    edit_meta(tf, prefix, change)
    (tmp_path / "kernel.cc").write_text(KERNEL)
    flags = [*tf.sysconfig.get_compile_flags(), "-std=c++17", "-shared", "-fPIC", "-O0"]
    built = [*flags, str(tmp_path / "kernel.cc"), "-o", str(tmp_path / "kernel.so"), *tf.sysconfig.get_link_flags()]
    subprocess.run(["g++", *built], check=True, timeout=300)
    command = ["-m", "ckpttool", "run", prefix, "--feed", "raw=[2]", "--fetch", "y", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    refused = fresh_python(*command, env=environment)
    assert refused.returncode == 5
    assert "decoded is needed, an op of type NobodyHasThis" in refused.stderr
    # A mere name is that of a file here.
    result = fresh_python(*command, "--op-library", "kernel.so", env=environment, cwd=tmp_path)
    assert json.loads(result.stdout)["outputs"][0]["value"] == [60]


def test_tensorflows_own_errors_are_one_line(tf, linear, tmp_path):
    """What fails while it runs is a NotSupportedError with TensorFlow's first line."""

    def build(v1):
        v1.matmul(v1.placeholder("float32", None, "a"), v1.get_variable("m", [2, 2]), name="y")

    with ckpttool.ImportedGraph(save_model(tf, tmp_path, build)) as model:
        with pytest.raises(NotSupportedError, match=r"TensorFlow: Matrix size.* \(op y\)") as caught:
            model.run("y", {"a": [[1, 2, 3]]})
        assert "\n" not in str(caught.value)


def test_an_initializer_that_fails_is_tried_again(tf, tmp_path):
    """What has failed has not been initialized: the next run says the same, and no note says otherwise."""

    def build(v1):
        bad = v1.debugging.check_numerics(v1.constant([float("inf")]), "bad")
        iterator = v1.data.make_initializable_iterator(v1.data.Dataset.from_tensors(bad))
        v1.identity(iterator.get_next(), name="y")
        v1.get_variable("w", initializer=1.0)

    with ckpttool.ImportedGraph(save_model(tf, tmp_path, build)) as model:
        for _ in range(2):
            with pytest.raises(NotSupportedError, match="Inf"):
                model.run("y")
        assert model.notes == ()


def test_a_collection_may_name_what_is_not_there(tf, tmp_path, monkeypatch):
    """A stale member keeps nothing from running, and nothing is looked for that is like it: that is slow for many."""
    monkeypatch.setattr("ckpttool.model.graph.near_hint", lambda name, others: pytest.fail("is looked for"))
    prefix = save_model(tf, tmp_path, scaled(2.0))
    edit_meta(tf, prefix, lambda meta: meta.collection_def["old"].node_list.value.extend(["y:5", "gone:0"]))
    with ckpttool.ImportedGraph(prefix) as model:
        assert model.run("y", {"x": [1]}).tolist() == [3]
        assert model.tf_graph.get_collection("old") == []


def test_all_needed_outputs_of_a_pipeline_are_asked_for(tf, tmp_path):
    """Of two outputs, one of which is fed, the other one is named."""

    def build(v1):
        several = v1.data.Iterator.from_structure(("float32", "float32"), ([], []))
        one, other = several.get_next(name="next")
        v1.add(one, other, name="sum")
        v1.get_variable("w", initializer=1.0)

    with ckpttool.ImportedGraph(save_model(tf, tmp_path, build)) as model:
        with pytest.raises(ValueError, match="next:0 is fed, and next:1 of the same op is needed too"):
            model.run("sum", {"next:0": 1})
        assert model.run("sum", {"next:0": 1, "next:1": 2}) == 3


def test_nodes_stand_for_their_ops(linear):
    """As fetches; what else is no name is refused, and a session is in one process alone."""
    output, feeds = linear.graph.node("activation_opt"), {"x": 50}
    assert linear.run(output, feeds) == 124
    assert linear.run({"y": [output]}, feeds) == {"y": [124]}
    with pytest.raises(TypeError, match=r"feeds is a mapping of names to values, not \[50\]"):
        linear.run("activation_opt", [50])
    for look in (linear.tensor, linear.operation):
        with pytest.raises(TypeError, match="the name of an op or tensor is needed, not int"):
            look(1)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="can't be copied or pickled: import it again"):
            copied(linear)
