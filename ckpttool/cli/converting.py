"""The commands that write."""

from typing import Annotated

import typer

from ckpttool import render
from ckpttool.cli import options


def strip_devices(
    path: options.GraphPath,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = "",
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the file itself.")] = False,
    colocation: Annotated[
        bool,
        typer.Option("--colocation", help="Also drop _class entries loc:@OP, which tie an op to another's device."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also clear whatever else names a device or host; implies --colocation.")
    ] = False,
    step: options.Step = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a graph without device placements, and everything else as it was, byte for byte.

    ckpttool strip-devices model.ckpt.meta -o anywhere.meta
    """
    from ckpttool.formats.meta_graph import write_meta_graph
    from ckpttool.transforms.devices import device_mentions, placed_ops, strip_devices

    if bool(output) == in_place:
        raise typer.BadParameter("give either an output or --in-place", param_hint="--output")
    graph = options.graph_of(path, quiet, step=step)
    placed = placed_ops(graph)
    stripped = strip_devices(graph, colocation=colocation, all=everything)
    write_meta_graph(stripped, output or graph.path, force=force, in_place=in_place)
    if quiet:
        return
    render.say(f"cleared the devices of {render.counted(placed, 'op')} · {output or graph.path}")
    for mention in device_mentions(stripped):
        text = f": {mention.text}" if mention.text else ""
        remedy = "" if everything else f" · {mention.remedy} clears it"
        render.say(f"still there: {mention.where}{text} · {render.counted(mention.times, 'time')}{remedy}")


def export(
    path: options.CheckpointPath,
    h5: Annotated[
        str, typer.Option("--h5", metavar="FILE", help="Write HDF5; variable a/b is the dataset a/b:0.")
    ] = "",
    include: options.Include = None,
    exclude: options.Exclude = None,
    compression: Annotated[
        str | None, typer.Option("--compression", metavar="gzip|lzf", help="Smaller, and many times slower.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a variable can't be held; default: leave it out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, write nothing.")] = False,
    v1: options.V1 = False,
    step: options.Step = None,
    force: options.Force = False,
    format: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a checkpoint's variables into another format, values exact and checksums tested.

    ckpttool export model.ckpt --h5 model.h5
    """
    from ckpttool.formats.hdf5 import plan_hdf5, write_hdf5
    from ckpttool.reports import checkpoints as reports

    if not h5:
        raise typer.BadParameter("give an output", param_hint="--h5")
    if compression not in (None, "gzip", "lzf"):
        raise typer.BadParameter(f"{compression!r} is not one of gzip, lzf", param_hint="--compression")
    wanted = options.format_of(format, as_json)
    options.refuse(wanted and not dry_run, "--format is about --dry-run")
    checkpoint = options.checkpoint_of(path, quiet, v1=v1, step=step)
    chosen = options.chosen(checkpoint, include, exclude)
    options.exit_if_nothing(not chosen and (include or exclude))
    if dry_run:
        facts = {"path": checkpoint.path, "output": h5}
        shown = reports.export_plan((p.variable, p.target, p.problem) for p in plan_hdf5(chosen))
        render.render([shown], format=wanted, schema="ckpttool.export/1", facts=facts)
        return
    total = sum(variable.nbytes for variable in chosen.values())
    with render.progress("Writing", total) as progress:
        left_out = write_hdf5(chosen, h5, compression=compression, strict=strict, force=force, progress=progress)
    options.warn(f"{planned.variable.name}: {planned.remark}" for planned in left_out)
    if not quiet:
        total -= sum(planned.variable.nbytes for planned in left_out)
        count = render.counted(len(chosen) - len(left_out), "variable")
        render.say(f"wrote {count}, {render.human_bytes(total)} · {h5}")
