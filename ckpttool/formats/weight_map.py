"""The index of weights in several files, as Hugging Face and Keras 3 write it:

    {"metadata": {"total_size": 31}, "weight_map": {"a": "model-00001-of-00002.safetensors", …}}

Keras names groups of weights, and has a list of files for a group that goes over several.
"""

import json
from collections.abc import Mapping
from typing import Any

from ckpttool import storage
from ckpttool.errors import FormatError, located
from ckpttool.formats.lookalikes import refuse_lookalike

_MOST = 100_000_000  # Bytes; the most that safetensors' own library takes for a header.


def read_weight_map(path: str) -> Mapping[str, list[str]]:
    """Name in an index → the names of the files with what it names.

    Raises:
        FormatError: it is not such an index.
    """
    if (size := storage.file_size(path)) > _MOST:
        raise FormatError(f"no index: {size:,} bytes, and one has at most {_MOST:,}", path=path)
    with located(path):
        data = storage.read_file(path)
        if not data.lstrip().startswith((b"{", b"[")):
            refuse_lookalike(path)
        found = json_object(data).get("weight_map")
        files = {key: each if isinstance(each, list) else [each] for key, each in _items(found)}
        if not files or not all(names and all(isinstance(name, str) for name in names) for names in files.values()):
            raise FormatError('not an index of weights in several files: it has no "weight_map" of names')
    return files


def _items(found: Any) -> list[tuple[str, Any]]:
    return list(found.items()) if isinstance(found, dict) else []


def json_object(data: bytes) -> dict[str, Any]:
    """The object in a JSON text; a name in it twice is an error.

    Raises:
        FormatError: it is not the text of one.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name is there twice")
        return found

    try:
        found = json.loads(data.decode(), object_pairs_hook=once)
        if not isinstance(found, dict):
            raise FormatError("the JSON is no object")
        "".join(found).encode()  # Raises for names that are no text: JSON can escape half of a surrogate pair.
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON as it should be: {error}") from error
    return found
