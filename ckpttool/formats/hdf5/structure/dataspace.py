"""The dataspace message: the shape of a dataset or an attribute.

    01 | 02 | 01 | 00 00 00 00 00     version 1, 2 dimensions, flags (bit 0: there are largest sizes)
    08 00 00 00 00 00 00 00  03 …     the sizes, 8 and 3
    ff ff ff ff ff ff ff ff  03 …     the largest sizes; all bits set: no limit

    02 | 00 | 00 | 02                 version 2: … and in the last byte its kind: scalar, simple, or null, without shape
                                      and values

(IV.A.2.b. The Dataspace Message)
"""

from typing import NamedTuple

from ckpttool.errors import CorruptionError, NotSupportedError
from ckpttool.formats.hdf5.structure.file import Cursor

_NULL = 2
MAX_RANK = 32
"""Dimensions that a shape has at most. (H5S_MAX_RANK)"""


class Dataspace(NamedTuple):
    """A shape, and how far it may grow.

    Attributes:
        shape: the sizes; None for a null dataspace.
        limits: the largest that each size may become; None: it has no limit.
    """

    shape: tuple[int, ...] | None
    limits: tuple[int | None, ...] = ()


def decode_dataspace(cursor: Cursor) -> Dataspace:
    """Reads the message.

    Raises:
        CorruptionError: it is damaged.
        NotSupportedError: it is of a version that is not known.
    """
    version, rank, flags = cursor.number(1), cursor.number(1), cursor.number(1)
    if version not in (1, 2):
        raise NotSupportedError(f"a dataspace of version {version}", offset=cursor.offset)
    if rank > MAX_RANK:
        raise CorruptionError(f"a dataspace of {rank} dimensions", offset=cursor.offset)
    kind = cursor.number(1)
    if version == 1:
        cursor.skip(4)
    elif kind == _NULL:
        return Dataspace(None)
    shape = tuple(cursor.length() for _ in range(rank))
    if not flags & 1:
        return Dataspace(shape, shape)
    unlimited = (1 << 8 * cursor.sizes.length) - 1
    found = [cursor.length() for _ in range(rank)]
    return Dataspace(shape, tuple(None if limit == unlimited else limit for limit in found))
