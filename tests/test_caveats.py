"""What a result depends on that nobody feeds: chance, and switches that variables hold."""

from typing import Any

import numpy as np
import pytest
from bundles import bundle, time_limit
from running import save_model

from ckpttool import open_graph, proto
from ckpttool.analysis.graphs.chance import drawn
from ckpttool.model.graph import MetaGraph

pytestmark = pytest.mark.tensorflow


def model(v1: Any) -> None:
    """Noise with a seed and without, dropout of two kinds, and behind a condition that a variable holds."""
    x = v1.placeholder("float32", [None, 2], name="x")
    keep = v1.placeholder("float32", name="keep")
    keep_all = v1.placeholder_with_default(1.0, [], name="keep_all")
    w = v1.get_variable("w", [2, 2])
    training = v1.get_variable("is_training", initializer=True, trainable=False, use_resource=False)
    y = v1.matmul(x, w, name="y")
    v1.identity(y + v1.random_normal([2]), name="noisy")
    v1.identity(y + v1.random_normal([2], seed=3), name="seeded")
    v1.identity(v1.nn.dropout(y, 0.5), name="always")
    v1.identity(v1.nn.dropout(y, keep), name="as_fed")
    v1.identity(v1.nn.dropout(y, keep_all), name="by_default")
    v1.identity(v1.where(y > 0, y, v1.random_normal([2, 2])), name="chosen")
    v1.identity(v1.cond(training, lambda: v1.nn.dropout(y, 0.5), lambda: y), name="in_training")
    v1.identity(v1.random_shuffle(y), name="shuffled")


CHANCE = {
    "y": "",
    "noisy": "random_normal/RandomStandardNormal",
    "seeded": "",
    "always": "dropout/random_uniform/RandomUniform",
    "as_fed": "",
    "by_default": "",
    "chosen": "",
    "in_training": "",
    "shuffled": "RandomShuffle",
}


