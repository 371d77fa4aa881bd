"""Writing HDF5."""

import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpttool import storage
from ckpttool.errors import NotSupportedError
from ckpttool.formats.hdf5.keras import keras_places, list_keras_weights
from ckpttool.formats.hdf5.names import NOTE, dataset_path
from ckpttool.formats.hdf5.types import FLOATS, NARROW, NUMPY_TYPES, SELF_EXPLAINING, TYPES, stored_type
from ckpttool.formats.plan import Note, Planned, check_plan, notes_of
from ckpttool.formats.values import content_of
from ckpttool.model.checkpoint import Checkpoint, Variable
from ckpttool.storage import Content

if TYPE_CHECKING:
    import h5py

_MAX_RANK = 32  # H5S_MAX_RANK
# An attribute holds 64 KB, its own header included.
_MAX_NOTE = 60_000


_LAYOUTS = ("names", "keras")


def plan_hdf5(checkpoint: Checkpoint, *, layout: str = "names") -> list[Planned]:
    """What `write_hdf5` would make of each variable. Reads no values, but for the layout "keras" the object graph."""
    if layout not in _LAYOUTS:
        raise ValueError(f"{layout!r} is no layout; there are {', '.join(_LAYOUTS)}")
    if layout == "keras":
        return [
            place if place.problem else place._replace(problem=_problem(place.variable))
            for place in keras_places(checkpoint)
        ]
    return [Planned(v, dataset_path(v.name), _problem(v), _FALLBACKS.get(v.dtype.name)) for v in checkpoint.values()]


_FALLBACKS = {"variant": "sequences of uint8, each a serialized VariantTensorDataProto"}


def _problem(variable: Variable) -> str | None:
    dtype = variable.dtype
    if dtype.name not in {*TYPES, *FLOATS, *NARROW, *NUMPY_TYPES, "string", "variant"}:
        return f"HDF5 can't hold values of dtype {dtype.name}"
    if len(variable.shape) > _MAX_RANK and variable.ranges is None:
        return f"HDF5 can't hold {len(variable.shape)} dimensions of values that must be decoded"
    return None


