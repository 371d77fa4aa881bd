"""Reports as text: tables lose nothing on any terminal, Markdown is a table whatever the names, no encoding fails."""

import csv
import io
import json
import os
import re
from collections import Counter

import pytest
from conftest import FIXTURES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ckpttool import render
from ckpttool.render import tables
from ckpttool.render.cells import plain, telling_columns
from ckpttool.reports.report import Column, Report, Rows

CONV, RECURRENT = FIXTURES / "conv" / "model", FIXTURES / "recurrent" / "model"
COMMANDS = [
    ["vars", CONV],
    ["vars", CONV, "--tree"],
    *(["vars", FIXTURES / name / "model"] for name in ("many", "names", "slots", "sharded", "partitioned", "empty")),
    ["vars", FIXTURES / "many" / "model", "--tree"],
    ["ls", CONV],
    ["ls", FIXTURES / "devices" / "model.meta"],
    ["ls", CONV, "--ops", "--all"],
    ["ls", RECURRENT, "--collections", "--all"],
    ["ls", FIXTURES / "partitioned" / "model", "--variables"],
    ["io", CONV],
    ["io", RECURRENT],
    ["state", CONV.parent],
]
WIDE = 5000


def report_of(columns: list[Column], *rows: tuple, key: str = "rows") -> Report:
    return Report(key, "Rows", columns, list(rows))


def texts(*names: str) -> Report:
    return report_of([Column("name")], *((name,) for name in names))


@pytest.fixture
def printed(monkeypatch, capsys):
    """Prints a report on a terminal of some width and gives what was printed."""

    def printed(report: Report, format: str = "table", columns: int = 100, everything: bool = False) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        render.render([report], format=format, schema="test/1", facts={}, everything=everything)
        return capsys.readouterr().out

    return printed


def characters(text: str, report: Report) -> Counter[str]:
    """The characters of a table but blanks and rules; those of a column's name once, though records repeat it."""
    names = [report.columns[i].name for i in telling_columns(report)]
    names = [name for name in names if f"… {name}: " not in text]  # What is said once, below.
    named = re.compile(f"^({'|'.join(map(re.escape, names))}): ", re.MULTILINE)
    if report.key == "summary":
        text = named.sub("", text)
    elif "─" not in text:
        text = named.sub("", text) + "".join(names)
    return Counter(re.sub(r"[\s─]", "", text))


def assert_nothing_is_lost(report: Report, printed, columns: int) -> None:
    wide, narrow = printed(report, columns=WIDE), printed(report, columns=columns)
    assert characters(narrow, report) == characters(wide, report)
    assert all(cell_len(line) <= columns for line in narrow.splitlines())


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(str(part).split("fixtures/")[-1] for part in c))
def test_tables_lose_nothing(run, monkeypatch, printed, command, columns):
    """On a terminal of any width a table has every character that it has on a wide one, in lines that fit."""
    reports = []
    monkeypatch.setattr(render, "render", lambda shown, **options: reports.extend(shown))
    assert run(*command).exit_code == 0
    monkeypatch.undo()
    assert reports
    for report in reports:
        assert_nothing_is_lost(report, printed, columns)


CELLS = {
    "text": st.text(st.characters(exclude_categories=["Z"]) | st.sampled_from("ab/ 字é"), max_size=60),
    "number": st.integers(0, 10**9),
    "bytes": st.integers(0, 10**15),
    "shape": st.none() | st.just("") | st.lists(st.none() | st.integers(0, 999), max_size=8).map(tuple),
    "list": st.lists(st.text("abc/字", max_size=30), max_size=4),
    "tree": st.tuples(st.integers(0, 30), st.just("path"), st.text("abc/字", min_size=1, max_size=30)),
}


@st.composite
def any_report(draw: st.DrawFn) -> Report:
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=9))
    rows = draw(st.lists(st.tuples(*(CELLS[kind] for kind in kinds)), min_size=1, max_size=5))
    return report_of([Column(f"column{i}", kind) for i, kind in enumerate(kinds)], *rows)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=any_report(), columns=st.integers(20, 130))
