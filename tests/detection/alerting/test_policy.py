"""Alerts say exactly what the scores say, in the order that analysts read."""

from __future__ import annotations

import dataclasses

import polars as pl
import pytest

from tests.report import factory
from veilwatch.detection.alerting.attack import of_alert
from veilwatch.detection.alerting.policy import raise_alerts, severity
from veilwatch.errors import VeilwatchError
from veilwatch.schema.alerts import Tunnel
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.flow_facts import flow_facts
from veilwatch.schema.scores import UNKNOWN_FAMILY, Reason, ScoreFrame


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (0.5, 0.5, 3),
        (0.79, 0.5, 3),
        (0.81, 0.5, 2),
        (0.96, 0.5, 1),
        (0.9991, 0.999, 3),
        (0.99999, 0.999, 1),
        (0.02, 0.001, 1),
        (1.0, 1.0, 3),
        (1.0, 0.9, 1),
        (0.0, 0.0, 3),
    ],
)
def test_severity_compares_odds(score: float, threshold: float, expected: int) -> None:
    assert severity(score, threshold) == expected


def small() -> tuple[ScoreFrame, CaptureReport]:
    flows = factory.flow_frame(
        5,
        flow_id=[11, 12, 13, 14, 15],
        source=[0, 0, 1, 1, 0],
        first_ns=[5, 4, 3, 2, 1],
        last_ns=[50, 40, 30, 20, 10],
        src_ip=["10.0.0.1", "10.0.0.1", "10.0.0.3", "10.0.0.2", "fd00::1"],
        dst_ip=["203.0.113.1"] * 4 + ["fd00::2"],
        protocol=[6, 17, 6, 6, 58],
        tls_sni=["a.example", "", "", "", ""],
        dns_query=["", "b.example", "", "", ""],
        service=["tls", "", "tls", "", ""],
        gtp_depth=[1, 0, 1, 0, 0],
        fwd_teid=[0xFFFFFFFF, 0, 7, 0, 0],
        fwd_packets=[9] * 5,
        bwd_packets=[9] * 5,
        fwd_payload_bytes=[400] * 5,
        bwd_payload_bytes=[900] * 5,
        fwd_qfi=[255, 255, 5, 255, 255],
        bwd_qfi=[9, 255, 6, 255, 255],
        outer_src_ip=["192.0.2.1", "", "192.0.2.1", "", ""],
        outer_dst_ip=["192.0.2.2", "", "192.0.2.2", "", ""],
    ).with_columns(
        subscriber=pl.Series(["s1", "s1", "", "", ""]),
        score=pl.Series([0.7, 0.9, 0.8, 0.2, 0.95], dtype=pl.Float32),
        alert=pl.Series([True, True, True, False, False]),
    )
    hosts = pl.DataFrame(
        {
            "host": ["10.0.0.1", "10.0.0.3", "10.0.0.2"],
            "subscriber": ["s1", "", ""],
            "flows": [2, 1, 1],
            "alerts": [2, 1, 0],
            "first_ns": [4, 3, 2],
            "last_ns": [50, 30, 20],
            "score": pl.Series([0.6, 0.9, 0.1], dtype=pl.Float32),
            "flow_score": pl.Series([0.75, 0.9, 0.1], dtype=pl.Float32),
            "channel_score": pl.Series([0.25, None, None], dtype=pl.Float32),
            "window_score": pl.Series([0.5, None, None], dtype=pl.Float32),
            "alert": [True, True, False],
            "family": ["LockBit", "unknown malware", ""],
            "family_probability": [0.75, 0.25, 0.0],
            "probability": [0.5, 0.25, 0.0],
        }
    )
    reasons = {12: [Reason("x", 1.0, 2.0, "worst flow")], 13: [Reason("x", 1.0, 2.0, "because")]}
    heard = [
        Reason("w", 1.0, 0.5, "203.0.113.7:443/TCP: self-signed"),
        Reason("y", 1.0, -3.0, "Host: busy"),
        Reason("z", 1.0, 1.0, "Host: late"),
    ]
    scores = ScoreFrame(flows, hosts, 0.6, 0.5, reasons, {("10.0.0.1", "s1"): heard})
    return scores, CaptureReport([FileReport("a.pcap"), FileReport("b.pcap")])


def test_families_known_as_ransomware_are_called_so() -> None:
    scores, captures = small()
    alerts = raise_alerts(scores, captures=captures, emulated=False, ransomware={"LockBit"})
    assert {a.family for a in alerts if a.ransomware} == {"LockBit"}
    assert any(a.kind == "flow" and a.ransomware for a in alerts)
    assert not all(a.ransomware for a in alerts)


