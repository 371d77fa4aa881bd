"""What is fuzzed: for each target a small corpus, made of the fixtures at run time, how its inputs are changed, and
what is done with one.

An input is a few files, by name. A target's `try_input` may raise CheckpointError and OSError, which are answers;
whatever else it raises is a finding.
"""

import io
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import bundles
import numpy as np

from ckpttool.errors import CheckpointError
from ckpttool.wire.sstable import Table
from fuzz import mutation
from fuzz.mutation import changed_bytes, changed_message

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
Files = dict[str, bytes]
ANSWERS = (CheckpointError, OSError)


@dataclass(frozen=True)
class Target:
    """Something to fuzz.

    Attributes:
        corpus: sound inputs.
        change: makes an input of a sound one, and of another to take parts from.
        try_input: does with the files of a directory what the library can do with them.
    """

    corpus: Callable[[], list[Files]]
    change: Callable[[Random, Files, Files], Files]
    try_input: Callable[[str, Random], None]


def attempt(act: Callable[[], Any]) -> Any:
    """What it gives; None if it answers with an error."""
    try:
        return act()
    except ANSWERS:
        return None


# Tables


@cache
def _pairs(index: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(Table.from_bytes(index))


def changed_table(random: Random, index: bytes, other: bytes) -> bytes:
    """A table changed in its bytes, in the bytes of a block under a right checksum, or in its records."""
    kind = random.random()
    if kind < 0.15:
        return changed_bytes(random, index)
    pairs = list(_pairs(index))
    if kind < 0.35:
        return _odd_table(random, pairs)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        at = random.randrange(len(pairs))
        key, value = pairs[at]
        which = random.random()
        if which < 0.7:
            pairs[at] = key, changed_message(random, value)
        elif which < 0.8:
            fitting = [v for k, v in _pairs(other) if bool(k) == bool(key)]
            pairs[at] = key, mutation.crossed_message(random, value, random.choice(fitting or [b""]))
        elif which < 0.9:
            pairs[at] = random.choice(mutation.TEXTS) if which < 0.85 else changed_bytes(random, key), value
        elif len(pairs) > 1:
            del pairs[at]
    return bundles.table_of(sorted(dict(pairs).items()), random.choice((64, 262144)))


def _odd_table(random: Random, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A table whose checksums are right, and whose blocks, handles or footer are not."""
    where = random.choice(("data", "data", "index", "footer", "restarts", "snappy"))
    contents = bundles.block_of(pairs, random.choice((1, 16)))
    stored = bundles.with_trailer(contents)
    changes: dict[str, Any] = {}
    if where == "data":
        stored = bundles.with_trailer(changed_bytes(random, contents))
    elif where == "restarts":
        stored = bundles.with_trailer(contents[:-4] + (mutation.number(random) & 0xFFFFFFFF).to_bytes(4, "little"))
    elif where == "snappy":
        whole = bundles.snappied(contents)[:-5]
        stored = bundles.with_trailer(changed_bytes(random, whole), 1)
    elif where == "index":
        changes["index"] = lambda handles: changed_bytes(
            random, bundles.block_of(handles * random.choice((1, 1, 2)), 1)
        )
    else:
        changes["footer"] = lambda footer: changed_bytes(random, footer.encode())
    return bundles.table([(pairs[-1][0], stored)], **changes)


# Checkpoints


def read_all(checkpoint: Any, random: Random) -> None:
    """Reads some of the values in several ways, which must agree."""
    variables = list(checkpoint.values())
    for variable in random.sample(variables, min(3, len(variables))):
        repr(variable)
        attempt(lambda v=variable: v.nbytes)
        attempt(lambda v=variable: v.ranges)
        array = attempt(variable.numpy)
        if array is None:
            continue
        assert array.shape == variable.shape, (array.shape, variable.shape)
        if array.size < 2000 and variable.dtype.itemsize:
            filled = np.zeros_like(array)
            for selection, part in variable.blocks(random.choice((1, 16, 64))):
                filled[selection] = part
            assert filled.tobytes() == array.tobytes(), variable
    _one_more(checkpoint, random)


def _one_more(checkpoint: Any, random: Random) -> None:
    """One of the more costly things, now and then."""
    from ckpttool.analysis.agreement import object_disagreements
    from ckpttool.reports import checkpoints as reports
    from ckpttool.reports.values import statistics

    kind = random.randrange(40)
    if kind == 0:
        attempt(lambda: reports.variables(checkpoint))
        attempt(lambda: reports.variable_tree(checkpoint))
    elif kind == 1:
        attempt(lambda: statistics(checkpoint))
    elif kind == 2:
        graph = attempt(lambda: checkpoint.object_graph)
        if graph:
            attempt(lambda: reports.object_tree(checkpoint, graph))
            attempt(lambda: object_disagreements(checkpoint))
    elif kind == 3:
        attempt(lambda: _verify(checkpoint.path))


def _verify(path: str) -> None:
    from ckpttool.formats.opening import open_checkpoint
    from ckpttool.formats.verifying import strict_findings, verify_values
    from ckpttool.reports.findings import findings

    faults: list[CheckpointError] = []
    verified = verify_values(open_checkpoint(path, faults=faults), faults)
    findings([*verified.findings, *strict_findings(verified.checkpoint)])


def read(module: str, function: str, name: str, directory: str, random: Random) -> None:
    from importlib import import_module

    path = os.path.join(directory, name)
    checkpoint = attempt(lambda: getattr(import_module(f"ckpttool.formats.{module}"), function)(path))
    if checkpoint is not None:
        read_all(checkpoint, random)


def bundle_corpus() -> list[Files]:
    wanted = ("linear", "empty", "names", "strings", "partitioned", "sharded", "objects", "dtypes")
    found = []
    for path in sorted(path for name in wanted for path in (FIXTURES / name).glob("*.index")):
        shards = sorted(path.parent.glob(f"{path.stem}.data-*"))
        found.append({f"m{file.name.removeprefix(path.stem)}": file.read_bytes() for file in [path, *shards]})
    made = bundles.bundle({"p": np.arange(12, dtype=np.int16).reshape(4, 3), "s": bundles.strings(b"a", b"", b"ccc")})
    found.append({"m.index": made.index, "m.data-00000-of-00001": made.shards[0] or b""})
    return found


def change_bundle(random: Random, files: Files, other: Files) -> Files:
    files = dict(files)
    shards = [name for name in files if name != "m.index"]
    if random.random() < 0.7:
        files["m.index"] = changed_table(random, files["m.index"], other["m.index"])
    if random.random() < 0.4:
        name = random.choice(shards)
        files[name] = changed_bytes(random, files[name])
        if random.random() < 0.5:
            files["m.index"] = _with_checksums(files["m.index"], files[name])
    elif random.random() < 0.05:
        del files[random.choice(shards)]
    return files


def _with_checksums(index: bytes, data: bytes) -> bytes:
    """The index with the checksums that the values of a single shard have."""
    from ckpttool.wire.crc32c import crc32c, mask

    try:
        pairs = dict(Table.from_bytes(index))
    except CheckpointError:
        return index
    for key, value in pairs.items():
        numbers = {n: v for n, kind, v in _numbers(value) if kind == 0}
        start, size = numbers.get(4, 0), numbers.get(5, 0)
        if key and start + size <= len(data):
            crc = mask(crc32c(data[start : start + size]))
            pairs[key] = value + b"\x35" + crc.to_bytes(4, "little")
    return bundles.table_of(sorted(pairs.items()))


def _numbers(data: bytes) -> list[tuple[int, int, Any]]:
    from ckpttool.wire.message import values

    return attempt(lambda: list(values(data))) or []


def try_bundle(directory: str, random: Random) -> None:
    read("bundle.reading", "read_bundle", "m", directory, random)


# Formats that are made of a sound bundle


@cache
def sound() -> Any:
    """A checkpoint of many dtypes and odd names, without files."""
    import tempfile

    from ckpttool.formats.bundle.reading import read_bundle

    arrays = {
        "a/b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "half": np.array([1.5, -2], np.float16),
        "i8": np.array([-1, 2, 3], np.int8),
        "i64": np.array(2**40),
        "flags": np.array([True, False]),
        "c": np.array([1 + 2j], np.complex64),
        "none": np.zeros((0, 3), np.float64),
        "s": bundles.strings(b"text", b"\xff\0", b""),
        "../x": np.array([1], np.uint16),
        "u\u00e9": np.array([7], np.uint8),
    }
    directory = tempfile.mkdtemp()
    prefix = bundles.bundle(arrays, slices={"a/b": [((0, 1), (0, 3)), ((1, 1), (0, 3))]}).write(Path(directory))
    return read_bundle(prefix)


def made_by(module: str, function: str, name: str, **options: Any) -> list[Files]:
    import tempfile
    from importlib import import_module

    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, name)
        getattr(import_module(f"ckpttool.formats.{module}"), function)(sound(), path, **options)
        return [{name: Path(path).read_bytes()}]


def v1_corpus() -> list[Files]:
    whole = made_by("tensor_slices.writing", "write_tensor_slices", "m")
    return [*whole, {"m": bundles.snappy_table(_pairs(whole[0]["m"]))}]


def change_only(change: Callable[[Random, bytes, bytes], bytes], random: Random, files: Files, other: Files) -> Files:
    [(name, data)], [taken] = files.items(), other.values()
    return {name: change(random, data, taken)}


def try_v1(directory: str, random: Random) -> None:
    from ckpttool.formats.tensor_slices.reading import read_tensor_slices

    path = os.path.join(directory, "m")
    checkpoint = attempt(lambda: read_tensor_slices([path], path=path))
    if checkpoint is not None:
        read_all(checkpoint, random)


def change_safetensors(random: Random, data: bytes, other: bytes) -> bytes:
    if random.random() < 0.2:
        return changed_bytes(random, data)
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    for _ in range(random.choice((1, 1, 2))):
        header = mutation.changed_json(random, header)
    encoded = mutation.json_bytes(random, header)
    length = len(encoded) if random.random() < 0.95 else mutation.number(random)
    return length.to_bytes(8, "little") + encoded + (changed_bytes(random, rest) if random.random() < 0.1 else rest)


def safetensors_index_corpus() -> list[Files]:
    [file] = made_by("safetensors", "write_safetensors", "model.safetensors")
    weights = dict.fromkeys(("a/b", "half", "i8"), "model.safetensors")
    index = {"metadata": {"total_size": 31}, "weight_map": weights}
    return [{"model.safetensors.index.json": json.dumps(index).encode(), **file}]


def change_json_file(name: str, random: Random, files: Files, other: Files) -> Files:
    changed = mutation.changed_json(random, json.loads(files[name]))
    return {**files, name: mutation.json_bytes(random, changed)}


def npz_corpus() -> list[Files]:
    return made_by("npz", "write_npz", "m.npz") + made_by("npz", "write_npz", "m.npz", compressed=True)


def change_npz(random: Random, data: bytes, other: bytes) -> bytes:
    if random.random() < 0.4:
        return changed_bytes(random, data)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(made, "w") as changed:
        members = archive.infolist()
        hit = random.choice(members)
        for member in members:
            contents = archive.read(member)
            if member is hit:
                contents = change_npy(random, contents, b"")
                member.comment = changed_bytes(random, member.comment or b'{"dtype": "int8"}')[:1000]
            changed.writestr(member, contents)
    return made.getvalue()


def npy_corpus() -> list[Files]:
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.array("\u00fc"),
        np.array([b"a"]),
        np.asfortranarray(np.ones((2, 3), ">i4")),
    ]
    arrays += [np.array([1 + 1j]), np.zeros(2, "V2"), np.zeros((0, 4), "?")]
    found = []
    for version in ((1, 0), (2, 0), (3, 0)):
        for array in arrays:
            made = io.BytesIO()
            np.lib.format.write_array(made, array, version)
            found.append({"m.npy": made.getvalue()})
    return found


_HEADERS = [
    b"{",
    b"(" * 2000,
    b"'|O'",
    b"'<f8'",
    b"[('a', '<i4')]",
    b"'V99999999999'",
    b"'<U4294967295'",
    b"True",
    b"(-1,)",
]
_HEADERS += [
    b"9" * 30,
    b"(1" + b",1" * 70 + b")",
    b"0x10",
    b"1_0",
    b"{**{}}",
    b"'<M8[ns]'",
    b"__import__('os')",
    b"\xff",
    b"1e9",
]


def change_npy(random: Random, data: bytes, other: bytes) -> bytes:
    if random.random() < 0.3 or data[:6] != b"\x93NUMPY":
        return changed_bytes(random, data)
    width = 2 if data[6] == 1 else 4
    size = int.from_bytes(data[8 : 8 + width], "little")
    header, rest = data[8 + width : 8 + width + size], data[8 + width + size :]
    for _ in range(random.choice((1, 2))):
        at = random.randrange(len(header) + 1)
        put = random.choice((random.choice(_HEADERS), str(mutation.number(random)).encode()))
        header = random.choice(
            (changed_bytes(random, header), header[:at] + put + header[at + random.choice((0, 1, 3)) :])
        )
    return data[:8] + (len(header) & (1 << 8 * width) - 1).to_bytes(width, "little") + header + rest


def hdf5_corpus() -> list[Files]:
    import tempfile

    import h5py

    found = made_by("hdf5", "write_hdf5", "m.h5") + made_by("hdf5", "write_hdf5", "m.h5", compression="gzip")
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "m.h5")
        for options in ({}, {"libver": "latest"}):
            with h5py.File(path, "w", **options) as file:
                group = file.create_group("layer")
                group.attrs["weight_names"] = [b"layer/w:0"]
                file.attrs["layer_names"] = [b"layer"]
                group["layer/w:0"] = np.arange(4.0)
                group.create_dataset("chunks", data=np.arange(64).reshape(8, 8), chunks=(2, 4), compression="gzip")
                file["text"] = ["a", "bc"]
                file["soft"] = h5py.SoftLink("/layer/chunks")
                file["external"] = h5py.ExternalLink("other.h5", "/x")
            found.append({"m.h5": Path(path).read_bytes()})
            with h5py.File(path, "w", **options) as file:
                _add_structures(h5py, file)
            found.append({"m.h5": Path(path).read_bytes()})
    return found


def _add_structures(h5py: Any, file: Any) -> None:
    """What small files do not have: heaps, trees and arrays of links, attributes and chunks; a type with a name."""
    group = file.create_group("many")
    for number in range(12):
        group[f"soft{number}"] = h5py.SoftLink("/x")
        group.attrs[f"a{number}"] = number
    group["huge" * 1500] = np.float32(1)
    file["type"] = np.dtype(">i2")
    file.create_dataset("named", data=[1, 2], dtype=file["type"])
    for name, limits in (("fixed", None), ("extensible", (None, 6)), ("tree", (None, None))):
        values = np.arange(48, dtype="<i2").reshape(8, 6)
        file.create_dataset(name, data=values, chunks=(1, 2), maxshape=limits)
        file.create_dataset(f"{name}z", data=values, chunks=(2, 3), maxshape=limits, compression="gzip", shuffle=True)
    file.create_dataset("lzf", data=[7] * 40, chunks=(9,), compression="lzf", fletcher32=True, fillvalue=3)


def change_raw(random: Random, data: bytes, other: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 1, 3))):
        data = changed_bytes(random, data)
    return data


# Graphs


def graph_corpus() -> list[Files]:
    metas = [(FIXTURES / name / "model.meta").read_bytes() for name in ("linear", "devices", "partitioned", "sharded")]
    index = {
        path.suffix[:6]: path.read_bytes() for path in (FIXTURES / "linear").glob("model.*") if path.suffix != ".meta"
    }
    beside = {"m.index": index[".index"], "m.data-00000-of-00001": index[".data-"]}
    graphs = [_functions(), _loop()]
    return [{"m.meta": data, **beside} for data in [*metas, *map(_in_meta, graphs)]]


def _in_meta(graph: Any) -> bytes:
    made = bundles.message_class("MetaGraphDef")()
    made.graph_def.CopyFrom(graph)
    made.collection_def["outputs"].node_list.value.append("y:0")
    signature = made.signature_def["serving_default"]
    signature.inputs["x"].name, signature.outputs["y"].name = "x:0", "y:0"
    return bytes(made.SerializeToString(deterministic=True))


def _op(graph: Any, name: str, type: str, *inputs: str, **attrs: Any) -> None:
    node = graph.node.add(name=name, op=type)
    node.input.extend(inputs)
    for key, value in attrs.items():
        if isinstance(value, str):
            node.attr[key].func.name = value
        else:
            node.attr[key].type = value


def _functions() -> Any:
    """A graph that calls functions, one of which calls the other, with variables and a table."""
    graph = bundles.message_class("GraphDef")()
    _op(graph, "x", "Placeholder", dtype=1)
    _op(graph, "v", "VarHandleOp", dtype=1)
    graph.node[-1].attr["shared_name"].s = b"weights"
    graph.node[-1].attr["shape"].shape.dim.add(size=2)
    _op(graph, "call", "StatefulPartitionedCall", "x", "v", f="f")
    for node in graph.node[-1:]:
        node.attr["Tin"].list.type.extend([1, 20])
        node.attr["Tout"].list.type.append(1)
    _op(graph, "y", "Identity", "call", T=1)
    for name, called in (("f", "g"), ("g", "")):
        function = graph.library.function.add()
        function.signature.name = name
        for argument, number in (("a", 1), ("r", 20)):
            function.signature.input_arg.add(name=argument, type=number)
        function.signature.output_arg.add(name="out", type=1)
        node = function.node_def.add(name="n", op="PartitionedCall" if called else "ReadVariableOp")
        node.input.extend(["a", "r"] if called else ["r"])
        if called:
            node.attr["f"].func.name = called
            node.attr["Tin"].list.type.extend([1, 20])
            node.attr["Tout"].list.type.append(1)
        else:
            node.attr["dtype"].type = 1
        function.ret["out"] = "n:output:0" if called else "n:value:0"
    return graph


def _loop() -> Any:
    """A graph with a loop of version 1, and one with constants and an assertion."""
    graph = bundles.message_class("GraphDef")()
    _op(graph, "x", "Placeholder", dtype=1)
    _op(graph, "enter", "Enter", "x", T=1)
    graph.node[-1].attr["frame_name"].s = b"frame"
    _op(graph, "merge", "Merge", "enter", "next", T=1)
    _op(graph, "cond", "LoopCond", "less")
    _op(graph, "limit", "Const", dtype=1)
    tensor = graph.node[-1].attr["value"].tensor
    tensor.dtype, tensor.tensor_content = 1, b"\0\0\0\0"
    _op(graph, "less", "Less", "merge", "limit", T=1)
    _op(graph, "switch", "Switch", "merge", "cond", T=1)
    _op(graph, "add", "AddV2", "switch:1", "limit", T=1)
    _op(graph, "next", "NextIteration", "add", T=1)
    _op(graph, "exit", "Exit", "switch", T=1)
    _op(graph, "y", "Identity", "exit", "^limit", T=1)
    return graph


def change_graph(name: str, random: Random, files: Files, other: Files) -> Files:
    data = files[name]
    for _ in range(random.choice((1, 1, 2, 3))):
        crossed = random.random() < 0.2
        data = mutation.crossed_message(random, data, other[name]) if crossed else changed_message(random, data)
    return {**files, name: data}


def try_graph(name: str, directory: str, random: Random) -> None:
    from ckpttool.formats.opening import open_graph

    graph = attempt(lambda: open_graph(os.path.join(directory, name)))
    if graph is not None:
        work_on(graph, directory, random)


def work_on(graph: Any, directory: str, random: Random) -> None:
    """One of the things that can be done with a graph, and a listing."""
    from ckpttool.reports import graphs as reports

    attempt(lambda: reports.overview(graph))
    random.choice(_GRAPH_WORK)(graph, directory, random)


def _list(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.formats.frozen import constants_of
    from ckpttool.reports import graphs as reports

    for make in (
        reports.ops,
        reports.collection_members,
        reports.graph_variables,
        reports.signatures,
        reports.functions,
    ):
        attempt(lambda make=make: make(graph))
    for variable in (attempt(lambda: constants_of(graph)) or {}).values():
        attempt(variable.numpy)


def _endpoints(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.analysis.graphs.endpoints import endpoints, how_to_run
    from ckpttool.reports import graphs as reports

    found = attempt(lambda: endpoints(graph))
    if found is not None:
        how_to_run(found)
        reports.endpoints(found)


def _strip(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.analysis.graphs.comparison import compare_graphs
    from ckpttool.transforms.devices import device_mentions, placed_ops, strip_devices

    attempt(lambda: device_mentions(graph))
    attempt(lambda: placed_ops(graph))
    stripped = attempt(lambda: strip_devices(graph, colocation=random.random() < 0.5, all=random.random() < 0.5))
    if stripped is not None:
        attempt(lambda: compare_graphs(graph, stripped))


def _name(graph: Any, random: Random) -> str:
    nodes = graph.graph_def.node
    name = (
        random.choice(nodes).name
        if nodes and random.random() < 0.6
        else random.choice(("y", "y:0", "activation_opt:0", "x"))
    )
    return name + random.choice(("", "", ":0", ":1", ":99999999999"))


def _stored(directory: str) -> Any:
    from ckpttool.formats.bundle.reading import read_bundle

    prefix = os.path.join(directory, "m")
    return attempt(lambda: read_bundle(prefix)) if os.path.exists(f"{prefix}.index") else None


def _freeze(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.transforms.freezing import freeze

    outputs = [_name(graph, random) for _ in range(random.choice((1, 1, 2)))]
    inputs = [_name(graph, random)] if random.random() < 0.3 else []
    attempt(lambda: freeze(graph, _stored(directory), outputs, inputs=inputs))


def _serve(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.transforms.serving import servable
    from ckpttool.transforms.serving.assets import asset_files, file_names
    from ckpttool.transforms.serving.signatures import likely_inputs, likely_outputs

    fed, fetched = {}, {"y": _name(graph, random)}
    with suppress(ValueError, *ANSWERS):  # A usage error: two of them have one key, and the user is to name them.
        fetched = likely_outputs(graph) or fetched
        fed = likely_inputs(graph, fetched, inferred=True)
    assets = attempt(lambda: asset_files(graph)) or []
    names = attempt(lambda: file_names(dict.fromkeys(assets, "file"))) or {}
    attempt(lambda: servable(graph, _stored(directory), fed, fetched, assets=names))


def _edit(graph: Any, directory: str, random: Random) -> None:
    from ckpttool.analysis.agreement import differences, disagreements
    from ckpttool.transforms.collections import edit_collections
    from ckpttool.transforms.graph_variables import rename_and_drop

    attempt(lambda: edit_collections(graph, [("outputs", _name(graph, random))], []))
    removed = random.choice(list(attempt(lambda: graph.collections) or ["outputs"]))
    attempt(lambda: edit_collections(graph, [], [(removed, None)]))
    stored = _stored(directory)
    if stored is not None:
        attempt(lambda: disagreements(graph, stored))
        attempt(lambda: differences(graph, stored))
        names = {name: f"new/{name}" for name in stored}
        attempt(lambda: rename_and_drop(graph, names, []))


_GRAPH_WORK = [_list, _endpoints, _strip, _freeze, _freeze, _freeze, _serve, _serve, _edit]


def saved_model_corpus() -> list[Files]:
    found = []
    for files in graph_corpus():
        made = bundles.field(1, 1) + bundles.field(2, files["m.meta"])
        found.append({"saved_model.pb": made})
    twice = found[-1]["saved_model.pb"] + bundles.field(2, graph_corpus()[0]["m.meta"])
    return [*found, {"saved_model.pb": twice, "fingerprint.pb": b"\x08\x01"}]


def text_corpus() -> list[Files]:
    from google.protobuf import text_format

    found = []
    for files in graph_corpus():
        message = bundles.message_class("MetaGraphDef").FromString(files["m.meta"])
        message.ClearField("meta_info_def")
        found.append({"m.pbtxt": text_format.MessageToString(message).encode()})
    return [{"m.pbtxt": text["m.pbtxt"]} for text in found if len(text["m.pbtxt"]) < 20_000]


_WORDS = [
    b"{",
    b"}",
    b"node {",
    b"attr {",
    b"key:",
    b"value {",
    b'"\\377"',
    b'"\\x"',
    b"func {",
    b"-1",
    b"1e999",
    b"99999999999999999999",
]
_WORDS += [
    b"<",
    b">",
    b"[type.googleapis.com/x] {",
    b"nan",
    b"# ",
    b"'",
    b'"',
    b"\\",
    b"true",
    b"DT_FLOAT",
    b"DT_NOTHING",
    b"list {",
]


def change_text(random: Random, data: bytes, other: bytes) -> bytes:
    for _ in range(random.choice((1, 2, 3))):
        at = random.randrange(len(data) + 1)
        word = random.choice(_WORDS) if random.random() < 0.98 else b"node { " * random.choice((50, 500, 5000))
        put = data[:at] + word + data[at + random.choice((0, 1, 8)) :]
        lines = data.splitlines(keepends=True) or [b""]
        moved = [*lines]
        moved[random.randrange(len(lines))] = random.choice(lines)
        data = random.choice((put, b"".join(moved), changed_bytes(random, data)))
    return data


# Object graphs and state files


def objects_corpus() -> list[Files]:
    from ckpttool.formats.bundle.reading import read_bundle
    from ckpttool.model.object_keys import OBJECT_GRAPH_KEY

    [data] = read_bundle(str(FIXTURES / "objects" / "model-1"))[OBJECT_GRAPH_KEY].strings()
    return [{"objects": data}]


def change_whole(random: Random, data: bytes, other: bytes) -> bytes:
    for _ in range(random.choice((1, 1, 2, 4))):
        data = changed_message(random, data)
    return data


@cache
def _object_names() -> tuple[str, ...]:
    from ckpttool.formats.bundle.reading import read_bundle

    return tuple(read_bundle(str(FIXTURES / "objects" / "model-1")))


def try_objects(directory: str, random: Random) -> None:
    from ckpttool.model.object_graph import ObjectGraph

    graph = attempt(lambda: ObjectGraph((Path(directory) / "objects").read_bytes()))
    if graph is None:
        return
    names = _object_names()
    list(graph.walk())
    graph.places(names)
    graph.unstored(names)
    graph.stored(names)
    _ = graph.readable_paths, graph.paths, [graph.own_variables(optimizer) for optimizer in graph.optimizers]


def state_corpus() -> list[Files]:
    texts = [(FIXTURES / name / "checkpoint").read_bytes() for name in ("linear", "objects")]
    times = b'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "m-2"\n'
    times += (
        b"all_model_checkpoint_timestamps: 1.5e9\nall_model_checkpoint_timestamps: 1.6e9\nlast_preserved_timestamp: 1\n"
    )
    return [{"checkpoint": text} for text in [*texts, times, b'model_checkpoint_path: "../../etc/x"\n']]


def try_state(directory: str, random: Random) -> None:
    from ckpttool.formats.checkpoint_state import add_to_checkpoint_state, relocate_checkpoint_state
    from ckpttool.formats.listing import has_checkpoint, state_entries
    from ckpttool.formats.locate import locate
    from ckpttool.reports.checkpoints import state

    entries = attempt(lambda: state_entries(directory))
    if entries is not None:
        state(entries, directory)
    attempt(lambda: locate(directory))
    attempt(lambda: locate(directory, step="latest"))
    path = os.path.join(directory, "checkpoint")
    if random.random() < 0.1:
        attempt(lambda: relocate_checkpoint_state(path, has_checkpoint, output=f"{path}.new", force=True))
        attempt(lambda: add_to_checkpoint_state(os.path.join(directory, "m-3")))


# Whatever is there


def anything_corpus() -> list[Files]:
    files = [
        bundle_corpus()[0]["m.index"],
        b"<html>",
        b"version https://git-lfs",
        b"\x89HDF\r\n\x1a\n",
        b"PK\x03\x04",
        b"\x80\x02",
        b"",
    ]
    files += [
        each.popitem()[1]
        for corpus in (v1_corpus(), npy_corpus(), state_corpus(), text_corpus())
        for each in corpus[:2]
    ]
    return [{"file": data} for data in files]


def try_anything(directory: str, random: Random) -> None:
    from ckpttool.formats.locate import locate
    from ckpttool.formats.opening import open_checkpoint, open_graph

    path = os.path.join(directory, "file")
    attempt(lambda: locate(path))
    attempt(lambda: open_checkpoint(path))
    attempt(lambda: open_graph(path))


# Writers: sound variables of any name, dtype and shape, through every format and back

_DTYPES = [
    "float32",
    "float64",
    "float16",
    "int8",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
]


def writers_corpus() -> list[Files]:
    return [{"seed": b""}]


def change_writers(random: Random, files: Files, other: Files) -> Files:
    return {"seed": random.randbytes(8)}


def _random_arrays(random: Random) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for _ in range(random.choice((1, 2, 3, 6))):
        parts = [random.choice((*_NAME_PARTS, *mutation.TEXTS)) for _ in range(random.choice((1, 1, 2, 3)))]
        name = random.choice((b"/", b"", b":")).join(parts).decode(errors="surrogateescape")
        shape = [random.choice((0, 1, 2, 3)) for _ in range(random.choice((0, 1, 2, 5)))]
        size = int(np.prod(shape, dtype=int))
        if random.random() < 0.2:
            values = [random.choice(mutation.TEXTS) for _ in range(size)]
            arrays[name] = bundles.strings(*values).reshape(shape)
        else:
            dtype = np.dtype(random.choice(_DTYPES))
            data = random.randbytes(size * dtype.itemsize)
            data = bytes(b & 1 for b in data) if dtype.kind == "b" else data
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    arrays.pop("", None)
    return arrays or {"x": np.zeros(1)}


_NAME_PARTS = [
    b"a",
    b"b",
    b"A",
    b"a.npy",
    b"a:0",
    b":0",
    b"e\xcc\x81",
    b"\xc3\xa9",
    b"con",
    b"NUL.txt",
    b".",
    b"..",
    b"%2E",
    b"%",
    b"name",
    b"a.",
    b" ",
]
_NAME_PARTS += [
    b"__metadata__",
    b"index.json",
    b"layer_names",
    b"\xf0\x9f\x98\x80",
    b"\\",
    b"c:\\x",
    b"x" * 260,
    b"\n",
    b"kernel",
]

WRITERS = [
    ("hdf5", "write_hdf5", "m.h5"),
    ("npz", "write_npz", "m.npz"),
    ("npy", "write_npy", "arrays"),
    ("safetensors", "write_safetensors", "m.safetensors"),
    ("bundle.writing", "write_bundle", "n"),
    ("tensor_slices.writing", "write_tensor_slices", "v1"),
]


def try_writers(directory: str, random: Random) -> None:
    from importlib import import_module

    from ckpttool.formats.bundle.reading import read_bundle
    from ckpttool.formats.opening import open_checkpoint

    made = Random((Path(directory) / "seed").read_bytes())
    arrays = _random_arrays(made)
    inner = Path(directory) / "in"
    inner.mkdir()
    source = read_bundle(bundles.bundle(arrays).write(inner))
    for module, function, name in made.sample(WRITERS, 2):
        out = Path(directory) / f"out-{name}"
        out.mkdir()
        remarkable = attempt(
            lambda m=module, f=function, p=out / name: getattr(import_module(f"ckpttool.formats.{m}"), f)(source, p)
        )
        assert sorted(os.listdir(directory)) == sorted(
            {"seed", "in", *(n for n in os.listdir(directory) if n.startswith("out-"))}
        )
        if remarkable is None:
            assert not os.listdir(out), os.listdir(out)
            continue
        left_out = {planned.variable.name for planned in remarkable if planned.problem}
        back = open_checkpoint(str(out / name))
        assert sorted(back) == sorted(set(arrays) - left_out), (sorted(back), sorted(arrays), left_out)
        for variable in back.values():
            array = variable.numpy()
            expected = arrays[variable.name]
            assert (array.shape, array.tolist()) == (
                expected.shape,
                expected.tolist(),
            ) or array.tobytes() == expected.tobytes()
        shutil.rmtree(out)


_table_file = partial(change_only, changed_table)
_raw_file = partial(change_only, change_raw)

TARGETS: Mapping[str, Target] = {
    "bundle": Target(bundle_corpus, change_bundle, try_bundle),
    "v1": Target(v1_corpus, _table_file, try_v1),
    "graph": Target(graph_corpus, partial(change_graph, "m.meta"), partial(try_graph, "m.meta")),
    "graph-text": Target(text_corpus, partial(change_only, change_text), partial(try_graph, "m.pbtxt")),
    "saved-model": Target(
        saved_model_corpus, partial(change_graph, "saved_model.pb"), partial(try_graph, "saved_model.pb")
    ),
    "objects": Target(objects_corpus, partial(change_only, change_whole), try_objects),
    "state": Target(state_corpus, partial(change_only, change_text), try_state),
    "safetensors": Target(
        partial(made_by, "safetensors", "write_safetensors", "m.safetensors"),
        partial(change_only, change_safetensors),
        partial(read, "safetensors", "read_safetensors", "m.safetensors"),
    ),
    "safetensors-index": Target(
        safetensors_index_corpus,
        partial(change_json_file, "model.safetensors.index.json"),
        partial(read, "safetensors", "read_safetensors_index", "model.safetensors.index.json"),
    ),
    "npz": Target(npz_corpus, partial(change_only, change_npz), partial(read, "npz", "read_npz", "m.npz")),
    "npy": Target(npy_corpus, partial(change_only, change_npy), partial(read, "npy", "read_npy", "m.npy")),
    "hdf5": Target(hdf5_corpus, _raw_file, partial(read, "hdf5", "read_hdf5", "m.h5")),
    "anything": Target(anything_corpus, _raw_file, try_anything),
    "writers": Target(writers_corpus, change_writers, try_writers),
}
"""All targets, by name."""
