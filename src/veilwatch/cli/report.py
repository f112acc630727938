"""`veilwatch report`: what a sensor did within a period, as a page."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from veilwatch.cli import stored
from veilwatch.cli.terminal import console
from veilwatch.files import write_text
from veilwatch.report.field_build import build_field, field_grid
from veilwatch.report.field_document import FieldDocument
from veilwatch.store import EventFilter, Store

app = typer.Typer(
    no_args_is_help=True,
    help="Reports over what a sensor stored.",
    rich_markup_mode="markdown",
)


@app.callback()
def _reports() -> None:
    # With a callback typer keeps the name of the only verb there is.
    pass


@app.command()
def field(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The page to write.")
    ],
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    since: stored.Since = "7d",
    until: stored.Until = "0s",
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the document behind it as well."),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the report, such as the site.")] = "",
) -> None:
    """Report a field test: traffic, loss, uptime, alerts, verdicts, delay, load and drift.

    Example: `veilwatch report field --since 2026-06-01 --until 2026-07-01 -o june.html`
    """
    # What has not been yet is no gap.
    until_ns = min(stored.moment(until) or stored.MAX_NS, time.time_ns())
    since_ns = stored.moment(since) or 0
    # The store's URL may hold a password, so the command is told without it.
    command = ["veilwatch", "report", "field", "--since", since, "--until", until]
    with stored.open_store(store) as opened:
        document = _document(opened, since_ns, until_ns, title, shlex.join(command))
    # The page's templates load here, because nobody should wait for them before the store is read.
    from veilwatch.report.field import render_field

    write_text(output, render_field(document))
    if json_file is not None:
        write_text(json_file, json.dumps(document.to_json(), indent=1) + "\n")
    console.print(stored.sentence(f"{document.found.alerts:,} alerts reported in {output}"))


def _document(
    store: Store, since_ns: int, until_ns: int, title: str, command: str
) -> FieldDocument:
    grid = field_grid(since_ns, until_ns)
    wanted = EventFilter(since_ns=since_ns, until_ns=until_ns)
    return build_field(
        since_ns=since_ns,
        until_ns=until_ns,
        counts=store.counter_steps(since_ns=since_ns, until_ns=until_ns, step_ns=grid.step_ns),
        minutes=store.counted_minutes(since_ns=since_ns, until_ns=until_ns),
        events=((item.event, item.verdict) for item in store.events(wanted, newest_first=False)),
        incidents=(item.incident for item in store.incidents(since_ns=since_ns)),
        title=title,
        command=command,
    )
