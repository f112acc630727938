"""What flows say of each host, over the last hour and in bounded memory.

A host's score is the mean log-odds of its more suspicious flows (`learning/detectors/evidence.py`).
Kept are the flows' log-odds, one row each, so that the hour slides by the flow and a flow's record
replaces what was said of it while it was alive. Where there are more than fit, the weakest of the
hosts that have most are kept as counts and sums only: with an upper share below one they had no say
anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from veilwatch.detection.scoring.bounds import fair_share
from veilwatch.learning.detectors.evidence import EPSILON, log_odds, probability, rank_within
from veilwatch.learning.features.flow_class import FLOW_CLASSES
from veilwatch.learning.features.host_evidence import (
    FLOW_SHARES,
    STRONGEST,
    Evidence,
    class_statistics,
)
from veilwatch.schema.scores import HostKey
from veilwatch.schema.units import HOUR_NS, MINUTE_NS

HORIZON_NS: Final = HOUR_NS
"""How long a flow speaks for or against its host after its last packet: an hour, as far as host
windows look back."""

MAX_EVIDENCE: Final = 1 << 20
"""Most flows kept one by one, 39 MiB: an hour of 290 flows a second before the weakest are kept as
sums."""

MAX_HOST_EVIDENCE: Final = 8192
"""Most flows of one host that are kept one by one: exact up to 32,768 flows an hour where a quarter
of them speaks, and cheap to sort each time that one is added."""

MAX_HOSTS: Final = 1 << 16
"""Most hosts, 46 MiB: as many as a hospital's or a cell site's network has addresses."""

EVICTED_AT_ONCE: Final = 1 << 10
"""Hosts that make room together where there are too many: finding the longest silent ones costs as
much for one as for all."""

BUCKET_NS: Final = 5 * MINUTE_NS
"""Sums of flows that are not kept one by one fall out of the hour in steps of five minutes."""

BUCKETS: Final = HORIZON_NS // BUCKET_NS + 1

GONE: Final = -1

CLASSES: Final = len(FLOW_CLASSES)


@dataclass(frozen=True, slots=True)
class HostSums:
    """What the flows of some hosts say, arrays of shape (hosts,).

    Attributes
    ----------
    flows, alerts
        int64, flows of the last hour, and those at the flow threshold.
    score
        float64 in 0…1, NaN for a host without flows.
    first_ns, last_ns
        int64, earliest and latest packet of flows that are kept one by one; 0 without any.
    evidence
        float64, the part of `veilwatch.learning.features.host_evidence` that flows make, shape
        (hosts, `FLOW_EVIDENCE`).
    """

    flows: npt.NDArray[np.int64]
    alerts: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    first_ns: npt.NDArray[np.int64]
    last_ns: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Weak:
    """Flows of some hosts that are kept as sums, by class; arrays of shape (hosts, classes)."""

    count: npt.NDArray[np.int64]
    odds: npt.NDArray[np.float64]

    def upper_means(
        self,
        odds: npt.NDArray[np.float64],
        starts: npt.NDArray[np.int64],
        kept: npt.NDArray[np.int64],
        shares: tuple[float, ...],
    ) -> npt.NDArray[np.float64]:
        """Return the mean log-odds of the upper shares of each host, NaN without flows.

        Parameters
        ----------
        odds
            Of flows that are kept one by one, by host and falling.
        starts, kept
            Where those of each host begin, and how many they are.
        """
        count, weak_odds = self.count.sum(axis=1), self.odds.sum(axis=1)
        flows = kept + count
        total = np.concatenate([[0.0], np.cumsum(odds)])
        out = np.full((len(kept), len(shares)), np.nan)
        for k, share in enumerate(shares):
            upper = np.maximum(1, np.ceil(flows * share)).astype(np.int64)
            shown = np.minimum(upper, kept)
            strong = total[starts + shown] - total[starts]
            with np.errstate(invalid="ignore", divide="ignore"):
                rest = np.where(upper > shown, (upper - shown) * weak_odds / count, 0.0)
            out[:, k] = np.where(flows > 0, (strong + rest) / upper, np.nan)
        return out

    def class_statistics(
        self, strong: npt.NDArray[np.float64], kept: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Add these flows to the statistics of those that are kept one by one.

        The strongest are kept: where a class has fewer of them than speak, the mean of these flows
        stands for the others, which is too little and never too much.

        Parameters
        ----------
        strong, kept
            Statistics and number of the flows of each host and class that are kept one by one.
        """
        out = strong.reshape(len(self.count), CLASSES, strong.shape[1] // CLASSES).copy()
        kept = kept.reshape(self.count.shape)
        count, weak = kept + self.count, self.count > 0
        shown, few = np.minimum(kept, STRONGEST), np.minimum(count, STRONGEST)
        said = np.where((kept > 0)[:, :, None], out, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            rest = self.odds / self.count
            top3 = (said[:, :, 1] * shown + (few - shown) * rest) / few
            mean = (said[:, :, 2] * kept + self.odds) / count
        out[:, :, 0] = np.where(weak & (kept == 0), rest, out[:, :, 0])
        out[:, :, 1] = np.where(weak, top3, out[:, :, 1])
        out[:, :, 2] = np.where(weak, mean, out[:, :, 2])
        return out.reshape(strong.shape)


class HostEvidence:
    """Log-odds of the flows of all hosts.

    Parameters
    ----------
    max_flows, max_host_flows, max_hosts
        Bounds; see `MAX_EVIDENCE`, `MAX_HOST_EVIDENCE` and `MAX_HOSTS`.

    Attributes
    ----------
    evicted_hosts
        Hosts that were forgotten within the hour because there were too many, those first that had
        been silent longest.
    summed_flows
        Flows that were kept as sums: the weakest of the hosts that had most.
    """

    def __init__(
        self,
        *,
        max_flows: int = MAX_EVIDENCE,
        max_host_flows: int = MAX_HOST_EVIDENCE,
        max_hosts: int = MAX_HOSTS,
    ) -> None:
        self._max_host_flows = max_host_flows
        self._key = np.zeros(max_flows, np.int64)
        self._host = np.full(max_flows, GONE, np.int32)
        self._odds = np.zeros(max_flows, np.float32)
        self._first_ns = np.zeros(max_flows, np.int64)
        self._last_ns = np.zeros(max_flows, np.int64)
        self._alert = np.zeros(max_flows, np.bool_)
        self._class = np.zeros(max_flows, np.uint8)
        self._used = 0
        self._early: dict[int, int] = {}
        self._numbers: dict[HostKey, int] = {}
        self._names: list[HostKey | None] = [None] * max_hosts
        self._free = list(range(max_hosts - 1, -1, -1))
        self._kept = np.zeros(max_hosts, np.int64)
        self._seen_ns = np.zeros(max_hosts, np.int64)
        # Sums of weak flows by host and five minutes: alerts, and of each class count and log-odds.
        self._alerts = np.zeros((max_hosts, BUCKETS), np.int32)
        self._counts = np.zeros((max_hosts, BUCKETS, CLASSES), np.int32)
        self._sums = np.zeros((max_hosts, BUCKETS, CLASSES), np.float32)
        self._epochs = np.full(BUCKETS, GONE, np.int64)
        self.evicted_hosts = self.summed_flows = 0

    @property
    def flows(self) -> int:
        """Flows that are kept one by one."""
        return int(self._kept.sum())

    @property
    def hosts(self) -> int:
        """Hosts that are known."""
        return len(self._numbers)

    def number(self, hosts: Iterable[HostKey], now_ns: int) -> npt.NDArray[np.int64]:
        """Return the number of each host, which a host keeps while it is known."""
        found = []
        for host in hosts:
            number = self._numbers.get(host)
            if number is None:
                if not self._free:
                    self._make_room_for_hosts(now_ns)
                number = self._free.pop()
                self._numbers[host] = number
                self._names[number] = host
            # Stamped at once, lest a host of this very table makes room for the next. Not with the
            # latest time ever: one that was wrong would keep the host for good.
            self._seen_ns[number] = now_ns
            found.append(number)
        return np.array(found, np.int64)

    def name(self, number: int) -> HostKey | None:
        """Return which host has a number, None for none."""
        return self._names[number]

    def find(self, host: HostKey) -> int | None:
        """Return the number of a host, None for one that is not known."""
        return self._numbers.get(host)

    def rename(self, old: HostKey, new: HostKey) -> None:
        """Call a host by another name; what is known of both, if both are known, is one host's."""
        number, target = self._numbers.get(old), self._numbers.get(new)
        if number is None or old == new:
            return
        if target is None:
            del self._numbers[old]
            self._numbers[new] = number
            self._names[number] = new
            return
        owner = self._host[: self._used]
        owner[owner == number] = target
        for kept in (self._kept, self._alerts, self._counts, self._sums):
            kept[target] += kept[number]
            kept[number] = 0
        self._seen_ns[target] = max(self._seen_ns[target], self._seen_ns[number])
        self._release(np.array([number], np.int64))

    def add(
        self,
        host: npt.NDArray[np.int64],
        key: npt.NDArray[np.int64],
        score: npt.NDArray[np.float64],
        alert: npt.NDArray[np.bool_],
        flow_class: npt.NDArray[np.uint8],
        first_ns: npt.NDArray[np.int64],
        last_ns: npt.NDArray[np.int64],
        *,
        early: bool,
        now_ns: int,
    ) -> npt.NDArray[np.int64]:
        """Take what flows say; what was said of the same flows while they were alive is replaced.

        Parameters
        ----------
        host
            Number of each flow's host, shape (flows,), as the rest.
        key
            Identity of each flow.
        flow_class
            Number of its class, `veilwatch.learning.features.flow_class`.
        early
            Whether the flows are still alive.

        Returns
        -------
        ndarray
            Numbers of further hosts that have less evidence now, because a flow is another's.
        """
        others = self._forget(key)
        step = max(1, len(self._key) // 4)  # so that half a table always takes one
        for start in range(0, len(key), step):
            part = slice(start, start + step)
            count = len(key[part])
            if self._used + count > len(self._key):
                self._compact(now_ns)
            new = slice(self._used, self._used + count)
            self._key[new], self._host[new] = key[part], host[part]
            self._odds[new] = log_odds(score[part])
            self._first_ns[new], self._last_ns[new] = first_ns[part], last_ns[part]
            self._alert[new] = alert[part]
            self._class[new] = flow_class[part]
            if early:
                self._early.update(zip(key[part].tolist(), range(new.start, new.stop), strict=True))
            self._used = new.stop
            np.add.at(self._kept, host[part], 1)
            crowded = np.unique(host[part])
            crowded = crowded[self._kept[crowded] > 2 * self._max_host_flows]
            if len(crowded):
                self._thin(crowded, self._max_host_flows, now_ns)
        return others

    def sums(self, hosts: npt.NDArray[np.int64], upper_share: float, now_ns: int) -> HostSums:
        """Return what the flows of some hosts say at a time.

        Parameters
        ----------
        hosts
            Their numbers, each once.
        upper_share
            Share of each host's flows, the most suspicious ones, whose mean log-odds count. Of
            those of them that are kept as sums the mean of all such flows counts, which is too
            little and never too much.
        """
        place = np.full(len(self._names), GONE, np.int64)
        place[hosts] = np.arange(len(hosts))
        used = slice(0, self._used)
        owner = self._host[used]
        rows = np.flatnonzero((owner >= 0) & (place[owner] >= 0))
        rows = rows[np.abs(now_ns - self._last_ns[rows]) <= HORIZON_NS]
        group = place[self._host[rows]]
        order = np.lexsort((-self._odds[rows], group))
        rows, group = rows[order], group[order]
        kept = np.bincount(group, minlength=len(hosts))
        starts = np.cumsum(kept) - kept
        first, last = np.zeros(len(hosts), np.int64), np.zeros(len(hosts), np.int64)
        if len(rows):
            some = kept > 0
            first[some] = np.minimum.reduceat(self._first_ns[rows], starts[some])
            last[some] = np.maximum.reduceat(self._last_ns[rows], starts[some])
        live = (np.abs(now_ns // BUCKET_NS - self._epochs) < BUCKETS)[:, None]
        weak = _Weak(
            (self._counts[hosts] * live).sum(axis=1, dtype=np.int64),
            (self._sums[hosts] * live).sum(axis=1, dtype=np.float64),
        )
        flows = kept + weak.count.sum(axis=1)
        odds = self._odds[rows].astype(np.float64)
        upper = weak.upper_means(odds, starts, kept, (*FLOW_SHARES, upper_share))
        said = Evidence(group, odds, self._class[rows].astype(np.int64))
        cells = np.bincount(group * CLASSES + said.flow_class, minlength=len(hosts) * CLASSES)
        by_class = weak.class_statistics(class_statistics(len(hosts), said), cells)
        alerts = np.bincount(group, self._alert[rows], len(hosts)).astype(np.int64)
        alerts += (self._alerts[hosts] * live[:, 0]).sum(axis=1, dtype=np.int64)
        evidence = np.hstack([by_class, upper[:, :-1]])
        return HostSums(flows, alerts, probability(upper[:, -1]), first, last, evidence)

    def shift(self, odds: float) -> None:
        """Add to the log-odds of all flows: they came from another model, on another scale."""
        edge = float(log_odds(np.array([1 - EPSILON]))[0])
        used = slice(0, self._used)
        self._odds[used] = np.clip(self._odds[used] + odds, -edge, edge)
        counted = self._counts
        self._sums[:] = np.clip(self._sums + odds * counted, -edge * counted, edge * counted)

    def _forget(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Take back what was said of flows while they were alive; return their hosts."""
        if not self._early:
            return np.zeros(0, np.int64)
        found = [self._early.pop(key, GONE) for key in keys.tolist()]
        rows = np.array([row for row in found if row >= 0], np.int64)
        rows = rows[self._host[rows] >= 0]  # others were summed up, or their host forgotten
        owners = self._host[rows].astype(np.int64)
        self._host[rows] = GONE
        np.subtract.at(self._kept, owners, 1)
        return np.unique(owners)

    def _compact(self, now_ns: int) -> None:
        """Make room: forget what is over, and sum up the weakest of those who have most."""
        used = slice(0, self._used)
        self._forget_old(now_ns)
        half = len(self._key) // 2
        if self.flows > half:
            self._thin(np.flatnonzero(self._kept), max(1, fair_share(self._kept, half)), now_ns)
        if self.flows > half:  # more hosts than rows for one flow each
            rows = np.flatnonzero(self._host[used] >= 0)
            weak = np.argsort(self._odds[rows], kind="stable")[: len(rows) - half]
            self._sum_up(rows[weak], now_ns)
        kept = np.flatnonzero(self._host[used] >= 0)
        for array in (
            *(self._key, self._host, self._odds, self._first_ns, self._last_ns, self._alert),
            self._class,
        ):
            array[: len(kept)] = array[kept]
        places = np.full(self._used, GONE, np.int64)
        places[kept] = np.arange(len(kept))
        moved = ((key, int(places[row])) for key, row in self._early.items())
        self._early = {key: row for key, row in moved if row >= 0}
        self._used = len(kept)
        self._release_silent(now_ns)

    def _forget_old(self, now_ns: int) -> None:
        used = slice(0, self._used)
        old = np.abs(now_ns - self._last_ns[used]) > HORIZON_NS
        self._drop(np.flatnonzero((self._host[used] >= 0) & old))

    def _thin(self, hosts: npt.NDArray[np.int64], share: int, now_ns: int) -> None:
        """Keep the strongest flows of some hosts, and sum up the others."""
        chosen = np.zeros(len(self._names), np.bool_)
        chosen[hosts[self._kept[hosts] > share]] = True
        owner = self._host[: self._used]
        rows = np.flatnonzero((owner >= 0) & chosen[owner])
        rank = rank_within(owner[rows].astype(np.int64), self._odds[rows].astype(np.float64))
        self._sum_up(rows[rank >= share], now_ns)

    def _sum_up(self, rows: npt.NDArray[np.intp], now_ns: int) -> None:
        self.summed_flows += len(rows)
        epoch = self._last_ns[rows] // BUCKET_NS
        column = epoch % BUCKETS
        now = now_ns // BUCKET_NS
        for k in np.unique(column):
            # The one nearest to now, and not the latest: a wrong stamp would keep the column.
            epochs = np.append(epoch[column == k], self._epochs[k])
            newest = int(epochs[np.argmin(np.abs(epochs - now))])
            if newest != self._epochs[k]:
                for weak in (self._alerts, self._counts, self._sums):
                    weak[:, k] = 0
                self._epochs[k] = newest
        current = epoch == self._epochs[column]  # older ones are out of the hour
        host = self._host[rows][current].astype(np.int64)
        column, said = column[current], rows[current]
        np.add.at(self._alerts, (host, column), self._alert[said])
        np.add.at(self._counts, (host, column, self._class[said]), 1)
        np.add.at(self._sums, (host, column, self._class[said]), self._odds[said])
        self._drop(rows)

    def _drop(self, rows: npt.NDArray[np.intp]) -> None:
        np.subtract.at(self._kept, self._host[rows], 1)
        self._host[rows] = GONE

    def _release_silent(self, now_ns: int) -> None:
        """Forget hosts of which nothing is known any more."""
        known = np.array(list(self._numbers.values()), np.int64)
        silent = known[
            (self._kept[known] == 0) & (np.abs(now_ns - self._seen_ns[known]) > HORIZON_NS)
        ]
        self._release(silent)

    def _make_room_for_hosts(self, now_ns: int) -> None:
        self._forget_old(now_ns)
        self._release_silent(now_ns)
        if self._free:
            return
        known = np.array(list(self._numbers.values()), np.int64)
        count = min(EVICTED_AT_ONCE, max(1, len(known) // 16))
        longest = np.argsort(self._seen_ns[known], kind="stable")[:count]
        self.evicted_hosts += count
        self._release(known[longest])

    def _release(self, numbers: npt.NDArray[np.int64]) -> None:
        if not len(numbers):
            return
        gone = np.zeros(len(self._names), np.bool_)
        gone[numbers] = True
        owner = self._host[: self._used]
        self._drop(np.flatnonzero((owner >= 0) & gone[owner]))
        for weak in (self._alerts, self._counts, self._sums):
            weak[numbers] = 0
        self._seen_ns[numbers] = 0
        for number in numbers.tolist():
            host = self._names[number]
            assert host is not None, "a number that nobody has"
            del self._numbers[host]
            self._names[number] = None
            self._free.append(number)
