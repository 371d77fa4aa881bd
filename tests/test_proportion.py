"""Messages that would fill the memory are known before they are parsed; real ones are not taken for such."""

import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
from bundles import field
from conftest import FIXTURES, corpus_files
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from ckpttool import proto
from ckpttool.errors import CorruptionError
from ckpttool.proto import proportion
from ckpttool.proto.fields import is_repeated

SIZE = 3_000_000


def peak_of_parsing(name: str, data: bytes) -> int:
    """By how much the memory of a process grows that parses it."""
    read, write = os.pipe()
    if not os.fork():
        message = proto.message_class(name)()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        message.MergeFromString(data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(write, str(peak << 10).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        answer = file.read()
    os.wait()
    return int(answer)


def repeated(descriptor: Any, depth: int) -> list[bytes]:
    """Small fields of a message, each with the next in it, down to some depth."""
    made = []
    for each in descriptor.fields:
        if each.message_type:
            made += [
                field(each.number, inner) for inner in (b"", *(repeated(each.message_type, depth - 1) if depth else ()))
            ]
        elif is_repeated(each):
            made.append(field(each.number, b"" if each.type in (each.TYPE_STRING, each.TYPE_BYTES) else bytes(8)))
    return made


def messages() -> Iterator[Any]:
    """The descriptors of all our messages, and of those within them."""
    files = FileDescriptorSet.FromString(proto.DESCRIPTORS.read_bytes()).file
    waiting = [each for file in files for each in proto.pool().FindFileByName(file.name).message_types_by_name.values()]
    while waiting:
        descriptor = waiting.pop()
        waiting += descriptor.nested_types
        yield descriptor


NAMES = ["GraphDef", "FunctionDef", "NodeDef", "AttrValue", "AttrValue.ListValue", "TensorProto", "MetaGraphDef"]
NAMES += ["SignatureDef", "OpDef", "SavedObjectGraph", "TrackableObjectGraph", "SavedModel", "CollectionDef"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow
def test_estimates_are_no_less_than_what_is_taken(name: str) -> None:
    """Whatever small messages are repeated, parsing takes no more than is estimated, which is within the bound."""
    descriptor = proto.message_class(name).DESCRIPTOR
    plan = proportion._plan(descriptor)
    for one in repeated(descriptor, 1):
        data = one * (SIZE // len(one))
        estimate = proportion._estimate(plan, data, 1 << 60)
        assert peak_of_parsing(name, data) <= estimate + SIZE + (4 << 20), one
        assert proportion._bound(plan, data, 0) + proportion._WIDE * len(data) >= estimate, one


def test_a_run_is_counted_as_one_by_one() -> None:
    """Equal empty messages in a row, which are counted at once, are as many as with others between them."""
    plan = proportion._plan(proto.message_class("GraphDef").DESCRIPTOR)
    apart = (field(1, b"") + field(1, field(1, b"x"))) * 500
    together = field(1, b"") * 500 + field(1, field(1, b"x")) * 500
    assert proportion._estimate(plan, apart, 1 << 60) == proportion._estimate(plan, together, 1 << 60)
    assert proportion._estimate(plan, apart[:-1], 1 << 60) < proportion._estimate(plan, apart, 1 << 60)


@pytest.mark.slow
def test_real_graphs_take_a_fraction_of_it() -> None:
    """Graphs that TensorFlow wrote take less than a third of what they may, however large they were."""
    descriptor = proto.message_class("MetaGraphDef").DESCRIPTOR
    plan = proportion._plan(descriptor)
    for path in [*FIXTURES.rglob("*.meta"), *corpus_files("*.meta")]:
        data = path.read_bytes()
        if data.startswith(b"version https"):
            continue
        whole = data * (8_000_000 // len(data))
        assert proportion._estimate(plan, whole, 1 << 60) < proportion.allowance(len(whole)) / 2, path
        assert not proportion.is_out_of_proportion(descriptor, whole)


def test_messages_of_nothing_but_values() -> None:
    """A message without lists and messages, whatever it is, takes no more than it may."""
    for name in ("SaverDef", "VersionDef"):
        assert not proportion.is_out_of_proportion(proto.message_class(name).DESCRIPTOR, field(1, b"x") * 1_000_000)


def test_small_messages_take_no_more_than_they_may() -> None:
    """So few bytes as are not looked at take no more than is allowed, were each of them the heaviest message."""
    for descriptor in messages():
        heaviest = max(proportion._weights(proportion._plan(descriptor)).values(), default=0)
        assert all(heaviest * size <= proportion.allowance(size) for size in (1, proportion._LITTLE)), descriptor.name


def test_only_entries_of_maps_have_options() -> None:
    """A map is known by that: to read the options themselves, protobuf imports more than a small listing takes."""
    found = [descriptor for descriptor in messages() if descriptor.has_options]
    assert found
    assert all(descriptor.GetOptions().map_entry for descriptor in found)


def test_the_error_says_what_it_is() -> None:
    """A message of a million empty ones is refused with its size and what it would take."""
    with pytest.raises(CorruptionError, match=r"a GraphDef of 4,000,000 bytes .* more than 146 MiB .* empty"):
        proto.parse("GraphDef", field(1, b"") * 2_000_000)


@pytest.mark.parametrize("data", [b"\xff" * 20, b"\x0a\xff" * 9, field(1, b"")[:1], b"\x0b" * 9, b"\x0a\x7f"])
def test_no_messages(data: bytes) -> None:
    """What is no message is counted as far as it is one, and left to the parser."""
    plan = proportion._plan(proto.message_class("GraphDef").DESCRIPTOR)
    assert proportion._estimate(plan, data, 1 << 60) < 10_000
    with pytest.raises(CorruptionError):
        proto.parse("GraphDef", data)


@pytest.mark.parametrize("message", [b"", field(5, b""), field(5, field(2, b""))])
def test_large_bombs(message: bytes) -> None:
    """Of many megabytes, too, messages of a few bytes each are refused, and not parsed."""
    op = field(1, message)
    with pytest.raises(CorruptionError, match="empty messages"):
        proto.parse("GraphDef", op * (20_000_000 // len(op)))


GROUP = b"\xfb\x01\xfc\x01"
"""A field 31, which no message has, as a group: where it begins, and where it ends."""


@pytest.mark.parametrize("size", [200_000, 3_000_000, 20_000_000])
def test_bombs_behind_a_group(size: int) -> None:
    """A group, which nobody writes any more and every parser skips, does not hide what stands behind it."""
    nodes = field(1, field(5, b"")) * 20 + field(1, b"x")
    plan = proportion._plan(proto.message_class("GraphDef").DESCRIPTOR)
    data = nodes * (size // len(nodes))
    assert proportion._estimate(plan, GROUP + data, 1 << 60) >= proportion._estimate(plan, data, 1 << 60)
    if size > 1 << 20:
        with pytest.raises(CorruptionError, match="empty messages"):
            proto.parse("GraphDef", GROUP + field(1, field(5, b"")) * (size // 4))


@pytest.mark.parametrize("size", [4_000_000, 20_000_000])
@pytest.mark.parametrize("op", [b"\x0a\x83\0\x2a\x80\0", b"\x8a\0\x03\xaa\0\0", b"\x0a\x84\x80\0\xaa\x80\0\0"])
def test_bombs_of_long_numbers(op: bytes, size: int) -> None:
    """Tags and lengths in more bytes than they take, which parsers read, are counted: here ops with an attribute."""
    assert len(proto.message_class("GraphDef").FromString(op).node[0].attr) == 1
    plan = proportion._plan(proto.message_class("GraphDef").DESCRIPTOR)
    data = op * (size // len(op))
    assert proportion._bound(plan, data, 0) >= proportion._estimate(plan, data, 1 << 60)
    with pytest.raises(CorruptionError, match="empty messages"):
        proto.parse("GraphDef", data)


def test_a_large_graph_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of tens of megabytes, such as TensorFlow writes them, is parsed as it is."""
    monkeypatch.setattr(proportion, "_estimate", None)
    node = proto.message_class("NodeDef")(name="model/layer_0001/op_123", op="AddV2", input=["model/op_122", "op_0"])
    node.attr["T"].type = 1
    node.attr["_output_shapes"].list.shape.add().dim.add(size=1024)
    data = field(1, node.SerializeToString()) * 200_000
    assert len(data) > 16 << 20
    assert len(proto.parse("GraphDef", data).node) == 200_000
