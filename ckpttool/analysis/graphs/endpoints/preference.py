"""Which of several likely outputs comes first.

What is trained comes before its copies, the first tower before the others, and a decoder that goes on by itself before
one that must be told the answer.
"""

import re

from ckpttool.analysis.graphs.endpoints.candidates import PARTIAL, Ranked
from ckpttool.analysis.graphs.endpoints.flow import CALLS, MOST_TENSORS, Flow
from ckpttool.analysis.graphs.endpoints.parts import Parts
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.nodes import VARIABLE_OPS, op_of

# The end of a copy's name under a MirroredStrategy. (tensorflow/python/distribute/mirrored_strategy.py)
_REPLICA = re.compile(r"/replica_\d+$")


def in_order(flow: Flow, parts: Parts, chosen: Ranked) -> list[str]:
    """The best of the chosen ops, the likeliest first."""
    best = sorted(chosen, key=lambda key: chosen[key][0])[:MOST_TENSORS]
    alike: dict[tuple[object, ...], list[str]] = {}
    for key in best:
        alike.setdefault((chosen[key][0][0], flow.type(key), str(flow.tensor(key))), []).append(key)
    swapped = dict[str, str]()
    for keys in alike.values():
        swapped |= _towers_swapped(flow, parts, keys) if len(keys) > 1 else {}
    trained = set().union(*parts.layers.updated.values())
    learning = walk(trained, flow.users, flow.outside) if trained else parts.layers.weighted
    copies = parts.layers.weighted - learning
    best = [swapped.get(key, key) for key in best]
    best = sorted(best, key=lambda key: (chosen[key][0][0], key in copies))
    untaught = _untaught(flow, parts, [key for key in best if chosen[key][0][0] < PARTIAL])
    return sorted(best, key=lambda key: key != untaught) if untaught else best


def _untaught(flow: Flow, parts: Parts, best: list[str]) -> str:
    """The op that gives, with the same weights, what the first one gives only if it is told the answer; "" if none.

    It is a decoder that goes on by itself, while the one to be trained is fed what it is to say.
    """
    if not best:
        return ""
    # An answer gets to the loss without passing a layer: the second of two inputs that the loss compares is none.
    learned = {best[0], *parts.layers.joints}
    told = walk(parts.losses.ops, flow.inputs, flow.outside | learned) & parts.layers.sources.keys()
    sources, weights = _made_of(flow, parts, best[0])
    for key in best[1:] if told & sources else ():
        fewer, same = _made_of(flow, parts, key)
        if fewer and fewer < sources and told & sources - fewer and same >= weights > set():
            return key
    return ""


def _made_of(flow: Flow, parts: Parts, key: str) -> tuple[set[str], set[str]]:
    """The sources and the variables that an op's value comes from; a device's copy counts as the variable itself."""
    before = walk([key], flow.inputs, flow.outside)
    weights = {_REPLICA.sub("", name) for name in before if flow.type(name) in VARIABLE_OPS}
    return before & parts.layers.sources.keys(), weights


def _towers_swapped(flow: Flow, parts: Parts, keys: list[str]) -> dict[str, str]:
    """For ops made of the same weights, as in towers: op → the one that takes its place, in the graph's order."""
    towers: dict[frozenset[str], list[str]] = {}
    for key in keys:
        sources, weights = _made_of(flow, parts, key)
        # A call of a function is a signature's, which has inputs of its own; elsewhere, inputs go through one model.
        made_of = weights | sources if flow.type(key) in CALLS else weights
        towers.setdefault(frozenset(made_of if key in parts.layers.weighted else [key]), []).append(key)
    places = {name: number for number, name in enumerate(flow.nodes)}
    swapped = dict[str, str]()
    for tower in towers.values():
        # Ops of which one is made of another, such as an output made of a score, are no towers: the end stays first.
        if any(walk([key], flow.inputs, flow.outside).intersection(tower) != {key} for key in tower):
            continue
        swapped |= zip(tower, sorted(tower, key=lambda key: places.get(op_of(key), 0)), strict=True)
    return swapped