def test_hosts_come_first_then_flows_each_by_score() -> None:
    scores, captures = small()
    alerts = raise_alerts(scores, captures=captures, emulated=False)
    assert [(a.kind, a.flow_id) for a in alerts] == [
        ("host", 13),
        ("host", 12),
        ("flow", 12),
        ("flow", 13),
        ("flow", 11),
    ]


def test_an_alert_carries_the_facts_of_its_flow() -> None:
    scores, captures = small()
    by_flow = {
        a.flow_id: a
        for a in raise_alerts(scores, captures=captures, emulated=True)
        if a.kind == "flow"
    }
    assert [by_flow[i].application for i in (11, 12, 13)] == ["a.example", "b.example", "tls"]
    # A flow is called what its host is called: one address in two captures is two hosts.
    assert [by_flow[i].family for i in (11, 12, 13)] == ["LockBit", "LockBit", "unknown malware"]
    assert by_flow[13].reasons[0].text == "because" and by_flow[11].reasons == ()
    assert by_flow[13].capture == "b.pcap" and by_flow[11].capture == "a.pcap"
    assert by_flow[12].tunnel is None
    assert by_flow[11].tunnel == Tunnel("192.0.2.1", "192.0.2.2", 0xFFFFFFFF, 0, 9, 1)
    tunnel = by_flow[13].tunnel
    assert tunnel is not None and tunnel.qfi == 5
    assert all(a.emulated for a in by_flow.values())
    assert by_flow[11].threshold == 0.6


def test_a_host_alert_points_at_its_own_best_flow_and_family() -> None:
    scores, captures = small()
    second, first = sorted(
        (a for a in raise_alerts(scores, captures=captures, emulated=False) if a.kind == "host"),
        key=lambda a: a.score,
    )
    # Same address in two captures: two hosts that must not be mixed.
    assert (first.flow_id, first.family, first.subscriber) == (13, "unknown malware", "")
    assert (second.flow_id, second.family, second.subscriber) == (12, "LockBit", "s1")
    assert (second.first_ns, second.last_ns) == (4, 50)
    assert (first.family_probability, second.family_probability) == (0.25, 0.75)
    assert second.evidence == {
        "flows": 2,
        "alerts": 2,
        "probability": 0.5,
        "flow_score": 0.75,
        "channel_score": 0.25,
        "window_score": 0.5,
    }
    # Channels and windows were not judged of the other one.
    assert first.evidence == {"flows": 1, "alerts": 1, "probability": 0.25}
    # The channel first, as weak as its reason may be: an analyst can go and look at it.
    assert [reason.text for reason in second.reasons] == [
        *("203.0.113.7:443/TCP: self-signed", "Host: busy", "worst flow", "Host: late")
    ]
    assert [reason.text for reason in first.reasons] == ["because"]
    assert second.threshold == 0.5


def test_subscribers_with_one_address_stay_apart() -> None:
    scores, captures = small()
    flows = scores.flows.with_columns(
        src_ip=pl.lit("10.0.0.1"), subscriber=pl.Series(["s1", "s2", "s1", "s3", "s4"])
    )
    hosts = scores.hosts.with_columns(
        host=pl.lit("10.0.0.1"), subscriber=pl.Series(["s1", "s2", "s3"])
    )
    alerts = raise_alerts(
        dataclasses.replace(scores, flows=flows, hosts=hosts), captures=captures, emulated=False
    )
    assert {(a.subscriber, a.flow_id) for a in alerts if a.kind == "host"} == {
        ("s1", 13),
        ("s2", 12),
    }


def test_an_alerted_host_is_never_dropped_silently() -> None:
    scores, captures = small()
    hosts = scores.hosts.with_columns(host=pl.lit("10.9.9.9"))
    with pytest.raises(VeilwatchError, match=r"10\.9\.9\.9"):
        raise_alerts(dataclasses.replace(scores, hosts=hosts), captures=captures, emulated=False)


def test_every_alerted_row_of_a_large_run_has_one_alert() -> None:
    scene = factory.scene()
    flows = scene.scores.flows.filter("alert")["flow_id"].to_list()
    hosts = scene.scores.hosts.filter("alert").height
    assert sorted(a.flow_id for a in scene.alerts if a.kind == "flow") == sorted(flows)
    assert sum(a.kind == "host" for a in scene.alerts) == hosts == 3


def test_no_flows_no_alerts() -> None:
    scene = factory.empty_scene()
    assert raise_alerts(scene.scores, captures=scene.captures, emulated=False) == []


