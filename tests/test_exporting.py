"""`export` and `average`: any output from any source, options, plans, messages, exit codes, and nothing by halves."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle, strings
from conftest import FIXTURES

import ckpttool
from ckpttool.cli.targets import WRITERS

CONV, LINEAR, OBJECTS = FIXTURES / "conv" / "model", FIXTURES / "linear" / "model", FIXTURES / "objects" / "model-1"
SUFFIXES = {"h5": ".h5", "npz": ".npz", "npy": "", "safetensors": ".safetensors", "tf": "", "tf-v1": ".v1"}
HOSTILE = "a\x1b[31mred\x07/\u202ekernel"


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def written(checkpoint: ckpttool.Checkpoint) -> dict[str, tuple[str, list[object]]]:
    return {name: (v.dtype.name, v.numpy().tolist()) for name, v in checkpoint.items()}


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


# Every output, from every source


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """One checkpoint in every format."""
    directory = tmp_path_factory.mktemp("sources")
    arrays = {"a/w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float64([1, -1]), "step": np.int64(7)}
    made = {"tf": Path(bundle(arrays).write(directory))}
    checkpoint = ckpttool.open_checkpoint(made["tf"])
    writers = {"h5": "hdf5", "npz": "npz", "npy": "npy", "safetensors": "safetensors", "tf-v1": "tensor_slices"}
    for target, writer in writers.items():
        made[target] = directory / f"{target}{SUFFIXES[target]}"
        getattr(ckpttool, f"write_{writer}")(checkpoint, made[target])
    return made


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("source", WRITERS)
def test_any_source_to_any_target(run, tmp_path, sources, source, target):
    """Each format is written from each: the same variables, and where it is TensorFlow's own, the same bytes."""
    output = tmp_path / f"out{SUFFIXES[target]}"
    result = run("export", sources[source], f"--{target}", output)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.endswith(f"wrote 3 variables, 48 B · {output}\n")
    assert written(ckpttool.open_checkpoint(output)) == written(ckpttool.open_checkpoint(sources["tf"]))
    if target == "tf" and source != "tf-v1":
        original = sources["tf"].with_name("model.data-00000-of-00001")
        assert Path(f"{output}.data-00000-of-00001").read_bytes() == original.read_bytes()


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("source", WRITERS)
def test_any_source_is_changed_on_the_way(run, tmp_path, sources, source, target):
    """Names, dtypes and choice are for every source and every target."""
    output = tmp_path / f"out{SUFFIXES[target]}"
    options = ["-x", "step", "--rename", "^a/=>x/y/", "--dtype-map", "float64=float16"]
    assert run("export", sources[source], f"--{target}", output, *options).exit_code == 0
    assert written(ckpttool.open_checkpoint(output)) == {
        "x/y/w": ("float32", [[0, 1, 2], [3, 4, 5]]),
        "b": ("float16", [1, -1]),
    }


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("format", ["table", "tsv", "csv", "md"])
def test_a_plan_in_every_format(run, tmp_path, target, format):
    """--dry-run prints old and new names, dtypes, shapes and bytes, in any format, and writes nothing."""
    options = ["--rename", "^conv/=>c_", "--cast", "float16", "-x", "**/**/*A*", "--dry-run", "-f", format]
    result = run("export", CONV, f"--{target}", tmp_path / "out", *options)
    assert (result.exit_code, files(tmp_path)) == (0, set())
    (line,) = (line for line in result.stdout.splitlines() if "conv/kernel" in line)
    words = re.split(r"[\s|,]+", re.sub(r"\[.*\]", "[2,2,1,2]".replace(",", "x"), line).replace('"', "").strip(" |"))
    assert [word.split(".")[0].removesuffix(":0") for word in words if word not in ("", "B")] == [
        *("conv/kernel", "c_kernel", "float32", "float16", "[2x2x1x2]", "16")
    ]


@pytest.mark.parametrize("target", WRITERS)
def test_a_plan_in_json(run, tmp_path, target):
    """The plan in JSON has the schema, source and output, and each variable, those left out with the reason."""
    options = ["--rename", "^conv/=>c_", "--cast", "float16", "--drop-slots", "--dry-run", "--json"]
    document = json.loads(run("export", CONV, f"--{target}", tmp_path / "out", *options).stdout)
    assert (document["schema"], document["path"], document["output"]) == (
        *("ckpttool.export/1", str(CONV), str(tmp_path / "out")),
    )
    plan = {row["name"]: row for row in document["plan"]}
    assert plan.keys() == ckpttool.open_checkpoint(CONV).keys()
    assert plan["conv/kernel"] | {"becomes": "c_kernel"} == {
        "name": "conv/kernel",
        "becomes": "c_kernel",
        "dtype": "float32",
        "cast": "float16",
        "shape": [2, 2, 1, 2],
        "bytes": 16,
        "remark": None,
    }
    assert plan["conv/kernel/Adam"] == {
        "name": "conv/kernel/Adam",
        "becomes": None,
        "dtype": "float32",
        "cast": None,
        "shape": [2, 2, 1, 2],
        "bytes": 0,
        "remark": "dropped: Adam slot",
    }


