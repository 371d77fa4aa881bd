"""The command that writes the mean of checkpoints."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options, targets
from ckpttool.formats.listing import checkpoints_in, state_entries, stem_and_number
from ckpttool.formats.locate import Located

if TYPE_CHECKING:
    from ckpttool.model.checkpoint import Checkpoint


def average(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT…",
            help="Two or more checkpoints of a model, each counted once; or a directory, with --last.",
        ),
    ],
    h5: targets.H5 = "",
    npz: targets.Npz = "",
    npy: targets.Npy = "",
    safetensors: targets.Safetensors = "",
    tf: targets.Tf = "",
    tf_v1: targets.TfV1 = "",
    output: targets.Output = "",
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W,…", help="One for each checkpoint; default: all the same.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="Of a directory, the N last checkpoints, by their steps."),
    ] = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    shards: targets.Shards = None,
    max_shard_size: targets.MaxShardSize = None,
    latest: targets.Latest = False,
    strict: targets.Strict = False,
    dry_run: targets.DryRun = False,
    force: options.Force = False,
    format: targets.PlanFormat = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the mean of checkpoints: floats averaged in float64, all else from the one named last.

    ckpttool average model.ckpt-100 model.ckpt-200 model.ckpt-300 --tf mean.ckpt

    ckpttool average training/ --last 5 --tf mean.ckpt
    """
    from ckpttool.transforms.averaging import average as mean_of
    from ckpttool.transforms.variables import select

    outputs = {"h5": h5, "npz": npz, "npy": npy, "safetensors": safetensors, "tf": tf, "tf-v1": tf_v1}
    target = targets.target_of(outputs, output, shards=shards, max_shard_size=max_shard_size, latest=latest)
    wanted = options.format_of_plan(format, as_json, dry_run=dry_run)
    opened = [options.to_convert(*each, quiet, strict=strict) for each in _distinct(_last_of(paths, last), quiet)]
    chosen = [select(each, include or (), exclude or (), with_object_graph=target.format == "tf") for each in opened]
    options.exit_if_no_match(not any(chosen), include or (), opened[0])
    if not quiet:
        options.say_idle_globs(include, exclude, *opened)
    chosen = options.without_partly_stored(*chosen)
    targets.require_state(target)
    try:
        mean = mean_of(chosen, _numbers(weights) if weights is not None else None)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--weights") from error
    if not quiet:
        render.say(f"the mean of {', '.join(os.path.basename(checkpoint.path) for checkpoint in chosen)}")
    if dry_run:
        _show_plan(mean, target, wanted, strict=strict, force=force)
        return
    targets.write(mean, target, strict=strict, force=force, quiet=quiet)
    targets.add_to_state(target, quiet)


def _show_plan(mean: "Checkpoint", target: targets.Target, format: str | None, *, strict: bool, force: bool) -> None:
    from ckpttool.formats.plan import check_plan
    from ckpttool.reports.checkpoints import export_plan

    targets.require_writable(target, force=force, inputs=mean.files)
    plan = targets.plan_of(mean, target)
    facts = {"path": mean.path, "output": target.path, "format": mean.format}
    render.render([export_plan(plan, mean, {}, {}, {})], format=format, schema="ckpttool.average/1", facts=facts)
    check_plan(plan, strict=strict)


def _distinct(paths: list[str], quiet: bool) -> list[tuple[str, Located]]:
    """The checkpoints that the paths lead to, each once, with the first of its paths: a shell's * gives all files."""
    given: dict[tuple[str, ...], list[tuple[str, Located]]] = {}
    for path in paths:
        found = options.located(path, quiet, has_step=False)
        files = tuple(map(os.path.realpath, found.v1_files or (found.prefix,)))
        given.setdefault(files, []).append((path, found))
    distinct = [same[0] for same in given.values()]
    name = os.path.basename(distinct[0][1].prefix)
    options.refuse(len(distinct) == 1 < len(paths), f"all of these are {name}; give two checkpoints or more")
    for same in given.values():
        if len(same) > 1 and not quiet:
            render.say(f"note: {same[0][1].prefix} was given by {len(same)} paths, and counts once")
    return distinct


def _last_of(paths: list[str], last: int | None) -> list[str]:
    """The checkpoints that are meant: those given, or the last of a directory's, in the order of their steps."""
    if last is None:
        options.refuse(len(paths) < 2, "give two checkpoints or more, or a directory with --last N")
        return paths
    options.refuse(len(paths) != 1 or not os.path.isdir(paths[0]), "--last needs one directory")
    found = _series(paths[0])
    # With a state file beside them, checkpoints of other names are there too, and do not count.
    alone = len(found) == len(checkpoints_in(paths[0]))
    which = "" if alone else f" of the latest's name, {os.path.basename(_stem(found[-1]))!r}"
    count = render.counted(len(found), "checkpoint")
    options.refuse(len(found) < last, f"{paths[0]!r} has {count}{which}, not {last}")
    return found[-last:]


def _series(directory: str) -> list[str]:
    """The checkpoints that differ by their steps alone; where there are several such series, that of the latest."""
    series: dict[str, list[str]] = {}
    for prefix in checkpoints_in(directory):
        series.setdefault(_stem(prefix), []).append(prefix)
    if len(series) < 2:
        return next(iter(series.values()), [])
    latest = next((entry.prefix for entry in state_entries(directory) if entry.is_latest), "")
    if _stem(latest) not in series:
        names = ", ".join(sorted(repr(os.path.basename(stem)) for stem in series))
        raise typer.BadParameter(
            f"there are checkpoints of several names in {directory!r}, {names}, and no state file that tells which;"
            " give their paths",
            param_hint="--last",
        )
    return series[_stem(latest)]


def _stem(prefix: str) -> str:
    directory, name = os.path.split(prefix)
    return stem_and_number(os.path.join(os.path.realpath(directory), name))[0]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers", param_hint="--weights") from None
