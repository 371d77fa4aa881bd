"""The layer of Keras that a variable is a weight of."""

from typing import NamedTuple


class Layer(NamedTuple):
    """The layer of Keras that a weight is of, where the source tells.

    Attributes:
        name: the layer's.
        rank: the weight's place in its model: the layer's number (0: not known), and its own in the layer; None: not
            known.
        scope: what the variable's name begins with instead of the layer's name; "" if it begins with that name.
        weight: the variable's name in the source: once renamed, it may be meant for another layer.
        is_guess: the source does not have the layer's name.
    """

    name: str
    rank: tuple[int, int] | None
    scope: str = ""
    weight: str | None = None
    is_guess: bool = False


OF_OPTIMIZER = Layer("", None)
"""In the place of a layer: the source says that the variable is an optimizer's."""
