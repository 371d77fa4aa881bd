"""The command line: streams, formats, exit codes, and that nothing of the user's is lost."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle, time_limit
from conftest import FIXTURES

from ckpttool.cli import _COMMANDS

LINEAR, CONV = FIXTURES / "linear" / "model", FIXTURES / "conv" / "model"


def rows(text: str, delimiter: str = "\t") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))


def test_vars_is_tsv_when_piped(run):
    """Piped, a listing is tab-separated, uncut, and has nothing but data on standard output."""
    result = run("vars", LINEAR)
    assert result.exit_code == 0
    assert [(row["name"], row["dtype"], row["shape"]) for row in rows(result.stdout)] == [
        ("W", "float32", "[]"),
        ("b", "float32", "[]"),
    ]
    assert result.stderr == ""


def test_vars_json(run):
    """JSON has a schema, the path, shapes as lists, and totals."""
    document = json.loads(run("vars", CONV, "--json").stdout)
    assert document["schema"] == "ckpttool.vars/1"
    assert document["path"] == str(CONV)
    assert {"name", "dtype", "shape", "parameters", "bytes", "shard", "slices", "role"} <= set(document["variables"][0])
    assert sum(v["bytes"] for v in document["variables"]) == document["totals"][-1]["bytes"]


def test_csv_and_markdown(run):
    """CSV parses as CSV; Markdown is a table with as many lines as there are variables and two more."""
    names = [row["name"] for row in rows(run("vars", CONV).stdout)]
    assert [row["name"] for row in rows(run("vars", CONV, "-f", "csv").stdout, ",")] == names
    assert len(run("vars", CONV, "-f", "md").stdout.splitlines()) == len(names) + 2


def test_slots_are_totaled_apart(run):
    """Weights and each optimizer's slots have totals of their own."""
    kinds = {total["of"] for total in json.loads(run("vars", FIXTURES / "slots" / "model", "--json").stdout)["totals"]}
    optimizers = ("Adam", "Momentum", "RMSProp", "Adagrad", "Adadelta", "Ftrl", "Adam or LAMB")
    assert kinds == {"weights", "total", "moving averages", *(f"slots ({name})" for name in optimizers)}


def test_include_exclude_sort_top(run):
    """Globs choose, --sort size puts the largest first, --top cuts."""
    chosen = rows(run("vars", CONV, "-i", "*kernel*", "-x", "*Adam*", "--sort", "size").stdout)
    sizes = [int(row["bytes"]) for row in chosen]
    assert sizes
    assert sizes == sorted(sizes, reverse=True)
    assert all("kernel" in row["name"] and "Adam" not in row["name"] for row in chosen)
    assert (
        rows(run("vars", CONV, "--sort", "size", "--top", 2).stdout)
        == rows(run("vars", CONV, "--sort", "size").stdout)[:2]
    )


def test_tree(run):
    """A tree's first level adds up to the totals, and --depth 1 shows nothing below it."""
    document = json.loads(run("vars", CONV, "--tree", "--depth", 1, "--json").stdout)
    assert document["tree"]
    assert all("/" not in row["name"].rstrip("/") for row in document["tree"])
    assert sum(row["bytes"] for row in document["tree"]) == document["totals"][-1]["bytes"]


def test_partitioned_variables_appear_once(run):
    """A partitioned variable is one row: full shape, number of slices."""
    listed = rows(run("vars", FIXTURES / "partitioned" / "model").stdout)
    assert len({row["name"] for row in listed}) == len(listed) > 1
    for row in listed:
        assert "\0" not in row["name"]
        assert row["name"] == "whole" or int(row["slices"]) > 1


def test_nothing_matched(run):
    """A glob that matches nothing is a no: exit 1, said on standard error."""
    result = run("vars", LINEAR, "-i", "nothing")
    assert (result.exit_code, result.stderr) == (1, "nothing matched\n")


LISTING = {
    "vars": ["vars", LINEAR, "-i", "nothing"],
    "vars, a tree": ["vars", LINEAR, "-i", "nothing", "--tree"],
    "stats": ["stats", LINEAR, "-i", "nothing"],
    "diff": ["diff", LINEAR, CONV, "-i", "nothing"],
    "ls": ["ls", LINEAR, "--ops", "-n", "nothing"],
}


