"""Makes a graph that servers take: with a signature, tags, a main op, assets, and a saver that reads a bundle.

Everything else stays as it was, byte for byte, except for the devices of its ops, and for shapes that TensorFlow 2
refuses or can't infer.

(tensorflow/python/saved_model/builder_impl.py; core/protobuf/saved_model.proto, meta_graph.proto)
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ckpttool.analysis.graphs.needs import needed_ops, require_output
from ckpttool.analysis.graphs.running import read_variables, shared_state, written_variables
from ckpttool.analysis.graphs.savers import restored_iterators, restored_variables
from ckpttool.errors import ConversionError, NotFoundError, NotSupportedError
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.graph import MetaGraph, require_graph
from ckpttool.model.names import listed
from ckpttool.model.nodes import op_of, require_name, tensor_name
from ckpttool.model.signatures import DEFAULT_SIGNATURE, HIDDEN_SIGNATURES
from ckpttool.transforms.collections import edit_collections
from ckpttool.transforms.devices import strip_devices
from ckpttool.transforms.graph_edits import meta_graph_data
from ckpttool.transforms.new_ops import with_entry, with_field
from ckpttool.transforms.restoring import restorable, restoring_from_bundle, without_iterators
from ckpttool.transforms.serving.assets import asset_files, with_assets
from ckpttool.transforms.serving.initializing import initializers, with_declared_variables, with_main_op
from ckpttool.transforms.serving.savers import with_saver
from ckpttool.transforms.serving.shapes import with_shapes_left_alone
from ckpttool.transforms.serving.signatures import require_served, signature_def
from ckpttool.transforms.serving.twins import with_one_op_each
from ckpttool.wire.message import DROP, edit, message_field, values_of, varint_field

_SCHEMA_VERSION = 1


class Marks(NamedTuple):
    """How a server finds a graph, and its method: predict, classify or regress.

    Attributes:
        signature: the key of the signature.
        method: "predict", "classify" or "regress".
        tags: the graph's tags, one or more.
    """

    signature: str = DEFAULT_SIGNATURE
    method: str = "predict"
    tags: Sequence[str] = ("serve",)


class Servable(NamedTuple):
    """The contents of a SavedModel.

    Attributes:
        graph: its graph.
        variables: the variables that its saver restores; empty if it has no saver.
        left_out: ops that can't be run after loading, and that no output needs, each with the reason.
        unlisted: (collection, member) pairs that were removed, for the graph lacks the member and no loader takes that.
    """

    graph: MetaGraph
    variables: Checkpoint
    left_out: dict[str, str]
    unlisted: list[tuple[str, str]]


def servable(
    graph: MetaGraph,
    checkpoint: Checkpoint | None,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    marks: Marks | None = None,
    *,
    keep_devices: bool = False,
    assets: Mapping[str, str] | None = None,
) -> Servable:
    """Makes a graph into a SavedModel's, to be written with `write_saved_model`.

        >>> graph, checkpoint = ckpttool.open_graph("model.ckpt"), ckpttool.open_checkpoint("model.ckpt")
        >>> served = ckpttool.servable(graph, checkpoint, {"x": "x:0"}, {"y": "activation_opt:0"})
        >>> ckpttool.write_saved_model(served.graph, served.variables, "served")

    Args:
        graph: a MetaGraphDef; a GraphDef without variables; or a graph of a SavedModel of TensorFlow 1.
        checkpoint: its variables; None if there are none.
        inputs: the tensors to feed, by key; an op's name stands for its first output.
        outputs: the tensors to fetch.
        marks: how a server finds it; None: what servers expect by default.
        keep_devices: leave its ops on their devices.
        assets: tensor of `asset_files` → name of its file in `assets/`; a file that is not among them is taken to be
            missing.

    Raises:
        ValueError: there is no such method.
        TypeError: `inputs` or `outputs` is not a mapping of names; `marks` is something else than Marks; or its tags
            are a text and not a list.
        NotFoundError: there is no such tensor; the checkpoint lacks a variable that the graph restores; or an output
            needs one that it does not restore.
        NotSupportedError: an output needs a feed that is not an input; or the graph can't be restored from a bundle.
        ConversionError: the method wants other keys; or a variable is of another dtype or shape in the graph.
    """
    require_graph(graph)
    if checkpoint is not None:
        require_checkpoint(checkpoint)
    inputs, outputs, marks = _tensors(inputs), _tensors(outputs), Marks() if marks is None else marks
    graph = with_one_op_each(_meta_graph(graph))
    unlisted = _absent_members(graph)
    graph = edit_collections(graph, remove=unlisted) if unlisted else graph
    require_served(graph, inputs, outputs)
    names, fed = assets or {}, set(inputs.values())
    unread = [each for each in asset_files(graph) if each.tensor not in names]
    missing = {op: f"needs the file {each.path}" for each in unread for op in each.ops}
    graph = with_saver(graph)
    # A loader restores before anything else: no iterator has its data then.
    left_out = {each.op: f"needs data in {name} first" for name, each in restored_iterators(graph).items()}
    graph = without_iterators(graph)
    given = restored_variables(graph)
    run = initializers(graph, outputs.values(), fed, missing, given or ())
    _require_marks(graph, marks)
    value = signature_def(graph, inputs, outputs, marks.method)
    graph = restoring_from_bundle(graph)
    variables = restorable(graph, checkpoint)
    _require_values(graph, outputs.values(), fed, given, run.ops)
    data = with_declared_variables(with_main_op(graph.data, graph, run), graph)
    data = with_assets(data, names)
    data = with_entry(data, 5, marks.signature, value)
    data = with_shapes_left_alone(_with_tags(data, marks.tags), graph)
    served = graph.replace(
        data=varint_field(1, _SCHEMA_VERSION) + message_field(2, data), root="SavedModel", text=None, number=0, facts={}
    )
    left_out |= run.left_out
    return Servable(served if keep_devices else strip_devices(served), variables, left_out, unlisted)


def _tensors(named: Mapping[str, str]) -> dict[str, str]:
    """Full names of tensors, by key."""
    if not isinstance(named, Mapping):
        raise TypeError(f"inputs and outputs are mappings of keys to tensors, not {named!r}")
    for tensor in named.values():
        require_name(tensor)
    return {key: tensor_name(tensor) for key, tensor in named.items()}


def _meta_graph(graph: MetaGraph) -> MetaGraph:
    """The graph alone, as a binary MetaGraphDef."""
    if graph.message.HasField("object_graph_def"):
        hint = "it has signatures of its own: ls --signatures shows them"
        raise NotSupportedError(
            "a SavedModel of TensorFlow 2 can't be turned into another one", path=graph.path, hint=hint
        )
    if graph.root == "MetaGraphDef" and graph.text is None:
        return graph  # It keeps what it has parsed already.
    return graph.replace(data=meta_graph_data(graph), root="MetaGraphDef", text=None, number=0, facts={})


def _absent_members(graph: MetaGraph) -> list[tuple[str, str]]:
    """Members of collections that the graph lacks, such as a table that was made in a scope.

    (tensorflow/python/framework/meta_graph.py import_scoped_meta_graph; python/ops/lookup_ops.py MutableHashTable)
    """
    lists = [collection for collection in graph.collections.values() if collection.kind == "node_list"]
    named = ((collection.name, member) for collection in lists for member in collection.members)
    return [(collection, member) for collection, member in named if not _is_there(graph, member)]


def _is_there(graph: MetaGraph, member: str) -> bool:
    if op_of(member) not in graph.by_name:  # Not left to the error below, which looks for near names: slow for many.
        return False
    try:
        require_output(graph, member)
    except NotFoundError:
        return False
    return True


def _require_marks(graph: MetaGraph, marks: Marks) -> None:
    """Raises TypeError if the tags are one text, ConversionError if no user's signature may be called so."""
    if not isinstance(marks, Marks):
        raise TypeError(f"marks are Marks(…), not {marks!r}")
    if isinstance(marks.tags, str):
        raise TypeError(f"tags is a list of texts: [{marks.tags!r}], not {marks.tags!r}")
    if marks.signature.startswith(HIDDEN_SIGNATURES):
        what = f"loaders keep signatures {HIDDEN_SIGNATURES}… to themselves"
        raise ConversionError(what, path=graph.path, hint="--signature takes another name")


