"""The messages of an index and the values of string variables: what protobuf and TensorFlow make of the same bytes."""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import encode_strings, examples, field, header, shape_message, slice_message, time_limit
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError
from ckpttool.formats.records.entries import (
    BundleEntry,
    BundleHeader,
    check_version,
    decode_bundle_entry,
    decode_bundle_header,
    encode_bundle_entry,
    plain_entry,
)
from ckpttool.formats.records.entries import _decode_any_entry as decode_any_entry
from ckpttool.formats.records.shapes import box_of, decode_extents, decode_shape, encode_extents, encode_slice_key
from ckpttool.formats.records.slices import decode_saved_slice, decode_slices_meta
from ckpttool.formats.records.strings import decode_strings
from ckpttool.model.boxes import Extents
from ckpttool.proto import message_class
from ckpttool.wire.crc32c import unmask
from ckpttool.wire.sstable import Table


@pytest.mark.parametrize(
    ("hex_", "expected"),
    [
        ("08011a020801", BundleHeader(1, False)),
        ("", BundleHeader(0, False)),
        ("080210011a020801", BundleHeader(2, True)),
        ("08011000", BundleHeader(1, False)),
        ("08ffffffffffffffffff01", BundleHeader(-1, False)),
        ("0801" + "0803", BundleHeader(3, False)),
        ("0801" + "7a0161" + "5007", BundleHeader(1, False)),
    ],
    ids=["TensorFlow's", "empty", "big-endian", "explicit little", "negative", "the last one counts", "unknown fields"],
)
def test_bundle_header(hex_: str, expected: BundleHeader) -> None:
    """A header is its number of shards and its byte order, zero and little where it says nothing."""
    assert decode_bundle_header(bytes.fromhex(hex_)) == expected


def test_header_of_v1() -> None:
    """The first record of a V1 checkpoint is told from a header."""
    message = message_class("SavedTensorSlices")()
    message.meta.tensor.add(name="w")
    with pytest.raises(FormatError, match="V1"):
        decode_bundle_header(message.SerializeToString())


@pytest.mark.parametrize("endianness", [2, 7, 2**63])
def test_unknown_byte_order(endianness: int) -> None:
    """A byte order that is neither little nor big is refused: no number could be read."""
    with pytest.raises(CorruptionError, match="byte order"):
        decode_bundle_header(field(1, 1) + field(2, endianness))


@pytest.mark.parametrize("data", [b"\x08", b"\xff" * 12, b"\x1a\x05\x08", b"\x1a\x01\x08"])
def test_header_is_no_message(data: bytes) -> None:
    """A header that is no message is refused."""
    with pytest.raises(CorruptionError):
        decode_bundle_header(data)


VERSIONS: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({}, True),
    "producer 1": ({"producer": 1}, True),
    "producer 0": ({"producer": 0}, True),
    "producer 1000": ({"producer": 1000}, True),
    "producer -1": ({"producer": -1}, False),
    "min_consumer 0": ({"producer": 1, "min_consumer": 0}, True),
    "min_consumer 1": ({"producer": 1, "min_consumer": 1}, True),
    "min_consumer 2": ({"producer": 1, "min_consumer": 2}, False),
    "min_consumer 2**31 - 1": ({"producer": 1, "min_consumer": 2**31 - 1}, False),
    "bad consumer 1": ({"producer": 1, "bad_consumers": [1]}, False),
    "bad consumer 1 of many": ({"producer": 1, "bad_consumers": [0, 5, 1, 1000]}, False),
    "other bad consumers": ({"producer": 1, "bad_consumers": [0, 2, 10, 100]}, True),
}


@pytest.mark.parametrize(("version", "accepted"), VERSIONS.values(), ids=VERSIONS.keys())
def test_versions(version: dict[str, Any], accepted: bool) -> None:
    """A checkpoint of a version that shuts out this reader is refused, and every other one read."""
    data = header(num_shards=1, version=version)
    if accepted:
        assert decode_bundle_header(data) == BundleHeader(1)
    else:
        with pytest.raises(NotSupportedError, match="version"):
            decode_bundle_header(data)


@pytest.mark.parametrize("consumers", [[1], [1, 5], [5, 1], [5, 1, 7]])
def test_unpacked_bad_consumers(consumers: list[int]) -> None:
    """Bad consumers count also when each has a field of its own, as protobuf allows."""
    data = b"".join(field(3, consumer) for consumer in consumers)
    assert list(message_class("VersionDef").FromString(data).bad_consumers) == consumers
    with pytest.raises(NotSupportedError):
        check_version(data)


