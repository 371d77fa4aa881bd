"""The commands that write a graph say in one way that no output was given."""

import shutil

import pytest
from conftest import FIXTURES

LINEAR = FIXTURES / "linear" / "model.meta"
COMMANDS = {
    "freeze": ["--outputs", "activation_opt"],
    "saved-model": ["--outputs", "activation_opt"],
    "strip-devices": [],
    "collections": ["--remove", "activation"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_output(run, command):
    """Without -o it is a usage error (2), in the same words."""
    result = run(command, LINEAR, *COMMANDS[command])
    assert result.exit_code == 2
    assert "give the output: -o" in result.stderr


@pytest.mark.parametrize("command", ["strip-devices", "collections"])
def test_two_outputs(run, tmp_path, command):
    """-o and --in-place exclude one another."""
    result = run(command, LINEAR, *COMMANDS[command], "-o", tmp_path / "out", "--in-place")
    assert result.exit_code == 2
    assert "give -o or --in-place, not both" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("command", ["strip-devices", "collections", "freeze"])
def test_the_checkpoints_own_files(run, tmp_path, command, kind):
    """No graph takes the place of a file of its checkpoint, with --force either: that would be the end of the model."""
    for file in LINEAR.parent.glob("model.*"):
        shutil.copy(file, tmp_path)
    own = (tmp_path / "model").with_suffix(kind)
    before = own.read_bytes()
    result = run(command, tmp_path / "model.meta", *COMMANDS[command], "-o", own, "--force")
    assert (result.exit_code, own.read_bytes()) == (2, before), result.stderr


def test_the_checkpoints_own_graph(run, tmp_path):
    """Nor do variables take that of the graph."""
    for file in LINEAR.parent.glob("model.*"):
        shutil.copy(file, tmp_path)
    before = (tmp_path / "model.meta").read_bytes()
    for target in ("--npz", "--h5", "--safetensors", "--tf-v1"):
        result = run("export", tmp_path / "model", target, tmp_path / "model.meta", "--force")
        assert (result.exit_code, "is the graph of the checkpoint" in result.stderr) == (2, True), result.stderr
    assert (tmp_path / "model.meta").read_bytes() == before
