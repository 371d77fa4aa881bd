"""Writing a SavedModel: its graph, its variables as a bundle, and the files that it reads (formats.saved_model).

    saved_model.pb · variables/variables.index · variables/variables.data-… · assets/…

(tensorflow/python/saved_model/builder_impl.py)
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from ckpttool import storage
from ckpttool.errors import ConversionError
from ckpttool.formats.bundle.writing import plan_bundle, write_bundle
from ckpttool.formats.plan import check_plan
from ckpttool.formats.saved_model.names import ASSETS, CHUNKED, FILES, VARIABLES
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.slices import ByteRange
from ckpttool.storage import Content

# What TensorFlow and Keras write into a SavedModel. `assets.extra` is not among it: users put files there themselves.
_MEMBERS = {*FILES, CHUNKED, ASSETS, "variables", "debug", "fingerprint.pb", "keras_metadata.pb"}


def write_saved_model(
    graph: MetaGraph,
    checkpoint: Checkpoint,
    directory: str | os.PathLike[str],
    *,
    assets: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Writes a SavedModel: all of it appears at once.

        >>> ckpttool.write_saved_model(served.graph, served.variables, "served")

    Args:
        graph: what `servable` gives.
        checkpoint: its variables; there may be none.
        directory: the directory to be.
        assets: name in `assets/` → the file to be copied there.
        force: replace a SavedModel that is there.
        progress: is called with the bytes of each variable written.

    Raises:
        ValueError: a name in `assets/` is a path, which would lead out of it.
        NotFoundError: there is no directory for it.
        FileExistsError: there is something at `directory` that may not be replaced.
        ConversionError: a variable can't be held; or the graph is not a SavedModel's.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    require_graph(graph)
    require_checkpoint(checkpoint)
    sources = assets or {}
    inputs = _inputs(graph, checkpoint, sources)
    with storage.write_directory(directory, force=force, inputs=inputs, is_ours=_is_saved_model) as beside:
        if len(checkpoint):
            (beside / VARIABLES).parent.mkdir()
            write_bundle(checkpoint, beside / VARIABLES, strict=True, progress=progress)
        if sources:
            (beside / ASSETS).mkdir()
        for name, source in sources.items():
            _copy(source, beside / ASSETS / name)
        (beside / FILES[0]).write_bytes(graph.data)


def require_saved_model_writable(
    graph: MetaGraph,
    checkpoint: Checkpoint,
    directory: str | os.PathLike[str],
    *,
    assets: Mapping[str, str] | None = None,
    force: bool = False,
) -> None:
    """Raises what `write_saved_model` raises before it reads any values, and writes nothing."""
    inputs = _inputs(graph, checkpoint, assets or {})
    storage.require_writable_directory(directory, force=force, inputs=inputs, is_ours=_is_saved_model)
    check_plan(plan_bundle(checkpoint), strict=True)


def _inputs(graph: MetaGraph, checkpoint: Checkpoint, assets: Mapping[str, str]) -> list[str]:
    """The files that are read.

    Raises:
        ValueError: an asset would be written somewhere else than into `assets/`.
        ConversionError: the graph is not a SavedModel's.
    """
    for name in assets:
        if name in ("", os.curdir, os.pardir) or os.path.basename(name) != name:
            raise ValueError(f"{name!r} can't be the name of a file in {ASSETS}/")
    if graph.root != "SavedModel":
        raise ConversionError(f"a {graph.root} is no SavedModel", path=graph.path, hint="servable makes one of it")
    return [*checkpoint.files, *assets.values(), *([graph.path] if graph.path else [])]


def _copy(source: str, path: Path) -> None:
    content = Content.of_ranges([ByteRange(source, 0, storage.file_size(source), None)])
    path.touch()
    storage.write_contents(path, [(0, content)])


def _is_saved_model(directory: Path) -> bool:
    """Whether a directory is a SavedModel, and nothing else is lost with it."""
    names = {path.name for path in directory.iterdir()}
    return not names.isdisjoint({*FILES, CHUNKED}) and names <= _MEMBERS


def find_asset(graph: MetaGraph, path: str, name: str) -> str | None:
    """Where a file is that a graph reads: where the graph says, or beside the graph, or in `assets/` there.

    Args:
        graph: the graph; for a SavedModel, `assets/` comes first and the graph's own path last.
        path: as the graph has it.
        name: its last part.
    """
    beside = os.path.dirname(graph.path)
    found = [path, os.path.join(beside, name), os.path.join(beside, ASSETS, name)]
    found = found[::-1] if graph.root == "SavedModel" else found
    return next((each for each in found if "\0" not in each and os.path.isfile(each)), None)
