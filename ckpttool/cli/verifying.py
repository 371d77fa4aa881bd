"""The command that checks."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import CheckpointError
from ckpttool.formats.checkpoint_state import STATE_FILE
from ckpttool.formats.locate import state_entries
from ckpttool.formats.opening import open_graph

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.findings import Finding

_WRONG = 1


def verify(
    path: options.CheckpointPath,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also what no reader minds: gaps, padding, numbers that are too long.")
    ] = False,
    nan: Annotated[bool, typer.Option("--nan", help="Also variables with NaN or infinite values.")] = False,
    v1: options.V1 = False,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Check all of a checkpoint: index, files, every value's checksum, slices, object graph, .meta, state file.

    ckpttool verify model.ckpt

    Exit code 0: nothing is wrong; 1: something is. It does not stop at the first fault.
    """
    from ckpttool.formats.verifying import strict_findings, verify
    from ckpttool.reports import findings as reports

    wanted = options.format_of(format, as_json)
    found = options.located(path, quiet, v1=v1, step=step)
    with render.progress("Verifying", _size(found)) as progress:
        verified = verify(found, progress)
    findings = [*verified.findings, *_others(found, verified.checkpoint)]
    if strict:
        findings += strict_findings(verified.checkpoint)
    if nan:
        findings += reports.not_finite(verified.checkpoint, verified.whole)
    facts: dict[str, Any] = {"path": verified.checkpoint.path, "format": verified.checkpoint.format}
    facts |= {"variables": len(verified.checkpoint), "whole": len(verified.whole), "causes": list(verified.causes)}
    if findings or wanted == "json":
        report = reports.findings(findings)
        render.render([report], format=wanted, schema="ckpttool.verify/1", facts=facts, everything=everything)
    for cause in verified.causes:
        render.say(f"it looks so: {cause}")
    if not quiet:
        count = render.counted(len(verified.checkpoint), "variable")
        render.say(f"{len(verified.whole):,} of {count} whole · {verified.checkpoint.path}")
    if findings:
        raise typer.Exit(_WRONG)


def _size(found: "Located") -> int:
    """Bytes of values, as far as they can be told."""
    from ckpttool.formats.opening import open_checkpoint

    try:
        return sum(variable.nbytes for variable in open_checkpoint(found, faults=[]).values())
    except CheckpointError:
        return 0


def _others(found: "Located", checkpoint: "Checkpoint") -> list["Finding"]:
    """What is wrong with what stands beside the variables: object graph, graph, state file."""
    from ckpttool.model.findings import Finding, finding_of
    from ckpttool.transforms.agreement import disagreements, object_disagreements

    checks: dict[str, Callable[[], list[Finding]]] = {
        "objects": lambda: object_disagreements(checkpoint),
        "graph": lambda: disagreements(open_graph(found), checkpoint) if found.graph else [],
        "state": lambda: _of_state(os.path.dirname(found.prefix) or "."),
    }
    findings: list[Finding] = []
    for kind, check in checks.items():
        try:
            findings += check()
        except CheckpointError as error:
            findings.append(finding_of(error, kind))
    return findings


def _of_state(directory: str) -> list["Finding"]:
    """A state file that names what is gone as the latest checkpoint."""
    from ckpttool.model.findings import Finding

    path = os.path.join(directory, STATE_FILE)
    gone = (entry.written for entry in state_entries(directory) if entry.is_latest and not entry.prefix)
    hint = "ckpttool state tells more"
    return [Finding("state", f"the latest checkpoint it names is gone: {name}; {hint}", path) for name in gone]