def test_any_table_loses_nothing(printed, report, columns):
    """The same for any cells of any kinds, wide characters among them."""
    assert_nothing_is_lost(report, printed, columns)


def test_numbers_are_never_folded(printed):
    """Where a table is narrowed, the names are; numbers stay whole."""
    report = report_of([Column("name"), Column("count", "number")], ("n" * 60, 123_456_789))
    assert "123,456,789" in printed(report, columns=40)


def test_what_fits_is_not_folded(printed):
    """On a terminal that is just wide enough every row is one line."""
    out = printed(texts("n" * 76), columns=78)
    assert out.splitlines() == ["Rows (1)", "", " name", f" {'─' * 76}", f" {'n' * 76}", ""]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("conv/kernel/ExponentialMovingAverage", ["conv/kernel/", "ExponentialMovingAve", "rage"]),
        ("moving_variance_of_all", ["moving_variance_of_", "all"]),
        ("batch_renormalization/gamma", ["batch_", "renormalization/", "gamma"]),
        ("see optimizer/_variables/1", ["see", "optimizer/", "_variables/1"]),
        ("a/bcdefghijklmnopqrstuvwxyz", ["a/bcdefghijklmnopqrs", "tuvwxyz"]),
        ("one two three four five", ["one two three four", "five"]),
    ],
)
def test_names_are_folded_behind_segments(printed, text, lines):
    """A text is folded at blanks, a name behind a slash or an underscore; not if a line is all but empty then, and the
    next one breaks a word all the same.
    """
    report = report_of([Column("name"), Column("count", "number")], (text, 123_456_789))
    rows = [line[1:].removesuffix("123,456,789").rstrip() for line in printed(report, columns=36).splitlines()[4:]]
    assert [row for row in rows if row] == lines


def test_a_tree_that_is_folded_keeps_its_depth(printed):
    """The lines of a cell of a tree begin where its first one does, if there is room."""
    rows = [((0, "optimizer", "optimizer"), "a" * 30), ((2, "optimizer/_all", "_trainable_variables"), "b")]
    out = printed(report_of([Column("object", "tree"), Column("kind")], *rows), columns=40).splitlines()
    assert [line[:19].rstrip() for line in out[6:8]] == ["     _trainable_", "     variables"]


def test_no_word_is_broken_while_longer_ones_can_be_narrowed(printed):
    """The widest column gives way first, but none below its longest word or segment, as long as all of them fit."""
    columns = [Column("direction"), Column("tensor"), Column("shape", "shape"), Column("reason")]
    row = ("input", "placeholders/of/images:0", (128, 128, 3), "the input pipeline gives it")
    out = printed(report_of(columns, row), columns=58).splitlines()
    assert out[2:6] == [
        " direction   tensor          shape         reason",
        " ───────────────────────────────────────────────────────",
        " input       placeholders/   [128,128,3]   the input",
        "             of/images:0                   pipeline",
    ]
    long = printed(report_of(columns, ("input", "p" * 50, (128, 128, 3), "pipeline")), columns=58).splitlines()
    assert long[2].split() == ["direction", "tensor", "shape", "reason"]
    assert long[4].split() == ["input", "p" * 19, "[128,128,3]", "pipeline"]


def test_moving_averages_fit_80_columns(printed):
    """The names that TensorFlow gives to averages are folded at their segments on a terminal of the usual width."""
    columns = [Column("name"), Column("dtype"), Column("shape", "shape"), Column("parameters", "number")]
    columns += [Column("bytes", "bytes"), Column("role")]
    names = {"fc1/kernel/Adam_1": "Adam slot", "fc1/kernel/ExponentialMovingAverage": "moving average"}
    rows = [(name, "float32", (784, 32), 25_088, 100_352, role) for name, role in names.items()]
    assert printed(report_of(columns, *rows), columns=80).splitlines()[4:] == [
        " fc1/kernel/Adam_1          float32   [784,32]       25,088   100 kB   Adam",
        "                                                                       slot",
        " fc1/kernel/                float32   [784,32]       25,088   100 kB   moving",
        " ExponentialMovingAverage                                              average",
        "",
    ]


