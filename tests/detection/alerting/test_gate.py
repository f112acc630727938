"""The gate: every alert has one disposition, and what is told is told once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from tests.examples import examples
from veilwatch.detection.alerting.allow import parse_allow
from veilwatch.detection.alerting.gate import AlertGate, Decision, Disposition, Forgotten, Policy
from veilwatch.detection.alerting.limits import Limits
from veilwatch.detection.alerting.maintenance import MaintenanceWindow
from veilwatch.detection.alerting.person import Person
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.convert import event_from_plain, event_to_plain
from veilwatch.schema.events import Event


def take(gate: AlertGate, alert: Alert, **row: Any) -> Decision:
    return gate.decide(alert, make_row(**row), now_ns=alert.last_ns, made_ns=1)


def told(decision: Decision) -> list[str]:
    return [str(event.kind) for event in decision.events]


def test_the_first_alert_is_told_with_its_incident_and_a_repeat_only_counted() -> None:
    gate = AlertGate("s1", Policy(), interface="eth1")
    first = take(gate, make_alert(0))
    assert told(first) == ["flow", "incident"]
    assert first.events[0].incident == first.events[1].incident == first.incidents[0]
    assert {event.interface for event in first.events} == {"eth1"}
    again = take(gate, make_alert(5, src_port=1))
    assert (again.disposition, again.events) == (Disposition.REPEAT, ())
    assert again.incidents[0].alerts == 2 and len(again.incidents[0].timeline) == 1


def test_allowed_and_maintained_alerts_reach_no_incident() -> None:
    allow = parse_allow('[[allow]]\nreason="backup"\nuntil=2030-01-01\nport=22')
    window = MaintenanceWindow("patches", START_NS, START_NS + SECOND)
    gate = AlertGate("s1", Policy(allow=allow, maintenance=(window,)))
    allowed = take(gate, make_alert(0, dst_port=22))
    assert (allowed.disposition, allowed.reason) == (Disposition.ALLOWED, "backup")
    kept = take(gate, make_alert(0))
    assert (kept.disposition, kept.reason) == (Disposition.MAINTENANCE, "patches")
    assert len(gate.book) == 0
    assert take(gate, make_alert(1)).disposition is Disposition.REPORTED


def test_a_flood_is_summed_up() -> None:
    limits = Limits(host_burst=2, host_per_hour=1, summary_s=60)
    gate = AlertGate("s1", Policy(limits=limits))
    rulings = [take(gate, make_alert(n, dst_port=n + 1, score=0.9)) for n in range(10)]
    assert [decision.disposition for decision in rulings] == [Disposition.REPORTED] * 2 + [
        Disposition.LIMITED
    ] * 8
    assert gate.tick(now_ns=START_NS + 30 * SECOND, made_ns=1).events == ()
    (summary,) = gate.tick(now_ns=START_NS + 62 * SECOND, made_ns=1).events
    assert summary.alert.evidence == {"held_back": 8.0, "hosts": 1.0}
    assert summary.alert.first_ns == START_NS + 2 * SECOND
    assert rulings[-1].incidents[0].alerts == 10
    # Steps of what is not told point at no event.
    steps = rulings[-1].incidents[0].timeline
    assert [bool(step.event_id) for step in steps] == [True] * 2 + [False] * 8


def test_an_incident_held_back_is_announced_with_its_first_alert_that_is_told() -> None:
    limits = Limits(burst=1, per_hour=3600, host_burst=9)
    gate = AlertGate("s1", Policy(limits=limits))
    assert told(take(gate, make_alert(0, host="10.0.0.1"))) == ["flow", "incident"]
    # The tokens of hosts that are new run out as well.
    assert told(take(gate, make_alert(0, host="10.0.0.2"))) == ["flow", "incident"]
    assert told(take(gate, make_alert(0, host="10.0.0.3"))) == []
    assert told(take(gate, make_alert(5, host="10.0.0.3"))) == ["flow", "incident"]


def test_hosts_that_alert_all_the_time_do_not_keep_a_new_one_silent() -> None:
    gate = AlertGate("s1", Policy(limits=Limits(burst=3, per_hour=0.001, host_burst=9)))
    for n in range(5):
        take(gate, make_alert(n, dst_port=n + 1))
    assert gate.dispositions[Disposition.LIMITED] == 2
    assert told(take(gate, make_alert(6, host="10.0.0.9"))) == ["flow", "incident"]
    # It has been told of: from now on it shares the tokens of all.
    assert take(gate, make_alert(7, host="10.0.0.9", dst_port=9)).disposition is Disposition.LIMITED
    again = AlertGate("s1", Policy(limits=Limits(burst=3, per_hour=0.001, host_burst=9)))
    again.restore(json.loads(json.dumps(gate.state())))
    left = [take(again, make_alert(8, host=f"10.0.1.{n}")).disposition for n in range(3)]
    assert left == [Disposition.REPORTED, Disposition.REPORTED, Disposition.LIMITED]


def test_a_rise_and_the_end_are_told_and_a_silent_incident_ends_silently() -> None:
    limits = Limits(burst=2, per_hour=0.001, host_burst=9)
    gate = AlertGate("s1", Policy(limits=limits, quiet_close_s=100))
    opened = take(gate, make_alert(0, severity=3))
    rose = take(gate, make_alert(1, severity=1))
    assert told(rose) == ["flow", "incident"]
    for host in ("10.0.0.7", "10.0.0.8", "10.0.0.9"):
        silent = take(gate, make_alert(2, host=host))
    assert silent.disposition is Disposition.LIMITED
    closed = gate.tick(now_ns=START_NS + 200 * SECOND, made_ns=1)
    assert told(closed) == ["incident"] * 3 and len(closed.incidents) == 4
    ids = {decision.events[-1].event_id for decision in (opened, rose, closed)}
    assert len(ids) == 3


def test_an_early_score_and_the_last_one_are_one_event() -> None:
    gate = AlertGate("s1", Policy(dedup_s=0))
    early = take(gate, make_alert(0, first_ns=START_NS, last_ns=START_NS + 1))
    final = take(gate, make_alert(0, first_ns=START_NS, last_ns=START_NS + 50, score=0.95))
    assert early.events[0].event_id == final.events[0].event_id
    assert final.incidents == ()


TUNNEL = Tunnel("192.0.2.2", "192.0.2.1", 1, 2, None, 1)


def test_evidence_is_told_once_whether_its_subscriber_is_known_or_not() -> None:
    gate = AlertGate("s1", Policy())
    early = make_alert(0, first_ns=START_NS, tunnel=TUNNEL)
    late = make_alert(5, first_ns=START_NS, tunnel=TUNNEL, subscriber="s-1")
    assert told(take(gate, early)) == ["flow", "incident"]
    known = take(gate, late)
    assert (known.disposition, known.events) == (Disposition.REPEAT, ())
    assert gate.book.open_incidents()[0].subscriber == "s-1"
    again = AlertGate("s1", Policy())
    again.restore(json.loads(json.dumps(gate.state())))
    for each in (gate, again):
        # All of it comes again after a restart that lost nothing.
        for alert in (early, late):
            assert take(each, alert).events == ()
        (incident,) = each.book.open_incidents()
        assert (incident.alerts, incident.subscriber) == (1, "s-1")
        # What comes without subscriber in the same tunnel is the subscriber's.
        more = make_alert(9, tunnel=TUNNEL, dst_port=8443)
        (event, *_) = take(each, more).events
        assert event.alert.subscriber == "s-1" and len(each.book) == 1


def test_a_rise_of_the_same_flow_has_an_id_of_its_own() -> None:
    # Store and spool keep the first event of an id: under the same one the rise would be lost.
    gate = AlertGate("s1", Policy())
    early = take(gate, make_alert(0, first_ns=START_NS, last_ns=START_NS + 1, severity=3))
    final = take(gate, make_alert(0, first_ns=START_NS, last_ns=START_NS + 50, severity=1))
    assert early.disposition is final.disposition is Disposition.REPORTED
    assert early.events[0].event_id != final.events[0].event_id


def test_another_policy_keeps_what_is_known() -> None:
    gate = AlertGate("s1", Policy(limits=Limits(host_burst=1, host_per_hour=1)))
    take(gate, make_alert(0))
    take(gate, make_alert(0, dst_port=1))
    gate.replace_policy(Policy())
    assert take(gate, make_alert(1, src_port=9)).disposition is Disposition.REPEAT
    (summary,) = gate.tick(now_ns=START_NS, made_ns=1, final=True).events
    assert summary.alert.evidence["held_back"] == 1
    assert gate.book.open_incidents()[0].alerts == 3


@pytest.mark.parametrize(
    "state", [{}, {"format": 1}, {"format": 1, "told": [[1]], "limits": {}, "book": {}}]
)
def test_a_damaged_state_is_refused_whole(state: dict[str, Any]) -> None:
    gate = AlertGate("s1", Policy())
    take(gate, make_alert(0))
    with pytest.raises(VeilwatchError):
        gate.restore(state)
    assert (
        take(gate, make_alert(1, src_port=2)).disposition is Disposition.REPEAT
        and len(gate.book) == 1
    )


@examples(50)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 20_000)), max_size=50
    ).map(lambda items: sorted(items, key=lambda item: item[2])),
    st.integers(0, 50),
)
def test_a_restart_makes_the_same_events_and_fates_add_up(
    stream: list[tuple[int, int, int]], cut: int
) -> None:
    def run(cut: int | None) -> tuple[list[Event], AlertGate]:
        limits = Limits(burst=20, host_burst=8, host_per_hour=30, summary_s=400)
        policy = Policy(limits=limits, dedup_s=60, quiet_close_s=600)
        gate = AlertGate("s1", policy)
        out: list[Event] = []
        for n, (port, severity, at_s) in enumerate(stream):
            if n == cut:
                saved = json.loads(json.dumps(gate.state()))
                gate = AlertGate("s1", policy)
                gate.restore(saved)
            alert = make_alert(at_s, dst_port=port, severity=severity, src_port=n)
            out += gate.tick(now_ns=alert.last_ns, made_ns=1).events
            out += take(gate, alert).events
        return out, gate

    straight, gate = run(None)
    assert sum(gate.dispositions.values()) == len(stream)
    assert run(cut)[0] == straight
    assert len({event.event_id for event in straight}) == len(straight)
    assert [event_from_plain(json.loads(json.dumps(event_to_plain(e)))) for e in straight] == (
        straight
    )


# ── one person is forgotten ───────────────────────────────────────────────────────────────────

SUBSCRIBERS = ("s-" + "1" * 16, "s-" + "2" * 16)


def of_each(gate: AlertGate) -> dict[str, Any]:
    """Return the state by the hosts that it is of: without what is of all together.

    These are the tokens of all, and ids of evidence: hashes that name nobody.
    """
    state = json.loads(json.dumps(gate.state()))
    del state["limits"]["all"], state["limits"]["new"]
    assert all(len(name) == 32 for name, _ in state["book"].pop("seen"))
    return dict(state)


def restarted(gate: AlertGate) -> AlertGate:
    after = AlertGate("s1", Policy())
    after.restore(json.loads(json.dumps(gate.state())))
    return after


@examples(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["10.0.0.1", "10.0.0.10", "110.0.0.1", "10.0.0.11"]),
            st.integers(1, 3),
            st.integers(1, 9),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_a_desk_that_forgot_a_host_is_as_if_it_had_never_seen_it(
    stream: list[tuple[str, int, int, bool]],
) -> None:
    """Host limits are tight, so that there are summaries; those of all are not shared."""
    limits = Limits(host_burst=2, host_per_hour=0.001, per_hour=10**6, burst=10**6)
    whole, without = AlertGate("s1", Policy(limits=limits)), AlertGate("s1", Policy(limits=limits))
    theirs = 0
    for n, (host, severity, port, of_host) in enumerate(stream):
        kind = "host" if of_host else "flow"
        alert = make_alert(n, host=host, severity=severity, dst_port=port, kind=kind)
        take(whole, alert)
        if host == "10.0.0.1":
            theirs += 1
        else:
            take(without, alert)
    gate = restarted(whole)
    forgotten = gate.forget_person(Person(host="10.0.0.1"))
    assert of_each(gate) == of_each(without)
    assert (forgotten == Forgotten()) == (theirs == 0)
    assert '"10.0.0.1"' not in json.dumps(gate.state())
    assert gate.forget_person(Person(host="10.0.0.1")) == Forgotten()


def test_a_subscriber_is_forgotten_and_nobody_else() -> None:
    policy = Policy(limits=Limits(host_burst=1, host_per_hour=0.001))
    whole, without = AlertGate("s1", policy), AlertGate("s1", policy)
    for n, subscriber in enumerate((*SUBSCRIBERS, "", *SUBSCRIBERS, "")):
        alert = make_alert(n, subscriber=subscriber, dst_port=n, host="10.0.0.1")
        take(whole, alert)
        if subscriber != SUBSCRIBERS[0]:
            take(without, alert)
    forgotten = whole.forget_person(Person(subscriber=SUBSCRIBERS[0]))
    assert (len(forgotten.incidents), forgotten.repeats, forgotten.limits) == (1, 1, 2)
    assert of_each(whole) == of_each(without)
    assert SUBSCRIBERS[0] not in json.dumps(whole.state())


def test_an_incident_of_a_subscriber_goes_with_any_address_that_it_names() -> None:
    gate = AlertGate("s1", Policy())
    take(gate, make_alert(0, host="10.0.0.1", subscriber=SUBSCRIBERS[0], severity=3))
    take(gate, make_alert(1, host="10.0.0.2", subscriber=SUBSCRIBERS[0], severity=1))
    for address in ("10.0.0.1", "10.0.0.2"):
        after = restarted(gate)
        (incident,) = after.book.open_incidents()
        assert after.forget_person(Person(host=address)).incidents == (incident.incident_id,)
        assert f'"{address}"' not in json.dumps(after.state())


def test_a_summary_of_all_loses_the_host_or_goes_with_its_strongest_alert() -> None:
    gate = AlertGate("s1", Policy(limits=Limits(burst=1, per_hour=0.001, host_burst=9)))
    for n, host in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")):
        take(gate, make_alert(n, host=host, score=0.9 - n / 100))
    assert gate.dispositions[Disposition.LIMITED] == 2  # of 3 and 4, that of 3 is stronger
    weaker, stronger = restarted(gate), restarted(gate)
    assert weaker.forget_person(Person(host="10.0.0.4")).limits == 1  # its tokens
    (held,) = weaker.state()["limits"]["held"]
    assert (held["hosts"], held["count"]) == (["10.0.0.3"], 2)
    assert stronger.forget_person(Person(host="10.0.0.3")).limits == 2
    assert stronger.state()["limits"]["held"] == []
    # What was held back of others is in their incidents.
    assert {i.host: i.alerts for i in stronger.book.open_incidents()}["10.0.0.4"] == 1


def test_what_another_host_s_evidence_names_stays() -> None:
    gate = AlertGate("s1", Policy())
    take(gate, make_alert(0, host="10.0.0.2", dst_ip="10.0.0.1"))
    before = gate.state()
    assert gate.forget_person(Person(host="10.0.0.1")) == Forgotten()
    assert gate.state() == before
