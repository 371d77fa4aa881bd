"""A value from the user → an array of the dtype and shape that an input takes, or the reason why that can't be.

Casting loses nothing: 50 may become 50.0 and the other way round, but 0.5 becomes no integer. Only decimal literals
(also in JSON) are rounded to the input's float type; the values of an array must be exact in it.
"""

import warnings
from typing import TYPE_CHECKING, Any

from ckpttool.model.arguments import Shape, agrees, shape_text
from ckpttool.model.dtypes import HANDLES, DType
from ckpttool.model.texts import to_bytes

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_NUMBERS = "biufc"
_SMALL = ("bfloat16", "float8_e5m2", "float8_e4m3fn", "int4", "uint4")


def fit(
    value: Any, dtype: DType, shape: Shape, *, name: str, batch_dim: bool = False, broadcast: bool = False
) -> "Array":
    """The array to feed.

    Args:
        value: numbers, strings or bytes, nested in lists; or an array.
        dtype: what the input takes.
        shape: the shape that it takes, as far as it is known.
        name: the input's name, for messages.
        batch_dim: add a dimension of 1 in front if only that is missing.
        broadcast: fill the shape with a scalar; a dimension that is not known becomes 1.

    Raises:
        ValueError: the value has another type or shape; says what was expected and what was given.
    """
    wanted = dtype.base
    expected = f"{name} takes {wanted.name}{shape_text(shape)}"
    if wanted.name in (*HANDLES, "invalid") or wanted.name.startswith("unknown"):
        raise ValueError(f"{expected}, which can't be fed")
    array = _strings(value, expected) if wanted.name == "string" else _numbers(value, wanted, expected)
    return _shaped(array, shape, expected, wanted.name, batch_dim=batch_dim, broadcast=broadcast)


def _strings(value: Any, expected: str) -> "Array":
    import numpy as np

    if isinstance(value, np.ndarray) and value.dtype.kind == "S":
        value = value.astype(object)
    shape = _shape_of(value, expected)
    flat = np.asarray(value, object).ravel() if isinstance(value, np.ndarray) else _flattened(value)
    texts = [to_bytes(text) if isinstance(text, str) else text for text in flat]
    wrong = next((text for text in texts if not isinstance(text, bytes)), None)
    if wrong is not None:
        raise ValueError(f"{expected}, and {wrong!r} is no string")
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _flattened(value: Any) -> list[Any]:
    found, stack = [], [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list | tuple):
            stack += reversed(item)
        else:
            found.append(item)
    return found


def _shape_of(value: Any, expected: str) -> tuple[int, ...]:
    """The shape of nested lists, or of an array."""
    if not isinstance(value, list | tuple):
        return tuple(getattr(value, "shape", ()))
    shapes = {_shape_of(item, expected) for item in value}
    if len(shapes) > 1:
        raise ValueError(f"{expected}, and its rows are of different lengths")
    return (len(value), *(shapes.pop() if shapes else ()))


def _numbers(value: Any, dtype: DType, expected: str) -> "Array":
    import numpy as np

    is_written = not isinstance(value, np.ndarray | np.generic)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{expected}, and its rows are of different lengths") from None
    if is_written and not array.size:
        return array.astype(dtype.numpy)
    if array.dtype == dtype.numpy:
        return array
    if array.dtype.kind not in _NUMBERS and array.dtype.name not in _SMALL:
        raise ValueError(f"{expected}, and what came is {_said(value, array)}")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = array.astype(dtype.numpy)
        changed = int(np.count_nonzero(_changed(array, cast, is_written=is_written)))
    if changed:
        some = "it" if array.size == 1 else f"{changed:,} of {array.size:,} values"
        what = f"{expected}, and what came is {_said(value, array)}: {some} would change"
        is_rounded = not is_written and array.dtype.kind == "f" and cast.dtype.kind == "f"
        advice = f"round them: array.astype({dtype.name!r})" if is_rounded else f"give values that {dtype.name} has"
        raise ValueError(f"{what} · {advice}")
    return cast


def _changed(array: "Array", cast: "Array", *, is_written: bool) -> "Array":
    """Where casting has changed the value."""
    import numpy as np

    if is_written and array.dtype.kind == "f" and cast.dtype.kind not in "biu":
        wide = cast.astype(np.complex128 if cast.dtype.kind == "c" else np.float64)
        overflown: Array = np.isfinite(array) & ~np.isfinite(wide)
        return overflown
    back = cast.astype(array.dtype)
    changed = np.asarray(back != array)
    if array.dtype.kind in "fV" and cast.dtype.kind in "iu":  # A cast beyond the bounds is undefined.
        bounds, wide = np.iinfo(cast.dtype), array.astype(np.float64)
        changed |= ~((wide >= float(bounds.min)) & (wide < 2.0 * (bounds.max // 2 + 1)))
    if array.dtype.kind in "fc":
        changed &= ~(np.isnan(array) & np.isnan(back))
    if array.dtype.kind in "iu" and cast.dtype.kind in "iu":  # -1 and 2**64 - 1 have the same bits.
        changed |= (array < 0) != (cast < 0)
    return changed


def _said(value: Any, array: "Array") -> str:
    """A value in a message: a small one itself, a large one as its dtype and shape."""
    if array.ndim == 0 and len(repr(array[()])) < 40:
        return f"{array.dtype.name if array.dtype.kind in _NUMBERS else type(value).__name__} {array[()]!s}"
    return f"{array.dtype.name}{shape_text(array.shape)}"


def _shaped(array: "Array", shape: Shape, expected: str, dtype: str, *, batch_dim: bool, broadcast: bool) -> "Array":
    import numpy as np

    if shape is None or agrees(shape, array.shape):
        return array
    if batch_dim and agrees(shape, (1, *array.shape)):
        return array[np.newaxis]
    if broadcast and array.ndim == 0:
        return np.full([1 if size is None else size for size in shape], array[()], array.dtype)
    hint = ""
    if array.ndim == 0:
        what = "a list, such as [50]" if len(shape) == 1 else "nested lists, or a file (@a.npy)"
        hint = f" · give {what}; or fill the shape with a scalar (--broadcast)"
    elif agrees(shape, (1, *array.shape)):
        hint = " · give a batch, or let one be made of it (--batch-dim)"
    raise ValueError(f"{expected}, and what came is {dtype}{shape_text(array.shape)}{hint}")
