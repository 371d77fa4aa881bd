"""Checkpoints that hold a part of a partitioned variable: a saver of some of its slices writes such."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import bundle

import ckpttool
from ckpttool.errors import NotSupportedError
from ckpttool.model.checkpoint import Checkpoint

ARRAY = np.arange(12, dtype=np.float32).reshape(4, 3)
LACKING = "does not have sufficient slices: 6 of 12 elements"


def made(tmp_path: Path) -> Path:
    """A bundle of which "p" lacks its lower half."""
    arrays = {"p": ARRAY, "whole": np.ones(2, np.float32)}
    return Path(bundle(arrays, slices={"p": [((0, 2), (0, 3))]}).write(tmp_path))


def test_what_is_there_can_be_listed_and_read(run, tmp_path):
    """The others are as they are; of the one, only reading the whole is refused, and says what can be done."""
    checkpoint = ckpttool.open_checkpoint(made(tmp_path))
    assert {name: variable.shape for name, variable in checkpoint.items()} == {"p": (4, 3), "whole": (2,)}
    assert checkpoint.warnings == (f"variable p {LACKING}",)
    assert checkpoint["whole"].numpy().tolist() == [1, 1]
    [piece] = checkpoint["p"].slices
    assert np.array_equal(np.concatenate(list(checkpoint["p"].arrays_of(piece))), ARRAY[:2])
    for read in (lambda v: v.numpy(), lambda v: v.ranges, lambda v: list(v.blocks()), lambda v: list(v.read([]))):
        with pytest.raises(NotSupportedError, match=LACKING) as caught:
            read(checkpoint["p"])
        assert caught.value.variable == "p"
    assert "warning: variable p does not" in run("vars", made(tmp_path)).stderr


@pytest.mark.parametrize("target", ["--npz", "--npy", "--h5", "--safetensors", "--tf-v1"])
def test_other_formats_hold_the_rest(run, tmp_path, target):
    """Nothing is written in the place of what is not there; without it, or with --salvage, the rest is."""
    prefix = made(tmp_path)
    out = tmp_path / "out"
    result = run("export", prefix, target, out)
    if target == "--tf-v1":
        assert result.exit_code == 0
        assert LACKING in ckpttool.open_checkpoint(out)["p"].lacking
        return
    assert (result.exit_code, LACKING in result.stderr) == (5, True), result.stderr
    assert not out.exists()
    assert run("export", prefix, target, out, "--exclude", "p").exit_code == 0
    result = run("export", prefix, target, tmp_path / "salvaged", "--salvage")
    assert (result.exit_code, LACKING in result.stderr) == (1, True)
    for path in (out, tmp_path / "salvaged"):
        assert list(ckpttool.open_checkpoint(path)) == ["whole"]


def test_it_is_said_by_verify(run, tmp_path):
    """What is lacking of a variable is a finding, and the answer is no."""
    result = run("verify", made(tmp_path))
    assert (result.exit_code, LACKING in result.stdout) == (1, True)
    assert "1 of 2 variables whole" in result.stderr


@pytest.mark.tensorflow
@pytest.mark.parametrize("version", [1, 2])
def test_tensorflow_restores_what_is_there(run, tmp_path, tf, version):
    """A saver of a part of a variable: what it writes is listed as TensorFlow lists it, and written again as it was."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        part, other = list(v1.get_variable("p", [4, 3], partitioner=v1.fixed_size_partitioner(2)))
        saver = v1.train.Saver([part], write_version=version)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(tmp_path / "model"), write_meta_graph=False, write_state=False)
            values = session.run(part)
            listed = tf.train.list_variables(str(tmp_path / "model"))
            checkpoint = ckpttool.open_checkpoint(tmp_path / "model")
            assert [(name, list(v.shape)) for name, v in checkpoint.items()] == listed == [("p", [4, 3])]
            _require_rewritten(run, tmp_path, "--tf" if version == 2 else "--tf-v1")
            session.run([part.assign(part * 0), other.assign(other * 0)])
            saver.restore(session, str(tmp_path / "again"))
            assert np.array_equal(session.run(part), values)


def _require_rewritten(run: Any, directory: Path, target: str) -> None:
    assert run("export", directory / "model", target, directory / "again").exit_code == 0
    files = [path for path in directory.iterdir() if path.name.startswith("model")]
    assert files
    for path in files:
        assert (directory / path.name.replace("model", "again")).read_bytes() == path.read_bytes(), path


@pytest.mark.tensorflow
def test_the_entry_of_the_whole_names_the_first_shard(run, tmp_path, tf):
    """Of a partitioned variable none of whose slices are in the first shard: as TensorFlow merges it."""
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        with tf.device("/cpu:0"):
            v1.get_variable("a", initializer=ARRAY)
        with tf.device("/cpu:1"):
            v1.get_variable("p", [4, 3], partitioner=v1.fixed_size_partitioner(2))
        saver = v1.train.Saver(sharded=True)
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(tmp_path / "model"), write_meta_graph=False, write_state=False)
    assert isinstance(ckpttool.open_checkpoint(tmp_path / "model"), Checkpoint)
    _require_rewritten(run, tmp_path, "--tf")
