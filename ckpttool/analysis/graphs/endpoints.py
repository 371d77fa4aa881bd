"""What to feed and what to fetch: a graph's inputs and outputs.

Signatures say it. A training graph has none, so its endpoints are inferred, from types and names of ops alone:

    x ─▶ MatMul ─▶ Add ─▶ Softmax ─┬─▶ ArgMax             x: an input; Softmax, ArgMax: likely outputs
          ▲         ▲              └─▶ Log ─▶ Mul ─▶ Mean   Mean: the loss, from which the gradients start
          W         b                  labels ─┘            labels: only the loss needs it

The parts of the graph say which is which (analysis.graphs.parts): a label is told from an input by the weights, of
which an input meets one on its way, while a label joins after the last.
"""

import re
from itertools import chain
from typing import NamedTuple

from ckpttool.analysis.graphs.critics import judged, trained_by_optimizer
from ckpttool.analysis.graphs.flow import CALLS, MOST_TENSORS, OUTPUT_NAME, SCORES, Flow, is_named
from ckpttool.analysis.graphs.needs import must_be_fed, walk
from ckpttool.analysis.graphs.parts import Parts
from ckpttool.analysis.graphs.switches import held_switches, is_switch
from ckpttool.model.arguments import Shape
from ckpttool.model.collections import FILLED_COLLECTIONS
from ckpttool.model.dtypes import DType
from ckpttool.model.graph import DEFAULT_SIGNATURE, HIDDEN_SIGNATURES, VARIABLE_OPS, MetaGraph, op_of


class Endpoint(NamedTuple):
    """A tensor to feed or to fetch.

    `direction` is "input" or "output"; `signature` and `key` are the signature's name and the argument's, "" if the
    endpoint is inferred; `reason` says why it is listed. Of the inferred ones, `needed` marks the first output and what
    it takes to get it.
    """

    direction: str
    signature: str
    key: str
    tensor: str
    dtype: DType | None
    shape: Shape
    inferred: bool
    needed: bool
    reason: str


# What turns an output into a score or an answer, so that what it takes is likely, too.
_HEADS = {
    *SCORES,
    *("Identity", "Cast", "Squeeze", "ExpandDims", "Reshape", "Max", "Mean", "Sum"),
    *("Greater", "GreaterEqual", "Equal", "Round"),
}
_LOOPS = {"While", "StatelessWhile"}
_NO_END = {"Switch", "RefSwitch", "Enter", "RefEnter", "NextIteration", "LoopCond", "ControlTrigger", "Const"}
_INPUT_NAME = re.compile(r"(?:\w*_)?(?:inputs?|feeds?|placeholders?|features|images?|x)", re.IGNORECASE)


def endpoints(graph: MetaGraph) -> list[Endpoint]:
    """What to feed and what to fetch: as the signatures say; without any, inputs and likely outputs, the best first."""
    declared = [
        Endpoint(direction, name, key, tensor, info.dtype, info.shape, False, True, f"signature {name}")
        for name, signature in graph.signatures.items()
        if not name.startswith(HIDDEN_SIGNATURES)
        for direction, infos in (("input", signature.inputs), ("output", signature.outputs))
        for key, (tensor, info) in infos.items()
    ]
    return declared or _inferred(graph)


def _inferred(graph: MetaGraph) -> list[Endpoint]:
    flow = Flow(graph)
    parts = Parts(flow)
    likely = _candidates(flow, parts)
    members = _user_members(flow, parts, likely)
    fed = {key: why for key, (rank, why) in members.items() if rank == _FED}
    chosen = {key: found for key, found in (likely | members).items() if key not in fed}
    best = _in_order(flow, parts, chosen)
    if best and chosen[best[0]][0][0] < _SHOWN:  # A number that is only shown, such as how much of a layer is zero.
        best = [key for key in best if chosen[key][0][0] < _SHOWN or flow.tensor(flow.fetches(key)[0]).shape != ()]
    outputs = [(tensor, chosen[key][1]) for key in best for tensor in flow.fetches(key) if _is_value(flow, tensor)]
    outputs = outputs[:MOST_TENSORS]
    listed = [("input", *item) for item in _inputs(flow, parts, best, fed)]
    listed += [("output", name, number == 0, why) for number, (name, why) in enumerate(outputs)]
    return [Endpoint(way, "", "", name, *flow.tensor(name), True, needed, why) for way, name, needed, why in listed]


