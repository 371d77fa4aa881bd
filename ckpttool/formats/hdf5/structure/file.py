"""The bytes of a file at the addresses that stand in it, and the numbers in these bytes.

Numbers are little-endian. Addresses and lengths are as wide as the superblock says; an address with all bits set means
that there is none:

    60 00 00 00 00 00 00 00      address 0x60, of 8 bytes, counted from where the superblock is
    ff ff ff ff ff ff ff ff      no address
    48 01 00 00 00 00 00 00      a length, 0x148

Sound structures do not overlap, and each is read once, or a few times. So all bytes that are read of structures are
counted, and may be no more than a few times the file: this ends whatever would go on for ever.

(IV. Disk Format; I.A. This Document: "undefined address")
"""

from collections.abc import Callable
from typing import NamedTuple

from ckpttool.errors import CorruptionError

# So many times the file's bytes, and so many more, may be read as structures.
_TIMES, _BEYOND = 4, 1 << 16
# Counted for each structure besides its bytes: some have hardly any.
_LEAST = 16

Read = Callable[[int, int], bytes]


class Sizes(NamedTuple):
    """The bytes of an address and of a length."""

    address: int = 8
    length: int = 8


CODES = {2: "H", 4: "I", 8: "Q"}
"""How many bytes an address or a length has → its code in `struct`."""

_USUAL = Sizes()


class Cursor:
    """Reads numbers one after another.

    Args:
        data: the bytes.
        offset: where in the file they begin.
        sizes: the widths of addresses and lengths among them.
    """

    __slots__ = ("data", "offset", "position", "sizes")

    def __init__(self, data: bytes, offset: int = 0, sizes: Sizes = _USUAL) -> None:
        self.data, self.offset, self.sizes, self.position = data, offset, sizes, 0

    @property
    def here(self) -> int:
        """The place in the file."""
        return self.offset + self.position

    def number(self, nbytes: int) -> int:
        """An unsigned number of so many bytes; raises as `take` does."""
        start = self.position
        stop = self.position = start + nbytes
        if stop > len(self.data):
            raise self._ended(start, nbytes)
        return int.from_bytes(self.data[start:stop], "little")

    def take(self, nbytes: int) -> bytes:
        """The next bytes.

        Raises:
            CorruptionError: fewer are left.
        """
        start = self.position
        stop = self.position = start + nbytes
        if stop > len(self.data):
            raise self._ended(start, nbytes)
        return self.data[start:stop]

    def text(self) -> bytes:
        """The bytes before the next NUL, which is passed over too.

        Raises:
            CorruptionError: there is no NUL.
        """
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise CorruptionError("a name has no end", offset=self.here)
        start, self.position = self.position, end + 1
        return self.data[start:end]

    def address(self) -> int | None:
        """An address; None if all its bits are set."""
        value = self.number(self.sizes.address)
        return None if value == (1 << 8 * self.sizes.address) - 1 else value

    def length(self) -> int:
        return self.number(self.sizes.length)

    def skip(self, nbytes: int) -> None:
        self.position += nbytes

    def rest(self) -> bytes:
        return self.data[self.position :]

    def _ended(self, start: int, nbytes: int) -> CorruptionError:
        left = max(0, len(self.data) - start)
        return CorruptionError(f"{nbytes:,} bytes are wanted where {left:,} are left", offset=self.offset + start)


class File:
    """An open file.

    Attributes:
        size: its size in bytes.
        base: where in it address 0 is.
        sizes: the widths of addresses and lengths.
        root: the address of the root group's header.
        extension: the address of the header with messages about the whole file, if there is one.
    """

    def __init__(
        self, read: Read, size: int, sizes: Sizes, base: int = 0, root: int = 0, extension: int | None = None
    ) -> None:
        self.size, self.base, self.sizes, self.root, self.extension = size, base, sizes, root, extension
        self._read = read
        self._left = _TIMES * size + _BEYOND

    def peek(self, address: int, nbytes: int) -> bytes:
        """So many bytes at an address, fewer at the end of the file."""
        offset = self.base + address
        return self._read(offset, nbytes) if offset < self.size else b""

    def read(self, address: int, nbytes: int) -> bytes:
        """So many bytes at an address, which are not counted: values, or a structure that has been counted.

        Raises:
            CorruptionError: they are not in the file.
        """
        offset = self.base + address
        if offset + nbytes > self.size:
            raise CorruptionError(f"{nbytes:,} bytes are wanted, and the file ends before", offset=offset)
        data = self._read(offset, nbytes)
        if len(data) != nbytes:
            raise CorruptionError("the file has become shorter", offset=offset)
        return data

    def structure(self, address: int, nbytes: int, peeked: bytes = b"") -> bytes:
        """So many bytes of a structure, which are counted. They are not read again if enough of them were `peeked` at.

        Raises:
            CorruptionError: they are not in the file, or more was read of structures than it can hold.
        """
        self.count(nbytes + _LEAST, address)
        return peeked[:nbytes] if len(peeked) >= nbytes else self.read(address, nbytes)

    def count(self, nbytes: int, address: int) -> None:
        """Counts bytes of a structure; raises CorruptionError if more were counted in all than the file can hold."""
        self._left -= nbytes
        if self._left < 0:
            raise CorruptionError("its structures lie over each other", offset=self.base + address)

    def cursor(self, address: int, nbytes: int) -> Cursor:
        """As `structure`, to be read number by number."""
        return Cursor(self.structure(address, nbytes), self.base + address, self.sizes)

    def signed(self, address: int | None, nbytes: int, signature: bytes) -> Cursor:
        """As `cursor`, for a structure that begins with a signature and version 0: the cursor is behind these.

        Raises:
            CorruptionError: the structure does not begin so, or there is no address.
        """
        if address is None:
            raise CorruptionError(f"there is no address for {signature.decode()}")
        cursor = self.cursor(address, nbytes)
        if cursor.take(5) != signature + b"\0":
            raise CorruptionError(f"no {signature.decode()} of version 0", offset=cursor.offset)
        return cursor
