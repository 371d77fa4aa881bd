"""Which ops of a graph are the model, by the way that tensors take through it.

From types and names of ops alone, for custom ops are none that anybody knows: what is plumbing (gradients, updates,
savers, summaries, queues, asserts), what placeholders reach without crossing it, where that meets the weights, and what
is only arithmetic of a loss. Nothing here recurses, and each step is linear in the graph: it may be cyclic, and made by
anybody.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from ckpttool.analysis.graphs.needs import walk
from ckpttool.analysis.graphs.pipelines import PIPELINE, is_pipeline
from ckpttool.analysis.graphs.tables import fillers
from ckpttool.model.arguments import Tensor
from ckpttool.model.graph import PLACEHOLDERS, VARIABLE_OPS, MetaGraph, Node, op_of, split_tensor

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
MOST_TENSORS = 10
_LONG = 200

# What is no part of the model, by the op's type …
_ROLE_TYPES = {
    "update": r"(?:Resource)?(?:Sparse)?Apply\w+|Assign\w*|CountUpTo"
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
_GRADIENTS = re.compile(r"gradients(?:_\d+)?")
_OTHER_SCOPE = re.compile(r"report_uninitialized_variables(?:_\d+)?|[Aa]ssert\w*|AssignMovingAvg(?:_\d+)?|Initializer")
_SAVE_SCOPE = re.compile(r"(?:.*/)?save(?:_\d+)?", re.DOTALL)

OUTPUT_NAME = re.compile(
    r"(?:\w*_)?(?:outputs?|preds?|predicts?|predictions?|predicted|logits?|probs?|probability|probabilities|scores?"
    r"|softmax|sigmoid|activations?|answer|result|y_?hat|embeddings?|distances?|similarit(?:y|ies)|samples?"
    r"|decoded|generated)(?:_\w*)?",
    re.IGNORECASE,
)
# What a weight passes on its way to where it is used. No arithmetic: a weight's norm in the loss is no layer.
_READS = {
    *("Identity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast", "Reshape", "Transpose"),
    *("ExpandDims", "Squeeze", "Concat", "ConcatV2", "Split", "SplitV", "Slice", "StridedSlice", "Unpack"),
}
_LOSS_TYPE = re.compile(r"\w*CrossEntropy\w*|\w*Loss(?:V\d)?")
_DECODER = re.compile(r"CTC\w*Decoder(?:V\d)?")
_LOSS_NAME = re.compile(r"(?:\w*_)?(?:loss|cost)(?:_\w*)?")
_LOSS_MATH = {
    *("Neg", "Mean", "Sum", "Prod", "Log", "Log1p", "Exp", "Square", "Sqrt", "Rsqrt", "Pow", "Abs", "Cast"),
    *("Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "DivNoNan", "Select", "SelectV2", "Maximum", "Minimum"),
    *("SquaredDifference", "Greater", "GreaterEqual", "Less", "LessEqual"),
}


def _scope(name: str) -> str:
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
        self._pipelines = {name for name, type_ in self._types.items() if is_pipeline(type_)}
        saver = graph.message.saver_def
        savers = [name for name, type_ in self._types.items() if _role_by_type(type_) == "saver"]
        # One that has a name has its scope, too, and in that an op which runs all that restores.
        self.saver = {s for s in map(_scope, savers) if _SAVE_SCOPE.fullmatch(s) or f"{s}/restore_all" in self.nodes}
        self.saver |= {
            op_of(saver.filename_tensor_name),
            op_of(saver.save_tensor_name),
            saver.restore_op_name,
        }
        self.roles = {name: self._role(node) for name, node in self.nodes.items()}
        self.roles |= {op: "update" for ops in fillers(graph).values() for op in ops}
        self.outside = {name for name, role in self.roles.items() if role}
        self.incomplete: dict[str, None] = {}
        self.inputs: dict[str, list[str]] = {}
        self.needs: dict[str, list[str]] = {}
        self.users: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            self._connect(name, node.inputs)

    def _connect(self, name: str, tensors: Sequence[str]) -> None:
        inputs = [key for tensor in tensors if tensor[:1] != "^" and (key := self.key(tensor))]
        needs = inputs
        if len(inputs) < len(tensors):
            needs = [key for tensor in tensors if (key := self.key(tensor.removeprefix("^")))]
            if len(needs) < len(tensors):  # It is fed itself, then.
                self.incomplete[name], needs = None, []
        self.inputs[name], self.needs[name] = inputs, needs
        for key in inputs if len(inputs) < 2 else dict.fromkeys(inputs):
            if key in self.users:
                self.users[key].append(name)
            else:
                self.users[key] = [name]

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

    def is_pipeline(self, key: str) -> bool:
        return (key if key in self.nodes else op_of(key)) in self._pipelines

    def _role(self, node: Node) -> str:
        scope = _scope(node.name)
        if node.name in self.saver or (scope and scope in self.saver):
            return "saver"
        return _role_by_scope(scope) or _role_by_type(node.type[:_LONG])

    def fetches(self, key: str) -> list[str]:
        """The tensors of an op: its first output; of a function's call, each; of the highest values, which they are."""
        if key not in self.nodes:
            return [key]
        count = 2 if self.type(key) in ("TopK", "TopKV2") else 1
        if self.type(key) in _CALLS:
            count = len(self.nodes[key].message.attr["Tout"].list.type)
        return [f"{key}:{i}" for i in range(min(max(count, 1), MOST_TENSORS))]

    def tensor(self, name: str) -> Tensor:
        """What is known of a tensor."""
        op, index = split_tensor(name) if op_of(name) in self.nodes else (name, "0")
        known = self.graph.outputs(self.nodes[op])
        return known[int(index)] if int(index) < len(known) else Tensor(None, None)


