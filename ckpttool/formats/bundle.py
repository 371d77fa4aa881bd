"""The tensor bundle, TensorFlow's checkpoint format V2: `PREFIX.index` and `PREFIX.data-00000-of-00001` ….

The index is a table (wire.sstable) of messages (formats.records). Key "" holds the BundleHeaderProto: the number
of shards, their byte order, a version. Every other key is a variable's name and holds its BundleEntryProto: dtype,
shape, and where its values lie: shard, offset, size, masked CRC-32C. float32[4] at the start of shard 0 is

    08 01 | 12 04 12 02 08 04 | 28 10 | 35 b9 6f 57 d8        dtype 1, shape {dim {size 4}}, size 16, crc32c

Values are row-major in the byte order of the machine that wrote them. Strings are varint lengths, the masked CRC
of the lengths, then all bytes. A partitioned variable's entry has its full shape and a list of slices, each
stored as an entry of its own under a key made of name and extents.

(tensorflow/core/util/tensor_bundle/tensor_bundle.cc, core/protobuf/tensor_bundle.proto)
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, tee
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import (
    CheckpointError,
    CorruptionError,
    FormatError,
    NotSupportedError,
    Report,
    located,
    refuse,
    reporter,
)
from ckpttool.formats.lookalikes import TRUNCATED, refuse_lookalike
from ckpttool.formats.records import (
    BundleEntry,
    BundleHeader,
    box_of,
    decode_bundle_entry,
    decode_bundle_header,
    decode_strings,
    decode_variants,
    encode_slice_key,
    sliced_name,
)
from ckpttool.model.boxes import Extents, Selection, shape_of, tiling_fault
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Variable
from ckpttool.model.dtypes import DType, dtype_of, stored_dtype_of
from ckpttool.wire.crc32c import unmask
from ckpttool.wire.sstable import Table

if TYPE_CHECKING:
    import numpy as np

FORMAT = "TensorFlow checkpoint V2 (tensor bundle)"
MAX_SHARDS = 100_000
"""More than anybody has written; so many names are not made from a number in a file."""


def index_path(prefix: str) -> str:
    return f"{prefix}.index"


def shard_path(prefix: str, shard: int, num_shards: int) -> str:
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def read_bundle(prefix: str, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens the bundle `prefix`: reads its index whole, and no values.

    Args:
        prefix: what its files' names begin with.
        faults: is told of entries and blocks that are damaged, which are passed over; None: such damage is raised.

    Raises:
        NotFoundError: there is no index.
        FormatError: the index is no table, or that of a V1 checkpoint.
        CorruptionError: the index is damaged, or what it says can't be.
        NotSupportedError: it wants a newer reader.
    """
    path = index_path(prefix)
    refuse_lookalike(path)
    with located(path):
        bundle = _Bundle(prefix, storage.read_file(path), reporter(path, faults))
        if faults:
            bundle.drop_stray_slices()
    files = [path, *bundle.shard_paths]
    return Checkpoint(bundle.variables, path=prefix, format=FORMAT, files=files, warnings=bundle.warnings)


