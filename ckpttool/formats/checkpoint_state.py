"""The `checkpoint` state file: a text message that names a directory's latest checkpoint and those before it.

    model_checkpoint_path: "model.ckpt-200"
    all_model_checkpoint_paths: "model.ckpt-100"
    all_model_checkpoint_paths: "model.ckpt-200"

Paths are absolute or relative to the file's directory; absolute ones die when the directory moves. A saver that is
given `latest_filename` gives the file that name instead.
(tensorflow/python/checkpoint/checkpoint_management.py)
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from ckpttool import proto, storage
from ckpttool.errors import ConversionError, CorruptionError, FormatError, NotFoundError
from ckpttool.formats.lookalikes import look_of
from ckpttool.formats.siblings import belonging

STATE_FILE = "checkpoint"
# A list of paths; TensorFlow keeps five.
_MAX_SIZE = 1 << 24

# A line as TensorFlow writes it, of a text in which nothing is escaped: protobuf's parser takes 15 ms to import.
_LINE = (
    rb'(model_checkpoint_path|all_model_checkpoint_paths): "([ !#-&(-\[\]-~]*)"\n'
    rb"|(all_model_checkpoint_timestamps|last_preserved_timestamp): ([0-9]+\.[0-9]+)\n"
)

_HEAD = 2048
# Fields may be in any order; a configuration may have one of such a name among its own.
_SIGN = (
    rb"(?:\s|#[^\n]*\n)*(?:model_checkpoint_path|all_model_checkpoint_(?:paths|timestamps)|last_preserved_timestamp)"
    rb"\s*:\s*[\"'0-9[]"
)


class CheckpointState(NamedTuple):
    """The paths in a state file, as they are written there.

    `timestamps` are the times of saving in seconds since 1970, one for each of `all`, if the file has them;
    `last_preserved` is that of the last checkpoint that is kept for good, 0 if the file has none.
    """

    latest: str
    all: tuple[str, ...]
    timestamps: tuple[float, ...] = ()
    last_preserved: float = 0.0


def is_checkpoint_state(path: str) -> bool:
    """Whether a file, whatever its name, begins as the text of a state file."""
    return os.path.isfile(path) and re.match(_SIGN, storage.read_range(path, 0, _HEAD)) is not None


def read_checkpoint_state(path: str | os.PathLike[str]) -> CheckpointState:
    """Reads a state file.

    Raises:
        NotFoundError: there is none.
        FormatError: it is no file, or one that is something else or too large.
        CorruptionError: it is no text message, or names no latest checkpoint.
    """
    path = os.fsdecode(path)
    if (size := storage.file_size(path)) > _MAX_SIZE:
        raise FormatError(f"no state file: {size:,} bytes, and one has at most {_MAX_SIZE:,}", path=path)
    data = storage.read_file(path)
    state = _as_written(data) or _parsed(path, data)
    if not state.latest:
        raise CorruptionError("the state file names no latest checkpoint", path=path, hint=_OTHERS)
    return state


def add_to_checkpoint_state(prefix: str | os.PathLike[str], *, force: bool = False) -> bool:
    """Records a checkpoint, by its name alone, as the latest in the state file of its directory.

    Where the others have times of saving, it gets its index's, as TensorFlow's CheckpointManager would give it: a
    manager that finds no times never deletes any of them.

    Args:
        prefix: the checkpoint's.
        force: change a state file that is there already; what it lists is kept.

    Returns:
        Whether the checkpoint was recorded.

    Raises:
        NotFoundError: there is no such checkpoint, of V2 or V1.
        FormatError, CorruptionError: the file that is there is not a state file.
        ConversionError: the name is not UTF-8, and the file is text.
    """
    from ckpttool.formats.locate.prefixes import checkpoint_of, near  # They read state files.

    prefix = os.fsdecode(prefix)
    if not checkpoint_of(prefix, v1=False):  # Whoever looks for the latest one would find none any more.
        raise NotFoundError("no such checkpoint", path=prefix, hint=near(prefix))
    directory, name = os.path.split(prefix)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ConversionError("a state file can't name what is not UTF-8", path=prefix) from error
    path = os.path.join(directory, STATE_FILE)
    exists = os.path.lexists(path)
    if exists and not force:
        return False
    state = read_checkpoint_state(path) if exists else CheckpointState(name, ())
    times = dict(zip(state.all, state.timestamps, strict=False))
    # A manager that finds it twice would take the first for an older checkpoint, and delete it.
    listed = [old for old in state.all if not _is_same(directory, old, name)]
    saved = _time_of_saving(prefix)
    timestamps: tuple[float, ...] = ()
    if times and saved is not None and all(old in times for old in listed):
        timestamps = (*(times[old] for old in listed), saved)
    _write(path, state._replace(latest=name, all=(*listed, name), timestamps=timestamps), force=force)
    return True


def _is_same(directory: str, written: str, name: str) -> bool:
    """Whether a path from the state file in `directory` leads to the checkpoint `name` there."""
    return os.path.abspath(os.path.join(directory, written)) == os.path.abspath(os.path.join(directory, name))


def _time_of_saving(prefix: str) -> float | None:
    """When the index was written, in seconds since 1970; None if there is none."""
    index = f"{prefix}.index"
    return os.stat(index).st_mtime if os.path.exists(index) else None


class Relocated(NamedTuple):
    """What has become of a state file's paths: how many were changed, and which lead to no checkpoint, as before."""

    changed: int
    gone: Sequence[str]


