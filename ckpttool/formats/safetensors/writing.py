"""Writing safetensors: one file, or a directory of several with an index."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import ConversionError
from ckpttool.formats.contents import content_of, require_little_endian
from ckpttool.formats.notes import Note, notes_of
from ckpttool.formats.plan import Planned, check_plan, description, distinct, filled, require_positive
from ckpttool.formats.safetensors.words import FALLBACKS, MAX_HEADER, METADATA, NOTES, PLACES, WORDS, escape
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.variable import Variable
from ckpttool.wire.coding import encode_fixed64

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_REPLACED = ".replaced"
_MEMBER = re.compile(rf"(model(?:-[0-9]{{5,}}-of-[0-9]{{5,}})?\.safetensors(?:\.index\.json)?)(?:{_REPLACED})?")


def plan_safetensors(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_safetensors` would make of each variable. Reads no values."""
    require_checkpoint(checkpoint)
    return distinct([_planned(variable) for variable in checkpoint.values()])


def _planned(variable: Variable) -> Planned:
    name = variable.dtype.name
    problem = None if name in WORDS or name in FALLBACKS else f"safetensors can't hold values of dtype {name}"
    problem = problem or variable.lacking or None
    return Planned(variable, escape(variable.name), problem, FALLBACKS.get(name, (None, None))[1])


class _Tensor(NamedTuple):
    """A tensor to be written, with the note that its variable needs (see `Note.told`)."""

    name: str
    variable: Variable
    word: str
    shape: tuple[int, ...]
    nbytes: int
    note: Mapping[str, Any]


