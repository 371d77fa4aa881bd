"""How a graph restores its variables: what its saver reads, and under which names.

    SaverDef.restore_op_name ── needs ──▶ Assign ◀── RestoreV2(prefix, tensor_names, shape_and_slices)

(tensorflow/core/ops/io_ops.cc; python/training/saver.py)
"""

from collections.abc import Collection, Mapping
from math import prod
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.analysis.graphs.functions import all_called
from ckpttool.analysis.graphs.needs import needed_ops, origin
from ckpttool.analysis.graphs.pipelines import source_of
from ckpttool.analysis.graphs.running import written_variables
from ckpttool.errors import NotSupportedError
from ckpttool.model.arguments import Shape
from ckpttool.model.boxes import MAX_RANK, is_size
from ckpttool.model.dtypes import DTYPES, DType, dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import ASSIGN_OPS, VARIABLE_OPS, Node, declared_shape, op_of
from ckpttool.model.texts import to_text

RESTORE_OPS = ("RestoreV2", "RestoreSlice", "Restore")
"""The types of the ops that restore."""

# Ops that may lie between a restored tensor and the variable.
_PASSING = ("Identity", "Cast", "Reshape")


class Restored(NamedTuple):
    """A tensor that a saver restores.

    Attributes:
        op: the op that reads it.
        key: the name that it has in the checkpoint.
        slice_spec: which slice of it is read, as in `6 2 0,2:-`; "" for all of it.
        dtype: what the op reads it as; None if it does not say.
        variable: the variable that it is assigned to; "" if it goes elsewhere, or that can't be seen.
        shape: the shape of the whole tensor, as far as the graph says.
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
    """The name under which a saver stores a variable by default, and which slice of that it is, by its VariableDef."""
    info = declared.get("save_slice_info_def", {})
    if not info.get("full_name"):
        return op, ""
    full, shape = info.get("full_shape", []), info.get("var_shape", [])
    offset = info.get("var_offset", [0] * len(full))
    extents = ":".join(f"{start},{size}" for start, size in zip(offset, shape, strict=False))
    return info["full_name"], " ".join([*map(str, full), extents])


def restored(graph: MetaGraph, *, by_any_op: bool = False) -> list[Restored]:
    """What the graph's saver restores, in the order of its lists; empty if there is no saver.

    A tensor that goes into several variables, as into each device's copy under a MirroredStrategy, is listed for each.
    In TensorFlow 2 the restore op calls a library function, and where its tensors go can't be seen.

    Args:
        graph: the graph.
        by_any_op: take what any op restores, for a GraphDef, which has the ops of a saver but does not say which they
            are.

    Raises:
        NotSupportedError: its lists of names are not constants.
    """
    nodes = graph.by_name
    running = set(nodes) if by_any_op else saver_ops(graph)
    messages = _messages(nodes, running)
    targets = _targets(nodes, messages)
    found = []
    for node in messages.values():
        for number, read in enumerate(reads_of(graph, node, messages)):
            for variable, is_unchanged in targets.get((node.name, number), [("", False)]):
                shape = _shape(read.slice_spec, nodes[variable] if is_unchanged else None)
                found.append(read._replace(variable=variable, shape=shape))
    for function in all_called(graph.functions, messages.values()):
        body = {node.name: node for node in function.node_def}
        found += [read for node in function.node_def for read in reads_of(graph, node, body)]
    return found


def saver_ops(graph: MetaGraph) -> set[str]:
    """The ops that must run to restore."""
    wanted = graph.message.saver_def.restore_op_name
    return needed_ops(graph.by_name, [wanted]) if wanted else set()


def restored_variables(graph: MetaGraph) -> set[str] | None:
    """The variables that the graph's saver gives values to, stored ones or ones computed from these.

    None if it calls a function for that, where they can't be seen.
    """
    nodes, ops = graph.by_name, saver_ops(graph)
    called = all_called(graph.functions, (nodes[name].message for name in ops))
    if any(node.op in (*RESTORE_OPS, *ASSIGN_OPS) for function in called for node in function.node_def):
        return None
    return written_variables(nodes, ops)


class RestoredIterator(NamedTuple):
    """An iterator whose state a saver restores: the op that does it, and the state's name in the checkpoint."""

    op: str
    key: str


