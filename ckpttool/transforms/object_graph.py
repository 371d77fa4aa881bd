"""An object graph, made to agree with a checkpoint whose variables were renamed or dropped.

The message is edited in place (wire.message): in each object's attributes (2) the key (3) is replaced, or the attribute
is removed; an optimizer's slots (3) are removed if their slot variables (3 within) are no longer stored. Everything
else stays as it was, so that TensorFlow still finds every object by its name.

(tensorflow/core/protobuf/trackable_object_graph.proto)
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpttool.errors import NotSupportedError
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_graph import ObjectGraph
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, stored_end
from ckpttool.model.slices import Slice
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.model.variable import Source, Variable
from ckpttool.wire.message import VARINT, Rule, edit, last_field, values

if TYPE_CHECKING:
    import numpy as np


def mended_object_graph(checkpoint: Checkpoint, names: Mapping[str, str], *, is_damaged: bool = False) -> Variable:
    """The variable of the object graph, with the keys that `names` (old name → new name of what is kept) gives it.

    It is read when its value is asked for. A key that was never stored is left as it is, for its writer may have had a
    reason; but not in a damaged checkpoint.
    """
    variable = checkpoint[OBJECT_GRAPH_KEY]
    if variable.dtype.name != "string" or variable.shape != ():
        return variable  # Something else with the same name.
    return Variable(variable.name, variable.dtype, variable.shape, _Mended(checkpoint, names, is_damaged))


def agreeing_without(checkpoint: Checkpoint, left_out: Collection[str]) -> Checkpoint:
    """The whole checkpoint, with an object graph that does not mention what a writer will leave out."""
    if not left_out or OBJECT_GRAPH_KEY in left_out:
        return checkpoint
    mended = mended_object_graph(checkpoint, {name: name for name in checkpoint if name not in left_out})
    return checkpoint.with_variables({**checkpoint, OBJECT_GRAPH_KEY: mended})


class _Mended(Source):
    """The source of a mended object graph, which is stored in the place of the old one."""

    def __init__(self, checkpoint: Checkpoint, names: Mapping[str, str], is_damaged: bool) -> None:
        self._checkpoint, self._names, self._is_damaged = checkpoint, names, is_damaged
        self._variable = checkpoint[OBJECT_GRAPH_KEY]

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return self._variable.slices

    def arrays(self, variable: Variable, piece: Slice, boxes: object) -> "Iterator[np.ndarray[Any, Any]]":
        raise NotSupportedError("an object graph is no array of numbers", variable=variable.name)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        graph = self._checkpoint.object_graph
        values = self._variable.strings()
        if graph is None:
            return values
        stored = set(self._checkpoint)
        if self._is_damaged:
            stored |= {key for _, key in graph.unstored(stored)}
        return [_mended(values[0], graph, stored, self._names)]


def _mended(data: bytes, graph: ObjectGraph, stored: Collection[str], names: Mapping[str, str]) -> bytes:
    keys = _new_keys(graph, stored, names)
    return edit(data, {1: _object_rules(keys, _unstored(graph, keys))})


def _new_keys(graph: ObjectGraph, stored: Collection[str], names: Mapping[str, str]) -> dict[str, str | None]:
    """Key of an attribute → the new one; None if nothing of it is kept.

    A key that is only the beginning of those stored keeps what the new names of these have in common with it. One that
    does not end as it did goes: TensorFlow takes that end for what is stored of the object, and where one lacks it,
    restores nothing at all. (tensorflow/python/checkpoint/restore.py)
    """
    found: dict[str, str | None] = {}
    for keys in graph.stored(stored).values():
        for name, attribute in keys.items():
            new, suffix = names.get(name), name[len(attribute.key) :]
            if new is not None and new.endswith(suffix) and new.endswith(stored_end(name)):
                found[attribute.key] = new.removesuffix(suffix) if suffix else new
            else:
                found.setdefault(attribute.key, None)
    return found


def _unstored(graph: ObjectGraph, keys: Mapping[str, str | None]) -> set[int]:
    """The objects that had something stored, and now have nothing."""
    attributes = {node: graph.attributes(node) for node in range(len(graph))}
    return {node for node, of in attributes.items() if of and all(keys.get(a.key, a.key) is None for a in of)}


def _object_rules(keys: Mapping[str, str | None], unstored: Collection[int]) -> Mapping[int, Rule]:
    def attribute(data: bytes) -> bytes | None:
        old = to_text(last_field(data, 3))
        new = keys.get(old, old)
        if new is None:
            return None
        return data if new == old else edit(data, {3: lambda _: to_bytes(new)})

    def slot(data: bytes) -> bytes | None:
        variable = next((value for number, wire_type, value in values(data) if (number, wire_type) == (3, VARINT)), 0)
        return None if variable in unstored else data

    return {2: attribute, 3: slot}
