"""Directories of checkpoints: state files, steps, V1 beside V2."""

import json
import os
import shutil

import pytest
from conftest import CORPUS, FIXTURES, needs_corpus

import ckpttool
from ckpttool.errors import NotFoundError
from ckpttool.formats import opening
from ckpttool.formats.listing import checkpoints_in, state_entries
from ckpttool.formats.locate import locate


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


def test_a_directory_is_not_listed_for_each_of_its_checkpoints(directory, monkeypatch):
    """Of thousands, as many listings of thousands of names would take minutes."""
    listings = []
    monkeypatch.setattr(os, "listdir", lambda path, listdir=os.listdir: listings.append(path) or listdir(path))
    for step in range(101, 131):
        shutil.copy(directory / "model-5.index", directory / f"model-{step}.index")
    state = directory / "checkpoint"
    state.write_text(
        'model_checkpoint_path: "model-130"\n'
        + "".join(f'all_model_checkpoint_paths: "model-{step}"\n' for step in [*range(100, 131), *range(200, 230)])
    )
    assert sum(bool(entry.prefix) for entry in state_entries(str(directory))) == 33
    assert len(listings) < 5


def test_state_command(directory, run):
    """`state` shows status, the latest, and the time of saving."""
    rows = json.loads(run("state", directory, "--json").stdout)["checkpoints"]
    assert [row["status"] for row in rows] == ["dangling", "there", "there", "not listed"]
    assert rows[2]["latest"] == "latest"
    assert rows[1]["saved"] == "2017-07-14 02:40:10+00:00"
    assert rows[0]["prefix"] is None


def test_an_index_that_may_not_be_read(directory, run, monkeypatch):
    """One checkpoint that is not ours to read is incomplete, and does not hide the others."""

    def refusing(found):
        if found.prefix.endswith("model-10"):
            raise PermissionError(13, "Permission denied", f"{found.prefix}.index")
        return open_checkpoint(found)

    open_checkpoint = opening.open_checkpoint
    monkeypatch.setattr(opening, "open_checkpoint", refusing)
    rows = json.loads(run("state", directory, "--json").stdout)["checkpoints"]
    assert [row["status"] for row in rows] == ["dangling", "incomplete", "there", "not listed"]


def test_incomplete(directory, run):
    """A data file that is missing or cut, or an index that is cut, makes a checkpoint incomplete."""
    (directory / "model-10.data-00000-of-00001").unlink()
    for name in ("model-100.data-00000-of-00001", "model-5.index"):
        whole = (directory / name).read_bytes()
        (directory / name).write_bytes(whole[:-1])
    rows = json.loads(run("state", directory, "--json").stdout)["checkpoints"]
    assert [row["status"] for row in rows] == ["dangling", "incomplete", "incomplete", "not listed, incomplete"]
    assert run("state", FIXTURES / "sharded", "--json").stdout.count("incomplete") == 0


@pytest.mark.parametrize("time", ["inf", "nan", "1e300", "-1e15"])
def test_times_that_no_calendar_has(directory, run, time):
    """A time that is no date is shown as the number that it is."""
    text = (directory / "checkpoint").read_text()
    (directory / "checkpoint").write_text(text.replace("1500000007.5", time))
    assert run("state", directory).exit_code == 0


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


def test_relocate_says_what_is_gone(directory, run):
    """A path that leads nowhere is left, and said: with nothing changed, all would seem well."""
    assert run("state", directory, "--relocate").stderr.splitlines()[1:] == [
        "note: no checkpoint is at /old/model-7: left as it is"
    ]
    (directory / "checkpoint").write_text(
        'model_checkpoint_path: "/old/x-9"\nall_model_checkpoint_paths: "/old/x-8"\n'
        'all_model_checkpoint_paths: "/old/x-9"\n'
    )
    assert run("state", directory, "--relocate").stderr.splitlines() == [
        f"made 0 paths relative · {directory}/checkpoint",
        "note: no checkpoint is at /old/x-9 (2 such paths): left as it is",
    ]
    assert run("state", directory, "--relocate", "--quiet").stderr == ""


@pytest.mark.parametrize("options", [[], ["-o", "new"], ["-o", "there"], ["-o", "there", "--force"], ["-o", "no/new"]])
def test_relocate_in_a_dry_run(directory, run, monkeypatch, options):
    """It says and refuses what the real run does, and writes nothing."""
    monkeypatch.chdir(directory)
    (directory / "there").touch()
    before = {path: path.read_bytes() for path in directory.iterdir()}
    dry = run("state", ".", "--relocate", *options, "--dry-run")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    real = run("state", ".", "--relocate", *options)
    assert dry.exit_code == real.exit_code
    assert dry.stderr == real.stderr.replace("made 3 paths", "would make 3 paths")


