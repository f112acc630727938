"""The alert gate: every alert of a sensor passes it, and what comes out is stored and delivered.

In this order: allow-list, maintenance windows, repeats of what was reported, rate limits. Whatever
is held back is counted under its disposition; all but what is allowed or falls into a maintenance
window is added to the incident of its host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from veilwatch.detection.alerting.allow import AllowList
from veilwatch.detection.alerting.dedup import Deduplicator
from veilwatch.detection.alerting.events import (
    alert_event,
    alert_id,
    evidence_id,
    incident_event,
    summary_event,
)
from veilwatch.detection.alerting.incidents import Change, ChangeKind, IncidentBook
from veilwatch.detection.alerting.limits import HeldBack, Limits, RateLimiter
from veilwatch.detection.alerting.maintenance import MaintenanceWindow
from veilwatch.detection.alerting.open_incident import NOT_ANNOUNCED
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.events import Event, Incident
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.units import SECOND_NS

GATE_STATE: Final = "desk"
"""Name of the state in the store: that of the first releases, as names on disk do not change."""

STATE_FORMAT: Final = 2
"""Version of what `AlertGate.state` returns."""


class Disposition(StrEnum):
    """What became of an alert."""

    REPORTED = "told"
    REPEAT = "repeat"
    LIMITED = "limited"
    MAINTENANCE = "maintenance"
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is reported and how often.

    Attributes
    ----------
    allow
        What is known to be harmless.
    maintenance
        When nothing is reported.
    limits
        Rate limits.
    dedup_s
        How long repeats of the same service of a host are held back, 0 never.
    quiet_close_s
        An incident without evidence for this long is closed.
    """

    allow: AllowList = field(default_factory=AllowList)
    maintenance: tuple[MaintenanceWindow, ...] = ()
    limits: Limits = field(default_factory=Limits)
    dedup_s: float = 3600.0
    quiet_close_s: float = 14_400.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What comes of an alert, or of time passing.

    Attributes
    ----------
    events
        To be stored and delivered, in this order.
    incidents
        That changed, to be stored.
    disposition
        Of the alert, None where none was handed in.
    reason
        Why it was allowed or kept for maintenance.
    """

    events: tuple[Event, ...] = ()
    incidents: tuple[Incident, ...] = ()
    disposition: Disposition | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What a gate forgot of one person.

    Attributes
    ----------
    incidents
        Ids of open incidents.
    repeats
        Services of which was remembered that they were reported.
    limits
        Rate limits, and summaries of what they held back.
    """

    incidents: tuple[str, ...] = ()
    repeats: int = 0
    limits: int = 0


