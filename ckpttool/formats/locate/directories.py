"""What a directory holds: a model, checkpoints (one is taken), or weights of another format."""

import os
import re
from collections.abc import Mapping, Sequence

from ckpttool import storage
from ckpttool.errors import NotFoundError
from ckpttool.formats import bundle
from ckpttool.formats.bundle.names import MEMBER
from ckpttool.formats.checkpoint_state import STATE_FILE
from ckpttool.formats.listing import checkpoints_in, step_of
from ckpttool.formats.locate.prefixes import (
    BY_PATH,
    BY_STEP,
    KERAS_INDEX,
    SAFETENSORS_INDEX,
    TAKEN_BY_STEP,
    Located,
    checkpoint_of,
    from_state,
    graph_beside,
    refuse_mixed_shards,
)
from ckpttool.formats.lookalikes import is_apple_double
from ckpttool.formats.saved_model.names import FILES as SAVED_MODEL_FILES
from ckpttool.formats.saved_model.names import VARIABLES, saved_model_file
from ckpttool.model.names import listed

STEP = re.compile(r"[0-9]{1,18}")
"""The number of a step, or of a version."""

# File that makes a directory one of another format → that format.
_FOREIGN_IN_DIRECTORY = {
    f"model{SAFETENSORS_INDEX}": "safetensors index",
    "model.safetensors": "safetensors",
}
# The same, if there is no checkpoint either: unzipped models of Keras, and KerasHub's.
_KERAS_IN_DIRECTORY = {f"model{KERAS_INDEX}": "hdf5 index", "model.weights.h5": "hdf5"}


def directory_or_prefix(path: str, v1: bool, step: str | None) -> Located:
    """What is in a directory or, if that is nothing, the checkpoint beside it whose prefix is the directory's path."""
    has_namesake = step is None and not path.endswith(os.sep) and os.path.exists(bundle.index_path(path))
    try:
        found = _in_directory(path, v1, step)
    except NotFoundError:
        beside = checkpoint_of(path, v1) if has_namesake and not checkpoints_in(path) else None
        if beside is None:
            raise
        note = f"{path} is also a directory, without a checkpoint: taking the one beside it"
        return beside._replace(notes=(note, *beside.notes))
    note = f"a checkpoint of that name stands beside: {bundle.index_path(path)} takes it"
    return found._replace(notes=(*found.notes, note)) if has_namesake else found


def _in_directory(path: str, v1: bool, step: str | None) -> Located:
    found = _model_in(path, v1, step)
    if found:
        return found
    found = _foreign_in(path, _FOREIGN_IN_DIRECTORY) if step is None else None
    if found:
        return found
    # Many a directory has another index.json.
    index = os.path.join(path, "index.json")
    if os.path.isfile(index) and b'"ckpttool.npy/' in storage.read_range(index, 0, 256):
        return Located(path, foreign="npy directory")
    return _without_state(path, v1, step)


def _model_in(path: str, v1: bool, step: str | None) -> Located | None:
    """The model that a directory is, or that its state file names; None if it is none and has no such file.

    With a step, a checkpoint is wanted, and not the SavedModel that training left beside it.
    """
    state_file = os.path.join(path, STATE_FILE)
    has_state = os.path.isfile(state_file)
    graph = saved_model_file(path) if step is None else None
    if graph:
        note = f"taking the SavedModel in {path}; checkpoints stand there too{TAKEN_BY_STEP}"
        notes = (note,) if has_state else ()
        return Located(os.path.join(path, VARIABLES), graph=graph, notes=notes)
    for prefix in (os.path.join(path, VARIABLES), os.path.join(path, "variables")) if step is None else ():
        if os.path.exists(bundle.index_path(prefix)):
            return Located(prefix, graph=graph_beside(prefix))
    return from_state(state_file, v1) if has_state and step in (None, "latest") else None


