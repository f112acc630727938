"""Incidents: the same evidence makes the same incidents, whatever was restarted in between."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from tests.examples import examples
from veilwatch.detection.alerting.events import alert_id, evidence_id
from veilwatch.detection.alerting.incidents import Change, ChangeKind, IncidentBook
from veilwatch.detection.alerting.open_incident import TIMELINE_HEAD, TIMELINE_TAIL
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.events import Incident

QUIET_NS = 600 * SECOND


def book(**changes: Any) -> IncidentBook:
    return IncidentBook("s1", **({"quiet_ns": QUIET_NS} | changes))


def add(to: IncidentBook, alert: Alert) -> list[Change]:
    return to.add(alert, make_row(), alert_id(alert, "s1"), evidence=evidence_id(alert, "s1"))


def kinds(changes: list[Change]) -> list[str]:
    return [str(change.kind) for change in changes]


def test_alerts_of_a_host_add_up() -> None:
    b = book()
    assert kinds(add(b, make_alert(0, severity=3, score=0.6))) == ["opened"]
    assert kinds(add(b, make_alert(10, severity=3, score=0.7))) == ["updated"]
    (rose,) = add(b, make_alert(20, severity=1, score=0.99, family="Conti"))
    assert rose.kind is ChangeKind.ROSE
    incident = rose.incident
    assert (incident.alerts, incident.severity, incident.score) == (3, 1, 0.99)
    assert (incident.family, incident.status) == ("Conti", "open")
    assert [step.score for step in incident.timeline] == [0.6, 0.7, 0.99]
    assert kinds(add(b, make_alert(30, severity=3, score=0.6))) == ["updated"]
    assert b.open_incidents()[0].severity == 1


def test_a_subscriber_with_two_addresses_has_one_incident() -> None:
    b = book()
    (one,) = add(b, make_alert(0, subscriber="abc"))
    (two,) = add(b, make_alert(1, subscriber="abc", host="fd00::1"))
    (other,) = add(b, make_alert(1, subscriber="xyz"))
    assert one.incident.incident_id == two.incident.incident_id != other.incident.incident_id


def tunnel(forth: int, back: int = 0) -> Tunnel:
    return Tunnel("192.0.2.2", "192.0.2.1", fwd_teid=forth, bwd_teid=back, qfi=None, depth=1)


def take(to: IncidentBook, alert: Alert) -> list[Change]:
    alert = to.owned(alert)
    return [*to.adopt(alert)[1], *add(to, alert)]


@pytest.mark.parametrize("way", [None, tunnel(1, 2)])
def test_a_subscriber_that_is_learned_later_takes_the_incident_over(way: Tunnel | None) -> None:
    b = book()
    (first,) = take(b, make_alert(0, tunnel=way, family="Conti"))
    (second,) = take(b, make_alert(9, tunnel=way, subscriber="abc", src_port=5, family="Ryuk"))
    assert first.incident.incident_id == second.incident.incident_id
    assert (second.incident.subscriber, second.incident.alerts, len(b)) == ("abc", 2, 1)
    again = book()
    again.restore(json.loads(json.dumps(b.state())))
    if way is None:
        return
    for each in (b, again):
        (third,) = take(each, make_alert(12, tunnel=tunnel(1, 77), src_port=6))  # a handover
        assert (third.incident.incident_id, len(each)) == (first.incident.incident_id, 1)
        assert third.incident.alerts == 3


@pytest.mark.parametrize(("one", "two"), [(None, None), (tunnel(1), tunnel(7))])
def test_two_subscribers_with_one_address_never_share_an_incident(
    one: Tunnel | None, two: Tunnel | None
) -> None:
    b = book()
    (a,) = take(b, make_alert(0, subscriber="abc", tunnel=one))
    (c,) = take(b, make_alert(1, subscriber="xyz", tunnel=two))
    (unknown,) = take(b, make_alert(2, tunnel=None if one is None else tunnel(9)))
    (a2,) = take(b, make_alert(3, subscriber="abc", tunnel=one, src_port=9))
    (c2,) = take(b, make_alert(4, subscriber="xyz", tunnel=two, src_port=9))
    ids = [change.incident.incident_id for change in (a, c, unknown, a2, c2)]
    assert len(set(ids)) == 3 and ids[:2] == ids[3:]


def test_an_incident_in_a_tunnel_is_not_of_whoever_has_the_address_elsewhere() -> None:
    b = book()
    (lan,) = take(b, make_alert(0))
    (mobile,) = take(b, make_alert(1, subscriber="abc", tunnel=tunnel(1)))
    assert lan.incident.incident_id != mobile.incident.incident_id
    assert lan.incident.subscriber == "" and len(b) == 2


def test_two_incidents_that_turn_out_to_be_of_one_subscriber_become_one() -> None:
    b = book()
    (mine,) = take(b, make_alert(0, subscriber="abc", tunnel=tunnel(1), severity=3))
    (other,) = take(b, make_alert(1, tunnel=tunnel(5), severity=1, score=0.99))
    closed, updated = take(b, make_alert(2, subscriber="abc", tunnel=tunnel(5), src_port=9))
    assert closed.incident.incident_id == other.incident.incident_id
    assert closed.reason == f"continued as {mine.incident.incident_id[:12]}"
    assert updated.incident.incident_id == mine.incident.incident_id
    assert (updated.incident.alerts, updated.incident.severity, len(b)) == (3, 1, 1)
    times = [step.at_ns for step in updated.incident.timeline]
    assert len(times) == 3


def test_quiet_closes_and_the_next_is_another() -> None:
    b = book()
    (first,) = add(b, make_alert(0))
    assert b.tick(START_NS + QUIET_NS - 1) == []
    (closed,) = b.tick(START_NS + QUIET_NS)
    assert (closed.incident.status, closed.reason, len(b)) == ("closed", "quiet", 0)
    (second,) = add(b, make_alert(601))
    assert first.incident.incident_id != second.incident.incident_id


def test_late_evidence_closes_what_no_tick_closed() -> None:
    b = book()
    add(b, make_alert(0))
    assert kinds(add(b, make_alert(601))) == ["closed", "opened"]


def test_the_timeline_is_bounded_and_says_what_is_missing() -> None:
    b = book()
    for n in range(200):
        changes = add(b, make_alert(n))
    timeline = changes[-1].incident.timeline
    assert len(timeline) == TIMELINE_HEAD + 1 + TIMELINE_TAIL
    left_out = 200 - TIMELINE_HEAD - TIMELINE_TAIL
    assert timeline[TIMELINE_HEAD].text == f"… {left_out} steps left out …"
    assert changes[-1].incident.alerts == 200
    assert [s.at_ns for s in timeline] == sorted(s.at_ns for s in timeline)


def test_replayed_evidence_counts_once_unless_it_grew() -> None:
    b = book()
    add(b, make_alert(0, severity=3))
    assert add(b, make_alert(0, severity=3)) == []
    (rose,) = add(b, make_alert(0, severity=1))
    assert (rose.kind, rose.incident.alerts, b.replayed) == (ChangeKind.ROSE, 1, 1)


def test_eviction_takes_the_lowest_severity_then_the_longest_quiet() -> None:
    b = book(max_open=3)
    add(b, make_alert(0, host="10.0.0.1", severity=1))
    add(b, make_alert(1, host="10.0.0.2", severity=3))
    add(b, make_alert(2, host="10.0.0.3", severity=3))
    add(b, make_alert(3, host="10.0.0.2", severity=3))
    gone = [add(b, make_alert(4 + n, host=f"10.0.1.{n}", severity=2))[0] for n in range(3)]
    assert [change.incident.host for change in gone] == ["10.0.0.3", "10.0.0.2", "10.0.1.0"]
    assert {change.reason for change in gone} == {"evicted"}
    assert (b.evicted, len(b)) == (3, 3)


def test_closed_on_request() -> None:
    b = book()
    (opened,) = add(b, make_alert(0))
    (closed,) = b.close(opened.incident.incident_id, "by ana")
    assert closed.reason == "by ana" and b.close(opened.incident.incident_id, "again") == []


def test_what_was_closed_before_its_time_shares_no_id_with_the_next() -> None:
    b = book(max_open=1)
    names = []
    for n in range(4):
        names += [c.incident.incident_id for c in add(b, make_alert(n, host=f"10.0.0.{n % 2}"))]
    opened = [names[0], names[2], names[4], names[6]]
    assert len(set(opened)) == 4
    b.close(opened[-1], "by ana")
    again = book(max_open=1)
    again.restore(json.loads(json.dumps(b.state())))
    for each in (b, again):
        (change,) = add(each, make_alert(9, host="10.0.0.1"))
        assert change.incident.incident_id not in opened
    assert change.incident.incident_id == b.open_incidents()[0].incident_id


@pytest.mark.parametrize(
    "state",
    [{}, {"format": 1}, {"format": 1, "open": [{}], "seen": []}, {"format": 99}],
)
def test_a_damaged_state_changes_nothing(state: dict[str, Any]) -> None:
    b = book()
    add(b, make_alert(0))
    with pytest.raises(VeilwatchError):
        b.restore(state)
    assert len(b) == 1


STREAM = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 4000)), min_size=1, max_size=60
).map(lambda items: sorted(items, key=lambda item: item[2]))


@examples(60)
@given(STREAM, st.integers(0, 60), st.integers(0, 60), st.integers(0, 10))
def test_ids_and_counts_are_the_same_after_crash_and_replay(
    stream: list[tuple[int, int, int]], saved_at: int, crashed_at: int, again: int
) -> None:
    """State is saved at one point, a crash comes later, and some that was saved comes again."""
    alerts = [
        make_alert(at_s, host=f"10.0.0.{host}", severity=severity, src_port=n)
        for n, (host, severity, at_s) in enumerate(stream)
    ]
    saved_at = min(saved_at, len(alerts))
    crashed_at = max(saved_at, min(crashed_at, len(alerts)))
    straight, before, after = book(), book(), book()
    expected = {c.incident.incident_id: c.incident for a in alerts for c in add(straight, a)}
    found: dict[str, Incident] = {}
    for n, alert in enumerate(alerts[:crashed_at]):
        if n == saved_at:
            after.restore(json.loads(json.dumps(before.state())))
        found |= {c.incident.incident_id: c.incident for c in add(before, alert)}
    if crashed_at == saved_at:
        after.restore(json.loads(json.dumps(before.state())))
    for alert in alerts[max(0, saved_at - again) :]:
        found |= {c.incident.incident_id: c.incident for c in add(after, alert)}
    assert found == expected
    assert after.open_incidents() == straight.open_incidents()
    # No two incidents of a host share an id, however close they follow each other.
    assert sum(i.alerts for i in expected.values()) == len(alerts)