@pytest.mark.parametrize("target", WRITERS)
def test_the_plan_is_what_is_written(run, tmp_path, target):
    """Names, dtypes, shapes and bytes of the plan are those of the variables that are written."""
    options = ["--rename", "^conv=>c", "--cast", "float16", "--ema", "--drop-slots"]
    output = tmp_path / f"out{SUFFIXES[target]}"
    plan = json.loads(run("export", CONV, f"--{target}", output, *options, "--dry-run", "--json").stdout)["plan"]
    assert run("export", CONV, f"--{target}", output, *options).exit_code == 0
    made, names = ckpttool.open_checkpoint(output), {"h5": "{}:0", "npy": "{}.npy"}.get(target, "{}")
    assert {
        row["becomes"]: (row["cast"] or row["dtype"], row["shape"], row["bytes"]) for row in plan if row["becomes"]
    } == {
        names.format(name.replace("/", "%2F") if target == "npy" else name): (v.dtype.name, list(v.shape), v.nbytes)
        for name, v in made.items()
    }
    assert {row["bytes"] for row in plan if not row["becomes"]} == {0}


# What was done is said


def test_what_was_dropped_did_match(run, tmp_path):
    """Where all that was chosen is dropped, that is said, and not that nothing matched."""
    arguments = ["export", CONV, "--npz", tmp_path / "out.npz", "--drop-slots"]
    for dry in ([], ["--dry-run"]):
        result = run(*arguments, "--include", "*Adam*", *dry)
        assert result.exit_code == 1
        assert result.stderr == "dropped 4 variables, 496 B · Adam slot\nnothing is left\n"
    assert run(*arguments, "--include", "nothing").stderr == "nothing matched\n"
    assert not files(tmp_path)


def test_averages_of_other_names_are_said(run, tmp_path):
    """With --ema, an average whose variable has another name stays as it is, and that is told."""
    names = ("ck/a", "a/ExponentialMovingAverage", "b", "b/ExponentialMovingAverage")
    ckpttool.write_npz(ckpttool.from_arrays({name: np.ones(2) for name in names}), tmp_path / "in.npz")
    result = run("export", tmp_path / "in.npz", "--npz", tmp_path / "out.npz", "--ema")
    assert "note: a/ExponentialMovingAverage is the average of no variable that is there" in result.stderr
    assert set(ckpttool.open_checkpoint(tmp_path / "out.npz")) == {"ck/a", "a/ExponentialMovingAverage", "b"}


def test_what_was_dropped_is_said(run, tmp_path):
    """Slots, and what averages replace, are counted with the bytes saved; the plan says so too; --quiet does not."""
    options = ["--drop-slots", "--ema", "--npz", tmp_path / "out.npz"]
    expected = [
        "dropped 6 variables, 504 B · Adam slot",
        "dropped 1 variable, 32 B · its moving average takes its place",
        f"wrote 7 variables, 292 B · {tmp_path}/out.npz",
    ]
    assert run("export", CONV, *options, "--dry-run").stderr.splitlines() == expected[:2]
    assert run("export", CONV, *options).stderr.splitlines() == expected
    assert run("export", CONV, *options, "--force", "--quiet").stderr == ""


def test_losses_are_said(run, tmp_path):
    """Overflow and underflow are warned of by variable, rounding in sum; --quiet too, for they are losses."""
    arrays = {"big": np.float32([1e5, -1e5, 1]), "small": np.float32([1e-9, 2]), "third": np.float32([1 / 3, 0.5])}
    prefix = bundle(arrays).write(tmp_path)
    for quiet in ([], ["--quiet"]):
        result = run("export", prefix, "--npz", tmp_path / "out.npz", "--cast", "float16", "--force", *quiet)
        assert [line for line in result.stderr.splitlines() if line.startswith("warning")] == [
            "warning: big: 2 of 3 values overflowed in float16",
            "warning: small: 1 of 2 values underflowed in float16",
            "warning: 1 of 7 cast values were rounded",
        ]


def test_many_losses_are_counted(run, tmp_path):
    """Of many variables that overflow some are named, and the others counted."""
    prefix = bundle({f"v{n:02}": np.float32(1e9) for n in range(25)}).write(tmp_path)
    lines = run("export", prefix, "--npz", tmp_path / "out.npz", "--cast", "float16", "-q").stderr.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "warning: values overflowed in 15 more variables"


def test_idle_options_are_said(run, tmp_path):
    """A rule or prefix that matches nothing, slots that are not there, nothing to cast: each is noted."""
    options = ["--rename", "nothing=>x", "--strip-prefix", "none/", "--drop-slots", "--dtype-map", "float64=float32"]
    result = run("export", LINEAR, "--npz", tmp_path / "out.npz", *options)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[:-1] == [
        "note: 'nothing=>x' matches no name",
        "note: no name begins with 'none/'",
        "note: there are no optimizers' slots to drop",
        "note: there is nothing to cast",
    ]


