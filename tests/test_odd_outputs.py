"""Outputs and inputs that are no ordinary files: pipes, sockets, `/`, what may not be read, a full standard output."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import bundle
from conftest import FIXTURES, ROOT
from privileges import unprivileged
from test_bundle_replacing import OLD
from test_replacing import WRITERS, everything, inputs, no_waiting
from typer.testing import CliRunner

import ckpttool
from ckpttool.cli import app

__all__ = ["inputs", "no_waiting"]  # Fixtures.


def test_sources_that_may_not_be_read(tmp_path: Path) -> None:
    """A file that may not be read is an error of one line, code 3; a directory, too."""
    prefix = bundle(OLD).write(tmp_path)

    def run() -> None:
        for path in (Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001"), tmp_path):
            mode = path.stat().st_mode
            path.chmod(0)
            for command in (["vars", prefix], ["export", prefix, "--npz", f"{prefix}.npz"], ["verify", prefix]):
                ran = CliRunner().invoke(app, command)
                assert ran.exception is None or isinstance(ran.exception, SystemExit), (path, command, ran.exception)
                assert ran.exit_code in (({0} if command[0] == "vars" else set()) | {1, 3, 4}), (
                    path,
                    command,
                    ran.output,
                )
                assert ran.stderr.count("error: ") == (ran.exit_code in (3, 4)), ran.stderr
            path.chmod(mode)

    unprivileged(run)


@pytest.mark.parametrize("target", [name for name, w in WRITERS.items() if name != "state"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, target: str, kind: str, monkeypatch: Any) -> None:
    """A pipe, a socket or a device that bears the output's name stays, with --force too: nobody waits for it."""
    writer, path = WRITERS[target], tmp_path / WRITERS[target].name
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("shards" if writer.kept == "*" else path.name)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        socket.socket(socket.AF_UNIX).bind(path.name)
    mode = path.lstat().st_mode
    with pytest.raises(FileExistsError):
        writer.write(tmp_path, "new")
    assert path.lstat().st_mode == mode
    assert everything(tmp_path) == [path.name]


@pytest.mark.parametrize("target", [name for name, w in WRITERS.items() if w.kept != "*" and name != "state"])
def test_a_link_to_what_is_no_file_is_not_replaced(tmp_path: Path, target: str) -> None:
    """Such as /dev/stdout: whoever gives it means what is written to it, and would have it no more."""
    writer = WRITERS[target]
    path = tmp_path / writer.name
    path.symlink_to("/dev/null")
    with pytest.raises(FileExistsError, match="the output "):
        writer.write(tmp_path, "new")
    assert path.is_symlink()
    assert [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")] == []


@pytest.mark.parametrize("output", [".", "..", "./", "/", "//", "x/.."])
@pytest.mark.parametrize("option", ["npy", "saved-model"])
def test_directories_without_a_name(tmp_path: Path, output: str, option: str, monkeypatch: Any) -> None:
    """A directory that is given as `.`, `..` or `/`, and holds something else, stays, with an error of one line."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    (tmp_path / "mine" / "x").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    before = everything(tmp_path)
    source = str(FIXTURES / "linear" / "model")
    command = ["export", source, "--npy", output]
    if option == "saved-model":
        command = ["saved-model", source, "--inputs", "x=x:0", "--outputs", "y=activation_opt:0", "-o", output]
    for more in ([], ["--force"]):
        ran = CliRunner().invoke(app, [*command, *more])
        assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
        assert ran.exit_code in (2, 3), ran.output
        assert ran.stderr.splitlines()[-1].startswith("error: ")
        assert everything(tmp_path) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_full_output(tmp_path: Path) -> None:
    """Where standard output is full, the code is 3, with one line; where standard error is, all is as without it."""
    source, out = str(FIXTURES / "linear" / "model"), str(tmp_path / "x.npz")
    commands = {"vars": ["vars", source], "--help": ["--help"], "vars --help": ["vars", "--help"]}
    commands |= {"--version": ["--version"], "export": ["export", source, "--npz", out], "gone": ["vars", out + "x"]}
    for name, arguments in commands.items():
        command = [sys.executable, "-m", "ckpttool", *arguments]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stderr=full, stdout=subprocess.DEVNULL, check=False, cwd=ROOT)
            assert done.returncode == (3 if name == "gone" else 0), name
            if name in ("export", "gone"):
                continue
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        assert (done.returncode, done.stderr) == (3, "error: No space left on device\n"), name
    assert os.listdir(tmp_path) == ["x.npz"]


def test_interrupt_while_starting(tmp_path: Path) -> None:
    """An interrupt before there is a command ends the process as it ends any, without a word."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    command = [sys.executable, "-m", "ckpttool", "vars", str(FIXTURES / "linear" / "model")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("options", [["--h5"], ["--npz"], ["--tf-v1"], ["-o"], ["--safetensors"], ["--npy"]])
def test_a_slash_at_the_end(run, tmp_path, options):
    """What is to be a directory by its last letter does not become a file; where a directory is made, it does."""
    command = ["export", FIXTURES / "linear" / "model", *options, f"{tmp_path / 'new.h5'}/"]
    if options == ["-o"]:
        command = ["strip-devices", FIXTURES / "linear" / "model.meta", *options, f"{tmp_path / 'new.meta'}/"]
    result = run(*command)
    if options[0] in ("--safetensors", "--npy"):
        assert (result.exit_code, [path.is_dir() for path in tmp_path.iterdir()]) == (0, [True])
    else:
        assert (result.exit_code, list(tmp_path.iterdir())) == (3, [])
        assert "error: the output is a directory" in result.stderr


STANDARD_OUTPUT = {
    "strip-devices": ["strip-devices", FIXTURES / "linear" / "model", "-o"],
    "collections": ["collections", FIXTURES / "linear" / "model", "--add", "a=W:0", "-o"],
    "freeze": ["freeze", FIXTURES / "linear" / "model", "-o"],
    "saved-model": ["saved-model", FIXTURES / "linear" / "model", "-o"],
    "state": ["state", FIXTURES / "linear", "--relocate", "-o"],
}


@pytest.mark.parametrize("command", STANDARD_OUTPUT)
def test_standard_output_is_no_file_named_so(run, tmp_path, monkeypatch, command):
    """Who gives `-` means to pipe it: as with the formats of `export`, no file of that name is left."""
    monkeypatch.chdir(tmp_path)
    result = run(*STANDARD_OUTPUT[command], "-")
    assert (result.exit_code, result.stdout, os.listdir(tmp_path)) == (2, "", [])
    assert "standard output" in result.stderr
    assert run(*STANDARD_OUTPUT[command], "./-").exit_code == 0
    assert os.listdir(tmp_path) == ["-"]


def test_a_prefix_that_no_state_file_can_name(run, tmp_path):
    """A checkpoint whose name is not UTF-8 is written; that the state file can't name it is a warning."""
    out = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    result = run("export", FIXTURES / "linear" / "model", "--tf", out)
    assert result.exit_code == 0
    assert "a state file can't name what is not UTF-8" in result.stderr
    assert len(ckpttool.open_checkpoint(out)) == 2


def test_a_directory_that_may_not_be_written(run, tmp_path):
    """The error names the output that was asked for, and not a temporary file."""

    def act():
        tmp_path.chmod(0o500)
        with pytest.raises(PermissionError) as caught:
            ckpttool.write_npz(ckpttool.open_checkpoint(FIXTURES / "linear" / "model"), tmp_path / "x.npz")
        assert caught.value.filename == str(tmp_path / "x.npz")

    unprivileged(act)
