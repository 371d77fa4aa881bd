"""Model → Report: what there is to say, as titled columns and rows. Knows no colors and no terminals.

Cells hold values as they are (numbers, shapes, names straight from the file); `render` makes text of them, by the
kind of their column.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ckpttool.errors import CheckpointError
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.model.endpoints import endpoints as graph_endpoints
from ckpttool.model.graph import Collection, MetaGraph, Tensor
from ckpttool.model.names import selector
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY, Attribute, ObjectGraph, place_by_key
from ckpttool.model.slots import slot_owners


@dataclass(frozen=True)
class Column:
    """A column: its name and what its cells are.

    Kinds: text; number; bytes (a number of them); dtype; shape (a tuple, None in it or for it: not known); list (of
    text); tree (depth, path, label); any (whatever a collection holds). A column all of whose cells are `default` says
    nothing, and is left out on a terminal.
    """

    name: str
    kind: str = "text"
    default: Any = None


@dataclass
class Report:
    """A table. `key` names it in JSON; `totals` are lines of label and numbers beneath it."""

    key: str
    title: str
    columns: Sequence[Column]
    rows: list[tuple[Any, ...]]
    totals: list[dict[str, Any]] = field(default_factory=list)


SORTS: dict[str, Callable[[Variable], Any]] = {
    "name": lambda variable: variable.name,
    "size": lambda variable: (-variable.nbytes, variable.name),
    "shape": lambda variable: (len(variable.shape), variable.shape, variable.name),
    "dtype": lambda variable: (variable.dtype.name, variable.name),
    "shard": lambda variable: (_shards(variable), variable.name),
}
"""Orders of variables, by name."""


def variables(checkpoint: Checkpoint, *, sort: str | None = None, top: int | None = None) -> Report:
    """Every variable with what is known of it, and totals apart for weights and each optimizer's slots.

    Args:
        checkpoint: whose variables; the totals are over all of them.
        sort: one of SORTS; None: the checkpoint's order.
        top: the first so many only.
    """
    owners = slot_owners(checkpoint.keys())
    ordered: Iterable[Variable] = checkpoint.values()
    if sort:
        ordered = sorted(ordered, key=SORTS[sort])
    places = _places(checkpoint)
    rows = [
        (
            *(v.name, *places.get(v.name, ("", "")), v.dtype.name, v.shape),
            *(v.size, v.nbytes, _shards(v), len(v.slices), owners.get(v.name, "")),
        )
        for v in list(ordered)[:top]
    ]
    columns = [
        *(
            Column("name"),
            Column("object", default=""),
            Column("full name", default=""),
            Column("dtype"),
            Column("shape", "shape"),
            Column("parameters", "number"),
        ),
        *(Column("bytes", "bytes"), Column("shard"), Column("slices", "number", default=1)),
        Column("slot of", default=""),
    ]
    return Report("variables", "Variables", columns, rows, variable_totals(checkpoint, owners))


def _places(checkpoint: Checkpoint) -> Mapping[str, tuple[str, str]]:
    """The object and the TensorFlow 1 name of each variable of an object-based checkpoint."""
    if OBJECT_GRAPH_KEY not in checkpoint:
        return {}
    try:
        graph = checkpoint.object_graph
    except CheckpointError:  # The keys tell less, and need no data file.
        graph = None
    known = graph.places if graph else {}
    found = {name: known.get(name) or place_by_key(name) for name in checkpoint}
    return {name: place for name, place in found.items() if place}


def object_tree(checkpoint: Checkpoint, graph: ObjectGraph, *, depth: int | None = None) -> Report:
    """The object graph as a tree; what was shown before is named again and not entered."""
    rows: list[tuple[Any, ...]] = []
    for step in graph.walk():
        if depth is not None and step.depth > depth:
            continue
        attributes = [] if step.again else graph.attributes(step.node)
        kind = f"see {step.again}" if step.again else graph.kind(step.node, step.name)
        rows.append(((step.depth, step.path, step.name), kind, *_stored(checkpoint, attributes)))
    columns = [
        *(Column("object", "tree"), Column("kind", default=""), Column("dtype", default="")),
        *(Column("shape", "shape", default=""), Column("full name", default=""), Column("key", default="")),
    ]
    return Report("objects", "Objects", columns, rows)


def _stored(checkpoint: Checkpoint, attributes: Sequence[Attribute]) -> tuple[Any, ...]:
    """Of what is stored of an object: dtype, shape, full name, key; only the keys if there are several."""
    keys = ", ".join(attribute.key for attribute in attributes)
    if len(attributes) == 1 and attributes[0].key in checkpoint:
        variable = checkpoint[attributes[0].key]
        return variable.dtype.name, variable.shape, attributes[0].full_name, keys
    return "", "", "", keys


def endpoints(graph: MetaGraph) -> Report:
    """What to feed and what to fetch: facts where the graph has signatures, else inferred, with the reason."""
    rows = [
        (
            *(e.direction, e.key, e.tensor, e.dtype.name if e.dtype else "?", e.shape),
            *("inferred" if e.inferred else "stated", e.reason),
        )
        for e in graph_endpoints(graph)
    ]
    columns = [
        *(Column("direction"), Column("key", default=""), Column("tensor"), Column("dtype")),
        *(Column("shape", "shape"), Column("certainty"), Column("reason")),
    ]
    return Report("endpoints", "Inputs and outputs", columns, rows)


def state(entries: Sequence[tuple[str, str, float | None, bool]], directory: str) -> Report:
    """The checkpoints of a directory: what its state file lists, what of it dangles, what is not listed."""
    rows = []
    for written, prefix, time, is_latest in entries:
        status = "dangling" if not prefix else "there" if written else "not listed"
        saved = datetime.fromtimestamp(time, UTC).isoformat(" ", "seconds") if time is not None else ""
        rows.append((written or prefix, status, "latest" if is_latest else "", prefix, saved))
    columns = [Column("checkpoint"), Column("status"), Column("latest", default="")]
    columns += [Column("prefix"), Column("saved", default="")]
    return Report("checkpoints", f"Checkpoints in {directory}", columns, rows)


def _shards(variable: Variable) -> str:
    return ",".join(map(str, sorted({piece.shard for piece in variable.slices})))


def variable_totals(checkpoint: Checkpoint, owners: dict[str, str]) -> list[dict[str, Any]]:
    """Numbers of variables, parameters and bytes: of weights, of each optimizer's slots, of all."""
    kinds: dict[str, list[int]] = {}
    for name, variable in checkpoint.items():
        owner = owners.get(name)
        kind = "weights" if owner is None else f"slots ({owner})"
        sums = kinds.setdefault(kind, [0, 0, 0])
        for i, number in enumerate((1, variable.size, variable.nbytes)):
            sums[i] += number
    kinds = {kind: kinds[kind] for kind in sorted(kinds, key=lambda kind: (kind != "weights", kind))}
    if len(kinds) != 1:
        kinds["total"] = [sum(column) for column in zip(*kinds.values(), strict=True)] or [0, 0, 0]
    return [
        {"of": kind, "variables": count, "parameters": size, "bytes": nbytes}
        for kind, (count, size, nbytes) in kinds.items()
    ]


