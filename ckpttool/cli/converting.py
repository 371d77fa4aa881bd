"""The commands that write graphs."""

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
