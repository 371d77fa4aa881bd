"""Files that a file names, and that are to be beside it: an index is made by anybody."""

import os
import re

from ckpttool.errors import CorruptionError, FormatError


def sibling(path: str, name: str) -> str:
    """The path of the file `name` in the directory of the file `path`, which names it.

    Raises:
        FormatError: it is a path to elsewhere, or no name at all.
        CorruptionError: there is no such file.
    """
    if name in ("", ".", "..") or re.search(r"[/\\:\0]", name) or not _encodable(name):
        raise FormatError(f"it names {name!r}, which is no file beside it", path=path)
    found = os.path.join(os.path.dirname(path), name)
    if not os.path.exists(found):
        raise CorruptionError(f"it names {name!r}, which is missing", path=path, hint="fetch it too")
    return found


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
