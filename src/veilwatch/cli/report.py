"""`veilwatch report`: what a sensor did within a period, as a page."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from veilwatch.cli import stored
from veilwatch.cli.outputs import STDOUT, Force, check_output, leaving, output_option, suffix_of
from veilwatch.cli.terminal import AsJson, Quiet, console
from veilwatch.cli.times import MAX_NS, Since, Until, period
from veilwatch.errors import OutputError
from veilwatch.files import write_text
from veilwatch.report.field.build import build_field, field_grid
from veilwatch.report.field.document import FieldDocument
from veilwatch.store import EventFilter, Store

FORMS: Final = (".html", ".htm", ".json")

app = typer.Typer(
    no_args_is_help=True,
    help="Reports over what a sensor stored.",
    rich_markup_mode=None,
)


@app.callback()
def _reports() -> None:
    # With a callback typer keeps the name of the only verb there is.
    pass


@app.command()
def field(
    output: Annotated[
        list[Path] | None,
        output_option(
            "FILE",
            "FILE.html for the page, FILE.json for the document behind it; may be given more than "
            "once.",
        ),
    ] = None,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    since: Since = "7d",
    until: Until = "0s",
    title: Annotated[
        str, typer.Option(metavar="TEXT", help="Title of the report, such as the site.")
    ] = "",
    as_json: AsJson = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Report a field test: traffic, loss, uptime, alerts, verdicts, delay, load and drift.

    Example: `veilwatch report field --since 2026-06-01 --until 2026-07-01 -o june.html`
    """
    files = [path for path in output or () if path != STDOUT]
    as_json |= len(files) < len(output or ())
    if not (files or as_json):
        raise OutputError("nothing to write", where="--output", hint="name a page: -o report.html")
    for path in files:
        suffix_of(path, FORMS)
    check_output(*files, force=force)
    begins, ends = period(since, until)
    # What has not been yet is no gap.
    until_ns, since_ns = min(ends or MAX_NS, time.time_ns()), begins or 0
    # The store's URL may hold a password, so the command is told without it.
    command = ["veilwatch", "report", "field", "--since", since, "--until", until]
    with stored.open_store(store, config) as opened:
        document = _document(opened, since_ns, until_ns, title, shlex.join(command))
    # The page's templates load here, because nobody should wait for them before the store is read.
    from veilwatch.report.field.page import render_field

    text = json.dumps(document.to_json(), indent=1)
    with leaving(*files):
        for path in files:
            is_page = suffix_of(path, FORMS) != ".json"
            write_text(path, render_field(document) if is_page else text + "\n")
    if as_json:
        typer.echo(text)
    elif not quiet:
        places = ", ".join(map(str, files))
        console.print(stored.sentence(f"{document.found.alerts:,} alerts reported in {places}"))


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