@pytest.mark.parametrize("command", ["export", "average"])
def test_globs_that_match_nothing_are_said(run, tmp_path, command):
    """Of several, one that is mistyped would leave out what was wanted, or write what was not."""
    ckpttool.write_bundle(ckpttool.open_checkpoint(LINEAR), tmp_path / "copy")
    arguments = [command, LINEAR, *([tmp_path / "copy"] if command == "average" else [])]
    options = ["--npz", tmp_path / "out.npz", "-i", "[WV]", "-i", "nothing/*", "-x", "none", "-x", "b"]
    assert [line for line in run(*arguments, *options).stderr.splitlines() if line.startswith("note")] == [
        "note: 'nothing/*' matches no name",
        "note: 'none' matches no name",
    ]
    assert "note" not in run(*arguments, *options, "--force", "--quiet").stderr


def test_globs_that_match_an_object_are_not_said(run, tmp_path):
    """Of TensorFlow 2, the path of an object and a full name are names, too."""
    model = FIXTURES / "releases" / "2.13" / "model-1"
    options = ["-i", "layer/kernel", "-i", "layer/parts/first/0/kernel", "-i", "bias", "-x", "save_counter"]
    result = run("export", model, "--npz", tmp_path / "out.npz", *options)
    assert result.exit_code == 0
    assert "matches no name" not in result.stderr


def test_a_dollar_is_said_to_be_none(run, tmp_path):
    """$1, which other languages have for a group, is taken as it is, and that is said."""
    result = run("export", LINEAR, "--npz", tmp_path / "out.npz", "--rename", "(W)=>$1x")
    assert "note: '(W)=>$1x': $ stands for itself; the first group is \\1" in result.stderr
    assert "$1x" in ckpttool.open_checkpoint(tmp_path / "out.npz")


# Rules from a file


def test_rename_file(run, tmp_path):
    """One rule a line; comments, empty lines, spaces around, DOS line ends and a byte order mark are no part of it;
    those of the command line come after.
    """
    rules = tmp_path / "rules"
    rules.write_bytes(b"\xef\xbb\xbf# names\r\n\r\n  # of the net\n  ^conv/=>c/  \t\r\n^dense=>conv\n \n^c/kernel=>k")
    options = ["--rename-file", rules, "--rename", "^k$=>kernel", "-i", "**/kernel"]
    assert run("export", CONV, "--npz", tmp_path / "out.npz", *options).exit_code == 0
    assert set(ckpttool.open_checkpoint(tmp_path / "out.npz")) == {"kernel", "conv/kernel"}


@pytest.mark.parametrize(
    ("content", "code", "why"),
    [
        (b"a=>b\nbert\n", 2, "line 2: 'bert' is not REGEX=>REPL"),
        (b"(=>b", 2, "line 1: '(=>b': missing )"),
        (b"a\x1b(=>b", 2, r"line 1: 'a\x1b(=>b'"),
        (b"a=>\xff", 3, "no text in UTF-8"),
        (None, 3, "No such file or directory"),
    ],
)
def test_rename_files_that_can_not_be_used(run, tmp_path, content, code, why):
    """A wrong rule is a usage error with the file and line; what is no text, and no file, is named."""
    rules = tmp_path / "rules"
    if content is not None:
        rules.write_bytes(content)
    result = run("export", CONV, "--npz", tmp_path / "out.npz", "--rename-file", rules)
    assert result.exit_code == code
    assert why in result.stderr
    assert str(rules) in result.stderr
    assert "\x1b" not in result.stderr
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("rule", ["conv", "(=>x", r"conv=>\1", "=>x", "a{99999999999}=>x"])
def test_wrong_rules(run, tmp_path, rule):
    """A wrong rule is a usage error that quotes it."""
    result = run("export", CONV, "--npz", tmp_path / "out.npz", "--rename", rule)
    assert result.exit_code == 2
    assert f"Invalid value for --rename: {rule!r}" in result.stderr


# What is refused


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize(
    "options", [["--rename", "^(conv|dense)/=>x/"], ["--rename", "^.*=>x"], ["--strip-prefix", "global_step"]]
)
def test_collisions(run, tmp_path, target, options):
    """Two variables of one name, or one of none, are an error (5) that names them, in a plan too."""
    for plan in ([], ["--dry-run"]):
        result = run("export", CONV, f"--{target}", tmp_path / "out", *options, *plan)
        assert (result.exit_code, result.stdout) == (5, "")
        if "global_step" in options:
            assert "no name would be left · variable 'global_step'" in result.stderr
        else:
            assert re.search(r"error: '.+' and '.+' would both be named 'x.*'", result.stderr)
    assert not files(tmp_path)


