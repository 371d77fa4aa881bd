"""What the user typed → what it is: which files, of which format.

A checkpoint is known by its prefix, which hardly anybody knows: people give a member file, the directory, the state
file. All of these are taken, literally and never as a glob. If it is no checkpoint, the error says what it looks like
(formats.lookalikes).
"""

import os
import re

from ckpttool.errors import NotFoundError
from ckpttool.formats import bundle
from ckpttool.formats.bundle.names import MEMBER, bundle_files
from ckpttool.formats.checkpoint_state import STATE_FILE, is_checkpoint_state
from ckpttool.formats.locate.directories import STEP, directory_or_prefix
from ckpttool.formats.locate.prefixes import (
    KERAS_INDEX,
    SAFETENSORS_INDEX,
    Located,
    checkpoint_of,
    from_state,
    near,
    refuse_mixed_shards,
)
from ckpttool.formats.lookalikes import foreign_format, refuse_lookalike
from ckpttool.formats.saved_model.names import VARIABLES

__all__ = ["Located", "locate"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SAFETENSORS_SHARD = re.compile(r"(.+)-[0-9]{5,9}-of-([0-9]{5,9})\.safetensors", re.DOTALL)
# Of weights in another type, diffusers' is `.safetensors.index.fp16.json`.
_ANY_INDEX = re.compile(r"\.safetensors\.index(?:\.\w+)?\.json\Z")
_KERAS_SHARD = re.compile(r"(.+)_[0-9]{5,9}\.weights\.h5", re.DOTALL)


def locate(path: str | os.PathLike[str], *, v1: bool = False, step: int | str | None = None) -> Located:
    """Finds the checkpoint or graph that `path` leads to.

    Args:
        path: a prefix, a member file, a directory, a state file, a SavedModel, a file with a graph.
        v1: where a V1 and a V2 checkpoint share a prefix, take V1; by default V2 is taken, as in TensorFlow.
        step: in a directory with several checkpoints: the step of the one to take (100, of `model.ckpt-100`), or
            "latest"; None: the one that the state file says is the latest.

    Raises:
        ValueError: `step` is not a step; or `path` is a file, with nothing to choose from.
        NotFoundError: nothing is there.
        FormatError: something else is there.
        NotSupportedError: it is a kind that can't be read.
    """
    path = os.fsdecode(path)
    step = _checked_step(path, step)
    if os.path.isdir(path):
        return directory_or_prefix(path, v1, step)
    if _URL.match(path) and not os.path.lexists(path):
        raise NotFoundError("remote paths are not supported", path=path, hint="copy the files here first")
    if MEMBER.fullmatch(os.curdir + path) and not MEMBER.fullmatch(path):  # `.index` alone.
        path = os.path.join(os.curdir, path)
    if step is not None:
        raise NotFoundError("no such directory, to choose a step in", path=path)
    member = MEMBER.fullmatch(path)
    if member and os.path.exists(path):
        return _from_member(path, member[1], member[2], v1)
    found = checkpoint_of(path, v1)
    if found:
        return found if found.v1_files else _file_itself(path) or found
    if os.path.lexists(path):
        return _from_file(path, v1)
    if os.path.exists(f"{path}.meta"):
        return Located(path, graph=f"{path}.meta")
    if bundle_files(path) and not os.path.lexists(bundle.index_path(path)):
        raise NotFoundError("no index beside its data", path=path, hint=f"{bundle.index_path(path)} is needed too")
    refuse_mixed_shards(path)
    raise NotFoundError("no such file or checkpoint", path=path, hint=near(path))


def _checked_step(path: str, step: int | str | None) -> str | None:
    text = None if step is None else str(step)
    if text not in (None, "latest") and not STEP.fullmatch(text):
        raise ValueError(f"{step!r} is neither the number of a step nor latest")
    if text is not None and os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(f"a step is chosen among the checkpoints of a directory, and {path} is none")
    return text


def _from_member(path: str, prefix: str, kind: str, v1: bool) -> Located:
    found = checkpoint_of(prefix, v1)
    if kind == "meta" or not found:
        refuse_lookalike(path)
    if kind == "meta":
        return found._replace(graph=path) if found else Located(prefix, graph=path)
    if not found:
        raise NotFoundError("no index beside it", path=path, hint=f"{bundle.index_path(prefix)} is needed too")
    return found


def _file_itself(path: str) -> Located | None:
    """A file of another format, such as Keras' `model.h5`, if it has the name of a checkpoint's prefix too."""
    foreign = foreign_format(path)
    note = f"a checkpoint of that name stands beside: {bundle.index_path(path)} takes it"
    return Located(path, notes=(note,), foreign=foreign) if foreign else None


def _from_file(path: str, v1: bool) -> Located:
    """A file that is no member by its name: a state file, one of another format, one with a graph, something else."""
    if _ANY_INDEX.search(path):
        return Located(path, foreign="safetensors index")
    if path.endswith(KERAS_INDEX):
        return Located(path, foreign="hdf5 index")
    # A file named so is meant as a graph.
    foreign = None if os.path.basename(path).startswith("saved_model.") else foreign_format(path)
    if foreign:
        return Located(path, notes=_whole_of_shard(path), foreign=foreign)
    if is_checkpoint_state(path):
        return from_state(path, v1)
    refuse_lookalike(path)
    if os.path.basename(path) == STATE_FILE:
        return from_state(path, v1)  # Says what is wrong with it.
    if os.path.basename(path).startswith("saved_model."):
        return _in_saved_model(path)
    return Located(path, graph=path)


def _whole_of_shard(path: str) -> tuple[str, ...]:
    """A note, if a file is one of several shards of safetensors or of Keras' weights: where all of them are found."""
    shard, keras_shard = _SAFETENSORS_SHARD.fullmatch(path), _KERAS_SHARD.fullmatch(path)
    if shard and os.path.isfile(index := f"{shard[1]}{SAFETENSORS_INDEX}"):
        return (f"this is one of {int(shard[2])} shards; all are in {index}",)
    if keras_shard and os.path.isfile(index := f"{keras_shard[1]}{KERAS_INDEX}"):
        return (f"this is one of several shards; all are in {index}",)
    return ()


def _in_saved_model(path: str) -> Located:
    return Located(os.path.join(os.path.dirname(path), VARIABLES), graph=path)
