"""Runs processes and measures them.

Only what is small is imported here and in run.py: the kernel counts a process's peak memory from its parent's on.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Sample(NamedTuple):
    """One run of a process."""

    seconds: float
    peak_bytes: int


def take_turns(commands: dict[str, tuple[list[str], int]], output: Path, runs: int) -> dict[str, list[Sample]]:
    """Runs every command, which ends with the exit code beside it, once uncounted and `runs` times counted, A B C A B C
    …, and empties the directory of `output` before each.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, (command, code) in commands.items():
            shutil.rmtree(output.parent, ignore_errors=True)
            output.parent.mkdir()
            sample = run_process(command, code)
            if turn:
                samples[name].append(sample)
    return samples


def run_process(command: list[str], expected: int = 0) -> Sample:
    """Runs a process from its start to its end, on a synced disk, and reads what it prints; ends us if its exit code is
    not the expected one.
    """
    os.sync()
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        code, peak = _run(command, errors)
        seconds = time.perf_counter() - start
        if code != expected:
            errors.seek(0)
            sys.exit(f"{shlex.join(command)}: exit code {code}\n{errors.read().decode(errors='replace')}")
    return Sample(seconds, peak)


def _run(command: list[str], errors: BinaryIO) -> tuple[int, int]:
    """The process's exit code, and its peak memory in bytes."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=_environment()
    )
    assert process.stdout
    with process.stdout as printed:
        while printed.read(1 << 16):
            pass
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * _MAXRSS_UNIT


def _environment() -> dict[str, str]:
    """Ours, with compiled modules kept, as an installed program has them."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
