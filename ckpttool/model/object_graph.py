"""The object graph of a TensorFlow 2 checkpoint: which object of the program each variable belonged to.

It is a message, TrackableObjectGraph, stored as a string variable of the checkpoint. Node 0 is the root; a node's
children have names, and may be shared or lead back (a graph, not a tree); its attributes are what is stored of it,
each with the checkpoint's key and, where there is one, the name that TensorFlow 1 would have given. Slot variables
stand beside: an optimizer lists (variable, slot's name, slot variable).

(tensorflow/core/protobuf/trackable_object_graph.proto, python/checkpoint/trackable_view.py)
"""

from collections import deque
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.errors import CorruptionError

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_ATTRIBUTES = "/.ATTRIBUTES/"
_SLOT = "/.OPTIMIZER_SLOT/"

# What an attribute's name says of the object that has it.
_KINDS = {
    "VARIABLE_VALUE": "variable",
    "ITERATOR_STATE": "iterator",
    "OBJECT_CONFIG_JSON": "configuration",
    "py_state": "Python state",
}


class Attribute(NamedTuple):
    """Something stored of an object: its name, the variable's TensorFlow 1 name ("": none), the checkpoint's key."""

    name: str
    full_name: str
    key: str


class Place(NamedTuple):
    """Where a checkpoint's key comes from: the object's path, and the variable's TensorFlow 1 name if it has one."""

    path: str
    full_name: str


class Step(NamedTuple):
    """A line of the graph walked as a tree: how deep, by which name, to which object, whose path is `path`.

    `again` is the path under which the object was shown before, "" if it was not: its children are not repeated.
    """

    depth: int
    name: str
    node: int
    path: str
    again: str


class ObjectGraph:
    """An object graph.

    Raises:
        CorruptionError: the bytes are no TrackableObjectGraph, or name an object that is not there.
    """

    def __init__(self, data: bytes) -> None:
        self._nodes = proto.parse("TrackableObjectGraph", data).nodes
        count = len(self._nodes)
        for node in self._nodes:
            ids = [child.node_id for child in node.children]
            ids += [n for s in node.slot_variables for n in (s.original_variable_node_id, s.slot_variable_node_id)]
            if any(not 0 <= number < count for number in ids):
                raise CorruptionError(f"an object graph of {count} objects names one that is not there")

    def __len__(self) -> int:
        return len(self._nodes)

    def children(self, node: int) -> list[tuple[str, int]]:
        """The names and numbers of an object's children."""
        return [(child.local_name, child.node_id) for child in self._nodes[node].children]

    def attributes(self, node: int) -> list[Attribute]:
        """What is stored of an object."""
        return [Attribute(a.name, a.full_name, a.checkpoint_key) for a in self._nodes[node].attributes]

    def slots(self, node: int) -> list[tuple[int, str, int]]:
        """An optimizer's slots: (variable, slot's name, slot variable)."""
        return [
            (slot.original_variable_node_id, slot.slot_name, slot.slot_variable_node_id)
            for slot in self._nodes[node].slot_variables
        ]

    @cached_property
    def paths(self) -> dict[int, str]:
        """The shortest path to each object, names joined by `/`; the keys are made of these."""
        paths = {0: ""} if len(self) else {}
        queue = deque(paths)
        while queue:
            node = queue.popleft()
            for name, child in self.children(node):
                if child not in paths:
                    paths[child] = f"{paths[node]}/{name}" if paths[node] else name
                    queue.append(child)
        for optimizer in list(paths):
            for variable, slot, slot_variable in self.slots(optimizer):
                where = paths.get(variable, "?")
                paths.setdefault(slot_variable, f"{where} · {slot} of {paths[optimizer] or 'the root'}")
        return paths

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where each of the checkpoint's keys comes from."""
        return {
            attribute.key: Place(path, attribute.full_name)
            for node, path in self.paths.items()
            for attribute in self.attributes(node)
        }

    def kind(self, node: int, name: str) -> str:
        """What an object is, as far as its attributes tell: a variable, a table, an iterator, …"""
        names = [attribute.name for attribute in self.attributes(node)]
        if name == "save_counter":
            return "save counter"
        if any(attribute.endswith(("-keys", "-values")) for attribute in names):
            return "table"
        return next((_KINDS[attribute] for attribute in names if attribute in _KINDS), "")

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
            inner = "" if node == 0 else f"{path}/"
            below: list[Any] = [(depth + 1, child, number, inner + child) for child, number in self.children(node)]
            for variable, slot, slot_variable in self.slots(node):
                label = f"{slot} of {self.paths.get(variable, '?')}"
                below.append((depth + 1, label, slot_variable, f"{inner}{label}"))
            stack += reversed(below)


def place_by_key(key: str) -> Place | None:
    """Where a key comes from by its own form, when the object graph can't be read; None if it has not that form."""
    path, found, _ = key.partition(_ATTRIBUTES)
    if not found:
        return None
    variable, is_slot, slot = path.partition(_SLOT)
    if is_slot:
        optimizer, _, name = slot.rpartition("/")
        path = f"{_unescape(variable)} · {name} of {_unescape(optimizer)}"
        return Place(path, "")
    return Place(_unescape(path), "")


def _unescape(path: str) -> str:
    """`.` was written `..`, and `/` in a name `.S`. (python/checkpoint/util.py)"""
    return "/".join(".".join(part.replace(".S", "/") for part in segment.split("..")) for segment in path.split("/"))
