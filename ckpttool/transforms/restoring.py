"""How a graph restores its variables: what its saver reads, and under which names.

    SaverDef.restore_op_name ── needs ──▶ Assign ◀── RestoreV2(prefix, tensor_names, shape_and_slices)

A restore op of the format V1 can't read a bundle; one that can is put in its place.

    RestoreSlice(file_pattern, tensor_name, shape_and_slice) → tensor
    Restore(file_pattern, tensor_name) → tensor

(tensorflow/core/ops/io_ops.cc; python/training/saver.py)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.errors import ConversionError, NotFoundError, NotSupportedError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.graph import VARIABLE_OPS, MetaGraph, Node, Shape, shape_of, split_tensor
from ckpttool.model.needs import needed_ops
from ckpttool.transforms.graph_edits import edit_meta_graph
from ckpttool.transforms.new_ops import free_name, string_constant, with_nodes
from ckpttool.transforms.saver_lists import strings_of
from ckpttool.wire.message import edit

RESTORE_OPS = ("RestoreV2", "RestoreSlice", "Restore")
_ASSIGN_OPS = ("Assign", "AssignVariableOp")


class Restored(NamedTuple):
    """A tensor that a saver restores.

    Attributes:
        op: the op that reads it.
        key: the name that it has in the checkpoint.
        slice_spec: which slice of it is read, as in `6 2 0,2:-`; "" for all of it.
        dtype: what the op reads it as.
        variable: the variable that it is assigned to; "" if it goes elsewhere.
        shape: of all of it, as far as the graph says.
    """

    op: str
    key: str
    slice_spec: str
    dtype: DType | None
    variable: str
    shape: Shape


def restored(graph: MetaGraph) -> list[Restored]:
    """What the graph's saver restores, in the order of its lists; nothing, if it has no saver.

    Raises:
        NotSupportedError: it takes the names from elsewhere than from constants.
    """
    nodes = graph.by_name
    users: dict[str, list[Node]] = {}
    for node in nodes.values():
        for name in node.inputs:
            users.setdefault(":".join(split_tensor(name)), []).append(node)
    found = []
    for node in _restore_ops(graph, nodes):
        for number, (key, spec, dtype) in enumerate(_reads(graph, node, nodes)):
            variable = _assigned(f"{node.name}:{number}", users, nodes)
            found.append(
                Restored(node.name, key, spec, dtype, variable.name if variable else "", _shape(spec, variable))
            )
    return found


def _restore_ops(graph: MetaGraph, nodes: Mapping[str, Node]) -> list[Node]:
    wanted = graph.message.saver_def.restore_op_name
    running = needed_ops(nodes, [wanted]) if wanted else set()
    return [node for name, node in nodes.items() if name in running and node.type in RESTORE_OPS]


def _reads(graph: MetaGraph, node: Node, nodes: Mapping[str, Node]) -> list[tuple[str, str, DType | None]]:
    """Names, slices and dtypes of what a restore op reads."""
    keys, specs = (_texts(node, place, nodes) for place in (1, 2))
    specs = [""] if node.type == "Restore" else specs
    if keys is None or specs is None:
        what = f"the op {node.name} takes what to restore from elsewhere than from constants"
        raise NotSupportedError(what, path=graph.path)
    name = "dtypes" if node.type == "RestoreV2" else "dt"
    value = node.message.attr[name] if name in node.message.attr else proto.message_class("AttrValue")()
    numbers = list(value.list.type) if node.type == "RestoreV2" else [value.type]
    if not len(keys) == len(specs) == len(numbers):
        raise NotSupportedError(f"the lists of the op {node.name} are not of one length", path=graph.path)
    return [(key, spec, dtype_of(number)) for key, spec, number in zip(keys, specs, numbers, strict=True)]


def _texts(node: Node, place: int, nodes: Mapping[str, Node]) -> list[str] | None:
    """The texts of the constant that is an input; None if it is none."""
    found = nodes.get(split_tensor(node.inputs[place])[0]) if place < len(node.inputs) else None
    if found is None or found.type != "Const" or "value" not in found.message.attr:
        return None
    return strings_of(found.message)


def _assigned(tensor: str, users: Mapping[str, list[Node]], nodes: Mapping[str, Node]) -> Node | None:
    """The variable that a restored tensor is assigned to, as it is."""
    queue = [tensor]
    for copy in queue:
        for node in users.get(copy, ()):
            if node.type == "Identity" and f"{node.name}:0" not in queue:
                queue.append(f"{node.name}:0")
            elif node.type in _ASSIGN_OPS and node.inputs:
                variable = nodes.get(split_tensor(node.inputs[0])[0])
                return variable if variable and variable.type in VARIABLE_OPS else None
    return None


def _shape(spec: str, variable: Node | None) -> Shape:
    if spec:
        sizes = spec.split(" ")[:-1]
        return tuple(map(int, sizes)) if all(size.isdecimal() for size in sizes) else None
    if variable is None or "shape" not in variable.message.attr:
        return None
    return shape_of(variable.message.attr["shape"].shape)


def restorable(graph: MetaGraph, checkpoint: Checkpoint | None) -> Checkpoint:
    """The checkpoint, which has all that the graph's saver restores; an empty one, if the graph restores nothing.

    Raises:
        NotFoundError: it lacks a variable; or there is none.
        ConversionError: a variable is of another dtype or shape in the graph.
    """
    wanted = restored(graph)
    if not wanted:
        return Checkpoint({}, path="", format="none")
    if checkpoint is None:
        what = (
            f"the graph restores {len({each.key for each in wanted})} variables, and there is no checkpoint beside it"
        )
        raise NotFoundError(what, path=graph.path, hint="--checkpoint says where it is")
    _require_fitting(wanted, checkpoint)
    return checkpoint


def _require_fitting(wanted: Sequence[Restored], checkpoint: Checkpoint) -> None:
    for each in wanted:
        variable = checkpoint[each.key]
        if each.dtype is not None and each.dtype.number != variable.dtype.number:
            what = f"the graph restores it as {each.dtype.name}, the checkpoint has {variable.dtype.name}"
            raise ConversionError(what, path=checkpoint.path, variable=each.key)
        if not _fits(each.shape, variable.shape):
            what = f"the graph has it in the shape {list(each.shape or ())}, the checkpoint in {list(variable.shape)}"
            raise ConversionError(what, path=checkpoint.path, variable=each.key)


def _fits(declared: Shape, stored: tuple[int, ...]) -> bool:
    if declared is None:
        return True
    return len(declared) == len(stored) and all(d in (None, s) for d, s in zip(declared, stored, strict=True))


def restoring_from_bundle(graph: MetaGraph) -> MetaGraph:
    """The graph with the restore ops of its saver such as can read a bundle; else byte for byte as it was."""
    nodes = graph.by_name
    old = [node for node in _restore_ops(graph, nodes) if node.type != "RestoreV2"]
    made: dict[str, bytes] = {}
    added: list[Any] = []
    for node in old:
        key, spec, _ = _reads(graph, node, nodes)[0]
        lists = [string_constant(free_name(f"{node.name}/{name}", nodes), [text]) for name, text in _lists(key, spec)]
        made[node.name] = _restore_v2(node.message, [each.name for each in lists])
        added += lists
    if not old:
        return graph
    numbers = iter(graph.graph_def.node)

    def graph_def(data: bytes) -> bytes:
        return with_nodes(edit(data, {1: lambda node: made.get(next(numbers).name, node)}), added)

    return edit_meta_graph(graph, lambda data: edit(data, {2: graph_def}))


def _lists(key: str, spec: str) -> list[tuple[str, str]]:
    """The inputs of a RestoreV2 of one tensor, under the names that TensorFlow's savers give them."""
    return [("tensor_names", key), ("shape_and_slices", spec)]


def _restore_v2(old: Any, lists: Sequence[str]) -> bytes:
    """A RestoreV2 in the place of an op that restores one tensor, with its name, device and place in the order."""
    node = proto.message_class("NodeDef").FromString(old.SerializeToString())
    controls = [name for name in old.input if name.startswith("^")]
    node.op, node.input[:] = "RestoreV2", [old.input[0], *lists, *controls]
    for name in [name for name in node.attr if name not in ("_class", "_output_shapes")]:
        del node.attr[name]
    node.attr["dtypes"].list.type.append(old.attr["dt"].type)
    return bytes(node.SerializeToString(deterministic=True))
