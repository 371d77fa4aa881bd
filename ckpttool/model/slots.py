"""What optimizers store beside the weights: slots, one for each variable, and what they have only once.

TensorFlow 1 names a slot after its variable, possibly below scopes of the optimizer's:

    w   w/Adam   w/Adam_1   train/w/Momentum        beta1_power, beta2_power (for all)

If the optimizer is in a scope and the variable is partitioned, be it into one part as in Estimators, TensorFlow cuts
`dnn/w/part_0/Adagrad` in the wrong place, off by the length of the scope: `w/t_0/Adagrad`.

Keras puts its own name in front: `Adam/w/m`, and since 2.11 `Adam/m/w`. A name of that form counts only if the
variable it is named after is there: somebody's own variable `Momentum` is a weight. Up to Keras 2.3, and in tf.keras up
to 1.12, a slot has no variable's: `training/Adam/Variable_3`, `training/Adam/m_0`, beside `Adam/iterations`.

Keras 3 joins the variable's name with underscores, in the HDF5 of a whole model: `adam/block_dense_kernel_momentum` of
`block/dense/kernel`. In a file of weights alone nothing has a name, and the optimizer has `optimizer/vars/0`, ….

In an object-based checkpoint the object graph tells: an optimizer lists its slots or, in Keras 3, its variables, whose
TensorFlow 1 names have the optimizer's in them. Without the graph, the keys tell what they can.

(tensorflow/python/training/slot_creator.py, moving_averages.py; keras/optimizers; keras/src/saving/saving_lib.py,
legacy/legacy_h5_format.py; google-research/bert optimization.py; tensor2tensor adafactor.py)
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache

from ckpttool.model.object_graph import ObjectGraph, object_graph_from_keys
from ckpttool.model.object_keys import ATTRIBUTES_IN_KEY

MOVING_AVERAGE = "moving average"

# Optimizer → last segments of its slots' names. "_1", "_2", … mark a second slot, and further optimizers of the kind.
_SUFFIXES = {
    "Adam": ("Adam", "AdamW", "NAdam", "Nadam", "AdamAsync", "LazyAdam"),
    "AdaMax": ("AdaMax", "Adamax"),
    "Momentum": ("Momentum", "MomentumW"),
    "RMSProp": ("RMSProp", "RMSprop"),
    "Adagrad": ("Adagrad", "AdagradDA", "ProximalAdagrad", "RegAdagrad"),
    "Adadelta": ("Adadelta",),
    "Ftrl": ("Ftrl",),
    "LARS": ("LARSOptimizer", "LARS"),
    "LAMB": ("LAMB", "LAMBOptimizer", "lamb_m", "lamb_v"),
    "Adam or LAMB": ("adam_m", "adam_v"),
    "Adafactor": ("Adafactor", "AdafactorOptimizer"),
    "AddSign": ("AddSignOptimizer",),
    "PowerSign": ("PowerSignOptimizer",),
    "Shampoo": ("Shampoo",),
    MOVING_AVERAGE: ("ExponentialMovingAverage", "biased", "local_step"),
}
_POWER, _FACTORED = "power", "factored"
_KINDS = {suffix: owner for owner, suffixes in _SUFFIXES.items() for suffix in suffixes}
_KINDS |= {"beta1_power": _POWER, "beta2_power": _POWER}
_FACTORS = ("_slot_vr", "_slot_vc", "_slot_v", "_slot_m")

# Keras: the optimizer's name somewhere in front, its slot's name behind it or at the end.
_KERAS_NAMES = [
    *("Adam", "AdamW", "Nadam", "Adamax", "Adafactor", "SGD", "RMSprop", "Adagrad", "Adadelta", "Ftrl", "Lion"),
    *("LAMB", "Muon"),
]
# Patterns are texts, which `re` compiles when one is first used: all of them take 2 ms, and most models need none.
_KERAS = rf"(?:^|.*/)({'|'.join(_KERAS_NAMES)})(?:_\d+)?/(.+)"
_KERAS_SCOPE = rf"/(?:{'|'.join(_KERAS_NAMES)})(?:_\d+)?/"
# Keras 3 writes its name small, in words (rm_sprop, adam_w), and the slot's behind the variable's:
# adam/dense_kernel_momentum, adam/iteration.
_KERAS_3_NAMES = {name.lower(): name for name in _KERAS_NAMES} | {"rm_sprop": "RMSprop", "adam_w": "AdamW"}
_KERAS_3 = rf"(?si)(?:.*/)?({'|'.join(_KERAS_3_NAMES)})(?:_\d+)?(?:/.*)?"
_KERAS_SLOTS = {
    *("m", "v", "vhat", "velocity", "momentum", "rms", "mg", "accumulator", "linear", "accum_grad", "accum_var"),
    *("average", "average_gradient", "accumulated_grad", "accumulated_delta_var", "u", "r", "c"),
}
# What an optimizer of tf.keras has once; every one has the first two.
_KERAS_ONCE = {"learning_rate", "decay", "iter", "beta_1", "beta_2", "momentum", "rho", "beta", "learning_rate_power"}
# What an optimizer of Keras had once before: this counter, and a rate. Its slots are not named after variables.
_KERAS_2_COUNTER, _KERAS_2_RATES = "iterations", ("lr", "learning_rate")
_KERAS_2_ONCE = _KERAS_ONCE | {_KERAS_2_COUNTER, "lr", "m_schedule"}
_KERAS_2_SLOT = r"(?:Variable|moment|(?:delta_)?accumulator|m|v|u|vhat)(?:_\d+)*"
# What an optimizer of Keras 3 has once; the first two prove that there is one. (Nadam's is just named `variable`.)
_KERAS_3_ONCE = {"iteration", "learning_rate", "dynamic_scale", "step_counter"}
_KERAS_3_NAMES |= {"loss_scale_optimizer": "LossScale"}
_KERAS_3_SLOT = (
    r"(?s)(.+?)_(?:momentum|velocity|velocity_hat|norm|accumulator|linear|average_gradient"
    r"|accumulated_(?:grad|delta_var)|average|gradient_accumulator|r|c|v)"
)
# Of weights alone: layers/dense/vars/0, _layer_checkpoint_dependencies/dense/vars/0, and the optimizer's.
_KERAS_3_VARS = r"(?s)(?:(?P<optimizer>optimizer)/|(?P<metrics>metrics)/)?(?:.*/)?vars/\d+"


def slot_owners(
    names: Collection[str], graph: ObjectGraph | None = None, of_optimizers: Collection[str] = ()
) -> dict[str, str]:
    """The variables among `names` that are slots, with the name of the optimizer each belongs to.

    Args:
        names: all names of the checkpoint: a slot is known by its variable.
        graph: the object graph; None: there is none, or it can't be read.
        of_optimizers: those that are known to be an optimizer's, whatever their names.
    """
    if graph is None and any(ATTRIBUTES_IN_KEY in name for name in names):
        graph = object_graph_from_keys(names)
    by_name = [name for name in names if ATTRIBUTES_IN_KEY not in name]
    found = {name: owner for name in by_name if (owner := _owner(name, names))}
    if powers := {name for name in found if _kind(name.rpartition("/")[2]) == _POWER}:
        slots = {name: owner for name, owner in found.items() if name not in powers}
        slots |= _slots_of_named_adams(by_name, sum("beta1" in name.rpartition("/")[2] for name in powers), slots)
        is_adam = {"Adam", "AdaMax"} & set(slots.values()) or len(
            {_unnumbered(n.rpartition("/")[2]) for n in powers}
        ) > 1
        found = slots | (dict.fromkeys(powers, "Adam") if is_adam else {})
    found |= _keras_3_owners(names)
    found |= _owners_by_objects(names, graph) if graph else {}
    return {name: _keras_3_owner(name) or "optimizer" for name in of_optimizers} | found


def _slots_of_named_adams(names: Sequence[str], powers: int, slots: Mapping[str, str]) -> dict[str, str]:
    """The slots of Adams that the program named, whose slots bear that name: w/Mine, w/Mine_1.

    An Adam has two slots for each variable, and one beta1_power: there are at most as many Adams as those. What is
    trained is no slot; nor, to be sure, is anything below a variable that an unnamed Adam trains.
    """
    there, kinds = set(names), set[str]()
    trained = {slot.rpartition("/")[0] for slot, owner in slots.items() if owner == "Adam"}
    for second in (name for name in names if name.endswith("_1")):
        first = second.removesuffix("_1")
        head, _, last = first.rpartition("/")
        if first in there and second not in slots and not trained & {head, first, second} and _is_scoped(head, there):
            kinds.add(last)
    if not 0 < len(kinds) <= powers - ("Adam" in slots.values()):
        return {}
    ends = ((name, *name.rpartition("/")[::2]) for name in names)
    named = ((name, head) for name, head, last in ends if last in kinds or _unnumbered(last) in kinds)
    return {name: "Adam" for name, head in named if _is_scoped(head, there)}


def _keras_3_owners(names: Collection[str]) -> dict[str, str]:
    """The variables of Keras 3's optimizers in an HDF5 file of its own."""
    heads = {name.rpartition("/")[0] for name in names if name.endswith("/iteration")}
    last_of = {head.rpartition("/")[2] for head in heads if f"{head}/learning_rate" in names}
    # A program's second Adam is adam_1.
    owners = {kind: _KERAS_3_NAMES.get(_unnumbered(kind)) for kind in last_of}
    kinds = {kind: owner for kind, owner in owners.items() if owner}
    joined = {name.replace("/", "_") for name in names} if kinds else set()
    found = {}
    for name in names if kinds else ():
        head, _, last = name.rpartition("/")
        # Nadam's unnamed variable is in its scope only if a training step made it.
        is_unnamed, slot = _unnumbered(last) == "variable", re.fullmatch(_KERAS_3_SLOT, last)
        owner = kinds.get(head.rpartition("/")[2])
        if is_unnamed and not head and "Nadam" in kinds.values():
            owner = "Nadam"
        if owner and (last in _KERAS_3_ONCE or is_unnamed or (slot and slot[1] in joined)):
            found[name] = owner
    return found | {name: "optimizer" for name, what in beside_numbered_weights(names).items() if what == "optimizer"}


