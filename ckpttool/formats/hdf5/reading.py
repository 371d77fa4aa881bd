"""Reading HDF5: ours, Keras', anybody's.

The library that reads it is not made for files that mean harm, and a file may ask it to read other files of the
machine. So links out of the file, data stored in other files and virtual datasets are passed over, and a shape is
believed only as far as what is stored bears it out.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpttool import storage
from ckpttool.errors import CorruptionError, NotSupportedError, located
from ckpttool.formats.hdf5.keras import keras_names
from ckpttool.formats.hdf5.names import NOTE
from ckpttool.formats.hdf5.types import dtype_of, stored_type
from ckpttool.formats.plan import Note
from ckpttool.formats.raw import RawSource, Run, noted_slices, slice_of_strings
from ckpttool.model.boxes import Selection, shape_of
from ckpttool.model.checkpoint import ByteRange, Checkpoint, Slice, Variable
from ckpttool.model.dtypes import DTYPES, DType

if TYPE_CHECKING:
    import h5py
    import numpy as np

FORMAT = "HDF5"
_CREATED_BY = "ckpttool"
# More than this, and so many times what is stored: nobody's weights, but a bomb. (Keras refuses the same.)
_BOMB, _BOMB_RATIO = 4 << 30, 1000
_MAX_DEPTH = 200
_CACHE = 16 << 20


def read_hdf5(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens an HDF5 file: reads what it says of its datasets, and no values.

    A dataset that TensorFlow has no dtype for, or that lies in another file, is passed over with a warning.

    Raises:
        NotFoundError: there is no such file.
        CorruptionError: it is no HDF5 file, or damaged.
    """
    path = os.fspath(path)
    storage.file_size(path)
    raw, decoded = RawSource(), _Datasets(path)
    variables: dict[str, Variable] = {}
    with located(path), _opened(path) as file:
        tree = _Tree()
        is_ours = str(file.attrs.get("created_by", "")).startswith(_CREATED_BY)
        names = {} if is_ours else keras_names(file)
        for where, dataset in tree.datasets(file):
            try:
                variable = _variable(dataset, _name(dataset, where, is_ours, names), path, raw, decoded)
            except NotSupportedError as error:
                tree.warnings.append(f"{where} is passed over: {error.what}")
                continue
            if variable.name in variables:
                raise CorruptionError("the file has it twice", variable=variable.name)
            variables[variable.name] = variable
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
    except OSError as error:
        if error.errno is not None:
            raise
        raise CorruptionError(f"HDF5 can't read it: {error}", path=path) from error


