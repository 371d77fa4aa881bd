"""Checks of a whole checkpoint, which go on where a reader stops.

index ── what can be listed, and what is wrong with the rest        (formats.opening, with `faults`)
files ── there, and long enough for what the index says             `files`
data  ── every checksum, on both cores; every value of what has none  `data`
causes ─ what all of this together looks like                       `causes`
strict ─ what no reader minds: gaps, padding, numbers longer than they need be
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ckpttool.errors import CheckpointError
from ckpttool.formats import bundle, tensor_slices
from ckpttool.formats.verifying.causes import causes
from ckpttool.formats.verifying.data import damaged_data
from ckpttool.formats.verifying.files import absent_data, stored_pieces
from ckpttool.formats.verifying.strictness import strict_findings
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding, finding_of

__all__ = ["Verified", "has_checksums", "strict_findings", "verify"]


class Verified(NamedTuple):
    """What a verification has found.

    Attributes:
        checkpoint: what could be listed.
        findings: what is wrong, in the order: index, files, data.
        causes: what the findings look like together, in words.
        damaged: the names of variables that can be listed, and whose values are not whole, each with the reason.
    """

    checkpoint: Checkpoint
    findings: Sequence[Finding]
    causes: Sequence[str]
    damaged: Mapping[str, str]

    @property
    def whole(self) -> list[str]:
        """The names of the variables that are whole."""
        return [name for name in self.checkpoint if name not in self.damaged]


def verify(
    checkpoint: Checkpoint,
    faults: Sequence[CheckpointError] = (),
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Verified:
    """Checks the values of a checkpoint, and does not stop at what is wrong.

    Args:
        checkpoint: what could be listed.
        faults: what `open_checkpoint` found wrong with the rest.
        progress: is told the bytes of values that have been checked.
    """
    stored = stored_pieces(checkpoint)
    absent = absent_data(stored)
    there = [each for each in stored if each.variable.name not in absent.variables]
    damaged = list(damaged_data(there, progress))
    lacking = [Finding("index", what, checkpoint.files[0], v.name) for v in checkpoint.values() if (what := v.lacking)]
    reasons = {**{finding.variable: finding.what for finding in reversed([*lacking, *damaged])}, **absent.variables}
    return Verified(
        checkpoint,
        [*(finding_of(error, "index") for error in faults), *lacking, *absent.findings, *damaged],
        causes(checkpoint, faults, stored, absent, damaged),
        {name: reasons[name] for name in checkpoint if name in reasons},
    )


def has_checksums(checkpoint: Checkpoint) -> bool:
    """Whether its format keeps checksums of values; of others we know no more than that they can be read."""
    return checkpoint.format in (bundle.FORMAT, tensor_slices.FORMAT, "NumPy archive (.npz)")
