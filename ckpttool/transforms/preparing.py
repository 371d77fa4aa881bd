"""A graph made ready for a TensorFlow that did not write it: a copy, in which what can't be imported stands no more.

An op that this TensorFlow lacks, or has no kernel for, gives its place to a stand-in of the same name and outputs:

    SSTableReaderV2 ─▶ ReaderReadV2 ─▶ conv       Placeholder ─▶ ReaderReadV2 ─▶ conv

So the rest of the graph is whole, a fetch that needs the op can be told from one that does not, and the op's outputs
may still be fed. An op with several outputs becomes an IdentityN of placeholders, one with none a NoOp.

What this TensorFlow has is asked of a Registry: nothing here imports it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, Protocol

from ckpttool import proto
from ckpttool.analysis.graphs.needs import (
    BEFORE_1,
    absent_input,
    called_functions,
    function_callers,
    recursive_functions,
)
from ckpttool.model.arguments import Dtypes, Tensor, arguments_of
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.graph import PYTHON_OPS, MetaGraph, Node, all_nodes, op_of, set_shape, split_tensor
from ckpttool.model.names import counted
from ckpttool.transforms.new_ops import new_op

_FLOAT = DTYPES["float32"].number
_MOST_OUTPUTS = 256
HERE = "this TensorFlow"
"""What is said in the reasons for which a library with ops and kernels would help, and in no others."""


class Registry(Protocol):
    """What a TensorFlow has."""

    version: int
    """The GraphDef version that it writes, and reads up to."""

    def op_def(self, type_: str) -> Any:
        """The OpDef of an op type; None if there is none."""

    def no_kernel(self, node: Any) -> str | None:
        """Why an op, by its NodeDef, can't run on the devices that are there; None if it can."""


class Prepared(NamedTuple):
    """A graph to import.

    Attributes:
        graph_def: the GraphDef.
        lacking: the ops that have stand-ins, with the reason for each.
        notes: what was changed, in words, beside devices and stand-ins.
    """

    graph_def: Any
    lacking: dict[str, str]
    notes: list[str]


def prepare(graph: MetaGraph, registry: Registry, *, clear_devices: bool = True) -> Prepared:
    """A copy of the graph that TensorFlow can import.

    Args:
        graph: the graph; it stays as it is.
        registry: what the TensorFlow at hand has.
        clear_devices: take devices and colocation out, those of functions too.
    """
    graph_def = proto.message_class("GraphDef")()
    graph_def.CopyFrom(graph.graph_def)
    if clear_devices:
        _clear_devices(graph_def)
    lacking = lacking_ops(graph, registry)
    notes = [*_mended_versions(graph_def, registry), *_mended_attributes(graph, graph_def, registry, lacking)]
    if lacking:
        _put_stand_ins(graph, graph_def, registry, lacking)
    return Prepared(graph_def, lacking, notes)


def _clear_devices(graph_def: Any) -> None:
    for node in all_nodes(graph_def):
        node.device = ""
        if "_class" in node.attr:
            members = node.attr["_class"].list.s
            kept = [member for member in members if not member.startswith(b"loc:@")]
            if kept:
                members[:] = kept
            else:
                del node.attr["_class"]


def drop_output_shapes(graph_def: Any) -> int:
    """Takes the `_output_shapes` attributes out; how many there were."""
    found = [node for node in graph_def.node if "_output_shapes" in node.attr]
    for node in found:
        del node.attr["_output_shapes"]
    return len(found)


def lacking_ops(graph: MetaGraph, registry: Registry) -> dict[str, str]:
    """The ops that this TensorFlow can't import or run, each with the reason."""
    library = graph.graph_def.library.function
    known = {function.signature.name for function in library}
    functions = _lacking_functions(library, known, registry)
    found = {}
    for node in graph.nodes:
        absent = absent_input(graph.by_name, node)
        if absent:
            found[node.name] = f"it takes or waits for {absent}, which the graph does not have"
        elif why := _why_lacking(node.message, registry, known, functions):
            found[node.name] = why
    _add_takers_of_references(graph, registry, found)
    return found