ONE_WAY = {"bwd_packets": 0, "bwd_payload_bytes": 0}
THIN: dict[str, dict[str, int | str]] = {
    "a ping of one packet": {"protocol": 1, "fwd_packets": 1, **ONE_WAY},
    "a ping for hours": {"protocol": 1, "fwd_packets": 900, "bwd_packets": 900},
    "an IPv6 ping": {"protocol": 58, "fwd_packets": 4, "bwd_packets": 4},
    "a single SYN": {"protocol": 6, "fwd_packets": 1, "fwd_payload_bytes": 0, **ONE_WAY},
    "a refused connection": {
        "protocol": 6,
        "fwd_packets": 3,
        "bwd_packets": 3,
        "fwd_payload_bytes": 0,
        "bwd_payload_bytes": 0,
    },
    "a SYN with data that nobody answered": {"protocol": 6, "fwd_packets": 5, **ONE_WAY},
    "a DNS lookup": {"protocol": 17, "service": "dns", "fwd_packets": 1, "bwd_packets": 1},
    "DNS over TCP": {"protocol": 6, "service": "dns", "fwd_packets": 6, "bwd_packets": 5},
    "NTP for hours": {"protocol": 17, "service": "ntp", "fwd_packets": 90, "bwd_packets": 90},
    "a datagram and its answer": {"protocol": 17, "fwd_packets": 1, "bwd_packets": 1},
    "an empty flow": {"fwd_packets": 0, "fwd_payload_bytes": 0, **ONE_WAY},
}


@pytest.mark.parametrize("name", THIN)
def test_what_holds_no_conversation_is_low_and_of_no_family(name: str) -> None:
    scores, captures = small()
    types = scores.flows.schema
    thin = scores.flows.with_columns(
        pl.lit(value, types[column]).alias(column) for column, value in THIN[name].items()
    ).with_columns(pl.lit(0.9999, pl.Float32).alias("score"))
    hosts = scores.hosts.with_columns(pl.lit(0.9999, pl.Float32).alias("score"))
    scores = dataclasses.replace(scores, flows=thin, hosts=hosts)
    alerts = raise_alerts(scores, captures=captures, emulated=False, ransomware=["LockBit"])
    assert {alert.kind for alert in alerts} == {"host", "flow"}
    flows = {flow.flow_id: flow for flow in flow_facts(thin)}
    for alert in alerts:
        assert (alert.thin, alert.severity, alert.ransomware) == (True, 3, False)
        assert alert.family in ("", UNKNOWN_FAMILY) and not alert.family_probability
        assert "T1486" not in of_alert(alert, flows[alert.flow_id])
    # What a host does at large tells something, whatever its flows hold.
    busy = dataclasses.replace(scores, hosts=hosts.with_columns(flows=pl.lit(5000)))
    first = raise_alerts(busy, captures=captures, emulated=False)[0]
    assert (first.kind, first.thin, first.severity) == ("host", False, 1)


def test_a_conversation_among_pings_speaks_for_its_host() -> None:
    scores, captures = small()
    ping = pl.col("flow_id") == 12
    flows = scores.flows.with_columns(
        protocol=pl.when(ping).then(pl.lit(1, pl.UInt8)).otherwise("protocol")
    )
    alerts = raise_alerts(
        dataclasses.replace(scores, flows=flows), captures=captures, emulated=False
    )
    assert {a.flow_id: a.thin for a in alerts if a.kind == "flow"} == {
        12: True,
        13: False,
        11: False,
    }
    assert [a.thin for a in alerts if a.kind == "host"] == [False, False]


def test_alerts_are_bounded_and_no_host_hides_another() -> None:
    scores, captures = small()
    busy = pl.concat([scores.flows.filter(flow_id=12)] * 6).with_columns(
        flow_id=pl.Series(range(20, 26), dtype=scores.flows.schema["flow_id"]),
        score=pl.Series([0.99, 0.98, 0.97, 0.96, 0.95, 0.94], dtype=pl.Float32),
    )
    crowded = dataclasses.replace(scores, flows=pl.concat([scores.flows, busy]))
    alerts = raise_alerts(crowded, captures=captures, emulated=False, most=2)
    assert [(a.kind, a.host) for a in alerts][:2] == [("host", "10.0.0.3"), ("host", "10.0.0.1")]
    told = [a for a in alerts if a.kind == "flow"]
    assert [a.flow_id for a in told][:1] == [20] and len({a.host for a in told}) == 2
    one = raise_alerts(crowded, captures=captures, emulated=False, most=1)
    assert [(a.kind, a.flow_id) for a in one] == [("host", 13), ("flow", 20)]
    # A flow is called what its host is called, though the host's own alert is left out.
    assert one[1].family == "LockBit"
    assert raise_alerts(crowded, captures=captures, emulated=False, most=0) == []
