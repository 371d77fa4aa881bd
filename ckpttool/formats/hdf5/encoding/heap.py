"""The global heap; for its bytes see `structure.global_heap`, which reads it."""

import struct

from ckpttool.errors import ConversionError
from ckpttool.formats.hdf5.encoding.output import Output, aligned

_HEAD, _OBJECT, _REFERENCE = struct.Struct("<4sB3xQ"), struct.Struct("<HHIQ"), struct.Struct("<IQI")
# A collection has at least so many bytes, and about so many at most, unless it is a single object's.
_LEAST, _USUAL = 4096, 1 << 16
_MAX_LENGTH = (1 << 32) - 1


class Heap:
    """Writes objects into collections; until it is closed, nothing else may be written to the output."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._parts: list[bytes] = []
        self._size = self._count = 0

    def add(self, value: bytes) -> bytes:
        """Writes an object, and returns the reference to it.

        Raises:
            ConversionError: it is too long.
        """
        if len(value) > _MAX_LENGTH:
            raise ConversionError(f"a string of {len(value):,} bytes: HDF5's have at most {_MAX_LENGTH:,}")
        size = _OBJECT.size + aligned(len(value))
        if self._count and self._size + size > _USUAL:
            self._write()
        self._count += 1
        self._size += size
        self._parts += _OBJECT.pack(self._count, 0, 0, len(value)), value, bytes(-len(value) % 8)
        return _REFERENCE.pack(len(value), self._output.end, self._count)

    def __enter__(self) -> "Heap":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None and self._count:
            self._write()

    def _write(self) -> None:
        """Writes a collection. Object 0 is the space left in it, that object's head included."""
        size = max(_LEAST, _HEAD.size + self._size + _OBJECT.size)
        left = size - _HEAD.size - self._size
        parts = [_HEAD.pack(b"GCOL", 1, size), *self._parts, _OBJECT.pack(0, 0, 0, left)]
        self._output.append(b"".join(parts).ljust(size, b"\0"))
        self._parts, self._size, self._count = [], 0, 0
