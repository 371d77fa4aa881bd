r"""NumPy's `.npz`: a zip archive of `.npy` files (formats.npy), each named after its array.

The variable `a/b` is the member `a/b.npy`, and `numpy.load(path)["a/b"]` gives it. A name that a member can't have is
percent-encoded. What an array does not say of its variable is in the member's comment (formats.plan), which NumPy does
not look at; so an archive holds nothing but the variables.

Members are stored as they are, or deflated. The same variables give the same bytes: no dates, no owners.

(numpy/lib/_npyio_impl.py; PKWARE APPNOTE.TXT)
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import ConversionError, CorruptionError, NotSupportedError, located
from ckpttool.formats.npy import Array, Header, arrays_of, decode_header, dtype_of, noted_shape, planned_array
from ckpttool.formats.plan import Note, Planned
from ckpttool.formats.raw import noted_slices, slice_of_strings
from ckpttool.formats.records import decode_strings, decode_variants
from ckpttool.model.boxes import Selection, shape_of
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Variable
from ckpttool.model.dtypes import DType

if TYPE_CHECKING:
    import numpy as np

FORMAT = "NumPy archive (.npz)"
_SUFFIX = ".npy"
_HEAD = 10_016
_MAX_COMMENT = 65_535
# Deflate makes no more than this of a byte.
_MAX_RATIO = 1032
_DATE = (1980, 1, 1, 0, 0, 0)
_SLICED = 64 << 20


def plan_npz(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_npz` would make of each variable: the array's name. Reads no values."""
    return [planned_array(variable, _escape(variable.name)) for variable in checkpoint.values()]


def _escape(name: str) -> str:
    """The name, with what no member's can have percent-encoded: NUL, bytes that are not UTF-8, a slash in front."""
    name = name.replace("\0", "%00")
    if name.startswith("/") or not name:
        name = f"%{name}"
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in name)


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
        path: the file to be, written beside and renamed.
        compressed: deflate the arrays, which is many times slower.
        strict: raise if there is a variable that NumPy has no type for, instead of storing it as another one.
        force: replace a file that is there.
        progress: is told the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        ConversionError: `strict`, and a variable can't be held as it is; or two would have the same name.
        CorruptionError: values are missing or damaged; no file is written.
    """
    arrays, remarkable = arrays_of(plan_npz(checkpoint), checkpoint, strict=strict)
    _require_distinct(arrays)
    with storage.write_beside(os.fspath(path), force=force, inputs=checkpoint.files) as beside:
        if not compressed:
            storage.require_space(beside, sum(array.content.nbytes for array in arrays))
        method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
        with zipfile.ZipFile(beside, "w", method) as archive:
            for array in arrays:
                _write_member(archive, array, method)
                progress(array.content.nbytes)
    return remarkable


def _require_distinct(arrays: Sequence[Array]) -> None:
    taken: dict[str, str] = {}
    for array in arrays:
        name = array.planned.variable.name
        if array.planned.target in taken:
            raise ConversionError(f"{taken[array.planned.target]!r} would have the same name", variable=name)
        taken[array.planned.target] = name


def _write_member(archive: zipfile.ZipFile, array: Array, method: int) -> None:
    member = zipfile.ZipInfo(f"{array.planned.target}{_SUFFIX}", _DATE)
    member.compress_type, member.create_system, member.external_attr = method, 3, 0o600 << 16
    variable, note = array.planned.variable, array.note
    if array.planned.target != variable.name:
        note = note._replace(name=variable.name)
    comment = note.encode().encode()
    if len(comment) > _MAX_COMMENT:  # Thousands of slices: the variable is whole without them.
        comment = note._replace(slices=()).encode().encode()
    member.comment = comment if len(comment) <= _MAX_COMMENT else b""
    # NumPy, too, makes every member ready for more than 4 GiB.
    with archive.open(member, "w", force_zip64=True) as stream:
        stream.write(array.header)
        for chunk in array.content.chunks():
            stream.write(chunk)


def read_npz(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a NumPy archive: reads the headers of its arrays, and no values.

    An array that TensorFlow has no dtype for is passed over with a warning.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is no zip archive, or one of something else.
        CorruptionError: what it says of its members can't be.
    """
    path = os.fspath(path)
    size = storage.file_size(path)
    source, variables, warnings = ArraySource(), {}, []
    with located(path), _opened(path) as archive:
        members = archive.infolist()
        if sum(member.compress_size for member in members) > size:
            raise CorruptionError("the archive's members are together larger than the file: they overlap")
        for member in members:
            try:
                variable = _variable(source, archive, member, path)
            except NotSupportedError as error:
                warnings.append(f"{member.filename} is passed over: {error.what}")
                continue
            if variable.name in variables:
                raise CorruptionError("the archive has it twice", variable=variable.name)
            variables[variable.name] = variable
    return Checkpoint(variables, path=path, format=FORMAT, files=[path], warnings=warnings)


@contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    """The archive; what goes wrong in reading it is a CheckpointError."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OverflowError) as error:
        raise CorruptionError(f"not a sound zip archive: {error}", path=path) from error
    except RuntimeError as error:  # How zipfile says that a member is encrypted.
        raise NotSupportedError(str(error), path=path) from error


def _variable(source: "ArraySource", archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> Variable:
    if not member.filename.endswith(_SUFFIX) or member.flag_bits & 1:
        raise NotSupportedError("encrypted" if member.flag_bits & 1 else "no .npy file")
    array = member.filename.removesuffix(_SUFFIX)
    if member.file_size > _MAX_RATIO * (member.compress_size + 1):
        raise CorruptionError(
            f"{member.compress_size:,} bytes can't hold {member.file_size:,}", path=path, variable=array
        )
    note = Note.decode(member.comment.decode(errors="replace"))
    name = note.name if note.name is not None and _escape(note.name) == array else array
    with located(path, name):
        with archive.open(member) as stream:
            header = decode_header(stream.read(_HEAD))
        nbytes = member.file_size - header.nbytes
        if nbytes != prod(header.shape) * header.dtype.itemsize:
            raise CorruptionError(f"{nbytes:,} bytes for {header.dtype}{list(header.shape)}")
        return source.add(name, dtype_of(header.dtype, note), Stored(path, member.filename, header, note))


class Stored(NamedTuple):
    """Where an array is: a file and a member of it (None: the file is the array), and what its header says."""

    path: str
    member: str | None
    header: Header
    note: Note


class ArraySource:
    """The source of arrays that are read from their start to their end."""

    def __init__(self) -> None:
        self._stored: dict[bytes, Stored] = {}
        # The one that was read whole last: its slices are asked for one after another.
        self._last: tuple[bytes, Any] = (b"", None)

    def add(self, name: str, dtype: DType, stored: Stored) -> Variable:
        header, note = stored.header, stored.note
        nbytes = prod(header.shape) * header.dtype.itemsize
        is_noted = note.shape is not None and note.dtype == dtype.name and noted_shape(note.shape, dtype, nbytes)
        key = b"%d" % len(self._stored)
        self._stored[key] = stored
        return Variable(name, dtype, note.shape if is_noted and note.shape is not None else header.shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        stored = self._stored[variable.key]
        nbytes = prod(stored.header.shape) * stored.header.dtype.itemsize
        note, data = stored.note, ByteRange(stored.path, 0, nbytes, None)
        whole = Slice((0,) * len(variable.shape), variable.shape, note.shard, data, note.position or 0)
        # Slices are taken out of the whole, which is in memory then; a large one is left in one piece.
        return (noted_slices(variable, note, whole) if nbytes <= _SLICED else []) or [whole]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        """None: an archive has checksums of its own, which are tested when a member is read to its end."""
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        if variable.dtype.itemsize is None:
            raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
        stored = self._stored[variable.key]
        in_order = piece.shape == variable.shape and not stored.header.fortran_order
        return self._in_order(variable, stored, boxes) if in_order else self._boxes(variable, stored, boxes)

    def _in_order(
        self, variable: Variable, stored: Stored, boxes: Iterable[Selection]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        with self._values(stored) as stream:
            for box in boxes:
                yield self._decoded(variable, stored, _read(stream, stored, prod(shape_of(box)))).reshape(shape_of(box))
            stream.read(1)  # To the checksum.

    def _boxes(
        self, variable: Variable, stored: Stored, boxes: Iterable[Selection]
    ) -> "Iterator[np.ndarray[Any, Any]]":
        """By columns, or in slices: all of it is read first."""
        if self._last[0] != variable.key:
            self._last = variable.key, self._whole(variable, stored)
        array = self._last[1]
        for box in boxes:
            yield array[box].copy(order="C")

    def _whole(self, variable: Variable, stored: Stored) -> "np.ndarray[Any, Any]":
        with self._values(stored) as stream:
            values = self._decoded(variable, stored, _read(stream, stored, variable.size))
            stream.read(1)
        order: Any = "F" if stored.header.fortran_order else "C"
        return values.reshape(variable.shape, order=order)

    def _decoded(self, variable: Variable, stored: Stored, data: bytes) -> "np.ndarray[Any, Any]":
        import numpy as np

        array = np.frombuffer(data, stored.header.dtype)
        return array.astype(array.dtype.newbyteorder("="), copy=False).view(variable.dtype.numpy)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        import numpy as np

        stored = self._stored[variable.key]
        header = stored.header
        with located(stored.path, variable.name), self._values(stored) as stream:
            data = _read(stream, stored, prod(header.shape))
            stream.read(1)
            if header.dtype.kind not in "SU":
                decode = {"string": decode_strings, "variant": decode_variants}[variable.dtype.name]
                return slice_of_strings(decode(data, prod(variable.shape), None, False), variable, piece)
        order: Any = "F" if header.fortran_order else "C"
        values = np.frombuffer(data, header.dtype).reshape(header.shape, order=order).ravel()
        found = values.tolist()
        encoded = [v.encode(errors="surrogatepass") for v in found] if header.dtype.kind == "U" else found
        return slice_of_strings(encoded, variable, piece)

    @contextmanager
    def _values(self, stored: Stored) -> Iterator[IO[bytes]]:
        """The file or the member, after its header."""
        with located(stored.path):
            if stored.member is None:
                with open(stored.path, "rb") as stream:
                    stream.seek(stored.header.nbytes)
                    yield stream
            else:
                with _opened(stored.path) as archive, archive.open(stored.member) as member:
                    member.read(stored.header.nbytes)
                    yield member


def _read(stream: IO[bytes], stored: Stored, count: int) -> bytes:
    """So many elements; a member's size is known to be that of its array."""
    wanted = count * stored.header.dtype.itemsize
    data = stream.read(wanted) if wanted else b""
    if len(data) != wanted:
        raise CorruptionError(f"the array ends after {len(data):,} of {wanted:,} bytes")
    return data
