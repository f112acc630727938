"""Repeats are held back for their time, whatever order and times alerts come in."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tests.detection.alerting.samples import SECOND, make_alert
from veilwatch.detection.alerting.dedup import Deduplicator

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