def _in_order(flow: Flow, parts: Parts, chosen: "_Ranked") -> list[str]:
    """The best of them: what is trained before its copies, and the first of those that are alike."""
    best = sorted(chosen, key=lambda key: chosen[key][0])[:MOST_TENSORS]
    alike: dict[tuple[object, ...], list[str]] = {}
    for key in best:
        alike.setdefault((chosen[key][0][0], flow.type(key), str(flow.tensor(key))), []).append(key)
    swapped = dict[str, str]()
    for keys in alike.values():
        swapped |= _towers_swapped(flow, parts, keys) if len(keys) > 1 else {}
    trained = set().union(*trained_by_optimizer(flow).values())
    learning = walk(trained, flow.users, flow.outside) if trained else parts.layers.weighted
    copies = parts.layers.weighted - learning
    best = [swapped.get(key, key) for key in best]
    best = sorted(best, key=lambda key: (chosen[key][0][0], key in copies))
    untaught = _untaught(flow, parts, [key for key in best if chosen[key][0][0] < _PARTIAL])
    return sorted(best, key=lambda key: key != untaught) if untaught else best


def _untaught(flow: Flow, parts: Parts, best: list[str]) -> str:
    """The op, if any, that gives with the same weights what the first one gives only if it is told the answer: a
    decoder that goes on by itself, where training feeds it what it is to say.
    """
    if not best:
        return ""
    told = walk(parts.losses.ops, flow.inputs, flow.outside | {best[0]}) & parts.layers.sources.keys()
    sources, weights = _made_of(flow, parts, best[0])
    for key in best[1:] if told & sources else ():
        fewer, same = _made_of(flow, parts, key)
        if fewer and fewer < sources and told & sources - fewer and same >= weights > set():
            return key
    return ""


def _made_of(flow: Flow, parts: Parts, key: str) -> tuple[set[str], set[str]]:
    """The sources and the variables that an op's value comes from."""
    before = walk([key], flow.inputs, flow.outside)
    return before & parts.layers.sources.keys(), {name for name in before if flow.type(name) in VARIABLE_OPS}


def _towers_swapped(flow: Flow, parts: Parts, keys: list[str]) -> dict[str, str]:
    """Of ops made of the same weights, as in towers, which takes the place of which."""
    towers: dict[frozenset[str], list[str]] = {}
    for key in keys:
        sources, weights = _made_of(flow, parts, key)
        # The calls of a function are its signatures', each with an input of its own; other inputs go through one model.
        made_of = weights | sources if flow.type(key) in CALLS else weights
        towers.setdefault(frozenset(made_of if key in parts.layers.weighted else [key]), []).append(key)
    places = {name: number for number, name in enumerate(flow.nodes)}
    swapped = dict[str, str]()
    for tower in towers.values():
        swapped |= zip(tower, sorted(tower, key=lambda key: places.get(op_of(key), 0)), strict=True)
    return swapped


def _is_value(flow: Flow, tensor: str) -> bool:
    """Whether a tensor has a value that can be shown, and not a handle."""
    dtype = flow.tensor(tensor).dtype
    return dtype is None or dtype.name not in ("resource", "variant")


def how_to_run(found: list[Endpoint]) -> list[str]:
    """What to feed and fetch together, a line for each signature, or for the likeliest output."""
    lines = []
    by_signature: dict[str, list[Endpoint]] = {}
    for endpoint in found:
        by_signature.setdefault(endpoint.signature, []).append(endpoint)
    for signature in sorted(by_signature, key=lambda name: (name != DEFAULT_SIGNATURE, name)):
        together = [e for e in by_signature[signature] if e.needed]
        feeds = [e.tensor for e in together if e.direction == "input"]
        fetches = [e.tensor for e in together if e.direction == "output"]
        head = f"signature {signature}: " if signature else "to run it: "
        lines.append(f"{head}feed {', '.join(feeds) or 'nothing'} · fetch {', '.join(fetches) or 'nothing'}")
    return lines


