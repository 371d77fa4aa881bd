"""What becomes of the ops that read a variable, when they are given its value.

    ReadVariableOp(w) → Identity(w)    ResourceGather(w, ids) → Gather(w, ids)    ResourceGatherNd → GatherNd
    VariableShape → Shape              VarIsInitializedOp, IsVariableInitialized → Const, true

(tensorflow/core/ops/{resource_variable,state,array}_ops.cc)
"""

from typing import Any

from ckpttool.errors import NotSupportedError
from ckpttool.transforms.freezing.body import Body
from ckpttool.transforms.freezing.constants import INT32, become_true, integer
from ckpttool.transforms.freezing.handles import Held


def _move(node: Any, old: str, new: str) -> None:
    """Gives an attribute another name."""
    node.attr[new].CopyFrom(node.attr[old])
    del node.attr[old]


def _read(node: Any, held: Held, body: Body) -> None:
    node.op = "Identity"
    _move(node, "dtype", "T")


def _gather(node: Any, held: Held, body: Body) -> None:
    """Gather takes the same inputs; with batch dimensions it must be GatherV2, which takes one more."""
    _move(node, "dtype", "Tparams")
    if not node.attr["batch_dims"].i:
        node.op = "Gather"
        del node.attr["batch_dims"]
        return
    if node.attr["batch_dims"].i < 0:
        raise NotSupportedError(f"the op {node.name} gathers with a negative batch_dims")
    node.op = "GatherV2"
    node.attr.pop("validate_indices", None)
    node.attr["Taxis"].type = INT32
    node.input.insert(2, gather_axis(node, body).name + (":output:0" if body.function is not None else ""))


def gather_axis(node: Any, body: Body) -> Any:
    """The constant that says which dimension to gather along: the first behind the batch's, as with ResourceGather."""
    axis = integer(f"{node.name}/frozen_axis", node.attr["batch_dims"].i)
    axis.input.extend(_within(node, body, 1))
    return axis


def _gather_nd(node: Any, held: Held, body: Body) -> None:
    node.op = "GatherNd"
    _move(node, "dtype", "Tparams")


def _shape(node: Any, held: Held, body: Body) -> None:
    node.op = "Shape"
    node.attr["T"].type = held.dtype


def _is_initialized(node: Any, held: Held, body: Body) -> None:
    waits_for = [*_within(node, body, 0), *(text for text in node.input if text.startswith("^"))]
    become_true(node)
    node.input[:] = dict.fromkeys(waits_for)


def _within(node: Any, body: Body, number: int) -> list[str]:
    """The control input, on what an op takes, that puts a constant into the same loop as the op."""
    op = body.operands[node.name][number].op
    return [f"^{op}"] if op in body.nodes else []


BECOMES = {
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "VariableShape": _shape,
    "VarIsInitializedOp": _is_initialized,
    "IsVariableInitialized": _is_initialized,
}
"""What becomes of an op that reads a variable: by its type, what changes its NodeDef."""
