"""Believable results to draw reports from, hostile names included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from veilwatch.detection.alerting.policy import raise_alerts
from veilwatch.schema.alerts import Alert
from veilwatch.schema.captures import CaptureReport, FileReport
from veilwatch.schema.flows import FLOW_COLUMNS, SEQUENCE_LENGTH
from veilwatch.schema.scores import Reason, ScoreFrame

START_NS = 1_780_303_200 * 10**9  # 2026-06-01 08:40 UTC
SECOND = 10**9

HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "[red]bold[/red] [link=http://evil.example]x[/link]",
    "two\nlines\r\nand\ttabs",
    "\u202egnp.exe\u202c.example",
    '"><img src=http://evil.example/x onerror=alert(1)>',
    "</style><style>@import url(http://evil.example/a.css)</style>",
    "\x1b[31mred\x1b[0m",
    "{{ 7*7 }}{% raw %}",
    "zero\u200bwidth\u2028line",
    "x" * 4000,
    "病院.example",
)

_ARRAYS = {
    "seq_size": pl.Int16,
    "seq_payload": pl.UInt16,
    "seq_gap_us": pl.UInt32,
    "seq_flags": pl.UInt8,
}


def schema() -> dict[str, Any]:
    """Every column of the flow contract with its full type."""
    return {
        column.name: pl.Array(_ARRAYS[column.name], SEQUENCE_LENGTH)
        if column.name in _ARRAYS
        else column.dtype
        for column in FLOW_COLUMNS
    }


def _default(dtype: Any, height: int) -> pl.Series:
    if isinstance(dtype, pl.Array):
        return pl.Series([[0] * SEQUENCE_LENGTH] * height, dtype=dtype)
    if isinstance(dtype, pl.List):
        return pl.Series([[]] * height, dtype=dtype)
    if dtype == pl.String:
        return pl.Series([""] * height, dtype=dtype)
    if dtype == pl.Boolean:
        return pl.Series([False] * height, dtype=dtype)
    return pl.Series([0] * height, dtype=dtype)


def flow_frame(height: int, **columns: Any) -> pl.DataFrame:
    """Return a frame of the whole flow contract: `columns` as given, the others 0 or empty."""
    named = {
        name: pl.Series(columns[name]).cast(dtype) if name in columns else _default(dtype, height)
        for name, dtype in schema().items()
    }
    return pl.DataFrame(named)


@dataclass
class Scene:
    """Everything that a report is made of."""

    captures: CaptureReport
    balance: dict[str, int]
    scores: ScoreFrame
    alerts: list[Alert]
    manifest: dict[str, Any]
    emulated: bool = True
    evaluation: dict[str, Any] | None = None


def reasons(flow_id: int, rng: np.random.Generator) -> list[Reason]:
    """Reasons as a detector words them."""
    beat = float(rng.uniform(25, 65))
    size = float(rng.integers(180, 540))
    return [
        Reason(
            "pause_mean",
            beat,
            2.31 + flow_id % 7 / 10,
            f"mean pause {beat:.1f} s (usual benign range 1.2–9.8 s)",
        ),
        Reason("pause_std", 0.4, 1.62, "deviation of pauses 0.4 s (usual benign range 2.0–31 s)"),
        Reason(
            "tls_client_hello_bytes",
            size,
            0.94,
            f"ClientHello of {size:.0f} bytes (usual benign range 512–1,890 bytes)",
        ),
        Reason(
            "fwd_payload_std",
            12.0,
            0.55,
            "deviation of sent payload 12 bytes (usual benign range 96–610 bytes)",
        ),
        Reason(
            "cert_chain_bytes",
            float("nan"),
            0.2,
            "certificate chain does not apply (usual benign range 2,100–5,300 bytes)",
        ),
        Reason(
            "bwd_bytes",
            48213.0,
            -0.73,
            "received 48,213 bytes (usual benign range 3,900–220,000 bytes)",
        ),
    ]


def scene(
    *,
    benign_hosts: int = 26,
    infected_hosts: int = 3,
    flows_per_host: int = 60,
    hostile: bool = False,
    alerts: bool = True,
    seed: int = 7,
    minutes: int = 42,
    emulated: bool = True,
) -> Scene:
    """Make one run: benign clients, infected ones that beacon, a few false alarms left out."""
    rng = np.random.default_rng(seed)
    hosts = benign_hosts + infected_hosts
    height = hosts * flows_per_host
    host = np.repeat(np.arange(hosts), flows_per_host)
    infected = host >= benign_hosts
    bad = infected & (rng.random(height) < 0.35)
    benign_service = rng.choice(
        ["tls", "tls", "tls", "quic", "quic", "dns", "http", "ssh", ""], height
    )
    service = np.where(bad, "tls", benign_service)
    names = np.array(
        [
            "mail.clinic.example",
            "cdn.maps.example",
            "video.example",
            "update.os.example",
            "api.chat.example",
            "news.example",
        ]
    )
    c2 = np.array(["telemetry-sync.example", "static-assets.top", "", "a9f3kd02x.example"])
    sni = np.where(
        np.isin(service, ["tls", "quic"]),
        np.where(bad, rng.choice(c2, height), rng.choice(names, height)),
        "",
    ).astype(object)
    if hostile:
        where = np.flatnonzero(bad)
        for i, row in enumerate(where):
            sni[row] = HOSTILE_NAMES[i % len(HOSTILE_NAMES)]
    offset = rng.random(height)
    # Infections start one after another; their flows come in beacons after that.
    begin = 0.2 + 0.6 * (host - benign_hosts) / max(infected_hosts, 1)
    offset = np.where(bad, begin + (1 - begin) * offset, offset)
    first = START_NS + (offset * minutes * 60 * SECOND).astype(np.int64)
    duration = (rng.lognormal(1.2, 1.0, height) * SECOND).astype(np.int64)
    score = np.where(bad, 1 - rng.beta(1, 40, height), rng.beta(1.0, 60.0, height))
    threshold, host_threshold = 0.62, 0.55
    if not alerts:
        score = np.minimum(score, 0.5)
    alerted = score >= threshold
    port = np.select(
        [service == "dns", service == "http", service == "ssh", bad & (host % 2 == 0)],
        [53, 80, 22, 8447],
        443,
    )
    up = rng.lognormal(7.5, 1.1, height).astype(np.int64)
    down = rng.lognormal(9.2, 1.6, height).astype(np.int64)
    exfiltration = bad & (rng.random(height) < 0.1)
    up = np.where(exfiltration, 6_000_000, up)
    frame = flow_frame(
        height,
        flow_id=np.arange(1, height + 1),
        first_ns=first,
        last_ns=first + duration,
        src_ip=[f"10.45.{h // 200}.{h % 200 + 2}" for h in host],
        src_port=rng.integers(32768, 60999, height),
        dst_ip=[
            f"203.0.113.{r}"
            for r in np.where(bad, rng.integers(7, 11, height), rng.integers(20, 200, height))
        ],
        dst_port=port,
        protocol=np.where(np.isin(service, ["quic", "dns"]), 17, 6),
        ip_version=np.full(height, 4),
        gtp_depth=np.ones(height),
        fwd_teid=0x1000 + host,
        bwd_teid=0x9000 + host,
        fwd_qfi=np.where(host % 3 == 0, 255, 9),
        bwd_qfi=np.full(height, 255),
        gtp_direction=["uplink"] * height,
        outer_src_ip=[f"192.0.2.{10 + h % 2}" for h in host],
        outer_dst_ip=["192.0.2.100"] * height,
        service=service.astype(str),
        tls_sni=sni.tolist(),
        dns_query=np.where(service == "dns", "www.example", "").astype(str),
        tls_version=np.where(service == "tls", 0x0304, 0),
        tls_alpn=[
            ["h2", "http/1.1"] if s == "tls" and not b else []
            for s, b in zip(service, bad, strict=True)
        ],
        ja3=np.where(service == "tls", "e7d705a3286e19ea42f587b344ee6865", "").astype(str),
        ja4=np.where(service == "tls", "t13d1516h2_8daaf6152771_02713d6af862", "").astype(str),
        fwd_packets=up // 900 + 3,
        bwd_packets=down // 1200 + 3,
        fwd_bytes=up + 300,
        bwd_bytes=down + 300,
        fwd_payload_bytes=up,
        bwd_payload_bytes=down,
    ).with_columns(
        score=pl.Series(score, dtype=pl.Float32),
        alert=pl.Series(alerted, dtype=pl.Boolean),
        subscriber=pl.Series([f"sub-{(h * 2654435761) % 2**32:08x}" for h in host]),
    )
    host_frame = (
        frame.group_by(pl.col("src_ip").alias("host"), "subscriber")
        .agg(
            pl.len().cast(pl.Int64).alias("flows"),
            pl.col("alert").sum().cast(pl.Int64).alias("alerts"),
            pl.col("first_ns").min(),
            pl.col("last_ns").max(),
            pl.col("score").top_k(3).mean().cast(pl.Float32),
        )
        .with_columns(alert=(pl.col("score") >= host_threshold) & (pl.col("alerts") > 0))
        .sort("host")
    )
    known = ("LockBit-like", "Conti-like", "BlackCat-like")
    host_frame = host_frame.with_columns(
        family=pl.when("alert")
        .then(pl.Series([known[k % 3] for k in range(host_frame.height)], dtype=pl.String))
        .otherwise(pl.lit("")),
        family_probability=pl.when("alert").then(0.75).otherwise(0.0),
        probability=pl.when("alert").then(0.5).otherwise(0.0),
        flow_score=pl.col("score"),
        channel_score=pl.lit(None, pl.Float32),
        window_score=pl.lit(None, pl.Float32),
    )
    alerted_ids = frame.filter("alert")["flow_id"].to_list()
    scores = ScoreFrame(
        frame,
        host_frame,
        threshold,
        host_threshold,
        {flow_id: reasons(flow_id, rng) for flow_id in alerted_ids},
    )
    packets = int(frame["fwd_packets"].sum()) + int(frame["bwd_packets"].sum())
    captures = CaptureReport(
        [
            FileReport(
                "captures/n3-mirror-0840.pcapng.gz",
                "pcapng+gzip",
                packets + 521,
                packets * 700,
                START_NS,
                START_NS + minutes * 60 * SECOND,
                [1],
                2,
                comments=["synthetic GTP-U wrapping"],
            ),
            FileReport(
                "captures/n3-mirror-0922.pcap",
                "pcap",
                0,
                24,
                None,
                None,
                [1],
                0,
                fault="cut inside the record at offset 24",
            ),
        ]
    )
    return Scene(
        captures=captures,
        balance={
            "OK": packets,
            "NOT_IP": 312,
            "LATER_FRAGMENT": 148,
            "TUNNEL_PAYLOAD": 61,
            "gtp_g_pdu": packets,
            "gtp_echo_request": 40,
            "gtp_echo_response": 40,
            "gtp_end_marker": 6,
            "gtp_error_indication": 1,
            "vlan_tagged": 9,
        },
        scores=scores,
        alerts=raise_alerts(scores, captures=captures, emulated=emulated),
        manifest=manifest(),
        emulated=emulated,
        evaluation=evaluation(),
    )


def empty_scene() -> Scene:
    """A run whose capture held no packet."""
    full = scene(benign_hosts=1, infected_hosts=1, flows_per_host=2)
    scores = ScoreFrame(full.scores.flows.clear(), full.scores.hosts.clear(), 0.62, 0.55)
    captures = CaptureReport([FileReport("empty.pcap", "pcap", 0, 24)])
    return Scene(captures, {}, scores, [], full.manifest, emulated=False)


def evaluation() -> dict[str, Any]:
    """An evaluation as `veilwatch evaluate --json` writes it, with curves."""

    def section(positive: int, negative: int, auc: float) -> dict[str, Any]:
        fpr = np.concatenate([[0], np.logspace(-4, 0, 40)])
        return {
            "n_positive": positive,
            "n_negative": negative,
            "roc_auc": auc,
            "average_precision": auc - 0.012,
            "detection_rate_at_fpr": {"0.1": 0.981, "0.01": 0.93, "0.001": 0.71},
            "detection_rate": 0.88,
            "false_positive_rate": 0.0031,
            "curve": {
                "false_positive_rate": fpr.tolist(),
                "detection_rate": (fpr ** ((1 - auc) / auc * 3)).tolist(),
            },
        }

    return {
        "flow": section(4210, 18_340, 0.961),
        "flow_tls": section(1380, 9_120, 0.988),
        "capture": section(62, 71, 0.973),
        "families": {
            "LockBit-like": {"n": 640, "detection_rate": 0.95},
            "Conti-like": {"n": 512, "detection_rate": 0.81},
            "<b>BlackCat</b>": {"n": 88, "detection_rate": 0.42},
        },
    }


def manifest() -> dict[str, Any]:
    """A model's manifest as training writes it."""
    return {
        "name": "lightgbm-statistics",
        "detector": "lightgbm",
        "created": "2026-05-30T11:02:03Z",
        "thresholds": {"flow": 0.62, "host": 0.55},
        "target_fpr": 0.001,
        "features": {
            "set": "statistics+sequence",
            "version": 1,
            "count": 214,
            "hash": "9f2c4f0a17be33d1",
        },
        "training": {"captures": 133, "flows": 41_220, "families": 11, "split": "by capture"},
        "held_out": evaluation(),
    }
