"""`veilwatch sinks`: where events can be sent, and what waits in a sensor's spool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from veilwatch.cli.terminal import Quiet, console
from veilwatch.cli.times import Since, Until, period
from veilwatch.errors import VeilwatchError
from veilwatch.report.listing import Listing, numbers, whole
from veilwatch.sinks.base import known_schemes, open_sink, sink_class
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


@app.command("list")
def list_(quiet: Quiet = False) -> None:
    """Show every kind of sink, an example of its URL, and its parameters.

    Example: `veilwatch sinks list`
    """
    for name, scheme in known_schemes().items():
        console.print(Text(f"{name}://", style="bold") + Text(f"  {scheme.what}"), soft_wrap=True)
        console.print(Text(f"    {scheme.example}"), soft_wrap=True)
        for parameter, meaning in sink_class(name).PARAMETERS.items():
            console.print(Text(f"    ?{parameter}=  {meaning}", style="dim"), soft_wrap=True)


@app.command()
def status(file: SpoolFile, quiet: Quiet = False) -> None:
    """Show how far each sink is, and what was set aside and why.

    Example: `veilwatch sinks status /var/lib/veilwatch/spool.db`
    """
    with _existing(file) as spool:
        events, size = spool.size()
        table = Listing(
            [
                *whole("sink"),
                *numbers("pending", "oldest", "set aside", "delivered", "dropped"),
            ]
        )
        reasons = []
        for name in spool.sinks():
            counts = spool.counts(name)
            age = (time.time_ns() - counts.oldest_ns) / 1e9
            table.add(
                name,
                f"{counts.pending:,}",
                f"{age:,.0f} s" if counts.oldest_ns else "–",
                *(f"{count:,}" for count in (counts.set_aside, counts.delivered, counts.dropped)),
            )
            reasons += [(name, failure) for failure in spool.set_aside(name, 10)]
    console.print(f"{events:,} events, {size / 1e6:,.1f} MB")
    console.print(table)
    for name, failure in reasons:
        console.print(Text(f"{name}: {failure.event_id}: {failure.reason}"), soft_wrap=True)


@app.command()
def resend(
    file: SpoolFile, sink: SinkName, since: Since, until: Until = "0s", quiet: Quiet = False
) -> None:
    """Deliver once more, marked, what a receiver lost of a span of time.

    Example: `veilwatch sinks resend /var/lib/veilwatch/spool.db esm --since 2026-06-01T08:00Z`
    """
    first, last = _span(since, until)
    with _existing(file) as spool:
        count = spool.resend(_known(spool, sink), first, last)
    _told(count, "will be sent once more", quiet)


@app.command()
def readmit(file: SpoolFile, sink: SinkName, quiet: Quiet = False) -> None:
    """Try again what was set aside, such as after a mapping was mended.

    Example: `veilwatch sinks readmit /var/lib/veilwatch/spool.db esm`
    """
    with _existing(file) as spool:
        count = spool.readmit(_known(spool, sink))
    _told(count, "will be tried again", quiet)


@app.command()
def reconcile(
    file: SpoolFile,
    sink: SinkName,
    url: Annotated[str, typer.Argument(metavar="URL", help="URL of the sink.", show_default=False)],
    since: Since,
    until: Until = "0s",
    quiet: Quiet = False,
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
    _told(count, "are missing and will be sent once more", quiet)


def _told(count: int, what: str, quiet: bool) -> None:
    if not quiet or not count:
        console.print(f"{count:,} events {what}" if count else f"no events {what}")


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
    first, last = period(since, until)
    return first or 0, time.time_ns() if last is None else last
