"""Choosing names by glob patterns, and finding near ones.

    *       anything within a segment (between two `/`)        dense/*        dense/kernel, not dense/kernel/Adam
    **      anything, across segments                          dense/**       both
    ?       one character, not `/`
    [ab]    one of these characters ([!ab]: none of them)

In a pattern without `/`, `*` matches anything: `*Adam*` finds `dense/kernel/Adam`.
"""

import re
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from itertools import islice


def selector(include: Sequence[str], exclude: Sequence[str] = ()) -> Callable[..., bool]:
    """Makes a test, of all the names of something, whether it is chosen: any name matches one of `include` (if there
    are any), and none matches one of `exclude`.
    """
    included, excluded = _test(include), _test(exclude)

    if not include and not exclude:
        return lambda *names: True

    def chosen(*names: str) -> bool:
        return (not include or any(map(included, names))) and not any(map(excluded, names))

    return chosen


def unmatched(globs: Sequence[str], names: Collection[str]) -> list[str]:
    """The patterns that match none of the names, which are a set or a mapping."""

    def matches(glob: str) -> bool:
        return glob in names if _is_name(glob) else any(map(_pattern(glob).fullmatch, names))

    return [glob for glob in dict.fromkeys(globs) if not matches(glob)]


def _test(globs: Sequence[str]) -> Callable[[str], bool]:
    """Makes a test of whether a name matches one of the patterns."""
    # Who gives thousands gives names, as a program writes them. These are looked up, and not tried on every name.
    exact = set(filter(_is_name, globs))
    patterns = [_pattern(glob) for glob in globs if glob not in exact]
    return lambda name: name in exact or any(pattern.fullmatch(name) for pattern in patterns)


def _is_name(glob: str) -> bool:
    """Whether a pattern matches nothing but itself."""
    return not any(wildcard in glob for wildcard in "*?[")


def _pattern(glob: str) -> re.Pattern[str]:
    if "/" not in glob:
        return re.compile(_translate(glob, star=".*"), re.DOTALL)
    parts = []
    segments = glob.split("/")
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment == "**":
            parts.append(".*" if last else "(?:[^/]*/)*")
        else:
            parts.append(_translate(segment, star="[^/]*") + ("" if last else "/"))
    return re.compile("".join(parts), re.DOTALL)


def _translate(segment: str, star: str) -> str:
    """One segment of a glob as a regular expression."""
    regex = ""
    for part in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", segment, re.DOTALL):
        if part[0] == "*":
            regex += star if part == "*" else ".*"
        elif part == "?":
            regex += "[^/]"
        else:
            regex += _character_class(part) or re.escape(part)
    return regex


def _character_class(part: str) -> str | None:
    """`[ab]` or `[!a-c]` as a regular expression; None if it is not one, and stands for itself."""
    members = part[1:-1].removeprefix("!")
    if part[0] != "[" or not members:
        return None
    # Each range and character is escaped by itself: `re` would take two hyphens in a row for something else.
    items = re.findall(r"(.)-(.)|(.)", members, re.DOTALL)
    found = [re.escape(one) if one else f"{re.escape(a)}-{re.escape(z)}" for a, z, one in items if one or a <= z]
    if part[1] == "!":
        return f"[^/{''.join(found)}]"
    return f"[{''.join(found)}]" if found else "(?!)"  # A range such as z-a matches nothing.


class NearNames:
    """Finds near names for many names, within a second or two in all: they may be many, and as long as a file."""

    def __init__(self) -> None:
        self._left = 60_000

    def of(self, name: str, others: Collection[str], count: int = 1) -> list[str]:
        """The nearest of the others, the nearest first; none, if to look for them would take too long."""
        if len(name) > _LONGEST or len(others) > self._left:
            return []
        alike = [other for other in others if len(other) <= _LONGEST]
        # A comparison takes time in proportion to the product of the lengths.
        self._left -= len(others) + len(name) * sum(map(len, alike)) // _AT_ONCE
        return get_close_matches(name, alike, count) if self._left >= 0 else []


_LONGEST, _AT_ONCE = 256, 400


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in a message: the first few, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def counted(number: int, noun: str) -> str:
    """1, "variable" → "1 variable"; 2 → "2 variables"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def such(count: int, what: str = "variables") -> str:
    """What follows a remark about the first of several: " (3 such variables)"; nothing, if it is the only one."""
    return f" ({count:,} such {what})" if count > 1 else ""


def near_hint(name: str, others: Collection[str]) -> str | None:
    """A hint with the names most like one that is not there, and those that contain its last segment."""
    near = NearNames().of(name, others, 3)
    last = name.rpartition("/")[2].partition(":")[0].casefold()

    def contains(other: str) -> bool:  # A single letter, which is in nearly every name, as a segment.
        folded = other.casefold()
        return last in (folded.split("/") if len(last) == 1 else folded)

    near += islice((other for other in others if last and other not in near and contains(other)), 3 - len(near))
    return f"near names: {', '.join(near)}" if near else None


def choices_hint(name: str, others: Collection[str]) -> str:
    """A hint for a name that is not there: near names, else the first ones that there are."""
    return near_hint(name, others) or f"there are {listed(list(others), 9) or 'none'}"


def require_one_of(what: str, value: str, known: Collection[str]) -> None:
    """Raises ValueError unless the value of an argument, which `what` names, is a known one."""
    if value not in known:
        raise ValueError(f"{what} is {value!r}, and must be one of {', '.join(known)}")
