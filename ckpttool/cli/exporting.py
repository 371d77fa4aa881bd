"""The command that writes a checkpoint into any format that holds variables, changed on the way."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import changing, options, remarks, targets
from ckpttool.cli.salvaging import Salvaged, salvaged_from
from ckpttool.formats.opening import open_graph
from ckpttool.formats.outputs import require_writable
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import such
from ckpttool.transforms.variables import NAMES

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.changes import Changed, Changes


def export(
    path: options.CheckpointPath,
    h5: targets.H5 = "",
    npz: targets.Npz = "",
    npy: targets.Npy = "",
    safetensors: targets.Safetensors = "",
    tf: targets.Tf = "",
    tf_v1: targets.TfV1 = "",
    output: targets.Output = "",
    include: options.Include = None,
    exclude: options.Exclude = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename",
            metavar="REGEX=>REPL",
            help="Rename by a regular expression, as Python's re.sub: 'layer_(\\d+)=>layers/\\1'; in order, may be"
            " given more than once.",
        ),
    ] = None,
    rename_file: Annotated[
        str | None,
        typer.Option(
            "--rename-file",
            metavar="FILE",
            help="A file of such rules, one a line, or # and a comment; before --rename.",
        ),
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--names",
            metavar="|".join(NAMES),
            help="Of TensorFlow 2, name variables by their keys, by their objects' paths, or by their full names, as"
            " vars shows them; before --rename.",
        ),
    ] = "key",
    strip_prefix: Annotated[
        str, typer.Option("--strip-prefix", metavar="TEXT", help="Take this from the front of names, after all rules.")
    ] = "",
    drop_slots: Annotated[
        bool, typer.Option("--drop-slots", help="Leave out what optimizers keep: Adam's moments, momenta, ….")
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="Write moving averages (…/ExponentialMovingAverage) in the variables' places.")
    ] = False,
    cast: Annotated[
        str | None,
        typer.Option(
            "--cast", metavar="DTYPE", help="Cast floating-point variables: float16, bfloat16, …; says what is lost."
        ),
    ] = None,
    dtype_map: Annotated[
        str | None,
        typer.Option(
            "--dtype-map", metavar="OLD=NEW,…", help="Cast by dtype, whatever --cast says: float64=float32,int64=int32."
        ),
    ] = None,
    meta: Annotated[
        bool,
        typer.Option("--meta", help="With --tf: write PREFIX.meta too, the graph beside the source, made to agree."),
    ] = False,
    shards: targets.Shards = None,
    max_shard_size: targets.MaxShardSize = None,
    latest: targets.Latest = False,
    h5_layout: Annotated[
        str,
        typer.Option(
            "--h5-layout",
            metavar="|".join(targets.LAYOUTS),
            help="With --h5: keras is the layout that Keras' load_weights reads.",
        ),
    ] = "names",
    compression: Annotated[
        str | None,
        typer.Option(
            "--compression", metavar="gzip|lzf|deflate", help="gzip, lzf: --h5; deflate: --npz. Smaller, far slower."
        ),
    ] = None,
    strict: targets.Strict = False,
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage",
            help="Of a damaged source, write what is whole, and say what is not; exit code 1 if anything is not.",
        ),
    ] = False,
    dry_run: targets.DryRun = False,
    v1: options.V1 = False,
    step: options.Step = None,
    force: options.Force = False,
    format: targets.PlanFormat = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write variables into another format, values exact and checksums tested; choose, rename and cast on the way.

    ckpttool export model.ckpt --h5 model.h5

    ckpttool export weights.npz --tf model.ckpt

    ckpttool export broken.ckpt --salvage --tf model.ckpt
    """
    from ckpttool.transforms.changes import Changes, change

    target = targets.target_of(
        {"h5": h5, "npz": npz, "npy": npy, "safetensors": safetensors, "tf": tf, "tf-v1": tf_v1},
        output,
        shards=shards,
        max_shard_size=max_shard_size,
        latest=latest,
        compression=compression,
        layout=h5_layout,
    )
    wanted = options.format_of_plan(format, as_json, dry_run=dry_run)
    options.require_known(names, NAMES, "--names")
    if meta:
        options.refuse(target.format != "tf", "--meta needs --tf")
        what = "the graph's ops have dtypes of their own, so no --cast or --dtype-map"
        options.refuse(cast or dtype_map, f"--meta: {what}")
        options.refuse(salvage, "--meta: a graph restores all of its variables, and --salvage may leave some out")
    for_keras = h5_layout == "keras"
    options.refuse(for_keras and names == "object", "--h5-layout keras: Keras finds weights by their full names")
    # The layout takes full names from the object graph, and also the order of weights, which keys tell.
    names = "key" if for_keras and not (rename or rename_file or strip_prefix) else names
    changes = Changes(
        include=include or (),
        exclude=exclude or (),
        use_averages=ema,
        drop_slots=drop_slots,
        dtypes=changing.dtypes(cast, dtype_map),
        rules=changing.rules(rename, rename_file),
        strip_prefix=strip_prefix,
        with_object_graph=target.format == "tf" or for_keras,
        named_by=names,
    )
    found = options.located(path, quiet, v1=v1, step=step)
    own = found.graph is not None and os.path.exists(target.path) and os.path.samefile(found.graph, target.path)
    options.refuse(own, f"{target.path} is the graph of the checkpoint")
    source = _source(path, found, changes, quiet, strict=strict, salvage=salvage)
    changed = change(source.checkpoint, changes)
    if not quiet:
        remarks.say_changes(changed, changes, source.checkpoint)
    _exit_if_empty(changed, changes, source)
    if not quiet:
        options.say_idle_globs(include, exclude, source.before)
    graph = _agreeing_graph(found, quiet, changed, source.checkpoint) if meta else None
    if target.format == "tf":
        targets.require_state(target)
        remarks.warn_of_lost_objects(changed, source.checkpoint)
        if not quiet:
            remarks.say_objects_keep_their_names(changed)
    strict = strict or meta  # A graph restores all of its variables: none may be left out.
    if for_keras:
        remarks.warn_of_other_layout(target.path)
    # Of several reasons to refuse, a dry run must give the same one first.
    targets.require_writable(target, force=force, inputs=source.checkpoint.files)
    if graph is not None:
        require_writable(target.meta, force=force, inputs=[graph.path])
    if dry_run:
        _show_plan(changed, source, target, wanted, strict)
    else:
        _write(changed, target, graph, strict=strict, force=force, quiet=quiet)
    if not source.is_whole:
        raise typer.Exit(options.ANSWER_IS_NO)


