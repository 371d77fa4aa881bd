"""The job of `run` for each model: what to fetch, and what to feed.

All that can be refused without TensorFlow is refused here, before it starts.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import typer

from ckpttool import render
from ckpttool.analysis.graphs import fetches as choosing
from ckpttool.cli import options
from ckpttool.cli.caveats import say_caveats
from ckpttool.formats.locate import Located
from ckpttool.formats.opening import open_checkpoint
from ckpttool.model.graph import MetaGraph


class Wanted(NamedTuple):
    """What is asked of every model."""

    fetches: list[str]
    collection: str | None
    signature: str | None
    feeds: Mapping[str, str]
    fitting: Mapping[str, bool]
    read_stdin: Callable[[], bytes]


class Job(NamedTuple):
    """A model, and what to fetch and feed in it: values by the tensors' names."""

    path: str
    located: Located
    choice: choosing.Choice
    feeds: Mapping[str, Any]


def read_stdin() -> bytes:
    options.refuse(sys.stdin is None, "--feed NAME=@-: standard input is closed")
    return sys.stdin.buffer.read()


def feeds_of(texts: list[str]) -> dict[str, str]:
    """The values as they were written, by the names."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--feed")
        options.refuse(name in found, f"--feed {name} is given twice")
        found[name] = value
    return found


def job_of(
    path: str, wanted: Wanted, values: Located | None, *, step: str | None, tags: str | None, quiet: bool
) -> Job:
    """The job for a model; says what was chosen by default, and what the result depends on."""
    from ckpttool.analysis.graphs.initializers import main_ops
    from ckpttool.analysis.graphs.needs import needed_ops
    from ckpttool.analysis.graphs.pipelines import filled_by, sole_makers
    from ckpttool.analysis.graphs.running import require_fed

    located = options.located(path, quiet, step=step)
    graph = options.opened_graph(path, located, quiet, tags)
    options.say_tags(graph, tags, quiet)
    options.warn_of_frozen(graph, values.prefix if values else None)
    nodes = graph.by_name
    choice = _choice(graph, wanted)
    if not quiet and choice.why:
        render.say(f"note: fetching {', '.join(each.label for each in choice.fetches)}: {choice.why}")
    try:
        feeds = _values(graph, wanted, choice.signature)
        keys = choosing.arguments(graph, choice.signature, "inputs")
        filled = filled_by(nodes, needed_ops(nodes, main_ops(graph))) | sole_makers(nodes).keys()
        tensors = [each.tensor for each in choice.fetches]
        require_fed(nodes, needed_ops(nodes, tensors, feeds), feeds, keys, filled)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--feed") from error
    if not quiet:
        held = values or (located if located.has_variables else None)
        say_caveats(graph, tensors, feeds, lambda: open_checkpoint(held) if held else None, "--feed")
    return Job(path, located, choice, feeds)


def _choice(graph: MetaGraph, wanted: Wanted) -> choosing.Choice:
    """The fetches that were asked for, or the default ones."""
    if not wanted.fetches and wanted.collection is None and wanted.signature is None:
        return choosing.default_choice(graph)
    key = choosing.signature_named(graph, wanted.signature) if wanted.signature is not None else ""
    named = choosing.named(graph, wanted.fetches, key)
    if wanted.collection is not None:
        named += choosing.of_collection(graph, wanted.collection)
    if key and not wanted.fetches:
        named += choosing.of_signature(graph, key)
    return choosing.Choice(list(dict.fromkeys(named)), "", key)


def _values(graph: MetaGraph, wanted: Wanted, signature: str) -> dict[str, Any]:
    """The values to feed, by the tensors' names."""
    from ckpttool.analysis.graphs.fitting import fit
    from ckpttool.formats.feeds import parse_feed

    found = {}
    for name, tensor in choosing.feed_names(graph, wanted.feeds, signature).items():
        dtype, shape = graph.tensor(tensor)
        is_string = dtype is not None and dtype.name.startswith("string")
        value = parse_feed(wanted.feeds[name], is_string=is_string, stdin=wanted.read_stdin)
        if dtype is not None:  # If not, TensorFlow will tell.
            value = fit(value, dtype, shape, name=tensor, **wanted.fitting)
        found[tensor] = value
    return found


def files_read(jobs: Iterable[Job], wanted: Wanted, values: Located | None) -> list[str]:
    """The files of a run: those of the models, and those that were fed."""
    from ckpttool.formats.feeds import feed_file
    from ckpttool.formats.siblings import belonging

    found = [path for path in map(feed_file, wanted.feeds.values()) if path]
    for located in [*(job.located for job in jobs), *([values] if values else [])]:
        graph = located.graph or f"{located.prefix}.meta"
        found += [graph, *belonging(graph), located.prefix]
    return found
