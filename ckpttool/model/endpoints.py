"""What to feed and what to fetch: a graph's inputs and outputs.

Signatures say it. A training graph has none, so its endpoints are inferred, from types and names of ops alone:

    x ─▶ MatMul ─▶ Add ─▶ Softmax ─┬─▶ ArgMax             x: an input; Softmax, ArgMax: likely outputs
          ▲         ▲              └─▶ Log ─▶ Mul ─▶ Mean   Mean: the loss, from which the gradients start
          W         b                  labels ─┘            labels: only the loss needs it

The forward path is what placeholders reach without crossing plumbing (gradients, updates, savers, summaries, queues,
asserts). A label is told from an input by the weights: an input meets one on its way, a label joins after the last.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ckpttool.model.dtypes import DType, dtype_of
from ckpttool.model.graph import VARIABLE_OPS, MetaGraph, Node, Shape, Tensor


class Endpoint(NamedTuple):
    """A tensor to feed or to fetch.

    `direction` is "input" or "output"; `key` the signature's name and the argument's ("serving_default/x"), "" if the
    endpoint is inferred; `reason` says why it is listed.
    """

    direction: str
    key: str
    tensor: str
    dtype: DType | None
    shape: Shape
    inferred: bool
    reason: str


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
        *("serving_signatures", "serving_graph"),
    }
)
"""Collections that TensorFlow fills by itself; any other was filled by the user, on purpose.