def _source(path: str, found: "Located", changes: "Changes", quiet: bool, *, strict: bool, salvage: bool) -> Salvaged:
    """The checkpoint that was located; with `salvage`, only what is whole."""
    if salvage:
        return salvaged_from(path, found, changes, quiet, strict=strict)
    checkpoint = options.to_convert(path, found, quiet, strict=strict)
    return Salvaged(checkpoint, checkpoint)


def _exit_if_empty(changed: "Changed", changes: "Changes", source: Salvaged) -> None:
    """Ends the command with a no if the changes leave nothing of a checkpoint."""
    is_empty = not changed.checkpoint and source.checkpoint
    options.exit_if_nothing(is_empty and source.lost, "nothing of that is whole")
    options.exit_if_nothing(is_empty and changed.dropped, "nothing is left")
    options.exit_if_no_match(is_empty, changes.include, source.checkpoint)


def _show_plan(changed: "Changed", source: Salvaged, target: targets.Target, format: str | None, strict: bool) -> None:
    from ckpttool.formats.plan import check_plan
    from ckpttool.reports import checkpoints as reports
    from ckpttool.reports.findings import findings

    before = source.before
    plan = targets.plan_of(changed.checkpoint, target)
    facts = {"path": before.path, "output": target.path, "format": before.format}
    shown = [reports.export_plan(plan, before, changed.names, changed.dropped, source.lost)]
    if source.faults or (source.faults is not None and format == "json"):
        shown.append(findings(source.faults))
    render.render(shown, format=format, schema="ckpttool.export/1", facts=facts)
    check_plan(plan, strict=strict)


def _write(
    changed: "Changed", target: targets.Target, graph: "MetaGraph | None", *, strict: bool, force: bool, quiet: bool
) -> None:
    """Writes the changed checkpoint, with its graph if there is one; says what was lost."""
    with _beside(graph, target.meta, force):
        targets.write(changed.checkpoint, target, strict=strict, force=force, quiet=quiet)
    remarks.warn_of_losses(changed)
    if target.format == "tf" and graph is None and os.path.exists(target.meta):
        what = f"{target.meta} already existed and was not changed"
        options.warn([f"{what}: if it is another checkpoint's, delete it"])
    targets.add_to_state(target, quiet)


def _agreeing_graph(found: "Located", quiet: bool, changed: "Changed", before: Checkpoint) -> "MetaGraph":
    """The graph beside the source, changed to agree with the variables that are left and to restore a bundle."""
    from ckpttool.transforms.graph_variables import rename_and_drop
    from ckpttool.transforms.restoring import restoring_from_bundle

    graph = open_graph(found)
    if not quiet:
        render.say(f"note: the graph is {graph.path}")
    # The graph keeps a variable whose place a moving average takes. If the variable was not stored, its saver already
    # restores the average into it: then only the average's name changes.
    averages = {old: variable for old, variable in changed.averages.items() if variable in before}
    names = {averages.get(old, old): new for old, new in changed.names.items()}
    agreeing = rename_and_drop(graph, names, [name for name in before if name not in names], averages)
    for collection, member in () if quiet else agreeing.members:
        render.say(f"note: {member} was removed from the collection {collection}: it needs what was dropped")
    if agreeing.ends and not quiet:
        others = such(len(agreeing.ends), "ops")
        render.say(f"note: {agreeing.ends[0]} was removed from the graph: it needs what was dropped{others}")
    return restoring_from_bundle(agreeing.graph)


def _beside(graph: "MetaGraph | None", output: str, force: bool) -> AbstractContextManager[None]:
    """Writes a graph, if there is one; it gets its name after what belongs to it was written."""
    if graph is None:
        return nullcontext()
    from ckpttool.formats.meta_graph import meta_graph_beside

    return meta_graph_beside(graph, output, force=force)
