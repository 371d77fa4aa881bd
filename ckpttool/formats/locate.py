"""What the user typed → what it is: which files, of which format.

A checkpoint is known by its prefix, which hardly anybody knows: people give a member file, the directory, the state
file. All of these are taken, literally and never as a glob. What is no checkpoint is named for what it looks
like (formats.lookalikes).
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckpttool import storage
from ckpttool.errors import NotFoundError
from ckpttool.formats import bundle
from ckpttool.formats.bundle.names import MEMBER, bundle_files
from ckpttool.formats.checkpoint_state import STATE_FILE, candidates, is_checkpoint_state, read_checkpoint_state
from ckpttool.formats.listing import V1_SHARD, checkpoints_in, step_of, v1_files, v1_shard_counts
from ckpttool.formats.lookalikes import foreign_format, is_apple_double, refuse_lookalike
from ckpttool.formats.saved_model.reading import FILES as SAVED_MODEL_FILES
from ckpttool.formats.saved_model.reading import VARIABLES, saved_model_file
from ckpttool.model.names import listed

# What is said of options, apart: a command that lacks the option says the rest.
TAKEN_BY_V1 = "; --v1 takes it"
TAKEN_BY_STEP = ", of which --step takes one"
BY_STEP, BY_PATH = "--step takes the number of one of", "give the path of one of"

_STEP = re.compile(r"[0-9]{1,18}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SAFETENSORS_SHARD = re.compile(r"(.+)-[0-9]{5,9}-of-([0-9]{5,9})\.safetensors", re.DOTALL)
_SAFETENSORS_INDEX = ".safetensors.index.json"
# Of weights in another type, diffusers' is `.safetensors.index.fp16.json`.
_ANY_INDEX = re.compile(r"\.safetensors\.index(?:\.\w+)?\.json\Z")
_KERAS_SHARD = re.compile(r"(.+)_[0-9]{5,9}\.weights\.h5", re.DOTALL)
_KERAS_INDEX = ".weights.json"
# What makes a directory one of another format, by its name.
_FOREIGN_IN_DIRECTORY = {
    f"model{_SAFETENSORS_INDEX}": "safetensors index",
    "model.safetensors": "safetensors",
}
# The same, where there is no checkpoint: Keras' models that are not zipped, and KerasHub's.
_KERAS_IN_DIRECTORY = {f"model{_KERAS_INDEX}": "hdf5 index", "model.weights.h5": "hdf5"}


class Located(NamedTuple):
    """What a path leads to.

    Attributes:
        prefix: the checkpoint's; what it is called.
        v1_files: the files of a V1 checkpoint; none if it is a V2 one, `prefix.index`.
        graph: the file with its graph; None if there is none.
        notes: what was assumed on the way, in words.
        foreign: the format, if `prefix` is a file or directory of another one than TensorFlow's, such as "hdf5".
    """

    prefix: str
    v1_files: tuple[str, ...] = ()
    graph: str | None = None
    notes: tuple[str, ...] = ()
    foreign: str | None = None

    @property
    def has_variables(self) -> bool:
        return bool(self.v1_files or self.foreign) or os.path.exists(bundle.index_path(self.prefix))


def locate(path: str | os.PathLike[str], *, v1: bool = False, step: int | str | None = None) -> Located:
    """Finds the checkpoint or graph that `path` means.

    Args:
        path: a prefix, a member file, a directory, a state file, a SavedModel, a file with a graph.
        v1: where a V1 and a V2 checkpoint share a prefix, take the V1 one; else the V2 one, as TensorFlow does.
        step: in a directory with several checkpoints: the step of the one to take (100, of `model.ckpt-100`), or
            "latest"; None: the one that the state file says is the latest.

    Raises:
        ValueError: `step` is no step; or `path` is no directory, and there is nothing to choose.
        NotFoundError: nothing is there.
        FormatError: something else is there.
        NotSupportedError: it is a kind that can't be read.
    """
    path = os.fspath(path)
    step = _checked_step(path, step)
    if os.path.isdir(path):
        return _directory_or_prefix(path, v1, step)
    if _URL.match(path) and not os.path.lexists(path):
        raise NotFoundError("remote paths are not supported", path=path, hint="copy the files here first")
    if MEMBER.fullmatch(os.curdir + path) and not MEMBER.fullmatch(path):  # The suffix alone, as of `dir/.index`.
        path = os.path.join(os.curdir, path)
    if step is not None:
        raise NotFoundError("no such directory, to choose a step in", path=path)
    member = MEMBER.fullmatch(path)
    if member and os.path.exists(path):
        return _from_member(path, member[1], member[2], v1)
    found = _checkpoint(path, v1)
    if found:
        return found if found.v1_files else _file_itself(path) or found
    if os.path.lexists(path):
        return _from_file(path, v1)
    if os.path.exists(f"{path}.meta"):
        return Located(path, graph=f"{path}.meta")
    if bundle_files(path) and not os.path.lexists(bundle.index_path(path)):
        raise NotFoundError("no index beside its data", path=path, hint=f"{bundle.index_path(path)} is needed too")
    _refuse_mixed_shards(path)
    raise NotFoundError("no such file or checkpoint", path=path, hint=_near(path))


def _checked_step(path: str, step: int | str | None) -> str | None:
    text = None if step is None else str(step)
    if text not in (None, "latest") and not _STEP.fullmatch(text):
        raise ValueError(f"{step!r} is neither the number of a step nor latest")
    if text is not None and os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(f"a step is chosen among the checkpoints of a directory, and {path} is none")
    return text


def _from_member(path: str, prefix: str, kind: str, v1: bool) -> Located:
    found = _checkpoint(prefix, v1)
    if kind == "meta" or not found:
        refuse_lookalike(path)
    if kind == "meta":
        return found._replace(graph=path) if found else Located(prefix, graph=path)
    if not found:
        raise NotFoundError("no index beside it", path=path, hint=f"{bundle.index_path(prefix)} is needed too")
    return found


def _checkpoint(prefix: str, v1: bool) -> Located | None:
    """The checkpoint of this prefix, if there is one: V2, a V1 file, or a V1 checkpoint in shards."""
    graph = _graph_beside(prefix)
    has_v2, files = os.path.exists(bundle.index_path(prefix)), v1_files(prefix)
    if has_v2 and not (v1 and files):
        notes = [f"a V1 checkpoint stands beside, {files[0]}{TAKEN_BY_V1}"] if files else []
        return Located(prefix, graph=graph, notes=tuple(notes))
    if files:
        return Located(prefix, files, graph)
    return None


def _refuse_mixed_shards(prefix: str) -> None:
    """Raises NotFoundError if the shards of several V1 checkpoints of this prefix lie side by side."""
    counts = sorted(v1_shard_counts(prefix))
    if len(counts) > 1:
        what = f"shards of {len(counts)} checkpoints: some are of {listed([str(int(count)) for count in counts])}"
        raise NotFoundError(what, path=prefix, hint=f"give one of those to take, such as {prefix}-00000-of-{counts[0]}")


def _graph_beside(prefix: str) -> str | None:
    """The graph of a checkpoint: its `.meta`, or that of the SavedModel it is in."""
    # One for all shards: `model-?????-of-00002` has `model.meta`.
    shard = V1_SHARD.fullmatch(prefix)
    for meta in (f"{prefix}.meta", f"{shard[1]}.meta" if shard else None):
        if meta and os.path.isfile(meta):
            return meta
    directory, slash, _ = prefix.rpartition(VARIABLES)
    return saved_model_file(directory or ".") if slash and prefix.endswith(VARIABLES) else None


def _file_itself(path: str) -> Located | None:
    """A file of another format, such as Keras' `model.h5`, beside whose name a checkpoint's index stands."""
    foreign = foreign_format(path)
    note = f"a checkpoint of that name stands beside: {bundle.index_path(path)} takes it"
    return Located(path, notes=(note,), foreign=foreign) if foreign else None


def _directory_or_prefix(path: str, v1: bool, step: str | None) -> Located:
    """What is in a directory; or, if that is nothing, the checkpoint beside it whose prefix is the same."""
    has_namesake = step is None and not path.endswith(os.sep) and os.path.exists(bundle.index_path(path))
    try:
        found = _in_directory(path, v1, step)
    except NotFoundError:
        beside = _checkpoint(path, v1) if has_namesake and not checkpoints_in(path) else None
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

    Who wants a step wants a checkpoint, and not the SavedModel that training left beside.
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
            return Located(prefix, graph=_graph_beside(prefix))
    return _from_state(state_file, v1) if has_state and step in (None, "latest") else None


def _without_state(path: str, v1: bool, step: str | None) -> Located:
    """The only checkpoint in a directory, or the only one of a step; without any, what else the directory holds."""
    prefixes = checkpoints_in(path)
    if step == "latest":
        last = max(map(step_of, prefixes), default=-1)
        step = None if last < 0 else str(last)  # Without steps, nothing tells.
    chosen = [prefix for prefix in prefixes if step is None or step_of(prefix) == int(step)]
    names = ", ".join(os.path.basename(prefix) for prefix in prefixes)
    if chosen:
        return _only_checkpoint(path, chosen, names, v1)
    if step is not None:
        raise NotFoundError(f"no checkpoint of step {step}", path=path, hint=f"there are {names}" if names else None)
    return _without_checkpoint(path) or _only_version(path, v1)


def _only_checkpoint(path: str, chosen: Sequence[str], names: str, v1: bool) -> Located:
    """The checkpoint that was chosen in a directory; raises if there are several. `names` are those of all there."""
    found = _checkpoint(chosen[0], v1) if len(chosen) == 1 else None
    if found:
        return found._replace(notes=(f"taking {chosen[0]}", *found.notes))
    if len(chosen) == 1:
        _refuse_mixed_shards(chosen[0])
    steps = list(map(step_of, chosen))
    by_step = len({*steps}) == len(steps) and -1 not in steps
    hint = f"{BY_STEP if by_step else BY_PATH} {names}"
    raise NotFoundError("several checkpoints and no state file", path=path, hint=hint)


def _without_checkpoint(path: str) -> Located | None:
    """What a directory without a checkpoint holds: weights of Keras, one graph, arrays; None: none of these."""
    found = _foreign_in(path, _KERAS_IN_DIRECTORY)
    if found:
        return found
    names = os.listdir(path)
    metas = [name for name in names if name.endswith(".meta") and not is_apple_double(os.path.join(path, name))]
    if len(metas) == 1:
        return Located(os.path.join(path, metas[0].removesuffix(".meta")), graph=os.path.join(path, metas[0]))
    return Located(path, foreign="npy directory") if any(name.endswith(".npy") for name in names) else None


def _only_version(path: str, v1: bool) -> Located:
    """The model in a directory that has one version of it, in a directory named by a number, and nothing else to take.

    Raises:
        NotFoundError: there is none, or there are several.
    """
    below = _models_below(path)
    if len(below) == 1 and _STEP.fullmatch(below[0]):
        version = os.path.join(path, below[0])
        found = _model_in(version, v1, None)
        if found:
            return found._replace(notes=(f"taking {version}", *found.notes))
    raise NotFoundError("no checkpoint in this directory", path=path, hint=_what_is_in(path, below))


def _foreign_in(path: str, formats: Mapping[str, str]) -> Located | None:
    """The first file in a directory that has one of these names; its format is what the name stands for."""
    found = ((os.path.join(path, name), format) for name, format in formats.items())
    return next((Located(file, foreign=format) for file, format in found if os.path.isfile(file)), None)


def _models_below(path: str) -> list[str]:
    """The directories in one that hold a model, such as the versions of a SavedModel that is exported or served."""
    signs = (*SAVED_MODEL_FILES, STATE_FILE, VARIABLES)
    return sorted(
        name for name in os.listdir(path) if any(os.path.exists(os.path.join(path, name, sign)) for sign in signs)
    )


def _what_is_in(path: str, below: Sequence[str]) -> str:
    if below:
        return f"there are models below it: {', '.join(below[:9])}"
    names = sorted(os.listdir(path))
    alone = next((match for match in map(MEMBER.fullmatch, names) if match and match[2].startswith("data-")), None)
    if alone:
        return f"{alone[0]} has values, and nothing says which: its index is needed, {alone[1]}.index"
    if len(names) == 1:
        return f"there is only {names[0]}: give that, if it is one"
    return f"there are {listed(names)}: give the one that is it, if any" if names else "it is empty"


def _from_state(state_file: str, v1: bool) -> Located:
    state = read_checkpoint_state(state_file)
    for number, prefix in enumerate(candidates(os.path.dirname(state_file), state.latest)):
        found = _checkpoint(prefix, v1)
        if not found and os.path.exists(f"{prefix}.meta"):
            found = Located(prefix, graph=f"{prefix}.meta")
        if found:
            notes = [f"the latest checkpoint in {state_file} is {prefix}"]
            if number:
                notes.append(f"its path there, {state.latest}, is dead: taking the same name beside it")
            return found._replace(notes=(*notes, *found.notes))
    raise NotFoundError(
        "the latest checkpoint that the state file names is not there",
        path=state.latest,
        hint=_near(os.path.join(os.path.dirname(state_file), "")),
    )


def _from_file(path: str, v1: bool) -> Located:
    """A file that is no member by its name: a state file, one of another format, one with a graph, something else."""
    if _ANY_INDEX.search(path):
        return Located(path, foreign="safetensors index")
    if path.endswith(_KERAS_INDEX):
        return Located(path, foreign="hdf5 index")
    # What is named so is asked for as a graph.
    foreign = None if os.path.basename(path).startswith("saved_model.") else foreign_format(path)
    if foreign:
        return Located(path, notes=_whole_of_shard(path), foreign=foreign)
    if is_checkpoint_state(path):
        return _from_state(path, v1)
    refuse_lookalike(path)
    if os.path.basename(path) == STATE_FILE:
        return _from_state(path, v1)  # Says what is wrong with it.
    if os.path.basename(path).startswith("saved_model."):
        return _in_saved_model(path)
    return Located(path, graph=path)


def _whole_of_shard(path: str) -> tuple[str, ...]:
    """Says it, if a file is a shard of safetensors or of Keras' weights, and where all of them are found."""
    shard, keras_shard = _SAFETENSORS_SHARD.fullmatch(path), _KERAS_SHARD.fullmatch(path)
    if shard and os.path.isfile(index := f"{shard[1]}{_SAFETENSORS_INDEX}"):
        return (f"this is one of {int(shard[2])} shards; all are in {index}",)
    if keras_shard and os.path.isfile(index := f"{keras_shard[1]}{_KERAS_INDEX}"):
        return (f"this is one of several shards; all are in {index}",)
    return ()


def _in_saved_model(path: str) -> Located:
    return Located(os.path.join(os.path.dirname(path), VARIABLES), graph=path)


def _near(path: str) -> str | None:
    """Checkpoints in the same directory."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    names = [os.path.basename(prefix) for prefix in checkpoints_in(directory)]
    return f"checkpoints there: {', '.join(names[:5])}" if names else None
