"""The necks of a graph: the ops through which all that is learned passes on its way to the loss.

    x ─▶ layers ─▶ picture ─┬─▶ fixed layers ─▶ … ─┬─▶ loss
                            └─▶ differences ───────┘

The last neck is an output: the picture, and not what is made of it to judge it.
"""

from collections.abc import Iterable
from itertools import islice

from ckpttool.analysis.graphs.endpoints.flow import Flow
from ckpttool.analysis.graphs.endpoints.layers import Layers
from ckpttool.analysis.graphs.endpoints.losses import Losses
from ckpttool.analysis.graphs.needs import walk

_SUMS = {"Add", "AddV2", "Sub"}
# The graph is walked for each.
_MOST_SUMS = 10


def neck_of(flow: Flow, layers: Layers, losses: Losses, labeled: set[str], lossy: set[str]) -> str:
    """The last op that everything passes before labels join; "" if there is none.

    It is not one of `lossy`, unless it joins two models. `labeled` are the labels, and what comes after them.
    """
    # Weights that labels meet, such as the transitions of a CRF, belong to the loss.
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
    """Whether an op is a sum of two ops that are reached, and is compared with a label."""
    is_compared = any(user in labeled for user in flow.users.get(key, ())) and flow.tensor(key).shape != ()
    inputs = flow.inputs[key]
    return flow.type(key) in _SUMS and is_compared and len(inputs) == 2 and layers.reached.issuperset(inputs)


def _joins_models(flow: Flow, layers: Layers, key: str) -> bool:
    """Whether a sum joins the results of two models, as in "wide and deep", or what was fed and a model's addition."""
    first, second = (walk([near], flow.inputs, flow.outside) & layers.trained for near in flow.inputs[key])
    return bool(first - second and second - first) or (flow.type(key) != "Sub" and not (first and second))


def _necks(flow: Flow, way: set[str], starts: Iterable[str], ends: set[str]) -> list[str]:
    """The ops of a way that every path from `starts` to `ends` passes, the last first; none if the way has a cycle.

    In an order where each op comes after those that it takes from, they are the ops that no edge leads past.
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
