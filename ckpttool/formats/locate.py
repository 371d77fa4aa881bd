"""What the user typed → what it is: which files, of which format.

A checkpoint is known by its prefix, and nobody knows that: people give a member file, the directory, the state
file. All of these are taken, literally and never as a glob. What is no checkpoint is named for what it looks
like.
"""

import os
import re
from typing import NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, FormatError, NotFoundError, NotSupportedError
from ckpttool.formats import bundle
from ckpttool.formats.checkpoint_state import STATE_FILE, candidates, read_checkpoint_state
from ckpttool.wire import sstable

_MEMBER = re.compile(r"(.+)\.(?:index|meta|data-\d{5,}-of-\d{5,})", re.DOTALL)


class Located(NamedTuple):
    """What a path leads to: a checkpoint's prefix, its `.meta` file (None: there is none), and what was assumed
    on the way, in words.
    """

    prefix: str
    meta: str | None
    notes: tuple[str, ...] = ()


def locate(path: str | os.PathLike[str]) -> Located:
    """Finds the checkpoint or graph that `path` means.

    Args:
        path: a prefix, a member file, a directory with a state file, or the state file.

    Raises:
        NotFoundError: nothing is there.
        FormatError: something else is there.
        NotSupportedError: it is a kind that can't be read yet.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        return _in_directory(path)
    member = _MEMBER.fullmatch(path)
    if member and os.path.exists(path):
        _refuse_pointer(path)
        if not path.endswith(".meta") and not os.path.exists(bundle.index_path(member[1])):
            raise NotFoundError("no index beside it", path=path, hint=f"{member[1]}.index is needed too")
        return _located(member[1], meta=path if path.endswith(".meta") else None)
    if os.path.exists(bundle.index_path(path)):
        return _located(path)
    if os.path.exists(path):
        return _from_file(path)
    if os.path.exists(f"{path}.meta"):
        return _located(path)
    raise NotFoundError("no such file or checkpoint", path=path, hint=_near(path))


def _located(prefix: str, meta: str | None = None, notes: tuple[str, ...] = ()) -> Located:
    # Checkpoints in shards have one graph for all: `model-?????-of-00002` belongs to `model.meta`.
    stem = re.sub(r"-[\d?]+-of-\d+$", "", prefix)
    found = (name for name in (f"{prefix}.meta", f"{stem}.meta") if os.path.isfile(name))
    return Located(prefix, meta or next(found, None), notes)


def _in_directory(path: str) -> Located:
    state_file = os.path.join(path, STATE_FILE)
    if os.path.isfile(state_file):
        return _from_state(state_file)
    if os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise NotSupportedError("a SavedModel", path=path, hint=f"its variables are {path}/variables/variables")
    prefixes = sorted(name[: -len(".index")] for name in os.listdir(path) if name.endswith(".index"))
    if len(prefixes) == 1:
        prefix = os.path.join(path, prefixes[0])
        return _located(prefix, notes=(f"no state file in {path}: taking its only checkpoint, {prefix}",))
    if prefixes:
        raise NotFoundError("several checkpoints and no state file", path=path, hint=f"one of {', '.join(prefixes)}")
    raise NotFoundError("no checkpoint in this directory", path=path)


def _from_state(state_file: str) -> Located:
    state = read_checkpoint_state(state_file)
    directory = os.path.dirname(state_file)
    for number, prefix in enumerate(candidates(directory, state.latest)):
        if os.path.exists(bundle.index_path(prefix)) or os.path.exists(f"{prefix}.meta") or os.path.isfile(prefix):
            notes = [f"the latest checkpoint in {state_file} is {prefix}"]
            if number:
                notes.append(f"its path there, {state.latest}, is dead: taking the same name beside it")
            return _located(prefix, notes=tuple(notes))
    raise NotFoundError("the latest checkpoint that the state file names is not there", path=state.latest)


def _from_file(path: str) -> Located:
    """A file that is no member by its name: by its contents, then."""
    if os.path.basename(path) == STATE_FILE and not _looks_like(path):
        return _from_state(path)
    _refuse_pointer(path)
    with open(path, "rb") as file:
        head = file.read(1)
    if not head:
        raise FormatError("an empty file", path=path)
    size = storage.file_size(path)
    footer = storage.read_range(path, max(0, size - sstable.FOOTER_SIZE), sstable.FOOTER_SIZE)
    try:
        sstable.Footer.decode(footer)
    except CheckpointError:
        # A graph may have any name.
        return Located(path, path)
    raise NotSupportedError("a V1 checkpoint", path=path)


def _refuse_pointer(path: str) -> None:
    """Raises FormatError for a file that shows by its first bytes that it is something else."""
    found = _looks_like(path)
    if found:
        what, hint = found
        raise FormatError(f"not a checkpoint: {what}", path=path, hint=hint)


# First bytes, what they are of, and what to do.
_MAGICS = [
    (b"PK\x03\x04", "a zip archive, as PyTorch writes its .pt and .ckpt files", "torch.load opens it"),
    (b"\x80\x02", "a Python pickle, as PyTorch once wrote its .pt and .ckpt files", "torch.load opens it"),
    (b"\x80\x04", "a Python pickle", "the program that wrote it opens it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", "h5py and Keras open it"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "git lfs pull fetches it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"\x93NUMPY", "a NumPy array", "numpy.load opens it"),
    (b"GGUF", "a GGUF model", "llama.cpp opens it"),
    (b"<!DOCTYPE", "an HTML page, as a failed download leaves", "download it again"),
    (b"<!doctype", "an HTML page, as a failed download leaves", "download it again"),
    (b"<html", "an HTML page, as a failed download leaves", "download it again"),
]


def _looks_like(path: str) -> tuple[str, str] | None:
    """What a file's first bytes say that it is, and what to do; None if nothing known."""
    storage.file_size(path)
    with open(path, "rb") as file:
        head = file.read(64)
    for magic, what, hint in _MAGICS:
        if head.startswith(magic):
            return what, hint
    if re.match(rb"[\s\S]{8}\{\s*\"", head) and int.from_bytes(head[:8], "little") < 100_000_000:
        return "a safetensors file", "the safetensors library opens it"
    return None


def _near(path: str) -> str | None:
    """Checkpoints in the same directory."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    prefixes = sorted(name[: -len(".index")] for name in os.listdir(directory) if name.endswith(".index"))
    return f"checkpoints there: {', '.join(prefixes[:5])}" if prefixes else None
