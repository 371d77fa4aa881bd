"""The command that checks."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import CheckpointError
from ckpttool.formats.opening import open_graph

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.formats.verifying import Verified
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
        findings += reports.not_finite(verified)
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