def test_relocate_leaves_what_is_alive(tmp_path, run):
    """A relative path that leads somewhere stays, though the same name stands beside it too."""
    for folder in (tmp_path, tmp_path / "sub"):
        folder.mkdir(exist_ok=True)
        for file in (FIXTURES / "linear").glob("model.*"):
            shutil.copy(file, folder)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "sub/model"\n')
    run("state", tmp_path, "--relocate")
    assert (tmp_path / "checkpoint").read_text() == 'model_checkpoint_path: "sub/model"\n'
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path}/sub/model"\n')
    run("state", tmp_path, "--relocate")
    assert (tmp_path / "checkpoint").read_text() == 'model_checkpoint_path: "sub/model"\n'


@pytest.mark.parametrize("is_alive", [True, False])
def test_relocate_a_checkpoint_without_a_name(tmp_path, run, is_alive):
    """A program that gives a saver a directory, "runs/1/", has files called .index and .meta: an empty path is none."""
    for file in (FIXTURES / "linear").glob("model.*"):
        shutil.copy(file, tmp_path / file.name.removeprefix("model"))
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{tmp_path if is_alive else "/old/runs"}/"\n')
    assert "made 1 path relative" in run("state", tmp_path, "--relocate").stderr
    assert (tmp_path / "checkpoint").read_text() == 'model_checkpoint_path: "./"\n'
    assert locate(tmp_path).prefix == f"{tmp_path}/./"
    assert len(ckpttool.open_checkpoint(tmp_path)) == 2


def test_relocate_again_changes_nothing(directory, run):
    """A second time there is nothing to do, and the backup is still the first file."""
    before = (directory / "checkpoint").read_bytes()
    run("state", directory, "--relocate")
    assert "made 0 paths relative" in run("state", directory, "--relocate").stderr
    assert (directory / "checkpoint.bak").read_bytes() == before
    assert not (directory / "checkpoint.bak.1").exists()
    (directory / "checkpoint").write_bytes(before)
    run("state", directory, "--relocate")
    assert (directory / "checkpoint.bak.1").exists()


def test_directory_without_a_state_file(directory, run):
    """What is there is listed, as not listed anywhere."""
    (directory / "checkpoint").unlink()
    rows = json.loads(run("state", directory, "--json").stdout)["checkpoints"]
    assert [row["status"] for row in rows] == ["not listed"] * 3
    assert run("state", directory, "--format", "table").stdout.splitlines()[2].split() == ["checkpoint", "status"]


@pytest.mark.parametrize("name", ["model-10", "model-10.index"])
def test_a_checkpoint_is_no_directory(directory, run, monkeypatch, name):
    """Of a prefix or a file, the directory is told; it is not said that there is none."""
    said = f"not a directory · {directory / name} · the directory of this is {directory}"
    assert said in run("state", directory / name).stderr
    monkeypatch.chdir(directory)
    assert "the directory of this is ." in run("state", name).stderr
    assert "no such directory · gone" in run("state", "gone").stderr


@pytest.mark.parametrize("name", ["cp-{:04}.ckpt", "cp-{}.ckpt", "{}", "model.ckpt-{}"])
def test_steps_of_other_names(tmp_path, name):
    """Keras' checkpoints have a suffix behind the step, and some have no name but that."""
    for step in (1, 2, 10):
        for file in (FIXTURES / "linear").glob("model.[di]*"):
            shutil.copy(file, tmp_path / file.name.replace("model", name.format(step)))
    assert checkpoints_in(tmp_path) == [str(tmp_path / name.format(step)) for step in (1, 2, 10)]
    for step, found in ((2, 2), ("latest", 10)):
        assert locate(tmp_path, step=step).prefix == str(tmp_path / name.format(found))


def test_a_step_is_no_saved_models(directory):
    """Where training left a SavedModel beside its checkpoints, that is the model, and --step takes a checkpoint."""
    shutil.copy(FIXTURES / "linear" / "model.meta", directory / "saved_model.pb")
    (directory / "variables").mkdir()
    for file in (FIXTURES / "linear").glob("model.[di]*"):
        shutil.copy(file, directory / "variables" / file.name.replace("model", "variables"))
    found = locate(directory)
    assert found.prefix == str(directory / "variables" / "variables")
    said = f"taking the SavedModel in {directory}; checkpoints stand there too, of which --step takes one"
    assert found.notes == (said,)
    for step, name in ((10, "model-10"), ("latest", "model-100")):
        assert locate(directory, step=step).prefix == str(directory / name)
    for path in (directory, directory / "variables"):
        with pytest.raises(NotFoundError, match="no checkpoint of step 9"):
            locate(path, step=9)


