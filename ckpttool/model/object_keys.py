"""The keys of a TensorFlow 2 checkpoint, each of which says where in the program its value was.

A key is the shortest path to the object, and what is stored of it:

    layer/kernel/.ATTRIBUTES/VARIABLE_VALUE        layer/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE

An attribute's key is that of a stored variable, or the beginning of several: a table's `t/.ATTRIBUTES/table` is
stored as `…/table-keys` and `…/table-values`, an iterator's `it/.ATTRIBUTES/ITERATOR` as `…/ITERATOR_STATE`.

(python/checkpoint/trackable_view.py, python/checkpoint/util.py, python/ops/lookup_ops.py,
python/data/ops/iterator_ops.py)
"""

from typing import NamedTuple

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The key of the object graph itself."""
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What the key of a variable's value ends in, behind the path of its object."""
ATTRIBUTES_IN_KEY = "/.ATTRIBUTES/"
"""What stands in a key between the path of an object and the name of what is stored of it."""
SLOT_IN_KEY = "/.OPTIMIZER_SLOT/"
"""What stands in a slot's key between the path of the variable and that of the optimizer."""


class Place(NamedTuple):
    """Where a checkpoint's key comes from: the object's path, and the variable's TensorFlow 1 name if it has one."""

    path: str
    full_name: str


def stored_end(key: str) -> str:
    """The end of a key that says what is stored of the object; "" if it has none."""
    _, found, attribute = key.partition(ATTRIBUTES_IN_KEY)
    return found + attribute


def place_by_key(key: str) -> Place | None:
    """Where a key comes from, by its own form, for when the object graph can't be read; None if it has another form."""
    path, found, _ = key.partition(ATTRIBUTES_IN_KEY)
    if not found:
        return None
    variable, is_slot, slot = path.partition(SLOT_IN_KEY)
    if is_slot:
        optimizer, _, name = slot.rpartition("/")
        path = f"{unescape(variable)} · {name} of {unescape(optimizer)}"
        return Place(path, "")
    return Place(unescape(path), "")


def unescape(path: str) -> str:
    """`.` was written `..`, and `/` in a name `.S`. (python/checkpoint/util.py)"""
    if "." not in path:
        return path
    return "/".join(".".join(part.replace(".S", "/") for part in segment.split("..")) for segment in path.split("/"))
