"""Scores of every hour, kept so that thresholds can be learned from any quiet period.

Of flows every score counts, of hosts the highest of each hour. Only the highest are kept, with how
many there were: thresholds for a few false alerts a day lie among them.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.alerting.site import QuietPeriod, TopScores
from veilwatch.errors import VeilwatchError
from veilwatch.schema.counters import MIN_DRIFT_FLOWS
from veilwatch.schema.units import HOUR_NS
from veilwatch.sensor.flow_counts import BINS, score_tenths
from veilwatch.sensor.settings import SCORES, SCORES_DAYS
from veilwatch.sensor.store_proxy import StoreProxy
from veilwatch.store import Store

KEPT: Final = 256
"""Highest scores kept of each level and hour: enough for ten false alerts an hour in a period of
any length, in 10 kB an hour."""

MAX_HOSTS: Final = 65_536
"""Most hosts whose highest score of the hour is remembered; later ones are not counted."""

MAX_HOURS: Final = round(24 * SCORES_DAYS)
"""Hours that may be read together: 20 MB. What was saved longer ago is deleted."""

OPEN_HOURS: Final = 4
"""Hours that are counted at a time: flows that ended lie within two, and captures of a folder may
overlap. The one that had no flow for longest is saved and closed."""

SAVE_S: Final = 60.0
"""How often hours that changed are saved."""

_FLOOR: Final = 1e-4  # share of an empty bin: the index would be infinite


@dataclass(slots=True)
class _Hour:
    """Scores of one hour of traffic; `groups` are those of hosts before the process began."""

    units: TopScores = field(default_factory=lambda: TopScores(KEPT))
    groups: TopScores = field(default_factory=lambda: TopScores(KEPT))
    hosts: dict[tuple[Any, ...], float] = field(default_factory=dict)
    changed: bool = False


class ScoreHistory:
    """Keep the scores of the hours that traffic is in, and save them.

    A flow counts for the hour of its own last packet, a host for that of its latest evidence: a
    period that is quiet is one of traffic, also where captures are read later, and a wrong stamp
    counts for a wrong hour and moves no other.

    Parameters
    ----------
    store
        Where they are kept, by hour.
    sensor
        Name of the sensor.

    Attributes
    ----------
    drift
        Population stability index of the scores of flows, an hour of the clock against all before
        it since the start: the latest hour of which `MIN_DRIFT_FLOWS` came, None without any. Above
        0.25 the inputs are commonly held to have moved.
    left_out
        Flows of tables that reach over more than `OPEN_HOURS` hours, which were not counted.
    """

    def __init__(self, store: Store | StoreProxy, sensor: str) -> None:
        self._store, self._sensor = store, sensor
        self._hours: OrderedDict[int, _Hour] = OrderedDict()
        self._counts = np.zeros(BINS, np.int64)
        self._before = np.zeros(BINS, np.int64)
        self._hour = 0
        self._saved_s = time.monotonic()
        self.drift: float | None = None
        self.left_out = 0

    def add(self, flows: pl.DataFrame, hosts: pl.DataFrame, now_ns: int) -> None:
        """Take the scores of flows that have ended and of hosts whose evidence changed.

        Parameters
        ----------
        now_ns
            The sensor's clock: drift is that of its hours.
        """
        self._turn(now_ns)
        if flows.height:
            score = flows["score"].to_numpy()
            self._counts += score_tenths(score)
            if min(self._before.sum(), self._counts.sum()) >= MIN_DRIFT_FLOWS:
                self.drift = stability_index(self._before, self._counts)
            self._add_flows(flows["last_ns"].to_numpy() // HOUR_NS, score)
        columns = hosts.select("host", "subscriber", "last_ns", "score")
        for *host, last_ns, score_of_host in columns.iter_rows():
            hour = self._hours.get(last_ns // HOUR_NS)
            if hour is None:  # its flows were counted, or it has none any more
                continue
            key = tuple(host)
            if key in hour.hosts or len(hour.hosts) < MAX_HOSTS:
                hour.hosts[key] = max(hour.hosts.get(key, 0.0), score_of_host)
                hour.changed = True

    def _add_flows(
        self, hours: npt.NDArray[np.int64], score: npt.NDArray[np.floating[Any]]
    ) -> None:
        found, counts = np.unique(hours, return_counts=True)
        for number in found[np.argsort(-counts, kind="stable")][:OPEN_HOURS].tolist():
            hour = self._open(number)
            hour.units.add(score[hours == number])
            hour.changed = True
        self.left_out += int(np.sort(counts)[::-1][OPEN_HOURS:].sum())

    def _turn(self, now_ns: int) -> None:
        hour = now_ns // HOUR_NS
        if hour != self._hour:
            self._hour = hour
            self._before += self._counts
            self._counts = np.zeros(BINS, np.int64)

    def tick(self) -> None:
        """Save once a minute."""
        now_s = time.monotonic()
        if now_s - self._saved_s >= SAVE_S:
            self._saved_s = now_s
            self.close()

    def close(self) -> None:
        """Save."""
        for number, hour in self._hours.items():
            self._save(number, hour)

    def _open(self, number: int) -> _Hour:
        hour = self._hours.get(number)
        if hour is None:
            hour = self._hours[number] = _Hour()
            # An hour that a restart cut in two goes on.
            with suppress(VeilwatchError, KeyError, TypeError):
                saved = self._store.load_state(state_name(self._sensor, number))
                if isinstance(saved, dict):
                    hour.units.restore(saved["units"])
                    hour.groups.restore(saved["groups"])
        self._hours.move_to_end(number)
        while len(self._hours) > OPEN_HOURS:
            self._save(*self._hours.popitem(last=False))
        return hour

    def _save(self, number: int, hour: _Hour) -> None:
        if not hour.changed or not hour.units.units:
            return
        groups = TopScores(KEPT)
        groups.add(np.array(list(hour.hosts.values())))
        groups.add(hour.groups.highest())
        groups.units += hour.groups.units - len(hour.groups.highest())
        saved = {"units": hour.units.state(), "groups": groups.state()}
        with suppress(VeilwatchError):  # a full disk: the hour is saved with the next minute
            self._store.save_state({state_name(self._sensor, number): saved})
            hour.changed = False


def state_name(sensor: str, hour: int) -> str:
    """Return under which name the scores of an hour are kept."""
    return f"{SCORES}{sensor}/{hour}"


def read_scores(store: Store, sensor: str, period: QuietPeriod) -> tuple[TopScores, TopScores, int]:
    """Return the scores of flows and of hosts of a period, and how many of its hours were seen.

    Raises
    ------
    VeilwatchError
        If the period is too long to be read.
    """
    first, last = period.begins_ns // HOUR_NS, -(-period.ends_ns // HOUR_NS)
    if last - first > MAX_HOURS:
        raise VeilwatchError(
            f"the period is longer than {MAX_HOURS // 24} days", hint="choose a shorter one"
        )
    units, groups = TopScores(), TopScores()
    seen = 0
    for saved in _saved(store, sensor, range(first, last)):
        for top, part in ((units, saved["units"]), (groups, saved["groups"])):
            hour = TopScores(KEPT)
            hour.restore(part)
            top.add(hour.highest())
            top.units += hour.units - len(hour.highest())
        seen += 1
    return units, groups, seen


def _saved(store: Store, sensor: str, hours: range) -> Iterator[dict[str, Any]]:
    for hour in hours:
        saved = store.load_state(state_name(sensor, hour))
        if isinstance(saved, dict) and {"units", "groups"} <= saved.keys():
            yield saved


def stability_index(reference: npt.NDArray[np.int64], current: npt.NDArray[np.int64]) -> float:
    """Return the population stability index between two histograms, 0 where one is empty.

    Sum over bins of (p - q) · ln(p / q) (Siddiqi, Credit Risk Scorecards, 2006).
    """
    if not reference.sum() or not current.sum():
        return 0.0
    p, q = (np.maximum(part / part.sum(), _FLOOR) for part in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())
