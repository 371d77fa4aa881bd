"""The records of V1 checkpoints."""

from typing import Any, NamedTuple

from ckpttool.errors import FormatError, located
from ckpttool.formats.records.entries import check_version
from ckpttool.formats.records.shapes import decode_extents, decode_shape
from ckpttool.model.boxes import Extents
from ckpttool.model.texts import to_text
from ckpttool.wire.coding import decode_varint, to_signed
from ckpttool.wire.message import LENGTH, VARINT, fields


class SavedSliceMeta(NamedTuple):
    """What a V1 checkpoint's first record says of a tensor: all of it, and which slices of it are in the file."""

    name: bytes = b""
    shape: tuple[int, ...] = ()
    dtype: int = 0
    slices: tuple[Extents, ...] = ()


def decode_slices_meta(data: bytes) -> list[SavedSliceMeta]:
    """The SavedTensorSlices under key "": meta 1, of tensor 1 (repeated) and versions 2.

    Raises:
        FormatError: it is the header of a V2 checkpoint, which stands under the same key.
        NotSupportedError: it wants a newer reader.
    """
    metas = []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            metas.append(data[start:end])
        elif number in (1, 3):
            hint = "such a file is named PREFIX.index, and its data PREFIX.data-00000-of-00001: rename them"
            raise FormatError("the index of a V2 checkpoint, not a V1 one", hint=hint)
    if not metas:
        raise FormatError("no V1 checkpoint: its first record lists no tensors")
    # Of several, protobuf makes one.
    return [tensor for meta in metas for tensor in _decode_tensors(meta)]


def _decode_tensors(data: bytes) -> list[SavedSliceMeta]:
    tensors = []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            tensors.append(_decode_slice_meta(data[start:end]))
        elif (number, wire_type) == (2, LENGTH):
            check_version(data[start:end])
    return tensors


def _decode_slice_meta(data: bytes) -> SavedSliceMeta:
    """A SavedSliceMeta: name 1, shape 2, type 3, slice 4 (repeated)."""
    name, shape, dtype, slices = b"", b"", 0, []
    for number, wire_type, _, start, end in fields(data):
        if (number, wire_type) == (1, LENGTH):
            name = data[start:end]
        elif (number, wire_type) == (2, LENGTH):
            shape = data[start:end]
        elif (number, wire_type) == (3, VARINT):
            dtype = to_signed(decode_varint(data, start)[0])
        elif (number, wire_type) == (4, LENGTH):
            slices.append(data[start:end])
    with located(variable=to_text(name)):
        return SavedSliceMeta(name, decode_shape(shape), dtype, tuple(map(decode_extents, slices)))


class SavedSlice(NamedTuple):
    """The record of a slice in a V1 checkpoint; `tensor` is a view (memoryview) of its TensorProto."""

    name: bytes
    extents: Extents
    tensor: Any


def decode_saved_slice(data: bytes) -> SavedSlice:
    """The SavedTensorSlices under a slice's key: data 2, of name 1, slice 2 and data 3.

    Through views, for the record may have 2 GiB.
    """
    view: Any = memoryview(data)
    parts: dict[int, Any] = {}
    for number, wire_type, _, start, end in fields(view):
        if (number, wire_type) == (2, LENGTH):
            outer = view[start:end]
            parts |= {inner: outer[s:e] for inner, kind, _, s, e in fields(outer) if kind == LENGTH}
    return SavedSlice(bytes(parts.get(1, b"")), decode_extents(bytes(parts.get(2, b""))), parts.get(3, view[:0]))
