"""The command `run`, in this process; and, where the log is concerned, in one of its own."""

import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import typer
from conftest import FIXTURES, ROOT
from running import edit_meta, save_model, save_with_iterator, scaled
from typer.testing import CliRunner

import ckpttool
from ckpttool.cli.jobs import read_stdin
from ckpttool.errors import NotSupportedError

LINEAR = FIXTURES / "linear" / "model"
tensorflow = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def models(tf, tmp_path_factory):
    """Prefixes of y = 2 x + 1, y = 2.5 x + 1, and a model of text."""

    def of_text(v1):
        text = v1.placeholder("string", [None], name="text")
        v1.string_join([text, "!"], name="loud")
        v1.get_variable("unused", initializer=1.0)

    folder = tmp_path_factory.mktemp("models")
    builds = {"two": scaled(2.0), "more": scaled(2.5), "text": of_text}
    return {name: save_model(tf, folder / name, build) for name, build in builds.items()}


@tensorflow
@pytest.mark.parametrize(
    "options",
    [
        ["--feed", "x:0=50", "--fetch", "activation_opt"],
        ["--feed", "x=50", "--fetch", "activation_opt:0"],
        ["--feed", "x=50", "--collection", "activation"],
        ["--feed", "x=50"],
    ],
)
def test_the_tutorial_model(tf, run, options):
    """By op, tensor, collection and default, x:0 = 50 gives what a hand-written session gives."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{LINEAR}.meta", clear_devices=True).restore(session, str(LINEAR))
        expected = session.run("activation_opt:0", {"x:0": 50})
    document = json.loads(run("run", LINEAR, *options, "--json").stdout)
    (output,) = document["outputs"]
    assert (output["tensor"], output["dtype"], output["shape"]) == ("activation_opt:0", "float32", [])
    assert output["value"] == float(expected)


@tensorflow
@pytest.mark.parametrize("option", ["--batch-dim", "--broadcast"])
def test_a_scalar_fills_a_declared_shape_when_asked(run, models, option):
    """A scalar becomes a vector of one value where the graph wants a vector, if that is asked for."""
    document = json.loads(run("run", models["two"], "--feed", "x=3", option, "--json").stdout)
    assert [output["value"] for output in document["outputs"]] == [[7.0]]


@tensorflow
def test_values_are_printed_and_choices_are_said(run):
    """Without options there is a table of values, and standard error says what is fetched, and why."""
    result = run("run", LINEAR, "--feed", "x=[50, 0.1]")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split("\t")[-2:] == ["[2]", "[124.0, -0.75]"]
    assert "note: fetching activation_opt:0: the members of the collection activation" in result.stderr


REFUSED = {
    "nobody feeds": ([], 2, "x:0 must be fed"),
    "dtype": (["--feed", "x=['a']"], 2, "x:0 takes float32"),
    "literal": (["--feed", "x=__import__('os')"], 2, "is no literal"),
    "no value": (["--feed", "x"], 2, "'x' is not NAME=VALUE"),
    "twice": (["--feed", "x=[1]", "--feed", "x=[2]"], 2, "--feed x is given twice"),
    "twice by two names": (["--feed", "x=[1]", "--feed", "x:0=[2]"], 2, "x:0 is fed twice"),
    "no such feed": (["--feed", "xx=[1]"], 3, "no op named xx"),
    "no such fetch": (
        ["--fetch", "activation"],
        3,
        "no op named activation .*--collection activation .*near names: activation_opt",
    ),
    "no such collection": (["--collection", "activations"], 3, "no collection named activations"),
    "no such signature": (["--signature", "serve"], 3, "no signature named serve"),
    "no such file": (["--feed", "x=@gone.npy"], 3, "no such file"),
    "suffix": (["--out", "x.txt"], 2, "--out is a .npz, .npy or .json file"),
    "repeat": (["--repeat", "3"], 2, "--repeat needs --time"),
    "tolerance": (["--tolerance", "1"], 2, "--tolerance needs several models"),
}


@pytest.mark.parametrize(("options", "code", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_be_known_before_is_refused_without_tensorflow(run, monkeypatch, options, code, message):
    """Wrong feeds, fetches and options end the command before TensorFlow is imported."""
    monkeypatch.setitem(sys.modules, "ckpttool.runtime.imported", None)
    result = run("run", LINEAR, *options)
    assert result.exit_code == code
    assert re.search(message, re.sub(r"\s+", " ", result.stderr))


def test_a_wrong_shape_is_refused_without_tensorflow(run, monkeypatch):
    """What the graph declares of an input is known before TensorFlow is imported."""
    monkeypatch.setitem(sys.modules, "ckpttool.runtime.imported", None)
    result = run("run", FIXTURES / "conv" / "model", "--feed", "images=50", "--fetch", "predictions")
    assert result.exit_code == 2
    message = r"images:0 takes float32\[\?,4,4,1\], and what came is float32\[\]"
    assert re.search(message, re.sub(r"\s+", " ", result.stderr))


def test_without_tensorflow_there_is_the_pip_line(run, monkeypatch):
    """Where TensorFlow is not installed, the exit code is 5, and the message says how to install it."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    result = run("run", LINEAR, "--feed", "x=[1]")
    assert result.exit_code == 5
    assert result.stderr.endswith("running a graph needs TensorFlow · pip install 'ckpttool[tensorflow]'\n")


