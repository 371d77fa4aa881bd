"""Directories of checkpoints: state files, steps, V1 beside V2."""

import json
import shutil

import pytest
from conftest import CORPUS, FIXTURES, needs_corpus

import ckpttool
from ckpttool.errors import NotFoundError
from ckpttool.formats.locate import locate, state_entries


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of steps 5, 10 and 100; the state file lists 10, 100 (by dead paths) and 7, which is gone."""
    for step in (5, 10, 100):
        for file in (FIXTURES / "linear").glob("model.*"):
            shutil.copy(file, tmp_path / file.name.replace("model", f"model-{step}"))
    lines = ['model_checkpoint_path: "/old/model-100"']
    lines += [f'all_model_checkpoint_paths: "/old/model-{step}"' for step in (7, 10, 100)]
    lines += [f"all_model_checkpoint_timestamps: {1500000000 + step}.5" for step in (7, 10, 100)]
    (tmp_path / "checkpoint").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_entries(directory):
    """What is listed comes first, with what dangles; then what is there and not listed."""
    found = [(entry.written, bool(entry.prefix), entry.is_latest) for entry in state_entries(str(directory))]
    assert found == [
        ("/old/model-7", False, False),
        ("/old/model-10", True, False),
        ("/old/model-100", True, True),
        ("", True, False),
    ]


def test_state_command(directory, run):
    """`state` shows status, the latest, and the time of saving."""
    rows = json.loads(run("state", directory, "--json").stdout)["checkpoints"]
    assert [row["status"] for row in rows] == ["dangling", "there", "there", "not listed"]
    assert rows[2]["latest"] == "latest"
    assert rows[1]["saved"] == "2017-07-14 02:40:10+00:00"


def test_relocate_keeps_a_backup(directory, run):
    """--relocate makes paths relative that lead somewhere, keeps the others and the times, and keeps the old file."""
    before = (directory / "checkpoint").read_bytes()
    assert run("state", directory, "--relocate").exit_code == 0
    assert (directory / "checkpoint.bak").read_bytes() == before
    text = (directory / "checkpoint").read_text()
    assert text.splitlines()[0] == 'model_checkpoint_path: "model-100"'
    assert '"/old/model-7"' in text
    assert "1500000010.5" in text
    assert not any("dead" in note for note in locate(directory).notes)


def test_relocate_to_another_file(directory, run):
    """With -o the state file itself is not touched."""
    before = (directory / "checkpoint").read_bytes()
    assert run("state", directory, "--relocate", "-o", directory / "new").exit_code == 0
    assert (directory / "checkpoint").read_bytes() == before
    assert 'model_checkpoint_path: "model-100"' in (directory / "new").read_text()


@pytest.mark.tensorflow
def test_tensorflow_follows_a_relocated_file(directory, run, tf):
    """TensorFlow finds the latest checkpoint again."""
    assert tf.train.latest_checkpoint(str(directory)) is None
    run("state", directory, "--relocate")
    assert tf.train.latest_checkpoint(str(directory)) == str(directory / "model-100")


def test_steps(directory):
    """--step takes a step, or the latest by number, or what the state file says."""
    assert locate(directory, step="5").prefix.endswith("model-5")
    assert locate(directory, step="latest").prefix.endswith("model-100")
    (directory / "checkpoint").unlink()
    assert locate(directory, step="latest").prefix.endswith("model-100")
    with pytest.raises(NotFoundError, match="--step takes one of model-5, model-10, model-100"):
        locate(directory)
    with pytest.raises(NotFoundError, match="no checkpoint of step 6"):
        locate(directory, step="6")


@needs_corpus
def test_v1_beside_v2(run):
    """Where both share a prefix V2 is read, it is said, and --v1 takes the other, which has other values."""
    prefix = CORPUS / "ardiya_siamese" / "model" / "model.ckpt"
    result = run("vars", prefix, "--json")
    assert "--v1 takes it" in result.stderr
    assert "V2" in json.loads(result.stdout)["format"]
    assert "V1" in json.loads(run("vars", prefix, "--v1", "--json").stdout)["format"]
    both = [ckpttool.open_checkpoint(locate(prefix, v1=v1)) for v1 in (False, True)]
    assert set(both[0]) == set(both[1])
    assert int(both[0]["Variable"].numpy()) != int(both[1]["Variable"].numpy())


@needs_corpus
@pytest.mark.parametrize("name", ["export", "export-00000-of-00001", "export-?????-of-00001", ""])
def test_v1_shards(name):
    """A sharded V1 checkpoint is known by its stem, a shard, the pattern of a state file, and its directory."""
    directory = CORPUS / "tensorflow_serving/tensorflow_serving/session_bundle/testdata/half_plus_two/00000123"
    found = locate(directory / name)
    assert len(ckpttool.open_checkpoint(found)) == 2
    assert found.graph.endswith("export.meta")
