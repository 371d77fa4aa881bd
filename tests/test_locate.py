"""What the user typed, and what it is taken for."""

import shutil

import numpy as np
import pytest
from bundles import bundle
from conftest import FIXTURES

import ckpttool
from ckpttool.errors import CorruptionError, FormatError, NotFoundError
from ckpttool.formats.locate import locate


@pytest.fixture
def directory(tmp_path):
    """The tutorial's model in a directory of its own."""
    shutil.copytree(FIXTURES / "linear", tmp_path / "run")
    return tmp_path / "run"


MEMBERS = ["model", "model.index", "model.meta", "model.data-00000-of-00001", "checkpoint", ""]


@pytest.mark.parametrize("member", MEMBERS)
def test_any_member_leads_to_the_checkpoint(directory, member):
    """The prefix, each of its files, the state file and the directory all mean the same checkpoint."""
    found = locate(directory / member)
    assert found.prefix == str(directory / "model")
    assert found.graph == str(directory / "model.meta")
    assert set(ckpttool.open_checkpoint(directory / member)) == {"W", "b"}


def test_what_else_a_directory_has_is_not_taken_for_a_model(tmp_path):
    """A directory of other files is told of, and nobody is told to give one that may be none."""
    (tmp_path / "train.py").touch()
    with pytest.raises(NotFoundError, match=r"there is only train\.py: give that, if it is one"):
        locate(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(NotFoundError, match=r"there are README\.md, train\.py: give the one that is it, if any"):
        locate(tmp_path)


@pytest.mark.parametrize("name", ["a[1]", "*", "?", "with space", "é", "a.b-1000"])
def test_paths_are_literal(tmp_path, name):
    """Nothing in a path is a glob: directories and prefixes with such names are found as they are."""
    (tmp_path / name).mkdir()
    for file in (FIXTURES / "linear").glob("model.*"):
        shutil.copy(file, tmp_path / name / file.name.replace("model", name, 1))
    assert set(ckpttool.open_checkpoint(tmp_path / name / name)) == {"W", "b"}


STATES = {
    "relative": "model",
    "dead absolute": "/nowhere/else/model",
    "dead Windows": r"D:\\runs\\one\\model",
    "upwards": "../run/model",
}


@pytest.mark.parametrize("path", STATES.values(), ids=STATES.keys())
def test_state_file(directory, path):
    """The path in the state file is followed; if it is dead, the same name beside the file is taken, and said."""
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\n')
    found = locate(directory)
    assert (
        ckpttool.open_checkpoint(found)["W"].shape == ckpttool.open_checkpoint(FIXTURES / "linear" / "model")["W"].shape
    )
    assert any("is dead" in note for note in found.notes) == path.startswith(("/nowhere", "D:"))


def test_state_file_of_nothing(directory):
    """A state file whose checkpoint is gone is an error that names the checkpoint."""
    (directory / "checkpoint").write_text('model_checkpoint_path: "other"\n')
    with pytest.raises(NotFoundError, match="the state file names is not there · other"):
        locate(directory)


@pytest.mark.parametrize("text", ["", "model_checkpoint_path: 5", "nonsense", "\0\1\2"])
def test_damaged_state_file(directory, text):
    """A state file that is none is an error that names it."""
    (directory / "checkpoint").write_text(text)
    with pytest.raises((CorruptionError, FormatError), match="checkpoint"):
        locate(directory)


@pytest.mark.parametrize(
    ("text", "said"), [("version https://git-lfs.github.com/spec/v1", "LFS"), ("<!doctype html>", "HTML")]
)
def test_what_stands_in_for_a_state_file(directory, text, said):
    """A page or a pointer under its name is named, as that of any other file is."""
    (directory / "checkpoint").write_text(text)
    for path in (directory, directory / "checkpoint"):
        with pytest.raises(FormatError, match=said):
            locate(path)
    assert said in ckpttool.verify(directory / "model").findings[0].what


@pytest.mark.parametrize("data", [b"\x80\x02\x01\x01", b"PK\x03\x04", b""], ids=["pickle", "zip", "nothing"])
def test_data_may_start_with_anything(tmp_path, data):
    """A data file is known by its index, not by its bytes, which are anybody's weights."""
    made = bundle({"a": np.frombuffer(data, np.uint8)})
    made.write(tmp_path)
    assert len(ckpttool.open_checkpoint(tmp_path / "model.data-00000-of-00001")) == 1


def test_one_graph_in_a_directory(tmp_path):
    """A directory with nothing but a `.meta` file is that graph's."""
    shutil.copy(FIXTURES / "linear" / "model.meta", tmp_path)
    assert locate(tmp_path).graph == str(tmp_path / "model.meta")


@pytest.mark.parametrize("path", ["m-00000-of-" + "9" * 5000, "m-٠٠٠٠٠-of-٠٠٠٠١"])
def test_numbers_of_shards(tmp_path, path):
    """Monstrous numbers and other scripts' digits are names like any other."""
    with pytest.raises(NotFoundError):
        locate(tmp_path / path)


def test_empty_directory(tmp_path):
    """A directory without a checkpoint says so."""
    with pytest.raises(NotFoundError, match="no checkpoint in this directory"):
        locate(tmp_path)


def test_missing_prefix_offers_what_is_there(directory):
    """A wrong prefix is answered with the checkpoints of the directory."""
    with pytest.raises(NotFoundError, match="checkpoints there: model"):
        locate(directory / "modle")


def test_data_without_index(directory):
    """A data file alone can't be read, and the message names the index that is missing."""
    (directory / "model.index").unlink()
    with pytest.raises(NotFoundError, match=r"model\.index is needed"):
        locate(directory / "model.data-00000-of-00001")


def test_pipes_are_not_opened(tmp_path):
    """A named pipe is refused, and does not block."""
    import os

    os.mkfifo(tmp_path / "model.ckpt")
    with pytest.raises(FormatError, match="not a regular file"):
        locate(tmp_path / "model.ckpt")


def test_a_prefix_that_ends_with_a_slash(tmp_path, monkeypatch, run):
    """Such as `save_weights("dir/")` writes: its files have no name but the suffix, and are found from inside too."""
    for file in (FIXTURES / "linear").glob("model.*"):
        shutil.copy(file, tmp_path / file.name.removeprefix("model"))
    monkeypatch.chdir(tmp_path)
    for path in (".index", ".data-00000-of-00001", "./.index", tmp_path / ".index"):
        assert run("vars", path).stdout.count("float32") == 2
    assert run("ls", ".meta", "--op-types").exit_code == 0
    shutil.copy(".index", "x.index")
    for path, prefix in (("./x.index", "./x"), (".index", "./"), ("x.index", "x")):
        assert locate(path).prefix == prefix


@pytest.mark.parametrize("url", ["gs://bucket/model.ckpt", "s3://b/m", "https://example.com/model.ckpt.index"])
def test_other_machines_are_not_asked(url):
    """An address is refused for what it is, with advice."""
    with pytest.raises(NotFoundError, match=r"remote paths are not supported .* copy the files here"):
        locate(url)


def test_values_without_an_index(tmp_path):
    """Of a directory with data files alone, the advice is to fetch the index."""
    prefix = bundle({"a": np.arange(3.0)}).write(tmp_path)
    (tmp_path / "model.index").unlink()
    assert prefix.endswith("model")
    with pytest.raises(NotFoundError, match=r"no checkpoint in this directory .* its index is needed, model\.index"):
        locate(tmp_path)


def versions(directory, *names: str):
    """A directory with a SavedModel in each of these below it."""
    for name in names:
        (directory / "export" / name / "variables").mkdir(parents=True)
        shutil.copy(FIXTURES / "linear" / "model.meta", directory / "export" / name / "saved_model.pb")
        for file in (FIXTURES / "linear").glob("model.[di]*"):
            shutil.copy(file, directory / "export" / name / "variables" / file.name.replace("model", "variables", 1))
    return directory / "export"


def test_the_only_version_of_an_export(tmp_path):
    """Where Estimators and TensorFlow Serving have a directory for each version, the only one is taken, and said."""
    found = locate(versions(tmp_path, "1796023344"))
    assert set(ckpttool.open_checkpoint(found)) == {"W", "b"}
    assert found.graph == str(tmp_path / "export" / "1796023344" / "saved_model.pb")
    assert found.notes == (f"taking {tmp_path / 'export' / '1796023344'}",)


def test_versions_within_versions_are_not_entered(tmp_path):
    """What only has a directory of a model's name is no version, however many are in it, one in another."""
    directory = tmp_path
    for _ in range(500):
        directory /= "1"
        (directory / "checkpoint").mkdir(parents=True)
    with pytest.raises(NotFoundError, match="there are models below it: 1"):
        locate(tmp_path)


@pytest.mark.parametrize("names", [["1", "2"], ["1", "best"], ["best"]])
def test_other_models_below_a_directory_are_named(tmp_path, names):
    """Where there is a choice, or no version, nothing is taken."""
    with pytest.raises(NotFoundError, match=f"there are models below it: {', '.join(names)}"):
        locate(versions(tmp_path, *names))


def test_what_is_not_named_is_counted(tmp_path):
    """Of many models below a directory, and of many checkpoints in one, some are named, and how many more there are."""
    directory = versions(tmp_path, *(f"run{number}" for number in range(12)))
    with pytest.raises(NotFoundError, match=r"models below it: run0, .*, run6 and 3 more$"):
        locate(directory)
    for step in range(7):
        shutil.copy(FIXTURES / "linear" / "model.index", tmp_path / f"model-{step}.index")
    with pytest.raises(NotFoundError, match=r"checkpoints there: model-0, .*, model-4 and 2 more$"):
        locate(tmp_path / "model-9")


@pytest.mark.parametrize("head", ["", "# of run 1\n\n"])
def test_a_state_file_of_another_name(directory, head):
    """What a saver calls by its `latest_filename` is known by what is in it."""
    text = (directory / "checkpoint").read_text()
    (directory / "mine").write_text(head + text)
    assert locate(directory / "mine").prefix == str(directory / "model")
    (directory / "moved").write_text(head + "".join(sorted(text.splitlines(keepends=True))))
    assert locate(directory / "moved").prefix == str(directory / "model")
    for other in (f"see model_checkpoint_path: {text}", f"rate: 1\n{text}", "model_checkpoint_path: str = ''"):
        (directory / "other").write_text(head + other)
        with pytest.raises(FormatError, match="a text file"):
            ckpttool.open_checkpoint(directory / "other")


def test_a_state_file_that_is_no_text(directory):
    """Why it is none is said."""
    (directory / "checkpoint").write_bytes(b'model_checkpoint_path: "\xff"\n')
    with pytest.raises(CorruptionError, match="not a checkpoint state file: no UTF-8"):
        locate(directory)


def test_a_directory_of_a_checkpoints_name(directory):
    """Of a name that both bear, a directory without a checkpoint was not meant; else the other one is told of."""
    (directory / "model").mkdir()
    found = locate(directory / "model")
    assert found.has_variables
    assert found.graph == str(directory / "model.meta")
    assert found.notes == (
        f"{directory / 'model'} is also a directory, without a checkpoint: taking the one beside it",
    )
    for file in directory.glob("model.*"):
        shutil.copy(file, directory / "model" / file.name.replace("model", "inner"))
    found = locate(directory / "model")
    assert found.prefix == str(directory / "model" / "inner")
    assert found.notes[-1] == f"a checkpoint of that name stands beside: {directory / 'model.index'} takes it"
    (directory / "model" / "inner.index").rename(directory / "model" / "other.index")
    shutil.copy(directory / "model.index", directory / "model" / "more.index")
    with pytest.raises(NotFoundError, match="several checkpoints"):
        locate(directory / "model")


def test_a_file_of_a_checkpoints_name(directory):
    """A file of another format is what its whole name means, and the checkpoint of that prefix is told of."""
    ckpttool.write_hdf5(ckpttool.from_arrays({"a": [1.0]}), directory / "model")
    found = locate(directory / "model")
    assert (found.foreign, list(ckpttool.open_checkpoint(found))) == ("hdf5", ["a"])
    assert found.notes == (f"a checkpoint of that name stands beside: {directory / 'model.index'} takes it",)
    assert list(ckpttool.open_checkpoint(directory / "model.index")) == ["W", "b"]
    assert not locate(directory).foreign


def test_a_prefix_of_data_alone(directory):
    """What is asked for by its prefix is told that its index is missing, too."""
    (directory / "model.index").unlink()
    (directory / "model.meta").unlink()
    with pytest.raises(NotFoundError, match=r"no index beside its data .*model\.index is needed too"):
        locate(directory / "model")


def test_an_index_of_another_name(directory):
    """An index that a download gave another name is said to be one, with the name that it needs."""
    (directory / "model.index").rename(directory / "model.index.txt")
    with pytest.raises(FormatError, match=r"the index of a V2 checkpoint.* named PREFIX\.index"):
        ckpttool.open_checkpoint(directory / "model.index.txt")


@pytest.mark.parametrize("member", ["model.index", "model.meta", "model.data-00000-of-00001"])
def test_a_state_file_that_names_a_member(run, directory, member):
    """TensorFlow restores nothing by the name of one file; which prefix it might have been is told."""
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{member}"\n')
    with pytest.raises(NotFoundError, match=r"checkpoints there: model$"):
        locate(directory)
    assert f"{member}\tdangling\tlatest" in run("state", directory).stdout


def test_a_graph_and_a_checkpoint_of_two_names(directory):
    """Of a graph without a checkpoint of its name, those that stand beside it are told."""
    (directory / "model.meta").rename(directory / "graph.meta")
    with pytest.raises(NotFoundError, match=r"graph\.index is missing; checkpoints there: model; ls shows the graph"):
        ckpttool.open_checkpoint(directory / "graph.meta")


def test_variables_without_their_saved_model(tmp_path):
    """The graph of a SavedModel's variables is no .meta."""
    (versions(tmp_path, "1") / "1" / "saved_model.pb").unlink()
    with pytest.raises(NotFoundError, match=r"/1/saved_model\.pb is missing; vars shows the variables"):
        ckpttool.open_graph(tmp_path / "export" / "1")


def test_any_index_of_a_site(directory):
    """A checkpoint beside somebody's index.json, which lists no arrays, is found."""
    (directory / "index.json").write_text('{"pages": []}')
    (directory / "checkpoint").unlink()
    assert locate(directory).prefix == str(directory / "model")


def test_what_macos_keeps_beside_files(directory):
    """The ._ files in an archive that macOS made are no checkpoints, and no graphs."""
    (directory / "checkpoint").unlink()
    for file in list(directory.glob("model.*")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(58))
    assert locate(directory).prefix == str(directory / "model")
    assert ckpttool.checkpoints_in(directory) == [str(directory / "model")]
    with pytest.raises(FormatError, match="what macOS keeps beside a file"):
        ckpttool.open_checkpoint(directory / "._model.index")
    for file in directory.glob("model.[di]*"):
        file.unlink()
    assert locate(directory).graph == str(directory / "model.meta")


@pytest.mark.parametrize("name", ["", "model"])
def test_shards_of_two_checkpoints(tmp_path, name):
    """V1 shards of one name that are of several checkpoints are said to be, in a directory and by their prefix."""
    for end in ("00000-of-00002", "00001-of-00002", "00000-of-00003"):
        shutil.copy(FIXTURES / "linear" / "model.index", tmp_path / f"model-{end}")  # A table, as a shard is.
    hint = "give one of those to take, such as .*model-00000-of-00002"
    with pytest.raises(NotFoundError, match=rf"shards of 2 checkpoints: some are of 2, 3 · .*model · {hint}"):
        locate(tmp_path / name)
    assert len(locate(tmp_path / "model-00001-of-00002").v1_files) == 2
