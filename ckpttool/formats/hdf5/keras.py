"""HDF5 as Keras reads and writes weights: a group for each layer; lists of the layers, and of each layer's weights.

    /            layer_names = [b"dense"]   backend = b"tensorflow"   keras_version
    /dense       weight_names = [b"dense/kernel:0", b"dense/bias:0"]
    /dense/dense/kernel:0   /dense/dense/bias:0

Keras matches layers by name or by position, and the weights of a layer by their order (formats.hdf5.weight_order).
Keras' own HDF5 lists layers and weights in order. An object graph has the order of weights: an object's own variables
come before those of its parts. Where nothing tells the order, it is a guess, and the user is told so.

A weight's name does not say which layer has it: `block/dense/kernel` may be a weight of `block` (which made a `dense`
of its own) or of `block/dense` (whose name has a slash). So every scope is listed as a layer, those within others by
hard links to the same datasets; Keras takes the layers that its model has. If all names begin with the same scope, that
may be the model's own name, so the scopes within it are listed as layers without it, too. Keras' own HDF5 tells the
layer, and so does an object graph, if it has a single model: unless the weight has been renamed since, this layer is
the only one that lists it, and layers can be loaded by position, too. Optimizers' slots and global steps, which no
layer has, are left out.

The weights of a model within a model, and of a model in TimeDistributed, have nothing of the outer layer's name in
theirs. Keras finds that layer by its name if the source is Keras' own HDF5, and only by its position if it is an object
graph.

(tf_keras/src/saving/legacy/hdf5_format.py, keras/src/legacy/saving/legacy_h5_format.py)
"""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any

from ckpttool.errors import ConversionError
from ckpttool.formats.hdf5.encoding.groups import Group
from ckpttool.formats.hdf5.encoding.messages import ascii_type, attribute
from ckpttool.formats.hdf5.model_layers import ModelLayer, doubts_of_inner_models, layers_of_model, names_in_layers
from ckpttool.formats.hdf5.models import Models
from ckpttool.formats.hdf5.names import dataset_path
from ckpttool.formats.hdf5.weight_order import NUMBERED, Weight, in_order, is_guess, natural
from ckpttool.formats.plan import Planned
from ckpttool.formats.saved_model.layer_names import layer_names
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, VALUE
from ckpttool.model.roles import roles_of
from ckpttool.model.variable import Variable

# An attribute holds no more bytes; Keras cuts its lists to this size, too.
_MAX_ATTRIBUTE = 64_512
_MAX_SCOPES = 100
_LONG = 4096
# Readers only ask whether this is a version of Keras 1.
_KERAS_VERSION = b"2.15.0"


def keras_places(checkpoint: Checkpoint) -> list[Planned]:
    """Where each weight goes; a variable that is no weight of a layer, or has no layer in its name, has a problem.

    The plan has no object graph, from which names are taken, and no weight that is stored a second time.

    Raises:
        ConversionError: two different weights have one name: names in an object graph need not be unique.
    """
    # A variable that was given another name keeps that.
    places = {name: place for name, place in checkpoint.places.items() if name.endswith(VALUE)}
    known = _roles(checkpoint)
    names = {name: place.full_name for name, place in places.items() if place.full_name}
    models = _models(checkpoint)
    told = _told_layers(models, checkpoint, known)
    names |= names_in_layers(told, names)
    variables = (variable for name, variable in checkpoint.items() if name != OBJECT_GRAPH_KEY)
    plan = [_place(each, names.get(each.name, each.name), known.get(each.name)) for each in variables]
    plan = _each_once(plan, _ranks(checkpoint))
    doubts = doubts_of_inner_models(models, told) if models and places else {}
    for weights in _layers(plan, checkpoint, told).values():
        if is_guess(weights):
            doubt = "its place among the weights of its layer is a guess, and Keras goes by it"
            doubts |= dict.fromkeys((weight.name for weight in weights), doubt)
    doubts |= _doubts_of_names(checkpoint)
    return [p if p.problem else p._replace(doubt=doubts.get(p.variable.name)) for p in plan]


