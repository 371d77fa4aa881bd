"""Checks every value's checksum, on several cores; reads every value that has none.

Ranges are taken in the order of their files and offsets, many small ones at a time. A large one is checked in parts:
the checksum of two runs of bytes together follows from those of each.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

from ckpttool import storage
from ckpttool.analysis.parallel import parallel_map
from ckpttool.errors import CheckpointError, CorruptionError
from ckpttool.formats.verifying.files import Stored
from ckpttool.model.findings import Finding, finding_of
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Variable
from ckpttool.wire.crc32c import combine

Progress = Callable[[int], None]

# How many bytes, and how many ranges, a thread checks at a time.
_PART, _RANGES = 16 << 20, 512
# With overlapping ranges, a small index could make a file be read again and again for ever.
_MOST_READINGS = 16
_TOO_OFTEN = CorruptionError("not checked: so many values lie over each other that reading them all would not end")


def damaged_data(stored: Sequence[Stored], progress: Progress) -> Iterator[Finding]:
    """A finding for each range whose checksum is wrong, and each variable that can't be decoded."""
    overlapping = _overlapping(stored)
    yield from (_finding(each, 0, _TOO_OFTEN) for each in overlapping)
    left = {each.variable.name for each in overlapping}
    # Checksums of strings are not those of their bytes, and an unknown dtype gives no values to check.
    ranges = [each for each in stored if each.is_placed and each.variable.dtype.itemsize is not None]
    yield from _damaged_ranges([each for each in ranges if each.variable.name not in left], progress)
    left |= {each.variable.name for each in ranges}
    others: dict[str, list[Stored]] = {}
    for each in stored:
        if each.variable.name not in left:
            others.setdefault(each.variable.name, []).append(each)
    yield from filter(None, parallel_map(partial(_unreadable, progress=progress), others.values()))


def _overlapping(stored: Sequence[Stored]) -> list[Stored]:
    """The ranges that come after a file has been read too often."""
    left = {path: _MOST_READINGS * storage.file_size(path) for path in {s.data.path for s in stored if s.is_placed}}
    found = []
    for each in filter(lambda each: each.is_placed, stored):
        left[each.data.path] -= each.data.nbytes
        if left[each.data.path] < 0:
            found.append(each)
    return found


class _Part(NamedTuple):
    """A part of a range; the last part has what the range is of."""

    data: ByteRange
    last_of: Stored | None


class _Checked(NamedTuple):
    """A part, after reading: the checksum of its bytes, or the error."""

    part: _Part
    crc32c: int
    error: CheckpointError | OSError | None = None


def _damaged_ranges(stored: Sequence[Stored], progress: Progress) -> Iterator[Finding]:
    in_place = sorted(stored, key=lambda each: each.data[:3])
    crc, error = 0, None
    checked = parallel_map(partial(_check, progress=progress), _batches(in_place))
    for part, found, failure in chain.from_iterable(checked):
        crc, error = combine(crc, found, part.data.nbytes) if crc else found, error or failure
        if part.last_of:
            if error or crc != part.last_of.data.crc32c:
                yield _finding(part.last_of, crc, error)
            crc, error = 0, None


def _batches(stored: Iterable[Stored]) -> Iterator[list[_Part]]:
    """Lists of parts of the same file, each enough to keep a thread busy."""
    batch: list[_Part] = []
    nbytes = 0
    for part in chain.from_iterable(map(_parts, stored)):
        if batch and (nbytes >= _PART or len(batch) >= _RANGES or batch[0].data.path != part.data.path):
            yield batch
            batch, nbytes = [], 0
        batch.append(part)
        nbytes += part.data.nbytes
    if batch:
        yield batch


def _parts(stored: Stored) -> Iterator[_Part]:
    data = stored.data
    starts = range(0, max(1, data.nbytes), _PART)
    for start in starts:
        part = ByteRange(data.path, data.offset + start, min(_PART, data.nbytes - start), None)
        yield _Part(part, stored if start == starts[-1] else None)


def _check(batch: Sequence[_Part], progress: Progress) -> list[_Checked]:
    try:
        with storage.checksums(batch[0].data.path) as checksum:
            return [_checked(part, checksum, progress) for part in batch]
    except (CheckpointError, OSError) as error:
        return [_Checked(part, 0, error) for part in batch]


def _checked(part: _Part, checksum: Callable[[ByteRange], int], progress: Progress) -> _Checked:
    try:
        crc = checksum(part.data)
    except (CheckpointError, OSError) as error:  # The rest may be readable, also on a disk that fails.
        return _Checked(part, 0, error)
    progress(part.data.nbytes)
    return _Checked(part, crc)


def _finding(stored: Stored, crc: int, error: CheckpointError | OSError | None) -> Finding:
    variable, data = stored
    if error:
        return _finding_of(error, variable)._replace(path=data.path, offset=data.offset)
    what = f"Checksum does not match: stored {data.crc32c:08x} vs. calculated {crc:08x} over {data.nbytes:,} bytes"
    return Finding("data", what, data.path, variable.name, data.offset)


def _finding_of(error: CheckpointError | OSError, variable: Variable) -> Finding:
    if isinstance(error, OSError):
        return Finding("data", f"can't be read: {error.strerror or error}", error.filename or "", variable.name)
    return finding_of(error, "data")._replace(variable=variable.name)


def _unreadable(pieces: Sequence[Stored], progress: Progress) -> Finding | None:
    """Reads all values of a variable; a finding if they can't be read."""
    variable = pieces[0].variable
    try:
        if variable.lacking:  # The slices that are there are read one by one.
            for piece in variable.slices:
                _read_slice(variable, piece, progress)
        elif variable.dtype.itemsize is None:
            variable.strings()
            progress(variable.nbytes)
        else:
            for _, block in variable.narrow().blocks():
                progress(block.nbytes)
    except (CheckpointError, OSError) as error:
        finding = _finding_of(error, variable)
        # An error in a string has only its offset within the value.
        places = (piece.data.offset for piece in pieces if piece.is_placed and piece.data.path == finding.path)
        return finding._replace(offset=next(places, finding.offset))
    return None


def _read_slice(variable: Variable, piece: Slice, progress: Progress) -> None:
    if variable.dtype.itemsize is None:
        variable.strings_of(piece)
        progress(piece.data.nbytes)
    else:
        for block in variable.arrays_of(piece):
            progress(block.nbytes)
