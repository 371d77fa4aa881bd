"""The two doors: open whatever a path leads to, as a checkpoint or as a graph."""

import os
from collections.abc import Collection, Iterable
from importlib import import_module
from typing import TYPE_CHECKING

from ckpttool.errors import CheckpointError, NotFoundError, NotSupportedError
from ckpttool.formats.bundle import index_path
from ckpttool.formats.listing import checkpoints_in
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.saved_model.names import FILES as SAVED_MODEL_FILES
from ckpttool.formats.saved_model.names import VARIABLES
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import listed
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph


def open_checkpoint(
    path: str | os.PathLike[str] | Located,
    *,
    faults: list[CheckpointError] | None = None,
    only: Iterable[str] | None = None,
) -> Checkpoint:
    """Opens a checkpoint: reads its index now, and values when they are asked for, by any number of threads.

        >>> checkpoint = ckpttool.open_checkpoint("model.ckpt")
        >>> checkpoint["dense/kernel"].shape
        (784, 10)
        >>> checkpoint["dense/kernel"].numpy()

    Its files must stay where they are and, if the path is relative, so must the working directory.

    Args:
        path: a prefix (`model.ckpt`), one of its files (`model.ckpt.index`), a V1 file, a SavedModel, or a directory
            with a `checkpoint` state file; a file of HDF5, NumPy or safetensors; a frozen graph, for its constants; or
            what `locate` returned for one of these.
        faults: a list that gets the errors of what is damaged, while the rest is opened; None: the first one is raised.
        only: the names of the variables that are wanted, as they are stored; one that is not there is left out without
            an error. In a tensor bundle they are looked up, and the rest of the index is neither read nor checked,
            unless `faults` is given.

    Raises:
        TypeError: `only` is one name, and no list of names.
        NotFoundError: nothing is there, or only a graph.
        FormatError: something else is there.
        CorruptionError: the index is damaged.
        NotSupportedError: it is of a kind that can't be read.
    """
    if isinstance(only, str):
        raise TypeError(f"only is a list of names: [{only!r}], not {only!r}")
    only = None if only is None else list(only)
    if only is not None and not all(isinstance(name, str) for name in only):
        raise TypeError(f"names are texts, and only has {next(name for name in only if not isinstance(name, str))!r}")
    found = path if isinstance(path, Located) else locate(path)
    checkpoint = _open(found, faults, only)
    if faults and not checkpoint:
        faults[0].hint = faults[0].hint or "nothing can be listed"
        raise faults[0]
    if only is None:
        return checkpoint
    wanted = set(only)
    return checkpoint.with_variables({name: each for name, each in checkpoint.items() if name in wanted})


def _open(found: Located, faults: list[CheckpointError] | None, only: Collection[str] | None) -> Checkpoint:
    if found.foreign:
        return _open_foreign(found.prefix, found.foreign, faults)
    if found.v1_files:
        from ckpttool.formats.tensor_slices.reading import read_tensor_slices

        return read_tensor_slices(found.v1_files, path=found.prefix, faults=faults)
    if not found.has_variables:
        if faults is not None and os.path.isfile(found.prefix):
            from ckpttool.formats.tensor_slices.reading import begins_as_tensor_slices, read_tensor_slices

            if begins_as_tensor_slices(found.prefix):
                return read_tensor_slices((found.prefix,), path=found.prefix, faults=faults)
        from ckpttool.formats.frozen import constants_of, is_frozen

        graph = open_graph(found)  # Says what the file is, if it is not even a graph.
        constants = constants_of(graph)
        if constants is None:
            alone = found.graph == found.prefix or is_frozen(graph)
            hint = "it holds a graph: ls shows it" if alone else _what_is_missing(found)
            raise NotFoundError("no variables here", path=found.prefix, hint=hint)
        return constants
    from ckpttool.formats.bundle.reading import read_bundle

    return read_bundle(found.prefix, faults=faults, only=only)


def _what_is_missing(found: Located) -> str:
    """What a graph's variables should be in, and the checkpoints that are there instead."""
    others = list(map(os.path.basename, checkpoints_in(os.path.dirname(found.graph or "") or os.curdir)))
    beside = f"; checkpoints there: {listed(others)}" if others else ""
    return f"{index_path(found.prefix)} is missing{beside}; ls shows the graph"


