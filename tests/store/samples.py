"""Events and incidents for tests of the store."""

from __future__ import annotations

from typing import Any

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.detection.alerting.events import alert_event, identity
from veilwatch.schema.events import Event, Incident, Step


def make_event(n: int, *, incident: Incident | None = None, **alert: Any) -> Event:
    """Return the `n`-th event, `n` seconds after the start, from a port of its own."""
    return alert_event(
        make_alert(n, **({"src_port": n % 65_536} | alert)),
        make_row(),
        sensor="s1",
        made_ns=START_NS + n * SECOND,
        interface="eth1",
        incident=incident,
    )


def make_incident(n: int, **changes: Any) -> Incident:
    """Return the `n`-th incident."""
    values: dict[str, Any] = {
        "incident_id": identity("incident", n),
        "host": f"10.0.{n // 256}.{n % 256}",
        "subscriber": "",
        "status": "open",
        "opened_ns": START_NS + n * SECOND,
        "last_ns": START_NS + n * SECOND,
        "severity": 2,
        "score": 0.9,
        "alerts": 1,
        "timeline": (Step(START_NS, "began", 0.9, "e"),),
    }
    return Incident(**(values | changes))