def relocate_checkpoint_state(
    path: str, exists: Callable[[str], bool], *, output: str | Path | None, force: bool, dry_run: bool = False
) -> Relocated:
    """Writes a state file whose paths are relative wherever the same name stands beside it.

    Args:
        path: the state file.
        exists: whether there is a checkpoint of this prefix.
        output: the file to write; None: the state file itself, if anything changes, and the old one is kept beside it
            as `checkpoint.bak` (or `.bak.1`, …, for no backup is replaced).
        force: replace `output` if it is there.
        dry_run: write nothing; what may not be written is refused all the same.

    Raises:
        FileExistsError: `output` is there, and `force` was not given.
        FormatError, CorruptionError: the file is not a state file.
    """
    state = read_checkpoint_state(path)
    directory, before = os.path.dirname(path), [state.latest, *state.all]
    relocated = {written: _relocated(written, directory, exists) for written in before}
    after = [relocated[written] or written for written in before]
    changed = [a != b for a, b in zip(before, after, strict=True)].count(True)
    state = _without_repeats(state._replace(latest=after[0], all=tuple(after[1:])))
    if output is not None:
        replaces = os.path.exists(output)
        graphs = {f"{prefix}.meta" for written in before for prefix in candidates(directory, written) if replaces}
        inputs = [file for graph in graphs for file in (graph, *belonging(graph))]
        _write(output, state, force=force, inputs=inputs, dry_run=dry_run)
    elif changed:
        with nullcontext() if dry_run else _backed_up(path):
            _write(path, state, force=True, dry_run=dry_run)
    return Relocated(changed, [written for written, place in relocated.items() if place is None])


def _relocated(written: str, directory: str, exists: Callable[[str], bool]) -> str | None:
    """A path for the state file in `directory`, relative if the checkpoint is there; None if there is no checkpoint."""
    as_written, *beside = candidates(directory, written)
    if exists(as_written):
        relative = _relative(as_written, directory)
        return written if not os.path.isabs(written) or relative.startswith(os.pardir) else relative
    return _relative(beside[-1], directory) if beside and exists(beside[-1]) else None


def _without_repeats(state: CheckpointState) -> CheckpointState:
    """The state with each path once, where it came last, with its time."""
    places = sorted({path: place for place, path in enumerate(state.all)}.values())
    times = state.timestamps
    if len(times) == len(state.all):
        times = tuple(times[place] for place in places)
    return state._replace(all=tuple(state.all[place] for place in places), timestamps=times)


def _relative(prefix: str, directory: str) -> str:
    """A prefix as a state file in a directory names it: "./" if its files have only suffixes, such as .index."""
    folder, name = os.path.split(prefix)
    relative = os.path.relpath(folder or ".", directory or ".")
    return name if name and relative == "." else os.path.join(relative, name)


