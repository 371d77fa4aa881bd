"""The command that makes a SavedModel."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.cli import options
from ckpttool.cli.caveats import say_caveats, say_python
from ckpttool.errors import NotFoundError

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph
    from ckpttool.transforms.serving.assets import AssetFile

_METHODS = ("predict", "classify", "regress")


def saved_model(
    path: options.GraphPath,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--inputs", metavar="[NAME=]TENSOR,…", help="A tensor to feed; may be given more than once."),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option("--outputs", metavar="[NAME=]TENSOR,…", help="A tensor to fetch; may be given more than once."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The directory to write.")] = "",
    signature: Annotated[
        str, typer.Option("--signature", metavar="KEY", help="The signature's name.")
    ] = "serving_default",
    method: Annotated[
        str, typer.Option("--method", metavar="|".join(_METHODS), help="The method that the signature gets.")
    ] = "predict",
    tags: Annotated[str, typer.Option("--tags", metavar="TAG,…", help="The tags that the graph gets.")] = "serve",
    checkpoint: options.OtherCheckpoint = None,
    asset: Annotated[
        list[str] | None,
        typer.Option(
            "--asset",
            metavar="NAME=PATH",
            help="Where a file is that a table is filled from; NAME is the file's name or path as the graph has it, or"
            " the op with that path.",
        ),
    ] = None,
    keep_devices: options.KeepDevices = False,
    v1: options.V1 = False,
    step: options.Step = None,
    dry_run: options.DryRun = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a SavedModel from a graph and its checkpoint, for tf.saved_model.load and TensorFlow Serving.

    ckpttool saved-model model.ckpt --inputs x:0 --outputs y=scores:0 -o served

    The graph keeps every op; a note names those that TensorFlow 2 does not load. If no output needs them, freeze the
    graph first, and convert the frozen graph. A graph with an op of before TensorFlow 1, such as TensorArrayV2, is
    loaded by tf.compat.v1.saved_model.load and TensorFlow Serving alone.
    """
    from ckpttool.formats.saved_model.writing import require_saved_model_writable, write_saved_model
    from ckpttool.transforms.serving import Marks, servable

    options.require_output(output)
    options.require_known(method, _METHODS, "--method")
    found = options.located(path, quiet, v1=v1, step=step)
    graph = options.opened_graph(path, found, quiet)
    options.say_tags(graph, None, quiet, has_tags=False)  # --tags are those that the new graph gets.
    fed, fetched = _endpoints(
        graph, options.split_names(inputs, "--inputs"), options.split_names(outputs, "--outputs"), quiet
    )
    names, sources = _assets(graph, asset or [], quiet)
    marked = [tag for tag in tags.split(",") if tag]
    options.refuse(not signature, "--signature names nothing")
    options.refuse(not marked, "--tags is a list of one or more")
    options.refuse(not options.is_text(signature + tags), "--signature and --tags are text in UTF-8")
    stored = options.variables_of(path, found, checkpoint, quiet, v1=v1)
    options.warn_of_frozen(graph, checkpoint)
    marks = Marks(signature, method, marked)
    served = servable(graph, stored, fed, fetched, marks, keep_devices=keep_devices, assets=names)
    total = sum(variable.nbytes for variable in served.variables.values())
    if dry_run:
        require_saved_model_writable(served.graph, served.variables, output, assets=sources, force=force)
    else:
        with render.progress("Writing", total) as progress:
            write_saved_model(served.graph, served.variables, output, assets=sources, force=force, progress=progress)
    if quiet:
        return
    for op, why in served.left_out.items():
        render.say(f"note: {op} is not run: it {why}; no output needs it")
    for collection, member in served.unlisted:
        render.say(f"note: {member} was removed from the collection {collection}: the graph has no such op or tensor")
    _say_obstacles(served.graph, fed, fetched)
    say_caveats(graph, fetched.values(), fed.values(), lambda: stored, "--inputs")
    say_python(graph, fetched.values(), fed.values())
    count = render.counted(len(served.variables), "variable")
    done = "would write" if dry_run else "wrote"
    render.say(f"{done} the signature {signature} and {count}, {render.human_bytes(total)} · {output}")


