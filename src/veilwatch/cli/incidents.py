"""`veilwatch incidents`: the alerts of a host or subscriber, added up."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from veilwatch.cli import stored
from veilwatch.cli.terminal import AsJson, Quiet, console
from veilwatch.cli.times import Since, Until, period
from veilwatch.report.listing import Listing, numbers, texts, whole
from veilwatch.schema.convert import incident_to_plain
from veilwatch.store import StoredIncident

app = typer.Typer(
    no_args_is_help=True,
    help="Incidents that a sensor stored: list, show, close.",
    rich_markup_mode=None,
)


class Status(StrEnum):
    """Which incidents are asked for."""

    OPEN = "open"
    CLOSED = "closed"
    ALL = "all"


IncidentId = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the incident, or its beginning.")
]


@app.command(name="list")
def list_incidents(
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    status: Annotated[Status, typer.Option(help="Which.")] = Status.OPEN,
    since: Since = "",
    until: Until = "",
    host: stored.Host = "",
    limit: stored.Limit = 50,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List incidents, those with the latest evidence first.

    Example: `veilwatch incidents list --status all --since 7d`
    """
    since_ns, until_ns = period(since, until)
    with stored.open_store(store, config) as opened:
        found = opened.incidents(
            status="" if status is Status.ALL else status.value,
            host=host,
            since_ns=since_ns,
            until_ns=until_ns,
            limit=limit,
        )
    if as_json:
        typer.echo(json.dumps([_plain(item) for item in found], indent=1))
        return
    table = Listing(
        [
            *whole("id", "opened (UTC)", "latest (UTC)", "severity", "status", "host"),
            *(*texts("subscriber"), *numbers("alerts", "score"), *texts("family")),
        ]
    )
    for item in found:
        incident = item.incident
        table.add(
            incident.incident_id[:12],
            stored.shown_time(incident.opened_ns),
            stored.shown_time(incident.last_ns),
            stored.severity_cell(incident.severity),
            incident.status,
            stored.cell(incident.host),
            stored.cell(incident.subscriber),
            f"{incident.alerts:,}",
            f"{incident.score:.3f}",
            stored.cell(incident.family),
        )
    if found:
        console.print(table)
    chosen = "" if status is Status.ALL else status.value
    asked = {"--status": chosen, "--since": since, "--until": until, "--host": host}
    if not (quiet and found):
        console.print(Text(stored.tally(len(found), "incident", limit, asked)))


@app.command()
def show(
    incident_id: IncidentId,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show one incident with its timeline.

    Example: `veilwatch incidents show 9b1c04`
    """
    with stored.open_store(store, config) as opened:
        item = opened.incident(incident_id)
    if as_json:
        typer.echo(json.dumps(_plain(item), indent=1))
        return
    incident = item.incident
    words = f"Incident {incident.incident_id} of {incident.host}"
    if incident.subscriber:
        words += f", subscriber {incident.subscriber}"
    console.print(stored.sentence(words, "bold"))
    kind = f", like {incident.family}" if incident.family else ""
    emulated = ", emulated traffic" if incident.emulated else ""
    console.print(
        Text.assemble(
            stored.severity_cell(incident.severity),
            stored.sentence(
                f", {incident.status}, {incident.alerts:,} alerts, score {incident.score:.3f}"
                f"{kind}{emulated}"
            ),
        )
    )
    if item.closed_by:
        note = f": {item.closed_note}" if item.closed_note else ""
        console.print(stored.sentence(f"closed by {item.closed_by}{note}"))
    table = Listing([*whole("time (UTC)"), *texts("what"), *whole("alert")])
    for step in incident.timeline:
        table.add(stored.shown_time(step.at_ns), stored.sentence(step.text), step.event_id[:12])
    console.print(table)


@app.command()
def close(
    incident_id: IncidentId,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    config: stored.StoreConfig = None,
    by: stored.Who = "",
    note: stored.Note = "",
    quiet: Quiet = False,
) -> None:
    """Close an incident; more evidence opens it again.

    Example: `veilwatch incidents close 9b1c04 --note "host reinstalled"`
    """
    with stored.open_store(store, config) as opened:
        item = opened.close_incident(incident_id, who=stored.person(by), note=note)
    if not quiet:
        told = f"{item.incident.incident_id[:12]}: closed by {item.closed_by}"
        console.print(stored.sentence(told))


def _plain(item: StoredIncident) -> dict[str, Any]:
    closed = {"closed_by": item.closed_by, "closed_note": item.closed_note}
    return {**incident_to_plain(item.incident), **closed}
