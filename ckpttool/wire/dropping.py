"""Fields dropped from very many messages at once.

A graph of 300,000 ops has two million fields, and a loop takes half a microsecond for each. Messages that lie side by
side are walked side by side instead: NumPy takes one field of each at every step. Where they lie only a loop can tell,
for each begins where the one before it ends: it does nothing else.
"""

from array import array
from collections.abc import Container, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from ckpttool.errors import CorruptionError
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import LENGTH, Rule, edit, fields

if TYPE_CHECKING:
    import numpy as np

    _Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_LARGE = 1 << 20
"""A message of so many bytes is worth the import of NumPy."""

_FEW = 256
"""So few messages are walked one after another: a step of NumPy takes as long as so many turns of a loop."""

_TOGETHER = 1 << 14
"""So many are walked at once: what a step knows of each then fits into a processor's cache."""


def drop(data: bytes, rules: Mapping[int, Rule]) -> bytes:
    """The message as `edit` makes it, where each rule is DROP or a mapping of such rules.

    Raises:
        CorruptionError: a message on the way is no protobuf message.
    """
    if len(data) < _LARGE:
        return edit(data, rules)
    import numpy as np

    dropping = _Dropping(data)
    whole = _Fields(*np.array([[0, 0, 0, len(data)]]).T)
    try:
        return dropping.dropped() if dropping.mark(whole, rules).any() else data
    except CorruptionError:
        return edit(data, rules)  # This one says where.


class _Fields(NamedTuple):
    """Fields that hold bytes: of each the number of the message that it is in, and where it, its value, and the next
    field start.
    """

    message: "_Integers"
    start: "_Integers"
    value: "_Integers"
    end: "_Integers"


