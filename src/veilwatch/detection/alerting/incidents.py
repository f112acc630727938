"""Incidents: the alerts of one host or subscriber, added up.

A book of open incidents takes alerts and says what changed. It holds no clock and no file; its
state goes out as plain values and comes back the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from veilwatch.detection.alerting.events import identity
from veilwatch.detection.alerting.open_incident import (
    MAX_STEP_TEXT,
    NOT_ANNOUNCED,
    OpenIncident,
    from_plain,
    step_text,
    to_plain,
)
from veilwatch.detection.alerting.person import Person
from veilwatch.detection.alerting.ties import OUTSIDE, host_key, outside_tunnels, ties_of
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Incident, Step
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.units import HOUR_NS, SECOND_NS

STATE_FORMAT: Final = 1
"""Version of what `IncidentBook.state` returns."""

MAX_OPEN: Final = 4096
"""Most open incidents, a few KiB each: a hospital has fewer infected hosts, a scan with forged
addresses has more."""

MAX_SEEN: Final = 16_384
"""Event ids that are remembered so that evidence replayed after a restart is not counted twice:
some hours at the highest rate that is let out."""

MAX_BUCKET_NS: Final = HOUR_NS
"""Longest span of opening times that share an id. It is at most the quiet time, so that the next
incident of a host that was quiet never falls into the same span as the one before."""

MAX_SPENT: Final = 16_384
"""Ids of incidents closed before their time that are remembered, so that the host's next one gets
another; a span of opening times is over long before so many were closed in it."""

QUIET: Final = "quiet"
"""Reason of a closing by time."""

CONTINUED: Final = "continued"
"""Beginning of the reason of a closing because the host's subscriber has an incident of its own."""

MAX_TIES: Final = 64
"""Tunnels and flows remembered of an incident, the latest ones: handovers bring a new tunnel each,
and what ties two alerts together lies minutes apart."""


class ChangeKind(StrEnum):
    """What happened to an incident."""

    OPENED = "opened"
    ROSE = "rose"
    UPDATED = "updated"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Change:
    """News of an incident.

    Attributes
    ----------
    kind
        What happened.
    incident
        As it stands now.
    strongest, flow
        Its strongest alert, and the flow that it points at.
    announced
        Least severity number of it that `IncidentBook.announce` was called with, 4 none.
    reason
        Of a closing: "quiet", "evicted", "continued as" another, or who closed it; else ''.
    """

    kind: ChangeKind
    incident: Incident
    strongest: Alert
    flow: FlowFacts
    announced: int
    reason: str = ""