def _endpoints(
    graph: "MetaGraph", inputs: list[str], outputs: list[str], quiet: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """The tensors to feed and to fetch, by key: those given, else those that are most likely meant, which is said."""
    from ckpttool.transforms.serving.signatures import keyed, likely_inputs, likely_outputs

    try:
        fetched = keyed(outputs) or likely_outputs(graph)
        fed = keyed(inputs) or likely_inputs(graph, fetched, inferred=not outputs)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--inputs, --outputs") from error
    options.refuse(not fetched, "found no output in this graph: --outputs says what to fetch")
    for option, given, taken in (("--inputs", inputs, fed), ("--outputs", outputs, fetched)):
        if not given and not quiet:
            pairs = " ".join(f"{option} {key}={tensor}" for key, tensor in taken.items()) or f"no {option}"
            render.say(f"note: taking {pairs}")
    return fed, fetched


def _say_obstacles(graph: "MetaGraph", fed: dict[str, str], fetched: dict[str, str]) -> None:
    """Says what is in the way of TensorFlow 2, which is to load the SavedModel."""
    from ckpttool.analysis.graphs.functions import BEFORE_1
    from ckpttool.analysis.graphs.loading import obstacles
    from ckpttool.model.names import listed

    lacks, needs, loads = "TensorFlow 2 has no", "which an output needs", "tf.saved_model.load"
    found = obstacles(graph, fetched.values(), fed.values())
    notes = (
        (found.unneeded, f"{lacks} %s, and loads no graph with one; no output needs it: freeze the graph first"),
        (found.needed, f"{lacks} %s, {needs}: only where it is registered is the graph loaded"),
        (found.deprecated, f"{loads} takes no %s, {needs}; tf.compat.v1.saved_model.load does"),
        (found.not_in_functions, f"{loads} runs no %s, {needs}; tf.compat.v1.saved_model.load does"),
        (found.trees, "TensorFlow 2.9 and later have no kernels of %s, and do not load the graph; 2.4 and before do"),
        (found.tables, "TensorFlow 2 does not load the graph: %s, as 1.12 wrote it, lacks an input; 1.12 does"),
        (found.functions[:1], f"{loads} does not load the graph: the function %s {BEFORE_1}"),
    )
    for types, note in notes:
        if types:
            render.say(f"note: {note % listed(types)}")


def _assets(graph: "MetaGraph", given: list[str], quiet: bool) -> tuple[dict[str, str], dict[str, str]]:
    """The files that tables are filled from: tensor → name in `assets/`, and that name → the file."""
    from ckpttool.formats.saved_model.writing import find_asset
    from ckpttool.transforms.serving.assets import asset_files, file_names

    wanted = asset_files(graph)
    places = dict(text.partition("=")[::2] for text in given)
    options.refuse(not all(places.values()), "--asset is NAME=PATH")
    known = {name for each in wanted for name in each.names}
    for name in [name for name in places if name not in known]:
        there = ", ".join(each.path for each in wanted) or "none"
        raise NotFoundError(f"the graph reads no file {name}", path=graph.path, hint=f"it reads {there}")
    found = {}
    for each in wanted:
        place = next((places[name] for name in each.names if name in places), None)
        if place is not None and not os.path.isfile(place):
            raise NotFoundError("no such file", path=place)
        named = None if place else find_asset(graph, each.path, each.name)
        if place := place or named:
            found[each] = place
        _say_asset(graph, each, place, quiet, is_named_by_graph=named is not None)
    names = file_names(found)
    return names, {names[each.tensor]: place for each, place in found.items()}


def _say_asset(
    graph: "MetaGraph", asset: "AssetFile", place: str | None, quiet: bool, *, is_named_by_graph: bool
) -> None:
    """Says where a file is that a table is filled from; warns of one that nobody but the graph names, elsewhere."""
    if place and is_named_by_graph and not Path(place).resolve().is_relative_to(Path(graph.path).resolve().parent):
        # Whoever made the graph may have meant to be sent what is in it.
        which = f"for {asset.tensor} names it; it is not beside the graph"
        options.warn([f"the file {place} goes into the SavedModel, {which}"])
    elif not quiet:
        told = f"is {place}" if place else f"is not here; --asset {asset.name}=PATH says where it is"
        render.say(f"note: the file {asset.path}, which {asset.tensor} names, {told}")
