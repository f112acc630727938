"""What a limit holds back is counted, whatever order and times alerts come in."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, make_alert, make_row
from veilwatch.detection.alerting.limits import MAX_SUMMARIES, Limits, RateLimiter, TokenBucket

ALERTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(-50, 5000)), max_size=80
)


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
