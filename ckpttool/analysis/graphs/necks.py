"""Where a graph is narrow: what all that is learned passes on its way to the loss.

    x ─▶ layers ─▶ picture ─┬─▶ fixed layers ─▶ … ─┬─▶ loss
                            └─▶ differences ───────┘

The last such op is an output: the picture, and not what is made of it to judge it.
"""

from collections.abc import Iterable

from ckpttool.analysis.graphs.flow import Flow


def necks(flow: Flow, way: set[str], starts: Iterable[str], ends: set[str]) -> list[str]:
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
