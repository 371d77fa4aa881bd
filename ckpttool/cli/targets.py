"""The formats to write, and the options shared by the commands that write checkpoints."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import CheckpointError, ConversionError
from ckpttool.formats.bundle.names import MEMBER
from ckpttool.formats.plan import Planned
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.object_keys import OBJECT_GRAPH_KEY


class _Writer(NamedTuple):
    """How a format is written: the module, its functions that plan and write, the arguments that they take, and the
    function that checks an output if that is not a single file.
    """

    module: str
    plan: str
    write: str
    arguments: tuple[str, ...] = ()
    require: str = ""


WRITERS = {
    "h5": _Writer("hdf5", "plan_hdf5", "write_hdf5", ("layout", "compression")),
    "npz": _Writer("npz", "plan_npz", "write_npz", ("compression",)),
    "npy": _Writer("npy", "plan_npy", "write_npy", (), "require_npy_writable"),
    "safetensors": _Writer(
        "safetensors", "plan_safetensors", "write_safetensors", ("max_shard_size",), "require_shards_writable"
    ),
    "tf": _Writer(
        *("bundle.writing", "plan_bundle", "write_bundle"), ("num_shards", "max_shard_size"), "require_bundle_writable"
    ),
    "tf-v1": _Writer("tensor_slices.writing", "plan_tensor_slices", "write_tensor_slices"),
}
"""Option that asks for a format → how it is written."""

_COMPRESSIONS = {"h5": ("gzip", "lzf"), "npz": ("deflate",)}
LAYOUTS = ("names", "keras")
_UNITS = {"KB": 10**3, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "B": 1}

_SUFFIXES = {".h5": "h5", ".hdf5": "h5", ".npz": "npz", ".safetensors": "safetensors", ".ckpt": "tf"}

Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="FILE", help=f"Write the format of the suffix: {', '.join(_SUFFIXES)}."),
]
H5 = Annotated[str, typer.Option("--h5", metavar="FILE", help="Write HDF5; variable a/b is the dataset a/b:0.")]
Npz = Annotated[str, typer.Option("--npz", metavar="FILE", help="Write a NumPy archive.")]
Npy = Annotated[str, typer.Option("--npy", metavar="DIR", help="Write a directory of .npy files and an index.json.")]
Safetensors = Annotated[
    str, typer.Option("--safetensors", metavar="FILE|DIR", help="Write safetensors; into a directory, in shards.")
]
Tf = Annotated[str, typer.Option("--tf", metavar="PREFIX", help="Write a TensorFlow checkpoint (V2, a bundle).")]
TfV1 = Annotated[
    str, typer.Option("--tf-v1", metavar="FILE", help="Write a TensorFlow checkpoint of the older format, V1.")
]
Shards = Annotated[
    int | None,
    typer.Option("--shards", metavar="N", min=1, help="With --tf: N data files; default: as many as the source has."),
]
MaxShardSize = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="With --tf, --safetensors: at most so many bytes a file: 5GB, 500MiB, …",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be written, and what would be left out; write nothing.")
]
PlanFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="|".join(render.FORMATS),
        help="Of --dry-run; default: table on a terminal, else tsv.",
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail if a variable can't be held as it is; default: store it in another type, or leave it out.",
    ),
]
Latest = Annotated[
    bool,
    typer.Option("--latest", help="With --tf: name it as the latest, even if there is a `checkpoint` file already."),
]


class Target(NamedTuple):
    """The output of a command.

    Attributes:
        format: a key of WRITERS.
        path: the file, the directory, or the prefix of a bundle.
        arguments: for the format's writer, from the options that are about some formats only.
        is_latest: name it as the latest in the state file, even if there is one already.
    """

    format: str
    path: str
    arguments: Mapping[str, Any]
    is_latest: bool

    @property
    def meta(self) -> str:
        """The graph's file beside a bundle."""
        return f"{self.path}.meta"


def target_of(
    outputs: Mapping[str, str],
    by_suffix: str,
    *,
    shards: int | None,
    max_shard_size: str | None,
    latest: bool,
    compression: str | None = None,
    layout: str = "names",
) -> Target:
    """The only output that was asked for, by the option of a format or by a suffix, and how it is to be written."""
    format, path = _output_of(outputs, by_suffix)
    options.refuse(latest and format != "tf", "--latest needs --tf")
    return Target(format, path, _arguments(format, path, shards, max_shard_size, compression, layout), latest)


def _output_of(outputs: Mapping[str, str], by_suffix: str) -> tuple[str, str]:
    """The format and the path of the only output that was asked for."""
    given = [(format, path) for format, path in outputs.items() if path]
    said = [f"--{format}" for format, _ in given] + ["-o"] * bool(by_suffix)
    if by_suffix:
        known = [format for suffix, format in _SUFFIXES.items() if by_suffix.lower().endswith(suffix)]
        options.refuse(not known, f"-o takes {', '.join(_SUFFIXES)}; give another by its format's option")
        given += [(known[0], by_suffix)]
    if len(given) != 1:
        wanted = " or ".join([*(f"--{format}" for format in WRITERS), "-o"])
        found = " and ".join(said) or "none"
        raise typer.BadParameter(f"got {found}; give one output: {wanted}", param_hint="an output")
    format, path = given[0]
    options.refuse_standard_output(path, f"--{format}")
    if format == "tf":
        _require_prefix(path)
    return format, path


