"""A directory of arrays, with an index; and a single array."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from ckpttool import storage
from ckpttool.errors import (
    CheckpointError,
    ConversionError,
    CorruptionError,
    FormatError,
    NotFoundError,
    NotSupportedError,
    located,
    reporter,
)
from ckpttool.formats.notes import Note, name_in_json
from ckpttool.formats.npy.arrays import Array, arrays_of, meaning, planned_array
from ckpttool.formats.npy.header import HEAD, decode_header
from ckpttool.formats.npy.source import ArraySource, Stored
from ckpttool.formats.plan import Planned
from ckpttool.formats.raw import RawSource, Run
from ckpttool.formats.siblings import sibling
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.slices import ByteRange
from ckpttool.model.texts import to_bytes
from ckpttool.model.variable import Variable

FORMAT = "NumPy (.npy)"
_INDEX = "index.json"
_SUFFIX = ".npy"
_SCHEMA = "ckpttool.npy/1"
_MAX_INDEX = 1 << 28
_LONGEST = 150


def plan_npy(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_npy` would make of each variable: the file's name. Reads no values."""
    require_checkpoint(checkpoint)
    taken: set[str] = set()
    plan = []
    for variable in checkpoint.values():
        file = _file_name(variable.name, taken)
        taken.add(file.casefold())
        plan.append(planned_array(variable, file))
    return plan


