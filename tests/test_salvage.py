"""`export --salvage`: what is whole is written as it was, what is not is listed, and the exit code says which."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle, strings, table_of
from conftest import FIXTURES

import ckpttool
from ckpttool.cli.targets import WRITERS
from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.wire.sstable import Table

ARRAYS = {"a": np.arange(6, dtype=np.float32), "b": np.arange(4.0), "s": strings(b"x", b"yz"), "z": np.int64([7])}


def values(path: object) -> dict[str, object]:
    return {name: variable.numpy().tolist() for name, variable in ckpttool.open_checkpoint(path).items()}


def expected(*names: str) -> dict[str, object]:
    return {name: ARRAYS[name].tolist() for name in names}


def broken(directory: Path, name: str = "b") -> str:
    """A bundle with one variable whose checksum is another."""
    return bundle(ARRAYS).change(name, crc32c=1).write(directory)


@pytest.mark.parametrize("target", WRITERS)
def test_what_is_whole_is_written(run, tmp_path, target):
    """Into every format, with a warning for what is left out, and exit code 1."""
    output = tmp_path / f"out{'.' + target if target in ('h5', 'npz', 'safetensors') else ''}"
    result = run("export", broken(tmp_path), "--salvage", f"--{target}", output)
    assert result.exit_code == 1
    assert values(output) == expected("a", "s", "z")
    assert "warning: b: left out: Checksum does not match" in result.stderr
    assert "likely cause: one stored tensor of 4 is damaged, and no other: b" in result.stderr
    assert "wrote 3 variables" in result.stderr


def test_a_damaged_one_is_no_mistyped_one(run, tmp_path):
    """A pattern that matches what is left out because of its damage is told nothing more of."""
    globs = ["-i", "a", "-i", "b", "-i", "c"]
    result = run("export", broken(tmp_path), "--salvage", "--npz", tmp_path / "out.npz", *globs)
    assert "warning: b: left out" in result.stderr
    assert [line for line in result.stderr.splitlines() if "matches no name" in line] == ["note: 'c' matches no name"]


def test_without_the_option(run, tmp_path):
    """Damage is an error, and nothing is written."""
    assert run("export", broken(tmp_path), "--npz", tmp_path / "out.npz").exit_code == 4
    assert not (tmp_path / "out.npz").exists()


def test_what_is_sound(run, tmp_path):
    """Of a sound checkpoint all is written, as without the option, with exit code 0."""
    for fixture in ("objects/model-1", "partitioned/slices", "sharded/model"):
        prefix = FIXTURES / fixture
        assert run("export", prefix, "--salvage", "--tf", tmp_path / "a").exit_code == 0
        assert run("export", prefix, "--tf", tmp_path / "b").exit_code == 0
        for one in sorted(tmp_path.glob("a.*")):
            assert one.read_bytes() == one.with_name(f"b{one.name[1:]}").read_bytes()
            one.unlink()
            one.with_name(f"b{one.name[1:]}").unlink()


@pytest.mark.tensorflow
def test_tensorflow_reads_what_was_salvaged(tf, run, tmp_path):
    """What a truncated file still held, TensorFlow reads from the new checkpoint, and from the old one too."""
    prefix = tmp_path / "model"
    for path in (FIXTURES / "conv").glob("model.*"):
        shutil.copy(path, tmp_path)
    data = Path(shard_path(str(prefix), 0, 1))
    data.write_bytes(data.read_bytes()[:512])
    assert run("export", prefix, "--salvage", "--tf", tmp_path / "out").exit_code == 1
    old, new = tf.train.load_checkpoint(str(prefix)), tf.train.load_checkpoint(str(tmp_path / "out"))
    written = new.get_variable_to_shape_map()
    for name in old.get_variable_to_shape_map():
        try:
            value = old.get_tensor(name)
        except (tf.errors.OpError, IndexError):
            assert name not in written
            continue
        np.testing.assert_array_equal(new.get_tensor(name), value)
    assert 0 < len(written) < 14


@pytest.mark.tensorflow
@pytest.mark.parametrize("damage", ["data", "index"])
def test_tensorflow_restores_objects_that_were_salvaged(tf, run, tmp_path, damage):
    """A TensorFlow 2 checkpoint without a variable restores the others; its object graph does not name the lost one."""
    first = tf.train.Checkpoint(left=tf.Variable([1.0, 2.0]), right=tf.Variable([3.0, 4.0]))
    prefix = first.write(str(tmp_path / "model"))
    name = "left/.ATTRIBUTES/VARIABLE_VALUE"
    if damage == "data":
        span = ckpttool.open_checkpoint(prefix)[name].slices[0].data
        data = bytearray(Path(span.path).read_bytes())
        data[span.offset] ^= 1
        Path(span.path).write_bytes(data)
    else:
        index = Path(index_path(prefix)).read_bytes()
        pairs = dict(Table.from_bytes(index)) | {name.encode(): b"\x08"}
        Path(index_path(prefix)).write_bytes(table_of(sorted(pairs.items())))
    assert run("export", prefix, "--salvage", "--tf", tmp_path / "out").exit_code == 1
    second = tf.train.Checkpoint(right=tf.Variable([0.0, 0.0]))
    second.restore(str(tmp_path / "out")).expect_partial()
    assert second.right.numpy().tolist() == [3, 4]
    keys = {key for key, _ in tf.train.list_variables(str(tmp_path / "out"))}
    assert keys == {"_CHECKPOINTABLE_OBJECT_GRAPH", "right/.ATTRIBUTES/VARIABLE_VALUE"}
    graph = ckpttool.open_checkpoint(tmp_path / "out").object_graph
    assert graph.unstored(keys) == []


def test_entries_that_cannot_be_listed(run, tmp_path):
    """An entry of the index that can't be is said, and what could be listed is written."""
    made = bundle(ARRAYS).change("b", size=5)
    result = run("export", made.write(tmp_path), "--salvage", "--npz", tmp_path / "out.npz")
    assert result.exit_code == 1
    assert "warning: Invalid size in bundle entry" in result.stderr
    assert values(tmp_path / "out.npz") == expected("a", "s", "z")


