"""What `export --salvage` does before it exports: tells what is whole from what is not, and says so."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.cli.verifying import verified_of
from ckpttool.formats.opening import require_readable

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.findings import Finding
    from ckpttool.transforms.changes import Changes


class Salvaged(NamedTuple):
    """What is left of a checkpoint.

    Attributes:
        before: what could be listed.
        checkpoint: of that, what is whole.
        lost: the names of what is not and was asked for, each with the reason.
        faults: what keeps the rest from being listed; None: nobody has looked for damage, and `checkpoint` is all.
    """

    before: "Checkpoint"
    checkpoint: "Checkpoint"
    lost: Mapping[str, str] = {}
    faults: Sequence["Finding"] | None = None

    @property
    def is_whole(self) -> bool:
        return not self.lost and not self.faults


def salvaged_from(path: str, found: "Located", changes: "Changes", quiet: bool, *, strict: bool) -> Salvaged:
    """What is whole of what is located. What is not is said: each variable that was asked for, and the cause."""
    from ckpttool.transforms.variables import chosen_names, salvage

    verified = verified_of(found)
    options.say_opened(path, found, verified.checkpoint, quiet)
    passed_over = options.passed_over(found, verified.checkpoint)
    options.warn(() if quiet else passed_over)
    require_readable(found, verified.checkpoint)
    options.require_all(passed_over, found.prefix, strict=strict)
    faults = [finding for finding in verified.findings if finding.kind == "index"]
    # Objects' paths are those of the whole checkpoint: of what is left, none leads to what is not.
    chosen = chosen_names(
        verified.checkpoint, changes.include, changes.exclude, with_object_graph=changes.with_object_graph
    )
    lost = {name: reason for name, reason in verified.damaged.items() if name in chosen}
    options.warn(_line(fault) for fault in faults)
    named = ((name, f"left out: {reason}") for name, reason in lost.items())
    options.warn_of_each(named, " · --salvage --dry-run lists them")
    for cause in verified.causes:
        render.say(f"likely cause: {cause}")
    if not verified.whole:
        render.say("nothing is whole")
        raise typer.Exit(options.ANSWER_IS_NO)
    is_sound = not verified.damaged and not faults
    whole = verified.checkpoint if is_sound else salvage(verified.checkpoint, verified.damaged)
    return Salvaged(verified.checkpoint, whole, lost, faults)


def _line(fault: "Finding") -> str:
    return " · ".join(part for part in (fault.what, fault.variable, fault.path) if part)
