"""The command that compares."""

import os
from collections.abc import Collection
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.errors import NotSupportedError
from ckpttool.formats.opening import open_graph, require_readable

if TYPE_CHECKING:
    from ckpttool.model.checkpoint import Checkpoint
    from ckpttool.model.graph import MetaGraph
    from ckpttool.reports.report import Report


class _Side:
    """One of the two things that are compared."""

    def __init__(self, path: str, *, as_graph: bool, quiet: bool) -> None:
        self.found = options.located(path, quiet, has_step=False)
        self._path, self._as_graph, self._quiet = path, as_graph, quiet

    @property
    def is_graph(self) -> bool:
        """Whether its graph is meant: it was asked for, or the path leads to nothing else."""
        graph = self.found.graph
        return self._as_graph or (
            graph is not None
            and (not self.found.has_variables or os.path.realpath(self._path) == os.path.realpath(graph))
        )

    @cached_property
    def constants(self) -> "Checkpoint | None":
        """Those of a frozen graph, which can be compared with variables; None if it is none."""
        from ckpttool.formats.frozen import constants_of

        return constants_of(open_graph(self.found)) if self.is_graph and not self._as_graph else None

    def graph(self) -> "MetaGraph":
        """Its graph; where it is, and of several which it is, is said."""
        graph = options.opened_graph(self._path, self.found, self._quiet)
        options.say_tags(graph, None, self._quiet, has_tags=False)
        return graph

    def checkpoint(self) -> "Checkpoint":
        """Its variables; what is wrong with it, and does not keep it from being read, is said."""
        if self.constants is not None:
            options.warn(() if self._quiet else self.constants.warnings)
            return self.constants
        checkpoint = options.opened(self._path, self.found, self._quiet)
        require_readable(self.found, checkpoint)
        return checkpoint


class _Found(NamedTuple):
    """What a comparison has found: reports; whether it is more than differences within the tolerance; whether something
    could not be read; and if none of the names that there are was chosen, these.
    """

    reports: list["Report"]
    is_different: bool
    is_partial: bool = False
    unmatched: Collection[str] = ()


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A checkpoint, weights in another format, or a graph.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    rtol: Annotated[
        float, typer.Option("--rtol", metavar="X", min=0, help="Relative tolerance: ignore differences up to X × |B|.")
    ] = 0.0,
    atol: Annotated[
        float, typer.Option("--atol", metavar="X", min=0, help="Absolute tolerance: ignore differences up to X.")
    ] = 0.0,
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

    ckpttool diff model.ckpt model.h5

    ckpttool diff model.ckpt.meta other.ckpt

    A graph and a checkpoint are compared by what the graph's saver would restore; a frozen graph and a checkpoint by
    the weights, if constants have their names; two graphs by ops, functions, collections and signatures.

    Exit code 0: the same, or within the tolerance; 1: different; others: nothing was found out, as for every command.
    """
    wanted = options.format_of(format, as_json)
    one, other = (_Side(path, as_graph=graphs, quiet=quiet) for path in (a, b))
    is_frozen = one.is_graph != other.is_graph and (one.constants or other.constants) is not None
    if (one.is_graph or other.is_graph) and not is_frozen:
        options.refuse(include or exclude or rtol or atol or structure, "a graph has no values to choose or to compare")
        found = _of_graphs(one, other)
    else:
        options.refuse(structure and (rtol or atol), "--structure compares no values")
        options.refuse(isnan(rtol) or isnan(atol), "a tolerance must be a number")
        found = _of_variables(one, other, (rtol, atol), structure, (include, exclude), quiet)
    facts = {"a": one.found.prefix, "b": other.found.prefix, "different": found.is_different}
    shown = found.reports if wanted == "json" else [report for report in found.reports if report.rows]
    if shown:
        render.render(shown, format=wanted, schema="ckpttool.diff/1", facts=facts, everything=everything)
    options.exit_if_no_match(found.unmatched, include or (), found.unmatched)
    if not quiet and not any(report.rows for report in found.reports):
        render.say(f"no differences{' in what can be read' if found.is_partial else ''}")
    if found.is_different:
        raise typer.Exit(options.ANSWER_IS_NO)


def _of_graphs(one: _Side, other: _Side) -> _Found:
    """Two graphs, or a graph and a checkpoint."""
    from ckpttool.analysis import agreement
    from ckpttool.analysis.graphs.comparison import compare_graphs
    from ckpttool.reports import differences, findings

    if one.is_graph and other.is_graph:
        changes = compare_graphs(one.graph(), other.graph())
        return _Found([differences.graphs(changes)], bool(changes))
    side, stored = (one, other) if one.is_graph else (other, one)
    found = agreement.differences(side.graph(), stored.checkpoint())
    return _Found([findings.findings(found)], bool(found))


def _weights_alone(constants: "Checkpoint", stored: "Checkpoint") -> "tuple[Checkpoint, Checkpoint]":
    """Of a frozen graph and a checkpoint what can be in both: constants that bear variables' names, and variables that
    are no optimizer's.

    Raises:
        NotSupportedError: no constant bears the name of a variable.
    """
    from ckpttool.model.roles import roles_of

    known = roles_of(stored, stored.object_graph)
    keys = {stored.stored_as(name): name for name in constants}
    weights = {key: constants[name] for key, name in keys.items() if key in stored}
    if not weights:
        hint = "TensorFlow 2 gives constants other names when it freezes a graph: vars shows them"
        raise NotSupportedError("no constant of the graph has the name of a variable", path=constants.path, hint=hint)
    left = {name: variable for name, variable in stored.items() if name not in known}
    return constants.with_variables(weights), stored.with_variables(left)


def _of_variables(
    one: _Side,
    other: _Side,
    tolerance: tuple[float, float],
    structure: bool,
    choice: tuple[list[str] | None, list[str] | None],
    quiet: bool,
) -> _Found:
    from ckpttool.analysis.values.comparison import compare
    from ckpttool.reports import differences as reports

    sides = whole = one.checkpoint(), other.checkpoint()
    if one.constants is not None:
        whole = _weights_alone(*whole)
    elif other.constants is not None:
        whole = _weights_alone(*whole[::-1])[::-1]
    a, b = (options.chosen(side, *choice) for side in whole)
    unmatched = [*whole[0], *whole[1]] if any(choice) and not a and not b else []
    if not quiet and not unmatched:
        options.say_idle_globs(*choice, *sides)
    total = 0 if structure else sum(each[name].nbytes for each in (a, b) for name in each if name in a and name in b)
    rtol, atol = tolerance
    with render.progress("Comparing", total) as progress:
        compared = compare(a, b, rtol=rtol, atol=atol, values=not structure, progress=progress)
    shown = [reports.structure(a, b, compared)]
    if not structure:
        shown.append(reports.values(compared))
    options.warn_of_first(compared.partly, "values not compared")
    is_partial = bool(compared.partly) or any(
        side.found.foreign and each.warnings for side, each in zip((one, other), whole, strict=True)
    )
    return _Found(shown, compared.is_different, is_partial, unmatched)
