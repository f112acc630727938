"""Ids hang on the evidence alone; rows become plain values."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import make_alert, make_row
from veilwatch.detection.alerting.events import (
    alert_event,
    alert_id,
    identity,
)
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.convert import alert_from_plain, alert_to_plain
from veilwatch.schema.events import EventKind
from veilwatch.schema.scores import Reason


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"score": 0.99, "flow_id": 99, "family": "x", "threshold": 0.1}, True),
        ({"severity": 1}, False),
        ({"last_ns": 99}, True),
        ({"first_ns": 99}, False),
        ({"src_port": 1}, False),
        ({"dst_ip": "203.0.113.10"}, False),
        ({"protocol": 17}, False),
        ({"subscriber": "abc"}, False),
        ({"kind": "host"}, False),
    ],
)
def test_what_an_id_hangs_on(changes: dict[str, Any], same: bool) -> None:
    assert (alert_id(make_alert(), "s1") == alert_id(make_alert(**changes), "s1")) is same


def test_a_host_keeps_its_id_while_its_strongest_flow_changes() -> None:
    one = make_alert(kind="host", dst_ip="203.0.113.1", src_port=1)
    two = make_alert(kind="host", dst_ip="203.0.113.2", src_port=2)
    assert alert_id(one, "s1") == alert_id(two, "s1") != alert_id(one, "s2")


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_parts_do_not_run_together(one: list[str], two: list[str]) -> None:
    assert (identity(*one) == identity(*two)) is (one == two)
    assert len(identity(*one)) == 32


def test_an_event_says_who_and_where() -> None:
    event = alert_event(make_alert(), make_row(), sensor="s1", made_ns=5, interface="eth1")
    assert (event.kind, event.sensor, event.interface) == (EventKind.FLOW, "s1", "eth1")


def test_alerts_survive_as_plain_values_and_unknown_fields_are_left_aside() -> None:
    alert = make_alert(
        reasons=(Reason("a", math.nan, 1.5, "text"), Reason("b", 2.0, 0.5, "\ud800\x00")),
        tunnel=Tunnel("192.0.2.1", "192.0.2.2", 1, 2**32 - 1, None, 1),
        evidence={"flows": 3.0},
    )
    plain = json.loads(json.dumps(alert_to_plain(alert)))
    back: Alert = alert_from_plain(plain | {"of_a_later_version": 1})
    assert math.isnan(back.reasons[0].value)
    assert back.reasons[1:] == alert.reasons[1:] and back.tunnel == alert.tunnel
