"""What a bundle and its files are called."""

import os
import re
from functools import lru_cache

FORMAT = "TensorFlow checkpoint V2 (tensor bundle)"

MAX_SHARDS = 100_000
"""No checkpoint has more; a number in a file must not make more names than that."""

MEMBER = re.compile(r"(.+)\.(index|meta|data-[0-9]{5,9}-of-[0-9]{5,9})", re.DOTALL)
"""A file that belongs to a checkpoint: groups are the prefix, and what the file is."""


def index_path(prefix: str) -> str:
    return f"{prefix}.index"


# A million variables lie in a few files.
@lru_cache(4096)
def shard_path(prefix: str, shard: int, num_shards: int) -> str:
    return f"{prefix}.data-{shard:05d}-of-{num_shards:05d}"


def shard_counts(prefix: str) -> set[int]:
    """The numbers M for which `prefix.data-…-of-M` files are there."""
    name = re.compile(re.escape(os.path.basename(prefix)) + r"\.data-[0-9]{5,9}-of-([0-9]{5,9})")
    matches = map(name.fullmatch, os.listdir(os.path.dirname(prefix) or "."))
    return {int(match[1]) for match in matches if match}


def bundle_files(prefix: str) -> list[str]:
    """The files of a bundle that exist, the index last."""
    directory, stem = os.path.split(prefix)
    data = re.compile(re.escape(stem) + r"(\.data-[0-9]{5,9}-of-[0-9]{5,9})")
    names = sorted(os.listdir(directory or ".")) if os.path.isdir(directory or ".") else []
    found = [f"{prefix}{match[1]}" for match in map(data.fullmatch, names) if match]
    return [*found, index_path(prefix)] if os.path.lexists(index_path(prefix)) else found
