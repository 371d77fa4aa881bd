"""A saver for a graph that was exported without one: the ops that TensorFlow's own Saver would add, under `save/`.

    save/Const ◀── fed with the prefix
    save/RestoreV2 ──▶ save/Assign … ── save/restore_all
    save/SaveV2 ── save/control_dependency

A variable is saved under its op's name; a slice of a partitioned one under the name of the whole.

(tensorflow/python/training/saver.py; core/protobuf/saver.proto; core/framework/variable.proto)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.savers import saved_as
from ckpttool.errors import NotSupportedError
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import VARIABLE_OPS, Node, op_of
from ckpttool.transforms.graph_edits import edit_meta_graph
from ckpttool.transforms.new_ops import free_name, new_op, scalar_constant, string_constant, with_field, with_nodes
from ckpttool.wire.message import DROP, edit

_STRING = DTYPES["string"].number
_VERSION_V2 = 2


class _Saved(NamedTuple):
    """A variable to be saved: its op, the name that it is saved under, and which slice of that it is."""

    node: Node
    key: str
    slice_spec: str

    @property
    def dtype(self) -> int:
        return int(self.node.message.attr["dtype"].type)

    @property
    def is_resource(self) -> bool:
        return self.node.type == "VarHandleOp"


def with_saver(graph: MetaGraph) -> MetaGraph:
    """The graph with a SaverDef: its own, else the first in the collection `savers`, else that of a new saver.

    Raises:
        NotSupportedError: its variables are declared nowhere.
    """
    if graph.message.saver_def.restore_op_name:
        return graph
    listed = graph.message.collection_def["savers"].bytes_list.value if "savers" in graph.collections else []
    if listed:
        return edit_meta_graph(graph, lambda data: with_field(edit(data, {3: DROP}), 3, listed[0]))
    saved = _saved(graph)
    if not saved:
        return graph
    scope = free_name("save", {name.partition("/")[0] for name in graph.by_name})
    nodes = _ops(scope, saved)
    message = proto.message_class("SaverDef")(
        filename_tensor_name=f"{scope}/Const:0",
        save_tensor_name=f"{scope}/control_dependency:0",
        restore_op_name=f"{scope}/restore_all",
        max_to_keep=5,
        keep_checkpoint_every_n_hours=10000.0,
        version=_VERSION_V2,
    )
    saver = proto.serialize(message)

    def change(data: bytes) -> bytes:
        return with_field(edit(data, {2: lambda graph_def: with_nodes(graph_def, nodes), 3: DROP}), 3, saver)

    return edit_meta_graph(graph, change)


def _saved(graph: MetaGraph) -> list[_Saved]:
    nodes = graph.by_name
    collection = graph.collections.get("variables")
    members = [m for m in collection.members if isinstance(m, dict)] if collection else []
    saved = [
        _Saved(nodes[op], *saved_as(op, member))
        for member in members
        if (op := op_of(member.get("variable_name", ""))) in nodes and nodes[op].type in VARIABLE_OPS
    ]
    if not saved and any(node.type in VARIABLE_OPS for node in nodes.values()):
        hint = "a .meta file says which they are, and how they are restored"
        raise NotSupportedError("the graph has variables, and no saver", path=graph.path, hint=hint)
    return saved


def _ops(scope: str, saved: Sequence[_Saved]) -> list[Any]:
    prefix = f"{scope}/Const"
    lists = {"tensor_names": [s.key for s in saved], "shape_and_slices": [s.slice_spec for s in saved]}
    restore = new_op(f"{scope}/RestoreV2", "RestoreV2", [prefix, *(f"{scope}/RestoreV2/{name}" for name in lists)])
    save = new_op(f"{scope}/SaveV2", "SaveV2", [prefix, *(f"{scope}/SaveV2/{name}" for name in lists)])
    constants = [string_constant(f"{op.name}/{name}", texts) for op in (save, restore) for name, texts in lists.items()]
    reads, assigns = [], []
    for number, each in enumerate(saved):
        reads += [_read(scope, number, each)] if each.is_resource else []
        save.input.append(f"{scope}/Read_{number}" if each.is_resource else each.node.name)
        assigns.append(_assign(scope, number, each))
    for op in (restore, save):
        op.attr["dtypes"].list.type.extend(each.dtype for each in saved)
    done = new_op(f"{scope}/control_dependency", "Identity", [prefix, f"^{save.name}"])
    done.attr["T"].type = _STRING
    group = new_op(f"{scope}/restore_all", "NoOp", [f"^{op.name}" for op in assigns])
    return [*_prefix(scope), *constants, *reads, save, done, restore, *assigns, group]


def _prefix(scope: str) -> list[Any]:
    """The file's name, which is fed."""
    default = scalar_constant(f"{scope}/filename", _STRING)
    default.attr["value"].tensor.string_val.append(b"model")
    fed = new_op(f"{scope}/Const", "PlaceholderWithDefault", [default.name])
    fed.attr["dtype"].type = _STRING
    fed.attr["shape"].shape.SetInParent()
    return [default, fed]


def _read(scope: str, number: int, saved: _Saved) -> Any:
    read = new_op(f"{scope}/Read_{number}", "ReadVariableOp", [saved.node.name])
    read.attr["dtype"].type = saved.dtype
    return read


def _assign(scope: str, number: int, saved: _Saved) -> Any:
    value = f"{scope}/RestoreV2:{number}" if number else f"{scope}/RestoreV2"
    kind, name = ("AssignVariableOp", "dtype") if saved.is_resource else ("Assign", "T")
    assign = new_op(f"{scope}/{kind}_{number}", kind, [saved.node.name, value])
    assign.attr[name].type = saved.dtype
    if not saved.is_resource:
        assign.attr["_class"].list.s.append(b"loc:@" + saved.node.name.encode())
    return assign
