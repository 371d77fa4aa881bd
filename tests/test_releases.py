"""Files of other releases of TensorFlow, 0.12 to 2.13, each with what that release recorded of them.

Where CKPTTOOL_TENSORFLOWS names Pythons that have such a release (`/opt/tf1.4/bin/python:/opt/tf2.0/bin/python`), they
are asked about what is written here, too.
"""

import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import FIXTURES, ROOT
from test_fixtures import sha256

import ckpttool
from ckpttool.formats.locate import locate

RELEASES = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(FIXTURES.glob("releases/*/expected.json"))
}
WITH_SESSIONS = [release for release, expected in RELEASES.items() if "graphs" in expected]
WITH_OBJECTS = [release for release, expected in RELEASES.items() if "arrays" in expected]
SERVED = [release for release in RELEASES if (FIXTURES / "releases" / release / "served").is_dir()]
CHECKPOINTS = [(release, prefix) for release, expected in RELEASES.items() for prefix in expected["checkpoints"]]
PYTHONS = [python for python in os.environ.get("CKPTTOOL_TENSORFLOWS", "").split(":") if python]


def folder(release):
    return FIXTURES / "releases" / release


def recorded(checkpoint):
    """The variables of a checkpoint as fixtures/releases.py has them."""
    return {name: [v.dtype.name, list(v.shape), sha256(v.numpy())] for name, v in checkpoint.items()}


def test_there_are_releases_of_both_kinds():
    """No release is lost without notice: what is gone from the fixtures would be tested no more."""
    assert len(WITH_SESSIONS) == 6
    assert len(WITH_OBJECTS) == 4


@pytest.mark.parametrize(("release", "prefix"), CHECKPOINTS)
def test_variables(release, prefix):
    """Names, dtypes, shapes and every value are those that the release itself read."""
    assert recorded(ckpttool.open_checkpoint(folder(release) / prefix)) == RELEASES[release]["checkpoints"][prefix]


@pytest.mark.parametrize("name", ["model", "dtypes"])
@pytest.mark.parametrize("release", WITH_SESSIONS)
def test_what_is_written_is_what_the_release_wrote(release, name, run, tmp_path):
    """V1 from V2 and V2 from V1, byte for byte."""
    source, v1, v2 = folder(release) / name, tmp_path / "old", tmp_path / "new"
    assert run("export", source, "--tf-v1", v1).exit_code == 0
    assert run("export", f"{source}_v1", "--tf", v2).exit_code == 0
    assert v1.read_bytes() == Path(f"{source}_v1").read_bytes()
    for suffix in ".index", ".data-00000-of-00001":
        assert Path(f"{v2}{suffix}").read_bytes() == Path(f"{source}{suffix}").read_bytes()


@pytest.mark.parametrize("release", WITH_SESSIONS)
def test_graph(release):
    """Ops, their types and devices, and collections are those of the release's own import."""
    graph = ckpttool.open_graph(folder(release) / "model.meta")
    expected = RELEASES[release]["graphs"]["model.meta"]
    assert [[node.name, node.type, node.device] for node in graph.nodes] == expected["ops"]
    assert {each.name: len(each.members) for each in graph.collections.values()} == expected["collections"]


@pytest.mark.parametrize("release", WITH_SESSIONS)
def test_frozen_by_the_release(release):
    """As bytes and as text; the constants are the variables."""
    graphs = [ckpttool.open_graph(folder(release) / f"frozen.{suffix}") for suffix in ("pb", "pbtxt")]
    assert graphs[0].graph_def == graphs[1].graph_def
    parts = ckpttool.open_checkpoint(folder(release) / "frozen.pb")
    kernel = [parts[f"dense/kernel/part_{number}"].numpy() for number in range(2)]
    model = ckpttool.open_checkpoint(folder(release) / "model")
    np.testing.assert_array_equal(np.concatenate(kernel), model["dense/kernel"].numpy())
    np.testing.assert_array_equal(parts["bias"].numpy(), model["bias"].numpy())


