"""Two variables, or two checkpoints, side by side: what is only in one, what differs, and by how much.

Values are compared block by block. Blocks of the same bytes are equal, and nothing more is asked of them but what their
numbers add to the norms; only of others are differences taken, in float64.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import tee
from math import inf, nan, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.model.boxes import subdivide
from ckpttool.model.checkpoint import BLOCK_SIZE, Variable
from ckpttool.model.parallel import in_order

if TYPE_CHECKING:
    import numpy as np

Progress = Callable[[int], None]


class Difference(NamedTuple):
    """How the values of two variables of one shape differ.

    Attributes:
        elements: how many there are.
        changed: how many are not the same; a NaN is the same as a NaN, and 0 as -0.
        beyond: how many of these differ by more than the tolerance.
        max_abs: the largest difference: infinite where one is infinite, or a NaN beside a number.
        l2: the square root of the sum of the squares of the differences.
        cosine: the cosine of the angle between the two as vectors; NaN where one of them is zero.
    """

    elements: int
    changed: int = 0
    beyond: int = 0
    max_abs: float = 0.0
    l2: float = 0.0
    cosine: float = nan


def difference(
    a: Variable,
    b: Variable,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    progress: Progress = lambda nbytes: None,
) -> Difference:
    """How the values of two variables of one shape differ; each is read once, in blocks.

    Args:
        a: the one.
        b: the other, of the same shape; its dtype may be another.
        rtol: a difference of so much times b's absolute value, and
        atol: so much, is within the tolerance, as `numpy.isclose` has it.
        progress: is told the bytes of each pair of blocks.

    Raises:
        CorruptionError: values are missing or damaged.
        NotSupportedError: values of this dtype can't be decoded.
    """
    if a.dtype.itemsize is None or b.dtype.itemsize is None:
        found = _of_strings(a, b)
        progress(a.nbytes + b.nbytes)
        return found
    same = 0
    for one, other in _pairs(a, b):
        if a.dtype != b.dtype or not _same_bytes(one, other):
            break
        same += 1
        progress(one.nbytes + other.nbytes)
    else:
        return Difference(a.size)
    sums = _Sums(rtol, atol)
    for number, (one, other) in enumerate(_pairs(a, b)):
        sums.add(_wide(one), _wide(other))
        if number >= same:
            progress(one.nbytes + other.nbytes)
    return sums.difference()


def _pairs(a: Variable, b: Variable) -> "Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]":
    """The same boxes of both."""
    widest = max(a.dtype.itemsize or 1, b.dtype.itemsize or 1)
    boxes = tee(subdivide((0,) * len(a.shape), a.shape, max(1, BLOCK_SIZE // widest)))
    yield from zip(a.read(boxes[0]), b.read(boxes[1]), strict=True)


def _same_bytes(one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> bool:
    import numpy as np

    words = np.uint64 if one.nbytes % 8 == 0 else np.uint8
    x, y = (np.ascontiguousarray(array).reshape(-1).view(words) for array in (one, other))
    return bool(np.array_equal(x, y))


def _wide(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The numbers in a type that NumPy reckons with. (That of ml_dtypes does not, or slowly.)"""
    import numpy as np

    return array.reshape(-1) if array.dtype.isbuiltin == 1 else array.reshape(-1).astype(np.float32)


def _of_strings(a: Variable, b: Variable) -> Difference:
    pairs = zip(a.strings(), b.strings(), strict=True)
    changed = sum(one != other for one, other in pairs)
    return Difference(a.size, changed, changed, inf if changed else 0.0, nan)


