"""What may be an output of a graph, and how likely: the ends of its forward path, and what the user has collected."""

import re
from itertools import groupby

from ckpttool.analysis.graphs.endpoints.critics import judged
from ckpttool.analysis.graphs.endpoints.flow import (
    MOST_TENSORS,
    OUTPUT_NAME,
    SCORES,
    SWITCHES,
    Flow,
    is_named,
    scope_of,
)
from ckpttool.analysis.graphs.endpoints.parts import Parts
from ckpttool.analysis.graphs.needs import origin, walk
from ckpttool.model.collections import is_filled
from ckpttool.model.nodes import VARIABLE_OPS

# Types of ops that only turn an output into a score or an answer, so that their input is a likely output too.
_HEADS = {
    *SCORES,
    *("Identity", "Cast", "Squeeze", "ExpandDims", "Reshape", "Max", "Mean", "Sum"),
    *("Greater", "GreaterEqual", "Equal", "Round"),
}
_LOOPS = {"While", "StatelessWhile"}
_NO_END = {"Switch", "RefSwitch", "Enter", "RefEnter", "NextIteration", "LoopCond", "ControlTrigger", "Const"}
_OF_CONDS = ("/switch_t", "/switch_f", "/pred_id")  # Ends of names: ops that pass on the condition of a tf.cond.
_WEIGHTS = ("float32", "float64", "float16", "bfloat16")  # Dtypes that weights may have.
_FEW = 3
_INPUT_NAME = re.compile(r"(?:\w*_)?(?:inputs?|feeds?|placeholders?|features|images?|x)", re.IGNORECASE)

Ranked = dict[str, tuple[tuple[int, ...], str]]
"""Op → its place (lower is better), and the reason."""

FED = (-1, 0, 0, 0)
"""The place of a member of the user's collections that is an input."""
PARTIAL, SHOWN, _NO_WEIGHTS = 5, 7, 8
"""First numbers of places. From PARTIAL on, an op is only a part of an output; from SHOWN on, it is only shown; from
_NO_WEIGHTS on, no weight comes before it.
"""


def candidates(flow: Flow, parts: Parts) -> Ranked:
    """The ends of the forward path, what they only turn into scores or answers, what a critic judges, and the neck."""
    ends = [key for key in flow.nodes if key in parts.forward and _is_end(flow, parts, key)]
    if not ends:  # All outputs go into metrics, so that none is an end.
        reached = [key for key in flow.nodes if key in parts.forward and key not in parts.layers.sources]
        ends = [key for key in reached if is_named(OUTPUT_NAME, key) and not key.endswith(_OF_CONDS)]
    distance = dict.fromkeys(_later_first(flow, ends), 0)
    queue = list(distance)
    for key in queue:
        if flow.type(key) in _HEADS or _is_crop(flow, key):
            inner = [near for near in flow.inputs[key] if near in parts.forward and near not in parts.layers.sources]
            new = dict.fromkeys((near for near in inner if near not in distance), distance[key] + 1)
            distance |= new
            queue += new
    found = {key: (_strength(flow, parts, key, steps), steps) for key, steps in distance.items()}
    best = min((rank for (rank, _), _ in found.values()), default=0)
    by_critics: Ranked = dict.fromkeys(
        judged(flow, parts)[:MOST_TENSORS], ((2, -1), "what another optimizer trains takes it")
    )
    ranked = by_critics | {
        k: ((rank, n), why) for k, ((rank, why), n) in found.items() if why and (rank < _NO_WEIGHTS or rank == best)
    }
    if neck := parts.neck:
        if flow.type(neck) in SWITCHES:  # The loss is in branches: what goes into them is meant.
            neck, _ = origin(flow.nodes, neck, SWITCHES)
        ranked.setdefault(neck, ((5, 0), "all that is learned passes it"))
    return {key: found for key, found in ranked.items() if key not in parts.looped}


def _later_first(flow: Flow, ends: list[str]) -> list[str]:
    """The ends, the last first: a graph is written front to back. Results of one tf.cond keep the program's order."""
    runs = groupby(reversed(ends), lambda key: scope_of(key) if flow.type(key) == "Merge" else key)
    return [key for _, run in runs for key in reversed(list(run))]


def _is_crop(flow: Flow, key: str) -> bool:
    """Whether an op gives a part of its input, with as many dimensions."""
    if flow.type(key) not in ("Slice", "StridedSlice") or not flow.inputs[key]:
        return False
    part, whole = flow.tensor(key).shape, flow.tensor(flow.inputs[key][0]).shape
    return part is not None and whole is not None and len(part) == len(whole)