@pytest.mark.parametrize("shards", [2, 3])
def test_a_missing_shard(run, tmp_path, shards):
    """Without one of its data files, all that lies in the others is written."""
    made = bundle(ARRAYS, shards=shards)
    made.shards[0] = None
    result = run("export", made.write(tmp_path), "--salvage", "--npz", tmp_path / "out.npz")
    assert result.exit_code == 1
    lost = {2: ("a", "s"), 3: ("a", "z")}[shards]
    assert values(tmp_path / "out.npz") == expected(*(name for name in ARRAYS if name not in lost))
    assert f"warning: {lost[0]}: left out: its data file is missing" in result.stderr


def test_what_is_lost_for_one_reason_is_said_once(run, tmp_path):
    """Of many variables that a missing data file held, one line says how many they are; the plan names them all."""
    arrays = {f"w{number}": np.full(3, number, np.float32) for number in range(8)}
    made = bundle(arrays, shards=2)
    made.shards[0] = None
    arguments = ["export", made.write(tmp_path), "--salvage", "--npz", tmp_path / "out.npz"]
    lines = [line for line in run(*arguments).stderr.splitlines() if "left out" in line]
    what = "left out: its data file is missing · --salvage --dry-run lists them"
    assert lines == [f"warning: w0 and 3 more variables: {what}"]
    plan = run(*arguments, "--dry-run", "--force", "--format", "tsv").stdout
    assert plan.count("\tleft out: its data file is missing\n") == 4


def test_an_index_without_its_end(run, tmp_path):
    """All of a checkpoint whose index was cut off behind its entries is written."""
    made = bundle(ARRAYS)
    result = run("export", made.write(tmp_path, index=made.index[:-80]), "--salvage", "--tf", tmp_path / "out")
    assert result.exit_code == 1
    assert values(tmp_path / "out") == expected(*ARRAYS)


