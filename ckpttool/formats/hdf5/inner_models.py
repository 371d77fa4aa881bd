"""What only a model within a model of Keras has, by the object graph.

    root ─▶ layer_with_weights-1 (a model: has layers itself) ─▶ layer_with_weights-0 ─▶ kernel
      └───▶ variables ─▶ 3, which is that kernel again: lists lead around the layers

(tf_keras/src/engine/functional.py _trackable_children, keras/src/models/functional.py)
"""

import re

from ckpttool.analysis.graphs.needs import walk
from ckpttool.model.object_graph import ObjectGraph

# What a model calls its layers, in Keras 2 one by one and in Keras 3 the list of them; and what has of a model or layer
# all that is below it.
_LAYER = re.compile(r"layer(?:_with_weights)?-\d+")
_LAYERS = {"_operations", "_layers"}
_LISTS = {"keras_api", "variables", "trainable_variables", "non_trainable_variables"}


def of_inner_models(graph: ObjectGraph) -> list[str]:
    """The keys of what is stored of layers that only a model within a model has."""
    nodes = range(len(graph))
    models = {node: layers_of for node in nodes if (layers_of := _layers(graph, node))}
    beside = {node: [child for name, child in graph.children(node) if not _leads_below(name)] for node in nodes}
    beside |= {optimizer: [] for optimizer in graph.optimizers}  # They have what they train.
    outer = walk([0], beside)
    layers = {layer for model in outer & models.keys() for layer in models[model]}
    own = walk(layers - models.keys(), beside, without=models.keys())
    below = walk(layers, {node: [child for _, child in graph.children(node)] for node in nodes})
    return [attribute.key for node in below - own - outer for attribute in graph.attributes(node)]


def _layers(graph: ObjectGraph, node: int) -> list[int]:
    """The layers of an object, if it is a model."""
    children = graph.children(node)
    listed = [layer for name, child in children if name in _LAYERS for _, layer in graph.children(child)]
    return listed + [child for name, child in children if _LAYER.fullmatch(name)]


def _leads_below(name: str) -> bool:
    """Whether what an object has by this name is a layer of it, or may be one's."""
    return name in _LAYERS | _LISTS or _LAYER.fullmatch(name) is not None