def _doubts_of_names(checkpoint: Checkpoint) -> dict[str, str]:
    """The weights in a `.weights.h5` of layers whose names are not stored: layers/dense_1 is just the second Dense."""
    found = {}
    for name in filter(NUMBERED.search, checkpoint):
        layer = checkpoint[name].layer
        if layer is None or layer.is_guess:
            taken = ", that of a first model without names is taken" if layer is not None else ""
            found[name] = f"the name of its layer is not stored{taken}, and Keras goes by it"
    return found


def _models(checkpoint: Checkpoint) -> Models | None:
    graph = checkpoint.object_graph if checkpoint.places else None
    return Models(graph) if graph else None


def _told_layers(models: Models | None, checkpoint: Checkpoint, known: Mapping[str, str]) -> list[ModelLayer]:
    """The layers that an object graph tells of.

    Args:
        models: the models of the graph, if there is one.
        checkpoint: the checkpoint.
        known: the variables that are no weights, with their roles.
    """
    full = {key: place.full_name for key, place in checkpoint.places.items() if key.endswith(VALUE)}
    names = {key: name for key, name in full.items() if key not in known and _may_be_told(name)}
    return layers_of_model(models, names, layer_names(checkpoint.path)) if models else []


def _may_be_told(name: str) -> bool:
    """Whether a name is not empty, and not so long that repeating it in every layer with this weight takes too much."""
    return 0 < len(name) < _LONG and name.count("/") < _MAX_SCOPES


def _place(variable: Variable, name: str, role: str | None) -> Planned:
    if role is not None or name.rpartition("/")[2] == "global_step":
        return Planned(variable, "", f"no weight of a layer: {role or 'global step'}")
    layer = variable.layer
    if layer is not None and layer.scope and name.startswith(f"{layer.scope}/"):
        name = layer.name + name[len(layer.scope) :]
    elif layer is not None and "/" not in name:
        name = f"{layer.name}/{name}"
    first, slash, _ = name.partition("/")
    if not slash or not first:
        return Planned(variable, "", "its name has no layer in front")
    depth = name.count("/") + 1
    if depth > _MAX_SCOPES:  # Each scope is a layer, with the whole name below it.
        what = f"it is within {depth:,} scopes: no layer of Keras is within more than {_MAX_SCOPES}"
        return Planned(variable, "", what)
    return Planned(variable, dataset_path(f"{first}/{name}"))


def _each_once(plan: Sequence[Planned], ranks: Mapping[str, tuple[int, int]]) -> list[Planned]:
    """The plan with only the first weight for each place: Keras 3 exports all twice, the second time in no order."""
    first: dict[str, Variable] = {}
    for planned in sorted(plan, key=lambda planned: ranks.get(planned.variable.name, ())):
        kept = planned.variable if planned.problem else first.setdefault(planned.target, planned.variable)
        if kept is not planned.variable and not _is_same(kept, planned.variable):
            what = f"{kept.name!r} and {planned.variable.name!r} would both be the weight {_weight(planned.target)}"
            raise ConversionError(what, hint="--exclude one of them")
    return [planned for planned in plan if planned.problem or first[planned.target] is planned.variable]


def _is_same(one: Variable, other: Variable) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    if one.dtype.itemsize is None:
        return one.strings() == other.strings()
    return all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(one.blocks(), other.blocks(), strict=True))


def _roles(checkpoint: Checkpoint) -> dict[str, str]:
    return {name: role.text for name, role in roles_of(checkpoint, checkpoint.object_graph).items()}