def write_safetensors(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    max_shard_size: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a safetensors file, or a directory of several.

        >>> ckpttool.write_safetensors(ckpttool.open_checkpoint("model.ckpt"), "model.safetensors")

    Args:
        checkpoint: what to write.
        path: the file to be written; with `max_shard_size` the directory, which is made if it is not there.
        max_shard_size: the most bytes of values in a file, unless a single tensor has more; None: one file.
        strict: raise if there is a variable that has no type here, instead of storing it as another one.
        force: replace files that are there; in a directory, all those of the model there.
        progress: is called with the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        TypeError: `max_shard_size` is no number.
        ValueError: `max_shard_size` is not positive.
        NotFoundError: there is no directory for it.
        FileExistsError: there is such a file, or another of a model in the directory, and `force` was not given; or the
            checkpoint is read from it.
        ConversionError: no variable can be held; or `strict`, and one can't as it is; two would have the same name; the
            header would be larger than readers take.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    require_positive(max_shard_size=max_shard_size)
    plan = plan_safetensors(checkpoint)
    remarkable = check_plan(plan, strict=strict)
    require_little_endian("safetensors")
    tensors, path = _tensors(plan, checkpoint), os.fsdecode(path)
    if max_shard_size is None:
        _write(checkpoint, _Output({path: tensors}, None), [path], force, progress)
        return remarkable
    require_shards_writable(path, force=force, inputs=checkpoint.files)
    with _directory(path):
        _write(checkpoint, _sharded(path, tensors, max_shard_size), _members(path), force, progress)
    return remarkable


def require_shards_writable(path: str, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises what `write_safetensors` would raise about a directory, and writes nothing."""
    if not os.path.isdir(path):
        storage.require_writable(Path(path), force=False, inputs=inputs)
        return
    storage.require_all_writable(_members(path), force=force, inputs=inputs)


@contextmanager
def _directory(path: str) -> Iterator[None]:
    """Makes a directory, if it is not there, and removes it again if an error leaves it empty."""
    made = not os.path.isdir(path)
    try:
        if made:
            os.mkdir(path)
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                os.rmdir(path)
        raise


def _members(directory: str) -> list[str]:
    """The files of a model in a directory, the index first, for readers would take them for parts of the new model.
    Those that were moved aside by a run that died count too, by their old names.
    """
    found = {match[1] for match in map(_MEMBER.fullmatch, os.listdir(directory)) if match}
    return [os.path.join(directory, name) for name in sorted(found, key=lambda name: (name != _INDEX, name))]


def _tensors(plan: Sequence[Planned], checkpoint: Checkpoint) -> list[_Tensor]:
    """The tensors in the order in which they are written."""
    tensors, notes = [], notes_of(checkpoint)
    for planned in plan:
        variable = planned.variable
        if planned.problem:
            continue
        name, shape, nbytes = variable.dtype.name, variable.shape, variable.nbytes
        if variable.dtype.itemsize is None:
            nbytes = content_of(variable).nbytes
            shape = (nbytes,)
        elif name == "complex128":
            shape = (*shape, 2)
        word, note = FALLBACKS.get(name, ("", ""))[0] or WORDS[name], _note(planned, notes[variable.name])
        tensors.append(_Tensor(planned.target, variable, word, shape, nbytes, note.told()))
    return sorted(tensors, key=lambda tensor: (-PLACES[tensor.word], tensor.name))


def _note(planned: Planned, note: Note) -> Note:
    """The note of a variable, with all that its tensor does not say."""
    variable = planned.variable
    if variable.dtype.name in FALLBACKS:
        note = note._replace(dtype=variable.dtype.name, shape=variable.shape)
    return note if planned.target == variable.name else note._replace(name=variable.name)


def _description(checkpoint: Checkpoint) -> dict[str, str]:
    """The metadata: what the file was made from, and what its source said in its own."""
    # transformers refuses files that do not name a framework.
    ours = {"format": "tf", **description(checkpoint)}
    is_ours = checkpoint.metadata.get("created_by", "").startswith("ckpttool ")
    return ours | {name: text for name, text in checkpoint.metadata.items() if name not in ours or not is_ours}


class _Output(NamedTuple):
    """The files to be written, each with its tensors, and the path and text of the index."""

    files: dict[str, list[_Tensor]]
    index_file: tuple[str, bytes] | None


def _sharded(directory: str, tensors: Sequence[_Tensor], limit: int) -> _Output:
    """The files of a directory; one file needs no index."""
    by_name = sorted(tensors, key=lambda tensor: tensor.name)
    numbers = list(filled((tensor.nbytes for tensor in by_name), limit))
    count = numbers[-1] + 1 if numbers else 1
    if count == 1:
        return _Output({os.path.join(directory, _SINGLE): list(tensors)}, None)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    weight_map = {tensor.name: names[number] for tensor, number in zip(by_name, numbers, strict=True)}
    total = sum(tensor.nbytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    files: dict[str, list[_Tensor]] = {os.path.join(directory, name): [] for name in names}
    for tensor in tensors:
        files[os.path.join(directory, weight_map[tensor.name])].append(tensor)
    text = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    return _Output(files, (os.path.join(directory, _INDEX), text.encode()))


def _write(
    checkpoint: Checkpoint,
    output: _Output,
    members: Sequence[str],
    force: bool,
    progress: Callable[[int], None],
) -> None:
    files, index, described = output.files, output.index_file, _description(checkpoint)
    paths = [*files, *([index[0]] if index else [])]
    # The file that makes the others count is written last, so its old version has to be moved last.
    members = sorted(members, key=lambda path: path == paths[-1]) if force else []
    replaced = {path: f"{path}{_REPLACED}" for path in members if os.path.lexists(path)}
    kept = [f"{path}{_REPLACED}" for path in members if os.path.lexists(f"{path}{_REPLACED}")]
    with storage.write_together(paths, force=force, inputs=checkpoint.files, replaced=replaced, kept=kept) as besides:
        storage.require_space(besides[0], sum(tensor.nbytes for tensors in files.values() for tensor in tensors))
        for tensors, beside in zip(files.values(), besides, strict=False):
            own = {tensor.name: tensor.note for tensor in tensors if tensor.note}
            noted = {NOTES: json.dumps(own, separators=(",", ":"))} if own else {}
            header = _header(tensors, {**described, **noted})
            beside.write_bytes(header)
            *starts, end = accumulate((tensor.nbytes for tensor in tensors), initial=len(header))
            contents = ((start, content_of(tensor.variable)) for start, tensor in zip(starts, tensors, strict=True))
            storage.reserve(beside, end)
            storage.write_contents(beside, contents, progress)
        if index:
            besides[-1].write_bytes(index[1])


def _header(tensors: Sequence[_Tensor], metadata: Mapping[str, str]) -> bytes:
    """The length of the header, and the header."""
    header: dict[str, Any] = {METADATA: dict(metadata)}
    ends = list(accumulate((tensor.nbytes for tensor in tensors), initial=0))
    for tensor, offsets in zip(tensors, pairwise(ends), strict=True):
        header[tensor.name] = {"dtype": tensor.word, "shape": list(tensor.shape), "data_offsets": list(offsets)}
    data = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    data += b" " * (-len(data) % 8)
    if len(data) > MAX_HEADER:
        raise ConversionError(f"a header of {len(data):,} bytes: readers take no more than {MAX_HEADER:,}")
    return encode_fixed64(len(data)) + data