class _Bundle:
    """The source of a bundle's variables."""

    def __init__(self, prefix: str, index: bytes, report: Report) -> None:
        self.prefix, self._report = prefix, report
        records = _table(index, report).pairs(report)
        key, value = next(records, (None, b""))
        try:
            if key != b"":
                raise CorruptionError("the index has no header: its first key is not empty")
            with located(in_record=True):
                self.header = decode_bundle_header(value)
        except CorruptionError as error:
            report(error)
            self.header = self._header_by_files()
            records = chain([(key, value)] if key else [], records)
        self._entries = _decode_entries(records, report)
        if not min(1, len(self._entries)) <= self.header.num_shards <= MAX_SHARDS:
            report(CorruptionError(f"the header counts {self.header.num_shards:,} shards"))
            self.header = self._header_by_files()
        self.variables = self._read_variables()
        if self._miscounted and report is not refuse:  # Opened, it is no more than a warning.
            report(CorruptionError(f"{self._miscounted}; TensorFlow looks for those that the header counts"))

    def _header_by_files(self) -> BundleHeader:
        """What takes the place of a header that is damaged."""
        return BundleHeader(max(_shard_counts(self.prefix), default=1), big_endian=False)

    def _read_variables(self) -> dict[str, Variable]:
        variables: dict[str, Variable] = {}
        slice_keys: set[bytes] = set()
        for key, entry in self._entries.items():
            name = key.decode(errors="surrogateescape")
            dtype = stored_dtype_of(entry.dtype)
            try:
                self._check(entry, dtype)
                slice_keys.update(encode_slice_key(key, extents) for extents in entry.slices)
                if entry.slices:
                    self._check_slices(key, entry, dtype)
            except CheckpointError as error:  # Not `located`: a context for each of a million takes a second.
                error.variable = name
                self._report(error)
                continue
            variables[name] = Variable(name, dtype, entry.shape, self, key)
        for key in slice_keys:
            variables.pop(key.decode(errors="surrogateescape"), None)
        return variables

    def drop_stray_slices(self) -> None:
        """In an index that is damaged, what looks like a slice is no variable, but one of a variable that is lost."""
        for variable in list(self.variables.values()):
            whole = sliced_name(variable.key)
            if whole is not None:
                name = whole.decode(errors="surrogateescape")
                self._report(CorruptionError("there is a slice of it, and not its own entry", variable=name))
                del self.variables[variable.name]

    def _check(self, entry: BundleEntry, dtype: DType) -> None:
        if entry.slices:
            return  # Shard, offset and size of a partitioned variable's own entry mean nothing.
        if not 0 <= entry.shard < max(1, self.header.num_shards):
            raise CorruptionError(f"shard {entry.shard} of {self.header.num_shards}")
        if entry.offset < 0 or entry.size < 0:
            raise CorruptionError(f"{entry.size} bytes at offset {entry.offset}")
        if dtype.itemsize is not None and entry.size != prod(entry.shape) * dtype.itemsize:
            raise CorruptionError(
                f"Invalid size in bundle entry: stored size {entry.size:,}; expected size"
                f" {prod(entry.shape) * dtype.itemsize:,} for {dtype.name}{list(entry.shape)}"
            )

    def _check_slices(self, key: bytes, entry: BundleEntry, dtype: DType) -> None:
        """Raises unless each slice is there, is what its extents say, and lies beside the others."""
        keys = [encode_slice_key(key, extents) for extents in entry.slices]
        boxes = [box_of(extents, entry.shape) for extents in entry.slices]
        fault = tiling_fault(entry.shape, boxes)
        if fault:
            raise CorruptionError(fault)
        for slice_key, (start, shape) in zip(keys, boxes, strict=True):
            if slice_key not in self._entries:
                raise CorruptionError(f"the slice {list(start)} + {list(shape)} is missing")
            piece = self._entries[slice_key]
            if (piece.dtype, piece.shape, piece.slices) != (entry.dtype, shape, ()):
                raise CorruptionError(
                    f"the slice {list(start)} + {list(shape)} is stored as"
                    f" {dtype_of(piece.dtype).name}{list(piece.shape)}"
                )
            self._check(piece, dtype)  # Where damage is passed over, what is wrong with the slice has only been told.

    @cached_property
    def _num_shards(self) -> int:
        """The number in the shards' names: the header's, or that of the one other set of files there is.

        Merging a shard without variables makes TensorFlow write a header that counts it and files that don't.
        """
        counted = self.header.num_shards
        if not os.path.exists(shard_path(self.prefix, 0, counted)):
            found = _shard_counts(self.prefix)
            if counted not in found and len(found) == 1:
                return found.pop()
        return counted

    @property
    def shard_paths(self) -> list[str]:
        """The data files, which need not be there."""
        return [shard_path(self.prefix, number, self._num_shards) for number in range(self._num_shards)]

    @property
    def _miscounted(self) -> str:
        """What is wrong with the header's count of shards; "" if nothing is."""
        if self._num_shards == self.header.num_shards:
            return ""
        return f"the header counts {self.header.num_shards} shards, the files are {self._num_shards}"

    @property
    def warnings(self) -> list[str]:
        warnings = [f"{self._miscounted}; they are used"] if self._miscounted else []
        missing = [path for path in self.shard_paths if not os.path.exists(path)]
        if missing and self.variables:
            others = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
            warnings.append(f"data file is missing: {missing[0]}{others}; variables are listed, values can't be read")
        return warnings

    def slices(self, variable: Variable) -> Sequence[Slice]:
        entry = self._entries[variable.key]
        if not entry.slices:
            return [self._slice((0,) * len(entry.shape), entry)]
        return [
            self._slice(start, self._entries[encode_slice_key(variable.key, extents)], extents)
            for extents in entry.slices
            for start, _ in [box_of(extents, entry.shape)]
        ]

    def _slice(self, start: tuple[int, ...], entry: BundleEntry, extents: Extents | None = None) -> Slice:
        path = shard_path(self.prefix, entry.shard, self._num_shards)
        span = ByteRange(path, entry.offset, entry.size, unmask(entry.masked_crc32c))
        # What is empty stands before what starts at the same byte.
        return Slice(start, entry.shape, entry.shard, span, 2 * entry.offset + (entry.size > 0), extents)

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        storage.require_range(piece.data)
        if variable.dtype.itemsize is None or (self.header.big_endian and variable.dtype.itemsize > 1):
            return None
        return piece.data

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        if variable.dtype.itemsize is None:
            raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
        storage.require_range(piece.data)
        return self._arrays(variable.dtype, piece, map(shape_of, boxes))

    def _arrays(
        self, dtype: DType, piece: Slice, shapes: Iterable[tuple[int, ...]]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        import numpy as np

        assert dtype.itemsize is not None
        shapes, again = tee(shapes)
        chunks = storage.read_pieces(piece.data, (prod(shape) * dtype.itemsize for shape in again))
        for shape, chunk in zip(shapes, chunks, strict=False):
            array = np.frombuffer(chunk, np.uint8)
            if self.header.big_endian != (sys.byteorder == "big"):
                component = dtype.itemsize // (2 if dtype.name.startswith("complex") else 1)
                array.view(f"u{component}").byteswap(inplace=True)
            yield array.view(dtype.numpy).reshape(shape)
        for _ in chunks:  # Runs to the checksum, also where there is no chunk.
            pass

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        if variable.dtype.name not in _DECODERS:
            raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
        span = piece.data
        storage.require_range(span)
        data = storage.read_range(span.path, span.offset, span.nbytes)
        with located(span.path):
            decode = _DECODERS[variable.dtype.name]
            return decode(data, prod(piece.shape), span.crc32c or 0, self.header.big_endian)


_DECODERS = {"string": decode_strings, "variant": decode_variants}


def _table(index: bytes, report: Report) -> Table:
    try:
        return Table.from_bytes(index, report)
    except FormatError as error:
        error.hint = error.hint or TRUNCATED  # Its end tells a table.
        raise


def _decode_entries(records: Iterable[tuple[bytes, bytes]], report: Report) -> dict[bytes, BundleEntry]:
    entries = {}
    for key, value in records:
        try:
            entries[key] = decode_bundle_entry(value)
        except CheckpointError as error:
            # An offset would count from the start of the record, and mislead.
            error.variable, error.offset = key.decode(errors="surrogateescape"), None
            report(error)
    return entries


def _shard_counts(prefix: str) -> set[int]:
    """The numbers M for which `prefix.data-…-of-M` files are there."""
    name = re.compile(re.escape(os.path.basename(prefix)) + r"\.data-[0-9]{5,9}-of-([0-9]{5,9})")
    matches = map(name.fullmatch, os.listdir(os.path.dirname(prefix) or "."))
    return {int(match[1]) for match in matches if match}