def require_readable(found: Located, checkpoint: Checkpoint) -> None:
    """Raises NotSupportedError if nothing can be read in a file whose format is not TensorFlow's."""
    # What is said of such a file is what was passed over.
    if found.foreign and checkpoint.warnings and not checkpoint:
        raise NotSupportedError("nothing in it can be read", path=found.prefix, hint=checkpoint.warnings[0])


def is_whole(prefix: str) -> bool:
    """Whether a checkpoint's index can be read, and its data files are there and as long as that says."""
    try:
        # A whole directory would be listed for the V1 checkpoint that may stand beside.
        checkpoint = open_checkpoint(Located(prefix) if os.path.exists(index_path(prefix)) else locate(prefix))
    except (CheckpointError, OSError):  # OSError: not ours to read.
        return False
    ends = dict.fromkeys(checkpoint.files, 0)
    for piece in (piece for variable in checkpoint.values() for piece in variable.slices):
        ends[piece.data.path] = max(ends.get(piece.data.path, 0), piece.data.offset + piece.data.nbytes)
    return all(os.path.isfile(path) and os.path.getsize(path) >= end for path, end in ends.items())


# The modules and functions that read other formats than TensorFlow's.
_FOREIGN = {
    "hdf5": ("hdf5", "read_hdf5"),
    "hdf5 index": ("hdf5", "read_hdf5_shards"),
    "npz": ("npz", "read_npz"),
    "npy": ("npy", "read_npy"),
    "npy directory": ("npy", "read_npy_directory"),
    "safetensors": ("safetensors", "read_safetensors"),
    "safetensors index": ("safetensors", "read_safetensors_index"),
}


def _open_foreign(path: str, format: str, faults: list[CheckpointError] | None) -> Checkpoint:
    module, function = _FOREIGN[format]
    checkpoint: Checkpoint = getattr(import_module(f"ckpttool.formats.{module}"), function)(path, faults=faults)
    return checkpoint


def open_graph(path: str | os.PathLike[str] | Located, *, tags: str | None = None) -> "MetaGraph":
    """Opens a graph. Ops of unknown types are no obstacle.

        >>> graph = ckpttool.open_graph("model.ckpt.meta")
        >>> graph.collections["activation"].members
        ['activation_opt:0']

    Args:
        path: a `.meta` file, a frozen graph (`.pb`), a SavedModel, one of these as text (`.pbtxt`), or a checkpoint
            that has a graph beside it; or what `locate` returned for one of these.
        tags: of a SavedModel with several graphs, the tags of the one to open, separated by commas.

    Raises:
        TypeError: `tags` is no text.
        NotFoundError: nothing is there, or only variables, or no graph has these tags.
        FormatError: something else is there.
        CorruptionError: the file is damaged.
        NotSupportedError: it is of a kind that can't be read.
    """
    if not isinstance(tags, str | None):  # TensorFlow's loader takes a list.
        raise TypeError(f"tags is a text, in which commas separate them, not {tags!r}")
    found = path if isinstance(path, Located) else locate(path)
    if found.foreign:
        raise NotFoundError("no graph here, only variables", path=found.prefix, hint="vars shows them")
    if found.graph is None:
        directory, is_saved_model, _ = found.prefix.rpartition(VARIABLES)
        wanted = os.path.join(directory, SAVED_MODEL_FILES[0]) if is_saved_model else f"{found.prefix}.meta"
        hint = f"{wanted} is missing; vars shows the variables"
        if not is_saved_model and _is_of_objects(found):
            hint = "tf.train.Checkpoint saves none; objects and vars show what is there"
        raise NotFoundError("no graph here", path=found.prefix, hint=hint)
    from ckpttool.formats.saved_model.reading import read_saved_model

    return read_saved_model(found.graph, tags)


def _is_of_objects(found: Located) -> bool:
    try:
        return OBJECT_GRAPH_KEY in open_checkpoint(found, only=[OBJECT_GRAPH_KEY])
    except (CheckpointError, OSError):
        return False
