"""Our messages are TensorFlow's."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from op_defs import op_list

from ckpttool import proto
from ckpttool.model.graph import MetaGraph
from ckpttool.proto.fields import is_repeated


def _messages(descriptor):
    yield descriptor
    for nested in descriptor.nested_types:
        yield from _messages(nested)


def _ours():
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files = FileDescriptorSet.FromString(proto.DESCRIPTORS.read_bytes()).file
    ours = [proto.pool().FindFileByName(file.name) for file in files if file.name.startswith("ckpttool/")]
    messages = [m for file in ours for top in file.message_types_by_name.values() for m in _messages(top)]
    enums = [e for file in ours for e in file.enum_types_by_name.values()]
    return messages, enums + [e for m in messages for e in m.enum_types]


def _type(field):
    """A field's type in a form to compare: kind, repetition, and the name of its message or enum."""
    of = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else None
    return field.number, field.type, is_repeated(field), of.full_name if of else None, oneof


MESSAGES, ENUMS = _ours()
# What TensorFlow has dropped, and still stands in files.
_BEFORE_1, _BEFORE_2 = "tensorflow.FunctionDef.Node", "tensorflow.serving."


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "ours", [m for m in MESSAGES if not m.full_name.startswith((_BEFORE_1, _BEFORE_2))], ids=lambda m: m.full_name
)
def test_message_is_tensorflows(ours, tf):
    """Every field of every message has the name, number, type and oneof of TensorFlow's, and none is missing."""
    theirs = _tensorflow_pool(tf).FindMessageTypeByName(ours.full_name)
    fields = [f for f in ours.fields if f.message_type is None or f.message_type.full_name != _BEFORE_1]
    assert {f.name: _type(f) for f in fields} == {f.name: _type(f) for f in theirs.fields}


@pytest.mark.tensorflow
@pytest.mark.parametrize("ours", ENUMS, ids=lambda e: e.full_name)
def test_enum_is_tensorflows(ours, tf):
    """Every enum has TensorFlow's names and numbers."""
    theirs = _tensorflow_pool(tf).FindEnumTypeByName(ours.full_name)
    assert {v.name: v.number for v in ours.values} == {v.name: v.number for v in theirs.values}


def _tensorflow_pool(tf):
    """The default pool, with the messages in it that TensorFlow's Python does not import by itself."""
    from google.protobuf import descriptor_pool
    from tensorflow.core.protobuf import fingerprint_pb2, queue_runner_pb2, saved_model_pb2, tensor_bundle_pb2  # noqa: F401
    from tensorflow.core.util import saved_tensor_slice_pb2  # noqa: F401
    from tensorflow.python.training import checkpoint_state_pb2  # noqa: F401

    return descriptor_pool.Default()


def test_descriptors_are_compiled_from_the_proto_files(tmp_path):
    """The descriptor set in the package is what its .proto files compile to."""
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")
    out = tmp_path / "descriptors.pb"
    files = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "ckpttool/proto").glob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_imports", f"--descriptor_set_out={out}"]
    subprocess.run([*command, *files], cwd=ROOT, check=True)
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    # Compilers differ in the options that they record for the well-known types, which are not ours.
    compiled, packaged = (FileDescriptorSet.FromString(p.read_bytes()) for p in (out, proto.DESCRIPTORS))
    assert [f for f in compiled.file if f.name.startswith("ckpttool")] == [
        f for f in packaged.file if f.name.startswith("ckpttool")
    ]


@pytest.mark.parametrize("repeated", [False, True])
def test_what_is_repeated_by_any_protobuf(repeated):
    """Protobuf 7 says of a field whether it is repeated, 5.28 has a label for that, and 6.31 both."""
    said = {"is_repeated": repeated}
    labeled = {"label": 3 if repeated else 1, "LABEL_REPEATED": 3}
    assert [is_repeated(SimpleNamespace(**has)) for has in (said, labeled, said | labeled)] == 3 * [repeated]


@pytest.mark.parametrize("backend", ["upb", "python"])
def test_a_name_that_is_no_text(fresh_python, backend):
    """Bytes that are no UTF-8 where a text should be are damage, whichever of its backends protobuf has."""
    script = (
        "from ckpttool import errors, proto\n"
        r"try: proto.parse('GraphDef', b'\n\x04\n\x02\xff\xfe')"
        "\nexcept errors.CorruptionError as error: print(str(error)[:16])"
    )
    done = fresh_python("-c", script, env=os.environ | {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": backend})
    assert (done.stdout, done.stderr) == ("not a GraphDef: \n", "")


def test_messages_live_beside_tensorflows(fresh_python):
    """Our pool is private: TensorFlow can be imported into the same process, before or after."""
    pytest.importorskip("tensorflow", reason="needs the extra `tensorflow`")
    script = "from ckpttool import proto; proto.message_class('NodeDef'); import tensorflow.core.framework.node_def_pb2"
    assert fresh_python("-c", script).returncode == 0


@pytest.mark.tensorflow
def test_the_known_ops_are_tensorflows(tf):
    """What the package says of ops is what the registry says; a newer TensorFlow may have others beside them."""
    theirs = {op.name: op for op in proto.message_class("OpList").FromString(op_list()).op}
    ours = proto.known_ops()
    assert len(ours) > 1000
    assert {name: op for name, op in ours.items() if name in theirs and op != theirs[name]} == {}
    assert len(ours.keys() & theirs.keys()) > 0.9 * len(ours)


@pytest.mark.tensorflow
def test_defaults_of_attributes_are_used(tf):
    """A graph may leave out what is the default: TensorFlow and we give the op's outputs the same dtypes then."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.versions.producer = 2000
    with tf.Graph().as_default() as graph:
        tf.argmax(tf.zeros([2, 3]), name="best")
        graph_def.CopyFrom(graph.as_graph_def())
    del graph_def.node[-1].attr["output_type"]
    read = MetaGraph(graph_def.SerializeToString(), root="GraphDef")
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
    for node in read.nodes:
        expected = [output.dtype.name for output in graph.get_operation_by_name(node.name).outputs]
        assert [output.dtype.name for output in read.outputs(node)] == expected
