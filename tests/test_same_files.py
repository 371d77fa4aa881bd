"""Paths that lead to the same checkpoint: `average` counts it once, and nothing is written over it."""

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle

import ckpttool


def several(directory: Path) -> list[Path]:
    """The prefixes of two checkpoints, whose mean is 2, each with a graph's file."""
    for step, value in ((1, 1), (2, 3)):
        prefix = bundle({"w": np.float32(value)}).write(directory, f"m.ckpt-{step}")
        shutil.copy(Path(__file__).parent.parent / "fixtures" / "linear" / "model.meta", f"{prefix}.meta")
    return [directory / "m.ckpt-1", directory / "m.ckpt-2"]


def globbed(directory: Path) -> list[Path]:
    """What a shell makes of m.ckpt-*."""
    return sorted(directory.glob("m.ckpt-*"))


def value_of(path: Path) -> float:
    return float(ckpttool.open_checkpoint(path)["w"].numpy())


def test_a_glob_takes_each_checkpoint_once(run, tmp_path):
    """Of all files of two checkpoints, as a shell's * gives them, each checkpoint counts once, and this is said."""
    a, b = several(tmp_path)
    result = run("average", *globbed(tmp_path), b, "--weights", "1,1", "--tf", tmp_path / "mean")
    assert result.exit_code == 0
    assert f"note: {a} was given by 3 paths, and counts once" in result.stderr
    assert f"note: {b} was given by 4 paths, and counts once" in result.stderr
    assert "the mean of m.ckpt-1, m.ckpt-2\n" in result.stderr
    assert value_of(tmp_path / "mean") == 2


def test_weights_are_for_distinct_checkpoints(run, tmp_path):
    """As many weights as paths, and not as checkpoints, are refused (2)."""
    several(tmp_path)
    paths = globbed(tmp_path)
    result = run("average", *paths, "--weights", ",".join("1" * len(paths)), "--tf", tmp_path / "mean")
    assert result.exit_code == 2
    assert "6 weights for 2 checkpoints" in result.stderr


def test_one_checkpoint_has_no_mean(run, tmp_path):
    """Where all paths lead to one checkpoint there is nothing to average (2)."""
    a, _ = several(tmp_path)
    result = run("average", f"{a}.index", f"{a}.meta", "--tf", tmp_path / "mean")
    assert result.exit_code == 2
    assert "all of these are m.ckpt-1" in result.stderr


@pytest.mark.parametrize("command", ["average", "export"])
def test_a_bundle_is_not_written_beside_the_v1_file_that_it_is_of(run, tmp_path, command):
    """A prefix that is the name of a file read from is refused (2): beside PREFIX.index it would mean another."""
    a, b = several(tmp_path)
    v1 = tmp_path / "old"
    ckpttool.write_tensor_slices(ckpttool.open_checkpoint(b), v1)
    sources = [a, v1] if command == "average" else [v1]
    for force in ([], ["--force"]):
        result = run(command, *sources, "--tf", v1, *force)
        assert result.exit_code == 2
        assert "the output is the input" in result.stderr
    assert not (tmp_path / "old.index").exists()
    with pytest.raises(FileExistsError, match="the output is the input"):
        ckpttool.write_bundle(ckpttool.open_checkpoint(v1), v1, force=True)


def test_a_bundle_is_not_written_beside_v1_shards_of_its_name(run, tmp_path):
    """So is the prefix that V1 files in shards share."""
    _, b = several(tmp_path)
    ckpttool.write_tensor_slices(ckpttool.open_checkpoint(b), tmp_path / "old-00000-of-00001")
    result = run("export", tmp_path / "old", "--tf", tmp_path / "old", "--force")
    assert result.exit_code == 2
    assert "the output is the input" in result.stderr
    assert not (tmp_path / "old.index").exists()


def test_a_shard_of_safetensors_is_said_to_be_one(run, tmp_path):
    """One of several shards is written alone, and a note names the index that has all of them."""
    a = bundle({"v": np.zeros(99, np.float32), "w": np.ones(99, np.float32)}).open(tmp_path)
    ckpttool.write_safetensors(a, tmp_path / "st", max_shard_size=400)
    result = run("export", tmp_path / "st" / "model-00001-of-00002.safetensors", "--npz", tmp_path / "x.npz")
    assert result.exit_code == 0
    index = tmp_path / "st" / "model.safetensors.index.json"
    assert f"note: this is one of 2 shards; all are in {index}" in result.stderr
    assert len(ckpttool.open_checkpoint(tmp_path / "x.npz")) == 1
    assert "shards" not in run("export", index, "--npz", tmp_path / "y.npz").stderr


