"""The commands that look."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import NotFoundError
from ckpttool.formats.checkpoint_state import STATE_FILE, is_checkpoint_state, relocate_checkpoint_state
from ckpttool.formats.listing import checkpoint_finder, state_entries
from ckpttool.formats.opening import is_whole
from ckpttool.model.names import such
from ckpttool.reports.report import Report

_SORTS = ("name", "size", "shape", "dtype", "shard")


def vars_(
    path: options.CheckpointPath,
    include: options.Include = None,
    exclude: options.Exclude = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="|".join(_SORTS), help="Default: as they are stored.")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", metavar="N", min=1, help="Only the first N.")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Group by scope, with sizes.")] = False,
    depth: Annotated[int | None, typer.Option("--depth", metavar="N", min=1, help="With --tree: N levels.")] = None,
    v1: options.V1 = False,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """List a checkpoint's variables: dtype, shape, parameters, bytes, shard; weights and optimizer slots totaled apart.

    ckpttool vars model.ckpt --sort size --top 10
    """
    from ckpttool.reports import checkpoints as reports

    options.require_known(sort, _SORTS, "--sort")
    options.refuse(depth and not tree, "--depth needs --tree")
    options.refuse(tree and (sort or top), "--tree can't be used with --sort or --top")
    wanted = options.format_of(format, as_json)
    checkpoint = options.checkpoint_of(path, quiet, v1=v1, step=step)
    chosen = options.chosen(checkpoint, include, exclude)
    if tree:
        report = reports.variable_tree(chosen, depth=depth, whole=checkpoint)
    else:
        report = reports.variables(chosen, sort=sort, top=top, whole=checkpoint)
    facts = {"path": checkpoint.path, "format": checkpoint.format}
    render.render([report], format=wanted, schema="ckpttool.vars/1", facts=facts, everything=everything)
    options.exit_if_no_match(not chosen and (include or exclude), include or (), checkpoint)


def ls(
    path: options.GraphPath,
    ops: Annotated[bool, typer.Option("--ops", "-l", help="Every op: type, device, inputs, outputs.")] = False,
    op_types: Annotated[bool, typer.Option("--op-types", help="How many ops of each type.")] = False,
    collections: Annotated[bool, typer.Option("--collections", help="Every member of every collection.")] = False,
    variables: Annotated[bool, typer.Option("--variables", help="The variables that the graph declares.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="How many ops on each device.")] = False,
    signatures: Annotated[bool, typer.Option("--signatures", help="Inputs and outputs of each signature.")] = False,
    functions: Annotated[bool, typer.Option("--functions", help="The library functions.")] = False,
    constants: Annotated[
        bool, typer.Option("--constants", help="Every constant with its bytes in the file, the largest first.")
    ] = False,
    name: Annotated[
        list[str] | None, typer.Option("--name", "-n", metavar="GLOB", help="Only names that match.")
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", "-t", metavar="TYPE", help="Only ops of this type (a glob).")
    ] = None,
    tags: options.Tags = None,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what is in a graph: ops, collections, variables, devices, signatures.

    ckpttool ls model.ckpt.meta --ops --type 'Placeholder*'
    """
    from ckpttool.reports import graphs as reports

    wanted_format = options.format_of(format, as_json)
    of_ops, of_others = (ops, op_types, variables, devices), (collections, signatures, functions, constants)
    options.refuse(
        type_ and any(of_others) and not any(of_ops), "--type is about ops, and none of these tables lists any"
    )
    graph = options.graph_of(path, quiet, step=step, tags=tags)
    options.say_tags(graph, tags, quiet)
    names, types = name or (), type_ or ()
    tables: list[tuple[bool, Callable[[], Report]]] = [
        (op_types, lambda: reports.op_types(graph, names, types)),
        (ops, lambda: reports.ops(graph, names, types)),
        (collections, lambda: reports.collection_members(graph, names)),
        (variables, lambda: reports.graph_variables(graph, names, types)),
        (devices, lambda: reports.devices(graph, names, types)),
        (signatures, lambda: reports.signatures(graph, names)),
        (functions, lambda: reports.functions(graph, names)),
        (constants, lambda: reports.constants(graph, names)),
    ]
    shown = [make() for wanted, make in tables if wanted]
    if not shown and types:
        shown = [reports.ops(graph, names, types)]
    elif not shown:
        shown = reports.overview(graph, names)
    facts = {"path": graph.path}
    render.render(shown, format=wanted_format, schema="ckpttool.ls/1", facts=facts, everything=everything)
    if signatures and not graph.signatures and not quiet:
        render.say("no signatures: io infers what to feed and what to fetch")
    if (names or types) and not any(report.rows for report in shown if report.key != "summary"):
        known = {node.type for node in graph.nodes} if types else graph.by_name
        options.exit_if_no_match(True, types or names, known)