END = "/.end"


def test_a_common_end_is_said_once(printed):
    """What all names end in is below the table, what a name tells is not said again; with --all all is as it is."""
    columns = [Column("name", end=END), Column("object", default="", told_by="name"), Column("count", "number")]
    report = report_of(columns, ("a/w/.end", "a/w", 1), ("a/b/.end", "a/b", 2), ("c", "", 3))
    assert printed(report).splitlines() == [
        "Rows (3)",
        "",
        " name   count",
        " ────────────",
        " a/w        1",
        " a/b        2",
        " c          3",
        "",
        "… names without /.end (--all)",
    ]
    assert printed(report, everything=True).splitlines()[2:5] == [
        " name       object   count",
        " ─────────────────────────",
        " a/w/.end   a/w          1",
    ]
    other = report_of(columns, ("a/w/.end", "a/w", 1), ("a/b/.end", "other", 2))
    assert printed(other).splitlines()[2:6] == [
        " name   object   count",
        " ─────────────────────",
        " a/w                 1",
        " a/b    other        2",
    ]
    for format in ("tsv", "csv", "json", "md"):
        assert printed(report, format).count(END) == 2


def test_a_common_directory_is_said_once(printed):
    """Where all files are in one directory, it is below the table; with --all, and of several, paths are whole."""
    columns = [Column("kind"), Column("file", "path", "")]
    report = report_of(columns, ("a", "/runs/one/m.index"), ("b", "/runs/one/m.meta"), ("c", ""))
    out = [line.split() for line in printed(report).splitlines()[4:]]
    assert out == [["a", "m.index"], ["b", "m.meta"], ["c"], [], ["…", "files", "are", "in", "/runs/one"]]
    assert printed(report, everything=True).count("/runs/one/m.") == printed(report, "tsv").count("/runs/one/m.") == 2
    assert printed(report_of(columns, ("a", "/runs/m"), ("b", "/runs/two/m"))).count("/runs/") == 2


def test_no_two_names_look_alike_without_their_end(printed):
    """An end stays where without it the name would be another one's."""
    report = report_of([Column("name", end=END)], ("w/.end",), ("w",), ("v/.end",))
    assert [line.strip() for line in printed(report).splitlines()[4:7]] == ["w/.end", "w", "v"]


def test_what_a_tree_tells_is_not_said_again(printed):
    """A key that is the path of its object, which the tree shows, is left out; another one is not."""
    columns = [Column("object", "tree"), Column("key", default="", end=END, told_by="object")]
    rows = [((0, "a", "a"), ""), ((1, "a/w", "w"), "a/w/.end"), ((1, "a/v", "v"), "b/v/.end")]
    out = printed(report_of(columns, *rows)).splitlines()
    assert out[2:-2] == [" object   key", " ────────────", " a", "   w", "   v      b/v"]


def test_what_all_rows_have_is_said_once(printed):
    """What is to be said once is below the table, if all rows have it; not of a single row, nor if all is asked for."""
    columns = [Column("name"), Column("certainty", default="stated", once=True)]
    same = report_of(columns, ("a", "inferred"), ("b", "inferred"))
    assert printed(same).splitlines()[2:] == [" name", " ────", " a", " b", "", "… certainty: inferred, in every row"]
    assert printed(same, everything=True).splitlines()[2].split() == ["name", "certainty"]
    assert printed(same, "md").splitlines()[0] == "| name | certainty |"
    for rows in ([("a", "inferred")], [("a", "inferred"), ("b", "stated")]):
        assert printed(report_of(columns, *rows)).splitlines()[2].split() == ["name", "certainty"]


