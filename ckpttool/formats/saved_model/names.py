"""What a SavedModel's files are called, and its tags."""

import os
from collections.abc import Sequence

from ckpttool.formats.lookalikes import refuse_lookalike

VARIABLES = os.path.join("variables", "variables")
FILES = ("saved_model.pb", "saved_model.pbtxt")
CHUNKED = "saved_model.cpb"
ASSETS = "assets"


def saved_model_file(directory: str) -> str | None:
    """The file with a SavedModel's graphs; None if the directory is not a SavedModel.

    Raises:
        NotSupportedError: it is in the chunked form.
    """
    found = [path for name in FILES if os.path.isfile(path := os.path.join(directory, name))]
    chunked = os.path.join(directory, CHUNKED)
    if not found and os.path.isfile(chunked):
        refuse_lookalike(chunked)
    return found[0] if found else None


def tags_text(tags: Sequence[str]) -> str:
    """A graph's tags, as people write them."""
    return ",".join(tags) or "(none)"
