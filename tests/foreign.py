"""What the tests of other formats than TensorFlow's share: reading everything, ways there and back, hostile files."""

import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from bundles import time_limit
from conftest import CORPUS, FIXTURES

import ckpttool
from ckpttool.errors import CheckpointError
from ckpttool.formats.bundle.writing import write_bundle
from ckpttool.model.checkpoint import Checkpoint

SECONDS = 2
# Beside some of the file's size: imports, tracebacks, and what Python keeps for itself.
_SPARE = 4 << 20

BUNDLES = sorted(path.with_suffix("") for path in FIXTURES.rglob("*.index"))


def bundle_id(prefix: Path) -> str:
    return "/".join(prefix.parts[-2:])


def _corpus_bundles(limit: int) -> list[Path]:
    """The corpus' bundles that are complete and have at most `limit` bytes of data."""
    indexes = [path for path in sorted(CORPUS.rglob("*.index")) if not path.read_bytes().startswith(b"version http")]
    prefixes = [path.with_suffix("") for path in indexes]
    small = [p for p in prefixes if sum(f.stat().st_size for f in p.parent.glob(f"{p.name}.data-*")) <= limit]
    return [prefix for prefix in small if not ckpttool.open_checkpoint(prefix).warnings]


def values_of(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...], Any]]:
    """Each variable's dtype, shape and bits; of strings and variants the bytes of each."""
    return {
        name: (
            v.dtype.name,
            v.shape,
            v.strings() if v.dtype.itemsize is None else np.ascontiguousarray(v.numpy()).tobytes(),
        )
        for name, v in checkpoint.items()
    }


def bundle_files(checkpoint: Checkpoint, directory: Path) -> dict[str, bytes]:
    """The files of the bundle that a checkpoint is written as, by their names."""
    directory.mkdir()
    write_bundle(checkpoint, directory / "model")
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def assert_same_bundle_after(prefix: Path, write: Callable[[Checkpoint, Path], Path], tmp_path: Path) -> None:
    """Asserts that a bundle that goes through another format is the one that it would be directly, byte for byte."""
    checkpoint = ckpttool.open_checkpoint(prefix)
    output = write(checkpoint, tmp_path)
    there_and_back = bundle_files(ckpttool.open_checkpoint(output), tmp_path / "back")
    assert there_and_back == bundle_files(checkpoint, tmp_path / "directly")
    if prefix.is_relative_to(FIXTURES):  # TensorFlow wrote them as we do.
        own = {
            path.name: path.read_bytes() for path in prefix.parent.glob(f"{prefix.name}.*") if path.suffix != ".meta"
        }
        assert {name.replace("model", prefix.name, 1): data for name, data in there_and_back.items()} == own


def assert_corpus_survives(write: Callable[[Checkpoint, Path], Path], tmp_path: Path) -> None:
    """Asserts the same of every bundle of the corpus with at most 8 MiB of data."""
    prefixes = _corpus_bundles(8 << 20)
    assert prefixes
    for number, prefix in enumerate(prefixes):
        (tmp_path / str(number)).mkdir()
        assert_same_bundle_after(prefix, write, tmp_path / str(number))


def put(path: Path, data: bytes) -> None:
    """Writes a file anew; to write into the old one can take a thousand times as long."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


@cache
def _warm() -> None:
    """Loads what is loaded once, and is no file's fault."""
    ckpttool.open_graph(FIXTURES / "linear" / "model.meta")
    with suppress(CheckpointError):
        ckpttool.open_graph(FIXTURES / "linear" / "expected.json")


def survives(
    path: Path, times: int = 32, *, measured: bool = True
) -> dict[str, tuple[str, tuple[int, ...], Any]] | CheckpointError | OSError:
    """All that can be read of a file, or the error that says why not.

    Asserts that no other error leaves, that it takes no longer than two seconds, and, unless it is not `measured`,
    which takes its time, no more memory than some `times` the file's size.
    """
    if not measured:
        return _attempt(path)
    _warm()
    files = [path] if path.is_file() else list(path.iterdir())
    size = sum(file.stat().st_size for file in files if file.is_file())
    tracemalloc.start()
    try:
        return _attempt(path)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < _SPARE + times * size, f"{peak:,} bytes of memory for a file of {size:,}"


def _attempt(path: Path) -> dict[str, tuple[str, tuple[int, ...], Any]] | CheckpointError | OSError:
    try:
        with time_limit(SECONDS):
            return values_of(ckpttool.open_checkpoint(os.fspath(path)))
    except TimeoutError:  # Of the time limit; for Python an OSError.
        raise
    except (CheckpointError, OSError) as error:
        return error
