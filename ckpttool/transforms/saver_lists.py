"""The lists by which a graph's savers save and restore: names of variables and slices, in string constants.

An op that saves takes these lists, and the tensors in the same order; one that restores has its outputs in that order.

    SaveV2(prefix, tensor_names, shape_and_slices, *tensors)
    RestoreV2(prefix, tensor_names, shape_and_slices) → tensors

A sharded saver has one of each for a device, and joins their files in the end:

    SaveV2(ShardedFilename(…, 0, 2), …)  ┐
    SaveV2(ShardedFilename(…, 1, 2), …)  ┴▶ Pack ─▶ MergeV2Checkpoints

Ops that get the name of the file from the same op, which is fed, form a saver. An op that restores from a file that is
neither fed nor saved belongs to no saver: it takes initial values from another checkpoint
(tf.train.init_from_checkpoint), with names of its own.

(tensorflow/core/ops/io_ops.cc, python/training/saver.py, checkpoint_utils.py)
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.savers import constant_input, strings_of
from ckpttool.errors import ConversionError
from ckpttool.model.nodes import PLACEHOLDERS, VARIABLE_OPS, op_of, split_tensor
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import DROP, edit, last_field, message_field, varint_field


class Form(NamedTuple):
    """Which inputs of an op are its names, its slices, and its first tensor; and the attribute with the types."""

    names: int
    slices: int | None
    tensors: int | None
    types: str | None


FORMS = {
    "SaveV2": Form(1, 2, 3, "dtypes"),
    "RestoreV2": Form(1, 2, None, "dtypes"),
    "SaveSlices": Form(1, 2, 3, "T"),
    "Save": Form(1, None, 2, "T"),
    "RestoreSlice": Form(1, 2, None, None),
    "Restore": Form(1, None, None, None),
}
"""The ops that save and restore."""

# Ops between a saver's file and its ops, and between a variable and what is saved of it: the first input leads on.
# (They can't form a loop.)
_FILE_OPS = {"ShardedFilename", "StringJoin", "Identity", "Pack"}
_READS = {"Identity", "ReadVariableOp", "Snapshot"}
_MOST_STEPS = 16


class SaverLists:
    """The lists of all savers of a graph, to be edited by `change`.

    Attributes:
        ops: the names of the ops that save and restore.
        keys: for each variable's op, the names under which it is saved, those of the main saver first.
        own: the same, by the main saver only.
    """

    def __init__(self, nodes: Sequence[Any], file: str = "") -> None:
        """`file` is the op that gives the main saver its file's name."""
        self._nodes = {node.name: node for node in nodes}
        self._main = file
        self._savers = self._found()
        self.ops = {node.name for ops in self._savers.values() for node in ops}
        self.keys: dict[str, list[str]] = {}
        self._known: set[tuple[str, str]] = set()
        self.own: dict[str, list[str]] = {}
        for name, ops in self._savers.items():
            for node in ops:
                self._add_keys(node)
            if name == self._main:
                self.own = {op: list(texts) for op, texts in self.keys.items()}
        # Constant → its new texts, None for one that goes; op → the places that go, and those in order; Packs of files
        # that lose some.
        self._texts: dict[str, list[str | None]] = {}
        self._places: dict[str, set[int]] = {}
        self._in_order: dict[str, list[int]] = {}
        self.shortened: set[str] = set()

    def _found(self) -> dict[str, list[Any]]:
        """Op that gives the name of the file → the ops of that saver; the main saver first."""
        savers: dict[str, list[Any]] = {self._main: []}
        for node in self._nodes.values():
            if node.op in FORMS and node.input:
                savers.setdefault(self._traced(node, _FILE_OPS), []).append(node)
        return {file: ops for file, ops in savers.items() if self._is_saver(file, ops)}

    def _is_saver(self, file: str, ops: Sequence[Any]) -> bool:
        is_fed = file in self._nodes and self._nodes[file].op in PLACEHOLDERS
        return file == self._main or is_fed or any(FORMS[node.op].tensors is not None for node in ops)

    def _traced(self, node: Any, passing: Collection[str]) -> str:
        """The op from which a node's first input comes, through ops of these types."""
        for _ in range(_MOST_STEPS):
            name = op_of(node.input[0]) if node.input else ""
            if name not in self._nodes:
                break
            node = self._nodes[name]
            if node.op not in passing:
                break
        return str(node.name)

    def _add_keys(self, node: Any) -> None:
        first, names = FORMS[node.op].tensors, self._list(node, FORMS[node.op].names)
        if first is None or names is None:
            return
        for text, tensor in zip(strings_of(names), node.input[first:], strict=False):
            op = op_of(tensor)
            if op in self._nodes and self._nodes[op].op in _READS:
                op = self._traced(self._nodes[op], _READS)
            if op in self._nodes and self._nodes[op].op in VARIABLE_OPS and (op, text) not in self._known:
                self._known.add((op, text))
                self.keys.setdefault(op, []).append(text)

    def _list(self, node: Any, index: int | None) -> Any:
        """The string constant that is an input; None if the input is none."""
        return None if index is None else constant_input(node, index, self._nodes)

    def change(self, renames: Mapping[str, str], dropped: Collection[str], averages: Mapping[str, str]) -> set[str]:
        """Gives the lists the new names, and leaves out what is dropped.

        Args:
            renames: old name → new name.
            dropped: old names.
            averages: moving averages that took their variables' places, each with the variable's name: a saver that
                restores only the average into the variable now reads it under that name.

        Returns:
            The ops to be removed: they have nothing left to save or restore, or need what is no longer restored.

        Raises:
            ConversionError: the main saver would have nothing left to save; lists are not constant, or shared.
        """
        gone: set[str] = set()
        # Other savers may use other names for what is dropped: these go too, unless another variable has them.
        names = {name for first, *others in self.keys.values() if first not in dropped for name in (first, *others)}
        aliases = {name for first, *others in self.keys.values() if first in dropped for name in others}
        dropped = {*dropped, *(aliases - names)}
        for file, ops in self._savers.items():
            emptied = [node for node in ops if self._change(node, renames, dropped, averages)]
            saving = [node for node in ops if FORMS[node.op].tensors is not None]
            if saving and all(node in emptied for node in saving):
                if file == self._main:
                    raise ConversionError(f"the saver {saving[0].name} would have nothing left to save")
                gone |= {file, *(node.name for node in ops)}
            else:
                gone |= {name for node in emptied for name in (node.name, *self._shard_file(node))}
        self.shortened = {name for name, node in self._nodes.items() if self._joins_files(node, gone)} - gone
        return gone | {node.name for node in self._nodes.values() if any(map(self._is_gone, node.input))}

    def _change(
        self, node: Any, renames: Mapping[str, str], dropped: Collection[str], averages: Mapping[str, str]
    ) -> bool:
        """Makes an op's new lists; returns whether they are empty."""
        form = FORMS[node.op]
        names = self._list(node, form.names)
        if names is None:
            raise ConversionError(f"the names of {node.name} are no constant, so that they can't be made to agree")
        texts = strings_of(names)
        listed = set(texts)
        taking = {text: averages[text] for text in texts if text in averages and averages[text] not in listed}
        texts_as = [taking.get(text, text) for text in texts]
        gone = {place for place, text in enumerate(texts_as) if text in dropped}
        if gone and len(gone) == len(texts):
            return True
        new = [None if place in gone else renames.get(text, text) for place, text in enumerate(texts_as)]
        if new != texts:
            self._set(names.name, new)
        if gone:
            self._places[node.name], self._in_order[node.name] = gone, sorted(gone)
            slices = self._list(node, form.slices)
            if slices is not None:
                specs = enumerate(strings_of(slices))
                self._set(slices.name, [None if place in gone else spec for place, spec in specs])
        return False

    def _set(self, constant: str, texts: list[str | None]) -> None:
        if self._texts.setdefault(constant, texts) != texts:
            raise ConversionError(f"savers share {constant}, and would need different ones")

    def _shard_file(self, node: Any) -> Iterator[str]:
        name = op_of(node.input[0])
        if name in self._nodes and self._nodes[name].op == "ShardedFilename":
            yield name

    def _joins_files(self, node: Any, gone: Collection[str]) -> bool:
        files = [op_of(text) for text in node.input if not text.startswith("^")]
        return node.op == "Pack" and any(f in gone and self._nodes[f].op == "ShardedFilename" for f in files)

    def _is_gone(self, text: str) -> bool:
        """Whether it is an output that a restore op no longer has."""
        op, number = split_tensor(text)
        return op in self._places and FORMS[self._nodes[op].op].tensors is None and int(number) in self._places[op]

    def lost_inputs(self, removed: Collection[str]) -> Iterator[tuple[str, str]]:
        """Pairs (op, tensor): what savers would still save though it is removed."""
        for name in self.ops - set(removed):
            node, first = self._nodes[name], FORMS[self._nodes[name].op].tensors
            for place, text in enumerate(node.input[first:] if first is not None else ()):
                if op_of(text) in removed and place not in self._places.get(name, ()):
                    yield name, text

    @property
    def changes(self) -> bool:
        """Whether any list has changed."""
        return bool(self._texts)

    def edit_node(self, data: bytes, node: Any, removed: Collection[str]) -> bytes:
        """The node with its new lists, inputs and types."""
        if node.name in self._texts:
            return _with_strings(data, self._texts[node.name])
        if node.name in self._places:
            data = self._without_places(data, node, self._places[node.name])
        if node.name in self.shortened:
            left = [text for text in node.input if not text.startswith("^") and op_of(text) not in removed]
            return _shortened(data, len(left))
        renumbered = {
            text.encode(): self._renumbered(text)
            for text in node.input
            if op_of(text) in self._places and not text.startswith("^")
        }
        return edit(data, {3: lambda value: renumbered.get(value, value)}) if renumbered else data

    def _renumbered(self, text: str) -> bytes:
        op, number = split_tensor(text)
        left = int(number) - bisect_left(self._in_order[op], int(number))
        return (f"{op}:{left}" if left else op).encode()

    def _without_places(self, data: bytes, node: Any, gone: Collection[int]) -> bytes:
        form = FORMS[node.op]
        numbers = iter(range(len(node.input)))

        def operand(value: bytes) -> bytes | None:
            place = next(numbers) - (form.tensors or 0)
            is_tensor = form.tensors is not None and not value.startswith(b"^")
            return None if is_tensor and place in gone else value

        def attr(entry: bytes) -> bytes:
            key = to_text(last_field(entry, 1))
            if key == form.types:
                kept = [number for place, number in enumerate(node.attr[key].list.type) if place not in gone]
                packed = message_field(6, b"".join(map(encode_varint, kept)))
                return edit(entry, {2: lambda _: message_field(1, packed)})
            if key == "_output_shapes" and form.tensors is None:
                places = iter(range(len(node.attr[key].list.shape)))
                return edit(entry, {2: {1: {7: lambda shape: None if next(places) in gone else shape}}})
            return entry

        return edit(data, {3: operand, 5: attr})


def _shape(size: int) -> bytes:
    """The TensorShapeProto of one dimension."""
    return message_field(2, varint_field(1, size))


def _with_strings(data: bytes, texts: Sequence[str | None]) -> bytes:
    """The constant with other texts, and their number as its only dimension."""
    kept = [to_bytes(text) for text in texts if text is not None]
    is_shorter = len(kept) != len(texts)

    def tensor(value: bytes) -> bytes:
        left = edit(value, {8: DROP})
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


def _shortened(data: bytes, size: int) -> bytes:
    """A Pack of `size` scalars."""

    def attr(entry: bytes) -> bytes:
        key = last_field(entry, 1)
        if key == b"N":
            return edit(entry, {2: lambda _: varint_field(3, size)})
        if key == b"_output_shapes":
            return edit(entry, {2: {1: {7: lambda _: _shape(size)}}})
        return entry

    return edit(data, {5: attr})
