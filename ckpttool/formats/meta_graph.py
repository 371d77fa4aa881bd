"""Files that hold a graph: a MetaGraphDef (`.meta`), a GraphDef (a frozen `.pb`, `graph.pbtxt`), a SavedModel
(`saved_model.pb`); each as bytes or as text.

None of them says which it is, so the fields do:

    SavedModel     1 saved_model_schema_version (a varint)   2 meta_graphs
    GraphDef       1 node … (each with a name and an op)     2 library   4 versions
    MetaGraphDef   1 meta_info_def (once)                    2 graph_def   3 saver_def   4 collection_def   …

A text file is known by the name of its first field.  (tensorflow/core/protobuf/{meta_graph,saved_model}.proto)
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

from ckpttool import proto, storage
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError, located
from ckpttool.formats.lookalikes import TRUNCATED, refuse_lookalike
from ckpttool.formats.siblings import belonging
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.wire.message import LENGTH, MAX_SIZE, VARINT, fields, values_of

_TEXT_ROOTS = {
    **dict.fromkeys(("node", "library", "version", "versions", "debug_info"), "GraphDef"),
    **dict.fromkeys(("saved_model_schema_version", "meta_graphs"), "SavedModel"),
    **dict.fromkeys(("meta_info_def", "graph_def", "saver_def", "collection_def", "signature_def"), "MetaGraphDef"),
    **dict.fromkeys(("asset_file_def", "object_graph_def"), "MetaGraphDef"),
}
_SUFFIXES = (".meta", ".pb")
# What files start with: a graph, a SavedModel (their first fields), and a table (its first entry, with an empty key).
_STARTS = (b"\x0a", b"\x08\x01", b"\0\0")
# Data files, also with what is added to a name by cutting, an interrupted writer, or a browser.
_DATA = re.compile(r"\.data(?:-[0-9]{5,9}-of-[0-9]{5,9}[^/]*)?\Z")
# Quoted texts, whose end may be missing, and comments. Possessive, since each may be as long as the file.
_QUOTED = re.compile(
    rb"""'[^'\\]*+(?:\\.[^'\\]*+)*+(?:'|\\?\Z)|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|\#[^\n]*+""", re.DOTALL
)
_SPACE = rb"(?:\s|#[^\n]*+\n)*+"
_FIRST_FIELD = re.compile(_SPACE + rb"([a-z_]++)" + _SPACE + rb"[:{<\[]")
_TEXT_BYTES = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\n\r\f"})
# With more messages than this, of fewer bytes each, a text says nothing: `dim { size: 1 }` takes 15.
_MANY, _LEAST = 50_000, 12
# From protobuf's error for a message in a google.protobuf.Any, whose type text needs to be known and bytes do not.
_UNKNOWN = "not found in descriptor pool"
_OP = re.compile(rb"[A-Za-z_][\w>]*")
# Fields that are looked at to tell what a file is: one may be made of millions, to take long.
_TELLING = 1_000_000


def read_meta_graph(path: str) -> MetaGraph:
    """Reads the graph from a file of any of these kinds.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it holds something else.
        CorruptionError: it is damaged.
    """
    refuse_lookalike(path)
    data = _read(path)
    with located(path):
        text_root = _text_root(data)
        if text_root:
            return MetaGraph(_from_text(text_root, data), root=text_root, path=path, text=data)
        graph = MetaGraph(data, root=_root(data, path), path=path)
        try:
            nodes = graph.message.graph_def.node
        except CorruptionError:
            _refuse_nameless(graph.root, data)
            raise
        if not graph.message.HasField("graph_def") or not all(map(attrgetter("op"), nodes)):
            raise FormatError(f"not a graph: a {graph.root} without one, or with ops of no type")
    return graph


def _read(path: str) -> bytes:
    """The bytes of a file; only the first ones if it can be no graph, such as a file of zeros."""
    start = storage.read_range(path, 0, _START)
    if start and start[0] < _FIRST_TAG and not _is_text(start):
        return start
    # Text takes up to four times as many bytes: one may be written \000.
    most = 4 * MAX_SIZE if _is_text(start) else MAX_SIZE
    if storage.file_size(path) > most:
        raise FormatError(f"no graph: it is larger than {most >> 30} GiB, and none can be", path=path)
    return storage.read_file(path)


