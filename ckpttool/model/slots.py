"""Which variables are an optimizer's own, by the names that optimizers give them.

TensorFlow 1 names a slot after its variable, possibly below scopes of the optimizer's:

    w   w/Adam   w/Adam_1   train/w/Momentum        beta1_power (one for all)

Keras puts its own name in front: `Adam/w/m`, and since 2.11 `Adam/m/w`. An object-based checkpoint says it in the
key: `w/.OPTIMIZER_SLOT/optimizer/m/…`. A name of that form counts only if the variable it is named after is there:
somebody's own variable `Momentum` is a weight.

(tensorflow/python/training/slot_creator.py, moving_averages.py; keras/optimizers; google-research/bert
optimization.py; tensor2tensor adafactor.py)
"""

import re
from collections.abc import Collection

MOVING_AVERAGE = "moving average"

# The last segment of a slot's name, by whose it is. "_1", "_2", … stand for the second slot and for further
# optimizers of the same kind.
_SUFFIXES = {
    "Adam": r"Adam|AdamW|NAdam|Nadam|AdamAsync|LazyAdam",
    "AdaMax": r"AdaMax|Adamax",
    "Momentum": r"Momentum|MomentumW",
    "RMSProp": r"RMSProp|RMSprop",
    "Adagrad": r"Adagrad|AdagradDA|ProximalAdagrad",
    "Adadelta": r"Adadelta",
    "Ftrl": r"Ftrl",
    "LARS": r"LARSOptimizer|LARS",
    "LAMB": r"LAMB|LAMBOptimizer|lamb_m|lamb_v",
    "Adam or LAMB": r"adam_m|adam_v",
    "Adafactor": r"Adafactor|AdafactorOptimizer",
    MOVING_AVERAGE: r"ExponentialMovingAverage|biased|local_step",
}
_SUFFIX = re.compile("|".join(f"({pattern})(?:_\\d+)?" for pattern in _SUFFIXES.values()))
_OWNERS = list(_SUFFIXES)
_ADAFACTOR = re.compile(r"(.+)_slot_(?:vr|vc|v|m)")
_POWERS = re.compile(r"(?:.*/)?beta[12]_power(?:_\d+)?")

# Keras: the optimizer's name somewhere in front, its slot's name behind it or at the end.
_KERAS = re.compile(
    r"(?:^|.*/)(Adam|AdamW|Nadam|Adamax|Adafactor|SGD|RMSprop|Adagrad|Adadelta|Ftrl|Lion|LAMB)(?:_\d+)?/(.+)"
)
_KERAS_SLOTS = {
    *("m", "v", "vhat", "velocity", "momentum", "rms", "mg", "accumulator", "linear", "accum_grad", "accum_var"),
    *("average_gradient", "accumulated_grad", "accumulated_delta_var", "u", "r", "c"),
}
_OBJECT_SLOT = "/.OPTIMIZER_SLOT/"
_OBJECT_OPTIMIZER = re.compile(
    r"(?:.*/)?(?:optimizer|_optimizer)/(?:_variables/\d+|_iterations|_learning_rate)/\.ATTRIBUTES/.*"
)


def slot_owners(names: Collection[str]) -> dict[str, str]:
    """The variables among `names` that are slots, with the name of the optimizer each belongs to."""
    owners = {name: _owner(name, names) for name in names}
    return {name: owner for name, owner in owners.items() if owner}


def _owner(name: str, names: Collection[str]) -> str | None:
    if _OBJECT_SLOT in name or _OBJECT_OPTIMIZER.fullmatch(name):
        return "optimizer"
    head, slash, last = name.rpartition("/")
    suffix = _SUFFIX.fullmatch(last)
    if slash and suffix and suffix.lastindex and _is_scoped(head, names):
        return _OWNERS[suffix.lastindex - 1]
    adafactor = _ADAFACTOR.fullmatch(name)
    if adafactor and _is_scoped(adafactor[1], names):
        return "Adafactor"
    if _POWERS.fullmatch(name):
        return "Adam"
    return _keras_owner(name, names)


def _keras_owner(name: str, names: Collection[str]) -> str | None:
    keras = _KERAS.fullmatch(name)
    if not keras:
        return None
    first, _, behind = keras[2].partition("/")
    ahead, _, last = keras[2].rpartition("/")
    if (first in _KERAS_SLOTS and behind in names) or (last in _KERAS_SLOTS and ahead in names):
        return keras[1]
    return None


def _is_scoped(name: str, names: Collection[str]) -> bool:
    """Whether `name`, or what is left of it without some of its first segments, is one of the variables."""
    while name:
        if name in names:
            return True
        name = name.partition("/")[2]
    return False
