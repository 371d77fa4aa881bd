"""docs/json.md says what the commands print, docs/formats.md what the writers do."""

import json
import re
import shutil
from importlib import import_module

import pytest
from conftest import FIXTURES, ROOT

from ckpttool.formats.raw import RawSource, Run
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.slices import ByteRange

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
    ["export", FIXTURES / "linear" / "model", "--h5", "x", "--dry-run", "--salvage"],
    ["verify", FIXTURES / "dtypes" / "model", "--nan"],
    ["stats", FIXTURES / "linear" / "model"],
    ["diff", FIXTURES / "linear" / "model", FIXTURES / "conv" / "model"],
    ["diff", FIXTURES / "partitioned" / "model", FIXTURES / "partitioned" / "slices"],
    ["diff", FIXTURES / "linear" / "model.meta", FIXTURES / "conv" / "model.meta"],
    ["diff", FIXTURES / "linear" / "model.meta", FIXTURES / "conv" / "model"],
]


RUN = ["run", FIXTURES / "linear" / "model", FIXTURES / "linear" / "model", "--feed", "x=[50]"]


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, pytest.param(RUN, marks=pytest.mark.tensorflow)],
    ids=lambda c: " ".join(map(str, [c[0], *c[2:]])),
)
def test_keys_are_documented(run, command):
    """Every list that a command prints is in the table, with just these keys."""
    document = json.loads(run(*command, "--json").stdout)
    tables = documented()
    for name, rows in document.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            assert list(rows[0]) == tables[document["schema"], name]


@pytest.mark.tensorflow
def test_every_documented_list_is_printed_by_some_command(run, tmp_path):
    """Each has a row somewhere, with just its keys: none in the table is a thing of the past, or never looked at."""
    linear, served, damaged = FIXTURES / "linear" / "model", tmp_path / "served", tmp_path / "model"
    run("saved-model", linear, "--inputs", "x=x:0", "--outputs", "y=activation_opt:0", "-o", served)
    shutil.copy(f"{linear}.data-00000-of-00001", tmp_path)
    (tmp_path / "model.index").write_bytes(linear.with_name("model.index").read_bytes()[:-14])
    further = [
        ["ls", served, "--signatures"],
        ["ls", FIXTURES / "devices" / "model.meta", "--functions", "--constants"],
        ["verify", damaged],
        ["export", damaged, "--h5", "x", "--dry-run", "--salvage"],
        ["average", linear, shutil.copytree(linear.parent, tmp_path / "again"), "--h5", "x", "--dry-run"],
    ]
    tables, printed = documented(), set()
    for command in [*COMMANDS, RUN, *further]:
        document = json.loads(run(*command, "--json").stdout)
        for name, rows in document.items():
            if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                assert list(rows[0]) == tables[document["schema"], name]
                printed.add((document["schema"], name))
    assert set(tables) == printed


FORMATS = {
    "HDF5": ("hdf5", "plan_hdf5"),
    "NumPy": ("npz", "plan_npz"),
    "safetensors": ("safetensors", "plan_safetensors"),
    "V1 checkpoint": ("tensor_slices.writing", "plan_tensor_slices"),
}


def stored_as(format: str, dtype: DType) -> str:
    """What a format's writer plans for a dtype, in the words of the table."""
    module, plan = FORMATS[format]
    variable = RawSource().add("name", dtype, (0,), Run(ByteRange(__file__, 0, 0, None)))
    [planned] = getattr(import_module(f"ckpttool.formats.{module}"), plan)(
        Checkpoint({"name": variable}, path="", format="")
    )
    return "left out" if planned.problem else planned.fallback or "itself"


def dtype_table() -> str:
    """The table of docs/formats.md."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for dtype in DTYPES.values():
        cells = tuple(stored_as(format, dtype) for format in FORMATS)
        if set(cells) != {"left out"}:
            rows.setdefault(cells, []).append(f"`{dtype.name}`")
    lines = [("dtype", *FORMATS), *((" ".join(names), *cells) for cells, names in rows.items())]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body])


def test_what_formats_hold_is_documented():
    """docs/formats.md has of each dtype what the writers plan for it."""
    assert dtype_table() in (ROOT / "docs" / "formats.md").read_text()
