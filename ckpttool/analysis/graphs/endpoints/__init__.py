"""What to feed and what to fetch: a graph's inputs and outputs.

Signatures declare them. A training graph has none, so its endpoints are inferred from types and names of ops alone:

    x ─▶ MatMul ─▶ Add ─▶ Softmax ─┬─▶ ArgMax             x: an input; Softmax, ArgMax: likely outputs
          ▲         ▲              └─▶ Log ─▶ Mul ─▶ Mean   Mean: the loss, from which the gradients start
          W         b                  labels ─┘            labels: only the loss needs it

Weights tell inputs from labels: an input meets weights on its way to the loss, a label joins after the last of them.
The modules, in the order in which they build on each other:

    flow ─▶ layers, losses ─▶ labels, necks ─▶ parts ─▶ critics ─▶ candidates ─▶ preference
"""

from functools import cache
from itertools import chain
from typing import NamedTuple

from ckpttool.analysis.graphs.endpoints.candidates import FED, SHOWN, Ranked, candidates, kept_constants, user_members
from ckpttool.analysis.graphs.endpoints.flow import MOST_TENSORS, Flow
from ckpttool.analysis.graphs.endpoints.parts import Parts
from ckpttool.analysis.graphs.endpoints.preference import in_order
from ckpttool.analysis.graphs.needs import must_be_fed, walk
from ckpttool.analysis.graphs.switches import default_flag, held_switches, is_switch
from ckpttool.model.arguments import Shape
from ckpttool.model.dtypes import HANDLES, DType
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.signatures import DEFAULT_SIGNATURE, HIDDEN_SIGNATURES


