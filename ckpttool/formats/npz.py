r"""NumPy's `.npz`: a zip archive of `.npy` files (formats.npy), each named after its array.

The variable `a/b` is the member `a/b.npy`, and `numpy.load(path)["a/b"]` gives it. A name that a member can't have is
percent-encoded. What an array does not say of its variable is in the member's comment (formats.notes), which NumPy does
not look at; so an archive holds nothing but the variables.

Members are stored as they are, or deflated. The same variables give the same bytes: no dates, no owners.

(numpy/lib/_npyio_impl.py; PKWARE APPNOTE.TXT)
"""

import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedIOBase
from math import prod
from pathlib import Path

from ckpttool import storage
from ckpttool.errors import (
    CheckpointError,
    CorruptionError,
    NotSupportedError,
    Report,
    located,
    reporter,
)
from ckpttool.formats.notes import Note
from ckpttool.formats.npy.arrays import Array, arrays_of, planned_array
from ckpttool.formats.npy.header import HEAD, decode_header
from ckpttool.formats.npy.source import ArraySource, Stored
from ckpttool.formats.plan import Planned, distinct
from ckpttool.formats.zip_members import NPZ, checked, is_encrypted, require_inside, start_of
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.texts import percent_encoded
from ckpttool.model.variable import Variable

_SUFFIX = ".npy"
# The most bytes of a member's name, and of its comment.
_MAX_TEXT = 65_535
# The most bytes that deflate makes of one.
_MAX_RATIO = 1032
# Bytes in memory: of any string, however short; and of strings that need not be refused.
_OF_TEXT, _MOST_TEXTS = 64, 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DATE = (1980, 1, 1, 0, 0, 0)
# The end of an archive: the longer record and its locator, the record, and a comment.
_TAIL = 56 + 20 + 22 + _MAX_TEXT


