"""Reports → a JSON document, row by row: a line for each, however many there are."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any

from ckpttool.render.cells import columns_of
from ckpttool.reports.report import Column, Report


def json_text(reports: Sequence[Report], schema: str, facts: dict[str, Any]) -> str:
    """The JSON document of reports."""
    return "".join(json_lines(reports, schema, facts))


def json_lines(reports: Sequence[Report], schema: str, facts: dict[str, Any]) -> Iterator[str]:
    """The JSON document of reports, in pieces.

    Args:
        reports: each becomes a list, under its key.
        schema: the document's name and version.
        facts: further keys.
    """
    yield f'{{\n "schema": {_json(schema)}'
    for key, value in facts.items():
        yield f",\n {_json(key)}: {_json(value, indent=1)}"
    for report in reports:
        yield f",\n {_json(report.key)}: "
        if report.key == "summary":
            yield _json({_key(name): value for name, value in report.rows}, indent=1)
            continue
        yield from _rows(report)
        if report.totals:
            yield f',\n "totals": {_json(report.totals, indent=1)}'
    yield "\n}\n"


def _rows(report: Report) -> Iterator[str]:
    if not report.rows:
        yield "[]"
        return
    keys = [_json(_key(column.name)).replace("%", "%%") for column in report.columns]
    row, before = f"\n  {{{', '.join(f'{key}: %s' for key in keys)}}}", "["
    for columns in columns_of(report):
        texts = [_texts(cells, column) for column, cells in zip(report.columns, columns, strict=True)]
        yield before + ",".join([row % cells for cells in zip(*texts, strict=True)])
        before = ","
    yield "\n ]"


def _texts(cells: Sequence[Any], column: Column) -> Sequence[str]:
    """The cells of a column. Names and numbers, of which there are most, need no encoder."""
    from json.encoder import encode_basestring_ascii

    types = set(map(type, cells))
    if types in ({int}, {str}) and cells.count(cells[0]) == len(cells):  # As in most columns.
        return [_json(_value(cells[0], column))] * len(cells)
    if types == {int}:
        return list(map(str, cells))
    if types == {str} and column.kind == "text":
        texts = list(map(encode_basestring_ascii, cells))
        return ["null" if text == '""' else text for text in texts] if column.default == "" else texts
    if types == {tuple} and column.kind == "shape":
        known = {shape: _json(shape) for shape in set(cells)}
        return [known[shape] for shape in cells]
    return [_json(_value(cell, column)) for cell in cells]


def _json(value: Any, *, indent: int | None = None) -> str:
    import json

    text = json.dumps(value, indent=indent, default=_default, allow_nan=False)
    return text if indent is None else text.replace("\n", "\n ")


def _key(name: str) -> str:
    return name.lower().replace(" ", "_").replace("#", "index")


def _value(value: Any, column: Column) -> Any:
    if column.kind == "tree":
        return value[1]
    if isinstance(value, str) and value == "" and (column.default == "" or column.kind == "shape"):
        return None
    return _finite(value) if column.kind in ("any", "real") else value


def _finite(value: Any) -> Any:
    """A number, or a member of a collection, for JSON: NaN and infinities, which JSON lacks, become strings."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _default(value: Any) -> Any:
    import base64

    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if hasattr(value, "tolist"):
        from ckpttool.render.arrays import nested

        return nested(value)
    raise TypeError(f"no JSON for {type(value)}")