(tensorflow/python/framework/ops.py GraphKeys; saved_model/constants.py; session_bundle/constants.py; tf_slim)
"""

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_MOST = 10
_LONG = 200

_PIPELINE = re.compile(r"\w*Dequeue\w*|IteratorGetNext(?:Sync|AsOptional)?|Unstage|ReaderRead\w*")
# What is no part of the model, by the op's type …
_ROLE_TYPES = {
    "update": r"(?:Resource)?(?:Sparse)?Apply\w+|Assign\w*|CountUpTo"
    r"|(?:Resource)?Scatter(?:Nd)?(?:Add|Sub|Mul|Div|Min|Max|Update)",
    "saver": r"(?:Legacy)?(?:Save|Restore)(?:V2|Slices?)?|MergeV2Checkpoints|ShardedFile\w+",
    "summary": r"\w*Summary\w*",
    # Of ops that take from a queue it is the outputs that are part of the model.
    "queue": rf"{_PIPELINE.pattern}|\w*Enqueue\w*|\w*Queue(?:Close|Size|IsClosed)\w*|\w+Dataset\w*|MakeIterator"
    r"|IteratorToStringHandle|Stage",
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

# What a weight passes on its way to where it is used. No arithmetic: a weight's norm in the loss is no layer.
_READS = {
    *("Identity", "ReadVariableOp", "Enter", "RefEnter", "Switch", "RefSwitch", "Cast", "Reshape", "Transpose"),
    *("ExpandDims", "Squeeze", "Concat", "ConcatV2", "Split", "SplitV", "Slice", "StridedSlice", "Unpack"),
}
_LOSS_TYPE = re.compile(r"\w*CrossEntropy\w*|\w*Loss(?:V\d)?")
_LOSS_NAME = re.compile(r"(?:\w*_)?(?:loss|cost)(?:_\w*)?")
_LOSS_MATH = {
    *("Neg", "Mean", "Sum", "Prod", "Log", "Log1p", "Exp", "Square", "Sqrt", "SquaredDifference", "Pow", "Abs"),
    *("Add", "AddV2", "AddN", "Sub", "Mul", "Div", "RealDiv", "DivNoNan", "Select", "SelectV2", "Maximum", "Minimum"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "Cast"),
}
_SCORES = {"ArgMax", "Softmax", "LogSoftmax", "Sigmoid", "TopK", "TopKV2"}
_HEADS = {*_SCORES, "Identity", "Cast", "Squeeze", "Reshape", "Max", "Mean", "Sum", "Greater", "GreaterEqual", "Round"}
_NO_END = {"Switch", "RefSwitch", "Enter", "RefEnter", "NextIteration", "LoopCond", "ControlTrigger", "Const"}
_OUTPUT_NAME = re.compile(
    r"(?:\w*_)?(?:outputs?|preds?|predicts?|predictions?|predicted|logits?|probs?|probability|probabilities|scores?"
    r"|softmax|sigmoid|activations?|answer|result|y_?hat|embeddings?)(?:_\w*)?",
    re.IGNORECASE,
)
_INPUT_NAME = re.compile(r"(?:\w*_)?(?:inputs?|feeds?|placeholders?|features|images?|x)", re.IGNORECASE)
_SWITCH_NAME = re.compile(r"keep_?prob|drop_?out|drop_?rate|is_?train|training|phase", re.IGNORECASE)
# Attributes that say what type the output is of, for files that carry no OpDefs. (Not of every op does T say it.)
_TYPE_ATTRS = dict.fromkeys(PLACEHOLDERS, "dtype") | {"Cast": "DstT", "ArgMax": "output_type"}
_TYPE_ATTRS |= dict.fromkeys(("Identity", "Softmax", "Sigmoid", "Tanh", "Relu", "Reshape", "Squeeze", "MatMul"), "T")
_TYPE_ATTRS |= dict.fromkeys(("Add", "AddV2", "Sub", "Mul", "BiasAdd", "Conv2D", "Mean", "Sum", "Merge", "Exit"), "T")


def endpoints(graph: MetaGraph) -> list[Endpoint]:
    """What to feed and what to fetch: as the signatures say; without any, inputs and likely outputs, the best first."""
    declared = [
        Endpoint(direction, f"{name}/{key}", tensor, info.dtype, info.shape, False, f"signature {name}")
        for name, signature in graph.signatures.items()
        if not name.startswith("__saved_model_")
        for direction, infos in (("input", signature.inputs), ("output", signature.outputs))
        for key, (tensor, info) in infos.items()
    ]
    return declared or _inferred(graph)


def _inferred(graph: MetaGraph) -> list[Endpoint]:
    flow = _Flow(graph)
    parts = _Parts(flow)
    likely = _candidates(flow, parts)
    members = _user_members(flow, parts, likely)
    fed = {key: why for key, (rank, why) in members.items() if rank == _FED}
    chosen = {key: found for key, found in (likely | members).items() if key not in fed}
    best = sorted(chosen, key=lambda key: chosen[key][0])[:_MOST]
    outputs = [(tensor, chosen[key][1]) for key in best for tensor in flow.fetches(key)][:_MOST]
    listed = [("input", *item) for item in _inputs(flow, parts, best, fed)]
    listed += [("output", *item) for item in outputs]
    return [Endpoint(way, "", name, *flow.tensor(name), True, why) for way, name, why in listed]


def _walk(starts: Iterable[str], edges: Mapping[str, Iterable[str]], keep: Callable[[str], bool]) -> set[str]:
    """`starts` and all that the edges lead to from there, through what is to be kept."""
    seen = set(starts)
    stack = list(seen)
    while stack:
        for near in edges.get(stack.pop(), ()):
            if near not in seen and keep(near):
                seen.add(near)
                stack.append(near)
    return seen


def _scope(name: str) -> str:
    return name.rpartition("/")[0]


def _split(tensor: str) -> tuple[str, str]:
    """An op's name and the output's number: "x:1" → "x", "1"; "x" → "x", "0"."""
    head, colon, index = tensor.rpartition(":")
    return (head, index) if colon and index.isdecimal() else (tensor, "0")


def _is_named(pattern: re.Pattern[str], name: str) -> bool:
    """Whether the last segment of a name is of a pattern; a monstrous one is not tried."""
    last = name.rpartition("/")[2]
    return len(last) < _LONG and pattern.fullmatch(last) is not None


class _Flow:
    """Which op feeds which, by name. Each output of an input pipeline stands by itself: "next:1"."""

    def __init__(self, graph: MetaGraph) -> None:
        self.graph = graph
        self.nodes = {node.name: node for node in graph.nodes}
        saver = graph.message.saver_def
        savers = [name for name, node in self.nodes.items() if re.fullmatch(_ROLE_TYPES["saver"], node.type)]
        self.saver = {scope for scope in map(_scope, savers) if _SAVE_SCOPE.fullmatch(scope)}
        self.saver |= {_split(saver.filename_tensor_name)[0], _split(saver.save_tensor_name)[0], saver.restore_op_name}
        self.roles = {name: self._role(node) for name, node in self.nodes.items()}
        self.inputs: dict[str, list[str]] = {}
        self.needs: dict[str, list[str]] = {}
        self.users: dict[str, list[str]] = {}
        for node in self.nodes.values():
            self.inputs[node.name] = [
                key for name in node.inputs if not name.startswith("^") and (key := self.key(name))
            ]
            self.needs[node.name] = [key for name in node.inputs if (key := self.key(name.removeprefix("^")))]
            for key in dict.fromkeys(self.inputs[node.name]):
                self.users.setdefault(key, []).append(node.name)

    def key(self, tensor: str) -> str:
        """The op's name, for an output of an input pipeline the tensor's; "" if there is none."""
        op, index = (tensor, "0") if tensor in self.nodes else _split(tensor)
        return (f"{op}:{index}" if self.is_pipeline(op) else op) if op in self.nodes else ""

    def type(self, key: str) -> str:
        node = self.nodes.get(key) or self.nodes.get(_split(key)[0])
        return node.type[:_LONG] if node else ""

    def is_pipeline(self, key: str) -> bool:
        return _PIPELINE.fullmatch(self.type(key)) is not None

    def is_model(self, key: str) -> bool:
        return not self.roles.get(key, "")

    def _role(self, node: Node) -> str:
        """What the op is there for: "" if it is, as far as can be told, part of the model."""
        scope = _scope(node.name)
        if node.name in self.saver or (scope and scope in self.saver):
            return "saver"
        if any(_GRADIENTS.fullmatch(part) or part.endswith("_grad") for part in scope.split("/")):
            return "gradient"
        if any(_OTHER_SCOPE.fullmatch(part) for part in scope.split("/")):
            return "other"
        match = _ROLE_TYPE.fullmatch(node.type[:_LONG])
        return (match.lastgroup or "") if match else ""

    def fetches(self, key: str) -> list[str]:
        """The tensors of an op: its first output; of a function's call, each."""
        if key not in self.nodes:
            return [key]
        count = len(self.nodes[key].message.attr["Tout"].list.type) if self.type(key) in _CALLS else 1
        return [f"{key}:{i}" for i in range(min(max(count, 1), _MOST))]

    def tensor(self, name: str) -> Tensor:
        """What is known of a tensor; where the file carries no OpDefs, by the attributes of its op."""
        op, index = _split(name) if _split(name)[0] in self.nodes else (name, "0")
        known = self.graph.outputs(self.nodes[op])
        number = int(index) if len(index) < _LONG else len(known)
        dtype, shape = known[number] if number < len(known) else Tensor(None, None)
        attr, said = self.nodes[op].message.attr, _TYPE_ATTRS.get(self.type(op), "")
        return Tensor(dtype or (dtype_of(attr[said].type) if said in attr and attr[said].type else None), shape)


