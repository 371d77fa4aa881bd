"""Files that hold a graph: a MetaGraphDef (`.meta`), a GraphDef (a frozen `.pb`, `graph.pbtxt`), a SavedModel
(`saved_model.pb`); each as bytes or as text.

None of them says which it is, so the fields do:

    SavedModel     1 saved_model_schema_version (a varint)   2 meta_graphs
    GraphDef       1 node … (each with a name and an op)     2 library   4 versions
    MetaGraphDef   1 meta_info_def (once)                    2 graph_def   3 saver_def   4 collection_def   …

A text file is known by the name of its first field.  (tensorflow/core/protobuf/{meta_graph,saved_model}.proto)
"""

import re
from pathlib import Path
from typing import Any

from ckpttool import proto, storage
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, located
from ckpttool.formats.lookalikes import refuse_lookalike
from ckpttool.model.graph import MetaGraph
from ckpttool.wire.message import LENGTH, VARINT, fields

_TEXT_ROOTS = {
    **dict.fromkeys(("node", "library", "version", "versions", "debug_info"), "GraphDef"),
    **dict.fromkeys(("saved_model_schema_version", "meta_graphs"), "SavedModel"),
    **dict.fromkeys(("meta_info_def", "graph_def", "saver_def", "collection_def", "signature_def"), "MetaGraphDef"),
    **dict.fromkeys(("asset_file_def", "object_graph_def"), "MetaGraphDef"),
}
_FIRST_FIELD = re.compile(rb"(?:\s|#[^\n]*\n)*([a-z_]+)\s*[:{<]")
_TEXT_BYTES = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\n\r\f"})
_OP = re.compile(rb"[A-Za-z_][\w>]*")


def read_meta_graph(path: str) -> MetaGraph:
    """Reads the graph from a file, whichever of these it is.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it holds something else.
        CorruptionError: it is damaged.
    """
    refuse_lookalike(path)
    data = storage.read_file(path)
    with located(path):
        text_root = _text_root(data)
        if text_root:
            return MetaGraph(_from_text(text_root, data), root=text_root, path=path, is_text=True)
        graph = MetaGraph(data, root=_root(data), path=path)
        nodes = graph.message.graph_def.node
        if not graph.message.HasField("graph_def") or not all(node.op for node in nodes):
            raise FormatError(f"not a graph: a {graph.root} without one, or with ops of no type")
    return graph


def write_meta_graph(graph: MetaGraph, path: str | Path, *, force: bool = False, in_place: bool = False) -> None:
    """Writes the graph's bytes, or its text if it was read from text, beside and renamed.

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
        beside.write_bytes(_to_text(graph) if graph.is_text else graph.data)


def _text_root(data: bytes) -> str | None:
    """The message that a text file is of; None if it is not text."""
    first = _FIRST_FIELD.match(data[:4096])
    return _TEXT_ROOTS.get(first[1].decode()) if first else None


def _from_text(root: str, data: bytes) -> bytes:
    from google.protobuf import text_format

    message: Any = proto.message_class(root)()
    try:
        text_format.Parse(data, message, descriptor_pool=proto.pool())
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"not the text of a {root}: {error}") from error
    return bytes(message.SerializeToString(deterministic=True))


def _to_text(graph: MetaGraph) -> bytes:
    from google.protobuf import text_format

    message = proto.parse(graph.root, graph.data)
    return text_format.MessageToString(message, descriptor_pool=proto.pool()).encode()


def _root(data: bytes) -> str:
    """The message that bytes are, by their fields."""
    try:
        top = list(fields(data))
    except CheckpointError as error:
        what = "a text file, and not that of a graph" if _is_text(data) else f"no graph ({error.what})"
        raise FormatError(what, offset=error.offset) from error
    kinds = {field[:2] for field in top}
    if {(1, VARINT), (2, LENGTH)} <= kinds:
        return "SavedModel"
    if not kinds & {(1, LENGTH), (2, LENGTH)}:
        raise FormatError("a protobuf message, and not that of a graph")
    if (1, LENGTH) not in kinds:
        inner = next(data[value:end] for number, _, _, value, end in top if number == 2)
        # A MetaGraphDef without meta_info_def, or a SavedModel without a version.
        return "SavedModel" if _root(inner) == "MetaGraphDef" else "MetaGraphDef"
    firsts = [data[value:end] for number, wire_type, _, value, end in top if (number, wire_type) == (1, LENGTH)]
    # A MetaGraphDef has one field 1, which names no op; and a graph may have a single node.
    return "GraphDef" if len(firsts) > 1 or any(map(_is_node, firsts)) else "MetaGraphDef"


def _is_text(data: bytes) -> bool:
    return not data[:4096].translate(None, _TEXT_BYTES)


def _is_node(data: bytes) -> bool:
    """Whether bytes are a NodeDef: name 1, op 2."""
    try:
        texts = {number: data[value:end] for number, wire_type, _, value, end in fields(data) if wire_type == LENGTH}
    except CheckpointError:
        return False
    return bool(texts.get(1)) and bool(_OP.fullmatch(texts.get(2, b"")))