@pytest.mark.parametrize("data", [b"\x22\x01\xff", b"\x12\x01\xff", b"\x0d\xff\xff\xff\xff"])
def test_unknown_fields_of_a_version(data: bytes) -> None:
    """What is of another number or wire type than a version's numbers says nothing about who may read."""
    assert not message_class("VersionDef").FromString(data).ListFields()
    check_version(data)


def test_bundle_entry() -> None:
    """TensorFlow's entry of float32[4] at the start of a file is read."""
    data = bytes.fromhex("0801120412020804281035b96f57d8")
    assert decode_bundle_entry(data) == BundleEntry(1, (4,), 0, 0, 16, 0xD8576FB9)


@pytest.mark.parametrize(
    ("hex_", "expected"),
    [
        ("", BundleEntry()),
        ("1200", BundleEntry(shape=())),
        ("12021200", BundleEntry(shape=(0,))),
        ("120212001807", BundleEntry(shape=(0,), shard=7)),
        ("20ffffffffffffffffff01", BundleEntry(offset=-1)),
        ("28ffffffffffffffff7f", BundleEntry(size=2**63 - 1)),
        ("0880e497d012", BundleEntry(dtype=5_000_000_000)),
        ("08630801", BundleEntry(dtype=1)),
        ("0a00" + "30ff01" + "3d01020304" + "0801", BundleEntry(dtype=1)),
        ("3a00", BundleEntry(slices=((),))),
        ("3a040a020802", BundleEntry(slices=(((2, -1),),))),
    ],
    ids=[
        *("empty", "scalar", "dimension of 0", "shard", "offset -1", "size 2**63 - 1", "dtype of 33 bits"),
        *("the last one counts", "wire types of another kind", "slice of a scalar", "slice without a length"),
    ],
)
def test_bundle_entry_fields(hex_: str, expected: BundleEntry) -> None:
    """An entry is read as protobuf would, and without a field it has that field's zero."""
    assert decode_bundle_entry(bytes.fromhex(hex_)) == expected


int64s = st.integers(0, 2**63 - 1)
extents_lists = st.lists(st.tuples(st.integers(0, 2**40), st.integers(-1, 2**40)), max_size=4).map(tuple)


@examples
@given(
    st.integers(0, 33),
    st.lists(st.integers(0, 1000), max_size=6),
    st.integers(0, 2**31 - 1),
    int64s,
    int64s,
    st.integers(0, 2**32 - 1),
    st.lists(extents_lists, max_size=3),
)
def test_entry_as_protobuf(
    dtype: int, shape: list[int], shard: int, offset: int, size: int, crc: int, slices: list[Extents]
) -> None:
    """Every entry that protobuf writes is read as it was meant."""
    message = message_class("BundleEntryProto")(dtype=dtype, shape=shape_message(shape), shard_id=shard)
    message.offset, message.size, message.crc32c = offset, size, crc
    message.slices.extend(map(slice_message, slices))
    expected = BundleEntry(dtype, tuple(shape), shard, offset, size, crc, tuple(slices))
    assert decode_bundle_entry(message.SerializeToString()) == expected


entries = st.builds(
    BundleEntry,
    dtype=st.sampled_from([0, 1, 2, 7, 14, 33, 101, 127, 128, 5_000_000_000]),
    shape=st.lists(st.sampled_from([0, 1, 4, 300, 2**40]), max_size=3).map(tuple),
    shard=st.sampled_from([0, 0, 1, 2, 127, 128]),
    offset=st.sampled_from([0, 16, 300, 2**62, 2**63 - 1, -1]),
    size=st.sampled_from([0, 1, 4, 16, 1200, 4800, 2**43, -1]),
    masked_crc32c=st.sampled_from([0, 1, 0xD8576FB9]),
    slices=st.sampled_from([(), (((0, 4),),)]),
)


@examples
@given(entries, st.sampled_from([1, 2, 200]), st.integers(0, 255), st.integers(0, 1000))
def test_plain_entries(entry: BundleEntry, num_shards: int, byte: int, at: int) -> None:
    """An entry is taken as it stands only if decoding it gives the same, and nothing in it that can't be."""
    data = bytearray(encode_bundle_entry(entry))
    for changed in (bytes(data), bytes(data[: at % len(data)] + bytes([byte]) + data[at % len(data) + 1 :])):
        head = plain_entry(changed, num_shards)
        try:
            decoded = decode_bundle_entry(changed)
            assert decoded == decode_any_entry(changed)
        except CheckpointError:
            assert head is None
            continue
        if head is not None:
            assert (head.dtype.number, head.shape, decoded.slices) == (decoded.dtype, decoded.shape, ())
            assert 0 <= decoded.shard < num_shards
            assert decoded.offset >= 0
            assert head.dtype.itemsize is None or decoded.size == prod(head.shape) * head.dtype.itemsize


