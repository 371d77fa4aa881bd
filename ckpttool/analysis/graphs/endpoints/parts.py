"""The parts of a graph, from what is fed to the losses.

    sources ─▶ layers ─▶ neck ─▶ what belongs to losses ─▶ losses
                                   ▲
                                 labels

All that sources reach and that belongs to no loss is the forward path.
"""

import re
from collections.abc import Callable, Iterable, Set

from ckpttool.analysis.graphs.endpoints.flow import OUTPUT_NAME, SCORES, SWITCHES, Flow, is_named, scope_of
from ckpttool.analysis.graphs.endpoints.labels import labels
from ckpttool.analysis.graphs.endpoints.layers import Layers
from ckpttool.analysis.graphs.endpoints.losses import LOSS_MATH, Losses, is_loss
from ckpttool.analysis.graphs.endpoints.necks import neck_of
from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.collections import is_filled

# What tf.nn.l2_normalize calls its result: an embedding, from which distances are computed, and no part of a loss.
_NORMALIZED = re.compile(r"l2_normalize(?:_\d+)?")
# Types of the ops that lead into a loop of TensorFlow 1, and out of it.
_ENTERS, _EXITS = ("Enter", "RefEnter"), ("Exit", "RefExit")
_MERGES = ("Merge", "RefMerge")


class Parts:
    """The parts of a graph.

    Attributes:
        layers: what is fed, and what it goes through.
        losses: the losses, and what they are made of.
        collected: the members of the user's collections.
        shown: what leads to nothing but summaries.
        neck: the last op of the model through which all that is learned passes on its way to the loss; "" if there is
            none.
        lossy: what is reached and belongs to losses alone: labels, and the arithmetic of losses.
        forward: the rest of what is reached.
        looped: what runs within a loop, so that it can't be fetched; and what runs in a branch, so that it has a value
            only if that branch is taken.
    """

    def __init__(self, flow: Flow, *, is_fed: bool = True) -> None:
        self.layers = layers = Layers(flow, is_fed=is_fed)
        self.losses = losses = Losses(flow, layers.reached)
        self.collected = _collected(flow)
        summaries = (name for name, role in flow.roles.items() if role == "summary")
        self.shown = _only_before(summaries, flow, layers.reached.__contains__)
        labeled = walk(labels(flow, layers, losses, self.shown), flow.users, flow.outside)
        self.lossy = self._lossy(flow, labeled)
        self.neck = neck_of(flow, layers, losses, labeled, self.lossy)
        if self.neck:
            behind = walk([self.neck], flow.users, flow.outside) & losses.made_of
            self.lossy |= {key for key in behind if flow.type(key) not in SCORES and not self._is_meant(key)}
            self.lossy -= walk([self.neck], flow.inputs)
        self.forward = layers.reached - self.lossy
        enters, exits = (flow.of_types(types.__contains__) for types in (_ENTERS, _EXITS))
        branches, joins = (flow.of_types(types.__contains__) for types in (SWITCHES, _MERGES))
        self.looped = walk(enters, flow.users, exits) | walk(branches, flow.users, exits | joins)

    def _lossy(self, flow: Flow, labeled: set[str]) -> set[str]:
        """What comes after labels, what shares a scope with the ops where they join, and the arithmetic of losses."""
        layers, losses = self.layers, self.losses
        joins = [key for key in labeled if any(near not in labeled for near in flow.inputs.get(key, ()))]
        joins += [name for name in losses.ops if is_loss(flow.type(name))]
        no_loss = {scope_of(name) for name in layers.body} | {""}
        scopes, own = {scope_of(name) for name in joins} - no_loss, losses.scopes - no_loss
        # A score that no op takes is there to be fetched.
        scores = {name for name in flow.of_types(SCORES.__contains__) if not flow.users.get(name)}
        likely = layers.reached - layers.sources.keys() - scores
        beside = {name for name in likely if scope_of(name) in scopes}
        beside |= {name for name in likely & losses.made_of if scope_of(name) in own}
        lossy = labeled | losses.ops | beside
        # Arithmetic that the model uses too does not belong to the loss.
        return lossy | _only_before(
            lossy, flow, lambda key: key not in lossy and self._is_arithmetic(flow, key), but_for=flow.outside
        )

    def _is_arithmetic(self, flow: Flow, key: str) -> bool:
        return key not in self.layers.body and flow.type(key) in LOSS_MATH and not self._is_meant(key)

    def _is_meant(self, key: str) -> bool:
        return key in self.collected or is_named(OUTPUT_NAME, key) or is_named(_NORMALIZED, key)


def _collected(flow: Flow) -> set[str]:
    collections = (each for each in flow.graph.collections.values() if not is_filled(each.name))
    return {flow.key(member) for each in collections for member in each.members if isinstance(member, str)}


def _only_before(
    ends: Iterable[str], flow: Flow, may_be: Callable[[str], bool], but_for: Set[str] = frozenset()
) -> set[str]:
    """The ops that lead to nothing but `ends`, as far as `may_be` allows them; users in `but_for` do not count."""
    found, left = set[str](), dict[str, int]()
    stack = list(ends)
    while stack:
        for near in dict.fromkeys(flow.inputs.get(stack.pop(), ())):
            if near not in left:
                left[near] = sum(user not in but_for for user in flow.users[near])
            left[near] -= 1
            if not left[near] and may_be(near):
                found.add(near)
                stack.append(near)
    return found
