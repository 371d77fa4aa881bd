r"""The filters that chunks go through, undone.

    deflate       zlib's format
    shuffle       the first bytes of all elements, then the second ones, …; the value is the bytes of an element;
                  what is no whole element stands behind, as it is
    fletcher32    the bytes, and behind them a checksum of 4 bytes: two sums of 16-bit big-endian numbers
    lzf           runs: 02 61 62 63 are 3 bytes, "abc"; copies of what was before: 40 02 are 4 bytes from 3 back

    "abcabca" as LZF:  02 61 62 63 40 02

Nothing that is undone becomes longer than a chunk is, and a little more, for what is deflated can be longer than plain.

(IV.A.2.l. Filter Pipeline; RFC 1950; Fletcher, 1982; LibLZF, lzf_d.c, for the format)
"""

import zlib
from collections.abc import Callable, Sequence

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.pipeline import Filter

_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32_000
# Of these the second version of the message has no names.
_NAMES = {_DEFLATE: "deflate", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset"}
# Numbers that are summed up at once: their sums have 64 bits.
_SUMMED = 1 << 16


def require_known(filters: Sequence[Filter]) -> None:
    """Raises NotSupportedError if there is one that can't be undone."""
    for found in filters:
        if found.code not in _UNDO:
            name = found.name.decode(errors="replace") or _NAMES.get(found.code) or f"filter {found.code}"
            raise NotSupportedError(f"it is compressed by {name!r}, which is not read")


def unfiltered(data: bytes, filters: Sequence[Filter], mask: int, nbytes: int, offset: int) -> bytes:
    """A chunk as it was before it went through the filters, but for those that the mask says were left out.

    Args:
        data: the chunk.
        filters: the filters.
        mask: which were left out, by bits.
        nbytes: what a chunk has.
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
    whole = len(data) // values[0] * values[0]
    columns = np.frombuffer(data, np.uint8, whole).reshape(values[0], -1)
    return columns.T.tobytes() + data[whole:]


def _verified(data: bytes, values: Sequence[int], most: int) -> bytes:
    if len(data) < 4:
        raise CorruptionError(f"a chunk of {len(data)} bytes, where its checksum has 4")
    # A checksum of a machine with the other byte order has the bytes of each half swapped.
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
        part = words[start : start + _SUMMED].astype(np.int64)
        second = _folded(second + first * len(part) + int((part * np.arange(len(part), 0, -1)).sum()))
        first = _folded(first + int(part.sum()))
    return second << 16 | first


def _folded(number: int) -> int:
    return number and (number % 0xFFFF or 0xFFFF)


def unpacked(data: bytes, values: Sequence[int], most: int) -> bytes:
    """Undoes LZF; raises CorruptionError if it copies from before the start, or the data end within a run."""
    found, position, end = bytearray(), 0, len(data)
    try:
        while position < end and len(found) <= most:
            control = data[position]
            if control < 32:
                found += data[position + 1 : position + control + 2]
                position += control + 2
                continue
            length = control >> 5
            if length == 7:
                position += 1
                length += data[position]
            back = (control & 31) << 8 | data[position + 1]
            position += 2
            _copy(found, back + 1, length + 2)
    except IndexError:
        position = end + 1
    if position > end:
        raise CorruptionError("a chunk can't be decompressed: it has no end")
    return bytes(found)


def _copy(found: bytearray, back: int, length: int) -> None:
    start = len(found) - back
    if start < 0:
        raise CorruptionError("a chunk can't be decompressed: it copies from before its start")
    if length <= back:
        found += found[start : start + length]
    else:  # It repeats itself.
        found += (found[start:] * (length // back + 1))[:length]


_UNDO: dict[int, Callable[[bytes, Sequence[int], int], bytes]] = {
    _DEFLATE: _inflated,
    _SHUFFLE: _unshuffled,
    _FLETCHER32: _verified,
    _LZF: unpacked,
}
