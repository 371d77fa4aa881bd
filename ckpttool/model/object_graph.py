"""The object graph of a TensorFlow 2 checkpoint: which object of the program each variable belonged to.

It is a message, TrackableObjectGraph, stored as a string variable of the checkpoint. Node 0 is the root; a node's
children have names, and may be shared or lead back (a graph, not a tree); its attributes are what is stored of it,
each with the checkpoint's key and, where there is one, the name that TensorFlow 1 would have given. Slot variables
stand beside: an optimizer lists (variable, slot's name, slot variable).

(tensorflow/core/protobuf/trackable_object_graph.proto, python/checkpoint/trackable_view.py)
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.errors import CorruptionError
from ckpttool.model.names import counted
from ckpttool.model.object_keys import ATTRIBUTES_IN_KEY, SLOT_IN_KEY, Place, unescape

# Keras 3 lists an optimizer's or a model's variables a second time, by number.
# (keras/src/backend/tensorflow/trackable.py)
_LISTS = {"_variables", "_trainable_variables", "_non_trainable_variables", "_all_variables"}
# The children that make an object an optimizer of Keras 3, or of Keras before: its counter, and one of the others. Any
# single one of them is enough if the object is named as an optimizer.
_OPTIMIZER_CHILDREN = {"_iterations": {"_learning_rate", "_variables"}, "iter": {"learning_rate", "beta_1", "decay"}}
# The one child object that an optimizer of Keras 2 has for itself.
# (tf_keras/src/mixed_precision/loss_scale_optimizer.py)
_LOSS_SCALE = "loss_scale"
# What Keras 2's Adafactor keeps for rows and columns. (tf_keras/src/optimizers/adafactor.py)
_FACTORS = ("_r", "_c")
# The lists in which the new optimizers of TensorFlow 2.9 and 2.10 keep slots. (keras/optimizers/optimizer_experimental)
_OF_SLOTS = (
    *("_momentums", "momentums", "_velocities", "_velocity_hats", "_average_gradients", "_accumulators", "_linears"),
    *("_accumulated_grads", "_accumulated_delta_vars", "_m", "_u", "_model_variables_moving_average"),
)
_HOLDERS = _LISTS | {_LOSS_SCALE, *_FACTORS, *_OF_SLOTS}
_OPTIMIZER_NAMES = {"optimizer", "_optimizer"}


class Attribute(NamedTuple):
    """Something that is stored of an object: its name, the variable's TensorFlow 1 name ("": none), its key."""

    name: str
    full_name: str
    key: str


class _Node(NamedTuple):
    children: list[tuple[str, int]]
    attributes: list[Attribute]
    slots: list[tuple[int, str, int]]


_LONGEST = 500


class Step(NamedTuple):
    """A step of a walk through the graph as a tree: how deep, by which name, to which object, with which path.

    `again` is the path under which the object was shown before, "" if it was not: its children are not repeated.
    """

    depth: int
    name: str
    node: int
    path: str
    again: str


