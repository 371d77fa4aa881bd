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
from ckpttool.formats.opening import open_checkpoint, open_graph
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.formats.verifying import Verified
    from ckpttool.model.findings import Finding

_WRONG = 1


def verify(
    path: options.CheckpointPath,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Also report harmless oddities: gaps, overlaps, padding, overlong numbers."),
    ] = False,
    nan: Annotated[
        bool, typer.Option("--nan", help="Also list variables with NaN or infinite values, apart from damage.")
    ] = False,
    v1: options.V1 = False,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Check all of a checkpoint: index, files, every value's checksum, slices, object graph, .meta, state file.

    ckpttool verify model.ckpt

    It goes on after a fault, and names the likely cause of all of them. Exit code 0: nothing is wrong; 1:
    something is; 3 or 4: nothing of it can be listed. export --salvage writes the undamaged variables.

    HDF5, safetensors and .npy files have no checksums of values to test: they are read. Those of .npz are tested.
    """
    from ckpttool.formats.verifying import has_checksums, strict_findings
    from ckpttool.model.findings import Finding
    from ckpttool.reports import findings as reports

    wanted = options.format_of(format, as_json)
    found = options.located(path, quiet, v1=v1, step=step)
    verified = verified_of(found)
    checkpoint = verified.checkpoint
    options.require_some(found, checkpoint)
    findings = [*verified.findings, *_others(found, verified)]
    passed_over = checkpoint.warnings if found.foreign else ()
    if strict:
        findings += strict_findings(checkpoint)
        findings += [Finding("strict", warning, checkpoint.path) for warning in passed_over]
    elif not quiet:
        options.warn(passed_over)
    shown = [reports.findings(findings)] if findings or wanted == "json" else []
    if nan:
        with render.progress("Looking for NaN", sum(checkpoint[name].nbytes for name in verified.whole)) as progress:
            shown.append(reports.not_finite(checkpoint, verified.whole, progress))
    facts: dict[str, Any] = {"path": checkpoint.path, "format": checkpoint.format}
    facts |= {"variables": len(checkpoint), "whole": len(verified.whole), "checksums": has_checksums(checkpoint)}
    facts |= {"causes": list(verified.causes)}
    shown = [report for report in shown if report.rows or wanted == "json"]
    if shown:
        render.render(shown, format=wanted, schema="ckpttool.verify/1", facts=facts, everything=everything)
    for cause in verified.causes:
        render.say(f"likely cause: {cause}")
    if not quiet:
        _say_result(verified)
    if any(report.rows for report in shown):
        raise typer.Exit(_WRONG)


def verified_of(found: "Located") -> "Verified":
    """What is located, as far as it can be listed, and what is wrong with it; with a progress bar."""
    from ckpttool.formats.verifying import verify

    faults: list[CheckpointError] = []
    checkpoint = open_checkpoint(found, faults=faults)
    with render.progress("Verifying", sum(variable.nbytes for variable in checkpoint.values())) as progress:
        return verify(checkpoint, faults, progress)


def _say_result(verified: "Verified") -> None:
    from ckpttool.formats.verifying import has_checksums

    checkpoint = verified.checkpoint
    if not has_checksums(checkpoint):
        render.say("note: no checksums to test: values were read")
    unlisted = {found.variable for found in verified.findings} - {"", *checkpoint}
    count = render.counted(len(checkpoint) + len(unlisted), "variable")
    render.say(f"{len(verified.whole):,} of {count} whole · {checkpoint.path}")


def _others(found: "Located", verified: "Verified") -> list["Finding"]:
    """What is wrong with what stands beside the variables: object graph, graph, state file."""
    from ckpttool.analysis.agreement import disagreements, object_disagreements
    from ckpttool.model.findings import Finding, finding_of

    checkpoint = verified.checkpoint
    checks: dict[str, Callable[[], list[Finding]]] = {
        # That it is damaged has been said.
        "objects": lambda: [] if OBJECT_GRAPH_KEY in verified.damaged else object_disagreements(checkpoint),
        "graph": lambda: disagreements(open_graph(found), checkpoint) if found.graph else [],
        "state": lambda: [] if found.foreign else _of_state(os.path.dirname(found.prefix) or "."),
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
    if not os.path.isfile(path):
        return []
    gone = (entry.written for entry in state_entries(directory) if entry.is_latest and not entry.prefix)
    hint = "ckpttool state tells more"
    return [Finding("state", f"the latest checkpoint it names is gone: {name}; {hint}", path) for name in gone]
