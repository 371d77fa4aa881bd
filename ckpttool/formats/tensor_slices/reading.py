"""Reading V1 checkpoints, checked."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import (
    CheckpointError,
    CorruptionError,
    FormatError,
    NotSupportedError,
    located,
    reporter,
)
from ckpttool.formats.records.shapes import box_of, encode_slice_key
from ckpttool.formats.records.slices import SavedSliceMeta, decode_saved_slice, decode_slices_meta
from ckpttool.formats.tensor_slices import FORMAT
from ckpttool.model.boxes import Extents, Selection, tiling_fault, within
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.texts import to_text
from ckpttool.model.variable import Source, Variable, as_stored, lacking_slices
from ckpttool.wire.coding import decode_varint
from ckpttool.wire.message import FIXED32, FIXED64, LENGTH, VARINT, fields
from ckpttool.wire.sstable import MAX_COMPRESSION, Table

if TYPE_CHECKING:
    import numpy as np


# The field of a TensorProto that has the values of a dtype, and the wire type of one value (of a complex number,
# of either part).  (core/util/saved_tensor_slice_util.h)
VALUE_FIELDS = {
    "float32": (5, FIXED32),
    "float64": (6, FIXED64),
    "string": (8, LENGTH),
    "complex64": (9, FIXED32),
    "int64": (10, VARINT),
    "bool": (11, VARINT),
    "complex128": (12, FIXED64),
    "float16": (13, VARINT),  # Its sixteen bits, as an integer.
    **dict.fromkeys(("int32", "int16", "int8", "uint16", "uint8"), (7, VARINT)),
    **dict.fromkeys(("qint32", "qint16", "qint8", "quint16", "quint8"), (7, VARINT)),
}
_VALUE_SIZES = {FIXED32: 4, FIXED64: 8}
# Bytes of varints to be decoded at a time: intermediate arrays take several times as much.
_WINDOW = 1 << 18


def begins_as_tensor_slices(path: str) -> bool:
    """Whether a file begins like a V1 checkpoint, so that it may be one that has lost its end."""
    head = storage.read_range(path, 0, 16)
    try:
        shared, position = decode_varint(head, 0, 32)
        unshared, position = decode_varint(head, position, 32)
        _, position = decode_varint(head, position, 32)
    except CorruptionError:
        return False
    # The empty key, and behind it the field `meta`.
    return shared == unshared == 0 and head[position : position + 1] == b"\x0a"


def read_tensor_slices(paths: Sequence[str], *, path: str, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens a V1 checkpoint: reads the index and the meta of each file, and no values.

    Args:
        paths: all its files, in order.
        path: what it is called.
        faults: a list for the errors of damaged files and tensors, which are passed over; None: they are raised.

    Raises:
        NotFoundError: a file is missing.
        FormatError: one is no table, or the index of a V2 checkpoint.
        CorruptionError: one is damaged, or what they say can't be.
        NotSupportedError: one wants a newer reader.
    """
    source = _TensorSlices(path, faults)
    with located(path):
        for file in paths:
            source.add(file)
        source.check()
    warnings = lacking_slices(source.partitioned)
    return Checkpoint(source.variables, path=path, format=FORMAT, files=paths, warnings=warnings)


class _Piece(NamedTuple):
    """A slice: the number of its file, the extents as they are stored, and the box that they mean."""

    shard: int
    extents: Extents
    start: tuple[int, ...]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"the slice {list(self.start)} + {list(self.shape)}"