@pytest.mark.parametrize(("shape", "size"), [((1 << 62,), b"\x28\0"), ((1 << 62,), b""), (((1 << 62) + 1,), b"\x28\4")])
def test_no_plain_entry_is_larger_than_sizes(shape: tuple[int, ...], size: bytes) -> None:
    """A shape of so many bytes that a size has no bits for them is not taken for that of a few."""
    assert plain_entry(encode_bundle_entry(BundleEntry(1, shape)) + size, 1) is None


def test_no_plain_entry_is_cut_off() -> None:
    """An entry that ends before its size does is none that is as it should be."""
    data = bytes.fromhex("08011204120208042810")
    assert plain_entry(data, 1) is not None
    assert [plain_entry(data[:size], 1) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("data", ["08011209", "08071202", "080112061200"])
def test_no_entry_is_cut_off_in_its_shape(data: str) -> None:
    """An entry that ends within its shape is refused, also where what is left would be a shape of no values."""
    assert plain_entry(bytes.fromhex(data), 1) is None
    with pytest.raises(CorruptionError):
        decode_bundle_entry(bytes.fromhex(data))


def test_shape_of_more_bytes_than_there_are() -> None:
    """A shape's length may take two bytes; the second one is not taken for the shape's begin."""
    data = bytes.fromhex("08011280" + "127e0801227a") + bytes(122)
    assert plain_entry(data, 1) is None
    with pytest.raises(CorruptionError):
        decode_bundle_entry(data)


@pytest.mark.parametrize("numbers", [{}, {"shard_id": 1}, {"offset": 5}, {"size": 15}, {"size": 0}])
def test_plain_entries_of_tensorflow(numbers: dict[str, int]) -> None:
    """TensorFlow's own entries are plain, unless shard or size are wrong."""
    message = message_class("BundleEntryProto")(dtype=1, shape=shape_message([4]), crc32c=7)
    message.size = numbers.pop("size", 16)
    for name, value in numbers.items():
        setattr(message, name, value)
    is_right = message.size == 16 and message.shard_id == 0
    assert (plain_entry(message.SerializeToString(), 1) is not None) is is_right


@examples
@given(st.binary(max_size=80))
def test_entry_of_any_bytes(data: bytes) -> None:
    """Whatever an entry's bytes are, it is read or refused; what protobuf refuses is refused."""
    try:
        decode_bundle_entry(data)
    except CheckpointError:
        return
    message_class("BundleEntryProto").FromString(data)


SHAPES: dict[str, tuple[bytes, tuple[int, ...] | None]] = {
    "scalar": (b"", ()),
    "one dimension": (shape_message([3]).SerializeToString(), (3,)),
    "zeros": (shape_message([0, 5, 0]).SerializeToString(), (0, 5, 0)),
    "named": (field(2, field(1, 3) + field(2, b"batch")), (3,)),
    "unknown fields": (field(1, 7) + field(2, field(1, 3)) + field(3, b"x") + field(4, 1), (3,)),
    "known rank": (field(3, 0) + field(2, field(1, 3)), (3,)),
    "rank 254": (shape_message([1] * 254).SerializeToString(), (1,) * 254),
    "largest": (shape_message([2**31, 2**31, 1]).SerializeToString(), (2**31, 2**31, 1)),
    "2**63 - 1": (shape_message([2**63 - 1]).SerializeToString(), (2**63 - 1,)),
    "unknown rank": (field(3, 1), None),
    "rank 255": (shape_message([1] * 255).SerializeToString(), None),
    "rank 100000": (shape_message([1] * 100_000).SerializeToString(), None),
    "unknown dimension": (shape_message([-1]).SerializeToString(), None),
    "negative": (shape_message([-3, -3]).SerializeToString(), None),
    "negative twice": (shape_message([-1, 5, -1]).SerializeToString(), None),
    "2**63 elements": (shape_message([2**62, 2]).SerializeToString(), None),
    "2**64 elements": (shape_message([2**32, 2**32]).SerializeToString(), None),
    "2**126 elements": (shape_message([2**63 - 1, 2**63 - 1]).SerializeToString(), None),
    "no message": (b"\x12\x05\x08", None),
    "dimension is no message": (field(2, b"\x08"), None),
}


@pytest.mark.parametrize(("data", "expected"), SHAPES.values(), ids=SHAPES.keys())
def test_shape(data: bytes, expected: tuple[int, ...] | None) -> None:
    """A shape that an array can have is read; any other one is refused."""
    with time_limit(2):
        if expected is not None:
            assert decode_shape(data) == expected
        else:
            with pytest.raises(CorruptionError):
                decode_shape(data)


EXTENTS: dict[str, tuple[str, Extents]] = {
    "scalar": ("", ()),
    "all of one dimension": ("0a00", ((0, -1),)),
    "start and length": ("0a0408021003", ((2, 3),)),
    "a length of 0": ("0a021000", ((0, 0),)),
    "rows of a matrix": ("0a021046" + "0a00", ((0, 70), (0, -1))),
}


@pytest.mark.parametrize(("hex_", "extents"), EXTENTS.values(), ids=EXTENTS.keys())
def test_extents(hex_: str, extents: Extents) -> None:
    """A slice is a start and a length for each dimension; a length that is absent means all, and 0 means none."""
    assert decode_extents(bytes.fromhex(hex_)) == extents
    assert encode_extents(extents).hex() == slice_message(extents).SerializeToString().hex() == hex_


def test_unknown_fields_of_a_slice() -> None:
    """What a slice has beside its extents is passed over."""
    assert decode_extents(field(1, 7) + field(1, field(2, 3) + field(3, 4)) + field(2, b"\xff")) == ((0, 3),)


def test_negative_length() -> None:
    """A slice has no fewer elements than none."""
    with pytest.raises(CorruptionError, match="negative"):
        decode_extents(field(1, b"") + field(1, field(2, 2**64 - 1)))


def test_box_of() -> None:
    """A slice's box has the whole dimension where no length is given."""
    assert box_of(((2, 3), (0, -1)), (10, 4)) == ((2, 0), (3, 4))
    assert box_of((), ()) == ((), ())
    for shape in [(), (3,), (3, 4, 5)]:
        with pytest.raises(CorruptionError, match="rank"):
            box_of(((0, -1), (0, -1)), shape)


SLICE_KEYS: list[tuple[bytes, Extents, str]] = [
    (b"w", ((0, 70), (0, -1)), "00 7700 01 0102 80 c046 80 7f"),
    (b"b", ((2, 2), (0, 2)), "00 6200 01 0102 82 82 80 82"),
    (b"x", (), "00 7800 01 00"),
    (b"", ((0, -1),), "00 0001 0101 80 7f"),
    (b"a\x00b\xff", ((1, 1),), "00 6100ff62ff000001 0101 81 81"),
    (b"w", ((2**31, 2**31),), "00 7700 01 0101 f880000000 f880000000"),
]


@pytest.mark.parametrize(("name", "extents", "hex_"), SLICE_KEYS, ids=[row[2] for row in SLICE_KEYS])
def test_slice_key(name: bytes, extents: Extents, hex_: str) -> None:
    """A slice's key is the name and the extents in the order-preserving code."""
    assert encode_slice_key(name, extents) == bytes.fromhex(hex_)


@pytest.mark.tensorflow
def test_slice_keys_of_tensorflow(tmp_path: Path) -> None:
    """The keys under which TensorFlow stores slices are those that are looked for."""
    tf = pytest.importorskip("tensorflow")
    specs = ["300 3 0,100:-", "300 3 100,200:-", "4 6 0,2:0,6", "4 6 2,2:0,3", "4 6 2,2:3,3"]
    names = ["rows", "rows", "both/x", "both/x", "both/x"]
    values = [np.zeros(shape, np.float32) for shape in [(100, 3), (200, 3), (2, 6), (2, 3), (2, 3)]]
    prefix = str(tmp_path / "model")
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=specs, tensors=values)
    records = dict(Table.from_bytes(Path(f"{prefix}.index").read_bytes()))
    whole = {name: decode_bundle_entry(records.pop(name)) for name in (b"rows", b"both/x")}
    made = {encode_slice_key(name, extents) for name, entry in whole.items() for extents in entry.slices}
    assert len(made) == 5
    assert made == set(records) - {b""}


