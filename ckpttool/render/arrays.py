"""Arrays → text: nested brackets as NumPy has them, numbers in columns, what is left out marked, strings escaped."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from ckpttool.render.cells import printable

if TYPE_CHECKING:
    import numpy as np

_GAP = "…"
_AT_ONCE = 1 << 12


def array_text(
    array: "np.ndarray[Any, Any]",
    precision: int | None = None,
    *,
    indices: Sequence[Sequence[int]] | None = None,
    shape: Sequence[int] | None = None,
) -> Iterator[str]:
    """An array's text, piece by piece.

    Args:
        array: what to show.
        precision: significant digits; None: as many as tell the number from its neighbors.
        indices: if the array is the edges of a larger one, the indices of its places there, for each dimension: where
            some are missing, a gap is shown.
        shape: the shape of the larger one.
    """
    if not array.size:
        yield "[]"
        return
    cell = _cell_of(array.dtype, precision)
    is_text = array.dtype.kind in "OSb"
    width = 0 if is_text else max(map(len, _texts(array, cell)))
    gaps = [set[int]()] * array.ndim
    if indices is not None and shape is not None:
        gaps = [_gaps(shown, size) for shown, size in zip(indices, shape, strict=True)]
    yield from _nested_text((text.rjust(width) for text in _texts(array, cell)), array.shape, gaps)


def _texts(array: "np.ndarray[Any, Any]", cell: Callable[[Any], str]) -> Iterator[str]:
    """The text of each value, made as it is needed: all together take many times the memory of the array."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _AT_ONCE):
        yield from map(cell, flat[start : start + _AT_ONCE].tolist())


def _gaps(indices: Sequence[int], size: int) -> set[int]:
    """The places before which indices are missing; one past the last place, if the last indices are."""
    ends = [*indices[1:], size]
    return {place for place, (index, end) in enumerate(zip(indices, ends, strict=True), 1) if end != index + 1}


def _nested_text(texts: Iterator[str], shape: Sequence[int], gaps: Sequence[set[int]], depth: int = 0) -> Iterator[str]:
    """The text of what is `depth` brackets deep: rows in lines of their own, indented to that depth."""
    if depth == len(shape):
        yield next(texts)
        return
    separator = ", " if depth == len(shape) - 1 else f",\n{' ' * (depth + 1)}"
    yield "["
    for place in range(shape[depth]):
        yield separator if place else ""
        yield f"{_GAP}{separator}" if place in gaps[depth] else ""
        yield from _nested_text(texts, shape, gaps, depth + 1)
    yield f"{separator}{_GAP}]" if shape[depth] in gaps[depth] else "]"


def _cell_of(dtype: "np.dtype[Any]", precision: int | None) -> Callable[[Any], str]:
    if dtype.kind in "OS":
        return _string
    if dtype.kind in "iub":
        return lambda value: str(value).lower()
    if dtype.kind == "c":
        part = _cell_of(dtype.type(0).real.dtype, precision)
        return lambda value: _complex(part(value.real), part(value.imag))
    if precision is not None:
        return lambda value: f"{float(value):.{precision}g}"
    # The shortest digits that are this number in its own type, not those of the float64 that Python makes of it.
    return lambda value: str(dtype.type(value))


def _complex(real: str, imaginary: str) -> str:
    return f"{real}{'' if imaginary.startswith('-') else '+'}{imaginary}j"


def _string(value: bytes) -> str:
    try:
        return f'"{printable(value.decode())}"'
    except UnicodeDecodeError:
        return printable(repr(value))


def nested(array: "np.ndarray[Any, Any]") -> Any:
    """An array as JSON has it: lists of numbers, NaN and infinities as strings, complex numbers as pairs, bytes as text
    where they are UTF-8. An empty array is one empty list: nested, it could be very many of them.
    """
    return _each(array.tolist()) if array.size else []


def _each(value: Any) -> Any:
    if isinstance(value, list):
        return [_each(inner) for inner in value]
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, complex):
        return [_each(value.real), _each(value.imag)]
    return _json_text(value) if isinstance(value, bytes) else value


def _json_text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}