_Ranked = dict[str, tuple[tuple[int, ...], str]]  # An op's place (the less the better) and the reason.


def _candidates(flow: Flow, parts: Parts) -> _Ranked:
    """The ends of the forward path, and what is only turned into a score or an answer behind."""
    ends = [key for key in flow.nodes if key in parts.forward and _is_end(flow, parts, key)]
    if not ends:  # All of them go into metrics, and are no ends.
        reached = [key for key in flow.nodes if key in parts.forward and key not in parts.layers.sources]
        ends = [key for key in reached if is_named(OUTPUT_NAME, key)]
    # Of equals, the later: a graph is written front to back.
    distance = dict.fromkeys(reversed(ends), 0)
    queue = list(distance)
    for key in queue:
        if flow.type(key) in _HEADS or _is_crop(flow, key):
            inner = [near for near in flow.inputs[key] if near in parts.forward and near not in parts.layers.sources]
            new = dict.fromkeys((near for near in inner if near not in distance), distance[key] + 1)
            distance |= new
            queue += new
    found = {key: (_strength(flow, parts, key, steps), steps) for key, steps in distance.items()}
    best = min((rank for (rank, _), _ in found.values()), default=0)
    by_critics: _Ranked = dict.fromkeys(
        judged(flow, parts)[:MOST_TENSORS], ((2, -1), "what another optimizer trains takes it")
    )
    ranked = by_critics | {
        k: ((rank, n), why) for k, ((rank, why), n) in found.items() if why and (rank < _NO_WEIGHTS or rank == best)
    }
    if parts.neck:
        ranked.setdefault(parts.neck, ((5, 0), "all that is learned passes it"))
    return ranked


def _is_crop(flow: Flow, key: str) -> bool:
    """Whether an op gives a part of what it takes, of as many dimensions."""
    if flow.type(key) not in ("Slice", "StridedSlice") or not flow.inputs[key]:
        return False
    part, whole = flow.tensor(key).shape, flow.tensor(flow.inputs[key][0]).shape
    return part is not None and whole is not None and len(part) == len(whole)


def _is_end(flow: Flow, parts: Parts, key: str) -> bool:
    if key in parts.layers.sources or flow.type(key) in _NO_END or key.endswith(("/switch_t", "/switch_f", "/pred_id")):
        return False
    users, inputs = flow.users.get(key, ()), flow.inputs[key]
    is_read = all(flow.type(near) in VARIABLE_OPS for near in inputs)
    # What is only made to be shown in a summary, such as how much of it is zero, takes nothing of its being an end.
    passed = parts.shown if key not in parts.shown or any(flow.roles[n] == "summary" for n in users) else ()
    return not is_read and not any(
        (near in parts.forward and near not in passed) or flow.roles[near] in ("update", "queue", "other")
        for near in users
    )


_PARTIAL, _SHOWN, _NO_WEIGHTS = 5, 7, 8


def _strength(flow: Flow, parts: Parts, key: str, steps: int) -> tuple[int, str]:
    """How likely an output it is (the less the likelier) and why; no reason: it is none."""
    type_, users, named = flow.type(key), flow.users.get(key, []), is_named(OUTPUT_NAME, key)
    if parts.layers.body and key not in parts.layers.weighted:
        return _NO_WEIGHTS, "" if steps else "end of a path without weights"
    if users and all(flow.roles[near] == "summary" for near in users) and not named:
        return _SHOWN, "only a summary shows it"
    # "Softmax_1" is what TensorFlow itself calls a Softmax.
    if named and not re.fullmatch(rf"{re.escape(type_)}(_\d+)?", key.rpartition("/")[2]):
        return 1, "named like an output, at the end of the forward path"
    is_for_loss = any(near in parts.lossy and near in parts.losses.made_of for near in users)
    if is_for_loss and key not in parts.losses.learned:
        return 6, "a target of the loss is made of it"
    if type_ in SCORES and not (type_ == "LogSoftmax" and is_for_loss):  # Else it is what logits are to others.
        return 2, f"{type_} at the end of the forward path"
    if is_for_loss:
        return 3, "input of the loss"
    if steps:
        return 5, "only an average is taken of it" if flow.type(users[0]) in ("Mean", "Sum") else ""
    is_of_loop = type_ == "Exit" or any(flow.type(near) in _LOOPS for near in flow.inputs[key])
    return (6, "last value of a loop") if is_of_loop else (4, "end of the forward path")