def _lacking_functions(library: Any, names: Collection[str], registry: Registry) -> dict[str, str]:
    """The library functions that this TensorFlow can't import or run, and those that call one of these, with reasons.

    A branch that no run takes is in the way, too: it becomes a part of the graph, and all of that is placed.
    """
    # TensorFlow would call them without end while it imports the graph.
    found = dict.fromkeys(recursive_functions(library), "calls itself, or one that does")
    for function in library:
        if function.node:
            found.setdefault(function.signature.name, BEFORE_1)
        for node in function.node_def:
            if node.op in names:
                continue
            if registry.op_def(node.op) is None:
                found.setdefault(function.signature.name, f"needs an op of type {node.op}, which {HERE} lacks")
            elif why := registry.no_kernel(node):
                found.setdefault(function.signature.name, f"can't run: {why}")
    if found:
        _spread(found, function_callers(library), lambda _, why: why)
    return found


def _spread(found: dict[str, str], edges: Mapping[str, Iterable[str]], why: Callable[[str, str], str]) -> None:
    """Adds what the edges lead to, each with the reason that follows from the one it is led to from, and its reason."""
    stack = list(found)
    while stack:
        name = stack.pop()
        for near in edges.get(name, ()):
            if near not in found:
                found[near] = why(name, found[name])
                stack.append(near)


def _why_lacking(node: Any, registry: Registry, known: Collection[str], functions: Mapping[str, str]) -> str | None:
    if node.op not in known and registry.op_def(node.op) is None:
        return f"{HERE} has no op of type {node.op}"
    if node.op in PYTHON_OPS:
        return f"{node.op} runs Python code of the program that made the graph"
    for name in called_functions(node, functions) if functions else ():
        return f"its function {name} {functions[name]}"
    return None if node.op in known else registry.no_kernel(node)


def _add_takers_of_references(graph: MetaGraph, registry: Registry, lacking: dict[str, str]) -> None:
    """An op that takes a reference to a variable can't take a stand-in's output: it gets a stand-in too."""
    takers: dict[str, list[str]] = {}
    for node in graph.nodes if lacking else ():
        for source in _references(node, registry):
            takers.setdefault(source, []).append(node.name)
    _spread(lacking, takers, lambda source, why: f"{source} is in the way: {why}")


def _references(node: Node, registry: Registry) -> Iterator[str]:
    """The ops whose outputs an op takes as references."""
    op_def = registry.op_def(node.type)
    if op_def is not None and any(arg.is_ref for arg in op_def.input_arg):
        for text, dtype in zip(node.operands, _input_dtypes(node, op_def), strict=False):
            if dtype is not None and dtype.is_ref:
                yield op_of(text)


def _input_dtypes(node: Node, op_def: Any) -> Dtypes:
    return Dtypes(arguments_of(op_def.input_arg, op_def.attr), node.message.attr)


def _mended_versions(graph_def: Any, registry: Registry) -> list[str]:
    versions = graph_def.versions
    notes = []
    if versions.min_consumer > registry.version:
        notes.append(
            f"the graph asks for a newer TensorFlow, of GraphDef version {versions.min_consumer} (this one's is"
            f" {registry.version}); imported all the same"
        )
        versions.min_consumer = 0
    if registry.version in versions.bad_consumers:
        notes.append(f"the graph refuses a TensorFlow of GraphDef version {registry.version}; imported all the same")
        del versions.bad_consumers[:]
    return notes