OTHERS = {
    "--shards 2": {"tf"},
    "--max-shard-size 1MB": {"tf", "safetensors"},
    "--latest": {"tf"},
    "--meta": {"tf"},
    "--compression gzip": {"h5"},
    "--compression lzf": {"h5"},
    "--compression deflate": {"npz"},
    "--compression snappy": set(),
    "--h5-layout keras": {"h5"},
    "--h5-layout flat": set(),
    "--json": set(),
    "--format csv": set(),
}


@pytest.mark.parametrize("option", OTHERS)
@pytest.mark.parametrize("target", WRITERS)
def test_options_of_other_targets(run, tmp_path, option, target):
    """An option that is about other targets is refused, and not passed over."""
    result = run("export", CONV, f"--{target}", tmp_path / f"out{SUFFIXES[target]}", *option.split())
    if target in OTHERS[option]:
        assert result.exit_code == 0, result.stderr
    else:
        assert result.exit_code == 2
        assert option.split()[0].removeprefix("--json") in result.stderr
        assert not files(tmp_path)


def test_the_same_answers_twice(run, tmp_path):
    """Two answers to one question are refused: shards by number and by size, formats, casts of one dtype."""
    for options in (
        ["--shards", 2, "--max-shard-size", "1MB"],
        ["--dry-run", "--json", "--format", "csv"],
        ["--dtype-map", "float32=float16,float32=bfloat16"],
        ["--meta", "--cast", "float16"],
    ):
        assert run("export", LINEAR, "--tf", tmp_path / "out", *options).exit_code == 2
    assert run("export", LINEAR, "--tf", tmp_path / "out", "--dry-run", "--json", "--format", "json").exit_code == 0
    assert not files(tmp_path)


def test_one_output(run, tmp_path):
    """None, and two, are refused, and it is said which there are."""
    for command in (["export", LINEAR], ["average", LINEAR, LINEAR]):
        none = run(*command)
        assert none.exit_code == 2
        assert "got none; give one output: --h5 or --npz" in none.stderr
        two = run(*command, "--h5", tmp_path / "a.h5", "--tf", tmp_path / "b")
        assert two.exit_code == 2
        assert "got --h5 and --tf; give one output" in two.stderr
    assert not files(tmp_path)