def _require_values(
    graph: MetaGraph, outputs: Collection[str], fed: Collection[str], restored: set[str] | None, run: Sequence[str]
) -> None:
    """Raises NotFoundError if an output needs a variable that neither a saver nor an initializer gives a value."""
    nodes = graph.by_name
    if restored is None:
        return  # A function restores them, where they can't be seen.
    given = restored | written_variables(nodes, needed_ops(nodes, run))
    given |= written_variables(nodes, needed_ops(nodes, outputs, fed))
    states = {shared_state(nodes, name) for name in given}
    read = read_variables(nodes, needed_ops(nodes, outputs, fed), fed)
    missing = sorted(name for name in read if shared_state(nodes, name) not in states)
    if missing:
        what = f"the outputs need variables that the graph's saver does not restore: {listed(missing, 10)}"
        hint = "the saver does not list them; --inputs feeds what is computed from them"
        raise NotFoundError(what, path=graph.path, hint=hint)


def _with_tags(data: bytes, tags: Sequence[str]) -> bytes:
    """A MetaGraphDef with these tags (meta_info_def 1 {tags 4}) and no others."""
    if not any(True for _ in values_of(data, 1)):
        data = message_field(1, b"") + data

    def tagged(info: bytes) -> bytes:
        info = edit(info, {4: DROP})
        for tag in tags:
            info = with_field(info, 4, tag.encode())
        return info

    return edit(data, {1: tagged})
