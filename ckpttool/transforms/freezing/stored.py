"""Which stored variable each variable of a graph is restored from.

The graph's own saver says under which name a variable is stored, and as which slice:

    restore_op ─▶ Assign(W/part_1, ◀── RestoreV2(prefix, ["W"], ["10 4 5,5:0,4"]))

and so does the function by which a SavedModel of TensorFlow 2 restores itself. Without a saver, a variable is stored
under the name of its op, its shared name, or the name that the checkpoint's object graph gives it.

(tensorflow/core/ops/io_ops.cc; core/framework/tensor_slice.cc for slices; python/saved_model/save.py)
"""

import sys
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import chain
from math import prod
from typing import Any, NamedTuple

from ckpttool.analysis.graphs.initializers import local_initializers
from ckpttool.analysis.graphs.needs import needed_ops
from ckpttool.analysis.graphs.savers import RESTORE_OPS, lists_of, restored_variables
from ckpttool.errors import ConversionError, CorruptionError, NotSupportedError
from ckpttool.model.arguments import agrees
from ckpttool.model.boxes import Selection, is_size, shape_of
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import dtype_of
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import ASSIGN_OPS, declared_shape, op_of, shared_name
from ckpttool.model.slices import Slice
from ckpttool.model.variable import Variable
from ckpttool.transforms.freezing.body import Body, Output
from ckpttool.transforms.freezing.handles import Library
from ckpttool.transforms.freezing.initial import initial_value
from ckpttool.transforms.freezing.pruning import OUTPUTS_HINT


class Read(NamedTuple):
    """What a saver reads for a variable: the stored one's name, a slice of it ("": all), and whether it is reshaped."""

    key: str
    slice_spec: str
    is_reshaped: bool


class Stored(NamedTuple):
    """The stored values of a variable: all of a stored one, or a box in it; and the shape that they get."""

    variable: Variable
    box: Selection | None
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        if self.box is None or self.variable.dtype.itemsize is None:
            return self.variable.nbytes
        return prod(self.shape) * self.variable.dtype.itemsize

    def content(self) -> list[bytes]:
        """The values in row-major order, little-endian, in pieces; they are read, and their checksums are tested."""
        variable = self.variable
        if self.box is None:
            return [_little_endian(block) for _, block in variable.blocks()]
        piece = _pieces_by_start(variable).get(tuple(extent.start for extent in self.box))
        if piece is not None and piece.box == self.box:
            return [_little_endian(array) for array in variable.arrays_of(piece)]
        return [_little_endian(variable.numpy()[self.box])]

    def strings(self) -> list[bytes]:
        """The values of strings."""
        return self.variable.strings() if self.box is None else list(self.variable.numpy()[self.box].ravel())


# The graph asks for the parts of a partitioned variable one after another.
@lru_cache(1)
def _pieces_by_start(variable: Variable) -> dict[tuple[int, ...], Slice]:
    return {piece.start: piece for piece in variable.slices}


class StoredVariables:
    """The stored values of a graph's variables.

    Attributes:
        initial: the variables that are not stored, and for which the initial values were taken.
    """

    def __init__(self, graph: MetaGraph, body: Body, library: Library, checkpoint: Checkpoint | None) -> None:
        self._checkpoint, self._library, self._body = checkpoint, library, body
        self._lists: dict[tuple[Body, str], list[tuple[str, str]]] = {}
        self._by_function: dict[tuple[str, int], dict[str, Read]] = {}
        self._local = local_initializers(graph)
        self.initial: dict[str, None] = {}
        own = needed_ops(graph.by_name, [op_of(graph.message.saver_def.restore_op_name)])
        others = needed_ops(graph.by_name, map(op_of, _other_savers(graph))) - own
        # Another saver may restore averages into the variables: what the graph's own saver restores takes precedence.
        by_saver = [self._restored(body, [name for name in body.nodes if name in ops]) for ops in (own, others)]
        self._by_saver = _first_of(chain.from_iterable(by_saver))
        self._made = (restored_variables(graph) or set()) - self._by_saver.keys()

    @cached_property
    def _by_any_op(self) -> dict[str, Read]:
        return _first_of(self._restored(self._body, self._body.nodes))

    def find(self, node: Any) -> Stored | None:
        """The stored values of the variable that an op holds or, if there are none, a local variable's initial values.

        None if there are neither.

        Raises:
            ConversionError: they are of another dtype or shape than the variable.
            CorruptionError: what the saver reads is no slice of them.
            NotSupportedError: the saver computes them from what is stored.
        """
        checkpoint = self._checkpoint
        for restored in () if checkpoint is None else self._candidates(node):
            assert checkpoint is not None
            key = checkpoint.stored_as(restored.key)
            if key in checkpoint:
                return _fitted(node, restored, checkpoint[key])
        operands = self._body.operands.get(self._local.get(node.name, ""), ())
        given = self._body.nodes.get(_origin(self._body, operands[1])[0].op) if len(operands) > 1 else None
        value = initial_value(node.name, given) if given is not None and given.op == "Const" else None
        if value is not None:
            self.initial[node.name] = None
        return None if value is None else _fitted(node, Read(node.name, "", False), value)

    def _candidates(self, node: Any) -> Iterator[Read]:
        """What the variable may be stored as, the surest first."""
        shared = shared_name(node)
        twins = [node.name, *self._twins.get(shared, ())]
        yield from (self._by_saver[name] for name in twins if name in self._by_saver)
        if made := self._made.intersection(twins):
            what = f"the saver does not restore {min(made)} as it is stored: it assigns what it has made of that"
            raise NotSupportedError(what, hint=OUTPUTS_HINT)
        yield Read(node.name, "", False)
        yield from (self._by_any_op[name] for name in twins if name in self._by_any_op)
        if shared:
            yield Read(shared, "", False)

    @cached_property
    def _twins(self) -> dict[str, list[str]]:
        """Shared name → the ops of the graph that hold the variable of that name."""
        found: dict[str, list[str]] = {}
        for name, node in self._body.nodes.items():
            if node.op == "VarHandleOp" and (shared := shared_name(node)):
                found.setdefault(shared, []).append(name)
        return found

    def _restored(self, body: Body, ops: Iterable[str], depth: int = 0) -> Iterator[tuple[str, Read]]:
        """The variables, or arguments of a function, that ops restore, and from what."""
        for name in ops:
            node = body.nodes[name]
            if node.op in ASSIGN_OPS and len(body.operands[name]) > 1:
                restored = self._read(body, body.operands[name][1])
                if restored:
                    yield _origin(body, body.operands[name][0])[0].op, restored
            call = self._library.call(node)
            for function in self._library.called(node, call) if call and depth < _DEEPEST else ():
                inner = self._library.body(function)
                if depth or any(each.op in RESTORE_OPS for each in inner.nodes.values()):
                    yield from self._from_function(body, name, inner, depth)

    def _from_function(self, body: Body, name: str, inner: Body, depth: int) -> Iterator[tuple[str, Read]]:
        known = inner.function.signature.name, depth
        if known not in self._by_function:
            self._by_function[known] = _first_of(self._restored(inner, inner.nodes, depth + 1))
        for argument, restored in self._by_function[known].items():
            place = inner.places.get(argument, -1)
            if 0 <= place < len(body.operands[name]):
                yield _origin(body, body.operands[name][place])[0].op, restored

    def _read(self, body: Body, value: Output) -> Read | None:
        """What a value is restored from; None if it is not restored."""
        (op, number), is_reshaped = _origin(body, value)
        if op not in body.nodes or body.nodes[op].op not in RESTORE_OPS:
            return None
        if (body, op) not in self._lists:
            keys, specs = lists_of(body.nodes[op], body.nodes)
            self._lists[body, op] = list(zip(keys or (), specs or (), strict=False))
        lists = self._lists[body, op]
        return Read(*lists[number], is_reshaped) if number < len(lists) else None


