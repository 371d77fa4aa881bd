"""The commands that look at values."""

import shutil
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.formats.opening import open_checkpoint

if TYPE_CHECKING:
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.variable import Variable


def stats(
    path: options.CheckpointPath,
    include: options.Include = None,
    exclude: options.Exclude = None,
    v1: options.V1 = False,
    step: options.Step = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Show each variable's range, mean, spread and histogram, and how many values are zero, NaN or infinite.

    ckpttool stats model.ckpt --include 'dense/**'

    All numbers but the counts are those of the finite values; of complex numbers, those of their magnitudes. Quantiles
    (in a table: --all) are right to 1/128 of their size.
    """
    from ckpttool.reports import values as reports

    wanted = options.format_of(format, as_json)
    checkpoint = options.checkpoint_of(path, quiet, v1=v1, step=step)
    chosen = options.chosen(checkpoint, include, exclude)
    is_none = not chosen and (include or exclude)
    [chosen] = options.without_partly_stored(chosen)
    total = sum(variable.nbytes for variable in chosen.values())
    with render.progress("Reading", total) as progress:
        report = reports.statistics(chosen, progress)
    facts = {"path": checkpoint.path, "format": checkpoint.format}
    render.render([report], format=wanted, schema="ckpttool.stats/1", facts=facts, everything=everything)
    options.exit_if_no_match(is_none, include or (), checkpoint)


def cat(
    path: options.CheckpointPath,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The variable.")],
    taken: Annotated[
        str | None, typer.Option("--slice", metavar="0:2,:,-1", help="A part of it, as NumPy slices arrays.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Every value, however many there are.")] = False,
    precision: Annotated[
        int | None,
        typer.Option("--precision", metavar="N", min=1, max=17, help="Significant digits; default: all."),
    ] = None,
    npy: Annotated[
        str | None,
        typer.Option("--npy", metavar="FILE", help="Write the values into this .npy file; -: standard output."),
    ] = None,
    v1: options.V1 = False,
    step: options.Step = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, every value.")] = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Print a variable's values; of a large one the first and last, unless --full or --slice says otherwise.

    ckpttool cat model.ckpt dense/kernel --slice '0:2,:'
    """
    from ckpttool.analysis.values import excerpts

    options.refuse(npy == "", "--npy names nothing")
    options.refuse(npy and (as_json or precision or full), "--npy prints nothing, and has every value as it is")
    options.refuse(as_json and precision, "JSON has every digit")
    options.refuse(force and not npy, "--force needs --npy")
    checkpoint, variable = _variable_of(path, name, quiet, v1=v1, step=step)
    part = variable if taken is None else _sliced(variable, taken)
    if npy:
        remark = _write(part, npy, force, checkpoint.files)
        options.warn([f"{name}: {remark}"] if remark else [])
        if npy != "-" and not quiet:
            render.say(f"wrote {render.printable(name)}, {render.human_bytes(part.nbytes)} · {npy}")
    elif as_json:
        facts = {
            "path": checkpoint.path,
            "name": variable.name,
            "dtype": variable.dtype.name,
            "shape": variable.shape,
            "slice": taken,
            "values": part.numpy(),
        }
        render.render([], format="json", schema="ckpttool.cat/1", facts=facts)
    elif full or taken is not None:
        render.print_array(part.numpy(), precision)
    else:
        indices = excerpts.edges(variable.shape)
        render.print_array(excerpts.at(variable, indices), precision, indices=indices, shape=variable.shape)


def _variable_of(path: str, name: str, quiet: bool, *, v1: bool, step: str | None) -> "tuple[Checkpoint, Variable]":
    """As `options.checkpoint_of`, with one of the variables; no more of the index is read than that takes."""
    found = options.located(path, quiet, v1=v1, step=step)
    checkpoint = options.opened(path, found, quiet, only=[name])
    if name not in checkpoint:
        checkpoint = open_checkpoint(found)  # Knows objects, and near names.
        shown = [key for key in checkpoint if render.printable(key) == name]  # With escapes, as tables show it.
        if len(keys := checkpoint.keys_of(name) or shown) == 1 and name not in checkpoint:
            if not quiet and keys != shown:
                render.say(f"note: it is stored as {render.printable(keys[0])}")
            [name] = keys
    return checkpoint, checkpoint[name]


def _write(variable: "Variable", path: str, force: bool, inputs: Sequence[str]) -> str | None:
    """Writes a .npy file, to standard output for `-`, and gives what there is to say of it."""
    from ckpttool.formats.npy import write_npy_file

    if path != "-":
        return write_npy_file(variable, path, force=force, inputs=inputs).remark
    options.refuse(sys.stdout.isatty(), "--npy - writes bytes, which no terminal should show: redirect them")
    with TemporaryDirectory() as directory:  # What is damaged is noticed before any of it is written.
        remark = write_npy_file(variable, f"{directory}/values.npy").remark
        with open(f"{directory}/values.npy", "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    return remark


def _sliced(variable: "Variable", taken: str) -> "Variable":
    from ckpttool.analysis.values import excerpts

    try:
        return excerpts.sliced(variable, excerpts.parse_slice(taken, variable.shape))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--slice") from error
