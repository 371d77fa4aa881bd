"""The recorded oracle: what TensorFlow wrote down of every fixture when it made it."""

import hashlib
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import FIXTURES, ROOT

import ckpttool

EXPECTED = {path.parent.name: json.loads(path.read_text()) for path in sorted(FIXTURES.glob("*/expected.json"))}
CHECKPOINTS = [(name, prefix) for name, expected in EXPECTED.items() for prefix in expected["checkpoints"]]
GRAPHS = [(name, meta) for name, expected in EXPECTED.items() for meta in expected.get("graphs", {})]


def sha256(values: np.ndarray) -> str:
    """As fixtures/expected.py has it: raw bytes, or each string's length and bytes."""
    if values.dtype == object:
        return hashlib.sha256(b"".join(len(v).to_bytes(8, "little") + v for v in values.ravel())).hexdigest()
    return hashlib.sha256(values.tobytes()).hexdigest()


@pytest.mark.parametrize(("fixture", "prefix"), CHECKPOINTS)
def test_checkpoint(fixture, prefix):
    """Names, dtypes, shapes and the hash of every value are those that TensorFlow recorded."""
    checkpoint = ckpttool.open_checkpoint(FIXTURES / fixture / prefix)
    found = [
        (name.encode(errors="surrogateescape").hex(), v.dtype.name, list(v.shape), sha256(v.numpy()))
        for name, v in checkpoint.items()
    ]
    rows = EXPECTED[fixture]["checkpoints"][prefix]
    assert sorted(found) == sorted((row["name_hex"], row["dtype"], row["shape"], row["sha256"]) for row in rows)


@pytest.mark.parametrize(("fixture", "meta"), GRAPHS)
def test_graph(fixture, meta):
    """Ops, types, collections, functions and devices are those that TensorFlow recorded."""
    graph = ckpttool.open_graph(FIXTURES / fixture / meta)
    expected = EXPECTED[fixture]["graphs"][meta]
    assert Counter(node.type for node in graph.nodes) == expected["op_types"]
    assert {c.name: {"kind": c.kind, "count": len(c.members)} for c in graph.collections.values()} == expected[
        "collections"
    ]
    assert len(graph.graph_def.library.function) == expected["functions"]
    placed = Counter(expected["devices"]) + Counter(expected.get("function_devices", {}))
    assert {device: count for device, count in graph.devices.items() if device} == placed


def test_fixtures_are_small():
    """No file is larger than 32 KB."""
    assert max(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) <= 32 << 10


@pytest.mark.slow
@pytest.mark.tensorflow
def test_fixtures_are_what_make_makes(tf, tmp_path):
    """Run again, fixtures/make.py makes the same bytes; with another TensorFlow, whose graphs differ, it is skipped."""
    recorded = ckpttool.open_graph(FIXTURES / "linear" / "model.meta").tensorflow_version
    if tf.__version__ != recorded:
        pytest.skip(f"the fixtures were made by TensorFlow {recorded}, this is {tf.__version__}")
    subprocess.run([sys.executable, ROOT / "fixtures" / "make.py", tmp_path], check=True, capture_output=True)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(FIXTURES): path.read_bytes()
        for path in FIXTURES.glob("*/*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert made == kept
