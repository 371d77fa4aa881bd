"""What commands say about results that depend on more than what is fed."""

from collections.abc import Callable, Collection
from itertools import islice
from typing import Any

from ckpttool import render
from ckpttool.analysis.graphs.chance import drawn
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.switches import held_switches, on_by_default
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import PYTHON_OPS, tensor_name

_MOST = 9


def say_caveats(
    graph: MetaGraph,
    tensors: Collection[str],
    fed: Collection[str],
    stored: Callable[[], Checkpoint | None],
    option: str,
) -> None:
    """Says if a result differs each time, and which switches have saved or default values; `option` feeds one."""
    fed = {tensor_name(name) for name in fed}
    if op := drawn(graph, tensors, fed):
        render.say(f"note: the result is another each time: {op} draws random numbers, and has no seed")
    needed = needed_ops(graph.by_name, tensors, fed)
    for name in islice(on_by_default(graph, needed), _MOST):
        render.say(f"note: {name} is True, its default; {option} {name}:0 feeds it")
    held = held_switches(graph, needed)
    checkpoint = stored() if held else None
    values = _values(checkpoint, held) if checkpoint is not None else {}
    for name, value in islice(values.items(), _MOST):
        render.say(f"note: {name} is {value}, as it was saved; {option} {held[name][0]}:0 feeds it")
    if len(values) > _MOST:
        more = render.counted(len(values) - _MOST, "more such variable")
        render.say(f"note: {more} taken as saved")


def say_python(graph: MetaGraph, tensors: Collection[str], fed: Collection[str]) -> None:
    """Says which Python code tensors need that are to be computed elsewhere."""
    needed = needed_ops(graph.by_name, tensors, {tensor_name(name) for name in fed})
    if op := min((name for name in needed if graph.by_name[name].type in PYTHON_OPS), default=""):
        what = "runs Python code of the program that made the graph, and nowhere else"
        render.say(f"note: {op} {what}; --inputs {op}:0 feeds it")


def _values(checkpoint: Checkpoint, names: Collection[str]) -> dict[str, Any]:
    """The values of switches, if they are stored as scalars."""
    stored = ((name, checkpoint.get(checkpoint.stored_as(name))) for name in names)
    return {
        name: variable.numpy().tolist()
        for name, variable in stored
        if variable is not None and not variable.shape and variable.dtype.itemsize is not None
    }
