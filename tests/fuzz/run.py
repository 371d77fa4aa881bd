"""Tries inputs that nobody would make by hand, and counts them.

    python tests/fuzz/run.py --seconds 60 [--target bundle] [--seed 0]
    python tests/fuzz/run.py --replay FINDING

Each input is known by target, seed and number, and is made anew from them. They are tried in a child process, which
may die or hang: then its last input is the finding. A finding is a file that `--replay` takes, with the files it is
made of; the fuzzing goes on behind it. Exit code 0: no findings; 1: some, which are listed.

What is a finding: an exception other than CheckpointError and OSError, more than 2 s, more than 200 MB of memory
beyond what the process has at its start, a process that dies.
"""

import argparse
import base64
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.targets import ANSWERS, TARGETS, Files, Target

SECONDS = 2.0
MEMORY = 200 << 20
# How many inputs a child takes before another one is begun: what leaks, leaks no further.
_BATCH = 20_000
_DEAD = 20.0


class Hang(BaseException):
    """An input took too long."""


class FindingError(Exception):
    """What is wrong, with where it arose."""


def make_input(target: Target, corpus: list[Files], seed: str, number: int) -> tuple[Files, Random]:
    """The input of this number, and what chooses among the things to do with it."""
    random = Random(f"{seed}/{number}")
    files, other = random.choice(corpus), random.choice(corpus)
    return target.change(random, files, other), random


def try_one(target: Target, files: Files, random: Random, directory: str) -> None:
    """Tries an input.

    Raises:
        FindingError: it is one.
    """
    os.mkdir(directory)
    try:
        for name, data in files.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        signal.setitimer(signal.ITIMER_REAL, SECONDS, 0.25)
        try:
            target.try_input(directory, random)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except ANSWERS:
        pass
    except (Exception, Hang) as error:
        raise FindingError(traceback.format_exc(limit=-12)) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _give_up(signum: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS} s")


def _limit() -> None:
    """Bounds this process' memory, and catches what takes too long."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _give_up)


def _child(name: str, seed: str, first: int, end: float, place: mmap.mmap, scratch: str) -> None:
    """Tries inputs from a number on, until the time is over, the batch is through, or there is a finding."""
    target, corpus = TARGETS[name], _corpora[name]
    _limit()
    for number in range(first, first + _BATCH):
        place[:8] = struct.pack("<Q", number)
        files, random = make_input(target, corpus, seed, number)
        try:
            try_one(target, files, random, os.path.join(scratch, "input"))
        except FindingError as finding:
            Path(scratch, "finding").write_text(str(finding), errors="backslashreplace")
            os._exit(1)
        if time.monotonic() > end:
            break
    place[:8] = struct.pack("<Q", number + 1)
    os._exit(0)


_corpora: dict[str, list[Files]] = {}


def fuzz(name: str, seed: str, seconds: float, first: int = 0) -> Iterator[tuple[int, str | None]]:
    """Fuzzes a target: gives the number to go on at, and a finding's text if the input before it is one."""
    _corpora[name] = TARGETS[name].corpus()
    end, number = time.monotonic() + seconds, first
    place = mmap.mmap(-1, 8)
    while time.monotonic() < end:
        scratch = tempfile.mkdtemp(prefix="fuzz-")
        place[:8] = struct.pack("<Q", number)
        child = os.fork()
        if not child:
            try:
                _child(name, seed, number, end, place, scratch)
            finally:
                traceback.print_exc()
                os._exit(3)
        status = _wait(child, place)
        number = struct.unpack("<Q", place[:8])[0]
        told = Path(scratch, "finding")
        text = told.read_text() if told.exists() else f"the process ended with {status}" if status else None
        shutil.rmtree(scratch, ignore_errors=True)
        number += text is not None
        yield number, text


def _wait(child: int, place: mmap.mmap) -> int:
    """The exit code of a child, which is killed when it gets stuck where no signal handler runs."""
    before, since = b"", time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if place[:8] != before:
            before, since = place[:8], time.monotonic()
        elif time.monotonic() - since > _DEAD:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def save(directory: Path, name: str, seed: str, number: int, text: str) -> Path:
    """Writes a finding, to be replayed."""
    files, _ = make_input(TARGETS[name], _corpora[name], seed, number)
    encoded = {file: base64.b64encode(data).decode() for file, data in files.items()}
    path = directory / f"{name}-{seed}-{number}.json"
    finding = {"target": name, "seed": seed, "number": number, "error": text, "files": encoded}
    path.write_text(json.dumps(finding, indent=1))
    return path


def replay(path: str) -> int:
    """Tries a finding again: its exit code."""
    finding = json.loads(Path(path).read_text())
    target = TARGETS[finding["target"]]
    files = {name: base64.b64decode(data) for name, data in finding["files"].items()}
    # What is done with the input is drawn behind it.
    _, random = make_input(target, target.corpus(), finding["seed"], finding["number"])
    _limit()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            try_one(target, files, random, os.path.join(scratch, "input"))
        except FindingError as error:
            print(error)
            return 1
    print("nothing is wrong with it")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all, one after another")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--findings", type=Path, default=Path("findings"), help="where findings are written")
    parser.add_argument("--most", type=int, default=20, help="findings of a target after which it is left")
    parser.add_argument("--replay", metavar="FINDING")
    arguments = parser.parse_args()
    if arguments.replay:
        return replay(arguments.replay)
    names = arguments.target or list(TARGETS)
    found, total, started = 0, 0, time.monotonic()
    for name in names:
        begun, number, own = time.monotonic(), 0, 0
        for number, text in fuzz(name, arguments.seed, arguments.seconds / len(names)):
            if text:
                arguments.findings.mkdir(parents=True, exist_ok=True)
                path = save(arguments.findings, name, arguments.seed, number - 1, text)
                print(f"{text.strip().splitlines()[-1][:300]} · python tests/fuzz/run.py --replay {path}", flush=True)
                own += 1
            if own >= arguments.most:
                break
        seconds = time.monotonic() - begun
        print(
            f"{name}: {number:,} inputs in {seconds:.0f} s, {number / seconds:,.0f} a second, {own} findings",
            flush=True,
        )
        found, total = found + own, total + number
    print(f"{total:,} inputs in {time.monotonic() - started:.0f} s, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
