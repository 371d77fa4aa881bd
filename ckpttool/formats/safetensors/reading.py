"""Reading safetensors. A header is believed in nothing that the file does not bear out."""

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ckpttool import storage
from ckpttool.errors import CorruptionError, FormatError, NotSupportedError, located
from ckpttool.formats.plan import Note
from ckpttool.formats.raw import RawSource, Run
from ckpttool.formats.safetensors.words import DTYPES_BY_WORD, FALLBACKS, FORMAT, MAX_HEADER, METADATA, NOTES, escape
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Variable
from ckpttool.model.dtypes import DTYPES
from ckpttool.wire.coding import decode_fixed64


def read_safetensors(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a safetensors file: reads its header, and no values.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it is none.
        CorruptionError: what the header says can't be.
        NotSupportedError: it has a type that TensorFlow has none for.
    """
    path = os.fspath(path)
    return _checkpoint(path, [path], _read_file(path, RawSource()))


def read_safetensors_index(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens the files that a `model.safetensors.index.json` names, as one checkpoint.

    Raises:
        FormatError: it is no such index, or names a file that is not beside it.
        CorruptionError: a file does not have what it is said to have; as `read_safetensors`.
    """
    path = os.fspath(path)
    weight_map = _weight_map(path)
    source = RawSource()
    found: dict[str, tuple[str, Variable]] = {}
    files = [os.path.join(os.path.dirname(path), name) for name in sorted(set(weight_map.values()))]
    warnings = []
    for file in files:
        for tensor, variable in _read_file(file, source).items():
            if weight_map.get(tensor) == os.path.basename(file):
                found[tensor] = file, variable
            else:
                warnings.append(f"{tensor} is in {file}, and the index does not name it there: passed over")
    for tensor, name in weight_map.items():
        if tensor not in found:
            raise CorruptionError(f"the index says that it is in {name}, and it is not", path=path, variable=tensor)
    variables = {tensor: found[tensor][1] for tensor in weight_map}
    return _checkpoint(path, [path, *files], variables, warnings)


def _checkpoint(
    path: str, files: Sequence[str], variables: Mapping[str, Variable], warnings: Sequence[str] = ()
) -> Checkpoint:
    by_name = {variable.name: variable for variable in variables.values()}
    if len(by_name) != len(variables):
        raise CorruptionError("its notes give two tensors the same name", path=path)
    return Checkpoint(by_name, path=path, format=FORMAT, files=files, warnings=warnings)


def _weight_map(path: str) -> dict[str, str]:
    """Tensor → file, as the index says; the files are plain names."""
    if storage.file_size(path) > MAX_HEADER:
        raise FormatError("too large for an index", path=path)
    with located(path):
        found = _json(storage.read_file(path)).get("weight_map")
        if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
            raise FormatError('not an index of safetensors files: it has no "weight_map" of names')
        for name in found.values():
            if name in ("", ".", "..") or any(c in name for c in "/\\:\0"):
                raise FormatError(f"the index names {name!r}, which is no file beside it")
    return found


def _json(data: bytes) -> dict[str, Any]:
    """The object that JSON text is; a name that is there twice makes it none."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is there twice")
        return found

    try:
        found = json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON as it should be: {error}") from error
    if not isinstance(found, dict):
        raise FormatError("the JSON is no object")
    return found


def _read_file(path: str, source: RawSource) -> dict[str, Variable]:
    """The tensors of a file, by their names in it."""
    size = storage.file_size(path)
    with located(path):
        length = decode_fixed64(storage.read_range(path, 0, 8)) if size >= 8 else 0
        if not 2 <= length <= MAX_HEADER:
            raise FormatError(f"not a safetensors file: a header of {length:,} bytes")
        if 8 + length > size:
            raise CorruptionError(f"the header has {length:,} bytes, the file {size:,}: it is truncated")
        header = _json(storage.read_range(path, 8, length))
        metadata = header.pop(METADATA, None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise FormatError("__metadata__ is no object of texts")
        notes = _decoded_notes(metadata.get(NOTES, ""))
        entries = {name: _entry(name, entry) for name, entry in header.items()}
        _check_offsets(entries, size - 8 - length)
        data = 8 + length
        return {
            name: _variable(
                source, name, word, shape, ByteRange(path, data + start, end - start, None), notes.get(name)
            )
            for name, (word, shape, start, end) in entries.items()
        }


def _decoded_notes(text: str) -> dict[str, Note]:
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: Note.decode(json.dumps(note)) for name, note in found.items()}


_Entry = tuple[str, tuple[int, ...], int, int]


def _entry(name: str, entry: Any) -> _Entry:
    """The word of the type, the shape, and where the values start and end."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError("not the entry of a tensor: it has not dtype, shape and data_offsets", variable=name)
    word, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [shape, offsets]
    if not all(isinstance(of, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in of) for of in numbers):
        raise CorruptionError("shape and data_offsets are no lists of sizes", variable=name)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptionError(f"data_offsets {offsets} are no start and end", variable=name)
    if not isinstance(word, str) or word not in DTYPES_BY_WORD:
        raise NotSupportedError(f"TensorFlow has no dtype for {word!r}", variable=name)
    return word, tuple(shape), offsets[0], offsets[1]


def _check_offsets(entries: Mapping[str, _Entry], size: int) -> None:
    """Raises CorruptionError unless the tensors follow one another from the start to the end of the data."""
    position = 0
    for name, (word, shape, start, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        wanted = prod(shape) * (DTYPES_BY_WORD[word].itemsize or 1)
        if end - start != wanted:
            raise CorruptionError(
                f"{end - start:,} bytes for {word}{list(shape)}, which takes {wanted:,}", variable=name
            )
        if start != position:
            raise CorruptionError(f"its bytes start at {start:,}, those before end at {position:,}", variable=name)
        position = end
    if position != size:
        raise CorruptionError(f"the tensors take {position:,} bytes, the file has {size:,} for them")


def _variable(
    source: RawSource, tensor: str, word: str, shape: tuple[int, ...], data: ByteRange, note: Note | None
) -> Variable:
    """The variable that a tensor is, or was if a note says so and it can be true."""
    note = note or Note()
    dtype = DTYPES_BY_WORD[word]
    name = note.name if note.name and escape(note.name) == tensor else tensor
    fallback = FALLBACKS.get(note.dtype or "")
    if fallback and fallback[0] == word and note.shape is not None:
        was = DTYPES[note.dtype or ""]
        if was.itemsize is None or prod(note.shape) * was.itemsize == data.nbytes:
            return source.add(name, was, note.shape, Run(data, note))
    return source.add(name, dtype, shape, Run(data, note))
