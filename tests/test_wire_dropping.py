"""Fields dropped from many messages at once: what is left is what `edit` leaves, byte for byte."""

from collections.abc import Callable, Mapping

import pytest
from bundles import examples, field, padded
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CorruptionError
from ckpttool.wire import dropping
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import DROP, LENGTH, Rule, edit

RULES: Mapping[int, Rule] = {1: {4: DROP}, 2: {1: {3: {4: DROP}, 4: DROP}}, 3: DROP, 17: {300: DROP}}
OTHERS = (field(4, 7), field(1, 2**40), bytes.fromhex("0d01020304"), bytes.fromhex("2b08072c"), field(300, b"a"))


@st.composite
def messages(draw: st.DrawFn, depth: int = 3) -> bytes:
    """A message of fields with all kinds of tags and lengths, some of which are messages; often of a few numbers."""
    made = []
    for number, kind, size in draw(
        st.lists(
            st.tuples(st.sampled_from((1, 2, 3, 4, 17, 300)), st.integers(0, 9), st.sampled_from((0, 1, 130, 17_000))),
            max_size=4,
        )
    ):
        inner = draw(messages(depth - 1)) if depth and kind < 7 else b"x" * size
        header = encode_varint(number << 3 | LENGTH)
        if kind == 9:
            made.append(draw(st.sampled_from(OTHERS)))
        elif kind == 8:
            made.append(padded(number << 3 | LENGTH, 5) + padded(len(inner)) + inner)
        else:
            made.append(header + encode_varint(len(inner)) + inner)
    return b"".join(made)


def outcome(function: Callable[[bytes, Mapping[int, Rule]], bytes], data: bytes) -> bytes | tuple[str, int | None]:
    """What it makes of a message, or where it finds that this is none."""
    try:
        return function(data, RULES)
    except CorruptionError as error:
        return str(error), error.offset


@examples
@given(parts=st.lists(messages(), min_size=1, max_size=4), times=st.integers(1, 20), few=st.sampled_from((0, 1, 20)))
def test_as_edit_has_it(parts: list[bytes], times: int, few: int) -> None:
    """Whatever the fields are, and however many messages are walked side by side."""
    data = b"".join(field(1, part) + field(2, part) + part for part in parts) * times
    expected = outcome(edit, data)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(expected, bytes):  # Only what is refused may be left to `edit`.
            patch.delattr(dropping, "edit")
        patch.setattr(dropping, "_LARGE", 0)
        patch.setattr(dropping, "_FEW", few)
        patch.setattr(dropping, "_TOGETHER", 3)
        assert outcome(dropping.drop, data) == expected


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 16_383, 16_384, 3_000_000])
def test_lengths(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length takes fewer bytes where that many are enough for what is left."""
    monkeypatch.setattr(dropping, "_FEW", 1)
    for lost in (b"", b"x", b"x" * 127, b"x" * 17_000):
        data = field(1, field(1, b"y" * length) + field(4, lost)) * 3 + field(5, b"z" * dropping._LARGE)
        assert dropping.drop(data, RULES) == edit(data, RULES) != data


def test_nothing_to_drop() -> None:
    """The same bytes are the same object."""
    data = field(1, field(1, b"y")) * dropping._LARGE
    assert dropping.drop(data, RULES) is data


@pytest.mark.parametrize("end", [b"\x0a\x05abc", b"\x0a\x80", b"\x0a", b"\x0a\xff\x7f"])
def test_ends_early(end: bytes) -> None:
    """The last of many fields is cut short."""
    data = field(1, field(1, b"y" * 50) + field(4, b"x")) * (dropping._LARGE // 50) + end
    found = outcome(dropping.drop, data)
    assert found == outcome(edit, data)
    assert not isinstance(found, bytes)


@pytest.mark.parametrize("damaged", [field(1, b"\x0a\x05abc"), field(1, b"\x22\xff\x7f")])
@pytest.mark.parametrize("times", [1, 100])
def test_damaged(damaged: bytes, times: int) -> None:
    """What ends inside a field is refused, with its place: that of the first."""
    good = field(1, field(1, b"y" * 50) + field(4, b"x")) * (dropping._LARGE // 50)
    with pytest.raises(CorruptionError) as caught:
        dropping.drop(good + damaged * times, RULES)
    assert caught.value.offset is not None
    assert len(good) <= caught.value.offset < len(good) + len(damaged)