class AlertGate:
    """Take alerts and decide which are reported.

    Parameters
    ----------
    sensor
        Name of the sensor.
    policy
        What is reported.
    interface
        Where the traffic is seen, for events that name no other place.

    Attributes
    ----------
    dispositions
        How many alerts had which disposition since the start; they add up to the alerts handed in.

    Examples
    --------
    >>> gate = AlertGate("ward-3", Policy())  # doctest: +SKIP
    >>> decision = gate.decide(alert, row, now_ns=now_ns, made_ns=time.time_ns())  # doctest: +SKIP
    >>> store.add_events(decision.events)  # doctest: +SKIP
    """

    def __init__(self, sensor: str, policy: Policy, *, interface: str = "") -> None:
        self._sensor = sensor
        self._interface = interface
        self._policy = policy
        self._repeats = Deduplicator(_ns(policy.dedup_s))
        self._limiter = RateLimiter(policy.limits)
        self.book = IncidentBook(sensor, quiet_ns=_ns(policy.quiet_close_s))
        self.dispositions: Counter[Disposition] = Counter()

    def decide(
        self,
        alert: Alert,
        flow: FlowFacts,
        *,
        now_ns: int,
        made_ns: int,
        interface: str = "",
    ) -> Decision:
        """Rule on one alert.

        Parameters
        ----------
        alert, flow
            The alert, and the flow that it points at.
        now_ns
            The sensor's steady clock, ns since the epoch: repeats, limits and quiet times go by
            it. Not packet time, which one bad stamp may move by decades.
        made_ns
            Wall clock now: for the event, and for the ends of allow-list entries.
        interface
            Where the flow was seen, by default the gate's.
        """
        unnamed = evidence_id(replace(alert, subscriber=""), self._sensor)
        alert = self.book.owned(alert)
        adopted, changes = self.book.adopt(alert)
        if adopted:
            self._repeats.adopt(alert.host, alert.subscriber)
            self._limiter.adopt(alert.host, alert.subscriber)
        disposition, reason = self._disposition(alert, flow, now_ns, made_ns)
        self.dispositions[disposition] += 1
        if disposition in (Disposition.ALLOWED, Disposition.MAINTENANCE):
            news = self._news(changes, made_ns, reported=False)
            return Decision(tuple(news), _last_of_each(changes), disposition, reason)
        interface = interface or self._interface
        reported = disposition is Disposition.REPORTED
        event_id = alert_id(alert, self._sensor)
        changes += self.book.add(
            alert,
            flow,
            event_id,
            evidence=evidence_id(alert, self._sensor),
            evidence_before=unnamed,
            reported=reported,
            listed=disposition is not Disposition.REPEAT,
            now_ns=now_ns,
        )
        events = []
        if reported:
            event = alert_event(
                alert,
                flow,
                sensor=self._sensor,
                made_ns=made_ns,
                interface=interface,
                incident=self.book.of(alert),
            )
            events.append(event)
        events += self._news(changes, made_ns, reported=reported)
        if reported:
            self.book.announce(alert)
        return Decision(tuple(events), _last_of_each(changes), disposition, reason)

    def tick(self, *, now_ns: int, made_ns: int, final: bool = False) -> Decision:
        """Let time pass: close quiet incidents and report what was held back.

        Parameters
        ----------
        now_ns, made_ns
            As for `take`.
        final
            Whether this is the last call before the end: everything held back is reported.
        """
        changes = self.book.tick(now_ns)
        held = self._limiter.due(now_ns, all_of_them=final)
        events = [self._summary(item, made_ns) for item in held]
        events += self._news(changes, made_ns, reported=False)
        return Decision(tuple(events), _last_of_each(changes))

    def close(self, incident_id: str, reason: str, *, made_ns: int) -> Decision:
        """Close an incident because somebody asked for it."""
        changes = self.book.close(incident_id, reason)
        return Decision(
            tuple(self._news(changes, made_ns, reported=False)),
            _last_of_each(changes),
            None,
            reason,
        )

    def replace_policy(self, policy: Policy) -> None:
        """Go on under another policy: what is open, held back or was reported stays so."""
        repeats, limits = self._repeats.state(), self._limiter.state()
        self._policy = policy
        self._repeats = Deduplicator(_ns(policy.dedup_s))
        self._repeats.restore(repeats)
        self._limiter = RateLimiter(policy.limits)
        self._limiter.restore(limits)
        self.book.set_quiet(_ns(policy.quiet_close_s))

    def forget_person(self, person: Person) -> Forgotten:
        """Forget one person, without a report; what is known of others stays as it is."""
        return Forgotten(
            incidents=self.book.forget_person(person),
            repeats=self._repeats.forget_person(person),
            limits=self._limiter.forget_person(person),
        )

    def state(self) -> dict[str, Any]:
        """Return what a restart must not forget, as plain values for JSON."""
        return {
            "format": STATE_FORMAT,
            "book": self.book.state(),
            "told": self._repeats.state(),
            "limits": self._limiter.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken.

        Raises
        ------
        VeilwatchError
            If it is of another format or damaged; nothing is then taken over.
        """
        if state.get("format") != STATE_FORMAT:
            raise VeilwatchError("the gate's state has another format", hint="start with none")
        repeats = Deduplicator(_ns(self._policy.dedup_s))
        limiter = RateLimiter(self._policy.limits)
        try:
            repeats.restore(state["told"])
            limiter.restore(state["limits"])
            self.book.restore(state["book"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise VeilwatchError("the gate's state is damaged", hint="start with none") from error
        self._repeats, self._limiter = repeats, limiter

    def _disposition(
        self, alert: Alert, flow: FlowFacts, now_ns: int, made_ns: int
    ) -> tuple[Disposition, str]:
        if entry := self._policy.allow.match(alert, flow, made_ns):
            return Disposition.ALLOWED, entry.reason
        for window in self._policy.maintenance:
            # Maintenance makes the traffic of its time look odd, whenever that is read.
            if window.covers(alert, alert.last_ns):
                return Disposition.MAINTENANCE, window.reason
        if not self._repeats.admit(alert, now_ns):
            return Disposition.REPEAT, ""
        new = not self.book.is_announced(alert)
        if not self._limiter.admit(alert, flow, now_ns, new=new):
            # It was not reported, so its repeat is news once there are tokens again.
            self._repeats.forget(alert)
            return Disposition.LIMITED, ""
        return Disposition.REPORTED, ""

    def _news(self, changes: list[Change], made_ns: int, *, reported: bool) -> list[Event]:
        """Events of incidents: opened or risen with an alert that is reported, closed if announced.

        An incident whose alerts were all held back is news with the first that is reported.
        """
        out = []
        for change in changes:
            if change.kind is ChangeKind.CLOSED:
                wanted = change.announced != NOT_ANNOUNCED
            else:
                wanted = reported and change.incident.severity < change.announced
            if wanted:
                out.append(
                    incident_event(
                        change.incident,
                        change.strongest,
                        change.flow,
                        sensor=self._sensor,
                        made_ns=made_ns,
                        interface=self._interface,
                    )
                )
        return out

    def _summary(self, held: HeldBack, made_ns: int) -> Event:
        return summary_event(
            held.strongest,
            held.flow,
            held_back=held.count,
            hosts=len(held.hosts),
            since_ns=held.first_ns,
            until_ns=held.last_ns,
            sensor=self._sensor,
            made_ns=made_ns,
        )


def _last_of_each(changes: list[Change]) -> tuple[Incident, ...]:
    return tuple({c.incident.incident_id: c.incident for c in changes}.values())


def _ns(seconds: float) -> int:
    return int(seconds * SECOND_NS)
