"""Notes: what a format does not keep of a variable, stored beside it where the format's module says.

So a checkpoint that went through another format is again what it was, byte for byte.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat
from math import prod
from typing import Any, NamedTuple

from ckpttool.errors import CheckpointError
from ckpttool.formats.records.shapes import box_of
from ckpttool.model.boxes import MAX_RANK, Extents, tiling_fault
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.slices import ByteRange, Slice, whole_slice
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.model.variable import Variable


class Note(NamedTuple):
    """What is kept of a variable beside its values, where the target does not keep it by itself.

    Attributes:
        name: its name, if the target has another one.
        dtype: its dtype's name, if the target's type does not tell.
        shape: its shape, if the target's is another one.
        shard: the number of the shard it was stored in.
        position: its place in the order in which the variables were stored; None for the order of names.
        slices: the boxes it was stored in, as they were written: (start, length) for each dimension, length -1 for the
            whole of it; each with its shard and position.
    """

    name: str | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    shard: int = 0
    position: int | None = None
    slices: tuple[tuple[Extents, int, int], ...] = ()

    def told(self) -> dict[str, Any]:
        """What differs from a plain variable's, by field; JSON can hold it."""
        if self == _PLAIN:
            return {}
        return {field: value for field, value in self._asdict().items() if value != self._field_defaults[field]}

    def encode(self) -> str:
        """`told` as JSON; "" if it is nothing."""
        found = self.told()
        return json.dumps(found, separators=(",", ":")) if found else ""

    @classmethod
    def decode(cls, text: str) -> "Note":
        """Reads what `encode` wrote; of anything else, what can be used of it, for a note is no part of the format."""
        try:
            return cls.of(json.loads(text) if text else {})
        except (ValueError, RecursionError):
            return cls()

    @classmethod
    def of(cls, found: Any) -> "Note":
        """As `decode`, of JSON that has been read."""
        try:
            return _checked(found) if isinstance(found, dict) else cls()
        except (ValueError, TypeError):
            return cls()


_PLAIN = Note()


def _checked(found: dict[str, Any]) -> Note:
    def text(field: str) -> str | None:
        return name_in_json(found[field]) if isinstance(found.get(field), str) else None

    shape = tuple(map(_count, found["shape"])) if "shape" in found else None
    if shape and len(shape) > MAX_RANK:
        raise ValueError(shape)
    position = _count(found["position"]) if "position" in found else None
    slices = tuple((_extents(boxes), _count(shard), _count(place)) for boxes, shard, place in found.get("slices", ()))
    return Note(text("name"), text("dtype"), shape, _count(found.get("shard", 0)), position, slices)


def name_in_json(text: str) -> str:
    """A variable's name that was written as JSON: bytes that are not UTF-8, and they alone, are lone surrogates.

    Raises:
        ValueError: there are other ones.
    """
    return to_text(to_bytes(text))


def _count(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 63:
        raise ValueError(number)
    return number


def _extents(boxes: Any) -> Extents:
    return tuple((_count(start), -1 if length == -1 else _count(length)) for start, length in boxes)


_Key = tuple[int, int, bytes]
"""Where a piece is stored: the shard, its place there, the variable's name."""


def notes_of(checkpoint: Checkpoint) -> dict[str, Note]:
    """The shard, position and slices of every variable, as a Note by its name.

    Positions are numbers 0, 1, 2, … in the order in which the pieces were stored, given only where that is not the
    order of the names: what nobody chose needs no note.
    """
    keys: list[_Key] = []
    pieces: list[tuple[str, Extents | None]] = []
    for name, variable in checkpoint.items():
        encoded = to_bytes(name)
        for piece in variable.slices:
            keys.append((piece.shard, piece.position, encoded))
            pieces.append((name, piece.extents))
    notes: dict[str, Note] = {}
    slices: dict[str, list[tuple[Extents, int, int]]] = {}
    for (name, extents), (shard, _, _), place in zip(pieces, keys, _places(keys), strict=True):
        if extents is None:
            notes[name] = Note(shard=shard, position=place) if shard or place is not None else _PLAIN
        else:
            slices.setdefault(name, []).append((extents, shard, place or 0))
    return notes | {name: Note(slices=tuple(boxes)) for name, boxes in slices.items()}


def _places(keys: Sequence[_Key]) -> Iterable[int | None]:
    """The places of pieces in the order in which they were stored; none, if that is the order of their names."""
    if all(key <= next_key and key[::2] <= next_key[::2] for key, next_key in pairwise(keys)):
        return repeat(None, len(keys))  # As nearly every checkpoint has them: nothing to sort.
    # Of those at one place, writers take the names in order, whatever the order of the checkpoint.
    by_place = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    by_name = sorted(range(len(keys)), key=lambda i: (keys[i][::2], i))
    if by_place == by_name:
        return repeat(None, len(keys))
    places = [0] * len(keys)
    for place, index in enumerate(by_place):
        places[index] = place
    return places


def noted_slices(variable: Variable, note: Note, data: ByteRange) -> list[Slice]:
    """The slices that a note says a variable was stored in; one, all of it, if it says none that can be."""
    whole = [whole_slice(variable.shape, data, note.shard, note.position or 0)]
    try:
        boxes = [box_of(extents, variable.shape) for extents, *_ in note.slices]
        # The same one twice, which covers nothing, has the same key.
        if not boxes or len(set(boxes)) < len(boxes) or tiling_fault(variable.shape, boxes):
            return whole
    except CheckpointError:
        return whole
    return [
        Slice(start, shape, shard, data._replace(nbytes=prod(shape) * (variable.dtype.itemsize or 1)), place, box)
        for (start, shape), (box, shard, place) in zip(boxes, note.slices, strict=True)
    ]