def _require_prefix(path: str) -> None:
    """Ends the command with a usage error if a bundle's output is a directory, or one of a bundle's files."""
    if os.path.basename(path) in ("", ".", "..") or os.path.isdir(path):
        example = render.printable(os.path.join(path, "model.ckpt"))
        raise typer.BadParameter(f"this is a directory; give a prefix, such as {example}", param_hint="--tf")
    if member := MEMBER.fullmatch(path):
        prefix = render.printable(member[1])
        raise typer.BadParameter(f"this is a file of a checkpoint; its prefix is {prefix}", param_hint="--tf")


def _arguments(
    format: str, path: str, shards: int | None, max_shard_size: str | None, compression: str | None, layout: str
) -> dict[str, Any]:
    """The arguments for the format's writer, from the options that are about some formats only."""
    size = _size(max_shard_size) if max_shard_size is not None else None
    options.refuse(shards and size, "give --shards or --max-shard-size, not both")
    options.require_known(layout, LAYOUTS, "--h5-layout")
    asked = {
        "num_shards": (shards, "--shards"),
        "max_shard_size": (size, "--max-shard-size"),
        "compression": (compression, "--compression"),
        "layout": (layout if layout != "names" else None, "--h5-layout"),
    }
    given: dict[str, Any] = {name: value for name, (value, _) in asked.items() if value is not None}
    for name in given:
        options.refuse(name not in WRITERS[format].arguments, f"{asked[name][1]} can't be used with --{format}")
    options.require_known(compression, _COMPRESSIONS.get(format, ()), "--compression")
    if format == "npz" and "compression" in given:
        given = {"compressed": True}
    if format == "safetensors" and size is None and (path.endswith(os.sep) or os.path.isdir(path)):
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


def _function_of(target: Target, which: str) -> Callable[..., Any]:
    writer = WRITERS[target.format]
    function: Callable[..., Any] = getattr(import_module(f"ckpttool.formats.{writer.module}"), getattr(writer, which))
    return function


def plan_of(checkpoint: Checkpoint, target: Target) -> list[Planned]:
    """What the target's writer would make of each variable."""
    layout = {name: value for name, value in target.arguments.items() if name == "layout"}
    plan: list[Planned] = _function_of(target, "plan")(checkpoint, **layout)
    return plan


def require_writable(target: Target, *, force: bool, inputs: Sequence[str]) -> None:
    """Raises what the writer would raise if the output exists, or its directory does not."""
    from ckpttool.formats import outputs

    is_single = target.format == "safetensors" and "max_shard_size" not in target.arguments
    is_file = is_single or not WRITERS[target.format].require
    require = outputs.require_writable if is_file else _function_of(target, "require")
    require(target.path, force=force, inputs=inputs)


def write(checkpoint: Checkpoint, target: Target, *, strict: bool, force: bool, quiet: bool) -> None:
    """Writes the checkpoint, with a progress bar; says what was written, and what was changed."""
    writer = _function_of(target, "write")
    left_out: set[str] = set()
    if OBJECT_GRAPH_KEY in checkpoint:
        from ckpttool.transforms.object_graph import agreeing_without

        plan = plan_of(checkpoint, target)
        left_out = checkpoint.keys() - {planned.variable.name for planned in plan if not planned.problem}
        checkpoint = agreeing_without(checkpoint, left_out)
    total = sum(variable.nbytes for variable in checkpoint.values())
    with render.progress("Writing", total) as progress:
        remarkable = writer(checkpoint, target.path, strict=strict, force=force, progress=progress, **target.arguments)
    options.warn_of_each((planned.variable.name, planned.remark or "") for planned in remarkable)
    if not quiet:
        left_out |= {planned.variable.name for planned in remarkable if planned.problem}
        written = [variable.nbytes for name, variable in checkpoint.items() if name not in left_out]
        count, size = render.counted(len(written), "variable"), render.human_bytes(sum(written))
        render.say(f"wrote {count}, {size} · {target.path}")


def require_state(target: Target) -> None:
    """Raises what `add_to_state` would raise after all is written: the file of that name is not a state file."""
    from ckpttool.formats.checkpoint_state import STATE_FILE, read_checkpoint_state

    state_file = Path(target.path).with_name(STATE_FILE)
    if target.is_latest and os.path.lexists(state_file):
        read_checkpoint_state(str(state_file))


def add_to_state(target: Target, quiet: bool) -> None:
    """Names a bundle in the state file beside it; if there is one already, only if asked to, and else says so."""
    from ckpttool.formats.checkpoint_state import STATE_FILE, add_to_checkpoint_state

    if target.format != "tf":
        return
    state_file = Path(target.path).with_name(STATE_FILE)
    try:
        added = add_to_checkpoint_state(target.path, force=target.is_latest)
    except ConversionError as error:  # The output is whole nevertheless.
        options.warn([f"{state_file} was not changed: {error.what}"])
        return
    if not added and not quiet and not _is_latest(target.path, state_file):
        render.say(f"note: the state file, {state_file}, was not changed; --latest names this checkpoint in it")


def _is_latest(prefix: str, state_file: Path) -> bool:
    from ckpttool.formats.checkpoint_state import read_checkpoint_state

    try:
        latest = read_checkpoint_state(str(state_file)).latest
    except CheckpointError:
        return False
    return os.path.abspath(state_file.parent / latest) == os.path.abspath(prefix)
