"""Measures ckpttool against its peers, each job as a whole process, as a user starts it.

    python tests/benchmarks/run.py [--only GROUP …] [--runs 7] [--size 2GiB] [--variables 100000] [--nodes 300000]
                                   [--pieces 40MiB] [--without-tensorflow] [--netron DIR] [--scratch DIR] [--json FILE]

`races.py` has the groups and their jobs. The jobs of a race take turns (A B C A B C …), after one turn that is not
counted, so that a machine that becomes slower does so for all of them. Before each job the output of the last one is
removed and the disk is synced: nobody pays for another's bytes. Inputs lie in the page cache, if it is large enough.
What a job prints goes into a pipe.

Seconds are from the start of the process to its end; a ratio is that of medians, below 1 where the job is faster than
the peer in the column's head. Peak memory is the kernel's ru_maxrss, which is never less than that of this script.
"""

import argparse
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measure import Sample, run_process, take_turns
from races import INPUTS, RACES, Job, Race

_HERE = Path(__file__).resolve().parent
_FIXTURE = _HERE.parents[1] / "fixtures" / "conv" / "model"
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "B": 1}


@dataclass
class Result:
    """The runs of a job, and its median's ratio to each peer's."""

    job: str
    seconds: list[float]
    peak_bytes: int
    ratios: dict[str, float]

    @property
    def cells(self) -> list[str]:
        return [
            self.job,
            f"{median(self.seconds):.3f}",
            f"{min(self.seconds):.3f}-{max(self.seconds):.3f}",
            f"{self.peak_bytes / 2**20:,.0f}",
            *(f"{ratio:.2f}" for ratio in self.ratios.values()),
        ]


def command(template: str, paths: dict[str, Any]) -> list[str]:
    """The words of a job's command."""
    programs = {"python": [sys.executable], "ckpttool": [sys.executable, "-m", "ckpttool"]}
    for name in ("ckpttool", "saved_model_cli"):
        script = Path(sys.executable).with_name(name)
        programs |= {name: [str(script)]} if script.exists() else {}
    program, *words = shlex.split(template)
    return [*programs.get(program, [program]), *(word.format_map(paths) for word in words)]


def results(samples: dict[str, list[Sample]], peers: tuple[str, ...]) -> Iterator[Result]:
    medians = {job: median(sample.seconds for sample in taken) for job, taken in samples.items()}
    for job, taken in samples.items():
        ratios = {peer: medians[job] / medians[peer] for peer in peers if peer in medians}
        yield Result(job, [sample.seconds for sample in taken], max(sample.peak_bytes for sample in taken), ratios)


def print_table(title: str, measured: list[Result]) -> None:
    head = ["", "median s", "min-max s", "peak MiB", *(f"/ {peer}" for peer in measured[0].ratios)]
    lines = [head, *(result.cells for result in measured)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for first, *others in lines:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]), flush=True)


