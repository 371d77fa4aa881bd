"""A signature: what is fed and what is fetched, under names that the user gives.

    SignatureDef  1 inputs  2 outputs {key: TensorInfo}  3 method_name
    TensorInfo    1 name  2 dtype  3 tensor_shape

(tensorflow/core/protobuf/meta_graph.proto; python/saved_model/signature_def_utils_impl.py)
"""

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any

from ckpttool import proto
from ckpttool.analysis.graphs.endpoints import Endpoint, endpoints
from ckpttool.analysis.graphs.needs import absent_input, needed_ops, require_distinct, require_output
from ckpttool.analysis.graphs.pipelines import handle_of, stand_ins
from ckpttool.analysis.graphs.running import unfed
from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.arguments import Tensor
from ckpttool.model.dtypes import HANDLES
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import require_one_of
from ckpttool.model.nodes import Node, op_of, set_shape, split_tensor, tensor_name
from ckpttool.model.signatures import DEFAULT_SIGNATURE

METHODS = {name: f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress")}
"""The methods of a server, by the word for each."""

# Method → the keys of its inputs and of its outputs, with their dtypes; one of the outputs is enough.
_KEYS = {
    "classify": ({"inputs": "string"}, {"classes": "string", "scores": "float32"}),
    "regress": ({"inputs": "string"}, {"outputs": "float32"}),
}


def keyed(texts: list[str]) -> dict[str, str]:
    """Tensors by key, from texts NAME=TENSOR; without a NAME, it is the op's: x:0 → x, x:1 → x_1.

    Raises:
        ValueError: two have the same key; or a text is not UTF-8.
    """
    found: dict[str, str] = {}
    for text in texts:
        text.encode()
        key, sign, tensor = text.rpartition("=")
        op, number = split_tensor(tensor)
        key = key if sign else op.rpartition("/")[2] + (f"_{number}" if number != "0" else "")
        if not key or not tensor:
            raise ValueError(f"{text!r} is not NAME=TENSOR")
        if key in found:
            raise ValueError(f"{found[key]} and {tensor} have both the name {key}")
        found[key] = tensor_name(tensor)
    return found


def likely_outputs(graph: MetaGraph) -> dict[str, str]:
    """The likeliest outputs of a graph: by its signature, or as `endpoints` infers them."""
    return _likely(endpoints(graph), "output")


def likely_inputs(graph: MetaGraph, outputs: Mapping[str, str], *, inferred: bool) -> dict[str, str]:
    """The likeliest inputs: the placeholders that the outputs need, and what an input pipeline would give them.

    Args:
        graph: the graph.
        outputs: the tensors to fetch.
        inferred: the outputs are those of `likely_outputs`: then the inputs that go with them come first.
    """
    found = _likely(endpoints(graph), "input") if inferred else {}
    nodes = graph.by_name
    running = needed_ops(nodes, outputs.values(), set(found.values()))
    found |= keyed([f"{name}:0" for name in stand_ins(nodes, running)])
    running = needed_ops(nodes, outputs.values(), set(found.values()))
    placeholders, waiting = unfed(nodes, running)
    pipelines = {*waiting, *(name for name in running if handle_of(nodes, nodes[name]))}
    taken = [tensor_name(name) for op in sorted(running) for name in nodes[op].operands]
    given = [name for name in dict.fromkeys([*taken, *outputs.values()]) if op_of(name) in pipelines]
    # The outputs of a pipeline are fed, so that what it reads itself is no longer needed.
    needed = needed_ops(nodes, outputs.values(), {*found.values(), *given})
    placeholders = [placeholder for placeholder in placeholders if placeholder in needed]
    return found | keyed([*(f"{name}:0" for name in placeholders), *given])


def _likely(found: Sequence[Endpoint], direction: str) -> dict[str, str]:
    first = next((e.signature for e in sorted(found, key=lambda e: e.signature != DEFAULT_SIGNATURE)), "")
    # An argument of a signature may name no tensor; the rest is read all the same.
    chosen = [e for e in found if e.needed and e.direction == direction and e.signature == first and e.tensor]
    return keyed([f"{e.key}={e.tensor}" if e.key else e.tensor for e in chosen])


def require_served(graph: MetaGraph, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Raises an error unless these inputs and outputs of the graph can be served.

    Raises:
        NotFoundError: the graph lacks a tensor.
        NotSupportedError: a tensor can't be sent; the inputs do not give the outputs; TensorFlow can't load the graph.
        ConversionError: an input can't have its name, or two inputs are one tensor.
    """
    for key in (key for key in inputs if iskeyword(key) or key == "self"):
        what = f"tf.saved_model.load takes no input of the name {key}, a word of Python's own"
        raise ConversionError(what, path=graph.path, hint=f"give another: --inputs NAME={inputs[key]}")
    keys: dict[str, str] = {}
    for key, tensor in inputs.items():
        if keys.setdefault(tensor, key) != key:
            what = f"tf.saved_model.load takes no two inputs that are one tensor: {keys[tensor]} and {key} are {tensor}"
            raise ConversionError(what, path=graph.path)
    for name in (*inputs.values(), *outputs.values()):
        _known_tensor(graph, name)
    require_distinct(graph)
    nodes = graph.by_name
    for node in nodes.values():
        if absent := absent_input(nodes, node):
            what = f"the op {node.name} needs {absent}, which the graph does not have: TensorFlow would not load it"
            hint = (
                "tf.compat.v1.train.import_meta_graph takes it with input_map; freeze leaves out what no output needs"
            )
            raise NotSupportedError(what, path=graph.path, hint=hint)
    fed = set(inputs.values())
    is_fed = not any(unfed(nodes, needed_ops(nodes, outputs.values(), fed)))
    for name in () if is_fed else outputs.values():
        running = needed_ops(nodes, [name], fed)
        placeholders, waiting = unfed(nodes, running)
        by_handle = [op for op in sorted(running) if handle_of(nodes, nodes[op]) in placeholders]
        if placeholders and not by_handle:
            hint = f"make it an input too: --inputs {placeholders[0]}:0"
            raise NotSupportedError(
                f"{name} needs the placeholder {', '.join(placeholders)}", path=graph.path, hint=hint
            )
        if waiting := by_handle or waiting:
            what = f"{name} needs {waiting[0]}, which waits for an input pipeline that no server runs"
            taken = (tensor_name(text) for op in sorted(running) for text in nodes[op].operands)
            given = next((text for text in taken if op_of(text) == waiting[0]), name)
            hint = f"feed what it gives: --inputs {given}"
            raise NotSupportedError(what, path=graph.path, hint=hint)


def _known_tensor(graph: MetaGraph, name: str) -> Tensor:
    """A tensor of the graph, of known dtype.

    Raises:
        NotFoundError: there is no such op, or no such output of it.
        NotSupportedError: its dtype is not known, or can't be sent to a server.
    """
    op = op_of(name)
    node = graph.node(op)
    require_output(graph, name)
    tensor = graph.tensor(name)
    if tensor.dtype is None:
        raise NotSupportedError(f"the dtype of {name} is not known: {_why_unknown(graph, node)}", path=graph.path)
    if tensor.dtype.is_ref:
        reader = next((n.name for n in graph.nodes if n.type == "Identity" and _reads(n.inputs, op)), None)
        hint = f"take what reads it: {reader}:0" if reader else None
        raise NotSupportedError(f"{name} is a variable's reference, no value", path=graph.path, hint=hint)
    if tensor.dtype.name in HANDLES:
        raise NotSupportedError(f"{name} is a {tensor.dtype.name}, no value", path=graph.path)
    return tensor


def _why_unknown(graph: MetaGraph, node: Node) -> str:
    op_def = graph.op_def(node.type)
    if op_def is None:
        return f"the file does not describe the op type {node.type}"
    said_by = [name for arg in op_def.output_arg for name in (arg.type_attr, arg.type_list_attr) if name]
    lacking = [name for name in dict.fromkeys(said_by) if name not in node.message.attr]
    # As in OpenCV's texts, from which it removes what it does not need.
    without = f"has no attribute {', '.join(lacking)}, and TensorFlow does not load it"
    return f"the op {node.name} {without if lacking else 'does not say it'}"


def _reads(inputs: tuple[str, ...], op: str) -> bool:
    return bool(inputs) and op_of(inputs[0]) == op


def signature_def(graph: MetaGraph, inputs: Mapping[str, str], outputs: Mapping[str, str], method: str) -> bytes:
    """The SignatureDef of these tensors.

    Raises:
        ConversionError: the method needs other ones.
        NotFoundError: there is no such op, or no such output of it.
        NotSupportedError: what is known of a tensor is not enough, or it is none that can be sent.
    """
    require_one_of("method", method, METHODS)
    message = proto.message_class("SignatureDef")(method_name=METHODS[method])
    for infos, tensors in ((message.inputs, inputs), (message.outputs, outputs)):
        for key, name in tensors.items():
            _fill(infos[key], name, _known_tensor(graph, name))
    if method in _KEYS:
        _require_keys(graph, method, inputs, outputs)
    return proto.serialize(message)


def _fill(info: Any, name: str, tensor: Tensor) -> None:
    assert tensor.dtype is not None
    info.name, info.dtype = name, tensor.dtype.number
    set_shape(info.tensor_shape, tensor.shape)


def _require_keys(graph: MetaGraph, method: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    for what, wanted, given in zip(("inputs", "outputs"), _KEYS[method], (inputs, outputs), strict=True):
        found = {}
        for key, name in given.items():
            dtype = _known_tensor(graph, name).dtype
            found[key] = dtype.name if dtype else ""
        if not found or not found.items() <= wanted.items():
            expected = " and ".join(f"{key} ({dtype})" for key, dtype in wanted.items())
            there = ", ".join(f"{key} ({dtype})" for key, dtype in found.items()) or "none"
            raise ConversionError(f"the method {method} has the {what} {expected}; got {there}", path=graph.path)
