"""From scores to alerts: which flows and hosts are told about, and how loudly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import polars as pl

from veilwatch.errors import VeilwatchError
from veilwatch.learning.detectors.content import carries_content
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.captures import CaptureReport
from veilwatch.schema.packets import NONE8
from veilwatch.schema.scores import UNKNOWN_FAMILY, ScoreFrame

HIGH, MEDIUM, LOW = 1, 2, 3
"""Severities as Suricata numbers them."""

HIGH_ODDS: Final = 20.0
"""Odds of the score over odds of the threshold, from which an alert is high."""

MEDIUM_ODDS: Final = 4.0
"""The same for medium; below it an alert is low."""

_MARGIN: Final = 1e-9  # keeps the odds of a score or threshold of exactly 0 or 1 finite

_FLOW_COLUMNS: Final = (
    *("flow_id", "source", "first_ns", "last_ns", "src_ip", "src_port", "dst_ip", "dst_port"),
    *("protocol", "tls_sni", "dns_query", "service", "gtp_depth", "outer_src_ip", "outer_dst_ip"),
    *("fwd_teid", "bwd_teid", "fwd_qfi", "bwd_qfi", "score", "alert"),
    *("fwd_packets", "bwd_packets", "fwd_payload_bytes", "bwd_payload_bytes"),
)

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
        Scores of all flows and hosts. `flows` may carry a column `subscriber`; without it flows
        belong to hosts by address alone.
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
    names = [report.name for report in captures.files]
    keys = ["src_ip"]
    ranked = scores.flows.select(*_FLOW_COLUMNS, content=carries_content())
    if "subscriber" in scores.flows.columns:
        keys.append("subscriber")
        ranked = ranked.with_columns(scores.flows["subscriber"].fill_null(""))
    order: dict[str, Any] = {"by": ["score", "flow_id"], "descending": [True, False]}
    alerted = _foremost(ranked.filter("alert"), keys, most).sort(**order)
    every = scores.hosts.filter("alert").with_columns(pl.col("subscriber").fill_null(""))
    hosts = every.sort(["score", "host"], descending=[True, False]).head(most)
    told = hosts.select(pl.col("host").alias("src_ip"), "subscriber").select(keys)
    pointed = ranked.join(told, on=keys, how="semi").sort(**order)
    if earlier is not None:
        before = earlier.with_columns(content=carries_content())
        both = pl.concat([pointed, before.select(ranked.columns).join(told, on=keys, how="semi")])
        pointed = both.sort("score", descending=True, maintain_order=True)
    speaking = set(pointed.filter(pl.col("content") & pl.col("alert")).select(keys).iter_rows())
    best_flows = {
        tuple(row[key] for key in keys): row
        for row in pointed.unique(keys, keep="first", maintain_order=True).iter_rows(named=True)
    }
    host_alerts = []
    for host in hosts.iter_rows(named=True):
        identity = tuple(host["host" if key == "src_ip" else key] for key in keys)
        if identity not in best_flows:
            raise VeilwatchError(f"host {host['host']} has no flow", where="score frame")
        best = best_flows[identity]
        thin = host["flows"] < FEW_FLOWS and not best["content"] and identity not in speaking
        host_alerts.append(_host_alert(host, best, scores, names, emulated, thin=thin))
    # A family is told from all flows of a host together: its flows are called what it is called,
    # but for those that nobody could tell it from.
    called = every.select(pl.col("host").alias("src_ip"), "subscriber", "family").select(
        *keys, "family"
    )
    families = {
        tuple(identity): family
        for *identity, family in called.join(alerted, on=keys, how="semi").iter_rows()
    }
    flow_alerts = [
        _flow_alert(row, scores, names, emulated, families.get(tuple(row[key] for key in keys), ""))
        for row in alerted.iter_rows(named=True)
    ]
    alerts = host_alerts + flow_alerts
    return [replace(a, ransomware=True) if a.family in ransomware else a for a in alerts]


def _foremost(flows: pl.DataFrame, keys: list[str], most: int) -> pl.DataFrame:
    """Return at most so many flows: of each host the highest-scoring, then the second and so on."""
    if flows.height <= most:
        return flows
    rank = pl.col("score").rank("ordinal", descending=True).over(keys)
    return (
        flows.with_columns(rank=rank)
        .sort("rank", "score", "flow_id", descending=[False, True, False])
        .head(most)
        .drop("rank")
    )


def _flow_alert(
    row: Mapping[str, Any], scores: ScoreFrame, names: list[str], emulated: bool, family: str
) -> Alert:
    thin = not row["content"]
    return Alert(
        kind="flow",
        first_ns=row["first_ns"],
        last_ns=row["last_ns"],
        host=row["src_ip"],
        subscriber=row.get("subscriber", ""),
        score=row["score"],
        threshold=scores.flow_threshold,
        severity=LOW if thin else severity(row["score"], scores.flow_threshold),
        family="" if thin else family,
        thin=thin,
        **_flow_facts(row, scores, names, emulated),
    )


def _host_alert(
    host: Mapping[str, Any],
    row: Mapping[str, Any],
    scores: ScoreFrame,
    names: list[str],
    emulated: bool,
    *,
    thin: bool,
) -> Alert:
    facts = _flow_facts(row, scores, names, emulated)
    of_windows = scores.window_reasons.get((host["host"], host["subscriber"]), [])
    # What a host does within minutes and what its worst flow looks like, strongest first.
    reasons = sorted([*of_windows, *facts.pop("reasons")], key=lambda r: -abs(r.contribution))
    by_windows = (
        {}
        if host["window_score"] is None
        else {
            "flow_score": round(host["flow_score"], 6),
            "window_score": round(host["window_score"], 6),
        }
    )
    return Alert(
        kind="host",
        first_ns=host["first_ns"],
        last_ns=host["last_ns"],
        host=host["host"],
        subscriber=host["subscriber"],
        score=host["score"],
        threshold=scores.host_threshold,
        severity=LOW if thin else severity(host["score"], scores.host_threshold),
        family=UNKNOWN_FAMILY if thin and host["family"] else host["family"],
        family_probability=0.0 if thin else host["family_probability"],
        thin=thin,
        evidence={
            "flows": host["flows"],
            "alerts": host["alerts"],
            "probability": round(host["probability"], 6),
            **by_windows,
        },
        reasons=tuple(reasons),
        **facts,
    )


def _flow_facts(
    row: Mapping[str, Any], scores: ScoreFrame, names: list[str], emulated: bool
) -> dict[str, Any]:
    """What an alert says of the one flow that it points at."""
    source = row["source"]
    return {
        "flow_id": row["flow_id"],
        "src_ip": row["src_ip"],
        "src_port": row["src_port"],
        "dst_ip": row["dst_ip"],
        "dst_port": row["dst_port"],
        "protocol": row["protocol"],
        "application": row["tls_sni"] or row["dns_query"] or row["service"] or "",
        "service": row["service"] or "",
        "reasons": tuple(scores.reasons.get(row["flow_id"], ())),
        "tunnel": _tunnel(row),
        "emulated": emulated,
        "capture": names[source] if source < len(names) else "",
    }


def _tunnel(row: Mapping[str, Any]) -> Tunnel | None:
    if not row["gtp_depth"]:
        return None
    qfi = next((q for q in (row["fwd_qfi"], row["bwd_qfi"]) if q != NONE8), None)
    return Tunnel(
        src_ip=row["outer_src_ip"],
        dst_ip=row["outer_dst_ip"],
        fwd_teid=row["fwd_teid"],
        bwd_teid=row["bwd_teid"],
        qfi=qfi,
        depth=row["gtp_depth"],
    )