def _is_end(flow: Flow, parts: Parts, key: str) -> bool:
    if key in parts.layers.sources or key in parts.looped:
        return False
    if flow.type(key) in _NO_END or key.endswith(_OF_CONDS):
        return False
    users, inputs = flow.users.get(key, ()), flow.inputs[key]
    is_read = all(flow.type(near) in VARIABLE_OPS for near in inputs)
    # An op is an end even if something is made of it to be shown in a summary, such as its share of zeros.
    passed = parts.shown if key not in parts.shown or any(flow.roles[n] == "summary" for n in users) else ()
    return not is_read and not any(
        (near in parts.forward and near not in passed) or flow.roles[near] in ("update", "queue", "other")
        for near in users
    )


def _strength(flow: Flow, parts: Parts, key: str, steps: int) -> tuple[int, str]:
    """How likely an op is an output (lower is likelier), and why; "" for a reason if it is none."""
    type_, users, named = flow.type(key), flow.users.get(key, []), is_named(OUTPUT_NAME, key)
    if parts.layers.body and key not in parts.layers.weighted:
        return _NO_WEIGHTS, "" if steps else "end of a path without weights"
    if users and all(flow.roles[near] == "summary" for near in users) and not named:
        return SHOWN, "only a summary shows it"
    # "Softmax_1" is what TensorFlow itself calls a Softmax.
    if named and not re.fullmatch(rf"{re.escape(type_)}(_\d+)?", key.rpartition("/")[2]):
        return 1, "named like an output, at the end of the forward path"
    is_for_loss = any(near in parts.lossy and near in parts.losses.made_of for near in users)
    if is_for_loss and key not in parts.losses.learned:
        return 6, "a target of the loss is made of it"
    if type_ in SCORES and not (type_ == "LogSoftmax" and is_for_loss):  # A LogSoftmax in a loss stands for logits.
        return 2, f"{type_} at the end of the forward path"
    if is_for_loss:
        return 3, "input of the loss"
    if steps:
        return 5, "only an average is taken of it" if flow.type(users[0]) in ("Mean", "Sum") else ""
    is_of_loop = type_ == "Exit" or any(flow.type(near) in _LOOPS for near in flow.inputs[key])
    return (6, "last value of a loop") if is_of_loop else (4, "end of the forward path")


def kept_constants(flow: Flow) -> Ranked:
    """The constants of a frozen graph that no op takes, if they are few; they rank among the last.

    Freezing keeps only what is asked for, such as the transitions of a CRF, with which a program decodes the output.
    """
    if flow.of_types(VARIABLE_OPS.__contains__):
        return {}
    loose = [name for name in flow.of_types("Const".__eq__) - flow.outside if not flow.users.get(name)]
    tensors = {name: flow.tensor(f"{name}:0") for name in loose}
    found = [name for name, (dtype, shape) in tensors.items() if shape and dtype and dtype.name in _WEIGHTS]
    waited_for = {text[1:] for node in flow.nodes.values() for text in node.inputs if text[:1] == "^"} if found else ()
    kept = sorted(name for name in found if name not in waited_for)
    why = "a constant that no op takes; it may have been kept to be fetched"
    return dict.fromkeys(kept, ((6, 1), why)) if len(kept) <= _FEW else {}


def user_members(flow: Flow, parts: Parts, likely: Ranked) -> Ranked:
    """The members of the user's own collections that are tensors of the model."""
    found: Ranked = {}
    before = walk((near for key in parts.collected for near in flow.inputs.get(key, ())), flow.inputs, flow.outside)
    for collection in flow.graph.collections.values():
        if is_filled(collection.name):
            continue
        is_input = is_named(_INPUT_NAME, collection.name)
        keys = [flow.key(member) for member in collection.members if isinstance(member, str)]
        for key in keys:
            if key and key not in flow.outside and key not in parts.layers.read:
                # Some programs collect every layer's output; then the last ones are likely.
                rank = (0, int(key in parts.lossy), int(key in before), int(key not in likely))
                is_loss = key in parts.losses.ops and flow.tensor(key).shape == ()
                if (len(keys) > 1 and key in parts.layers.inner) or is_loss:
                    rank = (SHOWN, 1, 0, 0)
                rank = FED if is_input or key in parts.layers.sources else rank
                if rank[0] < SHOWN or key not in likely:
                    found.setdefault(key, (rank, f"in the collection {collection.name}"))
    return found