class _Parts:
    """The parts of a graph: sources, the body (up to the last layer), losses and what belongs to them."""

    def __init__(self, flow: _Flow) -> None:
        model = [name for name in flow.nodes if flow.is_model(name)]
        self.placeholders = dict.fromkeys(name for name in model if flow.type(name) in PLACEHOLDERS)
        self.sources = dict.fromkeys([*self.placeholders, *(key for key in flow.users if flow.is_pipeline(key))])
        held = [name for name in model if flow.type(name) in VARIABLE_OPS or flow.type(name) == "Const"]
        self.reached = _walk(self.sources or held, flow.users, flow.is_model)
        meets = self._meetings(flow)
        self.body = _walk(meets, flow.inputs, flow.is_model)
        self.weighted = _walk(meets, flow.users, flow.is_model)
        self.losses = _losses(flow, self.reached)
        self.for_loss = _walk(self.losses, flow.inputs, flow.is_model)
        self.lossy = self._lossy(flow)
        self.forward = self.reached - self.lossy

    def _meetings(self, flow: _Flow) -> list[str]:
        """Where what is fed meets a weight."""
        variables = flow.graph.variables
        trained = {v.name for v in variables if v.trainable} or {v.name for v in variables}
        weights = _walk(trained, flow.users, lambda key: flow.type(key) in _READS and flow.is_model(key)) - self.reached
        return [name for name in self.reached if any(key in weights for key in flow.inputs.get(name, ()))]

    def _lossy(self, flow: _Flow) -> set[str]:
        """What comes after a label, what shares a scope with where they join, and the arithmetic before a loss."""
        labels = {key for key in self.sources if self.body and key not in self.body and key in self.for_loss}
        after = _walk(labels, flow.users, flow.is_model)
        joins = [key for key in after if any(near not in after for near in flow.inputs.get(key, ()))]
        joins += [name for name in self.losses if _LOSS_TYPE.fullmatch(flow.type(name))]
        scopes = {_scope(name) for name in joins} - {_scope(name) for name in self.body} - {""}
        lossy = after | self.losses | {n for n in self.reached if _scope(n) in scopes and n not in self.sources}
        # What the model uses besides is no arithmetic of the loss'.
        others = {key: sum(flow.is_model(user) for user in users) for key, users in flow.users.items()}
        stack = list(lossy)
        while stack:
            for near in dict.fromkeys(flow.inputs.get(stack.pop(), ())):
                others[near] -= 1
                if near not in lossy and others[near] <= 0 and self._is_arithmetic(flow, near):
                    lossy.add(near)
                    stack.append(near)
        return lossy

    def _is_arithmetic(self, flow: _Flow, key: str) -> bool:
        return key not in self.body and flow.type(key) in _LOSS_MATH and not _is_named(_OUTPUT_NAME, key)


