"""Which op of a graph feeds which, and which are the model's.

What is no part of the model is plumbing: gradients, updates, savers, summaries, queues, asserts. Types and names of ops
alone tell it, for nobody knows what custom ops do.

Nothing here or in what builds on it recurses, and each step is linear in the graph: it may be cyclic, and made by
anybody.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from ckpttool.analysis.graphs.pipelines import PIPELINE, is_pipeline
from ckpttool.analysis.graphs.tables import fillers
from ckpttool.model.arguments import Tensor
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import Node, op_of, split_tensor

MOST_TENSORS = 10
"""So many tensors of an op, and so many outputs, are told."""

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Types of ops that call a function."""

# What functions give; the highest values, and which they are; what is decoded, as the parts of a sparse tensor; boxes,
# with their scores and classes.
_IN_PARTS = re.compile(rf"{'|'.join(CALLS)}|TopK(?:V2)?|CTC\w*Decoder(?:V\d)?|CombinedNonMaxSuppression")

SWITCHES = ("Switch", "RefSwitch")
"""Types of ops that pass a value on into one of two branches."""

_LONG = 200  # Longer types and names are monstrous, and matched with no pattern.

APPLY = r"(?:Resource)?(?:Sparse)?Apply\w+"
"""Types of the ops by which optimizers update variables."""

# What is no part of the model, by the op's type …
_ROLE_TYPES = {
    "update": rf"{APPLY}|Assign\w*|CountUpTo"
    r"|(?:Resource)?Scatter(?:Nd)?(?:Add|Sub|Mul|Div|Min|Max|Update)",
    "saver": r"(?:Legacy)?(?:Save|Restore)(?:V2|Slices?)?|MergeV2Checkpoints|ShardedFile\w+",
    "summary": r"\w*Summary\w*",
    # Of ops that take from a queue it is the outputs that are part of the model.
    "queue": rf"{PIPELINE}|\w*Enqueue\w*|\w*Queue(?:Close|Size|IsClosed)\w*|\w+Dataset\w*|MakeIterator"
    r"|IteratorToStringHandle|(?:(?:Ordered)?Map)?Stage",
    "gradient": r"\w+Grad(?:V\d)?",
    # A tensor's shape is none of its values.
    "shape": r"ShapeN?|Size|Rank|ZerosLike|OnesLike",
    "other": r"Assert|NoOp|IsVariableInitialized|VarIsInitializedOp|_Send|_Recv|PrintV2",
}
_ROLE_TYPE = re.compile("|".join(f"(?P<{role}>{types})" for role, types in _ROLE_TYPES.items()))
# … and by a scope that it lies in.
GRADIENTS = re.compile(r"gradients(?:_\d+)?")
"""A segment of a name: the scope that tf.gradients makes."""

_OTHER_SCOPE = re.compile(r"report_uninitialized_variables(?:_\d+)?|[Aa]ssert\w*|AssignMovingAvg(?:_\d+)?|Initializer")
# Collections of what a session asks for whether it may begin, and of the step as its hooks read it.
_ASKED = ("ready_op", "ready_for_local_init_op", "global_step_read_op_cache")
_SAVE_SCOPE = re.compile(r"(?:.*/)?save(?:_\d+)?", re.DOTALL)

SCORES = {"ArgMax", "Softmax", "LogSoftmax", "Sigmoid", "TopK", "TopKV2"}
"""Types of ops whose results are what a model is for."""

OUTPUT_NAME = re.compile(
    r"(?!embedding_lookup)(?:\w*_)?"  # That one is TensorFlow's own.
    r"(?:outputs?|preds?|predicts?|predictions?|predicted|logits?|probs?|probability|probabilities|scores?"
    r"|softmax|sigmoid|activations?|answer|result|y_?hat|embeddings?|distances?|similarit(?:y|ies)|samples?"
    r"|decoded|generated)(?:_\w*)?",
    re.IGNORECASE,
)
"""What programs call the outputs of a model: the last segment of a name."""


def scope_of(name: str) -> str:
    return name.rpartition("/")[0]


def is_named(pattern: re.Pattern[str], name: str) -> bool:
    """Whether the last segment of a name is of a pattern; a monstrous one is not tried."""
    last = name.rpartition("/")[2]
    return len(last) < _LONG and pattern.fullmatch(last) is not None


