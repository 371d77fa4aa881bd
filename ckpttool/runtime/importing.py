"""A prepared graph, imported: mended once more where TensorFlow refuses it; and TensorFlow's errors as ours."""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any

from ckpttool.errors import CheckpointError, NotSupportedError
from ckpttool.transforms.preparing import Prepared, drop_output_shapes


def imported(tensorflow: Any, path: str, prepared: Prepared) -> tuple[Any, list[str]]:
    """The graph, in a tf.Graph of its own; and what was mended for that, in words.

    Raises:
        NotSupportedError: TensorFlow can't import it.
    """
    notes = list(prepared.notes)
    try:
        try:
            return _import(tensorflow, prepared.graph_def), notes
        except ValueError as error:
            if "_output_shapes" not in str(error):
                raise
            count = drop_output_shapes(prepared.graph_def)
            notes.append(f"dropped {count:,} stale _output_shapes attributes: {first_line(error)}")
        return _import(tensorflow, prepared.graph_def), notes
    except ValueError as error:
        raise NotSupportedError(f"TensorFlow can't import the graph: {first_line(error)}", path=path) from error


def _import(tensorflow: Any, graph_def: Any) -> Any:
    graph = tensorflow.Graph()
    theirs = tensorflow.compat.v1.GraphDef.FromString(graph_def.SerializeToString())
    with graph.as_default():
        tensorflow.graph_util.import_graph_def(theirs, name="")
    return graph


# Seconds after which a call that was interrupted is left to itself.
_SETTLED = 5


class Interruptible:
    """Calls what it is given. A call from the main thread runs in another thread, so that the main one hears signals.

    Python's handlers wait until TensorFlow returns, which may be never. After an interrupt, the call goes on until the
    session is closed: `settle` waits for it. One thread serves all calls: TensorFlow takes milliseconds for the first
    one of each.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[_Call | None] | None = None
        self._left: list[Future[Any]] = []

    def __call__(self, call: Callable[[], Any]) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return call()
        calls, done = self._calls or self._started(), Future[Any]()
        calls.put((call, done))
        try:
            return done.result()
        except BaseException:
            if not done.done():  # That thread is busy, for who knows how long.
                self._calls = None
                self._left.append(done)
            raise
        finally:
            del call, done  # An error would keep them alive in a reference cycle, and with them what was fed.

    def settle(self) -> None:
        """Waits for interrupted calls, now that the session is closed; for a kernel that does not hear of it, not long.

        A call that comes back while Python ends can't go on, and TensorFlow's C++ takes that for a reason to abort.
        """
        wait(self._left, _SETTLED)
        self._left.clear()

    def _started(self) -> "SimpleQueue[_Call | None]":
        calls: SimpleQueue[_Call | None] = SimpleQueue()
        threading.Thread(target=_serve, args=(calls,), daemon=True).start()
        weakref.finalize(self, calls.put, None)
        self._calls = calls
        return calls


_Call = tuple[Callable[[], Any], "Future[Any]"]


def _serve(calls: "SimpleQueue[_Call | None]") -> None:
    for call, done in iter(calls.get, None):
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)
        del call, done  # They would keep a session alive, and what it gave.


class Translated:
    """A context in which TensorFlow's errors become ours.

    Raises:
        NotSupportedError: TensorFlow failed, or took more than `seconds`.
        ValueError: the session is closed.
    """

    def __init__(self, tensorflow: Any, path: str, seconds: float | None = None) -> None:
        self._tf, self._path, self._seconds = tensorflow, path, seconds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, CheckpointError):
            return
        if isinstance(error, self._tf.errors.DeadlineExceededError) and self._seconds is not None:
            what = f"no result after {self._seconds:g} seconds"
            hint = "it may wait for an input queue that nobody fills: feed what is behind it; or allow more time"
            raise NotSupportedError(what, path=self._path, hint=hint) from error
        if "ession has been closed" in str(error) or "closed Session" in str(error):
            raise ValueError(f"the graph is closed · {self._path}") from error
        if isinstance(error, self._tf.errors.OpError):
            raise NotSupportedError(f"TensorFlow: {first_line(error)}", path=self._path) from error


# How lines begin that come before the reason in an error of a run: they say where the op was made, in Python.
_WHERE = ("Graph execution error", "Detected at node", "Node: ", 'File "', "Original stack trace", "[[{{", "(")


def first_line(error: BaseException) -> str:
    """What an error of TensorFlow's says, and of which op, without the places in Python code."""
    text = str(getattr(error, "message", "") or error).strip()
    lines = [line.strip() for line in text.splitlines()]
    what = next((line for line in lines if line and not line.startswith(_WHERE)), text[:200])
    node = getattr(getattr(error, "node_def", None), "name", "")
    return f"{what} (op {node})" if node and node not in what else what
