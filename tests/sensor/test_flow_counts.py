"""What is counted of flows that ended, and of the delay of alerts."""

from __future__ import annotations

import time

import polars as pl
import pytest

from tests.report.factory import flow_frame
from tests.store.samples import make_event
from veilwatch.sensor import flow_counts
from veilwatch.sensor.flow_counts import BINS, FlowCounts, score_tenths

SECOND = 10**9


def frame(*scores: float, **columns: object) -> pl.DataFrame:
    return flow_frame(len(scores), **columns).with_columns(
        score=pl.Series(scores, dtype=pl.Float32)
    )


def test_scores_are_counted_by_tenths_up_to_one() -> None:
    scores = pl.Series([0.0, 0.05, 0.1, 0.55, 0.999, 1.0]).to_numpy()
    assert score_tenths(scores).tolist() == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert score_tenths(scores[:0]).tolist() == [0] * BINS


def test_flows_are_added_up() -> None:
    counts = FlowCounts()
    for _ in range(2):
        counts.add(
            frame(
                *(0.1, 0.9, 0.9),
                fwd_bytes=[100, 10, 1],
                bwd_bytes=[1000, 0, 1],
                gtp_depth=[1, 0, 0],
                subscriber=["s", "", "s"],
                service=["dns", "", "dns"],
            )
        )
    counts.add(frame())
    said = counts.status()
    assert (said["flows"], said["bytes"], said["flows_gtp"]) == (6, 2224, 2)
    assert said["flows_attributed"] == 4
    assert said["service"] == {"dns": 4, "unknown": 2}
    assert sum(said["score"]) == 6


def test_services_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_counts, "MAX_SERVICES", 2)
    counts = FlowCounts()
    for name in ("a", "b", "c", "d", "a"):
        counts.add(frame(0.5, service=[name]))
    assert counts.status()["service"] == {"a": 2, "b": 1, "other": 2}


def test_a_delay_counts_where_the_packets_clock_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    event = make_event(0)
    last_ns = event.alert.last_ns
    now = [0]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    counts = FlowCounts()
    for after_s in (-7200, 2, 10, -5, 86_500):  # two captures of another day
        now[0] = last_ns + after_s * SECOND
        counts.reported([event])
    said = counts.status()
    assert (said["delay_count"], said["delay_sum_s"]) == (3, 12.0)
    assert said["delay_max_s"] == 10.0


def test_hosts_and_subscribers_are_those_of_the_last_whole_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [6000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    found = FlowCounts()

    def add(*hosts: tuple[str, str]) -> None:
        columns = {"src_ip": [host for host, _ in hosts]}
        frame = flow_frame(len(hosts), **columns).with_columns(
            subscriber=pl.Series([name for _, name in hosts]), score=pl.Series([0.5] * len(hosts))
        )
        found.add(frame)

    def seen() -> tuple[int, int]:
        said = found.status()
        return said["hosts_seen"], said["subscribers_seen"]

    add(("10.0.0.1", "a"), ("10.0.0.1", "b"), ("10.0.0.2", ""))
    add(("10.0.0.1", "a"))
    assert seen() == (0, 0)  # the minute is not over
    now[0] += 60
    add(("10.0.0.9", "z"))
    assert seen() == (3, 2)  # two subscribers may hold one address
    now[0] += 60
    assert seen() == (1, 1)
    now[0] += 60
    assert seen() == (0, 0)
    add(("10.0.0.9", "z"))
    now[0] += 600
    assert seen() == (0, 0)  # that was long ago
    monkeypatch.setattr(flow_counts, "MAX_SEEN", 2)
    add(*((f"10.0.1.{k}", str(k)) for k in range(9)))
    now[0] += 60
    assert seen() == (2, 2)
