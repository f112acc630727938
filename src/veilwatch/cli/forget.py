"""`veilwatch forget`: what a sensor keeps of one person is deleted."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Final

import typer

from veilwatch.cli import stored
from veilwatch.cli.options import ConfigFile
from veilwatch.cli.terminal import AsJson, Quiet, console
from veilwatch.detection.alerting.person import Person
from veilwatch.report.listing import Listing, numbers, texts
from veilwatch.sensor.forget import forget
from veilwatch.sensor.load import load_config

WORDS: Final = {
    "events": "store: alerts and news of incidents",
    "verdicts": "store: verdicts on them",
    "incidents": "store: incidents",
    "open_incidents": "state: open incidents",
    "repeats": "state: services that were told",
    "limits": "state: rate limits",
    "spooled": "spool: events, delivered or not",
    "flows": "archive: flows",
    "files": "archive: files that held them",
    "unfinished": "archive: unfinished files",
}
"""What the counts are called."""


def command(
    config: ConfigFile,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address of the person.", show_default=False)
    ] = "",
    subscriber: Annotated[
        str,
        typer.Option(metavar="PSEUDONYM", help="Pseudonym of the person.", show_default=False),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only count; the sensor may run meanwhile."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Delete what a sensor keeps of one person: store, state, spool, archive of flows.

    The sensor has to be stopped, but for --dry-run. What cannot be reached from here is said.

    Example: `veilwatch forget --config /etc/veilwatch/sensor.toml --host 10.45.0.7 --dry-run`
    """
    person = Person(host=host, subscriber=subscriber)
    loaded = load_config(config, environment=os.environ).config
    found, not_reached = forget(loaded, person, dry_run=dry_run)
    counts = asdict(found)
    if as_json:
        told = {person.key: person.name, "dry_run": dry_run, **counts, "not_reached": not_reached}
        typer.echo(json.dumps(told, indent=1))
        return
    table = Listing([*texts("what"), *numbers("would be deleted" if dry_run else "deleted")])
    for name, count in counts.items():
        table.add(WORDS[name], f"{count:,}")
    console.print(table)
    if not any(counts.values()):
        console.print(stored.sentence(f"there is nothing of {person.name} to delete"))
    console.print("not reached:")
    for sentence in not_reached:
        console.print(stored.sentence(f"· {sentence}", "yellow"), soft_wrap=True)
