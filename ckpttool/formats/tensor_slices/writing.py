"""Writing V1 checkpoints: the bytes that TensorFlow's own SaveSlices would write, in one file.

The records are in formats.tensor_slices. A record is a single value of a table, as large as its slice. It is made and
written block by block nevertheless; for varints, a first pass counts how many bytes there will be.

(tensorflow/core/util/tensor_slice_writer.h, saved_tensor_slice_util.h)
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import ConversionError, located
from ckpttool.formats.contents import content_of_piece, require_little_endian
from ckpttool.formats.plan import Planned, check_plan
from ckpttool.formats.records.shapes import encode_extents, encode_shape, encode_slice_key
from ckpttool.formats.tensor_slices.reading import VALUE_FIELDS
from ckpttool.model.boxes import Extents, is_too_large
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.slices import Slice
from ckpttool.model.texts import to_bytes
from ckpttool.model.variable import BLOCK_SIZE, Variable
from ckpttool.storage import Content
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import FIXED32, FIXED64, LENGTH, VARINT, message_field, varint_field
from ckpttool.wire.sstable import TableBuilder

if TYPE_CHECKING:
    import numpy as np

# Dtypes that TensorFlow's messages have a field for, but its writer has no code for.
_UNWRITTEN = {"qint16", "quint16"}
# How many bytes TensorFlow reckons for an element, and how many it allows a record, reckoned so.
_MAX_BYTES = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16, "bool": 1, "float16": 3}
_MAX_BYTES |= {"uint8": 2, "quint8": 2, "uint16": 3}
_MAX_RECORD = 1 << 31
_HEADER_BYTES = 1 << 10
# TensorFlow writes more dimensions, and aborts the process when it reads them. (core/util/tensor_slice_util.h)
_MAX_RANK = 8
_VERSIONS = b"\x12\x02\x08\x01"  # versions {producer 1}


def plan_tensor_slices(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_tensor_slices` would make of each variable. Reads no values."""
    require_checkpoint(checkpoint)
    return [Planned(v, v.name, _problem(v)) for v in checkpoint.values()]


def _problem(variable: Variable) -> str | None:
    name = variable.dtype.name
    if name not in VALUE_FIELDS or name in _UNWRITTEN:
        return f"no V1 checkpoint can hold values of dtype {name}"
    if 0 in variable.shape and is_too_large(variable.shape):
        return f"TensorFlow has no shape {list(variable.shape)}, and would abort"
    if len(variable.shape) > _MAX_RANK:
        return f"TensorFlow restores {_MAX_RANK} dimensions at most from a V1 checkpoint; --tf has no such limit"
    try:
        variable.name.encode()
    except UnicodeEncodeError:  # Names are text in a message: with one that is not UTF-8, no parser takes the file.
        return "no V1 checkpoint can hold a name that is not UTF-8"
    if _may_be_large(variable) and max(map(_reckoned, _pieces(variable)), default=0) > _MAX_RECORD:
        return "Tensor slice is too large to serialize (2 GiB); --tf has no such limit"
    return None


def _may_be_large(variable: Variable) -> bool:
    """Whether the values could take half of a record; if not, no slice needs to be looked at."""
    return variable.dtype.itemsize is None or variable.size * _MAX_BYTES.get(variable.dtype.name, 10) > _MAX_RECORD >> 1


def _reckoned(piece: "_Piece") -> int:
    """The most bytes that a record takes, as TensorFlow reckons them before it writes it."""
    dtype, count = piece.variable.dtype, prod(piece.slice.shape)
    values = count * _MAX_BYTES.get(dtype.name, 10) + (piece.slice.data.nbytes if dtype.itemsize is None else 0)
    return len(_named(piece.variable)) + len(message_field(2, encode_extents(piece.extents))) + _HEADER_BYTES + values


