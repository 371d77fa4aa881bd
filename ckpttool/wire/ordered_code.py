"""Numbers and strings as bytes whose order is the values' own order.

A table's keys for slices are made of these, and are only ever made, never taken apart:

    number   a byte L (0 … 8), then the value in L big-endian bytes        256 → 02 01 00
    string   00 → 00 ff, ff → ff 00, and 00 01 at the end                  "w" → 77 00 01
    signed   n low big-endian bytes of the value; the sign and n stand     0 → 80, -1 → 7f,
             in the leading bits: n ones and a zero, inverted if negative  64 → c0 40, -65 → 3f bf

(tensorflow/core/lib/strings/ordered_code.cc)
"""

# The leading bits of a signed number of n bytes, to be XORed into its first two bytes.
_SIGNED_HEADERS = [b"", *((0x10000 - (0x10000 >> n)).to_bytes(2) for n in range(1, 11))]


def encode_number(value: int) -> bytes:
    """A number from 0 to 2**64 - 1."""
    length = (value.bit_length() + 7) // 8
    return bytes([length]) + value.to_bytes(length)


def encode_string(value: bytes) -> bytes:
    # In one pass: a second one would escape the bytes that the first has added.
    return b"\xff\x00".join(part.replace(b"\x00", b"\x00\xff") for part in value.split(b"\xff")) + b"\x00\x01"


def encode_signed(value: int) -> bytes:
    """A number from -2**63 to 2**63 - 1."""
    magnitude = value if value >= 0 else ~value
    length = magnitude.bit_length() // 7 + 1
    encoded = bytearray((value & (1 << 8 * length) - 1).to_bytes(length))
    for i, byte in enumerate(_SIGNED_HEADERS[length][:length]):
        encoded[i] ^= byte
    return bytes(encoded)
