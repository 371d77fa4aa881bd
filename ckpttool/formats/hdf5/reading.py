"""Reading HDF5: ours, Keras', anybody's.

What a file says is believed only as far as what is stored bears it out; data that lies in other files is passed over,
and so is what TensorFlow has no dtype for. `tree` finds the datasets.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import CheckpointError, CorruptionError, NotSupportedError, located, reporter
from ckpttool.formats.hdf5.chunks import filters_of, is_known, require_whole
from ckpttool.formats.hdf5.heap import GlobalHeap
from ckpttool.formats.hdf5.names import NOTE
from ckpttool.formats.hdf5.strings import fixed_strings, heap_strings, is_of_heap, require_references
from ckpttool.formats.hdf5.tree import Found, Tree, sizes_of, text_of
from ckpttool.formats.hdf5.types import dtype_of, said_of, stored_type
from ckpttool.formats.plan import Note
from ckpttool.formats.raw import RawSource, Run, noted_slices, slice_of_strings
from ckpttool.model.boxes import Selection, shape_of
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Source, Variable
from ckpttool.model.dtypes import DTYPES, DType

if TYPE_CHECKING:
    import h5py
    import numpy as np

FORMAT = "HDF5"
_CREATED_BY = b"ckpttool"
# More than this, and so many times what is stored: nobody's weights, but a bomb. Deflate makes 1032 bytes of one.
_BOMB, _BOMB_RATIO = 256 << 20, 1100
_MAX_NOTE = 1 << 16
_CACHE = 16 << 20


def read_hdf5(path: str | os.PathLike[str], *, faults: list[CheckpointError] | None = None) -> Checkpoint:
    """Opens an HDF5 file: reads what it says of its datasets, and no values.

    Whatever has a name in it and is no variable is passed over with a warning: a link to somewhere else, a dataset that
    TensorFlow has no dtype for, or one whose values are in another file, or nowhere.

    Args:
        path: the file.
        faults: is told of datasets that are damaged, which are passed over; None: such damage is raised.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is no HDF5 file, or damaged.
    """
    path = os.fspath(path)
    size, report = storage.file_size(path), reporter(path, faults)
    variables: dict[str, Variable] = {}
    with located(path), _opened(path) as file:
        reader = _Reader(path, size, file)
        tree = Tree(file, size, has_links=reader.is_ours)
        for name, found in reader.named(list(tree.datasets())):
            try:
                variable = reader.variable(name, found)
            except NotSupportedError as error:
                tree.warnings.append(f"/{found.path} is passed over: {error.what}")
                continue
            except CheckpointError as error:
                error.variable = name
                report(error)
                continue
            if name in variables:
                report(CorruptionError("the file has it twice", variable=name))
            variables[name] = variable
    return Checkpoint(variables, path=path, format=FORMAT, files=[path], warnings=tree.warnings)


@contextmanager
def _opened(path: str) -> "Iterator[h5py.File]":
    """The file; what HDF5 has against it is a CheckpointError."""
    import h5py

    try:
        with h5py.File(path, "r", rdcc_nbytes=_CACHE) as file:
            yield file
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise CorruptionError(f"HDF5 can't read it: {error}", path=path) from error
    except MemoryError as error:  # HDF5 holds at least a chunk.
        raise NotSupportedError("too little memory for a chunk of it", path=path) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise CorruptionError(f"HDF5 can't read it: {error}", path=path) from error


def _names(datasets: Sequence[Found]) -> list[str]:
    """The names of variables in a file of others; those that several would have become longer, at last whole paths."""
    names = [_within_layer(found) for found in datasets]
    for longer in (_with_layer, lambda found: found.path):
        taken = Counter(names)
        names = [name if taken[name] == 1 else longer(found) for name, found in zip(names, datasets, strict=True)]
    return names


def _within_layer(found: Found) -> str:
    return found.path[len(found.layer) + 1 if found.layer else 0 :].removesuffix(":0")


def _with_layer(found: Found) -> str:
    return found.path.removeprefix("model_weights/").removesuffix(":0")


def _our_name(found: Found) -> str:
    said = text_of(found.dataset, "name")
    return found.path.removesuffix(":0") if said is None else said.decode(errors="surrogateescape")


class _Reader:
    """Makes variables of the datasets of a file."""

    def __init__(self, path: str, size: int, file: "h5py.File") -> None:
        self._path, self._size = path, size
        self.is_ours = (text_of(file["/"].id, "created_by") or b"").startswith(_CREATED_BY)
        self._has_userblock = file.userblock_size > 0
        self._raw, self._decoded = RawSource(), _Datasets(path)

    def named(self, datasets: Sequence[Found]) -> list[tuple[str, Found]]:
        """The datasets, each with its variable's name; see the top of this package."""
        names = [_our_name(found) for found in datasets] if self.is_ours else _names(datasets)
        return list(zip(names, datasets, strict=True))

    def variable(self, name: str, found: Found) -> Variable:
        """The variable that a dataset is; reads no values.

        Raises:
            NotSupportedError: it is none.
        """
        dataset = found.dataset
        _require_readable(dataset)
        note = Note.decode((text_of(dataset, NOTE) or b"")[:_MAX_NOTE].decode(errors="replace"))
        said = (text_of(dataset, "tensorflow_dtype") or b"").decode(errors="replace")
        dtype, stored = _dtype(dataset.get_type(), said), dataset.shape
        self._require_borne_out(dataset, dtype.itemsize or max(16, dataset.get_type().get_size()))
        shape = self._shape(dataset, dtype, stored)
        offset = self._offset(dataset, dtype)
        if offset is None:
            return self._decoded.add(name, dtype, shape, _Stored(found.path, stored, note))
        data = ByteRange(self._path, offset, prod(shape) * (dtype.itemsize or 1), None)
        storage.require_range(data)
        return self._raw.add(name, dtype, shape, Run(data, note))

    def _shape(self, dataset: Any, dtype: DType, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The dataset's shape; or, as an attribute of ours says, that of more dimensions than HDF5 has."""
        said = sizes_of(dataset, "shape") if self.is_ours and dtype.itemsize is not None else None
        return said if said is not None and stored == (prod(said),) else stored

    def _require_borne_out(self, dataset: Any, itemsize: int) -> None:
        """Raises NotSupportedError if the dataset, or a chunk of it, is many times larger than what is stored of it."""
        layout = dataset.get_create_plist()
        chunk = layout.get_chunk() if layout.get_layout() == _h5d().CHUNKED else ()
        nbytes = max(prod(dataset.shape), prod(chunk)) * itemsize
        # Chunks may be said to lie over each other.
        stored = min(dataset.get_storage_size(), self._size)
        if nbytes > max(_BOMB, _BOMB_RATIO * stored):
            raise NotSupportedError(f"{stored:,} bytes are stored for {nbytes:,}")

    def _offset(self, dataset: Any, dtype: DType) -> int | None:
        """Where the values are, if they are as a bundle has them, in one run."""
        is_run = dataset.get_create_plist().get_layout() == _h5d().CONTIGUOUS and not self._has_userblock
        if dtype.itemsize is None or not is_run or not dataset.get_type().equal(stored_type(dtype.name)):
            return None
        offset: int | None = dataset.get_offset()
        return offset


def _h5d() -> Any:
    from h5py import h5d

    return h5d


def _require_readable(dataset: Any) -> None:
    """Raises NotSupportedError unless the values are in this file, and HDF5 has the filters that they went through."""
    from h5py import h5s, h5z

    layout = dataset.get_create_plist()
    if layout.get_layout() == _h5d().VIRTUAL or layout.get_external_count():
        raise NotSupportedError("its values are in other files")
    if dataset.get_space().get_simple_extent_type() == h5s.NULL:
        raise NotSupportedError("it is empty: it has no shape, and no values")
    for code, _, _, name in filters_of(dataset):
        shown = name.decode(errors="replace")
        if not h5z.filter_avail(code):
            raise NotSupportedError(f"it is compressed by {shown!r}, which HDF5 lacks here")
        if not is_known(code):
            raise NotSupportedError(f"it is compressed by {shown!r}, whose output can't be checked")
    if is_of_heap(dataset):
        require_references(dataset)


def _dtype(stored: Any, said: str) -> DType:
    """The dtype of a dataset's values, given what the attribute `tensorflow_dtype` says.

    Raises:
        NotSupportedError: TensorFlow has none for it.
    """
    from h5py import h5t

    kind = stored.get_class()
    if kind == h5t.STRING:
        return DTYPES["string"]
    if kind == h5t.VLEN and stored.get_super().equal(h5t.STD_U8LE):
        return DTYPES["variant" if said == "variant" else "string"]
    found = dtype_of(stored, said)
    if found is None:
        raise NotSupportedError(f"TensorFlow has no dtype for {said_of(stored)}")
    return found


class _Stored(NamedTuple):
    """Where a variable is: a dataset, its shape, and what is noted of it."""

    path: str
    shape: tuple[int, ...]
    note: Note


class _Datasets(Source):
    """The source of what HDF5 itself must read: compressed and swapped values, and strings."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stored: dict[bytes, _Stored] = {}

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], stored: _Stored) -> Variable:
        key = b"%d" % len(self._stored)
        self._stored[key] = stored
        return Variable(name, dtype, shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        stored = self._stored[variable.key]
        nbytes = variable.size * (variable.dtype.itemsize or 16)
        data = ByteRange(self._path, 0, nbytes, None)
        whole = Slice((0,) * len(variable.shape), variable.shape, stored.note.shard, data, stored.note.position or 0)
        # Where the shape is not the dataset's, boxes are found by counting from its start.
        noted = noted_slices(variable, stored.note, whole) if stored.shape == variable.shape else []
        return noted or [whole]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        import numpy as np
        from h5py import h5s

        if variable.dtype.itemsize is None:
            raise NotSupportedError(f"values of dtype {variable.dtype.name} can't be decoded")
        stored, done = self._stored[variable.key], 0
        with located(self._path), _opened(self._path) as file:
            dataset = _h5d().open(file.id, stored.path.encode(errors="surrogateescape"))
            require_whole(self._path, dataset)
            for box in boxes:
                shape = shape_of(box)
                where = box if stored.shape == variable.shape else (slice(done, done + prod(shape)),)
                # Told that memory is of the type as we store it, HDF5 swaps and converts nothing else.
                array = np.empty(shape_of(where), f"V{variable.dtype.itemsize}")
                space = dataset.get_space()
                if where:
                    space.select_hyperslab(tuple(s.start for s in where), array.shape)
                memory = h5s.create_simple(array.shape) if where else h5s.create(h5s.SCALAR)
                dataset.read(memory, space, array, stored_type(variable.dtype.name))
                yield array.view(variable.dtype.numpy).reshape(shape)
                done += prod(shape)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        with located(variable=variable.name), located(self._path), _opened(self._path) as file:
            dataset = _h5d().open(file.id, self._stored[variable.key].path.encode(errors="surrogateescape"))
            if is_of_heap(dataset):
                layout = file.id.get_create_plist()
                address_size, length_size = layout.get_sizes()
                heap = GlobalHeap(self._path, address_size, length_size, layout.get_userblock())
                values = heap_strings(self._path, dataset, heap)
            else:
                require_whole(self._path, dataset)
                values = list(fixed_strings(dataset))
        return slice_of_strings(values, variable, piece)
