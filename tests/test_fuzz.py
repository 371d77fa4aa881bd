"""The fuzz driver: its inputs are what it says, its corpus is sound, and a short run finds nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from conftest import ROOT
from fuzz import children, trying
from fuzz import run as driver
from fuzz.registry import TARGETS
from fuzz.targets import Files, Target

from ckpttool.errors import CorruptionError


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "tests/fuzz/run.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def counts(out: str) -> dict[str, int]:
    """The inputs of each target, and "total", as they are printed."""
    *targets, whole = out.splitlines()
    found = {line.split(": ")[0]: int(line.split(": ")[1].split()[0].replace(",", "")) for line in targets}
    return {**found, "total": int(whole.split()[0].replace(",", ""))}


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_is_sound(name: str, tmp_path: Path) -> None:
    """What inputs are made of is read without a finding; and most inputs are another than that."""
    target = TARGETS[name]
    corpus = target.corpus()
    for files in corpus:
        trying.try_one(target, files, Random(0), str(tmp_path))
        assert not list(tmp_path.iterdir())
    made = [trying.make_input(target, corpus, "seed", number)[0] for number in range(20)]
    assert made == [trying.make_input(target, corpus, "seed", number)[0] for number in range(20)]
    assert sum(files not in corpus for files in made) > 10


def _add(monkeypatch: pytest.MonkeyPatch, try_input: Callable[[str, Random], None]) -> None:
    """Makes a target "x" of what is done with an input."""
    monkeypatch.setitem(TARGETS, "x", Target(lambda: [{"x": b"abc"}], _with_number, try_input))


def _with_number(random: Random, files: Files, other: Files) -> Files:
    return {"x": random.randbytes(8)}


def _spin() -> None:
    while True:
        pass


KINDS: dict[str, tuple[Callable[[], object], str]] = {
    "answer": (lambda: (_ for _ in ()).throw(CorruptionError("x")), ""),
    "error": (lambda: (_ for _ in ()).throw(OSError()), ""),
    "other": (lambda: 1 // 0, "ZeroDivisionError"),
    "hang": (_spin, "Hang"),
    "memory": (lambda: bytearray(trying.MEMORY * 2), "MemoryError"),
    "death": (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended with -9"),
    "stuck": (lambda: time.sleep(60), "stuck"),
    "slow": (lambda: time.sleep(0.2), ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_findings(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is none, nor is one that waits a while; any other exception, too much processor time and too much
    memory are, and so is what dies or waits for ever.
    """
    act, wanted = KINDS[kind]
    _add(monkeypatch, lambda directory, random: act() and None)
    monkeypatch.setattr(trying, "SECONDS", 0.1)
    monkeypatch.setattr(children, "STUCK", 50)
    found = [finding.text for finding in children.Fuzzing(["x"], inputs=2).run() if finding]
    assert len(found) == (2 if wanted else 0)
    assert all(wanted in text for text in found)


def test_inputs_are_the_same_however_many_try_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each number is tried once, also behind findings, and is the same input whichever process tries it."""

    def try_input(directory: str, random: Random) -> None:
        data = Path(directory, "x").read_bytes()
        with (tmp_path / "seen").open("ab", 0) as file:
            file.write(data)
        if data[0] < 64:
            raise ZeroDivisionError

    _add(monkeypatch, try_input)
    seen, found = [], []
    for processes in (1, 3):
        fuzzing = children.Fuzzing(["x"], inputs=40, first=7, processes=processes, most=40)
        found.append(sorted(finding.number for finding in fuzzing.run() if finding))
        [share] = fuzzing.shares
        assert (share.tried, share.given, share.next, share.unfinished) == (40, 0, 47, [])
        data = (tmp_path / "seen").read_bytes()
        (tmp_path / "seen").unlink()
        seen.append(sorted(data[at : at + 8] for at in range(0, len(data), 8)))
    assert seen[0] == seen[1] == sorted(_made(n) for n in range(7, 47))
    assert found[0] == found[1]
    assert found[0]


def _made(number: int) -> bytes:
    return trying.make_input(TARGETS["x"], TARGETS["x"].corpus(), "0", number)[0]["x"]


def test_a_run_that_is_stopped_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all processes are stopped for a while, none is taken for stuck, and no input for too slow."""
    _add(monkeypatch, lambda directory, random: time.sleep(0.02))
    monkeypatch.setattr(children, "STUCK", 60)  # 0.6 s at least.
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            found = [finding for finding in children.Fuzzing(["x"], inputs=30).run() if finding]
            os._exit(1 if found else 0)
        finally:
            os._exit(2)
    time.sleep(0.3)
    os.killpg(child, signal.SIGSTOP)
    time.sleep(1.5)
    os.killpg(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_finding_is_replayed(tmp_path: Path) -> None:
    """A finding's file has its input; replayed, it says that nothing is wrong any more."""
    path = driver.save(tmp_path / "findings", "seed", children.Finding("npy", 3, "ValueError: …"))
    assert json.loads(path.read_text())["number"] == 3
    done = run("--replay", path)
    assert (done.returncode, done.stdout) == (0, "nothing is wrong with it\n"), done.stderr


def test_count_of_inputs(tmp_path: Path) -> None:
    """As many inputs as were asked for are tried, by two processes, the same number of each target."""
    done = run(*("--inputs", 30, "--processes", 2, "--target", "npy", "--target", "state"), "--findings", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert counts(done.stdout) == {"npy": 15, "state": 15, "total": 30}
    assert done.stdout.endswith("go on with --first 15\n")


@pytest.mark.slow
def test_short_run(tmp_path: Path) -> None:
    """Twenty seconds of all targets find nothing, and the inputs are counted."""
    done = run("--seconds", 20, "--processes", 2, "--findings", tmp_path / "findings")
    assert done.returncode == 0, done.stdout + done.stderr
    found = counts(done.stdout)
    assert found.pop("total") == sum(found.values())
    assert list(found) == list(TARGETS)
    assert all(found.values())
