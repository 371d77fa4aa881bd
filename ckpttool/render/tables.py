"""Tables for people, by rich, which is imported only when one is printed.

Nothing is cut but rows, and the table says so. Every column's width is settled here: where all columns fit, or the rows
are too many for rich, rows are padded and printed; where some columns must be folded, rich folds them; where even that
leaves too little room, each row is printed as lines of `column: value`.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from ckpttool.model.names import counted
from ckpttool.render.cells import human_bytes, is_right, printable, shown_texts, telling_columns
from ckpttool.reports.report import Column, Report

if TYPE_CHECKING:
    from rich.console import Console

# A rich table costs 0.6 ms a row: more rows than this are not shown unless they are asked for, and then plainly.
_TABLE_ROWS = 500
_OVERVIEW_ROWS = 25
# No column is folded to less than this: nearly every dtype is whole in it.
_LEAST_WIDTH = 8
# Columns that can be spared are left out before any column is folded to less than this.
_READABLE = 16


def print_tables(reports: Sequence[Report], *, everything: bool) -> None:
    """Prints reports as tables that fit their terminal; all rows, or as many as one cares to look at."""
    # TERM=dumb, NO_COLOR and COLUMNS are rich's to honor. Not on a terminal, nothing is folded at 80 columns.
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    if os.environ.get("COLUMNS") == "0":  # The width is not known; rich would take it to be none.
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    limit = None if everything else _TABLE_ROWS if len(reports) == 1 else _OVERVIEW_ROWS
    for number, report in enumerate(reports):
        if number:
            console.print()
        _print_report(console, report, limit)
        for total in report.totals:
            console.print(_total_text(total), style="bold" if total["of"] == "total" else None)


def _total_text(total: dict[str, Any]) -> str:
    return (
        f"{total['of']}: {counted(total['variables'], 'variable')}, {counted(total['parameters'], 'parameter')},"
        f" {human_bytes(total['bytes'])}"
    )


def _print_report(console: "Console", report: Report, limit: int | None) -> None:
    from rich.text import Text

    count = "" if report.says_count else f" ({len(report.rows):,})"
    console.print(Text(_encodable([printable(report.title) + count], console.encoding)[0], style="bold"))
    of_many, what = (report.rows, []) if limit is None or report.brief is None else report.brief
    rows = list(islice(of_many, limit))
    telling = telling_columns(report, everything=limit is None)
    columns = [_Cells(report.columns[i], [row[i] for row in rows], console.encoding) for i in telling]
    left_out = [*(f"{text} (--all)" for text in what)]
    left_out += [f"{len(of_many) - len(rows):,} more (--all)"] if len(rows) < len(of_many) else []
    if limit is not None:
        columns, needless = _without_needless(columns, console.width)
        left_out += needless
    widths = None if len(rows) > _TABLE_ROWS else _fitted(columns, console.width)
    show_header = report.key != "summary"
    if len(rows) > _TABLE_ROWS or widths == [column.width for column in columns]:
        _print_padded(console, columns, show_header=show_header)
    elif widths:
        _print_folded(console, columns, widths, show_header=show_header)
    else:
        _print_records(console, columns)
    for text in left_out:
        console.print(f"… {text}")


class _Cells:
    """A column as text, with its width."""

    def __init__(self, column: Column, values: Sequence[Any], encoding: str) -> None:
        self.name, self.end, self.told_by, self.spare = column.name, column.end, column.told_by, column.spare
        self.once = column.once
        self.is_right, self.is_path = is_right(column), column.kind == "path"
        self.texts = _encodable(shown_texts(values, column.kind), encoding)
        self._paths = [path for _, path, _ in values] if column.kind == "tree" else None

    @property
    def said(self) -> Sequence[str]:
        """What the cells say: in a tree, the whole paths."""
        return self._paths or self.texts

    def shorten(self) -> bool:
        """Takes the common end from the cells, except where it tells two apart; returns whether any lost it."""
        if not self.end:
            return False
        known, before = set(self.texts), self.texts
        short = [text.removesuffix(self.end) for text in before]
        self.texts = [text if less in known else less for text, less in zip(before, short, strict=True)]
        return self.texts != before

    def without_directory(self) -> str:
        """Takes the directory that all paths share from them, and returns it; "" if there is none."""
        directories = {os.path.dirname(text) for text in self.texts if text} if self.is_path else set()
        if len(directories) != 1:
            return ""
        self.texts = [os.path.basename(text) for text in self.texts]
        return directories.pop()

    @cached_property
    def widths(self) -> list[int]:
        return _widths(self.texts)

    @cached_property
    def width(self) -> int:
        return max(len(self.name), *self.widths, 0)

    @cached_property
    def longest(self) -> int:
        """The width of the longest piece of a cell or the name that is kept whole; in a tree, with the indent."""
        return min(self.width, max(_LEAST_WIDTH, *map(_longest_piece, (self.name, *self.texts))))

    def padded(self) -> Iterator[str]:
        """The cells, all as wide as the column."""
        blanks = (" " * (self.width - width) for width in self.widths)
        pairs = zip(blanks, self.texts, strict=True)
        return (blank + text for blank, text in pairs) if self.is_right else (text + blank for blank, text in pairs)


def _without_needless(columns: Sequence[_Cells], width: int) -> tuple[list[_Cells], list[str]]:
    """The columns without what `Column` says a table can leave out; and lines about what the rows don't tell then."""
    shortened = {column.end: column for column in reversed(columns) if column.shorten()}
    left_out = [f"{column.name}s without {end} (--all)" for end, column in shortened.items()]
    left_out += [f"{c.name}s are in {directory}" for c in columns if (directory := c.without_directory())]
    told = _untold(columns)
    same = [column for column in told if column.once and len(column.texts) > 1 and len(set(column.texts)) == 1]
    left_out += [f"{column.name}: {column.texts[0]}, in every row" for column in same]
    told = [column for column in told if column not in same]
    kept = _unspared(told, width)
    spared = [column.name for column in told if column not in kept]
    return kept, [*left_out, f"{', '.join(spared)} (--all, or a wider terminal)"] if spared else left_out


