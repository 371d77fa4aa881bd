"""The two doors: open whatever a path leads to, as a checkpoint or as a graph."""

import os

from ckpttool.errors import NotFoundError, located
from ckpttool.formats.bundle import index_path, read_bundle
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.meta_graph import read_meta_graph
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import MetaGraph


def open_checkpoint(path: str | os.PathLike[str] | Located) -> Checkpoint:
    """Opens a checkpoint: reads its index, and values only when they are asked for.

        >>> checkpoint = ckpttool.open_checkpoint("model.ckpt")
        >>> checkpoint["dense/kernel"].shape
        (784, 10)
        >>> checkpoint["dense/kernel"].numpy()

    Args:
        path: a prefix (`model.ckpt`), one of its files (`model.ckpt.index`), or a directory with a `checkpoint`
            state file.

    Raises:
        NotFoundError: nothing is there, or only a graph.
        FormatError: something else is there.
        CorruptionError: the index is damaged.
        NotSupportedError: it is of a kind that can't be read.
    """
    found = path if isinstance(path, Located) else locate(path)
    if not os.path.exists(index_path(found.prefix)):
        raise NotFoundError(
            "no variables here", path=found.prefix, hint=f"{index_path(found.prefix)} is missing; ls shows the graph"
        )
    return read_bundle(found.prefix)


def open_graph(path: str | os.PathLike[str] | Located) -> MetaGraph:
    """Opens a graph. Its ops need not be known to anybody.

        >>> graph = ckpttool.open_graph("model.ckpt.meta")
        >>> graph.collections["activation"].members
        ['activation_opt:0']

    Args:
        path: a `.meta` file, or a checkpoint that has one beside.

    Raises:
        NotFoundError: nothing is there, or only variables.
        FormatError: something else is there.
        CorruptionError: the file is damaged.
        NotSupportedError: it is of a kind that can't be read.
    """
    found = path if isinstance(path, Located) else locate(path)
    if found.meta is None:
        raise NotFoundError(
            "no graph here", path=found.prefix, hint=f"{found.prefix}.meta is missing; vars shows the variables"
        )
    with located(found.meta):
        return read_meta_graph(found.meta)
