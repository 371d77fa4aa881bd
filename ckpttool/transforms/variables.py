"""Checkpoint → checkpoint with other variables, or other names for them. Values are not touched.

What is stored beside the variables follows: the keys in an object graph are mended, and if the variables were stored in
the order of their names, they are in the order of the new ones.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from ckpttool.errors import ConversionError, NotFoundError
from ckpttool.model.averages import averages_of_others, averages_of_variables
from ckpttool.model.checkpoint import Checkpoint, require_checkpoint
from ckpttool.model.names import near_hint, require_one_of, selector, unmatched
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, VALUE
from ckpttool.model.slots import MOVING_AVERAGE, slot_owners
from ckpttool.model.texts import to_bytes
from ckpttool.transforms.object_graph import mended_object_graph


def select(
    checkpoint: Checkpoint, include: Sequence[str] = (), exclude: Sequence[str] = (), *, with_object_graph: bool = False
) -> Checkpoint:
    """The variables whose names match one of `include` (all if there is none) and none of `exclude`.

        >>> ckpttool.select(checkpoint, ["dense/**"], exclude=["*Adam*"])

    In a pattern, `*` stays within a segment of a name, `**` crosses segments, and `?` and `[ab]` are one character; in
    one without `/`, `*` matches anything. In a checkpoint of TensorFlow 2, the patterns are also about the paths of the
    variables' objects, and the names that TensorFlow 1 would have given (see `Checkpoint.places`).

    Args:
        checkpoint: whose variables.
        include: globs, or a single one as a str; none: all names.
        exclude: globs, or a single one as a str.
        with_object_graph: if anything is chosen, choose the object graph too, without which TensorFlow 2 restores
            nothing; unless `exclude` matches it.

    Raises:
        TypeError: a glob is not a str.
    """
    require_checkpoint(checkpoint)
    chosen = chosen_names(checkpoint, include, exclude, with_object_graph=with_object_graph)
    return checkpoint if len(chosen) == len(checkpoint) else without(checkpoint, checkpoint.keys() - chosen)


def chosen_names(
    checkpoint: Checkpoint, include: Sequence[str], exclude: Sequence[str], *, with_object_graph: bool
) -> set[str]:
    """The names that `select` selects."""
    include, exclude = _listed(include), _listed(exclude)
    for glob in (*include, *exclude):
        if not isinstance(glob, str):
            raise TypeError(f"a glob is a text, not {glob!r}")
    if not include and not exclude:
        return set(checkpoint)
    is_chosen, names = selector(include, exclude), _other_names(checkpoint, [*include, *exclude])
    chosen = {name for name in checkpoint if is_chosen(name, *names.get(name, ()))}
    if with_object_graph and chosen and OBJECT_GRAPH_KEY in checkpoint and selector((), exclude)(OBJECT_GRAPH_KEY):
        chosen.add(OBJECT_GRAPH_KEY)
    return chosen


def _other_names(checkpoint: Checkpoint, globs: Iterable[str]) -> dict[str, list[str]]:
    """Key → the other names by which a variable is found: TensorFlow 2's, and those of `globs` that are paths to its
    object.
    """
    names = {key: [*filter(None, place)] for key, place in checkpoint.places.items()}
    for path in globs:
        for key in checkpoint.keys_of(path):
            names.setdefault(key, []).append(path)
    return names


def idle_globs(checkpoint: Checkpoint, globs: Sequence[str]) -> list[str]:
    """The patterns that match nothing."""
    others = _other_names(checkpoint, globs).values() if globs else ()
    return unmatched(globs, {*checkpoint, *chain.from_iterable(others)})


def _listed(texts: Iterable[str]) -> list[str]:
    """The texts as a list. A single one would otherwise be taken for its letters."""
    return [texts] if isinstance(texts, str) else list(texts or ())


def without(checkpoint: Checkpoint, names: Collection[str]) -> Checkpoint:
    """The checkpoint without some of its variables."""
    dropped = set(names)
    return renamed(checkpoint, {name: name for name in checkpoint if name not in dropped})


def salvage(checkpoint: Checkpoint, damaged: Collection[str]) -> Checkpoint:
    """The checkpoint without what is damaged, which its object graph no longer mentions."""
    names = {name: name for name in checkpoint if name not in damaged}
    kept = {name: checkpoint[name] for name in names}
    if OBJECT_GRAPH_KEY in kept:
        kept[OBJECT_GRAPH_KEY] = mended_object_graph(checkpoint, names, is_damaged=True)
    return checkpoint.with_variables(kept)


def slots(checkpoint: Checkpoint) -> dict[str, str]:
    """Name of a variable that an optimizer keeps beside the weights → name of the optimizer.

    Moving averages are no optimizer's: see `use_moving_averages`.
    """
    return {name: owner for name, owner in _slot_owners(checkpoint).items() if owner != MOVING_AVERAGE}


def _slot_owners(checkpoint: Checkpoint) -> dict[str, str]:
    return slot_owners(checkpoint.keys(), checkpoint.object_graph, checkpoint.of_optimizers)


def drop_slots(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without its optimizers' variables, found by name or, of TensorFlow 2, by the object graph."""
    require_checkpoint(checkpoint)
    return without(checkpoint, slots(checkpoint))


