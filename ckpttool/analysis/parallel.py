"""Work on many variables at once: NumPy, checksums and the kernel release Python's lock, so that two threads help."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_THREADS = 2

_TASK = 1 << 20
"""The fewest bytes of a task: with fewer, threads would spend their time on passing Python's lock around."""

_MANY = 16
"""If one task has more items than this, they are small, and most of the work is done under Python's lock: two threads
would wait for each other, and take twice the time.
"""

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(
    function: Callable[[T], R], items: Iterable[T], *, nbytes: Callable[[T], int] = lambda item: _TASK, ahead: int = 64
) -> Iterator[R]:
    """What the function makes of each item, in the items' order; computed by two threads, a little ahead.

    Args:
        function: what to do; called in any order, from either thread.
        items: its arguments.
        nbytes: the size of an item; small ones are done together.
        ahead: how many tasks may wait for their results to be taken.
    """
    from concurrent.futures import ThreadPoolExecutor  # Thirty milliseconds, which a listing need not pay.

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
    """The future of a task that a thread does; None if the system gives no thread."""
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
