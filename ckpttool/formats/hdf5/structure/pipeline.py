r"""The filter pipeline message: what the chunks of a dataset went through, in this order.

    01 | 02 | 00 00 00 00 00 00                        version 1, 2 filters
    02 00 | 08 00 | 01 00 | 01 00 | "shuffle\0"        filter 2, its name has 8 bytes, optional, 1 value
    08 00 00 00 | 00 00 00 00                          the value 8, and padding after an odd number of values
    01 00 | 08 00 | 01 00 | 01 00 | "deflate\0" | …    filter 1, …

    02 | 01 | 01 00 | 01 00 | 01 00 | 04 00 00 00      version 2, 1 filter: filter 1 needs no name; no padding

(IV.A.2.l. The Data Storage - Filter Pipeline Message)
"""

from typing import NamedTuple

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

_MAX_FILTERS = 32  # H5Z_MAX_NFILTERS
_RESERVED = 256


class Filter(NamedTuple):
    """A filter: its number, its name, if there is one, and the values that it was given."""

    code: int
    name: bytes
    values: tuple[int, ...]


def decode_pipeline(cursor: Cursor) -> tuple[Filter, ...]:
    """Reads the message.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a version that is not known.
    """
    version, count = cursor.number(1), cursor.number(1)
    if version not in (1, 2):
        raise NotSupportedError(f"filters of version {version}", offset=cursor.offset)
    if count > _MAX_FILTERS:
        raise CorruptionError(f"{count} filters", offset=cursor.offset)
    cursor.skip(6 if version == 1 else 0)
    return tuple(_filter(cursor, version) for _ in range(count))


def _filter(cursor: Cursor, version: int) -> Filter:
    code = cursor.number(2)
    length = cursor.number(2) if version == 1 or code >= _RESERVED else 0
    cursor.skip(2)
    count = cursor.number(2)
    name = cursor.take(-(-length // 8) * 8 if version == 1 else length)
    values = tuple(cursor.number(4) for _ in range(count))
    cursor.skip(4 if version == 1 and count % 2 else 0)
    return Filter(code, name.partition(b"\0")[0], values)