_OTHERWISE_NAMED = "if they have another name, as w/NAME has: --include '**/NAME' --rename '/NAME$=>'"


def averages_as_variables(checkpoint: Checkpoint, chosen: Collection[str] | None = None) -> dict[str, str]:
    """Old name → new name, of what is left after moving averages took their variables' places.

    Args:
        checkpoint: with the averages and their variables.
        chosen: the names to be considered; None: all. An average may take the place of a variable that is not among
            them.

    Raises:
        NotFoundError: there are no moving averages.
        ConversionError: only a part of an average is stored, and its variable is whole.
    """
    names = checkpoint.keys() if chosen is None else chosen
    found, others = averages_of_variables(checkpoint), averages_of_others(checkpoint)
    averages = {average: variable for average, variable in found.items() if average in names}
    if not averages:
        what = f": {min(others)} is the average of no variable" if others and not found else ""
        hint = "there are such, and they were not chosen" if found else _OTHERWISE_NAMED
        raise NotFoundError(f"no moving averages (…/ExponentialMovingAverage){what}", path=checkpoint.path, hint=hint)
    for average, variable in averages.items():
        if checkpoint[average].lacking and variable in checkpoint and not checkpoint[variable].lacking:
            what = f"it can't take the place of {variable}, which is whole: it {checkpoint[average].lacking}"
            hint = f"without it, {variable} keeps its value: --exclude {average}"
            raise ConversionError(what, variable=average, path=checkpoint.path, hint=hint)
    gone = {name for name, owner in _slot_owners(checkpoint).items() if owner == MOVING_AVERAGE and name not in others}
    gone |= set(averages.values())
    return {name: name for name in names if name not in gone} | averages


