"""Scores of every hour, kept so that thresholds can be learned from any quiet period.

Of flows every score counts, of hosts the highest of each hour. Only the highest are kept, with how
many there were: thresholds for a few false alerts a day lie among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.alerting.site import QuietPeriod, TopScores
from veilwatch.errors import VeilwatchError
from veilwatch.schema.counters import MIN_DRIFT_FLOWS
from veilwatch.sensor.patience import PatientStore
from veilwatch.sensor.tally import BINS, score_tenths
from veilwatch.store import Store

HOUR_NS: Final = 3600 * 10**9

KEPT: Final = 256
"""Highest scores kept of each level and hour: enough for ten false alerts an hour in a period of
any length, in 10 kB an hour."""

MAX_HOSTS: Final = 65_536
"""Most hosts whose highest score of the hour is remembered; later ones are not counted."""

MAX_HOURS: Final = 24 * 90
"""Hours that are kept, and may be read together: 20 MB."""

_SAVE_NS: Final = 60 * 10**9
_FLOOR: Final = 1e-4  # share of an empty bin: the index would be infinite


class ScoreBook:
    """Keep the scores of the current hour, and save them.

    Parameters
    ----------
    store
        Where they are kept, by hour.
    sensor
        Name of the sensor.

    Attributes
    ----------
    drift
        Population stability index of the scores of flows, an hour against all before it since the
        start: the latest hour of which `MIN_DRIFT_FLOWS` came, None without any. Above 0.25 the
        inputs are commonly held to have moved.
    """

    def __init__(self, store: Store | PatientStore, sensor: str) -> None:
        self._store, self._sensor = store, sensor
        self._hour = 0
        self._units = TopScores(KEPT)
        self._hosts: dict[tuple[Any, ...], float] = {}
        self._counts = np.zeros(BINS, np.int64)
        self._before = np.zeros(BINS, np.int64)
        self._saved_ns = 0
        self.drift: float | None = None

    def add(self, flows: pl.DataFrame, hosts: pl.DataFrame, now_ns: int) -> None:
        """Take the scores of flows that have ended and of hosts whose evidence changed."""
        self._turn(now_ns)
        if flows.height:
            score = flows["score"].to_numpy()
            self._units.add(score)
            self._counts += score_tenths(score)
            if min(self._before.sum(), self._counts.sum()) >= MIN_DRIFT_FLOWS:
                self.drift = stability_index(self._before, self._counts)
        for *host, score in hosts.select("host", "subscriber", "score").iter_rows():
            key = tuple(host)
            if key in self._hosts or len(self._hosts) < MAX_HOSTS:
                self._hosts[key] = max(self._hosts.get(key, 0.0), score)

    def tick(self, now_ns: int) -> None:
        """Save once a minute of traffic."""
        self._turn(now_ns)
        if now_ns - self._saved_ns >= _SAVE_NS:
            self._saved_ns = now_ns
            self._save()

    def close(self) -> None:
        """Save."""
        self._save()

    def _turn(self, now_ns: int) -> None:
        hour = now_ns // HOUR_NS
        if hour == self._hour:
            return
        self._save()
        self._before += self._counts
        self._counts = np.zeros(BINS, np.int64)
        self._hour, self._units, self._hosts = hour, TopScores(KEPT), {}
        # An hour that a restart cut in two goes on.
        try:
            saved = self._store.load_state(state_name(self._sensor, hour))
            if isinstance(saved, dict):
                self._units.restore(saved["units"])
        except (VeilwatchError, KeyError):
            return

    def _save(self) -> None:
        if not self._hour or not self._units.units:
            return
        groups = TopScores(KEPT)
        groups.add(np.array(list(self._hosts.values())))
        saved = {"units": self._units.state(), "groups": groups.state()}
        old = state_name(self._sensor, self._hour - MAX_HOURS)
        try:
            self._store.save_state({state_name(self._sensor, self._hour): saved, old: None})
        except VeilwatchError:
            return  # a full disk: the hour is saved with the next minute


def state_name(sensor: str, hour: int) -> str:
    """Return under which name the scores of an hour are kept."""
    return f"scores/{sensor}/{hour}"


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
