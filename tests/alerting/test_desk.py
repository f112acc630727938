"""The desk: every alert has one fate, and what is told is told once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.alerting.allow import parse_allow
from veilwatch.alerting.desk import Desk, Fate, Policy, Ruling
from veilwatch.alerting.suppress import Limits, MaintenanceWindow
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert
from veilwatch.schema.convert import event_from_plain, event_to_plain
from veilwatch.schema.events import Event


def take(desk: Desk, alert: Alert, **row: Any) -> Ruling:
    return desk.take(alert, make_row(**row), now_ns=alert.last_ns, made_ns=1)


def told(ruling: Ruling) -> list[str]:
    return [str(event.kind) for event in ruling.events]


def test_the_first_alert_is_told_with_its_incident_and_a_repeat_only_counted() -> None:
    desk = Desk("s1", Policy(), interface="eth1")
    first = take(desk, make_alert(0))
    assert told(first) == ["flow", "incident"]
    assert first.events[0].incident == first.events[1].incident == first.incidents[0]
    assert {event.interface for event in first.events} == {"eth1"}
    again = take(desk, make_alert(5, src_port=1))
    assert (again.fate, again.events) == (Fate.REPEAT, ())
    assert again.incidents[0].alerts == 2 and len(again.incidents[0].timeline) == 1


def test_allowed_and_maintained_alerts_reach_no_incident() -> None:
    allow = parse_allow('[[allow]]\nreason="backup"\nuntil=2030-01-01\nport=22')
    window = MaintenanceWindow("patches", START_NS, START_NS + SECOND)
    desk = Desk("s1", Policy(allow=allow, maintenance=(window,)))
    allowed = take(desk, make_alert(0, dst_port=22))
    assert (allowed.fate, allowed.reason) == (Fate.ALLOWED, "backup")
    kept = take(desk, make_alert(0))
    assert (kept.fate, kept.reason) == (Fate.MAINTENANCE, "patches")
    assert len(desk.book) == 0
    assert take(desk, make_alert(1)).fate is Fate.TOLD


def test_a_flood_is_summed_up() -> None:
    limits = Limits(host_burst=2, host_per_hour=1, summary_s=60)
    desk = Desk("s1", Policy(limits=limits))
    rulings = [take(desk, make_alert(n, dst_port=n + 1, score=0.9)) for n in range(10)]
    assert [ruling.fate for ruling in rulings] == [Fate.TOLD] * 2 + [Fate.LIMITED] * 8
    assert desk.tick(now_ns=START_NS + 30 * SECOND, made_ns=1).events == ()
    (summary,) = desk.tick(now_ns=START_NS + 62 * SECOND, made_ns=1).events
    assert summary.alert.evidence == {"held_back": 8.0, "hosts": 1.0}
    assert summary.alert.first_ns == START_NS + 2 * SECOND
    assert rulings[-1].incidents[0].alerts == 10
    # Steps of what is not told point at no event.
    steps = rulings[-1].incidents[0].timeline
    assert [bool(step.event_id) for step in steps] == [True] * 2 + [False] * 8


def test_an_incident_held_back_is_announced_with_its_first_alert_that_is_told() -> None:
    limits = Limits(burst=1, per_hour=3600, host_burst=9)
    desk = Desk("s1", Policy(limits=limits))
    assert told(take(desk, make_alert(0, host="10.0.0.1"))) == ["flow", "incident"]
    # The tokens of hosts that are new run out as well.
    assert told(take(desk, make_alert(0, host="10.0.0.2"))) == ["flow", "incident"]
    assert told(take(desk, make_alert(0, host="10.0.0.3"))) == []
    assert told(take(desk, make_alert(5, host="10.0.0.3"))) == ["flow", "incident"]


def test_hosts_that_alert_all_the_time_do_not_keep_a_new_one_silent() -> None:
    desk = Desk("s1", Policy(limits=Limits(burst=3, per_hour=0.001, host_burst=9)))
    for n in range(5):
        take(desk, make_alert(n, dst_port=n + 1))
    assert desk.fates[Fate.LIMITED] == 2
    assert told(take(desk, make_alert(6, host="10.0.0.9"))) == ["flow", "incident"]
    # It has been told of: from now on it shares the tokens of all.
    assert take(desk, make_alert(7, host="10.0.0.9", dst_port=9)).fate is Fate.LIMITED
    again = Desk("s1", Policy(limits=Limits(burst=3, per_hour=0.001, host_burst=9)))
    again.restore(json.loads(json.dumps(desk.state())))
    left = [take(again, make_alert(8, host=f"10.0.1.{n}")).fate for n in range(3)]
    assert left == [Fate.TOLD, Fate.TOLD, Fate.LIMITED]


def test_a_rise_and_the_end_are_told_and_a_silent_incident_ends_silently() -> None:
    limits = Limits(burst=2, per_hour=0.001, host_burst=9)
    desk = Desk("s1", Policy(limits=limits, quiet_close_s=100))
    opened = take(desk, make_alert(0, severity=3))
    rose = take(desk, make_alert(1, severity=1))
    assert told(rose) == ["flow", "incident"]
    for host in ("10.0.0.7", "10.0.0.8", "10.0.0.9"):
        silent = take(desk, make_alert(2, host=host))
    assert silent.fate is Fate.LIMITED
    closed = desk.tick(now_ns=START_NS + 200 * SECOND, made_ns=1)
    assert told(closed) == ["incident"] * 3 and len(closed.incidents) == 4
    ids = {ruling.events[-1].event_id for ruling in (opened, rose, closed)}
    assert len(ids) == 3


def test_an_early_score_and_the_last_one_are_one_event() -> None:
    desk = Desk("s1", Policy(dedup_s=0))
    early = take(desk, make_alert(0, first_ns=START_NS, last_ns=START_NS + 1))
    final = take(desk, make_alert(0, first_ns=START_NS, last_ns=START_NS + 50, score=0.95))
    assert early.events[0].event_id == final.events[0].event_id
    assert final.incidents == ()


def test_a_rise_of_the_same_flow_has_an_id_of_its_own() -> None:
    # Store and spool keep the first event of an id: under the same one the rise would be lost.
    desk = Desk("s1", Policy())
    early = take(desk, make_alert(0, first_ns=START_NS, last_ns=START_NS + 1, severity=3))
    final = take(desk, make_alert(0, first_ns=START_NS, last_ns=START_NS + 50, severity=1))
    assert early.fate is final.fate is Fate.TOLD
    assert early.events[0].event_id != final.events[0].event_id


def test_another_policy_keeps_what_is_known() -> None:
    desk = Desk("s1", Policy(limits=Limits(host_burst=1, host_per_hour=1)))
    take(desk, make_alert(0))
    take(desk, make_alert(0, dst_port=1))
    desk.replace_policy(Policy())
    assert take(desk, make_alert(1, src_port=9)).fate is Fate.REPEAT
    (summary,) = desk.tick(now_ns=START_NS, made_ns=1, final=True).events
    assert summary.alert.evidence["held_back"] == 1
    assert desk.book.open_incidents()[0].alerts == 3


@pytest.mark.parametrize(
    "state", [{}, {"format": 1}, {"format": 1, "told": [[1]], "limits": {}, "book": {}}]
)
def test_a_damaged_state_is_refused_whole(state: dict[str, Any]) -> None:
    desk = Desk("s1", Policy())
    take(desk, make_alert(0))
    with pytest.raises(VeilwatchError):
        desk.restore(state)
    assert take(desk, make_alert(1, src_port=2)).fate is Fate.REPEAT and len(desk.book) == 1


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 20_000)), max_size=50
    ).map(lambda items: sorted(items, key=lambda item: item[2])),
    st.integers(0, 50),
)
def test_a_restart_makes_the_same_events_and_fates_add_up(
    stream: list[tuple[int, int, int]], cut: int
) -> None:
    def run(cut: int | None) -> tuple[list[Event], Desk]:
        limits = Limits(burst=20, host_burst=8, host_per_hour=30, summary_s=400)
        policy = Policy(limits=limits, dedup_s=60, quiet_close_s=600)
        desk, out = Desk("s1", policy), []
        for n, (port, severity, at_s) in enumerate(stream):
            if n == cut:
                saved = json.loads(json.dumps(desk.state()))
                desk = Desk("s1", policy)
                desk.restore(saved)
            alert = make_alert(at_s, dst_port=port, severity=severity, src_port=n)
            out += desk.tick(now_ns=alert.last_ns, made_ns=1).events
            out += take(desk, alert).events
        return out, desk

    straight, desk = run(None)
    assert sum(desk.fates.values()) == len(stream)
    assert run(cut)[0] == straight
    assert len({event.event_id for event in straight}) == len(straight)
    assert [event_from_plain(json.loads(json.dumps(event_to_plain(e)))) for e in straight] == (
        straight
    )
