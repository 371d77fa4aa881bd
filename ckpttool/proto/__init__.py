r"""TensorFlow's messages, from our own `.proto` files.

They stand in a private pool under their true names: protobuf's default pool refuses a second
`tensorflow.NodeDef` once TensorFlow is imported. The compiled set has no tie to a protobuf release, as generated
Python has. After a change of the files, make it anew (a test compares the two):

    python -m grpc_tools.protoc -I. --include_imports \
        --descriptor_set_out=ckpttool/proto/descriptors.pb ckpttool/proto/*.proto

`ops.pb`, made by `tests/op_defs.py`, is what TensorFlow's registry says of ops' outputs, which inputs are references,
and which ops are deprecated: frozen graphs say nothing of them.

Protobuf is imported on first use: listing a checkpoint's variables needs none of it.
"""

from functools import cache
from pathlib import Path
from typing import Any

from ckpttool.errors import CorruptionError
from ckpttool.proto.proportion import allowance, is_out_of_proportion, varint

DESCRIPTORS = Path(__file__).with_name("descriptors.pb")
_OPS = Path(__file__).with_name("ops.pb")


@cache
def pool() -> Any:
    """The DescriptorPool that holds all of TensorFlow's messages, and nothing else."""
    from google.protobuf.descriptor_pool import DescriptorPool

    loaded = DescriptorPool()
    data, position = DESCRIPTORS.read_bytes(), 0
    while position < len(data):  # The files are field 1 of a FileDescriptorSet, whose class takes 3 ms to import.
        size, start = varint(data, position + 1)
        position = start + size
        loaded.AddSerializedFile(data[start:position])
    return loaded


@cache
def known_ops() -> dict[str, Any]:
    """OpDefs of TensorFlow's own ops, by name, with what `tests/op_defs.py` keeps of them."""
    return {op.name: op for op in message_class("OpList").FromString(_OPS.read_bytes()).op}


@cache
def message_class(name: str) -> Any:
    """The class of the message `name`, such as "MetaGraphDef".

    Raises:
        KeyError: there is no such message.
    """
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(pool().FindMessageTypeByName(f"tensorflow.{name}"))


def parse(name: str, data: bytes, into: Any = None) -> Any:
    """`data` as the message `name`. `into` is an empty one to be filled: a copy would take as much memory again.

    Raises:
        CorruptionError: it is no such message, or one that would fill the memory.
        KeyError: there is no such message.
    """
    from google.protobuf.message import DecodeError

    if is_out_of_proportion(message_class(name).DESCRIPTOR, data):
        raise CorruptionError(
            f"a {name} of {len(data):,} bytes that would take more than {allowance(len(data)) >> 20:,} MiB of memory:"
            f" nearly all of it are empty messages"
        )
    try:
        message = message_class(name)() if into is None else into
        message.MergeFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:  # The second one is what protobuf says that is pure Python.
        raise CorruptionError(f"not a {name}: {error}") from error
    return message


def serialize(message: Any) -> bytes:
    """A message's bytes, always the same: its maps, which have no order of their own, are in that of their keys."""
    return bytes(message.SerializeToString(deterministic=True))
