"""Walking and editing messages: what protobuf makes of the result, and that nothing else has changed."""

from typing import Any

import pytest
from bundles import examples, field, padded
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CorruptionError
from ckpttool.proto import message_class
from ckpttool.wire.coding import encode_varint
from ckpttool.wire.message import DROP, FIXED32, FIXED64, GROUP, LENGTH, VARINT, Rule, edit, fields, values_of

LONG = b"x" * 200  # Has a length of two bytes.


GROUP_5 = bytes.fromhex("2b") + field(1, 7) + field(2, b"abc") + bytes.fromhex("2c")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (bytes.fromhex("08ac02"), [(1, VARINT, 0, 1, 3)]),
        (bytes.fromhex("0a0161"), [(1, LENGTH, 0, 2, 3)]),
        (bytes.fromhex("0a00"), [(1, LENGTH, 0, 2, 2)]),
        (bytes.fromhex("0d01020304"), [(1, FIXED32, 0, 1, 5)]),
        (bytes.fromhex("090102030405060708"), [(1, FIXED64, 0, 1, 9)]),
        (field(16, b"a"), [(16, LENGTH, 0, 3, 4)]),
        (field(2**29 - 1, b"a"), [(2**29 - 1, LENGTH, 0, 6, 7)]),
        (field(1, LONG), [(1, LENGTH, 0, 3, 203)]),
        (b"\x0a" + padded(1) + b"a", [(1, LENGTH, 0, 11, 12)]),
        (b"\x8a\x80\x00\x01a", [(1, LENGTH, 0, 4, 5)]),
        (field(1, 2**64 - 1) + field(2, 0), [(1, VARINT, 0, 1, 11), (2, VARINT, 11, 12, 13)]),
        (GROUP_5 + field(1, 1), [(5, GROUP, 0, 1, 9), (1, VARINT, 9, 10, 11)]),
    ],
    ids=[
        *("nothing", "varint", "string", "empty string", "four bytes", "eight bytes", "tag of two bytes"),
        *("tag of five bytes", "length of two bytes", "length of ten bytes", "tag longer than need be"),
        *("varint of ten bytes", "group"),
    ],
)
def test_fields(data: bytes, expected: list[tuple[int, int, int, int, int]]) -> None:
    """Fields come with their number and wire type, and where they, their value, and the next one start; those alone
    that are wanted, if that is said.
    """
    assert list(fields(data)) == expected
    for wanted in ({1}, {2, 5}, {16: None}, ()):
        assert list(fields(data, wanted)) == [field for field in expected if field[0] in wanted]


@pytest.mark.parametrize(
    "hex_",
    [
        *("08", "0880", "0a", "0a01", "0a80", "0a8001", "0aff01", "0affffffffffffffffff01", "0affffffffffffffffff02"),
        *("0d010203", "09010203040506", "80", "0001", "0201", "0c", "0e00", "0f00", "0b", "0b14", "0b0c0c", "0b08"),
        *("0b13140c13", "0b0a05610c", "ffffffffff0100", "8080808080808080808001", "07"),
        "0b8880808010000c",
    ],
)
def test_no_message(hex_: str) -> None:
    """Bytes that end inside a field, and tags that there are not, are refused with their position."""
    with pytest.raises(CorruptionError) as caught:
        list(fields(bytes.fromhex(hex_)))
    assert caught.value.offset is not None


def test_values_of_a_field() -> None:
    """A field's values are those of its number that are bytes, in order."""
    assert list(values_of(field(1, 7) + field(1, b"one") + field(2, b"x") + field(1, b""), 1)) == [b"one", b""]


def test_groups_nest() -> None:
    """Groups are skipped as deep as protobuf does, and are no way to the end of the stack."""
    assert len(list(fields(b"\x0b" * 90 + b"\x0c" * 90))) == 1
    with pytest.raises(CorruptionError):
        list(fields(b"\x0b" * 100_000 + b"\x0c" * 100_000))


@examples
@given(st.binary(max_size=60))
def test_fields_of_any_bytes(data: bytes) -> None:
    """Whatever is walked, fields follow one another without a gap to the end, or CorruptionError is raised."""
    try:
        found = list(fields(data))
    except CorruptionError:
        return
    ends = [0, *(end for *_, end in found)]
    assert [start for _, _, start, _, _ in found] == ends[:-1]
    assert ends[-1] == len(data)


