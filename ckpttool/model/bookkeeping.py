"""What is stored and neither trained nor an optimizer's slot: counters, rates, tables, by their names.

In an object-based checkpoint the attribute or the object's name tells. TensorFlow 1 has only names: a name counts here
if only one writer gives it, or if it stands beside others that only one writer gives together.

(tensorflow/python/checkpoint/checkpoint.py, ops/lookup_ops.py, data/ops/iterator_ops.py, trackable/python_state.py;
python/training/experimental/loss_scale.py, moving_averages.py WeightedMovingAverage; contrib/mixed_precision,
contrib/layers/python/layers/optimizers.py)
"""

import re
from collections.abc import Collection

from ckpttool.model.object_keys import ATTRIBUTES_IN_KEY, VALUE

# What an object-based checkpoint stores without its being trained, by the object's name or by the attribute.
_COUNTERS = (
    r"(?s)(?P<save_counter>save_counter)"
    r"|(?:.*/)?(?P<metric>keras_api/metrics/[0-9]+/.+)"
    r"|(?:.*/)?(?:(?P<global_step>global_step)|(?P<random_state>seed_generator_state|_state_var))"
)
_ATTRIBUTES = {
    "iterator": r"ITERATOR.*",
    "table": r"(?s).*-(?:keys|values)",
    "Python state": r"py_state",
    "configuration": r"OBJECT_CONFIG_JSON",
}

# Last segment of a variable's name → what it is; the names of which one must stand beside it; those that may, too.
_TOGETHER = {
    "good_steps": ("loss scale", ("loss_scale", "current_loss_scale"), ("bad_steps",)),
    "value_x_weight": ("weighted average", ("weight",), ()),
}
_ENDS = tuple(end + behind for end in (*_TOGETHER, "/learning_rate") for behind in ("", VALUE))
_RATE = r"(?s)(?:.*/)?OptimizeLoss(?:_\d+)?/learning_rate"


def bookkeeping(names: Collection[str]) -> dict[str, str]:
    """Name → kind, in words, of the bookkeeping among a checkpoint's variables."""
    found = {}
    for name in names:
        if ATTRIBUTES_IN_KEY in name and (text := _of_object(name)):
            found[name] = text
        if name.endswith(_ENDS):
            found |= _by_name(name, names)
    return found


def _of_object(name: str) -> str:
    path, _, attribute = name.partition(ATTRIBUTES_IN_KEY)
    if attribute == "VARIABLE_VALUE":
        counter = re.fullmatch(_COUNTERS, path)
        return str(counter.lastgroup).replace("_", " ") if counter else ""
    return next((text for text, pattern in _ATTRIBUTES.items() if re.fullmatch(pattern, attribute)), "")


def _by_name(name: str, names: Collection[str]) -> dict[str, str]:
    path = name.removesuffix(VALUE)
    if re.fullmatch(_RATE, path):
        return {name: "learning rate"}
    scope, slash, last = path.rpartition("/")
    text, partners, more = _TOGETHER.get(last, ("", (), ()))
    placed = [[f"{scope}{slash}{each}{name[len(path) :]}" for each in few] for few in (partners, more)]
    there, further = ([each for each in few if each in names] for few in placed)
    return dict.fromkeys([name, *there, *further], text) if there else {}
