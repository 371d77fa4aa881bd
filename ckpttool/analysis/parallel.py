"""Work on many variables at once: NumPy, checksums and the kernel let go of Python's lock, so that two cores serve."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 2

_TASK = 1 << 20
"""Bytes of a task, at least: with less, threads would spend their time on handing the lock to each other."""

_MANY = 16
"""Where one task has more items than this, they are small, and most of the work is Python's own: two threads would wait
for its lock, and take twice the time.
"""

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], *, nbytes: Callable[[T], int] = lambda item: _TASK, ahead: int = 64
) -> Iterator[R]:
    """What the function makes of each item, in the items' order; computed by two threads, a little ahead.

    Args:
        function: what to do; called in any order, from either thread.
        items: what to do it to.
        nbytes: how much there is to do for one; small ones are done together.
        ahead: how many tasks may wait for their results to be taken.
    """
    from concurrent.futures import ThreadPoolExecutor  # Thirty milliseconds that a listing need not pay.

    waiting: deque[Future[list[R]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for task in _tasks(items, nbytes):
                begun = _begun(pool, function, task) if len(task) <= _MANY else None
                if begun is None:
                    while waiting:
                        yield from waiting.popleft().result()
                    yield from map(function, task)
                    continue
                waiting.append(begun)
                if len(waiting) >= ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _begun(pool: "ThreadPoolExecutor", function: Callable[[T], R], task: list[T]) -> "Future[list[R]] | None":
    """A task that a thread does; None where the system gives no thread."""
    try:
        return pool.submit(lambda: [function(item) for item in task])
    except RuntimeError:
        return None


def _tasks(items: Iterable[T], nbytes: Callable[[T], int]) -> Iterator[list[T]]:
    task: list[T] = []
    size = 0
    for item in items:
        task.append(item)
        size += nbytes(item)
        if size >= _TASK:
            yield task
            task, size = [], 0
    if task:
        yield task
