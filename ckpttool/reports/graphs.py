"""Reports about graphs."""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from ckpttool.model.arguments import Outputs, Tensor, get_shape, shape_text
from ckpttool.model.collections import Collection
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import counted, selector
from ckpttool.model.nodes import all_nodes
from ckpttool.reports.report import Column, Report, Row

if TYPE_CHECKING:
    from ckpttool.analysis.graphs.endpoints import Endpoint


# The most outputs listed for an op, and for all ops: a file can claim any number of them in a few bytes.
_FEW_OUTPUTS, _MANY_OUTPUTS = 256, 1 << 18


_FEW_INPUTS = 5


def endpoints(found: "Sequence[Endpoint]") -> Report:
    """What to feed and what to fetch: from the signatures or, if there are none, inferred, with the reason."""
    rows = [
        (
            *(e.direction, e.signature, e.key, e.tensor, e.dtype.name if e.dtype else "?", e.shape),
            *("inferred" if e.inferred else "stated", e.reason if e.inferred else ""),
        )
        for e in found
    ]
    columns = [
        *(Column("direction"), Column("signature", default=""), Column("key", default=""), Column("tensor")),
        *(Column("dtype"), Column("shape", "shape")),
        *(Column("certainty", default="stated", once=True), Column("reason", default="")),
    ]
    return Report("endpoints", "Inputs and outputs", columns, rows, brief=_without_many_alike(found, rows))


