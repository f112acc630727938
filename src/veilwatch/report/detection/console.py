"""The report in a few lines of a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text as Line

from veilwatch.report import units
from veilwatch.report.catalogue import Text, catalogue
from veilwatch.report.detection.document import AlertEntry, ReportDocument
from veilwatch.report.detection.verdict import details, doubts, verdict
from veilwatch.report.listing import Listing, numbers, texts, whole

SHOWN_HOSTS: Final = 8
SHOWN_FLOWS: Final = 5
SHOWN_REFUSALS: Final = 4

_STYLES: Final = {1: "bold red", 2: "yellow", 3: "dim"}


def print_summary(
    document: ReportDocument,
    console: Console,
    *,
    outputs: Mapping[str, Path] | None = None,
    language: str = "en",
) -> None:
    """Print verdict, hosts, strongest flows, refusals and where the outputs lie.

    Every text goes in as `rich.text.Text`, which knows no markup: a name such as `[red]` is
    printed as it is.

    Parameters
    ----------
    document
        What to say.
    console
        Where to print.
    outputs
        Paths to name at the end, by what they hold.
    language
        Text catalogue.
    """
    text = catalogue(language)
    console.print()
    if document.emulated:
        console.print(Line(text("emulated.banner"), style="yellow"))
    for sentence in doubts(document, text):
        console.print(Line(sentence, style="yellow"))
    found = document.alerted_hosts or document.alerted_flows
    console.print(Line(verdict(document, text), style="bold red" if found else "bold"))
    for sentence in details(document, text):
        console.print(Line(sentence))
    if document.hosts:
        console.print()
        console.print(_hosts(document, text))
        _more(console, document.written_hosts - SHOWN_HOSTS, document, text)
    if document.alerts:
        console.print()
        console.print(_flows(document, text))
        _more(console, document.written_flows - SHOWN_FLOWS, document, text)
    _refusals(document, console, text)
    for name, path in (outputs or {}).items():
        console.print(Line.assemble((f"{name:<8} ", "dim"), str(path)), soft_wrap=True)


def _hosts(document: ReportDocument, text: Text) -> Listing:
    def names(*keys: str) -> list[str]:
        return [text(f"console.{key}") for key in keys]

    table = Listing(
        [
            *whole(*names("severity", "host", "subscriber")),
            *numbers(*names("score", "alerts", "flows")),
            *texts(*names("family")),
        ],
        title=text("console.hosts"),
    )
    for host in document.hosts[:SHOWN_HOSTS]:
        alert = host.alert
        table.add(
            _severity(alert, text),
            Line(alert.host),
            Line(alert.subscriber),
            Line(units.score(alert.score)),
            Line(units.number(host.alerted_flows)),
            Line(units.number(host.flows)),
            Line(alert.family),
        )
    return table


def _flows(document: ReportDocument, text: Text) -> Listing:
    def names(*keys: str) -> list[str]:
        return [text(f"console.{key}") for key in keys]

    table = Listing(
        [
            *(*whole(*names("severity", "from_to")), *texts(*names("application"))),
            *numbers(*names("score")),
        ],
        title=text("console.flows_title"),
    )
    for alert in document.alerts[:SHOWN_FLOWS]:
        table.add(
            _severity(alert, text),
            Line(f"{alert.src_ip} → {units.endpoint(alert.dst_ip, alert.dst_port)}"),
            Line(alert.application),
            Line(units.score(alert.score)),
        )
    return table


def _severity(alert: AlertEntry, text: Text) -> Line:
    return Line(text(f"severity.{alert.severity}"), style=_STYLES[alert.severity])


def _more(console: Console, count: int, document: ReportDocument, text: Text) -> None:
    if count > 0:
        more = text("console.more", count=count, file=document.alerts_file)
        console.print(Line(more, style="dim"))


def _refusals(document: ReportDocument, console: Console, text: Text) -> None:
    reading = document.reading
    console.print()
    if reading.refused:
        reasons = "; ".join(
            text("console.refusal", packets=line.packets, why=text(f"status.{line.status}"))
            for line in reading.balance[:SHOWN_REFUSALS]
        )
        label = f"{text('console.refused')} ({units.share(reading.refused, reading.packets)}): "
        console.print(Line.assemble((label, "bold"), reasons))
    for file in reading.files:
        if file.fault:
            label = f"{text('console.fault')}: "
            console.print(Line.assemble((label, "bold yellow"), f"{file.name}: {file.fault}"))
