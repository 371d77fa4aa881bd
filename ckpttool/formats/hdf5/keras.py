"""HDF5 as Keras reads and writes weights: a group a layer, lists of the layers and of each one's weights.

    /            layer_names = [b"dense"]   backend = b"tensorflow"   keras_version
    /dense       weight_names = [b"dense/kernel:0", b"dense/bias:0"]
    /dense/dense/kernel:0   /dense/dense/bias:0

Keras matches layers by name, and the weights of a layer by their order, which is that in which the layer made them. No
checkpoint stores either; the tables below know the order for Keras' own layers. A weight's layer is a scope of its
name, and the name does not say which: of `block/dense/kernel` it may be `block` (which made a `dense` of its own) or
`block/dense` (whose name has a slash). So every scope is listed as a layer, those within others by hard links to the
same datasets; Keras takes those that the model has. Where the model's own name stands in front, --strip-prefix takes
that away. What no layer has, optimizers' slots and global steps, is left out.

(tf_keras/src/saving/legacy/hdf5_format.py, keras/src/legacy/saving/legacy_h5_format.py)
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpttool.formats.hdf5.encoding.groups import Group
from ckpttool.formats.hdf5.encoding.messages import ascii_type, attribute
from ckpttool.formats.hdf5.names import dataset_path
from ckpttool.formats.plan import Planned
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY
from ckpttool.model.slots import roles

# The weights of Keras' layers in the order in which layers make them; and the layers within layers.
_WEIGHTS = [
    *("embeddings", "gamma", "beta", "depthwise_kernel", "pointwise_kernel", "kernel", "recurrent_kernel", "bias"),
    *("alpha", "moving_mean", "moving_variance"),
]
_PARTS = ["forward", "query", "key", "value", "attention_output", "backward"]
# What is not trained comes after all that is.
_NOT_TRAINED = {"moving_mean", "moving_variance"}
# An attribute holds no more; Keras cuts its lists so, too.
_MAX_ATTRIBUTE = 64_512
# Readers only ask whether it is that of Keras 1.
_KERAS_VERSION = b"2.15.0"


def keras_places(checkpoint: Checkpoint) -> list[Planned]:
    """Where each weight goes; what is no weight of a layer, or has no layer, is a problem."""
    names, known = _full_names(checkpoint), _roles(checkpoint)
    return [_place(variable, names.get(name, name), known.get(name)) for name, variable in checkpoint.items()]


def _place(variable: Variable, name: str, role: str | None) -> Planned:
    layer, slash, _ = name.partition("/")
    if role is not None or name.rpartition("/")[2] == "global_step":
        return Planned(variable, "", f"no weight of a layer: {role or 'global step'}")
    if not slash or not layer:
        return Planned(variable, "", "its name has no layer in front")
    return Planned(variable, dataset_path(f"{layer}/{name}"))


def _roles(checkpoint: Checkpoint) -> dict[str, str]:
    return {name: role.text for name, role in roles(checkpoint.keys(), checkpoint.object_graph).items()}


def _full_names(checkpoint: Checkpoint) -> Mapping[str, str]:
    """For an object-based checkpoint the variables' names within the model, as Keras gave them."""
    graph = checkpoint.object_graph
    if graph is None:
        return {}
    places = graph.places([name for name in checkpoint if name != OBJECT_GRAPH_KEY])
    return {name: place.full_name for name, place in places.items() if place.full_name}


def link_keras_weights(root: Group, plan: Sequence[Planned]) -> dict[str, list[str]]:
    """Makes the groups of the layers, with the attributes by which Keras finds everything.

    Returns:
        By datasets' paths the other paths that lead to them.
    """
    layers: dict[str, list[str]] = {}
    links: dict[str, list[str]] = {}
    taken = {planned.target for planned in plan}
    for target in (planned.target for planned in plan):
        _, _, weight = target.partition("/")
        for layer in _scopes(weight):
            path = f"{layer}/{weight}"
            if path != target and path in taken:  # The name repeats itself, as in a/a/a/kernel.
                continue
            layers.setdefault(layer, []).append(weight)
            if path != target:
                taken.add(path)
                links.setdefault(target, []).append(path)
    root.attributes += _list(b"layer_names", list(layers))
    for name, value in (b"backend", b"tensorflow"), (b"keras_version", _KERAS_VERSION):
        root.attributes.append(attribute(name, ascii_type(len(value)), (), value))
    for layer, weights in layers.items():
        depth = layer.count("/") + 1
        listed = _list(b"weight_names", sorted(weights, key=lambda weight: _order(weight, depth)))
        root.at(layer.encode().split(b"/")).attributes += listed
    return links


def _scopes(weight: str) -> list[str]:
    """The scopes that a weight is in, the outermost first."""
    *parts, _ = weight.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _order(weight: str, depth: int) -> tuple[Any, ...]:
    """The place of a weight among those of its layer, whose name has `depth` segments."""
    *parts, last = weight.removesuffix(":0").split("/")
    # `forward_lstm`, `attention_output`, `kernel_1`: what is known of them is how they begin.
    ranks = [next((i for i, known in enumerate(_PARTS) if part.startswith(known)), -1) for part in parts[depth:]]
    rank = _WEIGHTS.index(last) if last in _WEIGHTS else len(_WEIGHTS)
    made = [(rank, _natural(part)) for rank, part in zip(ranks, parts[depth:], strict=True)]
    return last in _NOT_TRAINED, made, rank, _natural(last)


def _natural(name: str) -> list[tuple[int, str]]:
    """By this, dense_2 comes before dense_10: of numbers, the one with fewer digits."""
    parts = re.split(r"0*([0-9]+)", name)
    return [(len(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts)]


def _list(name: bytes, texts: Sequence[str]) -> Iterator[bytes]:
    """A list of texts as an attribute; one that is too long as several: name0, name1, …"""
    data = [text.encode() for text in texts]
    width = max(map(len, data), default=1)
    most = max(1, _MAX_ATTRIBUTE // width)
    for number, start in enumerate(range(0, max(1, len(data)), most)):
        part = data[start : start + most]
        values = b"".join(text.ljust(width, b"\0") for text in part)
        yield attribute(
            name if len(data) <= most else b"%s%d" % (name, number), ascii_type(width), (len(part),), values
        )
