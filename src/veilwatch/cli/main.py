"""The command `veilwatch`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Final

import typer

from veilwatch.errors import EXIT_BAD_INPUT, VeilwatchError

EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells expect it."""

VERBS: Final = (
    *("demo", "inspect", "flows", "record", "split", "train", "evaluate", "compare", "detect"),
    *("watch", "site", "alerts", "incidents", "report", "forget", "config", "esm", "sinks"),
    *("doctor", "corpus", "reproduce"),
)
"""Modules of this room with a `command`, or an `app` of several."""


def command_line(words: Sequence[str] = ()) -> typer.Typer:
    """Return the command line: every verb, or the one that `words` begin with.

    What all verbs import together takes half a second longer than what `inspect` needs.
    """
    app = typer.Typer(
        name="veilwatch",
        help="See malware in encrypted traffic of a mobile core, without decrypting it.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        callback=_options,
    )
    asked_for = [verb for verb in VERBS if verb in words[:1]]
    for verb in asked_for or VERBS:
        module = import_module(f"veilwatch.cli.{verb}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(name=verb)(module.command)
    return app


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


def run() -> None:
    """Run the command line; errors become one line and exit code 2, never a traceback."""
    # Where a reader of our output goes away (`veilwatch flows … | head`), so do we.
    try:
        command_line(sys.argv[1:])()
    except VeilwatchError as error:
        print(f"veilwatch: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except ImportError as error:
        # Such as after becoming a user who cannot read this installation; else a broken one.
        print(
            f"veilwatch: cannot load a part of itself: {error} (let user "
            f"{os.geteuid()} read the folders of this installation, or install it anew)",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("veilwatch: interrupted; nothing half-written was left behind", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BAD_INPUT)
    except MemoryError:
        print(
            "veilwatch: out of memory (read fewer captures at a time, or lower --max-flows)",
            file=sys.stderr,
        )
        sys.exit(EXIT_BAD_INPUT)
