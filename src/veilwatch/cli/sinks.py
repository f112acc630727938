"""`veilwatch sinks`: where events can be sent, and what waits in a sensor's spool."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from veilwatch.cli.terminal import console, print_table
from veilwatch.errors import VeilwatchError
from veilwatch.sinks.base import SCHEMES, open_sink, sink_class
from veilwatch.sinks.delivery import Delivery
from veilwatch.sinks.spool import Spool

app = typer.Typer(
    help="Where events can be sent, and what waits in a sensor's spool.", no_args_is_help=True
)

SpoolFile = Annotated[
    Path, typer.Argument(metavar="SPOOL", help="The sensor's spool.", show_default=False)
]
SinkName = Annotated[
    str, typer.Argument(metavar="SINK", help="Name of the sink in the spool.", show_default=False)
]
Since = Annotated[
    str,
    typer.Option(metavar="TIME", help="From when on events were made: 2026-06-01T08:40+08:00."),
]
Until = Annotated[
    str, typer.Option(metavar="TIME", help="Until when; now, unless told.", show_default=False)
]


@app.command("list")
def list_() -> None:
    """Show every kind of sink, an example of its URL, and its parameters.

    Example: `veilwatch sinks list`
    """
    for name, scheme in SCHEMES.items():
        console.print(Text(f"{name}://", style="bold") + Text(f"  {scheme.what}"), soft_wrap=True)
        console.print(Text(f"    {scheme.example}"), soft_wrap=True)
        for parameter, meaning in sink_class(name).PARAMETERS.items():
            console.print(Text(f"    ?{parameter}=  {meaning}", style="dim"), soft_wrap=True)


@app.command()
def status(file: SpoolFile) -> None:
    """Show how far each sink is, and what was set aside and why.

    Example: `veilwatch sinks status /var/lib/veilwatch/spool.db`
    """
    with _existing(file) as spool:
        events, size = spool.size()
        table = Table("sink", "pending", "oldest", "set aside", "delivered", "dropped", box=None)
        reasons = []
        for name in spool.sinks():
            counts = spool.counts(name)
            age = (time.time_ns() - counts.oldest_ns) / 1e9
            table.add_row(
                Text(name),
                f"{counts.pending:,}",
                f"{age:,.0f} s" if counts.oldest_ns else "–",
                *(f"{count:,}" for count in (counts.set_aside, counts.delivered, counts.dropped)),
            )
            reasons += [(name, trouble) for trouble in spool.set_aside(name, 10)]
    console.print(f"{events:,} events, {size / 1e6:,.1f} MB")
    print_table(table)
    for name, trouble in reasons:
        console.print(Text(f"{name}: {trouble.event_id}: {trouble.reason}"), soft_wrap=True)


@app.command()
def resend(file: SpoolFile, sink: SinkName, since: Since, until: Until = "") -> None:
    """Deliver once more, marked, what a receiver lost of a span of time.

    Example: `veilwatch sinks resend /var/lib/veilwatch/spool.db esm --since 2026-06-01T08:00Z`
    """
    first, last = _span(since, until)
    with _existing(file) as spool:
        count = spool.resend(_known(spool, sink), first, last)
    console.print(f"{count:,} events will be sent once more")


@app.command()
def readmit(file: SpoolFile, sink: SinkName) -> None:
    """Try again what was set aside, such as after a mapping was mended.

    Example: `veilwatch sinks readmit /var/lib/veilwatch/spool.db esm`
    """
    with _existing(file) as spool:
        count = spool.readmit(_known(spool, sink))
    console.print(f"{count:,} events will be tried again")


@app.command()
def reconcile(
    file: SpoolFile,
    sink: SinkName,
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the sink.", show_default=False)],
    since: Since,
    until: Until = "",
) -> None:
    """Ask Elasticsearch what it has of a span of time and send the rest once more.

    Example: `veilwatch sinks reconcile spool.db esm secbuzzer+http://esm:19200 --since 2026-06-01`
    """
    first, last = _span(since, until)
    with _existing(file) as spool, open_sink(url) as peer:
        try:
            count = Delivery(_known(spool, sink), peer, spool).reconcile(first, last)
        except OSError as error:
            raise VeilwatchError(
                f"the peer does not say what it has: {error.strerror or error}",
                where=peer.address.shown,
            ) from error
    console.print(f"{count:,} events are missing and will be sent once more")


def _existing(file: Path) -> Spool:
    if not file.is_file():
        raise VeilwatchError("no spool here", where=file, hint="the sensor's configuration tells")
    return Spool(file)


def _known(spool: Spool, sink: str) -> str:
    names = spool.sinks()
    if sink not in names:
        raise VeilwatchError(
            f"the spool has no sink {sink[:40]!r}",
            where=spool.path,
            hint=f"it has {', '.join(names)}" if names else "it is empty",
        )
    return sink


def _span(since: str, until: str) -> tuple[int, int]:
    """Return a span of time, ns since the epoch; a time without a zone is in UTC."""
    first, last = _time_ns(since), _time_ns(until) if until else time.time_ns()
    if last < first:
        raise VeilwatchError("the span ends before it begins")
    return first, last


def _time_ns(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise VeilwatchError(f"not a time: {text[:40]!r}", hint="2026-06-01T08:40+08:00") from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return int(time.timestamp()) * 10**9
