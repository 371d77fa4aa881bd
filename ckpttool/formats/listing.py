"""Which checkpoints there are: of a prefix, in a directory, by its state file.

model.ckpt-100.index                V2
model.ckpt-100                      V1, one file
model.ckpt-100-00000-of-00002 …     V1, shards
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, NotFoundError
from ckpttool.formats import bundle
from ckpttool.formats.bundle.names import MEMBER
from ckpttool.formats.checkpoint_state import STATE_FILE, candidates, read_checkpoint_state
from ckpttool.formats.lookalikes import is_apple_double

V1_SHARD = re.compile(r"(.+)-(?:[0-9]{5,9}|\?{5})-of-([0-9]{5,9})", re.DOTALL)
"""A shard of a V1 checkpoint, or the pattern of all of them: the prefix that they share, and how many there are."""


def _names_in(directory: str) -> list[str]:
    return os.listdir(directory) if os.path.isdir(directory) else []


def _shards_in(directory: str) -> list[str]:
    """The names of the V1 shards in a directory."""
    return [name for name in _names_in(directory) if V1_SHARD.fullmatch(name)]


def v1_files(prefix: str, names_in: Callable[[str], Sequence[str]] = _names_in) -> tuple[str, ...]:
    """The files of the V1 checkpoint `prefix`, which may also be one of its shards, or the pattern of all.

    `names_in` lists a directory, or only the shards in it.
    """
    shard = V1_SHARD.fullmatch(prefix)
    if shard:
        return _v1_shards(shard[1], shard[2])
    if os.path.isfile(prefix):
        # An index is a table too, and some state files name it by mistake.
        return (prefix,) if not prefix.endswith(".index") and is_table(prefix) else ()
    counts = v1_shard_counts(prefix, names_in)
    return _v1_shards(prefix, counts.pop()) if len(counts) == 1 else ()


def v1_shard_counts(prefix: str, names_in: Callable[[str], Sequence[str]] = _names_in) -> set[str]:
    """The numbers of shards in the names of V1 files of this prefix; several, if there are several checkpoints."""
    names = names_in(os.path.dirname(prefix) or ".")
    if not names:  # Most paths of a long state file: compiling for each would take longest.
        return set()
    name = re.compile(re.escape(os.path.basename(prefix)) + r"-[0-9]{5,9}-of-([0-9]{5,9})")
    return {match[1] for match in map(name.fullmatch, names) if match}


def _v1_shards(stem: str, count: str) -> tuple[str, ...]:
    if int(count) > bundle.MAX_SHARDS:
        return ()
    files = tuple(f"{stem}-{number:05d}-of-{count}" for number in range(int(count)))
    # A single one is enough: the reader reports what is wrong with the others.
    return files if any(map(is_table, files)) else ()


def is_table(path: str) -> bool:
    """Whether a file ends as a table does: an index, or a V1 checkpoint."""
    from ckpttool.wire import sstable  # Not for graphs.

    try:
        size = storage.file_size(path)
        sstable.Footer.decode(storage.read_range(path, max(0, size - sstable.FOOTER_SIZE), sstable.FOOTER_SIZE))
    except (CheckpointError, OSError):
        return False
    return True


def checkpoints_in(directory: str | os.PathLike[str]) -> list[str]:
    """The prefixes of all checkpoints in a directory, V2 and V1, sorted by name and then by step.

    Raises:
        OSError: there is no such directory.
    """
    directory, prefixes = os.fsdecode(directory), set()
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        shard = V1_SHARD.fullmatch(path)
        if is_apple_double(path):
            continue
        if name.endswith(".index"):
            prefixes.add(path.removesuffix(".index"))
        elif not MEMBER.fullmatch(path) and name != STATE_FILE and os.path.isfile(path) and is_table(path):
            prefixes.add(shard[1] if shard else path)
    return sorted(prefixes, key=lambda prefix: (*stem_and_number(prefix), prefix))


def stem_and_number(prefix: str) -> tuple[str, int]:
    """A prefix without the number at its end, and the number, which sorts a series of them; -1 if it has none.

    Keras' have a suffix after the number: `cp-0010.ckpt`.
    """
    match = re.search(r"([0-9]{1,18})(\.ckpt)?\Z", prefix)
    return (prefix[: match.start()] + (match[2] or ""), int(match[1])) if match else (prefix, -1)


class StateEntry(NamedTuple):
    """A checkpoint that the state file of a directory names, or that is in the directory.

    Attributes:
        written: its path in the state file; "" if it is not listed.
        prefix: where it is; "" if it does not exist.
        time: when it was saved, in seconds since 1970; None if the state file does not say.
        is_latest: the state file says that it is the latest.
    """

    written: str
    prefix: str
    time: float | None
    is_latest: bool


def state_entries(directory: str, name: str = STATE_FILE) -> list[StateEntry]:
    """The checkpoints that the state file of a directory lists, if it has one, and then those that it does not list.

    Raises:
        NotFoundError: there is no such directory.
        FormatError, CorruptionError: the file of that name is not a state file.
    """
    if not os.path.isdir(directory):
        known = os.path.exists(directory) or has_checkpoint(directory)
        hint = f"the directory of this is {os.path.dirname(directory) or os.curdir}" if known else None
        raise NotFoundError("not a directory" if known else "no such directory", path=directory, hint=hint)
    state_file = os.path.join(directory, name)
    state = read_checkpoint_state(state_file) if os.path.exists(state_file) else None
    entries, is_there = [], checkpoint_finder()
    times = dict(zip(state.all, state.timestamps, strict=False)) if state else {}
    for written in dict.fromkeys([*state.all, state.latest]) if state else ():
        prefix = next((path for path in candidates(directory, written) if is_there(path)), "")
        entries.append(StateEntry(written, prefix, times.get(written), state is not None and written == state.latest))
    listed = {os.path.realpath(_unsharded(entry.prefix)) for entry in entries if entry.prefix}
    found = (prefix for prefix in checkpoints_in(directory) if os.path.realpath(prefix) not in listed)
    return entries + [StateEntry("", prefix, None, False) for prefix in found]


def _unsharded(prefix: str) -> str:
    """The prefix that the shards share, if it is a pattern of V1 shards; else as it is."""
    shard = V1_SHARD.fullmatch(prefix)
    return shard[1] if shard else prefix


def has_checkpoint(prefix: str, names_in: Callable[[str], Sequence[str]] = _names_in) -> bool:
    """Whether there is a checkpoint of this prefix, V2 or V1; `names_in` as in `v1_files`."""
    return os.path.exists(bundle.index_path(prefix)) or bool(v1_files(prefix, names_in))


def checkpoint_finder() -> Callable[[str], bool]:
    """`has_checkpoint` for many prefixes: it lists no directory twice."""
    return partial(has_checkpoint, names_in=cache(_shards_in))


def step_of(prefix: str) -> int:
    """The step in a prefix: 100 of `model.ckpt-100`, `cp-0100.ckpt` and `100`; -1 if it has none, as `resnet50`."""
    match = re.search(r"(?:^|-)([0-9]{1,18})(?:\.ckpt)?\Z", os.path.basename(prefix))
    return int(match[1]) if match else -1
