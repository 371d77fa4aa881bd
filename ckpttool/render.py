"""Report → text: a table for people (the only place where rich is used for output), TSV, CSV, JSON or Markdown for
programs.

Names come from files that anybody may have made: whatever could drive a terminal is escaped in every form of output.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from ckpttool.reports import Column, Report

FORMATS = ("table", "tsv", "csv", "json", "md")
# A rich table costs 0.6 ms a row: more rows than this are not shown unless they are asked for, and then plainly.
_TABLE_ROWS = 500
_OVERVIEW_ROWS = 25
_FOLDED_WIDTH = 24


def render(
    reports: Sequence[Report], *, format: str | None, schema: str, facts: dict[str, Any], everything: bool = False
) -> None:
    """Prints reports to standard output.

    Args:
        reports: what to print.
        format: one of FORMATS; None: a table on a terminal, else TSV.
        schema: the name and version of the JSON document.
        facts: further keys of the JSON document.
        everything: never cut a table.
    """
    format = format or ("table" if sys.stdout.isatty() else "tsv")
    if format == "json":
        _print_json(reports, schema, facts)
    elif format == "table":
        limit = _TABLE_ROWS if len(reports) == 1 else _OVERVIEW_ROWS
        _print_tables(reports, None if everything else limit)
    else:
        for number, report in enumerate(reports):
            if len(reports) > 1:
                print(f"{chr(10) if number else ''}# {report.title}")
            _PRINTERS[format](report)


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


def _plain(value: Any, kind: str) -> str:
    """A cell for programs: numbers bare, shapes as [2,3]."""
    if kind == "shape" and not isinstance(value, str):
        return "?" if value is None else f"[{','.join('?' if size is None else str(size) for size in value)}]"
    if kind == "list":
        return printable(",".join(value))
    if kind == "tree":
        return printable(value[1])
    if kind == "any":
        return printable(_member_text(value))
    return printable(str(value))


def _shown(value: Any, kind: str) -> str:
    """A cell for people."""
    if kind == "number":
        return f"{value:,}"
    if kind == "bytes":
        return human_bytes(value)
    if kind == "shape" and value == ():
        return "scalar"
    if kind == "list":
        return printable(", ".join(value))
    if kind == "tree":
        depth, _, label = value
        return f"{'  ' * depth}{printable(label)}"
    return _plain(value, kind)


def _member_text(member: Any) -> str:
    """A member of a collection: `VariableDef variable_name=w:0 trainable=true`."""
    if isinstance(member, dict):
        fields = (f"{key}={_member_text(value)}" for key, value in member.items() if key != "@type")
        return " ".join([str(member.get("@type", "")), *fields]).strip()
    if isinstance(member, list):
        return f"[{', '.join(map(_member_text, member))}]"
    if isinstance(member, bytes):
        return member.decode(errors="surrogateescape") if len(member) <= 200 else f"({len(member):,} bytes)"
    return str(member).lower() if isinstance(member, bool) else str(member)


def _print_tsv(report: Report) -> None:
    out = sys.stdout
    kinds = [column.kind for column in report.columns]
    out.write("\t".join(column.name for column in report.columns) + "\n")
    for row in report.rows:
        out.write("\t".join([_plain(value, kind) for value, kind in zip(row, kinds, strict=True)]) + "\n")


def _print_csv(report: Report) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(column.name for column in report.columns)
    for row in report.rows:
        writer.writerow(_plain(value, c.kind) for value, c in zip(row, report.columns, strict=True))


def _print_md(report: Report) -> None:
    def line(cells: Iterator[str]) -> None:
        print("|", " | ".join(cell.replace("|", "\\|") for cell in cells), "|")

    line(column.name for column in report.columns)
    line("---:" if _is_right(column) else "---" for column in report.columns)
    for row in report.rows:
        line(_shown(value, c.kind) for value, c in zip(row, report.columns, strict=True))


_PRINTERS: dict[str, Callable[[Report], None]] = {"tsv": _print_tsv, "csv": _print_csv, "md": _print_md}


def _print_json(reports: Sequence[Report], schema: str, facts: dict[str, Any]) -> None:
    import json

    document: dict[str, Any] = {"schema": schema, **facts}
    for report in reports:
        if report.key == "summary":
            document[report.key] = {_key(name): value for name, value in report.rows}
            continue
        keys = [_key(column.name) for column in report.columns]
        kinds = [column.kind for column in report.columns]
        document[report.key] = [
            {key: _json_value(v, kind) for key, v, kind in zip(keys, row, kinds, strict=True)} for row in report.rows
        ]
        if report.totals:
            document["totals"] = report.totals
    json.dump(document, sys.stdout, indent=1, default=_json_default)
    print()


def _key(name: str) -> str:
    return name.lower().replace(" ", "_").replace("#", "index")


def _json_value(value: Any, kind: str) -> Any:
    if kind == "tree":
        return value[1]
    if kind == "shape":
        return None if value == "" else value
    return value


def _json_default(value: Any) -> Any:
    import base64

    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"no JSON for {type(value)}")


def _is_right(column: Column) -> bool:
    return column.kind in ("number", "bytes")


def _print_tables(reports: Sequence[Report], limit: int | None) -> None:
    # TERM=dumb, NO_COLOR and COLUMNS are rich's to honor. Not on a terminal, nothing is cut at 80 columns.
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 1000
    console = Console(file=sys.stdout, width=width, highlight=False)
    for number, report in enumerate(reports):
        if number:
            console.print()
        if limit is None and len(report.rows) > _TABLE_ROWS:
            _print_long_table(report)
        else:
            _print_table(console, report, limit)
        for total in report.totals:
            console.print(_total_text(total), style="bold" if total["of"] == "total" else None, markup=False)


def _total_text(total: dict[str, Any]) -> str:
    return (
        f"{total['of']}: {_counted(total['variables'], 'variable')}, {_counted(total['parameters'], 'parameter')},"
        f" {human_bytes(total['bytes'])}"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _telling_columns(report: Report) -> list[int]:
    """The columns that say something."""
    return [
        i
        for i, column in enumerate(report.columns)
        if column.default is None or any(row[i] != column.default for row in report.rows)
    ]


def _print_table(console: Any, report: Report, limit: int | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    columns = _telling_columns(report)
    table = Table(
        title=Text(f"{report.title} ({len(report.rows):,})" if report.key != "summary" else report.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_header=report.key != "summary",
        pad_edge=False,
    )
    rows = [[_shown(row[i], report.columns[i].kind) for i in columns] for row in report.rows[:limit]]
    headers = [report.columns[i].name for i in columns]
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    # On a narrow terminal the names and what is as wide are folded, and the rest is kept, if that is enough.
    folded = [n == 0 or width >= _FOLDED_WIDTH for n, width in enumerate(widths)]
    kept = sum(width + 3 for width, fold in zip(widths, folded, strict=True) if not fold)
    for i, width, fold in zip(columns, widths, folded, strict=True):
        justify: Any = "right" if _is_right(report.columns[i]) else "left"
        least = None if fold or kept > console.width - _FOLDED_WIDTH else width
        table.add_column(report.columns[i].name, justify=justify, overflow="fold", min_width=least)
    if sum(widths) + 3 * len(widths) <= console.width:
        # Nothing needs folding: one row of cells with many lines costs rich a quarter of as many rows.
        rows = [["\n".join(column) for column in zip(*rows, strict=True)]]
    for cells in rows:
        table.add_row(*map(Text, cells))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.out(line.rstrip(), highlight=False)
    if limit is not None and len(report.rows) > limit:
        console.print(f"… {len(report.rows) - limit:,} more (--all)", markup=False)


def _print_long_table(report: Report) -> None:
    """Rows in widths laid out once: as many as there are, at the speed of printing."""
    telling = _telling_columns(report)
    columns = [report.columns[i] for i in telling]
    cells = [[column.name for column in columns]]
    cells += [[_shown(row[i], report.columns[i].kind) for i in telling] for row in report.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (
            cell.rjust(width) if _is_right(column) else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives the callback that is told of bytes done.

    It draws a bar on standard error, if that is a terminal and there is a second's work or more.
    """
    if total < 512 << 20 or not sys.stderr.isatty():
        yield lambda nbytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    bar = Progress(
        label, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda nbytes: bar.advance(task, nbytes)


def say(message: str, file: IO[str] | None = None) -> None:
    """A line on standard error."""
    print(printable(message), file=file or sys.stderr)
