"""The fuzz driver: its inputs are what it says, its corpus is sound, and a short run finds nothing."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from conftest import ROOT
from fuzz import run as driver
from fuzz.targets import TARGETS, Target

from ckpttool.errors import CorruptionError


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "tests/fuzz/run.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_is_sound(name: str, tmp_path: Path) -> None:
    """What inputs are made of is read without a finding; and most inputs are another than that."""
    target = TARGETS[name]
    corpus = target.corpus()
    for number, files in enumerate(corpus):
        driver.try_one(target, files, Random(0), str(tmp_path / str(number)))
    made = [driver.make_input(target, corpus, "seed", number)[0] for number in range(20)]
    assert made == [driver.make_input(target, corpus, "seed", number)[0] for number in range(20)]
    assert sum(files not in corpus for files in made) > 10


def _of_kind(kind: str) -> Target:
    def try_input(directory: str, random: Random) -> None:
        if kind == "hang":
            while True:
                pass
        if kind == "memory":
            bytearray(driver.MEMORY * 2)
        raise {"answer": CorruptionError("x"), "error": OSError(), "other": ZeroDivisionError()}[kind]

    return Target(lambda: [{"x": b"abc"}], lambda random, files, other: files, try_input)


@pytest.mark.parametrize("kind", ["answer", "error", "other", "hang", "memory"])
def test_findings(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is none; any other exception, too much time and too much memory are."""
    monkeypatch.setitem(TARGETS, kind, _of_kind(kind))
    monkeypatch.setattr(driver, "SECONDS", 0.3)
    found = [text for _, text in driver.fuzz(kind, "seed", 0.6) if text]
    wanted = {"other": "ZeroDivisionError", "hang": "Hang", "memory": "MemoryError"}
    assert bool(found) == (kind in wanted)
    assert all(wanted[kind] in text for text in found)


def test_a_finding_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finding's file has its input; replayed, it says that nothing is wrong any more."""
    monkeypatch.setitem(driver._corpora, "npy", TARGETS["npy"].corpus())
    path = driver.save(tmp_path, "npy", "seed", 3, "ValueError: …")
    assert json.loads(path.read_text())["number"] == 3
    done = run("--replay", path)
    assert (done.returncode, done.stdout) == (0, "nothing is wrong with it\n"), done.stderr


@pytest.mark.slow
def test_short_run(tmp_path: Path) -> None:
    """Twenty seconds of all targets find nothing, and the inputs are counted."""
    done = run("--seconds", 20, "--findings", tmp_path / "findings")
    assert done.returncode == 0, done.stdout + done.stderr
    *targets, whole = done.stdout.splitlines()
    counts = [int(line.split(": ")[1].split()[0].replace(",", "")) for line in targets]
    assert len(counts) == len(TARGETS)
    assert all(counts)
    assert whole.startswith(f"{sum(counts):,} inputs in ")
