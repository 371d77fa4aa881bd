"""Whatever is wrong with a file, and however it was made: each command ends at once, in little memory, with one line
that says what is wrong, or with a sound result.

The tables of `test_damage` and `test_tensor_slices`, which say what the library raises, go through the command line
here, in a process with limits; the others are of graphs, object graphs, state files, and files that are none.
"""

import itertools
import os
import shutil
import socket
import struct
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import test_damage as damage
import test_tensor_slices as v1
from bundles import block, block_of, bundle, field, header, snappy_table, strings, table, table_of, with_trailer
from conftest import FIXTURES
from limited import Limited, Ran

from ckpttool.formats.bundle import index_path
from ckpttool.proto import message_class
from ckpttool.wire.coding import encode_fixed32, encode_varint

pytestmark = pytest.mark.slow

ENDED = {0, 1, 3, 4, 5}
ERRORS = {3, 4, 5}
WRONG = 1


@pytest.fixture(scope="module")
def limited() -> Iterator[Limited]:
    """The process in which commands have 2 s and 200 MB."""
    process = Limited()
    yield process
    process.close()


def check(ran: Ran, codes: set[int]) -> None:
    """The command ended as it should, with one line for an error."""
    assert ran.crash is None, ran.crash
    assert ran.code in codes, ran
    errors = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (ran.code in ERRORS), ran.err
    assert not {c for c in ran.out + ran.err if not c.isprintable() and c not in "\n\t"}, ran


def on_checkpoint(path: object, out: Path) -> list[list[object]]:
    """What can be done with a checkpoint."""
    return [
        ["vars", path],
        ["export", path, "--npz", out / "x.npz"],
        ["verify", path, "--strict"],
        ["stats", path],
        ["diff", path, path, "--structure"],
        ["objects", path],
    ]


def on_graph(path: object, out: Path, outputs: str = "y", checkpoint: object = "") -> list[list[object]]:
    """What can be done with a graph."""
    beside = ["--checkpoint", checkpoint] if checkpoint else []
    return [
        ["ls", path],
        ["ls", path, "--ops", "--all"],
        ["ls", path, "--functions", "--constants", "--signatures", "--collections", "--variables", "--json"],
        ["io", path],
        ["strip-devices", path, "-o", out / "stripped.pb", "--all", "--force"],
        ["collections", path, "--add", f"c={outputs}", "-o", out / "more.pb", "--force"],
        ["freeze", path, "--outputs", outputs, "-o", out / "frozen.pb", "--force", *beside],
        ["saved-model", path, "--outputs", outputs, "-o", out / "served", "--force", *beside],
        ["diff", path, path, "--graphs"],
    ]


def assert_clean(out: Path) -> None:
    """No temporary is left, and nothing is outside."""
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


# Bundles and V1


@pytest.mark.parametrize("name", damage.TABLES)
def test_tables(name: str, limited: Limited, tmp_path: Path) -> None:
    """An index that is no sound table ends every command with an error, and `verify` too."""
    prefix = damage.sound().write(tmp_path, index=damage.TABLES[name][0])
    listed, exported, verified, *others = limited.run(*on_checkpoint(prefix, tmp_path))
    for ran in (listed, exported, *others):
        check(ran, ERRORS)
    check(verified, {WRONG, *ERRORS})
    assert not (tmp_path / "x.npz").exists()
    assert_clean(tmp_path)


ENTRIES = {**damage.REFUSED, **{name: (make, None, None, "") for name, (make, _) in damage.BAD_SLICES.items()}}


@pytest.mark.parametrize("name", ENTRIES)
def test_entries(name: str, limited: Limited, tmp_path: Path) -> None:
    """A header or an entry that can't be ends every command with an error; `verify` finds it."""
    prefix = ENTRIES[name][0]().write(tmp_path)
    listed, exported, verified, *others = limited.run(*on_checkpoint(prefix, tmp_path))
    for ran in (listed, exported, *others):
        check(ran, ERRORS)
    check(verified, {WRONG, *ERRORS})
    assert_clean(tmp_path)


@pytest.mark.parametrize("name", damage.UNREADABLE)
def test_values(name: str, limited: Limited, tmp_path: Path) -> None:
    """Values that are damaged are listed; what would read them ends with an error and no file; `verify` finds them."""
    prefix = damage.UNREADABLE[name][0]().write(tmp_path)
    listed, exported, verified, *others = limited.run(*on_checkpoint(prefix, tmp_path))
    check(listed, {0})
    check(exported, ERRORS)
    check(verified, {WRONG})
    for ran in others:
        check(ran, ENDED)
    assert not (tmp_path / "x.npz").exists()
    assert_clean(tmp_path)


V1_CASES = {**{name: files for name, (_, _, files) in v1.UNSOUND.items()}}
V1_CASES |= {name: [records] for name, (_, records) in v1.UNREADABLE.items()}


@pytest.mark.parametrize("name", V1_CASES)
def test_tensor_slices(name: str, limited: Limited, tmp_path: Path) -> None:
    """A damaged V1 checkpoint can't be exported, and `verify` finds it."""
    files = V1_CASES[name]
    for number, records in enumerate(files):
        (tmp_path / f"model-{number:05}-of-{len(files):05}").write_bytes(table_of(sorted(records.items())))
    listed, exported, verified, *others = limited.run(*on_checkpoint(tmp_path / "model", tmp_path))
    check(exported, ERRORS)
    check(verified, {WRONG, *ERRORS})
    for ran in (listed, *others):
        check(ran, ENDED)
    assert_clean(tmp_path)


def _many(count: int) -> bytes:
    """An index of many small entries."""
    entry = field(1, 1) + field(5, 4)
    return table_of([(b"", header(num_shards=1)), *((b"%07d" % i, entry) for i in range(count))])


def _aliased() -> bytes:
    """An index whose index block names one block under many keys, in order."""
    pairs = [(b"", header(num_shards=1)), (b"w", field(1, 1))]
    contents = with_trailer(block_of(pairs))
    return table([(b"x", contents)], index=lambda made: block_of([(b"%05d" % i, made[0][1]) for i in range(20_000)], 1))


def _growing(count: int) -> bytes:
    """An index whose keys each have all of the one before, and a byte more: together as many gigabytes as it likes."""
    entries = [b"\0\0" + encode_varint(2) + field(1, 1)]
    entry = field(1, 1) + field(5, 4)
    entries += [encode_varint(i) + encode_varint(1) + encode_varint(len(entry)) + b"k" + entry for i in range(count)]
    contents = b"".join(entries) + encode_fixed32(0) + encode_fixed32(1)
    return table([(b"k" * count, with_trailer(contents))])


