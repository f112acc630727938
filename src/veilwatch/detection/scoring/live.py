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
from veilwatch.detection.scoring.unit import check_unit
from veilwatch.detection.scoring.windows import ScoredWindows, host_reasons
from veilwatch.learning.detectors.evidence import group_scores, log_odds
from veilwatch.learning.features.windows import HOST, WINDOW_NS
from veilwatch.learning.models import Model
from veilwatch.schema.features import FeatureFrame
from veilwatch.schema.flows import FlowTable
from veilwatch.schema.scores import HostKey, Reason, ScoreFrame
from veilwatch.schema.units import SECOND_NS
from veilwatch.traffic.packet_time import PacketClock

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
"""Most hosts whose windows are remembered, of each those of an hour. The host whose window was
judged longest ago is forgotten."""


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
        self._said = _WindowScores()
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
        of hosts lie apart, so that a host at the old threshold is at the new one. What it said of
        host windows and families is forgotten: windows come anew every five minutes.

        Raises
        ------
        ModelError
            If the model judges something other than flows; the old one goes on.
        """
        check_unit(model.manifest)
        old, new = (np.array([item.manifest.thresholds.group]) for item in (self._model, model))
        self._evidence.shift(float((log_odds(new) - log_odds(old))[0]))
        self._model = model
        self._namer, self._said = HostNamer.of(model, max_hosts=MAX_NAMED), _WindowScores()
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
            for memory in (self._evidence, self._namer, self._said, self._buffer):
                if memory is not None:
                    memory.rename(old, new)
        changed = self._remember(flows, early)
        judged = None
        if model.windows:
            self._buffer.add(flows, self._now_ns, early=early)
        if model.windows and abs(self._now_ns - self._looked_ns) >= WINDOWS_EVERY_NS:
            self._looked_ns = self._now_ns
            judged = self._judge(self._buffer.closed(self._now_ns))
            if judged is not None:
                changed = np.union1d(changed, self._known(judged.hosts))
        hosts = self._hosts(changed)
        return ScoreFrame(
            flows,
            hosts,
            model.manifest.thresholds.unit,
            model.host_threshold,
            reasons=self._explain(flows, features, hosts),
            window_reasons=host_reasons(model, judged, hosts) if judged is not None else {},
            claims=tuple(claims),
        )

    def judge_current(self) -> ScoreFrame:
        """Judge the window of every host that is not over yet, as far as its flows have got."""
        model, judged = self._model, None
        if model.windows:
            judged = self._judge(self._buffer.current(self._now_ns))
        changed = np.zeros(0, np.int64) if judged is None else self._known(judged.hosts)
        hosts = self._hosts(changed)
        return ScoreFrame(
            NO_FLOWS,
            hosts,
            model.manifest.thresholds.unit,
            model.host_threshold,
            window_reasons=host_reasons(model, judged, hosts) if judged is not None else {},
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

    def _judge(self, due: DueWindows | None) -> ScoredWindows | None:
        """Score windows, and remember what they say of their hosts."""
        if due is None:
            return None
        card = self._model.manifest.windows
        assert card is not None, "asked of a model without windows"
        features = due.select(self._model.window_features(FlowTable(due.flows)))
        score = self._model.score_windows(features)
        self._said.add(features.keys, score)
        return ScoredWindows.of(features, score, card.thresholds.upper_share)

    def _hosts(self, numbers: npt.NDArray[np.int64]) -> pl.DataFrame:
        model = self._model
        names = [self._evidence.name(int(number)) for number in numbers]
        numbers = numbers[[name is not None for name in names]]
        known = [name for name in names if name is not None]
        share = model.manifest.thresholds.upper_share
        sums = self._evidence.sums(numbers, share, self._now_ns)
        by_windows = np.full(len(known), np.nan)
        if model.manifest.windows:
            card = model.manifest.windows.thresholds
            by_windows = self._said.of_hosts(known, card.upper_share, self._now_ns)
        return host_frame(model, known, sums, by_windows, np.nan, self._namer)

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


class _WindowScores:
    """What the windows of the last hour say of their hosts."""

    def __init__(self) -> None:
        self._said: OrderedDict[HostKey, dict[int, tuple[int, float]]] = OrderedDict()

    def add(self, keys: pl.DataFrame, score: npt.NDArray[np.float64]) -> None:
        """Remember scores; a window that is judged again replaces what it said."""
        rows = keys.select(*HOST, "window", "first_ns").iter_rows()
        for (*host, window, first_ns), said in zip(rows, score.tolist(), strict=True):
            key: HostKey = (host[0], host[1])
            self._said.setdefault(key, {})[window] = first_ns, said
            self._said.move_to_end(key)
        while len(self._said) > MAX_WINDOW_HOSTS:
            self._said.popitem(last=False)

    def rename(self, old: HostKey, new: HostKey) -> None:
        """Count what was said of one host to another: they turned out to be the same."""
        said = self._said.pop(old, None)
        if said is not None:
            self._said[new] = said | self._said.get(new, {})

    def of_hosts(
        self, hosts: list[HostKey], upper_share: float, now_ns: int
    ) -> npt.NDArray[np.float64]:
        """Return the score of each host by its windows, NaN for none, shape (hosts,)."""
        score: list[float] = []
        group: list[int] = []
        for k, host in enumerate(hosts):
            kept = self._said.get(host, {})
            # A window begins up to its length before its first flow: it counts for the hour
            # after its end.
            old = [w for w, (ns, _) in kept.items() if abs(now_ns - ns) > HORIZON_NS + WINDOW_NS]
            for window in old:
                del kept[window]
            score += [said for _, said in kept.values()]
            group += [k] * len(kept)
        return group_scores(
            np.array(score, np.float64),
            np.array(group, np.int64),
            len(hosts),
            upper_share=upper_share,
        )