@tensorflow
def test_results_are_written(run, models, tmp_path):
    """--out writes .npz, .npy and .json, which NumPy and JSON read, and replaces nothing without --force."""
    options = ["run", models["two"], "--feed", "x=[1, 2]", "--fetch", "y"]
    for suffix in ("npz", "npy", "json"):
        out = tmp_path / f"out.{suffix}"
        result = run(*options, "--out", out)
        assert (result.exit_code, result.stdout) == (0, "")
        assert run(*options, "--out", out).exit_code == 2
        assert run(*options, "--out", out, "--force").exit_code == 0
    assert np.load(tmp_path / "out.npz")["y"].tolist() == [3, 5]
    assert np.load(tmp_path / "out.npy").dtype == np.float32
    assert json.loads((tmp_path / "out.json").read_text())["outputs"][0]["value"] == [3, 5]
    assert run(*options, "--fetch", "x", "--out", tmp_path / "two.npy").exit_code == 5
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.npy", "out.npz"]


@tensorflow
def test_text_goes_in_and_out(run, models, tmp_path):
    """Bare text, lists, files and standard input feed an input of strings; what could drive a terminal is escaped."""
    (tmp_path / "file").write_bytes(b"\x1b[31m")

    def loud(value, *options, **stdin):
        from ckpttool.cli import app

        arguments = ["run", str(models["text"]), "--feed", f"text={value}", "--fetch", "loud", "--batch-dim", *options]
        return CliRunner().invoke(app, arguments, **stdin)

    assert "[hello!]" in loud("hello").stdout
    assert json.loads(loud('["a", "é"]', "--json").stdout)["outputs"][0]["value"] == ["a!", "é!"]
    assert r"[\x1b[31m!]" in loud(f"@{tmp_path / 'file'}").stdout
    assert "[@home!]" in loud("@@home").stdout
    assert "[piped!]" in loud("@-", input=b'["piped"]').stdout
    binary = json.loads(loud("['a', b'\\xff']", "--json").stdout)["outputs"][0]["value"]
    assert binary == ["a!", {"base64": "/yE="}]


@tensorflow
def test_models_are_compared(run, models):
    """Of several models the outputs are compared: 0 if they agree within the tolerance, else 1, with the difference."""
    same = run("run", models["two"], models["two"], "--feed", "x=[1, 2]")
    assert same.exit_code == 0
    other = [models["two"], models["more"], "--feed", "x=[1, 2]", "--json"]
    result = run("run", *other)
    assert result.exit_code == 1
    (row,) = json.loads(result.stdout)["comparison"]
    assert (row["max_difference"], row["at"], row["within_tolerance"]) == (1.0, [1], False)
    assert row["different_values"] == "2 of 2"
    assert run("run", *other, "--tolerance", "0.5").exit_code == 1
    assert run("run", *other, "--tolerance", "1").exit_code == 0


@tensorflow
def test_time_is_measured(run):
    """--time gives percentiles of as many runs as --repeat says: on standard error, or in the JSON."""
    options = ["run", LINEAR, "--feed", "x=[1]", "--repeat", "20", "--time"]
    line = run(*options).stderr.splitlines()[-1]
    assert re.fullmatch(r"milliseconds: min [\d.]+ · p50 [\d.]+ · p90 .* · p99 .* · max .* · mean [\d.]+", line)
    (taken,) = json.loads(run(*options, "--json").stdout)["latency_ms"]
    assert taken["min"] <= taken["p50"] <= taken["p90"] <= taken["p99"] <= taken["max"]


