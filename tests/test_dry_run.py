"""A dry run foretells: it says and refuses what the real one does, and writes nothing."""

import json
import sys

import numpy as np
import pytest
from bundles import bundle, strings
from conftest import FIXTURES
from privileges import unprivileged

import ckpttool
from ckpttool.cli.targets import WRITERS

LINEAR, CONV, OBJECTS = FIXTURES / "linear" / "model", FIXTURES / "conv" / "model", FIXTURES / "objects" / "model-1"


def last_line(text: str) -> str:
    return text.splitlines()[-1]


@pytest.mark.parametrize("target", ["npz", "npy"])
def test_strings_that_numpy_can_not_hold(run, tmp_path, target):
    """With --strict, a string that ends in NUL is refused in a plan as in writing, and counted alike."""
    model = bundle({"s": strings(b"x", b"\0"), "t": strings(b"a"), "u": strings(b"\0")}).write(tmp_path)
    arguments = ["export", model, f"--{target}", tmp_path / "out"]
    real, plan = run(*arguments, "--strict"), run(*arguments, "--strict", "--dry-run")
    assert (real.exit_code, plan.exit_code) == (5, 5)
    assert last_line(real.stderr) == last_line(plan.stderr)
    assert "(2 such variables)" in real.stderr
    rows = json.loads(run(*arguments, "--dry-run", "--json").stdout)["plan"]
    told = {row["name"]: row["remark"] for row in rows}
    assert told["t"] is None
    assert told["s"].startswith("stored as uint8")
    assert run(*arguments).exit_code == 0


@pytest.mark.parametrize("target", WRITERS)
@pytest.mark.parametrize("place", ["there", "no directory"])
def test_outputs_that_can_not_be_written(run, tmp_path, target, place):
    """An output that exists, or has no directory, ends a dry run with the code and the words of the real one."""
    output = tmp_path / "out" if place == "there" else tmp_path / "no" / "out"
    arguments = ["export", LINEAR, f"--{target}", output]
    if place == "there":
        assert run(*arguments).exit_code == 0
    real, plan = run(*arguments), run(*arguments, "--dry-run")
    assert (plan.exit_code, plan.stdout) == (real.exit_code, "")
    assert real.exit_code == (2 if place == "there" else 3)
    if target != "tf":  # There the first of several files is named.
        assert last_line(plan.stderr) == last_line(real.stderr)
    if place == "there":
        assert run(*arguments, "--dry-run", "--force").exit_code == 0


@pytest.mark.parametrize("target", WRITERS)
def test_several_reasons_to_refuse(run, tmp_path, target):
    """Of an output that is there and variables that --strict refuses, both runs tell the output."""
    model = bundle({"s": strings(b"x", b"\0"), "u": np.uint32([1]), "n": np.float32(1)}).write(tmp_path)
    arguments = ["export", model, f"--{target}", tmp_path / "out"]
    assert run(*arguments).exit_code == 0
    real, plan = run(*arguments, "--strict"), run(*arguments, "--strict", "--dry-run")
    assert (real.exit_code, plan.exit_code, plan.stdout) == (2, 2, "")
    assert real.stderr == plan.stderr


def test_shards_of_safetensors_that_are_there(run, tmp_path):
    """A directory with tensors in it is refused in a dry run too; an empty one is not."""
    (tmp_path / "out").mkdir()
    arguments = ["export", LINEAR, "--safetensors", tmp_path / "out"]
    assert run(*arguments, "--dry-run").exit_code == 0
    assert run(*arguments).exit_code == 0
    assert (run(*arguments, "--dry-run").exit_code, run(*arguments).exit_code) == (2, 2)


IN_THE_WAY = {
    "data of a bundle without its index": (["--tf", "out"], "out.data-00000-of-00001"),
    "data of another number of shards": (["--tf", "out"], "out.data-00004-of-00005"),
    "a directory of arrays that holds something else": (["--npy", "out", "--force"], "out/mine.txt"),
    "a file where shards are to be": (["--safetensors", "out/"], "out"),
    "a file where shards of a size are to be": (["--safetensors", "out", "--max-shard-size", "5GB", "--force"], "out"),
    "a directory where a shard is to be": (
        ["--safetensors", "out/", "--force"],
        "out/model.safetensors/x",
    ),
    "a damaged state file": (["--tf", "out", "--latest"], "checkpoint"),
    "a directory for a state file": (["--tf", "out", "--latest"], "checkpoint/x"),
}


