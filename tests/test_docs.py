"""docs/json.md says what the commands print."""

import json
import re

import pytest
from conftest import FIXTURES, ROOT

TEXT = (ROOT / "docs" / "json.md").read_text()


def documented() -> dict[tuple[str, str], list[str]]:
    """The keys of each list of each schema."""
    found, schema = {}, ""
    for line in re.findall(r"^\| (?!schema|---)(.*) \|$", TEXT, re.MULTILINE):
        first, second, keys = (
            (cell.strip() for cell in line.split(" | ", 2))
            if not line.startswith("|")
            else (
                "",
                *(cell.strip() for cell in line[1:].split(" | ", 1)),
            )
        )
        schema = first or schema
        name = re.match(r"`(\w+)`", second)[1]
        found[schema, name] = re.findall(r"`(\w+)`", keys.partition(";")[0])
    return found


COMMANDS = [
    ["vars", FIXTURES / "objects" / "model-1"],
    ["vars", FIXTURES / "conv" / "model", "--tree"],
    ["ls", FIXTURES / "devices" / "model.meta"],
    ["ls", FIXTURES / "recurrent" / "model", "--ops", "--collections"],
    ["io", FIXTURES / "linear" / "model"],
    ["objects", FIXTURES / "objects" / "model-1"],
    ["state", FIXTURES / "linear"],
    ["export", FIXTURES / "linear" / "model", "--h5", "x", "--dry-run"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(map(str, [c[0], *c[2:]])))
def test_keys_are_documented(run, command):
    """Every list that a command prints is in the table, with just these keys."""
    document = json.loads(run(*command, "--json").stdout)
    tables = documented()
    for name, rows in document.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            assert list(rows[0]) == tables[document["schema"], name]


def test_every_documented_list_is_printed_by_some_command(run):
    """No list in the table is a thing of the past; signatures and functions are those of ls when asked for."""
    printed = set()
    for command in [*COMMANDS, ["ls", FIXTURES / "linear" / "model", "--signatures", "--functions"]]:
        document = json.loads(run(*command, "--json").stdout)
        printed |= {(document["schema"], name) for name, rows in document.items() if isinstance(rows, list)}
    assert set(documented()) <= printed
