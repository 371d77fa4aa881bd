"""Integers, checksums and order-preserving codes, by the hex that other implementations document."""

import pytest
from bundles import examples
from hypothesis import given
from hypothesis import strategies as st

from ckpttool.errors import CorruptionError
from ckpttool.wire.coding import (
    decode_fixed32,
    decode_fixed64,
    decode_varint,
    encode_fixed32,
    encode_fixed64,
    encode_varint,
    to_signed,
)
from ckpttool.wire.crc32c import crc32c, mask, unmask
from ckpttool.wire.ordered_code import encode_number, encode_signed, encode_string

int64s = st.integers(-(2**63), 2**63 - 1)
uint64s = st.integers(0, 2**64 - 1)

VARINTS = [
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (300, "ac02"),
    (16383, "ff7f"),
    (16384, "808001"),
    (2**32 - 1, "ffffffff0f"),
    (2**32, "8080808010"),
    (2**63 - 1, "ffffffffffffffff7f"),
    (2**63, "80808080808080808001"),
    (2**64 - 1, "ffffffffffffffffff01"),
]


@pytest.mark.parametrize(("value", "hex_"), VARINTS, ids=[hex_ for _, hex_ in VARINTS])
def test_varint(value: int, hex_: str) -> None:
    """A varint has seven bits a byte, the lowest first, and reads back as it was written."""
    data = bytes.fromhex(hex_)
    assert encode_varint(value) == data
    assert decode_varint(data, 0) == (value, len(data))