@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_is_in_the_way(run, tmp_path, monkeypatch, name):
    """Whatever a writer would not replace ends a dry run too, with the same words; and nothing is written first."""
    arguments, path = IN_THE_WAY[name]
    monkeypatch.chdir(tmp_path)
    there = tmp_path / path
    there.parent.mkdir(exist_ok=True, parents=True)
    there.write_text("mine")
    real, plan = run("export", LINEAR, *arguments), run("export", LINEAR, *arguments, "--dry-run")
    assert real.exit_code == plan.exit_code != 0
    assert last_line(real.stderr) == last_line(plan.stderr)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [there]
    assert there.read_text() == "mine"


def test_a_mean_is_not_written_beside_a_damaged_state_file(run, tmp_path):
    """`average --latest` finds it out before it reads and writes gigabytes."""
    (tmp_path / "checkpoint").write_text("mine")
    two = [bundle({"w": np.float32(number)}).write(tmp_path, str(number)) for number in range(2)]
    assert run("average", *two, "--tf", tmp_path / "out", "--latest").exit_code == 4
    assert not list(tmp_path.glob("out*"))


def test_what_is_left_out_of_a_plan(run, tmp_path):
    """What a format can't hold becomes nothing, of no bytes."""
    model = bundle({"w": np.float32(1), "u": np.uint32([1, 2])}).write(tmp_path)
    arguments = ["export", model, "--tf-v1", tmp_path / "out", "--dry-run", "--json"]
    rows = {row["name"]: row for row in json.loads(run(*arguments).stdout)["plan"]}
    assert rows["u"]["remark"].startswith("left out: ")
    assert (rows["u"]["becomes"], rows["u"]["bytes"]) == (None, 0)


def test_notes_on_the_source_are_said_once(run, tmp_path):
    """--meta opens the graph beside the checkpoint, and does not tell again how that was found."""
    result = run("export", LINEAR.parent, "--tf", tmp_path / "out", "--meta")
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(set(notes)) > 0


@pytest.mark.tensorflow
def test_objects_keep_their_names(run, tf, tmp_path):
    """Renamed keys leave a checkpoint of TensorFlow 2 restored by the names of its objects, which is said."""
    saved = tf.train.Checkpoint(model=tf.train.Checkpoint(w=tf.Variable([1.0, 2.0]))).write(str(tmp_path / "a"))
    result = run("export", saved, "--tf", tmp_path / "b", "--rename", "model/=>mod/")
    assert result.exit_code == 0
    assert "whose objects keep their names" in result.stderr
    assert "mod/w/.ATTRIBUTES/VARIABLE_VALUE" in run("vars", tmp_path / "b").stdout
    old, new = (tf.train.Checkpoint(w=tf.Variable([0.0, 0.0])) for _ in range(2))
    tf.train.Checkpoint(model=old).read(str(tmp_path / "b")).assert_existing_objects_matched()
    tf.train.Checkpoint(mod=new).read(str(tmp_path / "b")).expect_partial()
    assert (old.w.numpy().tolist(), new.w.numpy().tolist()) == ([1, 2], [0, 0])
    for unchanged in (["--rename", "nothing=>x"], ["-q", "--rename", "model/=>mod/"]):
        result = run("export", saved, "--tf", tmp_path / "c", "--force", *unchanged)
        assert "keep their names" not in result.stderr


COLLIDING = {"--npz": ("a\0b", "a%00b"), "--safetensors": ("__metadata__", "%5F_metadata__")}


@pytest.mark.parametrize("option", COLLIDING)
def test_two_that_would_have_one_name(run, tmp_path, option):
    """A dry run refuses two variables that would have one name in the file, as the real one does."""
    source = ckpttool.from_arrays({name: np.zeros(2, np.float32) for name in COLLIDING[option]})
    ckpttool.write_bundle(source, tmp_path / "m")
    arguments = ["export", tmp_path / "m", option, tmp_path / "out"]
    real, dry = run(*arguments), run(*arguments, "--dry-run")
    assert real.exit_code == dry.exit_code == 5
    assert "would have the same name" in dry.stderr
    assert not (tmp_path / "out").exists()


