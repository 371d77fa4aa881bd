r"""What to feed, as it is written on a command line → a value.

50    [1, 2.5]    nan         a number, a list of them: Python's literals, and nothing that runs
@a.npy  @a.npz[key]  @a.json  a file's
@-                            standard input's: a .npy file, else JSON
hello  ["a", "b"]  @image.png an input of strings takes text, lists of literals, and any file's bytes
@@name                        the text "@name"
"""

import ast
import io
import json
import os
import re
from collections.abc import Callable
from typing import Any

from ckpttool import storage
from ckpttool.errors import CorruptionError, FormatError, NotFoundError
from ckpttool.formats.npy import read_npy
from ckpttool.formats.npz import read_npz

_MOST_TEXT = 1 << 20
_MOST_FILE = 1 << 30
_MOST_DEPTH = 64
_NAMES = {"nan": float("nan"), "inf": float("inf"), "true": True, "false": False}
_NPY_MAGIC = b"\x93NUMPY"
_MEMBER = re.compile(r"(.+\.npz)(?:\[(.*)\])?", re.DOTALL)


def parse_feed(text: str, *, is_string: bool, stdin: Callable[[], bytes]) -> Any:
    """The value that a text means: numbers, strings and bytes, nested in lists; or a NumPy array.

    Args:
        text: what was written.
        is_string: the input takes strings.
        stdin: reads standard input, for `@-`.

    Raises:
        ValueError: it is no literal.
        NotFoundError, FormatError, CorruptionError: the file does not exist, or is not of its kind.
    """
    if text.startswith("@@") and is_string:
        return text[1:]
    if text.startswith("@"):
        return _from_stdin(stdin(), is_string) if text == "@-" else _from_file(text[1:], is_string)
    if not is_string:
        return parse_literal(text)
    try:
        value = parse_literal(text)
    except ValueError:
        return text
    return value if _are_strings(value) else text


def feed_file(text: str) -> str | None:
    """The file that a text stands for, as `parse_feed` takes it; None if for none."""
    if not text.startswith("@") or text.startswith("@@") or text == "@-":
        return None
    member = _MEMBER.fullmatch(text[1:])
    return member[1] if member and not os.path.exists(text[1:]) else text[1:]


def _are_strings(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_are_strings(item) for item in value)
    return isinstance(value, str | bytes)


def parse_literal(text: str) -> Any:
    """A literal of Python's: numbers, strings, bytes, truth values, and lists or tuples of them; nan, inf, true, false.

    Raises:
        ValueError: it is not a literal, or longer or deeper than anything written by hand.
    """
    if len(text) > _MOST_TEXT:
        raise ValueError(f"{len(text):,} characters are too many: give them in a file (@values.npy)")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, TypeError):
        shown = text if len(text) < 60 else f"{text[:57]}…"
        raise ValueError(f"{shown!r} is no literal, such as 50, [1, 2.5], true · @file.npy reads a file") from None


def _value(node: ast.expr, depth: int) -> Any:
    if depth > _MOST_DEPTH:
        raise ValueError(f"nested deeper than {_MOST_DEPTH}")
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | complex | str | bytes):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    return _signed(node, depth)


def _signed(node: ast.expr, depth: int) -> Any:
    """-1, +1, and the complex 1+2j."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = _value(node.operand, depth + 1)
        return -number if isinstance(node.op, ast.USub) else +number
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        left, right = _value(node.left, depth + 1), _value(node.right, depth + 1)
        if isinstance(right, complex) and isinstance(left, int | float):
            return left + right if isinstance(node.op, ast.Add) else left - right
    raise ValueError("no literal")


def _from_file(path: str, is_string: bool) -> Any:
    member = _MEMBER.fullmatch(path)
    if member and not (member[2] is not None and os.path.exists(path)):
        return _from_npz(member[1], member[2])
    if path.endswith(".npy"):
        storage.file_size(path)  # Which is about the file alone, if there is none.
        (variable,) = read_npy(path).values()
        return variable.numpy()
    if storage.file_size(path) > _MOST_FILE:
        raise FormatError("more than 1 GiB: give it as .npy", path=path)
    data = storage.read_file(path)
    if path.endswith(".json"):
        return _from_json(data, path)
    if is_string:
        return data
    raise FormatError("numbers are read from .npy, .npz and .json", path=path)


def _from_npz(path: str, key: str | None) -> Any:
    arrays = read_npz(path)
    if key is None and len(arrays) != 1:
        hint = f"say which: @{path}[{next(iter(arrays), 'key')}]"
        raise NotFoundError(f"the archive has {len(arrays)} arrays", path=path, hint=hint)
    return arrays[key if key is not None else next(iter(arrays))].numpy()


def _from_json(data: bytes, path: str) -> Any:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"no JSON: {error}", path=path) from error
    return _plain(value, path, 0)


def _plain(value: Any, path: str, depth: int) -> Any:
    """JSON's value as ours: bytes are {"base64": …}, as `run --json` writes them."""
    import base64

    if isinstance(value, list) and depth < _MOST_DEPTH:
        return [_plain(item, path, depth + 1) for item in value]
    if isinstance(value, dict) and list(value) == ["base64"] and isinstance(value["base64"], str):
        return base64.b64decode(value["base64"])
    if isinstance(value, str | int | float):
        return value
    raise FormatError("an input is a number, a string, or lists of them", path=path)


def _from_stdin(data: bytes, is_string: bool) -> Any:
    if data.startswith(_NPY_MAGIC):
        import numpy as np

        try:
            return np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            raise CorruptionError(f"no array: {error}", path="standard input") from error
    try:
        return _from_json(data, "standard input")
    except FormatError:
        if is_string:
            return data
        raise
