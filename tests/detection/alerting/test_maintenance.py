"""When a maintenance window holds."""

from __future__ import annotations

import ipaddress

import pytest

from tests.detection.alerting.samples import SECOND, START_NS, make_alert
from veilwatch.detection.alerting.maintenance import MaintenanceWindow


@pytest.mark.parametrize(
    ("minutes", "days", "at_min", "expected"),
    [
        (None, (), 0, True),
        (None, (0,), 0, True),
        (None, (1,), 0, False),
        ((500, 600), (), 0, True),  # START_NS is 08:40, minute 520
        ((500, 520), (), 0, False),
        ((520, 521), (), 0, True),
        ((1320, 120), (), 0, False),
        ((1320, 120), (), 15 * 60, True),  # 23:40 Monday
        ((1320, 120), (0,), 17 * 60, True),  # 01:40 Tuesday belongs to Monday's night
        ((1320, 120), (1,), 17 * 60, False),
        ((1320, 120), (1,), 39 * 60, True),  # 23:40 Tuesday
    ],
)
def test_hours_of_a_maintenance_window(
    minutes: tuple[int, int] | None, days: tuple[int, ...], at_min: int, expected: bool
) -> None:
    window = MaintenanceWindow(
        "patches", 0, 2 * START_NS, minutes=minutes, weekdays=frozenset(days)
    )
    assert window.covers(make_alert(), START_NS + at_min * 60 * SECOND) is expected


def test_a_maintenance_window_begins_ends_and_has_its_hosts() -> None:
    network = ipaddress.ip_network("10.0.0.0/24")
    window = MaintenanceWindow("patches", 100, 200, networks=(network,))
    assert [window.covers(make_alert(), now) for now in (99, 100, 199, 200)] == [0, 1, 1, 0]
    assert not window.covers(make_alert(host="10.0.1.1"), 150)
    assert not window.covers(make_alert(host="?"), 150)