def beside_numbered_weights(names: Collection[str]) -> dict[str, str]:
    """In an HDF5 file of Keras 3 with weights alone, what is no weight: name → "optimizer" or "metrics"."""
    numbered = (name for name in names if "vars/" in name)
    found = {name: match.lastgroup for name in numbered if (match := re.fullmatch(_KERAS_3_VARS, name))}
    return {name: what for name, what in found.items() if what} if None in found.values() else {}


def _owners_by_objects(names: Collection[str], graph: ObjectGraph) -> dict[str, str]:
    stored, full_names = graph.stored(names), _full_names(graph)
    owners: dict[str, str] = {}
    for optimizer, owner in optimizer_names(graph).items():
        for node in graph.own_variables(optimizer):
            owners |= dict.fromkeys(stored.get(node, ()), owner)
    for keys in stored.values():
        for key, attribute in keys.items():
            by_name = attribute.full_name and _owner(attribute.full_name, full_names)
            if by_name:
                owners.setdefault(key, by_name)
    return owners


def optimizer_names(graph: ObjectGraph) -> dict[int, str]:
    """The optimizers of an object graph, with the name of each; "optimizer" where nothing tells it."""
    full_names = _full_names(graph)
    return {node: _optimizer_name(graph, node, full_names) for node in sorted(graph.optimizers)}


