"""Reports about checkpoints."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import prod
from typing import Any

from ckpttool.errors import CheckpointError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_graph import Attribute, ObjectGraph, object_graph_from_keys
from ckpttool.model.object_keys import VALUE, Place, place_by_key
from ckpttool.model.roles import BOOKKEEPING, Role, roles_of
from ckpttool.model.slots import optimizer_names
from ckpttool.model.variable import Variable
from ckpttool.reports.report import Column, Report, Row, Rows

SORTS: dict[str, Callable[[Variable], Any]] = {
    "name": lambda variable: variable.name,
    "size": lambda variable: (-variable.nbytes, variable.name),
    "shape": lambda variable: (len(variable.shape), variable.shape, variable.name),
    "dtype": lambda variable: (variable.dtype.name, variable.name),
    "shard": lambda variable: (sorted(set(variable.shards)), variable.name),
}
"""Orders of variables, by name."""

_LEVELS = 30


def variables(
    checkpoint: Checkpoint, *, sort: str | None = None, top: int | None = None, whole: Checkpoint | None = None
) -> Report:
    """Every variable, with separate totals for weights, each optimizer's slots and bookkeeping.

    Args:
        checkpoint: whose variables; the totals are over all of them.
        sort: one of SORTS; None: the checkpoint's order.
        top: how many to show; None: all.
        whole: the checkpoint that `checkpoint` was chosen from, if any: a slot is known by its variable, objects by
            their graph.
    """
    whole = whole or checkpoint
    graph = _object_graph(whole)
    places, known = _places(whole, graph), roles_of(whole, graph)
    ordered = sorted(checkpoint.values(), key=SORTS[sort]) if sort else list(checkpoint.values())

    def made(chosen: Iterable[Variable]) -> Iterator[Row]:
        for v in chosen:
            name, shape, dtype, shards = v.name, v.shape, v.dtype, v.shards
            place, role = places.get(name, _NOWHERE), known.get(name, _WEIGHT)
            size = v.stored if v.is_partly_stored else prod(shape)
            nbytes = v.nbytes if dtype.itemsize is None else size * dtype.itemsize
            shard = str(shards[0]) if len(shards) == 1 else _shard_text(shards)
            yield name, *place, dtype.name, shape, size, nbytes, shard, len(shards), role.text

    rows = Rows(ordered[:top], made)
    columns = [
        *(Column("name", end=VALUE), Column("object", default="", told_by="name", spare=True)),
        Column("full name", default="", spare=True),
        *(Column("dtype"), Column("shape", "shape"), Column("parameters", "number"), Column("bytes", "bytes")),
        *(Column("shard", default="0"), Column("slices", "number", default=1), Column("role", default="")),
    ]
    cut = f", the first {len(rows):,} of {len(ordered):,}" if len(rows) < len(ordered) else ""
    totals = _variable_totals(checkpoint, known)
    return Report("variables", f"Variables{cut}", columns, rows, totals, says_count=bool(cut))


_NOWHERE, _WEIGHT = Place("", ""), Role("", "weights")


def _shard_text(shards: Sequence[int]) -> str:
    return ",".join(map(str, sorted(set(shards))))


def _object_graph(checkpoint: Checkpoint) -> ObjectGraph | None:
    """The object graph or, without the data file, what the keys tell of it; None for a checkpoint saved by name."""
    try:
        return checkpoint.object_graph
    except (CheckpointError, OSError):
        return object_graph_from_keys(checkpoint)


def _places(checkpoint: Checkpoint, graph: ObjectGraph | None) -> Mapping[str, Place]:
    """The object and the TensorFlow 1 name of each variable of an object-based checkpoint."""
    if graph is None:
        return {}
    known = graph.places(checkpoint)
    found = {name: known.get(name) or place_by_key(name) for name in checkpoint}
    return {name: place for name, place in found.items() if place}


def object_tree(checkpoint: Checkpoint, graph: ObjectGraph, *, depth: int | None = None) -> Report:
    """The object graph as a tree; an object that comes a second time is named, and not entered again."""
    stored, known, optimizers = graph.stored(checkpoint), roles_of(checkpoint, graph), optimizer_names(graph)
    rows: list[tuple[Any, ...]] = []
    for step in graph.walk():
        if depth is not None and step.depth > depth:
            continue
        keys = {} if step.again else stored.get(step.node, {})
        kind = f"see {step.again}" if step.again else _kind(keys, known, optimizers.get(step.node))
        rows.append(((step.depth, step.path, step.name), kind, *_stored(checkpoint, keys)))
    columns = [
        *(Column("object", "tree"), Column("kind", default=""), Column("dtype", default="")),
        *(Column("shape", "shape", default=""), Column("full name", default="", spare=True)),
        Column("key", default="", end=VALUE, told_by="object", spare=True),
    ]
    return Report("objects", "Objects", columns, rows)


def _kind(keys: Collection[str], known: Mapping[str, Role], optimizer: str | None) -> str:
    """A label for an object: that it is an optimizer, or what is stored of it."""
    if optimizer:
        return optimizer if optimizer == "optimizer" else f"{optimizer} optimizer"
    role = next((known[key].text for key in keys if key in known), "")
    return role or ("variable" if keys else "")


def _stored(checkpoint: Checkpoint, keys: Mapping[str, Attribute]) -> tuple[Any, ...]:
    """Dtype, shape, full name and key of what is stored of an object; only the keys if there are several values."""
    if len(keys) != 1:
        return "", "", "", ", ".join(keys)
    [(key, attribute)] = keys.items()
    variable = checkpoint[key]
    return variable.dtype.name, variable.shape, attribute.full_name, key


def _variable_totals(checkpoint: Checkpoint, known: Mapping[str, Role]) -> list[dict[str, Any]]:
    """Numbers of variables, parameters and bytes: of weights, of each optimizer's slots, of bookkeeping, of all."""
    kinds: dict[str, list[int]] = {}
    # Even many variables have few kinds, sizes of elements and shapes.
    alike: Counter[tuple[str, int, tuple[int, ...]]] = Counter()
    for name, variable in checkpoint.items():
        kind = known.get(name, _WEIGHT).total
        if variable.dtype.itemsize is None or variable.is_partly_stored:
            _add(kinds.setdefault(kind, [0, 0, 0]), 1, variable.stored, variable.nbytes)
        else:
            alike[kind, variable.dtype.itemsize, variable.shape] += 1
    for (kind, itemsize, shape), count in alike.items():
        size = count * prod(shape)
        _add(kinds.setdefault(kind, [0, 0, 0]), count, size, size * itemsize)
    kinds = {kind: kinds[kind] for kind in sorted(kinds, key=lambda k: (k != "weights", k == BOOKKEEPING, k))}
    if len(kinds) != 1:
        kinds["total"] = [sum(column) for column in zip(*kinds.values(), strict=True)] or [0, 0, 0]
    return [
        {"of": kind, "variables": count, "parameters": size, "bytes": nbytes}
        for kind, (count, size, nbytes) in kinds.items()
    ]