def variable_tree(checkpoint: Checkpoint, *, depth: int | None = None) -> Report:
    """The scopes, each with the number, parameters and bytes of all variables below it, and the variables.

    Args:
        checkpoint: whose variables.
        depth: how many levels to show; None: all.
    """
    sums: dict[tuple[str, ...], list[int]] = {}
    leaves = set()
    for name, variable in checkpoint.items():
        path = tuple(name.split("/"))
        leaves.add(path)
        for end in range(1, len(path) + 1):
            node = sums.setdefault(path[:end], [0, 0, 0])
            for i, number in enumerate((1, variable.size, variable.nbytes)):
                node[i] += number
    inner = {path[:-1] for path in sums}
    rows: list[tuple[Any, ...]] = []
    for path in sorted(sums):
        if depth is None or len(path) <= depth:
            slash = "/" if path in inner else ""
            shape = checkpoint["/".join(path)].shape if path in leaves else ""
            rows.append(((len(path) - 1, "/".join(path) + slash, path[-1] + slash), shape, *sums[path]))
    columns = [
        *(Column("name", "tree"), Column("shape", "shape"), Column("variables", "number")),
        *(Column("parameters", "number"), Column("bytes", "bytes")),
    ]
    return Report("tree", "Variables by scope", columns, rows, variable_totals(checkpoint, slot_owners(checkpoint)))