class ObjectGraph:
    """The object graph of a TensorFlow 2 checkpoint.

    Attributes:
        has_own_savers: code that the program registered has saved objects, under names that only that code knows.
            (python/saved_model/registration: register_checkpoint_saver)

    Raises:
        CorruptionError: the bytes are no TrackableObjectGraph, or name an object that is not there.
    """

    def __init__(self, data: bytes) -> None:
        messages = proto.parse("TrackableObjectGraph", data).nodes
        self._nodes = [_node(message) for message in messages]
        self._by_segment: dict[int, dict[str, list[tuple[str, int]]]] = {}
        self.has_own_savers = any(message.HasField("registered_saver") for message in messages)
        count = len(self._nodes)
        for node in self._nodes:
            ids = [child for _, child in node.children]
            ids += [number for variable, _, slot_variable in node.slots for number in (variable, slot_variable)]
            if any(not 0 <= number < count for number in ids):
                raise CorruptionError(f"an object graph of {count} objects names one that is not there")

    def __repr__(self) -> str:
        return f"<ObjectGraph {counted(len(self), 'object')}>"

    def __len__(self) -> int:
        return len(self._nodes)

    def children(self, node: int) -> list[tuple[str, int]]:
        """The names and numbers of an object's children."""
        return self._nodes[node].children

    def _children_by_segment(self, node: int) -> dict[str, list[tuple[str, int]]]:
        """An object's children by the first segments of their names, of which a root may have thousands."""
        if node not in self._by_segment:
            found = self._by_segment[node] = {}
            for name, child in self.children(node):
                found.setdefault(name.partition("/")[0], []).append((name, child))
        return self._by_segment[node]

    def attributes(self, node: int) -> list[Attribute]:
        """What is stored of an object."""
        return self._nodes[node].attributes

    def slots(self, node: int) -> list[tuple[int, str, int]]:
        """An optimizer's slots: (variable, slot's name, slot variable)."""
        return self._nodes[node].slots

    def node_at(self, path: str) -> int | None:
        """The object at a path from the root, by any of its names; None if there is none."""
        stack, seen = [(0, path)], set[tuple[int, int]]()
        while stack:
            node, rest = stack.pop()
            if not rest:
                return node
            for name, child in self._children_by_segment(node).get(rest.partition("/")[0], ()):
                # A name may have a slash in it: there may be several ways.
                if f"{rest}/".startswith(f"{name}/") and (child, len(rest) - len(name)) not in seen:
                    seen.add((child, len(rest) - len(name)))
                    stack.append((child, rest[len(name) + 1 :]))
        return None

    @cached_property
    def paths(self) -> dict[int, str]:
        """The shortest path to each object, names joined by `/`; the keys are made of these."""
        return self._with_slots(self._search(through_optimizers=True))

    @cached_property
    def readable_paths(self) -> dict[int, str]:
        """The shortest path to each object that does not lead through an optimizer or a numbered list of variables; the
        shortest of all, where there is no such path.
        """
        return self._with_slots(self._search(through_optimizers=True) | self._search(through_optimizers=False))

    def _search(self, *, through_optimizers: bool) -> dict[int, str]:
        paths = {0: ""} if len(self) else {}
        queue = deque(paths)
        while queue:
            node = queue.popleft()
            if not through_optimizers and node in self.optimizers:
                continue
            for name, child in self.children(node):
                if child not in paths and (through_optimizers or name not in _LISTS):
                    paths[child] = _joined(paths[node], name)
                    queue.append(child)
        return paths

    def _with_slots(self, paths: dict[int, str]) -> dict[int, str]:
        for optimizer in list(paths):
            for variable, slot, slot_variable in self.slots(optimizer):
                where, owner = _cut(paths.get(variable, "?")), _cut(paths[optimizer]) or "the root"
                paths.setdefault(slot_variable, f"{where} · {slot} of {owner}")
        return paths

    @cached_property
    def optimizers(self) -> set[int]:
        """The objects that are optimizers: they have slots, or children named like those of Keras' optimizers."""
        named = {child for node in range(len(self)) for name, child in self.children(node) if name in _OPTIMIZER_NAMES}
        return {node for node in range(len(self)) if self.slots(node) or self._is_keras_optimizer(node, node in named)}

    def _is_keras_optimizer(self, node: int, is_named: bool) -> bool:
        names = {name for name, _ in self.children(node)}
        return any(
            (names & others and counter in names) or (is_named and names & {counter, *others})
            for counter, others in _OPTIMIZER_CHILDREN.items()
        )

    @cached_property
    def _owners_of_lists(self) -> dict[int, int]:
        """For each object that may hold an optimizer's variables, its first parent: only for that one is it walked."""
        owners: dict[int, int] = {}
        for node in range(len(self)):
            for name, child in self.children(node):
                if name in _HOLDERS:
                    owners.setdefault(child, node)
        return owners

    def own_variables(self, optimizer: int) -> list[int]:
        """The objects of an optimizer's own variables: slots, counters, rates; not those that it trains."""
        children = dict(self.children(optimizer))
        listed = {
            name: {n for _, n in self.children(node)}
            for name, node in children.items()
            if name in _HOLDERS and self._owners_of_lists[node] == optimizer
        }
        found = [slot_variable for _, _, slot_variable in self.slots(optimizer)]
        of_lists = (listed.get(name, ()) for name in ("_variables", _LOSS_SCALE, *_FACTORS, *_OF_SLOTS))
        found += [*children.values(), *chain.from_iterable(of_lists)]
        trained = listed.get("_trainable_variables", set())
        return [node for node in dict.fromkeys(found) if node not in trained and self.attributes(node)]

    def stored(self, names: Collection[str]) -> dict[int, dict[str, Attribute]]:
        """What is stored of each object: the keys among `names`, each with the attribute it belongs to.

        An attribute that is not stored under its own key is stored under the keys that begin with it, and with no
        longer attribute's key.
        """
        attributes: dict[str, tuple[int, Attribute]] = {}
        for node in range(len(self)):
            for attribute in self.attributes(node):
                attributes.setdefault(attribute.key, (node, attribute))
        found: dict[int, dict[str, Attribute]] = {}
        for key, (node, attribute) in attributes.items():
            found.setdefault(node, {}).update({key: attribute} if key in names else {})
        beginnings = attributes.keys() - names
        rest = {name for name in names if name not in attributes and ATTRIBUTES_IN_KEY in name}
        for name, key in _longest_beginnings(rest, beginnings):
            node, attribute = attributes[key]
            found[node][name] = attribute
        return found

    def unstored(self, names: Collection[str]) -> list[tuple[str, str]]:
        """Attributes of which nothing is stored: their objects' readable paths, and their keys."""
        stored = {node: set(keys.values()) for node, keys in self.stored(names).items()}
        return [
            (self.readable_paths.get(node, "?"), attribute.key)
            for node in range(len(self))
            for attribute in self.attributes(node)
            if attribute not in stored.get(node, ())
        ]

    def places(self, names: Collection[str]) -> dict[str, Place]:
        """Where the keys among `names` come from, by their readable paths."""
        return {
            key: Place(self.readable_paths[node], attribute.full_name)
            for node, keys in self.stored(names).items()
            if node in self.readable_paths
            for key, attribute in keys.items()
        }

    def as_made(self, start: int = 0) -> list[int]:
        """The objects from `start` on, not through optimizers, in the order in which the program made them. Parents
        list children in that order; the walk is depth first, but an object's children that have something stored come
        before what is below them.
        """
        found: dict[int, None] = {}
        entered: set[int] = set()
        stack = [start] if len(self) else []
        while stack:
            node = stack.pop()
            if node in entered or node in self.optimizers:
                continue
            entered.add(node)
            children = [child for _, child in self.children(node)]
            found |= dict.fromkeys([node, *(child for child in children if self.attributes(child))])
            stack += reversed(children)
        return list(found)

    def walk(self) -> Iterator[Step]:
        """The graph as a tree, depth first; an object that was shown before is named again and not entered."""
        seen: dict[int, str] = {}
        stack = [(0, "(root)", 0, "(root)")] if len(self) else []
        while stack:
            depth, name, node, path = stack.pop()
            yield Step(depth, name, node, path, seen.get(node, ""))
            if node in seen:
                continue
            seen[node] = path
            inner = "" if node == 0 else path
            below: list[Any] = [(depth + 1, name, number, _joined(inner, name)) for name, number in self.children(node)]
            for variable, slot, slot_variable in self.slots(node):
                label = f"{slot} of {_cut(self.readable_paths.get(variable, '?'))}"
                below.append((depth + 1, label, slot_variable, _joined(inner, label)))
            stack += reversed(below)


