"""Tables and bundles made by hand, in memory: sound ones, and ones that no writer would make.

Values are laid out by code of its own; the table goes through TableBuilder, and messages through protobuf, so that
a wrong one is made by changing one thing of a right one:

    made = bundle({"w": np.zeros(4, np.float32)})
    made.change("w", size=15)
    checkpoint = made.open(tmp_path)
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from hypothesis import settings

from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.model.boxes import Extents
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES
from ckpttool.proto import message_class
from ckpttool.wire.coding import encode_fixed32, encode_varint
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.sstable import NO_COMPRESSION, SNAPPY, BlockBuilder, BlockHandle, Footer, TableBuilder

# Examples are the same in every run, and kept nowhere: tests write under tmp_path only.
examples = settings(database=None, deadline=None, derandomize=True, max_examples=60)

Pairs = Sequence[tuple[bytes, bytes]]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Ends what takes longer, by a TimeoutError: a test that would hang fails instead."""

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    # Again and again: an error raised while garbage is collected is swallowed.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.25)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Tables


def block(
    entries: Sequence[tuple[int, bytes, bytes]], restarts: Sequence[int] = (0,), count: int | None = None
) -> bytes:
    """A block of (shared, rest of the key, value), whether or not that makes sense."""
    body = b"".join(
        encode_varint(shared) + encode_varint(len(rest)) + encode_varint(len(value)) + rest + value
        for shared, rest, value in entries
    )
    return body + b"".join(map(encode_fixed32, [*restarts, len(restarts) if count is None else count]))


def block_of(pairs: Pairs, restart_interval: int = 16) -> bytes:
    """A sound block."""
    builder = BlockBuilder(restart_interval)
    for key, value in pairs:
        builder.add(key, value)
    return builder.finish()


def with_trailer(contents: bytes, compression: int = NO_COMPRESSION) -> bytes:
    """A block as it is stored: with its compression and checksum behind it."""
    checked = contents + bytes([compression])
    return checked + encode_fixed32(mask(crc32c(checked)))


def snappied(contents: bytes) -> bytes:
    """A block, compressed, as it is stored."""
    import cramjam

    return with_trailer(bytes(cramjam.snappy.compress_raw(contents)), SNAPPY)


def table(
    blocks: Sequence[tuple[bytes, bytes]],
    *,
    store: Callable[[bytes], bytes] = with_trailer,
    index: Callable[[list[tuple[bytes, bytes]]], bytes] = lambda pairs: block_of(pairs, 1),
    footer: Callable[[Footer], bytes] = Footer.encode,
) -> bytes:
    """A table of stored blocks, each after the key that the index gives for it.

    Args:
        blocks: (index key, block with its trailer).
        store: puts trailers behind metaindex and index.
        index: makes the index block of (key, encoded handle) pairs.
        footer: makes the footer's bytes.
    """
    file = b""
    handles = []
    for key, stored in blocks:
        handles.append((key, BlockHandle(len(file), len(stored) - 5).encode()))
        file += stored
    ends = []
    for contents in (block_of([]), index(handles)):
        stored = store(contents)
        ends.append(BlockHandle(len(file), len(stored) - 5))
        file += stored
    return file + footer(Footer(*ends))


def table_of(pairs: Pairs, block_size: int = 262144) -> bytes:
    """A sound table."""
    builder = TableBuilder(block_size)
    for key, value in pairs:
        builder.add(key, value)
    return builder.finish()


def snappy_table(pairs: Pairs, pairs_per_block: int = 3) -> bytes:
    """A sound table in which every block is compressed, as TensorFlow wrote them before 1.2."""
    groups = [pairs[i : i + pairs_per_block] for i in range(0, len(pairs), pairs_per_block)]
    return table([(group[-1][0], snappied(block_of(group))) for group in groups], store=snappied)


# Bundles


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: an int as a varint, bytes with their length."""
    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(value)
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


def padded(value: int, size: int = 10) -> bytes:
    """A varint of so many bytes, which is longer than need be."""
    return b"".join(bytes([value >> 7 * i & 0x7F | 0x80]) for i in range(size - 1)) + b"\x00"


def strings(*values: bytes) -> np.ndarray[Any, Any]:
    """A vector of strings."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def dtype_number(array: np.ndarray[Any, Any]) -> int:
    name = "string" if array.dtype == object else array.dtype.name
    return DTYPES[name].number


def encode_values(array: np.ndarray[Any, Any], big_endian: bool = False) -> tuple[bytes, int]:
    """Values as a data file has them, and their masked checksum."""
    if array.dtype == object:
        return encode_strings(list(array.ravel()), big_endian)
    data = np.ascontiguousarray(array).tobytes()
    if big_endian:
        component = array.dtype.itemsize // (2 if array.dtype.kind == "c" else 1)
        data = np.frombuffer(data, f"<u{component}").astype(f">u{component}").tobytes()
    return data, mask(crc32c(data))


