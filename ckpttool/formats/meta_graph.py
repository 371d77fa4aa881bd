"""The `.meta` file: one serialized MetaGraphDef, written beside a checkpoint.

    1 meta_info_def   2 graph_def   3 saver_def   4 collection_def   5 signature_def   6 asset_file_def   …

(tensorflow/core/protobuf/meta_graph.proto; python/framework/meta_graph.py)
"""

from pathlib import Path

from ckpttool import storage
from ckpttool.errors import FormatError, NotSupportedError, located
from ckpttool.model.graph import MetaGraph
from ckpttool.wire.message import LENGTH, VARINT, fields


def read_meta_graph(path: str) -> MetaGraph:
    """Reads the graph from a `.meta` file.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it holds another message, or none.
        CorruptionError: it is damaged.
    """
    data = storage.read_file(path)
    with located(path):
        first = next(fields(data), None)
        if first is None:
            raise FormatError("an empty file")
        if first[:2] == (1, VARINT):
            raise NotSupportedError("a SavedModel, not a MetaGraphDef")
        if sum((number, wire_type) == (1, LENGTH) for number, wire_type, *_ in fields(data)) > 1:
            raise NotSupportedError("a GraphDef, not a MetaGraphDef")
        graph = MetaGraph(data, path=path)
        if not graph.message.HasField("graph_def"):
            raise FormatError("not a MetaGraphDef: it has no graph")
    return graph


def write_meta_graph(graph: MetaGraph, path: str | Path, *, force: bool = False, in_place: bool = False) -> None:
    """Writes the graph's bytes, beside and renamed.

    Args:
        graph: what to write.
        path: the file to be.
        force: replace a file that is there.
        in_place: also the one that the graph was read from.

    Raises:
        FileExistsError: there is a file at `path` that may not be replaced.
    """
    inputs = [graph.path] if graph.path and not in_place else []
    with storage.write_beside(path, force=force or in_place, inputs=inputs) as beside:
        beside.write_bytes(graph.data)
