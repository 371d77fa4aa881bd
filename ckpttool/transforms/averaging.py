"""Several checkpoints → the mean of them, block by block.

Each number is the sum of the checkpoints' in float64, divided once and rounded once. What is no floating-point number
(steps, counters, strings) is the last checkpoint's.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.boxes import Selection, shape_of, subdivide, within
from ckpttool.model.checkpoint import BLOCK_SIZE, ByteRange, Checkpoint, Slice, Variable
from ckpttool.transforms.casting import COMPLEX, FLOATS, whole_piece

if TYPE_CHECKING:
    import numpy as np


def average(checkpoints: Sequence[Checkpoint], weights: Sequence[float] | None = None) -> Checkpoint:
    """The mean of checkpoints of the same variables; nothing is computed before values are asked for.

        >>> ckpttool.write_bundle(ckpttool.average([a, b, c]), "mean")

    Args:
        checkpoints: one or more.
        weights: one for each; None: all the same.

    Raises:
        ConversionError: they have not the same names, shapes and dtypes.
        ValueError: there are none, or not as many weights; or these are negative, not finite, or all zero.
    """
    weights = [1.0] * len(checkpoints) if weights is None else list(weights)
    if not checkpoints or len(weights) != len(checkpoints):
        raise ValueError(f"{len(weights)} weights for {len(checkpoints)} checkpoints")
    if not all(0 <= weight < float("inf") for weight in weights) or not 0 < sum(weights) < float("inf"):
        raise ValueError(f"weights must be numbers from 0 up, one of them more: {weights}")
    *others, last = checkpoints
    for other in others:
        _require_same(other, last)
    files = [file for checkpoint in checkpoints for file in checkpoint.files]
    variables = {name: _mean([each[name] for each in checkpoints], weights) for name in last}
    return Checkpoint(variables, path=last.path, format=last.format, files=files, warnings=last.warnings)


def _require_same(a: Checkpoint, b: Checkpoint) -> None:
    missing = sorted(a.keys() ^ b.keys())
    if missing:
        having, lacking = (a, b) if missing[0] in a else (b, a)
        raise ConversionError(
            f"{len(missing):,} variables are in one only: this one is in {having.path}, not in {lacking.path}",
            variable=missing[0],
            hint="--include and --exclude choose what both have",
        )
    for name, variable in a.items():
        if (variable.dtype, variable.shape) != (b[name].dtype, b[name].shape):
            raise ConversionError(
                f"{variable.dtype.name}{list(variable.shape)} in {a.path},"
                f" {b[name].dtype.name}{list(b[name].shape)} in {b.path}",
                variable=name,
            )


def _mean(variables: Sequence[Variable], weights: Sequence[float]) -> Variable:
    last = variables[-1]
    if last.dtype.name not in FLOATS | COMPLEX:
        return last
    return Variable(last.name, last.dtype, last.shape, _Mean(variables, weights), last.key)


class _Mean:
    """The source of a variable that is the mean of others."""

    def __init__(self, variables: Sequence[Variable], weights: Sequence[float]) -> None:
        self._variables, self._weights = variables, weights

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return [whole_piece(variable, self._variables[-1])]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        return None

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        raise NotSupportedError(f"{variable.dtype.name} is no string", variable=variable.name)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        import numpy as np

        boxes = list(boxes)
        # Each checkpoint's block is in memory at once: of many, they are smaller.
        limit = max(1, BLOCK_SIZE // (variable.dtype.itemsize or 1) // len(self._variables))
        parts = [list(subdivide(tuple(s.start for s in box), shape_of(box), limit)) for box in boxes]
        flat = [part for of_box in parts for part in of_box]
        readers = [each.read(flat) for each in self._variables]
        for box, of_box in zip(boxes, parts, strict=True):
            array = np.empty(shape_of(box), variable.dtype.numpy)
            for part in of_box:
                array[within(part, box)] = self._mean([next(reader) for reader in readers]).astype(array.dtype)
            yield array
        for reader in readers:  # To their checksums.
            next(reader, None)

    def _mean(self, arrays: "Sequence[np.ndarray[Any, Any]]") -> "np.ndarray[Any, Any]":
        import numpy as np

        wide = np.complex128 if arrays[0].dtype.kind == "c" else np.float64
        total = np.zeros(arrays[0].shape, wide)
        for array, weight in zip(arrays, self._weights, strict=True):
            if weight == 1:
                total += array
            elif weight:  # Nothing times a NaN would be one.
                total += array.astype(wide) * weight
        return total / sum(self._weights)
