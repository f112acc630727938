"""Forgetting one person: in the store, the gate's state, the spool and the archive of flows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from veilwatch.detection.alerting import gate
from veilwatch.detection.alerting.gate import GATE_STATE, AlertGate, Policy
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import VeilwatchError
from veilwatch.sensor.config import SensorConfig
from veilwatch.sensor.load import masked
from veilwatch.sensor.state import check_folder, hold_still
from veilwatch.sensor.state_paths import StatePaths
from veilwatch.sinks.spool import Spool
from veilwatch.store import Store, forget_flows
from veilwatch.store.database import damaged_copies, parse_url


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How much there was of one person.

    Attributes
    ----------
    events, verdicts, incidents
        In the store.
    open_incidents, repeats, limits
        In the gate's state: open incidents, services that were told, rate limits.
    spooled
        Events in the spool, delivered or not.
    flows, files
        In the archive, and the files that these were in.
    unfinished
        Files that the archive had not finished: nobody can read whose flows they hold.
    """

    events: int
    verdicts: int
    incidents: int
    open_incidents: int
    repeats: int
    limits: int
    spooled: int
    flows: int
    files: int
    unfinished: int


def forget(
    config: SensorConfig, person: Person, *, dry_run: bool = False
) -> tuple[Forgotten, list[str]]:
    """Delete what a sensor that does not run keeps of a person.

    Each place is done whole or not at all. Done again, it finds what an interruption left. Counting
    alone may be done beside a sensor that runs: what it has not stored yet is not counted.

    Parameters
    ----------
    config
        The sensor's configuration.
    person
        Who.
    dry_run
        Whether it is only counted.

    Returns
    -------
    Forgotten, list of str
        What there was, and what cannot be reached from here, a sentence each.

    Raises
    ------
    VeilwatchError
        If the sensor runs and it is not only counted, there is no store, or a place cannot be
        read or written.
    """
    with (
        Store(config.store_url, create=False) as store,
        _beside(config.sensor.state) if dry_run else hold_still(config.sensor.state),
    ):
        parts, state = _without(store, config.sensor.name, person)
        found = store.forget_person(person, parts.incidents, state=state, dry_run=dry_run)
        spooled = _spooled(StatePaths(config).spool, person, dry_run)
        archive = forget_flows(config.archive_folder, person, dry_run=dry_run)
    forgotten = Forgotten(
        events=len(found.event_ids),
        verdicts=found.verdicts,
        incidents=len(found.incident_ids),
        open_incidents=len(parts.incidents),
        repeats=parts.repeats,
        limits=parts.limits,
        spooled=spooled,
        flows=archive.flows,
        files=archive.files,
        unfinished=archive.unfinished,
    )
    return forgotten, _not_reached(config, found.elsewhere)


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Look at a state folder that a sensor may work on."""
    check_folder(folder)
    yield


def _without(store: Store, sensor: str, person: Person) -> tuple[gate.Forgotten, dict[str, Any]]:
    """Return what of a person is in the gate's state, and the state without it if any is."""
    saved = store.load_state(GATE_STATE)
    if not isinstance(saved, Mapping):
        return gate.Forgotten(), {}
    restored = AlertGate(sensor, Policy())
    try:
        restored.restore(saved)
    except VeilwatchError as error:
        error.where, error.hint = store.name, "start the sensor once: it begins without"
        raise
    parts = restored.forget_person(person)
    return parts, {GATE_STATE: restored.state()} if parts != gate.Forgotten() else {}


def _spooled(path: Path, person: Person, dry_run: bool) -> int:
    if not path.is_file():
        return 0
    with Spool(path) as spool:
        return spool.forget_person(person, dry_run=dry_run)


def _not_reached(config: SensorConfig, elsewhere: int) -> list[str]:
    """Say what may still name a person."""
    out = []
    if elsewhere:
        out.append(f"events of others: {elsewhere:,} name them and stay, as evidence of those")
    out += [f"what was sent to {masked(url)}" for url in config.sinks.urls]
    out.append("what was sent to sinks that are configured no more")
    out.append("backups and copies of store, spool and archive")
    out += [f"a damaged store, {path}" for path in damaged_copies(config.store_url)]
    if parse_url(config.store_url).get_backend_name() == "postgresql":
        out.append("the database server's log of changes, and its replicas")
    if config.capture.folder is not None:
        out.append(f"captures in {config.capture.folder}")
    out.append("the log: it names nobody, but sudo logs the words of this command")
    return out
