r"""How much memory a message will take, found from its bytes before it is parsed.

A file of 8 MB may hold 4,000,000 messages, for two bytes are an empty one: `0a 00` repeated is a graph of ops without
name or type. Parsed, each takes as much as with all its fields: 112 bytes for an op, 184 for a tensor, 256 for a map
with its first entry. A graph that TensorFlow wrote takes four to eight times its size, one made to fill memory up to a
hundred times. A message that would take more than the `allowance` for its size is refused before anything is allocated.

A bound comes first, at a tenth of the parser's time: each message begins with a tag, which is one of 32 values of a
byte, so that there are no more messages of a field than there are such bytes. Only where that could be too much, the
fields are walked, and what they take is added up, until it is too much.
"""

from functools import cache
from typing import Any, NamedTuple

from ckpttool.proto.fields import is_repeated

_MIB = 1 << 20
# What protobuf's own parsers allow.
_MAX_DEPTH = 100
# So few bytes never take more than is allowed; to look would take 3 ms.
_LITTLE = 48 << 10
# Bytes that upb 5 to 7 takes, measured; not less for any message of ours, and at most half as much again.
_HEAD, _SLOT, _TEXT, _LIST, _MAP, _ENTRY = 24, 24, 16, 64, 168, 96
# Of a list of numbers, for each byte of the file: of those that take eight bytes in memory, and four.
_WIDE, _NARROW = 20, 10
_TAGS = bytes(range(2, 256, 8))
_OTHERS = bytes(byte for byte in range(256) if byte not in _TAGS)
# Data larger than the first get a closer bound, which counts short messages alone, those of fewer bytes than the
# second: longer ones are never so many that they make a bomb.
_LARGE, _SHORT = 4 * _MIB, 8
# Large data are taken in numbers of so many bytes, which stay in the processor's cache.
_AT_ONCE = 64 << 10
# Messages of up to so many bytes are compared with what follows: there may be many copies.
_REPEATED = 64
# What each byte can be, as bits: 1, a tag; 2, the start of a short message's length, which may be written in more bytes
# than it takes (`80 00` is 0), or the rest of a tag.
_KINDS = bytes((byte in _TAGS) | (byte & 0x7F < _SHORT) << 1 for byte in range(256))


def allowance(nbytes: int) -> int:
    """How much memory a message of so many bytes may take: more for a large one, so that a real one needs no walk."""
    return max(32 * nbytes + 24 * _MIB, 48 * nbytes - 104 * _MIB)


def is_out_of_proportion(descriptor: Any, data: bytes) -> bool:
    """Whether a message would take more memory than it may."""
    if len(data) <= _LITTLE:
        return False
    most = allowance(len(data))
    return _bound(_plan(descriptor), data, most) > most and _estimate(_plan(descriptor), data, most) > most


class _Field(NamedTuple):
    """What a field of some number takes.

    Attributes:
        each: each time it is there.
        first: beyond that the first time in a message: a list or a map is made.
        per_byte: for each of its bytes.
        plan: that of the message that it is.
    """

    each: int
    first: int = 0
    per_byte: int = 0
    plan: "_Plan | None" = None


_Plan = dict[int, _Field]
"""The fields of a message that take more than their bytes, by tag."""


@cache
def _plan(descriptor: Any) -> _Plan:
    return _filled(descriptor, {})


def _filled(descriptor: Any, known: dict[str, _Plan]) -> _Plan:
    """A message's plan; those of messages that hold themselves too."""
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    plan = known[descriptor.full_name] = {}
    for field in descriptor.fields:
        found = _field(field, known)
        if found:
            plan[field.number << 3 | 2] = found
    return plan


def _field(field: Any, known: dict[str, _Plan]) -> _Field | None:
    message = field.message_type
    if message and message.has_options:  # Only maps' entries have any: a test says so.
        value = message.fields_by_name["value"].message_type  # Made also where an entry does not have it.
        return _Field(_ENTRY + (_size(value) if value else 0), _MAP, plan=_filled(message, known))
    if message:
        is_made = field.containing_type.has_options
        each = 0 if is_made else _size(message) + _SLOT * is_repeated(field)
        return _Field(each, _LIST * is_repeated(field), plan=_filled(message, known))
    if not is_repeated(field) or field.type == field.TYPE_BOOL:
        return None
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        return _Field(_TEXT + _SLOT, _LIST)
    wide = field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
    return _Field(_SLOT, _LIST, per_byte=_WIDE if wide else _NARROW)


