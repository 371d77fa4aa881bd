"""The README can't be wrong: its commands are run, and print what it shows.

`python tests/test_readme.py` puts into it what they print now.
"""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

README = ROOT / "README.md"
_CONSOLE = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_PYTHON = re.compile(r"(?<=```python\n).*?(?=```)", re.DOTALL)
_TABLES = {"vars", "ls", "io", "objects", "run", "state", "diff", "verify", "stats"}


def output_of(command: str) -> str:
    """What a command prints on a terminal of 100 columns."""
    from ckpttool.cli import app

    name, *arguments = shlex.split(command)
    assert name == "ckpttool"
    as_table = ["--format", "table"] if arguments[0] in _TABLES else []
    result = CliRunner().invoke(app, [*arguments, *as_table])
    assert result.exit_code in ({0, 1} if arguments[0] == "diff" else {0}), result.output
    return result.output.strip("\n")


def with_output(block: str) -> str:
    """A console block with what its commands print now."""
    commands = [line for line in block.splitlines() if line.startswith("$ ")]
    return "\n\n".join(f"{line}\n{output_of(line[2:])}" for line in commands) + "\n"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty directory with the fixtures in it, for commands that write."""
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", _CONSOLE.findall(README.read_text()), ids=lambda block: block.splitlines()[0])
def test_console(block, elsewhere):
    """Every command prints what the README shows."""
    assert with_output(block) == block


@pytest.mark.parametrize("block", _PYTHON.findall(README.read_text()))
def test_python(block, elsewhere, capsys):
    """The Python example runs, and prints what its comments say."""
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"# → (.*)", block)


def test_every_command_is_in_the_readme():
    """No command is a secret."""
    from typer.main import get_command

    from ckpttool.cli import app

    text = README.read_text()
    names = get_command(app).list_commands(None)
    assert len(names) > 10
    assert [name for name in names if f"ckpttool {name}" not in text] == []


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "fixtures").symlink_to(ROOT / "fixtures")
        os.chdir(directory)
        README.write_text(_CONSOLE.sub(lambda match: with_output(match[0]), README.read_text()))
    sys.exit()
