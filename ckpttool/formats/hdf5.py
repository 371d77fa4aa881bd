"""HDF5: every variable a dataset, its bytes as they are.

A variable `a/b` is the dataset `a/b:0`, as Keras names weights, so that `w` and `w/Adam` can both exist. What HDF5
can't hold in a name is percent-encoded, and the attribute `name` keeps the true one:

    a segment `.` → `%2E`   an empty segment → `%`   %, NUL, bytes that are not UTF-8 → `%25`, `%00`, `%FF`
    `:` before the last segment → `%3A`, so that no group can have the name of a dataset

Types are those that mean the same values: bfloat16 a 16-bit float with 8 bits of exponent, bool and complex as
h5py has them, int4 an integer of 4-bit precision. Quantized numbers are integers, and the 8-bit floats without
infinities are their bits as uint8; the attribute `tensorflow_dtype` then says what they are. Strings have variable
length; as HDF5 ends a string at a NUL, variables with one are stored as sequences of uint8.

Datasets are allocated early and in one piece, so that their bytes can be copied straight to where they lie: HDF5
itself touches none of them.
"""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import NotSupportedError
from ckpttool.formats.plan import Planned, check_plan
from ckpttool.formats.values import content_of
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.storage import Content

if TYPE_CHECKING:
    import h5py
    import numpy as np

_MAX_RANK = 32  # H5S_MAX_RANK