def write_hdf5(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    layout: str = "names",
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
        layout: "names": `a/b` is the dataset `a/b:0`; or "keras": as Keras' `load_weights(by_name=True)` takes it.
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
    plan = plan_hdf5(checkpoint, layout=layout)
    remarkable = check_plan(plan, strict=strict)
    if sys.byteorder == "big":
        raise NotSupportedError("writing HDF5 on a big-endian machine")
    with storage.write_beside(Path(path), force=force, inputs=checkpoint.files) as beside:
        if compression is None:
            storage.require_space(beside, sum(planned.variable.nbytes for planned in plan if not planned.problem))
        contents = _write_datasets(beside, checkpoint, plan, layout, compression, progress)
        storage.write_contents(beside, contents, progress)
    return remarkable


def _write_datasets(
    path: Path,
    checkpoint: Checkpoint,
    plan: Sequence[Planned],
    layout: str,
    compression: str | None,
    progress: Callable[[int], None],
) -> list[tuple[int, Content]]:
    """Makes the file and its datasets, and gives the values that are still to be written into it."""
    try:
        writer = _Writer(path, notes_of(checkpoint), compression, progress)
        with writer.file:
            _describe(writer.file, checkpoint)
            for planned in plan:
                if not planned.problem:
                    writer.add(planned)
            if layout == "keras":
                list_keras_weights(writer.file, plan)
    except RuntimeError as error:  # How HDF5 tells of a full disk, when it closes the file.
        raise OSError(errno.EIO, f"HDF5 could not write the file: {error}", str(path)) from error
    return writer.contents


def _describe(file: "h5py.File", checkpoint: Checkpoint) -> None:
    """Says what the file was made from; nothing that would differ between two runs."""
    from ckpttool import __version__

    source = os.path.basename(os.path.normpath(checkpoint.path)).encode(errors="replace").decode()
    _set_text(file, "source", source)
    _set_text(file, "source_format", checkpoint.format)
    _set_text(file, "created_by", f"ckpttool {__version__}")


class _Writer:
    """Makes datasets; writes what HDF5 must write itself, strings and compressed values, and collects the rest."""

    def __init__(
        self, path: Path, notes: Mapping[str, Note], compression: str | None, progress: Callable[[int], None]
    ) -> None:
        import h5py

        self._notes = notes
        # The file has a lock of ours already, that of a file which is being written.
        self.file = h5py.File(path, "w", locking=False)
        self.contents: list[tuple[int, Content]] = []
        self._compression, self._progress = compression, progress
        # Many datasets are alike in these, and HDF5 takes longer to make them than the dataset.
        self._layout, self._links = _early_layout(), _utf8_links()
        self._space, self._type = lru_cache(1024)(_space), lru_cache(64)(stored_type)

    def add(self, planned: Planned) -> None:
        variable = planned.variable
        if variable.dtype.itemsize is None:
            dataset = self._add_strings(planned)
        else:
            dataset = self._add_numbers(planned)
        if planned.target != f"{variable.name}:0":
            _set_text(dataset, "name", variable.name)
        if variable.dtype.name not in SELF_EXPLAINING:
            _set_text(dataset, "tensorflow_dtype", variable.dtype.name)
        note = self._notes[variable.name]
        text = note.encode()
        if len(text) > _MAX_NOTE:
            text = note._replace(slices=()).encode()
        if text:
            _set_text(dataset, NOTE, text)

    def _add_strings(self, planned: Planned) -> "h5py.Dataset":
        import h5py
        import numpy as np
        from h5py import h5s

        values, shape = planned.variable.strings(), planned.variable.shape
        if planned.variable.dtype.name == "variant" or any(b"\0" in value for value in values):
            dtype = h5py.vlen_dtype(np.uint8)
            decoded: list[Any] = [np.frombuffer(value, np.uint8) for value in values]
        else:
            dtype = h5py.string_dtype()
            decoded = list(values)
        dataset = self.file.create_dataset(planned.target.encode(), shape, dtype)
        elements = np.empty(len(decoded), dtype)
        for i, value in enumerate(decoded):  # Arrays of one length would become a table.
            elements[i] = value
        if decoded:  # Not by h5py's assignment, which makes that table itself.
            dataset.id.write(h5s.ALL, h5s.ALL, elements.reshape(shape))
        self._progress(planned.variable.nbytes)
        return dataset

    def _add_numbers(self, planned: Planned) -> "h5py.Dataset":
        import h5py
        from h5py import h5d

        variable = planned.variable
        shape = variable.shape if len(variable.shape) <= _MAX_RANK else (variable.size,)
        compressed = bool(self._compression) and 0 < len(variable.shape) <= _MAX_RANK and variable.size > 0
        layout = self._compressed_layout(variable) if compressed else self._layout
        stored = self._type(variable.dtype.name)
        path, space = planned.target.encode(), self._space(shape)
        dataset = h5d.create(self.file.id, path, stored, space, dcpl=layout, lcpl=self._links)
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
        layout = probe.id.get_create_plist()
        layout.set_obj_track_times(False)
        return layout

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


def _early_layout() -> Any:
    """The properties of a dataset that lies in one piece, whose place is known before there is a value in it."""
    from h5py import h5d, h5p

    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_layout(h5d.CONTIGUOUS)
    layout.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5d.FILL_TIME_NEVER)
    layout.set_obj_track_times(False)  # Two runs give the same bytes.
    return layout


def _utf8_links() -> Any:
    """The properties of a link, with the groups on its way."""
    from h5py import h5p, h5t

    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    return links


def _space(shape: tuple[int, ...]) -> Any:
    from h5py import h5s

    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def _set_text(item: Any, attribute: str, text: str) -> None:
    """Sets an attribute to a text of fixed length: that stands beside the dataset, not in the global heap.

    It is stored as bytes where HDF5 would not keep the text.
    """
    import h5py
    import numpy as np

    data = text.encode(errors="surrogateescape")
    if b"\0" not in data and text.isprintable():
        item.attrs.create(attribute, data, dtype=h5py.string_dtype("utf-8", len(data) or 1))
    else:
        item.attrs.create(attribute, np.void(data))