def write_tensor_slices(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a new V1 checkpoint, byte for byte as TensorFlow would.

        >>> ckpttool.write_tensor_slices(ckpttool.open_checkpoint("model.ckpt"), "v1.ckpt")

    Args:
        checkpoint: what to write.
        path: the file to be, written beside and renamed.
        strict: raise if there is a variable that the format can't hold, instead of leaving it out.
        force: replace a file that is there.
        progress: is called with the bytes of each slice written.

    Returns:
        The variables that were left out, each with the reason. An object graph of TensorFlow 2 still names them, unless
        `select` has left them out before.

    Raises:
        NotFoundError: there is no directory for it.
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        IsADirectoryError: `path` is a directory's, or ends with a slash.
        ConversionError: no variable can be held; or `strict`, and one can't; or two slices would have the same key.
        CorruptionError: values are missing or damaged; no file is written.
    """
    plan = plan_tensor_slices(checkpoint)
    remarkable = check_plan(plan, strict=strict)
    require_little_endian("a checkpoint")
    variables = sorted((planned.variable for planned in plan if not planned.problem), key=_name)
    cut = [list(_pieces(variable)) for variable in variables]
    pieces = _keyed(chain.from_iterable(cut))
    path = os.fsdecode(path)
    with storage.write_beside(path, force=force, inputs=checkpoint.files) as beside, open(beside, "wb") as file:
        storage.reserve(beside, sum(map(_fixed_bytes, pieces.values())))
        table = TableBuilder(write=file.write)
        table.add(b"", message_field(1, b"".join(map(_tensor_meta, variables, cut)) + _VERSIONS))
        for key, content, chunks in storage.read_in_order(_contents(pieces)):
            with located(variable=pieces[key].variable.name):
                _add_record(table, key, pieces[key], content.nbytes, chunks)
            progress(pieces[key].nbytes)
        table.finish()
    return remarkable


def _fixed_bytes(piece: "_Piece") -> int:
    """Bytes of the values; 0 if encoding them changes how many there are."""
    return piece.nbytes if VALUE_FIELDS[piece.variable.dtype.name][1] in (FIXED32, FIXED64) else 0


class _Piece(NamedTuple):
    variable: Variable
    slice: Slice
    extents: Extents

    @property
    def nbytes(self) -> int:
        return self.variable.nbytes_of(self.slice)


def _pieces(variable: Variable) -> Iterator[_Piece]:
    """The slices of a variable; one that is not cut has nothing but "all" in each dimension."""
    for piece in variable.slices:
        yield _Piece(variable, piece, piece.extents or ((0, -1),) * len(variable.shape))


def _keyed(pieces: Iterable[_Piece]) -> dict[bytes, _Piece]:
    keyed: dict[bytes, _Piece] = {}
    for piece in pieces:
        key = encode_slice_key(_name(piece.variable), piece.extents)
        if key in keyed:
            raise ConversionError("a slice is there twice", variable=piece.variable.name)
        keyed[key] = piece
    return keyed


def _name(variable: Variable) -> bytes:
    return to_bytes(variable.name)


def _tensor_meta(variable: Variable, pieces: Iterable[_Piece]) -> bytes:
    """A tensor of the SavedTensorSliceMeta: name 1, shape 2, type 3, slice 4 (repeated)."""
    slices = b"".join(_slice_field(4, piece.extents) for piece in pieces)
    return message_field(1, _named(variable) + _shape_and_type(variable.shape, variable.dtype.number) + slices)


# A model has few shapes, and many variables of each.
@lru_cache(4096)
def _shape_and_type(shape: tuple[int, ...], dtype: int) -> bytes:
    return message_field(2, encode_shape(shape)) + varint_field(3, dtype)


@lru_cache(4096)
def _slice_field(number: int, extents: Extents) -> bytes:
    return message_field(number, encode_extents(extents))


def _named(variable: Variable) -> bytes:
    """The field with the name: 1 in both messages, and not written if it is empty."""
    return message_field(1, _name(variable)) if variable.name else b""


def _contents(pieces: Mapping[bytes, _Piece]) -> Iterator[tuple[bytes, Content]]:
    """The key of each record and its values, as the record has them, in the order of keys."""
    for key in sorted(pieces):
        with located(variable=pieces[key].variable.name):
            content = _content(pieces[key])
        yield key, content


def _content(piece: _Piece) -> Content:
    number, wire_type = VALUE_FIELDS[piece.variable.dtype.name]
    if wire_type == LENGTH:
        return Content.of_bytes(b"".join(message_field(number, v) for v in piece.variable.strings_of(piece.slice)))
    if wire_type != VARINT:
        return content_of_piece(piece.variable, piece.slice)
    if piece.nbytes > BLOCK_SIZE:  # It is read twice, so that it is never held whole.
        return Content(partial(_varint_blocks, piece), sum(map(len, _varint_blocks(piece))))
    return Content.of_bytes(b"".join(_varint_blocks(piece)))


def _add_record(table: TableBuilder, key: bytes, piece: _Piece, nbytes: int, chunks: Iterable[Any]) -> None:
    """Adds a SavedTensorSlices: data 2, of name 1, slice 2 and data 3, a TensorProto of one packed field."""
    number, wire_type = VALUE_FIELDS[piece.variable.dtype.name]
    head = encode_varint(number << 3 | LENGTH) + encode_varint(nbytes) if nbytes and wire_type != LENGTH else b""
    # From the inside out: each message begins with the length of all that is in it.
    head = b"\x1a" + encode_varint(len(head) + nbytes) + head
    head = _named(piece.variable) + _slice_field(2, piece.extents) + head
    head = b"\x12" + encode_varint(len(head) + nbytes) + head
    table.add_chunks(key, len(head) + nbytes, chain([head], chunks))


def _varint_blocks(piece: _Piece) -> Iterator[bytes]:
    """The values, block by block, as a packed field of integers has them."""
    import numpy as np

    for array in piece.variable.arrays_of(piece.slice):
        yield _varints(np.ascontiguousarray(array).reshape(-1))


def _varints(values: "np.ndarray[Any, Any]") -> bytes:
    """Integers as varints; the negative ones, being 64 bits, take ten bytes. Of float16, its bits are the integer."""
    import numpy as np

    integers = values.view(np.uint16) if values.dtype == np.float16 else values
    numbers = integers.astype(np.int64).view(np.uint64)
    lengths = np.ones(numbers.shape, np.int64)
    for bits in range(7, 64, 7):
        lengths += numbers >= np.uint64(1 << bits)
    starts = np.cumsum(lengths) - lengths
    encoded = np.empty(int(lengths.sum()), np.uint8)
    for i in range(int(lengths.max(initial=0))):
        those = lengths > i
        more = np.where(lengths[those] > i + 1, 0x80, 0).astype(np.uint64)
        encoded[starts[those] + i] = (numbers[those] >> np.uint64(7 * i)) & np.uint64(0x7F) | more
    return encoded.tobytes()
