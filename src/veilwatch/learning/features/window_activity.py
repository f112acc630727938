"""Features of a host window over its flows: volume, pace, failures, fan-out, services, shares."""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, feature, ratio
from veilwatch.learning.features.windows import LATERAL, network
from veilwatch.schema.flows import FILE_MESSAGES, TcpState

SLOT_S: Final = 10
NAMED_SERVICES: Final = ("tls", "quic", "dns", "http", "ssh", "netbios", *LATERAL)
"""Services whose share of a window's flows is a feature."""

IS_TCP: Final = pl.col("protocol") == 6
IS_UDP: Final = pl.col("protocol") == 17
IS_ICMP: Final = pl.col("protocol").is_in([1, 58])
ANSWERED: Final = pl.col("bwd_packets") > 0
HAS_PAYLOAD: Final = pl.col("fwd_payload_bytes") + pl.col("bwd_payload_bytes") > 0
IS_LATERAL: Final = pl.col("service").is_in(LATERAL)
REQUESTS: Final = tuple(f"file_{kind}" for kind in FILE_MESSAGES if kind not in ("error",))
SHARES_FILES: Final = pl.sum_horizontal(REQUESTS) > 0
"""Whether a flow carries messages of SMB or NFS."""

FLOWS: Final = pl.len()


