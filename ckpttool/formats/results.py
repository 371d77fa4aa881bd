"""Results of a run → a file, by its suffix: `.npz`, a single array as `.npy`, or the `.json` that is printed.

The arrays become a checkpoint in memory, which is written as any other.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import ConversionError
from ckpttool.formats.npy import write_npy_file
from ckpttool.formats.npz import write_npz
from ckpttool.formats.plan import Planned
from ckpttool.model.in_memory import from_arrays

if TYPE_CHECKING:
    import numpy as np


def write_results(
    arrays: "Mapping[str, np.ndarray[Any, Any]]", path: str, *, document: str, force: bool = False
) -> Sequence[Planned]:
    """Writes arrays into a new file.

    Args:
        arrays: the arrays, by name.
        path: the file to be written; its suffix says the format.
        document: what a `.json` file is to hold.
        force: replace a file that is there.

    Returns:
        The arrays that NumPy has no type for, each with what was stored instead.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given.
        ConversionError: several arrays for one `.npy`, or one that it can't hold.
    """
    if path.endswith(".json"):
        with storage.write_beside(path, force=force) as beside:
            beside.write_text(document, encoding="utf-8")
        return ()
    try:
        checkpoint = from_arrays(arrays)
    except TypeError as error:
        raise ConversionError(str(error), path=path) from error
    if path.endswith(".npz"):
        return write_npz(checkpoint, path, force=force)
    if len(arrays) != 1:
        raise ConversionError(f"a .npy file holds one array, not {len(arrays)}", path=path, hint="write .npz")
    [variable] = checkpoint.values()
    planned = write_npy_file(variable, path, force=force)
    return [planned] if planned.remark else []
