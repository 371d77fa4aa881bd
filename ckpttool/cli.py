"""The command line: each command parses its arguments, calls one reader, one transform, one writer or report, and
chooses an exit code.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ckpttool import render, reports
from ckpttool.errors import (
    CheckpointError,
    ConversionError,
    CorruptionError,
    FormatError,
    NotFoundError,
    NotSupportedError,
)
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.opening import open_checkpoint, open_graph
from ckpttool.transforms.variables import select

_EXIT_CODES: dict[type[BaseException], int] = {
    NotFoundError: 3,
    FormatError: 3,
    CorruptionError: 4,
    NotSupportedError: 5,
    ConversionError: 5,
    FileExistsError: 2,
    BrokenPipeError: 141,
    KeyboardInterrupt: 130,
    OSError: 3,
}
_NOTHING_MATCHED = 1

_EPILOG = (
    "Exit codes: 0 done · 1 nothing matched · 2 wrong usage, or the output exists · 3 not found, or not such a file · "
    "4 damaged · 5 not supported · 130 interrupted · 141 closed pipe"
)


class _Commands(TyperGroup):
    """The commands, with errors turned into one line and an exit code, in one place."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(_EXIT_CODES) as error:
            if ctx.params.get("traceback"):
                raise
            _fail(error)


def _fail(error: BaseException) -> NoReturn:
    code = next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    if isinstance(error, BrokenPipeError):
        # What is still buffered must not raise once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, KeyboardInterrupt):
        render.say("interrupted")
    else:
        render.say(f"error: {_message(error)}")
    raise typer.Exit(code)


def _message(error: BaseException) -> str:
    if isinstance(error, CheckpointError) or not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return " · ".join(str(part) for part in (error.strerror, error.filename) if part)


