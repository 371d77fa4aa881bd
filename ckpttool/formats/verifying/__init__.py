"""Checks of a whole checkpoint, which go on where a reader stops.

index ── what can be listed, and what is wrong with the rest        (formats.opening, with `faults`)
files ── there, and long enough for what the index says             `files`
data  ── every checksum, on both cores                              `data`
causes ─ what all of this together looks like                       `causes`
strict ─ what no reader minds: gaps, padding, numbers longer than they need be
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ckpttool.errors import CheckpointError
from ckpttool.formats.locate import Located
from ckpttool.formats.opening import open_checkpoint
from ckpttool.formats.verifying.causes import causes
from ckpttool.formats.verifying.data import damaged_data
from ckpttool.formats.verifying.files import absent_data
from ckpttool.formats.verifying.strictness import strict_findings
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding, finding_of

__all__ = ["Verified", "strict_findings", "verify"]


class Verified(NamedTuple):
    """What a verification has found.

    Attributes:
        checkpoint: what could be listed.
        findings: what is wrong, in the order: index, files, data.
        causes: what the findings look like together, in words.
        damaged: the names of variables that can be listed, and whose values are not whole.
    """

    checkpoint: Checkpoint
    findings: Sequence[Finding]
    causes: Sequence[str]
    damaged: Sequence[str]

    @property
    def whole(self) -> list[str]:
        """The names of the variables that are whole."""
        damaged = set(self.damaged)
        return [name for name in self.checkpoint if name not in damaged]


def verify(found: Located, progress: Callable[[int], None] = lambda nbytes: None) -> Verified:
    """Checks everything that a checkpoint is made of, and does not stop at what is wrong.

    Args:
        found: the checkpoint.
        progress: is told the bytes of values that have been checked.

    Raises:
        CheckpointError: nothing of it can be listed.
    """
    faults: list[CheckpointError] = []
    checkpoint = open_checkpoint(found, faults=faults)
    findings = [finding_of(error, "index") for error in faults]
    absent = absent_data(checkpoint)
    damaged = damaged_data(checkpoint, absent.variables, progress)
    findings += [*absent.findings, *damaged]
    lost = {*absent.variables, *(finding.variable for finding in damaged)}
    return Verified(
        checkpoint, findings, causes(checkpoint, absent, damaged), [name for name in checkpoint if name in lost]
    )