def _cut(path: str) -> str:
    """A path for use within others; of a monstrous one, only the end, for there may be many."""
    return path if len(path) <= _LONGEST else f"…{path[-_LONGEST:]}"


def _joined(path: str, name: str) -> str:
    """A child's path. Of a monstrous one only the end is kept: a chain of objects would make as many long paths."""
    if not path:
        return name
    return f"{path}/{name}" if len(path) < _LONGEST else f"…/{name}"


def _node(message: Any) -> _Node:
    return _Node(
        [(child.local_name, child.node_id) for child in message.children],
        [Attribute(a.name, a.full_name, a.checkpoint_key) for a in message.attributes],
        [(s.original_variable_node_id, s.slot_name, s.slot_variable_node_id) for s in message.slot_variables],
    )


def _longest_beginnings(names: Collection[str], beginnings: Collection[str]) -> Iterator[tuple[str, str]]:
    """(name, its longest beginning) for each name that has one of the beginnings."""
    around: list[str] = []  # In sorted order a text comes after all of its beginnings.
    for text in sorted({*names, *beginnings}):
        while around and not text.startswith(around[-1]):
            around.pop()
        if text in beginnings:
            around.append(text)
        elif around:
            yield text, around[-1]


def object_graph_from_keys(names: Iterable[str]) -> ObjectGraph:
    """The object graph as far as the keys tell it, for a checkpoint whose data file is missing.

    It is a tree of the shortest paths: no second names, no cycles, no TensorFlow 1 names, no object without a variable.
    """
    graph = ObjectGraph(b"")
    graph._nodes = _nodes_of(names)
    return graph


def _nodes_of(names: Iterable[str]) -> list[_Node]:
    nodes, numbers = [_Node([], [], [])], dict[tuple[Any, ...], int]()

    def added(*where: Any) -> tuple[int, bool]:
        """The number of the object there, and whether it is new."""
        number = numbers.setdefault(where, len(nodes))
        is_new = number == len(nodes)
        if is_new:
            nodes.append(_Node([], [], []))
        return number, is_new

    def at(path: str) -> int:
        node = 0
        for segment in path.split("/") if path else ():
            child, is_new = added(node, segment)
            if is_new:
                nodes[node].children.append((unescape(segment), child))
            node = child
        return node

    for key in names:
        path, is_object, attribute = key.partition(ATTRIBUTES_IN_KEY)
        if not is_object:
            continue
        variable, is_slot, behind = path.partition(SLOT_IN_KEY)
        node = at(variable)
        if is_slot:
            optimizer, _, slot = behind.rpartition("/")
            original, owner = node, at(optimizer)
            node, is_new = added(owner, original, slot)
            if is_new:
                nodes[owner].slots.append((original, unescape(slot), node))
        nodes[node].attributes.append(Attribute(attribute, "", key))
    return nodes