def _untold(columns: Sequence[_Cells]) -> list[_Cells]:
    """The columns without what another one says; a column that says nothing else is left out."""
    by_name = {column.name: column for column in columns}
    for column in columns:
        if teller := by_name.get(column.told_by):
            pairs = zip(column.texts, teller.said, strict=True)
            column.texts = ["" if text == said else text for text, said in pairs]
    return [column for column in columns if not column.told_by or any(column.texts)]


def _unspared(columns: Sequence[_Cells], width: int) -> list[_Cells]:
    """The columns without as many spare ones, from the last on, as must go for the others to be readable.

    Those that another column tells in part go first. Where the table would be too narrow even so, none goes.
    """
    kept = list(columns)
    for column in sorted((column for column in reversed(columns) if column.spare), key=lambda each: not each.told_by):
        if _are_readable(kept, _fitted(kept, width)):
            break
        kept.remove(column)
    return kept if _fitted(kept, width) else list(columns)


def _are_readable(columns: Sequence[_Cells], widths: Sequence[int] | None) -> bool:
    return widths is not None and all(
        width >= min(column.width, _READABLE) for column, width in zip(columns, widths, strict=True)
    )


def _widths(texts: Sequence[str]) -> list[int]:
    """How many columns of the terminal each text takes."""
    from rich.cells import cell_len

    return [len(text) if text.isascii() else cell_len(text) for text in texts]


def _encodable(texts: Sequence[str], encoding: str) -> Sequence[str]:
    """The texts with what the encoding can't hold escaped: done before widths are measured."""
    if encoding.startswith("utf"):
        return texts
    return [text.encode(encoding, "backslashreplace").decode(encoding) for text in texts]