@pytest.mark.parametrize("options", [["--cast", "int32"], ["--cast", "foo"], ["--cast", ""], ["--cast", "string"]])
def test_casts_that_are_none(run, tmp_path, options):
    """All floats can be cast to floats alone."""
    result = run("export", LINEAR, "--tf", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert "Invalid value for --cast" in result.stderr


@pytest.mark.parametrize("text", ["", "float32", "a=b=c", "float32=int8", "=float32", "float32=", "half=float32", ","])
def test_maps_that_are_none(run, tmp_path, text):
    """What is no OLD=NEW,…, or no cast, is a usage error of --dtype-map."""
    result = run("export", LINEAR, "--tf", tmp_path / "out", "--dtype-map", text)
    assert result.exit_code == 2
    assert "Invalid value for --dtype-map" in result.stderr


@pytest.mark.parametrize("size", ["0", "-1GB", "5XB", "GB", "nan", "infGB", "1e400"])
def test_sizes_that_are_none(run, tmp_path, size):
    """What is no number of bytes above zero is a usage error."""
    assert run("export", LINEAR, "--tf", tmp_path / "out", "--max-shard-size", size).exit_code == 2
    assert run("export", LINEAR, "--tf", tmp_path / "out", "--max-shard-size", "1kB").exit_code == 0


@pytest.mark.parametrize("target", WRITERS)
def test_standard_output_is_none(run, tmp_path, monkeypatch, target):
    """`-` is refused; ./- is a file of that name."""
    monkeypatch.chdir(tmp_path)
    assert run("export", LINEAR, f"--{target}", "-").exit_code == 2
    assert not files(tmp_path)
    assert run("export", LINEAR, f"--{target}", "./-").exit_code == 0
    assert any(name.startswith("-") for name in files(tmp_path))


@pytest.mark.parametrize("prefix", [".", "..", "d/", "d", "d/."])
def test_a_directory_is_no_prefix(run, tmp_path, monkeypatch, prefix):
    """A bundle needs a prefix: a directory is refused, with one that would do."""
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run("export", LINEAR, "--tf", prefix)
    assert result.exit_code == 2
    assert "model.ckpt" in result.stderr
    assert files(tmp_path) == {"d"}


@pytest.mark.parametrize("member", ["index", "meta", "data-00000-of-00001"])
def test_a_member_is_no_prefix(run, tmp_path, member):
    """--tf with the name of one of a checkpoint's files is refused (2), and the prefix is said."""
    result = run("export", LINEAR, "--tf", tmp_path / f"x.{member}")
    assert result.exit_code == 2
    assert "its prefix is" in result.stderr
    assert not files(tmp_path)


def test_a_graph_that_was_there_is_said(run, tmp_path):
    """A .meta that stood beside the output before, and is not written anew, is named in a warning."""
    assert run("export", CONV, "--tf", tmp_path / "x", "--meta").exit_code == 0
    assert "warning" not in run("export", CONV, "--tf", tmp_path / "x", "--meta", "--force").stderr
    result = run("export", LINEAR, "--tf", tmp_path / "x", "--force")
    assert result.exit_code == 0
    assert f"warning: {tmp_path / 'x.meta'} already existed" in result.stderr


ODD = ["[1]", "a b", "*", "-x", "#", "ü", "%s", "a=>b", "x.index-1", "model.ckpt-7.data"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("target", WRITERS)
def test_odd_names_are_literal(run, tmp_path, name, target):
    """A path is what it is, never a pattern; what was written under it is opened under it."""
    output = tmp_path / f"{name}{SUFFIXES[target]}"
    assert run("export", LINEAR, f"--{target}", output).exit_code == 0
    assert set(ckpttool.open_checkpoint(output)) == {"W", "b"}


@pytest.mark.parametrize("target", WRITERS)
def test_outputs_are_not_replaced(run, tmp_path, target):
    """What is there is refused (2) and left as it was; --force replaces it."""
    output = tmp_path / f"out{SUFFIXES[target]}"
    assert run("export", LINEAR, f"--{target}", output).exit_code == 0
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    result = run("export", CONV, f"--{target}", output)
    assert result.exit_code == 2
    assert "--force replaces it" in result.stderr
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()} == before
    assert run("export", CONV, f"--{target}", output, "--force").exit_code == 0
    assert set(ckpttool.open_checkpoint(output)) == set(ckpttool.open_checkpoint(CONV))


@pytest.mark.parametrize("source", WRITERS)
def test_the_input_is_not_replaced(run, tmp_path, sources, source):
    """The output may not be the input, not with --force, and not under another name of it."""
    for path in sources["tf"].parent.iterdir():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    original = tmp_path / sources[source].name
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    for output in (original, tmp_path / "." / original.name, tmp_path / "link"):
        if output.name == "link":
            target_file = Path(f"{original}.index") if source == "tf" else original
            (tmp_path / f"link{'.index' if source == 'tf' else ''}").symlink_to(target_file)
        for command in (["export", original], ["average", sources["tf" if source != "tf" else "npz"], original]):
            result = run(*command, f"--{source}", output, "--force", "-q")
            assert result.exit_code == 2, result.stderr
            assert "input" in result.stderr
    after = {n: (tmp_path / n).read_bytes() for n in files(tmp_path) if (tmp_path / n).is_file() and "link" not in n}
    assert after == before


def test_nothing_matched(run, tmp_path):
    """Where nothing is left to write the answer is no (1), and nothing is written."""
    for options in (["-i", "nothing"], ["-x", "**"]):
        result = run("export", CONV, "--tf", tmp_path / "out", *options)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1] == "nothing matched"
    assert run("average", CONV, LINEAR, "--tf", tmp_path / "out", "-i", "nothing").exit_code == 1
    assert run("export", OBJECTS, "--tf", tmp_path / "out", "-i", "nothing").exit_code == 1
    assert not files(tmp_path)


@pytest.mark.parametrize("options", [("--tf-v1", "--cast", "bfloat16"), ("--h5", "--h5-layout", "keras")])
def test_nothing_that_the_target_can_hold(run, tmp_path, options):
    """Where a target can hold none of the variables, nothing is written: nobody asked for an empty file."""
    target, *others = options
    for more in ([], ["--dry-run"]):
        result = run("export", LINEAR, target, tmp_path / "out", *others, *more)
        assert result.exit_code == 5
        assert re.search(r"error: left out: .* \(2 such variables\); nothing is left · variable 'W'\n", result.stderr)
    assert not files(tmp_path)


def test_no_averages(run, tmp_path):
    """--ema without moving averages finds nothing (3), rather than writing the variables as they are."""
    result = run("export", LINEAR, "--tf", tmp_path / "out", "--ema")
    assert result.exit_code == 3
    assert "no moving averages" in result.stderr
    assert not files(tmp_path)


def test_strict(run, tmp_path):
    """What a format has no type for is stored otherwise and said; with --strict it is an error (5), in a plan too."""
    prefix = bundle({"w": np.float32(1), "s": strings(b"x", b"\0")}).write(tmp_path)
    before = files(tmp_path)
    for plan in ([], ["--dry-run"]):
        result = run("export", prefix, "--safetensors", tmp_path / "x.safetensors", "--strict", *plan)
        assert result.exit_code == 5
        assert "'s'" in result.stderr
    assert run("export", prefix, "--tf", tmp_path / "x", "--strict", "--dry-run").exit_code == 0
    assert files(tmp_path) == before
    assert run("export", prefix, "--safetensors", tmp_path / "x.safetensors").exit_code == 0


