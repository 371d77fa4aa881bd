"""Runs commands in processes with little time and memory: a clean interpreter has imported what they need, and forks.

As a program, it reads lines of JSON, each the argument lists of some commands, and answers each with a line.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

SECONDS = 2.0
MEMORY = 200 << 20


class Ran(NamedTuple):
    """What has become of a command: exit code, what it printed, and an exception that should not have left it."""

    code: int
    out: str
    err: str
    crash: str | None


class Limited:
    """The process that forks."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            [sys.executable, __file__], text=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": path}, **pipes
        )

    def run(self, *commands: Sequence[object]) -> list[Ran]:
        """Runs the commands, one after another, in one process: within 2 s of processor time for each, and 200 MB."""
        assert self._process.stdin
        assert self._process.stdout
        print(
            json.dumps([[str(each) for each in command] for command in commands]), file=self._process.stdin, flush=True
        )
        answer = json.loads(self._process.stdout.readline())
        assert answer["seconds"] < SECONDS * len(commands), answer
        assert answer["peak"] < MEMORY, answer
        assert answer["ran"] is not None, f"the process ended with {answer['status']}"
        return [Ran(*each) for each in answer["ran"]]

    def close(self) -> None:
        self._process.communicate()


def _serve() -> None:
    """Answers until nobody asks any more."""
    import h5py  # noqa: F401 - what commands import, so that its memory and time are not theirs
    import numpy as np
    from typer.testing import CliRunner

    import ckpttool
    from ckpttool import proto
    from ckpttool.cli import app

    proto.message_class("MetaGraphDef")
    [getattr(ckpttool, name) for name in ckpttool.__all__]
    np.zeros(1)
    for line in sys.stdin:
        answer = _forked(app, CliRunner(), json.loads(line))
        print(json.dumps(answer), flush=True)


def _forked(app: Any, runner: Any, commands: list[list[str]]) -> dict[str, Any]:
    read, write = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            _limit(len(commands))
            ran = [_run(app, runner, command) for command in commands]
            with os.fdopen(write, "w") as file:
                json.dump(ran, file)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as file:
        text = file.read()
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    return {
        "ran": json.loads(text) if text else None,
        "status": os.waitstatus_to_exitcode(status),
        "seconds": seconds,
        "wall": time.monotonic() - started,
        "peak": used.ru_maxrss << 10,
    }


def _limit(commands: int) -> None:
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = int(SECONDS * commands) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    signal.alarm(10 * seconds)


def _run(app: Any, runner: Any, command: list[str]) -> Ran:
    import traceback

    ran = runner.invoke(app, command)
    crash = None
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        crash = "".join(traceback.format_exception(ran.exception))
    return Ran(ran.exit_code, ran.stdout, ran.stderr, crash)


if __name__ == "__main__":
    _serve()