_DEEPEST = 8
_MOST_STEPS = 100


def _first_of(found: Iterable[tuple[str, Read]]) -> dict[str, Read]:
    first: dict[str, Read] = {}
    for name, restored in found:
        first.setdefault(name, restored)
    return first


def _other_savers(graph: MetaGraph) -> list[str]:
    """The restore ops of the savers in the collection `savers`."""
    collection = graph.collections.get("savers")
    members = collection.members if collection else []
    return [str(member.get("restore_op_name", "")) for member in members if isinstance(member, dict)]


def _origin(body: Body, output: Output) -> tuple[Output, bool]:
    """Where a tensor comes from, through what leaves its values as they are; and whether it was reshaped."""
    is_reshaped = False
    for _ in range(_MOST_STEPS):
        node = body.nodes.get(output.op)
        if node is None or node.op not in ("Identity", "Reshape") or not body.operands[output.op]:
            break
        is_reshaped |= node.op == "Reshape"
        output = body.operands[output.op][0]
    return output, is_reshaped


def _fitted(node: Any, restored: Read, variable: Variable) -> Stored:
    """The stored values for a variable of the graph: its slice of what is stored, with its dtype and shape."""
    if variable.dtype.number != node.attr["dtype"].type:
        declared = dtype_of(node.attr["dtype"].type).name
        what = f"the graph's variable {node.name} is of {declared}, the checkpoint's of {variable.dtype.name}"
        raise ConversionError(what, variable=variable.name)
    box = _box(restored.slice_spec, variable) if restored.slice_spec else None
    shape = variable.shape if box is None else shape_of(box)
    wanted = declared_shape(node)
    if wanted is None or agrees(wanted, shape):
        return Stored(variable, box, shape)
    known = tuple(n for n in wanted if n is not None)
    if restored.is_reshaped and len(known) == len(wanted) and prod(known) == prod(shape):
        return Stored(variable, box, known)
    listed = ["?" if n is None else n for n in wanted]
    what = f"the graph's variable {node.name} is of shape {listed}, the checkpoint's of {list(shape)}"
    raise ConversionError(what, variable=variable.name)


def _box(spec: str, variable: Variable) -> Selection:
    """The slice that a saver reads: the whole's sizes, then start,length of each dimension, `-` for all of it."""
    *sizes, extents = spec.split(" ")
    box = []
    for size, extent in zip(sizes, extents.split(":"), strict=False):
        start, _, length = ("0", ",", size) if extent == "-" else extent.partition(",")
        if not (is_size(start) and is_size(length)):
            break
        box.append(slice(int(start), int(start) + int(length)))
    fits = len(box) == len(variable.shape) and all(b.stop <= n for b, n in zip(box, variable.shape, strict=True))
    if not fits or [*map(str, variable.shape)] != sizes:
        raise CorruptionError(
            f"the saver reads the slice {spec!r} of an array of {list(variable.shape)}", variable=variable.name
        )
    return tuple(box)


def _little_endian(array: Any) -> bytes:
    """An array's bytes, row-major."""
    if sys.byteorder == "big":
        array = array.byteswap()
    return bytes(array.tobytes())