class _Tree:
    """The datasets of a file, each once."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def datasets(self, file: "h5py.File") -> "Iterator[tuple[str, h5py.Dataset]]":
        """Path and dataset, in the order of the names; groups that lead back are entered once."""
        import h5py

        seen = {_address(file)}
        stack: list[tuple[str, Any, int]] = [("", file, 0)]
        while stack:
            where, item, depth = stack.pop()
            if isinstance(item, h5py.Dataset):
                yield where, item
                continue
            children = []
            for name in item:
                path = f"{where}/{name}"
                child = self._child(item, name, path)
                if child is not None and depth < _MAX_DEPTH and _address(child) not in seen:
                    seen.add(_address(child))
                    children.append((path, child, depth + 1))
            stack += reversed(children)

    def _child(self, group: "h5py.Group", name: str, path: str) -> Any:
        """What a name in a group leads to; nothing, if that is not in this file or no dataset or group."""
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            self.warnings.append(f"{path} is passed over: a link to somewhere else")
            return None
        child = group[name]
        return child if isinstance(child, h5py.Dataset | h5py.Group) else None


def _address(item: Any) -> Any:
    import h5py

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr


def _name(dataset: "h5py.Dataset", where: str, is_ours: bool, keras: dict[str, str]) -> str:
    """The variable's name: as the attribute says, as Keras lists it, or the dataset's path."""
    if is_ours:
        said = dataset.attrs.get("name")
        if said is None:
            return where[1:].removesuffix(":0")
        return said if isinstance(said, str) else bytes(said).decode(errors="surrogateescape")
    return keras.get(where, where[1:])


def _variable(dataset: "h5py.Dataset", name: str, path: str, raw: RawSource, decoded: "_Datasets") -> Variable:
    layout = dataset.id.get_create_plist()
    if dataset.is_virtual or layout.get_external_count():
        raise NotSupportedError("its values are in other files")
    if dataset.shape is None:
        raise NotSupportedError("it is empty")
    note = Note.decode(str(dataset.attrs.get(NOTE, "")))
    dtype = _dtype(dataset)
    shape = _shape(dataset, dtype)
    if dtype.itemsize is None:
        return decoded.add(name, dtype, shape, _Stored(dataset.name, note))
    nbytes = prod(shape) * dtype.itemsize
    if nbytes > max(_BOMB, _BOMB_RATIO * dataset.id.get_storage_size()):
        raise CorruptionError(f"{dataset.id.get_storage_size():,} bytes are stored for {nbytes:,}", variable=name)
    offset = dataset.id.get_offset()
    is_run = layout.get_layout() == _contiguous() and dataset.id.get_type().equal(stored_type(dtype.name))
    if offset is None or not is_run or dataset.file.userblock_size:
        return decoded.add(name, dtype, shape, _Stored(dataset.name, note))
    data = ByteRange(path, offset, nbytes, None)
    storage.require_range(data)
    return raw.add(name, dtype, shape, Run(data, note))


def _contiguous() -> int:
    from h5py import h5d

    return int(h5d.CONTIGUOUS)


def _dtype(dataset: "h5py.Dataset") -> DType:
    import h5py

    said = str(dataset.attrs.get("tensorflow_dtype", ""))
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return DTYPES["string"]
    if h5py.check_vlen_dtype(dataset.dtype) == "uint8":
        return DTYPES["variant" if said == "variant" else "string"]
    found = dtype_of(dataset.id.get_type(), said)
    if found is None:
        raise NotSupportedError(f"TensorFlow has no dtype for HDF5's {dataset.dtype}")
    return found


def _shape(dataset: "h5py.Dataset", dtype: DType) -> tuple[int, ...]:
    """The dataset's shape, or that of more dimensions than HDF5 has."""
    said = dataset.attrs.get("shape")
    if said is not None and dtype.itemsize is not None:
        try:
            shape = tuple(int(size) for size in said)
        except (TypeError, ValueError):
            return tuple(dataset.shape)
        if all(size >= 0 for size in shape) and prod(shape) == prod(dataset.shape):
            return shape
    return tuple(dataset.shape)


class _Stored(NamedTuple):
    dataset: str
    note: Note


class _Datasets:
    """The source of what HDF5 itself must read: compressed and swapped values, and strings."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stored: dict[bytes, _Stored] = {}

    def add(self, name: str, dtype: DType, shape: tuple[int, ...], stored: _Stored) -> Variable:
        key = b"%d" % len(self._stored)
        self._stored[key] = stored
        return Variable(name, dtype, shape, self, key)

    def slices(self, variable: Variable) -> Sequence[Slice]:
        note = self._stored[variable.key].note
        nbytes = variable.size * (variable.dtype.itemsize or 16)
        data = ByteRange(self._path, 0, nbytes, None)
        whole = Slice((0,) * len(variable.shape), variable.shape, note.shard, data, note.position or 0)
        return noted_slices(variable, note, whole) or [whole]

    def span(self, variable: Variable, piece: Slice) -> ByteRange | None:
        return None

    def arrays(self, variable: Variable, piece: Slice, boxes: Iterable[Selection]) -> "Iterator[np.ndarray[Any, Any]]":
        import numpy as np
        from h5py import h5s

        with located(self._path), _opened(self._path) as file:
            dataset = file[self._stored[variable.key].dataset].id
            for box in boxes:
                shape = shape_of(box)
                # Told that memory is of the type as we store it, HDF5 swaps and converts nothing else.
                array = np.empty(shape, f"V{variable.dtype.itemsize}")
                space = dataset.get_space()
                if shape:
                    space.select_hyperslab(tuple(s.start for s in box), shape)
                memory = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
                dataset.read(memory, space, array, stored_type(variable.dtype.name))
                yield array.view(variable.dtype.numpy)

    def strings(self, variable: Variable, piece: Slice) -> list[bytes]:
        import numpy as np

        with located(self._path, variable.name), _opened(self._path) as file:
            values = file[self._stored[variable.key].dataset][()]
        found = np.asarray(values, object).ravel() if variable.shape else [values]
        return slice_of_strings([_bytes(value) for value in found], variable, piece)


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode(errors="surrogateescape") if isinstance(value, str) else value.tobytes()