@pytest.mark.parametrize("what", LISTING)
def test_nothing_matched_is_a_document(run, what):
    """Where the answer is that nothing matches, JSON has that answer, too: a document with empty lists."""
    result = run(*LISTING[what], "--json")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, "nothing matched")
    lists = [value for key, value in json.loads(result.stdout).items() if isinstance(value, list) and key != "totals"]
    assert lists
    assert not any(lists)


def test_ls_overview(run):
    """`ls` shows summary, op types, collections, variables and devices."""
    document = json.loads(run("ls", LINEAR, "--json").stdout)
    assert document["schema"] == "ckpttool.ls/1"
    assert {"summary", "op_types", "collections", "variables", "devices"} <= set(document)
    assert [c["first_members"] for c in document["collections"] if c["name"] == "activation"] == ["activation_opt:0"]


def test_ls_ops(run):
    """`--ops` lists every op, `--type` chooses; the placeholder has its dtype."""
    assert [row["name"] for row in rows(run("ls", LINEAR, "--type", "Placeholder").stdout)] == ["x"]
    listed = {row["name"]: row for row in rows(run("ls", LINEAR, "--ops").stdout)}
    assert listed["x"]["outputs"].startswith("float32")
    assert listed["activation_opt"]["inputs"]


def test_json_has_null_for_what_there_is_not(run):
    """A signature that says no method, as that of a SavedModel's initializer, has none: no empty one."""
    result = run("ls", FIXTURES / "releases" / "2.13" / "served", "--signatures", "--json")
    methods = {row["signature"]: row["method"] for row in json.loads(result.stdout)["signatures"]}
    assert methods == {"serving_default": "tensorflow/serving/predict", "__saved_model_init_op": None}


def test_json_has_no_nan(run, tmp_path):
    """NaN and infinity, which JSON has not, are strings."""
    from ckpttool import proto

    meta_graph = proto.message_class("MetaGraphDef")()
    meta_graph.graph_def.node.add(name="x", op="NoOp")
    meta_graph.collection_def["c"].float_list.value.extend([float("nan"), float("inf"), 0.5])
    (tmp_path / "a.meta").write_bytes(meta_graph.SerializeToString())
    document = json.loads(run("ls", tmp_path / "a.meta", "--collections", "--json").stdout, parse_constant=pytest.fail)
    assert [row["member"] for row in document["collection_members"]] == ["nan", "inf", 0.5]


def test_long_names_take_no_long_time(run, tmp_path):
    """Names of a hundred thousand segments are listed, grouped and looked at for slots in a moment."""
    import numpy as np

    names = ["a/" * 100_000 + "Adam", "b/" * 100_000 + "c"]
    bundle({name: np.zeros(1, np.float32) for name in names}).write(tmp_path)
    for options in ([], ["--tree"], ["--tree", "--depth", 1]):
        with time_limit(5):
            assert run("vars", tmp_path / "model", *options).exit_code == 0


def test_ls_collections_are_decoded(run):
    """Members are shown by their fields: variables, queue runners, contexts."""
    document = json.loads(run("ls", FIXTURES / "recurrent" / "model", "--collections", "--json").stdout)
    types = {
        row["collection"]: row["member"].get("@type")
        for row in document["collection_members"]
        if isinstance(row["member"], dict)
    }
    expected = {
        "variables": "VariableDef",
        "queue_runners": "QueueRunnerDef",
        "while_context": "WhileContextDef",
        "cond_context": "CondContextDef",
    }
    assert expected.items() <= types.items()


def test_long_tables_say_what_they_left_out(run, tmp_path):
    """Beyond the limit a table says how many rows are missing and how to get them; --all gives them."""
    import numpy as np

    bundle({f"v{i:04}": np.zeros(1, np.float32) for i in range(700)}).write(tmp_path)
    assert "… 200 more (--all)" in run("vars", tmp_path / "model", "--format", "table").stdout
    everything = run("vars", tmp_path / "model", "--format", "table", "--all").stdout
    assert "v0699" in everything
    assert "more (--all)" not in everything


