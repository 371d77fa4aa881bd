"""Every value's checksum, two ranges at a time.

A large variable is checked in parts: the checksum of two runs of bytes follows from those of each.
"""

from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Variable
from ckpttool.model.findings import Finding, finding_of
from ckpttool.model.parallel import in_order
from ckpttool.wire.crc32c import combine

# Bytes that one thread checks at a time.
_PART = 64 << 20


class _Part(NamedTuple):
    """A part of what is to be checked: a range of bytes, or (without one) all that the variable is made of."""

    variable: Variable
    whole: ByteRange | None
    data: ByteRange | None
    is_last: bool


class _Checked(NamedTuple):
    """What came of a part: the checksum of its bytes, or the error."""

    part: _Part
    crc32c: int
    error: CheckpointError | None


def damaged_data(
    checkpoint: Checkpoint, passed_over: Collection[str], progress: Callable[[int], None]
) -> list[Finding]:
    """The values that do not have their checksum, or can't be decoded: a finding for each range, or variable."""
    parts = (part for name, v in checkpoint.items() if name not in passed_over for part in _parts(v))
    findings, crc = [], 0
    for checked in in_order(lambda part: _check(part, progress), parts):
        part = checked.part
        if checked.error:
            findings.append(finding_of(checked.error, "data"))
        elif part.data and part.whole:
            crc = combine(crc, checked.crc32c, part.data.nbytes)
            if part.is_last and crc != part.whole.crc32c:
                findings.append(_mismatch(part.variable, part.whole, crc))
        if part.is_last:
            crc = 0
    return findings


def _parts(variable: Variable) -> Iterator[_Part]:
    """The parts of a variable: where its bytes have a checksum each range of them, else the whole."""
    ranges = [piece.data for piece in variable.slices]
    if variable.dtype.name in ("string", "variant") or not all(data.crc32c is not None for data in ranges):
        yield _Part(variable, None, None, is_last=True)
        return
    for data in ranges:
        starts = range(0, max(1, data.nbytes), _PART)
        for start in starts:
            size = min(_PART, data.nbytes - start)
            yield _Part(variable, data, ByteRange(data.path, data.offset + start, size, None), start == starts[-1])


def _check(part: _Part, progress: Callable[[int], None]) -> _Checked:
    try:
        if part.data is not None:
            return _Checked(part, storage.checksum(part.data, progress), None)
        _read(part.variable, progress)
    except CheckpointError as error:
        error.variable = part.variable.name if error.variable is None else error.variable
        return _Checked(part, 0, error)
    return _Checked(part, 0, None)


def _read(variable: Variable, progress: Callable[[int], None]) -> None:
    if variable.dtype.itemsize is None:
        variable.strings()
        progress(variable.nbytes)
        return
    for _, block in variable.blocks():
        progress(block.nbytes)


def _mismatch(variable: Variable, data: ByteRange, found: int) -> Finding:
    what = f"Checksum does not match: stored {data.crc32c:08x} vs. calculated {found:08x} over {data.nbytes:,} bytes"
    return finding_of(CorruptionError(what, path=data.path, offset=data.offset, variable=variable.name), "data")
