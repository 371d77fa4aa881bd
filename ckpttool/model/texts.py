"""Names as files have them and as Python does: UTF-8, in which bytes that are none stand as lone surrogates."""


def to_bytes(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        UnicodeEncodeError: it has half of a surrogate pair that stands for no byte.
    """
    return text.encode(errors="surrogateescape")


def to_text(data: bytes) -> str:
    """The text of some bytes, whatever they are."""
    return data.decode(errors="surrogateescape")