def restored_iterators(graph: MetaGraph) -> dict[str, RestoredIterator]:
    """The iterators whose states the graph's saver restores. TensorFlow does that only once they have their data."""
    nodes, messages = graph.by_name, _messages(graph.by_name, saver_ops(graph))
    found, keys = {}, dict[str, list[str]]()
    for node in map(nodes.__getitem__, messages):
        if node.type == "DeserializeIterator" and len(node.operands) > 1:
            read, number = origin(nodes, node.operands[1])
            if read not in keys:  # One op reads the states of all.
                keys[read] = [each.key for each in reads_of(graph, nodes[read].message, messages)]
            if int(number) < len(keys[read]):
                found[source_of(nodes, node)] = RestoredIterator(node.name, keys[read][int(number)])
    return found


def reads_of(graph: MetaGraph, node: Any, inside: Mapping[str, Any]) -> list[Restored]:
    """What an op reads, if it is one that restores; its constants are in the same graph or function."""
    if node.op not in RESTORE_OPS:
        return []
    keys, specs = lists_of(node, inside)
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


def lists_of(node: Any, inside: Mapping[str, Any]) -> tuple[list[str] | None, list[str] | None]:
    """The names and the slices that an op reads, if it is one that restores; None for a list that is no constant."""
    found = (constant_input(node, place, inside) for place in (1, 2))
    keys, specs = (None if constant is None else strings_of(constant) for constant in found)
    return keys, [""] * len(keys or ()) if node.op == "Restore" else specs


def _messages(nodes: Mapping[str, Node], ops: Collection[str]) -> dict[str, Any]:
    return {name: nodes[name].message for name in nodes if name in ops}


def _targets(nodes: Mapping[str, Node], ops: Collection[str]) -> dict[tuple[str, int], list[tuple[str, bool]]]:
    """Output → the variables that it is assigned to, and whether unchanged."""
    found: dict[tuple[str, int], list[tuple[str, bool]]] = {}
    for node in (nodes[name] for name in ops):
        if node.type not in ASSIGN_OPS or len(node.inputs) < 2:
            continue
        variable = op_of(node.inputs[0])
        if variable in nodes and nodes[variable].type in VARIABLE_OPS:
            op, number = origin(nodes, node.inputs[1], _PASSING)
            is_unchanged = (op, number) == origin(nodes, node.inputs[1])
            found.setdefault((op, int(number)), []).append((variable, is_unchanged))
    return found


def _shape(spec: str, variable: Node | None) -> Shape:
    if spec:
        sizes = spec.split(" ")[:-1]
        return tuple(map(int, sizes)) if all(map(is_size, sizes)) else None
    return None if variable is None else declared_shape(variable.message)


_STRING = DTYPES["string"].number
_MOST = 1 << 20


def constant_input(node: Any, index: int, inside: Mapping[str, Any]) -> Any:
    """The string constant that is an input (in a function `name:output:0`); None if the input is something else."""
    found = inside.get(node.input[index].partition(":")[0] if index < len(node.input) else "")
    if found is None or found.op != "Const" or "value" not in found.attr:
        return None
    return found if found.attr["value"].tensor.dtype == _STRING else None


def strings_of(constant: Any) -> list[str]:
    """The texts of a constant; where it lists fewer than it has elements, the last one is repeated."""
    tensor = constant.attr["value"].tensor
    texts = [to_text(value) for value in tensor.string_val]
    dims = tensor.tensor_shape.dim
    size = prod(dim.size for dim in dims) if len(dims) <= MAX_RANK else 0
    return texts + texts[-1:] * (size - len(texts)) if len(texts) < size < _MOST else texts
