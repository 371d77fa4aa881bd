"""A protobuf message as the fields it is made of: walk them, and edit them in place.

A field is a tag (varint: number << 3 | wire type) and a value: 0 a varint, 1 eight bytes, 2 a length and as many
bytes (strings, messages, packed lists), 5 four bytes; 3 and 4 open and close a group, which nobody writes any
more. Field 1 = 300 is `08 ac 02`.  (protobuf.dev/programming-guides/encoding)

`edit` exists because parsing a message and writing it again loses the order in which another writer stored its
maps. It changes the fields it has rules for, mends the lengths around them, and copies every other byte.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Final, TypeAlias

from ckpttool.errors import CorruptionError
from ckpttool.wire.coding import decode_varint, encode_varint

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
MAX_SIZE = (1 << 31) - 1
"""The most bytes that a message can have."""
# What protobuf's own parsers allow.
_MAX_DEPTH = 100


Field = tuple[int, int, int, int, int]
"""One field: its number, its wire type, and where the field, its value and the next field start."""


def fields(data: bytes, only: Container[int] | None = None) -> Iterator[Field]:
    """The fields of a message, in the order they stand.

    Written out for speed: a graph of 300,000 nodes has millions of fields, nearly all with a tag and a length of
    one byte.

    Args:
        data: the message.
        only: the numbers of the fields that are wanted; the others are skipped. None: all are wanted.

    Raises:
        CorruptionError: this is no protobuf message.
    """
    position, end = 0, len(data)
    while position < end:
        start = position
        tag = data[start]
        value = start + 1
        if tag >= 0x80:
            tag, value = decode_varint(data, start, 32)
        wire_type = tag & 7
        if wire_type == LENGTH:
            length = data[value] if value < end else 0x80
            value += 1
            if length >= 0x80:
                high = data[value] if value < end else 0x80
                if high < 0x80:
                    length, value = length & 0x7F | high << 7, value + 1
                else:
                    length, value = decode_varint(data, value - 1)
            position = value + length
        elif wire_type == VARINT and value < end and data[value] < 0x80:
            position = value + 1
        else:
            position = _skip(data, tag, value)
        if position > end or tag < 8:
            raise CorruptionError(f"field {tag >> 3} does not fit into its message", offset=start)
        if only is None or tag >> 3 in only:
            yield tag >> 3, wire_type, start, value, position


def values(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and value of a small message's fields: unsigned integers and bytes; groups are left out.

    Raises:
        CorruptionError: this is no protobuf message.
    """
    for number, wire_type, _, value, end in fields(data):
        if wire_type == LENGTH:
            yield number, wire_type, data[value:end]
        elif wire_type == VARINT:
            yield number, wire_type, data[value] if end == value + 1 else decode_varint(data, value)[0]
        elif wire_type != GROUP:
            yield number, wire_type, int.from_bytes(data[value:end], "little")


def values_of(data: bytes, number: int) -> Iterator[bytes]:
    """The values of a length-delimited field, which may be there many times.

    Raises:
        CorruptionError: this is no protobuf message.
    """
    return (data[value:end] for _, wire_type, _, value, end in fields(data, {number}) if wire_type == LENGTH)


def last_field(data: bytes, number: int) -> bytes:
    """The value of a length-delimited field that is there once; of several the last one counts, and none is empty.

    Raises:
        CorruptionError: this is no protobuf message.
    """
    *_, last = (b"", *values_of(data, number))
    return last


def varint_field(number: int, value: int) -> bytes:
    """A field with an integer as proto3 writes it: nothing, if it is zero."""
    return encode_varint(number << 3 | VARINT) + encode_varint(value) if value else b""


def message_field(number: int, data: bytes) -> bytes:
    """A field with bytes, a string or a message, which is there even if it is empty."""
    return length_prefix(number, len(data)) + data


def length_prefix(number: int, nbytes: int) -> bytes:
    """The tag and the length that go before the bytes of such a field."""
    return encode_varint(number << 3 | LENGTH) + encode_varint(nbytes)


def _skip(data: bytes, tag: int, position: int, depth: int = 0) -> int:
    """The position after the value that `tag` announces."""
    wire_type = tag & 7
    if wire_type == VARINT:
        return decode_varint(data, position)[1]
    if wire_type in _FIXED_SIZES:
        return position + _FIXED_SIZES[wire_type]
    if wire_type == LENGTH:
        length, position = decode_varint(data, position)
        return position + length
    if wire_type != GROUP or depth > _MAX_DEPTH:
        raise CorruptionError(f"field {tag >> 3} has wire type {wire_type}", offset=position)
    while True:
        inner, position = decode_varint(data, position, 32)
        if inner == tag + 1:
            return position
        position = _skip(data, inner, position, depth + 1)


class _Drop:
    """The rule that leaves a field out."""


DROP: Final = _Drop()
Rule: TypeAlias = _Drop | Mapping[int, "Rule"] | Callable[[bytes], bytes | None]
"""What to do with a length-delimited field: leave it out; edit it as a message, by rules of its own; or replace its
value by what the function returns (None: leave the field out)."""


def edit(data: bytes, rules: Mapping[int, Rule]) -> bytes:
    """The message with the rules applied, and every other byte as it was.

    Returns `data` itself where nothing changes. A field whose wire type is not that of a string or a message is
    unknown to every parser, and is left alone.

    Raises:
        CorruptionError: a message on the way is no protobuf message.
    """
    pieces: list[bytes] = []
    copied = 0
    for number, wire_type, start, value, end in fields(data, rules):
        if wire_type != LENGTH:
            continue
        old = data[value:end]
        try:
            new = _apply(rules[number], old)
        except CorruptionError as error:
            error.offset = value + (error.offset or 0)
            raise
        if new is old:
            continue
        pieces.append(data[copied:start])
        if new is not None:
            pieces.append(message_field(number, new))
        copied = end
    return b"".join([*pieces, data[copied:]]) if pieces else data


def _apply(rule: Rule, old: bytes) -> bytes | None:
    if isinstance(rule, _Drop):
        return None
    new = rule(old) if callable(rule) else edit(old, rule)
    return old if new == old else new