def _fitted(columns: Sequence[_Cells], width: int) -> list[int] | None:
    """Widths with which the columns fit together: the widest are narrowed, numbers never; None if there are none.

    No word or segment of a name is broken or, if some must be, only the longest.
    """
    room = width - 3 * len(columns) + 1  # Between columns there are three blanks, at the edges two.
    if sum(column.width for column in columns) <= room:
        return [column.width for column in columns]
    least = [column.width if column.is_right else min(column.width, _LEAST_WIDTH) for column in columns]
    if sum(least) > room:
        return None
    for longest in range(room, _LEAST_WIDTH - 1, -1):
        least = [column.width if column.is_right else min(column.longest, longest) for column in columns]
        if sum(least) <= room:
            break
    most = next(most for most in range(room, -1, -1) if sum(_narrowed(columns, least, most)) <= room)
    return _narrowed(columns, least, most)


def _narrowed(columns: Sequence[_Cells], least: Sequence[int], most: int) -> list[int]:
    return [min(column.width, max(most, each)) for column, each in zip(columns, least, strict=True)]


def _print_folded(console: "Console", columns: Sequence[_Cells], widths: list[int], *, show_header: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_header=show_header, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        justify: Any = "right" if column.is_right else "left"
        table.add_column(Text(column.name), justify=justify, overflow="fold", width=width)
    for cells in zip(*(column.texts for column in columns), strict=True):
        table.add_row(*(Text(_broken(text, width)) for text, width in zip(cells, widths, strict=True)))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _broken(text: str, width: int) -> str:
    """The text in lines that end behind a word or, within a name, behind a segment; all keep the text's indent.

    What is not ASCII may be wider than it is long, and is left to rich.
    """
    rest = text.lstrip(" ")
    if len(text) <= width or not text.isascii():
        return text
    indent = min(len(text) - len(rest), width // 2)
    room, lines = width - indent, []
    while len(rest) > room:
        end = rest.rfind(" ", 1, room + 1) + 1  # The space itself is not part of the line.
        end = end or rest.rfind("/", room // 3, room) + 1 or rest.rfind("_", room // 3, room) + 1
        end = end or _early_end(rest, room) or room
        lines.append(rest[:end].rstrip(" "))
        rest = rest[end:]
    return "\n".join(f"{' ' * indent}{line}" for line in [*lines, rest])


def _early_end(text: str, room: int) -> int:
    """Where a line may end early, however short it gets, to keep the next piece whole; 0 if that piece is too long."""
    end = max(text.rfind("/", 1, room), text.rfind("_", 1, room)) + 1
    piece = _PIECES.match(text, end)
    return end if piece and len(piece[0]) <= room else 0


def _longest_piece(text: str) -> int:
    """The length of the longest piece that `_broken` leaves whole, behind the indent."""
    rest = text.lstrip(" ")
    return len(text) - len(rest) + max(map(len, _PIECES.findall(rest)), default=0)


_PIECES = re.compile(r"[/_]*[^ /_]+[/_]?|[/_]+")


def _print_records(console: "Console", columns: Sequence[_Cells]) -> None:
    """A few lines a row, for terminals too narrow for a table; cells that are empty are left out."""
    from rich.text import Text

    for row in zip(*(column.texts for column in columns), strict=True):
        console.print()
        for column, text in zip(columns, row, strict=True):
            if text:
                console.print(Text(f"{column.name}: {text}"))
    console.print()


def _print_padded(console: "Console", columns: Sequence[_Cells], *, show_header: bool) -> None:
    """Prints any number of rows, at the speed of printing; the terminal folds what is wider than it is."""
    console.print()
    if show_header:
        header = [c.name.rjust(c.width) if c.is_right else c.name.ljust(c.width) for c in columns]
        width = min(sum(c.width + 3 for c in columns) - 3, console.width - 1)
        console.out(f" {'   '.join(header).rstrip()}", style="bold", highlight=False)
        console.out(f" {('-' if console.options.ascii_only else '─') * width}", highlight=False)
    for cells in zip(*(column.padded() for column in columns), strict=True):
        sys.stdout.write(f" {'   '.join(cells).rstrip()}\n")
    console.print()