@pytest.mark.parametrize("format", ["table", "tsv", "csv", "md", "json"])
def test_no_escape_sequence_reaches_the_terminal(run, format):
    """Names with escape sequences, newlines and bidirectional overrides are shown escaped in every format."""
    for command in (["vars"], ["vars", "--tree"], ["vars", "--all"]):
        out = run(*command, FIXTURES / "names" / "model", "--format", format)
        assert out.exit_code == 0
        assert not set(out.output) & {"\x1b", "\u202e", "\r", "\x9b"}


def test_strip_devices(run, tmp_path):
    """The output is written, what is left is listed on standard error, standard output stays empty."""
    source = next((FIXTURES / "devices").glob("*.meta"))
    result = run("strip-devices", source, "-o", tmp_path / "out.meta")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "allowed_devices" in result.stderr
    assert rows(run("ls", tmp_path / "out.meta", "--devices").stdout)[0]["device"] == "(none)"


def test_strip_devices_does_not_clobber(run, tmp_path):
    """Neither the input nor another file is replaced unless asked."""
    meta = shutil.copy(FIXTURES / "linear" / "model.meta", tmp_path / "in.meta")
    (tmp_path / "other").write_text("mine")
    assert run("strip-devices", meta, "-o", tmp_path / "other").exit_code == 2
    assert run("strip-devices", meta, "-o", meta, "--force").exit_code == 2
    assert (tmp_path / "other").read_text() == "mine"
    assert run("strip-devices", meta, "-o", tmp_path / "other", "--force").exit_code == 0
    assert run("strip-devices", meta, "--in-place").exit_code == 0
    assert run("strip-devices", meta).exit_code == 2


def test_export(run, tmp_path):
    """`export --h5` writes the file; a second run needs --force."""
    out = tmp_path / "out.h5"
    assert run("export", LINEAR, "--h5", out).exit_code == 0
    assert out.stat().st_size > 0
    assert run("export", LINEAR, "--h5", out).exit_code == 2
    assert run("export", LINEAR, "--h5", out, "--force", "--compression", "gzip").exit_code == 0


def test_export_dry_run(run, tmp_path):
    """--dry-run prints the plan and writes nothing."""
    result = run("export", CONV, "--h5", tmp_path / "out.h5", "--dry-run", "-i", "*kernel*")
    planned = rows(result.stdout)
    assert planned
    assert all(row["becomes"] == row["name"] + ":0" for row in planned)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001"])
def test_export_does_not_replace_its_source(run, tmp_path, name):
    """Not even with --force is a file of the checkpoint replaced by what is made of it."""
    shutil.copytree(FIXTURES / "linear", tmp_path / "run")
    before = (tmp_path / "run" / name).read_bytes()
    assert run("export", tmp_path / "run" / "model", "--h5", tmp_path / "run" / name, "--force").exit_code == 2
    assert (tmp_path / "run" / name).read_bytes() == before


