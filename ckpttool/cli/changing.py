"""What `export` is asked to change, read from the texts of its options: rules for names, dtypes to cast to."""

from typing import TYPE_CHECKING

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import FormatError

if TYPE_CHECKING:
    from ckpttool.transforms.variables import Rule


def rules(texts: list[str] | None, file: str | None) -> "list[Rule]":
    """The rules for names: those of the file, then those given.

    In the file, spaces around a rule are not part of it; lines that begin with # are comments.
    A # behind a rule is part of it, and is refused after a space: most likely it was to begin a comment.
    """
    found = []
    for number, line in enumerate(_lines(file) if file is not None else (), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            rule = _rule(text, where := f"{file}, line {number}: ", "--rename-file")
            what = f"{where}only whole lines are comments: {text!r}"
            options.refuse(" #" in rule.replacement, render.printable(what))
            found.append(rule)
    return found + [_rule(text, "", "--rename") for text in texts or ()]


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8-sig") as stream:
            return stream.readlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"no text in UTF-8: {error.reason}", path=file, offset=error.start) from error


def _rule(text: str, where: str, option: str) -> "Rule":
    from ckpttool.transforms.variables import Rule

    try:
        return Rule.parse(text)
    except ValueError as error:
        raise typer.BadParameter(render.printable(f"{where}{error}"), param_hint=option) from error


def dtypes(to: str | None, pairs: str | None) -> dict[str, str]:
    """The casts that are asked for: old dtype → new dtype."""
    from ckpttool.transforms.changes import dtypes_of

    if to is not None:
        _check_cast("float32", to, "--cast")
    mapped: dict[str, str] = {}
    for pair in pairs.split(",") if pairs is not None else ():
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new) or "=" in new:
            raise typer.BadParameter(f"{pairs!r} is not OLD=NEW,…", param_hint="--dtype-map")
        if mapped.setdefault(old, new) != new:
            raise typer.BadParameter(f"{old} cannot become {mapped[old]} and {new}", param_hint="--dtype-map")
        _check_cast(old, new, "--dtype-map")
    return dtypes_of(to, mapped)


def _check_cast(old: str, new: str, option: str) -> None:
    from ckpttool.transforms.casting import check_cast

    try:
        check_cast(old, new)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error
