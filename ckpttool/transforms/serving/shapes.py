"""Shapes that TensorFlow 1 stored or left to be inferred, and for which TensorFlow 2 would refuse the graph.

Gradients of batch norm give two more outputs, which nobody takes. TensorFlow 1 wrote down their shapes as [channels];
TensorFlow now says [0], and refuses a graph that says otherwise. The same goes for the state of an iterator, which was
a scalar then, and is a list now.

The shapes that a function gives are inferred through its ops, unless its call forbids that, as all calls do since
TensorFlow 1.13. tf.saved_model.load copies the calls that a signature needs, and the functions that they call, but not
the functions that those call in turn: inference would stop there, for it would find no op of that name.

(tensorflow/core/framework/common_shape_fns.cc FusedBatchNormGradShape; core/ops/dataset_ops.cc
SerializeIterator; core/common_runtime/shape_refiner.cc;
python/framework/function.py _set_call_attr; python/eager/lift_to_graph.py)
"""

from ckpttool.model.graph import MetaGraph
from ckpttool.model.texts import to_bytes
from ckpttool.transforms.new_ops import with_entry
from ckpttool.wire.message import edit, last_field, varint_field

_OTHERWISE_SINCE = {b"FusedBatchNormGrad", b"FusedBatchNormGradV2", b"FusedBatchNormGradV3", b"SerializeIterator"}
_NOT_INFERRED = "_disable_call_shape_inference"


def with_shapes_left_alone(data: bytes, graph: MetaGraph) -> bytes:
    """The MetaGraphDef with ops (graph_def 2 {node 1}) that TensorFlow 2 takes."""
    functions = graph.functions
    nested = {
        to_bytes(name)
        for name, function in functions.items()
        if any(node.op in functions for node in function.node_def)
    }
    if not nested and b"FusedBatchNormGrad" not in data and b"SerializeIterator" not in data:
        return data

    def attribute(entry: bytes) -> bytes | None:
        return None if last_field(entry, 1) == b"_output_shapes" else entry

    def node(node: bytes) -> bytes:
        type = last_field(node, 2)
        if type in _OTHERWISE_SINCE:
            return edit(node, {5: attribute})
        return with_entry(node, 5, _NOT_INFERRED, varint_field(5, 1)) if type in nested else node

    return edit(data, {2: {1: node}})
