"""Makes an input of the benchmarks, seeded and without TensorFlow.

    python inputs.py bundle PREFIX NBYTES       a checkpoint of about NBYTES
    python inputs.py weights PREFIX NBYTES      the same, of such values as weights have
    python inputs.py trained PREFIX NBYTES      the same, all of them a little different
    python inputs.py adam PREFIX NBYTES         one with Adam's two slots for each variable
    python inputs.py graph META NODES           a graph whose ops all have a device

It is a process of its own, for NumPy and its buffers would count as the peak memory of whatever run.py starts.
"""

import sys
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ckpttool.formats.bundle import index_path, shard_path
from ckpttool.proto import message_class
from ckpttool.wire.crc32c import crc32c, mask
from ckpttool.wire.sstable import TableBuilder

_SEED = 20
_FLOAT = 1  # DT_FLOAT, four bytes.
_COLUMNS = 1024
_KERNEL = 16 << 20
_CHUNK = 16 << 20


def variables(nbytes: int) -> Iterator[tuple[str, list[int]]]:
    """Names, in order, and shapes: an embedding of a quarter of the bytes, and layers for the rest."""
    row = 4 * _COLUMNS
    yield "embedding/table", [max(1, nbytes // 4 // row), _COLUMNS]
    rest = nbytes - nbytes // 4
    kernel = max(row, min(_KERNEL, rest))
    for number in range(max(1, rest // kernel)):
        yield f"layer_{number:04d}/bias", [_COLUMNS]
        yield f"layer_{number:04d}/kernel", [kernel // row, _COLUMNS]


def with_adam(nbytes: int) -> Iterator[tuple[str, list[int]]]:
    """The variables of a third of the bytes, each followed by its slots."""
    for name, shape in variables(nbytes // 3):
        yield from ((name + slot, shape) for slot in ("", "/Adam", "/Adam_1"))


def weights(step: float) -> Callable[[int], bytes]:
    """What makes so many bytes of weights: normally distributed, moved a step from where they were at step 0."""
    random, moves = np.random.default_rng(_SEED), np.random.default_rng(_SEED + 1)

    def made(nbytes: int) -> bytes:
        values = 0.05 * random.standard_normal(nbytes // 4, dtype=np.float32)
        return (values + np.float32(step) * moves.standard_normal(nbytes // 4, dtype=np.float32)).tobytes()

    return made


def write_bundle(prefix: str, stored: Iterator[tuple[str, list[int]]], made: Callable[[int], bytes]) -> None:
    """Writes a bundle: one shard, float32.

    Args:
        prefix: where.
        stored: names and shapes.
        made: makes so many bytes of values.
    """
    table = TableBuilder()
    header = message_class("BundleHeaderProto")(num_shards=1, version={"producer": 1})
    table.add(b"", header.SerializeToString())
    with open(shard_path(prefix, 0, 1), "wb") as shard:
        for name, shape in stored:
            table.add(name.encode(), _write_variable(shard, shape, made))
    Path(index_path(prefix)).write_bytes(table.finish())


def _write_variable(shard: BinaryIO, shape: list[int], made: Callable[[int], bytes]) -> bytes:
    """Writes the values, and gives the entry."""
    offset, size, crc = shard.tell(), 4 * prod(shape), 0
    for start in range(0, size, _CHUNK):
        chunk = made(min(_CHUNK, size - start))
        crc = crc32c(chunk, crc)
        shard.write(chunk)
    dims = {"dim": [{"size": extent} for extent in shape]}
    entry = message_class("BundleEntryProto")(dtype=_FLOAT, shape=dims, offset=offset, size=size, crc32c=mask(crc))
    return bytes(entry.SerializeToString())


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


if __name__ == "__main__":
    kind, target, amount = sys.argv[1:]
    if kind == "graph":
        write_graph(target, int(amount))
    else:
        made = {"weights": weights(0), "trained": weights(1e-4)}.get(kind) or np.random.default_rng(_SEED).bytes
        write_bundle(target, (with_adam if kind == "adam" else variables)(int(amount)), made)
