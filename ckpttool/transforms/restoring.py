"""How a graph restores its variables: what its saver reads, and under which names.

    SaverDef.restore_op_name ── needs ──▶ Assign ◀── RestoreV2(prefix, tensor_names, shape_and_slices)

A restore op of the format V1 can't read a bundle; one that can is put in its place.

    RestoreSlice(file_pattern, tensor_name, shape_and_slice) → tensor
    Restore(file_pattern, tensor_name) → tensor

(tensorflow/core/ops/io_ops.cc; python/training/saver.py)
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.needs import called_functions, needed_ops
from ckpttool.errors import ConversionError, NotFoundError, NotSupportedError
from ckpttool.model.arguments import Shape, agrees
from ckpttool.model.boxes import is_size
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.graph import VARIABLE_OPS, MetaGraph, Node, shape_of, split_tensor
from ckpttool.transforms.graph_edits import edit_meta_graph
from ckpttool.transforms.new_ops import free_name, string_constant, with_nodes
from ckpttool.transforms.saver_lists import strings_of
from ckpttool.wire.message import edit

RESTORE_OPS = ("RestoreV2", "RestoreSlice", "Restore")
"""The types of the ops that restore."""

# What may stand between a restored tensor and the variable; and so many of them.
_PASSING = ("Identity", "Cast", "Reshape")
_MOST_STEPS = 16
_ASSIGN_OPS = ("Assign", "AssignVariableOp")


class Restored(NamedTuple):
    """A tensor that a saver restores.

    Attributes:
        op: the op that reads it.
        key: the name that it has in the checkpoint.
        slice_spec: which slice of it is read, as in `6 2 0,2:-`; "" for all of it.
        dtype: what the op reads it as; None if it does not say.
        variable: the variable that it is assigned to; "" if it goes elsewhere, or that can't be seen.
        shape: of all of it, as far as the graph says.
        is_v1: the op reads V1 checkpoints only.
    """

    op: str
    key: str
    slice_spec: str
    dtype: DType | None
    variable: str = ""
    shape: Shape = None
    is_v1: bool = False


def saved_as(op: str, declared: Mapping[str, Any]) -> tuple[str, str]:
    """Under which name a saver stores a variable by itself, and which slice of that it is, by its VariableDef."""
    info = declared.get("save_slice_info_def", {})
    if not info.get("full_name"):
        return op, ""
    full, shape = info.get("full_shape", []), info.get("var_shape", [])
    offset = info.get("var_offset", [0] * len(full))
    extents = ":".join(f"{start},{size}" for start, size in zip(offset, shape, strict=False))
    return info["full_name"], " ".join([*map(str, full), extents])


def restored(graph: MetaGraph, *, by_any_op: bool = False) -> list[Restored]:
    """What the graph's saver restores, in the order of its lists; nothing, if it has no saver.

    In TensorFlow 2 the restore op calls a library function, and what becomes of that one's tensors is not seen.

    Args:
        graph: the graph.
        by_any_op: what any op restores: a GraphDef has the ops of its saver, and not its saver's name.

    Raises:
        NotSupportedError: it takes the names from elsewhere than from constants.
    """
    nodes = graph.by_name
    running = set(nodes) if by_any_op else _saver_ops(graph, nodes)
    messages = {name: nodes[name].message for name in nodes if name in running}
    targets = _targets(nodes, running)
    found = []
    for node in messages.values():
        for number, read in enumerate(_reads(graph, node, messages)):
            variable, is_as_it_is = targets.get((node.name, number), ("", False))
            shape = _shape(read.slice_spec, nodes[variable] if is_as_it_is else None)
            found.append(read._replace(variable=variable, shape=shape))
    for function in _called(graph, messages.values()):
        body = {node.name: node for node in function.node_def}
        found += [read for node in function.node_def for read in _reads(graph, node, body)]
    return found


def _saver_ops(graph: MetaGraph, nodes: Mapping[str, Node]) -> set[str]:
    """The ops that must run to restore."""
    wanted = graph.message.saver_def.restore_op_name
    return needed_ops(nodes, [wanted]) if wanted else set()


def _called(graph: MetaGraph, callers: Iterable[Any]) -> Iterator[Any]:
    """The library functions that ops call, and those that these call."""
    library = {function.signature.name: function for function in graph.graph_def.library.function}
    seen: set[str] = set()
    stack = list(callers) if library else []
    while stack:
        for name in called_functions(stack.pop(), library) - seen:
            seen.add(name)
            stack += library[name].node_def
            yield library[name]


def _reads(graph: MetaGraph, node: Any, inside: Mapping[str, Any]) -> list[Restored]:
    """What an op reads, if it is one that restores; its constants are in the same graph or function."""
    if node.op not in RESTORE_OPS:
        return []
    keys, specs = (_texts(node, place, inside) for place in (1, 2))
    if node.op == "Restore":
        specs = [""] * len(keys or ())
    if keys is None or specs is None:
        what = f"the op {node.name} takes what to restore from elsewhere than from constants"
        raise NotSupportedError(what, path=graph.path)
    name = "dtypes" if node.op == "RestoreV2" else "dt"
    value = node.attr[name] if name in node.attr else proto.message_class("AttrValue")()
    numbers = list(value.list.type) if node.op == "RestoreV2" else [value.type]
    if not len(keys) == len(specs) == len(numbers):
        raise NotSupportedError(f"the lists of the op {node.name} are not of one length", path=graph.path)
    is_v1 = node.op != "RestoreV2"
    return [
        Restored(node.name, key, spec, dtype_of(number) if number else None, is_v1=is_v1)
        for key, spec, number in zip(keys, specs, numbers, strict=True)
    ]


def _texts(node: Any, place: int, inside: Mapping[str, Any]) -> list[str] | None:
    """The texts of the constant that is an input (in a function `name:output:0`); None if it is none."""
    found = inside.get(node.input[place].partition(":")[0] if place < len(node.input) else "")
    if found is None or found.op != "Const" or "value" not in found.attr:
        return None
    return strings_of(found)


def _targets(nodes: Mapping[str, Node], ops: Collection[str]) -> dict[tuple[str, int], tuple[str, bool]]:
    """For outputs of ops the variable that each is assigned to, and whether in the shape that it has."""
    found: dict[tuple[str, int], tuple[str, bool]] = {}
    for node in (nodes[name] for name in ops):
        if node.type not in _ASSIGN_OPS or len(node.inputs) < 2:
            continue
        variable = split_tensor(node.inputs[0])[0]
        op, number = split_tensor(node.inputs[1])
        is_as_it_is = True
        for _ in range(_MOST_STEPS):
            if op not in nodes or nodes[op].type not in _PASSING or not nodes[op].inputs:
                break
            is_as_it_is &= nodes[op].type == "Identity"
            op, number = split_tensor(nodes[op].inputs[0])
        if variable in nodes and nodes[variable].type in VARIABLE_OPS:
            found[op, int(number)] = variable, is_as_it_is
    return found


def _shape(spec: str, variable: Node | None) -> Shape:
    if spec:
        sizes = spec.split(" ")[:-1]
        return tuple(map(int, sizes)) if all(map(is_size, sizes)) else None
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
        if not agrees(each.shape, variable.shape):
            what = f"the graph has it in the shape {list(each.shape or ())}, the checkpoint in {list(variable.shape)}"
            raise ConversionError(what, path=checkpoint.path, variable=each.key)


def restoring_from_bundle(graph: MetaGraph) -> MetaGraph:
    """The graph with the restore ops of its saver such as can read a bundle; else byte for byte as it was."""
    nodes = graph.by_name
    running = _saver_ops(graph, nodes)
    old = [node for name, node in nodes.items() if name in running and node.type in RESTORE_OPS[1:]]
    messages = {name: node.message for name, node in nodes.items()} if old else {}
    made: dict[str, bytes] = {}
    added: list[Any] = []
    for node in old:
        [read] = _reads(graph, node.message, messages)
        texts = _lists(read.key, read.slice_spec)
        lists = [string_constant(free_name(f"{node.name}/{name}", nodes), [text]) for name, text in texts]
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