app = typer.Typer(
    cls=_Commands,
    help="Look into TensorFlow checkpoints and graphs, and convert them, without TensorFlow.",
    epilog=_EPILOG,
    no_args_is_help=True,
    # Plain help: rich's would take as long to import as a listing takes altogether.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ckpttool import __version__

        print(f"ckpttool {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    traceback: Annotated[
        bool, typer.Option("--traceback", help="On an error, show where in ckpttool it arose.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


_Path = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A checkpoint's prefix (model.ckpt), one of its files (model.ckpt.index, .meta, .data-…), or a directory"
        " with a `checkpoint` file.",
    ),
]
_Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        "-i",
        metavar="GLOB",
        help="Only variables whose names match; may be given more than once. * stays within a segment, ** crosses"
        " them; in a pattern without / a * matches anything.",
    ),
]
_Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", "-x", metavar="GLOB", help="Not those whose names match.")
]
_Format = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="|".join(render.FORMATS), help="Default: table on a terminal, else tsv."),
]
_Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
_All = Annotated[bool, typer.Option("--all", help="Never cut a long table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on standard error.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


def _located(path: str, quiet: bool) -> Located:
    found = locate(path)
    if not quiet:
        for note in found.notes:
            render.say(f"note: {note}")
        if not found.notes and path not in (found.prefix, found.meta):
            render.say(f"note: the checkpoint is {found.prefix}")
    return found


def _format(format: str | None, as_json: bool) -> str | None:
    if format is not None and format not in render.FORMATS:
        raise typer.BadParameter(f"{format!r} is not one of {', '.join(render.FORMATS)}", param_hint="--format")
    return "json" if as_json else format


def _warn(warnings: tuple[str, ...] | list[str], quiet: bool) -> None:
    for warning in () if quiet else warnings:
        render.say(f"warning: {warning}")


@app.command("vars")
def vars_(
    path: _Path,
    include: _Include = None,
    exclude: _Exclude = None,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="|".join(reports.SORTS), help="Default: as they are stored.")
    ] = None,
    top: Annotated[int | None, typer.Option("--top", metavar="N", min=1, help="Only the first N.")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Group by scope, with sizes.")] = False,
    depth: Annotated[int | None, typer.Option("--depth", metavar="N", min=1, help="With --tree: N levels.")] = None,
    format: _Format = None,
    as_json: _Json = False,
    everything: _All = False,
    quiet: _Quiet = False,
) -> None:
    """List a checkpoint's variables: dtype, shape, parameters, bytes, shard; weights and optimizer slots apart.

    ckpttool vars model.ckpt --sort size --top 10
    """
    if sort is not None and sort not in reports.SORTS:
        raise typer.BadParameter(f"{sort!r} is not one of {', '.join(reports.SORTS)}", param_hint="--sort")
    checkpoint = open_checkpoint(_located(path, quiet))
    _warn(checkpoint.warnings, quiet)
    chosen = select(checkpoint, include or (), exclude or ())
    if tree:
        report = reports.variable_tree(chosen, depth=depth)
    else:
        report = reports.variables(chosen, sort=sort, top=top)
    facts = {"path": checkpoint.path, "format": checkpoint.format}
    render.render(
        [report], format=_format(format, as_json), schema="ckpttool.vars/1", facts=facts, everything=everything
    )
    _exit_if_nothing(not chosen and (include or exclude))


def _exit_if_nothing(nothing: object) -> None:
    if nothing:
        render.say("nothing matched")
        raise typer.Exit(_NOTHING_MATCHED)


@app.command()
def ls(
    path: _Path,
    ops: Annotated[bool, typer.Option("--ops", "-l", help="Every op: type, device, inputs, outputs.")] = False,
    op_types: Annotated[bool, typer.Option("--op-types", help="How many ops of each type.")] = False,
    collections: Annotated[bool, typer.Option("--collections", help="Every member of every collection.")] = False,
    variables: Annotated[bool, typer.Option("--variables", help="The variables that the graph declares.")] = False,
    devices: Annotated[bool, typer.Option("--devices", help="How many ops on each device.")] = False,
    signatures: Annotated[bool, typer.Option("--signatures", help="Inputs and outputs of each signature.")] = False,
    functions: Annotated[bool, typer.Option("--functions", help="The library functions.")] = False,
    name: Annotated[
        list[str] | None, typer.Option("--name", "-n", metavar="GLOB", help="Only what is named so.")
    ] = None,
    type_: Annotated[
        list[str] | None, typer.Option("--type", "-t", metavar="TYPE", help="Only ops of this type (a glob).")
    ] = None,
    format: _Format = None,
    as_json: _Json = False,
    everything: _All = False,
    quiet: _Quiet = False,
) -> None:
    """Show what is in a graph: ops, collections, variables, devices, signatures.

    ckpttool ls model.ckpt.meta --ops --type 'Placeholder*'
    """
    graph = open_graph(_located(path, quiet))
    names, types = name or (), type_ or ()
    tables: list[tuple[bool, Callable[[], reports.Report]]] = [
        (op_types, lambda: reports.op_types(graph, names, types)),
        (ops, lambda: reports.ops(graph, names, types)),
        (collections, lambda: reports.collection_members(graph, names)),
        (variables, lambda: reports.graph_variables(graph, names)),
        (devices, lambda: reports.devices(graph)),
        (signatures, lambda: reports.signatures(graph, names)),
        (functions, lambda: reports.functions(graph, names)),
    ]
    shown = [make() for wanted, make in tables if wanted]
    if not shown and types:
        shown = [reports.ops(graph, names, types)]
    elif not shown:
        shown = reports.overview(graph, names)
    facts = {"path": graph.path}
    render.render(shown, format=_format(format, as_json), schema="ckpttool.ls/1", facts=facts, everything=everything)
    _exit_if_nothing((names or types) and not any(report.rows for report in shown if report.key != "summary"))


@app.command("strip-devices")
def strip_devices_(
    path: _Path,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = "",
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the file itself.")] = False,
    colocation: Annotated[bool, typer.Option("--colocation", help="Also drop _class entries loc:@OP.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also clear whatever else names a device or host; implies --colocation.")
    ] = False,
    force: _Force = False,
    quiet: _Quiet = False,
) -> None:
    """Write a graph without device placements, and everything else as it was, byte for byte.

    ckpttool strip-devices model.ckpt.meta -o anywhere.meta
    """
    from ckpttool.formats.meta_graph import write_meta_graph
    from ckpttool.transforms.devices import device_mentions, strip_devices

    if bool(output) == in_place:
        raise typer.BadParameter("give either an output or --in-place", param_hint="--output")
    graph = open_graph(_located(path, quiet))
    placed = sum(count for device, count in graph.devices.items() if device)
    stripped = strip_devices(graph, colocation=colocation, all=everything)
    write_meta_graph(stripped, output or graph.path, force=force or in_place, in_place=in_place)
    if not quiet:
        render.say(f"cleared the devices of {placed:,} ops · {output or graph.path}")
        for mention in device_mentions(stripped):
            text = f": {mention.text}" if mention.text else ""
            render.say(f"still there: {mention.where}{text} · {mention.times:,} times · --all clears it")


@app.command()
def export(
    path: _Path,
    h5: Annotated[
        str, typer.Option("--h5", metavar="FILE", help="Write HDF5; variable a/b is the dataset a/b:0.")
    ] = "",
    include: _Include = None,
    exclude: _Exclude = None,
    compression: Annotated[
        str | None, typer.Option("--compression", metavar="gzip|lzf", help="Smaller, and many times slower.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a variable can't be held; default: leave it out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")] = False,
    force: _Force = False,
    format: _Format = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Write a checkpoint's variables into another format, values exact and checksums tested.

    ckpttool export model.ckpt --h5 model.h5
    """
    from ckpttool.formats.hdf5 import plan_hdf5, write_hdf5

    if not h5:
        raise typer.BadParameter("give an output", param_hint="--h5")
    if compression not in (None, "gzip", "lzf"):
        raise typer.BadParameter(f"{compression!r} is not one of gzip, lzf", param_hint="--compression")
    checkpoint = open_checkpoint(_located(path, quiet))
    _warn(checkpoint.warnings, quiet)
    chosen = select(checkpoint, include or (), exclude or ())
    _exit_if_nothing(not chosen and (include or exclude))
    if dry_run:
        facts = {"path": checkpoint.path, "output": h5}
        shown = [reports.export_plan((p.variable, p.dataset, p.problem) for p in plan_hdf5(chosen))]
        render.render(shown, format=_format(format, as_json), schema="ckpttool.export/1", facts=facts)
        return
    total = sum(variable.nbytes for variable in chosen.values())
    with render.progress("Writing", total) as progress:
        left_out = write_hdf5(chosen, h5, compression=compression, strict=strict, force=force, progress=progress)
    _warn([f"left out {planned.variable.name}: {planned.problem}" for planned in left_out], quiet=False)
    if not quiet:
        render.say(f"wrote {len(chosen) - len(left_out):,} variables, {render.human_bytes(total)} · {h5}")


def main() -> None:
    """The entry point."""
    app()
