"""The command that checks."""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import CheckpointError
from ckpttool.formats.opening import open_checkpoint, require_readable

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.formats.verifying import Verified


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

    HDF5, safetensors and .npy files have no checksums of values to test: they are read. Those of .npz and .keras are
    tested.
    """
    from ckpttool.formats.verifying import completed, has_checksums
    from ckpttool.reports import findings as reports

    wanted = options.format_of(format, as_json)
    found = options.located(path, quiet, v1=v1, step=step)
    verified = verified_of(found)
    checkpoint = verified.checkpoint
    require_readable(found, checkpoint)
    findings = completed(found, verified, strict=strict).findings
    if found.foreign and not strict and not quiet:
        options.warn(checkpoint.warnings)
    shown = [reports.findings(findings)] if findings or wanted == "json" else []
    if nan:
        with render.progress("Looking for NaN", sum(checkpoint[name].nbytes for name in verified.whole)) as progress:
            shown.append(reports.not_finite(checkpoint, verified.whole, progress))
    facts = {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "variables": len(checkpoint),
        "whole": len(verified.whole),
        "checksums": has_checksums(checkpoint),
        "causes": list(verified.causes),
    }
    shown = [report for report in shown if report.rows or wanted == "json"]
    if shown:
        render.render(shown, format=wanted, schema="ckpttool.verify/1", facts=facts, everything=everything)
    for cause in verified.causes:
        render.say(f"likely cause: {cause}")
    if not quiet:
        _say_result(verified)
    if any(report.rows for report in shown):
        raise typer.Exit(options.ANSWER_IS_NO)


def verified_of(found: "Located") -> "Verified":
    """What is located, as far as it can be listed, and what is wrong with it; with a progress bar."""
    from ckpttool.formats.verifying import verify_values

    faults: list[CheckpointError] = []
    checkpoint = open_checkpoint(found, faults=faults)
    with render.progress("Verifying", sum(variable.nbytes for variable in checkpoint.values())) as progress:
        return verify_values(checkpoint, faults, progress)


def _say_result(verified: "Verified") -> None:
    from ckpttool.formats.verifying import has_checksums

    checkpoint = verified.checkpoint
    if not has_checksums(checkpoint):
        render.say("note: no checksums to test: values were read")
    unlisted = {found.variable for found in verified.findings} - {"", *checkpoint}
    count = render.counted(len(checkpoint) + len(unlisted), "variable")
    others = ", of those that the index still lists" if verified.is_lossy else ""
    render.say(f"{len(verified.whole):,} of {count} whole{others} · {checkpoint.path}")