def encode_strings(values: Sequence[bytes], big_endian: bool = False) -> tuple[bytes, int]:
    """Strings as a data file has them, and their masked checksum."""
    order: Any = "big" if big_endian else "little"
    crc = crc32c(b"".join(len(value).to_bytes(4, order) for value in values))
    checksum = mask(crc).to_bytes(4, order)
    lengths = b"".join(encode_varint(len(value)) for value in values)
    return lengths + checksum + b"".join(values), mask(crc32c(checksum + b"".join(values), crc))


def shape_message(shape: Sequence[int]) -> Any:
    message = message_class("TensorShapeProto")()
    for size in shape:
        message.dim.add(size=size)
    return message


def slice_message(extents: Extents) -> Any:
    """A TensorSliceProto; a length of -1 is left out."""
    message = message_class("TensorSliceProto")()
    for start, length in extents:
        extent = message.extent.add(start=start)
        if length >= 0:
            extent.length = length
    return message


def box(extents: Extents) -> tuple[slice, ...]:
    return tuple(slice(start, None if length < 0 else start + length) for start, length in extents)


@dataclass
class Bundle:
    """A bundle in memory.

    Attributes:
        records: the index's pairs.
        shards: the data files; None for one that is not there.
        snappy: compress the index.
    """

    records: dict[bytes, bytes]
    shards: list[bytes | None]
    snappy: bool = False

    def change(self, key: str | bytes, *, shape: Sequence[int] | None = None, **numbers: int) -> "Bundle":
        """Gives an entry another shape, or other numbers, also such as protobuf would refuse."""
        key = key.encode() if isinstance(key, str) else key
        message = message_class("BundleEntryProto").FromString(self.records[key])
        if shape is not None:
            message.shape.CopyFrom(shape_message(shape))
        if "crc32c" in numbers:
            message.crc32c = numbers.pop("crc32c")
        fields = {"dtype": 1, "shard_id": 3, "offset": 4, "size": 5}
        # Of several fields of the same number, the last one counts.
        changed = b"".join(field(fields[name], value) for name, value in numbers.items())
        self.records[key] = message.SerializeToString() + changed
        return self

    def slice_key(self, name: str, number: int = 0) -> bytes:
        """The key of a slice of a partitioned variable."""
        message = message_class("BundleEntryProto").FromString(self.records[name.encode()])
        extents = message.slices[number].extent
        return encode_slice_key(
            name.encode(), tuple((e.start, e.length if e.HasField("length") else -1) for e in extents)
        )

    @property
    def index(self) -> bytes:
        pairs = sorted(self.records.items())
        return snappy_table(pairs) if self.snappy else table_of(pairs)

    def write(self, directory: Path, name: str = "model", index: bytes | None = None) -> str:
        """Writes the files, and gives their prefix."""
        prefix = str(directory / name)
        Path(index_path(prefix)).write_bytes(self.index if index is None else index)
        for number, data in enumerate(self.shards):
            path = Path(shard_path(prefix, number, len(self.shards)))
            path.unlink(missing_ok=True)
            if data is not None:
                path.write_bytes(data)
        return prefix

    def open(self, directory: Path, index: bytes | None = None) -> Checkpoint:
        return read_bundle(self.write(directory, index=index))


def header(**fields: Any) -> bytes:
    """A BundleHeaderProto; `version` as a dict."""
    return bytes(message_class("BundleHeaderProto")(**fields).SerializeToString())


def bundle(
    arrays: Mapping[str, np.ndarray[Any, Any]],
    *,
    shards: int = 1,
    big_endian: bool = False,
    slices: Mapping[str, Sequence[Extents]] | None = None,
    snappy: bool = False,
    **header_fields: Any,
) -> Bundle:
    """A sound bundle of the arrays.

    Args:
        arrays: the variables. Arrays of `object` are strings.
        shards: the number of data files, among which pieces are dealt out in turn.
        big_endian: as a big-endian machine writes it.
        slices: for some of the variables, the slices to store them in.
        snappy: compress the index.
        header_fields: what the header says otherwise.
    """
    fields = {"num_shards": shards, "endianness": int(big_endian), "version": {"producer": 1}} | header_fields
    records = {b"": header(**fields)}
    files = [b""] * shards

    def store(key: bytes, array: np.ndarray[Any, Any]) -> None:
        shard = (len(records) - 1) % shards
        data, crc = encode_values(array, big_endian)
        entry = message_class("BundleEntryProto")(dtype=dtype_number(array), shape=shape_message(array.shape))
        entry.shard_id, entry.offset, entry.size, entry.crc32c = shard, len(files[shard]), len(data), crc
        records[key] = entry.SerializeToString()
        files[shard] += data

    for name, array in arrays.items():
        pieces = (slices or {}).get(name)
        if pieces is None:
            store(name.encode(errors="surrogateescape"), array)
            continue
        for extents in pieces:
            store(encode_slice_key(name.encode(), extents), array[box(extents)])
        whole = message_class("BundleEntryProto")(dtype=dtype_number(array), shape=shape_message(array.shape))
        whole.slices.extend(slice_message(extents) for extents in pieces)
        records[name.encode()] = whole.SerializeToString()
    return Bundle(records, list(files), snappy)
