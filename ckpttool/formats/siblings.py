"""Files beside a file: those that it names, and those that belong to it."""

import os
import re

from ckpttool.errors import CorruptionError, FormatError


def sibling(path: str, name: str) -> str:
    """The path of the file `name`, which the file `path` names and which must lie beside that: anybody can make an
    index.

    Raises:
        FormatError: the name leads elsewhere, or is none.
        CorruptionError: there is no such file.
    """
    if name in ("", ".", "..") or re.search(r"[/\\:\0]", name) or not _encodable(name):
        raise FormatError(f"it names {name!r}, which is no file beside it", path=path)
    found = os.path.join(os.path.dirname(path), name)
    if not os.path.exists(found):
        raise CorruptionError(f"it names {name!r}, which is missing", path=path, hint="fetch it too")
    return found


def belonging(graph: str) -> list[str]:
    """The files that belong to a graph's file, of those that exist; --force must not replace any of them with it.

    Of `model.meta` those of the checkpoint `model`, V2 or V1; of a SavedModel its variables and assets.
    """
    directory, name = os.path.split(graph)
    if name.startswith("saved_model."):
        folders = {os.path.join(directory, folder): ".*" for folder in ("variables", "assets")}
    elif name.endswith(".meta"):
        folders = {directory: re.escape(name.removesuffix(".meta")) + _MEMBER}
    else:
        return []
    return [
        os.path.join(folder, found)
        for folder, pattern in folders.items()
        if os.path.isdir(folder or ".")
        for found in sorted(os.listdir(folder or "."))
        if re.fullmatch(pattern, found, re.DOTALL)
    ]


# What comes after the prefix in the names of a checkpoint's files; in V1 nothing, or a shard's number.
_MEMBER = r"(?:\.index|(?:\.data)?-[0-9]{5,9}-of-[0-9]{5,9})?"


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
