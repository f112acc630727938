"""Events and incidents as plain values for JSON, and back.

What was stored by an older version is read by the fields that it has: a field that is missing
takes its default, one that this version does not know is left aside.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.events import Event, EventKind, Incident, Step
from veilwatch.schema.flow_facts import facts_from_plain
from veilwatch.schema.forms import known_values
from veilwatch.schema.scores import Reason


def alert_to_plain(alert: Alert) -> dict[str, Any]:
    """Return an alert as plain values; numbers that are not finite become None."""
    return _finite_items(dataclasses.asdict(alert))


def alert_from_plain(plain: Mapping[str, Any]) -> Alert:
    """Return the alert that `alert_to_plain` was given."""
    values = _known(Alert, plain)
    values["reasons"] = tuple(_reason(reason) for reason in values.get("reasons", ()))
    if values.get("tunnel") is not None:
        values["tunnel"] = Tunnel(**_known(Tunnel, values["tunnel"]))
    return Alert(**values)


def incident_to_plain(incident: Incident) -> dict[str, Any]:
    """Return an incident as plain values."""
    return _finite_items(dataclasses.asdict(incident))


def incident_from_plain(plain: Mapping[str, Any]) -> Incident:
    """Return the incident that `incident_to_plain` was given."""
    values = _known(Incident, plain)
    steps = (Step(**_known(Step, step)) for step in values.get("timeline", ()))
    return Incident(**{**values, "timeline": tuple(steps)})


def event_to_plain(event: Event, *, exact: bool = False) -> dict[str, Any]:
    """Return an event as plain values.

    Parameters
    ----------
    exact
        Whether a number stays what it is where it stands for none, or is not finite: for those
        who read it with `event_from_plain`. Else it becomes None, for everybody's JSON.
    """
    plain = dataclasses.asdict(event)
    flow = {} if event.flow is None else plain["flow"]
    plain |= {"kind": str(event.kind), "flow": flow if exact else known_values(flow)}
    return plain if exact else _finite_items(plain)


def event_from_plain(plain: Mapping[str, Any]) -> Event:
    """Return the event that `event_to_plain` was given."""
    values = _known(Event, plain)
    flow, incident = values.get("flow"), values.get("incident")
    return Event(
        **{
            **values,
            "kind": EventKind(values["kind"]),
            "alert": alert_from_plain(values["alert"]),
            "flow": facts_from_plain(flow) if flow else None,
            "incident": incident_from_plain(incident) if incident else None,
        }
    )


def _known(kind: Any, plain: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: plain[f.name] for f in dataclasses.fields(kind) if f.name in plain}


def _reason(plain: Mapping[str, Any]) -> Reason:
    values = _known(Reason, plain)
    # Only the value of a feature may be missing, as NaN.
    return Reason(**{**values, "value": math.nan if values["value"] is None else values["value"]})


def _finite_items(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _finite(value) for key, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return _finite_items(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