@tensorflow
@pytest.mark.parametrize(("producer", "code"), [(20, 0), (24, 2)])
def test_a_scalar_shape_of_old_is_an_unknown_one(tf, run, tmp_path, producer, code):
    """The oldest graphs wrote an unknown shape as a scalar's, and take any; later ones take a scalar."""

    def change(message):
        message.graph_def.versions.producer = producer
        for node in message.graph_def.node:
            node.attr.pop("_output_shapes", None)
            if node.name == "x":
                node.attr["shape"].shape.Clear()

    prefix = save_model(tf, tmp_path, scaled(2.0))
    edit_meta(tf, prefix, change)
    result = run("run", prefix, "--feed", "x=[1, 2]", "--fetch", "y")
    assert result.exit_code == code
    assert ("[3.0, 5.0]" in result.stdout) == (code == 0)


@tensorflow
def test_an_op_without_outputs_is_run(run, models):
    """An op that only does something is run for that, and there is nothing to print."""
    result = run("run", models["two"], "--fetch", "w/Assign", "--fetch", "w/Read/ReadVariableOp", "--json", "-q")
    assert result.exit_code == 0
    assert [output["fetch"] for output in json.loads(result.stdout)["outputs"]] == ["w/Read/ReadVariableOp"]
    assert result.stderr == ""


@tensorflow
@pytest.mark.slow
def test_tensorflows_log_is_shown_only_if_asked(fresh_python):
    """In a process of its own, standard error has our notes and nothing of TensorFlow's; with -v there is more."""
    command = ["-m", "ckpttool", "run", LINEAR, "--feed", "x=[1]", "--fetch", "activation_opt"]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    environment = plain | {"PYTHONPATH": str(ROOT)}
    quiet = fresh_python(*command, env=environment)
    assert quiet.stderr == f"note: the graph is {LINEAR}.meta\n"
    loud = fresh_python(*command, "-v", env=environment)
    assert len(loud.stderr) > len(quiet.stderr)
    assert quiet.stdout == loud.stdout


@tensorflow
def test_values_from_another_place(run, tmp_path):
    """A graph that stands alone is run with the values that --checkpoint names, if TensorFlow can restore them."""
    graph = tmp_path / "anywhere.meta"
    shutil.copy(f"{LINEAR}.meta", graph)
    arguments = ["run", graph, "--feed", "x:0=50", "--fetch", "activation_opt", "-f", "tsv"]
    assert "--checkpoint" in run(*arguments).stderr
    result = run(*arguments, "--checkpoint", LINEAR)
    assert result.stdout.splitlines()[1].endswith("\t124.0")
    assert run("export", LINEAR, "--npz", tmp_path / "w.npz").exit_code == 0
    refused = run(*arguments, "--checkpoint", tmp_path / "w.npz")
    assert (refused.exit_code, "export --tf makes a checkpoint of it" in refused.stderr) == (5, True)
    assert run("run", LINEAR, graph, "--checkpoint", LINEAR, "--feed", "x:0=50").exit_code == 2