class Endpoint(NamedTuple):
    """A tensor to feed or to fetch.

    `direction` is "input" or "output"; `signature` and `key` are the signature's name and the argument's, "" if the
    endpoint is inferred; `reason` says why it is listed. Among inferred endpoints, `needed` marks the first output and
    what must be fed to get it; declared ones all have it.
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


def endpoints(graph: MetaGraph) -> list[Endpoint]:
    """What to feed and what to fetch, by the signatures or, without any, inferred, the likeliest output first."""
    require_graph(graph)
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
    likely = candidates(flow, parts)
    members = user_members(flow, parts, likely)
    if not likely and not members:  # Maybe a picture itself is trained, and only what it is compared with is fed.
        parts = Parts(flow, is_fed=False)
        likely = candidates(flow, parts)
    fed = {key: why for key, (rank, why) in members.items() if rank == FED}
    kept = kept_constants(flow) if likely else {}
    chosen = {key: found for key, found in (kept | likely | members).items() if key not in fed}
    instead = _instead_of_pipelines(flow, parts)
    best = _fed_alone_first(flow, in_order(flow, parts, chosen), chosen, instead)
    if best and chosen[best[0]][0][0] < SHOWN:  # Drops numbers that are only shown, such as a layer's share of zeros.
        best = [key for key in best if chosen[key][0][0] < SHOWN or flow.tensor(flow.fetches(key)[0]).shape != ()]
    best = [key for key in best if any(_is_value(flow, tensor) for tensor in flow.fetches(key))]
    outputs = [(tensor, chosen[key][1]) for key in best for tensor in flow.fetches(key) if _is_value(flow, tensor)]
    outputs = outputs[:MOST_TENSORS]
    listed = [("input", *item) for item in _inputs(flow, parts, best, fed, instead)]
    listed += [("output", name, number == 0, why) for number, (name, why) in enumerate(outputs)]
    return [Endpoint(way, "", "", name, *flow.tensor(name), True, needed, why) for way, name, needed, why in listed]


def _is_value(flow: Flow, tensor: str) -> bool:
    """Whether a tensor has a value that can be shown, and not a handle."""
    dtype = flow.tensor(tensor).dtype
    return dtype is None or dtype.name not in HANDLES


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
        if not (signature or fetches):  # No output was inferred.
            continue
        head = f"signature {signature}: " if signature else "to run it: "
        lines.append(f"{head}feed {', '.join(feeds) or 'nothing'} · fetch {', '.join(fetches) or 'nothing'}")
    return lines


def _inputs(
    flow: Flow, parts: Parts, outputs: list[str], fed: dict[str, str], instead: frozenset[str]
) -> list[tuple[str, bool, str]]:
    """The tensors to feed, whether the first output needs them, and why they are listed.

    First come those that the outputs need, then switches, then those needed only for something else, such as the loss.
    """

    @cache  # Often there is one output, and nothing to go around.
    def needed_by(ops: tuple[str, ...], without: frozenset[str] = frozenset()) -> set[str]:
        return walk(ops, flow.needs, without)

    shapes = frozenset(name for name, role in flow.roles.items() if role == "shape")
    first, all_ = tuple(outputs[:1]), tuple(outputs)
    for_first = needed_by(first)
    piped_for_first = set(filter(flow.is_pipeline, needed_by(first, instead)))
    values, past_these = needed_by(all_, shapes), needed_by(all_, shapes | instead)
    before = {role: [name for name in flow.nodes if flow.roles[name] == role] for role in ("update", "queue")}
    rest = {
        "an output needs its shape": needed_by(all_),
        "only the loss needs it": walk(parts.losses.made_of, flow.needs),
        "only training or initialization needs it": walk(before["update"], flow.inputs),
        "tells the input pipeline which iterator to take from": walk(_by_handle(flow), flow.inputs),
        "fills an input queue": walk(before["queue"], flow.inputs),
    }
    found: list[tuple[int, str, bool, str]] = []
    for key in dict.fromkeys([*parts.layers.sources, *fed]):
        why = "an output needs it"
        if flow.is_pipeline(key):
            why = "the input pipeline gives it; it may be fed directly"
        elif key in flow.incomplete:
            why = "an output needs it, and it needs what the graph does not have"
        elif key in parts.layers.noise:
            why = "drawn at random; it may be fed"
        elif key in instead:
            why = "an output needs it; else the input pipeline gives it"
        rank, why = 0, fed.get(key) or why
        if key not in (past_these if flow.is_pipeline(key) else values) and key not in fed:
            rank, why = 2, next((why for why, keys in rest.items() if key in keys), "no listed output needs it")
        elif is_switch(key, flow.tensor(key)):
            rank, why = 1, f"{why}; dropout or mode switch"
        if rank < 2 or key in parts.layers.placeholders or key in piped_for_first:
            has_default = _has_default(flow, key) and (rank == 2 or key not in instead)
            is_for_first = key in (piped_for_first if flow.is_pipeline(key) else for_first)
            needed = is_for_first and not has_default and key not in parts.layers.noise
            why += f"; has a default{_which(flow, key)}" if has_default else ""
            found.append((rank, flow.fetches(key)[0], needed, why))
    held = chain.from_iterable(held_switches(flow.graph, for_first).values())
    found += [(1, f"{key}:0", False, "mode switch that a variable holds") for key in held]
    return [(tensor, needed, why) for _, tensor, needed, why in sorted(found, key=lambda item: item[0])]


def _instead_of_pipelines(flow: Flow, parts: Parts) -> frozenset[str]:
    """The placeholders before all layers whose defaults come from a pipeline: they may be fed in its place."""
    piped = walk(filter(flow.is_pipeline, parts.layers.sources), flow.users, flow.outside)
    before = piped & parts.layers.placeholders.keys() - parts.layers.weighted
    return frozenset(key for key in before if _has_default(flow, key))


def _fed_alone_first(flow: Flow, best: list[str], chosen: Ranked, instead: frozenset[str]) -> list[str]:
    """`best`, but first an op that needs no pipeline once `instead` is fed, if one ranks like the best."""
    alike = [key for key in best if chosen[key][0][0] == chosen[best[0]][0][0]] if instead else []
    needs = ((key, walk([key], flow.needs, instead)) for key in alike)
    first = next((key for key, ops in needs if not any(map(flow.is_pipeline, ops))), None)
    return sorted(best, key=lambda key: key != first) if first else best


def _by_handle(flow: Flow) -> set[str]:
    """The ops that give the iterator that a handle, a string, stands for."""
    return flow.of_types(("IteratorFromStringHandle", "IteratorFromStringHandleV2").__contains__)


def _has_default(flow: Flow, key: str) -> bool:
    return flow.type(key) == "PlaceholderWithDefault" and not must_be_fed(flow.nodes, flow.nodes[key])


def _which(flow: Flow, key: str) -> str:
    """A flag's default, such as ": true": if that means training, the model gives other results."""
    default = default_flag(flow.nodes, flow.nodes[key])
    return "" if default is None else f": {str(default).lower()}"