@pytest.mark.parametrize("power", range(65))
def test_varint_boundaries(power: int) -> None:
    """Numbers around every power of two round-trip, in the fewest bytes, also amid other bytes."""
    for value in {max(0, 2**power - 1), 2**power, 2**power + 1}:
        if value < 2**64:
            data = encode_varint(value)
            assert len(data) == max(1, -(-value.bit_length() // 7))
            assert decode_varint(b"\xff" + data + b"\xff", 1) == (value, 1 + len(data))


@pytest.mark.parametrize("value", [-1, -2, -300, -(2**31), -(2**63)])
def test_negative_varint(value: int) -> None:
    """A negative number takes ten bytes: its 64-bit two's complement."""
    data = encode_varint(value)
    assert len(data) == 10
    assert to_signed(decode_varint(data, 0)[0]) == value


@pytest.mark.parametrize(
    ("hex_", "bits"),
    [
        ("", 64),
        ("80", 64),
        ("ffffffff", 32),
        ("ffffffffff", 64),
        ("80808080808080808080", 64),
        ("ffffffffffffffffff02", 64),
        ("ffffffffffffffffff7f", 64),
        ("8080808080808080808001", 64),
        ("8080808010", 32),
        ("ffffffff1f", 32),
        ("ffffffff7f", 32),
    ],
    ids=lambda value: str(value) or "empty",
)
def test_varint_refused(hex_: str, bits: int) -> None:
    """A varint that is cut off, or needs more bits than there are, is refused with its position."""
    with pytest.raises(CorruptionError) as caught:
        decode_varint(b"\x00\x00" + bytes.fromhex(hex_), 2, bits)
    assert caught.value.offset == 2


def test_varint32_limit() -> None:
    """The largest number of 32 bits is read, where only 32 are allowed."""
    assert decode_varint(bytes.fromhex("ffffffff0f"), 0, 32) == (2**32 - 1, 5)


@pytest.mark.parametrize(("unsigned", "signed"), [(0, 0), (2**63 - 1, 2**63 - 1), (2**63, -(2**63)), (2**64 - 1, -1)])
def test_to_signed(unsigned: int, signed: int) -> None:
    """The upper half of the unsigned numbers are the negative ones."""
    assert to_signed(unsigned) == signed


@examples
@given(st.lists(uint64s), st.binary())
def test_varints_in_a_row(values: list[int], rest: bytes) -> None:
    """Varints written one after another are read one after another."""
    data = b"".join(map(encode_varint, values)) + rest
    position = 0
    for value in values:
        found, position = decode_varint(data, position)
        assert found == value
    assert data[position:] == rest


def test_fixed() -> None:
    """Fixed-width numbers are little-endian."""
    assert encode_fixed32(0x12345678).hex() == "78563412"
    assert decode_fixed32(bytes.fromhex("ff78563412"), 1) == 0x12345678
    assert encode_fixed64(0x123456789ABCDEF0).hex() == "f0debc9a78563412"
    assert decode_fixed64(bytes.fromhex("fff0debc9a78563412"), 1) == 0x123456789ABCDEF0


# RFC 3720, appendix B.4, and the check value of the CRC catalog.
CHECKSUMS = [
    ("check", b"123456789", 0xE3069283),
    ("zeros", bytes(32), 0x8A9136AA),
    ("ones", b"\xff" * 32, 0x62A8AB43),
    ("ascending", bytes(range(32)), 0x46DD794E),
    ("descending", bytes(reversed(range(32))), 0x113FDB5C),
    ("nothing", b"", 0),
]


@pytest.mark.parametrize(("data", "crc"), [row[1:] for row in CHECKSUMS], ids=[row[0] for row in CHECKSUMS])
def test_crc32c(data: bytes, crc: int) -> None:
    """The checksum is CRC-32C, of any buffer, at once or piece by piece."""
    assert crc32c(data) == crc32c(bytearray(data)) == crc32c(memoryview(data)) == crc
    assert crc32c(data[5:], crc32c(data[:5])) == crc


@pytest.mark.parametrize(("crc", "masked"), [(0, 0xA282EAD8), (0xE3069283, 0xC78AB0E5)])
def test_mask(crc: int, masked: int) -> None:
    """Masking rotates right by 15 bits and adds a constant."""
    assert mask(crc) == masked
    assert unmask(masked) == crc


@examples
@given(st.integers(0, 2**32 - 1))
def test_mask_round_trip(crc: int) -> None:
    """Every checksum can be unmasked, and none is its own mask twice over."""
    assert unmask(mask(crc)) == mask(unmask(crc)) == crc
    assert crc not in (mask(crc), mask(mask(crc)))


@pytest.mark.parametrize(
    ("value", "hex_"),
    [(0, "00"), (1, "0101"), (255, "01ff"), (256, "020100"), (2**32, "050100000000"), (2**64 - 1, "08" + "ff" * 8)],
)
def test_ordered_number(value: int, hex_: str) -> None:
    """A number is its length and its big-endian bytes, none of them a leading zero."""
    assert encode_number(value).hex() == hex_


@pytest.mark.parametrize(
    ("value", "hex_"),
    [
        (b"", "0001"),
        (b"w", "770001"),
        (b"\x00", "00ff0001"),
        (b"\xff", "ff000001"),
        (b"a\x00\xffb", "6100ffff00620001"),
        (b"\xff\x00\xff", "ff0000ffff000001"),
    ],
)
def test_ordered_string(value: bytes, hex_: str) -> None:
    """A string has its zeros and 255s escaped, once, and an end mark."""
    assert encode_string(value).hex() == hex_


SIGNED = [
    (0, "80"),
    (-1, "7f"),
    (63, "bf"),
    (64, "c040"),
    (-64, "40"),
    (-65, "3fbf"),
    (8191, "dfff"),
    (8192, "e02000"),
    (2**31, "f880000000"),
    (2**62, "ffc04000000000000000"),
    (2**63 - 1, "ffc07fffffffffffffff"),
    (-(2**63), "003f8000000000000000"),
]


@pytest.mark.parametrize(("value", "hex_"), SIGNED, ids=[hex_ for _, hex_ in SIGNED])
def test_ordered_signed(value: int, hex_: str) -> None:
    """A signed number has its sign and length in its leading bits."""
    assert encode_signed(value).hex() == hex_


@pytest.mark.parametrize("length", range(1, 11))
def test_ordered_signed_lengths(length: int) -> None:
    """A signed number of n bytes is one below 2**(7n - 1), and the complement of each is bitwise inverted."""
    limit = min(2 ** (7 * length - 1), 2**63)
    for value in (limit - 1, -limit):
        assert len(encode_signed(value)) == length
    assert bytes(byte ^ 0xFF for byte in encode_signed(limit - 1)) == encode_signed(-limit)
    if limit < 2**63:
        assert len(encode_signed(limit)) == len(encode_signed(-limit - 1)) == length + 1


@examples
@given(uint64s, uint64s, int64s, int64s, st.binary(max_size=6), st.binary(max_size=6))
def test_order_is_kept(a: int, b: int, c: int, d: int, s: bytes, t: bytes) -> None:
    """Codes compare as bytes as the values do, also with more codes behind them."""
    assert (encode_number(a) < encode_number(b)) == (a < b)
    assert (encode_signed(c) < encode_signed(d)) == (c < d)
    assert (encode_string(s) < encode_string(t)) == (s < t)
    one, other = (encode_string(x) + encode_number(y) + encode_signed(z) for x, y, z in [(s, a, c), (t, b, d)])
    assert (one < other) == ((s, a, c) < (t, b, d))


@pytest.mark.parametrize("power", range(64))
def test_signed_order_at_boundaries(power: int) -> None:
    """The order holds across every power of two, where lengths change."""
    values = sorted(
        {v for p in (power, -power) for v in (2 ** abs(p) - 1, 2 ** abs(p), -(2 ** abs(p)), -(2 ** abs(p)) - 1)}
    )
    codes = [encode_signed(v) for v in values if -(2**63) <= v < 2**63]
    assert codes == sorted(codes)