def io(
    path: options.GraphPath,
    tags: options.Tags = None,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell what to feed and what to fetch: a graph's signatures, or what is inferred, with the reason.

    ckpttool io model.ckpt.meta
    """
    from ckpttool.analysis.graphs.endpoints import endpoints, how_to_run
    from ckpttool.reports import graphs as reports

    wanted = options.format_of(format, as_json)
    graph = options.graph_of(path, quiet, step=step, tags=tags)
    options.say_tags(graph, tags, quiet)
    found = endpoints(graph)
    facts = {"path": graph.path, "to_run": how_to_run(found)}
    shown = reports.endpoints(found)
    render.render([shown], format=wanted, schema="ckpttool.io/1", facts=facts, everything=everything)
    options.exit_if_nothing(not found, "found no inputs and no outputs in this graph")
    for line in () if quiet else facts["to_run"]:
        render.say(line)


def objects(
    path: options.CheckpointPath,
    depth: Annotated[int | None, typer.Option("--depth", metavar="N", min=1, help="Only N levels.")] = None,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a TensorFlow 2 checkpoint's object graph as a tree, with the variables and slots of each object.

    ckpttool objects ckpt-1
    """
    from ckpttool.model.object_graph import object_graph_from_keys
    from ckpttool.model.object_keys import OBJECT_GRAPH_KEY
    from ckpttool.reports import checkpoints as reports

    wanted = options.format_of(format, as_json)
    found = options.located(path, quiet, step=step)
    checkpoint = options.opened(path, found, quiet)
    graph = checkpoint.object_graph if not checkpoint.warnings else object_graph_from_keys(checkpoint)
    if graph is None or OBJECT_GRAPH_KEY not in checkpoint:
        why = "it was saved by name, as TensorFlow 1 does"
        if found.foreign or not found.has_variables:  # But constants, of a frozen graph.
            why = "checkpoints of TensorFlow 2 have one"
        hint = f"{why}; vars lists the variables"
        raise NotFoundError("no object graph in this checkpoint", path=checkpoint.path, hint=hint)
    report = reports.object_tree(checkpoint, graph, depth=depth)
    facts = {"path": checkpoint.path, "format": checkpoint.format}
    render.render([report], format=wanted, schema="ckpttool.objects/1", facts=facts, everything=everything)


def state(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="A directory with a `checkpoint` file, or such a file of another name.")
    ],
    relocate: Annotated[
        bool,
        typer.Option(
            "--relocate", help="Rewrite the state file with relative paths; the old one is kept as checkpoint.bak."
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="With --relocate: write this file instead."),
    ] = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    format: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List a directory's checkpoints: what its state file names, what is gone, what is not listed.

    ckpttool state runs/one --relocate
    """
    from ckpttool.reports import checkpoints as reports

    wanted = options.format_of(format, as_json)
    options.refuse(output == "", "--output names nothing")
    options.refuse_standard_output(output, "-o")
    options.refuse((output or force or dry_run) and not relocate, "--output, --dry-run and --force need --relocate")
    options.refuse(wanted and relocate, "--relocate prints nothing to format")
    name = STATE_FILE
    if (os.path.basename(directory) == STATE_FILE and not os.path.isdir(directory)) or is_checkpoint_state(directory):
        directory, name = os.path.dirname(directory) or ".", os.path.basename(directory)
    if relocate:
        state_file = os.path.join(directory, name)
        exists = checkpoint_finder()
        done = relocate_checkpoint_state(state_file, exists, output=output, force=force, dry_run=dry_run)
        if not quiet:
            made = "would make" if dry_run else "made"
            render.say(f"{made} {render.counted(done.changed, 'path')} relative · {output or state_file}")
            for gone in done.gone[:1]:
                render.say(f"note: no checkpoint is at {gone}{such(len(done.gone), 'paths')}: left as it is")
        return
    entries = state_entries(directory, name)
    incomplete = {entry.prefix for entry in entries if entry.prefix and not is_whole(entry.prefix)}
    report = reports.state(entries, directory, incomplete)
    render.render([report], format=wanted, schema="ckpttool.state/1", facts={"path": directory})
    options.exit_if_nothing(not report.rows, "no checkpoints here")
