"""What commands share: options, opening what they name, and saying what is assumed or amiss."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ckpttool import render
from ckpttool.errors import ConversionError, CorruptionError, NotFoundError, shortened
from ckpttool.formats.locate import Located, locate
from ckpttool.formats.locate.prefixes import BY_PATH, BY_STEP, TAKEN_BY_STEP, TAKEN_BY_V1
from ckpttool.formats.opening import open_checkpoint, open_graph, require_readable
from ckpttool.formats.saved_model.names import tags_text
from ckpttool.model.checkpoint import Checkpoint
from ckpttool.model.names import near_hint, such

if TYPE_CHECKING:
    from ckpttool.model.graph import MetaGraph

ANSWER_IS_NO = 1
"""The exit code if something differs, is wrong or left out, or if nothing matches."""

CheckpointPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A checkpoint: its prefix (model.ckpt), one of its files (model.ckpt.index, .meta, .data-…), a V1 file, a"
        " directory with a `checkpoint` file, or a SavedModel; or weights in HDF5 (.h5, Keras' too), NumPy (.npz, a"
        " directory of .npy) or safetensors (a file, model.safetensors.index.json or its directory).",
    ),
]
GraphPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="A graph: a .meta file, a checkpoint that has one (its prefix or directory), a SavedModel, or a frozen"
        " graph (.pb, .pbtxt).",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        "--include",
        "-i",
        metavar="GLOB",
        help="Only variables whose names match (of TensorFlow 2, also objects' paths and full names); may be given more"
        " than once. * stays within a segment, ** crosses them; in a pattern without / a * matches anything.",
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--exclude", "-x", metavar="GLOB", help="Not the variables whose names match; as --include."),
]
OtherCheckpoint = Annotated[
    str | None, typer.Option("--checkpoint", metavar="PATH", help="The variables, if they are not beside the graph.")
]
V1 = Annotated[bool, typer.Option("--v1", help="Where V1 and V2 share a prefix, take the V1 checkpoint.")]
Step = Annotated[
    str | None,
    typer.Option("--step", metavar="N|latest", help="In a directory with several checkpoints: the step to take."),
]
Tags = Annotated[
    str | None,
    typer.Option("--tags", metavar="TAG,…", help="Of a SavedModel with several graphs, the tags of the one to take."),
]
Format = Annotated[
    str | None,
    typer.Option("--format", "-f", metavar="|".join(render.FORMATS), help="Default: table on a terminal, else tsv."),
]
Json = Annotated[bool, typer.Option("--json", help="Short for --format json.")]
All = Annotated[bool, typer.Option("--all", help="Never cut a table: every row, every column.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No notes on standard error.")]
KeepDevices = Annotated[bool, typer.Option("--keep-devices", help="Keep the ops' device placements.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")]


def located(
    path: str, quiet: bool, *, v1: bool | None = None, step: str | None = None, has_step: bool = True
) -> Located:
    """What the path leads to; says what was assumed on the way.

    Args:
        path: what the user gave.
        quiet: say nothing.
        v1: whether --v1 was given; None: there is no such option.
        step: the value of --step; None: it was not given.
        has_step: whether --step applies to this path; if not, no message mentions it.
    """
    try:
        found = locate(path, v1=bool(v1), step=step)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--step") from error
    except NotFoundError as error:
        if not has_step and error.hint:
            error.hint = error.hint.replace(BY_STEP, BY_PATH, 1)
        raise
    lacking = ("" if v1 is not None else TAKEN_BY_V1, "" if has_step else TAKEN_BY_STEP)
    for note in () if quiet else found.notes:
        render.say(f"note: {note.removesuffix(lacking[0]).removesuffix(lacking[1])}")
    return found


def checkpoint_of(path: str, quiet: bool, *, v1: bool | None = None, step: str | None = None) -> Checkpoint:
    """The checkpoint that the path leads to; says which it is, and what is wrong with it."""
    return opened(path, located(path, quiet, v1=v1, step=step), quiet)


def opened(path: str, found: Located, quiet: bool, only: Collection[str] | None = None) -> Checkpoint:
    """The checkpoint that was located; as `checkpoint_of`."""
    try:
        checkpoint = open_checkpoint(found, only=only)
    except CorruptionError as error:
        # Of a variable, it is said where all errors are; a frozen graph is whole or nothing.
        if error.variable is None and found.has_variables:
            error.hint = error.hint or "verify tells what is left, export --salvage writes it"
        raise
    say_opened(path, found, checkpoint, quiet)
    warn(() if quiet else checkpoint.warnings)
    return checkpoint


def say_opened(path: str, found: Located, checkpoint: Checkpoint, quiet: bool) -> None:
    """Says which checkpoint the path leads to."""
    if not quiet and not found.notes and path != checkpoint.path:
        render.say(f"note: the checkpoint is {checkpoint.path}")


def to_convert(path: str, found: Located, quiet: bool, *, strict: bool) -> Checkpoint:
    """The checkpoint that was located, to be written into another one; as `opened`.

    Raises:
        NotSupportedError: nothing in it can be read.
        ConversionError: `strict`, and something in it can't be read.
    """
    checkpoint = opened(path, found, quiet)
    require_readable(found, checkpoint)
    require_all(passed_over(found, checkpoint), found.prefix, strict=strict)
    return checkpoint


def passed_over(found: Located, checkpoint: Checkpoint) -> Sequence[str]:
    """What a file of another format has that is not a variable here, in words."""
    # Of TensorFlow's own checkpoints, warnings are about files.
    return checkpoint.warnings if found.foreign is not None or not found.has_variables else ()


def require_all(lacking: Sequence[str], path: str, *, strict: bool) -> None:
    """Raises ConversionError if `strict`, and something was passed over."""
    if lacking and strict:
        raise ConversionError(lacking[0], path=path, hint="without --strict, the rest is written")


def variables_of(path: str, found: Located, other: str | None, quiet: bool, *, v1: bool) -> Checkpoint | None:
    """A graph's variables: the checkpoint that was asked for, else the graph's own; None if there is none."""
    if other is not None:  # --step is about the graph's directory.
        return opened(other, located(other, quiet, v1=v1, has_step=False), quiet)
    return opened(path, found, quiet) if found.has_variables else None


def warn_of_frozen(graph: "MetaGraph", other: str | None) -> None:
    """Warns of a checkpoint that was asked for but is not used: all values are in the graph."""
    if other is not None:
        from ckpttool.formats.frozen import is_frozen

        if is_frozen(graph):
            warn([f"the graph has no variables: nothing is taken from {other}"])


def graph_of(path: str, quiet: bool, *, step: str | None = None, tags: str | None = None) -> "MetaGraph":
    """The graph that the path leads to; says which it is."""
    return opened_graph(path, located(path, quiet, step=step), quiet, tags)


def opened_graph(path: str, found: Located, quiet: bool, tags: str | None = None) -> "MetaGraph":
    """The graph that was located; as `graph_of`."""
    graph = open_graph(found, tags=tags)
    if not quiet and path != graph.path:
        render.say(f"note: the graph is {graph.path}")
    return graph


def say_tags(graph: "MetaGraph", tags: str | None, quiet: bool, *, has_tags: bool = True) -> None:
    """Says which of a SavedModel's graphs was taken, if there was a choice and none was made.

    Args:
        graph: the one that was taken.
        tags: the value of --tags; None: it was not given.
        quiet: say nothing.
        has_tags: whether the command has the option --tags.
    """
    if not quiet and tags is None and len(graph.tag_sets) > 1:
        taken = f"{tags_text(graph.tag_sets[graph.number])}{'; --tags takes another' if has_tags else ''}"
        render.say(f"note: there are graphs of tags {graph.facts['tag sets']}; taking {taken}")


def chosen(checkpoint: Checkpoint, include: list[str] | None, exclude: list[str] | None) -> Checkpoint:
    """The variables that were asked for."""
    from ckpttool.transforms.variables import select

    return select(checkpoint, include or (), exclude or ())


def say_idle_globs(include: list[str] | None, exclude: list[str] | None, *checkpoints: Checkpoint) -> None:
    """Says which patterns match nothing of any of the checkpoints: most likely they are mistyped."""
    from ckpttool.transforms.variables import idle_globs

    idle = [*(include or ()), *(exclude or ())]
    for checkpoint in checkpoints:
        idle = idle_globs(checkpoint, idle)
    for glob in idle:
        render.say(f"note: {glob!r} matches no name")


def without_partly_stored(*checkpoints: Checkpoint) -> list[Checkpoint]:
    """The checkpoints without variables that one of them has only in part; says that these are left out."""
    lacking = {name: what for each in checkpoints for name, v in each.items() if (what := v.lacking)}
    warn_of_first(lacking, "left out")
    return [each.with_variables({name: v for name, v in each.items() if name not in lacking}) for each in checkpoints]


def format_of(format: str | None, as_json: bool) -> str | None:
    """The format that was asked for."""
    refuse(as_json and format not in (None, "json"), "give --json or --format, not both")
    require_known(format, render.FORMATS, "--format")
    return "json" if as_json else format


def format_of_plan(format: str | None, as_json: bool, *, dry_run: bool) -> str | None:
    """As `format_of`, for a command that prints only what it would write."""
    wanted = format_of(format, as_json)
    refuse(wanted and not dry_run, f"{'--json' if as_json else '--format'} needs --dry-run")
    return wanted


def require_output(output: str, in_place: bool | None = None) -> None:
    """Ends the command with a usage error if no output is given or, unless `in_place` is None, both are."""
    refuse(output and in_place, "give -o or --in-place, not both")
    refuse(not output and not in_place, f"give the output: -o{'' if in_place is None else ', or --in-place'}")
    refuse_standard_output(output, "-o")


def refuse_standard_output(output: str | None, option: str) -> None:
    """Ends the command with a usage error if an output is `-`: what is piped would be empty, and a file of that name
    be left.
    """
    refuse(output == "-", f"{option} - is standard output, which nothing can be written to; ./- is a file")


def split_names(texts: list[str] | None, option: str) -> list[str]:
    """The names that were given, one by one or separated by commas."""
    found = list(dict.fromkeys(name.strip() for text in texts or () for name in text.split(",") if name.strip()))
    refuse(texts and not found, f"{option} names nothing")
    return found


def refuse(wrong: object, why: str) -> None:
    """Ends the command with a usage error if something was asked for that would be ignored."""
    if wrong:
        raise typer.BadParameter(why)


def require_known(value: str | None, known: Collection[str], option: str) -> None:
    """Ends the command with a usage error if an option was given a value that it does not take."""
    if value is not None and value not in known:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}", param_hint=option)


def is_text(argument: str) -> bool:
    """Whether an argument is text: its bytes were UTF-8."""
    return argument.isascii() or not any("\ud800" <= character <= "\udfff" for character in argument)


def warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        render.say(f"warning: {warning}")


_MOST_NAMED = 3


def warn_of_each(remarks: Iterable[tuple[str, str]], hint: str = "") -> None:
    """Prints remarks on variables; the same remark on many only once, with what names them all."""
    names: dict[str, list[str]] = {}
    for name, remark in remarks:
        names.setdefault(remark, []).append(name)
    for remark, of in names.items():
        if len(of) > _MOST_NAMED:
            warn([f"{shortened(of[0])} and {len(of) - 1:,} more variables: {remark}{hint}"])
        else:
            warn(f"{shortened(name)}: {remark}" for name in of)


def warn_of_first(found: Mapping[str, str], done: str) -> None:
    """Warns about variables, naming the first ones: what was done, and why."""
    for name, why in islice(found.items(), 1):
        warn([f"{shortened(name)}: {done}: {why}{such(len(found))}"])


def exit_if_no_match(nothing: object, globs: Iterable[str], names: Collection[str]) -> None:
    """As `exit_if_nothing`, if no name matches; says what may have been meant."""
    if not nothing:
        return
    hints = ["nothing matched"]
    for glob in islice(globs, _MOST_NAMED):  # All names are looked through for each.
        scope = glob.removesuffix("/*").rstrip("/")  # * is a segment, and not several.
        if any(name.startswith(f"{scope}/") for name in names):
            hints.append(f"{scope} is a scope, and {scope}/** what is in it")
        elif "*" not in glob and (near := near_hint(glob, names)):
            hints.append(near)
    exit_if_nothing(True, " · ".join(map(render.printable, hints)))


def exit_if_nothing(nothing: object, what: str) -> None:
    """Ends the command with a no if there is nothing to show."""
    if nothing:
        render.say(what)
        raise typer.Exit(ANSWER_IS_NO)
