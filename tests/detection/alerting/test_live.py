"""Alerts of live scores, each with the flow that it points at."""

from __future__ import annotations

import polars as pl
import pytest

from tests.detection.alerting.frames import live_scores, scored_flows, scored_hosts
from veilwatch.detection.alerting import live
from veilwatch.detection.alerting.live import LiveAlerts, Raised
from veilwatch.schema.scores import Claim, ScoreFrame

A, B = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def alerts() -> LiveAlerts:
    return LiveAlerts(["eth1"], emulated=False)


def raised(alerts: LiveAlerts, scores: ScoreFrame) -> list[Raised]:
    return alerts.raise_alerts(scores)


def test_an_alert_comes_with_the_row_of_its_flow(alerts: LiveAlerts) -> None:
    flows = scored_flows((1, A, 0.9), (2, A, 0.4), (3, B, 0.1))
    found = raised(alerts, live_scores(flows, scored_hosts((A, "", 0.8), (B, "", 0.2))))
    assert [(alert.kind, alert.flow_id) for alert, _ in found] == [("host", 1), ("flow", 1)]
    assert all(row.flow_id == 1 and row.src_port == 40_001 for _, row in found)
    assert {alert.capture for alert, _ in found} == {"eth1"}


def test_nothing_alerted_is_no_alert(alerts: LiveAlerts) -> None:
    flows = scored_flows((1, A, 0.4))
    assert raised(alerts, live_scores(flows, scored_hosts((A, "", 0.2)))) == []
    assert raised(alerts, live_scores()) == []
    assert alerts.without_flow == 0


def test_a_host_whose_window_is_judged_later_points_at_its_highest_flow(
    alerts: LiveAlerts,
) -> None:
    raised(alerts, live_scores(scored_flows((1, A, 0.3), (2, A, 0.45), (3, B, 0.2))))
    raised(alerts, live_scores(scored_flows((4, A, 0.1))))
    (only,) = raised(alerts, live_scores(hosts=scored_hosts((A, "", 0.8))))
    assert (only.alert.kind, only.alert.flow_id, only.flow.flow_id) == ("host", 2, 2)


def test_a_host_without_any_flow_waits_for_its_next_one(alerts: LiveAlerts) -> None:
    alerted = scored_hosts((A, "", 0.8))
    assert raised(alerts, live_scores(hosts=alerted)) == []
    raised(alerts, live_scores(scored_flows((1, B, 0.1))))
    assert raised(alerts, live_scores(hosts=alerted)) == []
    assert alerts.without_flow == 2
    (only,) = raised(alerts, live_scores(scored_flows((2, A, 0.2)), alerted))
    assert only.alert.flow_id == 2 and alerts.without_flow == 2


def test_what_was_remembered_of_a_host_is_its_subscribers_once_it_is_claimed(
    alerts: LiveAlerts,
) -> None:
    raised(alerts, live_scores(scored_flows((1, A, 0.4))))
    named = scored_hosts((A, "s-1", 0.8))
    assert raised(alerts, live_scores(hosts=named)) == []
    found = raised(alerts, live_scores(hosts=named, claims=(Claim(A, "s-1"),)))
    assert [(one.alert.flow_id, one.flow.subscriber) for one in found] == [(1, "s-1")]


def test_the_host_whose_flow_ended_longest_ago_is_forgotten_first(
    alerts: LiveAlerts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_POINTED", 2)
    for flow in range(1, 7):
        raised(alerts, live_scores(scored_flows((flow, f"10.0.1.{flow}", 0.1))))
    hosts = scored_hosts(*((f"10.0.1.{flow}", "", 0.8) for flow in range(1, 7)))
    kept = {one.alert.host for one in raised(alerts, live_scores(hosts=hosts))}
    assert "10.0.1.6" in kept and "10.0.1.1" not in kept
    assert len(kept) + alerts.without_flow == 6 and len(kept) <= 4


def test_emulated_traffic_is_called_so_and_ransomware_by_its_family() -> None:
    alerts = LiveAlerts(["lab"], emulated=True)
    flows = scored_flows((1, A, 0.9))
    hosts = scored_hosts((A, "", 0.8)).with_columns(family=pl.lit("locker"))
    found = alerts.raise_alerts(live_scores(flows, hosts), ransomware=["locker"])
    assert all(alert.emulated and alert.ransomware for alert, _ in found)
