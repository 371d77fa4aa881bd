"""What `export` says about its changes: what is dropped, what was asked for in vain, what TensorFlow will not find,
what casts lose.
"""

import re
from typing import TYPE_CHECKING

from ckpttool import render
from ckpttool.cli import options
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY, stored_end

if TYPE_CHECKING:
    from ckpttool.transforms.changes import Changed, Changes

_MOST_WARNINGS = 10


def say_changes(changed: "Changed", changes: "Changes", before: Checkpoint) -> None:
    """Says what changed nothing, and how much was dropped, for each reason."""
    for what in changed.idle:
        render.say(f"note: {what}")
    for rule in changes.rules:
        if re.search(r"\$\d", rule.replacement):
            render.say(f"note: {str(rule)!r}: $ stands for itself; the first group is \\1")
    dropped: dict[str, list[int]] = {}
    for name, reason in changed.dropped.items():
        dropped.setdefault(reason, []).append(before[name].nbytes)
    for reason, sizes in sorted(dropped.items()):
        render.say(f"dropped {render.counted(len(sizes), 'variable')}, {render.human_bytes(sum(sizes))} · {reason}")


def warn_of_lost_objects(changed: "Changed", before: Checkpoint) -> None:
    """Says if TensorFlow 2 will no longer restore its checkpoint, or not all of it."""
    if OBJECT_GRAPH_KEY not in before:
        return
    refused = "tf.train.Checkpoint will not restore"
    objects = [old for old in changed.names if stored_end(old)]
    others = [old for old in changed.names if old != OBJECT_GRAPH_KEY and not stored_end(old)]
    graph = before.readable_object_graph
    if others and not (graph and graph.has_own_savers):  # Registered code may have saved them.
        count = render.counted(len(others), "variable")
        options.warn([f"{refused} {count} that no object has: {others[0]!r}"])
    if objects and OBJECT_GRAPH_KEY not in changed.names:
        options.warn([f"without the object graph, {refused} this"])
        return
    lost = [changed.names[old] for old in objects if not _is_found(old, changed.names[old])]
    if lost:
        count = render.counted(len(lost), "variable")
        options.warn([f"{refused} {count}: the new names lack their end, /.ATTRIBUTES/…: {lost[0]!r}"])


def warn_of_other_layout(path: str) -> None:
    """Says if Keras would take a file in its older layout for one in the newer."""
    if path.endswith(".weights.h5"):
        options.warn(
            [f"Keras since 2.12 expects another layout in a .weights.h5, and will not load {path}: name it .h5 alone"]
        )


def say_objects_keep_their_names(changed: "Changed") -> None:
    """Says that renaming keys renames no objects: TensorFlow 2 finds values by the object graph's names of children."""
    names = {old: new for old, new in changed.names.items() if old != new and old not in changed.averages}
    if OBJECT_GRAPH_KEY in changed.checkpoint and any(_is_found(*pair) for pair in names.items()):
        render.say(
            "note: TensorFlow 2 restores by the object graph, whose objects keep their names: tf.train.Checkpoint"
            " finds them as it did in the source, and only readers of keys see the new names"
        )


def _is_found(old: str, new: str) -> bool:
    """Whether TensorFlow 2 finds a value under its new name (see transforms.object_graph)."""
    return new.endswith(stored_end(old))


def warn_of_losses(changed: "Changed") -> None:
    """Says which values a cast has changed, which is known after writing."""
    losses = changed.casts.losses
    for kind in ("overflowed", "underflowed"):
        found = [(name, loss) for name, loss in sorted(losses.items()) if getattr(loss, kind)]
        options.warn(
            f"{name}: {getattr(loss, kind):,} of {render.counted(loss.elements, 'value')} {kind} in"
            f" {changed.checkpoint[name].dtype.name}"
            for name, loss in found[:_MOST_WARNINGS]
        )
        if len(found) > _MOST_WARNINGS:
            options.warn([f"values {kind} in {len(found) - _MOST_WARNINGS:,} more variables"])
    rounded, elements = sum(loss.rounded for loss in losses.values()), sum(loss.elements for loss in losses.values())
    if rounded:
        options.warn([f"{rounded:,} of {render.counted(elements, 'cast value')} were rounded"])
