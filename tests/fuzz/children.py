"""The processes that try inputs, several of them side by side: which numbers each tries, and what it says of them."""

import math
import mmap
import os
import shutil
import signal
import struct
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fuzz import trying
from fuzz.registry import TARGETS
from fuzz.targets import Files

# How many inputs a child takes before another one is begun: what leaks, leaks no further.
_BATCH = 20_000
_POLL = 0.01
# A child that gets no further for so many looks at it is stuck where no signal handler runs. Looks are counted, not
# seconds: while all are stopped, nobody looks.
STUCK = 2_000


class Finding(NamedTuple):
    """An input that is one."""

    target: str
    number: int
    text: str


@dataclass
class Share:
    """A target's share of the work.

    Attributes:
        next: the first number that no child was given yet.
        unfinished: numbers below that which were given and not tried.
        given: how many numbers running children have.
        tried: how many inputs were tried.
        seconds: for how long children have tried them, or may.
        findings: how many of them are findings.
    """

    name: str
    corpus: list[Files]
    next: int
    unfinished: list[range] = field(default_factory=list)
    given: int = 0
    tried: int = 0
    seconds: float = 0
    findings: int = 0

    def take(self, count: int) -> range:
        """Up to so many numbers that nobody has tried."""
        if not self.unfinished:
            self.unfinished.append(range(self.next, self.next + count))
            self.next += count
        numbers = self.unfinished.pop()
        if len(numbers) > count:
            self.unfinished.append(numbers[count:])
        self.given += len(numbers[:count])
        return numbers[:count]

    def put_back(self, numbers: range, reached: int) -> None:
        """Of numbers that were taken, those from `reached` on were not tried."""
        self.given -= len(numbers)
        self.tried += reached - numbers.start
        if reached < numbers.stop:
            self.unfinished.append(range(reached, numbers.stop))


class _Child:
    """A process that tries numbers of a target, until a time."""

    def __init__(self, share: Share, numbers: range, seconds: float, seed: str) -> None:
        self.share, self.numbers, self.seconds = share, numbers, seconds
        self._place = mmap.mmap(-1, 8)
        self._place[:] = struct.pack("<Q", numbers.start)
        self._scratch = tempfile.mkdtemp(prefix="fuzz-")
        self._began, self._seen, self._looks = time.monotonic(), numbers.start, 0
        share.seconds += seconds if math.isfinite(seconds) else 0
        self._pid = os.fork()
        if not self._pid:
            try:
                self._try(seed)
            finally:
                traceback.print_exc()
                os._exit(3)

    def _try(self, seed: str) -> None:
        """Tries inputs until the time is over, the numbers are through, or there is a finding; and ends the process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent ends it.
        trying.limit()
        target, end = TARGETS[self.share.name], self._began + self.seconds
        directory = os.path.join(self._scratch, "input")
        os.mkdir(directory)
        for number in self.numbers:
            self._place[:] = struct.pack("<Q", number)
            files, random = trying.make_input(target, self.share.corpus, seed, number)
            try:
                trying.try_one(target, files, random, directory)
            except trying.FindingError as finding:
                Path(self._scratch, "finding").write_text(str(finding), errors="backslashreplace")
                os._exit(1)
            if time.monotonic() > end:
                break
        self._place[:] = struct.pack("<Q", number + 1)
        os._exit(0)

    @property
    def _reached(self) -> int:
        return int(struct.unpack("<Q", self._place[:])[0])

    def has_ended(self) -> int | None:
        """Its exit code, once it has ended. Ends it if it is stuck."""
        done, status = os.waitpid(self._pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        self._looks = self._looks + 1 if self._reached == self._seen else 0
        self._seen = self._reached
        if self._looks >= STUCK:
            os.kill(self._pid, signal.SIGKILL)
        return None

    def settle(self, status: int) -> Finding | None:
        """Enters what it has done into the share, and gives its finding."""
        told, number = Path(self._scratch, "finding"), self._reached
        text = told.read_text() if told.exists() else _death(status, self._looks >= STUCK) if status else None
        shutil.rmtree(self._scratch, ignore_errors=True)
        spent = time.monotonic() - self._began
        self.share.seconds += spent - (self.seconds if math.isfinite(self.seconds) else 0)
        self.share.put_back(self.numbers, number + (text is not None))
        self.share.findings += text is not None
        return Finding(self.share.name, number, text) if text is not None else None

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self.settle(0)


def _death(status: int, stuck: bool) -> str:
    return f"stuck for {STUCK * _POLL:.0f} s, without using the processor" if stuck else f"ended with {status}"


class Fuzzing:
    """Fuzzes targets, each for its share of the seconds, or with its share of the inputs; whichever is over first.

    Args:
        names: the targets.
        seed: what makes the inputs, with their numbers.
        seconds: how long, by the clock on the wall.
        inputs: how many inputs, in all; each target has as many.
        processes: how many children at a time.
        first: the number of the first input of each target.
        most: how many findings of a target are enough of it.
    """

    def __init__(
        self,
        names: Sequence[str],
        seed: str = "0",
        *,
        seconds: float = math.inf,
        inputs: int | None = None,
        processes: int = 1,
        first: int = 0,
        most: int = 20,
    ) -> None:
        self.shares = [Share(name, TARGETS[name].corpus(), first) for name in names]
        self._seed, self._processes, self._most = seed, processes, most
        self._end = time.monotonic() + seconds
        self._quota = None if inputs is None else -(-inputs // len(names))
        # Short enough that each target has its turn several times, on whichever process is free.
        self._slice = max(0.5, seconds * processes / len(names) / 4)
        self._children: list[_Child] = []

    def run(self) -> Iterator[Finding | None]:
        """The findings, as they come; and None now and then."""
        try:
            while self._start() or self._children:
                time.sleep(_POLL)
                yield None
                yield from self._settled()
        finally:
            for child in self._children:
                child.kill()

    def _settled(self) -> Iterator[Finding]:
        for child in list(self._children):
            status = child.has_ended()
            if status is not None:
                self._children.remove(child)
                finding = child.settle(status)
                if finding:
                    yield finding

    def _start(self) -> bool:
        """Begins as many children as there may be; whether there was a place left and work for it."""
        while len(self._children) < self._processes:
            left = self._end - time.monotonic()
            share = max((s for s in self.shares if s.findings < self._most), key=self._claim, default=None)
            if left <= 0 or share is None or not (count := self._count(share)):
                return False
            self._children.append(_Child(share, share.take(count), min(left, self._slice), self._seed))
        return True

    def _claim(self, share: Share) -> float:
        """How much a target is behind the others."""
        return self._count(share) if self._quota is not None else -share.seconds

    def _count(self, share: Share) -> int:
        """How many inputs the next child may try."""
        if self._quota is None:
            return _BATCH
        left = self._quota - share.tried - share.given
        return min(_BATCH, -(-left // self._processes))