class _Dropping:
    """A message that fields are cut out of, with the lengths around them mended.

    Args:
        data: the message.
    """

    def __init__(self, data: bytes) -> None:
        import numpy as np

        self._data, self._bytes = data, np.frombuffer(bytearray(data), np.uint8)
        self._cuts: list[tuple[_Integers, _Integers]] = []

    def mark(self, messages: _Fields, rules: Mapping[int, Rule]) -> "_Integers":
        """Applies the rules to each of the messages, and returns how many bytes each loses."""
        import numpy as np

        lost = np.zeros(len(messages.value), np.int64)
        for number, found in self._found(messages, rules).items():
            rule = rules[number]
            if isinstance(rule, Mapping):
                less = self._shorten(number, found, self.mark(found, rule))
            else:
                self._cuts.append((found.start, found.end))
                less = found.end - found.start
            np.add.at(lost, found.message, less)
        return lost

    def dropped(self) -> bytes:
        """What is left."""
        import numpy as np

        edges = np.concatenate([[0, len(self._data)], *chain.from_iterable(self._cuts)])
        edges.sort(kind="stable")  # Merges the runs, each in order, in a thirtieth of the time.
        lengths = np.diff(edges)  # Of what is kept, of what is cut, of what is kept, ...
        is_kept = np.repeat(np.arange(lengths.size) % 2 == 0, lengths)
        return bytes(self._bytes[is_kept].data)

    def _shorten(self, number: int, messages: _Fields, lost: "_Integers") -> "_Integers":
        """Writes the tag and the new length of each message that loses something, right before its value, in as few
        bytes as they take. Returns what each loses, with the bytes of the old length that are left over.
        """
        import numpy as np

        changed = np.flatnonzero(lost)
        _, start, value, end = (each[changed] for each in messages)
        tag = encode_varint(number << 3 | LENGTH)
        length = end - value - lost[changed]
        size = np.ones_like(length)
        for bits in range(7, 35, 7):
            size += length >> bits > 0
        for place in range(int(size.max(initial=0))):
            there = size > place
            byte = length >> 7 * place & 0x7F | np.where(size > place + 1, 0x80, 0)
            self._bytes[(value - size + place)[there]] = byte[there]
        begin = value - size - len(tag)
        for place, each in enumerate(tag):
            self._bytes[begin + place] = each
        self._cuts.append((start, begin))
        lost[changed] += begin - start
        return lost

    def _found(self, messages: _Fields, rules: Mapping[int, Rule]) -> dict[int, _Fields]:
        """The messages' fields that there are rules for, by number."""
        import numpy as np

        found: dict[int, list[_Integers]] = {number: [] for number in rules}
        message = np.arange(len(messages.value))
        for first in range(0, message.size, _TOGETHER):
            together = slice(first, first + _TOGETHER)
            walk = self._walk(message[together], messages.value[together], messages.end[together], rules)
            for numbers, some in walk:
                for number, parts in found.items():
                    chosen = np.flatnonzero(numbers == number)
                    if chosen.size:
                        parts.append(some[:, chosen])
        return {number: _Fields(*np.concatenate(parts, axis=1)) for number, parts in found.items() if parts}

    def _walk(
        self, message: "_Integers", position: "_Integers", end: "_Integers", wanted: Container[int]
    ) -> "Iterator[tuple[_Integers, _Integers]]":
        """The fields that hold bytes, of messages that each have a position to walk on from: their numbers, and with
        what _Fields has of them a column for each.
        """
        import numpy as np

        while True:
            is_left = position < end
            message, position, end = message[is_left], position[is_left], end[is_left]
            if message.size <= _FEW:
                break
            tag, low, high = (self._bytes.take(position + ahead, mode="clip").astype(np.int64) for ahead in range(3))
            # A tag of one byte, and a length of two at most, and all of it within the message: nearly all are so.
            is_long = low >= 0x80
            value = position + 2 + is_long
            after = value + np.where(is_long, low & 0x7F | high << 7, low)
            is_plain = (tag < 0x80) & (tag & 7 == LENGTH) & (tag > 7) & ~(is_long & (high >= 0x80)) & (after <= end)
            others = ~is_plain
            yield from self._walk_slowly(message[others], position[others], end[others], wanted)
            found = np.stack((message, position, value, after))[:, is_plain]
            yield tag[is_plain] >> 3, found
            message, position, end = found[0], found[3], end[is_plain]
        yield from self._walk_slowly(message, position, end, wanted)

    def _walk_slowly(
        self, message: "_Integers", position: "_Integers", end: "_Integers", wanted: Container[int]
    ) -> "Iterator[tuple[_Integers, _Integers]]":
        """The same, one message after another."""
        import numpy as np

        position = position.copy()
        for large in np.flatnonzero(end - position > _LARGE):
            numbers, found = self._run(message[large], position[large], end[large])
            yield numbers, found
            position[large] = found[3].max(initial=position[large])
        flat, counts = array("q"), [0]
        for start, stop in zip(position.tolist(), end.tolist(), strict=True):
            flat.extend(chain.from_iterable(fields(self._data[start:stop], wanted)))
            counts.append(len(flat) // 5)
        number, wire_type, *places = np.array(flat).reshape(-1, 5).T
        which = np.repeat(np.arange(message.size), np.diff(counts))
        found = np.stack((message[which], *(position[which] + place for place in places)))
        yield number[wire_type == LENGTH], found[:, wire_type == LENGTH]

    def _run(self, message: int, position: int, end: int) -> "tuple[_Integers, _Integers]":
        """The fields that a message begins with, of one number and plain, as `_walk` has it: so a graph has its ops."""
        import numpy as np

        edges = np.array(_edges(self._data, int(position), int(end)))
        start, after = edges[:-1], edges[1:]
        value = start + 2 + (self._bytes[start + 1] >= 0x80)
        return self._bytes[start].astype(np.int64) >> 3, np.stack((np.full_like(start, message), start, value, after))


def _edges(data: bytes, position: int, end: int) -> list[int]:
    """Where a message's first fields lie, one after another, as long as they are plain and have the first one's tag."""
    tag = data[position]
    edges = [position]
    is_plain = tag & 7 == LENGTH and 7 < tag < 0x80
    while is_plain and position + 2 < end and data[position] == tag:
        length = data[position + 1]
        position += 2
        if length >= 0x80:
            if data[position] >= 0x80:
                break
            length += (data[position] << 7) - 0x7F  # Less the bit that says there is more; with the second byte.
        position += length
        edges.append(position)
    return edges if position <= end else edges[:-1]
