"""Object headers: the messages of a group, a dataset or a named type.

Version 1 has no signature; messages are padded to 8 bytes:

    01 00 | 05 00 | 01 00 00 00 | 48 01 00 00 | 00 00 00 00   version, messages, links to it, bytes of messages, –
    01 00 | 18 00 | 00 | 00 00 00 | …                         type 1, 24 bytes, flags, –; the message
    10 00 | 10 00 | 00 | 00 00 00 | 98 07 … | 28 00 …         a continuation: 0x28 bytes of messages at 0x798

Version 2 has checksums, and is shorter; the flags 0x20 say that there are times, and that the size is one byte:

    4f 48 44 52 | 02 | 20 | a5 8d 3a 66 …(4 times) | 78       "OHDR", version, flags, times, bytes of messages
    01 | 12 00 | 00 | …                                       type 1, 18 bytes, flags; the message
    10 | 10 00 | 00 | 30 01 … | 40 00 …                       more messages in a block "OCHK", with a checksum too
    …  | 1c 4e 88 a0                                          (space left, less than a message's head,) the checksum

(IV.A. Disk Format: Level 2A - Data Object Headers)
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ckpttool.errors import CorruptionError
from ckpttool.formats.hdf5.structure.checksum import require_checksum
from ckpttool.formats.hdf5.structure.file import Cursor, File

DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT = 1, 2, 3, 4, 5, 6, 7, 8
PIPELINE, ATTRIBUTE, SHARED_TABLE, CONTINUATION, SYMBOL_TABLE, DRIVER, ATTRIBUTE_INFO = 11, 12, 15, 16, 17, 20, 21
_KEPT = {DATASPACE, LINK_INFO, DATATYPE, OLD_FILL, FILL, LINK, EXTERNAL, LAYOUT}
_KEPT |= {PIPELINE, ATTRIBUTE, SHARED_TABLE, SYMBOL_TABLE, DRIVER, ATTRIBUTE_INFO}
# As many as version 1 can count.
_MAX_MESSAGES = 1 << 16
# Most headers have no more bytes.
_USUAL = 512
# Signature, version, flags, one byte of size, checksum.
_LEAST_2 = 11
_HEAD_1, _HEAD_2 = struct.Struct("<HHB3x"), struct.Struct("<BHB")


class Message(NamedTuple):
    """A message: its type, its flags, its bytes and where they are in the file."""

    kind: int
    flags: int
    data: bytes
    offset: int


def read_messages(file: File, address: int) -> list[Message]:
    """The messages of an object that are about its values, its attributes or its links.

    Raises:
        CorruptionError: there is no header, or it is damaged.
    """
    start = file.peek(address, _USUAL)
    if start.startswith(b"OHDR\x02") and len(start) >= _LEAST_2:
        chunks = _chunks_2(file, address, start)
    elif start.startswith(b"\x01") and len(start) >= 16:
        chunks = _chunks_1(file, address, start)
    else:
        raise CorruptionError("there is no object header here", offset=file.base + address)
    messages: list[Message] = []
    for found in chunks:
        messages += found
        if len(messages) > _MAX_MESSAGES:
            raise CorruptionError(f"a header of more than {_MAX_MESSAGES:,} messages", offset=file.base + address)
    return messages


def _chunks_1(file: File, address: int, start: bytes) -> Iterator[list[Message]]:
    (nbytes,) = struct.unpack_from("<I", start, 8)
    places = _Places(file, (address + 16, nbytes))
    for place, size in places:
        data = file.structure(place, size, start[16:] if place == address + 16 else b"")
        yield places.without_continuations(_messages(data, 0, size, _HEAD_1, 0, file.base + place))


def _chunks_2(file: File, address: int, start: bytes) -> Iterator[list[Message]]:
    flags = start[5]
    width = 1 << (flags & 3)
    before = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0) + width
    nbytes = int.from_bytes(start[before - width : before], "little")
    # A number follows each message's head: its place in the order in which attributes were made.
    extra = 2 if flags & 4 else 0
    places = _Places(file, (address, before + nbytes + 4))
    for place, size in places:
        data = file.structure(place, size, start if place == address else b"")
        if place != address and not data.startswith(b"OCHK"):
            raise CorruptionError("no OCHK, where a header is continued", offset=file.base + place)
        require_checksum(data, file.base + place)
        first = before if place == address else 4
        yield places.without_continuations(_messages(data, first, size - 4, _HEAD_2, extra, file.base + place))


def _messages(data: bytes, position: int, end: int, head: struct.Struct, extra: int, offset: int) -> list[Message]:
    found = []
    unpack_from, before = head.unpack_from, head.size + extra
    while position + before <= end:
        kind, size, flags = unpack_from(data, position)
        position += before
        if position + size > end:
            raise CorruptionError(f"a message of {size:,} bytes ends outside its header", offset=offset + position)
        if kind in _KEPT or kind == CONTINUATION:
            found.append(Message(kind, flags, data[position : position + size], offset + position))
        position += size
    return found


class _Places:
    """The places of a header's parts, no place twice; while the first parts are read, further places are found."""

    def __init__(self, file: File, first: tuple[int, int]) -> None:
        self._file, self._places, self._known = file, [first], {first[0]}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._places)

    def without_continuations(self, messages: list[Message]) -> list[Message]:
        """The messages that are no continuations; the places that continuations name are added to these."""
        for message in messages:
            if message.kind == CONTINUATION:
                self._add(Cursor(message.data, message.offset, self._file.sizes))
        return [message for message in messages if message.kind != CONTINUATION]

    def _add(self, cursor: Cursor) -> None:
        address, size = cursor.address(), cursor.length()
        if address is None or address in self._known or len(self._places) == _MAX_MESSAGES:
            raise CorruptionError("a header's continuation leads nowhere", offset=cursor.offset)
        self._known.add(address)
        self._places.append((address, size))


def one(messages: Sequence[Message], kind: int) -> Message | None:
    """The first message of a type."""
    return next((message for message in messages if message.kind == kind), None)
