"""What only a model within a model of Keras has, by the object graph.

    root ─▶ layer_with_weights-1 (a model: has layers itself) ─▶ layer_with_weights-0 ─▶ kernel
      └───▶ variables ─▶ 3, which is that kernel again: lists lead around the layers

(tf_keras/src/engine/functional.py _trackable_children, keras/src/models/functional.py)
"""

import re
from collections.abc import Mapping

from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.object_graph import ObjectGraph

# What a model calls its layers, in Keras 2 one by one and in Keras 3 the list of them; and what has of a model or layer
# all that is below it.
_WITH_WEIGHTS = re.compile(r"layer_with_weights-\d+")
_LAYER = re.compile(r"layer(?:_with_weights)?-\d+")
_LAYERS = {"_operations", "_layers"}
_FUNCTIONAL = "_functional"  # Of a Sequential of Keras 3.
LISTS = {"keras_api", "variables", "trainable_variables", "non_trainable_variables"}


def of_inner_models(graph: ObjectGraph) -> list[str]:
    """The keys of what is stored of layers that only a model within a model has."""
    nodes = range(len(graph))
    models, beside = models_of(graph), _beside(graph)
    outer = walk([0], beside)
    layers = {layer for model in outer & models.keys() for layer in models[model]}
    own = walk(layers - models.keys(), beside, without=models.keys())
    below = walk(layers, {node: [child for _, child in graph.children(node)] for node in nodes})
    return [attribute.key for node in below - own - outer for attribute in graph.attributes(node)]


def models_of(graph: ObjectGraph) -> dict[int, list[int]]:
    """The objects that are models, with their layers."""
    return {node: layers for node in range(len(graph)) if (layers := _layers(graph, node))}


def outer_models(graph: ObjectGraph, models: Mapping[int, list[int]]) -> list[int]:
    """Those of the models that are within no other."""
    return sorted(walk([0], _beside(graph)) & models.keys())


def _beside(graph: ObjectGraph) -> dict[int, list[int]]:
    """What each object has that is no layer of it; optimizers have what they train."""
    nodes = range(len(graph))
    beside = {node: [child for name, child in graph.children(node) if not _leads_below(name)] for node in nodes}
    return beside | {optimizer: [] for optimizer in graph.optimizers}


def _layers(graph: ObjectGraph, node: int) -> list[int]:
    """The layers of an object, if it is a model, in its order, those without weights maybe last: Keras 2 counts them so
    and so.
    """
    children = graph.children(node)
    inside = {child for name, child in children if name == _FUNCTIONAL}
    lists = [child for each in (node, *inside) for name, child in graph.children(each) if name in _LAYERS]
    layers = [layer for listed in dict.fromkeys(lists) for _, layer in sorted(graph.children(listed), key=number_of)]
    named = sorted((child for child in children if _LAYER.fullmatch(child[0])), key=number_of)
    layers += [layer for name, layer in named if _WITH_WEIGHTS.fullmatch(name)] + [layer for _, layer in named]
    return list(dict.fromkeys(layers))


def is_of_keras_3(graph: ObjectGraph, model: int) -> bool:
    """Whether it is Keras 3 that made a model."""
    return any(name in _LAYERS or name == _FUNCTIONAL for name, _ in graph.children(model))


def has_several_with_weights(graph: ObjectGraph, model: int) -> bool:
    """Whether Keras 2 has counted several layers that had weights, whatever is left of these."""
    return len({layer for name, layer in graph.children(model) if _WITH_WEIGHTS.fullmatch(name)}) > 1


def number_of(child: tuple[str, int]) -> tuple[int, str]:
    """By this, layer-2 comes before layer-10."""
    number = child[0].rpartition("-")[2]
    return len(number), number


def _leads_below(name: str) -> bool:
    """Whether what an object has by this name is a layer of it, or may be one's."""
    return name in _LAYERS | LISTS or _LAYER.fullmatch(name) is not None
