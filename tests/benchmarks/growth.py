"""How time and memory grow with the work: each job on inputs of several sizes, and what came of it as curves.

    python tests/benchmarks/growth.py [--runs 3] [--most-variables 1000000] [--most-nodes 1000000] [--most-bytes 16GiB]
                                      [--plot docs/growth] [--scratch DIR] [--json FILE]

On axes of logarithms what is linear is straight, with a slope of 1: a job that is steeper than that, in any of its
steps, has a cliff. Small inputs take no more than Python's start, and are flat. `--plot` writes FILE.svg and FILE.png,
and needs matplotlib.
"""

import argparse
import json
import shutil
import sys
import tempfile
from itertools import pairwise
from math import log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from measure import run_process, take_turns
from run import command, parse_size

_HERE = Path(__file__).resolve().parent


class Curve(NamedTuple):
    """A job on inputs of one kind: what they are counted in, and the command."""

    name: str
    of: str
    kind: str
    command: str


CURVES = (
    Curve("vars", "variables", "many", "ckpttool vars {input}"),
    Curve("vars --json", "variables", "many", "ckpttool vars {input} --json"),
    Curve("cat", "variables", "many", "ckpttool cat {input} model/layer_0000/block_500/kernel"),
    Curve("export --safetensors", "variables", "many", "ckpttool export {input} --safetensors {output}.safetensors"),
    Curve("export --tf", "variables", "many", "ckpttool export {input} --tf {output}"),
    Curve("ls", "nodes", "graph", "ckpttool ls {input}.meta"),
    Curve("io", "nodes", "graph", "ckpttool io {input}.meta"),
    Curve("strip-devices", "nodes", "graph", "ckpttool strip-devices {input}.meta -o {output}"),
    Curve("verify", "bytes", "bundle", "ckpttool verify {input}"),
    Curve("stats", "bytes", "bundle", "ckpttool stats {input}"),
    Curve("cp", "bytes", "bundle", "cp {input}.data-00000-of-00001 {output}"),
    Curve("export --h5", "bytes", "bundle", "ckpttool export {input} --h5 {output}"),
    Curve("export --safetensors", "bytes", "bundle", "ckpttool export {input} --safetensors {output}.safetensors"),
    Curve("export --tf", "bytes", "bundle", "ckpttool export {input} --tf {output}"),
)
_LEAST = {"variables": 1_000, "nodes": 1_000, "bytes": 1 << 26}
_STEP = {"variables": 10, "nodes": 10, "bytes": 4}


class Point(NamedTuple):
    """The median of a job's seconds and its peak memory in bytes, on an input of a size."""

    size: int
    seconds: float
    peak_bytes: int


def sizes(of: str, most: int) -> list[int]:
    found = [_LEAST[of]]
    while found[-1] * _STEP[of] <= most:
        found.append(found[-1] * _STEP[of])
    return found


def measure(of: str, most: int, runs: int, scratch: Path) -> dict[str, list[Point]]:
    """The points of all curves over inputs that are counted in the same: each input is made once for all of them."""
    curves = [curve for curve in CURVES if curve.of == of]
    points: dict[str, list[Point]] = {curve.name: [] for curve in curves}
    for size in sizes(of, most):
        directory = scratch / "input"
        directory.mkdir()
        paths: dict[str, Any] = {"input": directory / "model", "output": scratch / "output" / "model"}
        run_process([sys.executable, f"{_HERE}/inputs.py", curves[0].kind, str(paths["input"]), str(size)])
        commands = {curve.name: (command(curve.command, paths), 0) for curve in curves}
        for name, taken in take_turns(commands, paths["output"], runs).items():
            seconds = median(sample.seconds for sample in taken)
            points[name].append(Point(size, seconds, max(sample.peak_bytes for sample in taken)))
            print(f"{name} · {size:,} {of} · {seconds:.3f} s · {points[name][-1].peak_bytes >> 20} MiB", flush=True)
        shutil.rmtree(directory)
    return points


def slope(points: list[Point]) -> float:
    """The slope of the steepest step."""
    return max(
        log(after.seconds / before.seconds) / log(after.size / before.size) for before, after in pairwise(points)
    )


def plot(curves: dict[str, dict[str, list[Point]]], path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ckpttool"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(curves), figsize=(5 * len(curves), 7.5), layout="constrained", sharex="col")
    for column, (of, jobs) in enumerate(curves.items()):
        time, memory = axes[0][column], axes[1][column]
        for name, points in jobs.items():
            x = [point.size for point in points]
            time.loglog(x, [point.seconds for point in points], "o-", label=f"{name}: {slope(points):.2f}")
            memory.loglog(x, [point.peak_bytes / 2**20 for point in points], "o-", label=name)
        time.set_ylabel("seconds")
        memory.set_ylabel("peak memory, MiB")
        memory.set_xlabel(of)
        time.legend(title="slope of the steepest step", fontsize="small", title_fontsize="small")
        for axis in (time, memory):
            axis.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(f"{path}.svg", metadata={"Date": None})
    figure.savefig(f"{path}.png", dpi=100)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure how ckpttool's time and memory grow.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each job that count")
    parser.add_argument("--most-variables", type=int, default=1_000_000)
    parser.add_argument("--most-nodes", type=int, default=1_000_000)
    parser.add_argument("--most-bytes", type=parse_size, default="16GiB")
    parser.add_argument("--plot", metavar="FILE", help="write FILE.svg and FILE.png")
    parser.add_argument("--scratch", metavar="DIR", help="where to make inputs and outputs; they are removed")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every number here")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    curves = {}
    with tempfile.TemporaryDirectory(prefix="ckpttool-growth-", dir=arguments.scratch) as scratch:
        for of in _LEAST:
            curves[of] = measure(of, getattr(arguments, f"most_{of}"), arguments.runs, Path(scratch))
    for of, jobs in curves.items():
        for name, points in jobs.items():
            print(f"{name} · slope of the steepest step over {of}: {slope(points):.2f}")
    if arguments.plot:
        plot(curves, arguments.plot)
    if arguments.json:
        arguments.json.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
