"""Names in files and in Python: UTF-8, with bytes that are not UTF-8 as lone surrogates."""


def to_bytes(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair that stands for no byte.
    """
    return text.encode(errors="surrogateescape")


def to_text(data: bytes) -> str:
    """The text of some bytes, whatever they are."""
    return data.decode(errors="surrogateescape")


def percent_encoded(text: str) -> str:
    """The text with the bytes that are not UTF-8 as %FF, for formats whose names are text."""
    if text.isascii():
        return text
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)