def _optimizer_name(graph: ObjectGraph, optimizer: int, full_names: Collection[str]) -> str:
    own = [attribute.full_name for node in graph.own_variables(optimizer) for attribute in graph.attributes(node)]
    own += [name for name, _ in graph.children(optimizer)]
    found = (_owner(name, full_names) or _keras_3_owner(name) for name in own if name)
    path = graph.paths.get(optimizer, "")
    return next(filter(None, found), None) or _keras_3_owner(path.rpartition("/")[2]) or "optimizer"


def _keras_3_owner(name: str) -> str | None:
    keras = re.fullmatch(_KERAS_3, name)
    return _KERAS_3_NAMES[keras[1].lower()] if keras else None


def _full_names(graph: ObjectGraph) -> set[str]:
    return {attribute.full_name for node in range(len(graph)) for attribute in graph.attributes(node)} - {""}


def _owner(name: str, names: Collection[str]) -> str | None:
    head, slash, last = name.rpartition("/")
    kind = _kind(last)
    if slash and kind in _SUFFIXES and (_is_scoped(head, names) or is_slot_of_part(name, names)):
        return kind
    if kind == _POWER:
        return "Adam"
    if kind == _FACTORED and _is_scoped(name.rpartition("_slot_")[0], names):
        return "Adafactor"
    return _keras_owner(name, names) if head and _keras_scope().search(f"/{head}/") else None


