"""The command that runs graphs: the only one that needs TensorFlow."""

import sys
from collections.abc import Mapping
from functools import cache
from math import isnan
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.cli.jobs import Job, Wanted, feeds_of, files_read, job_of, read_stdin
from ckpttool.formats.outputs import require_writable
from ckpttool.model.nodes import op_of

if TYPE_CHECKING:
    from ckpttool.analysis.values.runs import Result
    from ckpttool.runtime.imported import ImportedGraph

_MOST_VALUES = 100
_SCHEMA = "ckpttool.run/1"


class _How(NamedTuple):
    """How a model is run: arguments of ImportedGraph and of its `run`; how often it is timed; what is said."""

    imported: Mapping[str, Any]
    run: Mapping[str, Any]
    timed: int
    verbose: bool
    quiet: bool


def run(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="A graph with its values: a checkpoint that has a .meta (its prefix or directory), a SavedModel, a"
            " frozen graph. Of several, the outputs are compared.",
        ),
    ],
    feed: Annotated[
        list[str] | None,
        typer.Option(
            "--feed",
            metavar="NAME=VALUE",
            help="NAME: an op, a tensor (x:0), a key of the signature. VALUE: 50, [1, 2.5], text, @a.npy, @a.npz[key],"
            " @a.json, any @file for an input of strings, @- (.npy or JSON from standard input), @@ for text with @.",
        ),
    ] = None,
    fetch: Annotated[
        list[str] | None,
        typer.Option("--fetch", metavar="NAME", help="A tensor, an op's first output, or a key of the signature."),
    ] = None,
    collection: Annotated[str | None, typer.Option("--collection", metavar="NAME", help="Fetch its members.")] = None,
    signature: Annotated[str | None, typer.Option("--signature", metavar="KEY", help="Fetch its outputs.")] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the values: .npz, .npy (one array) or .json."),
    ] = None,
    batch_dim: Annotated[
        bool, typer.Option("--batch-dim", help="Add a dimension of 1 in front of a value that lacks just that.")
    ] = False,
    broadcast: Annotated[
        bool, typer.Option("--broadcast", help="Fill an input's shape with a scalar; [?] becomes [1].")
    ] = False,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="With --time: run N times.")] = 1,
    time: Annotated[
        bool, typer.Option("--time", help="Say how long a run takes, after one that does not count.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0.001, help="Give up a run after this time.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", min=0, help="Of several models: how far outputs may differ.")
    ] = 0.0,
    op_library: Annotated[
        list[str] | None, typer.Option("--op-library", metavar="FILE.so", help="Load ops and kernels.")
    ] = None,
    keep_devices: options.KeepDevices = False,
    checkpoint: options.OtherCheckpoint = None,
    tags: options.Tags = None,
    step: options.Step = None,
    force: options.Force = False,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show TensorFlow's own log.")] = False,
) -> None:
    """Run a saved graph: restore it, feed it, fetch from it. Needs TensorFlow: pip install 'ckpttool[tensorflow]'

    ckpttool run model.ckpt --feed 'x:0=[50]' --fetch activation_opt

    ckpttool run saved_model/ --feed images=@batch.npy --out result.npz

    ckpttool run before.ckpt after.ckpt --feed 'x=[1, 2]' --tolerance 1e-6
    """
    wanted_format = options.format_of(format, as_json)
    options.refuse(repeat > 1 and not time, "--repeat needs --time")
    options.refuse(tolerance and len(paths) == 1, "--tolerance needs several models")
    options.refuse(isnan(tolerance), "a tolerance must be a number")
    options.refuse(out is not None and len(paths) > 1, "--out takes one model")
    options.refuse(
        out is not None and not out.endswith((".npz", ".npy", ".json")), "--out is a .npz, .npy or .json file"
    )
    options.refuse(force and not out, "--force needs --out")
    options.refuse("" in (op_library or ()), "--op-library names nothing")
    fitting = {"batch_dim": batch_dim, "broadcast": broadcast}
    wanted = Wanted(fetch or [], collection, signature, feeds_of(feed or []), fitting, cache(read_stdin))
    options.refuse(checkpoint is not None and len(paths) > 1, "--checkpoint takes one model")
    values = options.located(checkpoint, quiet, has_step=False) if checkpoint is not None else None
    jobs = [job_of(path, wanted, values, step=step, tags=tags, quiet=quiet) for path in paths]
    imported = {"checkpoint": values, "tags": tags, "clear_devices": not keep_devices, "op_libraries": op_library or ()}
    how = _How(imported, {**fitting, "timeout": timeout}, repeat if time else 0, verbose, quiet)
    if out:
        require_writable(out, force=force, inputs=files_read(jobs, wanted, values))
    ran = [_run(job, how) for job in jobs]
    results, latencies = [result for result, _ in ran], [taken for _, taken in ran if taken]
    if out:
        _write(results[0], out, force=force, quiet=quiet)
    is_silent = bool(out) and wanted_format is None
    _report(results, latencies, wanted_format, everything=everything, tolerance=tolerance, is_silent=is_silent)