# V1


TENSOR = field(1, b"w") + field(2, field(2, field(1, 4))) + field(3, 1) + field(4, field(1, b""))
DATA = field(1, b"w") + field(2, field(1, b"")) + field(3, field(1, 1))
OTHERS = field(1, 7) + field(2, 7) + field(3, b"\xff") + field(4, 7) + field(9, b"\xff")
"""Fields of wire types that these have not, and one that there is not."""

V1_RECORDS = {
    "first": (field(1, field(1, TENSOR)), field(9, 7) + field(1, OTHERS + field(1, OTHERS + TENSOR) + field(9, 7))),
    "slice": (field(2, DATA), field(1, 7) + field(2, DATA + field(3, 7) + field(9, 7)) + field(3, b"\xff")),
}


@pytest.mark.parametrize(("record", "odd"), V1_RECORDS.values(), ids=V1_RECORDS.keys())
def test_unknown_fields_of_v1(record: bytes, odd: bytes) -> None:
    """What V1's records have beside their own fields is passed over, as protobuf does."""
    expected, message = map(message_class("SavedTensorSlices").FromString, (record, odd))
    message.DiscardUnknownFields()
    assert message == expected
    if expected.HasField("meta"):
        assert decode_slices_meta(odd) == decode_slices_meta(record)
    else:
        assert decode_saved_slice(odd) == decode_saved_slice(record)


