"""State files as we write them: what TensorFlow would write, and what its CheckpointManager goes on from."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from bundles import bundle
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

import ckpttool
from ckpttool import proto
from ckpttool.errors import ConversionError, CorruptionError, FormatError, NotFoundError
from ckpttool.formats import checkpoint_state
from ckpttool.formats.checkpoint_state import (
    STATE_FILE,
    CheckpointState,
    add_to_checkpoint_state,
    read_checkpoint_state,
    relocate_checkpoint_state,
)


def saved(directory: Path, *names: str, time: float = 1.6e9) -> list[str]:
    """Bundles of these names, saved ten seconds after one another."""
    prefixes = [bundle({"v": np.zeros(())}).write(directory, name) for name in names]
    for number, prefix in enumerate(prefixes):
        os.utime(f"{prefix}.index", (0, time + 10 * number))
    return prefixes


NAMES = ["model", "model.ckpt-100", 'a"b', "back\\slash", "tab\tnew\nline", "it's", "\x7f\x01", "a b", "#", "-"]


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_as_tensorflow_writes_it(name, tf, tmp_path):
    """A state file that was not there is that of TensorFlow's update_checkpoint_state, byte for byte."""
    (prefix,) = saved(tmp_path, name)
    assert add_to_checkpoint_state(prefix)
    ours = (tmp_path / "checkpoint").read_bytes()
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), name)
    assert (tmp_path / "checkpoint").read_bytes() == ours


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TIMES = st.floats(min_value=0) | st.floats(0, 3e9)


@settings(deadline=None)
@given(TEXTS, st.lists(TEXTS, max_size=5), st.lists(TIMES, max_size=5), TIMES)
def test_as_protobuf_writes_and_reads_it(latest, paths, times, last):
    """Whatever a state is, its text is that of protobuf, and both ways to read that give it back."""
    state = CheckpointState(latest, tuple(paths), tuple(times), last)
    message = proto.message_class("CheckpointState")(
        model_checkpoint_path=latest,
        all_model_checkpoint_paths=paths,
        all_model_checkpoint_timestamps=times,
        last_preserved_timestamp=last,
    )
    text = checkpoint_state._text(state)
    assert text == text_format.MessageToString(message, as_utf8=False)
    assert checkpoint_state._parsed("checkpoint", text.encode()) == state
    assert checkpoint_state._as_written(text.encode()) in (state, None)


LINES = [b'model_checkpoint_path: "a"\n', b'all_model_checkpoint_paths: "b"\n', b'model_checkpoint_path: "c"\n']
LINES += [b"last_preserved_timestamp: 2.5\n", b"all_model_checkpoint_timestamps: 1.0\n"]
OTHERS = [b"# a comment\n", b"model_checkpoint_path: 'a'\n", b'model_checkpoint_path: "a\\"b"\n', b"\n", b"\xff"]
OTHERS += [b'all_model_checkpoint_paths: "b" "c"\n', b'model_checkpoint_path: "\xc3\xb6"\n', b"  ", b'x: "a"\n', b""]


@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=8))
def test_lines_as_tensorflow_writes_them(lines):
    """Lines in any order, and several of what there is one of, are read as protobuf reads them, and without it."""
    data = b"".join(lines)
    assert checkpoint_state._as_written(data) == checkpoint_state._parsed("checkpoint", data)


@pytest.mark.parametrize("other", OTHERS)
def test_other_lines(other):
    """Whatever TensorFlow would not write so is left to protobuf."""
    data = LINES[0] + other + LINES[1]
    assert other == b"" or checkpoint_state._as_written(data) is None
    assert checkpoint_state._as_written(data[:-1]) is None


@pytest.mark.tensorflow
def test_added_as_tensorflow_adds(tf, tmp_path):
    """One added to others is what TensorFlow writes when it is told all of them; added again, it comes last again."""
    names = ["model-1", "model-2", "model-3"]
    prefixes = saved(tmp_path, *names)
    tf.compat.v1.train.update_checkpoint_state(str(tmp_path), names[1], all_model_checkpoint_paths=names[:2])
    for added, listed in ((2, names), (0, [names[1], names[2], names[0]])):
        assert add_to_checkpoint_state(prefixes[added], force=True)
        ours = (tmp_path / "checkpoint").read_bytes()
        tf.compat.v1.train.update_checkpoint_state(str(tmp_path), names[added], all_model_checkpoint_paths=listed)
        assert (tmp_path / "checkpoint").read_bytes() == ours
        assert tf.train.latest_checkpoint(str(tmp_path)) == prefixes[added]


@pytest.mark.tensorflow
def test_name_that_is_not_ascii(tf, tmp_path):
    """A name beyond ASCII is escaped, as every release of protobuf reads it; TensorFlow finds the checkpoint."""
    (prefix,) = saved(tmp_path, "m\u00f6del-\u65e5")
    add_to_checkpoint_state(prefix)
    assert (tmp_path / "checkpoint").read_bytes().isascii()
    assert tf.train.latest_checkpoint(str(tmp_path)) == prefix


def test_not_touched_without_force(tmp_path):
    """A state file that is there is left alone, whatever it is; so is a dead link of this name."""
    (prefix,) = saved(tmp_path, "model")
    (tmp_path / "checkpoint").write_bytes(b"mine")
    assert not add_to_checkpoint_state(prefix)
    assert (tmp_path / "checkpoint").read_bytes() == b"mine"
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").symlink_to(tmp_path / "none")
    assert not add_to_checkpoint_state(prefix)
    assert (tmp_path / "checkpoint").is_symlink()


