"""The layers of a model of Keras by the object graph: which weights each has, in which order, and what its name may be.

    root ─▶ layer_with_weights-0 ─▶ forward_layer ─▶ cell ─▶ kernel     both/forward_lstm/lstm_cell/kernel
      │                 └─────────▶ backward_layer ─▶ …                 both/backward_lstm/lstm_cell/kernel
      └───▶ layer_with_weights-1 ─▶ kernel, bias                        block/dense/kernel, block/dense/bias

These are two layers, whatever their weights are called, so that Keras can load them by position. Only SavedModels of
Keras 2 store the name of a layer. Otherwise, it is the scope of the weights that the layer made itself, `block/dense`,
or the scope that its parts have in common, `both`. Nothing but its weights' names tells the name of a model within the
model.

(tf_keras/src/engine/functional.py _trackable_children, keras/src/models/functional.py)
"""

import re
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from ckpttool.formats.hdf5.models import LISTS, Models, extent, has_several_with_weights, is_of_keras_3, number_of
from ckpttool.formats.hdf5.weight_order import NOT_TRAINED
from ckpttool.model.object_graph import ObjectGraph
from ckpttool.model.object_keys import VALUE

# What Keras 2 calls a model that is given no name.
_MODEL = re.compile(r"(?:sequential|model|functional)(?:_\d+)?")
# Layers may share what is below them, so that it is walked again and again: so many times the graph at most.
_MOST_WALKS = 50

_Scope = tuple[str, ...]


class ModelLayer(NamedTuple):
    """A layer with weights.

    Attributes:
        name: the layer's name, or what that may be.
        keys: the keys of its weights, in the order in which Keras stores them.
        has_models: it is a model itself, or has one, and its name is not stored.
    """

    name: str
    keys: Sequence[str]
    has_models: bool


def layers_of_model(models: Models, names: Mapping[str, str], known: Mapping[int, str]) -> list[ModelLayer]:
    """The layers that have weights, in the order of their model; none if there is no such model, or several.

    Args:
        models: the models of the object graph.
        names: the full names of the weights, by their keys. If only a model within the model has them, though Keras 2
            says that other layers had weights, too, the layers are those of the inner model.
        known: object → its name, if that is known.
    """
    graph, layers_of = models.graph, models.layers
    walked = _Walked(graph)
    candidates, entered = models.outer, set[int]()
    while True:
        below = walked.below({layer for model in candidates for layer in layers_of[model]})
        kept = {layer: [key for key in _keys(graph, nodes) if key in names] for layer, nodes in below.items()}
        found = {tuple(layer for layer in layers_of[model] if kept[layer]): model for model in candidates}
        found.pop((), None)
        if len(found) != 1:
            return []
        ((layers, model),) = found.items()
        entered.add(model)
        is_inner = len(layers) == 1 and layers[0] in layers_of.keys() - entered
        if not is_inner or not has_several_with_weights(graph, model):
            break
        candidates = [*layers]
    ordered = [_ordered(graph, layer, kept[layer], names) for layer in layers]
    stored = [known[layer] for layer in layers if known.get(layer)]
    if len(set(stored)) == len(layers):
        return [ModelLayer(name, found, has_models=False) for name, found in zip(stored, ordered, strict=True)]
    of_keras_3 = any(is_of_keras_3(graph, model) for model in models.outer)
    scopes = {key: tuple(name.split("/")[:-1]) for key, name in names.items()}
    told = [_told(graph, layer, {key: scopes[key] for key in kept[layer]}, layer in layers_of) for layer in layers]
    has_models = [not layers_of.keys().isdisjoint(below[layer]) for layer in layers]
    possible = _names(told, of_keras_3=of_keras_3)
    return [ModelLayer(*layer) for layer in zip(possible, ordered, has_models, strict=False)]


class _Walked:
    """A graph, and a limit to how much of it is walked."""

    def __init__(self, graph: ObjectGraph) -> None:
        self._graph = graph
        self._budget = _MOST_WALKS * extent(graph)

    def below(self, layers: Collection[int]) -> dict[int, list[int]]:
        """The objects below each layer, in the order in which they were made; none for any if they are too many."""
        found: dict[int, list[int]] = {layer: [] for layer in layers}
        for layer in layers:
            nodes = self._graph.as_made(layer)
            self._budget -= sum(1 + len(self._graph.children(node)) for node in nodes)
            if self._budget < 0:
                return {layer: [] for layer in layers}
            found[layer] = nodes
        return found


def _keys(graph: ObjectGraph, nodes: Iterable[int]) -> list[str]:
    attributes = (attribute for node in nodes for attribute in graph.attributes(node))
    return [attribute.key for attribute in attributes if attribute.key.endswith(VALUE)]