def test_what_is_no_step(tmp_path, run):
    """Where nothing tells the latest, none is taken for it."""
    for name in ("resnet50", "resnet101"):
        for file in (FIXTURES / "linear").glob("model.[di]*"):
            shutil.copy(file, tmp_path / file.name.replace("model", name))
    with pytest.raises(NotFoundError, match=r"several checkpoints.* give the path of one of resnet50, resnet101"):
        locate(tmp_path, step="latest")
    assert run("average", tmp_path, "--last", "2", "--tf", tmp_path / "mean").exit_code == 0


def test_relocate_to_another_file(directory, run):
    """With -o the state file itself is not touched."""
    before = (directory / "checkpoint").read_bytes()
    assert run("state", directory, "--relocate", "-o", directory / "new").exit_code == 0
    assert (directory / "checkpoint").read_bytes() == before
    assert 'model_checkpoint_path: "model-100"' in (directory / "new").read_text()
    assert not (directory / "checkpoint.bak").exists()
    assert run("state", directory, "--relocate", "-o", directory / "new").exit_code == 2
    assert run("state", directory, "--relocate", "-o", directory / "new", "--force").exit_code == 0


@pytest.mark.tensorflow
def test_tensorflow_follows_a_relocated_file(directory, run, tf):
    """TensorFlow finds the latest checkpoint again."""
    assert tf.train.latest_checkpoint(str(directory)) is None
    run("state", directory, "--relocate")
    assert tf.train.latest_checkpoint(str(directory)) == str(directory / "model-100")


def test_steps(directory):
    """--step takes a step, or the latest by number, or what the state file says."""
    assert locate(directory, step="05").prefix.endswith("model-5")
    assert locate(directory, step=10).prefix.endswith("model-10")
    assert locate(directory, step="latest").prefix.endswith("model-100")
    (directory / "checkpoint").unlink()
    assert locate(directory, step="latest").prefix.endswith("model-100")
    with pytest.raises(NotFoundError, match="--step takes the number of one of model-5, model-10, model-100"):
        locate(directory)
    with pytest.raises(NotFoundError, match="no checkpoint of step 6"):
        locate(directory, step="6")
    with pytest.raises(ValueError, match="is neither the number of a step nor latest"):
        locate(directory, step="x")
    with pytest.raises(ValueError, match="chosen among the checkpoints of a directory"):
        locate(directory / "model-5.index", step=5)


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


@pytest.fixture
def both(tmp_path):
    """A prefix that a V2 checkpoint and a V1 one share, with a graph."""
    prefix = tmp_path / "both" / "model"
    prefix.parent.mkdir()
    for file in (FIXTURES / "linear").glob("model.*"):
        shutil.copy(file, prefix.parent)
    ckpttool.write_tensor_slices(ckpttool.open_checkpoint(prefix), prefix)
    return prefix


COMMANDS_WITHOUT_V1 = {
    "ls": ["--devices"],
    "io": [],
    "diff": [FIXTURES / "linear" / "model"],
    "average": [FIXTURES / "linear" / "model", "--npz", "mean.npz", "--dry-run"],
    "strip-devices": ["-o", "anywhere.meta", "--dry-run"],
    "collections": ["--add", "outputs=x:0", "-o", "other.meta", "--dry-run"],
}


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_V1)
def test_no_command_names_an_option_that_it_lacks(run, both, command):
    """A command without --v1 says that a V1 checkpoint stands beside, and not that --v1 takes it."""
    result = run(command, both, *COMMANDS_WITHOUT_V1[command])
    assert result.exit_code == 0
    assert f"note: a V1 checkpoint stands beside, {both}\n" in result.stderr
    assert f"note: a V1 checkpoint stands beside, {both}; --v1 takes it\n" in run("vars", both).stderr


def test_a_step_where_no_option_takes_one(directory, run):
    """`diff`, `average` and --checkpoint take no step: they ask for the path of one of the checkpoints."""
    (directory / "checkpoint").unlink()
    linear, frozen = FIXTURES / "linear" / "model", directory / "frozen.pb"
    for arguments in (
        ("diff", directory, linear),
        ("average", linear, directory, "--npz", directory / "mean.npz"),
        ("freeze", linear, "--checkpoint", directory, "-o", frozen),
        ("saved-model", linear, "--checkpoint", directory, "-o", directory / "served"),
        ("run", linear, "--checkpoint", directory, "--feed", "x=1"),
    ):
        result = run(*arguments)
        assert result.exit_code == 3
        assert "give the path of one of model-5, model-10, model-100" in result.stderr, arguments
    assert "--step takes the number of one of model-5, model-10, model-100" in run("vars", directory).stderr