@pytest.mark.parametrize("release", WITH_OBJECTS)
def test_keras(release, run, tmp_path):
    """What is written from Keras' HDF5 for Keras has its layers and their weights."""
    source = folder(release) / "keras.h5"
    found = {f"{path}:0": values for path, values in recorded(ckpttool.open_checkpoint(source)).items()}
    arrays = RELEASES[release]["arrays"]["keras.h5"]
    assert found == {path.split("/", 2)[2]: values for path, values in arrays.items()}
    assert run("export", source, "--h5", tmp_path / "keras.h5", "--h5-layout", "keras").exit_code == 0
    with h5py.File(source) as old, h5py.File(tmp_path / "keras.h5") as new:
        layers = [[os.fsencode(layer) for layer in file.attrs["layer_names"]] for file in (old["model_weights"], new)]
        assert layers[0] == layers[1]
        for layer in layers[0]:
            names = [list(file[layer].attrs["weight_names"]) for file in (old["model_weights"], new)]
            assert [os.fsencode(name) for name in names[0]] == names[1]
            for name in names[1]:
                np.testing.assert_array_equal(old["model_weights"][layer][name], new[layer][name])


@pytest.mark.tensorflow
@pytest.mark.parametrize("release", RELEASES)
def test_output(release, tf, run, tmp_path):
    """What was trained, what was frozen by the release or here, what is served: all give what they gave then."""
    expected, source = RELEASES[release], folder(release)
    x = np.array(expected["fed"]["x"], np.float32)
    outputs = []
    if release in WITH_SESSIONS:
        assert run("freeze", source / "model.meta", "--outputs", "output", "-o", tmp_path / "frozen.pb").exit_code == 0
        assert run("strip-devices", source / "model.meta", "-o", tmp_path / "model.meta").exit_code == 0
        for path in source / "model", tmp_path / "model.meta", source / "frozen.pb", tmp_path / "frozen.pb":
            checkpoint = source / "model_v1" if path.name == "model.meta" else None
            with ckpttool.ImportedGraph(path, checkpoint=checkpoint) as model:
                outputs.append(model.run("output", {"x": x}))
    if release in SERVED:
        with ckpttool.ImportedGraph(source / "served") as model:
            outputs.append(model.run(signature="serving_default", feeds={"x": x})["output"])
    assert len(outputs) == 4 * (release in WITH_SESSIONS) + (release in SERVED)
    for output in outputs:
        np.testing.assert_allclose(output, expected["output"], rtol=1e-6)


def asked(python, *arguments):
    command = [python, ROOT / "fixtures" / "releases.py", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.slow
@pytest.mark.skipif(not PYTHONS, reason="CKPTTOOL_TENSORFLOWS names no other release")
@pytest.mark.parametrize("python", PYTHONS)
def test_the_fixtures_are_what_the_release_makes(python, tmp_path):
    """A release that is installed makes the same files again."""
    asked(python, tmp_path)
    [path] = tmp_path.glob("*/expected.json")
    made, kept = json.loads(path.read_text()), dict(RELEASES[path.parent.name])
    # The last bit of a product depends on the processor.
    np.testing.assert_allclose(made.pop("output"), kept.pop("output"), rtol=1e-6)
    assert made == kept


@pytest.mark.slow
@pytest.mark.skipif(not PYTHONS, reason="CKPTTOOL_TENSORFLOWS names no other release")
@pytest.mark.parametrize("python", PYTHONS)
def test_the_release_reads_what_is_written(python, run, tmp_path):
    """Through NumPy's format, which has no bytes of TensorFlow's left, and back, into both formats."""
    expected = {}
    for release in WITH_SESSIONS:
        for prefix, variables in RELEASES[release]["checkpoints"].items():
            written = tmp_path / f"{release}_{prefix}"
            npz = f"{written}.npz"
            source = locate(folder(release) / prefix)
            ckpttool.write_npz(ckpttool.open_checkpoint(source), npz)
            assert run("export", npz, "--tf", f"{written}_2").exit_code == 0
            assert run("export", npz, "--tf-v1", f"{written}_1").exit_code == 0
            expected |= {f"{written}_1": variables, f"{written}_2": variables}
    assert json.loads(asked(python, "read", *expected)) == expected
