"""Collections of a graph: lists of names, numbers, bytes, or serialized messages, which are decoded by the collection's
name, or by the type that an Any says.

(tensorflow/core/protobuf/meta_graph.proto: CollectionDef)
"""

from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.errors import CheckpointError
from ckpttool.proto.fields import is_repeated


class Collection(NamedTuple):
    """A collection: its name, its kind as the message calls it ("node_list", …), and its decoded members.

    Members are strings (names of nodes and tensors), bytes, ints, floats, or dicts of the fields of a decoded
    message, whose name stands under "@type".
    """

    name: str
    kind: str
    members: list[Any]


COLLECTION_MESSAGES = {
    **dict.fromkeys(
        (
            *("variables", "trainable_variables", "moving_average_variables", "local_variables"),
            *("model_variables", "global_step", "metric_variables"),
        ),
        "VariableDef",
    ),
    "savers": "SaverDef",
    "queue_runners": "QueueRunnerDef",
    "cond_context": "CondContextDef",
    "while_context": "WhileContextDef",
}
"""Collections whose members are serialized messages, with the messages' names.

(python/ops/ref_variable.py, training/saver.py, training/queue_runner_impl.py, ops/control_flow_ops.py:
register_proto_function)
"""


FILLED_COLLECTIONS = frozenset(
    {
        *("variables", "trainable_variables", "local_variables", "model_variables", "moving_average_variables"),
        *("metric_variables", "concatenated_variables", "trainable_resource_variables", "_trainable_concat_variables"),
        *("global_step", "global_step_read_op_cache", "eval_step", "weights", "biases", "activations", "_activations"),
        *("summaries", "summary_op", "_SUMMARY_V2", "losses", "regularization_losses", "update_ops", "train_op"),
        *("init_op", "local_init_op", "ready_op", "ready_for_local_init_op", "table_initializer", "savers"),
        *("saveable_objects", "resources", "local_resources", "queue_runners", "iterators", "cond_context"),
        *("while_context", "streaming_model_ports", "unbound_inputs", "asset_filepaths", "legacy_init_op"),
        *("saved_model_assets", "saved_model_main_op", "saved_model_train_op", "serving_init_op", "serving_assets"),
        *("serving_signatures", "serving_graph", "masked_weights"),
    }
)
"""Collections that TensorFlow fills by itself.

(tensorflow/python/framework/ops.py GraphKeys; saved_model/constants.py; session_bundle/constants.py;
contrib/model_pruning; tf_slim)
"""
_END_POINTS = "_end_points"


def is_filled(name: str) -> bool:
    """Whether TensorFlow fills a collection by itself; the user has filled any other, on purpose.

    The networks of tf_slim collect every layer's output, in "resnet_v2_50/_end_points". (tf_slim/nets)
    """
    return name in FILLED_COLLECTIONS or name.endswith(_END_POINTS)


def decoded_collection(name: str, message: Any) -> Collection:
    """The collection of this name, by its CollectionDef."""
    kind = message.WhichOneof("kind") or "empty"
    members = list(getattr(message, kind).value) if kind != "empty" else []
    if kind == "bytes_list" and name in COLLECTION_MESSAGES:
        members = [_decoded(COLLECTION_MESSAGES[name], member) for member in members]
    elif kind == "any_list":
        members = [_decoded(_type_of(any_.type_url), any_.value, any_.type_url) for any_ in members]
    return Collection(name, kind, members)


def _type_of(url: str) -> str:
    """The message that an Any holds: "type.googleapis.com/tensorflow.AssetFileDef" → "AssetFileDef"."""
    return url.rpartition("/")[2].removeprefix("tensorflow.")


def _decoded(name: str, data: bytes, type_url: str = "") -> Any:
    """The fields of a serialized message; its bytes if it is not one that we know."""
    try:
        message = proto.parse(name, data)
    except (CheckpointError, KeyError):
        return {"@type": type_url, "value": data} if type_url else data
    return {"@type": name, **fields_of(message)}


def fields_of(message: Any) -> dict[str, Any]:
    """A message as a dict of the fields it has; enums by name."""
    return {field.name: _field_value(field, value) for field, value in message.ListFields()}


def _field_value(field: Any, value: Any) -> Any:
    is_map = field.message_type is not None and field.message_type.has_options  # Only maps' entries have any.
    if is_map:
        values = field.message_type.fields_by_name["value"]
        return {str(key): _single_value(values, value[key]) for key in sorted(value)}
    if is_repeated(field):
        return [_single_value(field, item) for item in value]
    return _single_value(field, value)


def _single_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return fields_of(value)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return named.name if named else value
    return value
