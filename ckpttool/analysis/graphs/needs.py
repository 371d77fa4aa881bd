"""What must run to give a tensor: the ops that it needs, back to what is fed.

W ─▶ W/read ─▶ MatMul ─▶ Softmax        Softmax:0 needs Softmax, MatMul, W/read, W, and x;
x ────────────────┘                     fed x:0, it does not need x
"""

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any, TypeVar

from ckpttool.errors import NotFoundError, NotSupportedError
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import choices_hint
from ckpttool.model.nodes import BARE_PLACEHOLDERS, PLACEHOLDERS, Node, op_of, split_tensor, tensor_name

_INT64 = DTYPES["int64"].number

_MOST_STEPS = 64  # More ops than any graph has in a row; a cycle would have no end.

# The ops that lead into the branches and loops of TensorFlow 1, and out of them.
_ENTRIES = {"Switch", "RefSwitch", "Enter", "RefEnter"}
_ENDS = {"Merge", "RefMerge", "Exit", "RefExit"}


def require_output(graph: MetaGraph, name: str) -> None:
    """Raises NotFoundError if `name` is a tensor, such as `op:1`, of an op that exists without such an output.

    An op that the file does not describe may have any output.
    """
    op, number = split_tensor(name)
    if name in graph.by_name or op == name:
        return
    node = graph.node(op)
    outputs = graph.outputs(node)
    if graph.op_def(node.type) is not None and int(number) >= len(outputs):
        last = f"its last output is {op}:{len(outputs) - 1}" if outputs else f"a {node.type} has no outputs"
        raise NotFoundError(f"no tensor {name}: {last}", path=graph.path)


def require_collection(graph: MetaGraph, name: str) -> None:
    """Raises NotFoundError if there is no such collection."""
    if name not in graph.collections:
        hint = choices_hint(name, graph.collections)
        raise NotFoundError(f"the graph has no collection named {name}", path=graph.path, hint=hint)


Key = TypeVar("Key", str, int)


def walk(starts: Iterable[Key], edges: Mapping[Key, Iterable[Key]], without: Set[Key] = frozenset()) -> set[Key]:
    """`starts`, and all that the edges lead to from there without passing through `without`."""
    seen = set(starts)
    stack = list(seen)
    while stack:
        for near in edges.get(stack.pop(), ()):
            if near not in seen and near not in without:
                seen.add(near)
                stack.append(near)
    return seen


def needed_ops(nodes: Mapping[str, Node], wanted: Iterable[str], fed: Collection[str] = ()) -> set[str]:
    """The ops that must run to give tensors, or to run ops.

    Args:
        nodes: the graph's ops, by name.
        wanted: names of tensors, or of ops.
        fed: full names of tensors that are given: what only they need is not needed.
    """
    fed = set(fed)  # The values of a dict, say, would be looked through for each input.
    fed_ops = {op_of(name) for name in fed}
    found: set[str] = set()
    stack = list(wanted)
    while stack:
        text = stack.pop()
        op = op_of(text.removeprefix("^"))
        # An op that waits for a fed placeholder waits for the feeding only; for any other fed op, until it has run.
        # (tensorflow/core/graph/subgraph.cc FeedInputs)
        if text.startswith("^"):
            is_fed = op in fed_ops and op in nodes and nodes[op].type in BARE_PLACEHOLDERS
        else:
            is_fed = tensor_name(text) in fed
        if op not in found and not is_fed and op in nodes:
            found.add(op)
            stack += nodes[op].inputs
    return found


def is_inside(op: str, types: Mapping[str, str], before: Callable[[str], Iterable[str]], outside: set[str]) -> bool:
    """Whether an op is in a branch or loop of TensorFlow 1.

    Args:
        op: its name.
        types: the types of the ops, by name.
        before: gives the ops that an op takes from or waits for.
        outside: ops known to be in none; more are added.
    """
    seen = {op} - outside
    stack = list(seen)
    while stack:
        name = stack.pop()
        if types[name] in _ENTRIES:
            return True
        if types[name] not in _ENDS:
            near = {near for near in before(name) if near in types} - seen - outside
            seen |= near
            stack += near
    outside |= seen
    return False


def origin(nodes: Mapping[str, Node], tensor: str, passing: Collection[str] = ("Identity",)) -> tuple[str, str]:
    """The op and the output that a tensor comes from, back through ops of the types that pass on what they take."""
    op, number = split_tensor(tensor)
    for _ in range(_MOST_STEPS):
        if op not in nodes or nodes[op].type not in passing or not nodes[op].inputs:
            break
        op, number = split_tensor(nodes[op].inputs[0])
    return op, number


def require_distinct(graph: MetaGraph) -> None:
    """Raises NotSupportedError if two ops have one name, as after merging graphs; TensorFlow does not load that."""
    if len(graph.by_name) < len(graph.nodes):
        names = Counter(node.name for node in graph.nodes)
        name = next(name for name, count in names.items() if count > 1)
        raise NotSupportedError(f"two ops are named {name}: TensorFlow would not load it", path=graph.path)


def absent_input(nodes: Mapping[str, Node], node: Node) -> str:
    """What an op takes or waits for and the graph lacks; "" if nothing is missing.

    A graph exported from a scope calls its inputs from outside `$unbound_inputs_x`.
    (tensorflow/python/framework/meta_graph.py export_scoped_meta_graph)
    """
    for text in node.inputs:
        if text not in nodes and (op := op_of(text.removeprefix("^"))) not in nodes:
            return op
    return ""


def must_be_fed(nodes: Mapping[str, Node], node: Node) -> bool:
    """Whether an op is a placeholder without a default value.

    The default of a sparse placeholder's shape does not count if a size is unknown, as in [-1, 4]: with such a shape,
    TensorFlow would abort.
    (tensorflow/python/ops/array_ops.py: sparse_placeholder)
    """
    if node.type in BARE_PLACEHOLDERS:
        return True
    scope, _, last = node.name.rpartition("/")
    if node.type != "PlaceholderWithDefault" or last != "shape" or not node.inputs:
        return False
    default = nodes.get(op_of(node.inputs[0]))
    parts = [nodes.get(f"{scope}/{part}") for part in ("indices", "values")]
    is_sparse = all(part is not None and part.type in PLACEHOLDERS for part in parts)
    return is_sparse and default is not None and any(size < 0 for size in _int64s(default.message))


def _int64s(constant: Any) -> list[int]:
    """The values of a constant of int64."""
    tensor = constant.attr["value"].tensor if "value" in constant.attr else None
    if tensor is None or tensor.dtype != _INT64:
        return []
    content = tensor.tensor_content
    return [*tensor.int64_val, *(n for (n,) in struct.iter_unpack("<q", content[: len(content) // 8 * 8]))]