def test_what_can_not_be_read_is_not_passed_over_in_silence(run, tmp_path):
    """Of an archive of which nothing can be read nothing is written (5); of one with a part that can't, the rest is
    written with a warning, and with --strict nothing (5).
    """
    pickled = np.array([{}], dtype=object)
    np.savez(tmp_path / "all.npz", o=pickled)
    np.savez(tmp_path / "part.npz", o=pickled, w=np.float32([1]))
    before = files(tmp_path)
    for source, *strict in (["all.npz"], ["all.npz", "--strict"], ["part.npz", "--strict"]):
        for options in ([], ["-q"], ["--dry-run"]):
            result = run("export", tmp_path / source, "--tf", tmp_path / "x", *strict, *options)
            assert result.exit_code == 5
            assert "o.npy is passed over" in result.stderr
    assert run("average", tmp_path / "all.npz", tmp_path / "part.npz", "--tf", tmp_path / "x").exit_code == 5
    assert files(tmp_path) == before
    assert run("export", tmp_path / "part.npz", "--tf", tmp_path / "x").exit_code == 0
    assert set(ckpttool.open_checkpoint(tmp_path / "x")) == {"w"}


def test_a_comment_behind_a_rule_is_refused(run, tmp_path):
    """In a file of rules only whole lines are comments; what looks like one behind a rule is refused (2)."""
    rules = tmp_path / "rules"
    rules.write_text("# a comment\n^conv/=>cnv/ # inline\n")
    result = run("export", CONV, "--tf", tmp_path / "x", "--rename-file", rules)
    assert result.exit_code == 2
    assert "line 2: only whole lines are comments" in " ".join(result.stderr.split())
    assert files(tmp_path) == {"rules"}


def test_a_directory_of_others_is_said_to_be_one_at_once(run, tmp_path, monkeypatch):
    """--npy into a directory with something else is refused (2) with the truth, and the path as given."""
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("there/note").touch()
    for force in ([], ["--force"]):
        result = run("export", LINEAR, "--npy", "there", *force)
        assert result.exit_code == 2
        assert "the output exists, and holds something else · there · give another output" in result.stderr


# Nothing by halves


@pytest.mark.parametrize("command", ["export", "average"])
@pytest.mark.parametrize("target", WRITERS)
def test_damage_leaves_nothing(run, tmp_path, command, target):
    """A source that is damaged at its very end is an error (4) that names the variable; nothing is left, and what the
    output would have replaced is as it was.
    """
    made = bundle({"a": np.arange(5000, dtype=np.float32), "z": np.arange(5000, dtype=np.float32)})
    made.shards[0] = made.shards[0][:-1] + b"\xff"
    prefix, out = made.write(tmp_path), tmp_path / "out"
    out.mkdir()
    output = out / f"x{SUFFIXES[target]}"
    sources = [prefix] if command == "export" else [made.write(tmp_path, "other"), prefix]
    options = ["--cast", "float16"] if command == "export" else []
    for force in ([], ["--force"]):
        if force:
            assert run("export", LINEAR, f"--{target}", output).exit_code == 0
        before = {name: (out / name).read_bytes() for name in files(out) if (out / name).is_file()}
        result = run(command, *sources, f"--{target}", output, *options, *force)
        assert result.exit_code == 4
        assert "'z'" in result.stderr
        assert {name: (out / name).read_bytes() for name in files(out) if (out / name).is_file()} == before


@pytest.mark.parametrize("target", WRITERS)
def test_a_directory_that_is_not_there(run, tmp_path, target):
    """No directory is made for an output; it is named."""
    result = run("export", LINEAR, f"--{target}", tmp_path / "no" / "out")
    assert result.exit_code == 3
    assert f"no such directory · {tmp_path}/no" in result.stderr


# The state file


def state(directory: Path) -> str:
    return (directory / "checkpoint").read_text()


def test_the_state_file(run, tmp_path):
    """A directory's first checkpoint is named in a state file; later ones only with --latest, beside the others."""
    assert "note" not in run("export", LINEAR, "--tf", tmp_path / "one").stderr
    assert state(tmp_path) == 'model_checkpoint_path: "one"\nall_model_checkpoint_paths: "one"\n'
    assert "note" not in run("export", LINEAR, "--tf", tmp_path / "one", "--force").stderr
    result = run("export", LINEAR, "--tf", tmp_path / "two")
    assert "note" in result.stderr
    assert "--latest" in result.stderr
    assert "two" not in state(tmp_path)
    assert run("average", tmp_path / "one", LINEAR, "--tf", tmp_path / "three", "--latest", "-q").stderr == ""
    assert state(tmp_path).splitlines()[0] == 'model_checkpoint_path: "three"'
    assert ckpttool.open_checkpoint(tmp_path).path == str(tmp_path / "three")


