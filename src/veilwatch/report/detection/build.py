"""From the results of a run to its report document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from veilwatch import __version__
from veilwatch.detection.alerting.attack import of_alert
from veilwatch.learning.features.windows import HOST
from veilwatch.report.charts import time_grid
from veilwatch.report.detection import document as doc
from veilwatch.report.detection.bins import score_histogram, timeline
from veilwatch.report.detection.model import model_card
from veilwatch.report.evaluation.build import evaluation_of
from veilwatch.schema.alerts import Alert, Tunnel
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.flow_facts import FlowFacts, flow_facts_by_id
from veilwatch.schema.flows import ENCRYPTED_SERVICES
from veilwatch.schema.names import protocol_name
from veilwatch.schema.packets import Status
from veilwatch.schema.scores import ScoreFrame
from veilwatch.schema.text import MAX_SHOWN_SENTENCE, visible

SHOWN_HOSTS: Final = 24
SHOWN_ALERTS: Final = 100
SHOWN_FILES: Final = 60
SHOWN_NAMES: Final = 10
SHOWN_SERVERS: Final = 5
SHOWN_ENDPOINTS: Final = 12
SHOWN_REASONS: Final = 8
SHOWN_COMMENTS: Final = 3
"""How much of each list a page shows: what a person reads; all of it is in the alerts file."""

TIME_STEPS: Final = 120
CARD_STEPS: Final = 60


def build_document(
    *,
    captures: CaptureReport,
    balance: Mapping[str, int],
    scores: ScoreFrame,
    alerts: Sequence[Alert],
    manifest: Mapping[str, Any],
    emulated: bool,
    origin: doc.Origin | None = None,
    evaluation: Mapping[str, Any] | None = None,
    command: str = "",
    title: str = "",
    alerts_file: str = "alerts.json",
    made_at: datetime | None = None,
) -> doc.ReportDocument:
    """Gather what a run read, found and concluded.

    Parameters
    ----------
    captures
        The inputs.
    balance
        Packets by name: the names of `Status` in either case, and the decoder's informative
        counters, of which those that begin with `gtp_` are shown.
    scores
        Scores of all flows and hosts.
    alerts
        What `veilwatch.detection.alerting.policy.raise_alerts` made of them, in its order.
    manifest
        The model's manifest; see `veilwatch.report.detection.model.model_card`.
    emulated
        Whether the traffic comes from the lab.
    origin
        What the model learned from, as far as it puts the result in doubt.
    evaluation
        Evaluation of the same model as `veilwatch evaluate --json` writes it.
    command
        The command line of the run.
    title
        Title of the report; empty for that of the text catalogue.
    alerts_file
        Name of the file that holds every alert.
    made_at
        Time of making, now unless given.

    Returns
    -------
    ReportDocument
        Bounded in size whatever the run found.
    """
    flows = scores.flows
    host_alerts = [alert for alert in alerts if alert.kind == "host"]
    flow_alerts = [alert for alert in alerts if alert.kind == "flow"]
    shown = host_alerts[:SHOWN_HOSTS] + flow_alerts[:SHOWN_ALERTS]
    facts = flow_facts_by_id(flows, [alert.flow_id for alert in shown])
    model = model_card(manifest, scores)
    span = _span(flows)
    return doc.ReportDocument(
        title=visible(title),
        made_at=made_at or datetime.now(UTC),
        version=__version__,
        command=visible(command, MAX_SHOWN_SENTENCE),
        emulated=emulated,
        origin=origin or doc.Origin(),
        reading=_reading(captures, balance),
        tunnels=_tunnels(flows, balance),
        traffic=_traffic(flows),
        model=model,
        alerted_hosts=int(scores.hosts["alert"].sum()),
        alerted_flows=int(flows["alert"].sum()),
        written_hosts=len(host_alerts),
        written_flows=len(flow_alerts),
        hosts_without_windows=scores.hosts_without_windows,
        thin_alerts=sum(alert.thin for alert in alerts),
        expected_false_alerts=None if model.target_fpr is None else model.target_fpr * flows.height,
        hosts=tuple(
            _host(
                alert,
                facts[alert.flow_id],
                flows,
                _ranking(a.family for a in flow_alerts if _belongs(a, alert)),
                time_grid(*span, CARD_STEPS),
            )
            for alert in host_alerts[:SHOWN_HOSTS]
        ),
        alerts=tuple(_entry(alert, facts[alert.flow_id]) for alert in flow_alerts[:SHOWN_ALERTS]),
        alerts_file=visible(alerts_file),
        families=_ranking(alert.family for alert in flow_alerts),
        subscribers=_ranking(alert.subscriber for alert in flow_alerts),
        applications=_ranking(alert.application for alert in flow_alerts),
        timeline=timeline(flows, time_grid(*span, TIME_STEPS)),
        scores=score_histogram(flows),
        evaluation=evaluation_of(evaluation) if evaluation else None,
        limits=_limits(flows, captures, balance, model, emulated),
    )


def _span(flows: pl.DataFrame) -> tuple[int, int]:
    """Return when the first and the last flow began."""
    first, last = flows["first_ns"].min(), flows["first_ns"].max()
    return (int(first), int(last)) if isinstance(first, int) and isinstance(last, int) else (0, 0)


def _reading(captures: CaptureReport, balance: Mapping[str, int]) -> doc.Reading:
    files = captures.files
    counts = {name.upper(): packets for name, packets in balance.items() if packets}
    decoded = counts.get(Status.OK.name, 0)
    refusals = {
        status.name: counts[status.name]
        for status in Status
        if status is not Status.OK and status.name in counts
    }
    packets = decoded + sum(refusals.values())
    lines = sorted(refusals.items(), key=lambda item: -item[1])
    return doc.Reading(
        # Faulty files first: they are what a reader must know of.
        files=tuple(_file(f) for f in sorted(files, key=lambda f: not f.fault)[:SHOWN_FILES]),
        more_files=max(len(files) - SHOWN_FILES, 0),
        faults=len(captures.faults),
        packets=packets,
        bytes=sum(f.bytes for f in files),
        first_ns=min((f.first_ns for f in files if f.first_ns is not None), default=None),
        last_ns=max((f.last_ns for f in files if f.last_ns is not None), default=None),
        decoded=decoded,
        refused=packets - decoded,
        balance=tuple(
            doc.BalanceLine(status=name, packets=count, share=count / packets)
            for name, count in lines
        ),
    )


def _file(report: FileReport) -> doc.FileRead:
    return doc.FileRead(
        name=visible(report.name),
        format=visible(report.format),
        packets=report.packets,
        bytes=report.bytes,
        first_ns=report.first_ns,
        last_ns=report.last_ns,
        fault=visible(report.fault, MAX_SHOWN_SENTENCE),
        comments=tuple(visible(c, MAX_SHOWN_SENTENCE) for c in report.comments[:SHOWN_COMMENTS]),
    )


def _tunnels(flows: pl.DataFrame, balance: Mapping[str, int]) -> doc.Tunnels:
    inside = flows.lazy().filter(pl.col("gtp_depth") > 0)
    teids = pl.concat_list("fwd_teid", "bwd_teid")
    pairs = (
        inside.select(
            first=pl.min_horizontal("outer_src_ip", "outer_dst_ip"),
            second=pl.max_horizontal("outer_src_ip", "outer_dst_ip"),
            teids=teids,
        )
        .group_by("first", "second")
        .agg(flows=pl.len(), teids=_distinct(pl.col("teids").explode()))
        .sort("flows", "first", descending=[True, False])
        .collect()
    )
    totals = inside.select(flows=pl.len(), teids=_distinct(teids.explode())).collect()
    return doc.Tunnels(
        **totals.row(0, named=True),
        messages=tuple(
            (name.lower(), packets)
            for name, packets in balance.items()
            if name.lower().startswith("gtp_") and packets
        ),
        endpoints=tuple(
            doc.Endpoints(**row) for row in pairs.head(SHOWN_ENDPOINTS).iter_rows(named=True)
        ),
        more_endpoints=max(pairs.height - SHOWN_ENDPOINTS, 0),
    )


def _distinct(values: pl.Expr) -> pl.Expr:
    return values.filter(values > 0).n_unique()


def _traffic(flows: pl.DataFrame) -> doc.Traffic:
    volume = pl.col("fwd_bytes") + pl.col("bwd_bytes")
    services = (
        flows.lazy()
        .group_by(name="service")
        .agg(flows=pl.len(), bytes=volume.sum(), alerts=pl.col("alert").sum())
        .with_columns(encrypted=pl.col("name").is_in(sorted(ENCRYPTED_SERVICES)))
        .sort("bytes", "name", descending=[True, False])
        .collect()
    )
    hidden = services.filter("encrypted")
    return doc.Traffic(
        flows=flows.height,
        packets=int(flows["fwd_packets"].sum()) + int(flows["bwd_packets"].sum()),
        bytes=int(services["bytes"].sum()),
        hosts=flows.select(HOST).n_unique(),
        encrypted_flows=int(hidden["flows"].sum()),
        encrypted_bytes=int(hidden["bytes"].sum()),
        services=tuple(
            doc.Service(**row | {"name": visible(row["name"])})
            for row in services.head(SHOWN_NAMES).iter_rows(named=True)
        ),
    )


def _belongs(flow: Alert, host: Alert) -> bool:
    return (flow.host, flow.subscriber) == (host.host, host.subscriber)


def _host(
    alert: Alert,
    flow: FlowFacts,
    flows: pl.DataFrame,
    families: tuple[doc.Named, ...],
    grid: tuple[int, int, int],
) -> doc.HostCard:
    own = flows.filter(src_ip=alert.host, subscriber=flow.subscriber)
    servers = (
        own.lazy()
        .filter("alert")
        .group_by(
            name=pl.when(pl.col("tls_sni") != "").then("tls_sni").otherwise("dns_query"),
            address="dst_ip",
            port="dst_port",
            protocol="protocol",
        )
        .agg(flows=pl.len(), bytes=(pl.col("fwd_bytes") + pl.col("bwd_bytes")).sum())
        .sort("flows", "address", "port", "name", descending=[True, False, False, False])
        .collect()
    )
    return doc.HostCard(
        alert=_entry(alert, flow),
        flows=own.height,
        alerted_flows=int(own["alert"].sum()),
        families=families,
        servers=tuple(
            doc.Server(
                **server
                | {
                    "name": visible(server["name"]),
                    "protocol": protocol_name(server["protocol"]),
                }
            )
            for server in servers.head(SHOWN_SERVERS).iter_rows(named=True)
        ),
        more_servers=max(servers.height - SHOWN_SERVERS, 0),
        timeline=timeline(own, grid),
        activity=timeline(own, time_grid(*_span(own), CARD_STEPS)),
    )


def _entry(alert: Alert, flow: FlowFacts) -> doc.AlertEntry:
    return doc.AlertEntry(
        kind=alert.kind,
        flow_id=alert.flow_id,
        first_ns=alert.first_ns,
        last_ns=alert.last_ns,
        host=alert.host,
        subscriber=visible(alert.subscriber),
        src_ip=alert.src_ip,
        src_port=alert.src_port,
        dst_ip=alert.dst_ip,
        dst_port=alert.dst_port,
        protocol=protocol_name(alert.protocol),
        service=visible(alert.service),
        application=visible(alert.application),
        family=visible(alert.family),
        capture=visible(alert.capture),
        score=alert.score,
        probability=alert.evidence.get("probability"),
        thin=alert.thin,
        threshold=alert.threshold,
        severity=alert.severity,
        sent_bytes=flow.fwd_bytes,
        received_bytes=flow.bwd_bytes,
        techniques=tuple(of_alert(alert, flow)),
        reasons=tuple(
            doc.Contribution(
                feature=visible(reason.feature),
                text=visible(reason.text, MAX_SHOWN_SENTENCE),
                contribution=reason.contribution,
            )
            for reason in alert.reasons[:SHOWN_REASONS]
        ),
        tunnel=_tunnel(alert.tunnel),
    )


def _tunnel(tunnel: Tunnel | None) -> doc.TunnelFacts | None:
    if tunnel is None:
        return None
    return doc.TunnelFacts(
        first=tunnel.src_ip,
        second=tunnel.dst_ip,
        fwd_teid=tunnel.fwd_teid,
        bwd_teid=tunnel.bwd_teid,
        qfi=tunnel.qfi,
        depth=tunnel.depth,
    )


def _ranking(names: Iterable[str]) -> tuple[doc.Named, ...]:
    """Rank names by alerted flows, most first; flows without a name are left out."""
    counts = Counter(name for name in names if name)
    return tuple(
        doc.Named(name=visible(name), flows=count)
        for name, count in counts.most_common(SHOWN_NAMES)
    )


def _limits(
    flows: pl.DataFrame,
    captures: CaptureReport,
    balance: Mapping[str, int],
    model: doc.ModelCard,
    emulated: bool,
) -> tuple[str, ...]:
    """Choose the limits that this run must own up to."""
    counts = {name.upper(): packets for name, packets in balance.items()}
    chosen = {
        "emulated": emulated,
        "silence": True,
        "similarity": True,
        "host_label": True,
        "threshold": True,
        "held_out": model.held_out is None,
        "fragments": counts.get(Status.LATER_FRAGMENT.name, 0) > 0,
        "cut": bool(captures.faults),
        "not_encrypted": flows.height > 0
        and flows["service"].is_in(sorted(ENCRYPTED_SERVICES)).mean() != 1,
    }
    return tuple(name for name, holds in chosen.items() if holds)
