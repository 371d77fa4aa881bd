"""Several checkpoints → the mean of them, block by block.

Each number is the checkpoints' sum in float64, divided once and rounded once. Variables that are not of floating-point
numbers (steps, counters, strings) are taken from the last checkpoint.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import TYPE_CHECKING, Any

from ckpttool.errors import ConversionError, NotSupportedError
from ckpttool.model.boxes import Selection, shape_of, subdivide, within
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.names import listed
from ckpttool.model.slices import Slice
from ckpttool.model.variable import BLOCK_SIZE, Source, Variable
from ckpttool.transforms.casting import COMPLEX, FLOATS, nearest, whole_piece

if TYPE_CHECKING:
    import numpy as np


def average(checkpoints: Sequence[Checkpoint], weights: Sequence[float] | None = None) -> Checkpoint:
    """The mean of checkpoints with the same variables; nothing is computed before values are asked for.

        >>> ckpttool.write_bundle(ckpttool.average([a, b, c]), "mean")

    Args:
        checkpoints: one or more.
        weights: one for each; None: all the same.

    Raises:
        ConversionError: they differ in names, shapes or dtypes; the message names the variables.
        ValueError: there are no checkpoints, or not as many weights; or weights are negative, not finite, or all zero.
        TypeError: `checkpoints` is a single one, or has a member that is none.
    """
    if isinstance(checkpoints, Checkpoint):  # A mapping, whose names would be taken for the checkpoints.
        raise TypeError("checkpoints is a list of them, and this is a single one")
    checkpoints = list(checkpoints)
    for checkpoint in checkpoints:
        require_checkpoint(checkpoint)
    if not checkpoints:
        raise ValueError("no checkpoints: there is no mean of none")
    weights = [1.0] * len(checkpoints) if weights is None else list(weights)
    if len(weights) != len(checkpoints):
        raise ValueError(f"{len(weights)} weights for {len(checkpoints)} checkpoints")
    if not all(0 <= weight < float("inf") for weight in weights) or not 0 < sum(weights) < float("inf"):
        raise ValueError(f"weights must be finite and not negative, with at least one above 0: {weights}")
    *others, last = checkpoints
    for other in others:
        _require_same(other, last)
    files = [file for checkpoint in checkpoints for file in checkpoint.files]
    variables = {name: _mean([each[name] for each in checkpoints], weights) for name in last}
    return Checkpoint(variables, path=last.path, format=last.format, files=files, warnings=last.warnings)


def _require_same(a: Checkpoint, b: Checkpoint) -> None:
    for having, lacking in ((a, b), (b, a)):
        _require_none(
            f"in {having.path}, and not in {lacking.path}",
            {name: "" for name in having if name not in lacking},
            "--include and --exclude choose what all have",
        )
    kinds = {name: (_kind(a[name]), _kind(b[name])) for name in b}
    differ = {name: f" ({before}, {after})" for name, (before, after) in kinds.items() if before != after}
    _require_none(f"not of the same dtype and shape in {a.path} and in {b.path}", differ, "--exclude leaves them out")


def _require_none(what: str, names: Mapping[str, str], hint: str) -> None:
    """Raises ConversionError if there are such variables, with their names and the remarks on them."""
    named = [f"{name!r}{remark}" for name, remark in names.items()]
    if named:
        raise ConversionError(f"{what}: {listed(named)}", hint=hint)


def _kind(variable: Variable) -> str:
    return f"{variable.dtype.name}[{','.join(map(str, variable.shape))}]"


def _mean(variables: Sequence[Variable], weights: Sequence[float]) -> Variable:
    last = variables[-1]
    if last.dtype.name not in FLOATS | COMPLEX:
        return last
    return Variable(last.name, last.dtype, last.shape, _Mean(variables, weights), last.key, layer=last.layer)


_MOST_CUT = 16


class _Mean(Source):
    """The source of a variable that is the mean of others."""

    def __init__(self, variables: Sequence[Variable], weights: Sequence[float]) -> None:
        self._variables, self._weights = variables, weights

    def slices(self, variable: Variable) -> Sequence[Slice]:
        return [whole_piece(variable, self._variables[-1])]

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        raise NotSupportedError(f"{variable.dtype.name} is no string", variable=variable.name)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        import numpy as np

        boxes = list(boxes)
        # All checkpoints have a block in memory at once: the more there are, the smaller the blocks, down to a limit.
        limit = max(1, BLOCK_SIZE // min(len(self._variables), _MOST_CUT) // (variable.dtype.itemsize or 1))
        parts = [list(subdivide(tuple(s.start for s in box), shape_of(box), limit)) for box in boxes]
        flat = [part for of_box in parts for part in of_box]
        readers = [each.read(flat) for each in self._variables]
        for box, of_box in zip(boxes, parts, strict=True):
            array = np.empty(shape_of(box), variable.dtype.numpy)
            for part in of_box:
                array[within(part, box)] = nearest(self._mean([next(reader) for reader in readers]), array.dtype)
            yield array
        for reader in readers:  # Reads on to their checksums.
            next(reader, None)

    def _mean(self, arrays: "Sequence[np.ndarray[Any, Any]]") -> "np.ndarray[Any, Any]":
        import numpy as np

        wide = np.complex128 if arrays[0].dtype.kind == "c" else np.float64
        total = np.zeros(arrays[0].shape, wide)
        with np.errstate(all="ignore"):  # Infinity minus infinity is NaN, as it should be.
            for array, weight in zip(arrays, self._weights, strict=True):
                if weight:  # 0 times NaN would be NaN.
                    total += array if weight == 1 else array.astype(wide) * weight
            # Not sum(), which rounds differently since Python 3.12.
            return total / fsum(self._weights)