def _write(
    path: str | Path, state: CheckpointState, *, force: bool, inputs: Sequence[str] = (), dry_run: bool = False
) -> None:
    if dry_run:
        storage.require_writable(path, force=force, inputs=inputs)
        return
    with storage.write_beside(path, force=force, inputs=inputs) as beside:
        beside.write_text(_text(state))


def _text(state: CheckpointState) -> str:
    """The text of a state file, as TensorFlow writes it."""
    from google.protobuf.text_encoding import CEscape

    lines = [f'model_checkpoint_path: "{CEscape(state.latest.encode(), as_utf8=False)}"']
    lines += [f'all_model_checkpoint_paths: "{CEscape(path.encode(), as_utf8=False)}"' for path in state.all]
    lines += [f"all_model_checkpoint_timestamps: {time}" for time in state.timestamps]
    lines += [f"last_preserved_timestamp: {state.last_preserved}"] * bool(state.last_preserved)
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def _backed_up(path: str) -> Iterator[None]:
    """Keeps a copy of a file that is to be replaced, unless an error leaves the file as it was."""
    backup, old = _unused(f"{path}.bak"), os.stat(path)
    with storage.write_beside(backup) as beside:
        shutil.copy2(path, beside)
    try:
        yield
    except BaseException:
        if os.path.samestat(os.stat(path), old):
            os.unlink(backup)
        raise


def _unused(path: str) -> str:
    """The path, or the first of path.1, path.2, … that does not exist yet."""
    names = chain([path], (f"{path}.{number}" for number in count(1)))
    return next(name for name in names if not os.path.lexists(name))


def _as_written(data: bytes) -> CheckpointState | None:
    """The state of a file of such lines as TensorFlow writes; None if others are among them."""
    if not re.fullmatch(rb"(?:%b)+" % _LINE, data):
        return None
    values: dict[bytes, list[bytes]] = {}
    for name, text, timed, time in re.findall(_LINE, data):
        values.setdefault(name or timed, []).append(text or time)
    latest = values.get(b"model_checkpoint_path", [b""])[-1]
    paths = values.get(b"all_model_checkpoint_paths", [])
    times = values.get(b"all_model_checkpoint_timestamps", [])
    last_preserved = values.get(b"last_preserved_timestamp", [b"0"])[-1]
    return CheckpointState(
        latest.decode(), tuple(path.decode() for path in paths), tuple(map(float, times)), float(last_preserved)
    )


def _parsed(path: str, data: bytes) -> CheckpointState:
    """The state of any text that protobuf takes for one."""
    from google.protobuf import text_format

    message = proto.message_class("CheckpointState")()
    try:
        text_format.Merge(data, message)  # Of several values the last one, as TensorFlow.
    except (text_format.ParseError, ValueError, RecursionError) as error:  # ValueError: a number, or no UTF-8.
        look = look_of(path)
        if look:
            raise FormatError(f"not a checkpoint state file: {look[0]}", path=path, hint=look[1]) from error
        why = str(error) or "no UTF-8"
        hint = f"{_BACKSLASHES}; {_OTHERS}" if b"\\" in data else _OTHERS
        raise CorruptionError(f"not a checkpoint state file: {why}", path=path, hint=hint) from error
    return CheckpointState(
        message.model_checkpoint_path,
        tuple(message.all_model_checkpoint_paths),
        tuple(message.all_model_checkpoint_timestamps),
        message.last_preserved_timestamp,
    )


# Written by hand, a path of Windows often has single backslashes.
_BACKSLASHES = r"in a path each \ is written as \\"
_OTHERS = "the checkpoints beside it can be given by their prefixes, or by --step"


def candidates(directory: str, path: str) -> list[str]:
    """Where a path from the state file in `directory` may lead: as written, then the same name beside the file.

    A path written on Windows is split at its backslashes; the name alone never leads out of the directory.
    """
    name = re.split(r"[\\/]", path)[-1]
    return list(dict.fromkeys([os.path.join(directory, path), os.path.join(directory, name)]))
