"""Makes an input of the benchmarks, seeded and without TensorFlow.

    python inputs.py KIND PATH AMOUNT

    bundle    a checkpoint of about AMOUNT bytes: an embedding, and layers of 16 MiB
    weights   the same, of such values as weights have
    trained   the same, all of them a little different
    adam      one with Adam's two slots for each variable
    many      a checkpoint of AMOUNT variables of 16 bytes
    one       a checkpoint of AMOUNT bytes in one variable
    tiny      the same in 10,000 variables
    slices    the same in 1,000 slices of one variable
    shards    the same in 1,000 variables, each in a file of its own
    graph     a graph of AMOUNT ops, all of which have a device: PATH.meta
    served    a small SavedModel, whatever AMOUNT is

It is a process of its own, for NumPy and its buffers would count as the peak memory of whatever run.py starts.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.formats.records.entries import BundleEntry, encode_bundle_entry, encode_bundle_header
from ckpttool.formats.records.shapes import encode_slice_key
from ckpttool.proto import message_class
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.sstable import TableBuilder

_FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
_ENDPOINTS = ("--inputs", "x=x:0", "--outputs", "y=activation_opt:0", "--quiet")
_SEED = 20
_FLOAT = 1  # DT_FLOAT, four bytes.
_COLUMNS = 1024
_KERNEL = 16 << 20
_CHUNK = 16 << 20
_TINY, _SLICES, _SHARDS = 10_000, 1_000, 1_000

Values = Callable[[int], bytes]


class Stored(NamedTuple):
    """A float32 variable: its name and shape; into how many slices of rows it is cut, 0 for none; and its shard."""

    name: str
    shape: tuple[int, ...]
    slices: int = 0
    shard: int = 0


def model(nbytes: int) -> Iterator[Stored]:
    """An embedding of a quarter of the bytes, and layers for the rest."""
    row = 4 * _COLUMNS
    yield Stored("embedding/table", (max(1, nbytes // 4 // row), _COLUMNS))
    rest = nbytes - nbytes // 4
    kernel = max(row, min(_KERNEL, rest))
    for number in range(max(1, rest // kernel)):
        yield Stored(f"layer_{number:04d}/bias", (_COLUMNS,))
        yield Stored(f"layer_{number:04d}/kernel", (kernel // row, _COLUMNS))


def with_adam(nbytes: int) -> Iterator[Stored]:
    """The variables of a third of the bytes, each followed by its slots."""
    for stored in model(nbytes // 3):
        yield from (stored._replace(name=stored.name + slot) for slot in ("", "/Adam", "/Adam_1"))


def many(count: int, elements: int = 4, *, shards: bool = False) -> Iterator[Stored]:
    """So many variables, in the order of their names; each in a shard of its own, or all in one."""
    for number in range(count):
        name = f"model/layer_{number // 1000:04d}/block_{number % 1000:03d}/kernel"
        yield Stored(name, (elements,), 0, number if shards else 0)


_KINDS: dict[str, Callable[[int], Iterator[Stored]]] = {
    **dict.fromkeys(("bundle", "weights", "trained"), model),
    "adam": with_adam,
    "many": many,
    "one": lambda nbytes: many(1, nbytes // 4),
    "tiny": lambda nbytes: many(_TINY, nbytes // 4 // _TINY),
    "slices": lambda nbytes: iter([Stored("model/table", (nbytes // 4 // 256, 256), _SLICES)]),
    "shards": lambda nbytes: many(_SHARDS, nbytes // 4 // _SHARDS, shards=True),
}


def weights(step: float) -> Values:
    """What makes so many bytes of weights: normally distributed, moved a step from where they were at step 0."""
    random, moves = np.random.default_rng(_SEED), np.random.default_rng(_SEED + 1)

    def made(nbytes: int) -> bytes:
        values = 0.05 * random.standard_normal(nbytes // 4, dtype=np.float32)
        return (values + np.float32(step) * moves.standard_normal(nbytes // 4, dtype=np.float32)).tobytes()

    return made


def write_bundle(prefix: str, variables: Iterator[Stored], made: Values) -> None:
    """Writes a bundle of variables, whose values `made` makes."""
    by_shard = {number: list(some) for number, some in groupby(variables, lambda stored: stored.shard)}
    records = {b"": encode_bundle_header(len(by_shard))}
    for number, some in by_shard.items():
        with open(shard_path(prefix, number, len(by_shard)), "wb") as file:
            for stored in some:
                records.update(_records(file, stored, made))
    table = TableBuilder()
    for key in sorted(records):
        table.add(key, records[key])
    Path(index_path(prefix)).write_bytes(table.finish())


def _records(shard: BinaryIO, stored: Stored, made: Values) -> Iterator[tuple[bytes, bytes]]:
    """Writes the values, and gives the entries: of the variable, or of it and each of its slices."""
    name = stored.name.encode()
    if not stored.slices:
        yield name, _written(shard, stored.shape, stored.shard, made)
        return
    rows, columns = stored.shape
    bounds = [rows * number // stored.slices for number in range(stored.slices + 1)]
    boxes = [((start, end - start), (0, columns)) for start, end in pairwise(bounds)]
    yield name, encode_bundle_entry(BundleEntry(_FLOAT, stored.shape, slices=tuple(boxes)))
    for box in boxes:
        yield encode_slice_key(name, box), _written(shard, (box[0][1], columns), stored.shard, made)


def _written(file: BinaryIO, shape: tuple[int, ...], shard: int, made: Values) -> bytes:
    """Writes so many values, and gives their entry."""
    offset, size, crc = file.tell(), 4 * prod(shape), 0
    for start in range(0, size, _CHUNK):
        chunk = made(min(_CHUNK, size - start))
        crc = crc32c(chunk, crc)
        file.write(chunk)
    return encode_bundle_entry(BundleEntry(_FLOAT, shape, shard, offset, size, mask(crc)))


def write_graph(path: str, nodes: int) -> None:
    """Writes a chain of ops, about 150 bytes each, as many as are on each of 64 devices."""
    meta = message_class("MetaGraphDef")()
    meta.graph_def.versions.producer = 1000
    names = [f"model/layer_{number // 100:04d}/op_{number}" for number in range(nodes)]
    for number, name in enumerate(names):
        node = meta.graph_def.node.add(name=name, op="Placeholder" if not number else ("Relu", "AddV2")[number % 2])
        if number:
            node.input.extend([names[number - 1], names[0]][: 1 + number % 2])
        node.device = f"/job:worker/replica:0/task:{number % 16}/device:GPU:{number % 4}"
        node.attr["T" if number else "dtype"].type = _FLOAT
        node.attr["_output_shapes"].list.shape.add().dim.add(size=_COLUMNS)
    Path(path).write_bytes(meta.SerializeToString(deterministic=True))


def write_served(path: str) -> None:
    """Writes a SavedModel of one signature, of the small model of the fixtures."""
    small = str(_FIXTURES / "linear" / "model")
    subprocess.run([sys.executable, "-m", "ckpttool", "saved-model", small, "-o", path, *_ENDPOINTS], check=True)


def main(kind: str, path: str, amount: int) -> None:
    if kind in ("graph", "served"):
        write_graph(f"{path}.meta", amount) if kind == "graph" else write_served(path)
        return
    made = {"weights": weights(0), "trained": weights(1e-4)}.get(kind) or np.random.default_rng(_SEED).bytes
    write_bundle(path, _KINDS[kind](amount), made)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
