"""Measures ckpttool against its peers, each job as a whole process, as a user starts it.

    python tests/benchmarks/run.py [--size 2GiB] [--nodes 20000] [--runs 7] [--only GROUP] [--json FILE]

    start   list a small checkpoint and its graph: nearly all of it is what Python has to import
    export  a large checkpoint to each format: how fast bytes move, and in how much memory
    change  it on the way: slots dropped, values cast; the mean of two
    values  a large checkpoint looked through, and compared with another one, beside reading the file and no more
    verify  its checksums tested, beside reading the file and no more
    strip   the devices out of a graph of many ops
    deploy  a small model frozen, and as a SavedModel
    run     a small model: what there is to pay beside TensorFlow's import and the restoring

The jobs of a race take turns (A B C A B C …), after one turn that is not counted, so that a machine that becomes
slower does so for all of them. Before each job the output of the last one is removed and the disk is synced: nobody
pays for another's bytes. Inputs lie in the page cache, if it is large enough. What a job prints goes into a pipe.

Seconds are from the start of the process to its end; a ratio is that of medians, below 1 where the job is faster than
the peer in the column's head. Peak memory is the kernel's ru_maxrss, which is never less than that of this script.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from measure import Sample, run_process, take_turns

_HERE = Path(__file__).resolve().parent
_FIXTURE = _HERE.parents[1] / "fixtures" / "conv" / "model"
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "B": 1}


class Job(NamedTuple):
    """A process to be measured: words in {braces} are paths, `ckpttool` and `python` those of this interpreter."""

    name: str
    command: str
    tensorflow: bool = False


class Race(NamedTuple):
    """Jobs that take turns; the peers are the names of those that the others are compared with."""

    group: str
    title: str
    inputs: tuple[str, ...]
    peers: tuple[str, ...]
    jobs: tuple[Job, ...]


_IMPORTS = Job("imports", "python -c 'import typer, rich.table'")
_BUNDLE = "python {here}/inputs.py bundle {big} {size}"
_ADAM = "python {here}/inputs.py adam {big} {size}"
_WEIGHTS = "python {here}/inputs.py weights {big} {size}"
_TRAINED = "python {here}/inputs.py trained {trained} {size}"
_COPY = "python {here}/inputs.py weights {trained} {size}"
_GRAPH = "python {here}/inputs.py graph {graph} {nodes}"


def _values(what: str, command: str, inputs: tuple[str, ...], script: str) -> Race:
    """Values looked at by us, only read, and looked at by a script that a user would write."""
    files = " ".join(["{big}.data-00000-of-00001", "{trained}.data-00000-of-00001"][: len(inputs)])
    return Race(
        "values",
        f"{{mebibytes:,}} MiB {what}",
        inputs,
        ("reading", "TensorFlow + NumPy"),
        (
            Job(f"ckpttool {command.partition(' ')[0]}", f"ckpttool {command}"),
            Job("reading", f"python {{here}}/peers/read_file.py {files}"),
            Job("TensorFlow + NumPy", f"python {{here}}/peers/{script}", tensorflow=True),
        ),
    )


def _conversion(group: str, what: str, options: str, peer: str, script: str, made: str = _WEIGHTS) -> Race:
    """A large checkpoint converted by us, copied by cp, and converted by a script that a user would write."""
    return Race(
        group,
        f"a checkpoint of {{mebibytes:,}} MiB {what}",
        (made,),
        ("cp", peer),
        (
            Job("ckpttool export", f"ckpttool export {{big}} {options}"),
            Job("cp", "cp {big}.data-00000-of-00001 {output}"),
            Job(peer, f"python {{here}}/peers/{script}", tensorflow=True),
        ),
    )


RACES = (
    Race("start", "help", (), ("imports",), (Job("ckpttool --help", "ckpttool --help"), _IMPORTS)),
    Race(
        "start",
        "the variables of a small checkpoint",
        (),
        ("imports", "TensorFlow"),
        (
            Job("ckpttool vars", "ckpttool vars {small}"),
            Job("ckpttool vars, table", "ckpttool vars {small} --format table"),
            _IMPORTS,
            Job("TensorFlow", "python {here}/peers/list_variables.py {small}", tensorflow=True),
        ),
    ),
    Race(
        "start",
        "the graph of a small checkpoint",
        (),
        ("imports", "TensorFlow"),
        (
            Job("ckpttool ls", "ckpttool ls {small}.meta"),
            Job("ckpttool ls, table", "ckpttool ls {small}.meta --format table"),
            _IMPORTS,
            Job("TensorFlow", "python {here}/peers/list_graph.py {small}.meta", tensorflow=True),
        ),
    ),
    _conversion("export", "to HDF5", "--h5 {output}", "TensorFlow + h5py", "export_hdf5.py {big} {output}"),
    _conversion(
        *("export", "to safetensors", "--safetensors {output}.safetensors"),
        *("TensorFlow + safetensors", "export_safetensors.py {big} {output}"),
    ),
    _conversion("export", "to npz", "--npz {output}.npz", "TensorFlow + NumPy", "export_npz.py {big} {output}.npz"),
    _conversion("export", "to a bundle", "--tf {output}", "TensorFlow", "rewrite.py {big} {output}"),
    _conversion(
        *("change", "with Adam's slots, without them", "--tf {output} --drop-slots"),
        *("TensorFlow", "rewrite.py {big} {output} drop", _ADAM),
    ),
    _conversion(
        *("change", "to bfloat16", "--tf {output} --cast bfloat16", "TensorFlow", "rewrite.py {big} {output} cast"),
    ),
    Race(
        "change",
        "the mean of two checkpoints of {mebibytes:,} MiB",
        (_WEIGHTS, _TRAINED),
        ("cp", "TensorFlow"),
        (
            Job("ckpttool average", "ckpttool average {big} {trained} --tf {output}"),
            Job("cp", "cp {big}.data-00000-of-00001 {output}"),
            Job("TensorFlow", "python {here}/peers/average.py {output} {big} {trained}", tensorflow=True),
        ),
    ),
    Race(
        "verify",
        "a checkpoint of {mebibytes:,} MiB",
        (_BUNDLE,),
        ("reading", "cat", "TensorFlow"),
        (
            Job("ckpttool verify", "ckpttool verify {big}"),
            Job("reading", "python {here}/peers/read_file.py {big}.data-00000-of-00001"),
            Job("cat", "sh -c 'cat \"$0\" > /dev/null' {big}.data-00000-of-00001"),
            Job("TensorFlow", "python {here}/peers/read_values.py {big}", tensorflow=True),
        ),
    ),
    Race(
        "strip",
        "the devices of {nodes:,} ops",
        (_GRAPH,),
        ("TensorFlow",),
        (
            Job("ckpttool strip-devices", "ckpttool strip-devices {graph} -o {output}"),
            Job("TensorFlow", "python {here}/peers/clear_devices.py {graph} {output}", tensorflow=True),
        ),
    ),
    Race(
        "deploy",
        "a small model frozen",
        (),
        ("imports", "TensorFlow"),
        (
            Job("ckpttool freeze", "ckpttool freeze {small}.meta --outputs predictions -o {output}"),
            _IMPORTS,
            Job("TensorFlow", "python {here}/peers/freeze.py {small} {output} predictions", tensorflow=True),
        ),
    ),
    Race(
        "run",
        "a small model",
        (),
        ("TensorFlow",),
        (
            Job(
                "ckpttool run",
                "ckpttool run {small} --feed images:0=0 --broadcast --fetch predictions:0",
                tensorflow=True,
            ),
            Job("TensorFlow", "python {here}/peers/run.py {small} images:0 predictions:0", tensorflow=True),
        ),
    ),
    Race(
        "deploy",
        "a small model as a SavedModel",
        (),
        ("imports", "TensorFlow"),
        (
            Job(
                "ckpttool saved-model",
                "ckpttool saved-model {small} --inputs images:0 --outputs predictions:0 -o {output}",
            ),
            _IMPORTS,
            Job(
                "TensorFlow",
                "python {here}/peers/saved_model.py {small} {output} images:0 predictions:0",
                tensorflow=True,
            ),
        ),
    ),
)


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


def command(template: str, values: dict[str, Any]) -> list[str]:
    """The words of a job's command."""
    script = Path(sys.executable).with_name("ckpttool")
    programs = {
        "python": [sys.executable],
        "ckpttool": [str(script)] if script.exists() else [sys.executable, "-m", "ckpttool"],
    }
    program, *words = shlex.split(template)
    return [*programs.get(program, [program]), *(word.format_map(values) for word in words)]


