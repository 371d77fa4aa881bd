"""The command that compares."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.formats.opening import open_checkpoint, open_graph

if TYPE_CHECKING:
    from ckpttool.formats.locate import Located
    from ckpttool.reports.report import Report

_DIFFERENT = 1


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, weights in another format, or a graph.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    rtol: Annotated[float, typer.Option("--rtol", min=0, help="Relative tolerance, of B's value.")] = 0.0,
    atol: Annotated[float, typer.Option("--atol", min=0, help="Absolute tolerance.")] = 0.0,
    structure: Annotated[
        bool, typer.Option("--structure", help="Only names, dtypes and shapes: no values are read.")
    ] = False,
    graphs: Annotated[bool, typer.Option("--graphs", help="Compare the graphs, not the variables.")] = False,
    include: options.Include = None,
    exclude: options.Exclude = None,
    format: options.Format = None,
    as_json: options.Json = False,
    everything: options.All = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare variables: what only one has, what was renamed, what has other values and by how much; or two graphs.

    ckpttool diff model.ckpt-100 model.ckpt-200 --atol 1e-6

    ckpttool diff model.ckpt.meta other.ckpt

    Exit code 0: the same, or within the tolerance; 1: different. A graph and a checkpoint are compared by what the
    graph's saver would restore.
    """
    from ckpttool.reports import differences as reports

    wanted = options.format_of(format, as_json)
    found_a, found_b = options.located(a, quiet), options.located(b, quiet)
    facts = {"a": found_a.prefix, "b": found_b.prefix}
    are_graphs = [_is_graph(a, found_a), _is_graph(b, found_b)]
    if graphs or all(are_graphs):
        from ckpttool.model.graph_comparison import compare_graphs

        shown = [reports.ops(compare_graphs(open_graph(found_a), open_graph(found_b)))]
    elif any(are_graphs):
        from ckpttool.reports import findings
        from ckpttool.transforms.agreement import disagreements, not_restored

        options.refuse(include or exclude or rtol or atol, "a graph has no values to choose or to compare")
        graph, other = (found_a, found_b) if are_graphs[0] else (found_b, found_a)
        checkpoint = open_checkpoint(other)
        opened = open_graph(graph)
        shown = [findings.findings([*disagreements(opened, checkpoint), *not_restored(opened, checkpoint)])]
    else:
        shown = _variables(found_a, found_b, (rtol, atol), structure, (include, exclude))
    rows = [row for report in shown for row in report.rows]
    if rows or wanted == "json":
        shown = shown if wanted == "json" else [report for report in shown if report.rows]
        render.render(shown, format=wanted, schema="ckpttool.diff/1", facts=facts, everything=everything)
    if not rows and not quiet:
        render.say("no differences")
    if any("within tolerance" not in row for row in rows):
        raise typer.Exit(_DIFFERENT)


def _is_graph(path: str, found: "Located") -> bool:
    """Whether the path is that of a graph's file, or leads to nothing but a graph."""
    return found.graph is not None and (
        not found.has_variables or os.path.realpath(path) == os.path.realpath(found.graph)
    )


def _variables(
    found_a: "Located",
    found_b: "Located",
    tolerance: tuple[float, float],
    structure: bool,
    choice: tuple[list[str] | None, list[str] | None],
) -> list["Report"]:
    from ckpttool.model.comparison import compare
    from ckpttool.reports import differences as reports

    a, b = (options.chosen(open_checkpoint(found), *choice) for found in (found_a, found_b))
    options.exit_if_nothing(not a and not b and any(choice))
    total = 0 if structure else sum(each[name].nbytes for each in (a, b) for name in each if name in a and name in b)
    rtol, atol = tolerance
    with render.progress("Comparing", total) as progress:
        compared = compare(a, b, rtol=rtol, atol=atol, values=not structure, progress=progress)
    return [reports.structure(a, b, compared), reports.values(compared)]
