"""Tries inputs that nobody would make by hand, and counts them.

    python tests/fuzz/run.py --seconds 60 [--target bundle] [--seed 0] [--processes 2]
    python tests/fuzz/run.py --inputs 10_000_000 --processes 2
    python tests/fuzz/run.py --replay FINDING

Each input is known by target, seed and number, and is made anew from them: however many processes there are, the
inputs of a number are the same. They are tried in child processes, which may die or hang: then their last input is the
finding. A finding is a file that `--replay` takes, with the files it is made of; the fuzzing goes on behind it. Files
are made in memory where there is /dev/shm, or where TMPDIR says.

Exit code 0: no findings; 1: some, which are listed; 130: interrupted, with the counts so far.
"""

import argparse
import base64
import importlib
import json
import math
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

import ckpttool
from fuzz.children import Finding, Fuzzing
from fuzz.registry import TARGETS
from fuzz.trying import FindingError, limit, make_input, try_one

_MEMORY = "/dev/shm"
_TOLD = 60


def save(directory: Path, seed: str, finding: Finding) -> Path:
    """Writes a finding, to be replayed."""
    target = TARGETS[finding.target]
    files, _ = make_input(target, target.corpus(), seed, finding.number)
    encoded = {file: base64.b64encode(data).decode() for file, data in files.items()}
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{finding.target}-{seed}-{finding.number}.json"
    path.write_text(json.dumps({**finding._asdict(), "seed": seed, "files": encoded}, indent=1))
    return path


def replay(path: str) -> int:
    """Tries a finding again: its exit code."""
    finding = json.loads(Path(path).read_text())
    target = TARGETS[finding["target"]]
    files = {name: base64.b64decode(data) for name, data in finding["files"].items()}
    # What is done with the input is drawn behind it.
    _, random = make_input(target, target.corpus(), finding["seed"], finding["number"])
    limit()
    with tempfile.TemporaryDirectory() as directory:
        try:
            try_one(target, files, random, directory)
        except FindingError as error:
            print(error)
            return 1
    print("nothing is wrong with it")
    return 0


def _prepare() -> None:
    """Imports what children would import, each of them, and finds a place for files that no disk has to keep."""
    for module in pkgutil.walk_packages(ckpttool.__path__, "ckpttool."):
        if not module.name.startswith(("ckpttool.runtime", "ckpttool.__main__")):
            importlib.import_module(module.name)
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK):
        tempfile.tempdir = _MEMORY


def _fuzz(fuzzing: Fuzzing, seed: str, directory: Path) -> None:
    """Runs it, writes the findings, and tells every minute how far it is."""
    began = told = time.monotonic()
    for finding in fuzzing.run():
        now = time.monotonic()
        if finding:
            path = save(directory, seed, finding)
            last = finding.text.strip().splitlines()[-1][:300]
            print(f"{last} · python tests/fuzz/run.py --replay {path}", flush=True)
        elif now - told > _TOLD:
            told = now
            tried = sum(share.tried for share in fuzzing.shares)
            print(f"{tried:,} inputs in {now - began:,.0f} s", file=sys.stderr, flush=True)


def _tell(fuzzing: Fuzzing, seconds: float) -> None:
    for share in fuzzing.shares:
        rate = share.tried / max(share.seconds, 1e-9)
        print(
            f"{share.name}: {share.tried:,} inputs in {share.seconds:,.0f} s, {rate:,.0f} a second,"
            f" {share.findings} findings"
        )
    tried, found = (sum(getattr(share, name) for share in fuzzing.shares) for name in ("tried", "findings"))
    print(f"{tried:,} inputs in {seconds:,.0f} s, {found} findings · go on with --first {_first(fuzzing)}")


def _first(fuzzing: Fuzzing) -> int:
    return max(share.next for share in fuzzing.shares)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="in all, by the clock; default: 60, without --inputs")
    parser.add_argument("--inputs", type=int, help="how many in all, the same number for each target")
    parser.add_argument("--processes", type=int, default=1, help="how many at a time")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="where findings are written")
    parser.add_argument("--most", type=int, default=20, help="findings of a target after which it is left")
    parser.add_argument("--replay", metavar="FINDING")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    _prepare()
    seconds = arguments.seconds or (60 if arguments.inputs is None else math.inf)
    options = {name: getattr(arguments, name) for name in ("inputs", "processes", "first", "most")}
    fuzzing = Fuzzing(arguments.target or list(TARGETS), arguments.seed, seconds=seconds, **options)
    began, interrupted = time.monotonic(), False
    try:
        _fuzz(fuzzing, arguments.seed, arguments.findings)
    except KeyboardInterrupt:
        interrupted = True
    _tell(fuzzing, time.monotonic() - began)
    return 130 if interrupted else 1 if any(share.findings for share in fuzzing.shares) else 0


if __name__ == "__main__":
    sys.exit(main())