def test_other_paths_stay_as_written(tmp_path):
    """Absolute and dead paths stay; those that lead to the same checkpoint go, or a manager would delete it as old."""
    prefixes = saved(tmp_path, "old", "new")
    paths = ["/gone/model-1", prefixes[0], "./new", prefixes[1], "sub/../new", "new", "sub/new"]
    lines = [f'all_model_checkpoint_paths: "{path}"\n' for path in paths]
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "old"\n' + "".join(lines))
    assert add_to_checkpoint_state(prefixes[1], force=True)
    state = read_checkpoint_state(str(tmp_path / "checkpoint"))
    assert state.latest == "new"
    assert state.all == ("/gone/model-1", prefixes[0], "sub/new", "new")


@pytest.mark.tensorflow
def test_manager_goes_on_where_we_have_added(tf, tmp_path):
    """A CheckpointManager counts the one that we have added among those that it keeps, and deletes the oldest."""
    variable = tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(v=variable)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=3)
    manager.save()
    manager.save()
    before = read_checkpoint_state(str(tmp_path / "checkpoint"))
    (ours,) = saved(tmp_path, "ours", time=before.timestamps[-1])
    assert add_to_checkpoint_state(ours, force=True)
    after = read_checkpoint_state(str(tmp_path / "checkpoint"))
    assert after.timestamps == (*before.timestamps, os.stat(f"{ours}.index").st_mtime)
    again = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=3)
    assert [os.path.basename(path) for path in again.checkpoints] == ["ckpt-1", "ckpt-2", "ours"]
    again.save()
    assert [os.path.basename(path) for path in again.checkpoints] == ["ckpt-2", "ours", "ckpt-3"]
    assert not (tmp_path / "ckpt-1.index").exists()


def test_times_without_the_others(tmp_path):
    """Where the others have no times, or not all of them, none are written: TensorFlow wants one for each, or none."""
    prefixes = saved(tmp_path, "a", "b")
    text = 'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "x"\nall_model_checkpoint_paths: "a"\n'
    for times in ("", "all_model_checkpoint_timestamps: 1.5\n"):
        (tmp_path / "checkpoint").write_text(text + times + "last_preserved_timestamp: 7.25\n")
        add_to_checkpoint_state(prefixes[1], force=True)
        assert "timestamps" not in (tmp_path / "checkpoint").read_text()
        assert "last_preserved_timestamp: 7.25" in (tmp_path / "checkpoint").read_text()


@pytest.mark.tensorflow
def test_said_twice(tf, tmp_path):
    """Of what stands there several times, the last counts, as TensorFlow reads it."""
    text = 'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\nmodel_checkpoint_path: "b"\n'
    (tmp_path / "checkpoint").write_text(text)
    assert read_checkpoint_state(str(tmp_path / "checkpoint")).latest == "b"
    assert tf.train.get_checkpoint_state(str(tmp_path)).model_checkpoint_path == str(tmp_path / "b")


def test_state_file_that_is_none(tmp_path):
    """What is no state file is an error, and stays as it is."""
    (prefix,) = saved(tmp_path, "model")
    (tmp_path / "checkpoint").write_bytes(b"\xff no state file")
    with pytest.raises(CorruptionError, match="not a checkpoint state file"):
        add_to_checkpoint_state(prefix, force=True)
    assert (tmp_path / "checkpoint").read_bytes() == b"\xff no state file"
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(FormatError, match="not a regular file"):
        add_to_checkpoint_state(prefix, force=True)


def test_name_that_no_text_can_have(tmp_path):
    """A file name that is not UTF-8 can't be in a text message, and is an error that says so."""
    (prefix,) = saved(tmp_path, "\udcff")
    with pytest.raises(ConversionError, match="not UTF-8"):
        add_to_checkpoint_state(prefix)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("name", ["modle", "model.index", ""])
def test_a_checkpoint_that_is_not_there(tmp_path, name):
    """A state file that named it would keep every reader from the others; shards of a V1 checkpoint are one."""
    (prefix,) = saved(tmp_path, "model")
    add_to_checkpoint_state(prefix)
    before = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(NotFoundError, match=r"no such checkpoint .* checkpoints there: model"):
        add_to_checkpoint_state(f"{tmp_path}{os.sep}{name}", force=True)
    assert (tmp_path / "checkpoint").read_bytes() == before
    ckpttool.write_tensor_slices(ckpttool.from_arrays({"a": [1.0]}), tmp_path / "v1-00000-of-00001")
    assert add_to_checkpoint_state(tmp_path / "v1", force=True)
    assert read_checkpoint_state(tmp_path / "checkpoint").latest == "v1"


def test_backslashes_that_were_written_once(tmp_path):
    """Of a Windows path that was written by hand, it is told how backslashes are written."""
    path = tmp_path / "checkpoint"
    path.write_text('model_checkpoint_path: "C:\\Users\\me\\model"\n')
    with pytest.raises(CorruptionError, match=r"in a path each \\ is written as \\\\; the checkpoints beside it"):
        read_checkpoint_state(path)


def test_a_relocation_that_fails_leaves_no_backup(tmp_path, monkeypatch):
    """Where the state file can't be replaced, it is as it was, and no copy of it stays beside it."""
    path = tmp_path / STATE_FILE
    path.write_text('model_checkpoint_path: "/old/model"\n')

    def refuse(old, new):
        raise OSError(errno.EIO, os.strerror(errno.EIO), old)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        relocate_checkpoint_state(str(path), lambda prefix: not prefix.startswith("/old"), output=None, force=False)
    assert os.listdir(tmp_path) == [STATE_FILE]
