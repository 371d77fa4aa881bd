"""The index of a bundle, read and checked."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from math import prod

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, Report, located, refuse, reporter
from ckpttool.formats.bundle.names import FORMAT, MAX_SHARDS, index_path, shard_counts
from ckpttool.formats.bundle.source import BundleSource, Partitioned
from ckpttool.formats.lookalikes import TRUNCATED, is_pointer, refuse_lookalike
from ckpttool.formats.records.entries import (
    BundleEntry,
    BundleHeader,
    decode_bundle_entry,
    decode_bundle_header,
    plain_entry,
)
from ckpttool.formats.records.shapes import box_of, encode_slice_key, sliced_name
from ckpttool.model.boxes import tiling_fault
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, dtype_of, stored_dtype_of
from ckpttool.model.names import listed
from ckpttool.model.texts import to_bytes, to_text
from ckpttool.model.variable import Variable, as_stored, lacking_slices
from ckpttool.wire.coding import encode_fixed64
from ckpttool.wire.sstable import FOOTER_SIZE, MAGIC, Table


def read_bundle(
    prefix: str, *, faults: list[CheckpointError] | None = None, only: Collection[str] | None = None
) -> Checkpoint:
    """Opens the bundle `prefix`: reads its index, and no values.

    Args:
        prefix: what its files' names begin with.
        faults: a list for the errors of damaged entries and blocks, which are passed over; None: they are raised.
        only: the names of the variables that are wanted: they are looked up, and what else there is is neither read
            nor checked; None: all.

    Raises:
        NotFoundError: there is no index.
        FormatError: the index is no table, or that of a V1 checkpoint.
        CorruptionError: the index is damaged, or what it says can't be.
        NotSupportedError: it wants a newer reader.
    """
    path = index_path(prefix)
    refuse_lookalike(path)
    with located(path):
        report = reporter(path, faults)
        index = _Index(prefix, _records(_read(path), report, only), report)
        if faults:
            index.drop_stray_slices()
        miscounted = index.source.miscounted if index.variables else ""
        if miscounted and report is not refuse:  # Opened, it is no more than a warning.
            report(CorruptionError(f"{miscounted}; TensorFlow looks for those that the header counts"))
    shards = index.source.shard_paths
    warnings = _warnings(miscounted, shards if index.variables else ())
    warnings += lacking_slices(index.partitioned)
    return Checkpoint(index.variables, path=prefix, format=FORMAT, files=[path, *shards], warnings=warnings)


def _read(path: str) -> bytes:
    """The index; of a monstrous file that does not end like a table, only the end, by which the reader sees it."""
    size = storage.file_size(path)
    if size > _MONSTROUS:
        end = storage.read_range(path, size - FOOTER_SIZE, FOOTER_SIZE)
        if not end.endswith(encode_fixed64(MAGIC)):
            return end
    return storage.read_file(path)


# An index of a million variables has 30 MB.
_MONSTROUS = 1 << 30


def _warnings(miscounted: str, shards: Iterable[str]) -> list[str]:
    warnings = [f"{miscounted}; they are used"] if miscounted else []
    gone, pointers = [], []
    for path in shards:
        if not os.path.exists(path):
            gone.append(path)
        elif is_pointer(path):  # Repositories keep a small index itself, and of large data this.
            pointers.append(path)
    warnings += _of_files("data file is missing", gone, "")
    return warnings + _of_files(
        "data file is a Git LFS pointer, not the file itself", pointers, "; git lfs pull fetches it"
    )


def _of_files(what: str, paths: Sequence[str], hint: str) -> list[str]:
    if not paths:
        return []
    whose = "its" if len(paths) == 1 else "their"  # Those of other shards can.
    return [f"{what}: {listed(paths, 1)}; variables are listed, {whose} values can't be read{hint}"]


def _records(index: bytes, report: Report, only: Collection[str] | None) -> Iterator[tuple[bytes, bytes]]:
    """The index's records, all or those of the variables named in `only`; the header comes first."""
    try:
        table = Table.from_bytes(index, report)
    except FormatError as error:
        left = "; verify tells what is left" if report is refuse else ""  # verify opens it with a reporter.
        error.hint = error.hint or f"{TRUNCATED}{left}"  # A table is known by its end.
        raise
    if only is None or report is not refuse or any(name.startswith("\0") for name in only):  # Slices' keys do.
        return table.pairs(report)
    return _looked_up(table, [b"", *map(to_bytes, filter(None, only))])