def _restarting(count: int) -> bytes:
    """A block with a restart at each of many entries, which share what is not there."""
    return b"\1\0\0" * count + b"".join(encode_fixed32(3 * number) for number in range(count)) + encode_fixed32(count)


def _self_index() -> bytes:
    """An index whose data block is the index block itself."""
    return table([(b"x", with_trailer(block([])))], index=lambda made: block_of([(b"x", encode_varint(30) * 2)], 1))


FURTHER: dict[str, bytes] = {
    "one block under 20,000 keys": _aliased(),
    "a data block that is the index block": _self_index(),
    "a key of 3 MB": table_of([(b"", header(num_shards=1)), (b"k" * 3_000_000, field(1, 1))]),
    "a key of 3 MB, compressed": snappy_table([(b"", header(num_shards=1)), (b"k" * 3_000_000, field(1, 1))]),
    "a shape of 1,000,000 dimensions": table_of(
        [(b"", header(num_shards=1)), (b"w", field(1, 1) + field(2, field(2, field(1, 1)) * 1_000_000))]
    ),
    "a slice of 1,500,000 dimensions": table_of(
        [(b"", header(num_shards=1)), (b"w", field(1, 1) + field(7, field(1, b"") * 1_500_000))]
    ),
    "5,000 slices": table_of([(b"", header(num_shards=1)), (b"w", field(1, 1) + field(7, field(1, b"")) * 5_000)]),
    "keys that each add a byte to the one before": _growing(24_000),
    "a long name of many slices that are not there": table_of(
        [(b"", header(num_shards=1)), (b"w" * 200_000, field(1, 1) + field(7, field(1, b"")) * 20_000)]
    ),
    "restarts at entries that are none": table([(b"\xff", with_trailer(_restarting(40_000)))]),
    "empty": b"",
}


@pytest.mark.parametrize("name", FURTHER)
def test_further_indexes(name: str, limited: Limited, tmp_path: Path) -> None:
    """Indexes that are out of all proportion are refused, or read, in a time and memory that fit the file's size."""
    (tmp_path / "model.index").write_bytes(FURTHER[name])
    (tmp_path / "model.data-00000-of-00001").write_bytes(bytes(8))
    for command in on_checkpoint(tmp_path / "model", tmp_path):
        [ran] = limited.run(command)
        check(ran, ENDED)


@pytest.mark.slow
def test_a_million_entries(tmp_path: Path) -> None:
    """A million entries, which are sound, are listed in a few seconds."""
    from bundles import time_limit

    (tmp_path / "model.index").write_bytes(_many(1_000_000))
    with time_limit(30):
        assert len(damage.read_bundle(str(tmp_path / "model"))) == 1_000_000


