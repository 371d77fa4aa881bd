"""Arrays → text: nested brackets as NumPy has them, numbers in columns, what is left out marked, strings escaped."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from ckpttool.render.cells import printable

if TYPE_CHECKING:
    import numpy as np

_GAP = "…"


def array_text(
    array: "np.ndarray[Any, Any]", indices: Sequence[Sequence[int]] | None = None, precision: int | None = None
) -> Iterator[str]:
    """The lines of an array's text.

    Args:
        array: what to show.
        indices: of each dimension the indices that the array's places had, if it is the edges of a larger one: where
            one is missing, there is a gap.
        precision: significant digits; None: as many as tell the number from its neighbors.
    """
    cell = _cell_of(array.dtype, precision)
    texts = [cell(value) for value in array.ravel().tolist()]
    width = max(map(len, texts), default=0)
    if array.dtype.kind not in "OSb":
        texts = [text.rjust(width) for text in texts]
    gaps = [_gaps(numbers) for numbers in indices] if indices else [set()] * array.ndim
    yield from _lines(iter(texts), array.shape, gaps, 0)


def _gaps(numbers: Sequence[int]) -> set[int]:
    """The places before which indices are missing."""
    return {place for place in range(1, len(numbers)) if numbers[place] != numbers[place - 1] + 1}


def _lines(texts: Iterator[str], shape: Sequence[int], gaps: Sequence[set[int]], depth: int) -> Iterator[str]:
    """The lines of what is `depth` brackets deep; each but the first is indented so far."""
    if depth == len(shape):
        yield next(texts)
        return
    if depth == len(shape) - 1:
        row = [f"{_GAP}, {text}" if place in gaps[depth] else text for place, text in _taken(texts, shape[depth])]
        yield f"[{', '.join(row)}]"
        return
    opened, blank = "[", " "
    line = opened
    for place in range(shape[depth]):
        if place in gaps[depth]:
            yield f"{line},"
            line = blank + _GAP
        for number, inner in enumerate(_lines(texts, shape, gaps, depth + 1)):
            if place or number:
                yield line if number else f"{line},"
                line = blank
            line += inner
    yield f"{line}]"


def _taken(texts: Iterator[str], count: int) -> Iterator[tuple[int, str]]:
    return ((place, next(texts)) for place in range(count))


def _cell_of(dtype: "np.dtype[Any]", precision: int | None) -> Callable[[Any], str]:
    if dtype.kind in "OS":
        return _string
    if dtype.kind in "iub":
        return lambda value: str(value).lower() if isinstance(value, bool) else str(value)
    if dtype.kind == "c":
        number = _cell_of(dtype.type(0).real.dtype, precision)
        return lambda value: f"{number(value.real)}{'' if value.imag < 0 else '+'}{number(value.imag)}j"
    if precision is not None:
        return lambda value: f"{float(value):.{precision}g}"
    # The shortest digits that are this number in its own type, not those of the float64 that Python makes of it.
    return lambda value: str(dtype.type(value))


def _string(value: bytes) -> str:
    try:
        return f'"{printable(value.decode())}"'
    except UnicodeDecodeError:
        return printable(repr(value))


def nested(array: "np.ndarray[Any, Any]") -> Any:
    """An array as JSON has it: lists of numbers, NaN and infinities as strings, complex numbers as pairs, bytes as text
    where they are UTF-8.
    """
    cell = _JSON_CELLS.get(array.dtype.kind, lambda value: value)
    if array.dtype.isbuiltin != 1:  # Of ml_dtypes: its numbers are Python's only by way of float32, which has all.
        array, cell = array.astype("float32"), _JSON_CELLS["f"]
    return _each(array.tolist(), cell)


def _each(value: Any, cell: Callable[[Any], Any]) -> Any:
    return [_each(inner, cell) for inner in value] if isinstance(value, list) else cell(value)


def _json_float(value: float) -> float | str:
    return value if isfinite(value) else str(value)


def _json_text(value: bytes) -> str | dict[str, str]:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


_JSON_CELLS: dict[str, Callable[[Any], Any]] = {
    "f": _json_float,
    "c": lambda value: [_json_float(value.real), _json_float(value.imag)],
    "O": _json_text,
    "S": _json_text,
}