def test_a_v1_checkpoint_without_its_end(run, tmp_path):
    """Of a V1 checkpoint that was cut off, tensors in whole blocks are written."""
    random = np.random.default_rng(1)
    arrays = {f"v{i}": random.normal(size=40_000) for i in range(6)}
    ckpttool.write_tensor_slices(bundle(arrays).open(tmp_path), tmp_path / "v1")
    data = (tmp_path / "v1").read_bytes()
    (tmp_path / "v1").write_bytes(data[: len(data) * 2 // 3])
    result = run("export", tmp_path / "v1", "--salvage", "--npz", tmp_path / "out.npz")
    assert result.exit_code == 1
    found = values(tmp_path / "out.npz")
    assert 1 < len(found) < 6
    assert found == {name: arrays[name].tolist() for name in found}


@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_other_sources(run, tmp_path, format):
    """Of a damaged file of another format, arrays that can be read are written."""
    arrays = {name: np.arange(2000.0) + i for i, name in enumerate("abc")}
    source = tmp_path / f"m.{format}"
    getattr(ckpttool, f"write_{format}")(bundle(arrays).open(tmp_path), source)
    data = source.read_bytes()
    position = data.index(arrays["c"].tobytes())
    source.write_bytes(
        data[: position + 9000] + b"?" + data[position + 9001 :] if format == "npz" else data[: position + 9000]
    )
    assert run("export", source, "--salvage", "--tf", tmp_path / "out").exit_code == 1
    assert values(tmp_path / "out") == {name: arrays[name].tolist() for name in "ab"}


def test_nothing_is_whole(run, tmp_path):
    """Then nothing is written."""
    made = bundle({"a": np.arange(3.0)}).change("a", crc32c=1)
    result = run("export", made.write(tmp_path), "--salvage", "--npz", tmp_path / "out.npz")
    assert (result.exit_code, result.stderr.endswith("nothing is whole\n")) == (1, True)
    assert not (tmp_path / "out.npz").exists()


def test_what_was_not_asked_for(run, tmp_path):
    """What is damaged and was excluded is not missed; names are changed as without the option."""
    prefix = broken(tmp_path)
    options = ["--salvage", "-x", "b", "--rename", "^a=>c", "--npz", tmp_path / "out.npz"]
    result = run("export", prefix, *options)
    assert (result.exit_code, "left out" in result.stderr) == (0, False)
    assert list(values(tmp_path / "out.npz")) == ["c", "s", "z"]


def damaged_objects(directory: Path, key: str) -> Path:
    """A checkpoint of TensorFlow 2 in which one value has another checksum."""
    shutil.copytree(FIXTURES / "objects", directory / "objects")
    prefix = directory / "objects" / "model-1"
    span = ckpttool.open_checkpoint(prefix)[key].slices[0].data
    data = bytearray(Path(span.path).read_bytes())
    data[span.offset + span.nbytes - 1] ^= 1
    Path(span.path).write_bytes(data)
    return prefix


@pytest.mark.parametrize("glob", ["first/kernel", "model/tied/kernel", "model/**", "model/tied/*", "first/*"])
def test_what_was_asked_for_by_its_object(run, tmp_path, glob):
    """What is chosen by an object's path or full name, and is damaged, is told of as what is chosen by its key."""
    key = "model/tied/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    arguments = ["export", damaged_objects(tmp_path, key), "--salvage", "--npz", tmp_path / "out.npz"]
    result = run(*arguments, "--include", glob)
    assert result.exit_code == 1
    assert f"warning: {key}: left out: " in result.stderr
    if "*" in glob:
        assert "model/tied/bias/.ATTRIBUTES/VARIABLE_VALUE" in values(tmp_path / "out.npz")
        assert run(*arguments, "--force", "--include", "first/*", "--exclude", "first/kernel").exit_code == 0
    else:
        assert result.stderr.endswith("\nnothing of that is whole\n")


def test_a_lost_object_graph_is_told_of(run, tmp_path):
    """A checkpoint of objects is written with its object graph, whatever was chosen: without, TensorFlow 2 restores
    nothing, so that it is missed; not so in other formats.
    """
    prefix = damaged_objects(tmp_path, "_CHECKPOINTABLE_OBJECT_GRAPH")
    chosen = ["--salvage", "--include", "model/tied/**"]
    result = run("export", prefix, *chosen, "--tf", tmp_path / "out")
    assert result.exit_code == 1
    assert "warning: _CHECKPOINTABLE_OBJECT_GRAPH: left out: " in result.stderr
    assert run("export", prefix, *chosen, "--npz", tmp_path / "out.npz").exit_code == 0


def test_what_is_passed_over(run, tmp_path):
    """Notes and warnings on the source are those of an export without the option, and --strict refuses the same."""
    np.savez(tmp_path / "m.npz", w=np.ones(2), odd=np.zeros(2, [("a", "i4"), ("b", "f4")]))
    arguments = ["export", tmp_path / "m.npz", "--npz", tmp_path / "out.npz", "--force"]
    for options, code in ([], 0), (["--strict"], 5), (["--quiet"], 0):
        plain, salvaged = run(*arguments, *options), run(*arguments, *options, "--salvage")
        assert (salvaged.exit_code, salvaged.stderr) == (plain.exit_code, plain.stderr)
        assert plain.exit_code == code
    found = run("export", FIXTURES / "linear", "--salvage", "--npz", tmp_path / "out.npz", "--force")
    assert found.stderr == run("export", FIXTURES / "linear", "--npz", tmp_path / "out.npz", "--force").stderr


def test_with_a_graph(run, tmp_path):
    """A graph needs all of its variables: --meta is refused."""
    result = run("export", broken(tmp_path), "--salvage", "--tf", tmp_path / "out", "--meta")
    assert result.exit_code == 2
    assert "--salvage may leave some out" in result.stderr


def test_a_plan(run, tmp_path):
    """--dry-run lists what would be left out, with the reason, and what keeps the rest from being listed."""
    made = bundle(ARRAYS).change("b", crc32c=1).change("z", size=5)
    options = ["--salvage", "--dry-run", "--npz", tmp_path / "out.npz"]
    result = run("export", made.write(tmp_path), *options, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [row["name"] for row in document["plan"]] == ["a", "s", "b"]
    row = document["plan"][-1]
    assert (row["becomes"], row["bytes"]) == (None, 0)
    assert row["remark"].startswith("left out: Checksum does not match")
    assert [(row["kind"], row["variable"]) for row in document["findings"]] == [("index", "z")]
    assert not (tmp_path / "out.npz").exists()


def test_hostile_names(run, tmp_path):
    """Escape sequences in the names of what is left out do not reach the terminal."""
    made = bundle({"a\x1b[2J": np.ones(2), "b": np.ones(3)})
    made.change("a\x1b[2J", crc32c=1)
    result = run("export", made.write(tmp_path), "--salvage", "--npz", tmp_path / "out.npz")
    assert result.exit_code == 1
    assert "\x1b" not in result.output
