"""The README and its pages can't be wrong: their commands are run, and print what they show.

`python tests/test_readme.py` puts into them what is printed now.
"""

import inspect
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

import ckpttool

PAGES = [ROOT / "README.md", ROOT / "docs" / "commands.md", ROOT / "docs" / "python.md"]
_CONSOLE = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
_PYTHON = re.compile(r"(?<=```python\n).*?(?=```)", re.DOTALL)
_RUNS = re.compile(r"ckpttool run|ImportedGraph")
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


def blocks_of(kind: re.Pattern[str]) -> list[object]:
    """The blocks of all pages; what is on two of them once."""
    blocks = dict.fromkeys(block for page in PAGES for block in kind.findall(page.read_text()))
    return [pytest.param(block, marks=[pytest.mark.tensorflow] * bool(_RUNS.search(block))) for block in blocks]


@pytest.mark.parametrize("block", blocks_of(_CONSOLE), ids=lambda block: block.splitlines()[0])
def test_console(block, elsewhere):
    """Every command prints what is shown."""
    assert with_output(block) == block


@pytest.mark.parametrize("block", blocks_of(_PYTHON))
def test_python(block, elsewhere, capsys):
    """The Python example runs, and prints what its comments say."""
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"# → (.*)", block)


def test_every_command_is_shown():
    """No command is a secret: the README names it, and the page of commands has an example."""
    from typer.main import get_command

    from ckpttool.cli import app

    readme, commands, _ = (page.read_text() for page in PAGES)
    names = get_command(app).list_commands(None)
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in readme or f"ckpttool {name}" not in commands] == []


def test_every_name_is_shown():
    """The page on Python has each public name, with the beginning of its docstring."""
    shown = dict(re.findall(r"(?m)^\| `(\w+)` \| (.*) \|$", PAGES[2].read_text()))
    docs = {name: inspect.getdoc(getattr(ckpttool, name)) or "" for name in ckpttool.__all__}
    assert shown == {name: doc.split("\n\n")[0].replace("\n", " ") for name, doc in docs.items()}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    """Links within the project are to files that are there, and to headings that they have."""
    for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        target = page.parent / file if file else page
        assert target.is_file(), file
        headings = re.findall(r"(?m)^#+ (.*)$", target.read_text()) if heading else []
        assert not heading or heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]


if __name__ == "__main__":
    import tempfile

    for page in PAGES:
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "fixtures").symlink_to(ROOT / "fixtures")
            os.chdir(directory)
            page.write_text(_CONSOLE.sub(lambda match: with_output(match[0]), page.read_text()))
    sys.exit()
