"""The commands that write checkpoints, into any format that holds variables."""

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.formats.locate import checkpoints_in
from ckpttool.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.changes import Changed


class Target(NamedTuple):
    """A format to write: the module, and its functions that plan and write; which options are about it."""

    module: str
    plan: str
    write: str
    options: tuple[str, ...] = ()


TARGETS = {
    "h5": Target("hdf5", "plan_hdf5", "write_hdf5", ("layout", "compression")),
    "npz": Target("npz", "plan_npz", "write_npz", ("compression",)),
    "npy": Target("npy", "plan_npy", "write_npy"),
    "safetensors": Target("safetensors", "plan_safetensors", "write_safetensors", ("max_shard_size",)),
    "tf": Target("bundle_writer", "plan_bundle", "write_bundle", ("num_shards", "max_shard_size")),
    "tf-v1": Target("tensor_slices_writer", "plan_tensor_slices", "write_tensor_slices"),
}
"""The formats to write, by the option that asks for each."""

_COMPRESSIONS = {"h5": ("gzip", "lzf"), "npz": ("deflate",)}
_LAYOUTS = ("names", "keras")
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "B": 1}

SourcePath = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A checkpoint, as for vars; or variables in HDF5 (.h5, Keras' too), NumPy (.npz, a directory of .npy) or"
        " safetensors (a file, model.safetensors.index.json or its directory).",
    ),
]
H5 = Annotated[str, typer.Option("--h5", metavar="FILE", help="Write HDF5; variable a/b is the dataset a/b:0.")]
Npz = Annotated[str, typer.Option("--npz", metavar="FILE", help="Write a NumPy archive.")]
Npy = Annotated[str, typer.Option("--npy", metavar="DIR", help="Write a directory of .npy files and an index.json.")]
Safetensors = Annotated[
    str, typer.Option("--safetensors", metavar="FILE|DIR", help="Write safetensors; into a directory, in shards.")
]
Tf = Annotated[str, typer.Option("--tf", metavar="PREFIX", help="Write a TensorFlow checkpoint (V2, a bundle).")]
TfV1 = Annotated[str, typer.Option("--tf-v1", metavar="FILE", help="Write a TensorFlow checkpoint of the format V1.")]
Shards = Annotated[
    int | None, typer.Option("--shards", metavar="N", min=1, help="With --tf: N data files; default: as it has.")
]
MaxShardSize = Annotated[
    str | None,
    typer.Option("--max-shard-size", metavar="SIZE", help="With --tf and --safetensors: 5GB, 500MiB, …"),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail if a variable can't be held as it is; default: store it in another type, or leave it out.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be written, write nothing.")]
Latest = Annotated[
    bool,
    typer.Option("--latest", help="With --tf: name it as the latest in a state file that is there."),
]


def export(
    path: SourcePath,
    h5: H5 = "",
    npz: Npz = "",
    npy: Npy = "",
    safetensors: Safetensors = "",
    tf: Tf = "",
    tf_v1: TfV1 = "",
    include: options.Include = None,
    exclude: options.Exclude = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            "--rename",
            metavar="REGEX=>REPL",
            help="Rename by a regular expression, as Python's re.sub; in order, may be given more than once.",
        ),
    ] = None,
    rename_file: Annotated[
        str | None, typer.Option("--rename-file", metavar="FILE", help="Rules, one a line, before those of --rename.")
    ] = None,
    strip_prefix: Annotated[
        str, typer.Option("--strip-prefix", metavar="TEXT", help="Take this from the front of names, after all rules.")
    ] = "",
    drop_slots: Annotated[
        bool, typer.Option("--drop-slots", help="Leave out what optimizers keep (Adam's moments, momenta, …).")
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="Moving averages (…/ExponentialMovingAverage) in the variables' places.")
    ] = False,
    cast: Annotated[
        str | None, typer.Option("--cast", metavar="DTYPE", help="Cast floating-point variables: float16, bfloat16, …")
    ] = None,
    dtype_map: Annotated[
        str | None, typer.Option("--dtype-map", metavar="OLD=NEW,…", help="Cast by dtype: float64=float32,int64=int32.")
    ] = None,
    meta: Annotated[
        bool,
        typer.Option("--meta", help="With --tf: write PREFIX.meta too, the graph beside the source, made to agree."),
    ] = False,
    shards: Shards = None,
    max_shard_size: MaxShardSize = None,
    latest: Latest = False,
    h5_layout: Annotated[
        str,
        typer.Option(
            "--h5-layout", metavar="|".join(_LAYOUTS), help="keras: as Keras' load_weights(by_name=True) takes it."
        ),
    ] = "names",
    compression: Annotated[
        str | None,
        typer.Option("--compression", metavar="gzip|lzf|deflate", help="HDF5, npz: smaller, and many times slower."),
    ] = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    v1: options.V1 = False,
    step: options.Step = None,
    force: options.Force = False,
    format: options.Format = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write variables into another format, values exact and checksums tested; choose, rename and cast on the way.

    ckpttool export model.ckpt --h5 model.h5

    ckpttool export weights.npz --tf model.ckpt
    """
    from ckpttool.transforms.changes import Changes, change

    target, output = _target({"h5": h5, "npz": npz, "npy": npy, "safetensors": safetensors, "tf": tf, "tf-v1": tf_v1})
    wanted = options.format_of(format, as_json)
    options.refuse(wanted and not dry_run, "--format is about --dry-run")
    arguments = _arguments(target, output, shards, max_shard_size, compression, h5_layout)
    options.refuse(meta and target != "tf", "--meta is about --tf")
    options.refuse(latest and target != "tf", "--latest is about --tf")
    options.refuse(meta and (cast or dtype_map), "--meta: the graph's ops have dtypes of their own, so no --cast")
    changes = Changes(
        *(include or (), exclude or (), ema, drop_slots),
        _dtypes(cast, dtype_map),
        options.rules(rename, rename_file),
        strip_prefix,
    )
    found = options.located(path, quiet, v1=v1, step=step)
    checkpoint = options.opened(path, found, quiet)
    changed = change(checkpoint, changes)
    options.exit_if_nothing(not changed.checkpoint and checkpoint)
    if dry_run:
        _show_plan(changed, checkpoint, target, output, arguments, wanted)
        return
    graph = _agreeing_graph(path, quiet, step, changed, checkpoint, f"{output}.meta", force) if meta else None
    if not quiet:
        _say_dropped(changed, checkpoint)
    write(changed.checkpoint, target, output, arguments, strict=strict, force=force, quiet=quiet)
    _warn_of_losses(changed)
    if graph is not None:
        from ckpttool.formats.meta_graph import write_meta_graph

        write_meta_graph(graph, f"{output}.meta", force=force)
    if target == "tf":
        _add_to_state(output, latest, quiet)


def average(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="CHECKPOINT…", help="Two or more checkpoints of a model; or a directory, with --last."),
    ],
    h5: H5 = "",
    npz: Npz = "",
    npy: Npy = "",
    safetensors: Safetensors = "",
    tf: Tf = "",
    tf_v1: TfV1 = "",
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="W,W,…", help="One for each checkpoint; default: all the same.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option("--last", metavar="N", min=1, help="Of a directory, the last N checkpoints."),
    ] = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    shards: Shards = None,
    max_shard_size: MaxShardSize = None,
    latest: Latest = False,
    strict: Strict = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the mean of checkpoints: floating-point variables averaged in float64, all else from the last one.

    ckpttool average model.ckpt-100 model.ckpt-200 model.ckpt-300 --tf mean.ckpt

    ckpttool average training/ --last 5 --tf mean.ckpt
    """
    from ckpttool.transforms.averaging import average as mean_of

    target, output = _target({"h5": h5, "npz": npz, "npy": npy, "safetensors": safetensors, "tf": tf, "tf-v1": tf_v1})
    arguments = _arguments(target, output, shards, max_shard_size, None, "names")
    options.refuse(latest and target != "tf", "--latest is about --tf")
    chosen = _last_of(paths, last)
    opened = [options.chosen(options.checkpoint_of(path, quiet), include, exclude) for path in chosen]
    options.exit_if_nothing(not all(opened))
    try:
        mean = mean_of(opened, _numbers(weights) if weights is not None else None)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--weights") from error
    if not quiet:
        render.say(f"the mean of {', '.join(os.path.basename(checkpoint.path) for checkpoint in opened)}")
    write(mean, target, output, arguments, strict=strict, force=force, quiet=quiet)
    if target == "tf":
        _add_to_state(output, latest, quiet)


