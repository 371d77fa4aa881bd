"""Cells → text, for people and for programs.

Names come from files that anybody may have made: whatever could drive a terminal is escaped in every form of output.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from ckpttool.model.arguments import shape_text
from ckpttool.model.texts import to_text
from ckpttool.reports.report import Column, Report


def printable(text: str) -> str:
    """The text with control characters, bidirectional overrides, lone surrogates and the like escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


_SHORT_ESCAPES = {9: "\\t", 10: "\\n", 13: "\\r"}


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # A byte that was not UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return _SHORT_ESCAPES.get(code) or f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def human_bytes(count: int) -> str:
    """1234567 → "1.2 MB"; decimal, as disks and downloads are counted."""
    size, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"


def plain(value: Any, kind: str) -> str:
    """A cell for programs: numbers bare, shapes as [2,3]."""
    if kind == "shape" and not isinstance(value, str):
        return shape_text(value) or "?"
    if kind == "list":
        return printable(",".join(value))
    if kind == "tree":
        return printable(value[1])
    if kind == "any":
        return printable(_member_text(value))
    if kind == "histogram":
        return ",".join(map(str, value))
    return printable(str(value))


def shown(value: Any, kind: str) -> str:
    """A cell for people."""
    if kind == "number" and value != "":
        return f"{value:,}"
    if kind == "real" and not isinstance(value, str):
        return f"{value:.4g}"
    if kind == "histogram":
        return bars(value)
    if kind == "bytes":
        return human_bytes(value)
    if kind == "shape" and value == ():
        return "scalar"
    if kind == "list":
        return printable(", ".join(value))
    if kind == "tree":
        depth, _, label = value
        return f"{'  ' * depth}{printable(label)}"
    return plain(value, kind)


def columns_of(report: Report) -> Iterator[list[tuple[Any, ...]]]:
    """The cells of the columns, a thousand rows at a time: column by column, text is made in half the time."""
    rows = iter(report.rows)
    while batch := list(islice(rows, _BATCH)):
        yield list(zip(*batch, strict=True))


_BATCH = 1000


def plain_texts(values: Sequence[Any], kind: str) -> Sequence[str]:
    """`plain` of the cells of a column, a thousand at a time: the text of equal cells is made once."""
    if kind in _NUMBERS:
        return list(map(str, values))
    if values and type(values[0]) is str and values.count(values[0]) == len(values):  # As in most columns.
        return [plain(values[0], kind)] * len(values)
    if kind == "text":
        texts = list(map(str, values))
        return texts if "".join(texts).isprintable() else list(map(printable, texts))
    return _texts(values, kind, plain)


def shown_texts(values: Sequence[Any], kind: str) -> Sequence[str]:
    """`shown` of the cells of a column, as `plain_texts`."""
    return plain_texts(values, kind) if kind == "text" else _texts(values, kind, shown)


_NUMBERS = ("number", "real", "bytes")
# Kinds whose cells are hashable, and often equal.
_ALIKE = ("number", "bytes", "shape")


def _texts(values: Sequence[Any], kind: str, text: Callable[[Any, str], str]) -> Sequence[str]:
    if kind not in _ALIKE:
        return [text(value, kind) for value in values]
    known = {value: text(value, kind) for value in set(values)}
    return [known[value] for value in values]


def bars(numbers: Sequence[int]) -> str:
    """Numbers as bars of eight heights, the largest number highest; any number above 0 is seen, however small."""
    most = max(numbers, default=0)
    return "".join(_BARS[-(-number * 8 // most)] if number else " " for number in numbers)


_BARS = " ▁▂▃▄▅▆▇█"


def _member_text(member: Any) -> str:
    """A member of a collection: `VariableDef variable_name=w:0 trainable=true`."""
    if isinstance(member, dict):
        fields = (f"{key}={_member_text(value)}" for key, value in member.items() if key != "@type")
        return " ".join([str(member.get("@type", "")), *fields]).strip()
    if isinstance(member, list):
        return f"[{', '.join(map(_member_text, member))}]"
    if isinstance(member, bytes):
        return to_text(member) if len(member) <= 200 else f"({len(member):,} bytes)"
    return str(member).lower() if isinstance(member, bool) else str(member)


def is_right(column: Column) -> bool:
    """Whether the column's cells are flush right, as numbers are."""
    return column.kind in _NUMBERS


def telling_columns(report: Report, *, everything: bool = False) -> list[int]:
    """The columns that say something; details only if everything is asked for."""
    return [
        i
        for i, column in enumerate(report.columns)
        if (everything or not column.detail)
        and (column.default is None or any(row[i] != column.default for row in report.rows))
    ]
