"""The feature set `statistics`: sizes, times, bursts, flags, windows and bytes of a whole flow.

The histograms of sizes and gaps in the flow table take no part: with them models fitted their
sources more closely and found less at low false-positive rates.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from veilwatch.learning.features.base import Feature, FeatureSet, feature, ratio
from veilwatch.learning.features.handshake import HANDSHAKE_FEATURES
from veilwatch.schema.flows import TcpState

DIRECTIONS: Final = (("fwd", "from the initiator"), ("bwd", "from the responder"))
TCP: Final = 6
UDP: Final = 17
ICMP: Final = (1, 58)
NO_WSCALE: Final = 255
"""Value of the window scale columns where the option was not seen."""


def _both(name: str) -> pl.Expr:
    return pl.col(f"fwd_{name}") + pl.col(f"bwd_{name}")


def _duration() -> pl.Expr:
    return (pl.col("last_ns") - pl.col("first_ns")) / 1e9


def _flow_features() -> list[Feature]:
    packets, octets, duration = _both("packets"), _both("bytes"), _duration()
    return [
        feature("is_tcp", pl.col("protocol") == TCP, "", "Transport is TCP"),
        feature("is_udp", pl.col("protocol") == UDP, "", "Transport is UDP"),
        feature("is_icmp", pl.col("protocol").is_in(ICMP), "", "Protocol is ICMP or ICMPv6"),
        feature("duration", duration, "s", "First to last packet"),
        feature("packets", packets, "packets", "Packets both ways"),
        feature("bytes", octets, "bytes", "IP bytes both ways"),
        feature("packet_rate", ratio(packets, duration), "1/s", "Packets per second"),
        feature("byte_rate", ratio(octets, duration), "bytes/s", "IP bytes per second"),
        feature(
            "fwd_packet_share",
            ratio(pl.col("fwd_packets"), packets),
            "",
            "Share of packets sent by the initiator",
        ),
        feature(
            "fwd_byte_share",
            ratio(pl.col("fwd_bytes"), octets),
            "",
            "Share of IP bytes sent by the initiator",
        ),
        feature(
            "fwd_payload_share",
            ratio(pl.col("fwd_payload_bytes"), _both("payload_bytes")),
            "",
            "Share of payload bytes sent by the initiator",
        ),
        feature("turns", pl.col("turns"), "", "Changes of the talking direction"),
        feature(
            "turn_share",
            ratio(pl.col("turns"), _both("payload_packets")),
            "",
            "Changes of the talking direction per payload packet",
        ),
        feature("pauses", pl.col("pauses"), "", "Silences longer than 1 s"),
        feature("pause_mean", pl.col("pause_mean"), "s", "Mean silence longer than 1 s"),
        feature("pause_std", pl.col("pause_std"), "s", "Deviation of silences longer than 1 s"),
        feature(
            "pause_regularity",
            ratio(pl.col("pause_std"), pl.col("pause_mean")),
            "",
            "Deviation of silences over their mean: low for a beacon",
        ),
        feature("answered", pl.col("bwd_packets") > 0, "", "The responder sent something"),
        feature(
            "first_answer",
            pl.col("bwd_start"),
            "s",
            "First packet of the responder after the flow's first",
        ),
        feature(
            "established",
            pl.col("tcp_state").and_(TcpState.ESTABLISHED) > 0,
            "",
            "The TCP handshake was completed",
        ),
        feature(
            "refused",
            (pl.col("bwd_rst") > 0) & (pl.col("bwd_payload_packets") == 0),
            "",
            "The responder reset the connection before sending any payload",
        ),
        feature(
            "syn_retries",
            (pl.col("fwd_syn").cast(pl.Int64) - 1).clip(0),
            "packets",
            "SYNs of the initiator after the first",
        ),
    ]


def _directed_features(side: str, words: str) -> list[Feature]:
    def column(name: str) -> pl.Expr:
        return pl.col(f"{side}_{name}")

    packets, payloads = column("packets"), column("payload_packets")
    seen = packets > 0
    out = [
        feature(f"{side}_{name}", column(name), unit, f"{doc} {words}")
        for name, unit, doc in (
            ("packets", "packets", "Packets"),
            ("bytes", "bytes", "IP bytes"),
            ("payload_packets", "packets", "Packets with payload"),
            ("payload_bytes", "bytes", "Payload bytes"),
            ("size_std", "bytes", "Deviation of IP lengths"),
            ("payload_max", "bytes", "Largest payload"),
            ("payload_std", "bytes", "Deviation of payload lengths"),
            ("duration", "s", "First to last packet"),
            ("gap_min", "s", "Shortest gap between packets"),
            ("gap_max", "s", "Longest gap between packets"),
            ("gap_mean", "s", "Mean gap between packets"),
            ("gap_std", "s", "Deviation of gaps between packets"),
            ("zero_windows", "packets", "Packets with a zero window"),
            ("retransmissions", "packets", "Retransmitted payload packets"),
            ("out_of_order", "packets", "Payload packets past a hole"),
            ("bursts", "", "Runs of payload packets without turn or pause"),
            ("burst_max_bytes", "bytes", "Payload of the largest run"),
            ("fin", "packets", "Packets with FIN"),
            ("rst", "packets", "Packets with RST"),
            ("psh", "packets", "Packets with PSH"),
            ("prefix_entropy", "bit", "Entropy of the first 64 payload bytes"),
            ("prefix_printable", "", "Printable share of the first 64 payload bytes"),
            ("prefix_zero", "", "Zero share of the first 64 payload bytes"),
        )
    ]
    first = column("first_payload")
    out += [
        feature(
            f"{side}_size_min",
            pl.when(seen).then(column("size_min")),
            "bytes",
            f"Smallest IP length {words}",
        ),
        feature(
            f"{side}_size_max",
            pl.when(seen).then(column("size_max")),
            "bytes",
            f"Largest IP length {words}",
        ),
        feature(
            f"{side}_size_mean", ratio(column("bytes"), packets), "bytes", f"Mean IP length {words}"
        ),
        feature(
            f"{side}_payload_mean",
            ratio(column("payload_bytes"), payloads),
            "bytes",
            f"Mean payload length {words}",
        ),
        feature(
            f"{side}_payload_packet_share",
            ratio(payloads, packets),
            "",
            f"Share of packets with payload {words}",
        ),
        feature(
            f"{side}_first_payload",
            pl.when(first > 0).then(first),
            "bytes",
            f"First payload {words}",
        ),
        feature(
            f"{side}_byte_rate",
            ratio(column("bytes"), column("duration")),
            "bytes/s",
            f"IP bytes per second {words}",
        ),
        feature(
            f"{side}_gap_variation",
            ratio(column("gap_std"), column("gap_mean")),
            "",
            f"Deviation of gaps over their mean {words}",
        ),
        feature(
            f"{side}_burst_bytes",
            ratio(column("payload_bytes"), column("bursts")),
            "bytes",
            f"Mean payload of a run {words}",
        ),
        feature(
            f"{side}_psh_share",
            ratio(column("psh"), payloads),
            "",
            f"Packets with PSH per payload packet {words}",
        ),
        feature(
            f"{side}_window_first",
            pl.when(seen).then(column("window_first")),
            "bytes",
            f"First TCP window {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_window_mean",
            pl.when(seen).then(column("window_mean")),
            "bytes",
            f"Mean TCP window {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_window_min",
            pl.when(seen).then(column("window_min")),
            "bytes",
            f"Smallest TCP window {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_window_max",
            pl.when(seen).then(column("window_max")),
            "bytes",
            f"Largest TCP window {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_mss",
            pl.when(column("mss") > 0).then(column("mss")),
            "bytes",
            f"MSS option {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_wscale",
            pl.when(column("wscale") < NO_WSCALE).then(column("wscale")),
            "",
            f"Window scale {words}",
            shortcut=True,
        ),
        feature(
            f"{side}_ttl",
            pl.when(seen).then(column("ttl")),
            "",
            f"First TTL {words}",
            shortcut=True,
        ),
    ]
    return out


_PLACE = [
    feature("src_port", pl.col("src_port"), "", "Port of the initiator", shortcut=True),
    feature("dst_port", pl.col("dst_port"), "", "Port of the responder", shortcut=True),
    feature("ip_version", pl.col("ip_version"), "", "IPv4 or IPv6", shortcut=True),
    feature(
        "time_of_day",
        pl.from_epoch(pl.col("first_ns"), "ns").dt.hour(),
        "h",
        "Hour of the day in UTC",
        shortcut=True,
    ),
]

STATISTICS: Final = FeatureSet(
    "statistics",
    2,
    "Sizes, times, bursts, flags and first bytes of the whole flow, and its handshake",
    (
        *_flow_features(),
        *[item for side, words in DIRECTIONS for item in _directed_features(side, words)],
        *HANDSHAKE_FEATURES,
        *_PLACE,
    ),
)