@pytest.mark.tensorflow
def test_tensorflow_finds_the_latest(tf, run, tmp_path):
    """tf.train.latest_checkpoint finds what was exported, also beside older ones."""
    for name in ("model.ckpt-1", "model.ckpt-2"):
        assert run("export", LINEAR, "--tf", tmp_path / name, "--latest").exit_code == 0
        assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / name)


# Hostile names


@pytest.mark.parametrize("target", WRITERS)
def test_hostile_names_never_reach_the_terminal(run, tmp_path, target):
    """Escape sequences and overrides in names are shown escaped, in plans, warnings, notes and errors."""
    arrays = {HOSTILE: np.float32([1e9]), f"{HOSTILE}/Adam": np.float32([1]), "x": np.float32([1])}
    prefix = bundle(arrays).write(tmp_path)
    results = [
        run("export", prefix, f"--{target}", tmp_path / "a", "--cast", "float16", "--drop-slots"),
        run("export", prefix, f"--{target}", tmp_path / "b", "--rename", "^.*=>x"),
        run("export", prefix, f"--{target}", tmp_path / "c", "--rename", f"^{re.escape(HOSTILE)}$=>"),
        run("export", prefix, f"--{target}", tmp_path / "d", "--rename", f"({HOSTILE}=>y"),
        run("export", prefix, f"--{target}", tmp_path / "e", "--strip-prefix", f"{HOSTILE}!"),
        run("average", prefix, LINEAR, f"--{target}", tmp_path / "f"),
        *(run("export", prefix, f"--{target}", tmp_path / "g", "--dry-run", "-f", f) for f in ("table", "tsv", "md")),
    ]
    assert [result.exit_code for result in results] == [0, 5, 5, 2, 0, 5, 0, 0, 0]
    for result in results:
        assert not set(result.stdout + result.stderr) & {"\x1b", "\x07", "\u202e"}
    assert any("\\x1b[31mred" in result.stderr for result in results)


# The average


def several(tmp_path, **options: float) -> list[Path]:
    """Checkpoints of a scalar each, by the name of the prefix."""
    return [
        Path(bundle({"w": np.float32(value), "step": np.int64(value)}).write(tmp_path, name))
        for name, value in options.items()
    ]


def mean_of(path: Path) -> tuple[float, int]:
    checkpoint = ckpttool.open_checkpoint(path)
    return float(checkpoint["w"].numpy()), int(checkpoint["step"].numpy())


def test_average(run, tmp_path):
    """The mean of those named, the step of the last of them; with weights, the weighted one."""
    a, b, c = several(tmp_path, a=1, b=2, c=9)
    result = run("average", a, c, b, "--tf", tmp_path / "out")
    assert result.exit_code == 0
    assert "the mean of a, c, b\n" in result.stderr
    assert mean_of(tmp_path / "out") == (4, 2)
    assert run("average", a, b, "--weights", "3,1", "--npz", tmp_path / "out.npz", "-q").stderr == ""
    assert mean_of(tmp_path / "out.npz") == (1.25, 2)


@pytest.mark.parametrize("target", WRITERS)
def test_the_mean_in_every_format(run, tmp_path, sources, target):
    """The mean is written into any format, of any."""
    output = tmp_path / f"out{SUFFIXES[target]}"
    assert run("average", *sources.values(), f"--{target}", output).exit_code == 0
    assert written(ckpttool.open_checkpoint(output)) == written(ckpttool.open_checkpoint(sources["tf"]))


def test_the_last_of_a_directory(run, tmp_path):
    """--last takes the last ones by their steps, numbers and not words."""
    several(tmp_path, **{f"model.ckpt-{step}": step for step in (8, 9, 10, 100)})
    for last, expected in ((1, (100, 100)), (2, (55, 100)), (3, (pytest.approx(119 / 3), 100)), (4, (31.75, 100))):
        assert run("average", tmp_path, "--last", last, "--tf", tmp_path / "out", "--force").exit_code == 0, last
        assert mean_of(tmp_path / "out") == expected
        for path in [*tmp_path.glob("out*"), *tmp_path.glob("checkpoint")]:
            path.unlink()
    result = run("average", tmp_path, "--last", 5, "--tf", tmp_path / "out")
    assert result.exit_code == 2
    assert "has 4 checkpoints, not 5" in " ".join(result.stderr.split())


def test_several_series_in_a_directory(run, tmp_path):
    """Among checkpoints of other names, --last takes the series that the state file names, or none."""
    several(tmp_path, **{"model.ckpt-1": 1, "model.ckpt-2": 3, "swa.ckpt": 50, "z.ckpt-9": 70})
    result = run("average", tmp_path, "--last", 2, "--tf", tmp_path / "out")
    assert result.exit_code == 2
    assert "'model.ckpt-', 'swa.ckpt', 'z.ckpt-'" in result.stderr
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-2"\n')
    for _ in range(2):  # The second time, beside the first time's.
        assert run("average", tmp_path, "--last", 2, "--tf", tmp_path / "out", "--force").exit_code == 0
        assert mean_of(tmp_path / "out") == (2, 3)
    result = run("average", tmp_path, "--last", 3, "--tf", tmp_path / "out", "--force")
    assert "has 2 checkpoints of the latest's name, 'model.ckpt-', not 3" in " ".join(result.stderr.split())


