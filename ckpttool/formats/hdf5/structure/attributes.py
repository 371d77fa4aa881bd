r"""Attributes: names and values of a group or a dataset, in its header; or, if there are many, in a fractal heap.

    01 | 00 | 05 00 | 08 00 | 08 00                       version, –, bytes of name, type and shape
    "unit\0" 00 00 00 | 13 00 00 00 01 00 00 00 | 01 00 … a name, padded to 8 bytes; a type, a shape; then the value

Version 2 has flags (bits 0 and 1: type and shape are shared) and no padding; version 3 also the name's character set.

    00 | 00 | 1b 01 … | 9c 02 …                           an attribute info message: version, flags; the heap, the tree
    00 15 00 00 00 1a 00 00 | 00 | 03 00 00 00 | 6b …     a record of the tree: the attribute's ID in the heap, flags,
                                                          number in the order in which they were made, the name's hash

(IV.A.2.m. The Attribute Message; IV.A.2.v. The Attribute Info Message)
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ckpttool.errors import NotSupportedError
from ckpttool.formats.hdf5.structure.checksum import lookup3
from ckpttool.formats.hdf5.structure.dataspace import Dataspace, decode_dataspace
from ckpttool.formats.hdf5.structure.datatype import Datatype, decode_datatype
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.fractal_heap import FractalHeap
from ckpttool.formats.hdf5.structure.headers import ATTRIBUTE, ATTRIBUTE_INFO, DATASPACE, DATATYPE, Message, one
from ckpttool.formats.hdf5.structure.sharing import SHARED, SharedMessages
from ckpttool.formats.hdf5.structure.trees2 import ATTRIBUTE_NAMES, records

_TYPE_SHARED, _SHAPE_SHARED = 1, 2


class Attribute(NamedTuple):
    """An attribute: its type, its shape, and its value's bytes."""

    datatype: Datatype
    shape: tuple[int, ...] | None
    data: bytes


class Attributes:
    """The attributes of an object, by their names.

    Args:
        file: the file.
        shared: the file's shared messages.
        messages: the object's messages.
    """

    def __init__(self, file: File, shared: SharedMessages, messages: Sequence[Message]) -> None:
        self._file, self._shared = file, shared
        self._messages, self._info = messages, one(messages, ATTRIBUTE_INFO)
        self._has_some = self._info is not None or one(messages, ATTRIBUTE) is not None
        self._compact: dict[bytes, Message] | None = None
        self._dense: dict[int, list[tuple[bytes, int]]] | None = None
        self._heap: FractalHeap | None = None

    def __contains__(self, name: bytes) -> bool:
        return self._message(name) is not None

    def get(self, name: bytes) -> Attribute | None:
        """The attribute of a name; None if there is none.

        Raises:
            CorruptionError: it is damaged.
            NotSupportedError: it is of a kind that is not known.
        """
        message = self._message(name)
        if message is None:
            return None
        cursor = Cursor(message.data, message.offset, self._file.sizes)
        _, sizes, flags = _head(cursor)
        padded = flags is None
        datatype = self._datatype(_part(cursor, sizes[0], padded), bool((flags or 0) & _TYPE_SHARED))
        space = self._dataspace(_part(cursor, sizes[1], padded), bool((flags or 0) & _SHAPE_SHARED))
        return Attribute(datatype, space.shape, cursor.rest())

    def _message(self, name: bytes) -> Message | None:
        if not self._has_some:
            return None
        if self._compact is None:
            found = (self._shared.resolved(message) for message in self._messages if message.kind == ATTRIBUTE)
            self._compact = {self._name(message): message for message in found}
        return self._compact.get(name) or next((m for m in self._in_heap(name) if self._name(m) == name), None)

    def _name(self, message: Message) -> bytes:
        return _head(Cursor(message.data, message.offset, self._file.sizes))[0]

    def _in_heap(self, name: bytes) -> Iterator[Message]:
        """The messages in the heap whose names have the same hash as this one."""
        if self._dense is None:
            self._open_heap()
        assert self._dense is not None
        for found, flags in self._dense.get(lookup3(name), ()):
            if flags & SHARED:
                yield self._shared.at(ATTRIBUTE, Cursor(b"\3\1" + found, 0, self._file.sizes))
            elif self._heap is not None:
                yield Message(ATTRIBUTE, 0, self._heap.object(found), 0)

    def _open_heap(self) -> None:
        self._dense = {}
        if self._info is None:
            return
        cursor = Cursor(self._info.data, self._info.offset, self._file.sizes)
        cursor.skip(1)
        cursor.skip(2 if cursor.number(1) & 1 else 0)
        address, tree = cursor.address(), cursor.address()
        if address is None:
            return
        self._heap = FractalHeap(self._file, address)
        for record in records(self._file, tree, (ATTRIBUTE_NAMES,), 17):
            self._dense.setdefault(int.from_bytes(record[13:], "little"), []).append((record[:8], record[8]))

    def _datatype(self, cursor: Cursor, is_shared: bool) -> Datatype:
        if not is_shared:
            return decode_datatype(cursor)
        found = self._shared.at(DATATYPE, cursor)
        return decode_datatype(Cursor(found.data, found.offset, self._file.sizes))

    def _dataspace(self, cursor: Cursor, is_shared: bool) -> Dataspace:
        if not is_shared:
            return decode_dataspace(cursor)
        found = self._shared.at(DATASPACE, cursor)
        return decode_dataspace(Cursor(found.data, found.offset, self._file.sizes))


def _head(cursor: Cursor) -> tuple[bytes, tuple[int, int], int | None]:
    """The name, how many bytes type and shape take, and the flags; None for version 1, which has padding instead."""
    version, flags = cursor.number(1), cursor.number(1)
    if version not in (1, 2, 3):
        raise NotSupportedError(f"an attribute of version {version}", offset=cursor.offset)
    size, datatype, dataspace = cursor.number(2), cursor.number(2), cursor.number(2)
    cursor.skip(1 if version == 3 else 0)
    name = _part(cursor, size, version == 1).data.partition(b"\0")[0]
    return name, (datatype, dataspace), None if version == 1 else flags


def _part(cursor: Cursor, size: int, padded: bool) -> Cursor:
    offset = cursor.here
    part = Cursor(cursor.take(size), offset, cursor.sizes)
    cursor.skip(-size % 8 if padded else 0)
    return part
