"""What the variables that are no weights are for: slots, moving averages, bookkeeping."""

from collections.abc import Collection
from functools import cache
from typing import NamedTuple

from ckpttool.model.averages import averages_of_others
from ckpttool.model.bookkeeping import bookkeeping
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_graph import ObjectGraph
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY
from ckpttool.model.slots import MOVING_AVERAGE, beside_numbered_weights, slot_owners

BOOKKEEPING = "bookkeeping"
"""The total of what is neither trained nor kept by an optimizer."""


class Role(NamedTuple):
    """What a variable that is no weight is for: in words, and in which total it counts."""

    text: str
    total: str


_AVERAGE = Role(MOVING_AVERAGE, "moving averages")


def roles_of(checkpoint: Checkpoint, graph: ObjectGraph | None) -> dict[str, Role]:
    """The variables of a checkpoint that are no weights, with what they are.

    Args:
        checkpoint: all of it: a slot is known by its variable.
        graph: its object graph; None: there is none, or it can't be read.
    """
    return roles(checkpoint.keys(), graph, checkpoint.of_optimizers, averages_of_others(checkpoint))


def roles(
    names: Collection[str],
    graph: ObjectGraph | None = None,
    of_optimizers: Collection[str] = (),
    averages: Collection[str] = (),
) -> dict[str, Role]:
    """The same by names, given those known to be an optimizer's, and those known to be averages of no variable."""
    found = {name: _slot_of(owner) for name, owner in slot_owners(names, graph, of_optimizers).items()}
    found |= {name: Role(text, BOOKKEEPING) for name, text in bookkeeping(names).items()}
    found |= dict.fromkeys(averages, Role("average of no variable", BOOKKEEPING))
    metrics = (name for name, what in beside_numbered_weights(names).items() if what == "metrics")
    found |= dict.fromkeys(metrics, Role("metric", BOOKKEEPING))
    return found | ({OBJECT_GRAPH_KEY: Role("object graph", BOOKKEEPING)} if OBJECT_GRAPH_KEY in names else {})


@cache
def _slot_of(owner: str) -> Role:
    return _AVERAGE if owner == MOVING_AVERAGE else Role(f"{owner} slot", f"slots ({owner})")
