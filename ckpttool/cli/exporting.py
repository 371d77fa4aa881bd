"""The command that writes a checkpoint into any format that holds variables; `averaging` shares its outputs."""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.cli.salvaging import LEFT_OUT, Salvaged, salvaged_from
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_graph import OBJECT_GRAPH_KEY

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.changes import Changed, Changes


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
    int | None,
    typer.Option("--shards", metavar="N", min=1, help="With --tf: N data files; default: as the source has."),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option("--max-shard-size", metavar="SIZE", help="With --tf, --safetensors: a file's most: 5GB, 500MiB, …"),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail if a variable can't be held as it is; default: store it in another type, or leave it out.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written, and what would be left out; write nothing.")
]
Latest = Annotated[
    bool,
    typer.Option("--latest", help="With --tf: make it the latest also of a `checkpoint` file that is there."),
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
            help="Rename by a regular expression, as Python's re.sub: 'layer_(\\d+)=>layers/\\1'; in order, may be"
            " given more than once.",
        ),
    ] = None,
    rename_file: Annotated[
        str | None,
        typer.Option("--rename-file", metavar="FILE", help="Such rules, one a line (# …: a comment); before --rename."),
    ] = None,
    strip_prefix: Annotated[
        str, typer.Option("--strip-prefix", metavar="TEXT", help="Take this from the front of names, after all rules.")
    ] = "",
    drop_slots: Annotated[
        bool, typer.Option("--drop-slots", help="Leave out what optimizers keep: Adam's moments, momenta, ….")
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="Moving averages (…/ExponentialMovingAverage) in the variables' places.")
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
    shards: Shards = None,
    max_shard_size: MaxShardSize = None,
    latest: Latest = False,
    h5_layout: Annotated[
        str,
        typer.Option(
            "--h5-layout",
            metavar="|".join(_LAYOUTS),
            help="With --h5: keras is as Keras' load_weights(by_name=True) takes it.",
        ),
    ] = "names",
    compression: Annotated[
        str | None,
        typer.Option(
            "--compression", metavar="gzip|lzf|deflate", help="gzip, lzf: --h5; deflate: --npz. Smaller, far slower."
        ),
    ] = None,
    strict: Strict = False,
    salvage: Annotated[
        bool,
        typer.Option(
            "--salvage",
            help="Of a damaged source, write what is whole, and list what is not; exit code 1 if anything is not.",
        ),
    ] = False,
    dry_run: DryRun = False,
    v1: options.V1 = False,
    step: options.Step = None,
    force: options.Force = False,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="|".join(render.FORMATS),
            help="Of --dry-run; default: table on a terminal, else tsv.",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write variables into another format, values exact and checksums tested; choose, rename and cast on the way.

    ckpttool export model.ckpt --h5 model.h5

    ckpttool export weights.npz --tf model.ckpt

    ckpttool export broken.ckpt --salvage --tf model.ckpt
    """
    from ckpttool.model.names import selector
    from ckpttool.transforms.changes import Changes, change

    target, output = target_of({"h5": h5, "npz": npz, "npy": npy, "safetensors": safetensors, "tf": tf, "tf-v1": tf_v1})
    wanted = options.format_of(format, as_json)
    options.refuse(wanted and not dry_run, "--format is about --dry-run")
    arguments = writer_arguments(target, output, shards, max_shard_size, compression, h5_layout)
    options.refuse(meta and target != "tf", "--meta is about --tf")
    options.refuse(latest and target != "tf", "--latest is about --tf")
    options.refuse(meta and (cast or dtype_map), "--meta: the graph's ops have dtypes of their own, so no --cast")
    options.refuse(meta and salvage, "--meta: a graph restores all of its variables, and --salvage may leave some out")
    changes = Changes(
        *(include or (), exclude or (), ema, drop_slots),
        _dtypes(cast, dtype_map),
        options.rules(rename, rename_file),
        strip_prefix,
        with_object_graph=target == "tf",
    )
    found = options.located(path, quiet, v1=v1, step=step)
    salvaged = salvaged_from(found, selector(changes.include, changes.exclude)) if salvage else None
    checkpoint = salvaged.checkpoint if salvaged else options.opened(path, found, quiet)
    changed = change(checkpoint, changes)
    options.exit_if_nothing(not changed.checkpoint and checkpoint)
    if not quiet:
        _say_idle(changed, changes)
        _say_dropped(changed, checkpoint)
    graph = _agreeing_graph(path, quiet, step, changed, checkpoint) if meta else None
    if dry_run:
        _show_plan(changed, salvaged or checkpoint, target, output, arguments, wanted, strict)
        _exit_if_left_out(salvaged)
        return
    if target == "tf":
        _warn_of_lost_objects(changed, checkpoint)
    with _beside(graph, f"{output}.meta", force):
        # A graph restores all of its variables: none may be left out.
        write(changed.checkpoint, target, output, arguments, strict=strict or meta, force=force, quiet=quiet)
    _warn_of_losses(changed)
    if target == "tf":
        add_to_state(output, latest, quiet)
    _exit_if_left_out(salvaged)


def _exit_if_left_out(salvaged: Salvaged | None) -> None:
    if salvaged and not salvaged.is_whole:
        raise typer.Exit(LEFT_OUT)


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


def target_of(outputs: Mapping[str, str]) -> tuple[str, str]:
    """The one format that was asked for, and its output."""
    given = [(target, output) for target, output in outputs.items() if output]
    if len(given) != 1:
        wanted = " or ".join(f"--{target}" for target in TARGETS)
        found = " and ".join(f"--{target}" for target, _ in given) or "none"
        raise typer.BadParameter(f"got {found}; give one output: {wanted}", param_hint="an output")
    target, output = given[0]
    options.refuse(output == "-", f"--{target} - is standard output, which nothing can be written to; ./- is a file")
    if target == "tf" and (os.path.basename(output) in ("", ".", "..") or os.path.isdir(output)):
        example = render.printable(os.path.join(output, "model.ckpt"))
        raise typer.BadParameter(f"this is a directory; give a prefix, such as {example}", param_hint="--tf")
    return target, output


def _function(target: str, which: str) -> Callable[..., Any]:
    module = import_module(f"ckpttool.formats.{TARGETS[target].module}")
    function: Callable[..., Any] = getattr(module, getattr(TARGETS[target], which))
    return function


def writer_arguments(
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
    """The casts that are asked for: old dtype → new dtype."""
    from ckpttool.transforms.changes import dtypes_of

    if to is not None:
        _check_cast("float32", to, "--cast")
    mapped: dict[str, str] = {}
    for pair in pairs.split(",") if pairs is not None else ():
        old, equals, new = (part.strip() for part in pair.partition("="))
        if not (old and equals and new) or "=" in new:
            raise typer.BadParameter(f"{pairs!r} is not OLD=NEW,…", param_hint="--dtype-map")
        if mapped.setdefault(old, new) != new:
            raise typer.BadParameter(f"{old} cannot become {mapped[old]} and {new}", param_hint="--dtype-map")
        _check_cast(old, new, "--dtype-map")
    return dtypes_of(to, mapped)


def _check_cast(old: str, new: str, option: str) -> None:
    from ckpttool.transforms.casting import check_cast

    try:
        check_cast(old, new)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _show_plan(
    changed: "Changed",
    source: Checkpoint | Salvaged,
    target: str,
    output: str,
    arguments: Mapping[str, Any],
    format: str | None,
    strict: bool,
) -> None:
    from ckpttool.formats.plan import check_plan
    from ckpttool.reports import checkpoints as reports
    from ckpttool.reports.findings import findings

    before, lost = (source.before, source.lost) if isinstance(source, Salvaged) else (source, {})
    layout = {"layout": arguments["layout"]} if "layout" in arguments else {}
    plan = _function(target, "plan")(changed.checkpoint, **layout)
    facts = {"path": before.path, "output": output, "format": before.format}
    shown = [reports.export_plan(plan, before, changed.names, changed.dropped, lost)]
    if isinstance(source, Salvaged) and (source.faults or format == "json"):
        shown.append(findings(source.faults))
    render.render(shown, format=format, schema="ckpttool.export/1", facts=facts)
    check_plan(plan, strict=strict)


def _say_dropped(changed: "Changed", before: Checkpoint) -> None:
    kinds: dict[str, list[int]] = {}
    for name, reason in changed.dropped.items():
        kinds.setdefault(reason, []).append(before[name].nbytes)
    for reason, sizes in sorted(kinds.items()):
        render.say(f"dropped {render.counted(len(sizes), 'variable')}, {render.human_bytes(sum(sizes))} · {reason}")


def _say_idle(changed: "Changed", changes: "Changes") -> None:
    for what in changed.idle:
        render.say(f"note: {what}")
    for rule in changes.rules:
        if re.search(r"\$\d", rule.replacement):
            render.say(f"note: {str(rule)!r}: $ stands for itself; the first group is \\1")


def _warn_of_lost_objects(changed: "Changed", before: Checkpoint) -> None:
    """Says it if a checkpoint of TensorFlow 2 becomes one that it will not restore.

    (It takes the end of a name for what is stored of the object: tensorflow/python/checkpoint/restore.py.)
    """
    if OBJECT_GRAPH_KEY not in before:
        return
    ends = {old: old[old.find(_ATTRIBUTES) :] for old in changed.names if _ATTRIBUTES in old}
    if ends and OBJECT_GRAPH_KEY not in changed.names:
        options.warn(["without the object graph, tf.train.Checkpoint will not restore this"])
        return
    lost = [changed.names[old] for old, end in ends.items() if not changed.names[old].endswith(end)]
    if lost:
        count = render.counted(len(lost), "variable")
        options.warn([f"tf.train.Checkpoint will not restore {count}, for {_ATTRIBUTES}… is cut off: {lost[0]!r}"])


_ATTRIBUTES = "/.ATTRIBUTES/"
_MOST_WARNINGS = 10


def _warn_of_losses(changed: "Changed") -> None:
    losses = changed.casts.losses
    for kind in ("overflowed", "underflowed"):
        found = [(name, loss) for name, loss in sorted(losses.items()) if getattr(loss, kind)]
        options.warn(
            f"{name}: {getattr(loss, kind):,} of {render.counted(loss.elements, 'value')} {kind} in"
            f" {changed.checkpoint[name].dtype.name}"
            for name, loss in found[:_MOST_WARNINGS]
        )
        if len(found) > _MOST_WARNINGS:
            options.warn([f"values {kind} in {len(found) - _MOST_WARNINGS:,} more variables"])
    rounded, elements = sum(loss.rounded for loss in losses.values()), sum(loss.elements for loss in losses.values())
    if rounded:
        options.warn([f"{rounded:,} of {render.counted(elements, 'cast value')} were rounded"])


def _agreeing_graph(path: str, quiet: bool, step: str | None, changed: "Changed", before: Checkpoint) -> "MetaGraph":
    """The graph beside the source, made to agree with what is left of its variables, and able to restore a bundle."""
    from ckpttool.transforms.graph_variables import rename_and_drop
    from ckpttool.transforms.serving.restoring import restoring_from_bundle

    graph = options.graph_of(path, quiet, step=step)
    # Where a moving average takes a variable's place, the graph keeps the variable.
    names = {changed.averages.get(old, old): new for old, new in changed.names.items()}
    agreeing = rename_and_drop(graph, names, [name for name in before if name not in names], changed.averages)
    for collection, member in () if quiet else agreeing.members:
        render.say(f"note: {member} is no more in the collection {collection}: it needs what was dropped")
    return restoring_from_bundle(agreeing.graph)


def _beside(graph: "MetaGraph | None", output: str, force: bool) -> AbstractContextManager[None]:
    """Writes a graph, if there is one, so that it gets its name when what belongs to it is there."""
    from ckpttool.formats.meta_graph import meta_graph_beside

    return nullcontext() if graph is None else meta_graph_beside(graph, output, force=force)


def add_to_state(output: str, latest: bool, quiet: bool) -> None:
    from ckpttool.formats.checkpoint_state import STATE_FILE, add_to_checkpoint_state

    added = add_to_checkpoint_state(output, force=latest)
    if not added and not quiet:
        state_file = Path(output).with_name(STATE_FILE)
        render.say(f"note: {state_file} is as it was; --latest names this checkpoint in it")
