"""Which names a glob pattern chooses."""

import re

import pytest
from bundles import examples, time_limit
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.model import names
from ckpttool.model.names import near_hint, selector, such, unmatched

GLOBS: list[tuple[str, list[str], list[str]]] = [
    ("dense/kernel", ["dense/kernel"], ["dense", "dense/kernel/Adam", "x/dense/kernel", "dense/kerne", "Dense/kernel"]),
    ("kernel", ["kernel"], ["dense/kernel", "kernels"]),
    ("*", ["", "a", "a/b", "a/b/c"], []),
    ("**", ["", "a", "a/b", "a/b/c"], []),
    ("*Adam*", ["Adam", "dense/kernel/Adam", "dense/kernel/Adam_1", "Adam/m/w"], ["dense/kernel", "adam"]),
    ("*kernel", ["kernel", "dense/kernel", "a/b/mykernel"], ["dense/kernel/Adam"]),
    ("dense*", ["dense", "dense/kernel", "dense_1/kernel/Adam"], ["x/dense"]),
    ("dense/*", ["dense/kernel", "dense/"], ["dense", "dense/kernel/Adam", "x/dense/kernel"]),
    ("dense/**", ["dense/kernel", "dense/kernel/Adam", "dense/"], ["dense", "dense_1/kernel"]),
    ("*/kernel", ["dense/kernel", "/kernel"], ["kernel", "a/dense/kernel"]),
    ("**/kernel", ["kernel", "dense/kernel", "a/b/kernel"], ["mykernel", "kernel/Adam", "a/kernels"]),
    ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab", "a/b/c", "xa/b"]),
    ("a/*/b", ["a/x/b", "a//b"], ["a/b", "a/x/y/b"]),
    ("**/a/**", ["a/b", "x/a/b", "x/y/a/b/c"], ["a", "xa/b", "x/ab/c"]),
    ("a/**/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab"]),
    ("layer_?/w", ["layer_1/w", "layer_x/w"], ["layer_/w", "layer_10/w", "layer_//w"]),
    ("a?b", ["a.b", "axb"], ["a/b", "ab", "axxb"]),
    ("layer_[01]/w", ["layer_0/w", "layer_1/w"], ["layer_2/w", "layer_/w", "layer_01/w"]),
    ("layer_[0-4]/w", ["layer_0/w", "layer_4/w"], ["layer_5/w", "layer_-/w"]),
    ("layer_[!01]/w", ["layer_2/w", "layer_!/w"], ["layer_0/w", "layer_1/w"]),
    ("[a]", ["a"], ["b", "[a]"]),
    ("[]]", ["]"], ["[", "a"]),
    ("[!]]", ["a", "["], ["]"]),
    ("[]a]", ["]", "a"], ["b"]),
    ("[a^]", ["a", "^"], ["b"]),
    ("[^a]", ["a", "^"], ["b"]),
    ("[a-]", ["a", "-"], ["b"]),
    ("[\\d]", ["\\", "d"], ["1"]),
    ("[[a]", ["[", "a"], ["b"]),
    ("[a", ["[a"], ["a"]),
    ("a]", ["a]"], ["a"]),
    ("[]", ["[]"], ["", "a"]),
    ("[!]", ["[!]"], ["a", "!"]),
    ("[9-0]", [], ["9", "5"]),
    ("[9-05]", ["5"], ["9", "0"]),
    ("[a--b]*", ["b", "bc"], ["a", "-"]),
    ("[--a]", ["-", "5", "a"], ["b"]),
    ("[&&]", ["&"], ["a"]),
    ("dense/k**", ["dense/k", "dense/kernel", "dense/kernel/Adam"], ["dense/bias", "k"]),
    ("d**/Adam", ["d/Adam", "dense/kernel/Adam"], ["x/Adam", "dense/Adam/m"]),
    ("a/b[!x]c", ["a/b.c"], ["a/bxc", "a/b/c"]),
    ("a.b", ["a.b"], ["axb"]),
    ("a+", ["a+"], ["aa", "a"]),
    ("(a|b)", ["(a|b)"], ["a", "b"]),
    ("a\\b", ["a\\b"], ["ab"]),
    ("w$", ["w$"], ["w"]),
    ("^w", ["^w"], ["w"]),
    ("{a,b}", ["{a,b}"], ["a", "b"]),
    ("", [""], ["a"]),
    ("a*b", ["ab", "a\nb", "a/x\ny/b"], ["a\n"]),
    ("a/*", ["a/x\ny", "a/\udcff"], ["a/b\n/c"]),
    ("a", ["a"], ["a\n"]),
    ("*/.ATTRIBUTES/*", ["w/.ATTRIBUTES/VARIABLE_VALUE"], ["a/w/.ATTRIBUTES/VARIABLE_VALUE"]),
    ("a/b**c/d", ["a/bc/d", "a/bxc/d", "a/bx/c/d", "a/b/c/d"], ["a/bx/d", "a/x/bc/d"]),
]


