"""Reading HDF5: ours, Keras', anybody's.

A file is believed only as far as its contents bear it out. Data in other files, and types without a dtype in
TensorFlow, are passed over. `datasets` finds the datasets.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError, NotSupportedError, located, reporter
from ckpttool.formats.decoding import require_decodable
from ckpttool.formats.hdf5.bfloat16 import is_bfloat16
from ckpttool.formats.hdf5.chunks import padded_size, require_run, stored_bytes, values_of
from ckpttool.formats.hdf5.datasets import Found, Tree, sizes_of, text_of
from ckpttool.formats.hdf5.filters import require_known
from ckpttool.formats.hdf5.guessed_layers import guessed_layer
from ckpttool.formats.hdf5.names import NOTE
from ckpttool.formats.hdf5.strings import strings_of
from ckpttool.formats.hdf5.structure import Dataset, File, Object, dataset_of, is_archive, opened
from ckpttool.formats.hdf5.structure.datatype import INTEGER, VLEN, Datatype
from ckpttool.formats.hdf5.structure.layout import CONTIGUOUS, VIRTUAL
from ckpttool.formats.hdf5.types import dtype_of, is_swapped, said_of
from ckpttool.formats.notes import Note, noted_slices
from ckpttool.formats.raw import RawSource, Run, slice_of_strings
from ckpttool.formats.zip_members import KERAS
from ckpttool.model.boxes import Selection, is_size, shape_of
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.dtypes import DTYPES, DType
from ckpttool.model.layer import OF_OPTIMIZER, Layer
from ckpttool.model.slices import ByteRange, Slice
from ckpttool.model.texts import to_text
from ckpttool.model.variable import Source, Variable

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FORMAT = "HDF5"
_CREATED_BY = b"ckpttool"
# The groups in the file of a whole model: one is what a file of weights is, one has the optimizer's variables.
_WHOLE_MODEL, _OPTIMIZER = "model_weights/", "optimizer_weights"
# More bytes than this, and so many times those stored, are not weights but a bomb. Deflate makes 1032 bytes of one.
_BOMB, _BOMB_RATIO = 256 << 20, 1100
_OF_TEXT = 64  # Bytes that even the shortest string takes in memory.
_MAX_NOTE, _MAX_NAME = 1 << 16, 64
_NO_NOTE = Note()


def read_hdf5(
    path: str | os.PathLike[str],
    *,
    faults: list[CheckpointError] | None = None,
    names: dict[str, str] | None = None,
) -> Checkpoint:
    """Opens an HDF5 file, or the one in a `.keras` file: reads the headers of its datasets, and no values.

    Whatever has a name in it and is not a variable is passed over with a warning: a link to elsewhere, a dataset
    without a dtype in TensorFlow, or one whose values are in another file, or nowhere.

    Args:
        path: the file.
        faults: a list for the errors of what is damaged, which is passed over; None: they are raised.
        names: for a shard: see `Tree`.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is no HDF5 file, or damaged.
        NotSupportedError: it is an unknown kind of HDF5 file.
    """
    path = os.fspath(path)
    report = reporter(path, faults)
    variables: dict[str, Variable] = {}
    with located(path), opened(path) as file:
        tree = Tree(path, file, report, names=names)
        reader = _Reader(path, file, tree.root)
        found = [reader.described(each) for each in tree.datasets(has_links=reader.is_ours)]
        for name, described in zip(reader.names(found), found, strict=True):
            if isinstance(described.variable, NotSupportedError):
                tree.warnings.append(f"/{described.path} is passed over: {described.variable.what}")
            elif isinstance(described.variable, CheckpointError):
                described.variable.variable = name
                report(described.variable)
            else:
                if name in variables:
                    report(CorruptionError("the file has it twice", variable=name))
                variables[name] = variable = described.variable.renamed(name)
                if variable.layer is not None and variable.layer is not OF_OPTIMIZER:
                    variable.layer = variable.layer._replace(weight=name)
    format = KERAS if is_archive(partial(storage.read_range, path)) else FORMAT
    return Checkpoint(variables, path=path, format=format, files=[path], warnings=tree.warnings)


class _Described(NamedTuple):
    """A dataset: its path, that of its layer, the name in its attribute, and its variable or why there is none."""

    path: str
    layer: str | None
    said: str | None
    variable: Variable | CheckpointError


def _names(datasets: Sequence[_Described]) -> list[str]:
    """The names of variables in a file that was not written here, longer where several would have the same."""
    names = [_within_layer(found) for found in datasets]
    for longer in (_with_layer, lambda found: found.path):
        taken = Counter(names)
        names = [name if taken[name] == 1 else longer(found) for name, found in zip(names, datasets, strict=True)]
    return names


def _within_layer(found: _Described) -> str:
    return found.path[len(found.layer) + 1 if found.layer else 0 :].removesuffix(":0")


def _with_layer(found: _Described) -> str:
    return found.path.removeprefix(_WHOLE_MODEL).removesuffix(":0")


def _our_name(found: _Described) -> str:
    return found.path.removesuffix(":0") if found.said is None else found.said


class _Reader:
    """Makes variables of the datasets of a file."""

    def __init__(self, path: str, file: File, root: Object) -> None:
        self._path, self._file = path, file
        self.is_ours = (text_of(root, "created_by") or b"").startswith(_CREATED_BY)
        self._raw, self._decoded, self._lengths = RawSource(), _Datasets(path), storage.Lengths()

    def names(self, datasets: Sequence[_Described]) -> list[str]:
        """The names of the variables (see `formats.hdf5`)."""
        return [_our_name(found) for found in datasets] if self.is_ours else _names(datasets)

    def described(self, found: Found) -> _Described:
        """Reads the header of a dataset, and no values."""
        said = None
        try:
            text = text_of(found.dataset, "name") if self.is_ours else None
            said = None if text is None else to_text(text)
            with _in_memory():  # It may contain an index of chunks.
                variable = self._variable(found)
        except CheckpointError as error:
            return _Described(found.path, found.layer, said, error)
        if found.layer is not None and found.rank is not None:
            variable.layer = Layer(found.layer.removeprefix(_WHOLE_MODEL), found.rank)
        elif found.layer == _OPTIMIZER and not self.is_ours:
            variable.layer = OF_OPTIMIZER
        elif found.saved is not None:
            scope, name = found.saved
            number = found.path[len(f"{scope}/vars/") :]
            variable.layer = Layer(name, (0, int(number)) if is_size(number) else None, scope)
        elif not self.is_ours:
            variable.layer = guessed_layer(found.path)
        return _Described(found.path, found.layer, said, variable)

    def _variable(self, found: Found) -> Variable:
        """The variable that a dataset is.

        Raises:
            NotSupportedError: it is none.
            CorruptionError: it is damaged.
        """
        path, header = found.path, found.dataset
        dataset = dataset_of(header)
        _require_readable(dataset)
        text, said = text_of(header, NOTE), text_of(header, "tensorflow_dtype") or b""
        note = Note.decode(text[:_MAX_NOTE].decode(errors="replace")) if text else _NO_NOTE
        if is_bfloat16(found, dataset.datatype):
            dtype = DTYPES["bfloat16"]
        else:
            dtype = _dtype(dataset.datatype, said[:_MAX_NAME].decode(errors="replace"))
        self._require_borne_out(dataset, dtype.itemsize or max(_OF_TEXT, dataset.datatype.size))
        shape = self._shape(header, dtype, dataset.shape)
        offset = self._offset(dataset, dtype)
        if offset is None:
            return self._decoded.add(path, dtype, shape, _Stored(dataset, note))
        data = ByteRange(self._path, offset, prod(shape) * (dtype.itemsize or 1), None)
        self._lengths.require(data)
        return self._raw.add(path, dtype, shape, Run(data, note))

    def _shape(self, found: Object, dtype: DType, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a dataset, or the one in our attribute, which has more dimensions than HDF5 allows."""
        said = sizes_of(found, "shape") if self.is_ours and dtype.itemsize is not None else None
        return said if said is not None and stored == (prod(said),) else stored

    def _require_borne_out(self, dataset: Dataset, itemsize: int) -> None:
        """Raises NotSupportedError if the dataset, or its chunks, are many times larger than what is stored of it."""
        nbytes = padded_size(dataset) * itemsize
        if nbytes <= (_BOMB // 4 if dataset.datatype.is_text else _BOMB):  # Text is not read block by block.
            return
        # Chunks may overlap, if the file says so.
        stored = min(stored_bytes(self._file, dataset), self._file.size)
        if nbytes > _BOMB_RATIO * stored:
            raise NotSupportedError(f"{stored:,} bytes are stored for {nbytes:,}")

    def _offset(self, dataset: Dataset, dtype: DType) -> int | None:
        """Where in the file the values are, if they are stored in one run, as in a bundle."""
        layout = dataset.layout
        if layout.kind != CONTIGUOUS or layout.address is None or dtype.itemsize is None:
            return None
        if is_swapped(dataset.datatype):
            return None
        require_run(dataset)
        return self._file.base + layout.address


def _require_readable(dataset: Dataset) -> None:
    """Raises NotSupportedError unless the values are in this file and all their filters are known."""
    if dataset.layout.kind == VIRTUAL:
        raise NotSupportedError("it is virtual: its values are those of other datasets")
    if dataset.is_elsewhere:
        raise NotSupportedError("its values are in other files")
    if dataset.space.shape is None:
        raise NotSupportedError("it is empty: it has no shape, and no values")
    require_known(dataset.filters)


def _dtype(stored: Datatype, said: str) -> DType:
    """The dtype of a dataset's values, given the attribute `tensorflow_dtype`.

    Raises:
        NotSupportedError: TensorFlow has none for it.
    """
    if stored.is_text:
        return DTYPES["string"]
    if stored.kind == VLEN and stored.base == _BYTE:
        return DTYPES["variant" if said == "variant" else "string"]
    found = dtype_of(stored, said)
    if found is None:
        raise NotSupportedError(f"TensorFlow has no dtype for {said_of(stored)}")
    return found


# An unsigned integer of one byte: all bits count.
_BYTE = Datatype(INTEGER, 1, details=(0, 0, 8))


class _Stored(NamedTuple):
    """What is stored of a variable: a dataset, and a note."""

    dataset: Dataset
    note: Note


class _Datasets(Source):
    """The source of values that must be decoded: chunks, swapped bytes, strings."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stored: dict[bytes, _Stored] = {}

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], stored: _Stored) -> Variable:
        key = b"%d" % len(self._stored)
        self._stored[key] = stored
        return Variable(name, dtype, shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        dataset, note = self._stored[variable.key]
        nbytes = variable.size * (variable.dtype.itemsize or 16)
        data = ByteRange(self._path, 0, nbytes, None)
        # If the shape is not that of the dataset, boxes are found by counting from the start.
        note = note if dataset.shape == variable.shape else note._replace(slices=())
        return noted_slices(variable, note, data)

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[Array]":
        require_decodable(variable.dtype)
        dataset, done = self._stored[variable.key].dataset, 0
        with located(self._path), _in_memory(), values_of(self._path, dataset) as values:
            for box in boxes:
                shape = shape_of(box)
                where = box if dataset.shape == variable.shape else (slice(done, done + prod(shape)),)
                yield _decoded(values(where), dataset.datatype, variable.dtype).reshape(shape)
                done += prod(shape)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        with located(self._path, variable.name), _in_memory():
            values = strings_of(self._path, self._stored[variable.key].dataset)
        return slice_of_strings(values, variable, piece)


@contextmanager
def _in_memory() -> Iterator[None]:
    """Raises if there is too little memory: it has to hold at least a chunk of a compressed dataset, and its index."""
    try:
        yield
    except MemoryError as error:
        raise NotSupportedError("too little memory for a chunk of it") from error


def _decoded(stored: "Array", datatype: Datatype, dtype: DType) -> "Array":
    """The stored elements as numbers in native byte order."""
    if is_swapped(datatype) != (sys.byteorder == "big"):
        number = datatype.size // (len(datatype.members) or 1)
        stored = stored.reshape(-1).view(f"u{number}").byteswap(inplace=True)
    return stored.reshape(-1).view(dtype.numpy)
