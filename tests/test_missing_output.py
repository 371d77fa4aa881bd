"""The commands that write a graph say in one way that no output was given."""

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
    assert "-o and --in-place are two answers" in result.stderr
    assert not list(tmp_path.iterdir())
