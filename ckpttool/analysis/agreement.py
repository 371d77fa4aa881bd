"""Whether what lies beside variables belongs to the same model: a graph, by what its saver would restore, and the
object graph of a TensorFlow 2 checkpoint.
"""

from collections.abc import Iterable

from ckpttool.analysis.graphs.savers import Restored, restored
from ckpttool.errors import NotSupportedError
from ckpttool.model.arguments import agrees, shape_text
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import NearNames
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY
from ckpttool.model.roles import BOOKKEEPING, roles_of
from ckpttool.model.variable import Variable


def disagreements(graph: MetaGraph, checkpoint: Checkpoint, *, is_lossy: bool = False) -> list[Finding]:
    """What TensorFlow would not restore: variables that are missing, or of another dtype or shape.

    The checkpoint may have more than that. If it `is_lossy`, its index is damaged and lists only a part, and a missing
    variable is not looked for under other names.
    """
    return _disagreements(graph, restored(graph), checkpoint, None if is_lossy else NearNames())


def differences(graph: MetaGraph, checkpoint: Checkpoint) -> list[Finding]:
    """What TensorFlow would not restore, and what the checkpoint has beyond that.

    In a graph that does not say which of its ops are the saver's, whatever any of them restores counts.

    Raises:
        NotSupportedError: the graph has no op that restores.
    """
    reads = restored(graph, by_any_op=not graph.message.saver_def.restore_op_name)
    if not reads:
        raise NotSupportedError("the graph restores no variables: none of its ops reads a checkpoint", path=graph.path)
    return [*_disagreements(graph, reads, checkpoint, NearNames()), *_not_restored(reads, checkpoint)]


def _disagreements(
    graph: MetaGraph, reads: Iterable[Restored], checkpoint: Checkpoint, near: NearNames | None
) -> list[Finding]:
    found = dict[str, str]()
    for each in reads:
        if not found.get(each.key):  # A partitioned variable is restored slice by slice.
            found[each.key] = _disagreement(each, checkpoint, near)
    return [Finding("graph", what, graph.path, name) for name, what in found.items() if what]


def _not_restored(reads: Iterable[Restored], checkpoint: Checkpoint) -> list[Finding]:
    asked = {each.key for each in reads}
    wanted = {checkpoint.stored_as(key) for key in asked}
    if wanted != asked:  # A checkpoint of objects stores more than variables.
        known = roles_of(checkpoint, checkpoint.object_graph)
        wanted |= {name for name, role in known.items() if role.total == BOOKKEEPING}
    what = "the checkpoint has it, and the graph does not restore it"
    return [Finding("graph", what, checkpoint.path, name) for name in checkpoint if name not in wanted]


def object_disagreements(checkpoint: Checkpoint) -> list[Finding]:
    """Objects of a TensorFlow 2 checkpoint whose values are missing, and values that belong to no object."""
    graph = checkpoint.object_graph
    if graph is None:
        return []
    owned = {key for keys in graph.stored(checkpoint).values() for key in keys}
    found = [
        Finding("objects", f"nothing is stored of the object {path}", checkpoint.path, key)
        for path, key in graph.unstored(checkpoint)
    ]
    if graph.has_own_savers:
        return found  # What belongs to no object may be an object's all the same.
    lost = [name for name in checkpoint if name not in owned and name != OBJECT_GRAPH_KEY]
    return found + [Finding("objects", "it belongs to no object", checkpoint.path, name) for name in lost]


def _disagreement(wanted: Restored, checkpoint: Checkpoint, near: NearNames | None) -> str:
    """What is wrong in the checkpoint with a tensor that is to be restored; "" if nothing is."""
    stored = checkpoint.get(checkpoint.stored_as(wanted.key))
    if stored is None:
        if near is None:
            return "the graph restores it, and what is left of the index does not list it"
        names = near.of(wanted.key, checkpoint, 3)
        hint = f"; near names: {', '.join(names)}" if names else ""
        return f"the graph restores it, and the checkpoint has no such variable{hint}"
    return misfit(wanted, stored)


def misfit(wanted: Restored, stored: Variable) -> str:
    """How a stored variable differs in dtype or shape from what is to be restored; "" if it does not."""
    if wanted.dtype is not None and wanted.dtype != stored.dtype:
        return f"the graph restores {wanted.dtype.name}, the checkpoint has {stored.dtype.name}"
    if not agrees(wanted.shape, stored.shape):
        return f"the graph restores {shape_text(wanted.shape)}, the checkpoint has {list(stored.shape)}"
    return ""
