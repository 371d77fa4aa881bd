"""What several findings together look like: a cause that the user can do something about."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

from ckpttool import storage
from ckpttool.errors import CheckpointError
from ckpttool.formats import bundle, tensor_slices
from ckpttool.formats.bundle import index_path
from ckpttool.formats.bundle.reading import read_bundle
from ckpttool.formats.listing import checkpoints_in, is_table
from ckpttool.formats.lookalikes import look_of
from ckpttool.formats.verifying.files import Absent, Stored, stored_pieces
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding
from ckpttool.model.names import listed
from ckpttool.model.slices import ByteRange

# How many values, of no more bytes than that, tell whether a data file is that of an index.
_SAMPLE = 3
_SAMPLED = 16 << 20
# One in so many values may have its checksum by chance.
_STRAY = 8
_PAGE = 4096

_Checksum = Callable[[int, int], int | None]
_SizesIn = Callable[[str], Mapping[str, int]]
_FilesIn = Callable[[str], Mapping[int, list[tuple[str, str, list[ByteRange]]]]]


def causes(
    checkpoint: Checkpoint,
    faults: Sequence[CheckpointError],
    stored: Sequence[Stored],
    absent: Absent,
    damaged: Sequence[Finding],
) -> list[str]:
    """What the damage looks like, in words; empty if it fits no known pattern.

    Args:
        checkpoint: what could be listed of it.
        faults: what was found when it was opened.
        stored: where its values lie.
        absent: the files that are missing or too short.
        damaged: the values that are not whole.
    """
    lost = absent.variables.keys() | {finding.variable for finding in damaged}
    count = f"{len(checkpoint) - len(lost & checkpoint.keys()):,} of {len(checkpoint):,} variables are whole"
    has_tables = checkpoint.format in (bundle.FORMAT, tensor_slices.FORMAT)
    found = [*_tables(checkpoint, count)] if faults and has_tables else []
    short = {finding.path: finding.offset for finding in absent.findings}
    of_file: dict[str, set[tuple[int | None, str]]] = {}
    # Many files may be missing, and each damaged one is compared with all others.
    sizes_in, files_in = cache(_sizes), cache(_files_by_size)
    for finding in damaged:
        of_file.setdefault(finding.path or "", set()).add((finding.offset, finding.variable))
    for path, ranges in _by_file(stored).items():
        bad = of_file.get(path, set())
        if path in short or bad:
            cut = _short(path, short[path], count, ranges, sizes_in) if path in short else ""
            found += _of_file(checkpoint, path, ranges, bad, cut, files_in)
    return [*found, *_blocks(damaged)] if checkpoint.format == tensor_slices.FORMAT else found


def _by_file(stored: Sequence[Stored]) -> dict[str, list[ByteRange]]:
    """The ranges of bytes with checksums, by file."""
    found: dict[str, list[ByteRange]] = {}
    for _, data in stored:
        if data.crc32c is not None and data.nbytes:
            found.setdefault(data.path, []).append(data)
    return found


def _tables(checkpoint: Checkpoint, count: str) -> Iterator[str]:
    """What to say of the index, or the files of a V1 checkpoint, where the end of a table is missing."""
    tables = checkpoint.files if checkpoint.format == tensor_slices.FORMAT else checkpoint.files[:1]
    for path in tables:
        if os.path.isfile(path) and not is_table(path):
            size = os.path.getsize(path)
            yield f"{path} ends after {size:,} bytes, without its own index: {count}; {_round(size)}"


def _short(path: str, size: int | None, count: str, ranges: Sequence[ByteRange], sizes_in: _SizesIn) -> str:
    """What to say of a data file that is missing or too short."""
    if size is None and os.path.isfile(path):
        return f"{path} may not be read: {count}; ask for its permission"
    if size is None:
        return f"{path} is missing: {count}; {_instead(path, ranges, sizes_in)}"
    if size == 0:
        return f"{path} is empty: {count}; fetch it again"
    return f"{path} ends after {size:,} bytes: {count}; {_round(size)}"


def _instead(path: str, ranges: Sequence[ByteRange], sizes_in: _SizesIn) -> str:
    """What to do about a missing data file: it may be there under another name, packed, or in parts."""
    directory, name = os.path.split(path)
    sizes = sizes_in(directory or os.curdir)
    end = _end(ranges)
    for other in (os.path.join(directory, other) for other, size in sizes.items() if size == end):
        if _are_whole(_sample(ranges), _checksums(other)):
            return f"{other} has these values: give it that name"
    pieces = [other for other in sizes if other.startswith(name)]
    said = "beside it, which may be it in parts, packed, or not fetched to the end"
    return f"{listed(pieces)} {'is' if len(pieces) == 1 else 'are'} {said}" if pieces else "fetch it too"


def _sizes(directory: str) -> dict[str, int]:
    """The sizes of a directory's files, by name."""
    if not os.path.isdir(directory):
        return {}
    with os.scandir(directory) as entries:
        return {
            each.name: each.stat().st_size for each in sorted(entries, key=lambda each: each.name) if each.is_file()
        }


def _round(size: int) -> str:
    """What the size of a file says about the reason for its end."""
    if size >= _PAGE and size & (size - 1) == 0:
        return f"that is 2^{size.bit_length() - 1}: a limit of what copied it"
    if size % _PAGE == 0:
        return f"a multiple of {size & -size:,}: a copy or a download that stopped halfway"
    return "fetch it again"