def test_a_saved_model_where_no_option_takes_a_step(directory, run):
    """Of a SavedModel beside checkpoints, `diff` says what it takes, and names no --step."""
    run("saved-model", FIXTURES / "linear" / "model", "-o", directory / "served")
    shutil.copytree(directory / "served", directory, dirs_exist_ok=True)
    said = f"note: taking the SavedModel in {directory}; checkpoints stand there too"
    assert f"{said}\n" in run("diff", directory, FIXTURES / "linear" / "model").stderr
    assert f"{said}, of which --step takes one\n" in run("vars", directory).stderr


@needs_corpus
@pytest.mark.parametrize("name", ["export", "export-00000-of-00001", "export-?????-of-00001", ""])
def test_v1_shards(name):
    """A sharded V1 checkpoint is known by its stem, a shard, the pattern of a state file, and its directory."""
    directory = CORPUS / "tensorflow_serving/tensorflow_serving/session_bundle/testdata/half_plus_two/00000123"
    found = locate(directory / name)
    assert len(ckpttool.open_checkpoint(found)) == 2
    assert found.graph.endswith("export.meta")


def test_relocated_paths_that_become_one(directory, run):
    """One checkpoint listed by two dead paths is listed once: a manager that finds it twice would delete it."""
    lines = ['model_checkpoint_path: "/old/model-100"']
    for path, time in (("/old/model-10", 1.5), ("C:\\\\\\\\old\\\\\\\\model-10", 2.5), ("/old/model-100", 3.5)):
        lines += [f'all_model_checkpoint_paths: "{path}"', f"all_model_checkpoint_timestamps: {time}"]
    (directory / "checkpoint").write_text("\n".join(lines) + "\n")
    assert run("state", directory, "--relocate").exit_code == 0
    entries = [entry for entry in state_entries(str(directory)) if entry.written]
    assert [(entry.written, entry.is_latest) for entry in entries] == [("model-10", False), ("model-100", True)]
    text = (directory / "checkpoint").read_text()
    assert [line for line in text.splitlines() if "timestamps" in line] == [
        "all_model_checkpoint_timestamps: 2.5",
        "all_model_checkpoint_timestamps: 3.5",
    ]


def test_the_state_file_in_the_working_directory(directory, run, monkeypatch):
    """`checkpoint` is the state file that is here; of a directory that is called so, the one within."""
    monkeypatch.chdir(directory)
    assert run("state", "checkpoint").stdout == run("state", ".").stdout
    monkeypatch.chdir(directory.parent)
    directory.rename(directory.parent / "checkpoint")
    assert "model-100" in run("state", "checkpoint").stdout


def test_shards_of_v1_are_listed_once(run, tmp_path):
    """What the state file names by the pattern of its shards is not listed once more by what they share."""
    v1 = tmp_path / "m-1-00000-of-00001"
    ckpttool.write_tensor_slices(ckpttool.open_checkpoint(FIXTURES / "linear" / "model"), v1)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m-1-?????-of-00001"\n')
    rows = json.loads(run("state", tmp_path, "--json").stdout)["checkpoints"]
    assert [(row["checkpoint"], row["status"]) for row in rows] == [("m-1-?????-of-00001", "there")]


def test_checkpoints_without_steps_are_given_by_their_paths(tmp_path):
    """Where no step tells several checkpoints apart, the advice is not to give one."""
    for name in ("a", "b"):
        for file in (FIXTURES / "linear").glob("model.*"):
            shutil.copy(file, tmp_path / file.name.replace("model", name))
    with pytest.raises(NotFoundError, match="give the path of one of a, b"):
        locate(tmp_path)


def test_a_state_file_of_another_name(directory, run):
    """It is listed, and mended, as that named `checkpoint` is."""
    (directory / "checkpoint").rename(directory / "mine")
    assert run("state", directory / "mine", "--json").stdout.count("dangling") == 1
    assert run("state", directory / "mine", "--relocate").exit_code == 0
    assert 'model_checkpoint_path: "model-100"' in (directory / "mine").read_text()
    assert (directory / "mine.bak").exists()
    assert not (directory / "checkpoint").exists()
