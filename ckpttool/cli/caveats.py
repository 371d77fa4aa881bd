"""What a result depends on that nobody feeds, and what commands that fetch it say of that."""

from collections.abc import Callable, Collection

from ckpttool import render
from ckpttool.analysis.graphs.chance import drawn
from ckpttool.analysis.graphs.needs import needed_ops, tensor_name
from ckpttool.analysis.graphs.switches import held_switches
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.graph import MetaGraph


def say_caveats(
    graph: MetaGraph,
    tensors: Collection[str],
    fed: Collection[str],
    stored: Callable[[], Checkpoint | None],
    option: str,
) -> None:
    """Says that a result is another each time, and which switches are as they were saved; `option` feeds one."""
    fed = {tensor_name(name) for name in fed}
    if op := drawn(graph, tensors, fed):
        render.say(f"note: the result is another each time: {op} draws random numbers, and has no seed")
    for name, reads in held_switches(graph, needed_ops(graph.by_name, tensors, fed)).items():
        checkpoint = stored()
        if checkpoint is not None and (key := checkpoint.stored_as(name)) in checkpoint:
            value = checkpoint[key].numpy().tolist()
            render.say(f"note: {name} is {value}, as it was saved; {option} {reads[0]}:0 feeds it")