def _file_name(name: str, taken: set[str]) -> str:
    """A name for a variable's file: every file system has room for it, and no other file has it, whatever the case."""
    data = to_bytes(name)
    safe = re.sub(rb"[^A-Za-z0-9_.-]", lambda match: b"%%%02X" % match[0][0], data).decode()
    safe = re.sub(r"^\.", "%2E", safe)
    # Windows keeps these names for devices, with any suffix.
    safe = re.sub(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", r"%\1", safe, flags=re.IGNORECASE)
    file = f"{safe}{_SUFFIX}"
    while not safe or len(safe) > _LONGEST or file.casefold() in taken:
        data = sha256(data).hexdigest().encode()
        safe = safe[:_LONGEST] or "%"
        file = f"{safe}-{data[:16].decode()}{_SUFFIX}"
    return file


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
        strict: raise if there is a variable that NumPy has no type for, instead of storing it as another type.
        force: replace a directory that was written so.
        progress: is called with the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        NotFoundError: there is no directory for it.
        FileExistsError: the directory is there, and `force` was not given; or it holds something else too.
        ConversionError: no variable can be held; or `strict`, and one can't as it is.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    arrays, remarkable = arrays_of(plan_npy(checkpoint), checkpoint, strict=strict)
    with storage.write_directory(directory, force=force, inputs=checkpoint.files, is_ours=_is_ours) as beside:
        storage.require_space(beside, sum(array.content.nbytes for array in arrays))
        for array in arrays:
            _write(beside / array.planned.target, array, progress)
        (beside / _INDEX).write_text(_index(arrays), encoding="utf-8")
    return remarkable


def _write(path: Path, array: Array, progress: Callable[[int], None] = lambda nbytes: None) -> None:
    path.write_bytes(array.header)
    storage.reserve(path, len(array.header) + array.content.nbytes)
    storage.write_contents(path, [(len(array.header), array.content)], progress)


def require_npy_writable(directory: str, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises what `write_npy` raises about its output."""
    storage.require_writable_directory(directory, force=force, inputs=inputs, is_ours=_is_ours)


def write_npy_file(
    variable: Variable, path: str | os.PathLike[str], *, force: bool = False, inputs: Sequence[str] = ()
) -> Planned:
    """Writes one variable into a `.npy` file, beside and renamed.

    Args:
        variable: what to write.
        path: the file to be.
        force: replace a file that is there.
        inputs: files that must not be the output.

    Returns:
        What became of it.

    Raises:
        FileExistsError: there is a file at `path` that may not be replaced.
        ConversionError: NumPy can't hold it.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    planned = planned_array(variable, variable.name)
    if planned.problem:
        raise ConversionError(planned.problem, variable=variable.name)
    checkpoint = Checkpoint({variable.name: variable}, path="", format="")
    [array], _ = arrays_of([planned], checkpoint, strict=False)
    beside_it = storage.write_beside(os.fspath(path), force=force, inputs=inputs)
    with located(variable=variable.name), beside_it as beside:
        _write(beside, array)
    return array.planned


def _index(arrays: Sequence[Array]) -> str:
    listed = []
    for array in arrays:
        variable = array.planned.variable
        entry = {"name": variable.name, "file": array.planned.target, "dtype": variable.dtype.name}
        told = array.note.told()
        listed.append({**entry, "shape": variable.shape, **({"note": told} if told else {})})
    return json.dumps({"schema": _SCHEMA, "variables": listed}, indent=1) + "\n"


def _is_ours(directory: Path) -> bool:
    """Whether a directory holds what `write_npy` has written, and nothing else."""
    try:
        files = {file for _, file, _ in _entries(str(directory))}
    except (CheckpointError, OSError):
        return False
    return {path.name for path in directory.iterdir()} <= {*files, _INDEX}


def read_npy(path: str | os.PathLike[str], *, faults: object = None) -> Checkpoint:
    """Opens a single `.npy` file: one variable, named as the file is.

    Args:
        path: the file.
        faults: gets nothing: a damaged file leaves nothing to go on with, so the error is raised.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is no `.npy` file.
        CorruptionError: it is damaged.
        NotSupportedError: TensorFlow has no dtype for its type.
    """
    path = os.fspath(path)
    name = os.path.basename(path).removesuffix(_SUFFIX)
    return Checkpoint({name: _Sources().add(name, path, Note())}, path=path, format=FORMAT, files=[path])


def read_npy_directory(directory: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens what `write_npy` has written; or any `.npy` files of a directory, each a variable named as the file is.

    Args:
        directory: where they are.
        faults: a list for the errors of damaged files, which are passed over; None: they are raised.

    Raises:
        NotFoundError: there is neither an index.json in the directory nor a `.npy` file.
        FormatError: the index.json is something else.
        CorruptionError: a file is missing or damaged.
        NotSupportedError: TensorFlow has no dtype for the type of an array that the index.json lists.
    """
    directory = os.fspath(directory)
    if not os.path.lexists(os.path.join(directory, _INDEX)):
        return _without_index(directory, faults)
    index, sources = os.path.join(directory, _INDEX), _Sources()
    variables, files, report = {}, [index], reporter(index, faults)
    for name, file, note in _entries(directory):
        try:
            with located(index, name):
                if name in variables:
                    raise CorruptionError("the index has it twice")
                path = sibling(index, file)
            variables[name] = sources.add(name, path, note)
            files.append(path)
        except CheckpointError as error:
            report(error)
    return Checkpoint(variables, path=directory, format=f"{FORMAT} directory", files=files)


def _without_index(directory: str, faults: list[CheckpointError] | None) -> Checkpoint:
    """Every `.npy` file as a variable; those of types that TensorFlow lacks are passed over with a warning."""
    names = sorted(name.removesuffix(_SUFFIX) for name in os.listdir(directory) if name.endswith(_SUFFIX))
    files = {name: os.path.join(directory, f"{name}{_SUFFIX}") for name in names}
    if not files:
        raise NotFoundError(f"no {_INDEX} and no {_SUFFIX} file", path=directory)
    sources, variables, warnings = _Sources(), {}, []
    for name, file in files.items():
        try:
            variables[name] = sources.add(name, file, Note())
        except NotSupportedError as error:
            warnings.append(f"{file} is passed over: {error.what}")
        except CheckpointError as error:
            reporter(file, faults)(error)
    kept = [file for name, file in files.items() if name in variables]
    return Checkpoint(variables, path=directory, format=f"{FORMAT} directory", files=kept, warnings=warnings)


def _entries(directory: str) -> Iterator[tuple[str, str, Note]]:
    """What index.json lists: name, file, note."""
    path = os.path.join(directory, _INDEX)
    with located(path):
        if (size := storage.file_size(path)) > _MAX_INDEX:
            raise FormatError(f"no index: {size:,} bytes, and one has at most {_MAX_INDEX:,}")
        try:
            index = json.loads(storage.read_file(path))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"no JSON: {error}") from error
        if not isinstance(index, dict) or index.get("schema") != _SCHEMA:
            raise FormatError(f'not the index of a directory of arrays: its "schema" is not {_SCHEMA}')
        if not isinstance(index.get("variables"), list):
            raise FormatError('an index without a list of "variables"')
        for entry in index["variables"]:
            yield _entry(entry)


def _entry(entry: Any) -> tuple[str, str, Note]:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "file")):
        raise FormatError("an entry without name and file")
    try:
        name = name_in_json(entry["name"])
    except ValueError as error:
        raise FormatError(f"no name of a variable: {entry['name']!r}") from error
    return name, entry["file"], Note.of(entry.get("note"))


class _Sources:
    """The sources of arrays: one for those whose bytes are the values, and one for all others."""

    def __init__(self) -> None:
        self._raw, self._streams = RawSource(), ArraySource()

    def add(self, name: str, path: str, note: Note) -> Variable:
        """Adds a file, and returns the variable that it is."""
        with located(path, name):
            size = storage.file_size(path)
            header = decode_header(storage.read_range(path, 0, HEAD), size)
            dtype, shape = meaning(header, note)
            by_columns = header.fortran_order and len(header.shape) > 1
            if by_columns or header.dtype.byteorder == ">" or header.dtype.kind in "SU":
                return self._streams.add(name, Stored(path, header, note, partial(_values, path, header.nbytes)))
            return self._raw.add(name, dtype, shape, Run(ByteRange(path, header.nbytes, header.size, None), note))


@contextmanager
def _values(path: str, offset: int) -> Iterator[BufferedIOBase]:
    with open(path, "rb") as stream:
        stream.seek(offset)
        yield stream