def _add(sums: list[int], variables: int, parameters: int, nbytes: int) -> None:
    for i, number in enumerate((variables, parameters, nbytes)):
        sums[i] += number


def variable_tree(checkpoint: Checkpoint, *, depth: int | None = None, whole: Checkpoint | None = None) -> Report:
    """The scopes, each with the number, parameters and bytes of all variables below it, and the variables.

    A variable that is a scope as well, having slots, comes first within that scope, with its own numbers.

    Args:
        checkpoint: whose variables.
        depth: how many levels to show; None: all.
        whole: the checkpoint that `checkpoint` was chosen from, if any.
    """
    whole = whole or checkpoint
    sums: dict[tuple[str, ...], list[int]] = {}
    for name, variable in checkpoint.items():
        # Deeper levels are shown as one: a name of a thousand segments is not made of scopes.
        path = tuple(name.split("/", min(depth or _LEVELS, _LEVELS)))
        for end in range(1, len(path) + 1):
            _add(sums.setdefault(path[:end], [0, 0, 0]), 1, variable.stored, variable.nbytes)
    scopes = {path[:-1] for path in sums}
    rows: list[tuple[Any, ...]] = []
    for path in sorted(sums):
        level, name = len(path) - 1, "/".join(path)
        if path in scopes:
            rows.append(((level, f"{name}/", f"{path[-1]}/"), "", *sums[path]))
            level += 1
        if name in checkpoint:
            v = checkpoint[name]
            rows.append(((level, name, path[-1]), v.shape, 1, v.stored, v.nbytes))
    columns = [
        *(Column("name", "tree"), Column("shape", "shape"), Column("variables", "number")),
        *(Column("parameters", "number"), Column("bytes", "bytes")),
    ]
    shown = [row for row in rows if depth is None or row[0][0] < depth]
    totals = _variable_totals(checkpoint, roles_of(whole, _object_graph(whole)))
    return Report("tree", "Variables by scope", columns, shown, totals)


