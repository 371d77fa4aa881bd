"""The library functions of a graph: which ops call them, and which of them call others."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

BEFORE_1 = "is written as TensorFlow before 1.0 wrote it, and none since reads it"
"""What is wrong with a function that has its ops in FunctionDef.node."""


def called_functions(node: Any, names: Collection[str]) -> set[str]:
    """The library functions, among these names, that an op calls: by its type, or as attributes."""
    found = {node.op}
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            found.add(value.func.name)
        elif kind == "list":
            found |= {function.name for function in value.list.func}
    return {name for name in found if name in names}


def all_called(library: Mapping[str, Any], callers: Iterable[Any]) -> Iterator[Any]:
    """The library functions that ops call, directly or through other functions."""
    seen: set[str] = set()
    stack = list(callers) if library else []
    while stack:
        for name in sorted(called_functions(stack.pop(), library) - seen):
            seen.add(name)
            stack += library[name].node_def
            yield library[name]


def function_callers(library: Iterable[Any]) -> dict[str, set[str]]:
    """Library function → the names of those that call it; without functions that no other calls."""
    functions = list(library)
    names = {function.signature.name for function in functions}
    callers: dict[str, set[str]] = {}
    for function in functions:
        for node in function.node_def:
            for called in called_functions(node, names):
                callers.setdefault(called, set()).add(function.signature.name)
    return callers


def recursive_functions(library: Iterable[Any]) -> set[str]:
    """The library functions that call themselves, directly or through others, and those that call one of these."""
    functions = list(library)
    callers = function_callers(functions)
    calls = Counter(caller for some in callers.values() for caller in some)
    left = {function.signature.name for function in functions}
    stack = [name for name in left if not calls[name]]
    while stack:  # A function ends if all that it calls end.
        name = stack.pop()
        left.remove(name)
        for caller in callers.get(name, ()):
            calls[caller] -= 1
            if not calls[caller]:
                stack.append(caller)
    return left
