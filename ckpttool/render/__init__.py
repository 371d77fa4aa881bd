"""Report → text: a table for people (`tables`), TSV, CSV, Markdown or JSON (`documents`) for programs; `cells` has what
they share.

Nothing else in the project prints, and nothing else imports rich.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ckpttool.model.names import counted
from ckpttool.render.cells import (
    columns_of,
    human_bytes,
    is_right,
    plain_texts,
    printable,
    shown,
    telling_columns,
)
from ckpttool.render.documents import json_lines, json_text
from ckpttool.render.tables import print_tables
from ckpttool.reports.report import Report

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FORMATS",
    "counted",
    "escape_what_cannot_be_encoded",
    "human_bytes",
    "json_text",
    "print_array",
    "printable",
    "progress",
    "render",
    "say",
]

FORMATS = ("table", "tsv", "csv", "json", "md")


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
        sys.stdout.writelines(json_lines(reports, schema, facts))
    elif format == "table":
        print_tables(reports, everything=everything)
    else:
        for number, report in enumerate(reports):
            if len(reports) > 1:
                print(f"{chr(10) if number else ''}# {printable(report.title)}")
            _PRINTERS[format](report)


def escape_what_cannot_be_encoded() -> None:
    """Makes standard output escape what its encoding can't hold, as Python itself does on standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _print_tsv(report: Report) -> None:
    sys.stdout.write("\t".join(column.name for column in report.columns) + "\n")
    for columns in columns_of(report):
        texts = (plain_texts(cells, column.kind) for column, cells in zip(report.columns, columns, strict=True))
        print("\n".join(map("\t".join, zip(*texts, strict=True))))


def _print_csv(report: Report) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(column.name for column in report.columns)
    for columns in columns_of(report):
        texts = (plain_texts(cells, column.kind) for column, cells in zip(report.columns, columns, strict=True))
        writer.writerows(zip(*texts, strict=True))


def _print_md(report: Report) -> None:
    telling = [(i, report.columns[i]) for i in telling_columns(report)]
    _print_md_row(column.name for _, column in telling)
    _print_md_row("---:" if is_right(column) else "---" for _, column in telling)
    for row in report.rows:
        _print_md_row(_md_text(shown(row[i], column.kind)) for i, column in telling)


def _print_md_row(cells: Iterable[str]) -> None:
    print("|", " | ".join(cells), "|")


def _md_text(text: str) -> str:
    """The text with what would end the cell, or be taken for markup or HTML, escaped."""
    return re.sub(r"([\\|*`<])", r"\\\1", text)


_PRINTERS: dict[str, Callable[[Report], None]] = {"tsv": _print_tsv, "csv": _print_csv, "md": _print_md}


def print_array(
    array: "np.ndarray[Any, Any]",
    precision: int | None,
    *,
    indices: Sequence[Sequence[int]] | None = None,
    shape: Sequence[int] | None = None,
) -> None:
    """Prints an array to standard output; or the edges of a large one, given their indices and its shape."""
    from ckpttool.render.arrays import array_text

    sys.stdout.writelines(array_text(array, precision, indices=indices, shape=shape))
    print()


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a callback to be called with how many more bytes are done.

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


def say(message: str) -> None:
    """A line on standard error, where Python escapes what can't be encoded.

    Where that can't be written, as to a full disk, the line is lost: what was done is done all the same.
    """
    try:
        print(printable(message), file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError:
        # What is still buffered must not raise once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
