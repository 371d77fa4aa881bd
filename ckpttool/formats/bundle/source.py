"""Where the values of a bundle's variables lie, and what they are."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.formats.bundle.names import shard_counts, shard_path
from ckpttool.formats.decoding import arrays_of, require_decodable, strings_of
from ckpttool.formats.records.entries import BundleEntry, BundleHeader, decode_bundle_entry
from ckpttool.formats.records.shapes import box_of, encode_slice_key
from ckpttool.model.boxes import Extents, Selection, shape_of
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.variable import Source, Variable
from ckpttool.wire.crc32c import unmask

if TYPE_CHECKING:
    import numpy as np


class Partitioned(NamedTuple):
    """A variable that is stored in slices: its name, of which their keys are made, and its entry."""

    name: bytes
    entry: BundleEntry


class BundleSource(Source):
    """The source of a bundle's variables. A variable's key is its entry as it is stored, or Partitioned.

    Args:
        prefix: what the files' names begin with.
        header: how many shards there are, and the byte order.
        slices: the entries of slices as they are stored, by their keys.
    """

    def __init__(self, prefix: str, header: BundleHeader, slices: Mapping[bytes, bytes]) -> None:
        self._prefix, self._header, self._slices = prefix, header, slices
        self._lengths = storage.Lengths()

    @cached_property
    def _num_shards(self) -> int:
        """The number of shards in the files' names: the header's or, if there are none of these, that of the only other
        set. TensorFlow, merging a shard without variables, counts it in the header and not in the files' names.
        """
        counted = self._header.num_shards
        if not os.path.exists(shard_path(self._prefix, 0, counted)):
            found = shard_counts(self._prefix)
            if len(found) == 1:
                return found.pop()
        return counted

    @property
    def shard_paths(self) -> list[str]:
        """The data files, which need not be there."""
        return [shard_path(self._prefix, number, self._num_shards) for number in range(self._num_shards)]

    @property
    def miscounted(self) -> str:
        """What is wrong with the header's count of shards; "" if nothing is."""
        if self._num_shards == self._header.num_shards:
            return ""
        return f"the header counts {self._header.num_shards} shards, the files are {self._num_shards}"

    def slices(self, variable: Variable) -> Sequence[Slice]:
        if not isinstance(variable.key, Partitioned):
            entry = decode_bundle_entry(variable.key)
            return [self._slice((0,) * len(entry.shape), entry)]
        name, entry = variable.key
        return [
            self._slice(start, self._entry_of_slice(name, extents), extents)
            for extents in entry.slices
            for start, _ in [box_of(extents, entry.shape)]
        ]

    def shards(self, variable: Variable) -> Sequence[int]:
        if isinstance(variable.key, Partitioned):
            name, entry = variable.key
            return [self._entry_of_slice(name, extents).shard for extents in entry.slices]
        return [decode_bundle_entry(variable.key).shard if self._header.num_shards > 1 else 0]

    def _entry_of_slice(self, name: bytes, extents: Extents) -> BundleEntry:
        return decode_bundle_entry(self._slices[encode_slice_key(name, extents)])

    def _slice(self, start: tuple[int, ...], entry: BundleEntry, extents: Extents | None = None) -> Slice:
        path = shard_path(self._prefix, entry.shard, self._num_shards)
        span = ByteRange(path, entry.offset, entry.size, unmask(entry.masked_crc32c))
        # An empty value comes before another that starts at the same byte.
        return Slice(start, entry.shape, entry.shard, span, 2 * entry.offset + (entry.size > 0), extents)

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        self._lengths.require(piece.data)
        if variable.dtype.itemsize is None or (self._header.big_endian and variable.dtype.itemsize > 1):
            return None
        return piece.data

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        require_decodable(variable.dtype)
        storage.require_range(piece.data)
        return arrays_of(piece.data, variable.dtype, map(shape_of, boxes), is_big=self._header.big_endian)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        return strings_of(piece.data, variable.dtype, prod(piece.shape), is_big=self._header.big_endian)
