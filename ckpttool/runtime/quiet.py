"""TensorFlow imported, without its log on standard error.

Part of that log is written by C++ straight to the file descriptor, before any setting is looked at; so the descriptor
is redirected for as long as the import takes. What was written is shown if the import fails.
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ckpttool.errors import NotSupportedError

_LOCK = threading.Lock()
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "ABSL_MIN_LOG_LEVEL": "3"}
_PIP_LINE = "pip install 'ckpttool[tensorflow]'"


def import_tensorflow(*, quiet: bool = False) -> Any:
    """TensorFlow; with `quiet`, it says nothing on standard error, during the import and later.

    Raises:
        NotSupportedError: it is not installed, or does not load.
    """
    with _LOCK:
        if not quiet or "tensorflow" in sys.modules:
            return _imported()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        with _silenced():
            tensorflow = _imported()
        tensorflow.get_logger().setLevel("ERROR")
        return tensorflow


def _imported() -> Any:
    try:
        import tensorflow
    except ImportError as error:
        what = "running a graph needs TensorFlow"
        if error.name != "tensorflow":
            what = f"{what}, and it does not load: {error}"
        raise NotSupportedError(what, hint=_PIP_LINE) from error
    return tensorflow


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps the process's standard error quiet; shows what was written if the block raises an error other than ours."""
    try:
        kept = os.dup(2)
    except OSError:  # Nobody listens anyway.
        yield
        return
    with tempfile.TemporaryFile() as heard:
        _flush()
        os.dup2(heard.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        except NotSupportedError:
            failed = False
            raise
        finally:
            _flush()
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                heard.seek(0)
                os.write(2, heard.read())


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
