"""Scoring while traffic goes on: flows early and at their end, hosts as their evidence changes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from veilwatch.detection.scoring.buffer import GRACE_NS, DueWindows, WindowBuffer
from veilwatch.detection.scoring.explain import reasons
from veilwatch.detection.scoring.host_frame import host_frame
from veilwatch.detection.scoring.hosts import HORIZON_NS, HostEvidence
from veilwatch.detection.scoring.naming import HostNamer
from veilwatch.detection.scoring.owners import Owners
from veilwatch.detection.scoring.parts import HostParts, host_reasons, judge_parts
from veilwatch.detection.scoring.unit import check_unit
from veilwatch.learning.detectors.evidence import log_odds
from veilwatch.learning.features.flow_class import flow_class
from veilwatch.learning.features.host_evidence import (
    FLOW_EVIDENCE,
    WINDOW_SHARES,
    Evidence,
    upper_means,
)
from veilwatch.learning.features.windows import HOST, WINDOW_NS
from veilwatch.learning.models import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import HostKey, Reason, ScoreFrame
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.packet_time import PacketClock

Floats = npt.NDArray[np.float64]

EXPLAINED_LIVE: Final = 8
"""Most flows of one table that are explained, the best-scored of each alerted host first: an
explanation takes 6 ms with five LightGBM members, tables come up to four times a second, and early
scores wait meanwhile. An incident has a reason from its first tables on."""

WINDOWS_EVERY_NS: Final = 10 * SECOND_NS
"""How often windows that are over are looked for, of traffic time."""

MAX_NAMED: Final = 4096
"""Most hosts of which flows are asked for their family, 8 MiB with 20 families: more hosts that are
infected at a time are no incident but a mistake. The host asked about longest ago is forgotten."""

NO_FLOWS: Final = FlowTable.empty().frame.with_columns(
    score=pl.lit(None, pl.Float32), alert=pl.lit(None, pl.Boolean), early=pl.lit(None, pl.Boolean)
)
"""The table of a look at windows alone."""

MAX_WINDOW_HOSTS: Final = 1 << 16
"""Most hosts whose channels and windows are remembered, 20 MiB for what channels say; of windows
those of an hour. The host that was judged longest ago is forgotten."""


class LiveScorer:
    """Score flow tables of live traffic, and tell after each which hosts look different now.

    The evidence of a host is that of `FlowScorer`, over flows that ended, or were reported, within
    the last hour of traffic. A flow that is alive speaks by its latest report, and by its record
    once that has come. Memory has bounds (`veilwatch.detection.scoring.hosts`,
    `veilwatch.detection.scoring.buffer`) and does not grow with the number of flows.

    Parameters
    ----------
    model
        The trained model.
    evidence, windows
        Where flows are kept; None for the default bounds.

    Raises
    ------
    ModelError
        If the model judges something other than flows.
    """

    def __init__(
        self,
        model: Model,
        *,
        evidence: HostEvidence | None = None,
        windows: WindowBuffer | None = None,
    ) -> None:
        check_unit(model.manifest)
        self._model = model
        self._evidence = evidence or HostEvidence()
        self._buffer = windows or WindowBuffer()
        self._owners = Owners()
        self._namer = HostNamer.of(model, max_hosts=MAX_NAMED)
        self._heard = _Heard()
        self._clock = PacketClock(GRACE_NS)
        self._now_ns = self._looked_ns = 0
        self.replaced_models = 0

    @property
    def model(self) -> Model:
        """The model that scores now."""
        return self._model

    @property
    def windows(self) -> WindowBuffer:
        """Flows that are kept for host windows."""
        return self._buffer

    @property
    def counters(self) -> dict[str, int]:
        """How full the memory is, and what it had to give up."""
        return {
            "hosts": self._evidence.hosts,
            "host_flows": self._evidence.flows,
            "evicted_hosts": self._evidence.evicted_hosts,
            "summed_flows": self._evidence.summed_flows,
            "window_flows": len(self._buffer),
            "dropped_window_flows": self._buffer.dropped_flows,
            "replaced_models": self.replaced_models,
        }

    def replace(self, model: Model) -> None:
        """Score with another model from now on; nothing that is known of hosts is lost.

        What the old model said of flows is moved along the log-odds by as much as the thresholds
        of hosts by flows alone lie apart. What it said of channels, host windows and families is
        forgotten: they come anew every five minutes, and until then flows speak for them.

        Raises
        ------
        ModelError
            If the model judges something other than flows; the old one goes on.
        """
        check_unit(model.manifest)
        old, new = (np.array([item.manifest.thresholds.group]) for item in (self._model, model))
        self._evidence.shift(float((log_odds(new) - log_odds(old))[0]))
        self._model = model
        self._namer, self._heard = HostNamer.of(model, max_hosts=MAX_NAMED), _Heard()
        self.replaced_models += 1

    def add(self, table: FlowTable, *, early: bool = False, now_ns: int = 0) -> ScoreFrame:
        """Score one table.

        Parameters
        ----------
        table
            Flows that have ended, or reports of live ones; the latest report of a flow last.
        early
            Whether the flows are still alive.
        now_ns
            Time up to which traffic has been seen, ns since the epoch; 0 to take it from the flows,
            of which one with a wrong stamp does not move it.
        """
        model, frame = self._model, table.frame
        features = model.features(table)
        score = model.score(features)
        alert = score >= model.manifest.thresholds.unit
        flows = frame.with_columns(
            pl.Series("score", score, pl.Float32),
            pl.Series("alert", alert, pl.Boolean),
            early=pl.lit(early),
        )
        if not now_ns and len(table):
            now_ns = self._clock.follow(frame["last_ns"].to_numpy())
        self._now_ns = now_ns or self._now_ns
        flows, claims = self._owners.settle(flows)
        for claim in claims:
            old, new = (claim.host, ""), (claim.host, claim.subscriber)
            for memory in (self._evidence, self._namer, self._heard, self._buffer):
                if memory is not None:
                    memory.rename(old, new)
        changed = self._remember(flows, early)
        judged = None
        if model.manifest.hosts:
            self._buffer.add(flows, self._now_ns, early=early)
        if model.manifest.hosts and abs(self._now_ns - self._looked_ns) >= WINDOWS_EVERY_NS:
            self._looked_ns = self._now_ns
            judged = self._judge(self._buffer.closed(self._now_ns))
            if judged is not None:
                changed = np.union1d(changed, self._known(judged.windows.hosts))
        hosts = self._hosts(changed)
        return ScoreFrame(
            flows,
            hosts,
            model.manifest.thresholds.unit,
            model.host_threshold,
            reasons=self._explain(flows, features, hosts),
            host_reasons=host_reasons(model, judged, hosts) if judged is not None else {},
            claims=tuple(claims),
        )

    def judge_current(self) -> ScoreFrame:
        """Judge the window of every host that is not over yet, as far as its flows have got."""
        model, judged = self._model, None
        if model.manifest.hosts:
            judged = self._judge(self._buffer.current(self._now_ns))
        changed = np.zeros(0, np.int64) if judged is None else self._known(judged.windows.hosts)
        hosts = self._hosts(changed)
        return ScoreFrame(
            NO_FLOWS,
            hosts,
            model.manifest.thresholds.unit,
            model.host_threshold,
            host_reasons=host_reasons(model, judged, hosts) if judged is not None else {},
        )

    def _remember(self, flows: pl.DataFrame, early: bool) -> npt.NDArray[np.int64]:
        """Take in what flows say; return the numbers of the hosts that it concerns."""
        if flows.is_empty():
            return np.zeros(0, np.int64)
        latest = flows.unique("flow_id", keep="last", maintain_order=True) if early else flows
        hosts = latest.select(HOST).unique(maintain_order=True)
        numbers = self._evidence.number(hosts.iter_rows(), self._now_ns)
        numbered = hosts.with_columns(pl.Series("number", numbers))
        host = latest.select(HOST).join(numbered, on=list(HOST), how="left", maintain_order="left")[
            "number"
        ]
        others = self._evidence.add(
            host.to_numpy(),
            latest["flow_id"].to_numpy(),
            latest["score"].to_numpy().astype(np.float64),
            latest["alert"].to_numpy(),
            latest.select(flow_class()).to_series().to_numpy(),
            latest["first_ns"].to_numpy(),
            latest["last_ns"].to_numpy(),
            early=early,
            now_ns=self._now_ns,
        )
        if self._namer is not None:
            self._namer.add(latest)
        return np.union1d(numbers, others)

    def _known(self, keys: pl.DataFrame) -> npt.NDArray[np.int64]:
        found = (self._evidence.find(key) for key in keys.select(HOST).unique().iter_rows())
        return np.array([number for number in found if number is not None], np.int64)

    def _judge(self, due: DueWindows | None) -> HostParts | None:
        """Score channels and windows, and remember what they say of their hosts."""
        if due is None:
            return None
        table = FlowTable(due.flows)
        model = self._model
        windows = due.select(model.window_features(table))
        judged = judge_parts(model, model.channel_features(table), windows)
        self._heard.add(windows.keys, judged)
        return judged

    def _hosts(self, numbers: npt.NDArray[np.int64]) -> pl.DataFrame:
        model = self._model
        names = [self._evidence.name(int(number)) for number in numbers]
        numbers = numbers[[name is not None for name in names]]
        known = [name for name in names if name is not None]
        share = model.manifest.thresholds.upper_share
        sums = self._evidence.sums(numbers, share, self._now_ns)
        heard = self._heard.of_hosts(known, self._now_ns) if model.manifest.hosts else None
        return host_frame(model, known, sums, heard, self._namer)

    def _explain(
        self, flows: pl.DataFrame, features: FeatureFrame, hosts: pl.DataFrame
    ) -> dict[int, list[Reason]]:
        """Explain alerted flows, and those that speak against alerted hosts."""
        alerted = hosts.filter("alert").select(
            pl.col("host").alias("src_ip"), "subscriber", host_alert=True
        )
        least = min(self._model.manifest.thresholds.unit, self._model.host_threshold)
        rows = (
            flows.select(*HOST, "score", "alert")
            .with_row_index("row")
            .join(alerted, on=list(HOST), how="left", maintain_order="left")
            .filter(pl.col("alert") | ((pl.col("score") >= least) & pl.col("host_alert")))
            .with_columns(rank=pl.col("score").rank("ordinal", descending=True).over(HOST))
            .sort("rank", "score", descending=[False, True])
            .head(EXPLAINED_LIVE)["row"]
            .to_numpy()
            .astype(np.intp)
        )
        if not len(rows):
            return {}
        chosen = features.take(rows)
        said = reasons(chosen, self._model.explain(chosen), self._model.manifest.benign_ranges)
        return dict(zip(chosen.keys["flow_id"].to_list(), said, strict=True))


class _Heard:
    """What channels and windows of the last hour say of their hosts."""

    def __init__(self) -> None:
        self._channels: dict[HostKey, Floats] = {}
        self._windows: OrderedDict[HostKey, dict[int, tuple[int, float]]] = OrderedDict()

    def add(self, windows: pl.DataFrame, judged: HostParts) -> None:
        """Remember what was judged; what is judged again replaces what it said.

        Parameters
        ----------
        windows
            Keys of the windows that were judged.
        """
        hosts = judged.channels.hosts.unique(maintain_order=True).with_row_index("host_index")
        channels = judged.evidence(hosts)[:, :FLOW_EVIDENCE]  # as many as flows have
        for host, of_channels in zip(hosts.select(HOST).iter_rows(), channels, strict=True):
            # A row of its own: a view would keep all hosts that were judged with this one.
            self._channels[host[0], host[1]] = of_channels.copy()
        rows = windows.select(*HOST, "window", "first_ns").iter_rows()
        odds = judged.windows.odds.tolist()
        for (address, subscriber, window, first_ns), said in zip(rows, odds, strict=True):
            key: HostKey = (address, subscriber)
            self._windows.setdefault(key, {})[window] = first_ns, said
            self._windows.move_to_end(key)
        while len(self._windows) > MAX_WINDOW_HOSTS:
            forgotten, _ = self._windows.popitem(last=False)
            self._channels.pop(forgotten, None)

    def rename(self, old: HostKey, new: HostKey) -> None:
        """Count what was said of one host to another: they turned out to be the same."""
        said = self._windows.pop(old, None)
        if said is not None:
            self._windows[new] = said | self._windows.get(new, {})
        channels = self._channels.pop(old, None)
        if channels is not None:
            self._channels.setdefault(new, channels)

    def of_hosts(self, hosts: list[HostKey], now_ns: int) -> Floats:
        """Return what channels and windows say of hosts, as `HostParts.evidence`."""
        odds: list[float] = []
        group: list[int] = []
        channels = np.full((len(hosts), FLOW_EVIDENCE), np.nan)
        for k, host in enumerate(hosts):
            kept = self._windows.get(host, {})
            # A window begins up to its length before its first flow: it counts for the hour
            # after its end.
            old = [w for w, (ns, _) in kept.items() if abs(now_ns - ns) > HORIZON_NS + WINDOW_NS]
            for window in old:
                del kept[window]
            odds += [said for _, said in kept.values()]
            group += [k] * len(kept)
            if kept and host in self._channels:
                channels[k] = self._channels[host]
        of = np.array(group, np.int64)
        windows = Evidence(of, np.array(odds, np.float64), np.zeros(len(of), np.int64))
        return np.hstack([channels, upper_means(len(hosts), windows, WINDOW_SHARES)])