def _looked_up(table: Table, keys: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """The records of those keys that are there, each followed by those of its slices."""
    for key in keys:
        value = table.lookup(key)
        if value is not None:
            yield key, value
            yield from table.found(_slice_keys(key, value) if key else [])


_MOST_KEYS = 1 << 26  # Bytes of the keys of a variable's slices, together.


def _slice_keys(key: bytes, value: bytes) -> list[bytes]:
    """The keys of the slices that an entry names, in order.

    None if it is no entry, which its reader will notice, or if they would be too long (see `_keys_of_slices`).
    """
    try:
        slices = decode_bundle_entry(value).slices
    except CheckpointError:
        return []
    if len(key) * len(slices) > _MOST_KEYS:
        return []
    return sorted(encode_slice_key(key, extents) for extents in set(slices))


class _Index:
    """The variables of an index, checked; and their source.

    Args:
        prefix: what the files' names begin with.
        records: what the index holds, the header first.
        report: takes the errors of damaged records.
    """

    def __init__(self, prefix: str, records: Iterator[tuple[bytes, bytes]], report: Report) -> None:
        self._report, self._slices = report, dict[bytes, bytes]()
        first = next(records, (None, b""))
        self._header = self._read_header(prefix, *first)
        if first[0]:  # The header was lost, and this is the first variable.
            records = chain([first], records)
        some = list(islice(records, 1))
        if not len(some) <= self._header.num_shards <= MAX_SHARDS:
            report(CorruptionError(f"the header counts {self._header.num_shards:,} shards"))
            self._header = _header_by_files(prefix)
        self.source = BundleSource(prefix, self._header, self._slices)
        self.partitioned: list[Variable] = []
        self.variables = self._read_variables(chain(some, records))

    def _read_header(self, prefix: str, key: bytes | None, value: bytes) -> BundleHeader:
        try:
            if key != b"":
                raise CorruptionError("the index has no header: its first key is not empty")
            with located(in_record=True):
                return decode_bundle_header(value)
        except CorruptionError as error:
            self._report(error)
            return _header_by_files(prefix)

    def _read_variables(self, records: Iterable[tuple[bytes, bytes]]) -> dict[str, Variable]:
        variables: dict[str, Variable] = {}
        others: dict[bytes, bytes] = {}
        num_shards = self._header.num_shards
        for key, value in records:
            name, plain = to_text(key), plain_entry(value, num_shards)
            if plain:
                variables[name] = Variable(name, plain.dtype, plain.shape, self.source, value)
            else:
                variables[name] = Variable(name, DTYPES["invalid"], (), self.source)  # Keeps its place in the order.
                others[key] = value
            if key.startswith(b"\0"):
                self._slices[key] = value
        self._read_others(others, variables)
        return variables

    def _read_others(self, stored: Mapping[bytes, bytes], variables: dict[str, Variable]) -> None:
        """Reads the entries that are not plain, after the others: their slices must be known."""
        entries, slice_keys = self._decode(stored), set[bytes]()
        for name in map(to_text, stored.keys() - entries.keys()):
            del variables[name]
        for key, entry in entries.items():
            name = to_text(key)
            try:
                self._check(entry)
                keys = self._keys_of_slices(key, entry)
                slice_keys.update(keys)
                if keys:
                    self._check_slices(keys, entry)
            except CheckpointError as error:  # Not by `located`: a million contexts take a second.
                error.variable = name
                self._report(error)
                del variables[name]
                continue
            known_by = Partitioned(key, entry) if entry.slices else stored[key]
            variable = Variable(name, stored_dtype_of(entry.dtype), entry.shape, self.source, known_by)
            if entry.slices:
                variable = as_stored(variable, (box_of(extents, entry.shape)[1] for extents in entry.slices))
                self.partitioned.append(variable)
            variables[name] = variable
        for key in slice_keys:
            variables.pop(to_text(key), None)

    def _decode(self, stored: Mapping[bytes, bytes]) -> dict[bytes, BundleEntry]:
        entries = {}
        for key, value in stored.items():
            try:
                entries[key] = decode_bundle_entry(value)
            except CheckpointError as error:
                # An offset would count from the start of the record, and mislead.
                error.variable, error.offset = to_text(key), None
                self._report(error)
                self._slices.pop(key, None)
        return entries

    def drop_stray_slices(self) -> None:
        """In a damaged index, what looks like a slice is that of a lost variable, and no variable itself."""
        for variable in list(self.variables.values()):
            whole = sliced_name(to_bytes(variable.name))
            if whole is not None:
                self._report(CorruptionError("there is a slice of it, and not its own entry", variable=to_text(whole)))
                del self.variables[variable.name]

    def _check(self, entry: BundleEntry) -> None:
        dtype = stored_dtype_of(entry.dtype)
        if entry.slices:
            return  # Shard, offset and size of a partitioned variable's own entry mean nothing.
        if not 0 <= entry.shard < max(1, self._header.num_shards):
            raise CorruptionError(f"shard {entry.shard} of {self._header.num_shards}")
        if entry.offset < 0 or entry.size < 0:
            raise CorruptionError(f"{entry.size} bytes at offset {entry.offset}")
        if dtype.itemsize is not None and entry.size != prod(entry.shape) * dtype.itemsize:
            raise CorruptionError(
                f"Invalid size in bundle entry: stored size {entry.size:,}; expected size"
                f" {prod(entry.shape) * dtype.itemsize:,} for {dtype.name}{list(entry.shape)}"
            )

    def _keys_of_slices(self, key: bytes, entry: BundleEntry) -> list[bytes]:
        """The keys of an entry's slices; raises if so many keys of missing slices would fill the memory."""
        if len(entry.slices) > len(self._slices) and len(key) * len(entry.slices) > _MOST_KEYS:
            raise CorruptionError(f"{len(entry.slices):,} slices, of which {len(self._slices):,} are there at most")
        return [encode_slice_key(key, extents) for extents in entry.slices]

    def _check_slices(self, keys: Sequence[bytes], entry: BundleEntry) -> None:
        """Raises unless each slice is there, is as its extents say, and does not overlap another one."""
        boxes = [box_of(extents, entry.shape) for extents in entry.slices]
        fault = tiling_fault(entry.shape, boxes, partly=True)
        if fault:
            raise CorruptionError(fault)
        for slice_key, (start, shape) in zip(keys, boxes, strict=True):
            if slice_key not in self._slices:
                raise CorruptionError(f"the slice {list(start)} + {list(shape)} is missing")
            piece = decode_bundle_entry(self._slices[slice_key])
            if (piece.dtype, piece.shape, piece.slices) != (entry.dtype, shape, ()):
                raise CorruptionError(
                    f"the slice {list(start)} + {list(shape)} is stored as"
                    f" {dtype_of(piece.dtype).name}{list(piece.shape)}"
                )
            self._check(piece)  # Where damage is passed over, a bad slice has been reported and is still there.


def _header_by_files(prefix: str) -> BundleHeader:
    """A header in place of a damaged one."""
    return BundleHeader(max(shard_counts(prefix), default=1), big_endian=False)