def _losses(flow: _Flow, reached: set[str]) -> set[str]:
    """What is a loss by the collection `losses`, because gradients start there, by its type, or by its name."""
    collection = flow.graph.collections.get("losses")
    found = {flow.key(member) for member in (collection.members if collection else []) if isinstance(member, str)}
    derived = {name for name in map(_derived_op, flow.nodes) if name in flow.nodes and flow.is_model(name)}
    before = _walk((key for name in derived for key in flow.inputs[name]), flow.inputs, flow.is_model)
    # A loop's last state has a gradient whether or not anything uses it.
    found |= {name for name in derived - before if flow.type(name) != "Exit"}
    for name in reached:
        last = flow.type(name) == "Mean" and not flow.users.get(name) and flow.tensor(name).shape == ()
        named = flow.type(name) in _LOSS_MATH and _is_named(_LOSS_NAME, name)
        found |= {name} if last or named or _LOSS_TYPE.fullmatch(flow.type(name)) else set()
    return found & reached


def _derived_op(name: str) -> str:
    """The op whose gradient this op is part of: "train/gradients/loss/mul_grad/Sum" → "loss/mul"."""
    parts = name.split("/")
    start = next((i for i, part in enumerate(parts) if _GRADIENTS.fullmatch(part)), len(parts))
    end = next((i for i in range(start + 1, len(parts) - 1) if parts[i].endswith("_grad")), start)
    return "/".join(parts[start + 1 : end + 1]).removesuffix("_grad")


_Ranked = dict[str, tuple[tuple[int, ...], str]]  # An op's place (the less the better) and the reason.


def _candidates(flow: _Flow, parts: _Parts) -> _Ranked:
    """The ends of the forward path, and what is only turned into a score or an answer behind."""
    ends = [key for key in flow.nodes if key in parts.forward and _is_end(flow, parts, key)]
    # Of equals, the later: a graph is written front to back.
    distance = dict.fromkeys(reversed(ends), 0)
    queue = list(distance)
    for key in queue:
        if flow.type(key) in _HEADS:
            inner = [near for near in flow.inputs[key] if near in parts.forward and near not in parts.sources]
            new = dict.fromkeys((near for near in inner if near not in distance), distance[key] + 1)
            distance |= new
            queue += new
    found = {key: (_strength(flow, parts, key, steps), steps) for key, steps in distance.items()}
    best = min((rank for (rank, _), _ in found.values()), default=0)
    return {
        k: ((rank, n), why) for k, ((rank, why), n) in found.items() if why and (rank < _NO_WEIGHTS or rank == best)
    }