@pytest.fixture(scope="module")
def saved(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_model(tf, tmp_path_factory.mktemp("model"), model)


@pytest.mark.parametrize("output", CHANCE)
def test_only_what_is_another_each_time_is(output: str, saved: Any) -> None:
    """Not with a seed, nor as what is fed or a condition decides; what is fed itself does not count."""
    graph = open_graph(saved)
    assert drawn(graph, [f"{output}:0"]) == CHANCE[output]
    assert drawn(graph, [f"{output}:0"], {f"{op}:0" for op in CHANCE.values() if op}) == ""


def test_a_default_of_training_is_said(run: Any, tf: Any, tmp_path: Any) -> None:
    """A flag that is True unless it is fed, needed and called as one of training is; others are not."""

    def build(v1: Any) -> None:
        x = v1.placeholder("float32", [None, 2], name="x")
        y = x * v1.get_variable("w", [2])
        for name, default in (("is_training", True), ("training_off", False), ("flag", True)):
            flag = v1.placeholder_with_default(default, [], name=name)
            y = v1.cond(flag, lambda y=y: v1.nn.dropout(y, 0.5), lambda y=y: y)
        v1.identity(y, name="y")

    prefix = save_model(tf, tmp_path, build)
    said = run("freeze", prefix, "--outputs", "y", "-o", tmp_path / "a.pb").stderr
    assert [line for line in said.splitlines() if "its default" in line] == [
        "note: is_training is True, its default; --inputs is_training:0 feeds it"
    ]
    fetch = ("run", prefix, "--fetch", "y", "--feed", "x=[[1, 2]]")
    assert "note: is_training is True, its default; --feed is_training:0 feeds it" in run(*fetch).stderr
    assert "its default" not in run(*fetch, "--feed", "is_training=false").stderr


def test_it_is_said_of_what_is_run_frozen_and_served(run: Any, saved: Any, tmp_path: Any) -> None:
    """The op that draws; the switch, its value and the way to feed it, unless it is fed. Nothing, if --quiet."""
    random = "note: the result is another each time: random_normal/RandomStandardNormal draws random numbers, and has"
    switch = "note: is_training is True, as it was saved; {} is_training/read:0 feeds it"
    file = tmp_path / "frozen.pb"
    assert random in run("freeze", saved, "--outputs", "noisy", "-o", file).stderr
    said = run("freeze", saved, "--outputs", "in_training", "-o", tmp_path / "b.pb").stderr
    assert switch.format("--inputs") in said
    assert "another" not in said
    assert random in run("run", file, "--fetch", "noisy", "--feed", "x=[[1, 2]]").stderr
    ends = ("--inputs", "x", "--outputs", "in_training,noisy")
    said = run("saved-model", saved, *ends, "-o", tmp_path / "served").stderr
    assert random in said
    assert switch.format("--inputs") in said
    fetch = ("run", saved, "--fetch", "in_training", "--feed", "x=[[1, 2]]")
    assert switch.format("--feed") in run(*fetch).stderr
    assert "is_training" not in run(*fetch, "--feed", "is_training/read:0=false").stderr
    assert "is_training" not in run(*fetch, "-q").stderr


@pytest.mark.parametrize(("count", "shape", "lines"), [(1, (3,), 0), (12, (), 10)])
def test_what_is_said_has_an_end(count: int, shape: tuple[int, ...], lines: int, run: Any, tmp_path: Any) -> None:
    """A switch that is stored as no scalar is none, whatever the graph lacks of its shape; of many, the first."""
    message = proto.message_class("MetaGraphDef")()
    reads = [f"phase{number}/read" for number in range(count)]
    for read in reads:
        variable = message.graph_def.node.add(name=read.removesuffix("/read"), op="VariableV2")
        variable.attr["dtype"].type = 1
        variable.attr["shape"].shape.unknown_rank = True
        message.graph_def.node.add(name=read, op="Identity", input=[variable.name]).attr["T"].type = 1
    message.graph_def.node.add(name="y", op="AddN", input=reads).attr["T"].type = 1
    prefix = bundle({f"phase{number}": np.ones(shape, np.float32) for number in range(count)}).write(tmp_path)
    (tmp_path / "model.meta").write_bytes(message.SerializeToString())
    said = run("freeze", prefix, "--outputs", "y", "-o", tmp_path / "frozen.pb").stderr
    assert said.count("saved") == lines, said


def test_functions_that_many_ops_call_are_read_once() -> None:
    """A chain of functions, which each of many ops calls, takes no time; what the last one draws, the first gives."""
    message = proto.message_class("GraphDef")()
    for number in range(2000):
        function = message.library.function.add()
        function.signature.name = f"f{number}"
        function.node_def.add(name="next", op=f"f{number + 1}" if number < 1999 else "RandomUniform")
    message.node.add(name="y0", op="Const")
    for number in range(1, 5000):
        message.node.add(name=f"y{number}", op="f1", input=[f"y{number - 1}"])
    message.node.add(name="drawn", op="f0")
    graph = MetaGraph(message.SerializeToString(), root="GraphDef")
    with time_limit(5):
        assert drawn(graph, ["drawn:0"]) == "drawn"
        message.library.function[-1].node_def[0].op = "Identity"
        assert drawn(MetaGraph(message.SerializeToString(), root="GraphDef"), ["y4999:0"]) == ""


def test_python_code_is_said(run: Any, tf: Any, tmp_path: Any) -> None:
    """A graph that calls Python is written, and runs in the program that made it alone; unless what it gives is fed."""

    def build(v1: Any) -> None:
        x = v1.placeholder("float32", [2], name="x")
        w = v1.get_variable("w", [2])
        doubled = v1.py_func(lambda values: values * 2, [x], "float32", name="doubled")
        v1.multiply(v1.reshape(doubled, [2]), w, name="y")

    prefix = save_model(tf, tmp_path / "model", build)
    note = "note: doubled runs Python code of the program that made the graph, and nowhere else; --inputs doubled:0"
    assert note in run("freeze", prefix, "--outputs", "y", "-o", tmp_path / "a.pb").stderr
    ends = ("--inputs", "x", "--outputs", "y")
    assert note in run("saved-model", prefix, *ends, "-o", tmp_path / "served").stderr
    said = run("freeze", prefix, "--outputs", "y", "--inputs", "doubled", "-o", tmp_path / "b.pb").stderr
    assert "Python" not in said
    ran = run("run", prefix, "--fetch", "y", "--feed", "x=[1, 2]")  # Which says by itself why it can't.
    assert (ran.exit_code, ran.stderr.count("Python code")) == (5, 1)