def use_moving_averages(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with each moving average in the place of its variable.

    Raises:
        NotFoundError: there are none.
        ConversionError: only a part of an average is stored, and its variable is whole.
    """
    require_checkpoint(checkpoint)
    return renamed(checkpoint, averages_as_variables(checkpoint))


class Rule(NamedTuple):
    """A rule for renaming: the pattern and its replacement, as `re.sub` takes them."""

    pattern: re.Pattern[str]
    replacement: str

    @classmethod
    def parse(cls, text: str) -> "Rule":
        r"""`REGEX=>REPL`, such as `^bert/=>` or `layer_(\d+)=>layers/\1`.

        Raises:
            ValueError: it is not such a rule; says why.
            TypeError: it is not a str.
        """
        if not isinstance(text, str):
            raise TypeError(f"a rule is a text, REGEX=>REPL, not {text!r}; a mapping has old names and new ones")
        pattern, arrow, replacement = text.partition("=>")
        if not arrow or not pattern:
            raise ValueError(f"{text!r} is not REGEX=>REPL")
        try:
            rule = cls(re.compile(pattern), replacement)
            rule.apply("")  # Refuses a missing group, whether or not the pattern matches.
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r}: {error}") from error
        return rule

    def __str__(self) -> str:
        return f"{self.pattern.pattern}=>{self.replacement}"

    def apply(self, name: str) -> str:
        return self.pattern.sub(self.replacement, name)


NAMES = ("key", "object", "full")
"""The kinds of names that variables of TensorFlow 2 have: keys, paths of objects, full names as in TensorFlow 1."""


def object_names(checkpoint: Checkpoint, kind: str) -> dict[str, str]:
    """Key of a variable of TensorFlow 2 → its name of another kind; without other things that are stored.

    Args:
        checkpoint: whose variables.
        kind: one of NAMES; "full" gives the path of a variable without a full name.

    Raises:
        ValueError: there is no such kind.
    """
    require_one_of("names", kind, NAMES)
    found = {key: place for key, place in checkpoint.places.items() if kind != "key" and key.endswith(VALUE)}
    return {key: place.full_name if kind == "full" and place.full_name else place.path for key, place in found.items()}


def new_names(names: Iterable[str], rules: Sequence[Rule], prefix: str) -> dict[str, str]:
    """Old name → new name, by the rules in order, each applied to what the one before has made; then `prefix` is
    taken from the front of each name that begins with it.

    The object graph is not a variable of the model, and keeps its name.
    """
    found = {}
    for name in names:
        new = name
        if name != OBJECT_GRAPH_KEY:
            for rule in rules:
                new = rule.apply(new)
            new = new.removeprefix(prefix)
        found[name] = new
    return found


def idle(names: Iterable[str], rules: Sequence[Rule], prefix: str) -> list[str]:
    """The arguments of `new_names` that change nothing, in words: most likely they are mistyped."""
    found, current = [], set(names) - {OBJECT_GRAPH_KEY}
    for rule in rules:
        if not any(map(rule.pattern.search, current)):
            found.append(f"{str(rule)!r} matches no name")
        current = {rule.apply(name) for name in current}
    if prefix and not any(name.startswith(prefix) for name in current):
        found.append(f"no name begins with {prefix!r}")
    return found


def rename(
    checkpoint: Checkpoint, rules: Sequence[str] | Mapping[str, str] = (), *, strip_prefix: str = "", names: str = "key"
) -> Checkpoint:
    r"""The checkpoint with its variables under other names.

        >>> ckpttool.rename(checkpoint, [r"^bert/=>", r"layer_(\d+)=>layers/\1"])

    Args:
        checkpoint: whose variables.
        rules: `REGEX=>REPL`, applied in order, as `re.sub` does; or old names, each with the new one.
        strip_prefix: is taken from the front of the names that begin with it, after the rules.
        names: of TensorFlow 2, what the rules are applied to: "key", names as they are stored; "object", the paths of
            objects; "full", the names that TensorFlow 1 would have given.

    Raises:
        ValueError: a rule can't be parsed, or `names` is none of these.
        TypeError: a rule is not a str, or a mapping has keys or values that are not.
        NotFoundError: there is no variable with an old name.
        ConversionError: two variables would have the same name, or one an empty name.
    """
    require_checkpoint(checkpoint)
    named = {name: name for name in checkpoint} | object_names(checkpoint, names)
    if isinstance(rules, Mapping):
        for text in chain(rules, rules.values()):
            if not isinstance(text, str):
                raise TypeError(f"names are texts, and a mapping of them has {text!r}")
        for name in sorted(rules.keys() - named.values()):
            what = f"no variable {name} to be renamed"
            raise NotFoundError(what, path=checkpoint.path, hint=near_hint(name, list(named.values())))
        named, rules = {old: rules.get(new, new) for old, new in named.items()}, ()
    final = new_names(named.values(), [Rule.parse(rule) for rule in _listed(rules)], strip_prefix)
    return renamed(checkpoint, {old: final[new] for old, new in named.items()})


def renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """The variables in `names` (old name → new name), under their new names.

    Raises:
        ConversionError: two variables would have the same name, or one none.
    """
    taken: dict[str, str] = {}
    for old in checkpoint:
        new = names.get(old)
        if new is None:
            continue
        if new in taken:
            raise ConversionError(f"{taken[new]!r} and {old!r} would both be named {new!r}", path=checkpoint.path)
        if not new and old:
            raise ConversionError("no name would be left", variable=old, path=checkpoint.path)
        taken[new] = old
    if all(old == new for old, new in names.items()) and len(taken) == len(checkpoint):
        return checkpoint
    olds = {old: new for new, old in taken.items()}
    if all(old == new for old, new in olds.items()):
        variables = {name: checkpoint[name] for name in taken}
    else:
        in_order, placed = list(checkpoint) == sorted(checkpoint, key=to_bytes), not _stands_by_name(checkpoint)
        ordered = sorted(taken, key=to_bytes) if in_order else list(taken)
        variables = {new: checkpoint[taken[new]].renamed(new, placed=placed) for new in ordered}
    if OBJECT_GRAPH_KEY in variables:
        variables[OBJECT_GRAPH_KEY] = mended_object_graph(checkpoint, olds)
    return checkpoint.with_variables(variables)


def _stands_by_name(checkpoint: Checkpoint) -> bool:
    """Whether each shard stores its values in the order of the names."""
    pieces = [(p.shard, p.position, to_bytes(v.name)) for v in checkpoint.values() for p in v.slices]
    return sorted(pieces) == sorted(pieces, key=lambda piece: (piece[0], piece[2], piece[1]))
