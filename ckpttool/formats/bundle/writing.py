"""Writing a tensor bundle: the bytes that TensorFlow's own SaveV2 and MergeV2Checkpoints would write.

A shard is the values one after another, without a gap; the index is a table of the header and the entries in the order
of their keys (formats.bundle has the format). What is left to choose is each variable's shard, and the order in a
shard: as in the source or, where that is not known, by names, as TensorFlow 1 saves them. A partitioned variable keeps
its slices.

    checkpoint ── pieces, in (shard, position) order ── one file a shard ── index

The shards are in place before the index is, and the index is what makes them a checkpoint.

(tensorflow/core/util/tensor_bundle/tensor_bundle.cc, python/training/saving/saveable_object_util.py)
"""

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ckpttool import storage
from ckpttool.errors import IS_INPUT, ConversionError, in_the_way
from ckpttool.formats.bundle import bundle_files, index_path, shard_path
from ckpttool.formats.contents import content_of_piece, require_little_endian
from ckpttool.formats.plan import Planned, check_plan, filled, require_positive
from ckpttool.formats.records.entries import BundleEntry, encode_bundle_entry, encode_bundle_header
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.model.boxes import is_too_large
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.slices import Slice
from ckpttool.model.texts import to_bytes
from ckpttool.model.variable import Variable
from ckpttool.storage import Content
from ckpttool.wire.crc32c import mask
from ckpttool.wire.sstable import TableBuilder

_V1_SHARD = re.compile(r"(.+)(?<!\.data)-[0-9]{5,9}-of-[0-9]{5,9}", re.DOTALL)


class _Piece(NamedTuple):
    """What gets an index entry with values: a variable, or a slice of one."""

    key: bytes
    variable: Variable
    slice: Slice

    @property
    def nbytes(self) -> int:
        return self.variable.nbytes_of(self.slice)

    @property
    def exact_nbytes(self) -> int:
        """Bytes that it will take: strings are read for that."""
        return self.nbytes if self.variable.dtype.itemsize is not None else self.content().nbytes

    def content(self) -> Content:
        return content_of_piece(self.variable, self.slice)


