"""Checkpoints that hold a part of a partitioned variable: a saver of some of its slices writes such."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import bundle

import ckpttool
from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.transforms.casting import Casts, cast

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


@pytest.mark.parametrize("format", ["--tf", "--tf-v1"])
def test_what_is_there_is_counted(run, tmp_path, format):
    """Parameters and bytes, of the variable and in all, are those that are stored; of another name too."""
    assert run("export", made(tmp_path), format, tmp_path / "out", "--rename", "p=>q").exit_code == 0
    assert ckpttool.open_checkpoint(tmp_path / "out")["q"].nbytes == 24
    rows = [line.split("\t") for line in run("vars", tmp_path / "out", "--format", "tsv").stdout.splitlines()]
    places = [rows[0].index(column) for column in ("name", "shape", "parameters", "bytes")]
    assert [[row[place] for place in places] for row in rows[1:]] == [
        ["q", "[4,3]", "6", "24"],
        ["whole", "[2]", "2", "8"],
    ]
    for more in ((), ("--tree",), ("--sort", "size")):
        said = run("vars", tmp_path / "out", "--format", "table", *more).stdout
        assert "weights: 2 variables, 8 parameters, 32 B" in said, said


@pytest.mark.parametrize("target", ["--npz", "--npy", "--h5", "--safetensors", "--tf-v1"])
def test_other_formats_hold_the_rest(run, tmp_path, target):
    """Nothing is written in the place of what is not there, which is said before and refused if --strict is."""
    prefix = made(tmp_path)
    out = tmp_path / "out"
    result = run("export", prefix, target, out)
    if target == "--tf-v1":
        assert result.exit_code == 0
        assert LACKING in ckpttool.open_checkpoint(out)["p"].lacking
        return
    assert (result.exit_code, f"p: left out: {LACKING}" in result.stderr) == (0, True), result.stderr
    strict = run("export", prefix, target, tmp_path / "strict", "--strict")
    assert (strict.exit_code, LACKING in strict.stderr, (tmp_path / "strict").exists()) == (5, True, False)
    assert LACKING in run("export", prefix, target, tmp_path / "dry", "--dry-run").stdout
    result = run("export", prefix, target, tmp_path / "salvaged", "--salvage")
    assert (result.exit_code, LACKING in result.stderr) == (1, True)
    for path in (out, tmp_path / "salvaged"):
        assert list(ckpttool.open_checkpoint(path)) == ["whole"]


@pytest.mark.parametrize("format", ["--tf", "--tf-v1"])
def test_what_is_there_is_cast(run, tmp_path, format):
    """Slices are cast as wholes are, and counted; other formats leave the variable out as they do without a cast."""
    result = run("export", made(tmp_path), format, tmp_path / "out", "--cast", "float16", "--rename", "p=>q")
    assert result.exit_code == 0, result.stderr
    variable = ckpttool.open_checkpoint(tmp_path / "out")["q"]
    assert (variable.dtype.name, variable.shape, variable.stored) == ("float16", (4, 3), 6)
    assert np.array_equal(np.concatenate(list(variable.arrays_of(variable.slices[0]))), ARRAY[:2])
    result = run("export", made(tmp_path), "--npz", tmp_path / "out.npz", "--cast", "float16")
    assert f"p: left out: {LACKING}" in result.stderr
    assert np.load(tmp_path / "out.npz").keys() == {"whole"}


def test_a_part_of_an_average_takes_no_whole_variable_s_place(run, tmp_path):
    """An average of some of a variable's slices is refused, which would be lost; excluded, the variable stays. In the
    place of one that is not whole either, it is written.
    """
    average, other = "p/ExponentialMovingAverage", "whole/ExponentialMovingAverage"
    arrays = {"p": ARRAY, average: -ARRAY, "whole": np.ones(2, np.float32), other: np.zeros(2, np.float32)}
    half = [((0, 2), (0, 3))]
    prefix = bundle(arrays, slices={average: half}).write(tmp_path)
    result = run("export", prefix, "--tf", tmp_path / "out", "--ema")
    assert (result.exit_code, (tmp_path / "out.index").exists()) == (5, False)
    assert f"it can't take the place of p, which is whole: it {LACKING}" in result.stderr
    assert run("export", prefix, "--tf", tmp_path / "out", "--ema", "--exclude", average).exit_code == 0
    found = ckpttool.open_checkpoint(tmp_path / "out")
    assert {name: variable.numpy().tolist() for name, variable in found.items()} == {
        "p": ARRAY.tolist(),
        "whole": [0, 0],
    }
    (tmp_path / "both").mkdir()
    prefix = bundle(arrays, slices={"p": half, average: half}).write(tmp_path / "both")
    piece = ckpttool.use_moving_averages(ckpttool.open_checkpoint(prefix))["p"]
    assert np.array_equal(np.concatenate(list(piece.arrays_of(piece.slices[0]))), -ARRAY[:2])


def test_what_a_cast_of_slices_loses_is_counted(tmp_path):
    """Once, of all slices together, as often as they are read."""
    arrays = {"p": ARRAY * np.float32(1e5)}
    prefix = bundle(arrays, slices={"p": [((0, 1), (0, 3)), ((2, 1), (0, 3))]}).write(tmp_path)
    casts = Casts()
    variable = cast(ckpttool.open_checkpoint(prefix), "float16", casts=casts)["p"]
    for _ in range(2):
        assert sum(each.size for piece in variable.slices for each in variable.arrays_of(piece)) == 6
        assert casts.losses["p"].elements == 6
        assert casts.losses["p"].overflowed == 5


def test_it_is_said_by_verify(run, tmp_path):
    """What is lacking of a variable is a finding, and the answer is no."""
    result = run("verify", made(tmp_path))
    assert (result.exit_code, LACKING in result.stdout) == (1, True)
    assert "1 of 2 variables whole" in result.stderr


@pytest.mark.tensorflow
def test_parts_that_overlap_are_damage(tmp_path, tf):
    """TensorFlow, too, does not restore a variable of which some elements are there twice, even if others are not."""
    array = np.arange(10, dtype=np.float32)
    prefix = bundle({"p": array, "whole": array}, slices={"p": [((0, 3),), ((1, 3),)]}).write(tmp_path)
    with pytest.raises(CorruptionError, match="overlapping slices, and elements missing"):
        ckpttool.open_checkpoint(prefix)
    [finding] = ckpttool.verify(prefix).findings
    assert (finding.variable, finding.what) == ("p", "overlapping slices, and elements missing")
    with pytest.raises(tf.errors.OpError, match="Overlapping slices"):
        tf.raw_ops.RestoreV2(prefix=prefix, tensor_names=["p"], shape_and_slices=[""], dtypes=[tf.float32])


def test_verify_reads_what_is_there(run, tmp_path):
    """Of a V1 file, whose values have their checksums in its blocks: lacking is said once, and damage is found."""
    path = tmp_path / "v1"
    half = bundle({"p": np.zeros((1000, 300))}, slices={"p": [((0, 500), (0, 300))]}).write(tmp_path)
    assert run("export", half, "--tf-v1", path).exit_code == 0
    assert [finding.kind for finding in ckpttool.verify(path).findings] == ["index"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert [finding.kind for finding in ckpttool.verify(path).findings] == ["index", "data"]


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


def cut(tmp_path: Path, name: str) -> Path:
    """A partitioned variable with Adagrad's slots as Estimators have them, each part's under a name of its own."""
    halves = [((0, 2), (0, 3))], [((2, 2), (0, 3))]
    slots = {"w/t_0/Adagrad": halves[0], "w/t_1/Adagrad": halves[1]}
    arrays = {"w": ARRAY, "b": np.ones(2, np.float32)} | dict.fromkeys(slots, ARRAY)
    (tmp_path / name).mkdir()
    return Path(bundle(arrays, slices={"w": [*halves[0], *halves[1]], **slots}).write(tmp_path / name))


def test_slots_of_parts_are_no_fault(run, tmp_path):
    """They are all there, and slots; what looks at values leaves them out, and says so."""
    a, b = cut(tmp_path, "a"), cut(tmp_path, "b")
    result = run("verify", a)
    assert (result.exit_code, "4 of 4 variables whole" in result.stderr) == (0, True), result.output
    assert "slots (Adagrad): 2 variables" in run("vars", a, "--format", "table").stdout
    said = f"w/t_0/Adagrad: left out: {LACKING} (2 such variables)"
    result = run("stats", a)
    assert (result.exit_code, said in result.stderr, result.stdout.count("\n")) == (0, True, 3), result.output
    result = run("average", a, b, "--npz", tmp_path / "mean.npz")
    assert (result.exit_code, said in result.stderr) == (0, True), result.output
    assert result.stderr.count("left out") == 1  # Of two checkpoints that lack the same.
    assert set(ckpttool.open_checkpoint(tmp_path / "mean.npz")) == {"w", "b"}
    result = run("diff", a, b)
    assert result.exit_code == 0
    assert f"w/t_0/Adagrad: values not compared: {LACKING} (2 such variables)" in result.stderr
    assert "no differences in what can be read" in result.stderr
    found = ckpttool.compare(ckpttool.open_checkpoint(a), ckpttool.open_checkpoint(b))
    assert found.partly == {"w/t_0/Adagrad": LACKING, "w/t_1/Adagrad": LACKING}
    result = run("export", a, "--tf", tmp_path / "weights", "--drop-slots")
    assert (result.exit_code, set(ckpttool.open_checkpoint(tmp_path / "weights"))) == (0, {"w", "b"})