def test_strip_devices_counts_all_graphs(run, tmp_path):
    """Of a SavedModel with two graphs, the devices of both are cleared and counted."""
    from ckpttool import proto

    saved_model = proto.message_class("SavedModel")(saved_model_schema_version=1)
    for tag in ("train", "serve"):
        meta_graph = saved_model.meta_graphs.add()
        meta_graph.meta_info_def.tags.append(tag)
        meta_graph.graph_def.node.add(name="a", op="NoOp", device="/cpu:0")
    (tmp_path / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    result = run("strip-devices", tmp_path, "-o", tmp_path / "out.pb")
    assert "cleared the devices of 2 ops" in result.stderr
    assert b"/cpu:0" not in (tmp_path / "out.pb").read_bytes()


TABLES = ["--ops", "--op-types", "--collections", "--variables", "--devices", "--functions", "--constants"]


@pytest.mark.parametrize("table", TABLES)
def test_ls_tables_are_filtered(run, table):
    """Each table alone is filtered by --name, and a name that nothing has is a no."""
    assert run("ls", CONV, table, "--name", "nothing has this name").exit_code == 1


@pytest.mark.parametrize("table", ["--ops", "--op-types", "--variables", "--devices"])
def test_ls_tables_are_filtered_by_type(run, table):
    """Tables of ops are filtered by --type."""
    everything = json.loads(run("ls", CONV, table, "--json").stdout)
    chosen = json.loads(run("ls", CONV, table, "--type", "VariableV2", "--json").stdout)
    key = table.strip("-").replace("-", "_")
    assert chosen[key]
    assert len(chosen[key]) < len(everything[key]) or chosen[key] != everything[key] or key == "variables"


IGNORED = [
    ["vars", LINEAR, "--depth", "1"],
    ["vars", LINEAR, "--tree", "--sort", "size"],
    ["vars", LINEAR, "--json", "--format", "tsv"],
    ["vars", LINEAR, "--step", "abc"],
    ["state", FIXTURES / "linear", "-o", "x"],
    ["state", FIXTURES / "linear", "--dry-run"],
    ["state", FIXTURES / "linear", "--relocate", "--json"],
    ["export", LINEAR, "--h5", "x", "--json"],
    ["ls", CONV, "--collections", "--type", "Const"],
    ["ls", CONV, "--signatures", "--functions", "--constants", "--type", "Const"],
]


@pytest.mark.parametrize("arguments", IGNORED, ids=lambda a: " ".join(map(str, a[:1] + a[2:])))
def test_no_option_is_ignored(run, arguments):
    """What would be passed over is a usage error."""
    assert run(*arguments).exit_code == 2


EMPTY = {
    "freeze, other variables": ["freeze", LINEAR, "-o", "out", "--checkpoint", ""],
    "freeze, a collection": ["freeze", LINEAR, "-o", "out", "--collection", ""],
    "freeze, a signature": ["freeze", LINEAR, "-o", "out", "--signature", ""],
    "freeze, in two ways": ["freeze", LINEAR, "-o", "out", "--signature", "", "--outputs", "activation_opt"],
    "saved-model, other variables": ["saved-model", LINEAR, "-o", "out", "--checkpoint", ""],
    "saved-model, a signature": ["saved-model", LINEAR, "-o", "out", "--signature", ""],
    "run, other variables": ["run", LINEAR, "--feed", "x=1", "--checkpoint", ""],
    "run, an output": ["run", LINEAR, "--feed", "x=1", "--out", ""],
    "run, ops": ["run", LINEAR, "--feed", "x=1", "--op-library", ""],
    "cat, an output": ["cat", LINEAR, "W", "--npy", ""],
    "state, an output": ["state", "runs", "--relocate", "-o", ""],
}


@pytest.mark.parametrize("what", EMPTY)
def test_an_empty_argument_is_not_an_absent_one(run, tmp_path, monkeypatch, what):
    """As of a shell's variable that is not set: nothing is done as if the option were not there."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(FIXTURES / "linear", "runs")
    state = Path("runs/checkpoint").read_bytes()
    result = run(*EMPTY[what])
    assert result.exit_code in (2, 3)
    assert not result.stdout
    assert sorted(os.listdir()) == ["runs"]
    assert (Path("runs/checkpoint").read_bytes(), Path("runs/checkpoint.bak").exists()) == (state, False)


def wrong(tmp_path, what):
    """Makes a wrong input and gives its path."""
    shutil.copytree(FIXTURES / "linear", tmp_path / "run")
    prefix = tmp_path / "run" / "model"
    if what == "missing":
        return tmp_path / "nothing"
    if what == "empty directory":
        (tmp_path / "empty").mkdir()
        return tmp_path / "empty"
    if what == "truncated index":
        index = prefix.with_suffix(".index")
        index.write_bytes(index.read_bytes()[:-60])
    if what == "data of another step":
        data = next(prefix.parent.glob("model.data*"))
        data.write_bytes(bytes(reversed(data.read_bytes())))
    if what == "no data":
        next(prefix.parent.glob("model.data*")).unlink()
    if what == "PyTorch":
        (tmp_path / "model.pt").write_bytes(b"PK\x03\x04" + bytes(90))
        return tmp_path / "model.pt"
    if what == "LFS pointer":
        prefix.with_suffix(".index").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return prefix


WRONG = {
    "missing": (3, "no such file"),
    "empty directory": (3, "no checkpoint in this directory"),
    "truncated index": (3, "not an sstable"),
    "data of another step": (4, "Checksum does not match"),
    "no data": (4, "data file is missing"),
    "PyTorch": (3, "PyTorch"),
    "LFS pointer": (3, "git lfs pull"),
}


@pytest.mark.parametrize(("what", "code", "said"), [(w, *e) for w, e in WRONG.items()], ids=WRONG.keys())
def test_wrong_input_is_one_line_and_a_code(run, tmp_path, what, code, said):
    """One line that names the cause, the right exit code, no traceback, no output left."""
    path = wrong(tmp_path, what)
    result = run("export", path, "--h5", tmp_path / "out.h5", "--quiet")
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert not list(tmp_path.glob("*out.h5*"))


def test_traceback_on_request(run, tmp_path):
    """--traceback shows where an error arose, and changes nothing else: the exit code says what kind it was."""
    wrong = "diff", tmp_path / "nothing", tmp_path / "nothing else"
    assert "Traceback" in run(*wrong, "--traceback").stderr
    result = run("--traceback", *wrong)
    assert result.exit_code == 3
    assert result.stderr.startswith("Traceback")
    assert "error: no such file" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["vars"], ["vars", LINEAR, "--sort", "color"], ["vars", LINEAR, "-f", "xml"], ["export", LINEAR]]
)
def test_wrong_usage(run, arguments):
    """Wrong arguments exit with 2."""
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("command", [[], *([name] for name in _COMMANDS)], ids=" ".join)
def test_help(run, command):
    """Every command has a help text, with -h too."""
    result = run(*command, "-h")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


@pytest.mark.parametrize("command", ["export", "vars"])
def test_help_without_docstrings(command):
    """Where Python keeps no docstrings, a command's help says at least what the list of commands says of it."""
    python = [sys.executable, "-OO", "-m", "ckpttool", command, "-h"]
    done = subprocess.run(python, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n  {_COMMANDS[command].help}\n" in done.stdout


def test_help_in_every_encoding(fresh_python):
    """What the terminal's encoding can't hold, as Latin-1 no ellipsis, is escaped."""
    done = fresh_python("-m", "ckpttool", "export", "-h", env=os.environ | {"PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u2026" in done.stdout


@pytest.mark.parametrize(("module", "function", "_"), _COMMANDS.values(), ids=_COMMANDS)
def test_examples_in_help(module, function, _):
    """Each example in a help text is one line on a terminal of 80 columns, to be copied."""
    text = getattr(import_module(f"ckpttool.cli.{module}"), function).__doc__
    examples = re.findall(r"^ *(ckpttool .+)$", text, re.MULTILINE)  # Python 3.13 takes the indentation away.
    assert examples
    assert max(map(len, examples)) <= 76


def test_no_arguments_are_a_question_for_help(run):
    """Without arguments there is the help, as with -h: lines of text, and no error."""
    result = run()
    assert (result.exit_code, result.stdout) == (0, run("-h").stdout)
    assert "\n  vars " in result.stdout
    assert not result.stderr


def test_closed_pipe():
    """`ckpttool vars … | head -1` ends with 141 and no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ckpttool", "vars", str(FIXTURES / "many" / "model")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated"), ("SIGHUP", 129, "hung up")],
)
def test_interrupt(tmp_path, number, code, word):
    """An interrupt exits with 130, being told to end with 143, a terminal that is closed with 129; nothing is left."""
    script = (
        "import os, signal, sys; import ckpttool.storage as s\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # The tests themselves may run under nohup.
        f"s.write_contents = lambda *a, **k: os.kill(os.getpid(), signal.{number})\n"
        f"sys.argv[1:] = ['export', {str(CONV)!r}, '--h5', {str(tmp_path / 'out.h5')!r}]\n"
        "from ckpttool.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (code, [word])
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_search_for_garbage_at_the_end():
    """What was imported is not looked through once more when Python ends: that takes longer than a small listing."""
    script = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.get_threshold()[0]))\n"
        "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('ckpttool', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True 100000"


def test_no_threads_that_wait():
    """NumPy's library for matrices starts none: these would spin on the cores that the program's own need."""
    script = "import ckpttool.__main__, numpy, os; print(len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_version(run):
    """--version prints name and version."""
    assert run("--version").stdout.startswith("ckpttool 0.")


def test_every_order_has_an_option(run):
    """The orders that --sort offers are those there are."""
    from ckpttool.reports.checkpoints import SORTS

    for order in SORTS:
        assert run("vars", CONV, "--sort", order).exit_code == 0
    assert "|".join(SORTS) in run("vars", "-h").stdout


def test_options_offer_what_the_library_takes():
    """Words that the command line keeps itself, as the help must import nothing for them, are the library's."""
    from ckpttool.cli import serving, targets
    from ckpttool.formats.hdf5 import writing
    from ckpttool.transforms.serving.signatures import METHODS

    assert tuple(METHODS) == serving._METHODS
    assert targets.LAYOUTS == writing._LAYOUTS
    assert targets._COMPRESSIONS["h5"] == writing._COMPRESSIONS


def test_no_tolerance_is_nan(run):
    """NaN, than which no difference is greater or less, is refused as a tolerance."""
    for command in (["diff", "--atol", "nan"], ["diff", "--rtol", "nan"], ["run", "--tolerance", "nan"]):
        result = run(*command, CONV, CONV)
        assert (result.exit_code, "a tolerance must be a number" in result.stderr) == (2, True)


def test_a_scope_of_scopes(run, tmp_path):
    """A * stays within a segment: where it so finds nothing in a scope, ** is named, which crosses them."""
    model = bundle({"block_1/dense/w": np.float32([1]), "block_1/dense/b": np.float32([1])}).write(tmp_path)
    result = run("vars", model, "-i", "block_1/*")
    assert (result.exit_code, "block_1 is a scope, and block_1/** what is in it" in result.stderr) == (1, True)
    assert run("vars", model, "-i", "block_2/*").stderr == "nothing matched\n"


@pytest.mark.parametrize("command", [["freeze", CONV, "-o", "out.pb"], ["diff", "--graphs", CONV, CONV]])
def test_the_graph_that_was_taken_is_said(run, tmp_path, monkeypatch, command):
    """Also by the commands that take something else besides."""
    monkeypatch.chdir(tmp_path)
    result = run(*command)
    assert (result.exit_code, f"note: the graph is {CONV}.meta\n" in result.stderr) == (0, True)
    assert "the graph is" not in run(*command, "--quiet", *(["--force"] if command[0] == "freeze" else [])).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vars", "-i", "conv"], "conv is a scope, and conv/** what is in it"),
        (["vars", "-i", "conv/"], "conv is a scope"),
        (["stats", "-i", "conv/kernal"], "near names: conv/kernel"),
        (["ls", "-t", "matmul"], "near names: MatMul"),
        (["ls", "-n", "predictionz"], "near names: predictions"),
        (["vars", "-i", "nothing*"], "nothing matched"),
    ],
)
def test_what_may_have_been_meant(run, arguments, said):
    """Where no name matches, there is a no, with what may have been meant."""
    command, *options = arguments
    result = run(command, FIXTURES / "conv" / "model", *options)
    assert result.exit_code == 1
    assert said in result.stderr


def test_what_was_meant_is_looked_for_only_of_a_few(run, monkeypatch):
    """Of hundreds of names that are not there, near ones are told of the first: all names are searched for each."""
    asked = []
    monkeypatch.setattr("ckpttool.cli.options.near_hint", lambda name, names: asked.append(name) or f"near {name}")
    globs = [f"nothing_{number}" for number in range(300)]
    result = run("vars", FIXTURES / "conv" / "model", *(text for glob in globs for text in ("-i", glob)))
    assert result.stderr == f"nothing matched · {' · '.join(f'near {name}' for name in asked)}\n"
    assert asked == globs[:3]


def test_values_of_other_shards_can_be_read(run, tmp_path):
    """Where one of several data files is missing, it is not said of all values that they can't be read."""
    for file in (FIXTURES / "sharded").glob("model.[di]*"):
        shutil.copy(file, tmp_path)
    gone = tmp_path / "model.data-00001-of-00003"
    gone.unlink()
    result = run("cat", tmp_path / "model", "layer_0/bias")
    assert (result.exit_code, result.stdout) == (0, "[  0.0, 0.125,  0.25]\n")
    warning = f"warning: data file is missing: {gone}; variables are listed, its values can't be read\n"
    assert result.stderr == warning


def test_damage_names_the_variable_and_what_to_do(run, tmp_path):
    """Damaged values name their variable in every format that is written, and the commands that help."""
    prefix = bundle({"a": np.arange(4.0), "b": np.arange(1000.0)}).write(tmp_path)
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\xff")
    for target in ("--npz", "--h5", "--safetensors", "--tf", "--tf-v1", "--npy"):
        result = run("export", prefix, target, tmp_path / "out")
        assert result.exit_code == 4
        assert "variable 'b'" in result.stderr
        assert "verify tells what else is damaged, export --salvage writes what is whole" in result.stderr


@pytest.mark.parametrize("target", ["tf", "tf-v1"])
def test_damage_of_what_lists_variables_names_what_helps(run, tmp_path, target):
    """What can't be listed for damage elsewhere than in a variable may be listed, and written, all the same."""
    model, output = bundle({"a": np.arange(4.0), "b": np.arange(9.0)}).write(tmp_path), tmp_path / "out"
    assert run("export", model, f"--{target}", output).exit_code == 0
    file = tmp_path / "out.index" if target == "tf" else output
    data = bytearray(file.read_bytes())
    data[8] ^= 1
    file.write_bytes(data)
    hint = "verify tells what is left, export --salvage writes it\n"
    for command in ("vars", "stats"):
        result = run(command, output)
        assert (result.exit_code, result.stderr.endswith(f" · {hint}")) == (4, True), result.stderr
    for command in (["verify", output], ["export", output, "--salvage", "--npz", tmp_path / "left.npz"]):
        result = run(*command)
        assert (result.exit_code, "verify tells" in result.stderr) == (1, False), result.stderr


def test_who_verifies_is_not_sent_to_verify(run, tmp_path):
    """Where nothing can be listed, verify and export --salvage say so; other commands name them."""
    alone = bundle({"a": np.arange(4.0)}).change("a", shape=[-4]).write(tmp_path, "alone")
    (tmp_path / "short.index").write_bytes(b"x" * 20)
    for command in (["verify", alone], ["export", alone, "--salvage", "--npz", tmp_path / "a.npz"]):
        said = run(*command).stderr
        assert said.startswith("error: no variable can have the shape [-4] · variable 'a' · ")
        assert said.endswith(" · nothing can be listed\n")
    assert "verify tells" in run("vars", alone).stderr
    assert run("verify", tmp_path / "short").stderr.endswith(" · it may be truncated: fetch it again\n")
    assert run("vars", tmp_path / "short").stderr.endswith("; verify tells what is left\n")


@pytest.mark.parametrize(
    ("name", "shown"), [("a\x1b[31m/b", r"a\x1b[31m/b"), ("\udcff", r"\xff"), ("\u202e", r"\u202e")]
)
def test_a_name_with_escapes_is_taken_as_it_is_shown(run, tmp_path, name, shown):
    """What a table shows of a name that a terminal does not can be given to cat."""
    prefix = bundle({name: np.ones(1)}).write(tmp_path)
    assert run("vars", prefix).stdout.splitlines()[1].startswith(shown)
    result = run("cat", prefix, shown)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "[1.0]\n", "")


def test_a_long_message_is_cut(run, tmp_path):
    """What a file says in a message is cut: it may be of megabytes."""
    text = 'node { name: "x" op: "Const" attr { key: "value" value { tensor { tensor_content: "' + "x" * 100_000
    (tmp_path / "half.pbtxt").write_text(text)
    result = run("ls", tmp_path / "half.pbtxt")
    assert result.exit_code == 4
    assert len(result.stderr) < 1000


def test_a_long_path_is_cut(run, tmp_path):
    """So is a path that a file names, where it is longer than any that can be opened."""
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{"p" * 1_000_000}"')
    result = run("vars", tmp_path)
    assert result.exit_code == 3
    assert len(result.stderr) < 5000


def test_a_long_name_is_cut_in_a_warning(run, tmp_path):
    """So is a name of which there is something to say: an archive can hold none of 70,000 bytes, nor a qint8."""
    made = bundle({"n" * 70_000: np.arange(4, dtype=np.int8), "q": np.arange(2, dtype=np.int8)}).change("q", dtype=11)
    result = run("export", made.write(tmp_path), "--npz", tmp_path / "out.npz")
    assert result.exit_code == 0
    assert f"{'n' * 500}… (70,000 characters): left out: no archive" in result.stderr
    assert len(result.stderr) < 1000


def test_a_stars_files_of_one_checkpoint(run):
    """Who gives a command all files of a checkpoint, as a shell's * does, is told that one is enough."""
    files = sorted((FIXTURES / "linear").glob("model.*"))
    assert "give one" in run("vars", *files).stderr
    assert "give one" not in run("vars", files[0], "nothing").stderr
