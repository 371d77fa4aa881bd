"""One input: made from its number, laid out as files, tried within limits.

What is a finding: an exception other than CheckpointError and OSError, more than 2 s of processor time, more than
200 MB of memory beyond what the process has at its start, a process that dies or is stuck.
"""

import os
import resource
import shutil
import signal
import traceback
from random import Random
from types import FrameType

from fuzz.targets import ANSWERS, Files, Target

SECONDS = 2.0
MEMORY = 200 << 20


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
    """Tries an input in an empty directory, and leaves it empty.

    Raises:
        FindingError: it is one.
    """
    try:
        for name, data in files.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(data)
        # Processor time: on a busy machine, or stopped for a while, nothing takes longer.
        signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.25)
        try:
            target.try_input(directory, random)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except ANSWERS:
        pass
    except (Exception, Hang) as error:
        raise FindingError(traceback.format_exc(limit=-12)) from error
    finally:
        _empty(directory)


def _empty(directory: str) -> None:
    """Removes what is in it. Making a directory anew for each input would wait for the disk."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)


def limit() -> None:
    """Bounds this process' memory, and catches what takes too long."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _give_up)


def _give_up(signum: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS} s of processor time")
