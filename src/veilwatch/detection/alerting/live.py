"""From live scores to alerts, table after table, each with the flow that it points at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import polars as pl

from veilwatch.detection.alerting.policy import raise_alerts
from veilwatch.learning.features.windows import HOST
from veilwatch.schema.alerts import Alert
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.flow_facts import SCORED_COLUMNS, FlowFacts, flow_facts_by_id
from veilwatch.schema.scores import Claim, ScoreFrame

MAX_POINTED: Final = 16_384
"""Most hosts whose highest-scoring flow is remembered, some 400 bytes each, for alerts of hosts
that bring no flow with them: a window that is over is judged minutes after its flows. Of more hosts
the one whose flow ended longest ago is forgotten; its alert then waits for its next flow."""

_KEYS: Final = list(HOST)


class Raised(NamedTuple):
    """An alert and the flow that it points at."""

    alert: Alert
    flow: FlowFacts


class LiveAlerts:
    """Make alerts of what a live scorer says.

    Parameters
    ----------
    interfaces
        What the column `source` counts: interfaces, or the folder of captures.
    emulated
        Whether the traffic comes from a laboratory: every alert says so.

    Attributes
    ----------
    without_flow
        Alerts of hosts that could point at no flow, and were left for the host's next flow.
    """

    def __init__(self, interfaces: Sequence[str], *, emulated: bool) -> None:
        self._captures = CaptureReport([FileReport(name) for name in interfaces])
        self._emulated = emulated
        self._best: list[pl.DataFrame] = []
        self.without_flow = 0

    def raise_alerts(self, scores: ScoreFrame, *, ransomware: Collection[str] = ()) -> list[Raised]:
        """Return the alerts of one table, those of hosts first.

        Parameters
        ----------
        scores
            What the table brought.
        ransomware
            Families known as ransomware.
        """
        for claim in scores.claims:
            self._best = [_claimed(part, claim) for part in self._best]
        alerted = scores.hosts.filter("alert")
        if scores.flows.is_empty() and not self._best:
            self.without_flow += alerted.height
            return []
        flows = scores.flows.select(SCORED_COLUMNS)
        self._remember(_best(flows))
        if alerted.is_empty() and not flows["alert"].any():
            return []
        earlier = self._pointed(alerted)
        known = alerted.join(
            pl.concat([flows, earlier]).select(host="src_ip", subscriber="subscriber"),
            on=["host", "subscriber"],
            how="semi",
        )
        self.without_flow += alerted.height - known.height
        alerts = raise_alerts(
            replace(scores, flows=flows, hosts=known),
            captures=self._captures,
            emulated=self._emulated,
            ransomware=ransomware,
            earlier=earlier,
        )
        # An early report and its record may stand in one table; either tells the flow.
        facts = flow_facts_by_id(pl.concat([earlier, flows]), [alert.flow_id for alert in alerts])
        return [Raised(alert, facts[alert.flow_id]) for alert in alerts]

    def _pointed(self, hosts: pl.DataFrame) -> pl.DataFrame:
        """Return the remembered flow of each of some hosts."""
        keys = hosts.select(src_ip="host", subscriber="subscriber")
        parts = [part.join(keys, on=_KEYS, how="semi") for part in self._best]
        return _best(pl.concat(parts))

    def _remember(self, best: pl.DataFrame) -> None:
        self._best.append(best)
        if sum(part.height for part in self._best) > 2 * MAX_POINTED:
            whole = _best(pl.concat(self._best))
            self._best = [whole.sort("last_ns", descending=True).head(MAX_POINTED)]


def _best(flows: pl.DataFrame) -> pl.DataFrame:
    """Return the highest-scoring flow of each host."""
    return flows.sort("score", descending=True, maintain_order=True).unique(
        _KEYS, keep="first", maintain_order=True
    )


def _claimed(flows: pl.DataFrame, claim: Claim) -> pl.DataFrame:
    theirs = (pl.col("src_ip") == claim.host) & (pl.col("subscriber") == "")
    return flows.with_columns(
        subscriber=pl.when(theirs).then(pl.lit(claim.subscriber)).otherwise("subscriber")
    )