_FED = (-1, 0, 0, 0)


def _user_members(flow: Flow, parts: Parts, likely: _Ranked) -> _Ranked:
    """The members of the user's own collections that are tensors of the model."""
    found: _Ranked = {}
    before = walk((near for key in parts.collected for near in flow.inputs.get(key, ())), flow.inputs, flow.outside)
    for collection in flow.graph.collections.values():
        if collection.name in FILLED_COLLECTIONS:
            continue
        is_input = is_named(_INPUT_NAME, collection.name)
        keys = [flow.key(member) for member in collection.members if isinstance(member, str)]
        for key in keys:
            if key and key not in flow.outside and flow.type(key) not in VARIABLE_OPS:
                # Some collect every layer's output; the last are the likely ones.
                rank = (0, int(key in parts.lossy), int(key in before), int(key not in likely))
                is_loss = key in parts.losses.ops and flow.tensor(key).shape == ()
                if (len(keys) > 1 and key in parts.layers.inner) or is_loss:
                    rank = (_SHOWN, 1, 0, 0)
                rank = _FED if is_input or key in parts.layers.sources else rank
                if rank[0] < _SHOWN or key not in likely:
                    found.setdefault(key, (rank, f"in the collection {collection.name}"))
    return found


def _inputs(flow: Flow, parts: Parts, outputs: list[str], fed: dict[str, str]) -> list[tuple[str, bool, str]]:
    """The tensors to feed, whether the first output needs them, and why they are listed.

    First come those that the outputs need, then switches, then those only others need.
    """
    shapes = {name for name, role in flow.roles.items() if role == "shape"}
    for_first = walk(outputs[:1], flow.needs, shapes)
    values = walk(outputs, flow.needs, shapes)
    before = {role: [name for name in flow.nodes if flow.roles[name] == role] for role in ("update", "queue")}
    rest = {
        "an output needs its shape": walk(outputs, flow.needs),
        "only the loss needs it": parts.losses.made_of,
        "only training or initialization needs it": walk(before["update"], flow.inputs),
        "fills an input queue": walk(before["queue"], flow.inputs),
    }
    found: list[tuple[int, str, bool, str]] = []
    for key in dict.fromkeys([*parts.layers.sources, *fed]):
        why = "an output needs it"
        if flow.is_pipeline(key):
            why = "the input pipeline gives it; it may be fed directly"
        elif key in flow.incomplete:
            why = "an output needs it, and it needs what the graph does not have"
        rank, why = 0, fed.get(key) or why
        if key not in values and key not in fed:
            rank, why = 2, next((why for why, keys in rest.items() if key in keys), "no listed output needs it")
        elif is_switch(key, flow.tensor(key)):
            rank, why = 1, f"{why}; dropout or mode switch"
        if rank < 2 or key in parts.layers.placeholders:
            has_default = flow.type(key) == "PlaceholderWithDefault" and not must_be_fed(flow.nodes, flow.nodes[key])
            needed = key in for_first and not has_default
            found.append((rank, flow.fetches(key)[0], needed, f"{why}; has a default" if has_default else why))
    held = chain.from_iterable(held_switches(flow.graph, for_first).values())
    found += [(1, f"{key}:0", False, "mode switch that a variable holds") for key in held]
    return [(tensor, needed, why) for _, tensor, needed, why in sorted(found, key=lambda item: item[0])]
