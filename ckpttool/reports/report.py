"""A report: a title, columns, rows.

Cells hold values as they are (numbers, shapes, names straight from the file); `render` makes text of them, by the
kind of their column.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A column: its name and what its cells are.

    Kinds: text; path (of a file); number; real (one with a fraction); bytes (a number of them); shape (a tuple, None in
    it or for it: not known); list (of text); histogram (numbers, drawn as bars); tree (depth, path, label); any
    (whatever a collection holds). A column says nothing if all its cells are `default`, and is left out on a terminal.

    Unless everything is asked for, a table leaves out:

    - a `detail` column;
    - the `end` that many texts share, the directory that all paths share, and the value that all cells of a `once`
      column share: these are said below the table;
    - a text that the column `told_by` contains already;
    - a `spare` column, if the terminal is narrow.
    """

    name: str
    kind: str = "text"
    default: Any = None
    detail: bool = False
    end: str = ""
    told_by: str = ""
    spare: bool = False
    once: bool = False


Row = tuple[Any, ...]


class Rows(Collection[Row]):
    """Rows that are made anew for each iteration, so that a million of them are never in memory together.

    Args:
        items: the items that have rows.
        make: makes the rows of items.
    """

    def __init__(self, items: Sequence[Any], make: Callable[[Iterable[Any]], Iterator[Row]]) -> None:
        self._items, self._make = items, make

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Row]:
        return self._make(self._items)

    def __contains__(self, row: object) -> bool:
        return any(row == each for each in self)


class Report(NamedTuple):
    """A table.

    Attributes:
        key: its name in JSON.
        title: its title, which `render` follows with the number of rows, unless `says_count`.
        columns: the columns.
        rows: a tuple of cells for each row.
        totals: the sums beneath it: a label, and the numbers of variables, parameters and bytes.
        says_count: the title contains the number of rows already.
        brief: the rows of a table that need not show everything, and lines about the rows left out.
    """

    key: str
    title: str
    columns: Sequence[Column]
    rows: Collection[Row]
    totals: Sequence[dict[str, Any]] = ()
    says_count: bool = False
    brief: tuple[Sequence[Row], Sequence[str]] | None = None
