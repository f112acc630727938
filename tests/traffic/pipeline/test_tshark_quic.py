"""QUIC handshakes of real captures against tshark, which opens Initial packets as well."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from veilwatch.traffic.flow.datagrams import MIN_OPENING
from veilwatch.traffic.handshake.quic import T050, T051
from veilwatch.traffic.pipeline import FlowReader

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

CAPTURES = (
    "benign/ja4/chrome-cloudflare-quic-with-secrets-b0c3ae.pcap.gz",
    "benign/ja4/quic-tls-handshake-4ae833.pcap.gz",
    "benign/ja4/quic-with-several-tls-frames-6ff4bf.pcap.gz",
    "benign/ja4/ssh2-f558e6.pcap.gz",
    "benign/ja4/tls-handshake-3ac5ad.pcap.gz",
    "benign/ja4/tls-sni-2e3030.pcap.gz",
    "benign/ja4/tls3-eab6a7.pcap.gz",
    "benign/mercury/quic_fragmented-dc23ce.pcap.gz",
    "benign/mercury/quic_reordered_frames-aac6dd.pcap.gz",
    "benign/mercury/surfshark-cc1b81.pcap.gz",
    "benign/nDPI/doq-f8130f.pcap.gz",
    "benign/nDPI/doq_adguard-020445.pcap.gz",
    "benign/nDPI/google_meet-68e110.pcap.gz",
    "benign/nDPI/os_detected-bc4ebc.pcap.gz",
    "benign/nDPI/quic-23-27e57b.pcap.gz",
    "benign/nDPI/quic-27-c2757d.pcap.gz",
    "benign/nDPI/quic-28-9c9ab0.pcap.gz",
    "benign/nDPI/quic-29-685ef2.pcap.gz",
    "benign/nDPI/quic-33-d03e64.pcap.gz",
    "benign/nDPI/quic-34-7b985d.pcap.gz",
    "benign/nDPI/quic-forcing-vn-with-data-ed7e05.pcap.gz",
    "benign/nDPI/quic-v2-fd9570.pcap.gz",
    "benign/nDPI/quic_0RTT-570f7d.pcap.gz",
    "benign/nDPI/quic_cc_ack-f2f269.pcap.gz",
    "benign/nDPI/quic_crypto_aes_auth_size-c22415.pcap.gz",
    "benign/nDPI/quic_frags_ch_in_multiple_packets-bbc8fe.pcap.gz",
    "benign/nDPI/quic_frags_ch_out_of_order_same_packet_craziness-01eb83.pcap.gz",
    "benign/nDPI/quic_frags_different_dcid-342f93.pcap.gz",
    "benign/nDPI/quic_interop_V-581404.pcap.gz",
    "benign/nDPI/quic_q50-78987b.pcap.gz",
    "benign/nDPI/quic_t50-3f33b5.pcap.gz",
    "benign/nDPI/quic_t51-dcd44c.pcap.gz",
    "benign/nDPI/snapchat_call_v1-316cec.pcap.gz",
    "gtp/arkime_synthetic-87759b.pcap.gz",
    "hostile/arkime/quicietf-69ef13.pcap",
    "hostile/ipfixprobe/quic_initial-sample-a39ba1.pcap",
    "hostile/ipfixprobe/tls-dd5df8.pcap",
    "hostile/maltrail/quic_sni-cc0760.pcap",
    "hostile/nDPI/quic-mvfst-22_decryption_error-978ca5.pcap",
    "hostile/suricata-verify/input-281cb4.pcap",
    "hostile/suricata-verify/input-4e9945.pcap",
    "hostile/suricata-verify/input-57e1c3.pcap",
    "hostile/suricata-verify/input-70cf18.pcap",
    "hostile/suricata-verify/input-e1de79.pcap",
    "hostile/suricata-verify/input-ea97f3.pcap",
    "hostile/tcpdump/quic_handshake_truncated-2c838e.pcap",
    "hostile/tcpdump/quic_retry-9ef760.pcap",
    "hostile/zeek/383379789-decrypt-crash-25011a.pcap",
    "hostile/zeek/chromium-115.0.5790.110-api-cirrus-com-5a6749.pcap",
    "hostile/zeek/chromium-dpd-custom-port-4433-61432c.pcap",
    "hostile/zeek/curl-8.1.2-dev-http3-www-google-de-e3edf9.pcap",
    "hostile/zeek/handshake-3a04fa.pcap",
    "hostile/zeek/merlinc2_Zeek_example-694c46.pcapng",
    "hostile/zeek/quic-39264-rand-03089f.pcap",
    "hostile/zeek/quic-interop-retry-928609.pcap",
    "hostile/zeek/quic-multiple-initial-fragmented-crypto-8520c4.pcap",
    "hostile/zeek/quicv2-echo-443-67bf95.pcap",
    "hostile/zeek/quicv2-echo-dpd-custom-port-4433-3974b8.pcap",
    "hostile/zeek/quicv2-http3-443-a20c11.pcap",
    "hostile/zeek/zerortt-02f921.pcap",
    "malicious/LateralMovement/sharpnopsexec-63735f.pcap.gz",
)
"""Every capture of the folder in which tshark finds QUIC."""

FIELDS = (
    *("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "udp.srcport", "udp.dstport", "udp.length"),
    *("quic.long.packet_type", "quic.long.packet_type_v2", "quic.version"),
    *("quic.dcid", "quic.scid", "quic.token_length", "quic.supported_version"),
    *("tls.handshake.extensions_server_name", "tls.handshake.ja3", "tls.handshake.ja3s"),
)
EndPoint = tuple[str, str]
Row = dict[str, list[str]]


def ours(path: Path) -> dict[frozenset[EndPoint], dict[str, Any]]:
    """The first QUIC flow between two end points."""
    with FlowReader([path]) as reader:
        frame = reader.read_all().frame.filter(pl.col("quic_retry").is_not_null())
    flows: dict[frozenset[EndPoint], dict[str, Any]] = {}
    for row in frame.iter_rows(named=True):
        ends = ((row[f"{end}_ip"], str(row[f"{end}_port"])) for end in ("src", "dst"))
        flows.setdefault(frozenset(ends), row)
    return flows


def theirs(path: Path) -> dict[frozenset[EndPoint], list[Row]]:
    """The QUIC packets between two end points, all values of each field."""
    command = ["tshark", "-r", str(path), "-n", "-Y", "quic", "-T", "fields"]
    command += [argument for field in FIELDS for argument in ("-e", field)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    flows: dict[frozenset[EndPoint], list[Row]] = defaultdict(list)
    for line in output.splitlines():
        row = {
            field: value.split(",") if value else []
            for field, value in zip(FIELDS, line.split("\t"), strict=True)
        }
        flows[frozenset((sender(row), ends(row, "dst")))].append(row)
    return flows


def ends(row: Row, side: str) -> EndPoint:
    return (row[f"ip.{side}"] or row[f"ipv6.{side}"])[-1], row[f"udp.{side}port"][-1]


def sender(row: Row) -> EndPoint:
    return ends(row, "src")


def first(rows: list[Row], field: str) -> str:
    return next((row[field][0] for row in rows if row[field]), "")


def is_initial(row: Row) -> bool:
    """Whether a datagram begins with an Initial packet; version 2 has numbers of its own."""
    negotiated = row["quic.version"][:1] == ["0x00000000"]
    return not negotiated and (
        row["quic.long.packet_type"][:1] == ["0"] or row["quic.long.packet_type_v2"][:1] == ["1"]
    )


def expected(rows: list[Row]) -> dict[str, Any]:
    """The columns as tshark's packets have them; the first one is the client's."""
    client = [row for row in rows if sender(row) == sender(rows[0])]
    server = [row for row in rows if sender(row) != sender(rows[0])]
    answers = [row for row in server if is_initial(row)]
    kinds = [kind for row in server for kind in row["quic.long.packet_type"]]
    kinds_v2 = [kind for row in server for kind in row["quic.long.packet_type_v2"]]
    negotiations = [row["quic.supported_version"] for row in server]
    return {
        "quic_version": int(first(client, "quic.version") or "0", 16),
        "quic_server_version": int(first(answers, "quic.version") or "0", 16),
        "quic_dcid": first(client, "quic.dcid"),
        "quic_token_bytes": int(first(client, "quic.token_length") or "0"),
        "quic_retry": "3" in kinds or "0" in kinds_v2,
        "quic_versions": next(([int(v, 16) for v in vs] for vs in negotiations if vs), []),
        "tls_sni": first(rows, "tls.handshake.extensions_server_name"),
        "ja3": first(rows, "tls.handshake.ja3"),
        "ja3s": first(rows, "tls.handshake.ja3s"),
    }


def reason(column: str, flow: dict[str, Any], value: Any) -> str:
    """Name the reason of a disagreement, '' where none is known."""
    if flow["quic_version"] in (T050, T051) and column == "ja3s":
        return "Google's last versions acknowledge in a frame of their own, before the ServerHello"
    if column.startswith("quic_") and not flow["quic_initial_opened"]:
        return "tshark takes up the flow later: its first datagrams are cut to 64 bytes"
    return ""


TOO_SHORT = "its Initial is shorter than any that opens a connection"
EXPECTED_REASONS = {
    "Google's last versions acknowledge in a frame of their own, before the ServerHello": 2,
    "tshark takes up the flow later: its first datagrams are cut to 64 bytes": 9,
    TOO_SHORT: 1,
}


@pytest.mark.slow
def test_quic_agrees_with_tshark(corpus_path: Path) -> None:
    agreed: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for name in CAPTURES:
        found = ours(corpus_path / name)
        for key, rows in theirs(corpus_path / name).items():
            flow = found.pop(key, None)
            if flow is None:
                short = all(int(row["udp.length"][-1]) < MIN_OPENING for row in rows)
                reasons[TOO_SHORT if short else f"{name} {key}"] += 1
                continue
            for column, value in expected(rows).items():
                if flow[column] == value:
                    agreed[column] += bool(value)
                else:
                    reasons[reason(column, flow, value) or f"{name} {column} {value}"] += 1
        assert not found, name
    assert reasons == EXPECTED_REASONS
    least = {
        "quic_version": 290,
        "quic_dcid": 285,
        "quic_server_version": 70,
        "quic_token_bytes": 45,
        "quic_versions": 34,
        "quic_retry": 6,
        "tls_sni": 236,
        "ja3": 240,
        "ja3s": 61,
    }
    assert {column: agreed[column] for column in least if agreed[column] < least[column]} == {}
