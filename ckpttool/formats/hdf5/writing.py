"""Writing HDF5."""

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

from ckpttool import storage
from ckpttool.formats.contents import content_of, require_little_endian
from ckpttool.formats.hdf5.encoding import messages
from ckpttool.formats.hdf5.encoding.groups import Group, write_groups
from ckpttool.formats.hdf5.encoding.heap import Heap
from ckpttool.formats.hdf5.encoding.output import SUPERBLOCK_SIZE, Output, aligned
from ckpttool.formats.hdf5.keras import keras_places, link_keras_weights
from ckpttool.formats.hdf5.names import MAX_DEPTH, NOTE, dataset_path
from ckpttool.formats.hdf5.structure.dataspace import MAX_RANK
from ckpttool.formats.hdf5.types import FLOATS, NARROW, NUMPY_TYPES, SELF_EXPLAINING, TYPES, datatype_of
from ckpttool.formats.notes import Note, notes_of
from ckpttool.formats.plan import Planned, check_plan, description
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.names import require_one_of
from ckpttool.model.texts import to_bytes
from ckpttool.model.variable import Variable
from ckpttool.storage import Content

# An attribute holds 64 KB, its own header included.
_MAX_TEXT = 60_000

_LAYOUTS = ("names", "keras")
_COMPRESSIONS = ("gzip", "lzf")


def plan_hdf5(checkpoint: Checkpoint, *, layout: str = "names") -> list[Planned]:
    """What `write_hdf5` would make of each variable. Reads no values, but for the layout "keras" the object graph."""
    require_checkpoint(checkpoint)
    require_one_of("layout", layout, _LAYOUTS)
    if layout == "keras":
        places = keras_places(checkpoint)
    else:
        places = [Planned(v, dataset_path(v.name)) for v in checkpoint.values()]
    return [place if place.problem else _completed(place, layout) for place in places]


def _completed(planned: Planned, layout: str) -> Planned:
    variable = planned.variable
    fallback = _FALLBACKS.get(variable.dtype.name)
    if len(variable.shape) > MAX_RANK:
        fallback = f"one dimension (HDF5 has at most {MAX_RANK}), with the shape in the attribute shape"
    return planned._replace(problem=_problem(planned, layout), fallback=fallback)


_FALLBACKS = {"variant": "sequences of uint8, each a serialized VariantTensorDataProto"}
_DTYPES = {*TYPES, *FLOATS, *NARROW, *NUMPY_TYPES, "string", "variant"}


def _problem(planned: Planned, layout: str) -> str | None:
    variable = planned.variable
    if variable.dtype.name not in _DTYPES:
        return f"HDF5 can't hold values of dtype {variable.dtype.name}"
    if lacking := variable.lacking:
        return lacking
    if len(variable.shape) > MAX_RANK and variable.ranges is None:
        return f"HDF5 can't hold {len(variable.shape)} dimensions of values that must be decoded"
    depth = planned.target.count("/")
    if depth >= MAX_DEPTH:
        return f"it would be {depth:,} groups deep, and readers go no deeper than {MAX_DEPTH - 1:,}"
    if planned.target != f"{variable.name}:0":  # Then an attribute has its name; or, for Keras, the weight's.
        text = planned.target if layout == "keras" else variable.name
        nbytes = len(to_bytes(text))
        if nbytes > _MAX_TEXT:
            return f"its name takes {nbytes:,} bytes, and HDF5's attributes hold no more than {_MAX_TEXT:,}"
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
        progress: is called with the bytes of each piece written.

    Returns:
        The variables that were left out or stored as something else, each with the reason.

    Raises:
        ValueError: there is no such layout or compression.
        NotFoundError: there is no directory for it.
        FileExistsError: there is a file at `path`, and `force` was not given; or the checkpoint is read from it.
        IsADirectoryError: `path` is a directory's, or ends with a slash.
        ConversionError: no variable can be held; or `strict`, and one can't.
        CorruptionError: values are missing or damaged; no file is written.
    """
    if compression is not None:
        require_one_of("compression", compression, _COMPRESSIONS)
    plan = plan_hdf5(checkpoint, layout=layout)
    remarkable = check_plan(plan, strict=strict)
    require_little_endian("HDF5")
    kept = [planned for planned in plan if not planned.problem]
    values = _Values(kept, compression)
    root = Group()
    root.attributes += [messages.text(name.encode(), value) for name, value in description(checkpoint).items()]
    links = link_keras_weights(root, kept, checkpoint) if layout == "keras" else {}
    with storage.write_beside(os.fsdecode(path), force=force, inputs=checkpoint.files) as beside:
        if compression is None:
            storage.require_space(beside, sum(planned.variable.nbytes for planned in kept))
        with Output(beside, values.end) as output:
            strings = _write_strings(output, kept, progress)
            datasets = _Datasets(output, values, strings, notes_of(checkpoint), compression, progress)
            for planned in kept:
                names = planned.target, *links.get(planned.target, ())
                address = datasets.write(planned, links=len(names))
                for name in names:
                    root.link(name, address)
            write_groups(output, root)
        storage.reserve(beside, values.end)
        storage.write_contents(beside, values.contents(), progress)
    return remarkable


class _Values:
    """The places of the values that are stored as they are, one dataset's behind another's.

    Attributes:
        end: where the last of them ends.
    """

    def __init__(self, plan: Iterable[Planned], compression: str | None) -> None:
        self._places: dict[str, int] = {}
        self._variables: list[Variable] = []
        self.end = SUPERBLOCK_SIZE
        for variable in (planned.variable for planned in plan):
            if variable.dtype.itemsize and variable.size and not (compression and _is_compressible(variable)):
                self._variables.append(variable)
                place = self._places[variable.name] = aligned(self.end)
                self.end = place + variable.nbytes

    def place(self, variable: Variable) -> int | None:
        """Where a variable's values are; None: not among these, or there are none."""
        return self._places.get(variable.name)

    def contents(self) -> Iterator[tuple[int, Content]]:
        """What is still to be written, and where."""
        return ((self._places[variable.name], content_of(variable)) for variable in self._variables)


