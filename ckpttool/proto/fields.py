"""What descriptors of fields say, whichever release of protobuf made them."""

from typing import Any


def is_repeated(field: Any) -> bool:
    """Whether a message can have a field many times."""
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == field.LABEL_REPEATED)  # Before protobuf 6.31; 7 has no labels any more.
