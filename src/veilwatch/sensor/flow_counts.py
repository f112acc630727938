"""What the scoring process counts of flows and alerts, for metrics and the field report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.learning.features.flow_class import is_encrypted
from veilwatch.schema import counters as known
from veilwatch.schema.events import Event, EventKind

MAX_SERVICES: Final = 40
"""Most services counted by name; their names come from a fixed list of recognisers."""

LATE_S: Final = 86_400.0
"""A packet that is older was not alerted on late but read late: its capture is one of another day.
"""

EARLY_S: Final = 60.0
"""How far a packet's stamp may lie ahead of our clock and still be of it."""

OTHER: Final = "other"

MAX_SEEN: Final = 131_072
"""Most hosts, and most subscribers, told apart within a minute: some 16 MB each. More count as so
many."""

MINUTE_S: Final = 60
BINS: Final = 10


def score_tenths(score: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Count scores in 0…1 by tenths, shape (10,)."""
    place = np.clip((score * BINS).astype(np.int64), 0, BINS - 1)
    return np.bincount(place, minlength=BINS)


class FlowCounts:
    """Count flows that ended, and how long alerts on them took."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._services: Counter[str] = Counter()
        self._scores = np.zeros(BINS, np.int64)
        self._delay_sum_s = 0.0
        self._delays = 0
        self._minute = 0
        self._hosts: set[tuple[str, str]] = set()
        self._subscribers: set[str] = set()
        self._delay_max_s = self._last_delay_max_s = 0.0
        self._last_hosts = self._last_subscribers = 0

    def add(self, flows: pl.DataFrame) -> None:
        """Count flows that have ended, with their scores."""
        self._turn()
        if flows.is_empty():
            return
        self._see(flows)
        size = pl.col("fwd_bytes") + pl.col("bwd_bytes")
        counted = {
            known.FLOWS: pl.len(),
            known.BYTES: size.sum(),
            known.FLOWS_GTP: (pl.col("gtp_depth") > 0).sum(),
            known.FLOWS_ENCRYPTED: is_encrypted().sum(),
            known.BYTES_ENCRYPTED: size.filter(is_encrypted()).sum(),
            known.FLOWS_ATTRIBUTED: (pl.col("subscriber") != "").sum(),
        }
        sums = flows.select(**known.to_status(counted)).row(0, named=True)
        self._sums.update({name: int(value or 0) for name, value in sums.items()})
        for service, count in flows["service"].value_counts().iter_rows():
            has_place = service in self._services or len(self._services) < MAX_SERVICES
            self._services[service or "unknown" if has_place else OTHER] += count
        self._scores += score_tenths(flows["score"].to_numpy())

    def _see(self, flows: pl.DataFrame) -> None:
        """Remember whose flows these are until the minute is over."""
        for host in flows.select("src_ip", "subscriber").unique().iter_rows():
            if len(self._hosts) < MAX_SEEN:
                self._hosts.add(host)
            if host[1] and len(self._subscribers) < MAX_SEEN:
                self._subscribers.add(host[1])

    def _turn(self) -> None:
        """Close the minute, by the clock, where another has begun."""
        minute = int(time.time() // MINUTE_S)
        if minute == self._minute:
            return
        # A minute that is not the one before is over for longer: nothing ended in the last one.
        follows = minute == self._minute + 1
        self._last_hosts = len(self._hosts) if follows else 0
        self._last_subscribers = len(self._subscribers) if follows else 0
        self._last_delay_max_s = self._delay_max_s if follows else 0.0
        self._hosts, self._subscribers, self._delay_max_s = set(), set(), 0.0
        self._minute = minute

    def reported(self, events: Iterable[Event]) -> None:
        """Count how long it took from the last packet of the evidence to an event.

        Not of captures of another time, nor of stamps that cannot be right: their packets' clock is
        not ours.
        """
        self._turn()
        now_ns = time.time_ns()
        for event in events:
            if event.kind not in (EventKind.FLOW, EventKind.HOST):
                continue
            delay_s = (now_ns - event.alert.last_ns) / 1e9
            if not -EARLY_S <= delay_s <= LATE_S:
                continue
            delay_s = max(0.0, delay_s)
            self._delay_sum_s += delay_s
            self._delay_max_s = max(self._delay_max_s, delay_s)
            self._delays += 1

    def status(self) -> dict[str, Any]:
        """Return all of it.

        `hosts_seen` and `subscribers_seen` are those of flows that ended in the last whole minute,
        `delay_max_s` is the longest delay of that one and of this.
        """
        self._turn()
        return dict(self._sums) | known.to_status(
            {
                known.SERVICE: dict(self._services),
                known.SCORE: self._scores.tolist(),
                known.DELAY_SUM: round(self._delay_sum_s, 3),
                known.DELAY_COUNT: self._delays,
                known.DELAY_MAX: round(max(self._delay_max_s, self._last_delay_max_s), 3),
                known.HOSTS_SEEN: self._last_hosts,
                known.SUBSCRIBERS_SEEN: self._last_subscribers,
            }
        )