def _run(job: Job, how: _How) -> "tuple[Result, dict[str, float] | None]":
    """Imports a model and runs it; its outputs, and how long it took if that is asked."""
    import numpy as np

    from ckpttool.analysis.values.runs import Result
    from ckpttool.reports.runs import latency
    from ckpttool.runtime.imported import ImportedGraph
    from ckpttool.runtime.quiet import import_tensorflow

    import_tensorflow(quiet=not how.verbose)
    with ImportedGraph(job.located, **how.imported) as model:
        try:
            fetched = [_runnable(model, each.tensor) for each in job.choice.fetches]
            arrays = model.run(fetched, job.feeds, **how.run)
            seconds = [_timed(model, fetched, job.feeds, how.run) for _ in range(how.timed)]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        options.warn(model.warnings)
        for note in () if how.quiet else model.notes:
            render.say(f"note: {note}")
    values = zip(job.choice.fetches, arrays, strict=True)
    result = Result(job.path, {each: np.asarray(value) for each, value in values if value is not None})
    return result, latency(seconds) if seconds else None


def _runnable(model: "ImportedGraph", tensor: str) -> str:
    """The tensor; or an op without outputs, which is run for what it does."""
    operation = model.operation(tensor)
    return tensor if operation.outputs else op_of(tensor)


def _timed(model: "ImportedGraph", fetched: list[str], feeds: Mapping[str, Any], arguments: Mapping[str, Any]) -> float:
    start = perf_counter()
    model.run(fetched, feeds, **arguments)
    return perf_counter() - start


def _write(result: "Result", out: str, *, force: bool, quiet: bool) -> None:
    from ckpttool.formats.results import write_results
    from ckpttool.reports import runs as reports

    document = render.json_text([reports.outputs([result])], _SCHEMA, {"path": result.model})
    arrays = {fetch.label: array for fetch, array in result.arrays.items()}
    remarkable = write_results(arrays, out, document=document, force=force)
    options.warn(f"{planned.variable.name}: {planned.remark}" for planned in remarkable)
    if not quiet:
        render.say(f"wrote {render.counted(len(arrays), 'array')} · {out}")


def _report(
    results: "list[Result]",
    latencies: list[dict[str, float]],
    format: str | None,
    *,
    everything: bool,
    tolerance: float,
    is_silent: bool,
) -> None:
    """Prints values or differences; how long it took goes into the JSON, or is said."""
    from ckpttool.analysis.values.runs import differences
    from ckpttool.reports import runs as reports

    found = differences(results)
    is_table = format == "table" or (format is None and sys.stdout.isatty())
    most = _MOST_VALUES if is_table and not everything else None
    facts: dict[str, Any] = {"path": results[0].model, **({"latency_ms": latencies} if latencies else {})}
    shown = [reports.comparison(found, tolerance)] if found else []
    if format == "json" or not found:
        shown.insert(0, reports.outputs(results, most))
    if not is_silent:
        render.render(shown, format=format, schema=_SCHEMA, facts=facts, everything=everything)
    for taken in latencies if format != "json" else ():
        render.say("milliseconds: " + " · ".join(f"{name} {value:.3f}" for name, value in taken.items()))
    if any(each.exceeds(tolerance) for each in found):
        raise typer.Exit(options.ANSWER_IS_NO)