def _is_compressible(variable: Variable) -> bool:
    """Whether it can be in chunks: HDF5 has none of scalars, of no values, nor of what becomes one-dimensional."""
    return 0 < len(variable.shape) <= MAX_RANK


class _Strings(NamedTuple):
    """The values of a variable of strings: references into the heap, and whether they can be HDF5's strings."""

    references: bytes
    are_texts: bool


def _write_strings(output: Output, plan: Iterable[Planned], progress: Callable[[int], None]) -> dict[str, _Strings]:
    """Writes all strings into the heap; the references by the variables' names."""
    written = {}
    with Heap(output) as heap:
        for variable in (planned.variable for planned in plan if planned.variable.dtype.itemsize is None):
            values = variable.strings()
            are_texts = variable.dtype.name == "string" and not any(b"\0" in value for value in values)
            written[variable.name] = _Strings(b"".join(map(heap.add, values)), are_texts)
            progress(variable.nbytes)
    return written


class _Datasets:
    """Writes the datasets' headers, and before one what it leads to and is not written yet."""

    def __init__(
        self,
        output: Output,
        values: _Values,
        strings: Mapping[str, _Strings],
        notes: Mapping[str, Note],
        compression: str | None,
        progress: Callable[[int], None],
    ) -> None:
        self._output, self._values, self._strings, self._notes = output, values, strings, notes
        self._compression, self._progress = compression, progress

    def write(self, planned: Planned, links: int) -> int:
        """Writes the dataset that so many names lead to; its address."""
        variable = planned.variable
        place = self._values.place(variable)
        if variable.name in self._strings:
            described = self._text(variable, self._strings[variable.name])
        elif place is None and variable.size and self._compression:
            described = self._compressed(variable, self._compression)
        else:
            described = _numbers(variable, place)
        return self._output.append(messages.header([*described, *self._attributes(planned)], links))

    def _text(self, variable: Variable, strings: _Strings) -> Iterator[bytes]:
        yield messages.dataspace(variable.shape)
        yield messages.datatype(messages.TEXTS if strings.are_texts else messages.SEQUENCES)
        yield messages.fill("late")
        place = self._output.append(strings.references) if strings.references else None
        yield messages.contiguous(place, len(strings.references))

    def _compressed(self, variable: Variable, compression: str) -> Iterator[bytes]:
        from ckpttool.formats.hdf5.compressing import write_chunks  # What is not compressed need not import zlib.

        chunks = write_chunks(self._output, variable, compression, self._progress)
        yield messages.dataspace(variable.shape)
        yield messages.datatype(_encoded(variable.dtype.name))
        yield messages.fill("by chunks")
        yield messages.pipeline(chunks.filters)
        yield messages.chunked(chunks.tree, chunks.shape, variable.dtype.itemsize or 0)

    def _attributes(self, planned: Planned) -> Iterator[bytes]:
        """What the dataset does not say of its variable by itself."""
        variable = planned.variable
        if planned.target != f"{variable.name}:0":
            yield messages.text(b"name", variable.name)
        if variable.dtype.name not in SELF_EXPLAINING:
            yield messages.text(b"tensorflow_dtype", variable.dtype.name)
        note = self._notes[variable.name]
        text = note.encode()
        if len(text) > _MAX_TEXT:
            text = note._replace(slices=()).encode()
        if text:
            yield messages.text(NOTE.encode(), text)


@cache
def _encoded(dtype: str) -> bytes:
    """The type of values of the dtype of this name, as HDF5 has it."""
    return messages.encode_datatype(datatype_of(dtype))


def _numbers(variable: Variable, place: int | None) -> Iterator[bytes]:
    """The messages of values that are stored as they are."""
    shape = variable.shape if len(variable.shape) <= MAX_RANK else (variable.size,)
    yield messages.dataspace(shape)
    yield messages.datatype(_encoded(variable.dtype.name))
    yield messages.fill("early")
    yield messages.contiguous(place, variable.nbytes)
    if shape != variable.shape:
        sizes = struct.pack(f"<{len(variable.shape)}q", *variable.shape)
        yield messages.attribute(b"shape", messages.INT64, (len(variable.shape),), sizes)