def graph_summary(graph: MetaGraph) -> Report:
    """What kind of file it is, who wrote it, how large it is."""
    info, graph_def, saver = graph.message.meta_info_def, graph.graph_def, graph.message.saver_def
    versions = graph_def.versions
    facts: list[tuple[str, Any]] = [
        ("file", graph.path),
        ("kind", f"{graph.root}{' as text' if graph.is_text else ''} (TensorFlow graph)"),
        ("TensorFlow version", graph.tensorflow_version or "not said (before 0.12)"),
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
    rows = [(name, str(value)) for name, value in facts if value not in ("", None)]
    return Report("summary", "Graph", [Column("fact"), Column("value")], rows)


def op_types(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """How many ops there are of each type."""
    named, typed = selector(names), selector(types)
    counts = Counter(node.op for node in graph.graph_def.node if named(node.name) and typed(node.op))
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Report("op_types", "Op types", [Column("type"), Column("ops", "number")], list(rows))


def ops(graph: MetaGraph, names: Sequence[str] = (), types: Sequence[str] = ()) -> Report:
    """Every op: type, device, inputs, and outputs as far as they are known."""
    named, typed = selector(names), selector(types)
    rows = [
        (node.name, node.type, node.device, list(node.inputs), [tensor_text(t) for t in graph.outputs(node)])
        for node in graph.nodes
        if named(node.name) and typed(node.type)
    ]
    columns = [
        *(Column("name"), Column("type"), Column("device", default="")),
        *(Column("inputs", "list", default=[]), Column("outputs", "list", default=[])),
    ]
    return Report("ops", "Ops", columns, rows)


def tensor_text(tensor: Tensor) -> str:
    """A tensor's dtype and shape: `float32[?,10]`; `float32` alone if even the rank is unknown."""
    dtype = tensor.dtype.name if tensor.dtype else "?"
    if tensor.shape is None:
        return dtype
    return f"{dtype}[{','.join('?' if size is None else str(size) for size in tensor.shape)}]"


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
    return Report("collections", "Collections", columns, rows)


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


def graph_variables(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """The variables that the graph declares, with dtype and shape."""
    chosen = selector(names)
    rows = [
        (v.name, v.dtype.name if v.dtype else "?", v.shape, "yes" if v.trainable else "", list(v.collections), v.device)
        for v in graph.variables
        if chosen(v.name)
    ]
    columns = [
        *(Column("name"), Column("dtype"), Column("shape", "shape"), Column("trainable", default="")),
        *(Column("collections", "list", default=[]), Column("device", default="")),
    ]
    return Report("variables", "Variables", columns, rows)


def devices(graph: MetaGraph) -> Report:
    """How many ops are placed on each device; those of functions are counted too."""
    counts = sorted(graph.devices.items(), key=lambda item: (-item[1], item[0]))
    rows = [(device or "(none)", count) for device, count in counts]
    return Report("devices", "Devices", [Column("device"), Column("ops", "number")], rows)


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
        *(Column("signature"), Column("method"), Column("direction"), Column("name")),
        *(Column("tensor"), Column("dtype"), Column("shape", "shape")),
    ]
    return Report("signatures", "Signatures", columns, rows)


def functions(graph: MetaGraph, names: Sequence[str] = ()) -> Report:
    """Every library function with its arguments and results."""
    chosen = selector(names)
    rows = [
        (
            function.signature.name,
            len(function.node_def),
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
        devices(graph),
        signatures(graph, names),
        functions(graph, names),
    ]
    return [graph_summary(graph), *(table for table in tables if table.rows)]


def export_plan(planned: Iterable[tuple[Variable, str, str | None]]) -> Report:
    """What an export would write: each variable, its name in the target, and why it can't be there if it can't."""
    rows = [(v.name, target, v.dtype.name, v.shape, v.nbytes, problem or "") for v, target, problem in planned]
    columns = [
        *(Column("name"), Column("becomes"), Column("dtype"), Column("shape", "shape")),
        *(Column("bytes", "bytes"), Column("left out", default="")),
    ]
    return Report("plan", "Plan", columns, rows)


def how_to_run(report: Report) -> str:
    """How to use the first rows of `endpoints` with a session, in words."""
    feeds = [row[2] for row in report.rows if row[0] == "input" and "only the loss" not in row[-1]]
    fetches = [row[2] for row in report.rows if row[0] == "output"][:1]
    return f"feed {', '.join(feeds) or 'nothing'} · fetch {', '.join(fetches) or 'nothing'}"
