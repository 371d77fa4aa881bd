"""Oddities that no reader minds and that TensorFlow never writes: gaps, overlaps, padding, numbers longer than need be.

Bytes that belong to nothing may hide something, or be left over from an accident.
"""

import os
from collections.abc import Iterator, Sequence

from ckpttool import storage
from ckpttool.errors import CheckpointError, located
from ckpttool.formats import bundle, tensor_slices
from ckpttool.formats.records.entries import (
    decode_bundle_entry,
    decode_bundle_header,
    encode_bundle_entry,
    encode_bundle_header,
)
from ckpttool.formats.verifying.files import stored_pieces
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding, finding_of
from ckpttool.model.slices import ByteRange
from ckpttool.model.texts import to_text
from ckpttool.wire.sstable import FOOTER_SIZE, TRAILER_SIZE, Block, BlockBuilder, BlockHandle, Footer, Table

# The most bytes of a block that is looked at: a larger one has one large value in it, and nothing else.
_MOST = 4 << 20
# Entries between restarts, in a data block and in the index block.
_INTERVALS = (16, 1)


def strict_findings(checkpoint: Checkpoint) -> list[Finding]:
    """What is odd in a sound TensorFlow checkpoint; empty for other formats."""
    is_bundle = checkpoint.format == bundle.FORMAT
    tables = checkpoint.files[:1] if is_bundle else checkpoint.files
    findings: list[Finding] = []
    for path in tables if is_bundle or checkpoint.format == tensor_slices.FORMAT else ():
        try:
            with located(path):
                findings += _table(path, is_bundle)
        except CheckpointError as error:
            findings.append(finding_of(error, "strict"))
    return [*findings, *_data(checkpoint)] if is_bundle else findings


def _table(path: str, is_bundle: bool) -> Iterator[Finding]:
    size = storage.file_size(path)
    stored = storage.read_range(path, size - FOOTER_SIZE, FOOTER_SIZE)
    footer = Footer.decode(stored)
    if stored != footer.encode():
        yield Finding("strict", "the footer is padded with something", path, "", size - FOOTER_SIZE)
    table = Table(lambda offset, nbytes: storage.read_range(path, offset, nbytes), size)
    yield from _gaps(path, [*table.handles, *footer], size - FOOTER_SIZE)
    if list(Block(table.contents(footer.metaindex_handle))):
        yield Finding("strict", "the metaindex is not empty", path, "", footer.metaindex_handle.offset)
    for handle in [*table.handles, *footer]:
        if handle.size <= _MOST and not _is_as_written(table.contents(handle)):
            yield Finding("strict", "the block is not as a writer encodes it", path, "", handle.offset)
    for _, value in Block(table.contents(footer.index_handle)):
        handle, _ = BlockHandle.decode(value)
        if value != handle.encode():
            yield Finding("strict", "the block's handle is not as a writer encodes it", path, "", handle.offset)
    for key, value in table if is_bundle else ():
        if not _is_minimal(key, value):
            name = to_text(key)
            yield Finding("strict", "the record is not as a writer encodes it", path, name)


def _gaps(path: str, handles: Sequence[BlockHandle], size: int) -> Iterator[Finding]:
    """The bytes of a table that belong to no block, or to two."""
    end = 0
    for offset, nbytes in sorted(handles):
        if offset != end:
            what = "belong to no block" if offset > end else "belong to two blocks"
            yield Finding("strict", f"{abs(offset - end):,} bytes of the table {what}", path, "", min(offset, end))
        end = max(end, offset + nbytes + TRAILER_SIZE)
    if end != size:
        yield Finding("strict", f"{size - end:,} bytes of the table belong to no block", path, "", end)


def _is_as_written(contents: bytes) -> bool:
    """Whether a builder makes the same block from its pairs."""
    pairs = list(Block(contents))
    return any(_built(pairs, interval) == contents for interval in _INTERVALS)


def _built(pairs: Sequence[tuple[bytes, bytes]], interval: int) -> bytes:
    builder = BlockBuilder(interval)
    for key, value in pairs:
        builder.add(key, value)
    return builder.finish()


def _is_minimal(key: bytes, value: bytes) -> bool:
    if key:
        return encode_bundle_entry(decode_bundle_entry(value)) == value
    header = decode_bundle_header(value)
    return header.big_endian or encode_bundle_header(header.num_shards) == value


def _data(checkpoint: Checkpoint) -> Iterator[Finding]:
    """The bytes of the data files that belong to no value, or to two."""
    shards: dict[str, list[tuple[ByteRange, str]]] = {path: [] for path in checkpoint.files[1:] if os.path.isfile(path)}
    for variable, data in stored_pieces(checkpoint):
        if data.nbytes and data.path in shards:
            shards[data.path].append((data, variable.name))
    for path, ranges in shards.items():
        end, size = 0, os.path.getsize(path)
        for data, name in sorted(ranges):
            if data.offset > end:
                yield Finding("strict", f"{_unowned(path, end, data.offset)} in front of it", path, name, end)
            elif data.offset < end:
                what = f"its first {end - data.offset:,} bytes belong to another value too"
                yield Finding("strict", what, path, name, data.offset)
            end = max(end, data.offset + data.nbytes)
        if size > end:
            yield Finding("strict", f"{_unowned(path, end, size)} after the last one", path, "", end)


def _unowned(path: str, start: int, end: int) -> str:
    """How many bytes belong to no value, and whether all of them are padding."""
    zeros = not any(storage.read_range(path, start, min(end - start, _MOST)))
    return f"{end - start:,} bytes{' of zeros' if zeros else ''} belong to no value,"