# No tag is less, for fields are numbered from 1; and the bytes that are read to see whether that is so.
_FIRST_TAG, _START = 8, 4096


def in_form_of(graph: MetaGraph, path: str) -> MetaGraph:
    """The graph in the form that TensorFlow reads under the name of its new file: text for `.pbtxt`, bytes for `.pb`.

    It keeps its form if the suffix stays the same: some `.pb` are text, which is the default of `write_graph`.
    """
    suffix = os.path.splitext(path)[1]
    if suffix == os.path.splitext(graph.path)[1] or suffix not in (".pb", ".pbtxt"):
        return graph
    text = (graph.text or b"") if suffix == ".pbtxt" else None
    return graph.replace(text=text)


def write_meta_graph(
    graph: MetaGraph,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    in_place: bool = False,
    inputs: Sequence[str] = (),
) -> None:
    """Writes the graph's bytes, or its text if it was read from text; the file appears whole or not at all.

    Args:
        graph: what to write.
        path: the file to be written.
        force: replace a file that is there.
        in_place: replace even the one that the graph was read from.
        inputs: other files that were read, none of which is replaced.

    Raises:
        NotFoundError: there is no directory for it.
        FileExistsError: there is a file at `path` that may not be replaced.
        IsADirectoryError: `path` is a directory's, or ends with a slash.
    """
    require_graph(graph)
    with meta_graph_beside(graph, path, force=force, in_place=in_place, inputs=inputs):
        pass


@contextmanager
def meta_graph_beside(
    graph: MetaGraph,
    path: str | os.PathLike[str],
    *,
    force: bool,
    in_place: bool = False,
    inputs: Sequence[str] = (),
) -> Iterator[None]:
    """As `write_meta_graph`, around a block that writes what belongs to the graph; the graph gets its name after it.

    If the block raises, what was at `path` before stays there.
    """
    path, inputs = _output(graph, path, in_place, inputs)
    with storage.write_beside(path, force=force or in_place, inputs=inputs) as beside:
        beside.write_bytes(graph.data if graph.text is None else _to_text(graph, graph.text))
        yield


def require_meta_graph_writable(
    graph: MetaGraph,
    path: str | os.PathLike[str],
    *,
    force: bool = False,
    in_place: bool = False,
    inputs: Sequence[str] = (),
) -> None:
    """Raises what `write_meta_graph` would raise about its output, and writes nothing."""
    path, inputs = _output(graph, path, in_place, inputs)
    storage.require_writable(path, force=force or in_place, inputs=inputs)


def _output(
    graph: MetaGraph, path: str | os.PathLike[str], in_place: bool, inputs: Sequence[str]
) -> tuple[str, list[str]]:
    """The file to be written (in place: the one that a link leads to), and the files that are never replaced."""
    kept = [*inputs, *belonging(graph.path), *([graph.path] if graph.path and not in_place else [])]
    path = os.fsdecode(path)
    return os.path.realpath(path) if in_place else path, kept


def _text_root(data: bytes) -> str | None:
    """The message that a text file is of; None if it is not text."""
    first = _FIRST_FIELD.match(data)
    return _TEXT_ROOTS.get(first[1].decode()) if first else None


def _from_text(root: str, data: bytes) -> bytes:
    from google.protobuf import text_format

    message: Any = proto.message_class(root)()
    count = data.count(b"{") + data.count(b"<")
    if count > _MANY and len(data) < _LEAST * count:
        bare = _QUOTED.sub(b"", data)  # A constant may hold JSON, say.
        count = bare.count(b"{") + bare.count(b"<")
    if count > _MANY and len(data) < _LEAST * count:
        raise CorruptionError(
            f"not the text of a {root}: {count:,} messages in {len(data):,} bytes are nearly all empty"
        )
    try:
        # TensorFlow takes the last of several values in a graph, and in a SavedModel refuses them.
        read = text_format.Parse if root == "SavedModel" else text_format.Merge
        read(data, message, descriptor_pool=proto.pool())
    except (text_format.ParseError, ValueError, RecursionError) as error:  # ValueError: a number, or no UTF-8.
        if _UNKNOWN in str(error):
            what = f"the text of a {root} in which there is a message of a type that is not known here: {error}"
            raise NotSupportedError(what, hint="as bytes it can be read: export it with as_text=False") from error
        raise CorruptionError(f"not the text of a {root}: {error}") from error
    return proto.serialize(message)