def test_what_can_be_spared_goes_first(printed):
    """On a narrow terminal a table is without its last spare columns, which are named below it; records have all."""
    columns = [Column("name"), Column("kind", spare=True), Column("size", "number"), Column("bars", spare=True)]
    report = report_of(columns, ("n" * 20, "k" * 10, 123_456_789, "b" * 16))
    headers = {width: printed(report, columns=width).splitlines()[2].split() for width in (70, 62, 42, 34)}
    assert headers[70] == ["name", "kind", "size", "bars"]
    assert headers[62] == ["name", "kind", "size"]
    assert headers[42] == headers[34] == ["name", "size"]
    assert printed(report, columns=62).splitlines()[-1] == "… bars (--all, or a wider terminal)"
    assert printed(report, columns=42).splitlines()[-1] == "… kind, bars (--all, or a wider terminal)"
    records = printed(report, columns=20)
    assert [line.split(":")[0] for line in records.splitlines() if ":" in line] == ["name", "kind", "size", "bars"]
    assert "--all" not in records
    everything = printed(report, columns=62, everything=True)
    assert everything.splitlines()[2].split() == headers[70]
    assert "--all" not in everything


def test_what_is_told_in_part_is_spared_before_all_else(printed):
    """Of two columns that can be spared, that goes first of which another one tells a part."""
    columns = [Column("name"), Column("object", default="", told_by="name", spare=True), Column("full", spare=True)]
    out = printed(report_of(columns, ("n" * 20, "o" * 20, "f" * 20), ("a", "a", "b")), columns=50).splitlines()
    assert (out[2].split(), out[-1]) == (["name", "full"], "… object (--all, or a wider terminal)")


def test_narrow_terminals_get_records(printed):
    """Where columns would be too narrow to read, a row is lines of `column: value`."""
    report = report_of([Column(name) for name in "abcd"], ("one", "two", "", "four"), ("1", "2", "3", "4"))
    wide = report_of([Column(name) for name in "abcd"], ("one" * 9, "two" * 9, "", "four" * 9))
    assert printed(report, columns=40).splitlines()[2] == " a     b     c   d"
    assert printed(wide, columns=30).splitlines()[1:5] == ["", f"a: {'one' * 9}", f"b: {'two' * 9}", "d: "]


def test_an_empty_table_has_no_row(printed):
    """A report without rows is its title and its columns' names."""
    assert printed(texts()).splitlines() == ["Rows (0)", "", " name", " ────", ""]


def test_long_tables_look_like_tables(printed):
    """Beyond rich's reach a table has title, header and rule, and wide characters are measured."""
    columns = [Column("name"), Column("count", "number"), Column("device", default="")]
    report = report_of(columns, ("字字字", 1, ""), *(("abc", 1000, "") for _ in range(600)))
    assert printed(report, everything=True).splitlines()[:6] == [
        "Rows (601)",
        "",
        " name     count",
        " ──────────────",
        " 字字字       1",
        " abc      1,000",
    ]


def test_a_column_is_measured_once(printed, monkeypatch):
    """Its width is not looked for again in each of its rows, which would take hours of a million of them."""
    passes = []

    class Widths(list):
        def __iter__(self):
            passes.append(len(self))
            return super().__iter__()

    monkeypatch.setattr(tables, "_widths", lambda texts: Widths(map(len, texts)))
    printed(texts(*map(str, range(1000))), everything=True)
    assert passes.count(1000) < 5


