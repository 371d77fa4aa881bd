"""A graph's saver and a checkpoint: whether that has all that the saver restores, and a saver that can read a bundle.

A restore op for format V1 can't read a bundle, so one that can is put in its place.

    RestoreSlice(file_pattern, tensor_name, shape_and_slice) → tensor
    Restore(file_pattern, tensor_name) → tensor

An iterator's state can't be restored before the iterator has its data, which whoever loads a graph gives it later.

    DeserializeIterator(IteratorV2, RestoreV2:i) ──▶ save/restore_all

(tensorflow/core/ops/io_ops.cc; python/training/saver.py; core/kernels/data/iterator_ops.cc)
"""

from collections.abc import Sequence
from typing import Any

from ckpttool import proto
from ckpttool.analysis.agreement import misfit
from ckpttool.analysis.graphs.savers import (
    RESTORE_OPS,
    Restored,
    reads_of,
    restored,
    restored_iterators,
    saver_ops,
)
from ckpttool.errors import ConversionError, NotFoundError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import MetaGraph
from ckpttool.model.texts import to_bytes
from ckpttool.transforms.graph_edits import edit_meta_graph
from ckpttool.transforms.new_ops import free_name, string_constant, with_nodes
from ckpttool.wire.message import edit


def restorable(graph: MetaGraph, checkpoint: Checkpoint | None) -> Checkpoint:
    """The checkpoint, if it has all that the graph's saver restores; an empty one if the graph restores nothing.

    If it is a checkpoint of objects: what the saver restores of it, under the saver's names.

    Raises:
        NotFoundError: it lacks a variable, or there is no checkpoint.
        ConversionError: a variable is of another dtype or shape in the graph.
    """
    wanted = restored(graph)
    if not wanted:
        return Checkpoint({}, path="", format="none")
    if checkpoint is None:
        count = len({each.key for each in wanted})
        what = f"the graph restores {count:,} variables, and there is no checkpoint beside it"
        raise NotFoundError(what, path=graph.path, hint="--checkpoint says where it is")
    _require_fitting(wanted, checkpoint)
    if all(each.key in checkpoint for each in wanted):
        return checkpoint
    keys = sorted({each.key for each in wanted}, key=to_bytes)
    return checkpoint.with_variables({key: checkpoint[checkpoint.stored_as(key)].renamed(key) for key in keys})


_AGREEING = "the graph restores it: export with --meta writes a graph that agrees with what is left"


def _require_fitting(wanted: Sequence[Restored], checkpoint: Checkpoint) -> None:
    for each in wanted:
        try:
            variable = checkpoint[checkpoint.stored_as(each.key)]
        except NotFoundError as error:
            error.hint = " · ".join(filter(None, [error.hint, _AGREEING]))
            raise
        if what := misfit(each, variable):
            raise ConversionError(what, path=checkpoint.path, variable=each.key)


def restoring_from_bundle(graph: MetaGraph) -> MetaGraph:
    """The graph, with restore ops in its saver that can read a bundle; else byte for byte as it was."""
    nodes = graph.by_name
    running = saver_ops(graph)
    old = [node for name, node in nodes.items() if name in running and node.type in RESTORE_OPS[1:]]
    messages = {name: node.message for name, node in nodes.items()} if old else {}
    made: dict[str, bytes] = {}
    added: list[Any] = []
    for node in old:
        [read] = reads_of(graph, node.message, messages)
        # They have the names that TensorFlow's savers give them.
        texts = {"tensor_names": read.key, "shape_and_slices": read.slice_spec}
        lists = [string_constant(free_name(f"{node.name}/{name}", nodes), [text]) for name, text in texts.items()]
        made[node.name] = _restore_v2(node.message, [each.name for each in lists])
        added += lists
    if not old:
        return graph
    numbers = iter(graph.graph_def.node)

    def graph_def(data: bytes) -> bytes:
        return with_nodes(edit(data, {1: lambda node: made.get(next(numbers).name, node)}), added)

    return edit_meta_graph(graph, lambda data: edit(data, {2: graph_def}))


def without_iterators(graph: MetaGraph) -> MetaGraph:
    """The graph with a saver that restores all but the states of iterators; else byte for byte as it was."""
    apart = {b"^" + to_bytes(each.op) for each in restored_iterators(graph).values()}
    if not apart:
        return graph
    groups = {name for name in saver_ops(graph) if graph.by_name[name].type == "NoOp"}
    numbers = iter(graph.graph_def.node)

    def node(data: bytes) -> bytes:
        if next(numbers).name not in groups:
            return data
        return edit(data, {3: lambda name: None if name in apart else name})

    return edit_meta_graph(graph, lambda data: edit(data, {2: {1: node}}))


def _restore_v2(old: Any, lists: Sequence[str]) -> bytes:
    """A RestoreV2 instead of an op that restores one tensor, with the same name, device and place in the order."""
    node = proto.message_class("NodeDef").FromString(old.SerializeToString())
    controls = [name for name in old.input if name.startswith("^")]
    node.op, node.input[:] = "RestoreV2", [old.input[0], *lists, *controls]
    for name in [name for name in node.attr if name not in ("_class", "_output_shapes")]:
        del node.attr[name]
    node.attr["dtypes"].list.type.append(old.attr["dt"].type)
    return proto.serialize(node)