def run(race: Race, jobs: list[Job], values: dict[str, Any], runs: int) -> list[Result]:
    """Makes the inputs and lets the jobs take turns."""
    for template in race.inputs:
        run_process(command(template, values))
    commands = {job.name: command(job.command, values) for job in jobs}
    return list(results(take_turns(commands, values["output"], runs), race.peers))


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


def tensorflow_version() -> tuple[str | None, str]:
    """TensorFlow's version, or None and the reason why it can't be imported."""
    code = "import tensorflow; print(tensorflow.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        return None, done.stderr.strip().rpartition("\n")[2]
    return done.stdout.strip(), ""


def parse_size(text: str) -> int:
    """Bytes: 2GiB, 256MiB, 1000."""
    number, unit = next(((text.removesuffix(u), u) for u in _UNITS if text.endswith(u)), (text, "B"))
    return int(float(number) * _UNITS[unit])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure ckpttool against its peers.")
    parser.add_argument("--size", type=parse_size, default="2GiB", help="bytes of the checkpoint to export")
    parser.add_argument("--nodes", type=int, default=20_000, help="ops of the graph to strip")
    parser.add_argument("--runs", type=int, default=7, help="runs of each job that count")
    parser.add_argument("--only", metavar="GROUP", choices=sorted({race.group for race in RACES}))
    parser.add_argument("--scratch", metavar="DIR", help="where to make inputs and outputs; they are removed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every number here")
    return parser.parse_args()