def state(
    entries: Sequence[tuple[str, str, float | None, bool]], directory: str, incomplete: Collection[str] = ()
) -> Report:
    """The checkpoints of a directory: those that its state file lists, dangling ones, and those not listed.

    Args:
        entries: the checkpoints (see formats.listing.StateEntry).
        directory: the directory.
        incomplete: the prefixes of checkpoints that lack something.
    """
    rows = []
    for written, prefix, time, is_latest in entries:
        status = "dangling" if not prefix else "there" if written else "not listed"
        if prefix in incomplete:
            status = "incomplete" if written else "not listed, incomplete"
        rows.append((written or prefix, status, "latest" if is_latest else "", prefix, _date(time)))
    columns = [Column("checkpoint"), Column("status"), Column("latest", default="")]
    columns += [Column("prefix", default="", told_by="checkpoint"), Column("saved", default="")]
    return Report("checkpoints", f"Checkpoints in {directory}", columns, rows)


def _date(time: float | None) -> str:
    if time is None:
        return ""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):  # Not a time that a calendar has.
        return str(time)


def export_plan(
    plan: Iterable[Any],
    before: Checkpoint,
    names: Mapping[str, str],
    dropped: Mapping[str, str],
    lost: Mapping[str, str],
) -> Report:
    """What an export would write: for each variable the old name and dtype, the new ones, and a remark.

    Args:
        plan: what the writer makes of each variable: `variable`, `target` (its name there), `problem` and `remark`.
        before: the checkpoint before anything was changed.
        names: old name → new name.
        dropped: the names of variables that are left out on request, each with the reason.
        lost: the names of variables that are not whole, each with the reason.
    """
    olds = {new: old for old, new in names.items()}
    rows = []
    for planned in plan:
        new = planned.variable
        old = before[olds.get(new.name, new.name)]
        cast = new.dtype.name if new.dtype != old.dtype else ""
        target, nbytes = ("", 0) if planned.problem else (planned.target, new.nbytes)
        rows.append((old.name, target, old.dtype.name, cast, new.shape, nbytes, planned.remark or ""))
    left_out = {name: f"dropped: {reason}" for name, reason in dropped.items()}
    for name, remark in (left_out | {name: f"left out: {reason}" for name, reason in lost.items()}).items():
        old = before[name]
        rows.append((name, "", old.dtype.name, "", old.shape, 0, remark))
    columns = [
        *(Column("name"), Column("becomes", default=""), Column("dtype"), Column("cast", default="")),
        *(Column("shape", "shape"), Column("bytes", "bytes"), Column("remark", default="")),
    ]
    return Report("plan", "Plan", columns, rows)