def _to_text(graph: MetaGraph, text: bytes) -> bytes:
    """The graph as text: the text that it was read from, if nothing was changed."""
    if _from_text(graph.root, text) == graph.data:
        return text
    from google.protobuf import text_format

    message = proto.parse(graph.root, graph.data)
    return text_format.MessageToString(message, descriptor_pool=proto.pool()).encode()


def _root(data: bytes, path: str) -> str:
    """Which message the bytes are, by their fields."""
    try:
        # The first million tell; the whole is parsed later.
        kinds = Counter(map(itemgetter(0, 1), islice(fields(data), _TELLING)))
    except CheckpointError as error:
        what = "a text file, and not that of a graph" if _is_text(data) else "no file of a kind that is known"
        hint = TRUNCATED if path.endswith(_SUFFIXES) or data.startswith(_STARTS) else None
        hint = "data of a checkpoint are read by its index, PREFIX.index" if _DATA.search(path) else hint
        raise FormatError(f"not a TensorFlow checkpoint or graph: {what}", hint=hint) from error
    if kinds[1, VARINT] and kinds[2, LENGTH]:
        return "SavedModel"
    if kinds[1, LENGTH]:
        # A MetaGraphDef has one field 1, perhaps in parts, and that names no op; a GraphDef may have a single node.
        is_list = kinds[1, LENGTH] > 1 and not _is_node(_first(_first(data, 2), 1))
        return "GraphDef" if is_list or _is_node(_first(data, 1)) else "MetaGraphDef"
    # A SavedModel without a version, or a MetaGraphDef without meta_info_def, which has nodes in its field 2.
    if kinds[2, LENGTH] and _is_node(_first(_first(data, 2), 1)):
        return "MetaGraphDef"
    if kinds.keys() != {(2, LENGTH)}:
        raise FormatError("not a TensorFlow checkpoint or graph: some other protobuf message")
    return "SavedModel"


# The field numbers that lead from each root to its ops, and from an op to its name.
_OPS = {"SavedModel": (2, 2, 1), "MetaGraphDef": (2, 1), "GraphDef": (1,)}
_NAME = 1


def _refuse_nameless(root: str, data: bytes) -> None:
    """For a graph that can't be parsed: raises if an op has no name, which TensorFlow does not take either.

    That says more than the parser: of a million empty ops, it says that they would fill the memory.
    """
    for number, (start, end) in enumerate(_spans(data, _OPS[root], 0, len(data))):
        if not any(kind == LENGTH and e > v for _, kind, _, v, e in fields(data[start:end], {_NAME})):
            raise CorruptionError(f"op number {number:,} has no name", offset=start)


def _spans(data: bytes, path: Sequence[int], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Start and end of the messages that are reached through fields of these numbers."""
    if not path:
        yield start, end
        return
    # An op that comes after a million other fields does not matter.
    for number, kind, _, value, after in islice(fields(data[start:end]), _TELLING):
        if (number, kind) == (path[0], LENGTH):
            yield from _spans(data, path[1:], start + value, start + after)


def _first(data: bytes, number: int) -> bytes:
    """The first value of a length-delimited field; nothing if there is none."""
    with suppress(CheckpointError):
        return next(values_of(data, number), b"")
    return b""


def _is_text(data: bytes) -> bool:
    return not data[:4096].translate(None, _TEXT_BYTES)


def _is_node(data: bytes) -> bool:
    """Whether bytes are a NodeDef: name 1, op 2."""
    try:
        texts = {number: data[value:end] for number, wire_type, _, value, end in fields(data) if wire_type == LENGTH}
    except CheckpointError:
        return False
    return bool(texts.get(1)) and bool(_OP.fullmatch(texts.get(2, b"")))