class IncidentBook:
    """The open incidents of one sensor.

    Alerts belong together if they are of one subscriber, or of one address where the subscriber
    is unknown, with no quiet time between them. An incident of an address becomes that of a
    subscriber when an alert of that subscriber comes from the same address and the same tunnel or
    flow (`adopt`), and what still comes without subscriber is known by its tunnel
    (`owned`): two subscribers that share an address share no tunnel. When `max_open` are open and
    another begins, the one of the lowest severity that has had no evidence for longest is closed.

    Parameters
    ----------
    sensor
        Name of the sensor, part of every id.
    quiet_ns
        An incident without evidence for this long is closed.
    max_open
        Bound of memory.

    Attributes
    ----------
    evicted
        Incidents closed before their time since the start.
    replayed
        Alerts that had been added before, since the start.
    """

    def __init__(self, sensor: str, *, quiet_ns: int, max_open: int = MAX_OPEN) -> None:
        if quiet_ns < SECOND_NS or max_open < 1:
            raise VeilwatchError("an incident book needs a quiet time of a second and one place")
        self._sensor = sensor
        self._quiet_ns = quiet_ns
        self._bucket_ns = min(quiet_ns, MAX_BUCKET_NS)
        self._max_open = max_open
        # By severity, the one without evidence for longest first: what goes first is found at once.
        self._open: dict[int, OrderedDict[str, OpenIncident]] = {
            n: OrderedDict() for n in (1, 2, 3)
        }
        self._severity: dict[str, int] = {}
        self._tied: dict[str, str] = {}  # by tie, the key of the entry that had it last
        self._outside: dict[str, set[str]] = {}  # by tie outside tunnels, the keys that have it
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._spent: OrderedDict[str, None] = OrderedDict()
        self.evicted = 0
        self.replayed = 0

    def __len__(self) -> int:
        return len(self._severity)

    def add(
        self,
        alert: Alert,
        flow: FlowFacts,
        event_id: str,
        *,
        evidence: str = "",
        evidence_before: str = "",
        reported: bool = True,
        listed: bool = True,
        now_ns: int = 0,
    ) -> list[Change]:
        """Add an alert to its host's incident.

        Parameters
        ----------
        alert, flow
            The alert, and the flow that it points at.
        event_id
            Of its event.
        evidence
            Id of its evidence, by default that of its event. What was added before is not counted
            again; if it has grown more severe, the incident rises.
        evidence_before
            Id that the same evidence has while its subscriber is not known, '' none.
        reported
            Whether the event goes out, so that the timeline may point at it.
        listed
            Whether the timeline gets a step; a repeat is only counted.
        now_ns
            The sensor's clock, which `tick` goes by; 0 for the time of the alert's last packet.

        Returns
        -------
        list of Change
            A closing of what came before, then opened, rose or updated; empty for a replay.
        """
        evidence = evidence or event_id
        known = self._known(alert, evidence, evidence_before)
        if known is not None and known <= alert.severity:
            self._seen.setdefault(evidence, known)
            self.replayed += 1
            return []
        self._seen[evidence] = alert.severity
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)

        changes = []
        key, at_ns = host_key(alert), alert.last_ns
        entry = self._find(key)
        if entry and at_ns > entry.last_ns + self._quiet_ns:
            changes.append(self._close(entry, QUIET))
            entry = None
        kind = ChangeKind.UPDATED
        if entry is None:
            if len(self) >= self._max_open:
                changes.append(self._evict())
            entry, kind = self._begin(key, alert, flow), ChangeKind.OPENED
        elif alert.severity < entry.severity:
            kind = ChangeKind.ROSE
        entry.heard_ns = now_ns or max(entry.heard_ns, at_ns)
        entry.alerts += known is None
        entry.opened_ns = min(entry.opened_ns, at_ns)
        entry.last_ns = max(entry.last_ns, at_ns)
        if alert.family and (not entry.family or alert.score >= entry.strongest.score):
            entry.family = alert.family
        if (-alert.severity, alert.score) > (-entry.strongest.severity, entry.strongest.score):
            entry.strongest, entry.flow = alert, flow
        if listed:
            text = step_text(alert)[:MAX_STEP_TEXT]
            entry.add(Step(at_ns, text, alert.score, event_id if reported else ""))
        self._tie(entry, ties_of(alert))
        self._file(entry, min(entry.severity, alert.severity))
        changes.append(self._change(kind, entry))
        return changes

    def owned(self, alert: Alert) -> Alert:
        """Return the alert with the subscriber that an open incident of its tunnel has."""
        if alert.subscriber:
            return alert
        outside = outside_tunnels(alert.host)
        for tie in ties_of(alert):
            entry = None if tie == outside else self._find(self._tied.get(tie, ""))
            if entry is not None and entry.subscriber:
                return replace(alert, subscriber=entry.subscriber)
        return alert

    def adopt(self, alert: Alert) -> tuple[bool, list[Change]]:
        """Let the alert's subscriber take over what began before it was known.

        Returns
        -------
        bool
            Whether an incident of the alert's address was of its subscriber.
        list of Change
            Where the subscriber has an incident already, the closing of the other, whose alerts
            go on in it.
        """
        old = self._find(f"host {alert.host}")
        if not alert.subscriber or old is None:
            return False, []
        mine = self._find(host_key(alert))
        common = set(old.ties) & set(ties_of(alert))
        outside = outside_tunnels(alert.host)
        # Outside tunnels the address is all there is: nobody else may have it, and of a subscriber
        # that was known before there is a reason why this traffic was not said to be theirs.
        if mine is not None or self._outside.get(outside, set()) - {old.key}:
            common.discard(outside)
        if not common:
            return False, []
        self._take_out(old)
        old.subscriber, old.unnamed = alert.subscriber, True
        if mine is None:
            old.key = host_key(alert)
            self._tie(old, ())
            self._file(old, old.severity)
            return True, []
        mine.unnamed = True
        mine.alerts += old.alerts
        mine.opened_ns = min(mine.opened_ns, old.opened_ns)
        mine.last_ns = max(mine.last_ns, old.last_ns)
        mine.announced = min(mine.announced, old.announced)
        for step in sorted([*old.head, *old.tail, *mine.tail], key=lambda step: step.at_ns):
            if step not in mine.tail:
                mine.add(step)
        if (-old.severity, old.strongest.score) > (-mine.severity, mine.strongest.score):
            mine.strongest, mine.flow = old.strongest, old.flow
            mine.family = old.family or mine.family
        self._tie(mine, old.ties)
        self._file(mine, min(mine.severity, old.severity))
        return True, [self._close(old, f"{CONTINUED} as {mine.incident_id[:12]}")]

    def is_announced(self, alert: Alert) -> bool:
        """Tell whether anything was reported of the incident that an alert belongs to."""
        entry = self._find(host_key(alert))
        return entry is not None and entry.announced != NOT_ANNOUNCED

    def announce(self, alert: Alert) -> None:
        """Note that the alert's incident was reported at the severity that it has."""
        if entry := self._find(host_key(alert)):
            entry.announced = entry.severity

    def tick(self, now_ns: int) -> list[Change]:
        """Close what has been quiet for long enough at `now_ns`, the longest quiet first.

        By when evidence came and not by its packets: a wrong stamp neither closes nor keeps one.
        After a step back of the clock a time ahead of it counts as long ago.
        """
        quiet = sorted(
            (e for e in self._entries() if abs(now_ns - e.heard_ns) >= self._quiet_ns),
            key=lambda entry: (entry.last_ns, entry.incident_id),
        )
        return [self._close(entry, QUIET) for entry in quiet]

    def close(self, incident_id: str, reason: str) -> list[Change]:
        """Close an incident because somebody asked for it; empty if it is not open."""
        found = [entry for entry in self._entries() if entry.incident_id == incident_id]
        return [self._close(entry, reason) for entry in found]

    def forget_person(self, person: Person) -> tuple[str, ...]:
        """Forget a person's open incidents, without a report; return their ids.

        Ids of evidence stay: they are hashes, and of whom is not known.
        """
        theirs = [
            entry
            for entry in self._entries()
            if person.has(entry.host, entry.subscriber)
            # A subscriber's address may have changed since the incident began.
            or person.has(entry.strongest.host, entry.strongest.subscriber)
        ]
        for entry in theirs:
            self._take_out(entry)
        for entry in self._entries() if person.host else ():
            mine = [tie for tie in entry.ties if tie.startswith(f"{person.host} ")]
            self._untie(entry, mine)
            entry.ties = [tie for tie in entry.ties if tie not in mine]
        return tuple(entry.incident_id for entry in theirs)

    def set_quiet(self, quiet_ns: int) -> None:
        """Close incidents after another quiet time from now on."""
        self._quiet_ns = quiet_ns
        self._bucket_ns = min(quiet_ns, MAX_BUCKET_NS)

    def open_incidents(self) -> list[Incident]:
        """Return the open incidents, the most severe first."""
        return [entry.incident("open") for entry in self._entries()]

    def of(self, alert: Alert) -> Incident | None:
        """Return the open incident that the alert would be added to."""
        entry = self._find(host_key(alert))
        return entry.incident("open") if entry else None

    def state(self) -> dict[str, Any]:
        """Return everything that is remembered, as plain values for JSON."""
        return {
            "format": STATE_FORMAT,
            "sensor": self._sensor,
            "seen": [[event_id, severity] for event_id, severity in self._seen.items()],
            "spent": list(self._spent),
            "open": [to_plain(entry) for entry in self._entries()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises
        ------
        VeilwatchError
            If it is of another format or damaged; the book is then as it was.
        """
        if state.get("format") != STATE_FORMAT:
            raise VeilwatchError(
                f"incidents saved in format {state.get('format')!r}", hint="start with none"
            )
        try:
            entries = [from_plain(entry) for entry in state["open"][: self._max_open]]
            spent = [str(incident_id) for incident_id in state["spent"]]
            seen = {str(event_id): int(severity) for event_id, severity in state["seen"]}
        except (KeyError, TypeError, ValueError) as error:
            raise VeilwatchError("saved incidents are damaged", hint="start with none") from error
        self._open = {n: OrderedDict() for n in (1, 2, 3)}
        self._severity, self._tied, self._outside = {}, {}, {}
        for entry in entries:
            self._file(entry, entry.severity)
            self._tie(entry, ())
        self._seen = OrderedDict(list(seen.items())[-MAX_SEEN:])
        self._spent = OrderedDict.fromkeys(spent[-MAX_SPENT:])

    def _begin(self, key: str, alert: Alert, flow: FlowFacts) -> OpenIncident:
        place = (self._sensor, key, alert.last_ns // self._bucket_ns)
        incident_id, again = identity(*place), 0
        while incident_id in self._spent:
            again += 1
            incident_id = identity(*place, again)
        return OpenIncident(
            incident_id=incident_id,
            key=key,
            host=alert.host,
            subscriber=alert.subscriber,
            opened_ns=alert.last_ns,
            last_ns=alert.last_ns,
            strongest=alert,
            flow=flow,
            severity=alert.severity,
        )

    def _known(self, alert: Alert, evidence: str, before: str) -> int | None:
        """Return the severity under which evidence was added before, None if it was not."""
        known = self._seen.get(evidence)
        entry = self._find(host_key(alert))
        if known is None and before and entry is not None and entry.unnamed:
            known = self._seen.get(before)
        return known

    def _tie(self, entry: OpenIncident, ties: Iterable[str]) -> None:
        """Remember the tunnels and flows of an incident, the latest ones."""
        ties = list(ties)
        kept = [*(tie for tie in entry.ties if tie not in ties), *ties]
        self._untie(entry, kept[:-MAX_TIES])
        entry.ties = kept[-MAX_TIES:]
        for tie in entry.ties:
            self._tied[tie] = entry.key
            if tie.endswith(OUTSIDE):
                self._outside.setdefault(tie, set()).add(entry.key)

    def _untie(self, entry: OpenIncident, ties: Iterable[str]) -> None:
        for tie in ties:
            if self._tied.get(tie) == entry.key:
                del self._tied[tie]
            keys = self._outside.get(tie, set())
            keys.discard(entry.key)
            if not keys:
                self._outside.pop(tie, None)

    def _entries(self) -> Iterator[OpenIncident]:
        for entries in self._open.values():
            yield from entries.values()

    def _find(self, key: str) -> OpenIncident | None:
        severity = self._severity.get(key)
        return None if severity is None else self._open[severity][key]

    def _file(self, entry: OpenIncident, severity: int) -> None:
        """Put an entry behind all others of its severity: its evidence is the latest."""
        self._unfile(entry)
        entry.severity = severity
        self._open[severity][entry.key] = entry
        self._severity[entry.key] = severity

    def _unfile(self, entry: OpenIncident) -> None:
        severity = self._severity.pop(entry.key, None)
        if severity is not None:
            del self._open[severity][entry.key]

    def _take_out(self, entry: OpenIncident) -> None:
        self._unfile(entry)
        self._untie(entry, entry.ties)

    def _evict(self) -> Change:
        self.evicted += 1
        lowest = next(entries for n in (3, 2, 1) if (entries := self._open[n]))
        return self._close(next(iter(lowest.values())), "evicted")

    def _close(self, entry: OpenIncident, reason: str) -> Change:
        self._take_out(entry)
        if reason != QUIET:
            self._spent[entry.incident_id] = None
            if len(self._spent) > MAX_SPENT:
                self._spent.popitem(last=False)
        return self._change(ChangeKind.CLOSED, entry, reason)

    @staticmethod
    def _change(kind: ChangeKind, entry: OpenIncident, reason: str = "") -> Change:
        status = "closed" if kind is ChangeKind.CLOSED else "open"
        return Change(
            kind, entry.incident(status), entry.strongest, entry.flow, entry.announced, reason
        )