class _TensorSlices(Source):
    """The source of a V1 checkpoint's variables."""

    def __init__(self, path: str, faults: list[CheckpointError] | None) -> None:
        self._report, self._faults = reporter(path, faults), faults
        self.variables: dict[str, Variable] = {}
        self.partitioned: list[Variable] = []
        self._files: list[tuple[str, Table]] = []
        self._pieces: dict[bytes, list[_Piece]] = {}
        self._by_box: dict[bytes, dict[tuple[tuple[int, ...], tuple[int, ...]], _Piece]] = {}

    def add(self, path: str) -> None:
        """Adds the tensors that a file lists."""
        report = reporter(path, self._faults)
        try:
            with located(path):
                table = Table(partial(storage.read_range, path), storage.file_size(path), report)
                record = table.lookup(b"", report)
                if record is None:
                    raise FormatError("a table, but no checkpoint: it has no record under the empty key")
                metas = list(decode_slices_meta(record))
        except CheckpointError as error:
            report(error)
            return
        names: set[bytes] = set()
        for meta in metas:
            try:
                with located(path, to_text(meta.name)):
                    if meta.name in names:
                        raise CorruptionError("the file lists the tensor twice")
                    self._add_tensor(meta)
            except CheckpointError as error:
                report(error)
            names.add(meta.name)
        self._files.append((path, table))

    def _add_tensor(self, meta: SavedSliceMeta) -> None:
        name, dtype = to_text(meta.name), dtype_of(meta.dtype)
        variable = self.variables.setdefault(name, Variable(name, dtype, meta.shape, self, meta.name))
        if (variable.dtype, variable.shape) != (dtype, meta.shape):
            raise CorruptionError(
                f"{dtype.name}{list(meta.shape)} here, {variable.dtype.name}{list(variable.shape)} in another file"
            )
        if len(set(meta.slices)) < len(meta.slices):  # Millions of copies would fill the memory.
            raise CorruptionError("the file lists a slice twice")
        pieces = self._pieces.setdefault(meta.name, [])
        for stored in meta.slices or [()]:
            extents = _whole_if_empty(stored, meta.shape)
            pieces.append(_Piece(len(self._files), extents, *box_of(extents, meta.shape)))

    def check(self) -> None:
        """Drops and reports the variables without slices, or with slices that overlap or do not fit."""
        for variable in list(self.variables.values()):
            pieces = self._pieces.get(variable.key, ())
            # A variable without elements would be whole without slices.
            boxes = [(piece.start, piece.shape) for piece in pieces]
            if boxes == [((0,) * len(variable.shape), variable.shape)]:
                continue  # One slice with all of it, as nearly every variable has.
            fault = tiling_fault(variable.shape, boxes, partly=True) if boxes else "it has no slices"
            if fault:
                self._report(CorruptionError(fault, variable=variable.name))
                del self.variables[variable.name]
            elif boxes[0][1] != variable.shape:
                self.variables[variable.name] = as_stored(variable, (shape for _, shape in boxes))
                self.partitioned.append(self.variables[variable.name])

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return [self._slice(variable, piece) for piece in self._pieces[variable.key]]

    def _slice(self, variable: Variable, piece: _Piece) -> Slice:
        if variable.dtype.itemsize is None:
            nbytes = self._nbytes(variable, piece)
        else:
            nbytes = prod(piece.shape) * variable.dtype.itemsize
        span = ByteRange(self._files[piece.shard][0], 0, nbytes, None)
        # A variable in a single partition is whole, and has numbers for extents nevertheless.
        extents = None if piece.extents == _whole_if_empty((), variable.shape) else piece.extents
        return Slice(piece.start, piece.shape, piece.shard, span, 0, extents)

    def _nbytes(self, variable: Variable, piece: _Piece) -> int:
        """Bytes of a record; 0 if it can't be read: reading the values will report that."""
        try:
            return len(self._record(variable, piece))
        except CheckpointError:
            return 0

    def _record(self, variable: Variable, piece: _Piece) -> bytes:
        path, table = self._files[piece.shard]
        with located(path, variable.name):
            record = table.lookup(encode_slice_key(variable.key, piece.extents))
            if record is None:
                raise CorruptionError(f"{piece} is missing")
            return record

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        """None: TensorFlow's own reader, too, decodes every value."""
        # A value takes a byte at least, before compression.
        if prod(piece.shape) > MAX_COMPRESSION * storage.file_size(piece.data.path):
            raise CorruptionError(f"{prod(piece.shape):,} values are not in the file", path=piece.data.path)
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        """All values are decoded with the first array: they are one record, with one checksum."""
        with located(piece.data.path, variable.name):
            if variable.dtype.name not in VALUE_FIELDS or variable.dtype.itemsize is None:
                raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
            array = _decode_numbers(self._tensor(variable, piece), variable.dtype, prod(piece.shape))
        for box in boxes:
            inner: list[Any] = list(within(box, piece.box))
            yield array.reshape(piece.shape)[(*inner, ...)]  # With the ellipsis, a scalar stays an array.

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        with located(piece.data.path, variable.name):
            if variable.dtype.name != "string":
                raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
            return _decode_strings(self._tensor(variable, piece), prod(piece.shape))

    def _tensor(self, variable: Variable, of: Slice) -> Any:
        """The TensorProto of a slice, as a memoryview."""
        if variable.key not in self._by_box:
            # If two slices have the same box, they have no elements, and are equal.
            self._by_box[variable.key] = {(piece.start, piece.shape): piece for piece in self._pieces[variable.key]}
        piece = self._by_box[variable.key][of.start, of.shape]
        name, stored, tensor = decode_saved_slice(self._record(variable, piece))
        if (name, _whole_if_empty(stored, variable.shape)) != (variable.key, piece.extents):
            raise CorruptionError(f"the record of {piece} is that of {list(stored)} of {to_text(name)!r}")
        return tensor