def _of_file(
    checkpoint: Checkpoint,
    path: str,
    ranges: Sequence[ByteRange],
    bad: set[tuple[int | None, str]],
    short: str,
    files_in: _FilesIn,
) -> Iterator[str]:
    """What has become of a data file.

    Args:
        checkpoint: whose it is.
        path: the file.
        ranges: what should be in it.
        bad: offset and variable of each value whose checksum is wrong.
        short: what to say of its being too short; "" if it is not.
        files_in: see `_files_by_size`.
    """
    is_there = os.path.isfile(path) and os.access(path, os.R_OK)
    size, offsets = storage.file_size(path) if is_there else 0, {offset for offset, _ in bad}
    there = [data for data in ranges if data.offset + data.nbytes <= size]
    whole = [data for data in there if data.offset not in offsets]
    # A few values have their checksums in any file: zeros, for example.
    are_few = len(whole) * _STRAY <= len(ranges)
    owner = _owner(checkpoint, path, files_in) if size and are_few else ""
    look = None if whole or owner or not size else look_of(path)
    if look:
        yield f"{path} is {look[0]}: {look[1]}"
        return
    if short and not owner:
        yield short
    if owner or (are_few and len(offsets) > 1):
        said = f"{'nearly all' if whole else 'all'} values in {path} have other checksums"
        said += ", or are not there" if short else ""
        yield f"{said}: index and data are not of one checkpoint; {owner or 'or the whole file is damaged'}"
    elif len(offsets) == 1:
        # Several variables may share the bytes.
        names = " = ".join(sorted({name for _, name in bad}))
        yield f"one stored tensor of {len(ranges):,} is damaged, and no other: {names} in {path}"
    elif bad:
        yield _region(path, [data for data in ranges if data.offset in offsets], whole)


def _region(path: str, damaged: Sequence[ByteRange], whole: Sequence[ByteRange]) -> str:
    """Where the damage in a file is."""
    start = min((data.offset for data in damaged), default=0)
    end = max((data.offset + data.nbytes for data in damaged), default=0)
    said = f"{len(damaged):,} of {len(damaged) + len(whole):,} stored tensors in {path} are damaged"
    if all(data.offset < start for data in whole) and _is_zero(path, end):
        return f"{said}: all from byte {start:,} on, and it ends in zeros: space that was never written"
    return f"{said}, between byte {start:,} and byte {end:,}"


def _is_zero(path: str, end: int) -> bool:
    """Whether the last page of the file before that byte is all zeros."""
    return not any(storage.read_range(path, max(0, end - _PAGE), min(_PAGE, end)))


def _owner(checkpoint: Checkpoint, path: str, files_in: _FilesIn) -> str:
    """Which other index, or which other shard of this one, the data file belongs to; "" if none is found."""
    mine = os.path.normpath(index_path(checkpoint.path)), os.path.normpath(path)
    checksum = _checksums(path)
    for index, file, sample in files_in(os.path.dirname(path) or ".").get(os.path.getsize(path), ()):
        if (index, file) != mine and _are_whole(sample, checksum):
            return f"the data are those of {file}, by {index}"
    return ""


def _files_by_size(directory: str) -> dict[int, list[tuple[str, str, list[ByteRange]]]]:
    """The data files of all checkpoints in a directory, by the size that each should have: index, path, sample."""
    found: dict[int, list[tuple[str, str, list[ByteRange]]]] = {}
    for prefix in checkpoints_in(directory):
        index = os.path.normpath(index_path(prefix))
        for file, ranges in _ranges_of(prefix).items():
            found.setdefault(_end(ranges), []).append((index, os.path.normpath(file), _sample(ranges)))
    return found


def _ranges_of(prefix: str) -> Mapping[str, list[ByteRange]]:
    """The ranges of bytes in the files of a checkpoint, by file; empty if it can't be read."""
    try:
        return _by_file(stored_pieces(read_bundle(prefix)))
    except (CheckpointError, OSError):
        return {}


def _end(ranges: Sequence[ByteRange]) -> int:
    """Where the last of a file's ranges ends."""
    return max(data.offset + data.nbytes for data in ranges)


def _sample(ranges: Sequence[ByteRange]) -> list[ByteRange]:
    """The largest of a file's ranges that are quick to check."""
    by_size = sorted(ranges, key=lambda data: data.nbytes)
    return [data for data in by_size if data.nbytes <= _SAMPLED][-_SAMPLE:] or by_size[:1]


def _are_whole(sample: Sequence[ByteRange], checksum: _Checksum) -> bool:
    """Whether ranges of bytes that should be in another file are in this one."""
    return all(checksum(data.offset, data.nbytes) == data.crc32c for data in sample)


def _checksums(path: str) -> _Checksum:
    """A function of offset and length that computes the checksum of a range of the file, and keeps it: many other
    files' are held against it. None for what can't be read.
    """

    @cache
    def checksum(offset: int, nbytes: int) -> int | None:
        try:
            with storage.checksums(path) as checksum_of:
                return checksum_of(ByteRange(path, offset, nbytes, None))
        except (CheckpointError, OSError):
            return None

    return checksum


def _blocks(damaged: Sequence[Finding]) -> Iterator[str]:
    """The damaged blocks of a V1 checkpoint, with all variables in each."""
    inside: dict[tuple[str, int], list[str]] = {}
    for finding in damaged:
        if finding.offset is not None:
            inside.setdefault((finding.path, finding.offset), []).append(finding.variable)
    for (path, offset), names in inside.items():
        what = f"{len(names):,} variables lie" if len(names) > 1 else f"{names[0]} lies"
        yield f"{what} in one damaged block, at byte {offset:,} of {path}"