def upper(value: bytes) -> bytes:
    return value.upper()


ONE = field(1, b"one")
INNER = field(2, field(1, b"in") + field(3, 7))
REST = field(4, 300) + field(9, b"kept") + GROUP_5

CHANGES: dict[str, tuple[bytes, dict[int, Rule], bytes]] = {
    "drop": (ONE + REST, {1: DROP}, REST),
    "drop the last": (REST + ONE, {1: DROP}, REST),
    "drop the only one": (ONE, {1: DROP}, b""),
    "drop every one": (ONE + REST + ONE + ONE, {1: DROP}, REST),
    "drop a long one": (field(1, LONG) + REST, {1: DROP}, REST),
    "drop one with a tag of two bytes": (REST + field(16, b"a") + REST, {16: DROP}, REST + REST),
    "drop one with a length of ten bytes": (b"\x0a" + padded(3) + b"one" + REST, {1: DROP}, REST),
    "replace": (ONE + REST, {1: upper}, field(1, b"ONE") + REST),
    "replace by nothing": (ONE + REST, {1: lambda value: None}, REST),
    "replace by an empty one": (ONE + REST, {1: lambda value: b""}, field(1, b"") + REST),
    "replace by a longer one": (REST + ONE, {1: lambda value: LONG}, REST + field(1, LONG)),
    "replace some": (ONE + field(1, b"x") + REST, {1: lambda v: v if v == b"x" else None}, field(1, b"x") + REST),
    "nested": (INNER + REST, {2: {1: DROP}}, field(2, field(3, 7)) + REST),
    "nested to nothing": (field(2, ONE) + REST, {2: {1: DROP}}, field(2, b"") + REST),
    "nested twice": (field(3, INNER * 2) + REST, {3: {2: {1: DROP}}}, field(3, field(2, field(3, 7)) * 2) + REST),
    "length becomes shorter": (field(2, ONE + field(9, LONG[:123])), {2: {1: DROP}}, field(2, field(9, LONG[:123]))),
    "length becomes longer": (
        field(2, field(1, b"a") + field(9, LONG[:120])),
        {2: {1: lambda value: b"abcde"}},
        field(2, field(1, b"abcde") + field(9, LONG[:120])),
    ),
    "several rules": (
        ONE + INNER + REST,
        {1: upper, 2: {3: DROP, 1: upper}},
        b"".join([field(1, b"ONE"), field(2, field(1, b"IN") + field(3, 7)), REST]),
    ),
}