class Flow:
    """Which op feeds which, by name. Each output of an input pipeline stands by itself: "next:1".

    Attributes:
        graph: the graph.
        nodes: its ops.
        roles: what an op is there for: "" if it is, as far as can be told, part of the model.
        outside: those that are no part of the model.
        incomplete: those that take what the graph does not have, as one exported from a scope does.
        inputs: whose values an op takes.
        needs: the same, and what is to run before it.
        users: who takes an op's values.
    """

    def __init__(self, graph: MetaGraph) -> None:
        self.graph = graph
        self.nodes = graph.by_name
        self._types = {name: node.type[:_LONG] for name, node in self.nodes.items()}
        self._by_type: dict[str, list[str]] = {}
        for name, type_ in self._types.items():
            self._by_type.setdefault(type_, []).append(name)
        self._pipelines = {name for name, type_ in self._types.items() if is_pipeline(type_)}
        saver = graph.message.saver_def
        savers = [name for name, type_ in self._types.items() if _role_by_type(type_) == "saver"]
        # One that has a name has its scope, too, and in that an op which runs all that restores.
        self.saver = {s for s in map(scope_of, savers) if _SAVE_SCOPE.fullmatch(s) or f"{s}/restore_all" in self.nodes}
        self.saver |= {
            op_of(saver.filename_tensor_name),
            op_of(saver.save_tensor_name),
            saver.restore_op_name,
        }
        self.roles = {name: self._role(node) for name, node in self.nodes.items()}
        self.roles |= {op: "update" for ops in fillers(graph).values() for op in ops}
        asked = (graph.collections[name].members for name in _ASKED if name in graph.collections)
        self.roles |= {op: "other" for members in asked for text in members if (op := op_of(str(text))) in self.nodes}
        self.outside = {name for name, role in self.roles.items() if role}
        self.incomplete: dict[str, None] = {}
        self.inputs: dict[str, list[str]] = {}
        self.needs: dict[str, list[str]] = {}
        self.users: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            self._connect(name, node.inputs)
        self._set_checks_aside()

    def _connect(self, name: str, tensors: Sequence[str]) -> None:
        inputs = [key for tensor in tensors if tensor[:1] != "^" and (key := self.key(tensor))]
        needs = inputs
        if len(inputs) < len(tensors):
            needs = [key for tensor in tensors if (key := self.key(tensor.removeprefix("^")))]
            if len(needs) < len(tensors):  # It is fed itself, then.
                self.incomplete[name], needs = None, []
        if self._types[name] in SWITCHES:  # Which branch it is, is no part of the value.
            inputs = inputs[:1]
        self.inputs[name], self.needs[name] = inputs, needs
        for key in inputs if len(inputs) < 2 else dict.fromkeys(inputs):
            if key in self.users:
                self.users[key].append(name)
            else:
                self.users[key] = [name]

    def _set_checks_aside(self) -> None:
        """Nothing takes what tf.add_check_numerics_ops has checked: every tensor of the model has such a check."""
        checks = {name for name in self.of_types("CheckNumerics".__eq__) if not self.users.get(name)}
        for key in {key for name in checks for key in self.inputs[name]}:
            self.users[key] = [user for user in self.users[key] if user not in checks]
        self.roles |= dict.fromkeys(checks, "other")
        self.outside |= checks

    def key(self, tensor: str) -> str:
        """The op's name, for an output of an input pipeline the tensor's; "" if there is none."""
        node, index = self.nodes.get(tensor), "0"
        if node is None:
            op, index = split_tensor(tensor)
            node = self.nodes.get(op)
            if node is None:
                return ""
        # The very same text everywhere: its hash is known, and no two need to be compared.
        return f"{node.name}:{index}" if node.name in self._pipelines else node.name

    def type(self, key: str) -> str:
        found = self._types.get(key)
        return self._types.get(op_of(key), "") if found is None else found

    def of_types(self, is_meant: Callable[[str], object]) -> set[str]:
        """The ops of some types: of many ops, there are few types to look at."""
        return {name for type_, names in self._by_type.items() if is_meant(type_) for name in names}

    def is_pipeline(self, key: str) -> bool:
        return (key if key in self.nodes else op_of(key)) in self._pipelines

    def _role(self, node: Node) -> str:
        scope = scope_of(node.name)
        if node.name in self.saver or (scope and scope in self.saver):
            return "saver"
        return _role_by_scope(scope) or _role_by_type(node.type[:_LONG])

    def fetches(self, key: str) -> list[str]:
        """The tensors of an op: its first output, or all, where that alone says little."""
        if key not in self.nodes:
            return [key]
        is_whole = _IN_PARTS.fullmatch(self.type(key))
        count = len(self.graph.outputs(self.nodes[key])) if is_whole else 1
        return [f"{key}:{i}" for i in range(min(max(count, 1), MOST_TENSORS))]

    def tensor(self, name: str) -> Tensor:
        """What is known of a tensor."""
        return self.graph.tensor(name)


# Of a large graph's many ops, few have types and scopes of their own.
@lru_cache(4096)
def _role_by_type(type_: str) -> str:
    match = _ROLE_TYPE.fullmatch(type_)
    return (match.lastgroup or "") if match else ""


@lru_cache(4096)
def _role_by_scope(scope: str) -> str:
    parts = scope.split("/")
    if any(GRADIENTS.fullmatch(part) or part.endswith("_grad") for part in parts):
        return "gradient"
    return "other" if any(_OTHER_SCOPE.fullmatch(part) for part in parts) else ""
