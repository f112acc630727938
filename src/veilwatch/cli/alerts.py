"""`veilwatch alerts`: what a sensor found, and what people say of it."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from veilwatch.cli import stored
from veilwatch.cli.outputs import STDOUT, Force, check_output, leaving, output_option, suffix_of
from veilwatch.cli.terminal import AsJson, Quiet, console, warn
from veilwatch.cli.times import Since, Until, period
from veilwatch.detection.alerting.attack import of_alert
from veilwatch.errors import OutputError
from veilwatch.export.clean import clean
from veilwatch.files import replacing
from veilwatch.report.listing import Listing, numbers, texts, whole
from veilwatch.report.units import endpoint
from veilwatch.schema.convert import event_to_plain
from veilwatch.schema.events import EventKind
from veilwatch.schema.forms import teid_text
from veilwatch.schema.verdicts import Verdict, VerdictKind
from veilwatch.sinks.eve import event_text
from veilwatch.store import EventFilter, StoredEvent
from veilwatch.store.query import NO_VERDICT

app = typer.Typer(
    no_args_is_help=True,
    help="Alerts that a sensor stored: list, show, judge, export.",
    rich_markup_mode=None,
)

LEAST_SEVERE: Final = 3
"""Severity that every alert has at least."""

ALERTS: Final = (EventKind.FLOW, EventKind.HOST)
"""Kinds of event that are alerts; the others tell of incidents and of what was held back."""


class VerdictChoice(StrEnum):
    """Verdicts that can be asked for."""

    TRUE_POSITIVE = "true_positive"
    FALSE_POSITIVE = "false_positive"
    BENIGN = "benign"
    UNKNOWN = "unknown"
    NONE = NO_VERDICT


class ExportForm(StrEnum):
    """Forms of an export."""

    EVE = "eve"
    JSONL = "jsonl"
    CSV = "csv"


Family = Annotated[str, typer.Option(help="Name of the malware family.")]
Severity = Annotated[str, typer.Option(help="At least so severe: high, medium or low.")]
VerdictOption = Annotated[
    VerdictChoice | None,
    typer.Option("--verdict", help="With this latest verdict, or none.", show_default=False),
]
EventId = Annotated[str, typer.Argument(metavar="ID", help="Id of the alert, or its beginning.")]


def _filter(
    since: str,
    until: str,
    host: str,
    family: str,
    severity: str,
    verdict: VerdictChoice | None,
    limit: int | None,
) -> EventFilter:
    since_ns, until_ns = period(since, until)
    return EventFilter(
        since_ns=since_ns,
        until_ns=until_ns,
        host=host,
        family=family,
        severity=stored.severity_number(severity),
        verdict=verdict.value if verdict else "",
        kinds=tuple(ALERTS),
        limit=limit,
    )


@app.command(name="list")
def list_alerts(
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    since: Since = "",
    until: Until = "",
    host: stored.Host = "",
    family: Family = "",
    severity: Severity = "low",
    verdict: VerdictOption = None,
    limit: stored.Limit = 50,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List alerts, the latest first.

    Example: `veilwatch alerts list --since 24h --severity medium --verdict none`
    """
    wanted = _filter(since, until, host, family, severity, verdict, limit)
    with stored.open_store(store, config) as opened:
        found = list(opened.events(wanted))
    if as_json:
        typer.echo(json.dumps([_plain(item) for item in found], indent=1))
        return
    table = Listing(
        [
            *(*whole("id", "time (UTC)", "severity"), *numbers("score"), *whole("host")),
            *(*texts("server", "family"), *whole("verdict")),
        ]
    )
    for item in found:
        alert = item.event.alert
        server = alert.application or endpoint(alert.dst_ip, alert.dst_port)
        table.add(
            item.event.event_id[:12],
            stored.shown_time(alert.last_ns),
            stored.severity_cell(alert.severity),
            f"{alert.score:.3f}",
            stored.cell(alert.host),
            stored.cell(server if alert.kind == EventKind.FLOW else "(host as a whole)"),
            stored.cell(alert.family),
            str(item.verdict.kind) if item.verdict else "",
        )
    if found:
        console.print(table)
    asked = {
        "--since": since,
        "--until": until,
        "--host": host,
        "--family": family,
        "--severity": "" if wanted.severity == LEAST_SEVERE else severity,
        "--verdict": verdict.value if verdict else "",
    }
    if not (quiet and found):
        console.print(Text(stored.tally(len(found), "alert", limit, asked)))


