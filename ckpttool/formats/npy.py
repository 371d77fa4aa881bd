r"""NumPy's `.npy`: a header that says dtype and shape, and the values as they are in memory.

    93 4e 55 4d 50 59 | 01 00 | 76 00 | {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }      \n | values

Every variable becomes an array of its own bytes. What NumPy has no type for is one of integers with the same bits:
bfloat16 is uint16, 8-bit floats and numbers of four and two bits are uint8, quantized numbers the integers they are.
Strings are of fixed width (`S`), for that is how NumPy has bytes; but where it would lose a trailing NUL, or where most
of it would be padding, they are uint8, as a bundle stores them. Variants always are.

A directory of such files needs names that every file system keeps apart, so it has an `index.json`:

    {"schema": "ckpttool.npy/1",
     "variables": [{"name": "a/b", "file": "a%2Fb.npy", "dtype": "float32", "shape": [2, 3]}]}

and a variable may have a `note` there of what it was (formats.plan).  (numpy/lib/format.py)
"""

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError, located
from ckpttool.formats.plan import Note, Planned, check_plan, notes_of
from ckpttool.formats.raw import RawSource, Run
from ckpttool.formats.values import content_of
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Variable
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.storage import Content

if TYPE_CHECKING:
    import numpy as np

FORMAT = "NumPy (.npy)"
INDEX = "index.json"
_SCHEMA = "ckpttool.npy/1"
_MAX_RANK = 64
# Of what NumPy reads in a header from a file that is not trusted.
_MAX_HEADER = 10_000
_MAX_INDEX = 1 << 28