KINDS: dict[str, Callable[[Path], object]] = {
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to itself": lambda path: path.symlink_to(path),
    "dead link": lambda path: path.symlink_to("nowhere"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(os.path.relpath(path)),
    "empty": lambda path: path.touch(),
}


@pytest.mark.parametrize(
    "name", ["model.index", "model.meta", "checkpoint", "model.data-00000-of-00001", "x.h5", "x.npz"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_no_files(kind: str, name: str, limited: Limited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no regular file, in the place of any of a checkpoint's, is an error, and nobody waits for it."""
    monkeypatch.chdir(tmp_path)
    damage.sound().write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    KINDS[kind](tmp_path / name)
    path = tmp_path / name
    for ran in limited.run(
        ["vars", path], ["ls", path], ["verify", path], ["export", path, "--npz", tmp_path / "o.npz"]
    ):
        check(ran, ENDED - {0} if not name.startswith("model") and name != "checkpoint" else ENDED)
    for ran in limited.run(["vars", tmp_path], ["state", tmp_path]):
        check(ran, ENDED)


@pytest.mark.parametrize("name", ["x.h5", "x.npz"])
def test_texts_of_which_nothing_is_stored(name: str, limited: Limited, tmp_path: Path) -> None:
    """Millions of short texts in a file of a few kilobytes are passed over, before any of them is made."""
    if name == "x.npz":
        np.savez_compressed(tmp_path / name, s=np.zeros(16 << 20, "S2"), w=np.ones(2, np.float32))
    else:
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("s", (16 << 20,), "S2", fillvalue=b"ab")
            file["w"] = np.ones(2, np.float32)
    for ran in limited.run(["vars", tmp_path / name], ["stats", tmp_path / name], ["verify", tmp_path / name]):
        check(ran, {0})
        assert "s is passed over" in ran.err or "s.npy is passed over" in ran.err


def test_lists_of_hdf5_that_share_a_text(limited: Limited, tmp_path: Path) -> None:
    """Groups one in another that list ever longer parts of one text of a megabyte as their weights."""
    from ckpttool.formats.hdf5.encoding import messages
    from ckpttool.formats.hdf5.encoding.groups import Group, write_groups
    from ckpttool.formats.hdf5.encoding.output import SUPERBLOCK_SIZE, Output

    count, size = 2_900, 1 << 21
    with Output(tmp_path / "x.h5", SUPERBLOCK_SIZE) as out:
        collection = struct.pack("<4sB3xQHHIQ", b"GCOL", 1, 32 + size + 16, 1, 0, 0, size) + bytes(size)
        address = out.append(collection + struct.pack("<HHIQ", 0, 0, 0, 16))
        references = b"".join(struct.pack("<IQI", 1 + n, address, 1) for n in range(count))
        whole = messages.contiguous(address + 32, 16)
        scalar = messages.header(
            [messages.dataspace(()), messages.datatype(messages.TEXTS), messages.fill("early"), whole]
        )
        root = group = Group()
        for _ in range(80):
            group.attributes.append(messages.attribute(b"weight_names", messages.TEXTS, (count,), references))
            group.links[b"z"] = out.append(scalar)  # Comes behind what is in g, and has its place till then.
            group.links[b"g"] = group = Group()
        write_groups(out, root)
    for command in (["vars", tmp_path / "x.h5"], ["verify", tmp_path / "x.h5"]):
        check(limited.run(command)[0], ENDED)


# State files


STATES: dict[str, bytes] = {
    "20 MB of text": b'model_checkpoint_path: "' + b"x" * 20_000_000 + b'"',
    "20 MB of spaces": b" " * 20_000_000,
    "outside": b'model_checkpoint_path: "../../../etc/passwd"',
    "a device": b'model_checkpoint_path: "/dev/zero"',
    "itself": b'model_checkpoint_path: "checkpoint"',
    "its directory": b'model_checkpoint_path: "."',
    "NUL": b'model_checkpoint_path: "a\\000b"',
    "no UTF-8": b'model_checkpoint_path: "\xff"',
    "escapes": b'model_checkpoint_path: "\\033[2J"',
    "long": b'model_checkpoint_path: "' + b"x" * 5000 + b'"',
    "nested": b"x { " * 5000,
    "a number": b"model_checkpoint_path: 1e99999",
    "many": b'model_checkpoint_path: "a"\n' + b'all_model_checkpoint_paths: "b"\n' * 3000,
    "a time": b'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\nall_model_checkpoint_timestamps: 1e300',
    "not a time": b'model_checkpoint_path: "a"\nall_model_checkpoint_paths: "a"\nall_model_checkpoint_timestamps: nan',
}


@pytest.mark.parametrize("name", STATES)
def test_states(name: str, limited: Limited, tmp_path: Path) -> None:
    """A state file of any text is answered, and leads nowhere else."""
    (tmp_path / "checkpoint").write_bytes(STATES[name])
    check(limited.run(["vars", tmp_path])[0], ERRORS)
    check(limited.run(["state", tmp_path])[0], ENDED)
    check(limited.run(["state", tmp_path, "--relocate"])[0], ENDED)


def test_a_long_state_file(limited: Limited, tmp_path: Path) -> None:
    """Of 40,000 checkpoints that are gone, each is looked for once, and the list is gone through once."""
    paths = [f"/gone/model-{step}" for step in range(40_000)]
    lines = [f'model_checkpoint_path: "{paths[-1]}"', *(f'all_model_checkpoint_paths: "{path}"' for path in paths)]
    (tmp_path / "checkpoint").write_text("\n".join(lines))
    listed, relocated = limited.run(["state", tmp_path], ["state", tmp_path, "--relocate", "-o", tmp_path / "other"])
    assert listed.out.count("dangling") == 40_000
    assert "made 0 paths relative" in relocated.err


# Graphs


def graph_def() -> Any:
    return message_class("GraphDef")()


def chain(count: int, *, cycle: bool = False, op: str = "Identity") -> Any:
    """Ops each of which takes the one before it; the last is "y"."""
    made = graph_def()
    made.node.add(name="n0", op="Placeholder").attr["dtype"].type = 1
    for i in range(1, count):
        made.node.add(name="y" if i == count - 1 else f"n{i}", op=op, input=[f"n{i - 1}"]).attr["T"].type = 1
    if cycle:
        made.node[1].input[0] = "y"
    return made


def with_input(text: str) -> Any:
    made = chain(3)
    made.node[2].input[0] = text
    return made


def functions(**calls: list[str]) -> Any:
    """A graph that calls "f", and functions each of which calls those listed."""
    made = chain(2)
    made.node[1].op = "f"
    for name, called in calls.items():
        function = made.library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="x", type=1)
        function.signature.output_arg.add(name="out", type=1)
        for number, other in enumerate(called):
            node = function.node_def.add(name=f"c{number}", op="PartitionedCall", input=["x"])
            node.attr["f"].func.name = other
            node.attr["Tin"].list.type.append(1)
            node.attr["Tout"].list.type.append(1)
        function.ret["out"] = "c0:output:0" if called else "x"
    made.node[1].op = "PartitionedCall"
    made.node[1].attr["f"].func.name = "f"
    made.node[1].attr["Tin"].list.type.append(1)
    made.node[1].attr["Tout"].list.type.append(1)
    return made


def nested_functions(depth: int) -> bytes:
    """A node whose attribute is a function whose attribute is a function, …"""
    value = b""
    for _ in range(depth):
        name_attr = field(1, b"f") + field(2, field(1, b"a") + field(2, value))
        value = field(10, name_attr)
    node = field(1, b"y") + field(2, b"NoOp") + field(5, field(1, b"a") + field(2, value))
    return field(1, node) + field(1, field(1, b"x") + field(2, b"NoOp"))


def constant(shape: list[int], dtype: int = 1, **values: Any) -> Any:
    """A Const of a shape that its values, or the one of them, are said to fill."""
    made = graph_def()
    tensor = made.node.add(name="y", op="Const").attr["value"].tensor
    made.node[0].attr["dtype"].type = dtype
    made.node.add(name="z", op="Identity", input=["y"]).attr["T"].type = dtype
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for name, value in values.items():
        getattr(tensor, name).extend(value) if isinstance(value, list) else setattr(tensor, name, value)
    return made


def doubled() -> Any:
    made = chain(3)
    made.node.extend([made.node[2], made.node[1]])
    return made


def ladder(levels: int) -> Any:
    """Functions f, f1, … each of which calls the next one twice: 2**levels calls, if they were all followed."""
    names = ["f", *(f"f{i}" for i in range(1, levels))]
    return functions(**{name: [following] * 2 for name, following in itertools.pairwise(names)}, **{names[-1]: []})


def twice(made: Any) -> Any:
    made.library.function.extend(list(made.library.function))
    return made


def loops(count: int) -> Any:
    """Loops without a way out, one in another."""
    made = chain(2)
    for i in range(count):
        made.node.add(name=f"m{i}", op="Merge", input=[f"m{i - 1}" if i else "n0", f"t{i}"]).attr["T"].type = 1
        made.node.add(name=f"t{i}", op="NextIteration", input=[f"m{i}"]).attr["T"].type = 1
    made.node[1].input[0] = f"m{count - 1}"
    return made


BIG = 2**63 - 1
GRAPHS: dict[str, Callable[[], Any]] = {
    "a function that calls itself": lambda: functions(f=["f"]),
    "functions that call each other": lambda: functions(f=["g"], g=["f"]),
    "functions that call each other twice": lambda: functions(f=["g", "g"], g=["f", "f"]),
    "2**40 calls": lambda: ladder(40),
    "functions 1,000 deep": lambda: functions(f=["f1"], **{f"f{i}": [f"f{i + 1}"] for i in range(1, 1000)}, f1000=[]),
    "a missing function": lambda: functions(f=["gone"]),
    "no function at all": functions,
    "a function twice": lambda: twice(functions(f=[])),
    "a cycle": lambda: chain(5, cycle=True),
    "a cycle of one": lambda: with_input("y"),
    "5,000 in a row": lambda: chain(5_000),
    "5,000 in a circle": lambda: chain(5_000, cycle=True),
    "loops without a way out": lambda: loops(500),
    "a loop of its own": lambda: loops(1),
    "a name twice": doubled,
    "functions 60 deep": lambda: nested_functions(60),
    "functions 5,000 deep": lambda: nested_functions(5_000),
    "10,000 ops without a name": lambda: field(1, field(2, b"NoOp")) * 10_000,
    "100,000 empty ops": lambda: field(1, b"") * 100_000,
    "names that are no UTF-8": lambda: field(1, field(1, b"\xff\xfe") + field(2, b"NoOp")) * 2,
    "ops that are no UTF-8": lambda: field(1, field(1, b"y") + field(2, b"\xff")) * 2,
    "an op of 2**62 bytes": lambda: b"\x0a" + encode_varint(2**62) + b"x",
    "many inputs of one": lambda: (
        field(1, field(1, b"x") + field(2, b"NoOp"))
        + field(1, field(1, b"y") + field(2, b"NoOp") + field(3, b"x") * 50_000)
    ),
    "a splat of 2**60 floats": lambda: constant([2**30, 2**30], float_val=[1.0]),
    "a splat of 2**40 strings": lambda: constant([2**40], 7, string_val=[b"x"]),
    "a splat of nothing": lambda: constant([2**40]),
    "more dimensions than can be": lambda: constant([BIG, BIG, BIG], float_val=[1.0]),
    "a negative dimension": lambda: constant([-5], float_val=[1.0]),
    "values of no dtype": lambda: constant([2], 99, tensor_content=b"x" * 8),
    "too few bytes": lambda: constant([4], tensor_content=b"x" * 3),
    "50,000 dimensions": lambda: constant([1] * 50_000, float_val=[1.0]),
    **{
        f"input {text!r}": lambda text=text: with_input(text)
        for text in (
            "",
            "^",
            ":",
            "^^n0",
            "^n0",
            "n0:99999999999",
            "n0:-1",
            "n0:x",
            ":0",
            "^:0",
            "gone",
            "gone:1",
            "n0:0:0",
            "n0:" + "9" * 5000,
            "\x1b[2J",
            "a" * 100000,
            "n0:٣",
        )
    },
}


def as_meta(made: Any) -> bytes:
    """A MetaGraphDef around a graph, with names of ops in all the places that may have some."""
    if isinstance(made, bytes):
        return field(1, b"") + field(2, made)
    whole = message_class("MetaGraphDef")()
    whole.meta_info_def.tags.append("serve")
    whole.graph_def.CopyFrom(made)
    return bytes(whole.SerializeToString())


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str, limited: Limited, tmp_path: Path) -> None:
    """A graph that no TensorFlow would make is answered by every command, from a frozen graph and from a .meta."""
    made = GRAPHS[name]()
    data = made if isinstance(made, bytes) else made.SerializeToString()
    (tmp_path / "a.pb").write_bytes(data)
    (tmp_path / "a.meta").write_bytes(as_meta(made))
    large = len(data) > 300_000
    for file in ("a.pb", "a.meta"):
        commands = on_graph(tmp_path / file, tmp_path)
        for ran in limited.run(*commands) if not large else [limited.run(each)[0] for each in commands]:
            check(ran, ENDED | {2})  # 2: an op that can't be asked for.
    assert_clean(tmp_path)


def _messages(size: int, *path: int) -> bytes:
    """So many bytes of empty messages, in fields of these numbers one in another, the last of them repeated."""
    *outer, last = path
    made = field(last, b"") * (size // 2)
    for number in reversed(outer):
        made = field(number, made)
    return made


def _each(size: int, outer: Sequence[int], *path: int) -> bytes:
    """So many bytes of messages, each with one other in it, and so on."""
    made = b""
    for number in reversed(path):
        made = field(number, made)
    made *= size // len(made)
    for number in reversed(outer):
        made = field(number, made)
    return made


_OP = field(1, field(1, b"x") + field(2, b"NoOp"))
_IN_OP = (1, 5, 2)
BOMBS: dict[str, Callable[[int], bytes]] = {
    "ops": lambda size: _messages(size, 1),
    "ops, each with an attribute": lambda size: _each(size, (), 1, 5),
    "ops behind real ones": lambda size: _OP * 1000 + _messages(size, 1),
    "attributes": lambda size: _OP + _messages(size, 1, 5),
    "tensors in a list": lambda size: _OP + _messages(size, *_IN_OP, 1, 8),
    "tensors in tensors": lambda size: _OP + _each(size, (*_IN_OP, 8), 15, 3),
    "handles of a tensor": lambda size: _OP + _messages(size, *_IN_OP, 8, 14),
    "functions": lambda size: _OP + _messages(size, 2, 1),
    "functions of five maps": lambda size: (
        _OP + field(2, field(1, b"".join(field(n, b"") for n in (5, 7, 8, 4, 6))) * (size // 12))
    ),
    "arguments of a function": lambda size: _OP + _messages(size, 2, 1, 1, 2),
    "dimensions": lambda size: _OP + _messages(size, *_IN_OP, 7, 2),
    "inputs": lambda size: _OP + _messages(size, 1, 3),
    "numbers": lambda size: _OP + field(1, field(5, field(2, field(8, field(10, bytes(size)))))),
}
META_BOMBS: dict[str, Callable[[int], bytes]] = {
    "collections": lambda size: field(2, _OP) + _messages(size, 4),
    "signatures": lambda size: field(2, _OP) + _messages(size, 5),
    "defaults of a signature": lambda size: field(2, _OP) + _messages(size, 5, 2, 4),
    "ops that the producer knew": lambda size: field(1, _messages(size, 2, 1)) + field(2, _OP),
    "objects": lambda size: field(2, _OP) + _messages(size, 7, 1),
}


@pytest.mark.parametrize("megabytes", [2, 4, 8])
@pytest.mark.parametrize("name", [*BOMBS, *META_BOMBS])
def test_bombs(name: str, megabytes: int, limited: Limited, tmp_path: Path) -> None:
    """Millions of messages of two bytes, wherever a graph can have them, are refused or read, in 2 s and 200 MB."""
    size = megabytes * 1_000_000
    data = {**BOMBS, **META_BOMBS}[name](size)
    meta_data = data if name in META_BOMBS else field(1, b"") + field(2, data)
    files = {"a.meta": meta_data, "saved_model.pb": field(1, 1) + field(2, meta_data)}
    files |= {} if name in META_BOMBS else {"a.pb": data}
    for file, contents in files.items():
        (tmp_path / file).write_bytes(contents)
        for command in (["ls", tmp_path / file], ["io", tmp_path / file]):
            check(limited.run(command)[0], ENDED)


QUOTING = {
    "a bomb between comments that seem to quote it": b"# '\n" + b"node {}\n" * 1_000_000 + b"# '\n",
    "a bomb in what is no text": b"node { name: 'a' }\n" + b"node {}\n" * 1_000_000 + b'"',
    "a text that is cut off, of escapes": b"{" * 60_000 + b'"' + b'\\"' * 20_000,
    "a text of braces": b"node { name: 'a' op: '" + b"x{" * 1_000_000 + b"' }",
}


@pytest.mark.parametrize("name", QUOTING)
def test_quoting_texts(name: str, limited: Limited, tmp_path: Path) -> None:
    """What looks like millions of messages is refused or read in little memory, whatever is quoted."""
    (tmp_path / "a.pbtxt").write_bytes(b"node { name: 'x' op: 'NoOp' }\n" + QUOTING[name])
    check(limited.run(["ls", tmp_path / "a.pbtxt"])[0], ENDED)


def test_graphs_of_one_file(limited: Limited, tmp_path: Path) -> None:
    """Thousands of graphs in a SavedModel are parsed once."""
    made = message_class("SavedModel")(saved_model_schema_version=1)
    for number in range(3_000):
        made.meta_graphs.add().meta_info_def.tags.append(f"{number}")
    made.meta_graphs[0].graph_def.node.add(name="x", op="NoOp")
    (tmp_path / "saved_model.pb").write_bytes(made.SerializeToString())
    check(limited.run(["strip-devices", tmp_path / "saved_model.pb", "-o", tmp_path / "out.pb"])[0], ENDED)


def test_lists_of_a_saver_that_are_said_once(limited: Limited, tmp_path: Path) -> None:
    """A constant of millions of texts that has one of them is not made into millions, for any op that takes it."""
    made = message_class("MetaGraphDef")()
    nodes = made.graph_def.node
    nodes.add(name="w", op="VariableV2").attr["dtype"].type = 1
    names = nodes.add(name="names", op="Const")
    names.attr["dtype"].type = names.attr["value"].tensor.dtype = 7
    names.attr["value"].tensor.tensor_shape.dim.add(size=(1 << 24) - 1)
    names.attr["value"].tensor.string_val.append(b"w")
    for number in range(8):
        restored = nodes.add(name=f"r{number}", op="RestoreV2", input=["file", "names", "names"])
        restored.attr["dtypes"].list.type.append(1)
        nodes.add(name=f"a{number}", op="Assign", input=["w", f"r{number}"])
    nodes.add(name="file", op="Placeholder").attr["dtype"].type = 7
    nodes.add(name="y", op="Identity", input=["w"])
    nodes.add(name="all", op="NoOp", input=[f"^a{number}" for number in range(8)])
    made.saver_def.restore_op_name = "all"
    (tmp_path / "a.meta").write_bytes(made.SerializeToString())
    prefix = bundle({"w": np.float32(1)}).write(tmp_path, "a")
    freeze = ["freeze", tmp_path / "a.meta", "--outputs", "y", "-o", tmp_path / "y.pb"]
    check(limited.run(freeze)[0], {0})
    for command in (["diff", tmp_path / "a.meta", prefix], ["verify", prefix]):
        check(limited.run(command)[0], ENDED)


def test_ops_without_a_name(limited: Limited, tmp_path: Path) -> None:
    """Of a graph of a million empty ops the first is named that has no name, and where it is."""
    data = field(1, b"") + field(2, _OP + _messages(2_000_000, 1))
    (tmp_path / "a.meta").write_bytes(data)
    [ran] = limited.run(["ls", tmp_path / "a.meta"])
    check(ran, {4})
    assert f"op number 1 has no name · {tmp_path}/a.meta · byte {data.index(_OP) + len(_OP) + 2}\n" in ran.err


def test_objects_bomb(limited: Limited, tmp_path: Path) -> None:
    """An object graph of a million empty objects is an error, and the variables are listed all the same."""
    arrays = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(_messages(4_000_000, 1), object), "w": np.ones(2)}
    prefix = bundle(arrays).write(tmp_path)
    for command in (["vars", prefix], ["objects", prefix], ["verify", prefix]):
        check(limited.run(command)[0], ENDED)


def meta(change: Callable[[Any], object]) -> bytes:
    whole = message_class("MetaGraphDef").FromString((FIXTURES / "linear" / "model.meta").read_bytes())
    change(whole)
    return bytes(whole.SerializeToString())


def in_collection(name: str, *members: bytes) -> Callable[[], bytes]:
    return lambda: meta(lambda whole: whole.collection_def[name].bytes_list.value.extend(members))


def signature(**tensors: str) -> Callable[[], bytes]:
    def change(whole: Any) -> None:
        made = whole.signature_def["serving_default"]
        for key, tensor in tensors.items():
            made.outputs[key].name = tensor
        made.inputs["x"].name = tensors.get("y", "")

    return lambda: meta(change)


METAS: dict[str, Callable[[], bytes]] = {
    "variables that are no messages": in_collection("variables", b"\xff", b"", b"\x0a\x7f"),
    "a VariableDef of another variable": in_collection("variables", field(1, b"gone:0") + field(2, b"gone/Assign")),
    "slices without offsets, names, or as many numbers": in_collection(
        "variables",
        field(1, b"W:0") + field(4, field(1, b"W") + field(2, 1) + field(4, 1)),
        field(1, b"b:0") + field(4, field(2, 1) + field(3, 0) + field(4, 1)),
        field(1, b"W:0") + field(4, field(1, b"W") + field(2, 1) + field(3, 0) + field(3, 0) + field(4, 1)),
    ),
    "a context that is its own": in_collection("while_context", field(1, b"while/") + field(9, b"x")),
    "5,000 savers": in_collection("savers", *[field(1, b"save/Const:0")] * 5_000),
    "a node list and a bytes list of one name": lambda: (
        meta(lambda whole: None)
        + field(4, field(1, b"variables") + field(2, field(1, field(1, b"x:0"))))
        + field(4, field(1, b"variables") + field(2, field(2, field(1, b"\xff"))))
    ),
    "a collection without a name": lambda: meta(lambda whole: None) + field(4, field(1, 7) + field(2, field(1, b""))),
    "an Any of an unknown type": lambda: meta(
        lambda whole: whole.collection_def["x"].any_list.value.add(
            type_url="type.googleapis.com/no.Such", value=b"\xff"
        )
    ),
    "a signature without tensors": signature(y=""),
    "a signature of nothing": signature(y="gone:0"),
    "a signature with an =": signature(**{"a=b": "y=:0"}),
    "a signature with odd tensors": signature(y="^:99999999999", z=":"),
    "an asset outside": lambda: meta(
        lambda whole: whole.asset_file_def.add(filename="../../../etc/passwd").tensor_info.__setattr__("name", "x:0")
    ),
    "a saver of nothing": lambda: meta(
        lambda whole: (
            whole.saver_def.__setattr__("restore_op_name", "gone")
            or whole.saver_def.__setattr__("save_tensor_name", "^")
        )
    ),
    "an object graph with a cycle": lambda: meta(
        lambda whole: whole.object_graph_def.nodes.add().children.add(node_id=0)
    ),
    "an object graph out of range": lambda: meta(
        lambda whole: whole.object_graph_def.nodes.add().children.add(node_id=2**31 - 1)
    ),
    "two graphs in one": lambda: meta(lambda whole: None) * 2,
}


@pytest.mark.parametrize("name", METAS)
def test_metas(name: str, limited: Limited, tmp_path: Path) -> None:
    """A .meta whose collections, savers and signatures name what is not there is answered by every command."""
    data = METAS[name]()
    (tmp_path / "a.meta").write_bytes(data)
    (tmp_path / "saved_model.pb").write_bytes(field(1, 1) + field(2, data))
    prefix = FIXTURES / "linear" / "model"
    for file in ("a.meta", "saved_model.pb"):
        for ran in limited.run(*on_graph(tmp_path / file, tmp_path, "activation_opt", prefix)):
            check(ran, ENDED | {2})
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{prefix}{suffix}", tmp_path / f"a{suffix}")
    [ran] = limited.run(["export", tmp_path / "a", "--tf", tmp_path / "new", "--meta", "--rename", "^=>new/"])
    check(ran, ENDED)
    assert_clean(tmp_path)


TEXTS: dict[str, bytes] = {
    "nested": b"node { attr { value { func { " * 3000,
    "lists, nested": b"node { attr { key: 'a' value { list { func { attr { value {" * 500,
    "a number too large": b"node { name: 'x' op: 'A' attr { key: 'a' value { i: 99999999999999999999 } } }",
    "a float too large": b"node { name: 'x' op: 'A' attr { key: 'a' value { f: 1e99999 } } }",
    "an enum that is none": b"node { name: 'x' op: 'A' attr { key: 'a' value { type: DT_NOTHING } } }",
    "no UTF-8": b"node { name: '\xff' op: 'A' }",
    "escaped, no UTF-8": b"node { name: '\\377' op: 'A' }",
    "an escape without end": b"node { name: 'x\\",
    "an Any": b"node { name: 'x' op: 'A' [type.googleapis.com/x] { } }",
    "2 MB of comments": b"# x\n" * 500_000 + b"node { name: 'x' op: 'A' }",
    "5 MB of one word": b"node { name: '" + b"x" * 5_000_000 + b"' op: 'A' }",
    "unclosed": b"node {",
    "300,000 empty ops": b"node {}" * 300_000,
    "200,000 empty ops in words": b"node {\n}\n" * 200_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name: str, limited: Limited, tmp_path: Path) -> None:
    """Text that is a graph, or nearly, is answered by every command."""
    (tmp_path / "a.pbtxt").write_bytes(TEXTS[name])
    for command in on_graph(tmp_path / "a.pbtxt", tmp_path)[:6]:
        check(limited.run(command)[0], ENDED | {2})


# Object graphs


def objects(*nodes: tuple[list[tuple[int, str]], list[str]]) -> bytes:
    """A TrackableObjectGraph of (children, keys of attributes)."""
    made = message_class("TrackableObjectGraph")()
    for children, keys in nodes:
        node = made.nodes.add()
        for number, name in children:
            node.children.add(node_id=number, local_name=name)
        for key in keys:
            node.attributes.add(name="VARIABLE_VALUE", full_name=key, checkpoint_key=key)
    return bytes(made.SerializeToString())


OBJECTS: dict[str, Callable[[], bytes]] = {
    "a cycle": lambda: objects(([(1, "a")], []), ([(0, "b"), (1, "self")], ["w"])),
    "a chain of 5,000": lambda: objects(*(([(i + 1, "n")], []) for i in range(5_000)), ([], ["w"])),
    "everyone knows everyone": lambda: objects(*(([(j, f"c{j}") for j in range(60)], []) for _ in range(60))),
    "out of range": lambda: objects(([(7, "a")], ["w"])),
    "negative": lambda: field(1, field(1, field(1, 2**64 - 1) + field(2, b"a"))),
    "no objects": lambda: b"",
    "20,000 empty objects": lambda: field(1, b"") * 20_000,
    "no UTF-8": lambda: field(1, field(1, field(1, 0) + field(2, b"\xff"))),
    "keys that are not there": lambda: objects(([], [f"gone/{i}" for i in range(3_000)])),
    "no message": lambda: b"\xff",
    "a slot of nothing": lambda: field(1, field(3, field(1, 99) + field(2, b"m") + field(3, 99))),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name: str, limited: Limited, tmp_path: Path) -> None:
    """An object graph of any form is answered; the variables are listed and exported all the same."""
    arrays = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.array(OBJECTS[name](), object), "w": np.ones(2)}
    prefix = bundle(arrays).write(tmp_path)
    for ran in limited.run(["vars", prefix], ["export", prefix, "--npz", tmp_path / "x.npz"]):
        check(ran, {0})
    for ran in limited.run(
        ["objects", prefix], ["verify", prefix], ["export", prefix, "--h5", tmp_path / "x.h5", "--h5-layout", "keras"]
    ):
        check(ran, ENDED)


# HDF5


def _external(file: Any) -> None:
    file["w"] = h5py.ExternalLink("/etc/passwd", "/x")
    file.create_dataset("raw", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", (4,))
    file.create_virtual_dataset("w", layout)


def _cycle(file: Any) -> None:
    file.create_group("a")["b"] = file["/"]
    file["soft"] = h5py.SoftLink("/soft")
    file["a/w"] = np.ones(2)


HDF5: dict[str, Callable[[Any], object]] = {
    "values and links elsewhere": _external,
    "virtual values": _virtual,
    "groups in a circle": _cycle,
    "a shape of 2**50": lambda file: file.create_dataset("w", (2**50,), "f8", chunks=(1024,), compression="gzip"),
    "a chunk of 2**24": lambda file: file.create_dataset("w", (2**24,), "f4", chunks=(2**24,)).__setitem__(0, 1),
    "objects": lambda file: file.create_dataset("w", (2,), h5py.ref_dtype),
    "a compound": lambda file: file.create_dataset("w", (2,), [("a", "f4"), ("b", "S3")]),
    "names": lambda file: [file.create_dataset(name, data=[1]) for name in ("..", "a\x1b[2J", "\u202e", "x" * 5000)],
    "2,000 groups": lambda file: [file.create_group(f"g{i}") for i in range(2_000)],
    "a group 500 deep": lambda file: file.create_group("/".join("g" * 500)).create_dataset("w", data=[1]),
}


@pytest.mark.parametrize("name", HDF5)
def test_hdf5(name: str, limited: Limited, tmp_path: Path) -> None:
    """An HDF5 file that leads elsewhere, or says more than it holds, is answered; nothing of elsewhere is read."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        HDF5[name](file)
    for command in on_checkpoint(tmp_path / "a.h5", tmp_path):
        [ran] = limited.run(command)
        check(ran, ENDED)
        assert "root:" not in ran.out
    assert_clean(tmp_path)


# Names, in every format


TWINS = {
    "case": ["Weights", "weights"],
    "Unicode": [unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")],
    "below": ["a", "a/b", "a/b/c"],
    "escapes": ["a%2Fb", "a/b", "a%252Fb"],
    "devices": ["CON", "con", "NUL.txt", "aux", "COM1", "x."],
    "outside": ["../../x", "/abs", "..", ".", "./x", "~/x", "C:\\x", "\\\\host\\x"],
    "long": ["n" * 300, "n" * 299 + "m", "\u65e5" * 100, "n/" * 150 + "x"],
    "bytes": ["a\0b", "\udcff\udcfe", "\x1b[2J", "\n", " ", "\u202e"],
    "ours": ["index.json", "__metadata__", "a.npy", "w:0", ":0", "arr_0", "layer_names", "file", "model.index"],
}
TARGETS = {"h5": "o.h5", "npz": "o.npz", "npy": "o", "safetensors": "o.safetensors", "tf": "o", "tf-v1": "o"}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", TWINS)
def test_names(kind: str, target: str, limited: Limited, tmp_path: Path) -> None:
    """Names that lead out, or are nearly the same, stay apart and inside the output, and come back the same."""
    import ckpttool

    arrays = {name: np.array([number]) for number, name in enumerate(TWINS[kind])}
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    prefix = bundle(arrays).write(tmp_path / "in")
    out = tmp_path / "out" / TARGETS[target]
    before = sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts[len(tmp_path.parts) :])
    [ran] = limited.run(["export", prefix, f"--{target}", out, "--strict"])
    if target == "tf-v1" and kind == "bytes":
        check(ran, {5})  # It can't hold names that are not UTF-8.
        return
    check(ran, {0})
    assert sorted(path for path in tmp_path.rglob("*") if "out" not in path.parts[len(tmp_path.parts) :]) == before
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    names = [path.name for path in files]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(names)
    assert all(path.is_relative_to(tmp_path / "out") and not path.is_symlink() for path in files)
    back = ckpttool.open_checkpoint(out)
    assert {name: int(v.numpy()[0]) for name, v in back.items()} == {name: int(a[0]) for name, a in arrays.items()}


# The terminal


HOSTILE = [
    "\x1b[31m\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "a\rb\nc\td\x08",
    "\u2028\u200b\ufeff",
    "\udcff\udc9b",
]


def _hostile_meta(text: str) -> bytes:
    """A .meta with a text in every place that has one."""
    safe = text.encode(errors="replace").decode()
    whole = message_class("MetaGraphDef")()
    info = whole.meta_info_def
    info.tags.append(safe)
    info.tensorflow_version = safe
    info.stripped_op_list.op.add(name=safe).output_arg.add(name=safe, type=1)
    node = whole.graph_def.node.add(name=safe, op=safe, device=safe, input=[safe, f"^{safe}"])
    node.attr[safe].s = safe.encode()
    node.attr["_class"].list.s.append(b"loc:@" + safe.encode())
    variable = whole.graph_def.node.add(name=f"v{safe}", op="VariableV2", device=safe)
    variable.attr["dtype"].type = 1
    function = whole.graph_def.library.function.add()
    function.signature.name = safe
    function.signature.description = safe
    function.node_def.add(name=safe, op=safe, device=safe)
    for kind, value in (("node_list", safe), ("bytes_list", safe.encode())):
        getattr(whole.collection_def[safe + kind], kind).value.append(value)
    whole.collection_def[safe + "any"].any_list.value.add(type_url=safe, value=safe.encode())
    definition = message_class("VariableDef")(variable_name=f"v{safe}:0", initializer_name=safe)
    whole.collection_def["variables"].bytes_list.value.append(definition.SerializeToString())
    made = whole.signature_def[safe]
    made.method_name = safe
    made.inputs[safe].name, made.outputs[safe].name = safe, f"{safe}:0"
    whole.asset_file_def.add(filename=safe).tensor_info.name = safe
    return bytes(whole.SerializeToString())


FORMATS = ("table", "tsv", "csv", "json", "md")


@pytest.mark.parametrize(
    "text",
    [*HOSTILE[:2], *(pytest.param(text, marks=pytest.mark.slow) for text in HOSTILE[2:])],
    ids=range(len(HOSTILE)),
)
def test_nothing_raw_reaches_the_terminal(text: str, limited: Limited, tmp_path: Path) -> None:
    """Whatever stands in names, strings, attributes, devices, collections and paths, every command escapes it in every
    format of output, and in notes and errors.
    """
    name = text.replace("/", "").replace("\0", "")
    directory = tmp_path / name
    directory.mkdir()
    arrays = {text: np.ones(2), "s": strings(text.encode(errors="surrogateescape")), f"a/{text}/b": np.ones(1)}
    arrays["_CHECKPOINTABLE_OBJECT_GRAPH"] = np.array(
        objects(([(1, text.encode(errors="replace").decode())], []), ([], ["k"])), object
    )
    prefix = bundle(arrays).write(directory, name)
    (directory / f"{name}.meta").write_bytes(_hostile_meta(text))
    damaged = bundle(arrays)
    damaged.shards = [b"?" * len(damaged.shards[0] or b"")]
    bad = damaged.write(tmp_path, f"bad{name}")
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{text.encode("unicode_escape").decode()}"')
    safe = text.encode(errors="replace").decode()
    commands: list[list[object]] = []
    for way in FORMATS:
        commands += [
            [*each, "--format", way]
            for each in (
                ["vars", prefix],
                ["vars", prefix, "--tree"],
                ["ls", f"{prefix}.meta"],
                [
                    "ls",
                    f"{prefix}.meta",
                    "--ops",
                    "--collections",
                    "--variables",
                    "--devices",
                    "--signatures",
                    "--functions",
                ],
                ["ls", f"{prefix}.meta", "--op-types"],
                ["io", f"{prefix}.meta"],
                ["objects", prefix],
                ["stats", prefix],
                ["diff", prefix, bad],
                ["verify", bad, "--strict", "--nan"],
                ["state", directory],
                ["export", prefix, "--npz", directory / "x.npz", "--dry-run"],
            )
        ]
    commands += [
        ["cat", prefix, "s"],
        ["cat", prefix, "s", "--json"],
        ["cat", prefix, text],
        ["cat", prefix, f"no{text}"],
        ["vars", tmp_path / f"no{name}"],
        ["vars", tmp_path / f"no{name}" / "x"],
        ["vars", directory],
        ["ls", prefix, "--name", f"{text}*"],
        ["vars", prefix, "--sort", text],
        ["vars", prefix, "--format", text],
        ["vars", prefix, "--step", text],
        ["ls", f"{prefix}.meta", "--tags", text],
        ["freeze", prefix, "--outputs", safe, "-o", directory / "f.pb"],
        ["freeze", prefix, "--signature", text, "-o", directory / "f.pb"],
        ["freeze", prefix, "--collection", text, "-o", directory / "f.pb"],
        ["saved-model", prefix, "--outputs", f"{text}={safe}", "-o", directory / "served"],
        ["strip-devices", f"{prefix}.meta", "-o", directory / f"o{name}"],
        ["strip-devices", f"{prefix}.meta", "-o", directory / f"o{name}"],
        ["collections", f"{prefix}.meta", "--add", f"{text}={safe}", "-o", directory / "c.meta"],
        ["collections", f"{prefix}.meta", "--remove", f"{safe}node_list", "-o", directory / "d.meta"],
        ["export", prefix, "--h5", directory / f"{name}.h5"],
        ["export", prefix, "--safetensors", directory / f"{name}.safetensors"],
        ["export", prefix, "--h5", directory / f"{name}.h5"],
        ["export", bad, "--npz", directory / "bad.npz"],
        ["export", prefix, "--npz", directory / "y.npz", "--rename", f"{text}(=>x"],
        ["export", prefix, "--npz", directory / "y.npz", "--cast", text],
        ["export", prefix, "--npz", directory / "y.npz", "--dtype-map", text],
        ["average", prefix, bad, "--npz", directory / "z.npz", "--weights", text],
        ["state", directory, "--relocate"],
        [text],
        ["vars", prefix, f"--{text}"],
    ]
    commands = [each for each in commands if all("\0" not in str(part) for part in each)]
    for number in range(0, len(commands), 16):
        for command, ran in zip(
            commands[number : number + 16], limited.run(*commands[number : number + 16]), strict=True
        ):
            assert ran.crash is None, (command, ran.crash)
            raw = {c for c in ran.out + ran.err if not c.isprintable() and c not in "\n\t"}
            assert not raw, (command, raw, ran.out, ran.err)
            for line in ran.err.splitlines():
                assert not line.startswith("c\\t"), "a line was broken"


# Byte by byte, through verify


def test_damage_of_shared_bytes(limited: Limited, tmp_path: Path) -> None:
    """Damage in bytes that two variables share is that of both."""
    made = bundle({"a": np.ones(4), "z": np.ones(2)})
    made.records[b"b"] = made.records[b"a"]
    made.shards = [b"?" + (made.shards[0] or b"")[1:]]
    [ran] = limited.run(["verify", made.write(tmp_path)])
    check(ran, {WRONG})
    assert "1 of 3 variables whole" in ran.err


def test_verify_reports_every_changed_byte(tmp_path: Path) -> None:
    """Whichever byte of a data file is another, `verify` names exactly the variables that it belongs to."""
    from ckpttool.formats.verifying import verify_values

    made = damage.sound()
    prefix, data = made.write(tmp_path), made.shards[0] or b""
    path = tmp_path / "model.data-00000-of-00001"
    owners = {}
    for variable in damage.read_bundle(prefix).values():
        span = variable.slices[0].data
        owners |= dict.fromkeys(range(span.offset, span.offset + span.nbytes), variable.name)
    assert len(owners) == len(data)
    for position in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            other = bytearray(data)
            other[position] ^= flip
            path.write_bytes(other)
            verified = verify_values(damage.read_bundle(prefix))
            assert list(verified.damaged) == [owners[position]]
            assert verified.findings


SMALL = ["linear", "empty", "names", "strings", "partitioned", "sharded", "objects", "dtypes", "many", "slots"]


def _everything_of(prefix: str) -> dict[str, str]:
    checkpoint = damage.read_bundle(prefix)
    return {
        name: repr((v.dtype, v.shape, v.numpy().tolist() if v.dtype.numpy else None)) for name, v in checkpoint.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("fixture", SMALL)
def test_every_byte_of_fixtures(fixture: str, tmp_path: Path) -> None:
    """Every truncation of a real index is refused; every changed byte raises, or gives the same answer."""
    from ckpttool.errors import CheckpointError

    for source in sorted((FIXTURES / fixture).glob("*.index")):
        for shard in source.parent.glob(f"{source.stem}.data-*"):
            (tmp_path / shard.name).write_bytes(shard.read_bytes())
        prefix = str(tmp_path / source.stem)
        index, path = source.read_bytes(), Path(index_path(prefix))
        path.write_bytes(index)
        before = _everything_of(prefix)
        for size in range(len(index)):
            path.write_bytes(index[:size])
            with pytest.raises(CheckpointError):
                damage.read_bundle(prefix)
        for position in range(len(index)):
            other = bytearray(index)
            other[position] ^= 1 << position % 8
            path.write_bytes(other)
            try:
                assert _everything_of(prefix) == before
            except CheckpointError:
                continue


def test_every_byte_of_a_meta(tmp_path: Path) -> None:
    """A .meta cut off at, or changed in, any byte is listed as what it says, or refused; nothing else happens."""
    _every_byte_of_a_meta(tmp_path, "devices", 5)


@pytest.mark.slow
@pytest.mark.parametrize("fixture", ["linear", "devices"])
def test_every_byte_of_metas(fixture: str, tmp_path: Path) -> None:
    """The same, for every byte and several changes of it."""
    _every_byte_of_a_meta(tmp_path, fixture, 1)


def _every_byte_of_a_meta(tmp_path: Path, fixture: str, step: int) -> None:
    from ckpttool.analysis.graphs.endpoints import endpoints
    from ckpttool.errors import CheckpointError
    from ckpttool.formats.opening import open_graph
    from ckpttool.reports import graphs as reports
    from ckpttool.transforms.devices import strip_devices

    data, path = (FIXTURES / fixture / "model.meta").read_bytes(), tmp_path / "a.meta"
    answered = 0
    for position in range(0, len(data), step):
        for changed in (
            data[:position],
            *(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :] for flip in (0x01, 0x80)),
        ):
            path.write_bytes(changed)
            try:
                graph = open_graph(str(path))
                reports.overview(graph)
                endpoints(graph)
                strip_devices(graph, all=True)
            except CheckpointError:
                continue
            answered += 1
    assert answered