def test_rows_are_made_as_they_are_printed(printed):
    """Of rows that are made when they are asked for, as many are there at a time as are printed together."""
    there: list[int] = [0, 0]

    class Cell(str):
        def __init__(self, text: str) -> None:
            there[0] += 1
            there[1] = max(there)

        def __del__(self) -> None:
            there[0] -= 1

    rows = Rows(range(20_000), lambda numbers: ((Cell(f"name_{number}"), number) for number in numbers))
    columns = [Column("name"), Column("count", "number")]
    for format in ("tsv", "csv", "json"):
        out = printed(Report("rows", "Rows", columns, rows), format)
        assert out.count("name_") == 20_000
    assert there[1] < 3_000


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(report=any_report())
def test_any_cells_for_programs(printed, report):
    """Column by column, cells become what each of them alone is: in TSV, in CSV, in JSON."""
    lines = printed(report, "tsv").splitlines()
    kinds = [column.kind for column in report.columns]
    cells = [list(map(plain, row, kinds)) for row in report.rows]
    assert lines == ["\t".join(row) for row in [[column.name for column in report.columns], *cells]]
    assert list(csv.reader(io.StringIO(printed(report, "csv"))))[1:] == cells
    rows = json.loads(printed(report, "json"))["rows"]
    assert [list(row) for row in rows] == [[column.name for column in report.columns]] * len(cells)


def test_markdown_is_a_table(printed):
    """What would end a cell or a row or be markup is escaped; columns that say nothing are left out."""
    columns = [Column("name"), Column("device", default=""), Column("count", "number")]
    out = printed(report_of(columns, ("a|b\\|c\nd", "", 1), ("<b>*`", "", 2000)), "md")
    assert out.splitlines() == [
        "| name | count |",
        "| --- | ---: |",
        r"| a\|b\\\|c\\nd | 1 |",
        r"| \<b>\*\` | 2,000 |",
    ]


def test_json_has_null_for_nothing(printed):
    """A cell that says nothing in a column that may is null; an empty name is a name."""
    columns = [Column("name"), Column("slot of", default=""), Column("shape", "shape"), Column("on", default="")]
    (row,) = json.loads(printed(report_of(columns, ("", "", "", "yes")), "json"))["rows"]
    assert row == {"name": "", "slot_of": None, "shape": None, "on": "yes"}


def test_titles_are_escaped(printed):
    """A title with a path in it can't drive the terminal."""
    report = Report("rows", "Checkpoints in \x1b[2J", [Column("name")], [])
    assert printed(report).splitlines()[0] == r"Checkpoints in \x1b[2J (0)"


ENCODINGS = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]


@pytest.mark.parametrize("environment", ENCODINGS, ids=lambda environment: next(iter(environment)))
@pytest.mark.parametrize("format", render.FORMATS)
def test_every_encoding_will_do(fresh_python, format, environment):
    """On an ASCII terminal what can't be encoded is escaped, in output that fits and in messages."""
    script = (
        "from ckpttool import render; from ckpttool.reports.report import Column, Report\n"
        r"report = Report('rows', '\xe9', [Column('name')], [('\xe9\u5b57' * 9,)])"
        "\nrender.escape_what_cannot_be_encoded()"
        f"\nrender.render([report, report], format={format!r}, schema='', facts={{}})\n"
        r"render.say('\u5b57')"
    )
    done = fresh_python("-c", script, env={**os.environ, **environment, "COLUMNS": "40"})
    assert (done.returncode, done.stderr) == (0, "\\u5b57\n")
    assert done.stdout.isascii()
    assert "u5b57" in done.stdout
    assert format != "table" or max(map(len, done.stdout.splitlines())) <= 40


@pytest.mark.parametrize(("number", "text"), [(0, "0 ops"), (1, "1 op"), (2, "2 ops"), (1234, "1,234 ops")])
def test_counted(number, text):
    """A noun agrees with its number."""
    assert render.counted(number, "op") == text


def test_a_width_that_is_not_known(run, monkeypatch):
    """COLUMNS=0, as some programs set it, is no width: the table is as without."""
    command = ["vars", FIXTURES / "conv" / "model", "--format", "table"]
    monkeypatch.delenv("COLUMNS", raising=False)
    wanted = run(*command).stdout
    monkeypatch.setenv("COLUMNS", "0")
    assert run(*command).stdout == wanted
