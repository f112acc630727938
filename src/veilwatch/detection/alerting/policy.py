"""From scores to alerts: which flows and hosts are told about, and how loudly."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.learning.detectors.content import carries_content
from veilwatch.learning.features.windows import HOST
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.flow_facts import SCORED_COLUMNS, FlowFacts, flow_facts
from veilwatch.schema.scores import UNKNOWN_FAMILY, HostFacts, ScoreFrame

HIGH, MEDIUM, LOW = 1, 2, 3
"""Severities as Suricata numbers them."""

HIGH_ODDS: Final = 20.0
"""Odds of the score over odds of the threshold, from which an alert is high."""

MEDIUM_ODDS: Final = 4.0
"""The same for medium; below it an alert is low."""

_BY_SCORE: Final = ("score", "flow_id")
_FALLING: Final = (True, False)

_MARGIN: Final = 1e-9  # keeps the odds of a score or threshold of exactly 0 or 1 finite

MAX_ALERTS: Final = 1 << 16
"""Most alerts of hosts, and most of flows, that are made of one run: some 3 kB of memory, 1.5 kB
of file and 0.3 ms each. Whoever is told of 65,536 infected hosts has other work than the next one;
`flows` and `hosts` of the scores say of every one whether it is alerted."""

FEW_FLOWS: Final = 10
"""From so many flows on what a host does tells something, whatever the flows hold: a scan, or a
server that is called again and again and never answers."""


def severity(score: float, threshold: float) -> int:
    """Grade how far a score lies above its threshold.

    The odds s/(1-s) of the score are divided by the odds of the threshold. From `HIGH_ODDS`
    times on the alert is high (1), from `MEDIUM_ODDS` times on medium (2), else low (3). Odds
    keep their meaning where a threshold lies close to 0 or to 1, differences do not.

    Examples
    --------
    >>> severity(0.99, 0.5), severity(0.85, 0.5), severity(0.6, 0.5)
    (1, 2, 3)
    """
    ratio = _odds(score) / _odds(threshold)
    if ratio >= HIGH_ODDS:
        return HIGH
    return MEDIUM if ratio >= MEDIUM_ODDS else LOW


def _odds(probability: float) -> float:
    bounded = min(max(probability, _MARGIN), 1 - _MARGIN)
    return bounded / (1 - bounded)


def raise_alerts(
    scores: ScoreFrame,
    *,
    captures: CaptureReport,
    emulated: bool,
    ransomware: Collection[str] = (),
    earlier: pl.DataFrame | None = None,
    most: int = MAX_ALERTS,
) -> list[Alert]:
    """Make one alert of every alerted flow and of every alerted host, within a bound.

    Parameters
    ----------
    scores
        Scores of flows and hosts.
    captures
        The inputs that `source` counts, for the name of the capture.
    emulated
        Whether the traffic comes from the lab.
    ransomware
        Families known as ransomware.
    earlier
        Flows of earlier tables, with their scores, that alerts of hosts may point at as well.
    most
        Most alerts of hosts, the highest-scoring ones, and most of flows: of each host its
        highest-scoring flow comes first, so that one that sweeps a network hides no other.

    Returns
    -------
    list of Alert
        Host alerts by falling score, then flow alerts by falling score.

    Raises
    ------
    VeilwatchError
        If an alerted host has no flow in the same frame nor in `earlier`.
    """
    made = _Maker(scores, [report.name for report in captures.files], emulated)
    ranked = scores.flows.select(*SCORED_COLUMNS, content=carries_content())
    alerted = _foremost(ranked.filter("alert"), most).sort(*_BY_SCORE, descending=_FALLING)
    every = scores.hosts.filter("alert")
    hosts = every.sort(["score", "host"], descending=[True, False]).head(most)
    wanted = hosts.select(src_ip="host", subscriber="subscriber")
    pointed = ranked.join(wanted, on=HOST, how="semi").sort(*_BY_SCORE, descending=_FALLING)
    if earlier is not None:
        before = earlier.select(*SCORED_COLUMNS, content=carries_content())
        both = pl.concat([pointed, before.join(wanted, on=HOST, how="semi")])
        pointed = both.sort("score", descending=True, maintain_order=True)
    speaking = set(pointed.filter(pl.col("content") & pl.col("alert")).select(HOST).iter_rows())
    best_flows = {
        (best.facts.src_ip, best.facts.subscriber): best
        for best in _pointed(pointed.unique(HOST, keep="first", maintain_order=True))
    }
    host_alerts = []
    for row in hosts.iter_rows(named=True):
        host = HostFacts(**row)
        if host.key not in best_flows:
            raise VeilwatchError(f"host {host.host} has no flow", where="score frame")
        best = best_flows[host.key]
        thin = host.flows < FEW_FLOWS and not best.content and host.key not in speaking
        host_alerts.append(made.host_alert(host, best, thin=thin))
    # A family is told from all flows of a host together: its flows are called what it is called,
    # but for those that nobody could tell it from.
    called = every.select("family", src_ip="host", subscriber="subscriber")
    families = {
        (host, subscriber): family
        for family, host, subscriber in called.join(alerted, on=HOST, how="semi").iter_rows()
    }
    flow_alerts = [
        made.flow_alert(flow, families.get((flow.facts.src_ip, flow.facts.subscriber), ""))
        for flow in _pointed(alerted)
    ]
    alerts = host_alerts + flow_alerts
    return [replace(a, ransomware=True) if a.family in ransomware else a for a in alerts]


class _Pointed(NamedTuple):
    """A flow that an alert points at, its input, and whether it holds a conversation."""

    facts: FlowFacts
    source: int
    content: bool


def _pointed(flows: pl.DataFrame) -> list[_Pointed]:
    columns = flow_facts(flows), flows["source"], flows["content"]
    return [_Pointed(*row) for row in zip(*columns, strict=True)]


def _foremost(flows: pl.DataFrame, most: int) -> pl.DataFrame:
    """Return at most so many flows: of each host the highest-scoring, then the second and so on."""
    if flows.height <= most:
        return flows
    rank = pl.col("score").rank("ordinal", descending=True).over(HOST)
    return (
        flows.with_columns(rank=rank)
        .sort("rank", "score", "flow_id", descending=[False, True, False])
        .head(most)
        .drop("rank")
    )


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes alerts of one score frame.

    Attributes
    ----------
    scores
        The frame.
    captures
        Names of the inputs that `source` counts.
    emulated
        Whether the traffic comes from the lab.
    """

    scores: ScoreFrame
    captures: list[str]
    emulated: bool

    def flow_alert(self, flow: _Pointed, family: str) -> Alert:
        """Return the alert of a flow, of the family that its host is called."""
        threshold = self.scores.flow_threshold
        return replace(
            self._pointing_at(flow),
            threshold=threshold,
            severity=severity(flow.facts.score, threshold) if flow.content else LOW,
            family=family if flow.content else "",
            thin=not flow.content,
        )

    def host_alert(self, host: HostFacts, best: _Pointed, *, thin: bool) -> Alert:
        """Return the alert of a host, which points at its highest-scoring flow."""
        threshold = self.scores.host_threshold
        alert = self._pointing_at(best)
        # First of the channel, which an analyst can go and look at, where one was judged. Then what
        # the host does within minutes and what its worst flow looks like, strongest first.
        said = self.scores.host_reasons.get(host.key, [])
        rest = sorted([*said[1:], *alert.reasons], key=lambda r: -abs(r.contribution))
        alone = {
            name: round(score, 6)
            for name in ("flow_score", "channel_score", "window_score")
            if (score := getattr(host, name)) is not None
        }
        return replace(
            alert,
            kind="host",
            first_ns=host.first_ns,
            last_ns=host.last_ns,
            host=host.host,
            subscriber=host.subscriber,
            score=host.score,
            threshold=threshold,
            severity=LOW if thin else severity(host.score, threshold),
            family=UNKNOWN_FAMILY if thin and host.family else host.family,
            family_probability=0.0 if thin else host.family_probability,
            thin=thin,
            evidence={
                "flows": host.flows,
                "alerts": host.alerts,
                "probability": round(host.probability, 6),
                **(alone if len(alone) > 1 else {}),
            },
            reasons=(*said[:1], *rest),
        )

    def _pointing_at(self, pointed: _Pointed) -> Alert:
        """Return the alert of one flow, as far as the flow alone tells it."""
        flow, source = pointed.facts, pointed.source
        return Alert(
            kind="flow",
            flow_id=flow.flow_id,
            first_ns=flow.first_ns,
            last_ns=flow.last_ns,
            src_ip=flow.src_ip,
            src_port=flow.src_port,
            dst_ip=flow.dst_ip,
            dst_port=flow.dst_port,
            protocol=flow.protocol,
            host=flow.src_ip,
            score=flow.score,
            threshold=0.0,
            severity=LOW,
            subscriber=flow.subscriber,
            application=flow.asked_name or flow.service,
            service=flow.service,
            reasons=tuple(self.scores.reasons.get(flow.flow_id, ())),
            tunnel=_tunnel(flow),
            emulated=self.emulated,
            capture=self.captures[source] if source < len(self.captures) else "",
        )


def _tunnel(flow: FlowFacts) -> Tunnel | None:
    if not flow.gtp_depth:
        return None
    return Tunnel(
        src_ip=flow.outer_src_ip,
        dst_ip=flow.outer_dst_ip,
        fwd_teid=flow.fwd_teid,
        bwd_teid=flow.bwd_teid,
        qfi=flow.qfi,
        depth=flow.gtp_depth,
    )
