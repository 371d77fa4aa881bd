"""Reading a SavedModel's graphs, and what else is in its directory."""

import os
from contextlib import suppress

from ckpttool import proto, storage
from ckpttool.errors import CheckpointError, NotFoundError
from ckpttool.formats.meta_graph import read_meta_graph
from ckpttool.formats.saved_model.names import ASSETS, tags_text
from ckpttool.model.graph import MetaGraph

_DEFAULT_TAGS = {"serve"}


def read_saved_model(path: str, tags: str | None) -> MetaGraph:
    """Reads one graph of a SavedModel.

    Args:
        path: the file with the graphs.
        tags: the tags of the graph, separated by commas; None: those of the only one, else "serve", else the first.

    Raises:
        NotFoundError: no graph has these tags.
        NotSupportedError: the file is in the chunked form.
        FormatError, CorruptionError: it is not a SavedModel, or damaged.
    """
    graph = read_meta_graph(path)
    if graph.root != "SavedModel":
        if tags is not None:
            raise NotFoundError(f"no tags in a {graph.root}", path=path)
        return graph
    return graph.replace(number=_choose(graph, tags), facts=_facts(graph))


def _choose(graph: MetaGraph, tags: str | None) -> int:
    """The number of the graph with the tags."""
    sets = [set(found) for found in graph.tag_sets]
    wanted = _DEFAULT_TAGS if tags is None else {tag for tag in tags.split(",") if tag}
    if wanted in sets:
        return sets.index(wanted)
    if tags is not None:
        there = " · ".join(map(tags_text, graph.tag_sets))
        raise NotFoundError(f"no graph has the tags {tags}", path=graph.path, hint=f"there are {there}")
    return 0


def _facts(graph: MetaGraph) -> dict[str, str]:
    """What else there is to say of a SavedModel."""
    directory = os.path.dirname(graph.path)
    facts = {}
    if len(graph.tag_sets) > 1:
        facts["tag sets"] = " · ".join(map(tags_text, graph.tag_sets))
    assets = os.path.join(directory, ASSETS)
    if os.path.isdir(assets):
        with suppress(OSError):  # Not ours to read.
            facts["assets"] = ", ".join(sorted(os.listdir(assets)))
    fingerprint = os.path.join(directory, "fingerprint.pb")
    if os.path.isfile(fingerprint):
        facts["fingerprint"] = _fingerprint(fingerprint)
    return facts


def _fingerprint(path: str) -> str:
    try:
        message = proto.parse("FingerprintDef", storage.read_file(path))
    except CheckpointError as error:
        return f"damaged: {error}"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    hashes = (f"{field.name} {value:016x}" for field, value in message.ListFields() if isinstance(value, int))
    return ", ".join([*hashes, *([f"uuid {message.uuid}"] if message.uuid else [])])