# There are few last segments, however many variables.
@lru_cache(4096)
def _kind(last: str) -> str | None:
    """Whose slot a variable whose name ends in this segment can be."""
    kind = _KINDS.get(last) or _KINDS.get(_unnumbered(last))
    return kind or (_FACTORED if last.endswith(_FACTORS) else None)


@cache
def _keras_scope() -> re.Pattern[str]:
    return re.compile(_KERAS_SCOPE)


def _unnumbered(segment: str) -> str:
    """`Adam` of `Adam_1`; other names as they are."""
    name, _, number = segment.rpartition("_")
    return name if number.isdecimal() else segment


def _keras_owner(name: str, names: Collection[str]) -> str | None:
    keras = re.fullmatch(_KERAS, name)
    if not keras:
        return None
    first, _, behind = keras[2].partition("/")
    ahead, _, last = keras[2].rpartition("/")
    if (first in _KERAS_SLOTS and behind in names) or (last in _KERAS_SLOTS and ahead in names):
        return keras[1]
    scope = name.removesuffix(keras[2])
    if keras[2] in _KERAS_ONCE and f"{scope}learning_rate" in names and f"{scope}decay" in names:
        return keras[1]
    if keras[2] in _KERAS_2_ONCE and _is_of_keras_2(scope, names):
        return keras[1]
    # A second model's optimizer has its slots in training_1/Adam, but what it has once in Adam_1.
    if _is_of_keras_2(f"{keras[1]}/", names) and re.fullmatch(_KERAS_2_SLOT, keras[2]):
        return keras[1]
    return None


def _is_of_keras_2(scope: str, names: Collection[str]) -> bool:
    return f"{scope}{_KERAS_2_COUNTER}" in names and any(f"{scope}{rate}" in names for rate in _KERAS_2_RATES)


# No optimizer is in more scopes; a name of a hundred thousand segments is not tried whole.
_MOST_SCOPES = 100


def _is_scoped(name: str, names: Collection[str]) -> bool:
    """Whether `name`, with or without some of its first segments, is one of the variables."""
    return scoped(name, names) is not None


def is_slot_of_part(name: str, names: Collection[str]) -> bool:
    """Whether a variable is the slot of a part of a partitioned one, whose name `scope/w/part_0/Adagrad` TensorFlow has
    cut in the wrong place.

    (tensorflow/python/training/slot_creator.py, _create_slot_var)
    """
    head, _, last = name.rpartition("/")
    end = head.rpartition("/")[2]
    number = end[len(end.rstrip("0123456789")) :]
    if not number or not f"part_{number}".endswith(end) or _kind(last) not in _SUFFIXES:
        return False
    whole = head
    for _ in range(_MOST_SCOPES if end == f"part_{number}" else 1):  # A cut end is all that is left.
        whole = whole.rpartition("/")[0]
        if not whole:
            break
        part, rest = f"/{whole}/part_{number}", head[len(whole) + 1 :]
        if whole in names and (part.endswith(rest) or rest.endswith(part)):
            return True
    return False


def scoped(name: str, names: Collection[str]) -> str | None:
    """The variable called `name`, or that without some of its first segments; None if there is none."""
    for _ in range(_MOST_SCOPES):
        if not name or name in names:
            break
        name = name.partition("/")[2]
    return name if name and name in names else None
