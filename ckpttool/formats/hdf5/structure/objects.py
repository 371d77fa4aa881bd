"""Objects: groups, datasets and named types, as the messages of their headers make them.

A header with links, or a place for them, is a group; one with a type and a shape is a dataset; one with a type alone
is a named type. (IV.A. Disk Format: Level 2A - Data Object Headers)
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar, cast

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.attributes import Attributes
from ckpttool.formats.hdf5.structure.dataspace import Dataspace, decode_dataspace
from ckpttool.formats.hdf5.structure.datatype import Datatype, decode_datatype
from ckpttool.formats.hdf5.structure.file import Cursor, File
from ckpttool.formats.hdf5.structure.fill import checked_fill, decode_fill, decode_old_fill
from ckpttool.formats.hdf5.structure.groups import links_of
from ckpttool.formats.hdf5.structure.headers import (
    DATASPACE,
    DATATYPE,
    EXTERNAL,
    FILL,
    LAYOUT,
    LINK_INFO,
    OLD_FILL,
    PIPELINE,
    SYMBOL_TABLE,
    one,
    read_messages,
)
from ckpttool.formats.hdf5.structure.layout import CHUNKED, Layout, decode_layout
from ckpttool.formats.hdf5.structure.links import Link
from ckpttool.formats.hdf5.structure.pipeline import Filter, decode_pipeline
from ckpttool.formats.hdf5.structure.sharing import SharedMessages

GROUP, DATASET, TYPE = "group", "dataset", "type"
_Decoded = TypeVar("_Decoded")
# So many messages, of 64 KB at most, are a few MB.
_MOST_KNOWN = 64
_MAX_ITEMSIZE = (1 << 31) - 1  # NumPy's.


class Dataset(NamedTuple):
    """A dataset: everything but its attributes.

    Attributes:
        space: its shape.
        datatype: the type of its elements.
        layout: where the elements are.
        filters: what its chunks went through, in this order.
        fill: the bytes of an element that was not written; empty if they are zeros.
        is_elsewhere: its values are in other files, which its header lists.
    """

    space: Dataspace
    datatype: Datatype
    layout: Layout
    filters: tuple[Filter, ...]
    fill: bytes
    is_elsewhere: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.space.shape or ()


class Object:
    """An object, by the address of its header.

    Raises:
        CorruptionError: there is none, or it is damaged.
    """

    def __init__(self, file: File, shared: SharedMessages, address: int) -> None:
        self._file, self._shared, self._address = file, shared, address
        self._messages = read_messages(file, address)
        self.attributes = Attributes(file, shared, self._messages)

    @property
    def kind(self) -> str:
        """GROUP, DATASET or TYPE; raises CorruptionError if it is none of these."""
        kinds = {message.kind for message in self._messages}
        if SYMBOL_TABLE in kinds or LINK_INFO in kinds:
            return GROUP
        if DATATYPE not in kinds:
            raise CorruptionError("neither a group nor a dataset", offset=self._file.base + self._address)
        return DATASET if DATASPACE in kinds else TYPE

    def links(self) -> Iterator[Link]:
        """The links of a group; raises as `groups.links_of` does."""
        return links_of(self._file, self._messages)

    def optional(self, kind: int, decode: Callable[[Cursor], _Decoded]) -> _Decoded | None:
        """What the message of a type says; None if there is no such message. Raises as the decoder does."""
        message = one(self._messages, kind)
        if message is None:
            return None
        kind, _, data, offset = self._shared.resolved(message)
        if kind == LAYOUT:  # No two layouts are the same.
            return decode(Cursor(data, offset, self._file.sizes))
        known = self._shared.decoded
        if (kind, data) not in known:
            if len(known) == _MOST_KNOWN:
                known.clear()
            known[kind, data] = decode(Cursor(data, offset, self._file.sizes))
        return cast("_Decoded", known[kind, data])

    def required(self, kind: int, decode: Callable[[Cursor], _Decoded]) -> _Decoded:
        """As `optional`; raises CorruptionError if there is no such message."""
        found = self.optional(kind, decode)
        if found is None:
            raise CorruptionError(
                f"a dataset without its message of type {kind}", offset=self._file.base + self._address
            )
        return found


def dataset_of(found: Object) -> Dataset:
    """What the messages of a dataset say.

    Raises:
        CorruptionError: they are damaged, or do not agree.
        NotSupportedError: they are of a kind that is not known.
    """
    space, datatype = found.required(DATASPACE, decode_dataspace), found.required(DATATYPE, decode_datatype)
    if datatype.size > _MAX_ITEMSIZE:
        raise NotSupportedError(f"elements of {datatype.size:,} bytes")
    layout, filters = found.required(LAYOUT, decode_layout), found.optional(PIPELINE, decode_pipeline) or ()
    fill = found.optional(FILL, decode_fill)
    if fill is None:
        fill = found.optional(OLD_FILL, decode_old_fill) or b""
    is_elsewhere = found.optional(EXTERNAL, Cursor.rest) is not None
    dataset = Dataset(space, datatype, layout, filters, checked_fill(fill, datatype.size), is_elsewhere)
    if layout.kind == CHUNKED and (len(layout.chunk) != len(dataset.shape) or layout.itemsize != datatype.size):
        raise CorruptionError(
            f"chunks of {list(layout.chunk)} elements of {layout.itemsize} bytes, where the shape is"
            f" {list(dataset.shape)}, of {datatype.size}"
        )
    return dataset