class Inputs:
    """What jobs read and write, in a directory: inputs are made when they are first needed, and kept."""

    def __init__(self, scratch: Path, arguments: argparse.Namespace) -> None:
        self._scratch, self._arguments = scratch, arguments
        self.paths: dict[str, Any] = {"here": _HERE, "netron": arguments.netron, "output": scratch / "output" / "model"}
        self.paths["small"] = _FIXTURE

    def require(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.paths:
                kind, option = INPUTS[name]
                (self._scratch / name).mkdir()
                self.paths[name] = self._scratch / name / "model"
                amount = getattr(self._arguments, option, 0)
                run_process([sys.executable, f"{_HERE}/inputs.py", kind, str(self.paths[name]), str(amount)])

    def keep(self, names: set[str]) -> None:
        """Removes the inputs that are not among these."""
        for name in INPUTS.keys() & self.paths.keys() - names:
            shutil.rmtree(self.paths.pop(name).parent)


def run(race: Race, jobs: Sequence[Job], inputs: Inputs, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs a race, prints its table, and gives its numbers."""
    inputs.require(race.inputs)
    commands = {job.name: (command(job.command, inputs.paths), job.code) for job in jobs}
    measured = list(results(take_turns(commands, inputs.paths["output"], arguments.runs), race.peers))
    amounts = {name: f"{getattr(arguments, name):,}" for name in ("variables", "nodes")}
    amounts |= {name: f"{getattr(arguments, name) >> 20:,} MiB" for name in ("size", "pieces")}
    title = f"{race.group}: {race.title.format_map(amounts)}"
    print_table(title, measured)
    return {"group": race.group, "title": title, "results": [asdict(result) for result in measured]}


def tensorflow_version() -> tuple[str | None, str]:
    """TensorFlow's version, or None and the reason why it can't be imported."""
    code = "import tensorflow; print(tensorflow.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return None, done.stderr.strip().rpartition("\n")[2]
    return done.stdout.strip(), ""


def missing(arguments: argparse.Namespace) -> dict[str, str]:
    """What jobs need and is not here, with the reason."""
    version, problem = tensorflow_version()
    found = {} if version else {"tensorflow": problem}
    if arguments.without_tensorflow:
        found["tensorflow"] = "by --without-tensorflow"
    if not shutil.which("node") or not (arguments.netron / "tf.js").exists():
        found["netron"] = "it takes Node.js, and Netron's sources: pip install netron"
    return found


def netron_sources() -> Path:
    """Where the Python package Netron has its JavaScript."""
    spec = importlib.util.find_spec("netron")
    return Path(spec.origin or "").parent if spec else Path("netron")


def parse_size(text: str) -> int:
    """Bytes: 2GiB, 256MiB, 1000."""
    number, unit = next(((text.removesuffix(u), u) for u in _UNITS if text.endswith(u)), (text, "B"))
    return int(float(number) * _UNITS[unit])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure ckpttool against its peers.")
    groups = list(dict.fromkeys(race.group for race in RACES))
    parser.add_argument("--only", metavar="GROUP", choices=groups, nargs="+", default=groups, help=", ".join(groups))
    parser.add_argument("--runs", type=int, default=7, help="runs of each job that count")
    parser.add_argument("--size", type=parse_size, default="2GiB", help="bytes of a large checkpoint")
    parser.add_argument("--variables", type=int, default=100_000, help="of a checkpoint of many")
    parser.add_argument("--nodes", type=int, default=300_000, help="ops of a large graph")
    parser.add_argument("--pieces", type=parse_size, default="40MiB", help="bytes that are stored in many pieces")
    parser.add_argument("--without-tensorflow", action="store_true", help="leave its rows out: of 16 GiB they fail")
    parser.add_argument("--netron", metavar="DIR", type=Path, default=netron_sources(), help="Netron's JavaScript")
    parser.add_argument("--scratch", metavar="DIR", help="where to make inputs and outputs; they are removed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every number here")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    lacking = missing(arguments)
    facts = {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": tensorflow_version()[0],
        "runs": arguments.runs,
    }
    print(" · ".join(f"{fact} {value}" for fact, value in facts.items()), flush=True)
    for need, problem in lacking.items():
        print(f"rows of {need} are skipped: {problem}")
    chosen = [race for race in RACES if race.group in arguments.only]
    with tempfile.TemporaryDirectory(prefix="ckpttool-benchmark-", dir=arguments.scratch) as scratch:
        inputs, races = Inputs(Path(scratch), arguments), []
        for number, race in enumerate(chosen):
            jobs = [job for job in race.jobs if job.needs not in lacking]
            races.append(run(race, jobs, inputs, arguments))
            inputs.keep({name for later in chosen[number + 1 :] for name in later.inputs})
            if arguments.json:
                arguments.json.write_text(json.dumps({"machine": facts, "races": races}, indent=2) + "\n")


if __name__ == "__main__":
    main()
