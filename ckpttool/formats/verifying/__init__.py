"""Checks of a whole checkpoint, which go on after an error that makes a reader stop.

index ── what can be listed, and what is wrong with the rest        (formats.opening, with `faults`)
files ── are they there, and long enough for what the index says    `files`
data  ── every checksum, on both cores; every value of what has none  `data`
causes ─ what all of this together looks like                       `causes`
beside ─ object graph, graph and state file: are they of the same model; the archive of a `.keras` file   `beside`
strict ─ what no reader minds: gaps, padding, numbers longer than they need be
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ckpttool.errors import CheckpointError
from ckpttool.formats import bundle, tensor_slices
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.opening import open_checkpoint, require_readable
from ckpttool.formats.verifying.beside import findings_beside
from ckpttool.formats.verifying.causes import causes
from ckpttool.formats.verifying.data import damaged_data
from ckpttool.formats.verifying.files import absent_data, stored_pieces
from ckpttool.formats.verifying.strictness import strict_findings
from ckpttool.formats.zip_members import KERAS, NPZ
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.findings import Finding, finding_of
from ckpttool.model.slots import is_slot_of_part

__all__ = ["Verified", "completed", "has_checksums", "strict_findings", "verify", "verify_values"]


class Verified(NamedTuple):
    """What a verification has found.

    Attributes:
        checkpoint: what could be listed.
        findings: what is wrong, in the order: index, files, data, what stands beside them, and what is only odd.
        causes: what the findings look like together, in words.
        damaged: the names of the listed variables whose values are not whole, each with the reason.
    """

    checkpoint: Checkpoint
    findings: Sequence[Finding]
    causes: Sequence[str]
    damaged: Mapping[str, str]

    @property
    def whole(self) -> list[str]:
        """The names of the variables that are whole."""
        return [name for name in self.checkpoint if name not in self.damaged]

    @property
    def is_lossy(self) -> bool:
        """Whether the index is damaged, and may have listed more variables."""
        return any(found.kind == "index" and not found.variable for found in self.findings)


def verify(
    path: str | os.PathLike[str] | Located,
    *,
    strict: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Verified:
    """Checks a whole checkpoint: index, files, every value's checksum, object graph, `.meta`, state file.

        >>> ckpttool.verify("model.ckpt").findings
        []

    Args:
        path: as for `open_checkpoint`.
        strict: also report harmless oddities, and of other formats than TensorFlow's what could not be read.
        progress: is called with the bytes of values that have been checked.

    Raises:
        NotFoundError, FormatError, CorruptionError, NotSupportedError: nothing of it can be listed or read.
    """
    found = path if isinstance(path, Located) else locate(path)
    faults: list[CheckpointError] = []
    checkpoint = open_checkpoint(found, faults=faults)
    require_readable(found, checkpoint)
    return completed(found, verify_values(checkpoint, faults, progress), strict=strict)


def completed(found: Located, verified: Verified, *, strict: bool) -> Verified:
    """Adds what is wrong beside the values and, if `strict`, what is only odd."""
    checkpoint = verified.checkpoint
    beside = findings_beside(found, checkpoint, verified.damaged, is_lossy=verified.is_lossy)
    findings = [*verified.findings, *beside]
    if strict:
        findings += strict_findings(checkpoint)
        passed_over = checkpoint.warnings if found.foreign else ()
        findings += [Finding("strict", warning, checkpoint.path) for warning in passed_over]
    return verified._replace(findings=findings)


def verify_values(
    checkpoint: Checkpoint,
    faults: Sequence[CheckpointError] = (),
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Verified:
    """Checks the values of a checkpoint, and does not stop at what is wrong.

    Args:
        checkpoint: what could be listed.
        faults: what `open_checkpoint` found wrong with the rest.
        progress: is called with the bytes of values that have been checked.
    """
    stored = stored_pieces(checkpoint)
    absent = absent_data(stored)
    there = [each for each in stored if each.variable.name not in absent.variables]
    damaged = list(damaged_data(there, progress))
    partly = {name: what for name, variable in checkpoint.items() if (what := variable.lacking)}
    wanted = {name: what for name, what in partly.items() if not is_slot_of_part(name, checkpoint)}
    lacking = [Finding("index", what, checkpoint.files[0], name) for name, what in wanted.items()]
    reasons = {**{finding.variable: finding.what for finding in reversed([*lacking, *damaged])}, **absent.variables}
    return Verified(
        checkpoint,
        [*(finding_of(error, "index") for error in faults), *lacking, *absent.findings, *damaged],
        causes(checkpoint, faults, stored, absent, damaged),
        {name: reasons[name] for name in checkpoint if name in reasons},
    )


def has_checksums(checkpoint: Checkpoint) -> bool:
    """Whether its format has checksums of values; of others, we only know that the values can be read."""
    return checkpoint.format in (bundle.FORMAT, tensor_slices.FORMAT, NPZ, KERAS)
