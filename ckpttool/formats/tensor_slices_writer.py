"""Writing V1 checkpoints: the bytes that TensorFlow's own SaveSlices would write, in one file.

The records are those of formats.tensor_slices. A record is one value of a table, as large as its slice, and the table
has a checksum of it in one piece; it is made and written block by block nevertheless: what it will take is counted in a
first pass, for numbers that are varints.

(tensorflow/core/util/tensor_slice_writer.h, saved_tensor_slice_util.h)
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import ConversionError, NotSupportedError, located
from ckpttool.formats.plan import Planned, check_plan
from ckpttool.formats.records.shapes import encode_extents, encode_shape, encode_slice_key
from ckpttool.formats.tensor_slices import VALUE_FIELDS
from ckpttool.formats.values import content_of_piece
from ckpttool.model.boxes import Extents
from ckpttool.model.checkpoint import BLOCK_SIZE, Checkpoint, Slice, Variable
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import LENGTH, VARINT, message_field, varint_field
from ckpttool.wire.sstable import TableBuilder

if TYPE_CHECKING:
    import numpy as np

# What TensorFlow's writer has no code for, though its messages have a place for them.
_UNWRITTEN = {"qint16", "quint16"}
# What TensorFlow reckons that an element may take, in bytes; and what it lets a record take by that.
_MAX_BYTES = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16, "bool": 1, "float16": 3}
_MAX_BYTES |= {"uint8": 2, "quint8": 2, "uint16": 3}
_MAX_RECORD = 1 << 31
_HEADER_BYTES = 1 << 10
# With more dimensions its writer writes, and its reader ends the process. (core/util/tensor_slice_util.h)
_MAX_RANK = 8
_VERSIONS = b"\x12\x02\x08\x01"  # versions {producer 1}


def plan_tensor_slices(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_tensor_slices` would make of each variable. Reads no values."""
    return [Planned(v, v.name, _problem(v)) for v in checkpoint.values()]


def _problem(variable: Variable) -> str | None:
    name = variable.dtype.name
    if name not in VALUE_FIELDS or name in _UNWRITTEN:
        return f"no V1 checkpoint can hold values of dtype {name}"
    if len(variable.shape) > _MAX_RANK:
        return f"TensorFlow restores {_MAX_RANK} dimensions at most from a V1 checkpoint; --tf has no such limit"
    try:
        variable.name.encode()
    except UnicodeEncodeError:  # The name stands in a message as text; with one such name, no parser takes the file.
        return "no V1 checkpoint can hold a name that is not UTF-8"
    if max(map(_reckoned, _pieces(variable)), default=0) > _MAX_RECORD:
        return "Tensor slice is too large to serialize (2 GiB); --tf has no such limit"
    return None


def _reckoned(piece: "_Piece") -> int:
    """Bytes that a record takes at most, as TensorFlow reckons it before it writes one."""
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
        progress: is told the bytes of each slice written.

    Returns:
        The variables that were left out, each with the reason.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        ConversionError: `strict`, and a variable can't be held; or two slices would have the same key.
        CorruptionError: values are missing or damaged; no file is written.
    """
    plan = plan_tensor_slices(checkpoint)
    remarkable = check_plan(plan, strict=strict)
    if sys.byteorder == "big":
        raise NotSupportedError("writing a checkpoint on a big-endian machine")
    variables = sorted((planned.variable for planned in plan if not planned.problem), key=_name)
    pieces = _keyed(piece for variable in variables for piece in _pieces(variable))
    path = os.fspath(path)
    with storage.write_beside(path, force=force, inputs=checkpoint.files) as beside, open(beside, "wb") as file:
        table = TableBuilder(write=file.write)
        table.add(b"", message_field(1, b"".join(map(_tensor_meta, variables)) + _VERSIONS))
        for key in sorted(pieces):
            with located(variable=pieces[key].variable.name):
                _add_record(table, key, pieces[key])
            progress(pieces[key].nbytes)
        table.finish()
    return remarkable


class _Piece(NamedTuple):
    variable: Variable
    slice: Slice
    extents: Extents

    @property
    def nbytes(self) -> int:
        itemsize = self.variable.dtype.itemsize
        return self.slice.data.nbytes if itemsize is None else prod(self.slice.shape) * itemsize


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
    return variable.name.encode(errors="surrogateescape")


def _tensor_meta(variable: Variable) -> bytes:
    """A tensor of the SavedTensorSliceMeta: name 1, shape 2, type 3, slice 4 (repeated)."""
    slices = b"".join(message_field(4, encode_extents(piece.extents)) for piece in _pieces(variable))
    shape = message_field(2, encode_shape(variable.shape))
    return message_field(1, _named(variable) + shape + varint_field(3, variable.dtype.number) + slices)


def _named(variable: Variable) -> bytes:
    """The field with the name, which is 1 in either message; an empty text is not written."""
    return message_field(1, _name(variable)) if variable.name else b""


def _add_record(table: TableBuilder, key: bytes, piece: _Piece) -> None:
    """Adds a SavedTensorSlices: data 2, of name 1, slice 2 and data 3, a TensorProto of one packed field."""
    number, wire_type = VALUE_FIELDS[piece.variable.dtype.name]
    nbytes, chunks = _values(piece, number, wire_type)
    head = encode_varint(number << 3 | LENGTH) + encode_varint(nbytes) if nbytes and wire_type != LENGTH else b""
    # From the inside out: each message begins with the length of all that is in it.
    head = b"\x1a" + encode_varint(len(head) + nbytes) + head
    head = _named(piece.variable) + message_field(2, encode_extents(piece.extents)) + head
    head = b"\x12" + encode_varint(len(head) + nbytes) + head
    table.add_chunks(key, len(head) + nbytes, _after(head, chunks))


def _values(piece: _Piece, number: int, wire_type: int) -> tuple[int, Iterable[Any]]:
    """Bytes that the values take, and these bytes."""
    if wire_type == LENGTH:
        strings = b"".join(message_field(number, value) for value in piece.variable.strings_of(piece.slice))
        return len(strings), [strings]
    if wire_type != VARINT:
        return piece.nbytes, content_of_piece(piece.variable, piece.slice).chunks()
    if piece.nbytes > BLOCK_SIZE:  # Read twice, and never held.
        return sum(map(len, _varint_blocks(piece))), _varint_blocks(piece)
    varints = list(_varint_blocks(piece))
    return sum(map(len, varints)), varints


def _after(head: bytes, chunks: Iterable[Any]) -> Iterator[Any]:
    yield head
    yield from chunks


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