def paths(scratch: Path) -> dict[str, Any]:
    """Where inputs and outputs lie."""
    made = {name: scratch / name for name in ("big", "trained", "graph")} | {"output": scratch / "output" / "model"}
    return made | {"here": _HERE, "small": small(scratch)}


def small(scratch: Path) -> Path:
    """The prefix of the small checkpoint: the repository's, else one that we make."""
    if _FIXTURE.with_name("model.meta").exists():
        return _FIXTURE
    prefix = scratch / "small"
    for kind, path, amount in (("bundle", f"{prefix}", "1048576"), ("graph", f"{prefix}.meta", "100")):
        run_process([sys.executable, f"{_HERE}/inputs.py", kind, path, amount])
    return prefix


def report(race: Race, arguments: argparse.Namespace, tensorflow: bool) -> dict[str, Any]:
    """Runs a race in a directory of its own, prints its table, and gives its numbers."""
    jobs = [job for job in race.jobs if tensorflow or not job.tensorflow]
    sizes = {"size": arguments.size, "mebibytes": arguments.size >> 20, "nodes": arguments.nodes}
    with tempfile.TemporaryDirectory(prefix="ckpttool-benchmark-", dir=arguments.scratch) as scratch:
        measured = run(race, jobs, paths(Path(scratch)) | sizes, arguments.runs)
    title = f"{race.group}: {race.title.format_map(sizes)}"
    print_table(title, measured)
    return {"group": race.group, "title": title, "results": [asdict(result) for result in measured]}


def main() -> None:
    arguments = parse_arguments()
    version, problem = tensorflow_version()
    facts = {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": version,
        "runs": arguments.runs,
    }
    print(" · ".join(f"{fact} {value}" for fact, value in facts.items()), flush=True)
    if problem:
        print(f"rows of TensorFlow are skipped: {problem}")
    chosen = [race for race in RACES if arguments.only in (None, race.group)]
    races = [report(race, arguments, tensorflow=version is not None) for race in chosen]
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "races": races}, indent=2) + "\n")


if __name__ == "__main__":
    main()