def _is_end(flow: _Flow, parts: _Parts, key: str) -> bool:
    if key in parts.sources or flow.type(key) in _NO_END or key.endswith(("/switch_t", "/switch_f", "/pred_id")):
        return False
    users, inputs = flow.users.get(key, ()), flow.inputs[key]
    is_read = all(flow.type(near) in VARIABLE_OPS for near in inputs)
    return not is_read and not any(
        near in parts.forward or flow.roles[near] in ("update", "queue", "other") for near in users
    )


_NO_WEIGHTS = 8


def _strength(flow: _Flow, parts: _Parts, key: str, steps: int) -> tuple[int, str]:
    """How likely an output it is (the less the likelier) and why; no reason: it is none."""
    type_, users, named = flow.type(key), flow.users.get(key, []), _is_named(_OUTPUT_NAME, key)
    if parts.body and key not in parts.weighted:
        return _NO_WEIGHTS, "" if steps else "end of a path without weights"
    if users and all(flow.roles[near] == "summary" for near in users) and not named:
        return 7, "only a summary shows it"
    # "Softmax_1" is what TensorFlow itself calls a Softmax.
    if named and not re.fullmatch(rf"{re.escape(type_)}(_\d+)?", key.rpartition("/")[2]):
        return 1, "named like an output, at the end of the forward path"
    if type_ in _SCORES:
        return 2, f"{type_} at the end of the forward path"
    if any(near in parts.lossy and near in parts.for_loss for near in users):
        return 3, "input of the loss"
    if steps:
        return 5, "only an average is taken of it" if flow.type(users[0]) in ("Mean", "Sum") else ""
    return (6, "last value of a loop") if type_ == "Exit" else (4, "end of the forward path")


_FED = (-1, 0, 0)


def _user_members(flow: _Flow, parts: _Parts, likely: _Ranked) -> _Ranked:
    """The members of the user's own collections that are tensors of the model."""
    found: _Ranked = {}
    for collection in flow.graph.collections.values():
        if collection.name in FILLED_COLLECTIONS:
            continue
        is_input = _is_named(_INPUT_NAME, collection.name)
        for key in (flow.key(member) for member in collection.members if isinstance(member, str)):
            if key and flow.is_model(key) and flow.type(key) not in VARIABLE_OPS:
                # Some collect every layer's output; the last are the likely ones.
                rank = (0, int(key in parts.lossy), int(key not in likely))
                rank = _FED if is_input or key in parts.sources else rank
                found.setdefault(key, (rank, f"in the collection {collection.name}"))
    return found


def _inputs(flow: _Flow, parts: _Parts, outputs: list[str], fed: dict[str, str]) -> list[tuple[str, str]]:
    """The tensors to feed, with reasons: those that the outputs need, then switches, then those only others need."""
    values = _walk(outputs, flow.needs, lambda key: flow.roles.get(key) != "shape")
    before = {role: [name for name in flow.nodes if flow.roles[name] == role] for role in ("update", "queue")}
    rest = {
        "an output needs its shape": _walk(outputs, flow.needs, lambda _: True),
        "only the loss needs it": parts.for_loss,
        "only training or initialization needs it": _walk(before["update"], flow.inputs, lambda _: True),
        "fills an input queue": _walk(before["queue"], flow.inputs, lambda _: True),
    }
    found: list[tuple[int, str, str]] = []
    for key in dict.fromkeys([*parts.sources, *fed]):
        by_pipeline = "the input pipeline gives it; it may be fed directly"
        rank, why = 0, fed.get(key) or (by_pipeline if flow.is_pipeline(key) else "an output needs it")
        if key not in values and key not in fed:
            rank, why = 2, next((why for why, keys in rest.items() if key in keys), "no listed output needs it")
        elif _is_switch(flow, key):
            rank, why = 1, f"{why}; dropout or mode switch"
        if rank < 2 or key in parts.placeholders:
            has_default = flow.type(key) == "PlaceholderWithDefault"
            found.append((rank, flow.fetches(key)[0], f"{why}; has a default" if has_default else why))
    return [(tensor, why) for _, tensor, why in sorted(found, key=lambda item: item[0])]


def _is_switch(flow: _Flow, key: str) -> bool:
    dtype, shape = flow.tensor(key)
    return not shape and (_SWITCH_NAME.search(key) is not None or (dtype is not None and dtype.name == "bool"))
