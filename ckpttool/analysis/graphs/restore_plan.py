"""Which variable of a graph gets which stored value in a session: what the saver would read, compared with the
checkpoint.

    SaverDef.restore_op_name ── needs ──▶ Assign(variable, RestoreV2(prefix, names, slices):i)

In TensorFlow 2 the restore op calls a library function, and only the names can be seen. If the saver is no help (there
is none, or the checkpoint lacks what it reads), variables are matched one by one.

(tensorflow/core/ops/io_ops.cc; python/training/saver.py; core/framework/variable.proto)
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckpttool.analysis.graphs.initializers import local_initializers
from ckpttool.analysis.graphs.running import shared_state
from ckpttool.analysis.graphs.savers import Restored, restored, restored_variables, saved_as
from ckpttool.errors import CheckpointError, NotSupportedError
from ckpttool.model.arguments import shape_text
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import GraphVariable, MetaGraph
from ckpttool.model.names import NearNames, listed
from ckpttool.model.nodes import VARIABLE_OPS, Node, declared_shape
from ckpttool.model.variable import Variable


class Plan(NamedTuple):
    """How to restore.

    Attributes:
        by_saver: run the graph's own restore op.
        reads: if not, what to read for which variable.
        missing: the variables without the stored value that they should have, with the reason.
        unstored: the variables that are never stored: their initializers give them values.
        notes: what the user may not expect, in words.
    """

    by_saver: bool
    reads: Sequence[Restored]
    missing: Mapping[str, str]
    unstored: frozenset[str]
    notes: Sequence[str] = ()


def plan_restore(graph: MetaGraph, checkpoint: Checkpoint | None, *, usable: bool = True) -> Plan:
    """How the graph's variables get their values.

    Args:
        graph: the graph.
        checkpoint: the stored values; None: there are none.
        usable: the saver's ops can run here.
    """
    reads, nodes = _restored(graph), graph.by_name
    near = NearNames()
    held = [fault for read in reads if (fault := _fault(nodes, read, checkpoint, near))]
    v1_only = any(read.is_v1 for read in reads) and checkpoint is not None and "V1" not in checkpoint.format
    variables = {variable.name: variable for variable in graph.variables if variable.type}
    if reads and usable and checkpoint is not None and not held and not v1_only:
        return Plan(True, reads, {}, _unstored(graph, variables))
    if checkpoint is not None and any(checkpoint.stored_as(read.key) != read.key for read in reads):
        faults = [_fault(nodes, read._replace(key=checkpoint.stored_as(read.key)), checkpoint, near) for read in reads]
        held = ["the checkpoint is one of objects, in which variables have other names", *filter(None, faults)]
    notes = [] if checkpoint is None or not reads else _why_not_saver(held, usable=usable, v1_only=v1_only)
    return _one_by_one(graph, checkpoint, reads, variables)._replace(notes=notes)


def _restored(graph: MetaGraph, *, by_any_op: bool = False) -> list[Restored]:
    """What the graph's saver reads; empty if that can't be found out."""
    try:
        return restored(graph, by_any_op=by_any_op)
    except NotSupportedError:
        return []


def _one_by_one(
    graph: MetaGraph,
    checkpoint: Checkpoint | None,
    reads: Sequence[Restored],
    variables: Mapping[str, GraphVariable],
) -> Plan:
    by_variable = {read.variable: read for read in reads if read.variable}
    local, near = local_initializers(graph), NearNames()
    by_any_op = {} if by_variable else {read.variable: read for read in _restored(graph, by_any_op=True)}
    chosen, missing, unstored = [], {}, set()
    for name, variable in variables.items():
        read = (by_variable.get(name) or _guess(graph, variable))._replace(variable=name)
        if checkpoint is not None and read.key not in checkpoint:
            read = by_any_op.get(name, read)
        if checkpoint is not None:
            read = read._replace(key=checkpoint.stored_as(read.key))
        fault = _fault(graph.by_name, read, checkpoint, near)
        if checkpoint is not None and not fault:
            chosen.append(read if read.dtype else read._replace(dtype=checkpoint[read.key].dtype))
        elif (by_variable and name not in by_variable) or name in local:
            unstored.add(name)
        else:
            missing[name] = fault
    return Plan(False, chosen, missing, frozenset(unstored))


def _why_not_saver(held: Sequence[str], *, usable: bool, v1_only: bool) -> list[str]:
    if held:
        return [f"restored variable by variable: {listed(held, 1)}"]
    if v1_only:
        return ["restored variable by variable: the graph's saver reads V1 checkpoints only"]
    return [] if usable else ["restored variable by variable: the graph's saver needs ops that can't run here"]


def _unstored(graph: MetaGraph, variables: Mapping[str, GraphVariable]) -> frozenset[str]:
    """The variables that the saver leaves out; none, if it calls a function, where they can't be seen."""
    restored, nodes = restored_variables(graph), graph.by_name
    if restored is None:
        return frozenset()
    states = {shared_state(nodes, name) for name in restored}
    return frozenset(name for name in variables if shared_state(nodes, name) not in states)


def _guess(graph: MetaGraph, variable: GraphVariable) -> Restored:
    """The stored value for a variable by its own name; for a part of a partitioned one, the slice of the whole."""
    dtype = variable.dtype
    for _, declared in graph.variable_defs.get(variable.name, ()):
        key, spec = saved_as(variable.name, declared)
        if spec:
            return Restored("", key, spec, dtype)
    return Restored("", variable.name, "", dtype)


def _fault(nodes: Mapping[str, Node], read: Restored, checkpoint: Checkpoint | None, near: NearNames) -> str:
    """Why the checkpoint can't give a value; "" if it can."""
    name = f"variable {read.key}"
    if checkpoint is None:
        return f"{name} has no value: there is no checkpoint beside the graph, and none was given (--checkpoint)"
    stored = checkpoint.get(read.key)
    if stored is None:
        alike = ", ".join(near.of(read.key, checkpoint, 3))
        return f"{name} is not in the checkpoint{f' (near names: {alike})' if alike else ''}"
    if checkpoint.warnings and not _is_there(stored):
        return f"{name} has no value: {checkpoint.warnings[0]}"
    wanted = read.dtype.base if read.dtype else None
    if wanted is not None and stored.dtype.number != wanted.number:
        return f"{name}: the graph has {wanted.name}, the checkpoint {stored.dtype.name}"
    shape = _whole_shape(nodes, read)
    if shape is not None and not read.slice_spec and shape != tuple(stored.shape):
        return f"{name}: the graph has shape {shape_text(shape)}, the checkpoint {shape_text(stored.shape)}"
    return ""


def _is_there(stored: Variable) -> bool:
    """Whether the file with a value exists and is long enough."""
    try:
        if stored.dtype.itemsize is None:
            stored.strings()
            return True
        return all(stored.span(piece) is not None or stored.numpy() is not None for piece in stored.slices)
    except (CheckpointError, OSError):
        return False


def _whole_shape(nodes: Mapping[str, Node], read: Restored) -> tuple[int, ...] | None:
    """The shape that the graph declares for a variable; None unless all of it is known."""
    node = nodes.get(read.variable)
    if node is None or node.type not in VARIABLE_OPS:
        return None
    shape = declared_shape(node.message)
    # The oldest versions wrote [] for an unknown shape.
    if shape is None or None in shape or (shape == () and node.type == "Variable"):
        return None
    return tuple(size for size in shape if size is not None)