def _mended_attributes(graph: MetaGraph, graph_def: Any, registry: Registry, lacking: Mapping[str, str]) -> list[str]:
    """Takes out attributes that the ops do not have in this TensorFlow; says so where they mean something."""
    defaults = {
        (op.name, attr.name): attr.default_value
        for op in graph.message.meta_info_def.stripped_op_list.op
        for attr in op.attr
        if attr.HasField("default_value")
    }
    dropped: Counter[tuple[str, str]] = Counter()
    for node in all_nodes(graph_def):
        op_def = None if node.name in lacking else registry.op_def(node.op)
        if op_def is None:
            continue
        known = {attr.name for attr in op_def.attr}
        for key in [key for key in node.attr if not key.startswith("_") and key not in known]:
            dropped[key, node.op] += node.attr[key] != defaults.get((node.op, key))
            del node.attr[key]
    return [
        f"dropped the attribute {key} of {counted(times, f'{op} op')}: this TensorFlow does not know it"
        for (key, op), times in dropped.items()
        if times
    ]


def _put_stand_ins(graph: MetaGraph, graph_def: Any, registry: Registry, lacking: Mapping[str, str]) -> None:
    uses = _uses(graph, registry, lacking)
    by_name = {node.name: node for node in graph.nodes if node.name in lacking}
    added = []
    for message in graph_def.node:
        node = by_name.get(message.name)
        if node is not None:
            outputs = _outputs(graph, node, registry, uses.get(node.name, {}))
            message.Clear()
            message.name = node.name
            added += _stand_in(message, outputs)
    graph_def.node.extend(added)


def _uses(graph: MetaGraph, registry: Registry, lacking: Mapping[str, str]) -> dict[str, dict[int, DType | None]]:
    """The outputs of these ops that others take, with the dtype that the taker wants."""
    found: dict[str, dict[int, DType | None]] = {}
    for node in graph.nodes:
        inputs = node.operands
        if node.name in lacking or not any(op_of(text) in lacking for text in inputs):
            continue
        op_def = registry.op_def(node.type)
        dtypes: Dtypes | list[DType | None] = _input_dtypes(node, op_def) if op_def is not None else []
        for place, text in enumerate(inputs):
            op, number = split_tensor(text)
            if op in lacking:
                found.setdefault(op, {})[int(number)] = dtypes[place] if place < len(dtypes) else None
    return found


def _outputs(graph: MetaGraph, node: Node, registry: Registry, used: Mapping[int, DType | None]) -> list[Tensor]:
    """An op's outputs: as the file says, else as the registry does, else as they are used."""
    outputs = graph.outputs(node)[:_MOST_OUTPUTS]
    op_def = registry.op_def(node.type)
    if op_def is not None and not (outputs and all(output.dtype for output in outputs)):
        dtypes = islice(Dtypes(arguments_of(op_def.output_arg, op_def.attr), node.message.attr), _MOST_OUTPUTS)
        outputs = [Tensor(dtype, None) for dtype in dtypes]
    count = min(max(len(outputs), max(used, default=-1) + 1), _MOST_OUTPUTS)
    said = dict(enumerate(outputs))
    unknown = Tensor(None, None)
    return [Tensor(said.get(i, unknown).dtype or used.get(i), said.get(i, unknown).shape) for i in range(count)]


def _stand_in(message: Any, outputs: list[Tensor]) -> list[Any]:
    """Makes the node one with these outputs; the nodes that it needs besides."""
    if len(outputs) < 2:
        message.op = "Placeholder" if outputs else "NoOp"
        for output in outputs:
            _set_placeholder(message, output)
        return []
    message.op = "IdentityN"
    added = []
    for number, output in enumerate(outputs):
        node = new_op(f"{message.name}/stand_in_{number}", "Placeholder")
        _set_placeholder(node, output)
        message.input.append(node.name)
        message.attr["T"].list.type.append(node.attr["dtype"].type)
        added.append(node)
    return added


def _set_placeholder(node: Any, output: Tensor) -> None:
    node.attr["dtype"].type = output.dtype.base.number if output.dtype is not None else _FLOAT
    set_shape(node.attr["shape"].shape, output.shape)