@pytest.mark.parametrize(("glob", "chosen", "left"), GLOBS, ids=[repr(row[0]) for row in GLOBS])
def test_globs(glob: str, chosen: list[str], left: list[str]) -> None:
    """A pattern chooses these names and leaves those."""
    choose = selector([glob])
    assert [name for name in chosen + left if choose(name)] == chosen


@pytest.mark.parametrize(
    ("include", "exclude", "chosen"),
    [
        ([], [], ["a", "a/b", "c"]),
        (["a"], [], ["a"]),
        (["a", "c"], [], ["a", "c"]),
        ([], ["a"], ["a/b", "c"]),
        ([], ["a", "c"], ["a/b"]),
        (["a*"], ["a/*"], ["a"]),
        (["a"], ["a"], []),
        (["nothing"], [], []),
    ],
)
def test_include_and_exclude(include: list[str], exclude: list[str], chosen: list[str]) -> None:
    """A name is chosen if any pattern includes it, or there is none, and no pattern excludes it."""
    choose = selector(include, exclude)
    assert [name for name in ["a", "a/b", "c"] if choose(name)] == chosen


@examples
@given(st.text("ab*?[]!-^\\/.", max_size=8), st.text("ab*?[]!-^\\/.", max_size=8))
def test_any_pattern(glob: str, name: str) -> None:
    """Every text is a pattern."""
    assert selector([glob])(name) in (True, False)


@examples
@given(st.text("ab_/.+()$^", max_size=12), st.text("ab_/.+()$^", max_size=12))
def test_names_are_patterns_of_themselves(name: str, other: str) -> None:
    """A name without wildcards chooses itself and nothing else."""
    choose = selector([name])
    assert choose(name)
    assert choose(other) == (name == other)


@pytest.mark.parametrize(("glob", "chosen", "left"), GLOBS, ids=[repr(row[0]) for row in GLOBS])
def test_patterns_that_match_nothing(glob: str, chosen: list[str], left: list[str]) -> None:
    """A pattern matches none of the names if it chooses none."""
    assert unmatched([glob, glob], set(left)) == [glob]
    assert unmatched([glob], {*chosen, *left}) == ([] if chosen else [glob])


def test_many_names_as_patterns_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only patterns with wildcards are tried on every name: a program gives thousands without."""
    tried: list[str] = []
    monkeypatch.setattr(names, "_pattern", lambda glob: tried.append(glob) or re.compile(""))
    many = [f"layer_{number}/w" for number in range(100)]
    assert all(map(selector([*many, "x?"], ["y", "a]", "{b}"]), many))
    assert unmatched([*many, "y"], set(many)) == ["y"]
    assert tried == ["x?"]


def test_near_names_of_long_ones_cost_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a comparison grows with the product of the lengths: of long names, fewer are compared."""
    asked: list[int] = []

    def counting(name: str, others: list[str], count: int) -> list[str]:
        asked.append(sum(len(name) * len(other) for other in others))
        return others[:count]

    monkeypatch.setattr(names, "get_close_matches", counting)
    for length in (10, 200):
        near, many = names.NearNames(), [f"{number:0{length}}" for number in range(2_000)]
        asked.clear()
        for _ in range(40):
            near.of("9" * length, many)
        assert sum(asked) <= 60_000 * 400
        assert bool(asked) == (length == 10)


def test_near_names_are_offered_among_many_too():
    """Among many names the like ones are found by their last part, and in no time."""
    names = [f"layer_{number}/out" for number in range(100_000)]
    with time_limit(2):
        assert near_hint("layer_77/ou", names) == "near names: layer_0/out, layer_1/out, layer_2/out"
        assert near_hint("zzz", names) is None
        assert near_hint("zzz/", names) is None
    assert near_hint("layer_77/ou", names[77:79]) == "near names: layer_77/out, layer_78/out"


def test_a_single_letter_is_near_a_segment_alone():
    """A name of one letter is found where a segment is that letter, and not in every name that contains it."""
    assert near_hint("x", ["conv/kernel/ExponentialMovingAverage", "model/x"]) == "near names: model/x"
    assert near_hint("x", ["conv/kernel/ExponentialMovingAverage"]) is None


def test_how_many_there_are_is_said_of_several():
    """Of the only one, nothing is said; of several, how many they are."""
    assert such(1) == ""
    assert such(1_200) == " (1,200 such variables)"
    assert such(2, "ops") == " (2 such ops)"