def plan_npz(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_npz` would make of each variable: the array's name. Reads no values but strings."""
    require_checkpoint(checkpoint)
    return distinct([_planned(variable) for variable in checkpoint.values()])


def _planned(variable: Variable) -> Planned:
    target = _escape(variable.name)
    size = len(f"{target}{_SUFFIX}".encode())
    if size > _MAX_TEXT:
        return Planned(variable, target, f"no archive can hold a name of {size:,} bytes")
    return planned_array(variable, target)


def _escape(name: str) -> str:
    """The name of the array, percent-encoded where a member can't have it: NUL, bytes that are not UTF-8, a slash in
    front. So is the suffix: NumPy takes "a.npy" for "a", if that is there too.
    """
    name = name.replace("\0", "%00")
    if name.startswith("/") or not name:
        name = f"%{name}"
    if name.endswith(_SUFFIX):
        name = f"{name.removesuffix(_SUFFIX)}%2Enpy"
    return percent_encoded(name)


def write_npz(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    compressed: bool = False,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a new NumPy archive.

        >>> ckpttool.write_npz(ckpttool.open_checkpoint("model.ckpt"), "model.npz")

    Args:
        checkpoint: what to write.
        path: the file to be written.
        compressed: deflate the arrays, which is many times slower.
        strict: raise if there is a variable that NumPy has no type for, instead of storing it as another one.
        force: replace a file that is there.
        progress: is called with the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        NotFoundError: there is no directory for it.
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        IsADirectoryError: `path` is a directory's, or ends with a slash.
        ConversionError: no variable can be held; or `strict`, and one can't as it is; or two would have the same name.
        CorruptionError: values are missing or damaged; no file is written.
    """
    arrays, remarkable = arrays_of(plan_npz(checkpoint), checkpoint, strict=strict)
    with storage.write_beside(os.fsdecode(path), force=force, inputs=checkpoint.files) as beside:
        nbytes = 0 if compressed else sum(array.content.nbytes for array in arrays)
        storage.require_space(beside, nbytes)
        method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        with _new_archive(beside, method) as archive:
            storage.reserve(beside, nbytes)
            for array, content, chunks in storage.read_in_order((array, array.content) for array in arrays):
                _write_member(archive, array, method, chunks)
                progress(content.nbytes)
    return remarkable


@contextmanager
def _new_archive(path: Path, method: int) -> Iterator[zipfile.ZipFile]:
    """An archive to be written. After an error it is not closed: zipfile would raise another error, for the open
    member.
    """
    archive = zipfile.ZipFile(path, "w", method)
    try:
        yield archive
    except BaseException:
        if archive.fp is not None:
            archive.fp.close()
        archive.fp = None
        raise
    archive.close()


def _write_member(archive: zipfile.ZipFile, array: Array, method: int, chunks: Iterable[memoryview]) -> None:
    member = zipfile.ZipInfo(f"{array.planned.target}{_SUFFIX}", _DATE)
    member.compress_type, member.create_system, member.external_attr = method, 3, 0o600 << 16
    variable, note = array.planned.variable, array.note
    if array.planned.target != variable.name:
        note = note._replace(name=variable.name)
    comment = note.encode().encode()
    if len(comment) > _MAX_TEXT:  # Thousands of slices. Without the note, the variable is whole.
        comment = note._replace(slices=()).encode().encode()
    member.comment = comment if len(comment) <= _MAX_TEXT else b""
    # As NumPy does: every member may have more than 4 GiB.
    with archive.open(member, "w", force_zip64=True) as stream:
        stream.write(array.header)
        for chunk in chunks:
            stream.write(chunk)


def read_npz(path: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens a NumPy archive: reads the headers of its arrays, and no values.

    Members that are no arrays, and arrays without a dtype of TensorFlow, are passed over with a warning.

    Args:
        path: the file.
        faults: a list for the errors of damaged members, which are passed over; None: they are raised.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is no zip archive, or what it says of its members can't be.
    """
    path = os.fspath(path)
    size, report = storage.file_size(path), reporter(path, faults)
    source, variables, warnings = ArraySource(), {}, []
    with located(path), checked(), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _require_all(members, storage.read_range(path, max(0, size - _TAIL), _TAIL), report)
        if sum(member.compress_size for member in members) > size:
            raise CorruptionError("the archive's members are together larger than the file: they overlap")
        for member in members:
            try:
                require_inside(member, size)
                variable = _variable(source, archive, member, path)
            except NotSupportedError as error:
                warnings.append(f"{member.filename} is passed over: {error.what}")
                continue
            except CheckpointError as error:
                report(error)
                continue
            if variable.name in variables:
                report(CorruptionError("the archive has it twice", variable=variable.name))
            variables[variable.name] = variable
    return Checkpoint(variables, path=path, format=NPZ, files=[path], warnings=warnings)


def _require_all(members: Sequence[zipfile.ZipInfo], tail: bytes, report: Report) -> None:
    """Reports a CorruptionError unless there are as many members as the archive's end says. (Python does not look.)"""
    end = tail.rfind(b"PK\5\6")
    (count,) = struct.unpack_from("<H", tail, end + 10)
    # For more members, a longer record comes before it, with a locator of 20 bytes in between.
    if count == 0xFFFF and tail[: end - 16].endswith(b"PK\6\7"):
        (count,) = struct.unpack_from("<Q", tail, end - 20 - 24)
    if count != len(members):
        report(CorruptionError(f"{len(members):,} members, and the archive says that it has {count:,}"))


def _variable(source: ArraySource, archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> Variable:
    if not member.filename.endswith(_SUFFIX):
        raise NotSupportedError("no .npy file")
    if is_encrypted(member) or member.compress_type not in _METHODS:
        raise NotSupportedError("encrypted" if is_encrypted(member) else "neither stored nor deflated")
    array = member.filename.removesuffix(_SUFFIX)
    if member.file_size > _MAX_RATIO * (member.compress_size + 1):
        raise CorruptionError(f"{member.compress_size:,} bytes can't hold {member.file_size:,}", variable=array)
    note = Note.decode(member.comment.decode(errors="replace"))
    name = note.name if note.name is not None and _escape(note.name) == array else array
    with located(path, name), checked(), archive.open(member) as stream:
        header = decode_header(stream.read(HEAD), member.file_size)
        # Text is not read block by block.
        nbytes = prod(header.shape) * _OF_TEXT if header.dtype.kind in "SU" else 0
        if nbytes > _MOST_TEXTS and nbytes > _MAX_RATIO * member.compress_size:
            raise NotSupportedError(f"{prod(header.shape):,} texts in {member.compress_size:,} bytes")
        return source.add(name, Stored(path, header, note, partial(_values, path, member, header.nbytes)))


@contextmanager
def _values(path: str, member: zipfile.ZipInfo, offset: int) -> Iterator[BufferedIOBase]:
    """The contents of a member. (ZipFile.open would read the archive's directory again for each.)"""
    with checked(), open(path, "rb") as file:
        file.seek(start_of(member, lambda offset, nbytes: os.pread(file.fileno(), nbytes, offset)))
        with zipfile.ZipExtFile(file, "r", member) as stream:
            stream.read(offset)
            yield stream