def test_a_state_file_with_whole_paths(run, tmp_path, monkeypatch):
    """TensorFlow writes whole paths there; the directory may be named in any other way."""
    several(tmp_path, **{"model.ckpt-1": 1, "model.ckpt-2": 3, "z.ckpt-9": 70})
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/model.ckpt-2"\n')
    monkeypatch.chdir(tmp_path)
    assert run("average", ".", "--last", 2, "--tf", tmp_path / "out").exit_code == 0
    assert mean_of(tmp_path / "out") == (2, 3)


USAGE = {
    "one checkpoint": ["model.ckpt-1"],
    "a directory": ["."],
    "two directories": [".", ".", "--last", "1"],
    "no directory": ["model.ckpt-1", "--last", "1"],
    "none of them": [".", "--last", "0"],
    "too few weights": ["model.ckpt-1", "model.ckpt-2", "--weights", "1"],
    "words for weights": ["model.ckpt-1", "model.ckpt-2", "--weights", "1,b"],
    "no weights": ["model.ckpt-1", "model.ckpt-2", "--weights", ""],
    "weights of zero": ["model.ckpt-1", "model.ckpt-2", "--weights", "0,0"],
    "weights below zero": ["model.ckpt-1", "model.ckpt-2", "--weights", "2,-1"],
    "weights that are none": ["model.ckpt-1", "model.ckpt-2", "--weights", "1,nan"],
    "options of HDF5": ["model.ckpt-1", "model.ckpt-2", "--compression", "gzip"],
}


@pytest.mark.parametrize("arguments", USAGE.values(), ids=USAGE)
def test_average_is_not_used_so(run, tmp_path, monkeypatch, arguments):
    """Wrong arguments are usage errors, and nothing is written."""
    several(tmp_path, **{"model.ckpt-1": 1, "model.ckpt-2": 2})
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    result = run("average", *arguments, "--tf", "out")
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert files(tmp_path) == before


def test_checkpoints_that_differ(run, tmp_path):
    """Checkpoints of other variables are an error (5) with their names; patterns choose what all have."""
    (a,) = several(tmp_path, a=1)
    b = bundle({"w": np.float32(3), "step": np.int32(1), "more": np.float32(1)}).write(tmp_path, "b")
    result = run("average", a, b, "--tf", tmp_path / "out")
    assert result.exit_code == 5
    assert "'more' · --include and --exclude choose what all have" in result.stderr
    result = run("average", a, b, "--tf", tmp_path / "out", "-x", "more")
    assert result.exit_code == 5
    assert "'step' (int64[], int32[])" in result.stderr
    assert run("average", a, b, "--tf", tmp_path / "out", "-i", "w").exit_code == 0


# Help


@pytest.mark.parametrize("command", ["export", "average"])
def test_help_says_of_what_each_option_is(run, command):
    """Every option has a help text, and one that is about some targets names them."""
    from typer.main import get_command

    from ckpttool.cli import app

    options = {parameter.name: parameter.help or "" for parameter in get_command(app).get_command(None, command).params}
    assert all(options.values())
    about = {"shards": "--tf", "max_shard_size": "--tf, --safetensors", "latest": "--tf", "meta": "--tf"}
    about |= {"h5_layout": "--h5", "compression": "--h5; deflate: --npz", "format": "--dry-run"}
    for name, targets in about.items():
        assert name not in options or targets in options[name]
    assert run(command, "-h").exit_code == 0


BY_SUFFIX = {"x.h5": "--h5", "x.hdf5": "--h5", "x.npz": "--npz", "x.safetensors": "--safetensors", "x.ckpt": "--tf"}
BY_SUFFIX |= {"X.H5": "--h5"}


@pytest.mark.parametrize("name", BY_SUFFIX)
def test_a_format_by_its_suffix(run, tmp_path, name):
    """-o writes what the option of its suffix's format would; without a suffix, or beside another, it is refused."""
    for folder, option in (("a", "-o"), ("b", BY_SUFFIX[name])):
        (tmp_path / folder).mkdir()
        assert run("export", FIXTURES / "conv" / "model", option, tmp_path / folder / name).exit_code == 0
    written = [{file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()} for folder in "ab"]
    assert written[0] == written[1]
    assert run("export", FIXTURES / "conv" / "model", "-o", tmp_path / "x").exit_code == 2
    twice = run("export", FIXTURES / "conv" / "model", "-o", tmp_path / name, BY_SUFFIX[name], tmp_path / "other")
    assert twice.exit_code == 2
    assert f"got {BY_SUFFIX[name]} and -o; give one output" in " ".join(twice.stderr.split())
