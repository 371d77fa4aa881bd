"""What findings look like together: a cause that one can do something about."""

import os
from collections.abc import Iterator, Sequence

from ckpttool import storage
from ckpttool.errors import CheckpointError
from ckpttool.formats.bundle import index_path, read_bundle
from ckpttool.formats.locate import checkpoints_in
from ckpttool.formats.verifying.files import Absent
from ckpttool.model.checkpoint import ByteRange, Checkpoint
from ckpttool.model.findings import Finding

# Values by which a data file is known to be that of an index, or not.
_SAMPLE = 3
_SAMPLED = 16 << 20
# Of so many values one may have its checksum by chance.
_STRAY = 8


def causes(checkpoint: Checkpoint, absent: Absent, damaged: Sequence[Finding]) -> list[str]:
    """What the damage looks like, in words; nothing if it is of no known pattern."""
    found = [*_truncations(checkpoint, absent)]
    for path, ranges in _by_file(checkpoint).items():
        bad = {finding.offset for finding in damaged if finding.path == path}
        whole = [data for data in ranges if data.offset not in bad]
        # A zero is a zero in any file.
        if len(ranges) > 1 and bad and len(whole) * _STRAY <= len(ranges):
            found.append(_mispaired(checkpoint, path, len(whole)))
        elif len(bad) == 1:
            # Several variables may lie in the same bytes.
            names = dict.fromkeys(finding.variable or "" for finding in damaged if finding.path == path)
            found.append(f"one variable of {len(ranges):,} is damaged, and no other: {' = '.join(names)} in {path}")
    return found


def _by_file(checkpoint: Checkpoint) -> dict[str, list[ByteRange]]:
    """The ranges of bytes with checksums, by file."""
    found: dict[str, list[ByteRange]] = {}
    for variable in checkpoint.values():
        for piece in variable.slices:
            if piece.data.crc32c is not None and piece.data.nbytes:
                found.setdefault(piece.data.path, []).append(piece.data)
    return found


def _truncations(checkpoint: Checkpoint, absent: Absent) -> Iterator[str]:
    for finding in absent.findings:
        if finding.kind != "truncated" or not finding.offset:
            continue
        whole = len(checkpoint) - len(absent.variables)
        said = (
            f"{finding.path} ends after {finding.offset:,} bytes: {whole:,} of {len(checkpoint):,} variables are whole"
        )
        yield f"{said}; {_round(finding.offset)}"


def _round(size: int) -> str:
    """What a file's size says of how it ended."""
    if size & (size - 1) == 0:
        return f"that is 2^{size.bit_length() - 1}: a limit of what copied it"
    if size % 4096 == 0:
        return f"a multiple of {size & -size:,}: a copy or a download that stopped halfway"
    return "fetch it again"


def _mispaired(checkpoint: Checkpoint, path: str, whole: int) -> str:
    count = "nearly all" if whole else "all"
    said = f"{count} values in {path} have other checksums: index and data are not of one checkpoint"
    mine = index_path(checkpoint.path)
    for prefix in checkpoints_in(os.path.dirname(path) or "."):
        if index_path(prefix) != mine:
            other = _ranges_of_other(prefix, path)
            if other and _fits(other):
                return f"{said}; the data are those of {os.path.normpath(index_path(prefix))}"
    return f"{said}, or the whole file is damaged"


def _ranges_of_other(prefix: str, path: str) -> list[ByteRange]:
    """What another index says of the data file that has the same number, but in this file."""
    try:
        ranges = _by_file(read_bundle(prefix))
    except (CheckpointError, OSError):
        return []
    suffix = path[path.rindex(".data-") :] if ".data-" in path else "?"
    found = next((data for file, data in ranges.items() if file.endswith(suffix)), [])
    return [data._replace(path=path) for data in found]


def _fits(ranges: Sequence[ByteRange]) -> bool:
    """Whether the first values, as far as they are small, have their checksums."""
    size = os.path.getsize(ranges[0].path)
    if any(data.offset + data.nbytes > size for data in ranges):
        return False
    sample = sorted(ranges, key=lambda data: data.nbytes)[-_SAMPLE:]
    sample = [data for data in sample if data.nbytes <= _SAMPLED] or [min(ranges, key=lambda data: data.nbytes)]
    return all(storage.checksum(data) == data.crc32c for data in sample)