def _whole_if_empty(extents: Extents, shape: tuple[int, ...]) -> Extents:
    return extents or ((0, -1),) * len(shape)


def _decode_strings(tensor: Any, count: int) -> list[bytes]:
    """The `count` strings of a TensorProto."""
    wanted = VALUE_FIELDS["string"]
    values = [bytes(tensor[start:end]) for number, kind, _, start, end in fields(tensor) if (number, kind) == wanted]
    if len(values) != count:
        raise CorruptionError(f"{len(values):,} values for {count:,} elements")
    return values


def _decode_numbers(tensor: Any, dtype: DType, count: int) -> "np.ndarray[Any, Any]":
    """The `count` values of a TensorProto; nothing is allocated for values that are not there."""
    number, wire_type = VALUE_FIELDS[dtype.name]
    data = _join_values(tensor, number, wire_type)
    if wire_type == VARINT:
        return _decode_varints(data, dtype, count)
    assert dtype.itemsize is not None
    if len(data) != count * dtype.itemsize:
        raise CorruptionError(f"{len(data):,} bytes of values for {count:,} elements of {dtype.itemsize}")
    import numpy as np

    return np.frombuffer(data, dtype.numpy.newbyteorder("<")).astype(dtype.numpy, copy=False)


def _join_values(tensor: Any, number: int, wire_type: int) -> bytearray:
    """The bytes of all values: a packed field has them in a row, one that is not has a tag before each."""
    data = bytearray()
    for field, found_type, _, start, end in fields(tensor):
        if field != number or found_type not in (wire_type, LENGTH):
            continue
        data += tensor[start:end]
        # A value can't go on in the next field.
        if end > start and (data[-1] >= 0x80 if wire_type == VARINT else (end - start) % _VALUE_SIZES[wire_type]):
            raise CorruptionError(f"a list of values (field {number}) ends inside a value")
    return data


def _decode_varints(data: bytearray, dtype: DType, count: int) -> "np.ndarray[Any, Any]":
    import numpy as np

    encoded = np.frombuffer(data, np.uint8)
    found = np.count_nonzero(encoded < 0x80)
    if found != count:
        raise CorruptionError(f"{found:,} values for {count:,} elements")
    integer = np.dtype(np.uint16) if dtype.name == "float16" else dtype.numpy
    array = np.empty(count, integer)
    position = done = 0
    while position < len(encoded):
        values, size = _decode_window(encoded[position : position + _WINDOW])
        part = array[done : done + len(values)]
        part[:] = values.astype(integer)
        if (part != values).any():
            raise CorruptionError(f"{values[part != values][0]} is no {dtype.name}")
        position, done = position + size, done + len(values)
    return array.view(dtype.numpy)


def _decode_window(encoded: "np.ndarray[Any, Any]") -> "tuple[np.ndarray[Any, Any], int]":
    """The varints that end in these bytes, as signed numbers, and how many bytes they take."""
    import numpy as np

    ends = np.flatnonzero(encoded < 0x80)
    lengths = np.diff(ends, prepend=-1)
    if not ends.size or lengths.max() > 10 or (encoded[ends[lengths == 10]] > 1).any():
        raise CorruptionError("a varint takes more than 64 bits")
    starts, size = ends - lengths + 1, int(ends[-1]) + 1
    shifts = 7 * (np.arange(size) - np.repeat(starts, lengths))
    # The bytes of a number have no bits in common, so that their sum is the number.
    bits = (encoded[:size] & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.add.reduceat(bits, starts).view(np.int64), size
