"""The command line: each command parses its arguments, calls one reader, one transform, one writer or report, and
chooses an exit code.

The table of commands says which module has which; `targets` has what those that write checkpoints share, `options`
what all do. Only the one that is asked for is imported: that is a third of the time that a small listing takes.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup

from ckpttool import render
from ckpttool.errors import (
    EXISTS,
    CheckpointError,
    ConversionError,
    CorruptionError,
    FormatError,
    NotFoundError,
    NotSupportedError,
)


class _Terminated(KeyboardInterrupt):
    """The process was told to end (SIGTERM): as with an interrupt, what is half written goes first."""


class _HungUp(KeyboardInterrupt):
    """The terminal is gone (SIGHUP), and with it who waited."""


_EXIT_CODES: dict[type[BaseException], int] = {
    NotFoundError: 3,
    FormatError: 3,
    CorruptionError: 4,
    NotSupportedError: 5,
    ConversionError: 5,
    FileExistsError: 2,
    BrokenPipeError: 141,
    _HungUp: 129,
    _Terminated: 143,
    KeyboardInterrupt: 130,
    MemoryError: 3,
    OSError: 3,
}
_EPILOG = (
    "Exit codes: 0 done (the same, nothing wrong) · 1 the answer is no (different, something wrong, nothing matched) · "
    "2 wrong usage, or the output exists · 3 not found, another kind of file, or no space or memory · 4 damaged · "
    "5 not supported, or the output can't hold it · 129 hung up · 130 interrupted · 141 closed pipe · 143 terminated"
)


# Typer's own for wrong usage; it has no name of its own there.
_UsageError: Any = typer.BadParameter.__bases__[0]


class _Command(NamedTuple):
    """A command: the module and the function that it is, and what the list of commands says of it."""

    module: str
    function: str
    help: str


_COMMANDS = {
    "vars": _Command("inspecting", "vars_", "List a checkpoint's variables"),
    "ls": _Command("inspecting", "ls", "Show what is in a graph: ops, collections, variables, devices"),
    "io": _Command("inspecting", "io", "Tell what to feed and what to fetch"),
    "objects": _Command("inspecting", "objects", "Show a TensorFlow 2 checkpoint's objects as a tree"),
    "diff": _Command("comparing", "diff", "Compare two checkpoints, two graphs, or one with the other"),
    "verify": _Command("verifying", "verify", "Check a whole checkpoint, and tell what is damaged"),
    "stats": _Command("values", "stats", "Show range, mean, spread and histogram of each variable"),
    "cat": _Command("values", "cat", "Print a variable's values"),
    "state": _Command("inspecting", "state", "List a directory's checkpoints"),
    "strip-devices": _Command("editing", "strip_devices", "Write a graph without device placements"),
    "collections": _Command("editing", "collections", "Write a graph with other members in its collections"),
    "saved-model": _Command("serving", "saved_model", "Write a SavedModel of a graph and its checkpoint"),
    "freeze": _Command("freezing", "freeze", "Write a graph with its variables as constants"),
    "export": _Command("exporting", "export", "Write variables into another format"),
    "average": _Command("averaging", "average", "Write the mean of checkpoints"),
    "run": _Command("running", "run", "Run a saved graph; needs TensorFlow"),
}


_TRACEBACK = "--traceback"


class _Commands(TyperGroup):
    """The commands, imported when they are wanted; with errors turned into one line and an exit code, in one place."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.commands: dict[str, Any] = dict.fromkeys(_COMMANDS)  # Typer suggests near ones of these.

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        if name not in _COMMANDS:
            return None
        command = _COMMANDS[name]
        made = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = getattr(import_module(f"ckpttool.cli.{command.module}"), command.function)
        made.command(name, help=function.__doc__ or command.help)(function)  # `python -OO` keeps no docstrings.
        return typer.main.get_command(made)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.help) for name, command in _COMMANDS.items()])

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **extra: Any) -> Any:
        if _TRACEBACK in args and "--" not in args:  # Who has seen an error adds it at the end.
            args = [_TRACEBACK, *(arg for arg in args if arg != _TRACEBACK)]
        with _printable_usage_errors():
            try:
                return super().make_context(info_name, args or ["--help"], *others, **extra)
            except (OSError, KeyboardInterrupt) as error:  # --help and --version print here.
                _fail(error)

    def invoke(self, ctx: Any) -> Any:
        with _printable_usage_errors():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # A closed pipe is to be noticed here, not when Python exits.
        except tuple(_EXIT_CODES) as error:
            if ctx.params.get("traceback"):
                traceback.print_exception(error)
            _fail(error)
        return result


@contextmanager
def _printable_usage_errors() -> Iterator[None]:
    """Arguments are often names from files, and what Typer says of a wrong one holds it as it is."""
    try:
        yield
    except _UsageError as error:
        error.message = render.printable(error.message)
        _, _, extra = error.message.partition("Got unexpected extra argument")
        if any(map(os.path.exists, extra.partition("(")[2].removesuffix(")").split())):
            error.message += ": of a checkpoint's files, which a * stands for, give one"
        raise


def _fail(error: BaseException) -> NoReturn:
    code = next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
    if isinstance(error, BrokenPipeError):
        # What is still buffered must not raise once more when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, KeyboardInterrupt):
        render.say({_Terminated: "terminated", _HungUp: "hung up"}.get(type(error), "interrupted"))
    else:
        render.say(f"error: {_message(error)}")
    raise typer.Exit(code)


def _message(error: BaseException) -> str:
    if isinstance(error, CorruptionError) and error.variable is not None and error.hint is None:
        return f"{error} · verify tells what else is damaged, export --salvage writes what is whole"
    if isinstance(error, MemoryError):
        return "too little memory"
    if isinstance(error, CheckpointError) or not isinstance(error, OSError) or not error.strerror:
        return str(error)
    hint = None
    if isinstance(error, FileExistsError):
        hint = "--force replaces it" if error.strerror == EXISTS else "give another output"
    return " · ".join(str(part) for part in (error.strerror, error.filename, hint) if part)


app = typer.Typer(
    cls=_Commands,
    help="Look into TensorFlow checkpoints and graphs, and convert them, without TensorFlow.",
    epilog=_EPILOG,
    # Plain help: rich's would take as long to import as a listing takes altogether.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ckpttool import __version__

        print(f"ckpttool {__version__}", flush=True)
        raise typer.Exit


@app.callback()
def _options(
    traceback: Annotated[bool, typer.Option(_TRACEBACK, help="On an error, show where it arose.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point."""
    if sys.stdout is None or sys.stderr is None:  # Closed by the caller: nobody is there to be told.
        sys.exit(_EXIT_CODES[OSError])
    render.escape_what_cannot_be_encoded()
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate, signal.SIGHUP: _hang_up}
    handlers = {number: handler for number, handler in handlers.items() if signal.getsignal(number) is signal.SIG_DFL}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        app()
    finally:
        for number in handlers:  # All is done but Python's own end, which no interrupt should fill with tracebacks.
            signal.signal(number, signal.SIG_DFL)
        gc.freeze()  # Python would look for garbage in all that was imported, three times: a tenth of a small listing.


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _hang_up(number: int, frame: object) -> NoReturn:
    raise _HungUp
