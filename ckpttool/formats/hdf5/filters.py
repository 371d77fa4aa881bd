r"""Undoes the filters that chunks go through.

    deflate       zlib's format
    shuffle       the first bytes of all elements, then the second ones, …; the value is the bytes of an element;
                  the rest after the last whole element follows as it is
    fletcher32    the bytes, and behind them a checksum of 4 bytes: two sums of 16-bit big-endian numbers
    lzf           runs: 02 61 62 63 are 3 bytes, "abc"; copies of what was before: 40 02 are 4 bytes from 3 back

    "abcabca" as LZF:  02 61 62 63 40 02

No result may be longer than a chunk and a little more, for deflating can make bytes longer.

(IV.A.2.l. Filter Pipeline; RFC 1950; Fletcher, 1982; LibLZF, lzf_d.c, for the format)
"""

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.pipeline import Filter

if TYPE_CHECKING:
    import numpy as np

DEFLATE, SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32_000
# For these, the second version of the message has no names.
_NAMES = {DEFLATE: "deflate", SHUFFLE: "shuffle", _FLETCHER32: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"}
# No element has more bytes.
_WIDEST = 16
# How many numbers are summed at once: the sums are still exact in floats, which are faster.
_SUMMED = 1 << 14


def require_known(filters: Sequence[Filter]) -> None:
    """Raises NotSupportedError if one of them can't be undone."""
    for found in filters:
        if found.code not in _UNDO:
            name = found.name.decode(errors="replace") or _NAMES.get(found.code) or f"filter {found.code}"
            raise NotSupportedError(f"it is compressed by {name!r}, which is not supported")


def unfiltered(data: bytes, filters: Sequence[Filter], mask: int, nbytes: int, offset: int) -> bytes:
    """The chunk as it was before the filters, of which the mask says which ones were left out.

    Args:
        data: the chunk.
        filters: the filters.
        mask: bits of the filters that were left out.
        nbytes: the bytes of a chunk.
        offset: where in the file it is.

    Raises:
        CorruptionError: it is damaged, or has another length.
    """
    most = nbytes + nbytes // 256 + 1024
    try:
        for number, found in reversed(list(enumerate(filters))):
            if not mask >> number & 1:
                data = _UNDO[found.code](data, found.values, most)
    except CorruptionError as error:
        error.offset = offset
        raise
    if len(data) != nbytes:
        raise CorruptionError(f"a chunk of {len(data):,} bytes, not {nbytes:,}", offset=offset)
    return data


def _inflated(data: bytes, values: Sequence[int], most: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, most)
    except zlib.error as error:
        raise CorruptionError(f"a chunk can't be decompressed: {error}") from error
    if not stream.eof and len(found) < most:
        raise CorruptionError("a chunk can't be decompressed: it has no end")
    return found


def _unshuffled(data: bytes, values: Sequence[int], most: int) -> bytes:
    import numpy as np

    if not values or not values[0]:
        raise CorruptionError("a shuffle filter without the bytes of an element")
    width = values[0]
    whole = len(data) // width * width
    if width == 1 or not whole:
        return data
    columns = np.frombuffer(data, np.uint8, whole).reshape(width, -1)
    if width > _WIDEST:
        return columns.T.tobytes() + data[whole:]
    rows = np.empty((whole // width, width), np.uint8)
    for number, column in enumerate(columns):  # Many times faster than NumPy transposes.
        rows[:, number] = column
    return rows.tobytes() + data[whole:]


def _verified(data: bytes, values: Sequence[int], most: int) -> bytes:
    if len(data) < 4:
        raise CorruptionError(f"a chunk of {len(data)} bytes, where its checksum has 4")
    # A writer of the other byte order swaps the bytes of each half.
    stored = {data[-4:], bytes((data[-3], data[-4], data[-1], data[-2]))}
    calculated = fletcher32(data[:-4]).to_bytes(4, "little")
    if calculated not in stored:
        raise CorruptionError(f"Checksum does not match: stored {data[-4:].hex()} vs. calculated {calculated.hex()}")
    return data[:-4]


def fletcher32(data: bytes) -> int:
    """The checksum; sums are taken modulo 65,535, where none but that of zeros is 0."""
    import numpy as np

    first = second = 0
    words = np.frombuffer(data + bytes(len(data) % 2), ">u2")
    for start in range(0, len(words), _SUMMED):
        part = words[start : start + _SUMMED].astype(np.float64)
        second = _folded(second + first * len(part) + int((part * _weights()[_SUMMED - len(part) :]).sum()))
        first = _folded(first + int(part.sum()))
    return second << 16 | first


@cache
def _weights() -> "np.ndarray[Any, Any]":
    import numpy as np

    return np.arange(_SUMMED, 0, -1, dtype=np.float64)


def _folded(number: int) -> int:
    return number and (number % 0xFFFF or 0xFFFF)


def unpacked(data: bytes, values: Sequence[int], most: int) -> bytes:
    """Undoes LZF; raises CorruptionError if a copy starts before the data, or they end within a run."""
    found, position, end = bytearray(), 0, len(data)
    padded = data + bytes(3)  # So that the end is checked only once in a round.
    while position < end and len(found) <= most:
        control = padded[position]
        if control < 32:
            found += data[position + 1 : position + control + 2]
            position += control + 2
            continue
        if control >= 224:
            length, place, position = padded[position + 1] + 9, padded[position + 2], position + 3
        else:
            length, place, position = (control >> 5) + 2, padded[position + 1], position + 2
        start = len(found) - ((control & 31) << 8) - place - 1
        if start < 0:
            raise CorruptionError("a chunk can't be decompressed: it copies from before its start")
        copied = found[start : start + length]
        # A copy that overlaps itself repeats.
        found += copied if len(copied) == length else (copied * length)[:length]
    if position > end:
        raise CorruptionError("a chunk can't be decompressed: it has no end")
    return bytes(found)


_UNDO: dict[int, Callable[[bytes, Sequence[int], int], bytes]] = {
    DEFLATE: _inflated,
    SHUFFLE: _unshuffled,
    _FLETCHER32: _verified,
    _LZF: unpacked,
}
