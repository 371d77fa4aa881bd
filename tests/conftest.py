"""What all tests share: a terminal of fixed width, the fixtures, the corpus if it is there, TensorFlow if it is."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

# Before typer and rich are imported: they look once.
os.environ |= {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "_TYPER_FORCE_DISABLE_TERMINAL": "1", "NO_COLOR": "1"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}

import pytest
from typer.testing import CliRunner, Result

from ckpttool.analysis.values import compiled

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: processes that tests interrupt would not notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
FIXTURES = ROOT / "fixtures"
CORPUS = Path(os.environ.get("CKPTTOOL_CORPUS", ROOT.parent / "shared" / "corpus"))


def corpus_files(pattern: str) -> list[Path]:
    """The corpus' files of a pattern; none, if it is not there."""
    return sorted(CORPUS.rglob(pattern))


def corpus_id(path: Path) -> str:
    return str(path.relative_to(CORPUS))


FROZEN = [
    path
    for path in corpus_files("*.pb")
    if {"onnx_tensorflow_onnx", "utensor_cgen"} & set(path.parts) and path.name != "saved_model.pb"
]
"""Frozen graphs of the corpus."""


needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside the project")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where TensorFlow is not installed, tests that are marked so are skipped, not failed."""
    if item.get_closest_marker("tensorflow") and find_spec("tensorflow") is None:
        pytest.skip("needs the extra `tensorflow`")


@pytest.fixture(scope="session")
def tf() -> object:
    """TensorFlow, the judge."""
    return pytest.importorskip("tensorflow", reason="needs the extra `tensorflow`")


@pytest.fixture(scope="module", params=["compiled", "NumPy"])
def passes(request: pytest.FixtureRequest) -> Iterator[None]:
    """The passes over float32 values as they were compiled, and as NumPy makes them without."""
    if request.param == "compiled" and compiled.float32 is None:
        pytest.skip("they could not be compiled when ckpttool was installed")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "NumPy":
            patch.setattr(compiled, "float32", None)
        yield


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs the command in this process."""
    from ckpttool.cli import app

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def fresh_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a script in a fresh interpreter."""

    def fresh_python(*arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return fresh_python