WRITING = {
    "strip-devices": ["strip-devices", FIXTURES / "devices" / "model.meta"],
    "collections": ["collections", FIXTURES / "conv" / "model.meta", "--add", "outputs=predictions:0"],
    "freeze": ["freeze", CONV],
    "saved-model": ["saved-model", CONV],
}
REFUSED = ["there", "something else", "no directory"]
WORDS = {"cleared": "would clear", "kept": "would keep", "wrote": "would write"}


@pytest.mark.parametrize("command", WRITING)
def test_commands_that_write_graphs(run, tmp_path, command):
    """They say what they would do in the words in which they say what they have done, and write nothing."""
    arguments = [*WRITING[command], "-o", tmp_path / "out"]
    dry = run(*arguments, "--dry-run")
    assert dry.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    real = run(*arguments)
    assert real.exit_code == 0
    said = real.stderr
    for done, would in WORDS.items():
        said = said.replace(f"{done} ", f"{would} ")
    assert dry.stderr == said != real.stderr


@pytest.mark.parametrize("command", WRITING)
@pytest.mark.parametrize("place", REFUSED)
def test_graphs_that_can_not_be_written(run, tmp_path, command, place):
    """An output that is there, is something else, or has no directory is refused by a dry run in the same words."""
    output = tmp_path / "no" / "out" if place == "no directory" else tmp_path / "out"
    arguments = [*WRITING[command], "-o", output]
    if place == "there":
        assert run(*arguments).exit_code == 0
    elif place == "something else":
        output.mkdir()
        (output / "notes.txt").touch()
    real, dry = run(*arguments), run(*arguments, "--dry-run")
    assert real.exit_code == dry.exit_code != 0
    assert last_line(dry.stderr) == last_line(real.stderr)


@pytest.mark.parametrize("command", [*WRITING, *(f"--{target}" for target in WRITERS)])
def test_a_directory_that_may_not_be_written(run, tmp_path, command):
    """It is refused by a dry run in the words of the real one, which tells it before it does anything."""
    arguments = [*WRITING[command], "-o"] if command in WRITING else ["export", CONV, command]
    tmp_path.chmod(0o500)

    def act():
        real, dry = (run(*arguments, tmp_path / "out", *options) for options in ([], ["--dry-run"]))
        assert (real.exit_code, dry.exit_code, dry.stdout) == (3, 3, "")
        assert last_line(dry.stderr) == last_line(real.stderr)
        assert "error: Permission denied" in dry.stderr

    unprivileged(act)


def test_results_that_can_not_be_written(run, tmp_path, monkeypatch):
    """A model is not run first, which may take hours."""
    monkeypatch.setitem(sys.modules, "ckpttool.runtime.imported", None)  # What runs it.
    tmp_path.chmod(0o500)

    def act():
        result = run("run", LINEAR, "--feed", "x=1", "--out", tmp_path / "out.npz")
        assert (result.exit_code, last_line(result.stderr)) == (3, f"error: Permission denied · {tmp_path}/out.npz")

    unprivileged(act)


@pytest.mark.parametrize("target", WRITERS)
def test_the_mean_of_two(run, tmp_path, target):
    """A plan of a mean has a row for each variable, and refuses an output that is there; nothing is written."""
    ckpttool.write_bundle(ckpttool.open_checkpoint(LINEAR), tmp_path / "a")
    arguments = ["average", LINEAR, tmp_path / "a", f"--{target}", tmp_path / "out"]
    there = sorted(tmp_path.iterdir())
    dry = run(*arguments, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert (told["schema"], [row["name"] for row in told["plan"]]) == ("ckpttool.average/1", ["W", "b"])
    assert sorted(tmp_path.iterdir()) == there
    assert run(*arguments).exit_code == 0
    assert run(*arguments, "--dry-run").exit_code == run(*arguments).exit_code == 2
    assert run(*arguments, "--json").exit_code == 2


@pytest.mark.parametrize("option", [["--json"], ["--format", "csv"]], ids=" ".join)
@pytest.mark.parametrize("command", ["export", "average"])
def test_what_only_a_plan_can_be_printed_as(run, tmp_path, command, option):
    """A format is one of a plan; without a plan, the option is named that was given."""
    others = [CONV] if command == "average" else []
    result = run(command, LINEAR, *others, *option, "--npz", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert f"{option[0]} needs --dry-run" in result.stderr