def _ranks(checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """The rank (see `Layer`) of each variable whose place among the model's weights is known."""
    layers = {name: variable.layer for name, variable in checkpoint.items() if variable.layer is not None}
    found = {name: layer.rank for name, layer in layers.items() if layer.rank is not None}
    if graph := checkpoint.object_graph:
        for number, node in enumerate(graph.as_made()):
            found |= {each.key: (number, 0) for each in graph.attributes(node) if each.key in checkpoint}
    return found


def link_keras_weights(root: Group, plan: Sequence[Planned], checkpoint: Checkpoint) -> dict[str, list[str]]:
    """Makes the groups of the layers, with the attributes by which Keras finds everything.

    Returns:
        Path of a dataset → the other paths that lead to it.
    """
    links: dict[str, list[str]] = {}
    targets = {_weight(planned.target): planned.target for planned in plan}
    layers = _layers(plan, checkpoint, _told_layers(_models(checkpoint), checkpoint, _roles(checkpoint)))
    for layer, weights in layers.items():
        for weight in weights:
            path, target = f"{layer}/{weight.path}", targets[weight.path]
            if path != target:
                links.setdefault(target, []).append(path)
    root.attributes += _list(b"layer_names", list(layers))
    for name, value in (b"backend", b"tensorflow"), (b"keras_version", _KERAS_VERSION):
        root.attributes.append(attribute(name, ascii_type(len(value)), (), value))
    for layer, weights in layers.items():
        listed = _list(b"weight_names", [weight.path for weight in in_order(weights)])
        root.at(layer.encode().split(b"/")).attributes += listed
    return links


def _layers(plan: Sequence[Planned], checkpoint: Checkpoint, told: Sequence[ModelLayer]) -> dict[str, list[Weight]]:
    """Possible layer → its weights; the layers in the order of their model, as far as that is known.

    Args:
        plan: where the weights go.
        checkpoint: the checkpoint that has them.
        told: the layers that are known.
    """
    of_model: dict[str, list[tuple[str, tuple[int, int]]]] = {}
    for number, known in enumerate(told):
        layer = dataset_path(f"{known.name}/").rpartition("/")[0]
        for rank, key in enumerate(known.keys):
            of_model.setdefault(key, []).append((layer, (number, rank)))
    ranks, layers = _ranks(checkpoint), dict[str, list[Weight]]()
    kept = [planned for planned in plan if not planned.problem]
    taken = {planned.target for planned in kept}
    heads = {tuple(_weight(planned.target).split("/")[:2]) for planned in kept}
    has_model_name = len({head[0] for head in heads}) == 1 and not any(head[1].endswith(":0") for head in heads)
    for planned in kept:
        name, path = planned.variable.name, _weight(planned.target)
        found = [(layer, Weight(name, path, 1, rank)) for layer, rank in of_model.get(name, ())]
        if not found:
            depths = _possible_layers(planned, has_model_name=has_model_name)
            found = [(layer, Weight(name, path, depth, ranks.get(name))) for layer, depth in depths.items()]
        for layer, weight in found:
            target = f"{layer}/{path}"
            # The name may repeat itself, as in a/a/a/kernel.
            if target == planned.target or target not in taken:
                taken.add(target)
                layers.setdefault(layer, []).append(weight)
    return dict(sorted(layers.items(), key=lambda layer: _first(layer[1], checkpoint)))


def _possible_layers(planned: Planned, *, has_model_name: bool) -> dict[str, int]:
    """Layer that may have a weight → how many scopes of the weight's name are the layer's.

    If the source tells the layer, it is the only one.
    """
    variable, path = planned.variable, _weight(planned.target)
    layer = variable.layer
    *parts, _ = path.split("/")
    scopes = {"/".join(parts[:end]): end for end in range(1, len(parts) + 1)}
    inner = {"/".join(parts[1:end]): end for end in range(2, len(parts) + 1)} if has_model_name else {}
    own = {} if layer is None else {dataset_path(layer.name).removesuffix(":0"): 1}
    # If the weight was renamed, its layer may be the one that it had, or the one that its new name begins with.
    is_told = layer is not None and (layer.weight == variable.name or scopes.keys() & own.keys())
    return own if is_told else own | inner | scopes


def _first(weights: Sequence[Weight], checkpoint: Checkpoint) -> tuple[Any, ...]:
    """A key that sorts layers in the order of their model, as far as known: in a `.weights.h5`, within each class."""
    layer = checkpoint[weights[0].name].layer
    rank = min((weight.rank for weight in weights if weight.rank is not None), default=(inf,))
    return rank[0], natural(layer.scope if layer is not None else ""), rank


def _weight(target: str) -> str:
    """The path of a weight within its layer's group."""
    return target.partition("/")[2]


def _list(name: bytes, texts: Sequence[str]) -> Iterator[bytes]:
    """A list of texts as an attribute; a list that is too long is several: name0, name1, …"""
    data = [text.encode() for text in texts]
    width = max(map(len, data), default=1)
    most = max(1, _MAX_ATTRIBUTE // width)
    for number, start in enumerate(range(0, max(1, len(data)), most)):
        part = data[start : start + most]
        values = b"".join(text.ljust(width, b"\0") for text in part)
        yield attribute(
            name if len(data) <= most else b"%s%d" % (name, number), ascii_type(width), (len(part),), values
        )
