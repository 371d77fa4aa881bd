"""Work on many variables at once comes back in order, small ones together."""

import threading
import time
from itertools import count, pairwise
from threading import Thread

import pytest

from ckpttool.analysis.parallel import _TASK, parallel_map


def test_order():
    """Results are in the items' order, whichever is done first."""

    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number

    assert list(parallel_map(slow_if_even, range(50), ahead=3)) == list(range(50))


def test_small_items_are_done_together():
    """Items that are small beside a task are not handed from thread to thread."""
    found = list(parallel_map(lambda _: threading.get_ident(), range(1000), nbytes=lambda _: _TASK // 1000))
    assert len(found) == 1000
    assert len(set(found)) <= 2
    assert sum(a != b for a, b in pairwise(found)) <= 1


def test_two_at_once():
    """Two large items are worked on at the same time."""
    barrier = threading.Barrier(2, timeout=5)
    assert sorted(parallel_map(lambda _: barrier.wait(), range(2))) == [0, 1]


def test_errors():
    """The first item's error is raised in its place, and no more is begun than was waiting."""
    begun = []

    def fail_at_five(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError(number)
        return number

    results = parallel_map(fail_at_five, range(10_000), ahead=4)
    with pytest.raises(ValueError, match="5"):
        list(results)
    assert len(begun) < 20


@pytest.mark.parametrize("most", [0, 1])
def test_without_threads(monkeypatch, most):
    """Where the system gives no threads, or one, everything is computed all the same, in order."""
    start, given = Thread.start, count()

    def refuse(thread):
        if next(given) >= most:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", refuse)
    assert list(parallel_map(str, range(10))) == list(map(str, range(10)))