# Of a large graph's many ops, few have types and scopes of their own.
@lru_cache(4096)
def _is_loss(type_: str) -> bool:
    return _LOSS_TYPE.fullmatch(type_) is not None


@lru_cache(4096)
def _is_loss_scope(scope: str) -> bool:
    return any(is_named(_LOSS_NAME, part) for part in scope.split("/"))


@lru_cache(4096)
def _role_by_type(type_: str) -> str:
    match = _ROLE_TYPE.fullmatch(type_)
    return (match.lastgroup or "") if match else ""


@lru_cache(4096)
def _role_by_scope(scope: str) -> str:
    parts = scope.split("/")
    if any(_GRADIENTS.fullmatch(part) or part.endswith("_grad") for part in parts):
        return "gradient"
    return "other" if any(_OTHER_SCOPE.fullmatch(part) for part in parts) else ""


class Parts:
    """The parts of a graph: sources, the body (up to the last layer), losses and what belongs to them."""

    def __init__(self, flow: Flow) -> None:
        model = [name for name in flow.nodes if name not in flow.outside]
        self.placeholders = dict.fromkeys(name for name in model if flow.type(name) in PLACEHOLDERS)
        self.sources = dict.fromkeys([*self.placeholders, *(key for key in flow.users if flow.is_pipeline(key))])
        self.sources |= {name: None for name in flow.incomplete if name not in flow.outside}
        held = [name for name in model if flow.type(name) in VARIABLE_OPS or flow.type(name) == "Const"]
        self.reached = walk(self.sources or held, flow.users, flow.outside)
        meets = self._meetings(flow)
        self.body = walk(meets, flow.inputs, flow.outside)
        self.weighted = walk(meets, flow.users, flow.outside)
        self.losses = _losses(flow, self.reached)
        self.for_loss = walk(self.losses, flow.inputs, flow.outside)
        self.lossy = self._lossy(flow)
        self.forward = self.reached - self.lossy

    def _meetings(self, flow: Flow) -> list[str]:
        """Where what is fed meets a weight."""
        variables = flow.graph.variables
        trained = {v.name for v in variables if v.trainable} or {v.name for v in variables}
        others = {name for name in flow.nodes if name in flow.outside or flow.type(name) not in _READS}
        weights = walk(trained, flow.users, others) - self.reached
        return [name for name in self.reached if any(key in weights for key in flow.inputs.get(name, ()))]

    def _lossy(self, flow: Flow) -> set[str]:
        """What comes after a label, what shares a scope with where they join, and the arithmetic before a loss."""
        labels = {key for key in self.sources if self.body and key not in self.body and key in self.for_loss}
        # The lengths of what is decoded are no labels, whatever else wants them.
        decoders = [name for name in self.reached if _DECODER.fullmatch(flow.type(name))]
        labels -= walk(decoders, flow.inputs, flow.outside)
        after = walk(labels, flow.users, flow.outside)
        joins = [key for key in after if any(near not in after for near in flow.inputs.get(key, ()))]
        joins += [name for name in self.losses if _is_loss(flow.type(name))]
        scopes = {_scope(name) for name in joins} - {_scope(name) for name in self.body} - {""}
        lossy = after | self.losses | {n for n in self.reached if _scope(n) in scopes and n not in self.sources}
        # What the model uses besides is no arithmetic of the loss'.
        others: dict[str, int] = {}
        stack = list(lossy)
        while stack:
            for near in dict.fromkeys(flow.inputs.get(stack.pop(), ())):
                if near not in others:
                    others[near] = sum(user not in flow.outside for user in flow.users[near])
                others[near] -= 1
                if near not in lossy and others[near] <= 0 and self._is_arithmetic(flow, near):
                    lossy.add(near)
                    stack.append(near)
        return lossy

    def _is_arithmetic(self, flow: Flow, key: str) -> bool:
        return key not in self.body and flow.type(key) in _LOSS_MATH and not is_named(OUTPUT_NAME, key)


def _losses(flow: Flow, reached: set[str]) -> set[str]:
    """What is a loss by the collection `losses`, because gradients start there, by its type, its name, or its scope."""
    collection = flow.graph.collections.get("losses")
    found = {flow.key(member) for member in (collection.members if collection else []) if isinstance(member, str)}
    derived = {name for name in map(_derived_op, flow.nodes) if name in flow.nodes and name not in flow.outside}
    before = walk((key for name in derived for key in flow.inputs[name]), flow.inputs, flow.outside)
    # A loop's last state has a gradient whether or not anything uses it.
    found |= {name for name in derived - before if flow.type(name) != "Exit"}
    for name in reached:
        type_ = flow.type(name)
        is_end = type_ in _LOSS_MATH and not flow.users.get(name) and flow.tensor(name).shape == ()
        is_last = is_end and (type_ == "Mean" or _is_loss_scope(_scope(name)))
        if is_last or (type_ in _LOSS_MATH and is_named(_LOSS_NAME, name)) or _is_loss(type_):
            found.add(name)
    return found & reached


def _derived_op(name: str) -> str:
    """The op whose gradient this op is part of: "train/gradients/loss/mul_grad/Sum" → "loss/mul"."""
    if "_grad/" not in name:
        return ""
    parts = name.split("/")
    start = next((i for i, part in enumerate(parts) if _GRADIENTS.fullmatch(part)), len(parts))
    end = next((i for i in range(start + 1, len(parts) - 1) if parts[i].endswith("_grad")), start)
    return "/".join(parts[start + 1 : end + 1]).removesuffix("_grad")