_PLAIN = {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
_PLAIN |= {"float16", "float32", "float64", "complex64", "complex128"}
_BYTES = "uint8, as a TensorFlow checkpoint stores it"
# For what NumPy has no type for: that of the same bits, and how it is said.
_FALLBACKS = {
    "bfloat16": ("uint16", "uint16, its bits"),
    **{name: ("uint8", "uint8, its bits") for name in DTYPES if name.startswith(("float8", "float4"))},
    **dict.fromkeys(("int4", "uint4", "int2", "uint2"), ("uint8", "uint8, its bits in the low ones")),
    **{name: (stored, stored) for name, stored in (("qint8", "int8"), ("quint8", "uint8"), ("qint32", "int32"))},
    **{name: (stored, stored) for name, stored in (("qint16", "int16"), ("quint16", "uint16"))},
    **dict.fromkeys(("string", "variant"), ("uint8", _BYTES)),
}
# Strings of fixed width may take so many times their own bytes, or this many in all.
_PADDING, _PADDED = 2, 16 << 20


class Array(NamedTuple):
    """What a variable becomes: NumPy's dtype and shape, the values, and what these do not say."""

    planned: Planned
    descr: str
    shape: tuple[int, ...]
    content: Content
    note: Note

    @property
    def header(self) -> bytes:
        return encode_header(self.descr, self.shape)


def plan_npy(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_npy` would make of each variable: the file's name. Reads no values."""
    taken: set[str] = set()
    plan = []
    for variable in checkpoint.values():
        file = _file_name(variable.name, taken)
        taken.add(file.casefold())
        plan.append(planned_array(variable, file))
    return plan


def planned_array(variable: Variable, target: str) -> Planned:
    """What becomes of a variable; that strings may have to be stored as uint8 is seen when they are read."""
    name = variable.dtype.name
    if name not in _PLAIN and name not in _FALLBACKS:
        return Planned(variable, target, f"NumPy can't hold values of dtype {name}")
    if len(variable.shape) > _MAX_RANK:
        return Planned(variable, target, f"NumPy has no arrays of rank {len(variable.shape)}")
    return Planned(variable, target, None, None if name == "string" else _FALLBACKS.get(name, ("", None))[1])


def arrays_of(plan: Sequence[Planned], checkpoint: Checkpoint, *, strict: bool) -> tuple[list[Array], list[Planned]]:
    """The arrays to be written, and the members of the plan that have a remark.

    Raises:
        ConversionError: `strict`, and there is one.
        CorruptionError: strings are damaged.
    """
    if sys.byteorder == "big":
        raise NotSupportedError("writing NumPy's files on a big-endian machine")
    check_plan(plan, strict=strict)
    notes = notes_of(checkpoint)
    arrays = [_array(planned, notes[planned.variable.name]) for planned in plan if not planned.problem]
    left_out = [planned for planned in plan if planned.problem]
    return arrays, check_plan([*left_out, *(array.planned for array in arrays)], strict=strict)


def _array(planned: Planned, note: Note) -> Array:
    import numpy as np

    variable, name = planned.variable, planned.variable.dtype.name
    if name == "string":
        values = variable.strings()
        width = max(map(len, values), default=0)
        if not _loses(values, width):
            data = b"".join(value.ljust(width, b"\0") for value in values)
            return Array(planned, f"|S{width}", variable.shape, Content.of_bytes(data), note)
        planned = planned._replace(fallback=_BYTES)
    content, shape = content_of(variable), variable.shape
    if variable.dtype.itemsize is None:
        shape = (content.nbytes,)
    if name in _FALLBACKS:
        note = note._replace(dtype=name, shape=variable.shape if shape != variable.shape else None)
    return Array(planned, np.dtype(_FALLBACKS.get(name, (name, ""))[0]).str, shape, content, note)


def _loses(values: Sequence[bytes], width: int) -> bool:
    """Whether strings of fixed width would lose something, or be padding for the most part."""
    if not width or width * len(values) > max(_PADDED, _PADDING * sum(map(len, values))):  # NumPy makes S1 of S0.
        return True
    return any(value.endswith(b"\0") for value in values)


def encode_header(descr: str, shape: Sequence[int]) -> bytes:
    """The header, as NumPy writes it."""
    from numpy.lib import format as npy

    stream = io.BytesIO()
    described = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    try:
        npy.write_array_header_1_0(stream, described)
    except ValueError:  # Longer than its length can say.
        npy.write_array_header_2_0(stream, described)
    return stream.getvalue()


class Header(NamedTuple):
    """A header, and how many bytes it takes."""

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran_order: bool
    nbytes: int


def decode_header(data: bytes) -> Header:
    """The header at the start of these bytes, of which 10 KB are enough.

    Raises:
        FormatError: there is none.
        NotSupportedError: of a version or dtype that is not known.
    """
    from numpy.lib import format as npy

    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise NotSupportedError(f"version {version[0]}.{version[1]} of .npy")
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER)
    except CheckpointError:
        raise
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, KeyError, OverflowError) as error:
        raise FormatError(f"no header of a NumPy array: {error}") from error
    if any(type(size) is not int or not 0 <= size < 1 << 63 for size in shape) or len(shape) > _MAX_RANK:
        raise CorruptionError(f"no array can have the shape {shape}")
    return Header(dtype, shape, fortran_order, stream.tell())


def dtype_of(found: "np.dtype[Any]", note: Note) -> DType:
    """The variable's DType, given that of the array and what is noted of it.

    Raises:
        NotSupportedError: TensorFlow has none for it.
    """
    noted = _FALLBACKS.get(note.dtype or "")
    if noted and noted[0] == found.name:
        return DTYPES[note.dtype or ""]
    if found.hasobject:
        raise NotSupportedError("an array of pickled objects: unpickling them would run code")
    if found.kind in "SU":
        return DTYPES["string"]
    if found.name not in _PLAIN or found.subdtype is not None:
        raise NotSupportedError(f"TensorFlow has no dtype for NumPy's {found}")
    return DTYPES[found.name]


def _file_name(name: str, taken: set[str]) -> str:
    """A name for the variable's file that every file system has room for, and that no other one has in any case."""
    data = name.encode(errors="surrogateescape")
    safe = re.sub(rb"[^A-Za-z0-9_.-]", lambda match: b"%%%02X" % match[0][0], data).decode()
    safe = re.sub(r"^\.", "%2E", safe)
    # Windows keeps these names for devices, with any suffix.
    safe = re.sub(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", r"%\1", safe, flags=re.IGNORECASE)
    if not safe or len(safe) > _LONGEST or f"{safe}.npy".casefold() in taken:
        safe = f"{safe[:_LONGEST]}-{sha256(data).hexdigest()[:16]}"
    return f"{safe}.npy"


_LONGEST = 150


def write_npy(
    checkpoint: Checkpoint,
    directory: str | os.PathLike[str],
    *,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a `.npy` file of its own, in a new directory with an index.json.

        >>> ckpttool.write_npy(ckpttool.open_checkpoint("model.ckpt"), "arrays")

    Args:
        checkpoint: what to write.
        directory: the directory to be, written beside and renamed.
        strict: raise if there is a variable that NumPy has no type for, instead of storing it as another one.
        force: replace a directory that was written so.
        progress: is told the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        FileExistsError: the directory is there, and `force` was not given; or it holds something else too.
        ConversionError: `strict`, and a variable can't be held as it is.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    arrays, remarkable = arrays_of(plan_npy(checkpoint), checkpoint, strict=strict)
    with storage.write_directory(directory, force=force, inputs=checkpoint.files, is_ours=_is_ours) as beside:
        storage.require_space(beside, sum(array.content.nbytes for array in arrays))
        for array in arrays:
            header = array.header
            path = beside / array.planned.target
            path.write_bytes(header)
            storage.write_contents(path, [(len(header), array.content)], progress)
        (beside / INDEX).write_text(_index(arrays), encoding="utf-8")
    return remarkable


def _index(arrays: Sequence[Array]) -> str:
    listed = []
    for array in arrays:
        variable = array.planned.variable
        entry = {"name": variable.name, "file": array.planned.target, "dtype": variable.dtype.name}
        note = {"note": json.loads(array.note.encode())} if array.note.encode() else {}
        listed.append({**entry, "shape": list(variable.shape), **note})
    return json.dumps({"schema": _SCHEMA, "variables": listed}, indent=1) + "\n"


def _is_ours(directory: Path) -> bool:
    """Whether a directory holds what `write_npy` has written, and nothing else."""
    try:
        files = {file for _, file, _ in _entries(str(directory))}
    except (CheckpointError, OSError):
        return False
    return {path.name for path in directory.iterdir()} <= {*files, INDEX}


def read_npy(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a single `.npy` file: one variable, named as the file is.

    Raises:
        FormatError, CorruptionError, NotSupportedError: it is none, or damaged, or of a type that TensorFlow lacks.
    """
    path = os.fspath(path)
    name = os.path.basename(path).removesuffix(".npy")
    variable = _variable(RawSource(), name, path, Note())
    return Checkpoint({name: variable}, path=path, format=FORMAT, files=[path])


def read_npy_directory(directory: str | os.PathLike[str]) -> Checkpoint:
    """Opens what `write_npy` has written.

    Raises:
        FormatError: the directory has no such index.json.
        CorruptionError: a file is missing or damaged.
    """
    directory = os.fspath(directory)
    source, variables, files = RawSource(), {}, [os.path.join(directory, INDEX)]
    for name, file, note in _entries(directory):
        path = os.path.join(directory, file)
        variables[name] = _variable(source, name, path, note)
        files.append(path)
    return Checkpoint(variables, path=directory, format=f"{FORMAT} directory", files=files)


def _entries(directory: str) -> Iterator[tuple[str, str, Note]]:
    """What index.json lists: name, file, note."""
    path = os.path.join(directory, INDEX)
    with located(path):
        if storage.file_size(path) > _MAX_INDEX:
            raise FormatError("too large for an index")
        try:
            index = json.loads(storage.read_file(path))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"no JSON: {error}") from error
        if not isinstance(index, dict) or index.get("schema") != _SCHEMA or not isinstance(index["variables"], list):
            raise FormatError(f'not the index of a directory of arrays: its "schema" is not {_SCHEMA}')
        for entry in index["variables"]:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "file")):
                raise FormatError("an entry without name and file")
            if entry["file"] in ("", ".", "..") or re.search(r"[/\\:\0]", entry["file"]):
                raise FormatError(f"the index names {entry['file']!r}, which is no file beside it")
            yield entry["name"], entry["file"], Note.decode(json.dumps(entry.get("note", {})))


def _variable(source: RawSource, name: str, path: str, note: Note) -> Variable:
    with located(path, name):
        header = decode_header(storage.read_range(path, 0, _MAX_HEADER + 16))
        size = storage.file_size(path) - header.nbytes
        dtype = dtype_of(header.dtype, note)
        swapped = header.dtype.byteorder == ">"
        if size != prod(header.shape) * header.dtype.itemsize:
            raise CorruptionError(f"{size:,} bytes for {header.dtype}{list(header.shape)}")
        if (header.fortran_order and len(header.shape) > 1) or swapped or header.dtype.kind in "SU":
            from ckpttool.formats.npz import ArraySource, Stored

            return ArraySource().add(name, dtype, Stored(path, None, header, note))
        shape = note.shape if note.shape is not None and noted_shape(note.shape, dtype, size) else header.shape
        return source.add(name, dtype, shape, Run(ByteRange(path, header.nbytes, size, None), note))


def noted_shape(shape: Sequence[int], dtype: DType, nbytes: int) -> bool:
    """Whether a noted shape can be that of values of so many bytes."""
    return dtype.itemsize is None or prod(shape) * dtype.itemsize == nbytes