@pytest.mark.parametrize("hex_", ["0801", "1a020801", "08011a020801"], ids=["shards", "version", "both"])
def test_header_of_v2(hex_: str) -> None:
    """The header of a V2 index is told from the first record of a V1 checkpoint, whatever it leaves out."""
    with pytest.raises(FormatError, match="V2"):
        decode_slices_meta(bytes.fromhex(hex_))


def test_absent_fields_of_v1() -> None:
    """What V1's records leave out is nothing: no dtype is told, and no bytes are there."""
    [meta] = decode_slices_meta(field(1, field(1, b"")))
    assert meta == (b"", (), 0, ())
    assert decode_saved_slice(field(2, field(1, b"w"))) == (b"w", (), b"")


# Strings


def test_strings() -> None:
    """TensorFlow's bytes of two strings are read, and made by the tests' own writer."""
    data, masked = bytes.fromhex("0500eab2043e68656c6c6f"), 0x77C7475D
    assert encode_strings([b"hello", b""]) == (data, masked)
    assert decode_strings(data, 2, unmask(masked), False) == [b"hello", b""]


def test_no_strings() -> None:
    """No strings are four bytes of checksum, or nothing at all."""
    data, masked = encode_strings([])
    assert data.hex() == "d8ea82a2"
    assert decode_strings(data, 0, unmask(masked), False) == []
    assert decode_strings(b"", 0, 0, False) == []


@examples
@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_strings_round_trip(values: list[bytes], big_endian: bool) -> None:
    """Strings are read back, from writers of either byte order, and not as those of the other."""
    data, masked = encode_strings(values, big_endian)
    assert decode_strings(data, len(values), unmask(masked), big_endian) == values
    with pytest.raises(CorruptionError, match="length checksum"):
        decode_strings(data, len(values), unmask(masked), not big_endian)


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_every_byte_of_strings_is_checked(big_endian: bool) -> None:
    """Strings of which any bit is another are refused, and so is every truncation, and every extension."""
    data, masked = encode_strings([b"hello", b"", b"x" * 130], big_endian)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(CorruptionError):
                decode_strings(bytes(changed), 3, unmask(masked), big_endian)
    for other in [*(data[:size] for size in range(len(data))), data + b"\x00"]:
        with pytest.raises(CorruptionError):
            decode_strings(other, 3, unmask(masked), big_endian)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (bytes(64), 2**30),
        (bytes(64), 2**62),
        (b"", 1),
        (field(0, 2**40)[1:] + bytes(60), 1),
        (field(0, 2**64 - 1)[1:] + bytes(60), 1),
        (b"\x80" * 11 + bytes(60), 1),
        (b"\xff" * 9 + b"\x02" + bytes(60), 1),
        (b"\xff" * 64, 1),
        (b"\x80", 1),
        (b"\x00\x00\x00", 1),
    ],
    ids=[
        *("2**30 strings", "2**62 strings", "a string of nothing", "length 2**40", "length 2**64 - 1"),
        *("endless varint", "length of 65 bits", "only continuations", "cut off", "no checksum"),
    ],
)
def test_impossible_strings(data: bytes, count: int) -> None:
    """Strings that can't be in their bytes are refused before anything is allocated for them."""
    with time_limit(2), pytest.raises(CorruptionError):
        decode_strings(data, count, 0, False)


def test_wrong_count_of_strings() -> None:
    """More or fewer strings than were written are refused."""
    data, masked = encode_strings([b"a", b"b", b"c"])
    for count in (0, 1, 2, 4, 7):
        with pytest.raises(CorruptionError):
            decode_strings(data, count, unmask(masked), False)
