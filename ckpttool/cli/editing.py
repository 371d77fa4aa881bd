"""The commands that write graphs."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph

_Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The file to write; of a SavedModel, a new saved_model.pb, without the variables.",
    ),
]
_InPlace = Annotated[bool, typer.Option("--in-place", help="Replace the input file.")]


def strip_devices(
    path: options.GraphPath,
    output: _Output = "",
    in_place: _InPlace = False,
    colocation: Annotated[
        bool,
        typer.Option("--colocation", help="Also drop _class entries loc:@OP, which tie an op to another's device."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also clear whatever else names a device or host; implies --colocation.")
    ] = False,
    step: options.Step = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a graph without device placements, and every other byte unchanged.

    ckpttool strip-devices model.ckpt.meta -o anywhere.meta
    """
    from ckpttool.transforms.devices import device_mentions, placed_ops, strip_devices

    options.require_output(output, in_place)
    graph = options.graph_of(path, quiet, step=step)
    placed = placed_ops(graph)
    stripped = strip_devices(graph, colocation=colocation, all=everything)
    _write(stripped, output or graph.path, dry_run, force=force, in_place=in_place)
    if quiet:
        return
    done = "would clear" if dry_run else "cleared"
    render.say(f"{done} the devices of {render.counted(placed, 'op')} · {output or graph.path}")
    for mention in device_mentions(stripped):
        text = f": {mention.text}" if mention.text else ""
        remedy = f" · {mention.remedy} clears it" if mention.remedy and not everything else ""
        render.say(f"still there: {mention.where}{text} · {render.counted(mention.times, 'time')}{remedy}")


def collections(
    path: options.GraphPath,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="NAME=TENSOR",
            help="Put a tensor (x:0) or an op (x) into a collection, new or not; may be given more than once.",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove",
            metavar="NAME[=MEMBER]",
            help="Remove a collection, or one member of it; applied before --add; may be given more than once.",
        ),
    ] = None,
    output: _Output = "",
    in_place: _InPlace = False,
    tags: options.Tags = None,
    step: options.Step = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Add members to a graph's collections, or remove them, and leave every other byte unchanged.

    ckpttool collections model.ckpt.meta --add outputs=scores:0 --in-place
    """
    from ckpttool.transforms.collections import edit_collections

    options.refuse(not (add or remove), "give --add or --remove; `ckpttool ls --collections` shows what is there")
    options.require_output(output, in_place)
    options.refuse(not all(map(options.is_text, (add or []) + (remove or []))), "--add and --remove take text in UTF-8")
    added = [_member(text) for text in add or ()]
    graph = options.graph_of(path, quiet, step=step, tags=tags)
    options.say_tags(graph, tags, quiet)
    removed = [_removal(text, graph) for text in remove or ()]
    edited = edit_collections(graph, added, removed)
    _write(edited, output or graph.path, dry_run, force=force, in_place=in_place)
    if not quiet:
        _say_collections(edited, dict.fromkeys(name for name, _ in [*removed, *added]))
        done = "would write" if dry_run else "wrote"
        render.say(f"{done} {output or graph.path}{'' if edited is not graph else ', unchanged'}")


def _write(graph: "MetaGraph", output: str, dry_run: bool, *, force: bool, in_place: bool) -> None:
    from ckpttool.formats.meta_graph import in_form_of, require_meta_graph_writable, write_meta_graph

    write = require_meta_graph_writable if dry_run else write_meta_graph
    write(in_form_of(graph, output), output, force=force, in_place=in_place)


def _member(text: str) -> tuple[str, str]:
    """NAME=TENSOR; no tensor's name has a =."""
    name, _, member = text.rpartition("=")
    if not name or not member:
        raise typer.BadParameter(f"{text!r} is not NAME=TENSOR", param_hint="--add")
    return name, member


def _removal(text: str, graph: "MetaGraph") -> tuple[str, str | None]:
    """NAME or NAME=MEMBER; where there is a collection of the whole text's name, that one."""
    if text in graph.collections or "=" not in text:
        return text, None
    name, _, member = text.rpartition("=")
    return name, member


def _say_collections(graph: "MetaGraph", names: Iterable[str]) -> None:
    """Says what the collections have become, and what TensorFlow will give for a member that is no tensor."""
    for name in names:
        there = graph.collections.get(name)
        members = [member for member in there.members if isinstance(member, str)] if there else []
        render.say(f"{name}: {', '.join(members)}" if there else f"{name}: gone")
        for op in (member for member in members if ":" not in member):
            if graph.outputs(graph.node(op)):
                render.say(f"note: {op} is the op; {op}:0 would be its output")