def _last_of(paths: list[str], last: int | None) -> list[str]:
    """The checkpoints that are meant: those given, or the last of a directory's, in the order of their steps."""
    if last is None:
        options.refuse(len(paths) < 2, "give two checkpoints or more, or a directory with --last N")
        return paths
    options.refuse(len(paths) != 1 or not os.path.isdir(paths[0]), "--last is about one directory")
    found = checkpoints_in(paths[0])
    options.refuse(len(found) < last, f"there are {len(found)} checkpoints in {paths[0]}, not {last}")
    return found[-last:]


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no list of numbers", param_hint="--weights") from None


def write(
    checkpoint: Checkpoint,
    target: str,
    output: str,
    arguments: Mapping[str, Any],
    *,
    strict: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Writes the checkpoint, with a progress bar; says what was written, and what is not as it was."""
    writer = _function(target, "write")
    total = sum(variable.nbytes for variable in checkpoint.values())
    with render.progress("Writing", total) as progress:
        remarkable = writer(checkpoint, output, strict=strict, force=force, progress=progress, **arguments)
    options.warn(f"{planned.variable.name}: {planned.remark}" for planned in remarkable)
    if not quiet:
        left_out = [planned.variable for planned in remarkable if planned.problem]
        total -= sum(variable.nbytes for variable in left_out)
        count = render.counted(len(checkpoint) - len(left_out), "variable")
        render.say(f"wrote {count}, {render.human_bytes(total)} · {output}")


def _target(outputs: Mapping[str, str]) -> tuple[str, str]:
    """The one format that was asked for, and its output."""
    given = [(target, output) for target, output in outputs.items() if output]
    if len(given) != 1:
        names = ", ".join(f"--{target}" for target in TARGETS)
        raise typer.BadParameter(f"give one output: {names}", param_hint="--tf")
    return given[0]


def _function(target: str, which: str) -> Callable[..., Any]:
    module = import_module(f"ckpttool.formats.{TARGETS[target].module}")
    function: Callable[..., Any] = getattr(module, getattr(TARGETS[target], which))
    return function


def _arguments(
    target: str, output: str, shards: int | None, max_shard_size: str | None, compression: str | None, layout: str
) -> dict[str, Any]:
    """What the target's writer takes of the options that are about some targets only."""
    size = _size(max_shard_size) if max_shard_size is not None else None
    options.refuse(shards and size, "--shards and --max-shard-size are two answers to one question")
    if layout not in _LAYOUTS:
        raise typer.BadParameter(f"{layout!r} is not one of {', '.join(_LAYOUTS)}", param_hint="--h5-layout")
    asked = {
        "num_shards": (shards, "--shards"),
        "max_shard_size": (size, "--max-shard-size"),
        "compression": (compression, "--compression"),
        "layout": (layout if layout != "names" else None, "--h5-layout"),
    }
    given: dict[str, Any] = {name: value for name, (value, _) in asked.items() if value is not None}
    for name in given:
        options.refuse(name not in TARGETS[target].options, f"{asked[name][1]} is not about --{target}")
    if compression is not None and compression not in _COMPRESSIONS[target]:
        known = ", ".join(_COMPRESSIONS[target])
        raise typer.BadParameter(f"{compression!r} is not one of {known}", param_hint="--compression")
    if target == "npz" and "compression" in given:
        given = {"compressed": True}
    if target == "safetensors" and size is None and (output.endswith(os.sep) or os.path.isdir(output)):
        given["max_shard_size"] = 5 * _UNITS["GB"]  # What Hugging Face's own writers take.
    return given


def _size(text: str) -> int:
    """Bytes: 5GB, 500MiB, 1000."""
    number, unit = next(((text.removesuffix(u), u) for u in _UNITS if text.endswith(u)), (text, "B"))
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise typer.BadParameter(f"{text!r} is no size, such as 5GB or 500MiB", param_hint="--max-shard-size")
    return size


def _dtypes(to: str | None, pairs: str | None) -> dict[str, str]:
    from ckpttool.transforms.casting import check_cast
    from ckpttool.transforms.changes import dtypes_of

    try:
        mapped = dict(pair.split("=") for pair in pairs.split(",")) if pairs else {}
    except ValueError:
        raise typer.BadParameter(f"{pairs!r} is not OLD=NEW,…", param_hint="--dtype-map") from None
    try:
        for old, new in (dict.fromkeys(["float32"], to) if to else {}).items():
            check_cast(old, new)
        for old, new in mapped.items():
            check_cast(old, new)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--cast") from error
    return dtypes_of(to, mapped)


def _show_plan(
    changed: "Changed",
    before: Checkpoint,
    target: str,
    output: str,
    arguments: Mapping[str, Any],
    format: str | None,
) -> None:
    from ckpttool.reports import checkpoints as reports

    layout = {"layout": arguments["layout"]} if "layout" in arguments else {}
    plan = _function(target, "plan")(changed.checkpoint, **layout)
    facts = {"path": before.path, "output": output}
    shown = reports.export_plan(plan, before, changed.names, changed.dropped)
    render.render([shown], format=format, schema="ckpttool.export/1", facts=facts)


def _say_dropped(changed: "Changed", before: Checkpoint) -> None:
    kinds: dict[str, list[int]] = {}
    for name, reason in changed.dropped.items():
        kinds.setdefault(reason, []).append(before[name].nbytes)
    for reason, sizes in sorted(kinds.items()):
        render.say(f"dropped {render.counted(len(sizes), 'variable')}, {render.human_bytes(sum(sizes))} · {reason}")


def _warn_of_losses(changed: "Changed") -> None:
    losses = changed.casts.losses
    for kind in ("overflowed", "underflowed"):
        options.warn(
            f"{name}: {getattr(loss, kind):,} of {render.counted(loss.elements, 'value')} {kind} in"
            f" {changed.checkpoint[name].dtype.name}"
            for name, loss in sorted(losses.items())
            if getattr(loss, kind)
        )
    rounded, elements = sum(loss.rounded for loss in losses.values()), sum(loss.elements for loss in losses.values())
    if rounded:
        options.warn([f"{rounded:,} of {render.counted(elements, 'cast value')} were rounded"])


def _agreeing_graph(
    path: str, quiet: bool, step: str | None, changed: "Changed", before: Checkpoint, output: str, force: bool
) -> "MetaGraph":
    """The graph beside the source, made to agree with what is left of its variables."""
    from ckpttool.transforms.graph_variables import rename_and_drop

    if os.path.lexists(output) and not force:
        raise FileExistsError(f"the output exists · {output} · --force replaces it")
    graph = options.graph_of(path, quiet, step=step)
    # Where a moving average takes a variable's place, the graph keeps the variable.
    names = {changed.averages.get(old, old): new for old, new in changed.names.items()}
    agreeing = rename_and_drop(graph, names, [name for name in before if name not in names])
    for collection, member in () if quiet else agreeing.members:
        render.say(f"note: {member} is no more in the collection {collection}: it needs what was dropped")
    return agreeing.graph


def _add_to_state(output: str, latest: bool, quiet: bool) -> None:
    from ckpttool.formats.checkpoint_state import STATE_FILE, add_to_checkpoint_state

    added = add_to_checkpoint_state(output, force=latest)
    if not added and not quiet:
        state_file = Path(output).with_name(STATE_FILE)
        render.say(f"note: {state_file} is as it was; --latest names this checkpoint in it")