def plan_bundle(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_bundle` would make of each variable. Reads no values."""
    require_checkpoint(checkpoint)
    return [Planned(v, v.name, _problem(v)) for v in checkpoint.values()]


def _problem(variable: Variable) -> str | None:
    dtype = variable.dtype
    if dtype.itemsize is None and dtype.name not in ("string", "variant"):
        return f"no checkpoint can hold values of dtype {dtype.name}"
    if 0 in variable.shape and is_too_large(variable.shape):
        return f"TensorFlow has no shape {list(variable.shape)}, and would abort"
    try:
        key = to_bytes(variable.name)
    except UnicodeEncodeError:
        return "its name is no text: half of a surrogate pair stands alone"
    return None if key else "no variable can have an empty name: the header's key is empty"


def write_bundle(
    checkpoint: Checkpoint,
    prefix: str | os.PathLike[str],
    *,
    num_shards: int | None = None,
    max_shard_size: int | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a new bundle, byte for byte as TensorFlow would, checksums tested.

        >>> ckpttool.write_bundle(ckpttool.open_checkpoint("weights.npz"), "model.ckpt")

    A bundle that is replaced is kept as PREFIX.replaced until the new one is whole: whatever happens meanwhile, the one
    or the other can be restored.

    Args:
        checkpoint: what to write.
        prefix: of the files to be: PREFIX.index, PREFIX.data-00000-of-00001 …
        num_shards: how many data files, of about the same size, as far as there is a variable or slice for each;
            None: as many as the checkpoint has.
        max_shard_size: bytes that a data file has at most, but for one with a single larger variable or slice.
        strict: raise if there is a variable that a bundle can't hold, instead of leaving it out.
        force: replace a bundle that is there.
        progress: is called with the bytes of each piece written.

    Returns:
        The variables that were left out, each with the reason.

    Raises:
        TypeError: `num_shards` or `max_shard_size` is no number.
        ValueError: `num_shards` or `max_shard_size` is not positive, or both are given.
        NotFoundError: there is no directory for it.
        FileExistsError: there is such a bundle, and `force` was not given; or the checkpoint is read from it.
        IsADirectoryError: `prefix` ends with a slash.
        ConversionError: no variable can be held; or `strict`, and one can't; or two would have the same key.
        CorruptionError: values are missing or damaged; nothing is written.
    """
    prefix = os.fsdecode(prefix)
    _check_arguments(num_shards, max_shard_size)
    plan = plan_bundle(checkpoint)
    require_bundle_writable(prefix, force=force, inputs=checkpoint.files)
    remarkable = check_plan(plan, strict=strict)
    require_little_endian("a bundle")
    pieces = [piece for planned in plan if not planned.problem for piece in _pieces(planned.variable)]
    shards = _shards(pieces, num_shards, max_shard_size)
    paths = [shard_path(prefix, number, len(shards)) for number in range(len(shards))] + [index_path(prefix)]
    replaced = {path: _kept(prefix) + path[len(prefix) :] for path in bundle_files(prefix)} if force else {}
    kept = bundle_files(_kept(prefix)) if force else []
    with storage.write_together(paths, force=force, inputs=checkpoint.files, replaced=replaced, kept=kept) as besides:
        storage.require_space(besides[-1], sum(piece.nbytes for piece in pieces))
        builder = _IndexBuilder(len(shards))
        for number, (shard, beside) in enumerate(zip(shards, besides, strict=False)):
            _write_shard(beside, shard, number, builder, progress)
        besides[-1].write_bytes(builder.finish())
    return remarkable


def _check_arguments(num_shards: int | None, max_shard_size: int | None) -> None:
    if num_shards is not None and max_shard_size is not None:
        raise ValueError("give num_shards or max_shard_size, not both")
    require_positive(num_shards=num_shards, max_shard_size=max_shard_size)


def require_bundle_writable(prefix: str, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises what `write_bundle` raises of its output: there is any of a bundle's files, or what is read."""
    if not os.path.basename(prefix):
        raise IsADirectoryError(errno.EISDIR, "the output is a directory: a prefix of names in it is needed", prefix)
    # V1 files may be called `prefix`: the index would take their name.
    v1 = {shard[1] for shard in map(_V1_SHARD.fullmatch, inputs) if shard}
    if prefix in storage.Inputs(inputs) or os.path.realpath(prefix) in map(os.path.realpath, v1):
        raise in_the_way(prefix, IS_INPUT)
    storage.require_all_writable([*bundle_files(prefix), index_path(prefix)], force=force, inputs=inputs)


def _pieces(variable: Variable) -> Iterator[_Piece]:
    name = to_bytes(variable.name)
    for piece in variable.slices:
        # TensorFlow stores a slice that is the whole variable as if it was not cut.
        if piece.extents is None or piece.shape == variable.shape:
            yield _Piece(name, variable, piece._replace(extents=None))
            return
        yield _Piece(encode_slice_key(name, piece.extents), variable, piece)


def _shards(pieces: Sequence[_Piece], count: int | None, limit: int | None) -> list[list[_Piece]]:
    """The pieces of each data file, in order; there is always at least one file."""
    placed = sorted(pieces, key=lambda piece: (piece.slice.shard, piece.slice.position, _name(piece)))
    if count is None and limit is None:
        numbers = iter([piece.slice.shard for piece in placed])
    else:
        by_name = sorted(placed, key=lambda piece: (piece.slice.shard, _name(piece)))
        placed = sorted(placed, key=_name) if placed == by_name else placed
        sizes = [piece.exact_nbytes for piece in placed]
        numbers = _balanced(sizes, count) if count is not None else filled(sizes, limit or 0)
    shards: dict[int, list[_Piece]] = {}
    for number, piece in zip(numbers, placed, strict=True):
        shards.setdefault(number, []).append(piece)
    return list(shards.values()) or [[]]


def _balanced(sizes: Sequence[int], count: int) -> Iterator[int]:
    """For each piece the number of its file, of `count`: where its middle would lie if files had one size.

    None of the files is left empty, as far as there are pieces.
    """
    total, count, number = max(1, sum(sizes)), min(count, len(sizes)), -1
    for i, (end, size) in enumerate(zip(accumulate(sizes), sizes, strict=True)):
        middle = (2 * end - size) * count // (2 * total)
        first, last = max(number, count - (len(sizes) - i)), min(number + 1, count - 1)
        number = max(first, min(middle, last))
        yield number


def _name(piece: _Piece) -> bytes:
    return to_bytes(piece.variable.name)


class _IndexBuilder:
    """Collects the entries, and makes the index of them."""

    def __init__(self, num_shards: int) -> None:
        self._entries: dict[bytes, bytes] = {}
        self._num_shards = num_shards

    def add(self, piece: _Piece, shard: int, offset: int, content: Content) -> None:
        """Adds the entry of a piece that has been written and, with the first piece of a partitioned variable, the
        variable's own. TensorFlow, merging shards, gives that one the number of the first shard.
        """
        assert content.crc32c is not None
        dtype = piece.variable.dtype.number
        entry = BundleEntry(dtype, piece.slice.shape, shard, offset, content.nbytes, mask(content.crc32c))
        self._put(piece.key, piece.variable, entry)
        name = _name(piece)
        if piece.slice.extents is not None and name not in self._entries:
            extents = tuple(part.extents for part in piece.variable.slices if part.extents is not None)
            self._put(name, piece.variable, BundleEntry(dtype, piece.variable.shape, shard, slices=extents))

    def _put(self, key: bytes, variable: Variable, entry: BundleEntry) -> None:
        if key in self._entries:
            raise ConversionError(f"the key {key!r} is there twice", variable=variable.name)
        self._entries[key] = encode_bundle_entry(entry)

    def finish(self) -> bytes:
        table = TableBuilder()
        table.add(b"", encode_bundle_header(self._num_shards))
        for key in sorted(self._entries):
            table.add(key, self._entries[key])
        return table.finish()


def _write_shard(
    path: Path, pieces: Sequence[_Piece], number: int, builder: _IndexBuilder, progress: Callable[[int], None]
) -> None:
    written: list[tuple[_Piece, int, Content]] = []

    def contents() -> Iterator[tuple[int, Content]]:
        offset = 0
        for piece in pieces:
            content = piece.content()
            written.append((piece, offset, content))
            yield offset, content
            offset += content.nbytes

    storage.reserve(path, sum(piece.nbytes for piece in pieces))
    storage.write_contents(path, contents(), progress)
    for piece, offset, content in written:
        builder.add(piece, number, offset, content)


def _kept(prefix: str) -> str:
    """The prefix of a bundle while it is being replaced."""
    return f"{prefix}.replaced"
