"""The end of a file, where structures are written one behind another."""

import os
import struct
from pathlib import Path
from types import TracebackType

_ALIGNMENT = 8
NO_ADDRESS = (1 << 64) - 1
SUPERBLOCK_SIZE = 96
_BUFFER = 1 << 20


class Output:
    """Appends structures to a file, each at a multiple of 8.

    Args:
        path: the file.
        start: where the first structure is; the space before it is for values.

    Attributes:
        end: the address that the next structure will have.
    """

    def __init__(self, path: str | os.PathLike[str], start: int) -> None:
        self._file = Path(path).open("wb", _BUFFER)  # noqa: SIM115 - closed with the output
        self.end = aligned(start)
        self._file.seek(self.end)

    def append(self, data: bytes) -> int:
        """Writes a structure, and returns its address."""
        address, missing = self.end, -len(data) % _ALIGNMENT
        self.end = address + len(data) + missing
        self._file.write(data)
        if missing:
            self._file.write(bytes(missing))
        return address

    def finish(self, superblock: bytes) -> None:
        """Writes the superblock, with which the file begins."""
        self._file.seek(0)
        self._file.write(superblock)

    def __enter__(self) -> "Output":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def aligned(offset: int) -> int:
    """The next multiple of 8."""
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def padded(data: bytes) -> bytes:
    """The data, with zeros up to a multiple of 8 bytes."""
    return data + bytes(-len(data) % _ALIGNMENT)


# Versions of the superblock, of free space, of the root group, –, of shared messages; bytes of an address and of a
# length, –; half of what a group's leaves and nodes can have; flags; base, free space, end, driver; the root's link.
_SUPERBLOCK = struct.Struct("<8s8BHHIQQQQ40s")


def superblock(root: bytes, end: int, leaf_half: int, node_half: int) -> bytes:
    """The superblock of version 0; `root` is the root group's entry in a symbol table.

    (II.A. Disk Format: Level 0A - Format Signature and Superblock)
    """
    versions = (0, 0, 0, 0, 0, 8, 8, 0)
    places = (0, NO_ADDRESS, end, NO_ADDRESS)
    return _SUPERBLOCK.pack(b"\x89HDF\r\n\x1a\n", *versions, leaf_half, node_half, 0, *places, root)
