"""The models of Keras in an object graph: which objects are models, with which layers, and which are within others.

    root ─▶ layer_with_weights-1 (a model: has layers itself) ─▶ layer_with_weights-0 ─▶ kernel
      └───▶ variables ─▶ 3, which is that kernel again: lists lead around the layers

(tf_keras/src/engine/functional.py _trackable_children, keras/src/models/functional.py)
"""

import re

from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.object_graph import ObjectGraph

# What a model calls its layers, in Keras 2 one by one and in Keras 3 the list of them.
_WITH_WEIGHTS = re.compile(r"layer_with_weights-\d+")
_LAYER = re.compile(r"layer(?:_with_weights)?-\d+")
_LAYERS = {"_operations", "_layers"}
_FUNCTIONAL = "_functional"  # In a Sequential of Keras 3.
LISTS = {"keras_api", "variables", "trainable_variables", "non_trainable_variables"}
"""Children of a model or layer that list all that is below it."""
# A list of layers belongs to a model and to parts of it; in a hostile graph, to any number of objects.
_MOST_READS = 8


class Models:
    """The models of an object graph.

    Attributes:
        graph: the object graph.
        layers: object that is a model → its layers.
        outer: the models that are within no other.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        self.graph = graph
        self.layers = _all_layers(graph)
        self._beside = _beside(graph)
        self._of_no_layer = walk([0], self._beside)
        self.outer = sorted(self._of_no_layer & self.layers.keys())

    def inner_keys(self) -> list[str]:
        """The keys of the values in layers that only a model within a model has."""
        graph, models = self.graph, self.layers.keys()
        layers = {layer for model in self.outer for layer in self.layers[model]}
        own = walk(layers - models, self._beside, without=models)
        below = walk(layers, {node: [child for _, child in graph.children(node)] for node in range(len(graph))})
        return [attribute.key for node in below - own - self._of_no_layer for attribute in graph.attributes(node)]


def _all_layers(graph: ObjectGraph) -> dict[int, list[int]]:
    """Object that is a model → its layers; empty if too many objects share long lists."""
    models, left = dict[int, list[int]](), _MOST_READS * extent(graph)
    for node in range(len(graph)):
        layers, steps = _layers(graph, node)
        left -= steps
        if left < 0:
            return {}
        if layers:
            models[node] = layers
    return models


def extent(graph: ObjectGraph) -> int:
    """How many objects and children a walk through the whole graph meets."""
    return sum(1 + len(graph.children(node)) for node in range(len(graph)))


def _beside(graph: ObjectGraph) -> dict[int, list[int]]:
    """Object → its children that are not its layers; without those of optimizers, which have what they train."""
    nodes = range(len(graph))
    beside = {node: [child for name, child in graph.children(node) if not _leads_below(name)] for node in nodes}
    return beside | {optimizer: [] for optimizer in graph.optimizers}


def _layers(graph: ObjectGraph, node: int) -> tuple[list[int], int]:
    """The layers of an object in order, if it is a model, and how many children were looked at.

    Keras 2 numbers the layers with weights, and again all layers, so that layers without weights may come last.
    """
    children = graph.children(node)
    inside = {child for name, child in children if name == _FUNCTIONAL}
    lists = {child: None for each in (node, *inside) for name, child in graph.children(each) if name in _LAYERS}
    layers = [layer for listed in lists for _, layer in sorted(graph.children(listed), key=number_of)]
    named = sorted((child for child in children if _LAYER.fullmatch(child[0])), key=number_of)
    layers += [layer for name, layer in named if _WITH_WEIGHTS.fullmatch(name)] + [layer for _, layer in named]
    steps = sum(len(graph.children(each)) for each in (node, *inside, *lists))
    return list(dict.fromkeys(layers)), steps


def is_of_keras_3(graph: ObjectGraph, model: int) -> bool:
    """Whether a model is of Keras 3."""
    return any(name in _LAYERS or name == _FUNCTIONAL for name, _ in graph.children(model))


def has_several_with_weights(graph: ObjectGraph, model: int) -> bool:
    """Whether Keras 2 numbered several layers with weights, even if these are gone."""
    return len({layer for name, layer in graph.children(model) if _WITH_WEIGHTS.fullmatch(name)}) > 1


def number_of(child: tuple[str, int]) -> tuple[int, str]:
    """A key for sorting, by which layer-2 comes before layer-10."""
    number = child[0].rpartition("-")[2]
    return len(number), number


def _leads_below(name: str) -> bool:
    """Whether a child of this name is a layer, or may belong to one."""
    return name in _LAYERS | LISTS or _LAYER.fullmatch(name) is not None