def _ordered(graph: ObjectGraph, layer: int, made: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The keys of a layer's weights, in Keras' order: first the trained ones, which a SavedModel lists."""
    lists = {node: None for name, node in graph.children(layer) if name == "trainable_variables"}
    lists = {node: None for node in lists if node not in graph.optimizers}  # Optimizers were not walked.
    if not lists:
        return sorted(made, key=lambda key: names[key].rpartition("/")[2] in NOT_TRAINED)
    listed = (node for each in lists for _, node in sorted(graph.children(each), key=number_of))
    trained = dict.fromkeys(attribute.key for node in listed for attribute in graph.attributes(node))
    return [*(key for key in trained if key in names), *(key for key in made if key not in trained)]


class _Told(NamedTuple):
    """What the names of a layer's weights tell of the layer's name.

    Attributes:
        own: the scope of the weights that the layer made itself; empty if there are none.
        likely: as much of `common` as may be the layer's name.
        common: the scope that all its weights have in common.
    """

    own: _Scope
    likely: _Scope
    common: _Scope

    def without(self, model: str) -> "_Told":
        """The same, without the model's name where a scope begins with it and goes on."""
        return _Told(*(scope[1:] if len(scope) > 1 and scope[0] == model else scope for scope in self))


def _told(graph: ObjectGraph, layer: int, scopes: Mapping[str, _Scope], is_model: bool) -> _Told:
    common = _common(scopes.values())
    if is_model:
        return _Told((), common, common)
    depths = {a.key: depth for node, depth in _depths(graph, layer).items() for a in graph.attributes(node)}
    own = [scope for key, scope in scopes.items() if depths.get(key) == 1]
    # Each object on the way to a weight may be in its name; a cell of TensorFlow 2.0 is not.
    most = max(1, min(len(scope) + 1 - depths.get(key, 1) for key, scope in scopes.items()))
    return _Told(_common(own) if own else (), common[:most], common)


def _depths(graph: ObjectGraph, layer: int) -> dict[int, int]:
    """How many steps it is from a layer to each object below it, not through lists."""
    depths = {layer: 0}
    queue = deque(depths)
    while queue:
        node = queue.popleft()
        for name, child in graph.children(node) if node not in graph.optimizers else ():
            if child not in depths and name not in LISTS:
                depths[child] = depths[node] + 1
                queue.append(child)
    return depths


def _common(scopes: Iterable[_Scope]) -> _Scope:
    first, *others = set(scopes)
    for other in others:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(first, other, strict=False))
        first = tuple(segment for segment, _ in same)
    return first


def _names(layers: Sequence[_Told], *, of_keras_3: bool) -> list[str]:
    """The layers' names, no two the same; none if the scope in front of all may be the model's name or theirs."""
    own = [layer.own for layer in layers if layer.own]
    fronts = {scope[0] for scope in own}
    if len(fronts) == 1 and all(len(scope) == 2 for scope in own):
        (front,) = fronts
        # Layers of Keras 3 have no slash in their names, and those of a Sequential have its name in front.
        if not of_keras_3 and not _MODEL.fullmatch(front):
            return []
        layers = [layer.without(front) for layer in layers]
    names, taken = dict[int, str](), set[str]()
    for number, layer in sorted(enumerate(layers), key=lambda each: not each[1].own):
        possible = (*("/".join(scope) for scope in layer), f"layer_with_weights-{number}")
        name = next((name for name in possible if name and name not in taken), None)
        if name is None:
            return []
        names[number] = name
        taken.add(name)
    return [names[number] for number in range(len(layers))]


def doubts_of_inner_models(models: Models, layers: Sequence[ModelLayer]) -> dict[str, str]:
    """Key of a weight in a model within the model → why its layer is in doubt."""
    what = "its layer is that of a model within the model, whose name no object graph has"
    doubts = dict.fromkeys(models.inner_keys(), what)
    doubts |= {key: f"{what}: Keras finds it by position" for layer in layers if layer.has_models for key in layer.keys}
    named = {key for layer in layers if not layer.has_models for key in layer.keys}
    return {key: doubt for key, doubt in doubts.items() if key not in named}


def names_in_layers(layers: Sequence[ModelLayer], names: Mapping[str, str]) -> dict[str, str]:
    """Key → name with the layer in front, for weights without a scope in their names, or with the name of another."""
    layer_of = {key: layer.name for layer in layers for key in layer.keys}
    counts, in_layers = Counter(names.values()), Counter(names[key] for key in layer_of)
    again = {name for name, count in in_layers.items() if count == counts[name] > 1}
    alone = {key: f"{layer}/{names[key]}" for key, layer in layer_of.items() if "/" not in names[key]}
    return alone | {key: layer_of[key] + "/" + key.removesuffix(VALUE) for key in layer_of if names[key] in again}