def _without_state(path: str, v1: bool, step: str | None) -> Located:
    """The only checkpoint in a directory, or the only one of a step; if there are none, what else is there."""
    prefixes = checkpoints_in(path)
    if step == "latest":
        last = max(map(step_of, prefixes), default=-1)
        step = None if last < 0 else str(last)  # Without steps, none is the latest.
    chosen = [prefix for prefix in prefixes if step is None or step_of(prefix) == int(step)]
    names = ", ".join(os.path.basename(prefix) for prefix in prefixes)
    if chosen:
        return _only_checkpoint(path, chosen, names, v1)
    if step is not None:
        raise NotFoundError(f"no checkpoint of step {step}", path=path, hint=f"there are {names}" if names else None)
    return _without_checkpoint(path) or _only_version(path, v1)


def _only_checkpoint(path: str, chosen: Sequence[str], names: str, v1: bool) -> Located:
    """The checkpoint that was chosen in a directory; raises if several were. `names` lists all that are there."""
    found = checkpoint_of(chosen[0], v1) if len(chosen) == 1 else None
    if found:
        return found._replace(notes=(f"taking {chosen[0]}", *found.notes))
    if len(chosen) == 1:
        refuse_mixed_shards(chosen[0])
    steps = list(map(step_of, chosen))
    by_step = len({*steps}) == len(steps) and -1 not in steps
    hint = f"{BY_STEP if by_step else BY_PATH} {names}"
    raise NotFoundError("several checkpoints and no state file", path=path, hint=hint)


def _without_checkpoint(path: str) -> Located | None:
    """What a directory without a checkpoint holds: weights of Keras, one graph, or arrays; None if none of these."""
    found = _foreign_in(path, _KERAS_IN_DIRECTORY)
    if found:
        return found
    names = os.listdir(path)
    metas = [name for name in names if name.endswith(".meta") and not is_apple_double(os.path.join(path, name))]
    if len(metas) == 1:
        return Located(os.path.join(path, metas[0].removesuffix(".meta")), graph=os.path.join(path, metas[0]))
    return Located(path, foreign="npy directory") if any(name.endswith(".npy") for name in names) else None


def _only_version(path: str, v1: bool) -> Located:
    """The model in a directory's only subdirectory with one, if that is named by a number, as versions are.

    Raises:
        NotFoundError: there is none, or there are several.
    """
    below = _models_below(path)
    if len(below) == 1 and STEP.fullmatch(below[0]):
        version = os.path.join(path, below[0])
        found = _model_in(version, v1, None)
        if found:
            return found._replace(notes=(f"taking {version}", *found.notes))
    raise NotFoundError("no checkpoint in this directory", path=path, hint=_what_is_in(path, below))


def _foreign_in(path: str, formats: Mapping[str, str]) -> Located | None:
    """The first file in a directory that has one of these names, each given with its format."""
    found = ((os.path.join(path, name), format) for name, format in formats.items())
    return next((Located(file, foreign=format) for file, format in found if os.path.isfile(file)), None)


def _models_below(path: str) -> list[str]:
    """The subdirectories that hold a model, such as the versions of a SavedModel that is exported or served."""
    signs = (*SAVED_MODEL_FILES, STATE_FILE, VARIABLES)
    return sorted(
        name for name in os.listdir(path) if any(os.path.exists(os.path.join(path, name, sign)) for sign in signs)
    )


def _what_is_in(path: str, below: Sequence[str]) -> str:
    if below:
        return f"there are models below it: {listed(below, 9)}"
    names = sorted(os.listdir(path))
    alone = next((match for match in map(MEMBER.fullmatch, names) if match and match[2].startswith("data-")), None)
    if alone:
        return f"{alone[0]} has values, and nothing says which: its index is needed, {alone[1]}.index"
    if len(names) == 1:
        return f"there is only {names[0]}: give that, if it is one"
    return f"there are {listed(names)}: give the one that is it, if any" if names else "it is empty"
