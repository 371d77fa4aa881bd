"""CRC-32C (Castagnoli) and its masked form.

A checksum stored among the bytes that it covers would make checksums of checksums degenerate, so tables and
bundles store mask(crc): rotated right by 15 bits, plus a constant.
crc32c(b"123456789") = 0xe3069283, masked 0xc78ab0e5.  (xla/tsl/lib/hash/crc32c.h)
"""

from collections.abc import Callable
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any

_DELTA = 0xA282EAD8
# Without x³², lowest coefficient first.
_POLYNOMIAL = 0x82F63B78


def _load() -> Callable[..., int]:
    """crc32c.crc32c, from its extension module alone.

    The package's `__init__` asks importlib.metadata for its own version, which takes 0.1 s: as long as all
    the rest of a listing. Should its layout change, the package is imported whole.
    """
    package = find_spec("crc32c")
    locations = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("crc32c._crc32c", locations) if locations else None
    if spec is None or spec.loader is None:
        import crc32c

        return crc32c.crc32c
    extension: Any = module_from_spec(spec)
    spec.loader.exec_module(extension)
    return extension.crc32c  # type: ignore[no-any-return]


_crc32c = _load()


def crc32c(data: Any, crc: int = 0) -> int:
    """The checksum of `data` (any buffer), going on from `crc`, that of the bytes before."""
    return _crc32c(data, crc)


def combine(first: int, second: int, size: int) -> int:
    """The checksum of two runs of bytes put together, from the checksum of each; the second has `size` bytes.

    A checksum is the remainder of a polynomial: what stands before more bytes is multiplied by x for each of their
    bits. (crc32_combine in zlib's crc32.c, with this polynomial)
    """
    return _product(_power(size), first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials, modulo that of the checksum; the highest bit is the coefficient of x⁰."""
    product = 0
    for place in range(31, -1, -1):
        if a >> place & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(16)  # A large range is cut into parts of one size, and a last one.
def _power(size: int) -> int:
    """The polynomial x, to the number of bits in `size` bytes."""
    power, square = 1 << 31, 1 << 31 - 8
    while size:
        if size & 1:
            power = _product(power, square)
        square, size = _product(square, square), size >> 1
    return power


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFF_FFFF


def unmask(masked: int) -> int:
    rotated = (masked - _DELTA) & 0xFFFF_FFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFF_FFFF
