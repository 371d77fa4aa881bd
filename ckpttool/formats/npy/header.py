"""The header of an array, as NumPy writes it and reads it from files that are not trusted."""

import io
import re
import warnings
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool.errors import CheckpointError, CorruptionError, FormatError, NotSupportedError
from ckpttool.model.dtypes import DTYPES
from ckpttool.model.variable import NUMPY_RANK

if TYPE_CHECKING:
    import numpy as np

_MAX_HEADER = 10_000
"""The longest header that NumPy reads from a file that is not trusted."""

HEAD = _MAX_HEADER + 16
"""How many bytes at the start of a file are enough to have its header."""

# What NumPy writes for JAX's bfloat16 (ml_dtypes); for mere bytes it writes "|V2", and it reads both as mere bytes.
_BFLOAT16 = re.compile(rb"'descr': '<V2'")


class Header(NamedTuple):
    """A header, and how many bytes it takes."""

    dtype: "np.dtype[Any]"
    shape: tuple[int, ...]
    fortran_order: bool
    nbytes: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return prod(self.shape) * self.dtype.itemsize


@lru_cache(4096)
def encode_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The header, as NumPy writes it."""
    from numpy.lib import format as npy

    stream = io.BytesIO()
    # No shape is so long that its text needs the longer length of version 2.
    npy.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def decode_header(data: bytes, nbytes: int) -> Header:
    """The header at the start of a file of `nbytes`, of which the first `HEAD` bytes are enough.

    Raises:
        FormatError: there is none.
        NotSupportedError: it is of a version that is not known, or of Python's objects.
        CorruptionError: no array can have such a shape; or the file is of another size than the array.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of headers that Python 2 wrote, and of odd literals.
            header = _decoded(data)
    except CheckpointError:
        raise
    except Exception as error:  # NumPy raises whatever Python's parser and its own dtypes raise.
        raise FormatError(f"no header of a NumPy array: {error}") from error
    is_shape = all(type(size) is int and 0 <= size < 1 << 63 for size in header.shape)
    if not is_shape or len(header.shape) > NUMPY_RANK:
        raise CorruptionError(f"no array can have the shape {header.shape}")
    if header.dtype.hasobject:
        raise NotSupportedError("an array of pickled objects: unpickling them would run code")
    if nbytes - header.nbytes != header.size:
        raise CorruptionError(
            f"{nbytes - header.nbytes:,} bytes for {header.dtype}{list(header.shape)}, which takes {header.size:,}"
        )
    return header


def _decoded(data: bytes) -> Header:
    from numpy.lib import format as npy

    stream = io.BytesIO(data)
    version = npy.read_magic(stream)
    # Version 3 is version 2 in UTF-8, for names of fields, which no variable has.
    second = npy.read_array_header_2_0
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): second, (3, 0): second}.get(version)
    if read is None:
        raise NotSupportedError(f"version {version[0]}.{version[1]} of .npy")
    shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER)
    if dtype.str == "|V2" and _BFLOAT16.search(data, 0, stream.tell()):
        dtype = DTYPES["bfloat16"].numpy
    return Header(dtype, shape, fortran_order, stream.tell())