@app.command()
def show(
    event_id: EventId,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show one alert with its reasons and what people said of it.

    Example: `veilwatch alerts show 3f2a9c`
    """
    with stored.open_store(store, config) as opened:
        item = opened.event(event_id)
    if as_json:
        typer.echo(json.dumps(_plain(item), indent=1))
        return
    event, alert = item.event, item.event.alert
    table = Listing([*whole(""), *texts("")])
    incident = event.incident
    facts: list[tuple[str, str]] = [
        ("id", event.event_id),
        ("kind", str(event.kind) + (", emulated traffic" if alert.emulated else "")),
        ("seen", f"{stored.shown_time(alert.first_ns)} to {stored.shown_time(alert.last_ns)} UTC"),
        ("told", f"{stored.shown_time(event.made_ns)} UTC by {event.sensor} on {event.interface}"),
        ("host", alert.host),
        ("subscriber", alert.subscriber),
        ("flow", f"{alert.src_ip} port {alert.src_port} to {alert.dst_ip} port {alert.dst_port}"),
        ("application", alert.application),
        ("score", f"{alert.score:.4f}, threshold {alert.threshold:.4f}"),
        ("evidence", "little: no conversation lies behind the score" if alert.thin else ""),
        ("family", alert.family),
        ("ATT&CK", ", ".join(of_alert(alert, event.flow))),
        (
            "incident",
            f"{incident.incident_id[:12]}, {incident.alerts:,} alerts" if incident else "",
        ),
    ]
    if alert.tunnel:
        tunnel = alert.tunnel
        teids = f"TEID {teid_text(tunnel.fwd_teid)} and {teid_text(tunnel.bwd_teid)}"
        qfi = "" if tunnel.qfi is None else f", QFI {tunnel.qfi}"
        facts.append(("tunnel", f"{tunnel.src_ip} to {tunnel.dst_ip}, {teids}{qfi}"))
    table.add(Text("severity", style="dim"), stored.severity_cell(alert.severity))
    for name, value in facts:
        if value:
            table.add(Text(name, style="dim"), stored.sentence(value))
    console.print(table)
    for reason in alert.reasons:
        console.print(Text.assemble("· ", stored.sentence(reason.text)))
    for said in item.verdicts:
        words = f"{said.kind} by {said.who}, {stored.shown_time(said.at_ns)} UTC"
        note = f": {said.note}" if said.note else ""
        console.print(stored.sentence(words + note, "bold" if said is item.verdict else "dim"))


@app.command()
def verdict(
    event_id: EventId,
    kind: Annotated[
        VerdictKind, typer.Argument(metavar="VERDICT", help="What it turned out to be.")
    ],
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    by: stored.Who = "",
    note: stored.Note = "",
    quiet: Quiet = False,
) -> None:
    """Say what an alert turned out to be. Of several verdicts the latest counts, all are kept.

    Example: `veilwatch alerts verdict 3f2a9c false_positive --note "our scanner"`
    """
    with stored.open_store(store, config) as opened:
        kept = opened.judge(Verdict(event_id, kind, stored.person(by), time.time_ns(), note=note))
    if not quiet:
        console.print(stored.sentence(f"{kept.event_id[:12]}: {kept.kind} by {kept.who}"))


@app.command()
def export(
    output: Annotated[
        Path,
        output_option(
            "FILE", "FILE.csv, .jsonl, or .json for EVE lines; - writes to standard output."
        ),
    ],
    form: Annotated[
        ExportForm | None,
        typer.Option(
            "--format",
            help="Form of the lines; by default that of the file's suffix, and jsonl for -.",
            show_default=False,
        ),
    ] = None,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    since: Since = "",
    until: Until = "",
    host: stored.Host = "",
    family: Family = "",
    severity: Severity = "low",
    verdict: VerdictOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many, the oldest.", show_default=False)
    ] = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Write alerts to a file, the oldest first: EVE JSON lines, JSON lines, or CSV.

    CSV holds the values as they are; a name may begin with "=": import it as text.

    Example: `veilwatch alerts export -o alerts.csv --since 7d`
    """
    wanted = _filter(since, until, host, family, severity, verdict, limit)
    form = form or _form_of(output)
    check_output(output, force=force)
    count = -(form is ExportForm.CSV)  # its header is no alert
    with stored.open_store(store, config) as opened:
        lines = _FORMS[form](opened.events(wanted, newest_first=False))
        if output == STDOUT:
            for text in lines:
                typer.echo(text, nl=False)
                count += 1
        else:
            with leaving(output), replacing(output) as stream:
                for text in lines:
                    stream.write(text)
                    count += 1
    if not count:
        warn("no alert matches")
    elif output != STDOUT and not quiet:
        console.print(stored.sentence(f"{count:,} alerts written to {output}"))


def _form_of(output: Path) -> ExportForm:
    """Return the form that a file's suffix asks for."""
    return ExportForm.JSONL if output == STDOUT else _SUFFIXES[suffix_of(output, tuple(_SUFFIXES))]


def _plain(item: StoredEvent) -> dict[str, Any]:
    said = [
        {"verdict": str(v.kind), "by": v.who, "at_ns": v.at_ns, "note": v.note}
        for v in item.verdicts
    ]
    return {**event_to_plain(item.event), "verdicts": said}


_COLUMNS: Final = (
    *("event_id", "kind", "first_ns", "last_ns", "made_ns", "sensor", "interface", "severity"),
    *("score", "threshold", "host", "subscriber", "src_ip", "src_port", "dst_ip", "dst_port"),
    *("protocol", "service", "application", "family", "incident_id", "reasons", "verdict"),
    *("verdict_by", "verdict_note", "thin"),
)


def _csv(items: Iterable[StoredEvent]) -> Iterator[bytes]:
    yield _csv_line(_COLUMNS)
    for item in items:
        event, alert, said = item.event, item.event.alert, item.verdict
        values: dict[str, Any] = {
            "event_id": event.event_id,
            "kind": str(event.kind),
            "made_ns": event.made_ns,
            "sensor": event.sensor,
            "interface": event.interface,
            "incident_id": event.incident.incident_id if event.incident else "",
            "reasons": "; ".join(reason.text for reason in alert.reasons),
            "verdict": str(said.kind) if said else "",
            "verdict_by": said.who if said else "",
            "verdict_note": said.note if said else "",
            "thin": str(alert.thin).lower(),
        }
        yield _csv_line([values[c] if c in values else getattr(alert, c) for c in _COLUMNS])


def _csv_line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode("utf-8", "replace")


def _jsonl(items: Iterable[StoredEvent]) -> Iterator[bytes]:
    for item in items:
        yield json.dumps(_plain(item), separators=(",", ":")).encode() + b"\n"


def _eve(items: Iterable[StoredEvent]) -> Iterator[bytes]:
    for item in items:
        try:
            yield event_text(clean(item.event)) + b"\n"
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                "an alert cannot be written as EVE", where=f"event {item.event.event_id}"
            ) from error


_FORMS: Final[dict[ExportForm, Callable[[Iterable[StoredEvent]], Iterator[bytes]]]] = {
    ExportForm.EVE: _eve,
    ExportForm.JSONL: _jsonl,
    ExportForm.CSV: _csv,
}

_SUFFIXES: Final = {
    ".csv": ExportForm.CSV,
    ".jsonl": ExportForm.JSONL,
    ".json": ExportForm.EVE,
    ".eve": ExportForm.EVE,
}
