"""What no reader minds, and no writer of TensorFlow's does: gaps, overlaps, padding, numbers longer than they need be.

Bytes that nothing accounts for can hide something, or be what is left of an accident.
"""

import os
from collections.abc import Iterator

from ckpttool import storage
from ckpttool.errors import CheckpointError, located
from ckpttool.formats.bundle import index_path
from ckpttool.formats.records import (
    decode_bundle_entry,
    decode_bundle_header,
    encode_bundle_entry,
    encode_bundle_header,
)
from ckpttool.model.checkpoint import ByteRange, Checkpoint
from ckpttool.model.findings import Finding, finding_of
from ckpttool.wire.sstable import FOOTER_SIZE, Footer, Table


def strict_findings(checkpoint: Checkpoint) -> list[Finding]:
    """What is odd in a bundle that is sound; nothing of any other format."""
    path = index_path(checkpoint.path)
    if path not in checkpoint.files:
        return []
    try:
        return [*_index(path), *_data(checkpoint)]
    except CheckpointError as error:
        return [finding_of(error, "strict")]


def _index(path: str) -> Iterator[Finding]:
    data = storage.read_file(path)
    with located(path):
        if data[-FOOTER_SIZE:] != Footer.decode(data[-FOOTER_SIZE:]).encode():
            yield Finding("strict", "the footer is padded with something", path, "", len(data) - FOOTER_SIZE)
        table = Table.from_bytes(data)
        unaccounted = len(data) - table.accounted
        if unaccounted:
            yield Finding("strict", f"{unaccounted:,} bytes of the index belong to no block", path)
        for key, value in table:
            name = key.decode(errors="surrogateescape")
            if not _is_minimal(key, value):
                yield Finding("strict", "the record is not as a writer encodes it", path, name)


def _is_minimal(key: bytes, value: bytes) -> bool:
    if key:
        return encode_bundle_entry(decode_bundle_entry(value)) == value
    header = decode_bundle_header(value)
    return header.big_endian or encode_bundle_header(header.num_shards) == value


def _data(checkpoint: Checkpoint) -> Iterator[Finding]:
    shards: dict[str, list[tuple[ByteRange, str]]] = {path: [] for path in checkpoint.files[1:] if os.path.isfile(path)}
    for name, variable in checkpoint.items():
        for piece in variable.slices:
            if piece.data.nbytes and piece.data.path in shards:
                shards[piece.data.path].append((piece.data, name))
    for path, ranges in shards.items():
        end = 0
        for data, name in sorted(ranges):
            if data.offset != end:
                yield _jump(path, end, data.offset, name)
            end = max(end, data.offset + data.nbytes)
        size = os.path.getsize(path)
        if size > end:
            yield Finding("strict", f"{size - end:,} bytes after the last value", path, "", end)


def _jump(path: str, end: int, offset: int, name: str) -> Finding:
    if offset > end:
        return Finding("strict", f"{offset - end:,} bytes in front of it belong to no value", path, name, end)
    return Finding("strict", f"its first {end - offset:,} bytes belong to another value too", path, name, offset)