class _Sums:
    """The sums over the blocks so far."""

    def __init__(self, rtol: float, atol: float) -> None:
        self._rtol, self._atol = rtol, atol
        self._elements = self._changed = self._beyond = 0
        self._max_abs = self._squares = self._dot = self._of_one = self._of_other = 0.0

    def add(self, one: "np.ndarray[Any, Any]", other: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        self._elements += one.size
        wide = np.complex128 if "c" in one.dtype.kind + other.dtype.kind else np.float64
        x, y = one.astype(wide), other.astype(wide)
        with np.errstate(all="ignore"):
            apart = np.abs(x - y)
            unequal = one != other
            if one.dtype.kind in "fc" or other.dtype.kind in "fc":
                unequal &= ~(np.isnan(x) & np.isnan(y))
            changed = int(np.count_nonzero(unequal))
            self._changed += changed
            if changed:
                self._add_unequal(apart[unequal], np.abs(y[unequal]))
            self._dot += float(np.vdot(x, y).real)
            self._of_one += float(np.vdot(x, x).real)
            self._of_other += float(np.vdot(y, y).real)

    def _add_unequal(self, apart: "np.ndarray[Any, Any]", size: "np.ndarray[Any, Any]") -> None:
        import numpy as np

        apart = np.nan_to_num(apart, nan=inf, posinf=inf)
        self._max_abs = max(self._max_abs, float(apart.max()))
        self._squares += float(np.square(apart).sum())
        within = np.isfinite(apart) & (apart <= self._atol + self._rtol * size)
        self._beyond += apart.size - int(np.count_nonzero(within))

    def difference(self) -> Difference:
        norms = sqrt(self._of_one) * sqrt(self._of_other)
        cosine = self._dot / norms if 0 < norms < inf else nan
        return Difference(
            self._elements, self._changed, self._beyond, self._max_abs, sqrt(self._squares), max(-1.0, min(1.0, cosine))
        )


class Comparison(NamedTuple):
    """Two checkpoints side by side.

    Attributes:
        only_a: names that only the first has, but for those that were renamed.
        only_b: names that only the second has.
        renamed: name in the first → name in the second, of variables with the same values.
        unlike: names of variables whose dtype or shape is another one.
        differences: of all that have the same shape, how their values differ.
    """

    only_a: list[str]
    only_b: list[str]
    renamed: dict[str, str]
    unlike: list[str]
    differences: dict[str, Difference]


def compare(
    a: Mapping[str, Variable],
    b: Mapping[str, Variable],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    values: bool = True,
    progress: Progress = lambda nbytes: None,
) -> Comparison:
    """Compares the variables of two checkpoints, by name; those that only one has, by their values.

    Args:
        a: the one.
        b: the other.
        rtol: see `difference`.
        atol: the same.
        values: False: only names, dtypes and shapes; no values are read.
        progress: is told bytes that have been read.

    Raises:
        CorruptionError: values are missing or damaged.
    """
    both = [name for name in a if name in b]
    unlike = [name for name in both if (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)]
    only_a, only_b = [name for name in a if name not in b], [name for name in b if name not in a]
    if not values:
        return Comparison(only_a, only_b, {}, unlike, {})
    comparable = [name for name in both if a[name].shape == b[name].shape and _kind(a[name]) == _kind(b[name])]
    found = in_order(lambda name: difference(a[name], b[name], rtol=rtol, atol=atol, progress=progress), comparable)
    differences = dict(zip(comparable, found, strict=True))
    renamed = _renamed([a[name] for name in only_a], [b[name] for name in only_b])
    gone, come = renamed.keys(), set(renamed.values())
    return Comparison(
        [name for name in only_a if name not in gone],
        [name for name in only_b if name not in come],
        *(renamed, unlike, differences),
    )


def _kind(variable: Variable) -> str:
    return "numbers" if variable.dtype.itemsize is not None else variable.dtype.name


def _renamed(only_a: Iterable[Variable], only_b: Iterable[Variable]) -> dict[str, str]:
    """Which of the variables of the one are in the other under another name: of the same values, and alone in that."""
    of_a, of_b = _by_kind(only_a), _by_kind(only_b)
    renamed = {}
    for kind in of_a.keys() & of_b.keys():
        by_value, others = _by_value(of_a[kind]), _by_value(of_b[kind])
        for value, variables in by_value.items():
            if len(variables) == len(others.get(value, ())) == 1:
                renamed[variables[0].name] = others[value][0].name
    return renamed


def _by_kind(variables: Iterable[Variable]) -> dict[tuple[Any, ...], list[Variable]]:
    found: dict[tuple[Any, ...], list[Variable]] = {}
    for variable in variables:
        found.setdefault((variable.dtype, variable.shape), []).append(variable)
    return found


def _by_value(variables: list[Variable]) -> dict[bytes, list[Variable]]:
    found: dict[bytes, list[Variable]] = {}
    for variable, value in zip(variables, in_order(_digest, variables), strict=True):
        found.setdefault(value, []).append(variable)
    return found


def _digest(variable: Variable) -> bytes:
    """A hash of the values."""
    import numpy as np

    digest = hashlib.blake2b(digest_size=16)
    if variable.dtype.itemsize is None:
        for value in variable.strings():
            digest.update(b"%d:" % len(value) + value)
    else:
        for _, block in variable.blocks():
            digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return digest.digest()
