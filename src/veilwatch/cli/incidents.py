"""`veilwatch incidents`: the alerts of a host or subscriber, added up."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from veilwatch.cli import stored
from veilwatch.cli.terminal import console, print_table
from veilwatch.schema.convert import incident_to_plain
from veilwatch.store import StoredIncident

app = typer.Typer(
    no_args_is_help=True,
    help="Incidents that a sensor stored: list, show, close.",
    rich_markup_mode="markdown",
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
    status: Annotated[Status, typer.Option(help="Which.")] = Status.OPEN,
    since: stored.Since = "",
    until: stored.Until = "",
    host: stored.Host = "",
    limit: stored.Limit = 50,
    as_json: stored.AsJson = False,
) -> None:
    """List incidents, those with the latest evidence first.

    Example: `veilwatch incidents list --status all --since 7d`
    """
    with stored.open_store(store) as opened:
        found = opened.incidents(
            status="" if status is Status.ALL else status.value,
            host=host,
            since_ns=stored.moment(since),
            until_ns=stored.moment(until),
            limit=limit,
        )
    if as_json:
        typer.echo(json.dumps([_plain(item) for item in found], indent=1))
        return
    table = stored.plain_table("id", "opened (UTC)", "latest (UTC)", "severity", "status", "host")
    for name in ("alerts", "score", "family"):
        table.add_column(name, overflow="fold")
    for item in found:
        incident = item.incident
        table.add_row(
            Text(incident.incident_id[:12]),
            Text(stored.shown_time(incident.opened_ns)),
            Text(stored.shown_time(incident.last_ns)),
            stored.severity_cell(incident.severity),
            Text(incident.status),
            stored.cell(incident.host),
            Text(f"{incident.alerts:,}"),
            Text(f"{incident.score:.3f}"),
            stored.cell(incident.family),
        )
    print_table(table)
    console.print(stored.tally(len(found), "incident", limit))


@app.command()
def show(
    incident_id: IncidentId,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    as_json: stored.AsJson = False,
) -> None:
    """Show one incident with its timeline.

    Example: `veilwatch incidents show 9b1c04`
    """
    with stored.open_store(store) as opened:
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
    table = stored.plain_table("time (UTC)", "what", "alert")
    for step in incident.timeline:
        table.add_row(
            Text(stored.shown_time(step.at_ns)),
            stored.sentence(step.text),
            Text(step.event_id[:12]),
        )
    print_table(table)


@app.command()
def close(
    incident_id: IncidentId,
    store: stored.StoreUrl = stored.DEFAULT_STORE,
    by: stored.Who = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Close an incident; more evidence opens it again.

    Example: `veilwatch incidents close 9b1c04 --note "host reinstalled"`
    """
    with stored.open_store(store) as opened:
        item = opened.close_incident(incident_id, who=stored.person(by), note=note)
    console.print(stored.sentence(f"{item.incident.incident_id[:12]}: closed by {item.closed_by}"))


def _plain(item: StoredIncident) -> dict[str, Any]:
    closed = {"closed_by": item.closed_by, "closed_note": item.closed_note}
    return {**incident_to_plain(item.incident), **closed}