def _share(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return ratio(part, whole)


def _established() -> pl.Expr:
    return pl.col("tcp_state").and_(TcpState.ESTABLISHED) > 0


def _refused() -> pl.Expr:
    return (pl.col("bwd_rst") > 0) & (pl.col("bwd_payload_packets") == 0)


def entropy(value: pl.Expr) -> pl.Expr:
    """Return the Shannon entropy of how often each value occurs, bit."""
    return value.unique_counts().entropy(base=2, normalize=True)


_VOLUME: Final = (
    feature("flows", FLOWS, "", "Flows"),
    feature("tcp_share", IS_TCP.mean(), "", "Share of TCP flows"),
    feature("udp_share", IS_UDP.mean(), "", "Share of UDP flows"),
    feature("icmp_share", IS_ICMP.mean(), "", "Share of ICMP and ICMPv6 flows"),
    feature(
        "packets",
        (pl.col("fwd_packets").cast(pl.Int64) + pl.col("bwd_packets")).sum(),
        "packets",
        "Packets both ways",
    ),
    feature("bytes_up", pl.col("up").sum(), "bytes", "IP bytes sent by the host"),
    feature("bytes_down", pl.col("down").sum(), "bytes", "IP bytes sent to the host"),
    feature(
        "up_share",
        _share(pl.col("up").sum(), (pl.col("up") + pl.col("down")).sum()),
        "",
        "Share of IP bytes sent by the host",
    ),
    feature(
        "payload_up_share",
        _share(
            pl.col("fwd_payload_bytes").sum(),
            pl.col("fwd_payload_bytes").sum() + pl.col("bwd_payload_bytes").sum(),
        ),
        "",
        "Share of payload bytes sent by the host",
    ),
    feature(
        "largest_upload_share",
        _share(pl.col("up").max(), pl.col("up").sum()),
        "",
        "Share of the host's bytes in the flow that sent most",
    ),
    feature(
        "flow_bytes_mean", (pl.col("up") + pl.col("down")).mean(), "bytes", "Mean IP bytes of flows"
    ),
    feature(
        "flow_bytes_variation",
        _share((pl.col("up") + pl.col("down")).std(ddof=0), (pl.col("up") + pl.col("down")).mean()),
        "",
        "Deviation of the flows' IP bytes over their mean",
    ),
    feature(
        "flow_seconds_mean",
        ((pl.col("last_ns") - pl.col("first_ns")) / 1e9).mean(),
        "s",
        "Mean duration of flows",
    ),
    feature(
        "flow_seconds_max",
        ((pl.col("last_ns") - pl.col("first_ns")) / 1e9).max(),
        "s",
        "Longest duration of a flow",
    ),
)

_PACE: Final = (
    feature(
        "active_span",
        pl.col("start").max() - pl.col("start").min(),
        "s",
        "First to last start of a flow",
    ),
    feature("start_gap_mean", pl.col("gap").mean(), "s", "Mean gap between starts of flows"),
    feature("start_gap_max", pl.col("gap").max(), "s", "Longest gap between starts of flows"),
    feature(
        "start_gap_variation",
        _share(pl.col("gap").std(ddof=0), pl.col("gap").mean()),
        "",
        "Deviation of gaps between starts over their mean",
    ),
    feature(
        "busiest_share",
        (pl.col("start") // SLOT_S).unique_counts().max() / FLOWS,
        "",
        "Share of flows that start in the busiest 10 s",
    ),
    feature(
        "equal_exchanges_share",
        1
        - _share(
            pl.struct("fwd_payload_bytes", "bwd_payload_bytes").filter(HAS_PAYLOAD).n_unique(),
            HAS_PAYLOAD.sum(),
        ),
        "",
        "Share of flows with payload whose payload both ways equals that of another one before",
    ),
    feature(
        "equal_uploads_share",
        1 - _share(pl.col("fwd_payload_bytes").filter(HAS_PAYLOAD).n_unique(), HAS_PAYLOAD.sum()),
        "",
        "Share of flows with payload that send as many bytes as another one before",
    ),
)

_FAILURES: Final = (
    feature("unanswered_share", (~ANSWERED).mean(), "", "Share of flows without an answer"),
    feature(
        "tcp_unanswered_share",
        (~ANSWERED).filter(IS_TCP).mean(),
        "",
        "Share of TCP flows without an answer",
    ),
    feature(
        "refused_share",
        _refused().filter(IS_TCP).mean(),
        "",
        "Share of TCP flows that the responder reset before it sent payload",
    ),
    feature(
        "aborted_share",
        (pl.col("fwd_rst") > 0).filter(IS_TCP).mean(),
        "",
        "Share of TCP flows that the host reset",
    ),
    feature(
        "established_share",
        _established().filter(IS_TCP).mean(),
        "",
        "Share of TCP flows whose handshake was completed",
    ),
    feature(
        "retries_mean",
        (pl.col("fwd_syn").cast(pl.Int64) - 1).clip(0).filter(IS_TCP).mean(),
        "",
        "Mean repeated SYNs of TCP flows",
    ),
    feature(
        "one_packet_share",
        (pl.col("fwd_packets") + pl.col("bwd_packets") == 1).mean(),
        "",
        "Share of flows of a single packet",
    ),
    feature("silent_share", (~HAS_PAYLOAD).mean(), "", "Share of flows without payload"),
)

_FAN_OUT: Final = (
    feature("destinations", pl.col("dst_ip").n_unique(), "", "Distinct destinations"),
    feature(
        "destinations_per_flow", pl.col("dst_ip").n_unique() / FLOWS, "", "Destinations per flow"
    ),
    feature("destination_entropy", entropy(pl.col("dst_ip")), "bit", "Entropy of destinations"),
    feature(
        "top_destination_share",
        pl.col("dst_ip").unique_counts().max() / FLOWS,
        "",
        "Share of flows to the destination with most of them",
    ),
    feature("networks", network().n_unique(), "", "Distinct networks of destinations (/24, /48)"),
    feature(
        "networks_per_destination",
        network().n_unique() / pl.col("dst_ip").n_unique(),
        "",
        "Networks per destination: low where one network is swept",
    ),
    feature("ports", pl.col("dst_port").n_unique(), "", "Distinct ports of destinations"),
    feature("ports_per_flow", pl.col("dst_port").n_unique() / FLOWS, "", "Ports per flow"),
    feature(
        "top_port_share",
        pl.col("dst_port").unique_counts().max() / FLOWS,
        "",
        "Share of flows to the port with most of them",
    ),
    # In the host's first window everything is new.
    feature(
        "new_destinations",
        pl.when(pl.col("window").first() > 0).then(
            pl.col("dst_ip").filter(pl.col("is_new")).n_unique()
        ),
        "",
        "Destinations that the host had not talked to in an earlier window",
    ),
    feature(
        "new_destination_share",
        pl.when(pl.col("window").first() > 0).then(pl.col("is_new").mean()),
        "",
        "Share of flows to destinations that the host had not talked to in an earlier window",
    ),
)

_SERVICES: Final = (
    *[
        feature(
            f"{name}_share", (pl.col("service") == name).mean(), "", f"Share of flows like {name}"
        )
        for name in NAMED_SERVICES
    ],
    feature(
        "unknown_share",
        ((pl.col("service") == "") & HAS_PAYLOAD).mean(),
        "",
        "Share of flows whose payload looks like nothing known",
    ),
    feature(
        "unknown_entropy",
        pl.col("fwd_prefix_entropy")
        .filter((pl.col("service") == "") & pl.col("fwd_prefix_entropy").is_finite())
        .mean(),
        "bit",
        "Mean entropy of the first bytes the host sent in flows that look like nothing known",
    ),
    feature("services", pl.col("service").n_unique(), "", "Distinct services"),
    feature(
        "lateral_destinations",
        pl.col("dst_ip").filter(IS_LATERAL).n_unique(),
        "",
        "Destinations of SMB, RDP, DCE/RPC, LDAP or Kerberos",
    ),
    feature(
        "lateral_services",
        pl.col("service").filter(IS_LATERAL).n_unique(),
        "",
        "How many of SMB, RDP, DCE/RPC, LDAP and Kerberos were spoken",
    ),
)


def _messages(*kinds: str) -> pl.Expr:
    """Return how many messages of some kinds the window's flows carry."""
    return pl.sum_horizontal(f"file_{kind}" for kind in kinds).cast(pl.Int64).sum()


def _where_shared(value: pl.Expr) -> pl.Expr:
    """Null in windows without SMB and NFS."""
    return pl.when(SHARES_FILES.any()).then(value)


_FILES: Final = (
    *[
        feature(f"file_{kind}", _where_shared(_messages(kind)), "", f"SMB and NFS messages: {kind}")
        for kind in FILE_MESSAGES
    ],
    feature(
        "file_servers",
        _where_shared(pl.col("dst_ip").filter(SHARES_FILES).n_unique()),
        "",
        "Destinations of flows with SMB or NFS messages",
    ),
    feature(
        "file_write_share",
        _share(_messages("write"), _messages("read", "write")),
        "",
        "Share of writes among reads and writes of files",
    ),
    feature(
        "file_rewriting",
        _share(
            pl.min_horizontal(_messages("read"), _messages("write")),
            pl.max_horizontal(_messages("read"), _messages("write")),
        ),
        "",
        "The fewer of reads and writes over the more: near 1 where files are read and rewritten",
    ),
    feature(
        "file_changes_per_open",
        _share(_messages("change"), _messages("open")),
        "",
        "Renames, deletions and changes of attributes per opened file",
    ),
    feature(
        "file_messages_rate",
        _where_shared(
            _share(
                pl.sum_horizontal(REQUESTS).cast(pl.Int64).sum(),
                ((pl.col("last_ns") - pl.col("first_ns")) / 1e9).filter(SHARES_FILES).sum(),
            )
        ),
        "1/s",
        "SMB and NFS messages per second of the flows that carry them",
    ),
    feature(
        "file_up_share",
        _share(
            pl.col("fwd_payload_bytes").filter(SHARES_FILES).sum(),
            (pl.col("fwd_payload_bytes") + pl.col("bwd_payload_bytes")).filter(SHARES_FILES).sum(),
        ),
        "",
        "Share of payload sent by the host in flows with SMB or NFS messages",
    ),
)

_PLACE: Final = (
    feature(
        "time_of_day",
        pl.from_epoch(pl.col("first_ns").min(), "ns").dt.hour(),
        "h",
        "Hour of the window's first flow in UTC",
        shortcut=True,
    ),
    feature(
        "well_known_port_share",
        (pl.col("dst_port") < 1024).filter(IS_TCP | IS_UDP).mean(),
        "",
        "Share of TCP and UDP flows to ports below 1024",
        shortcut=True,
    ),
    feature(
        "ip6_share", (pl.col("ip_version") == 6).mean(), "", "Share of IPv6 flows", shortcut=True
    ),
)

ACTIVITY: Final[tuple[Feature, ...]] = (
    *(*_VOLUME, *_PACE, *_FAILURES, *_FAN_OUT, *_SERVICES, *_FILES, *_PLACE),
)
"""Aggregations over the flows of a window, see `windows.window_flows`."""
