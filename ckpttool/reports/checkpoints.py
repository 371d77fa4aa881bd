"""What there is to say of a checkpoint."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ckpttool.errors import CheckpointError
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY, Attribute, ObjectGraph, place_by_key
from ckpttool.model.slots import slot_owners
from ckpttool.reports.report import Column, Report

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


def export_plan(planned: Iterable[tuple[Variable, str, str | None]]) -> Report:
    """What an export would write: each variable, its name in the target, and why it can't be there if it can't."""
    rows = [(v.name, target, v.dtype.name, v.shape, v.nbytes, problem or "") for v, target, problem in planned]
    columns = [
        *(Column("name"), Column("becomes"), Column("dtype"), Column("shape", "shape")),
        *(Column("bytes", "bytes"), Column("left out", default="")),
    ]
    return Report("plan", "Plan", columns, rows)
