"""The tree of verbs, and what holds for all of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from veilwatch.cli.outputs import left

VERBS: Final = (
    *("demo", "inspect", "flows", "record", "split", "train", "evaluate", "compare", "detect"),
    *("watch", "site", "alerts", "incidents", "report", "forget", "config", "esm", "sinks"),
    *("doctor", "corpus", "reproduce"),
)
"""Modules of this room with a `command`, or an `app` of several."""

HELP_NAMES: Final = ["-h", "--help"]


class InterruptedVerb(Exception):
    """Ctrl-C; it says what was left. No KeyboardInterrupt, which typer takes for its own."""


class ReaderGone(Exception):
    """Nobody reads our output any more. No OSError, which typer takes for its own."""


class _Verbs(TyperGroup):
    """Tells of Ctrl-C and of a reader that is gone by exceptions of ours."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the command line; help is printed here."""
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise InterruptedVerb(left()) from error
        except BrokenPipeError as error:
            raise ReaderGone from error


def build(words: Sequence[str] = ()) -> typer.Typer:
    """Return the command line: every verb, or the one that `words` begin with."""
    app = typer.Typer(
        name="veilwatch",
        cls=_Verbs,
        help="See malware in encrypted traffic of a mobile core, without decrypting it.",
        no_args_is_help=True,
        # Typer's own pages cut names of options on narrow terminals; click's never do.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": HELP_NAMES},
        callback=_options,
    )
    asked_for = [verb for verb in VERBS if verb in words[:1]]
    for verb in asked_for or VERBS:
        module = import_module(f"veilwatch.cli.{verb}")
        if hasattr(module, "app"):
            for command in module.app.registered_commands:
                _set_help(command)
            app.add_typer(module.app, name=verb, rich_help_panel=None)
        else:
            told = help_of(module.command)
            app.command(name=verb, help=told, short_help=_first(told))(module.command)
    return app


def _set_help(command: CommandInfo) -> None:
    if command.callback is not None and command.help is None:
        command.help = help_of(command.callback)
        command.short_help = _first(command.help)


def help_of(function: Callable[..., Any]) -> str:
    r"""Return the help of a verb: its docstring, with examples on lines of their own.

    Examples
    --------
    >>> def verb():
    ...     '''Do it.
    ...
    ...     Example: `veilwatch do it`
    ...     '''
    >>> help_of(verb)
    'Do it.\n\n\x08\nExample:\n  veilwatch do it'
    """
    text = inspect.getdoc(function) or ""
    text = re.sub(r"^Example: `(.*)`$", r"\b\nExample:\n  \1", text, flags=re.M)
    return text.replace("`", "")


def _first(text: str) -> str:
    """Return the first sentence of a help, which lists of verbs show whole."""
    return " ".join(text.partition("\n\n")[0].split())


def _version(wanted: bool) -> None:
    if wanted:
        from veilwatch import __version__

        typer.echo(f"veilwatch {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