@pytest.mark.parametrize(("data", "rules", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_edit(data: bytes, rules: dict[int, Rule], expected: bytes) -> None:
    """The fields with rules change, lengths around them are mended, and all other bytes are as they were."""
    assert edit(data, rules) == expected


UNCHANGED: dict[str, tuple[bytes, dict[int, Rule]]] = {
    "nothing": (b"", {1: DROP}),
    "no rules": (ONE + REST, {}),
    "no such field": (ONE + REST, {8: DROP, 2: {1: DROP}}),
    "replaced by the same": (ONE + REST, {1: bytes}),
    "replaced by an equal one": (ONE + REST, {1: lambda value: bytes(bytearray(value))}),
    "nothing nested": (INNER + REST, {2: {8: DROP}}),
    "an empty message": (field(2, b"") + REST, {2: {1: DROP}}),
    "a varint": (field(1, 7) + REST, {1: DROP}),
    "four bytes": (bytes.fromhex("0d01020304"), {1: DROP}),
    "eight bytes": (bytes.fromhex("090102030405060708"), {1: {1: DROP}}),
    "a group": (GROUP_5, {5: DROP, 1: DROP, 2: DROP}),
    "lengths longer than need be": (b"\x12" + padded(5) + ONE, {2: {7: DROP}}),
}


@pytest.mark.parametrize(("data", "rules"), UNCHANGED.values(), ids=UNCHANGED.keys())
def test_unchanged(data: bytes, rules: dict[int, Rule]) -> None:
    """Where no rule changes anything, the result is the very same object."""
    assert edit(data, rules) is data


def test_wire_type_of_another_kind() -> None:
    """A field with a rule is left alone where its wire type is not that of a string, and changed where it is."""
    assert edit(field(1, 7) + ONE + field(1, 8), {1: DROP}) == field(1, 7) + field(1, 8)


@pytest.mark.parametrize("data", [b"\x0a", field(2, b"\x0a")], ids=["outside", "inside"])
def test_edit_of_no_message(data: bytes) -> None:
    """What is no message can't be edited; what is not gone into is not looked at."""
    with pytest.raises(CorruptionError):
        edit(data, {2: {1: DROP}})
    assert edit(field(3, b"\x0a"), {2: {1: DROP}}) == field(3, b"\x0a")


names = st.text("abc/_0", max_size=8)
tensors = st.builds(
    lambda values, size: message_class("TensorProto")(dtype=1, float_val=values, tensor_content=b"\x0a" * size),
    st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    st.integers(0, 300),
)
attr_values = st.one_of(
    st.builds(lambda v: message_class("AttrValue")(s=v), st.binary(max_size=200)),
    st.builds(lambda v: message_class("AttrValue")(i=v), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: message_class("AttrValue")(f=v), st.floats(width=32, allow_nan=False)),
    st.builds(lambda v: message_class("AttrValue")(type=v), st.integers(0, 130)),
    st.builds(lambda v: message_class("AttrValue")(tensor=v), tensors),
    st.builds(lambda v: message_class("AttrValue")(list={"s": v}), st.lists(st.binary(max_size=9), max_size=3)),
    st.builds(lambda v: message_class("AttrValue")(func={"name": v}), names),
)
devices = st.sampled_from(["", "", "/gpu:0", "/job:worker/replica:0/task:0/" + "d" * 200])


@st.composite
def node_defs(draw: st.DrawFn) -> Any:
    node = message_class("NodeDef")(name=draw(names), op=draw(names), device=draw(devices))
    node.input.extend(draw(st.lists(names, max_size=3)))
    for key, value in draw(st.dictionaries(names, attr_values, max_size=3)).items():
        node.attr[key].CopyFrom(value)
    return node


DEVICE = 4


@examples
@given(node_defs())
def test_drop_is_clear_field(node: Any) -> None:
    """A message without a field is what protobuf makes by clearing it, whatever else it has."""
    edited = message_class("NodeDef").FromString(edit(node.SerializeToString(), {DEVICE: DROP}))
    node.ClearField("device")
    assert edited == node


@examples
@given(st.lists(node_defs(), max_size=4), st.lists(node_defs(), max_size=3), st.binary(max_size=5))
def test_nested_drop_is_clear_field(nodes: list[Any], inner: list[Any], unknown: bytes) -> None:
    """Fields are dropped at every depth as protobuf clears them, and fields unknown to it stay at the end."""
    graph = message_class("GraphDef")(node=nodes)
    function = graph.library.function.add(node_def=inner)
    function.signature.name = "f"
    tail = field(900, unknown)
    edited = edit(graph.SerializeToString() + tail, {1: {DEVICE: DROP}, 2: {1: {3: {DEVICE: DROP}}}})
    assert edited.endswith(tail)
    for node in [*graph.node, *function.node_def]:
        node.ClearField("device")
    assert message_class("GraphDef").FromString(edited[: len(edited) - len(tail)]) == graph


@examples
@given(node_defs(), st.permutations(range(6)))
def test_order_is_kept(node: Any, order: list[int]) -> None:
    """The order of fields is the writer's, whatever it is."""
    data = node.SerializeToString()
    pieces = [(number, data[start:end]) for number, _, start, _, end in fields(data)]
    shuffled = [pieces[i] for i in order if i < len(pieces)]
    kept = [piece for number, piece in shuffled if number != DEVICE]
    assert edit(b"".join(piece for _, piece in shuffled), {DEVICE: DROP}) == b"".join(kept)


@examples
@given(st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 2**29 - 1))
def test_replaced_value(old: bytes, new: bytes, number: int) -> None:
    """A replaced value has the right tag and length, for every number and size."""
    around = encode_varint(8), encode_varint(1)
    data = b"".join([*around, field(number, old), *around])
    expected = b"".join([*around, field(number, new), *around])
    assert edit(data, {number: lambda value: new if value == old else value}) == expected
