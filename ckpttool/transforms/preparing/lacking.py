"""The ops that a TensorFlow can't import or run, each with the reason: it has no such type, no kernel for it, …

An op that only takes the output of such an op is not one itself: it takes the output of the stand-in.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

from ckpttool.analysis.graphs.functions import BEFORE_1, called_functions, function_callers, recursive_functions
from ckpttool.analysis.graphs.needs import absent_input
from ckpttool.model.arguments import Dtypes, arguments_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.names import counted
from ckpttool.model.nodes import PYTHON_OPS, Node, op_of

HERE = "this TensorFlow"
"""Stands in a reason only if a library of ops and kernels would help against it."""


class Registry(Protocol):
    """What a TensorFlow has."""

    version: int
    """The GraphDef version that it writes, and reads up to."""

    def op_def(self, type_: str) -> Any:
        """The OpDef of an op type; None if there is none."""

    def no_kernel(self, node: Any) -> str | None:
        """Why an op, by its NodeDef, can't run on the devices that are there; None if it can."""


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

    Even a branch that no run takes is in the way: it becomes a part of the graph, and all ops of the graph are placed.
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
            elif why := _other_inputs(node, registry) or registry.no_kernel(node):
                found.setdefault(function.signature.name, f"can't run: {why}")
    if found:
        _spread(found, function_callers(library), lambda _, why: why)
    return found


def _spread(found: dict[str, str], edges: Mapping[str, Iterable[str]], why: Callable[[str, str], str]) -> None:
    """Adds what the edges lead to; `why` makes its reason from the name that leads to it, and the reason of that."""
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
    if why := _other_inputs(node, registry):
        return why
    if node.op in PYTHON_OPS:
        return f"{node.op} runs Python code of the program that made the graph"
    for name in called_functions(node, functions) if functions else ():
        return f"its function {name} {functions[name]}"
    return None if node.op in known else registry.no_kernel(node)


def _other_inputs(node: Any, registry: Registry) -> str | None:
    """What is wrong if an op takes more or fewer inputs now: dense hash tables take one more since TensorFlow 1.12."""
    op_def = registry.op_def(node.op)
    wanted = None if op_def is None else op_def.input_arg
    # If an input is a list, the op itself says how long it is.
    if not wanted or any(each.number_attr or each.type_list_attr for each in wanted):
        return None
    given = sum(not text.startswith("^") for text in node.input)
    return None if given == len(wanted) else f"{node.op} has {counted(given, 'input')}, and takes {len(wanted)} now"


def _add_takers_of_references(graph: MetaGraph, registry: Registry, lacking: dict[str, str]) -> None:
    """Adds ops that take a reference to a variable from a lacking op: they can't take a stand-in's output instead."""
    takers: dict[str, list[str]] = {}
    for node in graph.nodes if lacking else ():
        for source in _references(node, registry):
            takers.setdefault(source, []).append(node.name)
    _spread(lacking, takers, lambda source, why: f"{source} is in the way: {why}")


def _references(node: Node, registry: Registry) -> Iterator[str]:
    """The ops whose outputs an op takes as references."""
    op_def = registry.op_def(node.type)
    if op_def is not None and any(arg.is_ref for arg in op_def.input_arg):
        for text, dtype in zip(node.operands, input_dtypes(node, op_def), strict=False):
            if dtype is not None and dtype.is_ref:
                yield op_of(text)


def input_dtypes(node: Node, op_def: Any) -> Dtypes:
    """The dtypes of what an op takes, given its OpDef."""
    return Dtypes(arguments_of(op_def.input_arg, op_def.attr), node.message.attr)