def _size(message: Any) -> int:
    """What a message without any fields takes: room for each field, and for the largest one of each oneof."""
    alone = [_room(field) for field in message.fields if not field.containing_oneof]
    return _HEAD + sum(alone) + sum(8 + max(map(_room, oneof.fields)) for oneof in message.oneofs)


def _room(field: Any) -> int:
    return 16 if field.type in (field.TYPE_STRING, field.TYPE_BYTES) and not is_repeated(field) else 8


def _bound(plan: _Plan, data: bytes, most: int) -> int:
    """An upper bound of what the messages in `data` take, apart from lists of numbers, which are in proportion.

    In large data it counts short messages alone: longer ones can't be so many, unless they lie in each other, and then
    they take 85 times their bytes at most. To walk a real graph of 45 MB would take longer than to parse it.
    """
    weights = _weights(plan)
    heaviest = max(weights.values(), default=0)
    if len(data) * heaviest <= most:
        return 0
    if len(data) > _LARGE:
        return heaviest * sum(_short_messages(data[at : at + _AT_ONCE + 1]) for at in range(0, len(data), _AT_ONCE))
    tags = data.translate(None, _OTHERS)
    return sum(tags.count(byte) * weight for byte, weight in weights.items())


def _short_messages(data: bytes) -> int:
    """How many bytes may be a short message's tag; as one number, the next byte's bit 1 is nine bits above."""
    kinds = int.from_bytes(data.translate(_KINDS), "little")
    return (kinds & kinds >> 9).bit_count()


def _weights(plan: _Plan) -> dict[int, int]:
    """For each first byte of a field, the most that its message takes."""
    weights: dict[int, int] = {}
    for tag, field in _all_fields(plan):
        for first in (tag, tag | 0x80) if tag < 0x80 else (tag & 0x7F | 0x80,):  # A small one may take two bytes too.
            weights[first] = max(weights.get(first, 0), field.each + field.first)
    return weights


def _all_fields(plan: _Plan) -> list[tuple[int, _Field]]:
    seen, waiting, found = {id(plan)}, [plan], list[tuple[int, _Field]]()
    while waiting:
        for tag, field in waiting.pop().items():
            found.append((tag, field))
            if field.plan is not None and id(field.plan) not in seen:
                seen.add(id(field.plan))
                waiting.append(field.plan)
    return found


def _estimate(plan: _Plan, data: bytes, most: int) -> int:  # noqa: C901, PLR0912 - written out for speed
    """What the messages in `data` take, or something above `most`; up to the first byte that is no message."""
    total, position, end, last = 0, 0, len(data), 0
    outer: list[tuple[_Plan, int, int, int, int]] = []
    while True:
        while position >= end:
            if not outer:
                return total
            plan, end, last, start, before = outer.pop()
            if position - start <= _REPEATED:  # Copies of it that follow are counted at once.
                times, position = _again(data[start:position], data, position, end)
                total += times * (total - before)
        start, tag = position, data[position]
        position += 1
        if tag >= 0x80:
            tag, position = varint(data, start)
        kind = tag & 7
        if kind == 2:
            length = data[position] if position < end else 0
            position += 1
            if length >= 0x80:
                length, position = varint(data, position - 1)
            field = plan.get(tag)
            if position + length > end or total > most or len(outer) > _MAX_DEPTH:
                return total
            if field is None:
                position += length
                continue
            if tag != last:
                total += field.first
                last = tag
            before = total
            total += field.each + field.per_byte * length
            if field.plan is not None and length:
                outer.append((plan, end, last, start, before))
                plan, end, last = field.plan, position + length, 0
            elif length:
                position += length
            else:
                times, position = _again(data[start:position], data, position, end)
                total += times * field.each
        elif kind == 0:
            while position < end and data[position] >= 0x80:
                position += 1
            position += 1
            total += _WIDE  # A number of a list that is not packed, for all that is known.
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind in (3, 4):  # A group, which is kept as it is: what is in it is counted as if it stood there alone.
            total += _WIDE
        else:
            return total


def _again(same: bytes, data: bytes, position: int, end: int) -> tuple[int, int]:
    """How many more times the bytes follow, one copy behind another, and where the last ends."""
    start, size = position, len(same)
    while data.startswith(same, position) and position + len(same) <= end:
        position += len(same)
        same += same
    while len(same) > size:
        same = same[: len(same) // 2]
        if data.startswith(same, position) and position + len(same) <= end:
            position += len(same)
    return (position - start) // size, position


def varint(data: bytes, position: int) -> tuple[int, int]:
    """A varint and where it ends; 2**64, which no message has, if it is too long or the data end before."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    return 1 << 64, position
