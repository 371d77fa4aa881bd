"""The command that freezes graphs."""

from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.analysis.graphs import fetches
from ckpttool.cli import options
from ckpttool.cli.caveats import say_caveats, say_python
from ckpttool.model.names import listed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckpttool.analysis.graphs.fetches import Fetch
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.freezing import Frozen


def freeze(
    path: options.GraphPath,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The file to write; as text, if it ends in .pbtxt.")
    ] = "",
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--outputs",
            metavar="OP,…",
            help="The ops or tensors that the frozen graph is to give; may be given more than once. Default: those of"
            " the signature, of the one collection that is yours, or the likeliest (see io).",
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="The outputs are the members of this collection.")
    ] = None,
    signature: Annotated[
        str | None,
        typer.Option("--signature", metavar="KEY", help="The outputs, and what is fed, are those of this signature."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--inputs",
            metavar="TENSOR,…",
            help="Tensors to feed: what gives them, such as an input queue, goes, and placeholders stand for them.",
        ),
    ] = None,
    checkpoint: options.OtherCheckpoint = None,
    step: options.Step = None,
    v1: options.V1 = False,
    tags: options.Tags = None,
    keep_devices: options.KeepDevices = False,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the part of a graph that gives its outputs, with the variables' values as constants, as one file.

    ckpttool freeze model.ckpt --outputs softmax -o frozen.pb
    """
    from ckpttool.formats.meta_graph import require_meta_graph_writable, write_meta_graph
    from ckpttool.transforms.freezing import freeze

    options.require_output(output)
    ways = bool(outputs) + (collection is not None) + (signature is not None)
    options.refuse(ways > 1, "give outputs in one way, not in several")
    found = options.located(path, quiet, v1=v1, step=step)
    graph = options.opened_graph(path, found, quiet, tags)
    options.say_tags(graph, tags, quiet)
    chosen, fed = _endpoints(graph, options.split_names(outputs, "--outputs"), collection, signature, quiet)
    variables = options.variables_of(path, found, checkpoint, quiet, v1=v1)
    options.warn_of_frozen(graph, checkpoint)
    fed += options.split_names(inputs, "--inputs")
    frozen = freeze(graph, variables, chosen, inputs=fed, keep_devices=keep_devices)
    written = frozen.graph.replace(path=graph.path, text=b"" if output.endswith(".pbtxt") else None)
    write = require_meta_graph_writable if dry_run else write_meta_graph
    write(written, output, force=force, inputs=variables.files if variables else ())
    if not quiet:
        render.say(f"{'would keep' if dry_run else 'kept'} {_kept(graph, frozen)} · {output}")
        _say(frozen, chosen)
        say_caveats(graph, chosen, fed, lambda: variables, "--inputs")
        say_python(graph, chosen, fed)


def _endpoints(
    graph: "MetaGraph", outputs: list[str], collection: str | None, signature: str | None, quiet: bool
) -> tuple[list[str], list[str]]:
    """The outputs that were asked for, or those that the graph is likely to have; and what a signature feeds."""
    if outputs:
        return outputs, []
    if collection is not None:
        return _tensors(fetches.of_collection(graph, collection)), []
    choice = fetches.choice_of(graph, signature)
    chosen = _tensors(choice.fetches)
    if choice.why and not quiet:
        render.say(f"note: freezing for {listed(chosen)}: {choice.why}")
    fed = fetches.arguments(graph, choice.signature, "inputs").values()
    return chosen, [tensor for tensor in dict.fromkeys(fed) if tensor]


def _tensors(found: "Iterable[Fetch]") -> list[str]:
    return [tensor for tensor in dict.fromkeys(each.tensor for each in found) if tensor]


def _kept(graph: "MetaGraph", frozen: "Frozen") -> str:
    """How much of the graph is in the frozen one."""
    values = f"{render.counted(frozen.variables, 'variable')} frozen, {render.human_bytes(frozen.nbytes)}"
    return f"{frozen.ops:,} of {render.counted(len(graph.graph_def.node), 'op')} · {values}"


def _say(frozen: "Frozen", outputs: list[str]) -> None:
    """What there is to know of a frozen graph."""
    for tensor, name in frozen.placeholders.items():
        if tensor != f"{name}:0":
            render.say(f"note: the placeholder {name} stands for {tensor}")
    if frozen.initial:
        render.say(f"note: with their initial values, because none were stored: {listed(frozen.initial)}")
    if frozen.dropped:
        render.say(f"note: updates of variables are gone: {listed(frozen.dropped)}")
    if frozen.fillers:
        feeds = "".join(f", feeding {tensor} the path of {file}" for tensor, file in frozen.assets.items())
        render.say(f"note: tables are filled by {listed(frozen.fillers)}: run that first{feeds}")
    render.say(f"fetch {listed(outputs)}")
