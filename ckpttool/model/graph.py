"""A graph: a MetaGraphDef, kept as the bytes it came as, with the message parsed from them beside.

The bytes are what is edited and written (parsing and writing again would lose the order of maps and more); the
message is what is looked at.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from ckpttool import proto
from ckpttool.errors import CorruptionError, NotFoundError, located
from ckpttool.model.arguments import Argument, Dtypes, Outputs, Shape, Tensor, arguments_of, get_shape
from ckpttool.model.collections import Collection, decoded_collection, fields_of
from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.names import near_hint
from ckpttool.model.nodes import (
    PLACEHOLDERS,
    VARIABLE_OPS,
    Node,
    all_nodes,
    declared_shape,
    op_of,
    require_name,
    split_tensor,
)
from ckpttool.model.session_bundle import old_assets, old_signatures
from ckpttool.model.signatures import DEFAULT_SIGNATURE, Signature, signature_of

# The last version of GraphDefs in which a scalar's shape stands for one that is not known.
_SCALARS_UNKNOWN = 21

ASSETS = "saved_model_assets"
"""The collection that names a SavedModel's assets, unless the message's own field does."""


class GraphVariable(NamedTuple):
    """A variable as the graph declares it; `type` is its op's, "" if the op is not there.

    Attributes:
        name: the name of its op.
        dtype: its dtype; None: not known.
        shape: its shape, with None for a dimension that is not known; None: not even the rank is.
        trainable: whether it is in the collection `trainable_variables`.
        collections: the collections that it is in.
        device: where its op is placed; "": nowhere in particular.
    """

    name: str
    type: str
    dtype: DType | None
    shape: Shape
    trainable: bool
    collections: tuple[str, ...]
    device: str


class _Texts(dict[str, str]):
    """Gives the same object for equal texts, so that each takes memory once and is compared without a look at its
    letters. A large graph, whose inputs are names of its ops, takes a tenth less memory.
    """

    def __missing__(self, text: str) -> str:
        return self.setdefault(text, text)


class MetaGraph:
    """A graph with its collections, savers and signatures.

    Attributes:
        data: the bytes of the message that the file holds; of a text file, what its text says.
        root: that message's name: "MetaGraphDef", "GraphDef" or "SavedModel".
        path: the file.
        text: the file's own bytes, if it is text.
        number: which of a SavedModel's graphs this is.
        facts: what else there is to say of the file, by name.
    """

    def __init__(
        self,
        data: bytes,
        *,
        root: str = "MetaGraphDef",
        path: str = "",
        text: bytes | None = None,
        number: int = 0,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.data, self.root, self.path, self.text = data, root, path, text
        self.number, self.facts = number, dict(facts or {})
        # The outputs of each type of op that was asked for; None where they are not known.
        self._results: dict[str, list[Argument] | None] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root} {self.path!r} {len(self.data):,} bytes>"

    @property
    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("data", "root", "path", "text", "number", "facts")}

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, needs: not what has been parsed."""
        return self._given | {"_results": {}}

    def replace(self, **changes: Any) -> "MetaGraph":
        """The same graph with other attributes."""
        return MetaGraph(**self._given | changes)

    @cached_property
    def message(self) -> Any:
        """The MetaGraphDef, parsed; of a GraphDef file, one made around it. Changing it does not change `data`.

        Raises:
            CorruptionError: the bytes are no such message.
        """
        with located(self.path or None):
            if self.root == "SavedModel":
                if not self._meta_graphs:
                    raise CorruptionError("a SavedModel without a graph")
                return self._meta_graphs[self.number]
            if self.root == "GraphDef":
                meta_graph = proto.message_class("MetaGraphDef")()
                meta_graph.graph_def.SetInParent()
                proto.parse("GraphDef", self.data, meta_graph.graph_def)
                return meta_graph
            return proto.parse("MetaGraphDef", self.data)

    @cached_property
    def _meta_graphs(self) -> Any:
        """The MetaGraphDefs of all graphs in the file, parsed: of a SavedModel, several."""
        return proto.parse("SavedModel", self.data).meta_graphs if self.root == "SavedModel" else [self.message]

    @property
    def tag_sets(self) -> list[list[str]]:
        """The tags of each graph in the file."""
        return [list(graph.meta_info_def.tags) for graph in self._meta_graphs]

    @cached_property
    def reads(self) -> dict[str, list[str]]:
        """The names of the ops that read a variable through its handle, by the op that gives the handle."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.type == "ReadVariableOp" and len(node.inputs) == 1 and split_tensor(node.inputs[0])[1] == "0":
                found.setdefault(op_of(node.inputs[0]), []).append(node.name)
        return found

    @property
    def graph_defs(self) -> list[Any]:
        """The GraphDefs of all graphs in the file."""
        return [graph.graph_def for graph in self._meta_graphs]

    @property
    def graph_def(self) -> Any:
        """The GraphDef, parsed: ops, functions and versions. Changing it does not change `data`."""
        return self.message.graph_def

    @cached_property
    def functions(self) -> dict[str, Any]:
        """The library functions, by name: FunctionDefs."""
        return {function.signature.name: function for function in self.graph_def.library.function}

    @property
    def tensorflow_version(self) -> str:
        """The version that wrote it; "" before 0.12, which did not say."""
        return str(self.message.meta_info_def.tensorflow_version)

    @cached_property
    def nodes(self) -> list[Node]:
        """Every op, in the graph's order; those inside functions not."""
        same = _Texts().__getitem__
        return [
            Node(same(node.name), same(node.op), same(node.device), tuple(map(same, node.input)), node)
            for node in self.graph_def.node
        ]

    def node(self, name: str) -> Node:
        """The op `name`.

        Raises:
            TypeError: that is no name.
            NotFoundError: there is none.
        """
        require_name(name)
        if name not in self.by_name:
            op = op_of(name)
            hint = f"{name} is a tensor, of the op {op}" if op in self.by_name else near_hint(name, self.by_name)
            hint = hint or "ckpttool ls --ops lists them"
            raise NotFoundError(f"the graph has no op named {name}", path=self.path, hint=hint)
        return self.by_name[name]

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Every op, by its name, in the graph's order."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def collections(self) -> dict[str, Collection]:
        """Every collection, by name."""
        found = self.message.collection_def
        return {name: decoded_collection(name, found[name]) for name in sorted(found)}

    @cached_property
    def signatures(self) -> dict[str, Signature]:
        """Every signature, by its key; in an export from before SavedModels, those that a collection holds."""
        found = self.message.signature_def
        old = () if found else old_signatures(self.message.collection_def, DEFAULT_SIGNATURE)
        return {key: signature_of(key, found[key]) for key in sorted(found)} | {
            each.key: Signature(each.key, each.method, self._described(each.inputs), self._described(each.outputs))
            for each in old
        }

    def _described(self, tensors: Mapping[str, str]) -> dict[str, tuple[str, Tensor]]:
        return {key: (name, self.tensor(name)) for key, name in sorted(tensors.items())}

    @cached_property
    def assets(self) -> dict[str, str]:
        """A SavedModel's assets: tensor that is fed with the file's path → name of the file in `assets/`.

        TensorFlow 1 puts them into a collection; TensorFlow 2 into a field of their own, which goes first. Exports from
        before SavedModels have them in another collection.
        (get_asset_tensors in python/saved_model/loader_impl.py)
        """
        defs = [fields_of(each) for each in self.message.asset_file_def]
        if not defs and ASSETS in self.collections:
            members = self.collections[ASSETS].members
            defs = [each for each in members if isinstance(each, dict) and each.get("@type") == "AssetFileDef"]
        named = ((each.get("tensor_info", {}).get("name", ""), each.get("filename", "")) for each in defs)
        return {tensor: file for tensor, file in named if tensor} or old_assets(self.message.collection_def)

    @cached_property
    def variable_defs(self) -> dict[str, list[tuple[str, dict[str, Any]]]]:
        """For the op of each variable, its VariableDefs: (collection's name, fields) pairs."""
        found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for collection in self.collections.values():
            for member in collection.members:
                if isinstance(member, dict) and member.get("@type") == "VariableDef":
                    op = op_of(member.get("variable_name", ""))
                    found.setdefault(op, []).append((collection.name, member))
        return found

    @cached_property
    def variables(self) -> list[GraphVariable]:
        """The variables that the graph declares: by the collections' VariableDefs, and by ops of their own."""
        homes = {op: [name for name, _ in found] for op, found in self.variable_defs.items()}
        declared = [node.name for node in self.graph_def.node if node.op in VARIABLE_OPS]
        return [self._variable(name, homes.get(name, [])) for name in dict.fromkeys([*declared, *homes]) if name]

    def _variable(self, name: str, homes: list[str]) -> GraphVariable:
        node = self.by_name.get(name)
        trainable = "trainable_variables" in homes
        if node is None:
            return GraphVariable(name, "", None, None, trainable, tuple(homes), "")
        attr = node.message.attr
        dtype = dtype_of(attr["dtype"].type) if "dtype" in attr else None
        return GraphVariable(name, node.type, dtype, declared_shape(node.message), trainable, tuple(homes), node.device)

    @cached_property
    def devices(self) -> Counter[str]:
        """How many ops, those of functions too, are placed on each device ("": none)."""
        return Counter(node.device for node in all_nodes(self.graph_def))

    @cached_property
    def _op_defs(self) -> dict[str, Any]:
        """The OpDefs that the file carries: those of the ops its writer knew, and its own functions'."""
        stripped = {op.name: op for op in self.message.meta_info_def.stripped_op_list.op}
        return stripped | {name: function.signature for name, function in self.functions.items()}

    def op_def(self, type_: str) -> Any:
        """What describes an op: the OpDef that the file carries, else TensorFlow's; None: a type that nobody knows."""
        found = self._op_defs.get(type_)
        return proto.known_ops().get(type_) if found is None else found

    def outputs(self, node: Node) -> Outputs:
        """What is known of an op's outputs: dtypes by its OpDef, shapes by its attributes.

        Raises:
            TypeError: that is no Node.
        """
        if not isinstance(node, Node):
            raise TypeError(f"a Node is needed, not {type(node).__name__}: node() gives that of a name")
        attr = node.message.attr
        shapes = attr["_output_shapes"].list.shape if "_output_shapes" in attr else ()
        if node.type not in self._results:
            op_def = self.op_def(node.type)
            self._results[node.type] = None if op_def is None else arguments_of(op_def.output_arg, op_def.attr)
        results = self._results[node.type]
        if results is None:
            return Outputs([None] * len(shapes), shapes, None)
        return Outputs(Dtypes(results, attr), shapes, None if shapes else self._shape_by_attributes(node))

    def tensor(self, name: str) -> Tensor:
        """What is known of a tensor, by its full name or that of its op: nothing, if there is no such output.

        Raises:
            TypeError: that is no name.
        """
        require_name(name)
        op, index = (name, "0") if name in self.by_name else split_tensor(name)
        outputs = self.outputs(self.by_name[op]) if op in self.by_name else ()
        return outputs[int(index)] if int(index) < len(outputs) else Tensor(None, None)

    def _shape_by_attributes(self, node: Node) -> Shape:
        """The shape that an op's own attributes give its only output."""
        attr = node.message.attr
        if node.type == "VarHandleOp":
            return ()
        if node.type == "Const" and "value" in attr:
            return get_shape(attr["value"].tensor.tensor_shape)
        if node.type not in VARIABLE_OPS and node.type not in PLACEHOLDERS:
            return None
        shape = declared_shape(node.message)
        # Before TensorFlow 1.2 what was not known whole was written as a scalar's. (core/ops/array_ops.cc Placeholder)
        is_guess = node.type == "Placeholder" and shape == () and self.graph_def.versions.producer <= _SCALARS_UNKNOWN
        return None if is_guess else shape


def require_graph(graph: object) -> None:
    """Raises TypeError if something else was given, such as a path."""
    if not isinstance(graph, MetaGraph):
        raise TypeError(f"a MetaGraph is needed, not {type(graph).__name__}: open_graph opens one")
