"""What tests of HDF5 share: files as h5py makes them, with what h5py has no functions for; and h5py as the judge."""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ckpttool.formats.hdf5 import read_hdf5


@cache
def library() -> Any:
    """The HDF5 library that h5py has loaded, for the properties that h5py does not give."""
    found = sorted(Path(h5py.__file__).parent.parent.glob("h5py.libs/libhdf5-*"))
    if not found:
        pytest.skip("the library of h5py is not beside it")
    return ctypes.CDLL(str(found[0]))


def call(name: str, *arguments: int) -> None:
    """Calls a function of the library whose arguments are an id and small numbers."""
    function = getattr(library(), name)
    assert function(ctypes.c_int64(arguments[0]), *map(ctypes.c_uint, arguments[1:])) >= 0, name


def made_with(path: Path, creation: Any, libver: tuple[str, str] = ("earliest", "latest")) -> h5py.File:
    """A new file with properties of its own."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    versions = {"earliest": 0, "v108": 1, "v110": 2, "v112": 3, "latest": h5py.h5f.LIBVER_LATEST}
    access.set_libver_bounds(*(versions[each] for each in libver))
    return h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access))


def chunked(chunk: tuple[int, ...], **filters: Any) -> Any:
    """The properties of a dataset in chunks, with filters: shuffle, deflate, fletcher32, lzf, in this order."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk(chunk)
    if filters.get("shuffle"):
        layout.set_shuffle()
    if filters.get("deflate"):
        layout.set_deflate(filters["deflate"])
    if filters.get("lzf"):
        layout.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
    if filters.get("fletcher32"):
        layout.set_fletcher32()
    return layout


def add(file: Any, name: str, dtype: Any, shape: tuple[int, ...], layout: Any, limits: Any = None) -> h5py.Dataset:
    """A new dataset with properties of its own."""
    unlimited = None if limits is None else tuple(h5py.h5s.UNLIMITED if n is None else n for n in limits)
    space = h5py.h5s.create_simple(shape, unlimited) if shape else h5py.h5s.create(h5py.h5s.SCALAR)
    stored = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    return h5py.Dataset(h5py.h5d.create(file.id, name.encode(), stored, space, layout))


def datasets(path: Path) -> dict[str, Any]:
    """All datasets of a file and their values, as h5py has them; of one with several names, the first."""
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def require_as_h5py(path: Path, *, blocks: int | None = None) -> dict[str, Any]:
    """Asserts that all is read as h5py reads it: names, shapes, dtypes, values; and that nothing is passed over."""
    expected, found = datasets(path), read_hdf5(path)
    assert found.warnings == ()
    assert set(found) == set(expected)
    for name, variable in found.items():
        require_same(variable, expected[name], name, blocks)
    return expected


def require_same(variable: Any, value: Any, name: str, blocks: int | None) -> None:
    value = np.asarray(value)
    values = variable.numpy()
    assert values.shape == value.shape, name
    if value.dtype.kind in "OS":
        assert list(values.ravel()) == [bytes(each) for each in value.ravel()], name
        return
    np.testing.assert_array_equal(values, value.astype(value.dtype.newbyteorder("=")), err_msg=name, strict=True)
    if blocks and values.size:
        pieces = [block.ravel().copy() for _, block in variable.blocks(blocks)]
        np.testing.assert_array_equal(np.concatenate(pieces), values.ravel(), err_msg=name)