def test_standard_input_that_is_closed(run, monkeypatch):
    """A value from standard input that is closed is wrong usage, and no traceback."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(typer.BadParameter, match="standard input is closed"):
        read_stdin()


@pytest.mark.tensorflow
def test_a_graph_with_a_saver_beside_a_checkpoint_of_objects(tf, run, tmp_path):
    """What TensorFlow's saver restores by the variables' names is run, frozen, served and held against the graph."""
    v1 = tf.compat.v1
    prefix = str(tmp_path / "m")
    with v1.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], "x")
        kernel = v1.get_variable("w", initializer=[[1.0, 2.0], [3.0, 4.0]], use_resource=True)
        bias = v1.get_variable("b", initializer=[5.0, 6.0], use_resource=False)
        tf.identity(x @ kernel + bias, name="y")
        saver = v1.train.Saver()
        session.run([kernel.assign([[7.0, 8.0], [9.0, 1.0]]), bias.assign([2.0, 3.0])])
        v1.train.Checkpoint(kernel=kernel, bias=bias).write(prefix, session=session)
        saver.export_meta_graph(f"{prefix}.meta")
    with v1.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(f"{prefix}.meta").restore(session, prefix)
        expected = session.run("y:0", {"x:0": [[1.0, 2.0]]}).tolist()
    assert run("freeze", prefix, "--outputs", "y", "-o", tmp_path / "y.pb").exit_code == 0
    served = ["saved-model", prefix, "--inputs", "x:0", "--outputs", "y:0", "-o", tmp_path / "served"]
    assert run(*served).exit_code == 0
    for model in (prefix, tmp_path / "y.pb", tmp_path / "served"):
        result = run("run", model, "--feed", "x:0=[[1, 2]]", "--fetch", "y:0", "--json")
        assert json.loads(result.stdout)["outputs"][0]["value"] == expected == [[27, 13]]
    assert run("verify", prefix, "--strict").exit_code == 0
    assert run("diff", f"{prefix}.meta", prefix).exit_code == 0


@pytest.mark.parametrize("name", ["model[1]", "back\\slash"])
def test_paths_that_tensorflow_takes_for_patterns(tf, run, tmp_path, name):
    """TensorFlow finds no checkpoint whose path has a [ or a backslash in it, and that is said, not that it is gone."""
    for file in FIXTURES.glob("linear/model.*"):
        shutil.copy(file, tmp_path / file.name.replace("model", name))
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.load_checkpoint(str(tmp_path / name)).get_tensor("W")
    result = run("run", tmp_path / name, "--feed", "x:0=50")
    assert (result.exit_code, "TensorFlow takes [ and \\ in a path for a pattern" in result.stderr) == (5, True)


@tensorflow
def test_other_signs_of_patterns_are_themselves(run, tmp_path):
    """Of the other signs of patterns, a path matches itself."""
    for file in FIXTURES.glob("linear/model.*"):
        shutil.copy(file, tmp_path / file.name.replace("model", "m*?{a}"))
    assert "124" in run("run", tmp_path / "m*?{a}", "--feed", "x:0=50").stdout


@pytest.mark.tensorflow
def test_a_saver_that_restores_more_than_variables(tf, run, tmp_path):
    """Where a saver restores a table, too, what it does not restore is known all the same, and initialized."""

    def build(v1):
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.0, name="table")
        local = v1.get_local_variable("local", initializer=2.0, use_resource=True)
        v1.get_variable("w", initializer=1.0)
        v1.add(table.lookup(v1.constant(["a"])), local, name="y")

    prefix = save_model(tf, tmp_path, build)
    result = run("run", prefix, "--fetch", "y", "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert "[2.0]" in result.stdout
    assert "initialized, because they were never stored: local" in result.stderr


@pytest.fixture
def with_iterator(tf, tmp_path):
    return save_with_iterator(tf, tmp_path)


@tensorflow
def test_an_iterator_is_restored_once_it_has_its_data(run, with_iterator):
    """TensorFlow refuses it before: nothing of such a graph ran, whatever was fetched."""
    result = run("run", with_iterator, "--fetch", "y", "--feed", "x=[3]", "--format", "json")
    assert (result.exit_code, "7.0" in result.stdout) == (0, True), result.output
    assert "iterators" not in result.stderr
    result = run("run", with_iterator, "--fetch", "next", "--format", "json")
    assert json.loads(result.stdout)["outputs"][0]["value"] == 3
    assert "restored iterators: IteratorV2" in result.stderr


def with_state(tf, prefix, state) -> None:
    """Writes the model's checkpoint anew, with something else for the iterator's state."""
    [key] = [name for name, v in ckpttool.open_checkpoint(prefix).items() if v.dtype == "variant"]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=sorted([key, "b", "w"]),
        shape_and_slices=[""] * 3,
        tensors=[state, tf.constant(1.0), tf.constant(2.0)],
    )


@tensorflow
def test_an_iterators_state_of_tensorflow_1_is_passed_over(tf, run, with_iterator):
    """It is a scalar, at which TensorFlow 2 ends the process."""
    list_ = tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=1, element_dtype=tf.float32)
    with_state(tf, with_iterator, list_)
    result = run("run", with_iterator, "--fetch", "next", "--format", "json")
    assert (result.exit_code, json.loads(result.stdout)["outputs"][0]["value"]) == (0, 0), result.output
    assert "initialized iterators: IteratorV2" in result.stderr


@tensorflow
def test_an_iterator_that_can_not_be_restored_does_not_begin_anew(tf, with_iterator):
    """TensorFlow's error comes again at each run; what does not need the iterator runs."""
    list_ = tf.raw_ops.EmptyTensorList(element_shape=-1, max_num_elements=1, element_dtype=tf.float32)
    with_state(tf, with_iterator, tf.stack([list_]))
    with ckpttool.ImportedGraph(with_iterator) as model:
        for _ in range(2):
            with pytest.raises(NotSupportedError, match="DeserializeIterator"):
                model.run("next")
        assert model.run("y", {"x": [3]}).tolist() == [7]
