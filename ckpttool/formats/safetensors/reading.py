"""Reading safetensors. Nothing in a header is believed that the file does not bear out."""

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import (
    CheckpointError,
    CorruptionError,
    FormatError,
    NotSupportedError,
    Report,
    located,
    reporter,
)
from ckpttool.formats.lookalikes import refuse_lookalike
from ckpttool.formats.notes import Note
from ckpttool.formats.raw import RawSource, Run
from ckpttool.formats.safetensors.words import (
    DTYPES_BY_WORD,
    FALLBACKS,
    FORMAT,
    MAX_HEADER,
    METADATA,
    NOTES,
    PACKED,
    UNKNOWN_BITS,
    escape,
)
from ckpttool.formats.siblings import sibling
from ckpttool.formats.weight_map import json_object, read_weight_map
from ckpttool.model.boxes import MAX_RANK
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.slices import ByteRange
from ckpttool.model.variable import Variable
from ckpttool.wire.coding import decode_fixed64


def read_safetensors(path: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens a safetensors file: reads its header, and no values.

    A tensor that TensorFlow has no dtype for is passed over with a warning.

    Args:
        path: the file.
        faults: a list for the errors of damaged tensors, which are passed over; None: they are raised.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is not a safetensors file.
        CorruptionError: what the header says can't be.
        NotSupportedError: it has a type that is not known here.
    """
    path = os.fspath(path)
    variables, warnings, metadata = _read_file(path, RawSource(), faults)
    return _checkpoint(path, [path], variables, warnings, metadata)


def read_safetensors_index(path: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens the files that a `model.safetensors.index.json` names, as one checkpoint.

    Args:
        path: the index.
        faults: a list for the errors of damaged files and tensors, which are passed over; None: they are raised.

    Raises:
        FormatError: it is not such an index, or names a file elsewhere.
        CorruptionError: a file is missing, or does not have what it is said to have; as `read_safetensors`.
    """
    path = os.fspath(path)
    weight_map = _weight_map(path)
    source, report = RawSource(), reporter(path, faults)
    found: dict[str, Variable] = {}
    there: set[str] = set()
    warnings: list[str] = []
    said: dict[str, str] = {}
    names = sorted(set(weight_map.values()))
    files = []
    for name in names:
        try:
            file = sibling(path, name)
            variables, remarks, metadata = _read_file(file, source, faults)
            files.append(file)
            said |= metadata
        except CheckpointError as error:
            report(error)
            continue
        own = {tensor for tensor in variables if weight_map.get(tensor) == name}
        found |= {tensor: variable for tensor, variable in variables.items() if tensor in own and variable}
        there |= own
        stray = [tensor for tensor in variables if tensor not in own]
        warnings += [*remarks, *(f"{t} is in {file}, and the index does not name it there: passed over" for t in stray)]
    for tensor, name in weight_map.items():
        if tensor not in there:
            what = f"the index says that it is in {name}, and it is not"
            report(CorruptionError(what, path=path, variable=tensor))
    in_order = {tensor: found[tensor] for tensor in weight_map if tensor in found}
    return _checkpoint(path, [path, *files], in_order, warnings, said)


def _checkpoint(
    path: str,
    files: Sequence[str],
    variables: Mapping[str, Variable | None],
    warnings: Sequence[str],
    metadata: Mapping[str, str],
) -> Checkpoint:
    by_name = {variable.name: variable for variable in variables.values() if variable}
    return Checkpoint(by_name, path=path, format=FORMAT, files=files, warnings=warnings, metadata=metadata)


def _weight_map(path: str) -> dict[str, str]:
    """Tensor → file, as the index says."""
    found = read_weight_map(path)
    if any(len(names) != 1 for names in found.values()):
        raise FormatError("not an index of safetensors files: a tensor is in one file", path=path)
    return {tensor: names[0] for tensor, names in found.items()}


def _read_file(
    path: str, source: RawSource, faults: list[CheckpointError] | None
) -> tuple[dict[str, Variable | None], list[str], dict[str, str]]:
    """The tensors of a file by their names in it, None for those that are passed over; warnings about these; and the
    metadata without our notes.
    """
    size, report = storage.file_size(path), reporter(path, faults)
    with located(path):
        length = decode_fixed64(storage.read_range(path, 0, 8)) if size >= 8 else 0
        if not 2 <= length <= MAX_HEADER:
            refuse_lookalike(path)  # Often a pointer: the index is small, and a clone without Git LFS has it itself.
            raise FormatError(f"not a safetensors file: a header of {length:,} bytes")
        data = 8 + length
        if data > size:
            raise CorruptionError(f"the header has {length:,} bytes, the file {size:,}: it is truncated")
        header = json_object(storage.read_range(path, 8, length))
        metadata = _metadata(header.pop(METADATA, None))
        notes = _notes(metadata.pop(NOTES, "{}"))
        entries = _entries(header, report)
        _check_offsets(entries, size - data, report)
    variables: dict[str, Variable | None] = {}
    for name, entry in entries.items():
        span = ByteRange(path, data + entry.start, entry.end - entry.start, None)
        variables[name] = _variable(source, name, entry, span, Note.of(notes.get(name)))
    warnings = [
        f"{name} in {path} is passed over: {_why_unread(entries[name].word)}"
        for name, variable in variables.items()
        if not variable
    ]
    return variables, warnings, metadata


def _why_unread(word: str) -> str:
    return f"{word}, two values in a byte, is not read" if word in PACKED else f"TensorFlow has no dtype for {word}"


def _metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise FormatError("__metadata__ is no object of texts")
    try:
        "".join([*found, *found.values()]).encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair.
        raise FormatError(f"__metadata__ has what is no text: {error}") from error
    return found


def _notes(text: str) -> dict[str, Any]:
    """The notes in the metadata, not yet checked."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Entry(NamedTuple):
    """The entry of a tensor in the header: the word for its type, its shape, and where its values start and end."""

    word: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def bits(self) -> int:
        return prod(self.shape) * (UNKNOWN_BITS.get(self.word) or 8 * (DTYPES_BY_WORD[self.word].itemsize or 1))


def _entries(header: Mapping[str, Any], report: Report) -> dict[str, _Entry]:
    """The entries of the header, by tensor, without the impossible ones, which are reported."""
    entries = {}
    for name, entry in header.items():
        try:
            entries[name] = _entry(name, entry)
        except CheckpointError as error:
            report(error)
    return entries


def _entry(name: str, entry: Any) -> _Entry:
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise FormatError("not the entry of a tensor: it has not dtype, shape and data_offsets", variable=name)
    word, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [shape, offsets]
    if not all(isinstance(of, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in of) for of in numbers):
        raise CorruptionError("shape and data_offsets are no lists of sizes", variable=name)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptionError("data_offsets are no start and end", variable=name)
    if not isinstance(word, str) or not (word in DTYPES_BY_WORD or word in UNKNOWN_BITS):
        raise NotSupportedError(f"TensorFlow has no dtype for {str(word)[:20]!r}", variable=name)
    if len(shape) > MAX_RANK:
        raise NotSupportedError(f"TensorFlow has no shapes of rank {len(shape):,}", variable=name)
    found = _Entry(word, tuple(shape), *offsets)
    if 8 * (found.end - found.start) != found.bits:
        # The bytes that it would take are not said: they may have more digits than Python prints.
        raise CorruptionError(f"{found.end - found.start:,} bytes are not those of {word}{shape}", variable=name)
    return found


def _check_offsets(entries: Mapping[str, _Entry], size: int, report: Report) -> None:
    """Reports a CorruptionError unless the tensors follow one another from the start to the end of the data."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            what = f"its bytes start at {entry.start:,}, those before end at {position:,}"
            report(CorruptionError(what, variable=name))
        position = entry.end
    if position != size:
        report(CorruptionError(f"the tensors take {position:,} bytes, the file has {size:,} for them"))


def _variable(source: RawSource, tensor: str, entry: _Entry, data: ByteRange, note: Note) -> Variable | None:
    """The variable of a tensor, as it was before if a note says so and that is possible; None if it can't be one."""
    if entry.word in UNKNOWN_BITS:
        return None
    name = note.name if note.name is not None and escape(note.name) == tensor else tensor
    was = _noted(entry, note)
    dtype, shape = was or (DTYPES_BY_WORD[entry.word], entry.shape)
    return source.add(name, dtype, shape, Run(data, note))


def _noted(entry: _Entry, note: Note) -> tuple[DType, tuple[int, ...]] | None:
    """The dtype and shape that a note says a tensor had; None if its entry shows that it had not."""
    word, shape = FALLBACKS.get(note.dtype or "", ("", ""))[0], note.shape
    if word != entry.word or shape is None:
        return None
    dtype = DTYPES[note.dtype or ""]
    if dtype.itemsize is None:  # Every string takes at least one byte.
        can_be = len(entry.shape) == 1 and prod(shape) <= entry.shape[0]
    else:
        can_be = entry.shape == ((*shape, 2) if dtype.name == "complex128" else shape)
    return (dtype, shape) if can_be else None
