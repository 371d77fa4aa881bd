"""Moving averages that take variables' places, and those that can't: averages of losses, of accuracies.

TensorFlow 1 names an average after what it is of; programs may give it another last name:

    w/ExponentialMovingAverage                   of a variable, which is there too
    loss/Mean/ExponentialMovingAverage           of a tensor
    total_loss/avg, Accuracy/Mean/moving_avg     the same, in TensorFlow's CIFAR-10 and TFLearn

A saver may store averages in the place of variables, so that none of these is there. If only the averages are scalars,
they are of losses.

(tensorflow/python/training/moving_averages.py; tensorflow/models tutorials/image/cifar10; tflearn/summaries.py)
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping

from ckpttool.model.slots import scoped
from ckpttool.model.variable import Variable

AVERAGE = "/ExponentialMovingAverage"
"""What TensorFlow puts behind a variable's name for its moving average's."""

_OTHERS = ("/avg", "/moving_avg")
_NAMES = (AVERAGE, *_OTHERS)


def averages_of_variables(checkpoint: Mapping[str, Variable]) -> dict[str, str]:
    """Moving average → its variable, whether or not that one is there."""
    named = [name for name in checkpoint if name.endswith(AVERAGE)]
    # `scope/w/ExponentialMovingAverage` is the average of `scope/w` or, if the average has a scope, of `w`.
    found = {name: variable for name in named if (variable := scoped(name.removesuffix(AVERAGE), checkpoint.keys()))}
    if found:
        return found
    are_of_losses = any(each.shape for each in checkpoint.values()) and not any(checkpoint[n].shape for n in named)
    return {} if are_of_losses else {name: name.removesuffix(AVERAGE) for name in named}


def averages_of_others(checkpoint: Mapping[str, Variable]) -> set[str]:
    """The moving averages of something else than variables, such as losses, and what they are computed with."""
    scalars = {name for name in checkpoint if name.endswith(_NAMES) and not checkpoint[name].shape}
    if not scalars:
        return scalars
    found = {name for name in scalars if name.endswith(AVERAGE)} - averages_of_variables(checkpoint).keys()
    found |= _without_neighbors(checkpoint, {name for name in scalars if name.endswith(_OTHERS)})
    return found | {name for name in checkpoint if name.rpartition("/")[0] in found}


def _without_neighbors(names: Collection[str], averages: Collection[str]) -> set[str]:
    """The averages that stand alone in their scope: what has an average and a deviation, say, is not a loss."""
    ordered, found = sorted(names) if averages else [], set()
    for name in averages:
        scope, slash, _ = name.rpartition("/")
        first = bisect_left(ordered, scope + slash)
        near = [other for other in ordered[first : first + 2] if other.startswith(scope + slash)]
        if near == [name] and scope not in names:
            found.add(name)
    return found
