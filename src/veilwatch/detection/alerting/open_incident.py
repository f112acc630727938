"""One open incident: what it adds up, its timeline, and its form in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from veilwatch.schema.alerts import Alert
from veilwatch.schema.convert import alert_from_plain, alert_to_plain
from veilwatch.schema.events import Incident, Step
from veilwatch.schema.flow_facts import FlowFacts, facts_from_plain, facts_to_plain

TIMELINE_HEAD: Final = 16
"""First steps of an incident that are kept for good: how it began is asked first."""

TIMELINE_TAIL: Final = 48
"""Latest steps that are kept after them: the timeline is read by people and sent to receivers
that take less than 32,000 bytes."""

NOT_ANNOUNCED: Final = 4
"""Severity that an incident has been announced with before it has been: below low."""

MAX_STEP_TEXT: Final = 300
"""Characters kept of a step."""


@dataclass(slots=True)
class OpenIncident:
    """An incident to which evidence may be added; `IncidentBook` changes it."""

    incident_id: str
    key: str
    host: str
    subscriber: str
    opened_ns: int
    last_ns: int
    strongest: Alert
    flow: FlowFacts
    severity: int
    heard_ns: int = 0  # by the sensor's clock, when its last evidence came
    family: str = ""
    announced: int = NOT_ANNOUNCED
    alerts: int = 0
    left_out: int = 0
    head: list[Step] = field(default_factory=list)
    tail: list[Step] = field(default_factory=list)
    ties: list[str] = field(default_factory=list)  # see `ties_of`, the latest last
    unnamed: bool = False  # whether it began before its subscriber was known

    def add(self, step: Step) -> None:
        """Add a step to the timeline, whose middle is left out where it is long."""
        if len(self.head) < TIMELINE_HEAD:
            self.head.append(step)
            return
        self.tail.append(step)
        if len(self.tail) > TIMELINE_TAIL:
            del self.tail[0]
            self.left_out += 1

    def incident(self, status: str) -> Incident:
        """Return it as it stands."""
        steps = self.head
        if self.left_out:
            gap = Step(self.tail[0].at_ns, f"… {self.left_out:,} steps left out …")
            steps = [*steps, gap]
        return Incident(
            incident_id=self.incident_id,
            host=self.host,
            subscriber=self.subscriber,
            status=status,
            opened_ns=self.opened_ns,
            last_ns=self.last_ns,
            severity=self.severity,
            score=self.strongest.score,
            family=self.family,
            alerts=self.alerts,
            timeline=(*steps, *self.tail),
            emulated=self.strongest.emulated,
        )


def step_text(alert: Alert) -> str:
    """Return what a timeline says of an alert: where a flow led and how it scored."""
    family = f", like {alert.family}" if alert.family else ""
    if alert.thin:
        family += ", little evidence"
    if alert.kind != "flow":
        return f"host as a whole, score {alert.score:.3f}{family}"
    address = f"[{alert.dst_ip}]" if ":" in alert.dst_ip else alert.dst_ip
    place = f"{address}:{alert.dst_port}"
    if alert.application:
        place = f"{alert.application} ({place})"
    return f"flow to {place}, score {alert.score:.3f}{family}"


def to_plain(entry: OpenIncident) -> dict[str, Any]:
    """Return an incident as plain values for JSON."""
    return {
        "incident_id": entry.incident_id,
        "key": entry.key,
        "host": entry.host,
        "subscriber": entry.subscriber,
        "opened_ns": entry.opened_ns,
        "last_ns": entry.last_ns,
        "strongest": alert_to_plain(entry.strongest),
        "flow": facts_to_plain(entry.flow),
        "severity": entry.severity,
        "heard_ns": entry.heard_ns,
        "family": entry.family,
        "announced": entry.announced,
        "alerts": entry.alerts,
        "left_out": entry.left_out,
        "head": [_step_to_plain(step) for step in entry.head],
        "tail": [_step_to_plain(step) for step in entry.tail],
        "ties": list(entry.ties),
        "unnamed": entry.unnamed,
    }


def from_plain(plain: Mapping[str, Any]) -> OpenIncident:
    """Return what `to_plain` wrote; earlier releases wrote less."""
    entry = OpenIncident(
        **{
            "heard_ns": plain["last_ns"],  # earlier releases had one time for both
            **plain,
            "strongest": alert_from_plain(plain["strongest"]),
            "flow": facts_from_plain(plain["flow"]),
            "head": [Step(*step) for step in plain["head"]],
            "tail": [Step(*step) for step in plain["tail"]],
        }
    )
    if entry.severity not in (1, 2, 3):
        raise ValueError("severity")
    return entry


def _step_to_plain(step: Step) -> list[Any]:
    return [step.at_ns, step.text, step.score, step.event_id]
