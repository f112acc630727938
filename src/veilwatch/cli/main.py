"""The command `veilwatch`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from veilwatch import __version__
from veilwatch.cli import (
    corpus,
    demo,
    detect,
    doctor,
    evaluate,
    flows,
    inspect,
    record,
    split,
    train,
)
from veilwatch.errors import EXIT_BAD_INPUT, VeilwatchError

EXIT_INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells expect it."""

app = typer.Typer(
    name="veilwatch",
    help="See malware in encrypted traffic of a mobile core, without decrypting it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

for verb in (demo, inspect, flows, record, split, train, evaluate, detect, doctor):
    app.command(name=verb.__name__.rpartition(".")[2])(verb.command)
app.add_typer(corpus.app, name="corpus")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"veilwatch {__version__}")
        raise typer.Exit


@app.callback()
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
        app()
    except VeilwatchError as error:
        print(f"veilwatch: {error}", file=sys.stderr)
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
