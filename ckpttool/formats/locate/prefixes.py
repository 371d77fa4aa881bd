"""A checkpoint by its prefix, and by the state file that names it."""

import os
from typing import NamedTuple

from ckpttool.errors import NotFoundError
from ckpttool.formats import bundle
from ckpttool.formats.checkpoint_state import candidates, read_checkpoint_state
from ckpttool.formats.listing import V1_SHARD, checkpoints_in, v1_files, v1_shard_counts
from ckpttool.formats.saved_model.names import VARIABLES, saved_model_file
from ckpttool.model.names import listed

SAFETENSORS_INDEX = ".safetensors.index.json"
"""What the name of the index of safetensors in several files ends in."""

KERAS_INDEX = ".weights.json"
"""The same of Keras' weights."""

# What notes and hints say of options, kept apart: a command without the option leaves it out.
TAKEN_BY_V1 = "; --v1 takes it"
TAKEN_BY_STEP = ", of which --step takes one"
BY_STEP, BY_PATH = "--step takes the number of one of", "give the path of one of"


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
        """Whether there is a checkpoint, and not a graph alone."""
        return bool(self.v1_files or self.foreign) or os.path.exists(bundle.index_path(self.prefix))


def checkpoint_of(prefix: str, v1: bool) -> Located | None:
    """The checkpoint of this prefix, if there is one: V2, a V1 file, or a V1 checkpoint in shards."""
    graph = graph_beside(prefix)
    has_v2, files = os.path.exists(bundle.index_path(prefix)), v1_files(prefix)
    if has_v2 and not (v1 and files):
        notes = [f"a V1 checkpoint stands beside, {files[0]}{TAKEN_BY_V1}"] if files else []
        return Located(prefix, graph=graph, notes=tuple(notes))
    if files:
        return Located(prefix, files, graph)
    return None


def refuse_mixed_shards(prefix: str) -> None:
    """Raises NotFoundError if there are shards of several V1 checkpoints of this prefix."""
    counts = sorted(v1_shard_counts(prefix))
    if len(counts) > 1:
        what = f"shards of {len(counts)} checkpoints: some are of {listed([str(int(count)) for count in counts])}"
        raise NotFoundError(what, path=prefix, hint=f"give one of those to take, such as {prefix}-00000-of-{counts[0]}")


def graph_beside(prefix: str) -> str | None:
    """The graph of a checkpoint: its `.meta`, or that of the SavedModel it is in."""
    # One for all shards: `model-?????-of-00002` has `model.meta`.
    shard = V1_SHARD.fullmatch(prefix)
    for meta in (f"{prefix}.meta", f"{shard[1]}.meta" if shard else None):
        if meta and os.path.isfile(meta):
            return meta
    directory, slash, _ = prefix.rpartition(VARIABLES)
    return saved_model_file(directory or ".") if slash and prefix.endswith(VARIABLES) else None


def from_state(state_file: str, v1: bool) -> Located:
    """The checkpoint that a state file says is the latest, where it says or beside that file.

    Raises:
        NotFoundError: it is not there.
    """
    state = read_checkpoint_state(state_file)
    for number, prefix in enumerate(candidates(os.path.dirname(state_file), state.latest)):
        found = checkpoint_of(prefix, v1)
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
        hint=near(os.path.join(os.path.dirname(state_file), "")),
    )


def near(path: str) -> str | None:
    """A hint with the checkpoints in the directory of a path; None if there are none."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        return f"there is no directory {directory}"
    names = [os.path.basename(prefix) for prefix in checkpoints_in(directory)]
    return f"checkpoints there: {listed(names)}" if names else None
