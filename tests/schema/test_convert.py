"""One serialisation of an event: exact for ourselves, with null for none for everybody else."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from tests.detection.alerting.samples import make_alert, make_row
from veilwatch.schema.convert import event_from_plain, event_to_plain
from veilwatch.schema.events import Event, EventKind, Incident, Step
from veilwatch.schema.flow_facts import FlowFacts
from veilwatch.schema.scores import Reason

INCIDENT = Incident("i", "10.0.0.5", "", "open", 1, 2, 2, 0.5, timeline=(Step(1, "seen"),))
REASONS = (Reason("size", math.nan, 1.5, "does not apply"),)
EVENT = Event("e", EventKind.HOST, 9, make_alert(reasons=REASONS), make_row(), INCIDENT, "s1")


@pytest.mark.parametrize("flow", [make_row(), make_row(fwd_qfi=7), None])
@pytest.mark.parametrize("incident", [INCIDENT, None])
@pytest.mark.parametrize("exact", [True, False])
def test_events_come_back(
    flow: FlowFacts | None, incident: Incident | None, *, exact: bool
) -> None:
    event = replace(EVENT, flow=flow, incident=incident)
    back = event_from_plain(json.loads(json.dumps(event_to_plain(event, exact=exact))))
    assert math.isnan(back.alert.reasons[0].value)
    assert replace(back, alert=replace(back.alert, reasons=())) == replace(
        event, alert=replace(event.alert, reasons=())
    )


def test_null_stands_for_none_where_others_read_it() -> None:
    plain, exact = event_to_plain(EVENT), event_to_plain(EVENT, exact=True)
    json.dumps(plain, allow_nan=False)
    assert plain["flow"]["fwd_qfi"] is None and exact["flow"]["fwd_qfi"] == 255
    assert plain["alert"]["reasons"][0]["value"] is None
    assert list(plain) == list(exact)


def test_what_a_later_version_adds_is_left_aside() -> None:
    plain = event_to_plain(EVENT)
    later = plain | {"new": 1, "flow": plain["flow"] | {"new": 1}}
    assert event_from_plain(later).flow == EVENT.flow
