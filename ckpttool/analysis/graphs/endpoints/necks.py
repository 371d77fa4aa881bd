"""Where a graph is narrow: what all that is learned passes on its way to the loss.

    x ─▶ layers ─▶ picture ─┬─▶ fixed layers ─▶ … ─┬─▶ loss
                            └─▶ differences ───────┘

The last such op is an output: the picture, and not what is made of it to judge it.
"""

from collections.abc import Iterable
from itertools import islice

from ckpttool.analysis.graphs.endpoints.flow import Flow
from ckpttool.analysis.graphs.endpoints.layers import Layers
from ckpttool.analysis.graphs.endpoints.losses import Losses
from ckpttool.analysis.graphs.needs import walk

_SUMS = {"Add", "AddV2", "Sub"}
# For each, the graph is walked.
_MOST_SUMS = 10


def neck_of(flow: Flow, layers: Layers, losses: Losses, labeled: set[str], lossy: set[str]) -> str:
    """The last op that all passes before labels join, "" if there is none.

    It is none that is `lossy`, but for that which joins two models. `labeled` are labels, and what comes after these.
    """
    # Weights that labels meet, such as the transitions of a CRF, are the loss's.
    starts = set(layers.meetings(layers.trained - layers.taken_by(losses.learned & labeled)))
    ends = walk(labeled | losses.ops, flow.users, flow.outside) & losses.learned
    stops = flow.of_types("StopGradient".__eq__)
    way = walk(starts, flow.users, flow.outside | stops) & losses.back_to("StopGradient", "NextIteration")
    found = _necks(flow, way - ends, starts, ends)
    sums = set(islice((key for key in found if key in lossy and _is_sum(flow, layers, key, labeled)), _MOST_SUMS))
    neck = next((k for k in found if k not in lossy or (k in sums and _joins_models(flow, layers, k))), "")
    behind = walk([neck], flow.users, flow.outside) - {neck}
    return "" if behind & starts else neck


def _is_sum(flow: Flow, layers: Layers, key: str, labeled: set[str]) -> bool:
    """Whether it is a sum of two ops that are reached, with which a label is compared."""
    is_compared = any(user in labeled for user in flow.users.get(key, ())) and flow.tensor(key).shape != ()
    inputs = flow.inputs[key]
    return flow.type(key) in _SUMS and is_compared and len(inputs) == 2 and layers.reached.issuperset(inputs)


def _joins_models(flow: Flow, layers: Layers, key: str) -> bool:
    """Whether a sum is one of two models' results, as in "wide and deep", or of what a model adds to what was fed."""
    first, second = (walk([near], flow.inputs, flow.outside) & layers.trained for near in flow.inputs[key])
    return bool(first - second and second - first) or (flow.type(key) != "Sub" and not (first and second))


def _necks(flow: Flow, way: set[str], starts: Iterable[str], ends: set[str]) -> list[str]:
    """Of the ops of a way, which has no loops, those that every path from `starts` to `ends` passes; the last first.

    Where each op comes after what it takes, these are the ones that no edge leads past.
    """
    left = {key: sum(near in way for near in dict.fromkeys(flow.inputs[key])) for key in way}
    users = {key: [user for user in flow.users.get(key, ()) if user in way] for key in way}
    order = [key for key in way if not left[key]]
    last_start = len(order) - 1
    for key in order:
        for user in users[key]:
            left[user] -= 1
            if not left[user]:
                order.append(user)
    if len(order) < len(way):  # A cycle.
        return []
    places = {key: place for place, key in enumerate(order)}
    farthest = max([last_start, *(places[key] for key in starts if key in way)])
    found = []
    for place, key in enumerate(order):
        if place >= farthest:
            found.append(key)
        is_last = any(user in ends for user in flow.users.get(key, ()))
        farthest = len(order) if is_last else max([farthest, *(places[user] for user in users[key])])
    return found[::-1]
