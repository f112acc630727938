"""A status of any size arrives: whole, in messages that a pipe takes at once."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from veilwatch.sensor.heartbeat import MAX_MESSAGE, MAX_MESSAGES, join_status, split_status


def sent(status: dict[str, Any], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what arrives of a status."""
    messages = list(split_status(status))
    assert 1 <= len(messages) <= MAX_MESSAGES + 1
    assert all(len(message) <= MAX_MESSAGE for message in messages)
    arrived = dict(before or {})
    for message in messages:
        join_status(arrived, json.loads(message))
    return arrived


def sink(number: int, trouble: str) -> dict[str, Any]:
    name = f"webhook+https://receiver-{number}.site.example:8443/hooks/…"
    counts = {"pending": 200_000, "delivered": 10**9, "set_aside": 7, "dropped": 3, "lag_s": 86e3}
    return {"name": name, **counts, "trouble": trouble}


def test_sixty_four_troubled_sinks_arrive() -> None:
    trouble = "connection refused: nobody listens at that address, is the receiver running? " * 2
    sinks = [sink(n, trouble[:120]) for n in range(64)]
    status = {
        "sinks": sinks,
        "pending_events": 64 * 200_000,
        "store_faults": 3,
    }
    assert sent(status) == status
    # The next one takes the place of all of it, longer or shorter.
    later = status | {"sinks": [sink(n, "") for n in range(64)]}
    assert sent(later, status) == later
    few = status | {"sinks": sinks[:20]}
    assert sent(few, status) == few


def test_totals_arrive_whatever_else_is_said() -> None:
    status = {
        "sinks": [sink(n, "x" * 900) for n in range(500)],
        "notes": ["y" * 100_000, "\udc80\u2028" * 5000],
        "service": {f"s{n}": n for n in range(3000)},
        "flows": 5,
        "faults": {"store": 2},
    }
    arrived = sent(status)
    assert (arrived["flows"], arrived["faults"]) == (5, {"store": 2})
    assert arrived["left_out"] > 0
    assert arrived["notes"][0].startswith("yyyy") and arrived["notes"][0].endswith("more)")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=60,
)


@examples(150)
@given(st.dictionaries(st.text(max_size=9).filter(lambda key: key != "+"), VALUES, max_size=30))
def test_any_status_arrives_as_it_was(status: dict[str, Any]) -> None:
    arrived = sent(status)
    if "left_out" not in arrived:
        assert arrived == json.loads(json.dumps(status))
