"""What a critic judges: what the layers of one optimizer take from those of another, which trains other variables.

    noise ─▶ generator ─▶ picture ─▶ discriminator ─▶ loss
                             real ─▶ discriminator ─▶ loss

The picture is an output, though more comes after it.
"""

from collections.abc import Iterable

from ckpttool.analysis.graphs.endpoints.flow import Flow
from ckpttool.analysis.graphs.endpoints.parts import Parts
from ckpttool.analysis.graphs.needs import walk

_MOST_OPTIMIZERS = 8  # The graph is walked for each.
# Types of ops that a picture passes on its way to the critic.
_JOINS = {"Concat", "ConcatV2", "Pad", "PadV2", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Cast", "Identity"}


def judged(flow: Flow, parts: Parts) -> list[str]:
    """The ops of the forward path that are judged, in the graph's order; none where optimizers share a variable."""
    groups = parts.layers.separate
    if len(groups) > _MOST_OPTIMIZERS:
        return []
    takers = [parts.layers.meetings(group) for group in groups]
    after = [walk(found, flow.users, flow.outside) for found in takers]
    found = set[str]()
    for number, group in enumerate(groups):
        if len(parts.layers.meetings({min(group)})) < 2:  # A critic runs twice: on what is made and on what is real.
            continue
        for made in (other - after[number] for other in after[:number] + after[number + 1 :]):
            found |= _given(flow, takers[number], made)
    found &= parts.forward - parts.layers.sources.keys()
    return [key for key in flow.nodes if key in found] if found else []


def _given(flow: Flow, takers: Iterable[str], made: set[str]) -> set[str]:
    """What the ops take of `made`, traced back through reshapes and through joins with something else."""
    stack = [near for name in takers for near in flow.inputs[name] if near in made]
    seen, found = set(stack), set[str]()
    while stack:
        key = stack.pop()
        inner = [near for near in flow.inputs[key] if near in made] if flow.type(key) in _JOINS else []
        if not inner:
            found.add(key)
        stack += [near for near in inner if near not in seen]
        seen |= set(inner)
    return found
