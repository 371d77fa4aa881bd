"""Arrays that a run gave → a file, by its suffix: `.npz`, one array as `.npy`, or the `.json` that is printed.

The arrays are variables of a checkpoint in memory, and written as those of any other are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import ConversionError
from ckpttool.formats.npy import plan_npy
from ckpttool.formats.npy.arrays import arrays_of
from ckpttool.formats.npz import write_npz
from ckpttool.formats.plan import Planned
from ckpttool.model.boxes import Selection
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Source, Variable
from ckpttool.model.dtypes import DTYPES, DType

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".npz", ".npy", ".json")


class _InMemory(Source):
    """The source of variables that are arrays."""

    def __init__(self, arrays: "Mapping[str, np.ndarray[Any, Any]]") -> None:
        self._arrays = arrays

    def slices(self, variable: Variable) -> Sequence[Slice]:
        data = ByteRange("", 0, prod(variable.shape) * (variable.dtype.itemsize or 0), None)
        return [Slice((0,) * len(variable.shape), variable.shape, 0, data)]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        for box in boxes:
            yield self._arrays[variable.name][box]

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        return [bytes(value) for value in self._arrays[variable.name].ravel()]


def _dtype_of(array: "np.ndarray[Any, Any]") -> DType:
    return DTYPES["string"] if array.dtype.kind in "OS" else DTYPES[array.dtype.name]


def write_results(
    arrays: "Mapping[str, np.ndarray[Any, Any]]", path: str, *, document: str, force: bool = False
) -> Sequence[Planned]:
    """Writes arrays into a new file.

    Args:
        arrays: the arrays, by name.
        path: the file to be, written beside and renamed; its suffix says the format.
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
    source = _InMemory(arrays)
    variables = {name: Variable(name, _dtype_of(array), array.shape, source) for name, array in arrays.items()}
    checkpoint = Checkpoint(variables, path="", format="arrays in memory")
    if path.endswith(".npz"):
        return write_npz(checkpoint, path, force=force)
    if len(arrays) != 1:
        raise ConversionError(f"a .npy file holds one array, not {len(arrays)}", path=path, hint="write .npz")
    return _write_npy(checkpoint, path, force=force)


def _write_npy(checkpoint: Checkpoint, path: str, *, force: bool) -> Sequence[Planned]:
    made, remarkable = arrays_of(plan_npy(checkpoint), checkpoint, strict=False)
    if not made:
        raise ConversionError(str(remarkable[0].problem), path=path)
    with storage.write_beside(path, force=force) as beside, beside.open("wb") as stream:
        stream.write(made[0].header)
        for chunk in made[0].content.chunks():
            stream.write(chunk)
    return remarkable
