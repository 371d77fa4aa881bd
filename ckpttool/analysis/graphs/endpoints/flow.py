"""Which op of a graph feeds which, and which of them belong to the model.

The rest is plumbing: gradients, updates, savers, summaries, queues, asserts. It is recognized by types and names of ops
alone, for what custom ops do is not known.

A graph may be cyclic, and made by anybody: neither this module nor those that build on it recurse, and each step takes
time linear in the graph's size.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from ckpttool.analysis.graphs.pipelines import LONG, PIPELINE, is_pipeline
from ckpttool.analysis.graphs.tables import fillers
from ckpttool.model.arguments import Tensor
from ckpttool.model.graph import MetaGraph
from ckpttool.model.nodes import Node, op_of, split_tensor

MOST_TENSORS = 10
"""The most tensors of an op, and the most outputs, that are listed."""

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
"""Types of ops that call a function."""

# Types of ops whose outputs belong together: results of functions; the highest values and their indices; parts of a
# decoded sparse tensor; boxes, scores, classes.
_IN_PARTS = re.compile(rf"{'|'.join(CALLS)}|TopK(?:V2)?|CTC\w*Decoder(?:V\d)?|CombinedNonMaxSuppression")

SWITCHES = ("Switch", "RefSwitch")
"""Types of ops that pass a value on into one of two branches."""

APPLY = r"(?:Resource)?(?:Sparse)?Apply\w+"
"""Types of the ops by which optimizers update variables."""

# What does not belong to the model, by the op's type …
_ROLE_TYPES = {
    "update": rf"{APPLY}|Assign\w*|CountUpTo"
    r"|(?:Resource)?Scatter(?:Nd)?(?:Add|Sub|Mul|Div|Min|Max|Update)",
    "saver": r"(?:Legacy)?(?:Save|Restore)(?:V2|Slices?)?|MergeV2Checkpoints|ShardedFile\w+",
    "summary": r"\w*Summary\w*",
    # Of an op that takes from a queue, only the outputs, which have keys of their own, belong to the model.
    "queue": rf"{PIPELINE}|\w*Enqueue\w*|\w*Queue(?:Close|Size|IsClosed)\w*|\w+Dataset\w*|MakeIterator"
    r"|IteratorToStringHandle|(?:(?:Ordered)?Map)?Stage",
    "gradient": r"\w+Grad(?:V\d)?",
    # The shape of a tensor, and not its values.
    "shape": r"ShapeN?|Size|Rank|ZerosLike|OnesLike",
    "other": r"Assert|NoOp|IsVariableInitialized|VarIsInitializedOp|_Send|_Recv|PrintV2",
}
_ROLE_TYPE = re.compile("|".join(f"(?P<{role}>{types})" for role, types in _ROLE_TYPES.items()))
# … and by a scope around it.
GRADIENTS = re.compile(r"gradients(?:_\d+)?")
"""A segment of a name: the scope that tf.gradients makes."""

_OTHER_SCOPE = re.compile(r"report_uninitialized_variables(?:_\d+)?|[Aa]ssert\w*|AssignMovingAvg(?:_\d+)?|Initializer")
# Collections of ops that a session asks whether it may begin, and its hooks which step it is at.
_ASKED = ("ready_op", "ready_for_local_init_op", "global_step_read_op_cache")
_SAVE_SCOPE = re.compile(r"(?:.*/)?save(?:_\d+)?", re.DOTALL)

SCORES = {"ArgMax", "Softmax", "LogSoftmax", "Sigmoid", "TopK", "TopKV2"}
"""Types of ops whose results are what a model is for."""

OUTPUT_NAME = re.compile(
    r"(?!embedding_lookup)(?:\w*_)?"  # A name that TensorFlow itself gives.
    r"(?:outputs?|preds?|predicts?|predictions?|predicted|logits?|probs?|probability|probabilities|scores?"
    r"|softmax|sigmoid|activations?|answer|result|y_?hat|embeddings?|distances?|similarit(?:y|ies)|samples?"
    r"|decoded|generated)(?:_\w*)?",
    re.IGNORECASE,
)
"""Names that programs give to the outputs of a model; matches the last segment."""


def scope_of(name: str) -> str:
    return name.rpartition("/")[0]


def is_named(pattern: re.Pattern[str], name: str) -> bool:
    """Whether the last segment of a name matches a pattern; an overlong one does not."""
    last = name.rpartition("/")[2]
    return len(last) < LONG and pattern.fullmatch(last) is not None


class Flow:
    """Which op feeds which, by name. Each output of an input pipeline has a key of its own: "next:1".

    Attributes:
        graph: the graph.
        nodes: its ops.
        roles: what each op is there for: "" if it seems to belong to the model.
        outside: ops that do not belong to the model.
        incomplete: ops with an input that the graph lacks, as when it was exported from a scope.
        inputs: op → the ops whose values it takes.
        needs: the same, and the ops that must run before it.
        users: op → the ops that take its values.
    """

    def __init__(self, graph: MetaGraph) -> None:
        self.graph = graph
        self.nodes = graph.by_name
        self._types = {name: node.type[:LONG] for name, node in self.nodes.items()}
        self._by_type: dict[str, list[str]] = {}
        for name, type_ in self._types.items():
            self._by_type.setdefault(type_, []).append(name)
        self._pipelines = {name for name, type_ in self._types.items() if is_pipeline(type_)}
        saver = graph.message.saver_def
        savers = [name for name, type_ in self._types.items() if _role_by_type(type_) == "saver"]
        # A saver with a name has a scope of that name, in which the op restore_all runs all that restores.
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
        plain = self.nodes.keys() - self._pipelines
        for name, node in self.nodes.items():
            self._connect(name, node.inputs, plain)
        self._set_checks_aside()

    def _connect(self, name: str, tensors: Sequence[str], plain: set[str]) -> None:
        """Notes what an op takes; `plain` are the names that are their own keys, which most inputs are."""
        if plain.issuperset(tensors):
            inputs = list(tensors)
        else:
            inputs = [key for tensor in tensors if tensor[:1] != "^" and (key := self.key(tensor))]
        needs = inputs
        if len(inputs) < len(tensors):
            needs = [key for tensor in tensors if (key := self.key(tensor.removeprefix("^")))]
            if len(needs) < len(tensors):  # Then it must be fed itself.
                self.incomplete[name], needs = None, []
        if self._types[name] in SWITCHES:  # Which branch is taken does not belong to the value.
            inputs = inputs[:1]
        self.inputs[name], self.needs[name] = inputs, needs
        for key in inputs if len(inputs) < 2 else dict.fromkeys(inputs):
            if key in self.users:
                self.users[key].append(name)
            else:
                self.users[key] = [name]

    def _set_checks_aside(self) -> None:
        """Removes the checks of tf.add_check_numerics_ops from the users: every tensor of the model has one."""
        checks = {name for name in self.of_types("CheckNumerics".__eq__) if not self.users.get(name)}
        for key in {key for name in checks for key in self.inputs[name]}:
            self.users[key] = [user for user in self.users[key] if user not in checks]
        self.roles |= dict.fromkeys(checks, "other")
        self.outside |= checks

    def key(self, tensor: str) -> str:
        """The name of the op or, for an output of an input pipeline, of the tensor; "" if there is none."""
        node, index = self.nodes.get(tensor), "0"
        if node is None:
            op, index = split_tensor(tensor)
            node = self.nodes.get(op)
            if node is None:
                return ""
        # The same text object everywhere: its hash is cached, and comparisons are by identity.
        return f"{node.name}:{index}" if node.name in self._pipelines else node.name

    def type(self, key: str) -> str:
        found = self._types.get(key)
        return self._types.get(op_of(key), "") if found is None else found

    def of_types(self, is_meant: Callable[[str], object]) -> set[str]:
        """The ops whose types match: each type is matched once, for a graph has many ops of few types."""
        return {name for type_, names in self._by_type.items() if is_meant(type_) for name in names}

    def is_pipeline(self, key: str) -> bool:
        return (key if key in self.nodes else op_of(key)) in self._pipelines

    def _role(self, node: Node) -> str:
        scope = scope_of(node.name)
        if node.name in self.saver or (scope and scope in self.saver):
            return "saver"
        return role_of(node.name, node.type)

    def fetches(self, key: str) -> list[str]:
        """The tensors of an op to list: its first output, or all, if the first alone says little."""
        if key not in self.nodes:
            return [key]
        is_whole = _IN_PARTS.fullmatch(self.type(key))
        count = len(self.graph.outputs(self.nodes[key])) if is_whole else 1
        return [f"{key}:{i}" for i in range(min(max(count, 1), MOST_TENSORS))]

    def tensor(self, name: str) -> Tensor:
        """What is known of a tensor."""
        return self.graph.tensor(name)


def role_of(name: str, type_: str) -> str:
    """What an op is for, by its scope and type; "" if it may be part of the model."""
    return _role_by_scope(scope_of(name)) or _role_by_type(type_[:LONG])


# A large graph has many ops of few types, in few scopes.
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