def _without_many_alike(found: "Sequence[Endpoint]", rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """The rows, with only a few of the inputs that one reason makes unneeded, and a line about the others.

    Keras sets each weight by a placeholder of its own: in a large model, these hide what to feed and what to fetch.
    """
    alike: dict[str, list[int]] = {}
    for number, e in enumerate(found):
        if e.inferred and e.direction == "input" and not e.needed:
            alike.setdefault(e.reason, []).append(number)
    many = {why: numbers[_FEW_INPUTS:] for why, numbers in alike.items() if len(numbers) > _FEW_INPUTS}
    gone = set(chain.from_iterable(many.values()))
    said = [f"{counted(len(numbers), 'more input')}: {why}" for why, numbers in many.items()]
    return [row for number, row in enumerate(rows) if number not in gone], said


_NO_VERSION = ("not said, as before 0.12", "not said: a GraphDef has no place for it")


def _graph_summary(graph: MetaGraph) -> Report:
    """What kind of file it is, who wrote it, how large it is."""
    info, graph_def, saver = graph.message.meta_info_def, graph.graph_def, graph.message.saver_def
    versions = graph_def.versions
    facts: list[tuple[str, Any]] = [
        ("file", graph.path),
        ("kind", f"{graph.root}{'' if graph.text is None else ' as text'} (TensorFlow graph)"),
        ("TensorFlow version", graph.tensorflow_version or _NO_VERSION[graph.root == "GraphDef"]),
        ("graph producer", versions.producer),
        ("minimum consumer", versions.min_consumer),
        ("tags", ", ".join(info.tags)),
        ("ops", len(graph_def.node)),
        ("functions", len(graph_def.library.function)),
        *graph.facts.items(),
    ]
    if graph.message.HasField("saver_def"):
        form = saver.CheckpointFormatVersion.Name(saver.version) if saver.version in (0, 1, 2) else saver.version
        facts += [
            ("saver", f"format {form}, {'sharded' if saver.sharded else 'not sharded'}, keeps {saver.max_to_keep}"),
            ("saver tensors", f"{saver.filename_tensor_name}, {saver.save_tensor_name}, {saver.restore_op_name}"),
        ]
    rows = [(name, value) for name, value in facts if value not in ("", None)]
    return Report("summary", "Graph", [Column("fact"), Column("value")], rows, says_count=True)


def op_types(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """How many ops there are of each type."""
    named, typed = selector(names), selector(types)
    counts = Counter(node.op for node in graph.graph_def.node if named(node.name) and typed(node.op))
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Report("op_types", "Op types", [Column("type"), Column("ops", "number")], list(rows))


def ops(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """Every op: type, device, inputs, and outputs as far as they are known."""
    named, typed = selector(names), selector(types)
    count = sum(named(node.name) and typed(node.op) for node in graph.graph_def.node)
    most = max(_FEW_OUTPUTS, _MANY_OUTPUTS // max(1, count))
    rows = [
        (node.name, node.type, node.device, list(node.inputs), _output_texts(graph.outputs(node), most))
        for node in graph.nodes
        if named(node.name) and typed(node.type)
    ]
    columns = [
        *(Column("name"), Column("type"), Column("device", default="")),
        *(Column("inputs", "list", default=[]), Column("outputs", "list", default=[])),
    ]
    return Report("ops", "Ops", columns, rows)


def constants(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """The constants, those of functions too, with the bytes that each takes in the file: the largest first."""
    named = selector(names)
    owners = [("", graph.graph_def.node), *((f.signature.name, f.node_def) for f in graph.graph_def.library.function)]
    rows: list[tuple[Any, ...]] = []
    for function, nodes in owners:
        for node in (node for node in nodes if node.op == "Const" and named(node.name)):
            if "value" in node.attr:  # Asking for a missing attribute would make one.
                tensor = node.attr["value"].tensor
                kind = dtype_of(tensor.dtype).name, get_shape(tensor.tensor_shape)
                rows.append((node.name, function, *kind, tensor.ByteSize()))
    columns = [Column("name"), Column("function", default=""), Column("dtype"), Column("shape", "shape")]
    ordered = sorted(rows, key=lambda row: -row[4])
    return Report("constants", "Constants", [*columns, Column("bytes", "bytes")], ordered)


def _output_texts(outputs: Outputs, most: int) -> list[str]:
    if len(outputs) <= most:
        return list(map(_tensor_text, outputs))
    return [*map(_tensor_text, outputs[:most]), f"… and {len(outputs) - most:,} more"]


# A graph has few kinds of tensors, and many of each.
@lru_cache(4096)
def _tensor_text(tensor: Tensor) -> str:
    """A tensor's dtype and shape: `float32[?,10]`; `float32` alone if even the rank is unknown."""
    return f"{tensor.dtype.name if tensor.dtype else '?'}{shape_text(tensor.shape)}"


def collections(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """Every collection with its kind and how many members it has."""
    rows = [(c.name, c.kind, len(c.members), _preview(c)) for c in _chosen_collections(graph, names)]
    columns = [Column("name"), Column("kind"), Column("members", "number"), Column("first members")]
    return Report("collections", "Collections", columns, list(rows))


def collection_members(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """Every member of every collection, decoded."""
    rows = [
        (collection.name, collection.kind, number, member)
        for collection in _chosen_collections(graph, names)
        for number, member in enumerate(collection.members)
    ]
    columns = [Column("collection"), Column("kind"), Column("#", "number"), Column("member", "any")]
    return Report("collection_members", "Members of collections", columns, rows)


def _chosen_collections(graph: MetaGraph, names: Sequence[str]) -> list[Collection]:
    chosen = selector(names)
    return [collection for name, collection in graph.collections.items() if chosen(name)]


def _preview(collection: Collection) -> str:
    """The first few members, by what names them."""
    shown = [_label(member) for member in collection.members[:3]]
    return ", ".join(shown) + (", …" if len(collection.members) > 3 else "")


_LABELS = ("variable_name", "queue_name", "context_name", "save_tensor_name", "filename")


def _label(member: Any) -> str:
    if isinstance(member, dict):
        return next((str(member[key]) for key in _LABELS if key in member), str(member.get("@type", "")))
    if isinstance(member, bytes):
        return member.decode(errors="backslashreplace") if len(member) <= 60 else f"{len(member):,} bytes"
    return str(member)


def graph_variables(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """The variables that the graph declares, with dtype and shape."""
    named, typed = selector(names), selector(types)
    rows = [
        (
            *(v.name, v.type, v.dtype.name if v.dtype else "?", v.shape),
            *("yes" if v.trainable else "", list(v.collections), v.device),
        )
        for v in graph.variables
        if named(v.name) and typed(v.type)
    ]
    columns = [
        *(Column("name"), Column("type", default="", once=True), Column("dtype"), Column("shape", "shape")),
        *(Column("trainable", default=""), Column("collections", "list", default=[], detail=True)),
        Column("device", default=""),
    ]
    return Report("variables", "Variables", columns, rows)


def devices(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """How many ops are placed on each device; those of functions are counted too."""
    named, typed = selector(names), selector(types)
    counts = Counter(node.device for node in all_nodes(graph.graph_def) if named(node.name) and typed(node.op))
    rows = [(device or "(none)", count) for device, count in sorted(counts.items(), key=lambda i: (-i[1], i[0]))]
    title = "Devices (of the ops in functions too)" if graph.graph_def.library.function else "Devices"
    return Report("devices", title, [Column("device"), Column("ops", "number")], rows)


def signatures(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """Every signature's inputs and outputs."""
    chosen = selector(names)
    rows = [
        (key, signature.method, direction, name, tensor, info.dtype.name if info.dtype else "?", info.shape)
        for key, signature in graph.signatures.items()
        if chosen(key)
        for direction, infos in (("input", signature.inputs), ("output", signature.outputs))
        for name, (tensor, info) in infos.items()
    ]
    columns = [
        *(Column("signature"), Column("method", default="", spare=True), Column("direction"), Column("name")),
        *(Column("tensor"), Column("dtype"), Column("shape", "shape")),
    ]
    return Report("signatures", "Signatures", columns, rows)


def functions(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """Every library function with its arguments and results."""
    chosen = selector(names)
    rows = [
        (
            function.signature.name,
            len(function.node_def) + len(function.node),
            [arg.name for arg in function.signature.input_arg],
            [arg.name for arg in function.signature.output_arg],
        )
        for function in graph.graph_def.library.function
        if chosen(function.signature.name)
    ]
    columns = [Column("name"), Column("ops", "number"), Column("arguments", "list"), Column("results", "list")]
    return Report("functions", "Functions", columns, rows)


def overview(graph: MetaGraph, names: Sequence[str] = ()) -> list[Report]:
    """A graph at a glance: the summary, and each table that has rows."""
    tables = [
        op_types(graph, names),
        collections(graph, names),
        graph_variables(graph, names),
        devices(graph, names),
        signatures(graph, names),
        functions(graph, names),
    ]
    return [_graph_summary(graph), *(table for table in tables if table.rows)]
