"""The order of a layer's weights, by which Keras loads them: as the layer made them, those that are not trained last.

If the source does not tell it, the names of weights in Keras' own layers and their parts may:

    dense/kernel   dense/bias        lstm/forward_lstm/kernel   lstm/backward_lstm/kernel        known
    mine/alice     mine/bob                                                                      a guess
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

NOT_TRAINED = (
    *("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_mean_weight"),
    *("renorm_stddev", "renorm_stddev_weight", "vector_u"),
)
"""Names of weights that are not trained: in a layer, they come after those that are."""

NUMBERED = re.compile(r"/vars/[0-9]+$")
"""The end of a weight's name in Keras 3's `.weights.h5`."""

# The weights of Keras' layers in the order in which layers make them; and the layers within layers.
_WEIGHTS = [
    *("embeddings", "gamma", "beta", "depthwise_kernel", "pointwise_kernel", "kernel", "recurrent_kernel", "bias"),
    *("alpha", *NOT_TRAINED, "mean", "variance", "count"),
]
_PARTS = ["forward", "query", "key", "value", "attention_output", "output_dense", "backward"]


class Weight(NamedTuple):
    """A weight of a layer: the variable's name, its path in the layer's group, how many scopes of that are the layer's,
    its rank.
    """

    name: str
    path: str
    depth: int
    rank: tuple[int, int] | None


def in_order(weights: Sequence[Weight]) -> list[Weight]:
    """The weights of a layer in the order in which it made them, as far as that is known."""
    ranks = {weight.path: weight.rank for weight in weights if weight.rank is not None}
    if len(ranks) < len(weights):
        return sorted(weights, key=_order)
    last = {path for path in ranks if path.rpartition("/")[2].removesuffix(":0") in NOT_TRAINED}
    if len({layer for layer, _ in ranks.values()}) == 1:  # The source has this layer, with a list of all in order.
        last.clear()
    return sorted(weights, key=lambda weight: (weight.path in last, ranks[weight.path]))


def is_guess(weights: Sequence[Weight]) -> bool:
    """Whether the order of a layer's weights is a guess."""
    if all(weight.rank is not None for weight in weights):
        return False
    return _is_of_parts(weights) or any(_only_letters_tell(one, other) for one, other in pairwise(in_order(weights)))


def _is_of_parts(weights: Sequence[Weight]) -> bool:
    """Whether the weights are those of several objects in a `.weights.h5`, which does not say which are not trained and
    so come last; except for parts of which all are trained.
    """
    groups = {weight.path.rpartition("/")[0] for weight in weights if NUMBERED.search(weight.path.removesuffix(":0"))}
    known = (any(_part(scope) >= 0 for scope in group.split("/")) for group in groups)
    return len(groups) > 1 and not all(known)


def _order(weight: Weight) -> tuple[Any, ...]:
    """The place of a weight among those of its layer, by its name."""
    *parts, last = weight.path.removesuffix(":0").split("/")[weight.depth :]
    made = [(_part(part), natural(part)) for part in parts]
    rank = _WEIGHTS.index(last) if last in _WEIGHTS else len(_WEIGHTS)
    return last in NOT_TRAINED, made, rank, natural(last)


def _part(scope: str) -> int:
    """`forward_lstm`, `attention_output`, `kernel_1`: what is known of them is how they begin."""
    return next((i for i, known in enumerate(_PARTS) if scope.startswith(known)), -1)


def _only_letters_tell(one: Weight, other: Weight) -> bool:
    """Whether only the alphabet says which of two weights comes first."""
    *parts, last = one.path.split("/")[one.depth :]
    *others, other_last = other.path.split("/")[other.depth :]
    if parts[: len(others)] == others[: len(parts)]:
        if len(parts) != len(others):  # The own weights of a layer come before those of its parts.
            return False
        one_name, other_name = last.removesuffix(":0"), other_last.removesuffix(":0")
        return not (one_name in _WEIGHTS and other_name in _WEIGHTS) and _letters(one_name) != _letters(other_name)
    a, b = next((a, b) for a, b in zip(parts, others, strict=False) if a != b)
    return (_part(a) < 0 or _part(b) < 0) and _letters(a) != _letters(b)


def _letters(name: str) -> str:
    """A name without the number that tells it from others."""
    stem = name.rstrip("0123456789")
    return name if stem == name else stem.removesuffix("_")


def natural(name: str) -> list[tuple[int, str]]:
    """A key for sorting, by which dense_2 comes before dense_10: the number with fewer digits is first."""
    parts = re.split(r"0*([0-9]+)", name)
    return [(len(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts)]
