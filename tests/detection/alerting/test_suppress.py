"""What is held back is counted, whatever order and times alerts come in."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, START_NS, make_alert, make_row
from veilwatch.detection.alerting.suppress import (
    MAX_SUMMARIES,
    Deduplicator,
    Limits,
    MaintenanceWindow,
    RateLimiter,
    TokenBucket,
)

ALERTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(-50, 5000)), max_size=80
)


def test_a_repeat_is_held_back_until_the_window_is_over() -> None:
    repeats = Deduplicator(60 * SECOND)
    told = [repeats.admit(make_alert(), s * SECOND) for s in (0, 1, 59, 60, 61)]
    assert told == [True, False, False, True, False]
    assert repeats.held == 3


def test_another_port_of_the_client_is_a_repeat_and_another_service_is_not() -> None:
    repeats = Deduplicator(60 * SECOND)
    assert repeats.admit(make_alert(), 0)
    assert not repeats.admit(make_alert(src_port=1), 0)
    assert repeats.admit(make_alert(dst_port=444), 0)
    assert repeats.admit(make_alert(kind="host"), 0)
    assert not repeats.admit(make_alert(kind="host", dst_port=444), 0)


def test_more_severe_is_news() -> None:
    repeats = Deduplicator(60 * SECOND)
    assert [repeats.admit(make_alert(severity=n), 0) for n in (2, 3, 1, 2)] == [1, 0, 1, 0]


def test_a_step_back_of_the_clock_does_not_hold_back_for_ever() -> None:
    repeats = Deduplicator(60 * SECOND)
    assert repeats.admit(make_alert(), 10_000 * SECOND)
    assert not repeats.admit(make_alert(), 9_990 * SECOND)
    assert repeats.admit(make_alert(), 0)


def test_memory_is_bounded() -> None:
    repeats = Deduplicator(60 * SECOND, max_keys=3)
    for port in range(10):
        assert repeats.admit(make_alert(dst_port=port), 0)
    assert len(repeats.state()) == 3
    assert repeats.admit(make_alert(dst_port=0), 0)


@given(ALERTS)
def test_state_goes_on_where_it_was_saved(alerts: list[tuple[int, int, int]]) -> None:
    whole, first, second = (Deduplicator(60 * SECOND) for _ in range(3))
    half = len(alerts) // 2
    for n, (port, severity, at_s) in enumerate(alerts):
        if n == half:
            second.restore(json.loads(json.dumps(first.state())))
        alert = make_alert(dst_port=port, severity=severity)
        part = first if n < half else second
        assert whole.admit(alert, at_s * SECOND) == part.admit(alert, at_s * SECOND)


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


def test_a_bucket_fills_with_time_and_no_further() -> None:
    bucket = TokenBucket(per_hour=60, burst=2)
    taken = [bucket.take(minute * 60 * SECOND) for minute in (0, 0, 0, 1, 1, 100, 100, 100)]
    assert taken == [True, True, False, True, False, True, True, False]


def test_a_bucket_neither_fills_nor_stays_empty_when_the_clock_steps_back() -> None:
    bucket = TokenBucket(per_hour=60, burst=1)
    assert bucket.take(10**6 * SECOND)
    assert not bucket.take(0)
    assert bucket.take(60 * SECOND)


@given(ALERTS)
def test_no_alert_is_lost_from_the_counts(alerts: list[tuple[int, int, int]]) -> None:
    limiter = RateLimiter(
        Limits(host_per_hour=60, host_burst=2, per_hour=120, burst=5, summary_s=30)
    )
    passed, summed = 0, 0
    for host, severity, at_s in alerts:
        alert = make_alert(host=f"10.0.0.{host}", severity=severity)
        passed += limiter.admit(alert, make_row(), at_s * SECOND)
        summed += sum(held.count for held in limiter.due(at_s * SECOND))
    saved = json.loads(json.dumps(limiter.state()))
    after = RateLimiter(Limits())
    after.restore(saved)
    summed += sum(held.count for held in after.due(0, all_of_them=True))
    assert passed + summed == len(alerts)
    assert limiter.held == summed


def test_a_summary_names_the_strongest_and_waits_its_time() -> None:
    limiter = RateLimiter(Limits(host_burst=1, host_per_hour=1, summary_s=60))
    for n, score in enumerate((0.5, 0.7, 0.99, 0.6)):
        limiter.admit(make_alert(score=score), make_row(flow_id=n), n * SECOND)
    assert limiter.due(60 * SECOND) == []
    (held,) = limiter.due(61 * SECOND)
    assert (held.host, held.count, held.strongest.score) == ("10.0.0.5", 3, 0.99)
    assert (held.flow.flow_id, held.since_ns, held.until_ns) == (2, SECOND, 3 * SECOND)
    assert limiter.due(10**6 * SECOND) == []


def test_a_scan_of_many_hosts_makes_few_summaries() -> None:
    limiter = RateLimiter(Limits(host_burst=1, host_per_hour=1, burst=10_000))
    for n in range(2000):
        for _ in range(2):
            limiter.admit(make_alert(host=f"10.0.{n >> 8}.{n & 255}"), make_row(), 0)
    held = limiter.due(0, all_of_them=True)
    assert len(held) == MAX_SUMMARIES + 1
    assert sum(item.count for item in held) == 2000
    assert max(len(item.hosts) for item in held) == 2000 - MAX_SUMMARIES


def test_the_limit_of_all_gives_the_host_its_token_back() -> None:
    limiter = RateLimiter(Limits(host_burst=1, host_per_hour=0.001, burst=1, per_hour=3600))
    assert limiter.admit(make_alert(host="10.0.0.1"), make_row(), 0)
    assert not limiter.admit(make_alert(host="10.0.0.2"), make_row(), 0)
    assert limiter.admit(make_alert(host="10.0.0.2"), make_row(), SECOND)
