"""The lists by which a graph's savers save and restore: names of variables and slices, in string constants.

An op that saves takes these lists, and the tensors in the same order; one that restores has its outputs in that order.

    SaveV2(prefix, tensor_names, shape_and_slices, *tensors)
    RestoreV2(prefix, tensor_names, shape_and_slices) → tensors

(tensorflow/core/ops/io_ops.cc)
"""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from ckpttool.errors import ConversionError
from ckpttool.model.graph import split_tensor
from ckpttool.transforms.graph_edits import last_field
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import edit, message_field, varint_field


class _Form(NamedTuple):
    """Where an op has its lists: the inputs with names, with slices, the first tensor; the attribute with the types."""

    names: int
    slices: int | None
    tensors: int | None
    types: str | None


_FORMS = {
    "SaveV2": _Form(1, 2, 3, "dtypes"),
    "RestoreV2": _Form(1, 2, None, "dtypes"),
    "SaveSlices": _Form(1, 2, 3, "T"),
    "Save": _Form(1, None, 2, "T"),
    "RestoreSlice": _Form(1, 2, None, None),
    "Restore": _Form(1, None, None, None),
}


class SaverLists:
    """The lists of all savers of a graph, with variables renamed and dropped.

    Attributes:
        ops: the names of the ops that save and restore.
        emptied: those of them that have nothing left to restore.
        changes: whether any list is another one.
    """

    def __init__(self, nodes: Sequence[Any], renames: Mapping[str, str], dropped: Collection[str]) -> None:
        by_name = {node.name: node for node in nodes}
        self.ops = {node.name for node in nodes if node.op in _FORMS}
        self.emptied: set[str] = set()
        # Constant → its new texts, None for one that goes; op → the places that go.
        self._texts: dict[str, list[str | None]] = {}
        self._places: dict[str, set[int]] = {}
        for node in nodes:
            if node.op in _FORMS:
                self._add(node, by_name, renames, dropped)
        self.changes = bool(self._texts)

    def _add(self, node: Any, by_name: Mapping[str, Any], renames: Mapping[str, str], dropped: Collection[str]) -> None:
        form = _FORMS[node.op]
        names = _constant(node, form.names, by_name)
        if names is None:
            return
        texts = _strings(names)
        gone = {place for place, text in enumerate(texts) if text in dropped}
        new = [None if place in gone else renames.get(text, text) for place, text in enumerate(texts)]
        if new == texts:
            return
        if gone and len(gone) == len(texts):
            if form.tensors is not None:
                raise ConversionError(f"the saver {node.name} would have nothing left to save")
            self.emptied.add(node.name)
            return
        self._texts[names.name] = new
        if gone:
            self._places[node.name] = gone
            slices = None if form.slices is None else _constant(node, form.slices, by_name)
            if slices is not None:
                self._texts[slices.name] = [
                    None if place in gone else text for place, text in enumerate(_strings(slices))
                ]

    def edit_node(self, data: bytes, node: Any) -> bytes:
        """A node with its lists, inputs and types as they are to be."""
        if node.name in self._texts:
            return _with_strings(data, self._texts[node.name])
        if node.name in self._places:
            data = self._without_places(data, node, self._places[node.name])
        renumbered = {
            text.encode(): self._renumbered(text)
            for text in node.input
            if split_tensor(text)[0] in self._places and not text.startswith("^")
        }
        return edit(data, {3: lambda value: renumbered.get(value, value)}) if renumbered else data

    def _renumbered(self, text: str) -> bytes:
        op, number = split_tensor(text)
        left = int(number) - sum(1 for place in self._places[op] if place < int(number))
        return (f"{op}:{left}" if left else op).encode()

    def _without_places(self, data: bytes, node: Any, gone: Collection[int]) -> bytes:
        form = _FORMS[node.op]
        numbers = iter(range(len(node.input)))

        def operand(value: bytes) -> bytes | None:
            place = next(numbers) - (form.tensors or 0)
            is_tensor = form.tensors is not None and not value.startswith(b"^")
            return None if is_tensor and place in gone else value

        def attr(entry: bytes) -> bytes:
            key = last_field(entry, 1).decode(errors="surrogateescape")
            if key == form.types:
                kept = [number for place, number in enumerate(node.attr[key].list.type) if place not in gone]
                packed = message_field(6, b"".join(map(encode_varint, kept)))
                return edit(entry, {2: lambda _: message_field(1, packed)})
            if key == "_output_shapes" and form.tensors is None:
                places = iter(range(len(node.attr[key].list.shape)))
                return edit(entry, {2: {1: {7: lambda shape: None if next(places) in gone else shape}}})
            return entry

        return edit(data, {3: operand, 5: attr})


def _constant(node: Any, index: int, by_name: Mapping[str, Any]) -> Any:
    """The string constant that is an input; None if it is none."""
    name = split_tensor(node.input[index])[0] if index < len(node.input) else ""
    found = by_name.get(name)
    if found is None or found.op != "Const" or "value" not in found.attr:
        return None
    return found if found.attr["value"].tensor.dtype == _STRING else None


_STRING = 7
_MOST = 1 << 24


def _strings(constant: Any) -> list[str]:
    """The texts of a constant: where there are fewer than elements, the last one stands for the rest."""
    tensor = constant.attr["value"].tensor
    texts = [value.decode(errors="surrogateescape") for value in tensor.string_val]
    size = prod(dim.size for dim in tensor.tensor_shape.dim)
    return texts + texts[-1:] * (size - len(texts)) if len(texts) < size < _MOST else texts


def _shape(size: int) -> bytes:
    """The TensorShapeProto of one dimension."""
    return message_field(2, varint_field(1, size))


def _with_strings(data: bytes, texts: Sequence[str | None]) -> bytes:
    """A constant with other texts: one dimension, as long as they are."""
    kept = [text.encode(errors="surrogateescape") for text in texts if text is not None]
    is_shorter = len(kept) != len(texts)

    def tensor(value: bytes) -> bytes:
        left = edit(value, {8: lambda _: None})
        if is_shorter:
            left = edit(left, {2: lambda _: _shape(len(kept))})
        return left + b"".join(message_field(8, text) for text in kept)

    def attr(entry: bytes) -> bytes:
        key = last_field(entry, 1)
        if key == b"value":
            return edit(entry, {2: {8: tensor}})
        if key == b"_output_shapes" and is_shorter:
            return edit(entry, {2: {1: {7: lambda _: _shape(len(kept))}}})
        return entry

    return edit(data, {5: attr})
