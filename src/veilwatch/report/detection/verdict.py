"""The verdict in sentences, the same on the page and in the console."""

from __future__ import annotations

import math

from veilwatch.report import units
from veilwatch.report.catalogue import Text
from veilwatch.report.detection.document import ReportDocument
from veilwatch.schema.scores import UNKNOWN_FAMILY


def verdict(document: ReportDocument, text: Text) -> str:
    """Return the one sentence that a reader takes away."""
    if document.alerted_hosts:
        return text("verdict.hosts", count=document.alerted_hosts, hosts=document.traffic.hosts)
    if document.alerted_flows:
        return text("verdict.flows_only", count=document.alerted_flows)
    if document.traffic.flows:
        return text("verdict.quiet")
    return text("verdict.no_flows" if document.reading.packets else "verdict.no_packets")


def _family(name: str, text: Text) -> str:
    if name == UNKNOWN_FAMILY:
        return text("verdict.strongest_unknown")
    return name and text("verdict.strongest_family", name=name)


def _probability(document: ReportDocument, text: Text) -> str:
    """Return what the strongest host's score means where as many are infected as the model took."""
    value, prior = document.hosts[0].alert.probability, document.model.prior
    if value is None or not prior:
        return ""
    return text(
        "verdict.strongest_probability", value=units.percent(value), one_in=round(1 / prior)
    )


def doubts(document: ReportDocument, text: Text) -> list[str]:
    """Return what stands above the verdict: why it may not mean what it says."""
    origin = document.origin
    sentences = []
    if origin.emulated:
        sentences.append(text("origin.emulated"))
    if count := len(origin.learned) + origin.more_learned:
        names = ", ".join(origin.learned) + (", …" if origin.more_learned else "")
        sentences.append(text("origin.learned", count=count, names=names))
    elif origin.learned_flows:
        sentences.append(text("origin.learned_flows", share=f"{origin.learned_flows:.0%}"))
    return sentences


def details(document: ReportDocument, text: Text) -> list[str]:
    """Return what belongs beside it: the strongest host, and what chance alone would give."""
    traffic = document.traffic
    if not traffic.flows:
        return []
    sentences = []
    if document.hosts:
        alert = document.hosts[0].alert
        sentences.append(
            text(
                "verdict.strongest",
                host=alert.host,
                subscriber=alert.subscriber
                and text("verdict.strongest_subscriber", name=alert.subscriber),
                score=units.score(alert.score),
                severity=text(f"severity.{alert.severity}").lower(),
                probability=_probability(document, text),
                family=_family(alert.family, text),
            )
        )
        threshold = units.score(document.model.host_threshold)
        sentences.append(text("verdict.severity", threshold=threshold))
    elif not document.alerted_flows:
        sentences.append(text("verdict.quiet_scope", flows=traffic.flows, hosts=traffic.hosts))
    if document.thin_alerts:
        sentences.append(text("verdict.thin", count=document.thin_alerts))
    if document.left_out > 0:
        written = document.written_hosts + document.written_flows
        sentences.append(
            text(
                "verdict.left_out",
                count=document.left_out,
                written=written,
                file=document.alerts_file,
            )
        )
    if document.hosts_without_windows:
        sentences.append(text("verdict.without_windows", count=document.hosts_without_windows))
    expected, rate = document.expected_false_alerts, document.model.target_fpr
    if expected is None or not rate:
        return [*sentences, text("chance.unknown")]
    sentences.append(text("chance.rate", one_in=units.one_in(rate)))
    sentences.append(
        text(
            "chance.expected",
            count=traffic.flows,
            expected=f"{expected:,.0f}" if expected >= 9.5 else f"{expected:.2g}",
            alerts=document.alerted_flows,
        )
    )
    # Two standard deviations of a Poisson count above its mean.
    if 0 < document.alerted_flows <= expected + 2 * math.sqrt(expected):
        sentences.append(text("chance.within"))
    return sentences
