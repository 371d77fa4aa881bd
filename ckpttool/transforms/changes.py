"""Everything that may be asked of a checkpoint on its way into another file, in the order in which it is done.

    choose ─ moving averages ─ slots ─ dtypes ─ names

Patterns match the names in the checkpoint. So do rules, or those of `named_by`; only `strip_prefix` sees what the rules
have made.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ckpttool.model.averages import AVERAGE
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import such
from ckpttool.transforms import variables
from ckpttool.transforms.casting import FLOATS, Casts, cast


class Changes(NamedTuple):
    """The changes that are asked for.

    Attributes:
        include, exclude: globs (model.names).
        use_averages: put moving averages in the places of their variables.
        drop_slots: leave out optimizers' variables.
        dtypes: dtype → the one to cast it to.
        rules: by which variables are renamed.
        strip_prefix: what is then taken from the front of names.
        with_object_graph: what is chosen comes with the object graph (see `variables.select`).
        named_by: the names that rules see of TensorFlow 2 variables (see `variables.object_names`).
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    use_averages: bool = False
    drop_slots: bool = False
    dtypes: Mapping[str, str] = {}
    rules: Sequence[variables.Rule] = ()
    strip_prefix: str = ""
    with_object_graph: bool = False
    named_by: str = "key"


class Changed(NamedTuple):
    """A checkpoint after the changes.

    Attributes:
        checkpoint: it.
        names: old name → new name, of the variables that are left.
        dropped: names that were chosen and left out nevertheless, each with the reason.
        averages: the moving averages that took their variables' places, each with the variable's name.
        casts: what was lost in casts, known when the values have been written.
        idle: what was asked for and changed nothing, in words.
    """

    checkpoint: Checkpoint
    names: Mapping[str, str]
    dropped: Mapping[str, str]
    averages: Mapping[str, str]
    casts: Casts
    idle: Sequence[str] = ()


def change(checkpoint: Checkpoint, changes: Changes) -> Changed:
    """The checkpoint with the changes; values are read when it is written.

    Raises:
        NotFoundError: moving averages are asked for, and there are none.
        ConversionError: two variables would have the same name.
    """
    chosen = variables.select(checkpoint, changes.include, changes.exclude, with_object_graph=changes.with_object_graph)
    names, dropped = {name: name for name in chosen}, dict[str, str]()
    if changes.use_averages:
        names = variables.averages_as_variables(checkpoint, chosen.keys())
        dropped |= dict.fromkeys(set(names.values()) - set(names), "its moving average takes its place")
        dropped |= {name: "moving average" for name in chosen if name not in names and name not in dropped}
    averages = {old: new for old, new in names.items() if old != new}
    owners = variables.slots(checkpoint) if changes.drop_slots else {}
    if owners:
        # A slot is known by its variable, which may not be chosen; and the average of a slot replaces a slot.
        dropped |= {old: f"{owners[new]} slot" for old, new in names.items() if new in owners}
    names = {old: new for old, new in names.items() if old not in dropped}
    objects = variables.object_names(checkpoint, changes.named_by)
    named = {old: objects.get(new, new) for old, new in names.items()}
    idle = _idle(checkpoint, named, changes, has_objects=bool(objects), has_slots=bool(owners)) if named else []
    final = variables.new_names(named.values(), changes.rules, changes.strip_prefix)
    names = {old: final[new] for old, new in named.items()}
    casts = Casts()
    made = variables.renamed(chosen, names)
    made = cast(made, changes.dtypes, casts) if changes.dtypes else made
    return Changed(made, names, {name: dropped[name] for name in chosen if name in dropped}, averages, casts, idle)


def _idle(
    checkpoint: Checkpoint, names: Mapping[str, str], changes: Changes, *, has_objects: bool, has_slots: bool
) -> list[str]:
    """What was asked for and changed nothing, in words."""
    found = variables.idle(names.values(), changes.rules, changes.strip_prefix)
    left = [old for old, new in names.items() if changes.use_averages and old == new and old.endswith(AVERAGE)]
    if left:
        found.append(f"{left[0]} is the average of no variable that is there{such(len(left))}: it stays as it is")
    if changes.named_by != "key" and not has_objects:
        found.append("there is no object graph to name variables by")
    if changes.drop_slots and not has_slots:
        found.append("there are no optimizers' slots to drop")
    if changes.dtypes and not any(checkpoint[name].dtype.name in changes.dtypes for name in names):
        found.append("there is nothing to cast")
    return found


def dtypes_of(to: str | None, pairs: Mapping[str, str]) -> dict[str, str]:
    """The casts of `--cast` (all floating-point numbers) and `--dtype-map`, which has precedence."""
    return (dict.fromkeys(FLOATS - {to}, to) if to else {}) | dict(pairs)