MEMBERS = ["m.index", "m.data-00000-of-00001", "m.meta"]
OF_SAVED_MODEL = ["saved_model.pb", "variables/variables.index", "assets/words.txt"]
WRITES = [
    *[(("strip-devices", "m.meta", "-o"), member) for member in MEMBERS],
    *[(("collections", "m.meta", "--add", "mine=x:0", "-o"), member) for member in MEMBERS],
    *[(("freeze", "m", "--outputs", "activation_opt", "-o"), member) for member in MEMBERS],
    *[(("strip-devices", "sm", "-o"), f"sm/{member}") for member in OF_SAVED_MODEL],
    *[(("collections", "sm", "--add", "mine=x:0", "-o"), f"sm/{member}") for member in OF_SAVED_MODEL],
    *[(("freeze", "sm", "--outputs", "activation_opt", "-o"), f"sm/{member}") for member in OF_SAVED_MODEL],
    (("freeze", "m.meta", "--checkpoint", "values.npz", "--outputs", "activation_opt", "-o"), "values.npz"),
    *[(("state", ".", "--relocate", "-o"), member) for member in MEMBERS],
    *[(("run", "m", "--feed", "x=@fed.npy", "--fetch", "activation_opt", "-o"), file) for file in ["fed.npy"]],
    *[(("export", "values.npz", "--npz"), "values.npz"), (("average", "m", "m2", "--npz"), "m2.index")],
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A checkpoint with its graph and state file, a second one, the values as .npz, a SavedModel, an array."""
    directory = tmp_path_factory.mktemp("own")
    linear = Path(__file__).parent.parent / "fixtures" / "linear"
    for file in linear.glob("model.*"):
        for stem in ("m", "m2"):
            shutil.copy(file, directory / file.name.replace("model", stem, 1))
    (directory / "checkpoint").write_text('model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n')
    graph, checkpoint = ckpttool.open_graph(directory / "m.meta"), ckpttool.open_checkpoint(directory / "m")
    ckpttool.write_npz(checkpoint, directory / "values.npz")
    served = ckpttool.servable(graph, checkpoint, {"x": "x"}, {"y": "activation_opt"})
    ckpttool.write_saved_model(served.graph, served.variables, directory / "sm")
    (directory / "sm" / "assets").mkdir(exist_ok=True)
    (directory / "sm" / "assets" / "words.txt").write_text("zero\n")
    np.save(directory / "fed.npy", np.float32([50]))
    return directory


@pytest.mark.parametrize("spelling", ["plain", "dotted", "linked"])
@pytest.mark.parametrize(("arguments", "target"), WRITES, ids=[f"{w[0][0]} {w[0][1]} to {w[1]}" for w in WRITES])
def test_no_command_replaces_what_it_reads(run, everything, tmp_path, monkeypatch, arguments, target, spelling):
    """Not even with --force: neither what was given, nor what belongs to it, however its path is spelled (2)."""
    directory = tmp_path / "own"
    shutil.copytree(everything, directory)
    monkeypatch.chdir(directory)
    (tmp_path / "linked").symlink_to(directory)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    output = {"plain": target, "dotted": f"./{target}", "linked": tmp_path / "linked" / target}[spelling]
    result = run(*arguments, output, "--force")
    assert (result.exit_code, "the output is the input" in result.stderr) == (2, True), result.stderr
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_errors_of_outputs_are_the_systems(tmp_path):
    """The error has the number and the path that Python's own has, and no option of the command."""
    a, _ = several(tmp_path)
    ckpttool.write_npz(ckpttool.open_checkpoint(a), tmp_path / "x.npz")
    with pytest.raises(FileExistsError, match="the output exists") as caught:
        ckpttool.write_npz(ckpttool.open_checkpoint(a), tmp_path / "x.npz")
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(tmp_path / "x.npz"))
    assert "--" not in str(caught.value)
