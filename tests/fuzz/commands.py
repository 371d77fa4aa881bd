"""Whole commands on damaged files: they end with an exit code that is documented, one line for an error, and nothing
raw for the terminal.
"""

import os
from collections.abc import Mapping
from functools import cache, partial
from random import Random
from typing import Any

from ckpttool.formats.checkpoint_state import STATE_FILE
from fuzz import targets
from fuzz.targets import Target

_CODES = {0, 1, 2, 3, 4, 5}
_ERRORS = {3, 4, 5}
_FORMATS = ("table", "tsv", "csv", "json", "md")

# What can be done with a checkpoint, where {} is it, and OUT is a path beside.
_CHECKPOINT = [
    "vars {}",
    "vars {} --tree",
    "vars {} --sort bytes --top 3",
    "objects {}",
    "verify {} --strict --nan",
    "stats {}",
    "diff {} {}",
    "diff {} {} --structure",
    "cat {} a/b --full",
    "cat {} s --json",
    "state {}",
    "ls {}",
    "export {} --npz OUT.npz --salvage",
    "export {} --h5 OUT.h5 --salvage",
    "export {} --tf OUT --salvage",
    "export {} --tf-v1 OUT --drop-slots",
    "export {} --safetensors OUT.safetensors --dry-run",
    "export {} --npy OUT --cast float16 --include a*",
    "average {} {} --npz OUT.npz",
]
_GRAPH = [
    "ls {}",
    "ls {} --ops --all",
    "ls {} --functions --signatures --collections --variables --devices",
    "io {}",
    "strip-devices {} -o OUT.meta --all",
    "collections {} --add c=y:0 -o OUT.meta",
    "collections {} --remove outputs -o OUT.meta",
    "freeze {} --outputs y -o OUT.pb",
    "freeze {} --outputs activation_opt -o OUT.pb",
    "saved-model {} --outputs y=y:0 -o OUT",
    "saved-model {} -o OUT",
    "diff {} {} --graphs",
    "diff {} {}",
    "verify {}",
]


@cache
def _app() -> Any:
    os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "_TYPER_FORCE_DISABLE_TERMINAL": "1", "NO_COLOR": "1"}
    from ckpttool.cli import app

    return app


def _try(name: str, commands: list[str], directory: str, random: Random) -> None:
    from typer.testing import CliRunner

    app, path = _app(), os.path.join(directory, name)
    command = random.choice(commands)
    words = [word.replace("{}", path).replace("OUT", os.path.join(directory, "out")) for word in command.split()]
    if command.split()[0] in ("vars", "objects", "verify", "stats", "diff", "state", "ls", "io"):
        words += ["--format", random.choice(_FORMATS)]
    before = {each: os.stat(os.path.join(directory, each)).st_mtime_ns for each in os.listdir(directory)}
    ran = CliRunner().invoke(app, words)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code in _CODES, (words, ran.exit_code)
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == (ran.exit_code in _ERRORS), (words, ran.exit_code, ran.stderr)
    raw = {c for c in ran.stdout + ran.stderr if not c.isprintable() and c not in "\n\t"}
    assert not raw, (words, raw)
    after = os.listdir(directory)
    assert not [each for each in after if each.endswith(".tmp")], after
    assert all(each in before or each.startswith("out") or each == STATE_FILE for each in after), after
    assert all(os.stat(os.path.join(directory, each)).st_mtime_ns == then for each, then in before.items()), words


def _target(name: str, path: str, commands: list[str]) -> Target:
    made = targets.TARGETS[name]
    return Target(made.corpus, made.change, partial(_try, path, commands))


TARGETS: Mapping[str, Target] = {
    "bundle-commands": _target("bundle", "m", _CHECKPOINT),
    "v1-commands": _target("v1", "m", _CHECKPOINT),
    "safetensors-commands": _target("safetensors", "m.safetensors", _CHECKPOINT),
    "npz-commands": _target("npz", "m.npz", _CHECKPOINT),
    "npy-commands": _target("npy", "m.npy", _CHECKPOINT),
    "graph-commands": _target("graph", "m.meta", _GRAPH),
    "saved-model-commands": _target("saved-model", "saved_model.pb", _GRAPH),
    "state-commands": _target("state", "", ["state {}", "vars {}", "ls {}", "verify {}"]),
}
"""The targets that are tried as commands, by name."""