# HDF5's own types, by name in h5py.h5t.
_TYPES = {
    "float16": "IEEE_F16LE",
    "float32": "IEEE_F32LE",
    "float64": "IEEE_F64LE",
    "int8": "STD_I8LE",
    "int16": "STD_I16LE",
    "int32": "STD_I32LE",
    "int64": "STD_I64LE",
    "uint8": "STD_U8LE",
    "uint16": "STD_U16LE",
    "uint32": "STD_U32LE",
    "uint64": "STD_U64LE",
    "qint8": "STD_I8LE",
    "qint16": "STD_I16LE",
    "qint32": "STD_I32LE",
    "quint8": "STD_U8LE",
    "quint16": "STD_U16LE",
    **dict.fromkeys(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"), "STD_U8LE"),
    **dict.fromkeys(("float8_e5m2fnuz", "float4_e2m1fn"), "STD_U8LE"),
}
# Floats made of a standard one: sign bit, exponent (first bit, bits), mantissa (first bit, bits), bytes, bias.
_FLOATS = {"bfloat16": ((15, 7, 8, 0, 7), 2, 127), "float8_e5m2": ((7, 2, 5, 0, 2), 1, 15)}
# Integers of a byte, of which the low bits count.
_NARROW = {"int4": ("STD_I8LE", 4), "uint4": ("STD_U8LE", 4), "int2": ("STD_I8LE", 2), "uint2": ("STD_U8LE", 2)}
_NUMPY_TYPES = {"bool", "complex64", "complex128"}
# What a reader takes for the right thing without being told.
_SELF_EXPLAINING = {*(name for name in _TYPES if not name.startswith(("q", "float8", "float4"))), *_NUMPY_TYPES}
_SELF_EXPLAINING |= {"bfloat16", "string"}


def dataset_path(name: str) -> str:
    """The path of the dataset for a variable; see the top of this module."""
    *groups, last = (_escape(segment) for segment in name.split("/"))
    encoded = [{".": "%2E", "": "%"}.get(group, group.replace(":", "%3A")) for group in groups]
    return "/".join([*encoded, f"{last}:0"])


def _escape(segment: str) -> str:
    segment = segment.replace("%", "%25").replace("\0", "%00")
    if segment.isascii():
        return segment
    return "".join(f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in segment)


def plan_hdf5(checkpoint: Checkpoint) -> list[Planned]:
    """What `write_hdf5` would make of each variable. Reads no values."""
    return [Planned(v, dataset_path(v.name), _problem(v)) for v in checkpoint.values()]


def _problem(variable: Variable) -> str | None:
    dtype = variable.dtype
    if dtype.name not in {*_TYPES, *_FLOATS, *_NARROW, *_NUMPY_TYPES, "string"}:
        return f"HDF5 can't hold values of dtype {dtype.name}"
    if len(variable.shape) > _MAX_RANK and variable.ranges is None:
        return f"HDF5 can't hold {len(variable.shape)} dimensions of values that must be decoded"
    return None


def write_hdf5(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    compression: str | None = None,
    strict: bool = False,
    force: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> list[Planned]:
    """Writes every variable into a new HDF5 file, values exact and checksums tested.

    Variables of more than 32 dimensions, HDF5's limit, become one-dimensional, with the attribute `shape`.

        >>> ckpttool.write_hdf5(ckpttool.open_checkpoint("model.ckpt"), "model.h5")

    Args:
        checkpoint: what to write.
        path: the file to be, written beside and renamed.
        compression: "gzip" or "lzf"; None, which is many times faster, stores the bytes as they are.
        strict: raise if there is a variable that HDF5 can't hold, instead of leaving it out.
        force: replace a file that is there.
        progress: is told the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        ConversionError: `strict`, and a variable can't be held.
        CorruptionError: values are missing or damaged; no file is written.
    """
    plan = plan_hdf5(checkpoint)
    remarkable = check_plan(plan, strict=strict)
    if sys.byteorder == "big":
        raise NotSupportedError("writing HDF5 on a big-endian machine")
    with storage.write_beside(Path(path), force=force, inputs=checkpoint.files) as beside:
        if compression is None:
            storage.require_space(beside, sum(planned.variable.nbytes for planned in plan if not planned.problem))
        contents = _write_datasets(beside, checkpoint, plan, compression, progress)
        storage.write_contents(beside, contents, progress)
    return remarkable


def _write_datasets(
    path: Path,
    checkpoint: Checkpoint,
    plan: Sequence[Planned],
    compression: str | None,
    progress: Callable[[int], None],
) -> list[tuple[int, Content]]:
    """Makes the file and its datasets, and gives the values that are still to be written into it."""
    try:
        writer = _Writer(path, compression, progress)
        with writer.file:
            _describe(writer.file, checkpoint)
            for planned in plan:
                if not planned.problem:
                    writer.add(planned)
    except RuntimeError as error:  # How HDF5 tells of a full disk, when it closes the file.
        raise OSError(errno.EIO, f"HDF5 could not write the file: {error}", str(path)) from error
    return writer.contents


def _describe(file: "h5py.File", checkpoint: Checkpoint) -> None:
    """Says what the file was made from; nothing that would differ between two runs."""
    from ckpttool import __version__

    file.attrs["source"] = os.path.basename(os.path.normpath(checkpoint.path)).encode(errors="replace").decode()
    file.attrs["source_format"] = checkpoint.format
    file.attrs["created_by"] = f"ckpttool {__version__}"


class _Writer:
    """Makes datasets; writes what HDF5 must write itself, strings and compressed values, and collects the rest."""

    def __init__(self, path: Path, compression: str | None, progress: Callable[[int], None]) -> None:
        import h5py

        self.file = h5py.File(path, "w")
        self.contents: list[tuple[int, Content]] = []
        self._compression, self._progress = compression, progress

    def add(self, planned: Planned) -> None:
        variable = planned.variable
        if variable.dtype.name == "string":
            dataset = self._add_strings(planned)
        else:
            dataset = self._add_numbers(planned)
        if planned.target != f"{variable.name}:0":
            dataset.attrs["name"] = _attribute(variable.name)
        if variable.dtype.name not in _SELF_EXPLAINING:
            dataset.attrs["tensorflow_dtype"] = variable.dtype.name

    def _add_strings(self, planned: Planned) -> "h5py.Dataset":
        import h5py
        import numpy as np

        values = planned.variable.numpy()
        if any(b"\0" in value for value in values.flat):
            dtype = h5py.vlen_dtype(np.uint8)
            decoded = [np.frombuffer(value, np.uint8) for value in values.flat]
        else:
            dtype = h5py.string_dtype()
            decoded = list(values.flat)
        dataset = self.file.create_dataset(planned.target.encode(), values.shape, dtype)
        elements = np.empty(len(decoded), object)
        elements[:] = decoded
        if values.size:
            dataset[...] = elements.reshape(values.shape)
        self._progress(planned.variable.nbytes)
        return dataset

    def _add_numbers(self, planned: Planned) -> "h5py.Dataset":
        import h5py
        from h5py import h5d, h5p, h5s, h5t

        variable = planned.variable
        shape = variable.shape if len(variable.shape) <= _MAX_RANK else (variable.size,)
        compressed = bool(self._compression) and 0 < len(variable.shape) <= _MAX_RANK and variable.size > 0
        layout = h5p.create(h5p.DATASET_CREATE)
        if compressed:
            layout = self._compressed_layout(variable)
        else:
            layout.set_layout(h5d.CONTIGUOUS)
            layout.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            layout.set_fill_time(h5d.FILL_TIME_NEVER)
        links = h5p.create(h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        links.set_char_encoding(h5t.CSET_UTF8)
        space = h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)
        stored = _stored_type(variable.dtype.name)
        dataset = h5d.create(self.file.id, planned.target.encode(), stored, space, dcpl=layout, lcpl=links)
        if compressed:
            self._write_blocks(variable, dataset, stored)
        elif variable.size:
            self.contents.append((dataset.get_offset(), content_of(variable)))
        high_level = h5py.Dataset(dataset)
        if shape != variable.shape:
            high_level.attrs["shape"] = variable.shape
        return high_level

    def _compressed_layout(self, variable: Variable) -> Any:
        """The properties of a dataset with the chunks and the filter that h5py would choose."""
        probe = self.file.create_dataset(
            None,
            variable.shape,
            f"V{variable.dtype.itemsize}",
            chunks=True,
            compression=self._compression,
            shuffle=True,
        )
        return probe.id.get_create_plist()

    def _write_blocks(self, variable: Variable, dataset: Any, stored: Any) -> None:
        """Writes decoded blocks, telling HDF5 that they are of the type they are stored as: it converts nothing."""
        import numpy as np
        from h5py import h5s

        for selection, block in variable.blocks():
            memory = h5s.create_simple(block.shape) if block.shape else h5s.create(h5s.SCALAR)
            target = dataset.get_space()
            if block.shape:
                target.select_hyperslab(tuple(s.start for s in selection), block.shape)
            dataset.write(memory, target, np.ascontiguousarray(block).view(f"V{block.itemsize}"), stored)
            self._progress(block.nbytes)


def _stored_type(name: str) -> Any:
    """The HDF5 type for a dtype."""
    import numpy as np
    from h5py import h5t

    if name in _TYPES:
        return getattr(h5t, _TYPES[name])
    if name in _NUMPY_TYPES:
        return h5t.py_create(np.dtype(name), logical=True)
    if name in _NARROW:
        base, precision = _NARROW[name]
        narrow = getattr(h5t, base).copy()
        narrow.set_precision(precision)
        return narrow
    bits, size, bias = _FLOATS[name]
    made = h5t.IEEE_F32LE.copy()
    made.set_fields(*bits)
    made.set_precision(8 * size)
    made.set_offset(0)
    made.set_size(size)
    made.set_ebias(bias)
    return made


def _attribute(name: str) -> "str | np.void":
    """A name as an attribute: text, or bytes where HDF5 would not keep the text."""
    import numpy as np

    data = name.encode(errors="surrogateescape")
    return name if b"\0" not in data and name.isprintable() else np.void(data)
